"""A run that is broken off anywhere, and goes on, ends as if nothing had been: to the last byte."""

import json
import os
import re
import shutil
import signal
import sys
import time

import pandas as pd
import pytest
import torch
from torch import nn

from lightning_dice import checkpoints
from lightning_dice.checkpoints import find_checkpoint, read_checkpoint
from lightning_dice.errors import InputError, Interrupted
from lightning_dice.module import SegmentationModule
from lightning_dice.network import convolutions
from lightning_dice.runs import Run, read_json
from lightning_dice.train import train
from tests.test_train import config_of

STEPS = 6
NETWORK = "network._target_=tests.test_resume.DropoutNetwork"


class DropoutNetwork(nn.Module):
    """Draws at random in training: a resumed run must go on drawing where it was."""

    def __init__(self, num_classes, base_channels, levels):
        super().__init__()
        self.layers = nn.Sequential(convolutions(1, 4, 4), nn.Dropout(0.3), nn.Conv3d(4, num_classes, 1))

    def forward(self, image):
        return self.layers(image)


class BreaksOff(SegmentationModule):
    """Ends with an error where it is told to, once."""

    place: str | None = None

    def _break_off(self, place):
        if BreaksOff.place == place:
            BreaksOff.place = None
            raise RuntimeError("pulled the plug")

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self._break_off(f"training {batch_idx}")
        return loss

    def on_train_batch_end(self, outputs, batch, batch_idx):
        super().on_train_batch_end(outputs, batch, batch_idx)
        self._break_off(f"point {batch_idx}")

    def validation_step(self, batch, batch_idx):
        self._break_off(f"validation {self.global_step}")
        return super().validation_step(batch, batch_idx)

    def on_validation_end(self):
        self._break_off(f"validated {self.global_step}")

    def test_step(self, batch, batch_idx):
        self._break_off(f"test {batch_idx}")
        return super().test_step(batch, batch_idx)


@pytest.fixture
def broken_off(monkeypatch):
    """Runs save before each iteration, and can be broken off."""
    monkeypatch.setattr("lightning_dice.build.SegmentationModule", BreaksOff)
    monkeypatch.setattr(checkpoints, "CHECKPOINT_EVERY", 0.0)
    yield
    BreaksOff.place = None


def settings(folder, root, *overrides):
    asked = [NETWORK, "trainer.log_every_n_steps=4", "trainer.val_check_interval=3", "data.num_workers=1"]
    return config_of(folder, root, *asked, *overrides)


@pytest.fixture(scope="module")
def whole(nnunet_root, tmp_path_factory):
    """Finished runs by their number of batches in an iteration; only read them."""
    return {
        times: train(
            settings(tmp_path_factory.mktemp("whole"), nnunet_root, f"+trainer.accumulate_grad_batches={times}")
        )
        for times in (1, 2)
    }


def weights_of(path):
    return read_checkpoint(path)["state_dict"]


def assert_same(run: Run, expected: Run):
    for file in ("metrics", "scores"):
        assert getattr(run, file).read_bytes() == getattr(expected, file).read_bytes(), file
    for file in ("last", "best"):
        ours, theirs = weights_of(getattr(run, file)), weights_of(getattr(expected, file))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours), file


@pytest.mark.parametrize(
    ("place", "times"),
    [
        ("training 0", 1), ("training 2", 1), ("point 3", 1), ("validation 3", 1), ("validated 3", 1),
        ("validation 6", 1), ("validated 6", 1), ("test 1", 1),
        ("training 5", 2), ("training 6", 2), ("validation 3", 2),
    ],
)  # fmt: skip
def test_a_run_broken_off_anywhere_ends_the_same(place, times, whole, nnunet_root, tmp_path, broken_off):
    config = settings(tmp_path, nnunet_root, f"+trainer.accumulate_grad_batches={times}")
    BreaksOff.place = place
    with pytest.raises(RuntimeError, match="pulled the plug"):
        train(config)
    (folder,) = (tmp_path / "runs/nnunet/smoke").iterdir()
    assert read_json(Run(folder).failed)["reason"] == "pulled the plug"
    assert not Run(folder).done.exists()
    run = train(config)
    assert_same(run, whole[times])
    assert not run.failed.exists()
    assert not run.previous.exists()
    assert len(read_json(run.environment)["sessions"]) == 2 or place == "training 0"


