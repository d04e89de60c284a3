"""Classes that a training lost: large ones that the network does not find on its own training patches."""

from collections.abc import Mapping, Sequence

import pandas as pd

AFTER = 50  # steps: earlier a network may still be on its way to it
LEAST_SHARE = 0.01  # of the training voxels: many patches have nothing of a smaller class
LOST_BELOW = 0.2  # training Dice


def shares_of(names: Sequence[str], voxels: Sequence[int]) -> dict[str, float]:
    """Of all voxels, by class."""
    return {name: count / sum(voxels) for name, count in zip(names, voxels, strict=True)}


def lost_classes(dice: Mapping[str, float], shares: Mapping[str, float], step: int) -> dict[str, float]:
    """The training Dice of each class that has more than LEAST_SHARE of the training's voxels and a Dice below
    LOST_BELOW, at a point of the curves from step AFTER on."""
    large = [name for name, share in shares.items() if share > LEAST_SHARE and step >= AFTER]
    return {name: dice[name] for name in large if dice.get(name, LOST_BELOW) < LOST_BELOW}


def lost_at_end(metrics: pd.DataFrame, shares: Mapping[str, float]) -> dict[str, float]:
    """Those at the last training point of a run's `metrics.csv`."""
    columns = {f"train/dice/{name}": name for name in shares}
    points = metrics.dropna(subset=["train/loss"])
    if points.empty:
        return {}
    last = points.iloc[-1]
    return lost_classes(last[list(columns)].rename(columns).to_dict(), shares, int(last["step"]))
