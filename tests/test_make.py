"""Targets of the Makefile that take hours on a user's machine, at the tests' scale."""

import subprocess
import sys
from pathlib import Path

import pandas as pd

from lightning_dice.paper.archive import ARCHIVE
from lightning_dice.paper.published import RATES

ROOT = Path(__file__).parents[1]


def make(target: str, *variables: str) -> subprocess.CompletedProcess[str]:
    """With this environment's Python, whatever the state of .venv."""
    command = ["make", "-o", ".venv/installed", target, f"BIN={Path(sys.executable).parent}", *variables]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400)


def test_what_a_gpu_is_to_do_goes_on_where_it_stopped(tmp_path, monkeypatch):
    """After the benchmark, which README's commands run; of the grid one weighting, since test_grid has all."""
    monkeypatch.setenv("LIGHTNING_DICE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (tmp_path / "benchmark.json").write_text("{}")
    result = make("gpu", f"OUT={tmp_path}", "SCALE=experiment=smoke loss=uniform")
    assert result.returncode == 0, result.stderr[-2000:]
    grid = tmp_path / "phantom" / "grid"
    assert len(list(grid.glob("*/DONE"))) == 2 * len(RATES)
    assert (tmp_path / "benchmark.json").read_text() == "{}"
    scores = pd.read_csv(grid / "report" / ARCHIVE)
    assert set(scores["variant"].fillna("")) == {"", "prior=half"}