@pytest.mark.parametrize("schedule", ["poly", "cosine", "warmup_poly"])
def test_a_schedule_goes_on_where_it_was(schedule, nnunet_root, tmp_path, broken_off):
    asked = [f"schedule={schedule}", "optim=sgd", "optim.lr=0.01", "data.num_workers=0"]
    whole = train(settings(tmp_path / "whole", nnunet_root, *asked))
    BreaksOff.place = "training 3"
    config = settings(tmp_path / "broken", nnunet_root, *asked)
    with pytest.raises(RuntimeError, match="pulled the plug"):
        train(config)
    run = train(config)
    assert read_json(run.environment)["sessions"][-1]["from_step"] == STEPS // 2
    assert_same(run, whole)


def test_batches_of_an_iteration_are_counted_through(whole, nnunet_root, tmp_path):
    """Two batches an iteration are those of twice as many iterations, each drawn once, with a point per iteration."""
    table = pd.read_csv(whole[2].metrics)
    assert table["step"].tolist() == [3, 4, 6, 6]
    assert table["train/loss"].notna().tolist() == [False, True, True, False]
    seen = []

    class Watching(SegmentationModule):
        def training_step(self, batch, batch_idx):
            seen.append((self.global_step, tuple(batch.ids), batch.image.sum().item()))
            return super().training_step(batch, batch_idx)

    def batches(*overrides):
        seen.clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("lightning_dice.build.SegmentationModule", Watching)
            train(settings(tmp_path / str(len(overrides[0])), nnunet_root, *overrides))
        return list(seen)

    one, two = batches(f"trainer.max_steps={2 * STEPS}"), batches("+trainer.accumulate_grad_batches=2")
    assert [batch[1:] for batch in one] == [batch[1:] for batch in two]
    assert [batch[0] for batch in two] == [step for step in range(STEPS) for _ in range(2)]


def frames(said: str, title: str) -> list[str]:
    """What is done of all, by the frames of a progress bar."""
    return re.findall(rf"\r{re.escape(title)}[^\r\n]*\| (\S+) \[", said)


def test_ctrl_c_lets_the_iteration_end_and_goes_on_from_there(whole, nnunet_root, tmp_path, monkeypatch, capsys):
    class Asking(SegmentationModule):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            if batch_idx == 2 and not (tmp_path / "asked").exists():  # with a validation to come
                (tmp_path / "asked").touch()
                os.kill(os.getpid(), signal.SIGINT)
            return loss

    monkeypatch.setattr("lightning_dice.build.SegmentationModule", Asking)
    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)  # for the progress bar
    config = settings(tmp_path, nnunet_root, "trainer.enable_progress_bar=true")
    with pytest.raises(Interrupted, match=r"loss=simple,lr=0\.01,seed=0.*: stopped after step 3 of 6"):
        train(config)
    assert signal.getsignal(signal.SIGINT) is before
    said = capsys.readouterr().out
    assert "Ctrl-C again stops at once" in said
    assert frames(said, "loss=simple,lr=0.01,seed=0,")[0] == "0/6"
    (folder,) = (tmp_path / "runs/nnunet/smoke").iterdir()
    assert read_checkpoint(Run(folder).last)["global_step"] == 3
    assert not Run(folder).failed.exists()
    assert_same(train(config), whole[1])
    said = capsys.readouterr().out
    for title, first, last in (("loss=simple,lr=0.01,seed=0,", 3, 6), ("validation", 0, 1), ("test", 0, 2)):
        drawn = frames(said, title)
        assert (drawn[0], drawn[-1]) == (f"{first}/{last}", f"{last}/{last}")


