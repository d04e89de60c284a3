"""Random settings and damaged files: whatever comes, no traceback, no hang, no wrong table. `make fuzz`."""

import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from lightning_dice.build import build_datamodule
from lightning_dice.cli import _is_fixable
from lightning_dice.config import plain
from lightning_dice.data.scans import read_scan
from lightning_dice.evaluate import evaluate
from lightning_dice.naming import differences, flat, run_folder
from lightning_dice.report import report
from lightning_dice.runs import metric_columns, read_config
from lightning_dice.train import train
from tests.conftest import NAMES, tiny_case, write_nnunet
from tests.ct_series import write_series
from tests.test_config import composed
from tests.test_train import config_of

SECONDS = float(os.environ.get("FUZZ_SECONDS", "600")) / 4  # for each of the tests here
LONGEST = 60  # seconds of one example before it counts as hanging
WEIRD = [
    "0", "-1", "1", "2", "3", "0.5", "1.5", "-0.0", "1e30", "1e-30", "nan", "inf", "abc", "null", "true", "false", "[]",
    "[1,2]", "[16,16,8]", "{}", "{a:1}", "../x", "''", "'a b'", "'$x$'", "'<b>'", "lightning_dice.loss.DiceLoss",
    "os.system",
]  # fmt: skip
# Sound, but they cost time, memory or processes without end.
TOO_MUCH = {("data.num_workers", "3"), ("rerun", "true"), ("compile", "true")}
NEW = ["+scheduler", "+ckpt_path", "+trainer.strategy", "+trainer.callbacks", "+trainer.accumulate_grad_batches",
       "+trainer.gradient_clip_val", "+trainer.limit_test_batches", "+trainer.max_epochs", "+loss.gamma",
       "+optim.amsgrad", "+loss._target_format_", "+schedule.power",
       "+data.layout.x"]  # fmt: skip
KEYS = sorted(set(flat(plain(composed("train", "experiment=smoke")))) - {"data.layout._target_"})
FUZZ = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), database=None)


def allowed(error: BaseException) -> bool:
    """What a command tells in one line, or in a line per problem."""
    return isinstance(error, Exception) and _is_fixable(error) and "Traceback" not in str(error)


class Clock:
    """Ends the fuzzing after its time, and counts what came of it."""

    def __init__(self):
        self.end = time.monotonic() + SECONDS
        self.outcomes: Counter[str] = Counter()

    @property
    def is_over(self) -> bool:
        return time.monotonic() > self.end

    def run(self, fuzz):
        """One round of examples after another, each drawn anew."""
        for number in itertools.count():
            if self.is_over:
                return
            seed(number)(fuzz)()

    @contextmanager
    def example(self):
        """One that takes too long is a failure of its own; one that fails is looked at for as long as it takes."""

        def give_up(*_):
            raise AssertionError(f"hung for {LONGEST} s")

        before = signal.signal(signal.SIGALRM, give_up)
        signal.alarm(LONGEST)
        try:
            yield
        except BaseException:
            self.end = math.inf
            raise
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)


@pytest.fixture
def clock(request):
    clock = Clock()
    yield clock
    print(f"\n{request.node.name}: {dict(clock.outcomes)}")
    assert sum(clock.outcomes.values()) > 5


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_nnunet(tmp_path_factory.mktemp("fuzz") / "set", 6)


def small(folder, root, *overrides):
    tiny = ["network.levels=2", "network.base_channels=2", "trainer.max_steps=2", "trainer.val_check_interval=1"]
    return config_of(folder, root, *tiny, *overrides)


def check_run(run, config):
    """The table says what the predictions of all test cases are, each once; the record says what was asked for."""
    assert not differences(read_config(run), plain(config)) or "loss._target_" in str(config.loss)
    assert run.folder == run_folder(read_config(run))
    metrics = pd.read_csv(run.metrics)
    assert tuple(metrics.columns) == metric_columns(NAMES)
    for stage in ("train", "val"):
        steps = metrics.loc[metrics[f"{stage}/loss"].notna(), "step"]
        assert steps.is_unique
        assert steps.is_monotonic_increasing
    assert metrics["step"].max() == config.trainer.max_steps
    if run.scores.is_file():
        scores = pd.read_csv(run.scores)
        cases = sorted(scores["case"].unique())
        assert sorted(map(tuple, scores[["case", "name"]].to_numpy())) == sorted((c, n) for c in cases for n in NAMES)
        assert cases == sorted(path.name.removesuffix(".nii.gz") for path in run.predictions.iterdir())
        assert json.loads(run.summary.read_text())["cases"] == len(cases)


@pytest.mark.long
def test_settings(clock, root, tmp_path):
    overrides = st.dictionaries(st.sampled_from(KEYS + NEW), st.sampled_from(WEIRD), min_size=1, max_size=3)

    @FUZZ
    @given(overrides)
    def fuzz(chosen):
        if clock.is_over or any(pair in TOO_MUCH for pair in chosen.items()):
            return
        shutil.rmtree(tmp_path / "runs", ignore_errors=True)
        with clock.example():
            try:
                config = small(tmp_path, root, *(f"{key}={value}" for key, value in chosen.items()))
                run = train(config)
            except Exception as error:
                if not allowed(error):
                    raise
                clock.outcomes["refused"] += 1
                return
            check_run(run, config)
        clock.outcomes["trained"] += 1

    clock.run(fuzz)


