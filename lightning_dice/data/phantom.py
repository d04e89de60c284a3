"""Synthetic portal-venous abdominal CTs with labels, written as an ordinary data set in nnU-Net's raw layout.

What stands where is coarse anatomy in mm around the first lumbar vertebra (x to the patient's right, y anterior, z
superior); what differs between patients is drawn per case. HU of the portal venous phase and of fat, bone, lung and gas
are textbook values, sizes aim at the organs' volumes in abdominal scans. Boundaries are blurred like partial volumes,
and noise is correlated like a reconstruction's.
"""

import gzip
import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import gaussian_filter, zoom
from tqdm import tqdm

from lightning_dice.data.cases import Case
from lightning_dice.data.labels import NAMES
from lightning_dice.data.layouts.nnunet import nnunet_cases
from lightning_dice.errors import InputError
from lightning_dice.files import replacing

VERSION = 1  # raise it when the same seed and case give another phantom
SPACING_MM = 3.0
SHAPE_XY = (128, 112)
SLICES = (96, 144)
NO_GALLBLADDER = 0.05  # share of patients after a cholecystectomy
BACKGROUND, ARTERY, VEIN, LIVER, SPLEEN, STOMACH, GALLBLADDER, PANCREAS = range(len(NAMES))

LIVER_VEINS = (  # three hepatic ones from the cava, three portal ones from the hilum
    ((22, -14, 88), (55, -5, 70), (95, 5, 55)),
    ((22, -10, 88), (45, 25, 65), (60, 45, 40)),
    ((18, -4, 88), (-5, 30, 66), (-30, 42, 60)),
    ((44, 6, 42), (70, 0, 40), (100, -10, 35)),
    ((44, 6, 42), (60, 30, 50), (72, 45, 50)),
    ((40, 8, 44), (15, 35, 58), (-15, 42, 62)),
)
AIR, LUNG, FAT, WATER, BONE, CORTEX = -1000, -850, -105, 8, 190, 480
# Unenhanced and portal-venous HU of what takes up contrast; a patient lies between them.
ENHANCED = {
    "muscle": (48, 62), "liver": (52, 110), "spleen": (44, 120), "pancreas": (38, 92), "wall": (38, 75),
    "artery": (40, 145), "vein": (40, 160), "cava": (38, 125), "heart": (42, 130),
    "kidney": (32, 175), "medulla": (28, 140),
}  # fmt: skip


@dataclass(frozen=True)
class Phantom:
    """A CT in HU, int16 (X, Y, Z) in RAS+, its class indices, uint8 of the same shape, and the affine (4, 4) in mm."""

    hu: np.ndarray
    labels: np.ndarray
    affine: np.ndarray


@dataclass(frozen=True)
class Patient:
    """What is drawn once for a whole body."""

    size: float  # of the skeleton and the organs, 1 for the mean
    girth: float  # of the trunk, on top of size
    fat_mm: float  # under the skin
    top_mm: float  # upper end of the field of view
    slices: int
    enhancement: float  # 0 unenhanced, 1 portal venous
    stomach: float  # filling, scales its radii
    gas: float  # share of its depth that is gas
    gallbladder: bool
    noise_hu: float
    shift_mm: tuple[float, float]  # of the body in the field of view


def draw_patient(rng: np.random.Generator) -> Patient:
    """Most patients are portal venous, some are scanned earlier, and a few without contrast."""
    fat = rng.gamma(4.0, 4.0)
    return Patient(
        size=float(np.clip(rng.normal(1.0, 0.06), 0.86, 1.14)),
        girth=float(np.clip(0.94 + 0.006 * fat + rng.normal(0, 0.03), 0.88, 1.12)),
        fat_mm=float(np.clip(fat, 5, 36)),
        top_mm=float(rng.uniform(130, 190)),
        slices=int(rng.integers(SLICES[0], SLICES[1] + 1)),
        enhancement=float(
            rng.choice([rng.uniform(0, 0.2), rng.uniform(0.4, 0.8), rng.uniform(0.8, 1.15)], p=[0.15, 0.15, 0.7])
        ),
        stomach=float(rng.uniform(0.8, 1.2)),
        gas=float(rng.uniform(0.0, 0.6)),
        gallbladder=bool(rng.random() >= NO_GALLBLADDER),
        noise_hu=float(rng.uniform(9, 18)),
        shift_mm=(float(rng.normal(0, 8)), float(rng.normal(0, 6))),
    )


