"""A sound data set of tiny bodies, and all the ways in which its files can be wrong, written by seeded code."""

import gzip
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.conftest import NAMES, write_nifti

SHAPE = (30, 24, 20)
AFFINE = np.diag([-10.0, -10.0, 10.0, 1.0])  # LPS; a voxel is 1 mL
ORGANS = {  # corner and size of a box, from the patient's right, front and below
    "artery": ((15, 15, 3), (1, 1, 12)),
    "vein": ((13, 12, 8), (2, 1, 4)),
    "liver": ((5, 6, 9), (7, 9, 8)),
    "spleen": ((22, 14, 10), (4, 5, 5)),
    "stomach": ((17, 6, 10), (5, 5, 6)),
    "gallbladder": ((8, 6, 6), (2, 2, 3)),
    "pancreas": ((15, 11, 7), (6, 2, 3)),
}


def body(seed: int, shape: tuple[int, int, int] = SHAPE) -> tuple[np.ndarray, np.ndarray]:
    """Int16 HU of air, a block of fat with the organs in it and noise; uint8 labels."""
    rng = np.random.default_rng(seed)
    hu = np.full(shape, -1000.0)
    hu[2:28, 3:22] = -100
    label = np.zeros(shape, np.uint8)
    for name, (corner, size) in ORGANS.items():
        box = tuple(
            slice(c, c + s) for c, s in zip(corner + rng.integers(0, 2, 3) * (name != "artery"), size, strict=True)
        )
        hu[box] = 100
        label[box] = NAMES.index(name)
    return (hu + rng.normal(0, 15, shape)).astype(np.int16), label


@dataclass
class Victim:
    """A case in nnU-Net's layout, and the number of another one that is sound."""

    root: Path
    id: str
    number: int
    other: int = 0

    def __post_init__(self) -> None:
        self.image = self.root / "imagesTr" / f"{self.id}_0000.nii.gz"
        self.label = self.root / "labelsTr" / f"{self.id}.nii.gz"
        self.hu, self.classes = body(self.number)
        self.write()

    def write(self, hu=None, classes=None, affine=AFFINE, label_affine=None) -> None:
        write_nifti(self.image, self.hu if hu is None else hu, affine)
        label_affine = affine if label_affine is None else label_affine
        write_nifti(self.label, self.classes if classes is None else classes, label_affine)


def write_sound(root: Path, ids: list[str]) -> Path:
    """A sound data set in nnU-Net's raw layout."""
    for number, case in enumerate(ids):
        Victim(root, case, number)
    labels = {name: index for index, name in enumerate(NAMES)}
    (root / "dataset.json").write_text(json.dumps({"labels": labels, "file_ending": ".nii.gz"}))
    return root


DAMAGES: dict[str, Callable[[Victim], None]] = {}


def damage(function: Callable[[Victim], None]) -> Callable[[Victim], None]:
    DAMAGES[function.__name__] = function
    return function


@damage
def truncated(v: Victim) -> None:
    v.image.write_bytes(v.image.read_bytes()[:3000])


@damage
def truncated_label(v: Victim) -> None:
    v.label.write_bytes(v.label.read_bytes()[:-20])


@damage
def wrong_magic(v: Victim) -> None:
    content = bytearray(gzip.decompress(v.image.read_bytes()))
    content[344:348] = b"nope"
    v.image.write_bytes(gzip.compress(bytes(content)))


@damage
def zero_bytes(v: Victim) -> None:
    v.label.write_bytes(b"")


@damage
def text(v: Victim) -> None:
    v.image.write_text("version https://git-lfs.github.com/spec/v1\n")


@damage
def missing_label(v: Victim) -> None:
    v.label.unlink()


@damage
def missing_image(v: Victim) -> None:
    v.image.unlink()


@damage
def dangling_link(v: Victim) -> None:
    v.image.unlink()
    v.image.symlink_to("gone.nii.gz")


@damage
def four_d(v: Victim) -> None:
    v.write(hu=np.stack([v.hu, v.hu], axis=-1))


@damage
def two_d(v: Victim) -> None:
    v.write(hu=v.hu[:, :, 5])


@damage
def colour(v: Victim) -> None:
    rgb = np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    v.write(hu=rgb)


