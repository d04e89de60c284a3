"""python -m lightning_dice.prepare: bring a data set into the store, and tell what is in it, good and bad."""

from lightning_dice.cli import command

if __name__ == "__main__":
    command("prepare")

from omegaconf import DictConfig

from lightning_dice.build_data import build_dataset
from lightning_dice.data.card import write_card
from lightning_dice.data.dataset import CTDataset
from lightning_dice.data.integrity import findings_table
from lightning_dice.pictures.tables import classes_table
from lightning_dice.settings import PrepareSettings
from lightning_dice.validation import checked


def prepare(config: DictConfig) -> CTDataset:
    """Generate phantoms if asked for, prepare what is not in the store yet, tell the classes' shares, and
    write the card of the data set.

    With `check` nothing is prepared. Either way the findings of the integrity check are told.

    Raises:
        InputError: a data set that cannot be used; all its problems in one message.
    """
    checked(config, PrepareSettings)
    data = build_dataset(config)
    try:
        data.check() if config.check else data.setup()
    finally:
        if data.findings:
            print(findings_table(data.findings))
    if config.check:
        print(f"{data.root}: checked, {len(data.findings)} findings, listed in {data.integrity}")
        return data
    # Here, since it takes longer to import than all the rest.
    from lightning_dice.loss import WEIGHTINGS, class_weights

    cases, voxels = list(data.cases.values()), data.class_voxels
    weights = {name: class_weights(voxels, name).tolist() for name in WEIGHTINGS}
    folder = data.store / data.name
    about = f"{data.root} in {data.preparation}"
    window = data.preparation.window_hu
    card = write_card(
        folder, data.name, about, cases, data.labels, data.taught, window, weights, data.findings, data.excluded
    )
    print(f"cases of {data.root}: {len(cases)}, prepared in {folder}, with a page about them: {card}")
    print(classes_table(data.taught, voxels))
    return data