def make_phantom(seed: int, case: int) -> Phantom:
    """The phantom of this seed and case number; nothing else has an influence on it."""
    rng = np.random.default_rng((seed, case))
    patient = draw_patient(rng)
    body = _Body(patient, rng)
    trunk(body)
    bowel(body)
    kidneys_and_cava(body)
    stomach(body)
    spleen(body)
    liver(body)
    pancreas_and_duodenum(body)
    vessels(body)
    skeleton(body)
    hu = body.scan(rng)
    affine = np.diag([SPACING_MM, SPACING_MM, SPACING_MM, 1.0])
    affine[:3, 3] = [axis.flat[0] for axis in body.grid]
    return Phantom(hu, body.labels, affine)


class _Body:
    """The canvas: HU and labels so far, and the deformed coordinates in which anatomy is drawn."""

    MARGIN_MM = 22  # what deformation and rough surfaces may add to a shape's box

    def __init__(self, patient: Patient, rng: np.random.Generator):
        self.patient, self.rng = patient, rng
        shape = (*SHAPE_XY, patient.slices)
        starts = [-(n - 1) / 2 * SPACING_MM + s for n, s in zip(SHAPE_XY, patient.shift_mm, strict=True)]
        starts.append(patient.top_mm - (shape[2] - 1) * SPACING_MM)
        axes = [start + SPACING_MM * np.arange(n, dtype=np.float32) for start, n in zip(starts, shape, strict=True)]
        self.grid = np.meshgrid(*axes, indexing="ij", sparse=True)
        # One smooth field bends everything together, as bodies are bent; a finer one roughens surfaces.
        bend = [smooth_field(rng, shape, 75.0) * 6 for _ in range(3)]
        self.x, self.y, self.z = ((g + b) / patient.size for g, b in zip(self.grid, bend, strict=True))
        self.rough = smooth_field(rng, shape, 26.0)
        self.fine = smooth_field(rng, shape, 11.0)
        self.hu = np.full(shape, AIR, np.float32)
        self.labels = np.zeros(shape, np.uint8)
        self.inside = np.zeros(shape, bool)  # of the abdominal wall and the rib cage

    def enhanced(self, tissue: str, spread: float = 7.0) -> float:
        """HU of a tissue in this patient."""
        plain, full = ENHANCED[tissue]
        return plain + (full - plain) * self.patient.enhancement + self.rng.normal(0, spread)

    def near(self, centre: Sequence[float], reach: Sequence[float] | float) -> tuple[slice, slice, slice]:
        """The box of voxels within reach of a centre, both in undeformed mm."""
        reach = np.broadcast_to(np.asarray(reach, float), 3) * self.patient.size + self.MARGIN_MM
        box = []
        for axis, middle, half, size in zip(
            self.grid, np.multiply(centre, self.patient.size), reach, self.hu.shape, strict=True
        ):
            low, high = ((middle + sign * half - axis.flat[0]) / SPACING_MM for sign in (-1, 1))
            box.append(slice(int(np.clip(low, 0, size)), int(np.clip(high + 1, 0, size))))
        return tuple(box)

    def jitter(self, centre: Sequence[float], spread: float) -> np.ndarray:
        return np.asarray(centre, float) + self.rng.normal(0, spread, 3).clip(-2 * spread, 2 * spread)

    def ellipsoid(self, centre, radii, tilt: float = 0.0, rough_mm: float = 0.0):
        """Box and depth in mm (about; positive inside) of an ellipsoid, tilted in the coronal plane by `tilt` rad."""
        radii = np.asarray(radii, np.float32)
        box = self.near(centre, radii.max())
        x, y, z = self.x[box] - centre[0], self.y[box] - centre[1], self.z[box] - centre[2]
        if tilt:
            x, z = np.cos(tilt) * x + np.sin(tilt) * z, np.cos(tilt) * z - np.sin(tilt) * x
        level = np.sqrt((x / radii[0]) ** 2 + (y / radii[1]) ** 2 + (z / radii[2]) ** 2)
        depth = (
            (1 - level) * float(radii.min()) if max(radii) < 3 * min(radii) else (1 - level) * float(np.median(radii))
        )
        return box, depth + rough_mm * self.rough[box]

    def tube(self, points, radii, rough_mm: float = 0.0):
        """Box and signed depth in mm of a tube through points, radius by point, along a smooth curve."""
        points, radii = smooth_path(points, radii)
        centre, reach = (points.max(0) + points.min(0)) / 2, (points.max(0) - points.min(0)) / 2 + radii.max()
        box = self.near(centre, reach)
        depth = np.full(self.hu[box].shape, -np.inf, np.float32)
        if not depth.size:
            return box, depth
        origin = [axis.start for axis in box]
        for point, radius in zip(points, radii, strict=True):
            ball = self.near(point, radius)
            part = tuple(slice(s.start - o, s.stop - o) for s, o in zip(ball, origin, strict=True))
            part = tuple(slice(max(s.start, 0), max(s.stop, 0)) for s in part)
            x, y, z = (axis[box][part] - p for axis, p in zip((self.x, self.y, self.z), point, strict=True))
            np.maximum(depth[part], radius - np.sqrt(x * x + y * y + z * z), out=depth[part])
        return box, depth + rough_mm * self.fine[box]

    def paint(self, box, mask, hu, label: int = BACKGROUND) -> None:
        self.hu[box] = np.where(mask, hu, self.hu[box])
        self.labels[box] = np.where(mask, label, self.labels[box])

    def scan(self, rng: np.random.Generator) -> np.ndarray:
        """What the scanner makes of it: partial volume, texture and correlated noise, int16."""
        hu = gaussian_filter(self.hu, 0.55)
        noise = gaussian_filter(rng.standard_normal(hu.shape, dtype=np.float32), 0.7)
        hu += noise * (self.patient.noise_hu / noise.std())
        hu += np.where(hu > -300, 4 * self.fine, 0)  # organs are not uniform
        return np.clip(np.rint(hu), -1024, 1800).astype(np.int16)


