"""The grid as users run it: killed and run again, with a cell that fails, with its cells in their own processes."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from lightning_dice import devices
from lightning_dice.build import build_fabric, build_trainer, settle
from lightning_dice.cells import CellLines
from lightning_dice.config import config_folder
from lightning_dice.durations import duration
from lightning_dice.errors import InputError
from lightning_dice.paper.grid import read_grid
from lightning_dice.paper.statistics import compare_cells
from lightning_dice.paper.table1 import grid_table
from lightning_dice.runs import Run, read_json
from lightning_dice.train import train

STEPS = 4


def settings(folder: Path, root: Path) -> list[str]:
    return [
        "experiment=smoke", "data=nnunet", f"data.root={root}", f"output_dir={folder}/runs", f"cache={folder}/cache",
        "data.patch_size=16", "data.preparation.spacing_mm=3", "data.test=0.25", "data.validation=0.25",
        f"trainer.max_steps={STEPS}", "trainer.accelerator=cpu", "trainer.precision=32-true",
        "trainer.enable_progress_bar=false",
    ]  # fmt: skip


def cell(sweep: Path, name: str) -> Run:
    """A cell's run by the first part of its folder's name; the rest says that the scale is these tests' own."""
    (folder,) = sweep.glob(f"{name},data.patch_size=16,*")
    return Run(folder)


