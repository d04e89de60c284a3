import functools
import json
import string

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from lightning_dice.config import config_folder
from lightning_dice.data.cases import Split, given_split
from lightning_dice.data.dataset import CTDataset
from lightning_dice.data.labels import LabelChoice, label_set
from lightning_dice.data.layouts.nnunet import nnunet_cases
from lightning_dice.data.layouts.paired import paired_cases
from lightning_dice.data.layouts.totalsegmentator import totalsegmentator_cases
from lightning_dice.data.volumes import Preparation
from lightning_dice.errors import InputError
from lightning_dice.prepare import prepare
from tests.conftest import NAMES, PAPER, tiny_case, write_nifti, write_nnunet


def test_nnunet_pairs_images_and_labels(nnunet_root):
    cases = nnunet_cases(nnunet_root)
    assert [case.id for case in cases] == [f"case_{number}" for number in range(8)]
    assert cases[3].image == nnunet_root / "imagesTr" / "case_3_0000.nii.gz"
    assert cases[3].labels[0].path == nnunet_root / "labelsTr" / "case_3.nii.gz"


def declared(root, labels):
    """The label file of a case that is said to have these labels."""
    write_nnunet(root, 1)
    (root / "dataset.json").write_text(json.dumps({"labels": labels, "file_ending": ".nii.gz"}))
    (case,) = nnunet_cases(root)
    return case


def test_nnunet_labels_are_matched_by_name_and_others_are_background(tmp_path):
    case = declared(tmp_path, {"background": 0, "spleen": 1, "kidney": 2, "liver": 9})
    assert case.structures == ("spleen", "kidney", "liver")
    assert case.labels[0].indices(PAPER) == {0: 0, 1: NAMES.index("spleen"), 2: 0, 9: NAMES.index("liver")}


def test_nnunet_knows_synonyms_and_regions(tmp_path):
    labels = {
        "background": 0,
        "Aorta": 1,
        "Portal Vein and Splenic-Vein": 4,
        "tumour": 3,
        "LIVER": [2, 3],
        "Gall Bladder": 5,
    }
    case = declared(tmp_path, labels)
    organs = {value: NAMES[index] for value, index in case.labels[0].indices(PAPER).items() if index}
    assert organs == {1: "artery", 4: "vein", 2: "liver", 3: "liver", 5: "gallbladder"}
    assert PAPER.annotated(case.structures) == ("background", "artery", "vein", "liver", "gallbladder")
    own = label_set("own", {"tumour": None, "liver": None})
    assert case.labels[0].indices(own) == {0: 0, 1: 0, 4: 0, 2: 2, 3: 2, 5: 0}  # of two regions the last one
    own = label_set("own", {"tumour": None})
    assert case.labels[0].indices(own) == {0: 0, 1: 0, 4: 0, 2: 0, 3: 1, 5: 0}


@pytest.mark.parametrize(
    ("labels", "left_over"),
    [
        ({"background": 0, "liver": 3}, ()),
        ({"background": 0, "liver": 3, "kidney_left": 1, "kidney_right": 2}, ("kidney_left", "kidney_right")),
        ({"background": 0, "liver": [2, 3], "tumour": 3}, ()),  # it is the liver's
        ({"background": 0, "liver": 2, "tumour": 3, "all": [2, 3]}, ("tumour", "all")),
    ],
)
def test_what_is_in_no_class_is_known_by_name(tmp_path, labels, left_over):
    assert declared(tmp_path, labels).left_over(PAPER) == (left_over, ())


@pytest.mark.parametrize(
    ("ids", "highest", "left_over"),
    [
        ({"liver": 1}, 1, ((), ())),
        ({"liver": [1, 2], "spleen": 4}, 4, ((), (3,))),
        ({"liver": [1, 2], "liver_tumour": 2, "Left kidney": 5}, 0, (("left_kidney",), ())),
    ],
)
def test_values_in_no_class_are_known(tmp_path, ids, highest, left_over):
    write_nifti(tmp_path / "img/img1.nii", np.zeros((4, 4, 4), np.uint8))
    (case,) = paired_cases(tmp_path, ids=ids, **{**PAIRED, "highest": highest})
    assert case.left_over(PAPER) == left_over


