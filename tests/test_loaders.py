import multiprocessing
import os
import signal
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torchio as tio

from lightning_dice.data.layouts.nnunet import nnunet_cases
from lightning_dice.data.loaders import check_shared_memory, patch_loader, volume_loader
from lightning_dice.data.patches import PatchQueue
from lightning_dice.data.store import prepare_cases
from lightning_dice.data.volumes import Preparation
from lightning_dice.errors import InputError
from tests.conftest import PAPER

PATCH = (16, 12, 20)
VOLUME_BYTES = 24 * 20 * 28 * 5  # float32 and uint8
PATCH_BYTES = 16 * 12 * 20 * 5


@pytest.fixture(scope="module")
def cases(nnunet_root, tmp_path_factory):
    store = tmp_path_factory.mktemp("store")
    return prepare_cases(nnunet_cases(nnunet_root), PAPER, Preparation(factor=1), store, workers=1)[0]


def make_queue(cases) -> PatchQueue:
    return PatchQueue(cases, tio.UniformSampler(PATCH), 3)


def test_whole_volumes_come_one_by_one(cases):
    volumes = list(volume_loader(cases, workers=0, pin_memory=False))
    assert [batch.ids for batch in volumes] == [[case.id] for case in cases]
    assert np.array_equal(volumes[2].label[0], np.load(cases[2].label))
    assert np.allclose(volumes[2].image[0, 0], np.load(cases[2].image))


@pytest.mark.parametrize("kind", ["patches", "volumes"])
def test_workers_leave_an_interruption_to_the_main_process(cases, kind):
    """It ends its step and saves a checkpoint, for which it may want another batch."""
    loader = (
        patch_loader(make_queue(cases), 0, 12, 2, pin_memory=False)
        if kind == "patches"
        else volume_loader(cases, 1, pin_memory=False)
    )
    arriving = iter(loader)
    first = [next(arriving), next(arriving)]
    for worker in multiprocessing.active_children():
        os.kill(worker.pid, signal.SIGINT)
    assert len([*first, *arriving]) == len(loader)


def with_shared_memory(monkeypatch, size):
    """As if this many bytes of it were free."""
    found = SimpleNamespace(f_bavail=size, f_frsize=1)
    monkeypatch.setattr("lightning_dice.data.loaders.os.path.isdir", lambda path: path == "/dev/shm")
    monkeypatch.setattr("lightning_dice.data.loaders.os.statvfs", lambda path: {"/dev/shm": found}[path])


@pytest.mark.parametrize(("workers", "batches_at_once"), [(1, 4), (2, 6), (4, 10)])
def test_workers_without_room_in_shared_memory_are_refused(cases, monkeypatch, workers, batches_at_once):
    queue = make_queue(cases)
    needed = batches_at_once * 3 * PATCH_BYTES
    for beside, more in (((), 0), (cases[:2], 2 * VOLUME_BYTES), (cases, 4 * VOLUME_BYTES)):
        with_shared_memory(monkeypatch, needed + more)
        patch_loader(queue, 0, 1, workers, pin_memory=False, beside=beside)
        with_shared_memory(monkeypatch, needed + more - 1)
        with pytest.raises(InputError, match=r"/dev/shm: has .* MiB free, expected 1 MiB .* set data.num_workers=0"):
            patch_loader(queue, 0, 1, workers, pin_memory=False, beside=beside)
    with_shared_memory(monkeypatch, 0)
    patch_loader(queue, 0, 1, 0, pin_memory=False, beside=cases)


def test_volumes_want_room_in_shared_memory_for_the_largest(cases, monkeypatch):
    large = replace(cases[3], shape=(240, 200, 280))
    with_shared_memory(monkeypatch, 1003 * VOLUME_BYTES)
    volume_loader([*cases, large], 1, pin_memory=False)
    with_shared_memory(monkeypatch, 1003 * VOLUME_BYTES - 1)
    with pytest.raises(InputError, match=r"has 64.3 MiB free, expected 65 MiB .*--shm-size=65m") as refusal:
        volume_loader([*cases, large], 1, pin_memory=False)
    assert "\n" not in str(refusal.value)
    volume_loader([*cases, large], 0, pin_memory=False)


def test_a_system_without_that_folder_is_not_asked(cases, monkeypatch):
    with_shared_memory(monkeypatch, 0)
    monkeypatch.setattr("lightning_dice.data.loaders.os.path.isdir", lambda path: False)
    check_shared_memory(2, make_queue(cases), cases)
