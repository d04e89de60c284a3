"""The LightningModule: a given network, loss and optimiser factory."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from lightning_dice.data.patches import Batch
from lightning_dice.errors import InputError
from lightning_dice.inference import sliding_window
from lightning_dice.metrics import dice_counts, dice_from_counts
from lightning_dice.network import compiled
from lightning_dice.ranks import in_order, of_each, ranks, total
from lightning_dice.recipe import CHECKPOINT_KEY, Recipe

DIVERGED = "the last checkpoint is from before; try a lower optim.lr, or trainer.precision=32-true"
OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
ScheduleFactory = Callable[[torch.optim.Optimizer], LRScheduler]


class SegmentationModule(pl.LightningModule):
    """Trains `network` with `loss`, and segments whole volumes for validation and test.

    Not annotated is not background. Where the network knows a class that the data do not annotate, its probability
    counts as background's (the marginal loss of Shi et al. 2021, Medical Image Analysis 70:101979), so that it is
    neither taught nor forbidden.

    Every `log_every_n_steps` steps of the trainer, and after the last one, its loggers get `train/loss`, the mean since
    the last time, and `train/dice/CLASS`, the Dice of the argmax over all voxels of these steps' patches. Validations
    give `val/loss` and `val/dice/CLASS`, means over whole volumes with undefined ones left out, and `val/dice`, the
    mean over the organs, without background, which the best checkpoint goes by.

    Args:
        network: maps (B, 1, X, Y, Z) to logits (B, L, X, Y, Z).
        recipe: of the data, for checkpoint and sliding window.
        loss: called as `loss(logits, target)` with an integer target (B, X, Y, Z); only training needs it.
        optimizer: makes the optimiser from the parameters; only training needs it.
        overlap: of the sliding window.
        taught: those of the recipe's classes that the data annotate, in its order; all by default.
        compiles: training calls the network through `torch.compile`.
        schedule: makes the schedule of the learning rate from the optimiser, stepped by iterations; None is none.
    """

    _indices: Tensor  # buffers
    _places: Tensor

    def __init__(
        self,
        network: nn.Module,
        recipe: Recipe,
        loss: nn.Module | None = None,
        optimizer: OptimizerFactory | None = None,
        overlap: float = 0.0,
        taught: Sequence[str] | None = None,
        compiles: bool = False,
        schedule: ScheduleFactory | None = None,
    ):
        super().__init__()
        self.network = network
        self.recipe = recipe
        self.loss: Any = loss  # None where nothing is trained, as the optimiser
        self.optimizer: Any = optimizer
        self.overlap = overlap
        self.compiles = compiles
        self.schedule = schedule
        self._train: Callable[[Tensor], Tensor] = self.forward
        self.taught = recipe.labels.names if taught is None else tuple(taught)
        indices, places = recipe.labels.indices(self.taught), recipe.labels.places(self.taught)
        self.register_buffer("_indices", torch.tensor(indices, dtype=torch.uint8), persistent=False)
        self.register_buffer("_places", torch.tensor(places, dtype=torch.uint8), persistent=False)  # and back
        # Of the batches since the curves' last point, on the device but for the cases. On several devices the losses
        # are the whole batches', see `DiceLoss.across`, and the others of this rank's parts.
        self._losses: list[Tensor] = []
        self._counts: list[Tensor] = []
        self._cases: list[list[str]] = []
        self._random: list[Tensor] = []  # states of torch's generators to go on from

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer: torch.optim.Optimizer = self.optimizer(self.network.parameters())
        if self.schedule is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": self.schedule(optimizer), "interval": "step"}}

    def forward(self, image: Tensor) -> Tensor:
        return self.network(image)

    def on_fit_start(self) -> None:
        if self.compiles:
            self._train = compiled(self.network)

    def on_train_start(self) -> None:
        if self.global_rank:  # whose layers that draw at random are not to draw what rank zero's do
            torch.manual_seed(torch.initial_seed() + self.global_rank)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        if self._random:
            _set_random_states(self._random)
            self._random = []

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        logits, target = self.taught_logits(self._train(batch.image)), self.target(batch.label)
        loss = self.loss(logits, target)
        self.log("loss", loss, prog_bar=True, logger=False)
        self._losses.append(loss.detach())
        self._counts.append(dice_counts(logits.detach().argmax(dim=1), target, len(self.taught)))
        self._cases.append(batch.ids)
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        if (batch_idx + 1) % self.trainer.accumulate_grad_batches:
            return  # in the middle of an iteration
        if self.has_point(self.global_step):
            self._log_training()

    def has_point(self, step: int) -> bool:
        """Whether the training's curves have a point after this step; a training that is stopped early has one more."""
        interval: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]  # one of its connectors sets it
        return step % interval == 0 or step == self.trainer.max_steps

    def on_train_epoch_end(self) -> None:
        if self._losses:  # of a training that was stopped early
            self._log_training()

    def on_validation_epoch_start(self) -> None:
        self._validation: list[tuple[str, tuple[Tensor, Tensor]]] = []  # loss and Dice of this rank's cases

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        logits = self._segment(batch)
        target = self.target(batch.label)
        counts = dice_counts(logits.argmax(dim=1), target, len(self.taught))
        self._validation.append((batch.ids[0], (self.loss(logits, target), dice_from_counts(counts))))
        return self.label_map(logits)

    def on_validation_epoch_end(self) -> None:
        if self.trainer.sanity_checking:
            return
        cases = dict(in_order(self._validation))  # each once, see `CTDataModule`
        losses, dice = (torch.stack(values) for values in zip(*cases.values(), strict=True))
        by_class = dice.nanmean(dim=0)
        mean = by_class[1:].nanmean()
        self._log_point("val", losses, by_class, {"val/dice": mean.item()})
        self.log("val/dice", mean, prog_bar=True, logger=False)

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self._segment(batch)

    def label_map(self, logits: Tensor) -> Tensor:
        """Indices of the data's classes, uint8 (X, Y, Z), of the taught ones' logits (1, K, X, Y, Z)."""
        return self._indices[logits[0].argmax(dim=0)]

    def _segment(self, batch: Batch) -> Tensor:
        """The taught classes' logits (1, K, X, Y, Z) of the one volume in the batch."""
        return self.taught_logits(
            sliding_window(self.network, batch.image[0], self.recipe.patch_size, self.overlap)[None]
        )

    def target(self, label: Tensor) -> Tensor:
        """Indices of the data's classes, of any shape → places among the taught ones, uint8; of others background's."""
        return self._places[label.long()]

    def taught_logits(self, logits: Tensor) -> Tensor:
        """All classes' logits (B, L, X, Y, Z) → the taught ones' (B, K, X, Y, Z); the others' share is background's.

        Raises:
            InputError: the network gives something else, such as the outputs of several depths.
        """
        classes = len(self.recipe.labels)
        if not isinstance(logits, Tensor) or logits.dim() != 5 or logits.shape[1] != classes:
            given = tuple(logits.shape) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
            raise InputError(
                f"network._target_={self.recipe.network['_target_']}: gives {given}; expected logits (B, {classes}, "
                "X, Y, Z), in one tensor"
            )
        if self.taught == self.recipe.labels.names:
            return logits
        places = self.recipe.labels.indices(self.taught[1:])
        rest = [place for place in range(len(self.recipe.labels)) if place not in places]
        background = logits[:, rest].float().logsumexp(dim=1, keepdim=True)
        return torch.cat([background, logits[:, places].float()], dim=1)

    def _log_training(self) -> None:
        self._check_losses()
        counts = total(torch.stack(self._counts).sum(dim=0))
        self._log_point("train", torch.stack(self._losses), dice_from_counts(counts))
        self._losses, self._counts, self._cases = [], [], []

    def _log_point(self, stage: str, losses: Tensor, dice: Tensor, more: Mapping[str, float] | None = None) -> None:
        values = {f"{stage}/loss": losses.mean().item(), **(more or {})}
        values |= {f"{stage}/dice/{name}": d for name, d in zip(self.taught, dice.tolist(), strict=True)}
        for logger in self.loggers:
            logger.log_metrics(values, step=self.global_step)

    def _check_losses(self) -> None:
        """Looked at now and then only, since a GPU must be waited for."""
        losses = torch.stack(self._losses).float().cpu()
        if not losses.isfinite().all():
            place = int(losses.isfinite().int().argmin())  # the first that is not
            step = self.global_step - (len(losses) - 1 - place) // self.trainer.accumulate_grad_batches
            cases = chain.from_iterable(of_each(self._cases[place]))
            raise InputError(
                f"loss={losses[place]} at step {step}, on patches of {', '.join(cases)}: the training "
                f"diverged, expected a finite loss; {DIVERGED}"
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what `load_network` needs, and what a resumed run needs to repeat nothing, as plain types.

        Raises:
            InputError: a loss or a weight is not finite: the last good checkpoint stays.
        """
        if self._losses:
            self._check_losses()
        averaged_from = checkpoint.get("current_model_state", {})  # where the state is of averaged weights
        for name, value in (*checkpoint["state_dict"].items(), *averaged_from.items()):
            if not value.isfinite().all():
                raise InputError(
                    f"{name} is not finite after step {self.global_step}: the training diverged; {DIVERGED}"
                )
        checkpoint[CHECKPOINT_KEY] = self.recipe.entry() | {
            "losses": self._losses,
            "counts": [total(counts) for counts in self._counts],
            "cases": [list(chain(*parts)) for parts in zip(*of_each(self._cases), strict=True)],
            "random": of_each(_random_states()) if ranks() > 1 else _random_states(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        ours = checkpoint[CHECKPOINT_KEY]
        self._losses = [loss.to(self.device) for loss in ours.get("losses", [])]
        self._counts = [counts.to(self.device) for counts in ours.get("counts", [])]
        self._cases = ours.get("cases", [])
        if self.global_rank:  # what all ranks had is rank zero's now, on however many the run goes on
            self._counts = [torch.zeros_like(counts) for counts in self._counts]
            self._cases = [[] for _ in self._cases]
        random = ours.get("random", [])
        of_ranks = random if random and isinstance(random[0], list) else [random]
        self._random = of_ranks[self.global_rank] if self.global_rank < len(of_ranks) else []


def _random_states() -> list[Tensor]:
    """Of torch's generators: the CPU's, and those of the CUDA devices."""
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else ())]


def _set_random_states(states: Sequence[Tensor]) -> None:
    torch.set_rng_state(states[0])
    for device, state in enumerate(states[1 : 1 + torch.cuda.device_count()]):
        torch.cuda.set_rng_state(state, device)
