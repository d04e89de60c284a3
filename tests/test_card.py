import base64
import io
import re
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lightning_dice.data.card import MOST_PICTURED, PERCENTILES, hu_percentiles, pictured, write_card
from lightning_dice.data.integrity import Finding
from lightning_dice.data.layouts.nnunet import nnunet_cases
from lightning_dice.data.store import prepare_cases
from lightning_dice.data.volumes import Preparation
from lightning_dice.loss import class_weights
from lightning_dice.prepare import prepare
from tests.conftest import PAPER, write_nifti
from tests.damaged import AFFINE, body, write_sound
from tests.test_config import composed

WINDOW = (-500.0, 500.0)
FINDINGS = [Finding("b", "far/away/b.nii.gz", "warning", "range", "holds <odd> values | " + "very " * 20 + "odd", "HU")]


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    """Three bodies; the second has no gallbladder, and voxels and shape of its own."""
    folder = tmp_path_factory.mktemp("card")
    root = write_sound(folder / "data", ["a", "b", "c"])
    hu, label = body(7, (30, 24, 22))
    label[label == PAPER.names.index("gallbladder")] = 0
    affine = AFFINE @ np.diag([1, 1, 0.5, 1])
    write_nifti(root / "imagesTr" / "b_0000.nii.gz", hu, affine)
    write_nifti(root / "labelsTr" / "b.nii.gz", label, affine)
    return prepare_cases(nnunet_cases(root), PAPER, Preparation(factor=1), folder / "store", workers=1)[0]


@pytest.fixture(scope="module")
def card(cases, tmp_path_factory):
    voxels = np.sum([case.voxels for case in cases], axis=0)
    weights = {"simple": class_weights(voxels, "simple").tolist()}
    folder = tmp_path_factory.mktemp("store")
    assert write_card(
        folder, "A & B", "somewhere", cases, PAPER, PAPER.names, WINDOW, weights, FINDINGS, {"d": "<gone>"}
    ) == (folder / "card.html")
    return folder


def page(card):
    """The HTML's tables by their heading; it must be well-formed XML for that."""
    root = ElementTree.fromstring((card / "card.html").read_text(encoding="utf-8"))
    tables, title = {}, ""
    for element in root.find("body"):
        if element.tag == "h2":
            title = element.text
        elif element.tag == "table":
            rows = [["".join(cell.itertext()) for cell in row] for row in element.iter("tr")]
            tables[title] = pd.DataFrame(rows[1:], columns=rows[0]).set_index(rows[0][0])
    return root, tables


def test_the_figures_are_those_counted_by_hand(cases, card):
    hu = np.concatenate([np.load(case.image).ravel() for case in cases])
    label = np.concatenate([np.load(case.label).ravel() for case in cases])
    _, tables = page(card)
    size = tables["Size"]
    for grid in ("scan", "prepared"):
        assert size.loc[f"{grid}, to the right"].tolist() == ["30", "30", "30", "10", "10", "10"]
        assert size.loc[f"{grid}, superior"].tolist() == ["20", "20", "22", "5", "10", "10"]
    classes = tables["Classes"]
    assert classes["cases with it"].tolist() == ["3"] * 6 + ["2", "3"]
    for index, name in enumerate(PAPER.names):
        voxels = (label == index).sum()
        weight = label.size / (8 * voxels + 1)
        expected = ["3" if name != "gallbladder" else "2", f"{voxels:,}", f"{voxels / label.size * 100:.3f}"]
        assert classes.loc[name].tolist() == [*expected, f"{weight:.4g}"]
        values = hu[label == index].astype(float) * 1000 - 500
        ours = [float(text) for text in tables["HU"].loc[name]]
        assert np.allclose(ours, np.percentile(values, PERCENTILES, method="inverted_cdf"), atol=0.5 + 1e-6)
    assert f"3 cases with {label.size:,} prepared voxels" in (card / "card.md").read_text()