def damage(content: bytes, kind: str, place: float, byte: int) -> bytes | None:
    """None: the file is gone."""
    at = int(place * max(len(content) - 1, 0))
    return {
        "gone": None,
        "empty": b"",
        "cut": content[:at],
        "longer": content + bytes([byte]) * 64,
        "byte": content[:at] + bytes([byte]) + content[at + 1 :],
        "zeros": content[:at] + bytes(64) + content[at + 64 :],
        "twice": content + content,
        "other": bytes([byte]) * len(content),
    }[kind]


KINDS = st.sampled_from(["gone", "empty", "cut", "longer", "byte", "zeros", "twice", "other"])
PLACES, BYTES = st.floats(0, 1), st.integers(0, 255)


def write_damaged(path: Path, kind: str, place: float, byte: int) -> None:
    content = damage(path.read_bytes(), kind, place, byte)
    path.unlink()
    if content is not None:
        path.write_bytes(content)


@pytest.mark.long
def test_files_of_the_store(clock, root, tmp_path):
    """What is found is what was prepared; only a voxel that changed in its place is not seen (no file is hashed)."""
    config = small(tmp_path, root)

    def opened():
        data = build_datamodule(config)
        data.setup()
        return data

    data = opened()
    fingerprint, store = data.fingerprint, data.store / data.name
    arrays = {case.id: (np.load(case.image).shape, case.voxels, case.affine) for case in data.cases.values()}
    sound = tmp_path / "sound"
    shutil.copytree(store, sound)
    files = sorted(path.name for path in sound.iterdir() if path.suffix in (".npy", ".json", ".csv"))

    @FUZZ
    @given(st.sampled_from(files), KINDS, PLACES, BYTES)
    def fuzz(name, kind, place, byte):
        if clock.is_over or (name.endswith(".npy") and kind in ("byte", "zeros", "other")):
            return
        shutil.rmtree(store)
        shutil.copytree(sound, store)
        write_damaged(store / name, kind, place, byte)
        with clock.example():
            again = opened()
            assert again.fingerprint == fingerprint
            assert {c.id: (np.load(c.image).shape, c.voxels, c.affine) for c in again.cases.values()} == arrays
        clock.outcomes[kind] += 1

    clock.run(fuzz)


@pytest.mark.long
def test_files_of_a_run(clock, root, tmp_path):
    """A report of a grid with one damaged run, and its evaluation: told in a line, or right."""
    runs = [train(small(tmp_path, root, f"loss={loss}")) for loss in ("uniform", "simple")]
    sound = tmp_path / "sound"
    shutil.copytree(runs[0].folder, sound)
    names = ["config.yaml", "environment.json", "metrics.csv", "scores.csv", "summary.json", "cases.json", "DONE"]
    prediction = next(runs[0].predictions.iterdir()).relative_to(runs[0].folder)
    names += ["labels.json", "checkpoints/last.ckpt", str(prediction)]
    sweep = runs[0].folder.parent
    asked = OmegaConf.create({"sweep": str(sweep), "output": str(tmp_path / "report")})

    def tried(function, config):
        try:
            function(config)
        except Exception as error:
            if not allowed(error):
                raise
            return "refused"
        return "done"

    @FUZZ
    @given(st.sampled_from(names), KINDS, PLACES, BYTES, st.sampled_from(["report", "evaluate", "train"]))
    def fuzz(name, kind, place, byte, command):
        if clock.is_over:
            return
        shutil.rmtree(runs[0].folder)
        shutil.copytree(sound, runs[0].folder)
        write_damaged(runs[0].folder / name, kind, place, byte)
        with clock.example():
            if command == "report":
                outcome = tried(report, asked)
                assert outcome == "done", (name, kind)  # the other run is sound
            elif command == "evaluate":
                run = f"run='{runs[0].folder}'"
                outcome = tried(evaluate, composed("evaluate", run, f"cache={tmp_path}/cache"))
            else:
                outcome = tried(train, small(tmp_path, root, "loss=uniform"))
        clock.outcomes[f"{command} {outcome}"] += 1

    clock.run(fuzz)


READ = """
import sys
from lightning_dice.data.scans import read_scan
from lightning_dice.errors import InputError
try:
    print(read_scan(sys.argv[1]).voxels.shape)
except InputError as error:
    print("refused", error)
"""


@pytest.mark.long
def test_files_of_a_series(clock, tmp_path):
    """In a process of its own, which a decoder may bring down."""
    hu, _ = tiny_case(0)
    sound = tmp_path / "sound"
    write_series(sound, hu)
    expected = read_scan(sound).voxels
    names = sorted(path.name for path in sound.iterdir())

    @FUZZ
    @given(st.sampled_from(names), KINDS, PLACES, BYTES)
    def fuzz(name, kind, place, byte):
        if clock.is_over:
            return
        folder = tmp_path / "damaged"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(sound, folder)
        write_damaged(folder / name, kind, place, byte)
        asked = [sys.executable, "-c", READ, str(folder)]
        with clock.example():
            result = subprocess.run(asked, capture_output=True, text=True)
            assert result.returncode == 0, result.stderr[-2000:]
            outcome = "refused" if result.stdout.startswith("refused") else "read"
            if (
                outcome == "read"
            ):  # a byte may be a voxel's, and nothing tells of a first or last slice that is no DICOM
                x, y, z = expected.shape
                assert result.stdout.strip() in (str((x, y, z)), str((x, y, z - 1)))
        clock.outcomes[outcome] += 1

    clock.run(fuzz)
