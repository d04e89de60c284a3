"""An exported MONAI bundle: MONAI's own command line accepts and runs it, to the labels of our predict."""

# ruff: noqa: F811 (a fixture of another file is an argument's name here)

import dataclasses
import json
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow

from lightning_dice.errors import InputError
from lightning_dice.exports.monai_bundle import write_monai_bundle
from lightning_dice.recipe import built, load_network
from lightning_dice.runs import Run
from tests.conftest import NAMES, tiny_case
from tests.test_export import NETWORKS, exported
from tests.test_predict import labels_of, predicted, run  # noqa: F401 (a fixture)
from tests.test_recipe import RECIPE

# What MONAI's schema of 2024-07-25 demands; `verify_metadata` takes a file that is there in place of a download.
TENSOR = {
    "type": "string", "format": "string", "num_channels": "integer", "spatial_shape": "array", "dtype": "string",
    "value_range": "array", "is_patch_data": "boolean", "channel_def": "object",
}  # fmt: skip
DEMANDED = {
    "schema": "string", "version": "string", "monai_version": "string", "pytorch_version": "string",
    "numpy_version": "string", "required_packages_version": "object", "task": "string", "description": "string",
    "authors": "string", "copyright": "string", "network_data_format": "object",
}  # fmt: skip
FURTHER = {
    "changelog": "object", "data_source": "string", "data_type": "string", "image_classes": "string",
    "label_classes": "string", "pred_classes": "string", "eval_metrics": "object", "intended_use": "string",
    "references": "array", "supported_apps": "object",
}  # fmt: skip


def schema() -> dict:
    tensor = {"type": "object", "required": list(TENSOR), "properties": {k: {"type": t} for k, t in TENSOR.items()}}
    tensor["properties"]["value_range"]["items"] = {"type": "number"}
    tensor["properties"]["spatial_shape"]["items"] = {"type": ["string", "integer"]}
    sides = {side: {"type": "object", "additionalProperties": tensor} for side in ("inputs", "outputs")}
    known = {name: {"type": kind} for name, kind in (DEMANDED | FURTHER).items()}
    known["network_data_format"] |= {"required": list(sides), "properties": sides}
    return {"type": "object", "required": list(DEMANDED), "properties": known}


@pytest.fixture(scope="module")
def bundle(run, tmp_path_factory):
    return exported(run, "monai_bundle", tmp_path_factory.mktemp("bundle") / "organs")


def monai_bundle(*words, cwd):
    command = [sys.executable, "-m", "monai.bundle", *map(str, words)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)


def test_monai_verifies_the_metadata(bundle, tmp_path):
    (tmp_path / "schema.json").write_text(json.dumps(schema()))
    asked = ["verify_metadata", "--meta_file", bundle / "configs" / "metadata.json", "--filepath", "schema.json"]
    result = monai_bundle(*asked, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    assert set(metadata) == set(DEMANDED | FURTHER)
    data = metadata["network_data_format"]
    assert data["outputs"]["pred"]["channel_def"] == {str(index): name for index, name in enumerate(NAMES)}
    assert data["inputs"]["image"]["spatial_shape"] == [8, 8, 8]


def test_the_schema_of_this_test_can_refuse(bundle, tmp_path):
    (tmp_path / "schema.json").write_text(json.dumps(schema()))
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    del metadata["task"]
    (tmp_path / "metadata.json").write_text(json.dumps(metadata))
    asked = ["verify_metadata", "--meta_file", "metadata.json", "--filepath", "schema.json"]
    assert monai_bundle(*asked, cwd=tmp_path).returncode != 0


@pytest.mark.parametrize("overlap", [0.5, 0.0])
def test_monai_predicts_the_labels_of_predict_voxel_by_voxel(run, bundle, tmp_path, overlap):
    """Scans of several voxel sizes, shapes, data types and orientations; one has the network's voxel size."""
    turn = nib.affines.from_matvec(nib.eulerangles.euler2mat(0.08, 0.1, -0.07), [-40, 31, 7])
    scans = {
        "same": (tiny_case(0)[0], np.diag([-6.0, -6, 6, 1])),
        "half": (tiny_case(1)[0], np.diag([-3.0, -3, 3, 1])),
        "oblique": (tiny_case(2, (23, 31, 18))[0].astype(np.float32) + 0.3, turn @ np.diag([0.9, 2.7, 4.1, 1])),
        "thin": (tiny_case(3, (40, 37, 6))[0], np.array([[0, 0, 5, 1], [-1.3, 0, 0, 2], [0, 2.1, 0, 3], [0, 0, 0, 1]])),
    }
    for name, (hu, affine) in scans.items():
        (tmp_path / "scans").mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(hu, affine), tmp_path / "scans" / f"{name}.nii.gz")
    asked = ["run", "--config_file", "configs/inference.json", "--overlap", overlap]
    result = monai_bundle(*asked, "--dataset_dir", tmp_path / "scans", "--output_dir", tmp_path / "theirs", cwd=bundle)
    assert result.returncode == 0, result.stderr
    predicted(run, tmp_path / "scans", tmp_path / "ours", f"overlap={overlap}")
    for name, (hu, affine) in scans.items():
        theirs = nib.load(tmp_path / "theirs" / f"{name}_seg.nii.gz")
        assert theirs.get_data_dtype() == np.uint8
        assert np.allclose(theirs.affine, affine, atol=1e-5)
        assert theirs.shape == hu.shape
        assert len(np.unique(theirs.dataobj)) > 3
        assert np.array_equal(theirs.dataobj, labels_of(tmp_path / "ours" / f"{name}.nii.gz"))


def test_a_bundle_has_what_monai_asks_of_one_for_inference(bundle):
    workflow = ConfigWorkflow(
        str(bundle / "configs" / "inference.json"), workflow_type="inference", bundle_root=str(bundle)
    )
    workflow.initialize()
    assert workflow.check_properties() == []


@pytest.mark.parametrize("name", NETWORKS)
def test_monai_rebuilds_any_shipped_network(name, tmp_path):
    network = built(NETWORKS[name]).eval()
    write_monai_bundle(network, dataclasses.replace(RECIPE, network=NETWORKS[name]), tmp_path / "bundle")
    parser = ConfigParser(ConfigParser.load_config_file(tmp_path / "bundle" / "configs" / "inference.json"))
    again = parser.get_parsed_content("network_def").eval()
    again.load_state_dict(torch.load(tmp_path / "bundle" / "models" / "model.pt", weights_only=True))
    image = torch.rand(1, 1, 16, 16, 16)
    with torch.inference_mode():
        assert torch.equal(again(image), network(image))


def test_a_text_that_monai_would_run_is_refused(run, tmp_path):
    network, recipe = load_network(Run(run).last)
    hostile = dataclasses.replace(recipe, network=recipe.network | {"name": "$__import__('os').getcwd()"})
    with pytest.raises(InputError, match="would be evaluated by MONAI"):
        write_monai_bundle(network, hostile, tmp_path / "bundle")
    assert not list(tmp_path.iterdir())
