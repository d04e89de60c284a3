"""A network as a MONAI bundle: `python -m monai.bundle run` predicts the labels of `lightning_dice.predict` with it.

Format: https://docs.monai.io/en/stable/mb_specification.html.
"""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import monai
import nibabel as nib
import numpy as np
import torch
from torch import nn

from lightning_dice import __version__
from lightning_dice.errors import InputError
from lightning_dice.exports.bundle_parts import HannWindowInferer, OnScanGridd, Preparedd
from lightning_dice.files import atomic_folder
from lightning_dice.pictures.escaping import markdown
from lightning_dice.recipe import Recipe

SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
OVERLAP = 0.5  # predict's own
EVALUATED = ("$", "@", "%")  # what MONAI runs, looks up or includes, where a text begins with it
UNSTATED = "not stated; to be filled in before the bundle is published"
LICENSE = """\
The weights in models/ belong to whoever trained them: state their licence here before you pass the bundle on.
lightning-dice, which the bundle needs to run, is under the Apache License 2.0.
"""


def write_monai_bundle(network: nn.Module, recipe: Recipe, folder: Path) -> str:
    """Write the bundle: configuration, metadata, weights, description.

    It needs lightning-dice, as its metadata say: MONAI's own transforms would give another grid and other labels, see
    `bundle_parts`.

    Args:
        network: of the recipe, on the CPU.
        folder: absent or empty.

    Returns:
        A line that tells what was written.

    Raises:
        InputError: the recipe has a text that MONAI would evaluate.
    """
    if strange := [text for text in _texts([recipe.network, recipe.labels.names]) if text.startswith(EVALUATED)]:
        raise InputError(
            f"{folder}: {strange[0]!r} in the network's arguments or classes would be evaluated by MONAI; expected "
            f"none that begins with {' '.join(EVALUATED)}"
        )
    buffer = io.BytesIO()  # torch's own writer does not say that a disk is full
    torch.save({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, buffer)
    with atomic_folder(folder) as made:
        for name in ("configs", "models", "docs"):
            (made / name).mkdir()
        (made / "models" / "model.pt").write_bytes(buffer.getbuffer())
        (made / "configs" / "inference.json").write_text(json.dumps(_inference(recipe), indent=4), encoding="utf-8")
        (made / "configs" / "metadata.json").write_text(json.dumps(_metadata(recipe), indent=4), encoding="utf-8")
        (made / "docs" / "README.md").write_text(_readme(recipe), encoding="utf-8")
        (made / "LICENSE").write_text(LICENSE, encoding="utf-8")
    return f"MONAI bundle of {len(network.state_dict())} tensors; docs/README.md in it says how MONAI runs it"


def _inference(recipe: Recipe) -> dict[str, Any]:
    """What `monai.bundle run` does."""
    prepared = {
        "_target_": _name(Preparedd),
        "keys": "image",
        "spacing_mm": list(recipe.spacing_mm),
        "window_hu": list(recipe.preparation.window_hu),
        "smooth": recipe.preparation.smooth,
    }
    load = {"_target_": "LoadImaged", "keys": "image", "reader": "NibabelReader"}
    on_grid = {"_target_": _name(OnScanGridd), "keys": "pred", "image_key": "image", "preparation": "@prepared"}
    save = {
        "_target_": "SaveImaged",
        "keys": "pred",
        "output_dir": "@output_dir",
        "output_postfix": "@output_postfix",
        "output_dtype": "$numpy.uint8",
        "resample": False,
        "separate_folder": False,
    }
    evaluator = {
        "_target_": "SupervisedEvaluator",
        "device": "@device",
        "val_data_loader": "@dataloader",
        "network": "@network",
        "inferer": "@inferer",
        "postprocessing": "@postprocessing",
        "val_handlers": "@handlers",
        "amp": False,
    }
    return {
        "imports": ["$import glob", "$from lightning_dice.network import channels_last"],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/scans'",
        "output_dir": "$@bundle_root + '/eval'",
        "output_postfix": "seg",
        "overlap": OVERLAP,
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "datalist": "$[{'image': path} for path in sorted(glob.glob(@dataset_dir + '/*.nii*'))]",
        "network_def": recipe.network,
        "network": "$channels_last(@network_def).to(@device)",
        "prepared": prepared,
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [load, {"_target_": "EnsureChannelFirstd", "keys": "image"}, "@prepared"],
        },
        "dataset": {"_target_": "Dataset", "data": "@datalist", "transform": "@preprocessing"},
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1, "num_workers": 0},
        "inferer": {
            "_target_": _name(HannWindowInferer),
            "patch_size": list(recipe.patch_size),
            "overlap": "@overlap",
        },
        "postprocessing": {"_target_": "Compose", "transforms": [on_grid, save]},
        "handlers": [
            {
                "_target_": "CheckpointLoader",
                "load_path": "$@bundle_root + '/models/model.pt'",
                "load_dict": {"model": "@network"},
                "map_location": "@device",
            }
        ],
        "evaluator": evaluator,
        "run": ["$@evaluator.run()"],
    }


