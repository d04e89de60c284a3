"""A label map → a file on its scan's own grid, with the classes' names and colours where the format holds them."""

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from nibabel.affines import voxel_sizes

from lightning_dice import __version__
from lightning_dice.data.labels import BACKGROUND, LabelSet
from lightning_dice.data.scans import LPS_TO_RAS, NIFTI, Scan
from lightning_dice.errors import InputError
from lightning_dice.files import atomic_write

LABEL_MAP_ENDINGS = (*NIFTI, ".seg.nrrd", ".nrrd", ".mha")
NIFTI_GRID = (
    *("pixdim", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d"),
    *("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"),
)
ANY_TISSUE = "Tissue"  # SNOMED CT's, for a class without a code, as 3D Slicer has it


def label_map_ending(path: Path) -> str | None:
    """Which of LABEL_MAP_ENDINGS a file's name has, after a name of its own."""
    found = [ending for ending in LABEL_MAP_ENDINGS if path.name.endswith(ending) and path.name != ending]
    return max(found, key=len, default=None)


def write_label_map(label: np.ndarray, labels: LabelSet, scan: Scan, path: Path) -> None:
    """Write a label map, voxel by voxel where the scan's voxels are.

    Args:
        label: uint8 (X, Y, Z), class indices, of the shape of `scan.voxels`.
        labels: the classes.
        path: its ending chooses the format. NIfTI carries a label table, `.seg.nrrd` the segments of 3D Slicer; plain
            `.nrrd` and `.mha` hold the numbers alone. A NIfTI scan's sform and qform are copied.

    Raises:
        InputError: another ending.
    """
    _check(label, scan)
    name = path.name.lower()
    if not name.endswith(LABEL_MAP_ENDINGS):
        raise InputError(f"{path}: cannot be written; expected the ending {', '.join(LABEL_MAP_ENDINGS)}")
    with atomic_write(path) as temporary:
        if name.endswith(NIFTI):
            nib.save(_nifti(label, labels, scan), temporary)
        else:
            image = _itk(label, scan.affine)
            for key, value in (_slicer_segments(labels, label.shape) if name.endswith(".seg.nrrd") else {}).items():
                image.SetMetaData(key, value)
            sitk.WriteImage(image, temporary, useCompression=True)


def write_dicom_seg(label: np.ndarray, labels: LabelSet, scan: Scan, path: Path) -> None:
    """Write the organs of a label map as a DICOM Segmentation that refers to the scan's slices: a segment per organ.

    Segments have the classes' names, SNOMED codes and colours; those of classes without a code are called tissue, which
    a line says. Organs without a voxel are left out.

    Args:
        label: uint8 (X, Y, Z), class indices, of the shape of `scan.voxels`.
        labels: the classes.
        scan: a DICOM series, whose files are still there.

    Raises:
        InputError: the scan is no DICOM series or lacks what a Segmentation must repeat, no organ in the label map, a
            code that pydicom's dictionary does not have, or highdicom is not installed.
    """
    _check(label, scan)
    if not scan.is_dicom:
        raise InputError(f"{path}: {scan.name} is no DICOM series, which a DICOM SEG refers to; write .nii.gz instead")
    present = [index for index in range(1, len(labels)) if (label == index).any()]
    if not present:
        raise InputError(f"{path}: no organ was found in {scan.name}, and a DICOM SEG cannot be empty")
    try:
        import highdicom
        import pydicom
        from pydicom.sr.codedict import codes
    except ImportError:
        raise InputError(f'{path}: a DICOM SEG needs highdicom; pip install "lightning-dice[dicom]"') from None

    organs = [labels.labels[index] for index in present]
    if unknown := [organ.snomed for organ in organs if organ.snomed and not hasattr(codes.SCT, organ.snomed)]:
        raise InputError(f"{path}: {', '.join(unknown)}: no SNOMED CT code in pydicom's dictionary; correct it there")
    if uncoded := [organ.name for organ in organs if not organ.snomed]:
        print(f"{path}: {', '.join(uncoded)} without a SNOMED CT code, written as tissue; names and colours are there")
    algorithm = highdicom.AlgorithmIdentificationSequence(
        "lightning-dice", version=__version__, family=codes.cid7162.ArtificialIntelligence
    )
    segments = [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=organ.name,
            segmented_property_category=codes.cid7150.AnatomicalStructure if organ.snomed else codes.cid7150.Tissue,
            segmented_property_type=getattr(codes.SCT, organ.snomed or ANY_TISSUE),
            algorithm_type="AUTOMATIC",
            algorithm_identification=algorithm,
            display_color=highdicom.color.CIELabColor.from_rgb(*organ.rgb),
        )
        for number, organ in enumerate(organs, start=1)
    ]
    numbers = np.zeros(len(labels), np.uint8)
    numbers[present] = range(1, len(present) + 1)  # a Segmentation counts without gaps
    slices = [pydicom.dcmread(file, stop_before_pixels=True) for file in scan.files]
    try:
        segmentation = highdicom.seg.Segmentation(
            source_images=slices,
            pixel_array=numbers[label].T,  # (Z, Y, X), in the slices' order
            segmentation_type="BINARY",
            segment_descriptions=segments,
            series_instance_uid=highdicom.UID(),
            series_number=1000,  # far from the scanner's own
            sop_instance_uid=highdicom.UID(),
            instance_number=1,
            manufacturer="lightning-dice",
            manufacturer_model_name="lightning-dice",
            software_versions=__version__,
            device_serial_number="0",
            series_description="Organs by lightning-dice",
        )
    except AttributeError as error:
        reason = str(error)
        raise InputError(f"{scan.files[0]}: a DICOM SEG repeats what this slice lacks ({reason})") from None
    with atomic_write(path) as temporary:
        segmentation.save_as(temporary)


