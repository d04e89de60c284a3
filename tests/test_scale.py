"""A store of 10,000 volumes beside one of 100, all of them links to one: `make scale` tells both in a table."""

import dataclasses
import json
import os
import resource
import time

import numpy as np
import pandas as pd
import pytest
import torch

from lightning_dice.build import build_datamodule
from lightning_dice.data import store
from lightning_dice.data.layouts.nnunet import nnunet_cases
from lightning_dice.data.volumes import Preparation
from tests.conftest import PAPER, write_nnunet
from tests.test_train import composed

SIZES = (100, 10_000)
SHAPE = (128, 112, 160)
BATCHES = 300


def linked(folder, cases):
    """A data set of this many links to one case, and a store in which all of them are prepared already."""
    root = write_nnunet(folder / "raw", 1, SHAPE)
    for number in range(1, cases):
        (root / "imagesTr" / f"case_{number}_0000.nii.gz").symlink_to(root / "imagesTr" / "case_0_0000.nii.gz")
        (root / "labelsTr" / f"case_{number}.nii.gz").symlink_to(root / "labelsTr" / "case_0.nii.gz")
    preparation, prepared = Preparation(factor=1), folder / "store" / "nnunet"
    first, *others = sorted(nnunet_cases(root), key=lambda case: case.id != "case_0")
    store.prepare_cases([first], PAPER, preparation, prepared)
    (one,) = prepared.glob("*.json")
    record = json.loads(one.read_text())
    for case in others:
        stem = f"{case.id}-{store._key(case, dataclasses.astuple(preparation))}"
        for ending in ("image.npy", "label.npy"):
            os.link(one.with_suffix(f".{ending}"), prepared / f"{stem}.{ending}")
        record["sha256"] = case.id
        record["check"] |= {"case": case.id, "image_sha256": case.id, "label_sha256": case.id}
        (prepared / f"{stem}.json").write_text(json.dumps(record))
    return root


def peak_mb() -> float:
    """Of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


@pytest.mark.long
def test_memory_and_batches_do_not_grow_with_the_number_of_cases(tmp_path, capsys):
    rows = []
    for cases in SIZES:
        root = linked(tmp_path / str(cases), cases)
        config = composed(
            "train", tmp_path, "data=nnunet", f"data.root={root}", f"data.store={tmp_path / str(cases) / 'store'}",
            "data.preparation.factor=1", "data.num_workers=0",
        )  # fmt: skip
        before, started = peak_mb(), time.perf_counter()
        data = build_datamodule(config)
        data.setup()
        setup = time.perf_counter() - started

        class Trainer:
            global_step, max_steps = 0, BATCHES
            strategy = type("Strategy", (), {"root_device": torch.device("cpu")})

        data.trainer = Trainer
        batches = iter(data.train_dataloader())
        first = next(batches)
        begun = time.perf_counter() - started
        assert first.image.shape == (3, 1, 64, 64, 64)
        laps = []
        for _ in range(BATCHES - 1):
            lap = time.perf_counter()
            next(batches)
            laps.append(time.perf_counter() - lap)
        rows.append((cases, setup, begun, 1000 * np.median(laps), peak_mb() - before))
    table = pd.DataFrame(rows, columns=["cases", "setup s", "first batch s", "batch ms", "memory MB"])
    with capsys.disabled():
        print(f"\n{table.to_string(index=False, float_format='{:.2f}'.format)}")
    assert table["memory MB"].iloc[1] < table["memory MB"].iloc[0] + 0.02 * SIZES[1]  # 20 kB a case, not a volume
