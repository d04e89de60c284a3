"""The multi-class Dice loss of Eq. 2 and 6 of Shen et al. 2018, and the class weights of Eq. 3 to 5."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

WEIGHTINGS = ("uniform", "simple", "square")
POOLS = ("batch", "sample")
NORMALIZATIONS = (None, "none", "mean", "sum")


def class_weights(voxels_per_class: Sequence[int] | Tensor, weighting: str, epsilon: float = 1.0) -> Tensor:
    """The weights w_l of Eq. 3 to 5, from the class frequencies of the whole training set.

    With L classes, |R_l| voxels in class l and N = Σ |R_l| voxels in all:

    - uniform (Eq. 3): 1
    - simple (Eq. 4): N / (L |R_l| + ε), which is 1 for equal frequencies
    - square (Eq. 5): N / (L |R_l|² + ε)

    They are finite for a class without a voxel too, thanks to ε, and they do not depend on what a crop happens to hold,
    as weights by the crop's own frequencies do.

    Args:
        voxels_per_class: counts over all training volumes, background included, (L,).
        weighting: one of `WEIGHTINGS`.
        epsilon: ε, 1 in the paper.

    Returns:
        float64 (L,): 340 volumes have some 10⁹ voxels, and the square weights of large classes fall below 10⁻⁹.

    Raises:
        ValueError: an unknown weighting, an ε that is no number above 0, or counts that are not a vector of finite
            numbers from 0.
    """
    _check_choice("weighting", weighting, WEIGHTINGS)
    if not _is_number(epsilon) or epsilon <= 0:
        raise ValueError(f"epsilon={epsilon!r}: expected a finite number above 0, 1 in the paper")
    counts = torch.as_tensor(voxels_per_class, dtype=torch.float64, device="cpu")
    if counts.ndim != 1 or not len(counts) or not counts.isfinite().all() or (counts < 0).any():
        raise ValueError(f"voxels_per_class={counts.tolist()}: expected one finite count from 0 per class")
    total, classes = counts.sum(), len(counts)
    if weighting == "uniform":
        return torch.ones(classes, dtype=torch.float64)
    power = 1 if weighting == "simple" else 2
    return total / (classes * counts**power + epsilon)


class DiceLoss(nn.Module):
    """Weighted multi-class soft Dice loss, negative as in Eq. 6: from -mean(w) for a perfect overlap up to 0.

    With s the softmax of the logits and r the one-hot target (Eq. 2 and 6):

        loss = -1/L Σ_l w_l · (2 Σ_i s_il r_il + smooth) / (Σ_i s_il + Σ_i r_il + smooth)

    A class that the patches do not hold has Dice 0 and no gradient as long as `smooth` is 0, as printed in the paper.

    Args:
        weighting: of the classes, see `class_weights`: "uniform", "simple" or "square".
        epsilon: ε of the weights; it does not enter the Dice.
        pool: "batch" sums voxels over the whole batch, "sample" over each sample, and averages the samples' losses.
        smooth: added to numerator and denominator; 0 in the paper.
        normalize: "mean" or "sum" divides the weights by their mean or sum; None or "none" leaves them as they are.

    Shapes:
        logits (B, L, D, H, W) float; target (B, D, H, W) or (B, 1, D, H, W) integer class indices; result: scalar.

    The weights are computed in float64. The loss is computed in float32, outside autocast, or in float64 if the logits
    are.

    Attributes:
        across: where several processes train one network, each on its part of the batch, what adds up a tensor of
            theirs with its gradient, such as `lightning_dice.ranks.total`. In training the loss is then that of the
            whole batch, on each of them; None, by default, leaves it that of the part.

    Raises:
        ValueError: an unknown choice; an `epsilon` or a `smooth` that is out of range; logits and target whose shapes
            or numbers of classes do not fit; a target that is not integer; on the CPU a label outside 0 to L-1 (other
            devices would have to stop and wait for that check).
        RuntimeError: a weighting by frequency before `set_class_voxels`.
    """

    def __init__(
        self,
        weighting: str = "uniform",
        epsilon: float = 1.0,
        pool: str = "batch",
        smooth: float = 0.0,
        normalize: str | None = None,
    ):
        super().__init__()
        _check_choice("weighting", weighting, WEIGHTINGS)
        _check_choice("pool", pool, POOLS)
        _check_choice("normalize", normalize, NORMALIZATIONS)
        class_weights([1], weighting, epsilon)  # refuses what is no ε
        if not _is_number(smooth) or smooth < 0:
            raise ValueError(f"smooth={smooth!r}: expected a finite number from 0, which it is in the paper")
        self.weighting = weighting
        self.epsilon = epsilon
        self.pool = pool
        self.smooth = smooth
        self.normalize = normalize
        self.weights: Tensor | None = None  # float64 (L,); no buffer, because not all devices have float64
        self._placed: Tensor | None = None  # the same, with the logits' type on their device
        self.across: Callable[[Tensor], Tensor] | None = None

    def set_class_voxels(self, voxels_per_class: Sequence[int] | Tensor) -> None:
        """Compute the weights from the class counts (L,) of the whole training set, background included."""
        weights = class_weights(voxels_per_class, self.weighting, self.epsilon)
        if self.normalize == "mean":
            weights = weights / weights.mean()
        elif self.normalize == "sum":
            weights = weights / weights.sum()
        self.weights, self._placed = weights, None

    @property
    def least(self) -> float:
        """The loss of a perfect overlap."""
        return -1.0 if self.weights is None else -self.weights.mean().item()

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        if target.ndim == logits.ndim and target.shape[1] == 1:
            target = target.squeeze(1)  # (B, 1, D, H, W) -> (B, D, H, W)
        classes = logits.shape[1]
        self._check(logits, target, classes)
        with torch.autocast(logits.device.type, enabled=False):
            weights = self._weights_like(logits)
            s = logits.to(weights.dtype).softmax(dim=1).flatten(2)  # (B, L, D, H, W) -> (B, L, V)
            r = target.flatten(1)[:, None] == torch.arange(classes, device=target.device)[:, None]  # (B, L, V)
            dims = (0, 2) if self.pool == "batch" else (2,)
            overlap, sizes = (s * r).sum(dims), s.sum(dims) + r.sum(dims)  # (L,) or (B, L)
            across = self.across if self.training else None
            if across and self.pool == "batch":
                overlap, sizes = across(torch.stack([overlap, sizes]))
            # A class neither there nor predicted, to the last bit, would be 0/0; it has Dice 0 like any absent one.
            dice = (2 * overlap + self.smooth) / (sizes + self.smooth).clamp_min(torch.finfo(s.dtype).tiny)
            loss = -(weights * dice).mean()
            if across and self.pool == "sample":
                loss = across(loss) / across(torch.ones_like(loss))
            return loss

    def _weights_like(self, logits: Tensor) -> Tensor:
        dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
        if self.weights is None:
            return torch.ones(logits.shape[1], dtype=dtype, device=logits.device)
        if self._placed is None or self._placed.device != logits.device or self._placed.dtype != dtype:
            self._placed = self.weights.to(dtype).to(logits.device)
        return self._placed

    def _check(self, logits: Tensor, target: Tensor, classes: int) -> None:
        if self.weights is None and self.weighting != "uniform":
            raise RuntimeError(
                f"DiceLoss(weighting={self.weighting!r}) has no class counts yet: call set_class_voxels(counts) with "
                "the voxels per class of the training set before the first loss"
            )
        if self.weights is not None and len(self.weights) != classes:
            raise ValueError(f"logits with {classes} classes: the class counts given are for {len(self.weights)}")
        if logits.shape[:1] + logits.shape[2:] != target.shape:
            raise ValueError(
                f"target of shape {tuple(target.shape)} for logits of shape {tuple(logits.shape)}: expected "
                f"{(logits.shape[0], *logits.shape[2:])}, with or without a channel of one"
            )
        if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
            raise ValueError(f"target of type {target.dtype}: expected integer class indices")
        if target.device.type == "cpu" and target.numel() and not 0 <= target.min() <= target.max() < classes:
            raise ValueError(
                f"target with labels from {target.min()} to {target.max()}: expected 0 to {classes - 1}, one per class"
            )


def _check_choice(name: str, value: object, choices: Sequence[object]) -> None:
    if value not in choices:
        raise ValueError(f"{name}={value!r}: expected one of {', '.join(map(str, choices))}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
