"""The colours of the report's page: every text can be read, in light and dark, by WCAG 2.2's contrast of 4.5 to 1."""

import re
from pathlib import Path

import pytest

from lightning_dice.paper.interactive import MATRIX_COLOURS, MATRIX_TEXT

STYLE = (Path(__file__).parents[1] / "lightning_dice" / "paper" / "assets" / "page.css").read_text(encoding="utf-8")
TEXTS = {"--text": ("--page", "--block"), "--faint": ("--page",), "--link": ("--page",)}  # what they stand on


def luminance(colour: str) -> float:
    shares = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def test_contrast_by_hand():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.005)  # the lightest grey that passes on white


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_every_text_can_be_read_on_what_it_stands_on(scheme):
    blocks = re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)
    assert len(blocks) == 2
    colours = dict(re.findall(r"(--\w+): (#\w{6});", blocks[scheme]))
    assert colours.keys() == dict(re.findall(r"(--\w+): (#\w{6});", blocks[0])).keys()
    for text, grounds in TEXTS.items():
        for ground in grounds:
            assert contrast(colours[text], colours[ground]) >= 4.5, f"{text} on {ground}"


def test_no_other_colour_is_a_texts():
    """But that of the marks on the slices, white on black."""
    assert set(re.findall(r"(?<![-\w])color: ([^;]+);", STYLE)) == {
        "var(--text)",
        "var(--faint)",
        "var(--link)",
        "#ffffff",
    }
    assert ".plane { position: relative; background: #000000; color: #ffffff; }" in STYLE


def test_numbers_can_be_read_on_every_colour_of_the_matrix():
    for _, colour in MATRIX_COLOURS:
        assert contrast(MATRIX_TEXT, colour) >= 4.5
