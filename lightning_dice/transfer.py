"""A network that starts from the weights of another: what fits of them, by name and shape."""

from pathlib import Path

from lightning_dice.data.labels import told_names
from lightning_dice.errors import InputError
from lightning_dice.module import SegmentationModule
from lightning_dice.recipe import built, read_weights


def start_from(path: Path, module: SegmentationModule, classes_argument: str) -> str:
    """Take into the module's network what fits of a checkpoint of ours. Nothing that the file names is imported.

    A layer's tensors are taken if all of them have their like there, of the same name and shape. With other classes
    than the checkpoint's, those whose shape depends on the number of classes are new, but where they are one layer's
    with a row per class: there the classes that both know get their rows.

    Args:
        classes_argument: what the network's constructor calls the number of classes.

    Returns:
        A line that tells what was taken, and what is new.

    Raises:
        InputError: as `read_weights`, or nothing fits.
    """
    recipe, weights = read_weights(path)
    own, description = module.network.state_dict(), module.recipe.network
    old, new = recipe.labels, module.recipe.labels
    is_same = old.names == new.names
    larger = own if is_same else built(description | {classes_argument: len(new) + 1}).state_dict()
    depending = {name for name in own if larger[name].shape != own[name].shape}  # on the number of classes
    absent = [n for n in own if n in depending or n not in weights or weights[n].shape != own[n].shape]
    layers = {_layer(name) for name in absent}
    taken = [name for name in own if _layer(name) not in layers]
    if not taken:
        raise InputError(
            f"init_from={path}: none of its {len(weights)} tensors, of a {recipe.network.get('_target_')}, fits one of "
            f"{description['_target_']} with its settings; expected a checkpoint of this network"
        )
    head = [
        name
        for name in own
        if name in depending
        and name in weights
        and weights[name].shape == (len(old), *own[name].shape[1:])
        and own[name].shape == (len(new), *larger[name].shape[1:])
    ]
    if set(head) != depending or len({_layer(name) for name in head}) > 1:
        head = []
    both = [name for name in new.names if name in old.names]
    for name in taken:
        own[name].copy_(weights[name])
    for name in head:
        own[name][new.indices(both)] = weights[name][old.indices(both)].to(own[name].dtype)

    told = f"init_from: took {len(taken)} of {len(weights)} tensors of {path}"
    if head:
        told += f", and the rows of {told_names(both)} of {told_names(head)}"
    fresh = [name for name in own if name not in taken and name not in head]
    told += f"; new: {told_names(fresh)}" if fresh else ""
    rows = [name for name in new.names if head and name not in both]
    return f"{told}; new rows: {told_names(rows)}" if rows else told


def _layer(name: str) -> str:
    return name.rpartition(".")[0]
