"""Early stopping and averaged weights: chosen by a word, gone on with exactly, and told apart in the report."""

import os
import signal

import numpy as np
import pandas as pd
import pytest
import torch
from pytorch_lightning.callbacks import Timer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_dice import checkpoints
from lightning_dice.build import build_trainer, settle
from lightning_dice.checkpoints import read_checkpoint
from lightning_dice.config import plain
from lightning_dice.errors import InputError, Interrupted
from lightning_dice.evaluate import evaluate
from lightning_dice.module import SegmentationModule
from lightning_dice.naming import flat, run_folder
from lightning_dice.paper.stored import read_run
from lightning_dice.recipe import load_network
from lightning_dice.runs import Run, read_json
from lightning_dice.train import train
from tests.test_config import composed, names
from tests.test_resume import BreaksOff, assert_same, broken_off, settings  # noqa: F401
from tests.test_train import composed as composed_in
from tests.test_train import config_of

CELL = "loss=simple,lr=0.01,seed=0"
NEVER_BETTER = (
    "callbacks=early_stopping",
    "callbacks.early_stopping.min_delta=1",
    "callbacks.early_stopping.patience=2",
)
AVERAGED = ("callbacks=ema", "callbacks.ema.decay=0.3")


def name(*overrides):
    return run_folder(plain(composed("train", "loss=simple", "optim.lr=0.01", *overrides))).name


def only_run(folder) -> Run:
    (path,) = (folder / "runs/nnunet/smoke").iterdir()
    return Run(path)


def stopping(folder, root, *overrides):
    """Stops after the third validation, at step 9 of 12; points of the training at steps 4, 8 and the last one."""
    return settings(folder, root, *NEVER_BETTER, "trainer.max_steps=12", *overrides)


@pytest.fixture(scope="module")
def stopped(nnunet_root, tmp_path_factory):
    """A run that was stopped early; only read it."""
    return train(stopping(tmp_path_factory.mktemp("stopped"), nnunet_root))


def test_without_callbacks_a_run_is_what_it_was():
    config = plain(composed("train"))
    assert (config["callbacks"], config["logger"]) == ({}, {})
    assert not [key for key in flat(config) if key.startswith(("callbacks", "logger"))]
    assert run_folder(config).name == "loss=uniform,lr=0.001,seed=0"


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["callbacks=ema"], "callbacks=ema"),
        (["callbacks=[early_stopping,ema]"], "callbacks=early_stopping+ema"),
        (["callbacks=[ema,early_stopping]"], "callbacks=early_stopping+ema"),
        (
            ["callbacks=early_stopping", "callbacks.early_stopping.patience=5"],
            "callbacks=early_stopping,callbacks.early_stopping.patience=5",
        ),
        (["callbacks=ema", "~callbacks.ema.decay"], "callbacks=ema,callbacks.ema.decay=absent"),
        (
            ["+callbacks.mine._target_=my.Callback", "+callbacks.mine.every=3"],
            "callbacks=mine,callbacks.mine._target_=my.Callback,callbacks.mine.every=3",
        ),
        (["callbacks=ema", "optim=sgd"], "callbacks=ema,optim=sgd"),
    ],
)
def test_a_name_tells_the_callbacks(overrides, told):
    assert name(*overrides, "optim.lr=0.01").removeprefix(f"{CELL},") == told


