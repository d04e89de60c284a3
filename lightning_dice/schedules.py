"""Learning rate schedules that torch has only the parts of."""

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LinearLR, PolynomialLR, SequentialLR


def warmup_poly(
    optimizer: Optimizer, total_iters: int, power: float = 0.9, warmup: float = 0.05, start_factor: float = 0.1
) -> SequentialLR:
    """Rises linearly to the optimiser's rate, then falls to 0 as a power of the iterations that are left.

    Args:
        total_iters: iterations of both.
        power: of the fall.
        warmup: share of the iterations that rise, one at least.
        start_factor: of the rate, in the first iteration.

    Raises:
        ValueError: a share that is none, or leaves nothing to fall.
    """
    rising = max(1, round(warmup * total_iters))
    if not 0 < warmup < 1 or rising >= total_iters:
        raise ValueError(f"warmup={warmup}: expected a share above 0 that leaves some of {total_iters} iterations")
    parts = [
        LinearLR(optimizer, start_factor, total_iters=rising),
        PolynomialLR(optimizer, total_iters - rising, power),
    ]
    return SequentialLR(optimizer, parts, milestones=[rising])
