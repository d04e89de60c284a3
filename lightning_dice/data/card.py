"""A prepared data set on one page: sizes, HU, classes and weights, findings, and a mosaic of its cases."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lightning_dice.data.integrity import Finding, short_frame
from lightning_dice.data.labels import LabelSet
from lightning_dice.data.store import PreparedCase
from lightning_dice.files import atomic_write
from lightning_dice.pictures.escaping import LITERAL, markdown
from lightning_dice.pictures.legend import organ_legend
from lightning_dice.pictures.slices import draw_slice, read_pictured, richest_slice

PERCENTILES = (1, 25, 50, 75, 99)
MOST_PICTURED = 24
COLUMNS = 6
BRIGHTEST = int(np.float16(1).view(np.uint16))  # as bits; those of numbers from 0 are in their order
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; font-size: 14px }
th, td { padding: .2rem .7rem; border-bottom: 1px solid #ddd; text-align: right; vertical-align: top }
th:first-child, td:first-child, .text th, .text td { text-align: left }
.text td:nth-last-child(-n+2) { overflow-wrap: anywhere; min-width: 12rem }
img { max-width: 100% }
"""


@dataclass(frozen=True)
class Section:
    """A heading, a sentence, and a table of texts, which may be missing."""

    title: str
    text: str
    table: pd.DataFrame | None = None


def write_card(
    folder: Path,
    title: str,
    about: str,
    cases: Sequence[PreparedCase],
    labels: LabelSet,
    taught: Sequence[str],
    window_hu: Sequence[float],
    weights: Mapping[str, Sequence[float]],
    findings: Sequence[Finding],
    excluded: Mapping[str, str],
) -> Path:
    """Write `card.md` with `card.png`, and `card.html`, which holds the picture itself.

    Args:
        folder: to write to.
        title: of the page.
        about: a sentence below it: where the data come from and how they were prepared.
        cases: in the store, at least one.
        labels: the classes of the store.
        taught: names of those that would be taught, background first; the others count as background.
        window_hu: that the stored images are clipped to.
        weights: of the classes, by the name of the weighting.
        findings: of the integrity check.
        excluded: cases that were left out, with the reason.

    Returns:
        The HTML file.
    """
    sections = [
        _size(cases),
        _hu(hu_percentiles(cases, labels, window_hu), window_hu),
        _classes(cases, labels, taught, weights),
        *_findings(findings, excluded),
    ]
    shown = pictured(cases)
    mosaic = Section("Cases", f"{len(shown)} of {len(cases)}: the axial slice with the most organs in it.")
    picture = io.BytesIO()
    mosaic_figure(shown, labels, window_hu).savefig(picture, format="png", dpi=110)
    contents = {
        "card.png": picture.getvalue(),
        "card.md": _markdown(title, about, [*sections, mosaic], "card.png").encode(),
        "card.html": _html(title, about, [*sections, mosaic], picture.getvalue()).encode(),
    }
    for name, content in contents.items():
        with atomic_write(folder / name) as path:
            path.write_bytes(content)
    return folder / "card.html"


def hu_percentiles(cases: Sequence[PreparedCase], labels: LabelSet, window_hu: Sequence[float]) -> pd.DataFrame:
    """PERCENTILES of HU per class over all voxels of the stored images; NaN for a class without a voxel.

    They are exact: a float16 from 0 to 1 is one of some 15,000 numbers, which are counted. A percentile is the smallest
    value that at least so many voxels do not exceed.
    """
    counts = np.zeros((len(labels), BRIGHTEST + 1), np.int64)
    for case in cases:
        bits = np.load(case.image).view(np.uint16).ravel().astype(np.int64)
        label = np.load(case.label).ravel().astype(np.int64)
        counts += np.bincount(label * counts.shape[1] + bits, minlength=counts.size).reshape(counts.shape)
    low, high = window_hu
    hu = np.arange(BRIGHTEST + 1, dtype=np.uint16).view(np.float16).astype(float) * (high - low) + low
    below = counts.cumsum(axis=1)
    rows = [[hu[np.searchsorted(row, p / 100 * row[-1])] if row[-1] else np.nan for p in PERCENTILES] for row in below]
    return pd.DataFrame(rows, index=pd.Index(labels.names, name="class"), columns=PERCENTILES)


def pictured(cases: Sequence[PreparedCase]) -> list[PreparedCase]:
    """At most MOST_PICTURED cases, evenly from the first to the last."""
    places = np.linspace(0, len(cases) - 1, min(len(cases), MOST_PICTURED)).round().astype(int)
    return [cases[place] for place in places]


