"""One run in two processes is the run in one: batches, losses, weights, scores, also when it is killed and goes on."""

import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
import pytorch_lightning as pl
import torch

from lightning_dice import checkpoints
from lightning_dice.checkpoints import read_checkpoint
from lightning_dice.errors import InputError
from lightning_dice.runs import Run, read_json
from lightning_dice.train import train
from tests.conftest import write_nnunet
from tests.test_train import composed

A_VOXEL = 0.01  # by which a Dice may differ: where two classes are as probable, rounding has a voxel change sides
LOSSES = ("uniform", "dice_ce")  # one that adds up its sums over the processes, and one that gets their logits
STEPS, KILLED_AT = 20, 13
TWO = ("trainer.devices=2", "trainer.strategy=ddp")


class Killed(pl.Callback):
    """Kills the second of two processes once, in an iteration after others that were saved.

    Args:
        once: a file that is there when it was done, or that cannot be made.
    """

    def __init__(self, once: str):
        self.once = once

    def on_train_start(self, trainer, module):
        if trainer.world_size == 2:
            checkpoints.CHECKPOINT_EVERY = 0.0  # in a process that ends with the run

    def on_before_optimizer_step(self, trainer, module, optimizer):
        if (trainer.global_rank, trainer.global_step) == (1, KILLED_AT):
            try:
                os.close(os.open(self.once, os.O_CREAT | os.O_EXCL))
            except OSError:
                return
            os.kill(os.getpid(), signal.SIGKILL)


def settings(folder, root, *overrides):
    """By which rounding does not grow: one step of Adam's makes up to twice the rate of a rounding error."""
    return [
        "experiment=smoke", "data=nnunet", f"data.root={root}", f"output_dir={folder}/runs", f"cache={folder}/cache",
        "data.patch_size=16", "data.preparation.spacing_mm=3", "data.test=0.3", "data.validation=0.4",
        f"trainer.max_steps={STEPS}", "trainer.val_check_interval=10", "trainer.log_every_n_steps=3",
        "trainer.precision=32-true", "trainer.accelerator=cpu", "trainer.enable_progress_bar=false",
        "data.batch_size=4", "data.num_workers=0", "optim=sgd", "optim.lr=0.0003", *overrides,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Of three cases to test, three to validate and four to train on, so that the two processes have unlike shares."""
    return write_nnunet(tmp_path_factory.mktemp("data") / "set", 10)


@pytest.fixture(scope="module")
def one(root, tmp_path_factory):
    """Finished runs in one process, by loss; only read them."""
    folder = tmp_path_factory.mktemp("one")
    return {loss: train(composed("train", folder, *settings(folder, root, f"loss={loss}"))) for loss in LOSSES}


def assert_same(run: Run, expected: Run):
    ours, theirs = pd.read_csv(run.metrics), pd.read_csv(expected.metrics)
    for name in ours:
        tolerance = 1e-5 if name.endswith("loss") else A_VOXEL
        pd.testing.assert_series_equal(ours[name], theirs[name], rtol=0, atol=tolerance)
    ours, theirs = (read_checkpoint(r.last)["state_dict"] for r in (run, expected))
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=1e-4)
    ours, theirs = pd.read_csv(run.scores), pd.read_csv(expected.scores)
    assert ours[["case", "label", "voxels_true"]].equals(theirs[["case", "label", "voxels_true"]])
    assert (ours["voxels_pred"] - theirs["voxels_pred"]).abs().max() <= 3
    for name in ("dice", "jaccard"):
        pd.testing.assert_series_equal(ours[name], theirs[name], rtol=0, atol=A_VOXEL)


def test_cells_of_a_sweep_in_two_processes_each_are_those_in_one(one, root, tmp_path):
    command = [sys.executable, "-m", "lightning_dice.train", "--multirun", f"loss={','.join(LOSSES)}", *TWO]
    done = subprocess.run([*command, *settings(tmp_path, root)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("written to") == done.stdout.count("32-true on 2 × cpu") == len(LOSSES)
    for expected in one.values():
        (folder,) = (tmp_path / "runs").rglob(expected.folder.name)
        (session,) = read_json(Run(folder).environment)["sessions"]
        assert (session["devices"], session["patches_per_device"]) == (2, 2)
        assert read_json(Run(folder).summary)["devices"] == 2
        assert_same(Run(folder), expected)
        files, expected_files = ([p.parent.name for p in f.rglob("*")] for f in (folder, expected.folder))
        assert sorted(files) == sorted(expected_files)  # those of TensorBoard have names of their own


def test_a_process_that_is_killed_ends_the_run_which_goes_on_in_one(one, root, tmp_path):
    killed = f"+trainer.callbacks=[{{_target_: tests.test_ranks.Killed, once: {tmp_path}/killed}}]"
    asked = settings(tmp_path, root, "loss=uniform", killed)
    with pytest.raises(InputError, match=r"one of 2 processes was killed, .*; the same command goes on"):
        train(composed("train", tmp_path, *asked, *TWO))
    assert time.time() - (tmp_path / "killed").stat().st_mtime < 60
    (folder,) = (tmp_path / "runs/nnunet/smoke").iterdir()
    assert read_json(Run(folder).failed)["reason"].endswith("goes on from the last checkpoint")
    run = train(composed("train", tmp_path, *asked))
    sessions = read_json(run.environment)["sessions"]
    assert [(session["from_step"], session["devices"]) for session in sessions] == [(0, 2), (KILLED_AT, 1)]
    assert_same(run, one["uniform"])


@pytest.mark.long
def test_cells_in_processes_of_submitit_have_two_processes_each(one, root, tmp_path):
    command = [sys.executable, "-m", "lightning_dice.train", "--multirun", "hydra/launcher=processes"]
    command += [f"loss={','.join(LOSSES)}", *TWO, *settings(tmp_path, root)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    for expected in one.values():
        (folder,) = (tmp_path / "runs").rglob(expected.folder.name)
        assert_same(Run(folder), expected)


@pytest.mark.long
def test_what_torchrun_starts_is_one_run(one, root, tmp_path):
    """As SLURM does: each process has the whole command line, and rank zero writes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "-m", "lightning_dice.train"]
    done = subprocess.run(
        [*command, *settings(tmp_path, root, "loss=uniform", *TWO)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("written to") == 1
    (folder,) = (tmp_path / "runs/nnunet/smoke").iterdir()
    assert_same(Run(folder), one["uniform"])


SLURM = {"NTASKS": "1", "PROCID": "0", "LOCALID": "0", "NODEID": "0", "JOB_NAME": "cell"}


@pytest.mark.parametrize(
    ("asked", "slurm", "message"),
    [
        ("trainer.num_nodes=3", {}, r"^trainer\.num_nodes=3: this machine cannot start processes on others; use SLURM"),
        (
            "trainer.devices=3",
            SLURM,
            r"^trainer\.devices=3, trainer\.num_nodes=1: 1 processes were started; expected one",
        ),
    ],
)
def test_ranks_that_nobody_starts_are_refused(asked, slurm, message, tmp_path, monkeypatch):
    for key, value in slurm.items():
        monkeypatch.setenv(f"SLURM_{key}", value)
    with pytest.raises(InputError, match=message):
        train(composed("train", tmp_path, "experiment=smoke", "trainer.accelerator=cpu", asked))
    assert not list(tmp_path.iterdir())