def test_nnunet_lists_cases_without_a_partner_too(tmp_path):
    write_nnunet(tmp_path, 3)
    (tmp_path / "labelsTr" / "case_0.nii.gz").unlink()
    (tmp_path / "imagesTr" / "case_2_0000.nii.gz").unlink()
    cases = nnunet_cases(tmp_path)
    assert [case.id for case in cases] == ["case_0", "case_1", "case_2"]
    assert [case.image.is_file() for case in cases] == [True, True, False]
    assert [case.labels[0].path.is_file() for case in cases] == [False, True, True]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "dataset.json: no such file"),
        ("not json", "not nnU-Net's dataset.json"),
        ("{}", "not nnU-Net's dataset.json"),
        ('{"labels": {"background": 0, "--": 1}}', "expected a name with a letter"),
        ('{"labels": {"0": "background", "1": "liver"}}', "not nnU-Net's dataset.json"),
        ('{"labels": {"background": 0, "liver": 1, "ignore": 2}}', "has an ignore label"),
        ('{"labels": {"liver": 1}, "file_ending": ".png"}', "file_ending '.png' is not supported"),
        ('{"labels": {"liver": 1}}', "no file CASE_0000.nii.gz"),
    ],
)
def test_nnunet_refuses_what_is_not_its_layout(tmp_path, content, message):
    if content is not None:
        (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(InputError, match=message) as refusal:
        nnunet_cases(tmp_path)
    assert "\n" not in str(refusal.value)


MASKS = {  # our names for them
    "aorta": "artery",
    "portal_vein_and_splenic_vein": "vein",
    **{name: name for name in ("liver", "spleen", "stomach", "gallbladder", "pancreas")},
}


def test_totalsegmentators_masks_are_the_structures_by_their_names(tmp_path):
    for subject in ("s0001", "s0000"):
        write_nifti(tmp_path / subject / "ct.nii.gz", np.zeros((4, 4, 4), np.int16))
        for mask in (*MASKS, "heart"):
            write_nifti(tmp_path / subject / "segmentations" / f"{mask}.nii.gz", np.zeros((4, 4, 4), np.uint8))
    cases = totalsegmentator_cases(tmp_path)
    assert [case.id for case in cases] == ["s0000", "s0001"]
    assert [case.left_over(PAPER) for case in cases] == [(("heart",), ())] * 2
    painted = {file.path.name.removesuffix(".nii.gz"): NAMES[file.indices(PAPER)[1]] for file in cases[0].labels}
    assert painted == MASKS | {"heart": "background"}

    (tmp_path / "s0000" / "segmentations" / "liver.nii.gz").unlink()
    assert totalsegmentator_cases(tmp_path) == cases


def write_subjects(root, parts):
    for subject in parts:
        write_nifti(root / subject / "ct.nii.gz", np.zeros((4, 4, 4), np.int16))
        for mask in MASKS:
            write_nifti(root / subject / "segmentations" / f"{mask}.nii.gz", np.zeros((4, 4, 4), np.uint8))
    rows = [f"{subject};40;{part}" for subject, part in parts.items() if part]
    (root / "meta.csv").write_text("\n".join(["image_id;age;split", *rows]))


def test_totalsegmentators_own_split_is_taken_on_request(tmp_path):
    write_subjects(tmp_path, {"s0": "train", "s1": "test", "s2": "val", "s3": "train"})
    assert given_split(totalsegmentator_cases(tmp_path, split=True)) == Split(("s0", "s3"), ("s2",), ("s1",))
    assert {case.part for case in totalsegmentator_cases(tmp_path)} == {None}


def test_a_subject_that_its_split_does_not_name_is_told(tmp_path):
    write_subjects(tmp_path, {"s0": "train", "s1": None, "s2": "both"})
    with pytest.raises(InputError, match=r"s1 \(not in meta.csv\), s2 \(both\): expected train, val or test"):
        given_split(totalsegmentator_cases(tmp_path, split=True))
    (tmp_path / "meta.csv").write_text("image_id,split\ns0,train")
    with pytest.raises(InputError, match="expected columns image_id and split"):
        totalsegmentator_cases(tmp_path, split=True)


def test_totalsegmentator_refuses_a_folder_without_subjects(tmp_path):
    with pytest.raises(InputError, match=r"no \*/ct.nii.gz"):
        totalsegmentator_cases(tmp_path)


PAIRED = {"images": "img/img*.nii", "labels": "label/label*.nii", "highest": 13}
IDS = {name: 10 + index for index, name in enumerate(NAMES[1:], start=1)}


def test_pairs_are_found_by_what_stands_for_the_star(tmp_path):
    for name in ("img/img0002.nii", "label/label0002.nii", "img/img0001.nii", "label/label0001.nii", "img/.img3.nii"):
        write_nifti(tmp_path / name, np.zeros((4, 4, 4), np.uint8))
    cases = paired_cases(tmp_path, ids=IDS, **{**PAIRED, "highest": 17})
    assert [case.id for case in cases] == ["0001", "0002"]
    assert cases[0].image == tmp_path / "img/img0001.nii"
    (label,) = cases[0].labels
    assert label.path == tmp_path / "label/label0001.nii"
    assert label.indices(PAPER) == {value: max(0, value - 10) for value in range(18)}

    (tmp_path / "img/img0001.nii").unlink()
    (tmp_path / "label/label0002.nii").unlink()
    cases = paired_cases(tmp_path, ids=IDS, **PAIRED)
    assert [(case.id, case.image.is_file(), case.labels[0].path.is_file()) for case in cases] == [
        ("0001", False, True),
        ("0002", True, False),
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": "img/img1.nii"}, r"img/img1.nii, label/label\*.nii: expected a \* for the case"),
        ({"ids": {}}, "ids of nothing: expected the structures' values"),
        ({}, r"img/img\*.nii: no such file"),
    ],
)
def test_patterns_and_ids_that_cannot_work_are_refused(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        paired_cases(tmp_path, **(PAIRED | {"ids": IDS} | change))


# Data set → image, label, and the values of our eight classes in its label maps; None where it has no such class.
PUBLIC = {
    "btcv": ("RawData/Training/img/img{}.nii.gz", "RawData/Training/label/label{}.nii.gz", (0, 8, 10, 6, 1, 7, 4, 11)),
    "abdomenatlas": ("BDMAP_{}/ct.nii.gz", "BDMAP_{}/combined_labels.nii.gz", (0, 1, 23, 5, 8, 9, 2, 6)),
    "abdomenatlas10": ("BDMAP_{}/ct.nii.gz", "BDMAP_{}/combined_labels.nii.gz", (0, 1, None, 5, 8, 9, 2, 6)),
    "totalsegmentator_merged": ("s{}/ct.nii.gz", "s{}/segmentations.nii.gz", (0, 52, 64, 5, 1, 6, 4, 7)),
    "amos22": ("imagesTr/amos_{}.nii.gz", "labelsTr/amos_{}.nii.gz", (0, 8, None, 6, 1, 7, 4, 10)),
    "flare22": (
        "imagesTr/FLARE22_Tr_{}_0000.nii.gz", "labelsTr/FLARE22_Tr_{}.nii.gz", (0, 5, None, 1, 3, 11, 9, 4)
    ),
    "word": ("imagesTr/word_{}.nii.gz", "labelsTr/word_{}.nii.gz", (0, None, None, 1, 2, 5, 6, 8)),
    "msd_liver": ("imagesTr/liver_{}.nii.gz", "labelsTr/liver_{}.nii.gz", (0, None, None, 1, *[None] * 4)),
    "msd_pancreas": ("imagesTr/pancreas_{}.nii.gz", "labelsTr/pancreas_{}.nii.gz", (0, *[None] * 6, 1)),
    "msd_spleen": ("imagesTr/spleen_{}.nii.gz", "labelsTr/spleen_{}.nii.gz", (0, None, None, None, 1, *[None] * 3)),
}  # fmt: skip
OTHER = {"msd_liver": None, "msd_pancreas": None, "msd_spleen": None}  # a value of another organ, 9 or 3 elsewhere


def prepared(name, tmp_path, *overrides):
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return prepare(compose("prepare", [f"data={name}", f"data.root={tmp_path}", f"cache={tmp_path}/c", *overrides]))


@pytest.mark.parametrize("name", PUBLIC)
def test_public_data_sets_are_prepared_with_the_known_counts(tmp_path, name):
    """A tiny tree of each, whose label maps hold other organs too where the data set has some."""
    image, label, values = PUBLIC[name]
    has = [index for index, value in enumerate(values) if value is not None]
    table = np.array([value or 0 for value in values], np.uint8)
    other = next(value for value in (9, 3, 12) if value not in values) if name not in OTHER else 0
    expected = np.zeros(len(NAMES), int)
    for number in range(3):
        hu, ours = tiny_case(number)
        stored = table[ours]
        stored[(stored == 0) & (hu > 0)] = other
        write_nifti(tmp_path / image.format(f"000{number}"), hu)
        write_nifti(tmp_path / label.format(f"000{number}"), stored)
        expected += np.bincount(np.where(np.isin(ours, has), ours, 0).ravel(), minlength=len(NAMES))
    data = prepared(name, tmp_path)
    assert data.labels.names == tuple(NAMES[index] for index in has)
    assert data.class_voxels == tuple(expected[has])
    assert [case[-4:] for case in data.cases] == ["0000", "0001", "0002"]


def test_masks_and_nnunets_labels_are_prepared_with_the_known_counts(tmp_path):
    expected = np.zeros(len(NAMES), int)
    for number in range(3):
        hu, label = tiny_case(number)
        write_nifti(tmp_path / "masks" / f"s{number:04d}" / "ct.nii.gz", hu)
        for index, mask in enumerate(MASKS, start=1):
            path = tmp_path / "masks" / f"s{number:04d}" / "segmentations" / f"{mask}.nii.gz"
            write_nifti(path, (label == index).astype(np.uint8))
        expected += np.bincount(label.ravel(), minlength=len(NAMES))
    write_nnunet(tmp_path / "raw", 3)
    for name, root in (("totalsegmentator", tmp_path / "masks"), ("nnunet", tmp_path / "raw")):
        step = ["data.preparation.factor=1", "data.preparation.spacing_mm=null"]
        assert prepared(name, tmp_path, f"data.root={root}", *step).class_voxels == tuple(expected)


def test_every_data_set_of_the_configuration_is_tried():
    known = {path.stem for path in (config_folder() / "data").glob("*.yaml")}
    assert known == {*PUBLIC, "base", "files", "nnunet", "phantom", "totalsegmentator"}


def test_the_mr_scans_of_amos_are_left_out(tmp_path):
    for seed, number in enumerate(("0001", "0410", "0507", "0600")):
        hu, label = tiny_case(seed)
        write_nifti(tmp_path / "imagesTr" / f"amos_{number}.nii.gz", hu)
        write_nifti(tmp_path / "labelsTr" / f"amos_{number}.nii.gz", label)
    assert list(prepared("amos22", tmp_path).cases) == ["0001", "0410"]


def test_a_tumour_of_the_decathlon_is_part_of_its_organ(tmp_path):
    hu, label = tiny_case(0)
    write_nifti(tmp_path / "imagesTr" / "liver_7.nii.gz", hu)
    write_nifti(tmp_path / "labelsTr" / "liver_7.nii.gz", np.select([label == 3, label == 5], [1, 2]).astype(np.uint8))
    organ = np.count_nonzero(np.isin(label, (3, 5)))
    assert prepared("msd_liver", tmp_path).class_voxels == (label.size - organ, organ)


def test_a_case_without_its_partner_is_named_by_the_file_that_it_should_have(tmp_path):
    hu, label = tiny_case(0)
    write_nifti(tmp_path / "imagesTr" / "amos_0001.nii.gz", hu)
    write_nifti(tmp_path / "labelsTr" / "amos_0012.nii.gz", label)
    with pytest.raises(InputError) as refusal:
        prepared("amos22", tmp_path)
    assert f"0001: {tmp_path}/labelsTr/amos_0001.nii.gz: no such file" in str(refusal.value)
    assert f"0012: {tmp_path}/imagesTr/amos_0012.nii.gz: no such file" in str(refusal.value)


def test_any_other_data_set_is_two_patterns_and_a_map_of_values(tmp_path):
    for case in string.ascii_lowercase[:3]:
        hu, label = tiny_case(ord(case))
        write_nifti(tmp_path / "scans" / f"{case}.nii", hu)
        write_nifti(tmp_path / "truth" / f"seg-{case}.nii", label)
    patterns = ["data.layout.images=scans/*.nii", "data.layout.labels=truth/seg-*.nii"]
    more = "data.layout.highest=7"
    data = prepared("files", tmp_path, "data.name=mine", *patterns, "data.layout.ids={liver:[3,4],pancreas:7}", more)
    assert data.labels.names == ("background", "liver", "pancreas")
    assert list(data.cases) == ["a", "b", "c"]
    with pytest.raises(InputError, match=r"label values \[.*; expected only \[0, 3, 4, 7\]"):
        prepared("files", tmp_path, "data.name=mine", *patterns, "data.layout.ids={liver:[3,4],pancreas:7}")


@pytest.mark.parametrize(
    ("setting", "classes", "taught"),
    [
        ("labels=paper", ("background", "liver"), ("background", "liver")),
        ("labels.outputs=all", NAMES, ("background", "liver")),
        ("labels.classes=[liver]", ("background", "liver"), ("background", "liver")),
        ("labels=dataset", ("background", "liver", "liver_tumour"), ("background", "liver", "liver_tumour")),
        ("+labels.labels.liver_tumour.snomed=Tumor", *[("background", "liver", "liver_tumour")] * 2),
    ],
)
def test_the_networks_classes_are_a_choice(tmp_path, setting, classes, taught):
    hu, label = tiny_case(0)
    write_nifti(tmp_path / "imagesTr" / "liver_7.nii.gz", hu)
    write_nifti(tmp_path / "labelsTr" / "liver_7.nii.gz", np.select([label == 3, label == 5], [1, 2]).astype(np.uint8))
    data = prepared("msd_liver", tmp_path, setting)
    assert (data.labels.names, data.taught) == (classes, taught)
    liver, tumour = np.count_nonzero(label == 3), np.count_nonzero(label == 5)
    expected = {"liver": liver, "liver_tumour": tumour} if "liver_tumour" in taught else {"liver": liver + tumour}
    assert data.class_voxels == (label.size - liver - tumour, *expected.values())


def test_classes_have_the_order_that_they_are_chosen_in(nnunet_root, tmp_path):
    everything = prepared("nnunet", tmp_path, f"data.root={nnunet_root}")
    chosen = prepared("nnunet", tmp_path, f"data.root={nnunet_root}", "labels.classes=[pancreas,liver]")
    counts = dict(zip(NAMES, everything.class_voxels, strict=True))
    assert chosen.labels.names == ("background", "pancreas", "liver")
    assert chosen.class_voxels[1:] == (counts["pancreas"], counts["liver"])
    assert sum(chosen.class_voxels) == sum(everything.class_voxels)


def test_classes_are_merged(nnunet_root, tmp_path):
    everything = prepared("nnunet", tmp_path, f"data.root={nnunet_root}")
    merged = "labels.classes=[{vessel: [artery, vein]}, liver]"
    chosen = prepared("nnunet", tmp_path, f"data.root={nnunet_root}", merged)
    counts = dict(zip(NAMES, everything.class_voxels, strict=True))
    assert chosen.labels.names == ("background", "vessel", "liver")
    assert chosen.class_voxels[1:] == (counts["artery"] + counts["vein"], counts["liver"])


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("labels.outputs=presnt", "labels.outputs=presnt: expected present or all"),
        ("labels.classes=[kidney]", "labels.classes: kidney is not among the classes of labels=paper"),
        ("labels.classes=[]", "0 classes beside background"),
        ("labels.classes=liver", "labels.classes=liver: expected a list such as"),
        ("labels.labels.liver.side=top", "labels.labels.liver.side=top: expected left, right or null"),
        ("labels.labels.liver.volume_ml=[3]", r"labels.labels.liver.volume_ml=\[3\]: expected \[low, high\], or null"),
        ("labels.labels.liver.volume_ml=[3,1]", r"label liver: volume_ml=\[3,1\]: expected \[low, high\]"),
        ("+labels.labels.liver.size=3", "labels.labels.liver.size: no such setting; expected one of colour, synonyms"),
    ],
)
def test_classes_that_cannot_be_are_refused(nnunet_root, tmp_path, setting, said):
    with pytest.raises(InputError, match=said) as refusal:
        prepared("nnunet", tmp_path, f"data.root={nnunet_root}", setting)
    assert "\n" not in str(refusal.value)


