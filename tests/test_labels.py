"""Label sets: which class a label value is, what is annotated, and what can be chosen."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.color import rgb2lab

from lightning_dice.config import config_folder, shipped_labels
from lightning_dice.data.labels import (
    BACKGROUND,
    PALETTE,
    Label,
    LabelChoice,
    LabelSet,
    label_set,
    normalized,
    told_names,
)
from lightning_dice.errors import InputError

SHIPPED = sorted(path.stem for path in (config_folder() / "labels").glob("*.yaml") if path.stem != "dataset")
# Machado, Oliveira & Fernandes 2009 (IEEE TVCG 15:1291), severity 1, on linear RGB.
DICHROMATS = {
    "protanope": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranope": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanope": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
BELLY = label_set("belly", {"liver": None, "tumour": None, "kidney_left": {"synonyms": ["Left Kidney"]}})


def test_the_papers_classes_in_the_order_of_its_table():
    paper = shipped_labels("paper")
    assert paper.names == (*("background", "artery", "vein", "liver", "spleen", "stomach", "gallbladder", "pancreas"),)
    assert [label.rgb for label in paper.labels[:3]] == [(0, 0, 0), (213, 94, 0), (0, 114, 178)]


def test_all_classes_of_totalsegmentator_by_name():
    names = shipped_labels("totalsegmentator").names
    assert len(names) == 118
    # of the ids that its documentation gives
    assert [names[i] for i in (1, 5, 52, 64, 91, 117)] == [
        *("spleen", "liver", "aorta", "portal_vein_and_splenic_vein", "skull", "costal_cartilages"),
    ]


@pytest.mark.parametrize("name", SHIPPED)
def test_codes_are_in_pydicoms_dictionary(name):
    codes = pytest.importorskip("pydicom.sr.codedict").codes
    for label in shipped_labels(name).organs:
        assert label.snomed is None or hasattr(codes.SCT, label.snomed), label


@pytest.mark.parametrize("name", SHIPPED)
def test_sides_are_those_of_the_names(name):
    for label in shipped_labels(name).organs:
        for side in ("left", "right"):
            if side in label.name.split("_"):
                assert label.side == side


@pytest.mark.parametrize("sight", ["normal", *DICHROMATS])
def test_thirty_colours_can_be_told_apart(sight):
    rgb = np.array([Label("x", colour).rgb for colour in PALETTE]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    if sight != "normal":
        linear = (linear @ np.array(DICHROMATS[sight]).T).clip(0, 1)
    seen = rgb2lab(np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)[None])[0]
    apart = np.linalg.norm(seen[:, None] - seen, axis=2)
    assert len(PALETTE) == 30
    assert apart[~np.eye(30, dtype=bool)].min() > 14


def test_classes_without_a_colour_get_different_ones():
    labels = label_set("many", {f"organ_{i}": {"colour": PALETTE[3]} if i == 20 else None for i in range(30)})
    assert sorted(label.colour for label in labels.organs) == sorted(PALETTE)


def test_a_value_is_the_last_class_that_is_known_of_its_structures():
    assert BELLY.index(["liver"]) == 1
    assert BELLY.index(["liver", "tumour"]) == 2
    assert shipped_labels("paper").index(["liver", "tumour"]) == 3
    assert BELLY.index(["left_kidney"]) == 3
    assert BELLY.index(["heart"]) == BELLY.index([]) == BACKGROUND


def test_what_is_annotated():
    assert BELLY.annotated({"left_kidney", "liver", "heart"}) == ("background", "liver", "kidney_left")


def test_merged_classes_are_annotated_only_with_all_their_parts():
    both = shipped_labels("totalsegmentator").select([{"kidney": ["kidney_left", "kidney_right"]}, "liver"])
    assert both.names == ("background", "kidney", "liver")
    assert both.index(["kidney_right"]) == both.index(["left_kidney"]) == 1
    assert both.annotated({"kidney_left", "liver"}) == ("background", "liver")
    assert both.annotated({"kidney_left", "right_kidney", "liver"}) == ("background", "kidney", "liver")


def test_an_order_and_a_new_name():
    chosen = shipped_labels("paper").select(["spleen", {"hepar": "liver"}, "background"])
    assert chosen.names == ("background", "spleen", "hepar")
    assert chosen.index(["liver"]) == 2
    assert chosen.labels[2].volume_ml == (120, 3000)


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        (["liver", "kidney"], "kidney is not among the classes of labels=paper; expected some of artery"),
        ([{"both": ["liver", "heart"]}], "heart is not among"),
        (["liver", {"organs": ["liver", "spleen"]}], "liver is in it twice"),
        ([], "0 classes beside background"),
    ],
)
def test_what_cannot_be_chosen(classes, said):
    with pytest.raises(InputError, match=said):
        shipped_labels("paper").select(classes)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({"liver": None, "Liver ": {"synonyms": ["liver"]}}, "liver is in it twice"),
        ({"liver": None, "hepar": {"synonyms": ["liver"]}}, "expected each structure once"),
        ({"background": None}, "background"),
        ({f"organ {i}": None for i in range(256)}, "256 classes"),
        ({"liver": {"colour": "red"}}, "#rrggbb"),
        ({"--": None}, "expected a name with a letter"),
        ({"liver": {"volume_ml": [5, 1]}}, r"label liver: volume_ml=\[5,1\]: expected \[low, high\]"),
    ],
)
def test_sets_that_cannot_be(labels, said):
    with pytest.raises(InputError, match=said):
        label_set("mine", labels)


def test_present_are_those_annotated_in_all_cases():
    choice = LabelChoice(shipped_labels("paper"))
    declared = [["liver", "spleen", "aorta"], ["spleen", "aorta", "heart"]]
    assert choice.of(declared, "root").names == ("background", "artery", "spleen")
    assert LabelChoice(shipped_labels("paper"), outputs="all").of(declared, "root") == shipped_labels("paper")


def test_classes_asked_for_by_name_must_be_annotated():
    choice = LabelChoice(shipped_labels("paper"), classes=("liver", "spleen"))
    with pytest.raises(InputError, match=r"data/x does not annotate liver in all of its cases, only spleen"):
        choice.of([["spleen"]], "data/x")


def test_a_data_set_without_any_class_of_the_set():
    with pytest.raises(InputError, match="labels=dataset"):
        LabelChoice(shipped_labels("paper")).of([["heart"]], "data/x")


def test_the_data_sets_own_classes_with_what_is_known_of_them():
    choice = LabelChoice(shipped_labels("totalsegmentator"), is_declared=True)
    labels = choice.of([["right_kidney", "tumour", "aorta", "artery"]], "root")
    assert labels.names == ("background", "right_kidney", "tumour", "aorta", "artery")
    assert labels.labels[1].volume_ml == (15, 600)
    assert labels.labels[1].side == "right"
    assert labels.labels[2].volume_ml is None
    assert len({label.colour for label in labels.labels}) == 5


def test_names_are_matched_across_spellings():
    assert normalized(" Left-Kidney ") == normalized("left kidney") == "left_kidney"
    assert normalized("HCC/ICC (seg. 4)") == "hcc_icc_seg._4"


@pytest.mark.parametrize("name", SHIPPED)
def test_plain_types_and_back(name):
    labels = shipped_labels(name)
    assert LabelSet.from_plain(json.loads(json.dumps(labels.to_plain()))) == labels


@given(st.lists(st.sampled_from(shipped_labels("paper").names[1:]), unique=True, min_size=1))
def test_places_undo_indices(names):
    paper = shipped_labels("paper")
    chosen = ("background", *names)
    assert [paper.places(chosen)[index] for index in paper.indices(chosen)] == list(range(len(chosen)))
    others = [place for name, place in zip(paper.names, paper.places(chosen), strict=True) if name not in chosen]
    assert others == [BACKGROUND] * (8 - len(chosen))


def test_a_line_of_names_has_those_in_which_they_differ():
    names = [f"organ_{number}" for number in range(12)]
    assert told_names(names) == f"{', '.join(names[:10])} and 2 more"
    assert told_names(names, [*names[:11], "kidney"]) == "organ_10, organ_11"
    assert told_names(names, ["kidney", *names[1:]]) == told_names(names, names[:11]) == told_names(names)
    assert told_names({"b", "a"}) == "a, b"
