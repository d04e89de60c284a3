"""python -m lightning_dice.predict run=FOLDER input=SCAN output=FOLDER: label maps of scans, on their own grids."""

from lightning_dice.cli import command

if __name__ == "__main__":
    command("predict", paths=("run", "input", "output"))

from collections.abc import Iterable
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import torch
from omegaconf import DictConfig

from lightning_dice.build import build_fabric
from lightning_dice.data.cases import Case, LabelFile
from lightning_dice.data.integrity import ERROR, Finding, check_image, findings_frame, reason_of
from lightning_dice.data.label_maps import LABEL_MAP_ENDINGS, label_map_ending, write_dicom_seg, write_label_map
from lightning_dice.data.organs import check_missing, check_organs
from lightning_dice.data.scans import Scan, find_scans, read_scan, scan_name
from lightning_dice.data.volumes import from_ras, prepare_image, prepared_step, spacing_mm, to_ras
from lightning_dice.ensemble import Ensemble, Mirrored
from lightning_dice.errors import InputError
from lightning_dice.files import atomic_write
from lightning_dice.inference import plan_slabs, sliding_window_slabs, to_native
from lightning_dice.members import load_members, runs_of
from lightning_dice.pictures.slices import Pictured, slices_figure
from lightning_dice.recipe import Recipe
from lightning_dice.runs import write_table
from lightning_dice.settings import PredictSettings
from lightning_dice.validation import checked

USUAL_ENDING = ".nii.gz"  # unless `ending` says otherwise


def predict(config: DictConfig) -> pd.DataFrame:
    """Segment each scan of `input`, and write its label map and the organs' volumes to `output`.

    Of one scan `output` may be the label map's file. What else is asked for then has its name, and the tables are
    printed only.

    A scan that cannot be used does not keep the others from being segmented. What is odd about a scan or implausible
    in its prediction is a warning; `findings.csv` has these, and which scans could not be used, with the columns of
    `Finding` and without rows for scans that nothing was found in. It is written whenever `volumes.csv` is. In both
    files the rows of a scan that is predicted again are replaced, and those of others stay.

    Returns:
        The rows that `volumes.csv` has of these scans, in mL.

    Raises:
        InputError: no such run or input, one whose network is others' code and not trusted, or scans that could not
            be used, a line each.
    """
    checked(config, PredictSettings)
    if config.ending not in LABEL_MAP_ENDINGS:
        raise InputError(f"ending={config.ending}: expected one of {', '.join(LABEL_MAP_ENDINGS)}")
    scans = find_scans(Path(config.input).expanduser())
    output = Path(config.output).expanduser()
    ending = None if output.is_dir() else label_map_ending(output)
    if ending and len(scans) > 1:
        raise InputError(
            f"output={output}: is one label map, and input={config.input} holds {len(scans)} scans; give a folder"
        )
    if ending and config.ending not in (ending, USUAL_ENDING):
        raise InputError(f"ending={config.ending}: output={output} has another; leave one of both out")
    fabric = build_fabric(config.accelerator, config.devices, config.precision)
    runs = runs_of(config.run)
    members = load_members(runs, config.checkpoint, config.combine, config.trust)
    networks = members.networks.map(
        lambda network: fabric.setup_module(Mirrored(network) if config.mirror else network)
    )
    told = ", ".join(str(run.folder) for run in runs)
    print(f"{told}: {fabric.strategy.precision.precision} on {fabric.device}")

    volumes, findings, problems = [], [], []
    names: dict[str, Path] = {}
    for path in scans:
        name = scan_name(path)
        try:
            other = names.setdefault(name, path)
            if other != path:
                raise InputError(f"{path}: has the name of {other}, and its label map would too; rename one of them")
            base = Path(str(output).removesuffix(ending)) if ending else output / name
            scan = read_scan(path, config.series)
            row, found = _predict(config, networks, members.recipe, path, scan, base, ending or config.ending)
            volumes.append(row)
            findings += found
        except InputError as problem:
            problems.append(str(problem))
            findings.append(Finding(name, str(path), ERROR, "not predicted", reason_of(problem, path)))
    table = pd.DataFrame(volumes)
    if volumes and not ending:
        _replace_rows(output / "volumes.csv", table.round(3), "scan", table["scan"])
        _replace_rows(output / "findings.csv", findings_frame(findings), "case", names)
    if volumes:
        print(f"\n{table.to_string(index=False, float_format='{:.1f}'.format)}\n\nwritten to {output}")
    if problems:
        raise InputError("\n".join(problems))
    return table


