"""Cases, losses and settings with names that are markup somewhere: shown as they stand, nowhere carried out."""

import dataclasses
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from markdown_it import MarkdownIt
from matplotlib.backends.backend_agg import FigureCanvasAgg

from lightning_dice.data.card import write_card
from lightning_dice.data.integrity import Finding
from lightning_dice.data.layouts.nnunet import nnunet_cases
from lightning_dice.data.store import prepare_cases
from lightning_dice.data.volumes import Preparation
from lightning_dice.paper.segmentations import weighting_figure
from lightning_dice.pictures.curves import learning_curves
from lightning_dice.pictures.escaping import markdown, plotly
from lightning_dice.pictures.slices import Pictured, slices_figure
from tests.conftest import tiny_case
from tests.damaged import write_sound
from tests.grids import PAPER, write_pictures, write_run
from tests.test_pictures import metrics
from tests.test_report import make_report

IMAGE, SCRIPT, MATH = "<img src=x onerror=alert(1)>", "<script>alert(1)</script><!--\u2028", r"$\frac{$"
LATEX, LINK, TABLE = (
    r"\input{/etc/passwd}",
    "[a](javascript:alert(1)) ![b](c) <a href=javascript:alert(1)>d</a>",
    "a|b `c`",
)
HOSTILE = [IMAGE, SCRIPT, MATH, LATEX, LINK, TABLE, "*e* _f_ # ~~g~~ &lt; $h$ <b>i</b><br>j"]
LOSS = rf"my.{IMAGE}{MATH}{LATEX}|`k`_%&#~^"
SETTING = f"{IMAGE}$_%&{{}}~^#|`"
COMMANDS = {"begin", "end", "centering", "caption", "label", "toprule", "midrule", "bottomrule", "textbf", "mu",
            "textbackslash", "textasciitilde", "textasciicircum"}  # fmt: skip


class Elements(HTMLParser):
    """Of a page: start tags with their attributes, and texts."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.texts.append(data)

    def refuse_what_is_alive(self, images: int, scripts: int) -> None:
        tags = [tag for tag, _ in self.tags]
        assert tags.count("img") == images
        assert tags.count("script") == scripts
        for _, attributes in self.tags:
            assert not [name for name in attributes if name.startswith("on")]
            assert re.match(r"#|data:|$", attributes.get("href") or "")


def strings(tree):
    """All in a JSON tree."""
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, dict | list):
        for branch in tree.values() if isinstance(tree, dict) else tree:
            yield from strings(branch)


def rendered(text: str) -> Elements:
    return Elements(MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text))


def hostile_report(sweep: Path) -> Path:
    """Of a paper's cell, a variant, another loss, and a broken run, on cases with such names."""
    dice = {case: [0.5 + number / 100] * 8 for number, case in enumerate(HOSTILE)}
    # No folder can hold a slash.
    runs = [
        write_run(sweep, "simple", 0.01, dice),
        write_run(sweep, "simple", 0.01, dice, folder=f"loss=simple,lr=0.01,seed=0,settings={SETTING}"),
        write_run(sweep, LOSS, 0.01, dice, folder="loss=x,lr=0.01,seed=0"),
    ]
    for run in runs:
        plain = [f"case {number}" for number in range(len(HOSTILE))]
        write_pictures(run, sweep / "store", plain)
        files = json.loads(run.cases.read_text())
        run.cases.write_text(json.dumps(dict(zip(HOSTILE, files.values(), strict=True))))
        for case, name in zip(HOSTILE, plain, strict=True):
            run.prediction(case).parent.mkdir(parents=True, exist_ok=True)
            run.prediction(name).rename(run.prediction(case))
    broken = write_run(sweep, "square", 0.01, dice, folder=f"loss=square,lr=0.01,seed=0,settings={IMAGE}")
    broken.scores.write_text(broken.scores.read_text().replace("0.5,", f"{IMAGE},"))
    return make_report(sweep)


def test_the_page_holds_no_element_of_theirs(hostile):
    page = (hostile / "index.html").read_text(encoding="utf-8")
    elements = Elements(page)
    elements.refuse_what_is_alive(images=1, scripts=3)  # the still of the one weighting of the paper's
    shown = "".join(elements.texts)
    for text in (LOSS, f"settings={SETTING}", *HOSTILE[:3]):
        assert text in shown
    assert {attributes["data-case"] for tag, attributes in elements.tags if "data-case" in attributes} <= set(HOSTILE)


