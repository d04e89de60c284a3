"""The report's page, opened in a headless Chromium."""

from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import sync_playwright

from lightning_dice.data.labels import label_set
from lightning_dice.paper.viewer import case_data
from lightning_dice.pictures.slices import Pictured
from tests.browsing import ARGUMENTS, CHROMIUM, CONTRASTS, SOLID_FOLLOWS, colours, opened, press, shown
from tests.conftest import tiny_case
from tests.grids import PAPER, write_pictures, write_run
from tests.test_escaping import HOSTILE, LOSS, SETTING
from tests.test_report import CASES, MEANS, make_report

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
BACKGROUNDS = {"light": "rgb(255, 255, 255)", "dark": "rgb(22, 24, 27)"}


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def page(browser, reported):
    """The page of a small grid."""
    return opened(browser, reported / "index.html")


@pytest.mark.parametrize("width", [1400, 768, 390])
def test_nothing_is_wider_than_the_screen_and_every_text_can_be_read(page, width):
    page.set_viewport_size({"width": width, "height": 900})
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_function(SOLID_FOLLOWS)
        assert page.evaluate("document.documentElement.scrollWidth") == width
        faint = [told for told in page.evaluate(CONTRASTS) if told["contrast"] < 4.5]
        assert faint == []
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == BACKGROUNDS[scheme]
    for plot in ("curves", "distributions", "matrix"):  # six cells side by side stay readable
        assert page.locator(f"#{plot}").bounding_box()["width"] >= 860
    boxes = [page.locator(f"#{canvas}").bounding_box() for canvas in ("truth", "prediction")]
    assert max(box["width"] for box in boxes) <= width
    assert (boxes[0]["y"] < boxes[1]["y"]) == (width == 390)  # on a phone in one column, else side by side
    assert page.said == []
    page.emulate_media(color_scheme=None)
    page.set_viewport_size({"width": 1280, "height": 900})


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
    values = [float(rows.nth(i).locator("td").nth(0).get_attribute("data-dice")) for i in range(rows.count())]
    assert values == sorted(values)


def test_it_opens_on_the_largest_error_and_stays_there_across_cells(page):
    case, cell = (page.locator(f"#{name}").input_value() for name in ("case", "cell"))
    number = CASES.index(case)
    label = tiny_case(number)[1]
    errors = label != np.roll(label, 1, axis=0)  # as `write_pictures` has it
    planes = {}
    for key, (plane, axis) in enumerate({"sagittal": 0, "coronal": 1, "axial": 2}.items()):
        counts = np.moveaxis(errors, axis, 0).sum(axis=(1, 2))
        counts = counts[::-1] if axis < 2 else counts  # from the patient's right, and from the front
        press(page, str(3 - key))
        planes[plane] = f"{plane} {counts.argmax() + 1}"
        assert shown(page, plane) == (f"truth, {planes[plane]}", f"{cell}, {planes[plane]}")
    press(page, "n", "ArrowUp", "p", "ArrowDown", "ArrowDown")
    place = int(planes["axial"].split()[1]) - 1
    assert shown(page, f"axial {place}") == (f"truth, axial {place}", f"{cell}, axial {place}")
    press(page, "n")
    assert shown(page)[1] == f"{page.locator('#cell option').nth(1).inner_text()}, axial {place}"
    press(page, "p", "e")
    assert shown(page, planes["axial"])[1] == f"{cell}, {planes['axial']}"


def test_the_sides_of_the_patient_are_told(page):
    marks = []
    for key, plane in (("2", "coronal"), ("3", "sagittal"), ("1", "axial")):
        press(page, key)
        shown(page, plane)
        marks.append("".join(page.locator("#views .plane span").all_text_contents()))
    assert marks == ["RLHF" * 2, "APHF" * 2, "RLAP" * 2]