def mosaic_figure(cases: Sequence[PreparedCase], labels: LabelSet, window_hu: Sequence[float]) -> Figure:
    """An axial slice of each case under its labels, seen from the feet."""
    columns = min(COLUMNS, len(cases))
    rows = -(-len(cases) // columns)
    figure = Figure(figsize=(2.2 * max(columns, 4), 0.5 + 2.0 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes[len(cases) :]:
        axis.set_axis_off()
    drawn: set[int] = set()
    for axis, case in zip(axes, cases, strict=False):
        label = np.load(case.label)
        row = read_pictured(case.id, case.image, case.label, label, case.spacing_mm, window_hu, labels)
        drawn |= draw_slice(axis, row, label, "axial", richest_slice(label, axis=2))
        axis.set_title(case.id, fontsize=7, **LITERAL)
    organ_legend(figure, labels, drawn)
    return figure


def _size(cases: Sequence[PreparedCase]) -> Section:
    grids = {
        "scan": ([case.scan_shape for case in cases], [case.scan_spacing_mm for case in cases]),
        "prepared": ([case.shape for case in cases], [case.spacing_mm for case in cases]),
    }
    rows = {
        f"{grid}, {axis}": [
            form.format(statistic(np.array(values)[:, place]))
            for values, form in zip(of_grid, ("{:g}", "{:.4g}"), strict=True)
            for statistic in (np.min, np.median, np.max)
        ]
        for grid, of_grid in grids.items()
        for place, axis in enumerate(("to the right", "anterior", "superior"))
    }
    columns = [f"{name}, {title}" for name in ("voxels", "mm") for title in ("min", "median", "max")]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("axis")
    total = sum(sum(case.voxels) for case in cases)
    text = f"{len(cases)} cases with {total:,} prepared voxels: shapes and voxel sizes of the scans, and as prepared."
    return Section("Size", text, table)


def _hu(percentiles: pd.DataFrame, window_hu: Sequence[float]) -> Section:
    low, high = window_hu
    text = (
        "Percentiles over all voxels of a class, as prepared: "
        f"what was below {low:g} HU counts as {low:g}, and what was above {high:g} as {high:g}."
    )
    table = percentiles.map(lambda value: "–" if np.isnan(value) else f"{value:.0f}")
    return Section("HU", text, table.rename(columns=lambda p: f"{p} %"))


def _classes(
    cases: Sequence[PreparedCase], labels: LabelSet, taught: Sequence[str], weights: Mapping[str, Sequence[float]]
) -> Section:
    counts = pd.DataFrame([case.voxels for case in cases], columns=labels.names)
    counts = counts.assign(background=counts.sum(axis=1) - counts[list(taught[1:])].sum(axis=1))[list(taught)]
    voxels = counts.sum()
    table = pd.DataFrame(index=pd.Index(taught, name="class"))
    table["cases with it"] = [f"{count}" for count in (counts > 0).sum(axis=0)]
    table["voxels"] = [f"{count:,}" for count in voxels]
    table["share %"] = [f"{share:.3f}" for share in voxels / voxels.sum() * 100]
    for name, values in weights.items():
        table[name] = [f"{value:.4g}" for value in values]
    return Section("Classes", "Voxels over all cases, and the weights that training on all of them would use.", table)


def _findings(findings: Sequence[Finding], excluded: Mapping[str, str]) -> list[Section]:
    text = "What the integrity check found." if findings else "The integrity check found nothing."
    table = short_frame(findings).set_index("level") if findings else None
    sections = [Section("Findings", text, table)]
    if excluded:
        reasons = pd.DataFrame({"reason": list(excluded.values())}, index=pd.Index(list(excluded), name="case"))
        sections.append(Section("Left out", "Cases that are not among these.", reasons))
    return sections


def _markdown(title: str, about: str, sections: Sequence[Section], picture: str) -> str:
    lines = [f"# {markdown(title)}", "", markdown(about), ""]
    for section in sections:
        lines += [f"## {markdown(section.title)}", "", markdown(section.text), ""]
        if section.table is not None:
            table = section.table.reset_index()
            head, *rows = [[markdown(str(cell)) for cell in row] for row in (table.columns, *table.to_numpy())]
            marks = ["---"] + ["---" if _is_text(section) else "---:"] * (table.shape[1] - 1)
            lines += ["| " + " | ".join(row) + " |" for row in (head, marks, *rows)] + [""]
    return "\n".join([*lines, f"![Axial slices with labels]({picture})", ""])


def _html(title: str, about: str, sections: Sequence[Section], picture: bytes) -> str:
    parts = []
    for section in sections:
        parts += [f"<h2>{html.escape(section.title)}</h2>", f"<p>{html.escape(section.text)}</p>"]
        if section.table is not None:
            kind = "text" if _is_text(section) else "numbers"
            parts.append(section.table.reset_index().to_html(index=False, border=0, classes=kind))
    source = "data:image/png;base64," + base64.b64encode(picture).decode()
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8"/>',
            f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>",
            f"<h1>{html.escape(title)}</h1>\n<p>{html.escape(about)}</p>",
            *parts,
            f'<img alt="Axial slices with labels" src="{source}"/>\n</body>\n</html>\n',
        ]
    )


def _is_text(section: Section) -> bool:
    return section.title in ("Findings", "Left out")