@pytest.mark.parametrize("callback", names("callbacks"))
def test_every_file_makes_a_callback_of_its_name(callback):
    trainer = build_trainer(settle(composed("train", f"callbacks={callback}")), logger=False)
    kinds = {"early_stopping": "EarlyStopping", "ema": "MovingAverage"}
    assert kinds[callback] in [type(one).__name__ for one in trainer.callbacks]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["callbacks=early_stopping", "data.validation=0"], "data.validation=0: early stopping goes by the validation"),
        (
            ["+trainer.callbacks=[{_target_: pytorch_lightning.callbacks.EarlyStopping, monitor: loss}]",
             "data.validation=0"],
            "data.validation=0: early stopping",
        ),
        (
            ["callbacks=early_stopping", "callbacks.early_stopping.monitor=val/dce"],
            "callbacks.early_stopping.monitor=val/dce: expected val/dice or loss",
        ),
        (
            ["callbacks=early_stopping", "callbacks.early_stopping.patience=0"],
            "callbacks.early_stopping.patience=0: expected an integer from 1",
        ),
        (
            ["callbacks=early_stopping", "callbacks.early_stopping.min_delta=nan"],
            "callbacks.early_stopping.min_delta=nan: expected a finite number",
        ),
        (["callbacks=early_stopping", "callbacks.early_stopping.mode=up"], "callbacks.early_stopping: `mode` can be"),
        (["callbacks=ema", "callbacks.ema.decay=1"], "callbacks.ema: decay=1: expected a number from 0 to below 1"),
        (["callbacks=ema", "+callbacks.ema.speed=1"], "callbacks.ema: "),
        (["+callbacks.mine=3"], "callbacks.mine=3: expected objects by names of their own"),
        (
            ["+callbacks.mine={_target_: pytorch_lightning.callbacks.StochasticWeightAveraging, swa_lrs: 0.01}"],
            "callbacks.mine: StochasticWeightAveraging cannot work here: a run is one epoch; expected callbacks=ema",
        ),
        (
            ["+trainer.callbacks=[{_target_: pytorch_lightning.callbacks.BatchSizeFinder}]"],
            "trainer.callbacks: BatchSizeFinder cannot work here: the batch is a setting; expected data.batch_size=",
        ),
        (
            ["+callbacks.mine._target_=pytorch_lightning.callbacks.GradientAccumulationScheduler",
             "+callbacks.mine.scheduling={0: 2}"],
            "callbacks.mine: GradientAccumulationScheduler cannot work here: a run is one epoch; expected +trainer.acc",
        ),
        (
            ["+callbacks.mine._target_=pytorch_lightning.callbacks.LearningRateFinder"],
            "callbacks.mine: LearningRateFinder cannot work here: the rate is a setting; expected optim.lr=",
        ),
    ],
)  # fmt: skip
def test_what_would_not_work_is_refused_before_anything_is_written(overrides, said, nnunet_root, tmp_path):
    with pytest.raises(InputError) as refusal:
        train(config_of(tmp_path, nnunet_root, *overrides))
    assert str(refusal.value).startswith(said)
    assert "\n" not in str(refusal.value)
    assert not list(tmp_path.iterdir())


def test_a_callback_gets_plain_types():
    asked = ["+callbacks.timer._target_=pytorch_lightning.callbacks.Timer", "+callbacks.timer.duration={hours: 2}"]
    trainer = build_trainer(composed("train", *asked), logger=False)
    (timer,) = [one for one in trainer.callbacks if isinstance(one, Timer)]
    assert timer.time_remaining() == 7200


def test_a_run_stops_when_the_validation_no_longer_rises(stopped, capsys):
    points = pd.read_csv(stopped.metrics)
    assert points["step"].max() == 9
    assert points["step"][points["train/loss"].notna()].tolist() == [4, 8, 9]
    assert points["step"][points["val/loss"].notna()].tolist() == [3, 6, 9]
    assert read_checkpoint(stopped.last)["global_step"] == 9
    assert read_json(stopped.summary)["stopped_after_step"] == 9
    assert read_run(stopped).state == "done"


def test_the_last_line_says_when_and_why_it_stopped(nnunet_root, tmp_path, capsys):
    train(settings(tmp_path, nnunet_root, *NEVER_BETTER, "trainer.val_check_interval=1"))
    said = "stopped after step 3 of 6: Monitored metric val/dice did not improve in the last 2 records."
    assert said in capsys.readouterr().out


def test_a_run_that_needs_all_its_iterations_does_not_say_that_it_stopped(nnunet_root, tmp_path, capsys):
    run = train(config_of(tmp_path, nnunet_root, "callbacks=early_stopping", "trainer.max_steps=2"))
    assert "stopped" not in capsys.readouterr().out
    assert "stopped_after_step" not in read_json(run.summary)