def test_planes_are_the_volumes_own(page):
    """A voxel on the patient's right, in front and at the head, in each plane as radiologists see it."""
    volume = np.zeros((4, 3, 2), np.uint8)  # (X, Y, Z), RAS+
    volume[3, 2, 1] = 7
    packed = case_data({"cell": Pictured("a", volume.astype(np.float32), volume, volume, (1, 1, 1), PAPER)})
    code = """async ([packed, shape, name]) => {
        const labels = await volume(packed);
        const { width, height, places } = planeOf(name, shape, largestError(labels, new Uint8Array(24), shape));
        return [width, height, ...Array.from(places, (place) => labels[place])];
    }"""
    for plane, size in (("axial", [4, 3]), ("coronal", [4, 2]), ("sagittal", [3, 2])):
        found = page.evaluate(code, [packed["truth"], packed["shape"], plane])
        assert found == [*size, 7, *[0] * (size[0] * size[1] - 1)]  # the upper left corner


def test_wheel_slider_and_keys_leave_what_they_show(page):
    press(page, "1", "e")
    start = int(page.locator("#slice").input_value())
    page.locator("#truth").hover()
    page.mouse.wheel(0, 100)
    page.mouse.wheel(0, 100)
    page.mouse.wheel(0, -100)
    assert shown(page, f"axial {start}")[0] == f"truth, axial {start}"  # one towards the feet, counted from 1
    page.locator("#slice").focus()
    page.keyboard.press("ArrowRight")
    assert shown(page, f"axial {start + 1}")
    assert page.locator("#place").inner_text() == f"{start + 1} of 28"


def test_filled_contours_windows_zoom_and_differences_look_unlike(page):
    def look():
        shown(page)
        return [page.locator(f"#{canvas}").screenshot() for canvas in ("truth", "prediction")]

    press(page, "e")
    seen = [look()]
    for key in ("c", "c", "c"):
        press(page, key)
        seen.append(look())
    assert seen[3] == seen[0]
    press(page, "+", "+")
    look()
    centre, box = page.evaluate("view.centre"), page.locator("#truth").bounding_box()
    page.mouse.move(box["x"] + 100, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + 140, box["y"] + 80)  # takes the picture along
    page.mouse.up()
    moved = page.evaluate("view.centre")
    assert moved[0] < centre[0]
    assert moved[1] > centre[1]
    press(page, "0")
    for key, back in (("d", "d"), ("w", "w" * (page.locator("#window option").count() - 1)), ("+", "0")):
        press(page, key)
        seen.append(look())
        if key == "d":
            assert page.locator("#legend .organ").all_text_contents()[-3:] == ["missed", "added", "another organ"]
            assert seen[-1][0] == seen[0][0]  # differences are the prediction's
            found = colours(page, "#prediction")  # over the CT
            assert any(min(g, b) - r > 80 for r, g, b in found)  # cyan, of missed
            assert any(min(r, b) - g > 80 for r, g, b in found)  # magenta, of added
        press(page, *back)
        assert look() == seen[0]
    assert len({prediction for _, prediction in seen}) == len(seen) - 1


def test_print_has_stills_for_the_3d_view_and_heads_on_every_page(page):
    assert not page.locator("#stills").is_visible()
    page.emulate_media(media="print")
    stills = page.locator("#stills img")
    assert [stills.nth(i).get_attribute("alt") for i in range(stills.count())] == [
        "Figure 2: uniform weights", "Figure 3: simple weights", "Figure 4: square weights",
    ]  # fmt: skip
    assert min(still.evaluate("still => still.naturalWidth") for still in stills.all()) > 700
    for hidden in ("#solid", "#keys", "nav", "#case"):
        assert not page.locator(hidden).is_visible()
    style = "head => [getComputedStyle(head).display, getComputedStyle(head).breakInside]"
    assert page.locator("#table1 thead").evaluate(style) == ["table-header-group", "avoid"]
    assert page.locator("#table1 tbody tr").nth(0).evaluate("row => getComputedStyle(row).breakInside") == "avoid"
    page.emulate_media(media="screen")