def test_the_scans_own_sizes_are_told_beside_the_prepared_ones(tmp_path):
    """Stored with its axes in another order: what is told runs along the patient's axes."""
    root = write_sound(tmp_path / "data", ["a"])
    hu, label = body(7, (30, 24, 22))
    affine = AFFINE[:, [2, 0, 1, 3]] @ np.diag([0.5, 1, 1, 1])
    for folder, array in (("imagesTr/a_0000", hu), ("labelsTr/a", label)):
        write_nifti(root / f"{folder}.nii.gz", array.transpose(2, 0, 1), affine)
    (case,), _ = prepare_cases(nnunet_cases(root), PAPER, Preparation(factor=2), tmp_path / "store", workers=1)
    assert (case.scan_shape, case.scan_spacing_mm) == ((30, 24, 22), (10.0, 10.0, 5.0))
    assert (case.shape, case.spacing_mm) == ((15, 12, 11), (20.0, 20.0, 10.0))


def test_percentiles_are_exact_and_missing_without_a_voxel(cases):
    only = [case for case in cases if case.id == "b"]
    table = hu_percentiles(only, PAPER, WINDOW)
    assert table.loc["gallbladder"].isna().all()
    values = np.load(only[0].image)[np.load(only[0].label) == 3].astype(float) * 1000 - 500
    assert np.array_equal(table.loc["liver"], np.percentile(values, PERCENTILES, method="inverted_cdf"))


def test_the_page_is_well_formed_and_holds_everything(card):
    root, tables = page(card)
    text = (card / "card.html").read_text(encoding="utf-8")
    assert root.find("body/h1").text == "A & B"
    assert root.find("body/p").text == "somewhere"
    assert not re.search(r"""(src|href)\s*=\s*["'](?!data:)|url\(|https?:|<script""", text)
    (image,) = root.iter("img")
    kind, _, content = image.get("src").partition(",")
    assert kind == "data:image/png;base64"
    content = base64.b64decode(content)
    assert content == (card / "card.png").read_bytes()
    assert np.asarray(Image.open(io.BytesIO(content)).convert("L")).std() > 10
    assert tables["Findings"].iloc[0].tolist() == ["b", "range", "b.nii.gz", FINDINGS[0].value, "HU"]
    assert tables["Left out"].loc["d", "reason"] == "<gone>"


def test_the_markdown_has_the_same_tables(card):
    _, tables = page(card)
    parts = re.split(r"^## (.*)$", (card / "card.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    for title, part in zip(parts[1::2], parts[2::2], strict=True):
        lines = [line for line in part.splitlines() if line.startswith("|")]
        cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines]
        rows = [[re.sub(r"\\(\W|_)", r"\1", cell.strip()) for cell in row] for row in cells]
        if title == "Cases":
            assert "![Axial slices with labels](card.png)" in part
        else:
            assert set("".join(rows[1])) <= set("-:")
            assert rows[2:] == tables[title].reset_index().to_numpy().tolist()


def test_a_large_set_is_shown_by_cases_from_all_over_it(cases):
    many = [cases[0]] * 30 + [cases[1]] * 40 + [cases[2]] * 30
    shown = pictured(many)
    assert len(shown) == MOST_PICTURED
    assert shown[0] is cases[0]
    assert shown[-1] is cases[2]
    assert {shown.count(case) for case in cases} <= {7, 8, 9, 10}
    assert pictured(cases) == cases


def test_preparing_writes_the_card_and_says_where(tmp_path, capsys):
    root = write_sound(tmp_path / "data", ["a", "b"])
    overrides = ("data=nnunet", f"data.root={root}", "data.preparation.factor=1", f"cache={tmp_path}")
    prepare(composed("prepare", *overrides))
    folder = tmp_path / "prepared" / "nnunet"
    assert str(folder / "card.html") in capsys.readouterr().out
    assert {"card.html", "card.md", "card.png", "integrity.csv"} < {path.name for path in folder.iterdir()}
    assert "The integrity check found nothing." in (folder / "card.html").read_text()