def test_the_pages_data_hold_the_names_and_end_no_script(hostile):
    page = (hostile / "index.html").read_text(encoding="utf-8")
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert not set(text) & set("<>&\u2028")
    data = json.loads(text)
    assert len(data["cases"]) > 1
    assert set(data["cases"]) <= set(HOSTILE)
    shown = [re.sub("<br>|<extra></extra>", "", text) for text in strings(data["figures"])]
    assert not [text for text in shown if "<" in text]
    assert plotly(IMAGE) in [text for text in shown if "img" in text]  # the case, told under the mouse


def test_the_table_in_markdown_holds_no_element_of_theirs(hostile):
    text = (hostile / "table1.md").read_text(encoding="utf-8")
    elements = rendered(text)
    elements.refuse_what_is_alive(images=0, scripts=0)
    tags = [tag for tag, _ in elements.tags]
    assert not {"a", "code", "em", "s", "br"} & set(tags)
    assert tags.count("th") == 10 + 4 + 10  # of nine cells; intervals have the three with scores only
    assert f"{LOSS}, 0.01" in "".join(elements.texts)


def test_the_table_in_latex_holds_no_command_of_theirs(hostile):
    text = (hostile / "table1.tex").read_text(encoding="utf-8")
    assert set(re.findall(r"\\([a-zA-Z]+)", text)) <= COMMANDS
    assert r"\textbackslash input\{/etc/passwd\}" in text
    head = next(line for line in text.splitlines() if "W_u" in line)
    cells = re.split(r"(?<!\\)&", head.removesuffix(r"\\"))
    assert len(cells) == 10
    for cell in cells[7:]:
        assert not re.search(r"(?<!\\)[$%#_&^~{}]", cell)


def test_the_figures_are_drawn(hostile):
    assert {"figure1.png", "figure3.png"} <= {path.name for path in hostile.iterdir()}
    ElementTree.parse(hostile / "figure1.svg")


@pytest.mark.parametrize("name", HOSTILE)
def test_every_picture_takes_every_name(name):
    hu, label = tiny_case(0)
    row = Pictured(name, hu.astype(np.float32), label, label, (3.0, 3.0, 3.0), PAPER)
    curves = learning_curves(metrics(True), PAPER, name)
    for figure in (curves, slices_figure([row], name), weighting_figure(name, {name: row})):
        FigureCanvasAgg(figure).draw()
        texts = [figure.get_suptitle(), *(axis.get_title() for axis in figure.axes)]
        assert any(name in text.replace("\n", " ") for text in texts)


@pytest.fixture(scope="module")
def card(tmp_path_factory) -> Path:
    """The card of a data set in which everything has such a name."""
    folder = tmp_path_factory.mktemp("card")
    root = write_sound(folder / "data", ["a"])
    ((case,), _) = prepare_cases(nnunet_cases(root), PAPER, Preparation(factor=2), folder / "store", workers=1)
    cases = [dataclasses.replace(case, id=name) for name in HOSTILE]
    findings = [Finding(name, f"{number}", "warning", name, name, name) for number, name in enumerate(HOSTILE)]
    weights = {name: [1.0] * len(PAPER.names) for name in HOSTILE}
    write_card(
        folder,
        IMAGE,
        LINK,
        cases,
        PAPER,
        PAPER.names,
        (-500.0, 500.0),
        weights,
        findings,
        dict(zip(HOSTILE, HOSTILE[::-1], strict=True)),
    )
    return folder


def test_the_card_holds_no_element_of_theirs(card):
    elements = Elements((card / "card.html").read_text(encoding="utf-8"))
    elements.refuse_what_is_alive(images=1, scripts=0)
    for name in HOSTILE:
        assert sum(name.strip() == text.strip() for text in elements.texts) >= 6


def test_the_card_in_markdown_holds_no_element_of_theirs(card):
    elements = rendered((card / "card.md").read_text(encoding="utf-8"))
    elements.refuse_what_is_alive(images=1, scripts=0)
    tags = [tag for tag, _ in elements.tags]
    assert not {"a", "code", "em", "s", "br"} & set(tags)
    assert tags.count("tr") == (1 + 6) + (1 + 8) + (1 + 8) + 2 * (1 + len(HOSTILE))
    shown = "".join(elements.texts)
    assert all(" ".join(name.split()) in shown for name in HOSTILE)


def test_markdown_and_plotly_show_what_they_are_given():
    every = "".join(map(chr, range(32, 127)))
    assert "".join(rendered(markdown(every)).texts).strip() == every.strip()
    assert markdown("a\n\n# b\t|") == r"a \# b \|"
    assert plotly("a<b & 'c'") == "a&lt;b &amp; 'c'"
    assert plotly("loss <b>, rate", 8) == "loss<br>&lt;b&gt;,<br>rate"