def smooth_field(rng: np.random.Generator, shape: Sequence[int], scale_mm: float) -> np.ndarray:
    """Random float32 (X, Y, Z) of zero mean and unit variance that varies over `scale_mm`."""
    coarse = [max(4, int(np.ceil(size * SPACING_MM / scale_mm)) + 3) for size in shape]
    noise = rng.standard_normal(coarse, dtype=np.float32)
    field = zoom(noise, np.divide(shape, coarse), order=1 if scale_mm < 20 else 2, grid_mode=True, mode="nearest")
    return (field - field.mean()) / field.std()


def smooth_path(points, radii, step_mm: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """Points and radii every few mm along a curve through the given ones."""
    points = np.asarray(points, float)
    radii = np.broadcast_to(np.asarray(radii, float), len(points))
    along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    fine = np.linspace(0, along[-1], max(2, int(along[-1] / step_mm)))
    curve = PchipInterpolator(along, np.column_stack([points, radii]))(fine)
    return curve[:, :3].astype(np.float32), curve[:, 3].astype(np.float32)


def trunk(body: _Body) -> None:
    """Skin, fat, the muscles of wall and back, lungs above the diaphragm with heart, all filled with fat inside."""
    p, rng = body.patient, body.rng
    x, y, z = body.x, body.y, body.z
    waist = 1 - 0.05 * np.exp(-(((z + 20) / 60) ** 2)) + 0.06 * np.clip((-z - 90) / 60, 0, 1)
    waist = waist * (1 - 0.10 * np.clip((z - 120) / 80, 0, 1))
    width, depth = 164 * p.girth, 116 * p.girth
    exponent = 2.5
    r = ((np.abs(x) / (width * waist)) ** exponent + (np.abs(y) / (depth * waist)) ** exponent) ** (1 / exponent)
    under = (1 - r) * depth  # mm under the skin, about
    fat = p.fat_mm * (1 + 0.25 * body.rough * 0.3) * (1 + 0.3 * np.clip((-z - 60) / 60, 0, 1))
    body.hu[under > 0] = 20
    muscle = body.enhanced("muscle")
    body.hu[under > 2.5] = FAT
    wall = under > fat + 2.5
    body.hu[wall] = muscle
    thickness = 9 + 14 * np.clip((-z - 105) / 40, 0, 1) * (y < 20)
    body.inside = under > fat + 2.5 + thickness
    body.under_wall = under - fat - 2.5
    body.hu[body.inside] = FAT + 6
    body.hu[body.inside & (body.fine > 1.6)] = -30  # mesenteric vessels
    for side in (-1, 1):
        for (cx, cy), (rx, ry), top in (
            ((32, -84), (34, 22), 400),
            ((36, -48), (19, 20), 25),
            ((66, -68), (24, 15), 15),
        ):
            grown = np.clip((top - z) / 60, 0, 1)  # psoas begins at the first lumbar vertebra
            column = ((x - side * cx) / (rx * grown + 1e-3)) ** 2 + ((y - cy) / (ry * grown + 1e-3)) ** 2 < 1
            body.hu[column & (under > fat)] = muscle
    if rng.random() < 0.6:  # the table
        gx, gy, _ = body.grid
        plate = np.abs(gy + (depth + 14) * p.size - gx**2 / 900) < 3
        body.hu[np.broadcast_to(plate, body.hu.shape) & (under < -2)] = -250

    body.dome = np.full(body.hu.shape, -np.inf, np.float32)
    for centre, top in ((70, rng.normal(108, 7)), (-70, rng.normal(97, 7))):
        rho = ((x - centre) / 78) ** 2 + (y / np.where(y > 0, 130, 86)) ** 2  # it reaches deepest at the back
        np.maximum(body.dome, top - 85 * rho, out=body.dome)
    middle = (np.abs(x) < 34 - 0.10 * (z - 100)) & (y < 10)
    lung = body.inside & (z > body.dome) & ~middle
    body.hu[lung] = LUNG + 30 * body.fine[lung] + 160 * (body.fine[lung] > 2.2)
    body.hu[body.inside & (z > body.dome) & middle] = 30
    box, heart = body.ellipsoid(body.jitter((-20, 26, 138), 5), (58, 46, 50), tilt=0.4, rough_mm=2)
    body.paint(box, (heart > 0) & body.inside[box], body.enhanced("heart"))


def bowel(body: _Body) -> None:
    """Colon around and small bowel in the middle, with wall, fluid, stool and gas."""
    rng = body.rng
    colon = [
        *((100, -5, -125), (101, 0, -70), (88, 30, -34), (40, 62, -45)),
        *((-30, 66, -40), (-88, 34, -2), (-104, -12, -40), (-104, -12, -125)),
    ]
    radii = rng.uniform(12, 19, len(colon))
    _hollow(
        body, [body.jitter(c, 8) for c in colon], radii, rng.uniform(-20, 70), gas=rng.uniform(0.0, 0.45), rough_mm=2.5
    )
    for _ in range(24):  # loops of jejunum and ileum
        loop = rng.uniform((-80, 5, -160), (80, 75, -40)) + rng.uniform(-28, 28, (5, 3))
        _hollow(body, loop, rng.uniform(9, 13), rng.uniform(5, 60), gas=0.3 * (rng.random() < 0.2), rough_mm=1.5)


def _hollow(body: _Body, points, radii, content: float, gas: float, rough_mm: float, label: int = BACKGROUND) -> None:
    """A tube with an enhancing wall, its content, and gas in front, where it rises to in a patient on the back."""
    box, depth = body.tube(points, radii, rough_mm)
    depth = np.where(body.inside[box] & (body.z[box] < body.dome[box]), depth, -np.inf)
    if not (depth > 0).any():
        return
    body.paint(box, depth > 0, body.enhanced("wall"), label)
    lumen = depth > 3.5
    body.paint(box, lumen, content + 12 * body.fine[box], label)
    if gas and lumen.any():
        heights = body.y[box][lumen]
        level = np.quantile(heights, 1 - gas)
        body.paint(box, lumen & (body.y[box] > level), -880, label)


def kidneys_and_cava(body: _Body) -> None:
    """Kidneys with cortex, medulla and sinus fat, and the inferior vena cava."""
    rng = body.rng
    for side, height in ((1, -14), (-1, -2)):
        centre = body.jitter((side * 58, -48, height), 5)
        box, depth = body.ellipsoid(
            centre, rng.uniform(0.9, 1.1) * np.array([27, 25, 54]), side * rng.normal(0.2, 0.08), 1.5
        )
        body.paint(box, depth > 0, body.enhanced("kidney"))
        body.paint(box, (depth > 7) & (body.fine[box] > -0.3), body.enhanced("medulla"))
        box, sinus = body.ellipsoid(np.add(centre, (-side * 13, 6, 0)), (12, 10, 24), rough_mm=2)
        body.paint(box, sinus > 0, FAT + 20)
    cava = [(19, -20, -200), (21, -20, -100), (24, -19, -10), (25, -20, 40), (18, -8, 100), (14, 5, 135)]
    box, depth = body.tube([body.jitter(c, 2) for c in cava], rng.uniform(9, 12))
    body.paint(box, depth > 0, body.enhanced("cava"))


def spleen(body: _Body) -> None:
    """A crescent against the left rib cage, hollowed out towards stomach and kidney."""
    rng = body.rng
    centre, scale = body.jitter((-104, -34, 42), 5), rng.uniform(0.88, 1.14)
    box, depth = body.ellipsoid(centre, scale * np.array([42, 60, 64]), rng.normal(-0.15, 0.15), 3)
    hilum = 1 - ((body.x[box] - centre[0] - 40) / 30) ** 2 - ((body.y[box] - centre[1] - 18) / 46) ** 2
    hilum -= ((body.z[box] - centre[2]) / 62) ** 2
    mask = (depth > 0) & (hilum < 0) & body.inside[box] & (body.z[box] < body.dome[box] - 2)
    body.paint(box, mask, body.enhanced("spleen"), SPLEEN)


def liver(body: _Body) -> None:
    """Right and left lobe under the diaphragm, hollowed out below, with its veins; and the gallbladder in its fossa."""
    rng = body.rng
    scale = rng.uniform(0.92, 1.08)
    right, left = body.jitter((74, -6, 42), 5), body.jitter((4, 40, 58), 6)
    box, depth = body.ellipsoid(right, scale * np.array([76, 86, 96]), rng.normal(0.1, 0.12), 4)
    whole = np.full(body.hu.shape, -np.inf, np.float32)
    whole[box] = depth
    box, depth = body.ellipsoid(left, scale * rng.uniform(0.85, 1.2) * np.array([72, 36, 34]), rng.normal(0.15, 0.2), 4)
    np.maximum(whole[box], depth, out=whole[box])
    box, hollow = body.ellipsoid(body.jitter((18, -14, -12), 4), (56, 62, 52), rng.normal(-0.5, 0.1), 3)
    np.minimum(whole[box], -hollow, out=whole[box])
    edge = (
        rng.normal(8, 7) - rng.normal(0.62, 0.1) * np.maximum(body.x - 30, 0) + 4 * body.rough
    )  # runs down to the side
    mask = (whole > 0) & (body.z > edge) & body.inside & (body.z < body.dome - 2) & (body.labels != SPLEEN)
    cava = np.hypot(body.x - 24, body.y + 22) < 11
    mask &= ~cava
    everywhere = (slice(None),) * 3
    parenchyma = body.enhanced("liver")
    body.paint(everywhere, mask, parenchyma, LIVER)
    for points in LIVER_VEINS:
        box, depth = body.tube([body.jitter(point, 4) for point in points], (4.5, 3.5, 2.0))
        body.paint(box, (depth > 0) & mask[box], 0.4 * parenchyma + 0.6 * body.enhanced("vein"), LIVER)
    if body.patient.gallbladder:
        neck, fundus = body.jitter((46, 22, 4), 4), body.jitter((58, 50, -26), 7)
        size = rng.uniform(0.75, 1.2)
        box, depth = body.tube([neck, (neck + fundus) / 2 + (2, 4, 2), fundus], size * np.array([8, 16, 18]), 1.0)
        body.paint(box, (depth > 0) & body.inside[box], rng.normal(10, 4), GALLBLADDER)


def stomach(body: _Body) -> None:
    """From the fundus under the left dome to the pylorus, filled with fluid, food and gas."""
    rng, filling = body.rng, body.patient.stomach
    course = [(-58, -14, 78), (-64, 10, 62), (-52, 38, 34), (-22, 50, 8), (10, 42, 4), (27, 30, 6)]
    points = [body.jitter(point, 5) for point in course]
    radii = filling * np.array([24, 28, 24, 17, 12, 9])
    _hollow(body, points, radii, rng.uniform(0, 70), body.patient.gas, 2.5, STOMACH)


def pancreas_and_duodenum(body: _Body) -> None:
    """The duodenum's C around the pancreatic head; neck, body and tail towards the spleen, lobulated."""
    rng = body.rng
    _hollow(
        body,
        [body.jitter(p, 3) for p in ((30, 32, 8), (50, 22, 0), (52, 10, -30), (34, 4, -50), (0, 6, -48))],
        10.5,
        25,
        0.15,
        1.5,
    )
    course = [(30, 17, -20), (24, 20, -2), (6, 23, 9), (-24, 21, 15), (-58, -4, 25), (-80, -20, 33)]
    shift, size = rng.normal(0, 4, 3), rng.uniform(0.85, 1.1)
    box, depth = body.tube(
        [body.jitter(point, 3) + shift for point in course], size * np.array([10, 9.5, 6, 7.5, 7.5, 6]), 1.8
    )
    mask = (depth > 0) & body.inside[box] & (body.labels[box] != LIVER) & (body.labels[box] != SPLEEN)
    body.paint(box, mask, body.enhanced("pancreas") + 8 * body.fine[box], PANCREAS)


def vessels(body: _Body) -> None:
    """Aorta with celiac and superior mesenteric artery; portal, splenic and superior mesenteric vein; iliac arteries."""
    rng = body.rng
    artery, vein, wide = body.enhanced("artery"), body.enhanced("vein"), rng.uniform(0.85, 1.2)
    shift = rng.normal(0, 2.5, 3)

    def tube(points, radii, hu: float, label: int) -> None:
        box, depth = body.tube([np.add(point, shift) + rng.normal(0, 1.2, 3) for point in points], radii)
        body.paint(box, depth > 0, hu, label)

    confluence = (9, 8, 2)
    tube([(12, 18, -85), (11, 13, -30), confluence], (5, 6, 7), vein, VEIN)
    tube([confluence, (25, 6, 22), (45, 5, 41)], (8, 8, 7), vein, VEIN)
    tube([confluence, (-22, 8, 12), (-56, -12, 23), (-86, -26, 34)], (6.2, 5.8, 5.4, 4.6), vein, VEIN)
    aorta = [(-15, -29, 230), (-14, -26, 110), (-12, -20, 20), (-4, -18, -95)]
    for side in (-1, 1):
        tube([aorta[-1], (side * 18, -18, -120), (side * 42, -4, -190)], (6.5, 6, 5), artery, BACKGROUND)
    tube(aorta, wide * np.array([10, 9.5, 8.5, 7]), artery, ARTERY)
    tube([(-12, -14, 18), (-8, 3, 24)], 4.2, artery, ARTERY)
    tube([(-8, 3, 24), (18, 8, 25), (42, 10, 36)], (3.4, 3.0, 2.6), artery, ARTERY)
    tube([(-8, 3, 24), (-45, -8, 32), (-84, -28, 42)], (3.4, 3.0, 2.6), artery, ARTERY)
    tube([(-11, -14, 4), (-3, 2, -8), (1, 9, -40), (4, 14, -90)], (4.2, 3.8, 3.4, 2.6), artery, ARTERY)


def skeleton(body: _Body) -> None:
    """Vertebrae with discs, canal and processes; ribs, sternum and iliac wings."""
    x, y, z, rng = body.x, body.y, body.z, body.rng
    spongy, cortex = BONE + rng.normal(0, 25), CORTEX + rng.normal(0, 40)
    front = -52 + 6 * np.cos((z + 40) / 70) - 12 * np.clip((-z - 100) / 60, 0, 1)  # the lordosis
    level = (z / 34 + 0.1) % 1
    waist = 1 + 0.10 * np.cos(2 * np.pi * level)
    radius = np.sqrt((x / (22 * waist)) ** 2 + ((y - front) / (16 * waist)) ** 2)
    vertebra, disc = radius < 1, (np.abs(level - 0.0) < 0.1) | (level > 0.9)
    vertebra &= body.labels == BACKGROUND  # the aorta lies on it
    body.hu[vertebra] = np.where(
        disc, 75, np.where((radius > 0.86) | (np.abs(level - 0.5) > 0.36), cortex * 0.75, spongy)
    )[vertebra]
    canal = np.hypot(x, y - front + 26)
    body.hu[(canal < 16) & ~vertebra & (level > 0.15)] = cortex * 0.7
    body.hu[(np.abs(x) < 3.5) & (y < front - 32) & (y > front - 52) & (level > 0.2) & (level < 0.75)] = cortex * 0.7
    body.hu[(np.abs(y - front + 22) < 5) & (np.abs(x) > 12) & (np.abs(x) < 40) & (np.abs(level - 0.5) < 0.14)] = (
        cortex * 0.6
    )
    body.hu[canal < 9] = 25

    margin = -28 + 0.62 * (y + 90)  # the costal arch rises to the front
    slats = np.sin(2 * np.pi * (z + 0.5 * y) / 27) > 0.25
    ribs = (np.abs(body.under_wall - 5) < 3.5) & (z > margin) & slats & (np.abs(x) > 20)
    body.hu[ribs] = cortex * 0.85
    body.hu[(np.abs(body.under_wall - 4) < 5) & (np.abs(x) < 17) & (y > 40) & (z > 105)] = spongy
    for side in (-1, 1):
        box = body.near((side * 90, -35, -150), 60)
        across = (
            side * body.x[box] - 62 - 0.42 * (body.z[box] + 170) - 0.25 * (body.y[box] + 40)
        )  # a blade that opens upwards
        rim = ((body.y[box] + 35) / 62) ** 2 + ((body.z[box] + 190) / 84) ** 2 < 1
        body.paint(box, (np.abs(across) < 5) & rim & (body.under_wall[box] > 0), cortex)


def write_phantoms(
    root: Path | str, cases: int, seed: int = 0, workers: int | None = None, progress: bool = True
) -> None:
    """Write `cases` phantoms in nnU-Net's raw layout, those that are not there yet.

    A case's label is written last, so a case with a label is complete, and an interrupted generation goes on where it
    stopped. The bytes depend on seed and case number alone.

    Raises:
        InputError: the folder holds another data set than the one asked for.
    """
    root = Path(root)
    if cases < 1:
        raise InputError(f"data.layout.cases={cases}: expected at least one phantom")
    description = {
        "name": "lightning_dice phantoms",
        "description": "synthetic portal-venous abdominal CTs",
        "channel_names": {"0": "CT"},
        "labels": {name: index for index, name in enumerate(NAMES)},
        "numTraining": cases,
        "file_ending": ".nii.gz",
        "generator": {"name": "lightning_dice.data.phantom", "version": VERSION, "seed": seed},
    }
    file = root / "dataset.json"
    if file.is_file():
        if json.loads(file.read_text()) != description:
            raise InputError(
                f"{file}: describes another data set than {cases} phantoms of version {VERSION} and seed {seed}; "
                "give data.root another folder, or remove this one"
            )
    else:
        with replacing(file) as path:
            path.write_text(json.dumps(description, indent=2))
    missing = [case for case in range(cases) if not _label_path(root, case).is_file()]
    with tqdm(total=len(missing), desc="phantoms", unit="case", disable=not (progress and missing)) as bar:
        if len(missing) == 1 or workers == 1:
            for case in missing:
                _write(root, seed, case)
                bar.update()
        elif missing:
            with ProcessPoolExecutor(workers) as pool:
                for done in as_completed([pool.submit(_write, root, seed, case) for case in missing]):
                    done.result()
                    bar.update()


def phantom_cases(root: Path | str, cases: int, seed: int = 0) -> list[Case]:
    """A layout that makes its own data: write what is missing of the phantoms, and list them."""
    write_phantoms(root, cases, seed)
    return nnunet_cases(root)


def _write(root: Path, seed: int, case: int) -> None:
    phantom = make_phantom(seed, case)
    for array, path in (
        (phantom.hu, root / "imagesTr" / f"phantom_{case:04d}_0000.nii.gz"),
        (phantom.labels, _label_path(root, case)),
    ):
        image = nib.Nifti1Image(array, phantom.affine)
        image.header.set_xyzt_units("mm")
        with replacing(path) as temporary:  # gzip by hand: without the time of writing, and fast
            temporary.write_bytes(gzip.compress(image.to_bytes(), compresslevel=2, mtime=0))


def _label_path(root: Path, case: int) -> Path:
    return root / "labelsTr" / f"phantom_{case:04d}.nii.gz"