def _check(label: np.ndarray, scan: Scan) -> None:
    if label.dtype != np.uint8 or label.shape != scan.voxels.shape:
        raise ValueError(f"label {label.dtype} {label.shape}: expected uint8 {scan.voxels.shape}, as the scan")


def _nifti(label: np.ndarray, labels: LabelSet, scan: Scan) -> nib.Nifti1Image:
    image = nib.Nifti1Image(label, scan.affine)
    image.header.set_xyzt_units("mm")
    image.header.set_intent("label")
    if scan.files[0].name.lower().endswith(NIFTI):
        source: Any = nib.load(scan.files[0]).header
        for field in NIFTI_GRID:
            image.header[field] = source[field]
        image.header["pixdim"][4:] = 1  # a time step, if at all
    else:
        image.set_sform(scan.affine, "scanner")
        image.set_qform(scan.affine, "scanner")
    image.header.extensions.append(nib.nifti1.Nifti1Extension("ignore", _label_table(labels)))
    return image


def _label_table(labels: LabelSet) -> bytes:
    """Names and colours as Connectome Workbench stores them, in an extension of code 0 as TotalSegmentator writes it.

    Format: LabelTable of https://www.nitrc.org/projects/cifti; Key is the voxel's value, colours are in [0, 1].
    """
    root = ElementTree.Element("CaretExtension")
    volume = ElementTree.SubElement(root, "VolumeInformation", Index="0")
    table = ElementTree.SubElement(volume, "LabelTable")
    for index, label in enumerate(labels.labels):
        colours = {c: f"{v / 255:.6g}" for c, v in zip(("Red", "Green", "Blue"), label.rgb, strict=True)}
        look = {"Key": str(index), **colours, "Alpha": str(int(index != BACKGROUND))}
        ElementTree.SubElement(table, "Label", look).text = label.name
    ElementTree.SubElement(volume, "VolumeType").text = "Label"
    return ElementTree.tostring(root, encoding="UTF-8", xml_declaration=True)


def _itk(label: np.ndarray, affine: np.ndarray) -> sitk.Image:
    lps, spacing = LPS_TO_RAS @ affine, voxel_sizes(affine)
    image = sitk.GetImageFromArray(label.T)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    return image


def _slicer_segments(labels: LabelSet, shape: tuple[int, int, int]) -> dict[str, str]:
    """What 3D Slicer reads beside the voxels.

    Format: https://slicer.readthedocs.io/en/latest/developer_guide/modules/segmentations.html. Since Slicer 5 the key
    MasterRepresentation is called SourceRepresentation; all versions read the old one.
    """
    fields = {
        "Segmentation_MasterRepresentation": "Binary labelmap",
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",
    }
    for number, organ in enumerate(labels.organs):
        segment = {
            "ID": organ.name,
            "Name": organ.name,
            "NameAutoGenerated": "0",
            "Color": " ".join(f"{part / 255:.6g}" for part in organ.rgb),
            "ColorAutoGenerated": "0",
            "LabelValue": str(number + 1),
            "Layer": "0",
            "Extent": " ".join(f"0 {size - 1}" for size in shape),
        }
        fields |= {f"Segment{number}_{key}": value for key, value in segment.items()}
    return fields
