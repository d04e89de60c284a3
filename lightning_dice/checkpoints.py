"""Checkpoint files: written so that none is ever half there, read without executing code, found again after a kill."""

import io
import json
import os
import pickle
import signal
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint
from pytorch_lightning.utilities.exceptions import SIGTERMException

from lightning_dice.errors import InputError, Interrupted
from lightning_dice.files import atomic_write
from lightning_dice.runs import Run

SAFETENSORS = ".safetensors"  # what files of `read_safetensors` end in
CHECKPOINT_EVERY = 60.0  # seconds, what a kill can cost; a checkpoint of the paper's network is 230 MB


class CheckpointFiles(TorchCheckpointIO):
    """Writes a run's checkpoints beside their targets and renames them; keeps the last one as the previous one."""

    def __init__(self, run: Run):
        self.run = run

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Path | str, storage_options: Any = None) -> None:
        buffer = io.BytesIO()  # torch's own writer does not say that a disk is full
        torch.save(checkpoint, buffer)
        path = Path(path)
        with atomic_write(path) as temporary:
            with open(temporary, "wb") as file:
                file.write(buffer.getbuffer())
                file.flush()
                os.fsync(file.fileno())
            if path == self.run.last and path.is_file():
                os.replace(path, self.run.previous)


class BestCheckpoint(ModelCheckpoint):
    """Saves the run's best checkpoint after each validation, however often there is one, and knows it again after the
    run's folder was moved, where Lightning's own would forget its score."""

    def __init__(self, run: Run):
        where: dict[str, Any] = {"dirpath": run.checkpoints, "filename": run.best.stem, "enable_version_counter": False}
        super().__init__(monitor="val/dice", mode="max", save_on_train_epoch_end=False, **where)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        paths = ("best_model_path", "kth_best_model_path", "last_model_path")
        here = {key: self._here(state_dict[key]) for key in paths}
        models = {self._here(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict(state_dict | here | {"dirpath": self.dirpath, "best_k_models": models})

    def _here(self, path: str) -> str:
        return str(Path(str(self.dirpath)) / Path(path).name) if path else path


class LastCheckpoint(Checkpoint):
    """Saves the run's last checkpoint between two iterations, once a minute and at the end.

    Before an iteration begins, the points of the curves, the validation and the best checkpoint of the one before are
    written: what is in the checkpoint and what is in the other files agree, and a resumed run repeats nothing.

    Ctrl-C lets the iteration end, with its validation if it has one, saves, and raises `Interrupted`; a second one
    ends at once, and the run goes on from the checkpoint before. SIGTERM, which a cluster sends before it takes a
    machine away, is Lightning's: it ends after the iteration too, and is saved here.

    Of several ranks, rank zero says when, and all of them save and stop after the same iteration; it does the same for
    SIGTERM as for Ctrl-C, since Lightning's way needs all of them to get it in the same iteration.

    A training that a callback stopped stays stopped: the checkpoint says so, and a resumed run goes on with the test.
    """

    def __init__(self, run: Run):
        self.run = run
        self._asked_to_stop = False
        self._handlers: dict[int, Any] = {}
        self._stopped_early = False

    def state_dict(self) -> dict[str, Any]:
        return {"stopped_early": self._stopped_early}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._stopped_early = state_dict["stopped_early"]

    def on_fit_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        trainer.should_stop = self._stopped_early

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._saved = time.monotonic()
        if threading.current_thread() is threading.main_thread():
            handler = self._ask_to_stop if trainer.is_global_zero else signal.SIG_IGN
            signals = [signal.SIGINT] if trainer.world_size == 1 else [signal.SIGINT, signal.SIGTERM]
            self._handlers = {number: signal.signal(number, handler) for number in signals}

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx % trainer.accumulate_grad_batches:
            return  # in the middle of an iteration
        is_due = self._asked_to_stop or time.monotonic() - self._saved >= CHECKPOINT_EVERY
        stops, is_due = trainer.strategy.broadcast((self._asked_to_stop, is_due))
        if is_due:
            self._save(trainer)
        if stops:
            raise Interrupted(f"stopped after step {trainer.global_step} of {trainer.max_steps}")

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._stopped_early = trainer.should_stop
        self._save(trainer)
        self._give_back()
        if trainer.strategy.broadcast(self._asked_to_stop):
            raise Interrupted("stopped after the training, before the test")

    def on_test_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.world_size > 1 and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # Lightning's waits for all ranks to get it; it puts it back

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException) -> None:
        self._give_back()
        batches = trainer.fit_loop.epoch_loop.batch_idx + 1
        is_whole = batches % trainer.accumulate_grad_batches == 0
        is_alone = trainer.world_size == 1
        is_between = is_whole and not trainer.validating  # a validation that was cut short is to be done again
        if isinstance(exception, SIGTERMException) and is_alone and is_between and not trainer.should_stop:
            self._save(trainer)  # before its end came

    def _save(self, trainer: pl.Trainer) -> None:
        if trainer.global_step:
            trainer.save_checkpoint(self.run.last)
        self._saved = time.monotonic()

    def _ask_to_stop(self, *_: Any) -> None:
        self._asked_to_stop = True
        self._give_back()
        print("\nstopping after this iteration; Ctrl-C again stops at once", flush=True)

    def _give_back(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}


def find_checkpoint(run: Run) -> int:
    """The step of the last checkpoint; 0 without one. Where it cannot be read, the one before takes its place, and a
    line says so."""
    for path in (run.last, run.previous):
        if path.is_file():
            try:
                step = int(read_checkpoint(path)["global_step"])
            except (InputError, KeyError, TypeError, ValueError) as error:
                reason = str(error) if isinstance(error, InputError) else f"{path}: not a checkpoint of a training"
                print(f"{reason}; it is passed over")
                path.unlink()
            else:
                os.replace(path, run.last)
                return step
    return 0


def read_checkpoint(path: Path | str) -> dict[str, Any]:
    """Load a checkpoint onto the CPU without executing code.

    Raises:
        InputError: no such file, not a checkpoint, or one that holds more than plain types and tensors.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; expected a checkpoint, such as RUN/checkpoints/last.ckpt") from None
    except pickle.UnpicklingError:  # its text says how to switch the protection off
        reason = "it holds other objects than tensors and plain types, which could run code when they are loaded"
        if not zipfile.is_zipfile(path):
            reason = "it is damaged"
        raise InputError(
            f"{path}: not a readable checkpoint ({reason}); expected what lightning_dice.train wrote"
        ) from None
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, AttributeError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(f"{path}: not a readable checkpoint ({reason}); it is damaged or of another program") from None


def read_safetensors(path: Path | str, key: str) -> dict[str, Any]:
    """Load a `.safetensors` file onto the CPU, as a checkpoint: the JSON that its header has under `key`, and the
    tensors under "state_dict". The format holds no code.

    Raises:
        InputError: no such file, no readable one, or the extra is not installed.
    """
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError:
        raise InputError(f"{path}: needs safetensors; pip install 'lightning-dice[safetensors]'") from None
    try:
        with safe_open(path, framework="pt") as file:
            stored = (file.metadata() or {}).get(key, "null")
            return {key: json.loads(stored), "state_dict": {name: file.get_tensor(name) for name in file.keys()}}  # noqa: SIM118 (no dictionary)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; expected one that lightning_dice.export wrote") from None
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not a readable safetensors file ({reason}); export it anew") from None