@pytest.mark.parametrize("place", ["validated 9", "test 1"])
def test_a_stopped_run_broken_off_anywhere_ends_the_same(place, stopped, nnunet_root, tmp_path, broken_off):  # noqa: F811
    BreaksOff.place = place
    with pytest.raises(RuntimeError, match="pulled the plug"):
        train(stopping(tmp_path, nnunet_root))
    before = only_run(tmp_path)
    if place.startswith("test"):
        saved = before.last.read_bytes()
    run = train(stopping(tmp_path, nnunet_root))
    assert_same(run, stopped)
    assert read_json(run.summary)["stopped_after_step"] == 9
    if place.startswith("test"):  # it did not train on
        assert run.last.read_bytes() == saved
        assert read_json(run.environment)["sessions"][-1]["from_step"] == 9


def test_a_run_that_a_users_own_callback_stopped_does_not_train_on(nnunet_root, tmp_path, broken_off):  # noqa: F811
    asked = "+trainer.callbacks=[{_target_: tests.test_callbacks.StopsAtFive}]"
    whole = train(settings(tmp_path / "whole", nnunet_root, asked))
    BreaksOff.place = "test 1"
    with pytest.raises(RuntimeError, match="pulled the plug"):
        train(settings(tmp_path / "broken", nnunet_root, asked))
    run = train(settings(tmp_path / "broken", nnunet_root, asked))
    assert read_checkpoint(run.last)["global_step"] == 5
    assert pd.read_csv(run.metrics)["step"].max() == 5
    assert_same(run, whole)


class StopsAtFive(checkpoints.pl.Callback):
    """By its own lights."""

    def on_train_batch_end(self, trainer, *_):
        trainer.should_stop = trainer.global_step >= 5


class Recording(checkpoints.pl.Callback):
    """The weights and statistics after each iteration."""

    states: list[dict] = []  # noqa: RUF012

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            Recording.states.append({k: v.double().numpy().copy() for k, v in module.state_dict().items()})


def test_the_average_is_the_one_computed_by_hand(nnunet_root, tmp_path):
    Recording.states.clear()
    run = train(
        config_of(
            tmp_path, nnunet_root, *AVERAGED, "+trainer.accumulate_grad_batches=2", "data.test=0",
            "+trainer.callbacks=[{_target_: tests.test_callbacks.Recording}]", "schedule=poly",
            "optim=sgd", "optim.lr=0.1", "optim.momentum=0", "optim.nesterov=false", "optim.weight_decay=0",
        )
    )  # fmt: skip
    first, *others = Recording.states
    assert len(others) == 5
    expected = first
    for n, state in enumerate(others, start=1):
        decay = min(0.3, (1 + n) / (10 + n))  # 2/11, 3/12, 4/13 = 0.308
        expected = {key: decay * expected[key] + (1 - decay) * state[key] for key in state}
    saved = read_checkpoint(run.last)["state_dict"]
    assert saved.keys() == expected.keys()
    for key, value in saved.items():
        if value.is_floating_point():
            assert np.allclose(value, expected[key], rtol=1e-4, atol=1e-6), key
        else:
            assert value == others[-1][key]  # the number of batches that batch norm saw
    moved = max(np.abs(value.numpy() - others[-1][key]).max() for key, value in saved.items())
    assert moved > 1e-3

    events = EventAccumulator(str(run.tensorboard)).Reload()
    rates = [event.value for event in events.Scalars("optim/lr")]
    assert rates == pytest.approx([0.1 * (1 - t / 6) ** 0.9 for t in range(6)])
    trained = [key for key in first if "running" not in key and "batches" not in key]
    for n, event in enumerate(events.Scalars("optim/gradient_norm")[1:], start=1):
        moves = [(Recording.states[n][key] - Recording.states[n - 1][key]).ravel() for key in trained]
        assert event.step == n + 1
        assert event.value * rates[n] == pytest.approx(np.linalg.norm(np.concatenate(moves)), rel=1e-3)


