"""Data flow one way: a file imports only from what stands above it in this list."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "lightning_dice"
ORDER = [
    "errors", "files", "durations", "cells", "parallel", "launch", "ranks",
    "settings", "data.labels", "config", "validation", "usage", "completion", "__main__",
    "pictures.escaping", "pictures.frames", "pictures.legend", "pictures.slices", "pictures.surfaces",
    "pictures.curves", "pictures.tables",
    "data.pixel_data", "data.dicom", "data.headers", "data.scans", "data.label_maps",
    "data.cases", "data.integrity", "data.organs",
    "data.layouts.nnunet", "data.layouts.paired", "data.layouts.totalsegmentator",
    "data.phantom.structures", "data.phantom.body", "data.phantom.trunk", "data.phantom.chest", "data.phantom.bowel",
    "data.phantom.organs", "data.phantom.vessels", "data.phantom.skeleton", "data.phantom.anatomy",
    "data.phantom.tumours", "data.phantom.dataset",
    "data.volumes", "data.store", "data.card", "data.patches", "data.dataset", "data.loaders", "data.datamodule",
    "network", "loss", "schedules", "metrics", "ensemble", "inference", "runs", "naming", "sessions", "checkpoints",
    "trust", "recipe", "module", "lost", "prior", "transfer", "objects", "build_data", "losses",
    "paper.published", "paper.stored", "members", "paper.folder_names", "paper.grid",
    "paper.intervals", "paper.ensembles", "paper.variance", "paper.statistics", "paper.observations",
    "paper.predictions", "paper.remarks", "paper.archive", "paper.table1", "paper.figure1", "paper.rates",
    "paper.segmentations", "paper.viewer", "paper.interactive", "paper.page_tables", "paper.page",
    "callbacks.timing", "callbacks.measures", "callbacks.curves", "callbacks.overlays", "callbacks.scoring",
    "callbacks.board", "callbacks.averaging", "callbacks.stopping", "callbacks.unfit", "callbacks.lost",
    "loggers", "devices", "sync_norm", "build_optim", "build", "scaling", "cli",
    "exports.tracing", "exports.onnx", "exports.torch_export", "exports.safetensors", "exports.bundle_parts",
    "exports.monai_bundle", "exports.nnunet_raw",
    "workloads", "prepare", "train", "evaluate", "predict", "export", "report", "benchmark",
]  # fmt: skip
COMMANDS = ("prepare", "train", "evaluate", "predict", "export", "report", "benchmark")
# What a file must not know, at all.
FORBIDDEN = {
    "data.labels": {"numpy", "torch"},
    "data.cases": {"torch", "hydra"},
    "data.integrity": {"torch", "torchio", "pytorch_lightning", "hydra"},
    "data.organs": {"torch", "torchio", "pytorch_lightning", "hydra"},
    "data.layouts": {"torch", "pytorch_lightning", "lightning_dice.data.layouts"},
    "data.phantom": {"torch", "torchio", "pytorch_lightning"},
    "data.pixel_data": {"torch", "torchio", "pytorch_lightning", "hydra", "nibabel", "pydicom"},
    "data.dicom": {"torch", "torchio", "pytorch_lightning", "hydra", "nibabel", "pydicom"},
    "data.headers": {"torch", "torchio", "pytorch_lightning", "hydra", "nibabel", "SimpleITK"},
    "data.scans": {"torch", "torchio", "pytorch_lightning", "hydra", "pydicom"},
    "data.label_maps": {"torch", "torchio", "pytorch_lightning", "hydra"},
    "data.volumes": {"torch", "torchio", "pytorch_lightning", "hydra"},
    "data.store": {"pytorch_lightning", "torchio", "hydra"},
    "data.card": {"torch", "torchio", "pytorch_lightning", "hydra"},
    "data.dataset": {"torch", "torchio", "pytorch_lightning", "hydra"},
    "data.patches": {"pytorch_lightning", "lightning_dice.data.layouts", "lightning_dice.network"},
    "data.loaders": {"pytorch_lightning", "lightning_dice.data.layouts", "lightning_dice.network"},
    "data.datamodule": {"lightning_dice.network", "lightning_dice.loss"},
    "network": {"lightning_dice"},
    "loss": {"lightning_dice"},
    "schedules": {"lightning_dice"},
    "build_data": {"torch", "torchio", "pytorch_lightning"},
    "metrics": {"lightning_dice.loss", "pytorch_lightning"},
    "inference": {"hydra", "lightning_dice.data.layouts", "pytorch_lightning"},
    "module": {"hydra", "lightning_dice.data.datamodule", "lightning_dice.config"},
    **{name: {"torch", "pytorch_lightning"} for name in ("runs", "naming", "sessions", "trust")},
    "pictures": {"torch", "pytorch_lightning", "torchio", "monai", "hydra"},
    "paper": {"torch", "pytorch_lightning", "torchio", "monai"},
    "exports": {"hydra", "pytorch_lightning"},
    "callbacks": {"hydra", "lightning_dice.paper"},
}


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


FILES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py")) if path.name != "__init__.py"}


def imports(name: str) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(FILES[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name} imports relatively"
            found.add(node.module)
    return found


def test_every_file_has_its_place_in_the_order():
    assert sorted(FILES) == sorted(ORDER)


@pytest.mark.parametrize("name", ORDER)
def test_a_file_imports_only_from_above(name):
    prefix = "lightning_dice."
    ours = {found.removeprefix(prefix) for found in imports(name) if found.startswith(prefix)}
    above = ORDER[: ORDER.index(name)]
    assert ours <= set(above)
    if name in COMMANDS:
        assert not ours & set(COMMANDS)


@pytest.mark.parametrize("name", ORDER)
def test_a_file_does_not_know_what_it_must_not(name):
    for part, forbidden in FORBIDDEN.items():
        if name == part or name.startswith(part + "."):
            known = {f for f in imports(name) for bad in forbidden if f == bad or f.startswith(bad + ".")}
            assert not known


def test_only_configurations_and_trusted_checkpoints_are_instantiated():
    assert [name for name in ORDER if "hydra.utils" in imports(name)] == ["recipe", "objects"]


def test_only_patches_knows_torchios_queue_and_samplers():
    words = ("tio.Queue(", "(tio.Queue)", "PatchSampler")
    knowing = [name for name in ORDER if any(word in FILES[name].read_text() for word in words)]
    assert knowing == ["data.patches", "workloads"]  # the latter times TorchIO's own queue beside ours
