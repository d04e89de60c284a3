import os
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchio as tio

from lightning_dice.data.layouts.nnunet import nnunet_cases
from lightning_dice.data.loaders import patch_loader
from lightning_dice.data.patches import PatchQueue, collate, pad_to, padding_share, subject_of
from lightning_dice.data.store import prepare_cases
from lightning_dice.data.volumes import Preparation
from lightning_dice.errors import InputError
from tests.conftest import PAPER

PATCH = (16, 12, 20)


@pytest.fixture(scope="module")
def cases(nnunet_root, tmp_path_factory):
    store = tmp_path_factory.mktemp("store")
    return prepare_cases(nnunet_cases(nnunet_root), PAPER, Preparation(factor=1), store, workers=1)[0]


def make_queue(cases, seed=0, batch_size=3, patch_size=PATCH, **settings) -> PatchQueue:
    return PatchQueue(cases, tio.UniformSampler(patch_size), batch_size, seed, **settings)


def batches(queue, first=0, last=12, workers=0):
    return list(patch_loader(queue, first, last, workers, pin_memory=False))


def same(one, two) -> bool:
    return one.ids == two.ids and torch.equal(one.image, two.image) and torch.equal(one.label, two.label)


def test_a_patch_is_cut_from_the_prepared_volume(cases):
    by_id = {case.id: case for case in cases}
    queue = make_queue(cases)
    assert isinstance(queue, tio.Queue)
    for index in range(12):
        patch = queue[index]
        corner = patch[tio.LOCATION][:3].tolist()
        window = tuple(slice(c, c + size) for c, size in zip(corner, PATCH, strict=True))
        case = by_id[patch["id"]]
        assert np.array_equal(patch["image"].data[0], np.load(case.image)[window])
        assert np.array_equal(patch["label"].data[0], np.load(case.label)[window])


def test_a_batch_has_the_types_that_network_and_loss_want(cases):
    batch = batches(make_queue(cases), last=1)[0]
    assert (batch.image.shape, batch.image.dtype) == ((3, 1, *PATCH), torch.float32)
    assert (batch.label.shape, batch.label.dtype) == ((3, *PATCH), torch.uint8)
    assert 0 <= batch.image.min() <= batch.image.max() <= 1


@pytest.mark.parametrize("samples", [1, 2, 5])
@pytest.mark.parametrize("patients", [3, 4, 7, 8])
def test_no_batch_holds_two_patches_of_one_patient_and_all_take_turns(cases, patients, samples):
    drawn = Counter()
    for batch in batches(make_queue(cases[:patients], samples_per_volume=samples), last=14 * samples):
        assert len(set(batch.ids)) == 3
        drawn.update(batch.ids)
    assert len(drawn) == patients
    rounds = 14 * 3 // (patients - patients % 3)
    if patients % 3 == 0:
        assert max(drawn.values()) - min(drawn.values()) <= samples
    assert max(drawn.values()) <= (rounds + 1) * samples  # at most once in a round


def test_positions_are_uniform_over_the_volume(cases):
    queue = make_queue(cases[:3], patch_size=(23, 20, 28))  # of 24: two places along the first axis
    corners = Counter(queue[index][tio.LOCATION][0].item() for index in range(400))
    assert corners.keys() == {0, 1}
    assert 150 < corners[0] < 250  # 5 standard deviations around the half


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("samples", [1, 3])
def test_workers_do_not_change_the_batches(cases, workers, samples):
    noise = tio.RandomNoise(std=0.1)
    queues = [make_queue(cases, samples_per_volume=samples, transform=noise) for _ in range(2)]
    alone, together = batches(queues[0]), batches(queues[1], workers=workers)
    assert all(same(a, b) for a, b in zip(alone, together, strict=True))


def test_a_resumed_stream_goes_on_where_it_was(cases):
    whole = batches(make_queue(cases, samples_per_volume=2))
    rest = batches(make_queue(cases, samples_per_volume=2), first=5)
    assert all(same(a, b) for a, b in zip(whole[5:], rest, strict=True))


def test_the_seed_decides_and_global_random_state_does_not(cases):
    torch.manual_seed(1)
    first = batches(make_queue(cases, seed=4))
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert all(same(a, b) for a, b in zip(first, batches(make_queue(cases, seed=4)), strict=True))
    assert not any(
        torch.equal(a.image, b.image) for a, b in zip(first, batches(make_queue(cases, seed=5)), strict=True)
    )
    torch.manual_seed(2)
    assert torch.equal(before, torch.get_rng_state())