def test_curves_of_many_cells_are_made_smaller_for_paper(page):
    curves = page.locator("#curves")
    before = page.evaluate("byId('curves').layout.width")
    page.evaluate("Plotly.relayout('curves', { width: 3000 })")
    page.emulate_media(media="print")
    assert curves.evaluate("plot => plot.scrollWidth") > 2000
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("#curves svg.main-svg").first.bounding_box()["width"] <= 1030
    page.emulate_media(media="screen")
    page.evaluate("width => Plotly.relayout('curves', { width })", before)
    assert page.locator("#curves svg.main-svg").first.bounding_box()["width"] > 1030


def test_windows_are_those_that_the_stored_values_reach(page):
    names = page.locator("#window option").all_text_contents()
    assert names == ["abdomen (W 400, L 40)", "liver (W 150, L 30)", "all values"]  # of -500 to 500 HU


def test_the_table_shows_one_score_at_a_time(page):
    cell = page.locator("#table1 tbody tr", has=page.get_by_text("background", exact=True)).locator("td").nth(0)
    assert cell.inner_text() == "98.0\n97.0 to 99.0\npaper 99.9, -1.9"
    for score, text in (("hd95", "1.0"), ("nsd", "100.0"), ("dice", "98.0")):
        page.locator(f"input[name=score][value={score}]").check()
        assert cell.inner_text().split()[0] == text
        page.locator("#table1 thead button").nth(1).click()
        assert page.locator("#table1 thead th").nth(1).get_attribute("aria-sort") == "descending"


def test_the_3d_view_draws_the_organs(page):
    page.locator("input[name=solid][value=truth]").check()
    page.wait_for_function("document.querySelectorAll('#solid .legendtext').length === 7")
    for _ in range(40):  # until WebGL, here in software, has drawn
        if len(colours(page, "#solid")) > 50:
            return
        page.wait_for_timeout(500)
    pytest.fail("the 3D view is blank")


def test_a_surface_encloses_its_voxels(page):
    code = """() => {
        const n = 24, labels = new Uint8Array(n ** 3);
        for (let z = 0, i = 0; z < n; z++) for (let y = 0; y < n; y++) for (let x = 0; x < n; x++, i++)
            labels[i] = (x - 12) ** 2 + (y - 10) ** 2 + (z - 11) ** 2 < 64 ? 2 : 0;
        const { vertices, quads } = surfaceNet(labels, [n, n, n], 2);
        return [...vertices.map((places) => [...places]), quads];
    }"""
    *vertices, quads = page.evaluate(code)
    vertices, quads = np.stack(vertices, axis=1), np.reshape(quads, (-1, 4))
    assert np.linalg.norm(vertices - (12, 10, 11), axis=1) == pytest.approx(8, abs=0.6)
    triangles = vertices[np.concatenate([quads[:, :3], quads[:, [0, 2, 3]]])]
    volume = np.linalg.det(triangles).sum() / 6  # by Gauss's theorem, negative were they seen from inside
    assert volume == pytest.approx(4 / 3 * np.pi * 8**3, rel=0.06)


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
    assert first.locator("td").nth(0).inner_text() == f"{np.mean(MEANS['simple', 0.01][1:]):.1f}"


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


def test_names_that_are_markup_are_shown_as_they_stand(browser, hostile):
    cells = ["simple, 0.01", f"simple, 0.01, settings={SETTING}", f"{LOSS}, 0.01"]
    page = opened(browser, hostile / "index.html")
    assert page.locator("img:not([src^='data:']), a[href^=javascript], [onerror]").count() == 0
    assert page.locator("#distributions .legendtext").all_text_contents() == cells
    wrapped = page.locator("#curves .annotation-text").all_text_contents()
    assert {name.replace(" ", "") for name in cells} < {text.replace(" ", "") for text in wrapped}
    assert page.locator("#cell option").all_text_contents() == cells
    for case in page.locator("#case option").all_text_contents():
        assert case in HOSTILE
        page.locator("#case").select_option(case)
        page.locator("#cell").select_option(cells[2])
        shown(page, f"{cells[2]}, axial ")
    assert page.said == []
    assert all(url.startswith(("file:", "data:", "blob:")) for url in page.asked)