def _metadata(recipe: Recipe) -> dict[str, Any]:
    """With the fields of MONAI's schema."""
    names = recipe.labels.names
    classes = {str(index): name for index, name in enumerate(names)}
    counted = ", ".join(f"{index} {name}" for index, name in classes.items())
    patch = {"spatial_shape": list(recipe.patch_size), "dtype": "float32", "is_patch_data": True}
    low, high = recipe.preparation.window_hu
    return {
        "schema": SCHEMA,
        "version": "0.1.0",
        "changelog": {"0.1.0": f"exported by lightning-dice {__version__}"},
        "monai_version": monai.__version__,
        "pytorch_version": str(torch.__version__).partition("+")[0],
        "numpy_version": np.__version__,
        "required_packages_version": {
            "lightning-dice": __version__,
            "nibabel": nib.__version__,
            "pytorch-ignite": "0.4.11",
        },
        "task": f"Segmentation of {', '.join(names[1:])} in CT",
        "description": (
            f"{recipe.network['_target_']}, trained by lightning-dice on CT at voxels of {_sizes(recipe)} mm, "
            f"{low:g} to {high:g} HU scaled to 0 to 1"
        ),
        "authors": UNSTATED,
        "copyright": UNSTATED,
        "data_source": UNSTATED,
        "data_type": "nibabel",
        "image_classes": f"one channel: CT in RAS+ orientation, {low:g} to {high:g} HU clipped and scaled to 0 to 1",
        "label_classes": f"one channel: {counted}",
        "pred_classes": f"{len(names)} channels of logits: {counted}",
        "eval_metrics": {},
        "intended_use": "Research; not for diagnosis",
        "references": ["Shen et al. 2018, https://arxiv.org/abs/1801.05912"],
        "supported_apps": {},
        "network_data_format": {
            "inputs": {
                "image": patch
                | {"type": "image", "format": "hounsfield", "modality": "CT", "num_channels": 1}
                | {"value_range": [0, 1], "channel_def": {"0": "image"}}
            },
            "outputs": {
                "pred": patch
                | {"type": "image", "format": "segmentation", "num_channels": len(names)}
                | {"value_range": [], "channel_def": classes}
            },
        },
    }


def _readme(recipe: Recipe) -> str:
    low, high = recipe.preparation.window_hu
    rows = "\n".join(f"| {index} | {markdown(name)} |" for index, name in enumerate(recipe.labels.names))
    return f"""\
# {markdown(", ".join(recipe.labels.names[1:]))} in CT

{markdown(recipe.network["_target_"])}, exported by lightning-dice {__version__}.
It works on voxels of {_sizes(recipe)} mm, in windows of
{" × ".join(map(str, recipe.patch_size))} voxels, on {low:g} to {high:g} HU.

```sh
pip install 'lightning-dice[bundle]=={__version__}'
python -m monai.bundle run --config_file configs/inference.json --dataset_dir SCANS --output_dir LABELS
```

from the bundle's folder (with `--bundle_root BUNDLE` from another one) writes a label map of each NIfTI file in the
folder SCANS, on the scan's own grid. The labels are those of `python -m lightning_dice.predict precision=32-true`.
Windows overlap by half; `--overlap 0` leaves that out. All logits of a scan are in main memory at once.

| value | class |
|---|---|
{rows}
"""


def _sizes(recipe: Recipe) -> str:
    return " × ".join(f"{size:g}" for size in recipe.spacing_mm)


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _texts(node: Any) -> Iterator[str]:
    """All texts in plain types, keys included."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict):
        for key, value in node.items():
            yield from _texts([key, value])
    elif isinstance(node, list | tuple):
        for item in node:
            yield from _texts(item)