def test_a_transform_acts_on_each_volume_and_leaves_the_store_alone(cases):
    stored = np.load(cases[0].image)
    flipped = make_queue(cases, transform=tio.Lambda(lambda x: 1 - x, types_to_apply=[tio.INTENSITY]))
    plain = make_queue(cases, transform=None)
    # a transform draws from the volume's own random numbers, not from the position's
    for index in range(6):
        assert torch.allclose(flipped[index]["image"].data.float(), 1 - plain[index]["image"].data.float(), atol=1e-3)
    assert np.array_equal(stored, np.load(cases[0].image))


def test_a_small_volume_is_padded_with_air_and_background(cases):
    batch = batches(make_queue(cases, patch_size=32), last=1)[0]  # volumes are 24 × 20 × 28
    assert batch.image.shape == (3, 1, 32, 32, 32)
    inside = (slice(None), slice(4, 28), slice(6, 26), slice(2, 30))
    assert batch.image[:, 0][inside].min() > 0
    outside = torch.ones_like(batch.label, dtype=torch.bool)
    outside[inside] = False
    assert not batch.image[:, 0][outside].any()
    assert not batch.label[outside].any()


def test_fewer_patients_than_patches_in_a_batch_are_refused(cases):
    with pytest.raises(InputError, match=r"2 training patients for data.batch_size=3") as refusal:
        make_queue(cases[:2])
    assert "\n" not in str(refusal.value)


class ByTorchIO(tio.UniformSampler):
    """The same draws, made and cut by TorchIO itself."""


@pytest.mark.parametrize("size", [PATCH, (24, 20, 28)])  # a part, and all of a volume
@pytest.mark.parametrize("samples", [1, 2])
def test_patches_are_cut_where_torchio_would_cut_them(cases, size, samples):
    ours = make_queue(cases, patch_size=size, samples_per_volume=samples)
    theirs = PatchQueue(cases, ByTorchIO(size), 3, samples_per_volume=samples)
    for index in range(30):
        one, other = ours[index], theirs[index]
        assert one["id"] == other["id"]
        assert torch.equal(one[tio.LOCATION], other[tio.LOCATION])
        for name in ("image", "label"):
            assert torch.equal(one[name].data, other[name].data)
            assert np.allclose(one[name].affine, other[name].affine, atol=1e-9)
            assert type(one[name]) is type(other[name])


def test_any_sampler_of_torchio_draws_its_patches(cases):
    centred = PatchQueue(cases, tio.LabelSampler(5, "label", {3: 1}), 3)
    assert all(centred[index]["label"].data[0, 2, 2, 2] == 3 for index in range(12))


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="tells which file an address belongs to on Linux only")
def test_a_subject_is_a_view_of_the_files_until_it_is_stacked(cases):
    volume, patch = subject_of(cases[0]), make_queue(cases)[0]
    files = {str(case.image) for case in cases} | {str(case.label) for case in cases}
    for subject in (volume, patch, pad_to(volume, PATCH)):
        for name in ("image", "label"):
            assert file_at(subject[name].data.data_ptr()) in files
    assert file_at(collate([patch]).image.data_ptr()) not in files


def file_at(address: int) -> str:
    """The file that is mapped there; nothing where none is."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        where, *_, path = line.split(maxsplit=5) if "/" in line else (line.split()[0], "")
        first, last = (int(end, 16) for end in where.split("-"))
        if first <= address < last:
            return path
    raise AssertionError(f"{address:#x} is no address of this process")


def test_the_queue_has_torchios_length(cases):
    assert len(make_queue(cases, samples_per_volume=2)) == 2 * len(cases)


def test_collate_keeps_the_order(cases):
    subjects = [subject_of(case) for case in cases[:3]]
    assert collate(subjects).ids == [case.id for case in cases[:3]]


@pytest.mark.parametrize("name", ["image", "label"])
def test_a_file_that_is_shortened_while_training_is_an_error_and_no_other_voxels(cases, tmp_path, name):
    moved = {part: tmp_path / f"{part}.npy" for part in ("image", "label")}
    for part, path in moved.items():
        shutil.copy(getattr(cases[0], part), path)
    case = replace(cases[0], **moved)
    assert torch.equal(subject_of(case)["image"].data, subject_of(cases[0])["image"].data)
    os.truncate(moved[name], moved[name].stat().st_size - 64)
    with pytest.raises(RuntimeError, match=f"{name}.npy.* smaller than"):
        subject_of(case)


def test_what_is_padding_does_not_depend_on_the_place(cases):
    for size in ((24, 20, 28), (24, 27, 28), (30, 25, 36), (12, 40, 56)):
        patch = make_queue(cases, patch_size=size)[0]
        assert padding_share(cases[0], size) == pytest.approx(
            (patch["image"].data == 0).double().mean().item(), abs=1e-3
        )
