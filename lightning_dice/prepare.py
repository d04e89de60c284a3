"""python -m lightning_dice.prepare: bring a data set into the store, and tell what is in it."""

from omegaconf import DictConfig

from lightning_dice.build import build_datamodule
from lightning_dice.cli import command
from lightning_dice.data.datamodule import CTDataModule
from lightning_dice.paper.table1 import classes_table


def prepare(config: DictConfig) -> CTDataModule:
    """Generate phantoms if asked for, prepare what is not in the store yet, and tell the classes' shares.

    Raises:
        InputError: a data set that cannot be used; all its problems in one message.
    """
    data = build_datamodule(config)
    data.setup()
    print(f"{len(data.cases)} cases of {data.root}, prepared in {data.store / data.name}")
    print(classes_table(data.taught, data.class_voxels))
    return data


if __name__ == "__main__":
    command("prepare")(prepare)()
