"""Augmentation: what the shipped transforms do to volumes, that they draw alike again, and what one must not do."""

import warnings

import numpy as np
import pytest
import torch
import torchio as tio

from lightning_dice.build import build_datamodule
from lightning_dice.config import plain
from lightning_dice.data.datamodule import CTDataModule
from lightning_dice.data.labels import LabelChoice
from lightning_dice.data.layouts.nnunet import nnunet_cases
from lightning_dice.data.patches import PreparedSubjects
from lightning_dice.data.volumes import Preparation
from lightning_dice.errors import InputError
from lightning_dice.evaluate import evaluate
from lightning_dice.settings import TrainSettings
from lightning_dice.train import train
from lightning_dice.validation import checked
from tests.conftest import NAMES, PAPER
from tests.test_config import composed, names
from tests.test_patches import batches, cases, make_queue, same  # noqa: F401 (a fixture)
from tests.test_train import composed as run_composed
from tests.test_train import config_of

SHIPPED = [name for name in names("transform") if name != "none"]


def shipped(name):
    """The transform of a file, built as the training does; tiny volumes have little room for displacements."""
    warnings.filterwarnings("ignore", message="The maximum displacement is larger than the coarse grid spacing")
    return build_datamodule(composed("train", f"transform={name}")).transform


def volumes(cases, transform, times=1):  # noqa: F811
    torch.manual_seed(0)
    subjects = PreparedSubjects(cases, transform)
    for _ in range(times):
        for index, case in enumerate(cases):
            subject = subjects[index]
            yield case, subject.image.data, subject.label.data


def test_none_is_no_transform():
    assert composed("train").data.transform is None
    assert composed("train", "transform=none") == composed("train")
    assert shipped("none") is None


def test_strong_is_all_the_others():
    parts = {name: plain(composed("train", f"transform={name}"))["data"]["transform"] for name in SHIPPED}
    strong = parts.pop("strong")
    assert len(parts) == 3
    assert strong["transforms"] == {
        k: v for part in ("flip", "spatial", "intensity") for k, v in parts[part]["transforms"].items()
    }
    assert {strong["_target_"]} == {part["_target_"] for part in parts.values()}


@pytest.mark.parametrize("name", SHIPPED)
def test_a_volume_keeps_its_shape_and_types_and_is_another_each_time(cases, name):  # noqa: F811
    seen = []
    for case, image, label in volumes(cases[:1], shipped(name), times=8):
        assert (image.dtype, image.shape) == (torch.float32, (1, *case.shape))
        assert (label.dtype, label.shape) == (torch.uint8, (1, *case.shape))
        assert set(label.unique().tolist()) <= set(range(len(NAMES)))
        seen.append(image)
    assert sum(not torch.equal(seen[0], other) for other in seen[1:]) >= 4


@pytest.mark.parametrize("name", SHIPPED)
def test_labels_go_where_the_image_goes(cases, name):  # noqa: F811
    """An organ is a box, 40 HU per class above -50 HU up to the sixth, with noise of 20; the window is 1000 HU wide."""
    brightness = {index: [] for index in range(1, 7)}
    for _, image, label in volumes(cases, shipped(name), times=2):
        for index, found in brightness.items():
            found += image[label == index].tolist()
    means = [np.mean(found) for found in brightness.values()]
    assert means == sorted(means)
    assert means[5] - means[0] > 0.1  # 0.2 without blur and interpolation


def test_flips_are_front_to_back_and_head_to_foot_and_never_left_to_right(cases):  # noqa: F811
    found = set()
    for case, image, label in volumes(cases[:1], shipped("flip"), times=30):
        stored = [np.load(case.image).astype(np.float32), np.load(case.label)]
        mirrored = {axes: [np.flip(one, axes) for one in stored] for axes in ((), (1,), (2,), (1, 2))}
        (axes,) = [
            axes
            for axes, (one, other) in mirrored.items()
            if np.array_equal(image[0], one) and np.array_equal(label[0], other)
        ]
        found.add(axes)
    assert found == {(), (1,), (2,), (1, 2)}


def test_intensities_leave_labels_alone_and_are_not_clipped(cases):  # noqa: F811
    for case, _, label in volumes(cases, shipped("intensity")):
        assert np.array_equal(label[0], np.load(case.label))
    bright = tio.Lambda(lambda image: 3 * image, types_to_apply=[tio.INTENSITY])
    for case, image, _ in volumes(cases, bright):
        assert np.array_equal(image[0], 3 * np.load(case.image).astype(np.float32))
        assert image.max() > 1.5