def test_checkpoints_evaluation_and_test_use_the_averaged_weights(nnunet_root, tmp_path):
    run = train(config_of(tmp_path, nnunet_root, *AVERAGED, "trainer.max_steps=4"))
    last = read_checkpoint(run.last)
    network, _ = load_network(run.last)
    for key, value in network.state_dict().items():
        assert torch.equal(value, last["state_dict"][f"network.{key}"])
    scored = run.scores.read_bytes()
    again = evaluate(composed_in("evaluate", tmp_path, f"run='{run.folder}'", "trainer.precision=32-true"))
    assert again.scores.read_bytes() == scored
    best = read_checkpoint(run.best)
    assert not torch.equal(
        best["state_dict"]["network.classes.bias"], best["current_model_state"]["network.classes.bias"]
    )


BOTH = ("callbacks=[early_stopping,ema]", "callbacks.ema.decay=0.3", *NEVER_BETTER[1:], "schedule=poly", "optim=sgd")


@pytest.fixture(scope="module")
def averaged(nnunet_root, tmp_path_factory):
    """Finished runs by what they were asked for; only read them."""
    return {
        asked: train(settings(tmp_path_factory.mktemp("averaged"), nnunet_root, *asked, "trainer.max_steps=12"))
        for asked in (BOTH, (*AVERAGED, "+trainer.accumulate_grad_batches=2"))
    }


@pytest.mark.parametrize("place", ["training 4", "validated 9", "test 1"])
def test_an_averaged_run_broken_off_anywhere_ends_the_same(place, averaged, nnunet_root, tmp_path, broken_off):  # noqa: F811
    """Those of two batches an iteration are at twice the batches."""
    for asked, whole in averaged.items():
        folder = tmp_path / str(len(asked))
        BreaksOff.place = place
        with pytest.raises(RuntimeError, match="pulled the plug"):
            train(settings(folder, nnunet_root, *asked, "trainer.max_steps=12"))
        run = train(settings(folder, nnunet_root, *asked, "trainer.max_steps=12"))
        assert_same(run, whole)
        assert read_json(run.environment)["sessions"][-1]["from_step"] > 0
        assert read_json(run.summary).get("stopped_after_step") == (9 if asked == BOTH else None)


def test_a_machine_that_is_taken_away_at_the_end_is_tested_with_the_averaged_weights(
    averaged, nnunet_root, tmp_path, monkeypatch
):
    """The last checkpoint is then of before the weights were replaced by their average."""

    class Asking(SegmentationModule):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            if batch_idx == 23 and not (tmp_path / "asked").exists():
                (tmp_path / "asked").touch()
                os.kill(os.getpid(), signal.SIGTERM)
            return loss

    asked = (*AVERAGED, "+trainer.accumulate_grad_batches=2")
    monkeypatch.setattr("lightning_dice.build.SegmentationModule", Asking)
    with pytest.raises(Interrupted):
        train(settings(tmp_path, nnunet_root, *asked, "trainer.max_steps=12"))
    run = only_run(tmp_path)
    saved = read_checkpoint(run.last)
    assert saved["global_step"] == 12
    assert not torch.equal(*(saved[key]["network.layers.2.bias"] for key in ("state_dict", "current_model_state")))
    assert_same(train(settings(tmp_path, nnunet_root, *asked, "trainer.max_steps=12")), averaged[asked])


@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
def test_averages_of_other_than_float32_weights_are_refused(precision, nnunet_root, tmp_path):
    asked = ("callbacks=ema", f"trainer.precision={precision}", "trainer.max_steps=2")
    with pytest.raises(InputError, match=f"^trainer.precision={precision}: callbacks.ema averages float32 weights"):
        train(config_of(tmp_path, nnunet_root, *asked))
    assert not list(tmp_path.rglob("loss=*"))  # nothing half-written
