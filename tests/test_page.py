"""The report's page, opened in a headless Chromium."""

import shutil
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from lightning_dice.data.labels import label_set
from tests.grids import write_pictures, write_run
from tests.test_escaping import HOSTILE, LOSS, SETTING, hostile_report
from tests.test_report import CASES, MEANS, cases_around, make_report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
# No sandbox, since continuous integration runs as root; WebGL in software.
ARGUMENTS = [
    "--no-sandbox",
    "--enable-unsafe-swiftshader",
    "--use-angle=swiftshader",
    "--disable-background-networking",
]


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


def opened(browser: Browser, file: Path, width: int = 1280) -> Page:
    """A page that has drawn itself; the messages of its console are in `said`, and what it asked for in `asked`."""
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.said, page.asked = [], []
    page.on("console", lambda message: page.said.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: page.said.append(str(error)))
    page.on("dialog", lambda dialog: (page.said.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(file.as_uri())
    page.wait_for_function("document.getElementById('place').textContent")
    page.wait_for_selector("#solid canvas")
    return page


@pytest.fixture(scope="module")
def page(browser, tmp_path_factory):
    """The page of a small grid."""
    sweep = tmp_path_factory.mktemp("sweep")
    for (loss, lr), means in MEANS.items():
        run = write_run(sweep, loss, lr, cases_around([m - lr * 100 for m in means]))
        write_pictures(run, sweep / "store", CASES)
    return opened(browser, make_report(sweep) / "index.html")


def test_on_a_phone_only_tables_and_plots_scroll_sideways(browser, page):
    phone = opened(browser, Path(page.url.removeprefix("file://")), width=390)
    assert phone.said == []
    assert phone.evaluate("document.documentElement.scrollWidth") == 390
    for plot in ("curves", "distributions", "matrix"):  # six cells side by side stay readable
        assert phone.locator(f"#{plot}").bounding_box()["width"] >= 860
    assert phone.locator("#slice").bounding_box()["width"] <= 390
    phone.close()


def colours(page, selector: str) -> set[tuple[int, ...]]:
    """Of the pixels on the screen."""
    shot = np.asarray(Image.open(BytesIO(page.locator(selector).screenshot())).convert("RGB"))
    return set(map(tuple, shot.reshape(-1, 3).tolist()))


def test_it_loads_without_an_error_and_without_the_network(page):
    assert page.said == []
    assert all(url.startswith(("file:", "data:", "blob:")) for url in page.asked)
    assert page.title() == "Class weighting of the Dice loss"


def test_the_table_sorts_both_ways(page):
    head = page.locator("#table1 thead button").nth(1)  # uniform at 0.001
    rows = page.locator("#table1 tbody").nth(0).locator("tr")
    averages = page.locator("#table1 tbody").nth(1).locator("th").all_text_contents()
    assert averages == ["AVG", "MAX", "MIN", "AVG organs", "MAX organs", "MIN organs"]
    head.click()
    assert rows.nth(0).locator("th").inner_text() == "background"
    assert page.locator("#table1 thead th").nth(1).get_attribute("aria-sort") == "descending"
    head.focus()
    page.keyboard.press("Enter")
    assert rows.nth(0).locator("th").inner_text() == "gallbladder"
    assert page.locator("#table1 tbody").nth(1).locator("th").all_text_contents() == averages
    values = [float(rows.nth(i).locator("td").nth(0).get_attribute("data-value")) for i in range(rows.count())]
    assert values == sorted(values)


def slice_shown(page, choice: str) -> bytes:
    """The slice with truth, prediction or CT alone, once it is drawn."""
    page.locator(f"input[value={choice}]").check()
    which = page.locator("#cell").input_value() if choice == "prediction" else choice
    shown = f"{which} {page.locator('#z').input_value()}"
    page.wait_for_function("text => document.getElementById('slice').dataset.shown === text", arg=shown)
    return page.locator("#slice").screenshot()


def test_the_slider_moves_through_the_slices_by_keyboard(page):
    before, place = slice_shown(page, "prediction"), page.locator("#place").inner_text()
    page.locator("#z").focus()
    for _ in range(6):
        page.keyboard.press("ArrowRight")
    assert slice_shown(page, "prediction") != before
    assert page.locator("#place").inner_text() == f"{int(place.split()[0]) + 6} of 28"


def test_truth_prediction_and_ct_are_switched(page):
    assert len({slice_shown(page, choice) for choice in ("truth", "none", "prediction")}) == 3


def test_the_3d_view_draws_the_organs(page):
    page.locator("input[value=truth]").check()
    page.wait_for_function("document.querySelectorAll('#solid .legendtext').length === 7")
    for _ in range(40):  # until WebGL, here in software, has drawn
        if len(colours(page, "#solid")) > 50:
            return
        page.wait_for_timeout(500)
    pytest.fail("the 3D view is blank")


def test_the_curves_tell_values_under_the_mouse(page):
    page.locator("#curves").scroll_into_view_if_needed()
    box = page.locator("#curves .nsewdrag").first.bounding_box()
    for place in range(40):  # plotly looks at the mouse now and then
        page.mouse.move(box["x"] + (0.3 + 0.01 * place) * box["width"], box["y"] + box["height"] / 2)
        page.wait_for_timeout(250)
        if page.locator("#curves .hoverlayer text").count():
            return
    pytest.fail("no value is told under the mouse")


def test_a_worst_case_is_shown_on_a_click(page):
    link = page.locator("a[data-case]").nth(2)
    link.click()
    assert page.locator("#case").input_value() == link.get_attribute("data-case")
    assert page.locator("#cell").input_value() == link.get_attribute("data-cell")


def test_the_claims_are_told_with_their_grounds(page):
    rows = page.locator("#summary table tbody tr")
    assert [rows.nth(i).locator("b").nth(0).inner_text() for i in range(4)] == ["undecided"] + ["not known yet"] * 2 + [
        "undecided"
    ]
    assert [rows.nth(i).locator("b").nth(1).inner_text() for i in range(4)] == [
        f"as printed: {word}" for word in ("yes", "no", "yes", "yes")
    ]
    assert "4 cases in common, too few for an answer; 6 would do" in rows.nth(0).inner_text()


def test_the_page_of_other_classes_shows_them(browser, tmp_path):
    labels = label_set("mine", {"kidney_left": None, "tumour": {"colour": "#ff0000"}})
    run = write_run(tmp_path, "simple", 0.01, {case: [0.9, 0.5, 0.4] for case in CASES}, labels=labels)
    write_pictures(run, tmp_path / "store", CASES)
    page = opened(browser, make_report(tmp_path) / "index.html")
    assert page.said == []
    assert page.locator("#legend .organ").all_text_contents() == ["kidney_left", "tumour"]
    swatch = page.locator("#legend .swatch").nth(1)
    assert swatch.evaluate("swatch => getComputedStyle(swatch).backgroundColor") == "rgb(255, 0, 0)"
    page.wait_for_function("document.querySelectorAll('#solid .legendtext').length === 2")
    assert page.locator("h3").all_text_contents() == ["Ranking", "Notes", "Worst cases"]
    assert page.locator("#table1 tbody th").all_text_contents()[:3] == ["background", "kidney_left", "tumour"]


def test_the_ranking_is_a_table_below_the_claims(page):
    assert page.locator("#summary h3").all_text_contents()[:2] == ["The paper's claims", "Ranking"]
    first = page.locator("#ranking tbody tr").nth(0)
    assert first.locator("th").inner_text() == "simple, 0.01"
    assert first.locator("td").nth(0).inner_text() == f"{np.mean(MEANS['simple', 0.01][1:]) - 1:.1f}"


def test_an_old_browser_and_a_report_without_pictures_say_so(browser, page, tmp_path):
    assert not page.locator("#old").is_visible()
    scores = Path(page.url.removeprefix("file://")).parent / "scores.csv.gz"
    bare = browser.new_page()
    bare.add_init_script("delete window.DecompressionStream")
    bare.goto((make_report(scores, f"output={tmp_path}") / "index.html").as_uri())
    assert bare.locator("#old").is_visible()
    assert not bare.locator("#viewer").is_visible()
    assert not bare.locator("nav a[href='#viewer']").is_visible()
    bare.close()


def test_names_that_are_markup_are_shown_as_they_stand(browser, tmp_path):
    cells = ["simple, 0.01", f"simple, 0.01, settings={SETTING}", f"{LOSS}, 0.01"]
    page = opened(browser, hostile_report(tmp_path) / "index.html")
    assert page.locator("img, a[href^=javascript], [onerror]").count() == 0
    assert page.locator("#distributions .legendtext").all_text_contents() == cells
    wrapped = page.locator("#curves .annotation-text").all_text_contents()
    assert {name.replace(" ", "") for name in cells} < {text.replace(" ", "") for text in wrapped}
    assert page.locator("#cell option").all_text_contents() == cells
    for case in page.locator("#case option").all_text_contents():
        assert case in HOSTILE
        page.locator("#case").select_option(case)
        page.locator("#cell").select_option(cells[2])
        shown = f"{cells[2]} {page.locator('#z').input_value()}"
        page.wait_for_function("text => document.getElementById('slice').dataset.shown === text", arg=shown)
    assert page.said == []
    assert all(url.startswith(("file:", "data:", "blob:")) for url in page.asked)