@pytest.mark.parametrize("step", [1, 3])  # 3 has a validation
def test_a_machine_that_is_taken_away_goes_on_from_there(step, whole, nnunet_root, tmp_path, monkeypatch):
    class Asking(SegmentationModule):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            if batch_idx == step - 1 and not (tmp_path / "asked").exists():
                (tmp_path / "asked").touch()
                os.kill(os.getpid(), signal.SIGTERM)
            return loss

    monkeypatch.setattr("lightning_dice.build.SegmentationModule", Asking)
    config = settings(tmp_path, nnunet_root)
    with pytest.raises(Interrupted):
        train(config)
    (folder,) = (tmp_path / "runs/nnunet/smoke").iterdir()
    assert read_checkpoint(Run(folder).last)["global_step"] == step
    assert_same(train(config), whole[1])


def test_ctrl_c_in_the_last_iteration_stops_before_the_test(whole, nnunet_root, tmp_path, monkeypatch):
    class Asking(SegmentationModule):
        def on_validation_end(self):
            if self.global_step == STEPS and not (tmp_path / "asked").exists():
                (tmp_path / "asked").touch()
                os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("lightning_dice.build.SegmentationModule", Asking)
    config = settings(tmp_path, nnunet_root)
    with pytest.raises(Interrupted, match="stopped after the training"):
        train(config)
    assert_same(train(config), whole[1])


def test_ctrl_c_twice_stops_at_once(nnunet_root, tmp_path, monkeypatch):
    class Asking(SegmentationModule):
        def training_step(self, batch, batch_idx):
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.01)
            return super().training_step(batch, batch_idx)

    monkeypatch.setattr("lightning_dice.build.SegmentationModule", Asking)
    with pytest.raises(Interrupted, match="stopped at once"):
        train(settings(tmp_path, nnunet_root))


def stopped_at(step, config, tmp_path):
    """The run of a configuration, broken off in an iteration after so many."""
    BreaksOff.place = f"training {step}"
    with pytest.raises(RuntimeError, match="pulled the plug"):
        train(config)
    (folder,) = (tmp_path / "runs/nnunet/smoke").iterdir()
    return Run(folder)


