"""SIGKILL at bad moments, by the score: what was computed is not lost, and nothing is computed twice. `make kill`."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lightning_dice.runs import Run
from tests.conftest import write_nnunet

# The package's own command, but for checkpoints every fifth of a second instead of every minute.
TRAIN = """
from lightning_dice import checkpoints
checkpoints.CHECKPOINT_EVERY = 0.2
from lightning_dice.cli import command
command("train", "run_cell")
"""
SETTINGS = [
    "experiment=smoke", "data=nnunet", "data.patch_size=16", "data.preparation.spacing_mm=3",
    "data.test=0.25", "data.validation=0.25", "trainer.max_steps=24", "trainer.log_every_n_steps=5",
    "trainer.val_check_interval=6", "trainer.precision=32-true", "loss=simple", "optim.lr=0.01",
]  # fmt: skip
SETUPS = {
    "workers": ["data.num_workers=2"],
    "transform": ["data.num_workers=2", "data.transform={_target_: torchio.RandomFlip}", "data.samples_per_volume=2"],
    "accumulating": ["data.num_workers=0", "+trainer.accumulate_grad_batches=2"],
    "stopped early, averaged": [
        "data.num_workers=0", "callbacks=[early_stopping,ema]", "callbacks.early_stopping.min_delta=1",
        "callbacks.early_stopping.patience=2",
    ],
}  # fmt: skip
CHOSEN = {
    "while a checkpoint is written", "between a point and a validation", "during the test",
    "while the scores are written",
}  # fmt: skip
RANDOM_KILLS = 3  # of each setup, besides those at chosen moments


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_nnunet(tmp_path_factory.mktemp("data") / "set", 12)


def start(folder: Path, code: list[str], *settings: str) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "LIGHTNING_DICE_CACHE": str(folder / "cache")}
    with open(folder / "log", "ab") as log:
        return subprocess.Popen(
            [sys.executable, *code, *settings],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def finish(process: subprocess.Popen, folder: Path) -> None:
    assert process.wait(timeout=300) == 0, (folder / "log").read_text(errors="replace")[-3000:]


def kill_at(moment: Callable[[], bool], process: subprocess.Popen) -> bool:
    """Whether the process was still there when the moment came."""
    while process.poll() is None:
        if moment():
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return True
        time.sleep(0.001)
    return False


def moments(folder: Path, seconds: float, draw: random.Random) -> dict[str, Callable[[], bool]]:
    """Chosen ones first; the run's folder is looked for anew, since it may not be there yet."""

    def found(pattern: str) -> bool:
        return any(folder.glob(f"runs/nnunet/smoke/loss=*/{pattern}"))

    def validating() -> bool:
        """The training's point of a step with a validation is written, and that of the validation is not."""
        for file in folder.glob("runs/nnunet/smoke/loss=*/metrics.csv"):
            last = file.read_text().rpartition("\n")[0].rpartition("\n")[2].split(",")
            return last[0] in ("10", "15", "20", "24") and bool(last[1])
        return False

    def after(wait: float) -> Callable[[], bool]:
        begun = time.monotonic()
        return lambda: time.monotonic() - begun > wait

    chosen = {
        "while a checkpoint is written": lambda: found("checkpoints/.*last.ckpt"),
        "between a point and a validation": validating,
        "during the test": lambda: found("predictions/*.nii.gz"),
        "while the scores are written": lambda: found("scores.csv"),
    }
    waits = [draw.uniform(0.3, 1.0) * seconds for _ in range(RANDOM_KILLS)]
    return chosen | {f"after {wait:.1f} s": (lambda wait=wait: after(wait)) for wait in waits}


def same(run: Run, expected: Run) -> None:
    for name in ("metrics", "scores"):
        assert getattr(run, name).read_bytes() == getattr(expected, name).read_bytes(), name
    for name in ("last", "best"):
        ours, theirs = (torch.load(getattr(r, name), weights_only=True)["state_dict"] for r in (run, expected))
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs), name


@pytest.mark.long
@pytest.mark.parametrize("setup", SETUPS)
def test_killed_runs_end_the_same(setup, root, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    settings = [*SETTINGS, *SETUPS[setup], f"data.root={root}"]
    for folder in (whole, killed):
        folder.mkdir()
    begun = time.monotonic()
    finish(start(whole, ["-c", TRAIN], *settings), whole)
    seconds = time.monotonic() - begun
    kills = []
    for name, moment in moments(killed, seconds, random.Random(setup)).items():
        process = start(killed, ["-c", TRAIN], *settings)
        if kill_at(moment() if name.startswith("after") else moment, process):
            kills.append(name)
    finish(start(killed, ["-c", TRAIN], *settings), killed)
    print(f"\n{setup}: killed {len(kills)} times: {'; '.join(kills)}")
    assert {name for name in kills if not name.startswith("after")} == CHOSEN
    (run,), (expected,) = ([Run(p.parent) for p in f.glob("runs/*/*/*/DONE")] for f in (killed, whole))
    same(run, expected)
    assert not list(run.folder.rglob(".*"))


@pytest.mark.long
def test_a_killed_report_is_written_whole_the_next_time(root, tmp_path):
    settings = [*SETTINGS, f"data.root={root}", "trainer.max_steps=6", "data.num_workers=0"]
    finish(start(tmp_path, ["-c", TRAIN], *settings), tmp_path)
    report = ["-m", "lightning_dice.report"]
    sweep = "sweep=runs/nnunet/smoke"
    finish(start(tmp_path, report, sweep, "output=whole"), tmp_path)
    kills = 0
    for file in ("table1.csv", "figure1.png", "statistics.csv"):
        kills += kill_at(
            lambda file=file: (tmp_path / "killed" / file).is_file(), start(tmp_path, report, sweep, "output=killed")
        )
        for path in (tmp_path / "killed").glob("[!.]*"):  # but for what had not got its name yet
            assert path.stat().st_size
    finish(start(tmp_path, report, sweep, "output=killed"), tmp_path)
    assert kills == 3
    names = sorted(path.name for path in (tmp_path / "whole").iterdir())
    for name in names:
        if name.endswith((".csv", ".md", ".tex")):
            assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert set(names) <= {path.name for path in (tmp_path / "killed").iterdir()}
