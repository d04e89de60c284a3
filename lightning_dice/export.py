"""python -m lightning_dice.export run=FOLDER format=FORMAT output=PATH: a trained network for other programs.

With data=… format=nnunet_raw it is a data set.
"""

from lightning_dice.cli import command

if __name__ == "__main__":
    command("export", paths=("run", "output"))

from pathlib import Path

from omegaconf import DictConfig

from lightning_dice.build import build_datamodule
from lightning_dice.checkpoints import SAFETENSORS
from lightning_dice.config import shipped_labels
from lightning_dice.data.labels import LabelChoice
from lightning_dice.errors import InputError
from lightning_dice.exports.monai_bundle import write_monai_bundle
from lightning_dice.exports.nnunet_raw import write_nnunet_raw
from lightning_dice.exports.onnx import write_onnx
from lightning_dice.exports.safetensors import write_safetensors
from lightning_dice.exports.torch_export import write_torch_export
from lightning_dice.recipe import load_network
from lightning_dice.runs import Run
from lightning_dice.settings import ExportSettings
from lightning_dice.validation import checked

WRITERS = {
    "onnx": write_onnx,
    "safetensors": write_safetensors,
    "torch_export": write_torch_export,
    "monai_bundle": write_monai_bundle,
}
ENDINGS = {"onnx": ".onnx", "safetensors": SAFETENSORS, "torch_export": ".pt2"}  # the others are folders


def export(config: DictConfig) -> Path:
    """Write a run's network, or with `format=nnunet_raw` a data set, to `output`, which it returns.

    What exists there already is never replaced. What another program would compute otherwise is not written.

    Raises:
        InputError: settings that do not belong together, an output that exists or has another ending; and as the
            writers in `lightning_dice.exports`, `load_network` and the data set.
    """
    checked(config, ExportSettings)
    output = Path(config.output).expanduser()
    _check_sources(config)
    _check_output(config.format, output)
    if config.run is None:
        labels = None if config.get("labels") else LabelChoice(shipped_labels("paper"))
        told = write_nnunet_raw(build_datamodule(config, labels), output)
    else:
        network, recipe = load_network(Run(Path(config.run).expanduser()).checkpoint(config.checkpoint), config.trust)
        told = WRITERS[config.format](network, recipe, output)
    print(f"{output}: {told}")
    return output


def _check_sources(config: DictConfig) -> None:
    """A format is of a run or of a data set, and takes the settings of that alone."""
    given = [name for name in ("run", "data", "labels") if config.get(name) is not None]
    given += [name for name, default in (("checkpoint", "last"), ("trust", False)) if config[name] != default]
    is_data = config.format == "nnunet_raw"
    source, what = ("data", "a data set") if is_data else ("run", "a trained run")
    others = set(given) & ({"run", "checkpoint", "trust"} if is_data else {"data", "labels"})
    if source not in given:
        raise InputError(f"format={config.format}: is of {what}; add {source}=…")
    if others:
        raise InputError(f"format={config.format}: is of {what}; leave out {', '.join(sorted(others))}")


def _check_output(kind: str, output: Path) -> None:
    ending = ENDINGS.get(kind)
    if ending and output.suffix != ending:
        raise InputError(f"output={output}: expected a file {ending} for format={kind}")
    is_empty_folder = output.is_dir() and not any(output.iterdir())
    if output.exists() and not (is_empty_folder and ending is None):
        raise InputError(f"output={output}: exists already; remove it, or give another name")