@pytest.mark.parametrize("samples", [1, 2])
def test_neither_workers_nor_restarts_change_what_is_drawn(cases, samples):  # noqa: F811
    def queue():
        return make_queue(cases, seed=3, samples_per_volume=samples, transform=shipped("strong"))

    alone = batches(queue(), last=6)
    assert all(same(a, b) for a, b in zip(alone, batches(queue(), last=6, workers=2), strict=True))
    assert all(same(a, b) for a, b in zip(alone[3:], batches(queue(), first=3, last=6), strict=True))
    other = make_queue(cases, seed=4, samples_per_volume=samples, transform=shipped("strong"))
    assert not same(alone[0], batches(other, last=1)[0])


def of_image(change):
    return tio.Lambda(change, types_to_apply=[tio.INTENSITY])


def of_label(change):
    return tio.Lambda(change, types_to_apply=[tio.LABEL])


def fails(subject):
    raise KeyError("no\nsuch thing")


BROKEN = {
    "shape": (tio.Resample(6), "makes 12 × 10 × 14 voxels of 24 × 20 × 28; expected the same"),
    "one label": (tio.Pad(2, include=["label"]), "expected the same, in one channel, of image and label"),
    "channels": (of_image(lambda image: image.repeat(2, 1, 1, 1)), "expected the same, in one channel"),
    "NaN": (of_image(lambda image: image / 0), "not finite; expected finite ones"),
    "classes": (of_label(lambda label: label + 1.0), "none of the classes; expected whole numbers from 0 to 7"),
    "halves": (of_label(lambda label: label / 2), "none of the classes; expected whole numbers from 0 to 7"),
    "below": (of_label(lambda label: label - 1.0), "none of the classes; expected whole numbers from 0 to 7"),
    "error": (fails, "fails on case_"),
    "nothing": (lambda subject: None, "fails on case_"),
}


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("workers", [0, 1])
def test_what_a_transform_breaks_is_told_in_one_line(cases, kind, workers):  # noqa: F811
    transform, message = BROKEN[kind]
    with pytest.raises(InputError) as refusal:
        batches(make_queue(cases, transform=transform), last=1, workers=workers)
    line = str(refusal.value)
    assert line.startswith("data.transform: ")
    assert message in line
    assert line.endswith("; change it, or leave it out")
    assert "case_" in line
    assert "\n" not in line
    assert "Traceback" not in line


@pytest.mark.parametrize("kind", BROKEN)
def test_it_is_told_before_the_training(nnunet_root, tmp_path, kind):
    data = CTDataModule(
        "some", nnunet_cases, nnunet_root, tmp_path, Preparation(factor=1), LabelChoice(PAPER), test=0,
        patch_size=16, transform=BROKEN[kind][0],
    )  # fmt: skip
    data.setup()
    with pytest.raises(InputError, match=r"^data\.transform: "):
        data.check_patches()


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        ("{_target_: torchio.RandomAfine}", "data.transform: Error loading 'torchio.RandomAfine'"),
        ("{_target_: torchio.RandomAffine,degres: 5}", "data.transform: "),
        ("{_target_: collections.Counter}", "data.transform._target_=collections.Counter: makes a Counter; expected"),
    ],
)
def test_what_is_no_transform_is_refused_before_there_are_data(transform, message):
    with pytest.raises(InputError) as refusal:
        build_datamodule(composed("train", f"data.transform={transform}"))
    assert str(refusal.value).startswith(message)
    assert "\n" not in str(refusal.value)


def test_a_transform_without_a_class_is_refused():
    with pytest.raises(InputError, match=r"^data\.transform\._target_=not given: expected the dotted name of a class$"):
        checked(composed("train", "data.transform={degrees: 5}"), TrainSettings)


def test_a_transform_of_the_command_line_gets_plain_lists():
    made = build_datamodule(composed("train", "data.transform={_target_: torchio.RandomAffine,scales: [0.9,1.1]}"))
    assert made.transform.scales == (0.9, 1.1) * 3


def test_a_run_with_a_transform_is_trained_and_evaluated(nnunet_root, tmp_path):
    warnings.filterwarnings("ignore", message="The maximum displacement is larger than the coarse grid spacing")
    run = train(config_of(tmp_path, nnunet_root, "transform=strong", "data.num_workers=1", "trainer.max_steps=2"))
    scored = evaluate(run_composed("evaluate", tmp_path, f"run='{run.folder}'", "trainer.precision=32-true"))
    assert scored.scores.read_bytes() == run.scores.read_bytes()