def with_more_organs(root, names):
    """Values of organs that the label maps do not hold, which may be so in a few cases."""
    write_nnunet(root, 4)
    labels = {name: index for index, name in enumerate([*NAMES, *names])}
    (root / "dataset.json").write_text(json.dumps({"labels": labels, "file_ending": ".nii.gz"}))
    return [f"data.root={root}"]


def test_what_counts_as_background_is_told_once_by_each_command(tmp_path, capsys):
    root = with_more_organs(tmp_path / "raw", ["kidney_left", "kidney_right", "tumour"])
    line = f"{tmp_path}/raw: declares kidney_left, kidney_right, tumour: "
    line += "none of the classes, counted as background; labels=dataset makes classes of all that is named"
    prepared("nnunet", tmp_path, *root, "check=true")
    assert capsys.readouterr().out.splitlines().count(line) == 1
    data = prepared("nnunet", tmp_path, *root)
    data.setup()  # Lightning does again
    assert capsys.readouterr().out.splitlines().count(line) == 1
    many = with_more_organs(tmp_path / "many", [f"vertebra_{number}" for number in range(24)])
    prepared("nnunet", tmp_path, *many)
    assert "vertebra_8, vertebra_9 and 14 more: none" in capsys.readouterr().out
    for settings in (with_more_organs(tmp_path / "ours", []), [*root, "labels=dataset"]):
        prepared("nnunet", tmp_path, *settings)
        assert "counted as background" not in capsys.readouterr().out
    patterns = ["data.layout.images=imagesTr/*_0000.nii.gz", "data.layout.labels=labelsTr/*.nii.gz", "data.name=mine"]
    prepared("files", tmp_path, *root, *patterns, "data.layout.ids={liver: 3}", "data.layout.highest=9")
    assert "declares 8 values without a name, from 1 to 9: none of the classes" in capsys.readouterr().out


def test_an_id_of_several_scans_is_refused(tmp_path):
    for name in ("p1/scan11", "p11/scan1", "p1/seg11", "p11/seg1"):
        path = tmp_path / f"{name}.nii.gz"
        path.parent.mkdir(exist_ok=True)
        path.touch()
    layout = functools.partial(paired_cases, images="p*/scan*.nii.gz", labels="p*/seg*.nii.gz", ids={"liver": 1})
    data = CTDataset("d", layout, tmp_path, tmp_path / "store", Preparation(), LabelChoice(PAPER))
    with pytest.raises(InputError, match=r"the id 111 is of several scans: .*p1/scan11\.nii.gz, .*p11/scan1\.nii.gz; "):
        data.choose()


@pytest.mark.parametrize("order", [1, -1])
def test_a_tumour_in_an_organ_is_one_in_whatever_order_the_ids_are(tmp_path, order):
    (tmp_path / "i1.nii.gz").touch()
    ids = dict([("liver", [1, 2]), ("liver_tumour", 2)][::order])
    (case,) = paired_cases(tmp_path, "i*.nii.gz", "l*.nii.gz", ids)
    assert dict(case.labels[0].ids)[2] == ("liver", "liver_tumour")