def _predict(
    config: DictConfig, networks: Ensemble, recipe: Recipe, path: Path, scan: Scan, base: Path, ending: str
) -> tuple[dict[str, object], list[Finding]]:
    """Write what is asked for of one scan, to files that begin with `base`.

    Returns:
        Its row of volumes, and the warnings, which are told too.
    """
    if config.dicom_seg and not scan.is_dicom:
        raise InputError(
            f"dicom_seg=true: {scan.files[0]} is no DICOM series, which a DICOM SEG refers to; leave it out"
        )
    target = Path(f"{base}{ending}")
    if target.resolve() in [file.resolve() for file in scan.files]:
        raise InputError(f"output={config.output}: the label map would replace the scan {target}; give another folder")
    labels = recipe.labels
    case = Case(scan.name, path, (LabelFile.of_ours(target, labels),))
    odd = list(check_image(case, scan.voxels, scan.affine))
    for finding in odd:
        if finding.level == ERROR:
            raise InputError(str(finding).removeprefix(f"{scan.name}: "))
        print(f"warning: {finding}")
    hu, affine = to_ras(scan.voxels, scan.affine)
    preparation = recipe.at_spacing
    step = prepared_step(affine, preparation)
    sizes = hu.shape, hu.itemsize, step, len(labels), recipe.patch_size
    limits = config.overlap, config.memory_limit_gb, config.probabilities, networks.further_weights
    rows, peak_gb = plan_slabs(*sizes, *limits)
    print(f"{scan.name}: {' × '.join(map(str, scan.voxels.shape))} voxels, up to {peak_gb:.1f} GB of memory")
    image, grid = prepare_image(hu, affine, preparation)
    prepared = torch.from_numpy(image).float()[None]
    slabs: Iterable[torch.Tensor] = sliding_window_slabs(
        networks, prepared, recipe.patch_size, config.overlap, 1, rows, progress=True
    )
    if config.probabilities:
        logits = torch.cat(list(slabs), dim=-1)
        slabs = [logits]
        _write_probabilities(logits.softmax(dim=0).numpy(), grid, Path(f"{base}.probabilities.nii.gz"))
    found = to_native(slabs, image.shape[2], hu.shape, step)
    label = from_ras(found, scan.affine)
    write_label_map(label, labels, scan, target)
    if config.dicom_seg:
        write_dicom_seg(label, labels, scan, Path(f"{base}.seg.dcm"))
    if config.overlay:
        row = Pictured(scan.name, hu, None, found, spacing_mm(affine), labels)
        with atomic_write(Path(f"{base}.png")) as picture:
            slices_figure([row]).savefig(picture, dpi=150)
    # By planes, because bincount takes 8 bytes a voxel.
    voxels = np.sum([np.bincount(plane.ravel(), minlength=len(labels)) for plane in found], axis=0)
    implausible = list(check_organs(case, labels, hu, found, affine, "predicted"))
    implausible += check_missing(case, labels, voxels.tolist(), found.shape, affine)
    for finding in implausible:
        print(f"warning: {finding}")
    millilitres = voxels * abs(np.linalg.det(affine[:3, :3])) / 1000
    volumes = {f"{name}_ml": value for name, value in zip(labels.names[1:], millilitres[1:], strict=True)}
    return {"scan": scan.name} | volumes, odd + implausible


def _replace_rows(file: Path, rows: pd.DataFrame, key: str, scans: Iterable[str]) -> None:
    """Put rows in the place of those that the table has of these scans."""
    if file.is_file():
        earlier = pd.read_csv(file, dtype={key: str})
        rows = pd.concat([earlier[~earlier[key].isin(list(scans))], rows])
    write_table(file, rows)


def _write_probabilities(softmax: np.ndarray, affine: np.ndarray, path: Path) -> None:
    """NIfTI of float32 (X, Y, Z, L), on the network's grid."""
    with atomic_write(path) as temporary:
        nib.save(nib.Nifti1Image(np.moveaxis(softmax, 0, -1), affine), temporary)