def start(folder: Path, *arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "lightning_dice.train", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(
        command, cwd=folder, start_new_session=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, **pipes
    )


def run(folder: Path, *arguments: str) -> tuple[int, str, str]:
    process = start(folder, *arguments)
    said, errors = process.communicate(timeout=200)
    return process.returncode, said, errors


@pytest.fixture(scope="module")
def whole(nnunet_root, tmp_path_factory):
    """The folder of the paper's six cells, trained without a break."""
    folder = tmp_path_factory.mktemp("whole")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for loss in ("uniform", "simple", "square"):
        for lr in (0.001, 0.01):
            with initialize_config_dir(str(config_folder()), version_base="1.3"):
                train(compose("train", [*settings(folder, nnunet_root), f"loss={loss}", f"optim.lr={lr}"]))
    torch.set_num_threads(threads)
    return folder / "runs/nnunet/smoke"


def done_at(sweep: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in sweep.glob("*/DONE")}


def begun(said: str) -> list[str]:
    """The lines before the cells."""
    return [line for line in said.splitlines() if line.startswith("cell ")]


def test_a_grid_killed_in_its_third_cell_and_run_again_ends_as_if_nothing_had_been(whole, nnunet_root, tmp_path):
    sweep = tmp_path / "runs/nnunet/smoke"
    process = start(tmp_path, "+sweep=grid", *settings(tmp_path, nnunet_root))
    while not (len(done_at(sweep)) == 2 and len(list(sweep.glob("*/metrics.csv"))) == 3):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    finished = done_at(sweep)
    assert len(finished) == 2

    code, said, errors = run(tmp_path, "+sweep=grid", *settings(tmp_path, nnunet_root))
    assert code == 0, errors
    assert {name: done_at(sweep)[name] for name in finished} == finished
    told = said.strip().splitlines()[-6:]
    assert [line.endswith("finished before, left alone") for line in told] == [True, True, False, False, False, False]
    assert re.search(r"(trained|went on from step \d+), done$", told[2])  # wherever the kill met it
    assert all(line.endswith("trained, done") for line in told[3:])
    cells = [f"loss={loss} optim.lr={lr}" for loss in ("uniform", "simple", "square") for lr in (0.001, 0.01)]
    for number, (line, settings_of_cell) in enumerate(zip(begun(said), cells, strict=True), start=1):
        begin, _, left = line.partition(", ")
        assert begin == f"cell {number} of 6: {settings_of_cell}"
        assert number > 3 or not left  # those that were finished before time nothing
        assert number < 5 or re.fullmatch(r"about \d+ s left, until (\d\d \w+ )?\d\d:\d\d", left)

    cells, expected = read_grid(sweep).cells, read_grid(whole).cells
    pd.testing.assert_frame_equal(grid_table(cells), grid_table(expected))
    pd.testing.assert_frame_equal(compare_cells(cells), compare_cells(expected))


def test_ctrl_c_stops_the_grid_and_the_same_command_goes_on(whole, nnunet_root, tmp_path):
    sweep = tmp_path / "runs/nnunet/smoke"
    asked = ["+sweep=grid", *settings(tmp_path, nnunet_root), "data.num_workers=1"]
    process = start(tmp_path, *asked)
    while not (len(done_at(sweep)) == 1 and len(list(sweep.glob("*/metrics.csv"))) == 2):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers too
    said, errors = process.communicate(timeout=100)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert errors.strip().endswith("; the same command goes on")
    assert len(list(sweep.iterdir())) == 2  # none of a cell that never began
    assert said.strip().splitlines()[-1].endswith(": trained, done")

    code, _, errors = run(tmp_path, *asked)
    assert code == 0, errors
    pd.testing.assert_frame_equal(grid_table(read_grid(sweep).cells), grid_table(read_grid(whole).cells))


def test_a_cell_that_fails_is_recorded_and_the_others_go_on(nnunet_root, tmp_path):
    asked = ["--multirun", "loss=simple", "optim.lr=1e30,0.01", *settings(tmp_path, nnunet_root)]
    lines = "trainer.enable_progress_bar=true"
    code, said, errors = run(tmp_path, *asked, "trainer.log_every_n_steps=1", lines)
    assert code == 1
    bad, good = (cell(tmp_path / "runs/nnunet/smoke", f"loss=simple,lr={lr},seed=0") for lr in ("1e+30", "0.01"))
    assert good.done.is_file()
    assert not bad.done.exists()
    assert read_json(bad.failed)["reason"].startswith("loss=nan at step 2, on patches of case_")
    first, second = said.strip().splitlines()[-2:]
    assert "optim.lr=1e+30" in first
    assert "failed: loss=nan at step 2" in first
    assert second == f"{good.folder}: trained, done"
    assert begun(said) == ["cell 1 of 2: optim.lr=1e+30", "cell 2 of 2: optim.lr=0.01"]  # one that failed times nothing
    line = r"^step (\d) of 4, loss ([-.\d]+)(?:, val/dice [-.e\d]+)?(, \S+ s per iteration, \d+ s left)?$"
    told = re.findall(line, said, re.MULTILINE)[-4:]
    assert [(int(step), bool(timed)) for step, _, timed in told] == [(1, False), (2, False), (3, True), (4, True)]
    losses = pd.read_csv(good.metrics)["train/loss"].dropna()
    assert [float(loss) for _, loss, _ in told] == pytest.approx(losses.tolist(), abs=1e-3)
    assert not {"\r", "\x1b"} & {*said, *errors}
    assert "Traceback" not in errors


def test_a_setting_that_is_not_the_grids_makes_cells_of_their_own(whole, nnunet_root, tmp_path):
    shutil.copytree(whole.parents[1], tmp_path / "runs")
    before = done_at(tmp_path / "runs/nnunet/smoke")
    asked = ["--multirun", "loss=uniform", "optim.lr=0.001,0.1", "optim.eps=1e-4", *settings(tmp_path, nnunet_root)]
    code, _, errors = run(tmp_path, *asked)
    assert code == 0, errors
    after = done_at(tmp_path / "runs/nnunet/smoke")
    assert {name: after[name] for name in before} == before
    new = sorted(set(after) - set(before))
    assert [name.split(",")[:3] for name in new] == [["loss=uniform", f"lr={lr}", "seed=0"] for lr in ("0.001", "0.1")]
    assert all("optim.eps=0.0001" in name for name in new)


def test_cells_in_processes_of_their_own_share_the_data(nnunet_root, tmp_path):
    asked = ["--multirun", "hydra/launcher=processes", "loss=uniform,square", *settings(tmp_path, nnunet_root)]
    code, _, errors = run(tmp_path, *asked)
    assert code == 0, errors
    names = sorted(done_at(tmp_path / "runs/nnunet/smoke"))
    assert [name.partition(",")[0] for name in names] == ["loss=square", "loss=uniform"]
    assert len(list((tmp_path / "cache/prepared/nnunet").glob("*.json"))) == 8


@pytest.mark.parametrize(
    ("launcher", "asked", "told"),
    [
        ("Basic", ["loss=simple", "seed=range(0,3)"], "cell 3 of 6: optim.lr=0.01 seed=0\n"),  # in place of its sweep
        ("Basic", ["loss=simple", "optim.lr=0.01"], ""),
        ("Slurm", ["seed=0,1"], ""),
    ],
)
def test_cells_are_counted_as_the_sweeper_makes_them(launcher, asked, told, capsys):
    params = {"loss": "uniform,simple,square", "optim.lr": "0.001,0.01"}
    parts = {"launcher": {"_target_": f"a.{launcher}Launcher"}, "sweeper": {"_target_": "a.BasicSweeper"}}
    lines = CellLines()
    for overrides in (asked, ["loss=simple", "optim.lr=0.01", "seed=0"]):
        config = OmegaConf.create({"hydra": {**parts, "overrides": {"task": overrides}, "job": {"num": 2}}})
        config.hydra.sweeper.params = params
        (lines.on_multirun_start if overrides is asked else lines.on_job_start)(config)
    assert capsys.readouterr().out.lstrip() == told


def test_a_duration_in_words():
    seconds = (0.4, 89, 90, 12 * 60, 90 * 60, 30 * 3600)
    assert [duration(one) for one in seconds] == ["0 s", "89 s", "2 min", "12 min", "1.5 h", "30.0 h"]


def test_the_cluster_launcher_composes():
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = compose("train", ["hydra/launcher=slurm", "+sweep=grid"], return_hydra_config=True).hydra
    assert config.launcher._target_.endswith("SlurmLauncher")
    assert [config.launcher[key] for key in ("nodes", "gpus_per_node", "tasks_per_node")] == [1, 1, 1]
    assert config.sweeper.params == {"loss": "uniform,simple,square", "optim.lr": "0.001,0.01"}
    asked = ["hydra/launcher=slurm", "trainer.devices=4", "trainer.num_nodes=2"]
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = compose("train", asked, return_hydra_config=True).hydra
    assert [config.launcher[key] for key in ("nodes", "gpus_per_node", "tasks_per_node")] == [2, 4, 4]


def test_each_process_claims_a_gpu_of_its_own(tmp_path, monkeypatch):
    """With devices that are made up, since no test needs a GPU; the other process is a real one."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    properties = [type("Properties", (), {"uuid": f"gpu{number}"}) for number in range(2)]
    monkeypatch.setattr(torch.cuda, "get_device_properties", properties.__getitem__)
    other = "import sys, filelock as f; lock = f.FileLock(sys.argv[1]); lock.acquire(); print('held'); input()"
    command = [sys.executable, "-uc", other, str(tmp_path / "lightning_dice-gpu0.lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        monkeypatch.setattr(devices, "_held", {})
        assert devices.claim_gpus(1) == [1]
        assert devices.claim_gpus(1) == [1]  # the same for all cells of this process
        with pytest.raises(InputError, match=r"^trainer\.devices=3: this machine has 2; "):
            devices.claim_gpus(3)
        holder.kill()
    assert devices.claim_gpus(2) == [0, 1]  # a lock ends with its process
    assert devices.claim_gpus(1) == [0]


def test_a_gpu_is_chosen_by_its_index(monkeypatch):
    """With devices that are made up, in a training and outside of one."""
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = compose("train", ["trainer.devices=[1]", "trainer.precision=32-true"])
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"^trainer\.devices=\[1\]: chooses a GPU .* machine has none; leave it out$"):
        settle(config)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    assert build_trainer(config, logger=False).strategy.root_device == torch.device("cuda", 1)
    assert build_fabric("auto", [1], "32-true").device == torch.device("cuda", 1)
    with pytest.raises(InputError, match=r"^devices=\[2\]: no such GPU; expected an index from 0 to 1$"):
        build_fabric("gpu", [2], "32-true")
    with pytest.raises(InputError, match=r"^devices=\[0\]: chooses a GPU by its index, and accelerator=cpu has none; "):
        build_fabric("cpu", [0], "32-true")