@pytest.mark.parametrize("content", [b"", b"PK", None])
def test_a_last_checkpoint_that_cannot_be_read_gives_way_to_the_one_before(
    content, whole, nnunet_root, tmp_path, broken_off, capsys
):
    config = settings(tmp_path, nnunet_root)
    run = stopped_at(4, config, tmp_path)
    assert [read_checkpoint(path)["global_step"] for path in (run.previous, run.last)] == [3, 4]
    whole_file = run.last.read_bytes()
    run.last.write_bytes(whole_file[: len(whole_file) // 2] if content is None else content)
    again = train(config)
    said = capsys.readouterr().out
    assert "last.ckpt: not a readable checkpoint" in said
    assert "it is passed over" in said
    assert read_json(run.environment)["sessions"][-1]["from_step"] == 3
    assert_same(again, whole[1])


def test_without_a_readable_checkpoint_a_run_begins_anew(whole, nnunet_root, tmp_path, broken_off):
    config = settings(tmp_path, nnunet_root)
    run = stopped_at(4, config, tmp_path)
    for path in (run.last, run.previous):
        path.write_bytes(b"")
    assert_same(train(config), whole[1])


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(nnunet_root, tmp_path, broken_off, monkeypatch):
    config = settings(tmp_path, nnunet_root)
    run = stopped_at(2, config, tmp_path)
    kept = run.last.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        train(config)
    assert run.last.read_bytes() == kept
    assert sorted(path.name for path in run.checkpoints.iterdir()) == ["last.ckpt", "previous.ckpt"]


def test_checkpoints_do_not_go_through_the_temporary_folder(nnunet_root, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "full"))  # there is no such folder
    assert train(settings(tmp_path, nnunet_root, "data.num_workers=0")).done.is_file()


class Diverges(nn.Module):
    """A loss that is NaN from some batch on."""

    good = 3

    def __init__(self, weighting="uniform"):
        super().__init__()
        self.batches = 0

    def forward(self, logits, target):
        self.batches += self.training
        return logits.float().mean() * (float("nan") if self.batches > Diverges.good else 1.0)


def test_a_diverged_run_keeps_its_good_checkpoint_and_names_step_and_cases(nnunet_root, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "CHECKPOINT_EVERY", 0.0)
    config = config_of(
        tmp_path, nnunet_root, NETWORK, "loss=uniform", "loss._target_=tests.test_resume.Diverges",
        "trainer.log_every_n_steps=100", "data.validation=0",
    )  # fmt: skip
    monkeypatch.setattr(Diverges, "good", 3)
    with pytest.raises(InputError, match=r"loss=nan at step 4, on patches of case_\d, case_\d, case_\d: ") as refusal:
        train(config)
    assert "lower optim.lr" in str(refusal.value)
    (folder,) = (tmp_path / "runs/nnunet/smoke").iterdir()
    assert folder.name.startswith("loss=tests.test_resume.Diverges,lr=0.01")
    run = Run(folder)
    assert "loss=nan at step 4" in json.loads(run.failed.read_text())["reason"]
    saved = read_checkpoint(run.last)
    assert saved["global_step"] == 3
    assert all(value.isfinite().all() for value in saved["state_dict"].values())
    assert find_checkpoint(run) == 3
    monkeypatch.setattr(Diverges, "good", 100)  # as if it had been the machine
    assert train(config).done.is_file()
    assert read_json(run.environment)["sessions"][-1]["from_step"] == 3


def test_callbacks_of_the_users_own_join_in(whole, nnunet_root, tmp_path):
    run = train(settings(tmp_path, nnunet_root, "+trainer.callbacks=[{_target_: tests.test_resume.Noting}]"))
    assert Noting.steps == STEPS
    assert_same(run, whole[1])


class Noting(checkpoints.pl.Callback):
    """Counts iterations."""

    steps = 0

    def on_train_batch_end(self, *_):
        Noting.steps += 1


class Worsens(BreaksOff):
    """Its validation Dice falls."""

    def log(self, name, value, *args, **more):
        super().log(name, torch.tensor(1 / (1 + self.global_step)) if name == "val/dice" else value, *args, **more)


@pytest.fixture
def worsens(monkeypatch):
    monkeypatch.setattr("lightning_dice.build.SegmentationModule", Worsens)
    monkeypatch.setattr(checkpoints, "CHECKPOINT_EVERY", 0.0)


def test_the_best_checkpoint_is_chosen_after_every_validation(worsens, nnunet_root, tmp_path):
    run = train(config_of(tmp_path, nnunet_root, "trainer.max_steps=3", "trainer.val_check_interval=1"))
    assert read_checkpoint(run.best)["global_step"] == 1


def test_a_run_whose_folder_was_moved_keeps_its_best_checkpoint(worsens, nnunet_root, tmp_path):
    asked = ("trainer.max_steps=6", "trainer.val_check_interval=2")
    BreaksOff.place = "training 3"
    with pytest.raises(RuntimeError):
        train(config_of(tmp_path, nnunet_root, *asked))
    shutil.move(tmp_path / "runs", tmp_path / "moved")
    run = train(config_of(tmp_path, nnunet_root, *asked, f"output_dir={tmp_path}/moved"))
    assert read_checkpoint(run.best)["global_step"] == 2


def test_a_validation_that_sigterm_cut_short_is_done_again(nnunet_root, tmp_path, monkeypatch):
    asked = ("data.validation=0.4", "trainer.val_check_interval=3", "trainer.log_every_n_steps=4")
    whole = train(config_of(tmp_path / "whole", nnunet_root, *asked))

    class Asking(SegmentationModule):
        def validation_step(self, batch, batch_idx):
            if batch_idx == 0 and not (tmp_path / "asked").exists():
                (tmp_path / "asked").touch()
                os.kill(os.getpid(), signal.SIGTERM)
            return super().validation_step(batch, batch_idx)

    monkeypatch.setattr("lightning_dice.build.SegmentationModule", Asking)
    with pytest.raises(Interrupted):
        train(config_of(tmp_path, nnunet_root, *asked))
    run = train(config_of(tmp_path, nnunet_root, *asked))
    assert run.metrics.read_bytes() == whole.metrics.read_bytes()