@damage
def not_finite(v: Victim) -> None:
    hu = v.hu.astype(np.float32)
    hu[1, 2, 3], hu[0, 0, 0] = np.nan, -np.inf
    v.write(hu=hu)


@damage
def eight_bit(v: Victim) -> None:
    v.write(hu=np.clip((v.hu + 160) / 400 * 255, 0, 255).astype(np.uint8))


@damage
def magnetic_resonance(v: Victim) -> None:
    v.write(hu=np.abs(v.hu) // 2)


@damage
def unscaled(v: Victim) -> None:
    v.write(hu=np.maximum(v.hu + 1024, 0))


@damage
def unscaled_and_padded(v: Victim) -> None:
    hu = v.hu + 1024
    hu[:2] = -2000
    v.write(hu=hu)


@damage
def normalised(v: Victim) -> None:
    v.write(hu=(v.hu / 500).astype(np.float32))


@damage
def without_air(v: Victim) -> None:
    v.write(hu=np.maximum(v.hu, -180))


@damage
def far_out(v: Victim) -> None:
    hu = v.hu.copy()
    hu[0] = -32768
    v.write(hu=hu)


@damage
def anisotropic(v: Victim) -> None:
    v.write(affine=AFFINE @ np.diag([0.3, 0.3, 4, 1]))


@damage
def fractional(v: Victim) -> None:
    v.write(classes=np.where(v.classes == 1, 0.5, v.classes).astype(np.float32))


@damage
def undeclared(v: Victim) -> None:
    classes = v.classes.copy()
    classes[0, 0, 0] = 42
    v.write(classes=classes)


@damage
def other_shape(v: Victim) -> None:
    """A swapped pair: the label of a longer scan."""
    v.write(classes=body(v.other, (30, 24, 22))[1])


@damage
def shifted_origin(v: Victim) -> None:
    affine = AFFINE.copy()
    affine[2, 3] = 1.5
    v.write(label_affine=affine)


@damage
def other_spacing(v: Victim) -> None:
    v.write(label_affine=np.diag([-10.0, -10.0, 9.5, 1.0]))


@damage
def turned(v: Victim) -> None:
    v.write(label_affine=np.diag([-10.0, 10.0, 10.0, 1.0]))


@damage
def everything_about_the_grid(v: Victim) -> None:
    v.write(classes=v.classes[1:], label_affine=np.array([[9, 0, 0, 5], [0, -10, 0, 0], [0, 0, 10, 0], [0, 0, 0, 1.0]]))


@damage
def empty(v: Victim) -> None:
    v.write(classes=np.zeros_like(v.classes))


@damage
def other_label(v: Victim) -> None:
    """A swapped pair: another patient's label, of the same shape."""
    v.write(classes=body(v.other)[1])


@damage
def copied(v: Victim) -> None:
    v.write(*body(v.other))


@damage
def mirrored(v: Victim) -> None:
    v.write(v.hu[::-1], v.classes[::-1])


@damage
def tiny_liver(v: Victim) -> None:
    """A few voxels of it are left."""
    liver = NAMES.index("liver")
    rest = np.zeros(SHAPE, bool)
    rest[6:10, 8:11, 12:14] = True
    v.write(classes=np.where((v.classes == liver) & ~rest, 0, v.classes).astype(np.uint8))


@damage
def scattered_liver(v: Victim) -> None:
    """Its middle is missing."""
    liver = v.classes == NAMES.index("liver")
    right = np.argwhere(liver).min(axis=0)[0]
    liver[: right + 2] = liver[right + 5 :] = False
    v.write(classes=np.where(liver, 0, v.classes).astype(np.uint8))


@damage
def thin(v: Victim) -> None:
    v.write(v.hu[..., 9:12], v.classes[..., 9:12])


def write_damaged(root: Path, names: list[str]) -> Path:
    """Two sound cases, first by name, and one per damage that bears its name."""
    write_sound(root, ["a_sound_0", "a_sound_1"])
    for number, name in enumerate(names, start=2):
        DAMAGES[name](Victim(root, name, number))
    return root


def copy_case(root: Path, source: str, target: str) -> None:
    shutil.copy(root / "imagesTr" / f"{source}_0000.nii.gz", root / "imagesTr" / f"{target}_0000.nii.gz")
    shutil.copy(root / "labelsTr" / f"{source}.nii.gz", root / "labelsTr" / f"{target}.nii.gz")
