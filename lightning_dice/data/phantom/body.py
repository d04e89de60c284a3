"""A synthetic patient and the canvas on which organs are painted: deformed coordinates, shapes, and the scanner.

Coordinates are mm around the first lumbar vertebra: x to the patient's right, y anterior, z superior.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import gaussian_filter, zoom

from lightning_dice.data.labels import BACKGROUND

SPACING_MM = 3.0
SHAPE_XY = (128, 112)
SLICES = (96, 144)
PHASES, PHASE_SHARES = ((0.0, 0.2), (0.4, 0.8), (0.8, 1.15)), (0.15, 0.15, 0.7)  # ranges of enhancement
NO_GALLBLADDER = 0.05  # share of patients after a cholecystectomy
AIR = -1000
Box = tuple[slice, slice, slice]  # part of the volume
Numbers = Sequence[float] | np.ndarray  # one along each axis, or at each point
# Unenhanced and portal-venous HU of what takes up contrast; a patient lies between them.
ENHANCED = {
    "muscle": (48, 62), "liver": (52, 110), "spleen": (44, 120), "pancreas": (38, 92), "wall": (38, 75),
    "artery": (40, 145), "vein": (40, 160), "cava": (38, 125), "heart": (42, 152), "myocardium": (44, 104),
    "kidney": (32, 175), "medulla": (28, 140),
}  # fmt: skip
# Height and y in mm of the vertebral bodies' centres, from the sacrum up: lordosis, then kyphosis.
SPINE = (
    *((-230, -98), (-190, -82), (-155, -62), (-120, -49), (-80, -44), (-35, -47), (10, -54), (70, -62)),
    *((130, -67), (190, -66), (240, -60)),
)


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
    lordosis: float  # scales the curves of the spine, 1 for the mean
    outline: tuple[float, ...]  # how the trunk departs from the mean one, in parts of its size


def draw_patient(rng: np.random.Generator) -> Patient:
    """Most patients are portal venous, some were scanned too early, and some without contrast."""
    fat = rng.gamma(4.0, 4.0)
    return Patient(
        size=float(np.clip(rng.normal(1.0, 0.06), 0.86, 1.14)),
        girth=float(np.clip(0.94 + 0.006 * fat + rng.normal(0, 0.03), 0.88, 1.12)),
        fat_mm=float(np.clip(fat, 5, 36)),
        top_mm=float(rng.uniform(130, 190)),
        slices=int(rng.integers(SLICES[0], SLICES[1] + 1)),
        enhancement=float(rng.uniform(*rng.choice(PHASES, p=PHASE_SHARES))),
        stomach=float(rng.uniform(0.8, 1.2)),
        gas=float(rng.uniform(0.0, 0.6)),
        gallbladder=bool(rng.random() >= NO_GALLBLADDER),
        noise_hu=float(rng.uniform(9, 18)),
        shift_mm=(float(rng.normal(0, 8)), float(rng.normal(0, 6))),
        lordosis=float(rng.uniform(0.7, 1.4)),
        outline=tuple(rng.normal(0, 0.02, 6).clip(-0.04, 0.04).tolist()),
    )


class Body:
    """The canvas: HU and labels so far, and the deformed coordinates in which anatomy is drawn."""

    MARGIN_MM = 22  # what deformation and rough surfaces may add to a shape's box

    def __init__(self, patient: Patient, rng: np.random.Generator):
        self.patient, self.rng = patient, rng
        shape = (*SHAPE_XY, patient.slices)
        starts = [-(n - 1) / 2 * SPACING_MM + s for n, s in zip(SHAPE_XY, patient.shift_mm, strict=True)]
        starts.append(patient.top_mm - (shape[2] - 1) * SPACING_MM)
        axes = [start + SPACING_MM * np.arange(n, dtype=np.float32) for start, n in zip(starts, shape, strict=True)]
        self.grid = np.meshgrid(*axes, indexing="ij", sparse=True)
        gx, gy, _ = self.grid
        # One smooth field bends what is inside together, and fades towards the skin; a finer one roughens surfaces.
        fade = 7 * np.clip(1.3 - (gx / 165) ** 2 - (gy / 115) ** 2, 0, 1)
        bend = [smooth_field(rng, shape, 130.0) * fade for _ in range(3)]
        self.x, self.y, self.z = ((g + b) / patient.size for g, b in zip(self.grid, bend, strict=True))
        self.rough = smooth_field(rng, shape, 26.0)
        self.fine = smooth_field(rng, shape, 11.0)
        knots, course = np.array(SPINE, float).T
        heights = np.arange(knots[0], knots[-1] + 1, 5.0)
        curve = PchipInterpolator(knots, course)(heights)
        self._spine = heights, curve.mean() + patient.lordosis * (curve - curve.mean())
        self.hu = np.full(shape, AIR, np.float32)
        self.labels = np.zeros(shape, np.uint8)
        # What the trunk settles for all that is painted into it.
        self.inside = np.zeros(shape, bool)  # of the abdominal wall and the rib cage
        self.under_wall = np.full(shape, -np.inf, np.float32)  # depth in mm below the outside of the wall
        self.deep = np.full(shape, -np.inf, np.float32)  # and below its inside
        self.dome = np.full(shape, -np.inf, np.float32)  # height in mm of the diaphragm over each place

    def enhanced(self, tissue: str, spread: float = 7.0) -> float:
        """HU of a tissue in this patient."""
        plain, full = ENHANCED[tissue]
        return plain + (full - plain) * self.patient.enhancement + self.rng.normal(0, spread)

    def spine(self, z: np.ndarray | float) -> np.ndarray:
        """The y in mm of the vertebral bodies' centres at heights z."""
        return np.interp(z, *self._spine).astype(np.float32)

    def vertebra(self, z: np.ndarray) -> np.ndarray:
        """The size of the vertebral bodies at heights z, 1 for a lumbar one."""
        return np.interp(z, (-100, 160), (1.06, 0.74)).astype(np.float32)

    def by_spine(self, points: Sequence[Numbers]) -> list[tuple[float, float, float]]:
        """Points whose y is given in front of the vertebral bodies' centres."""
        return [(x, y + float(self.spine(z)), z) for x, y, z in points]

    def near(self, centre: Numbers, reach: Numbers | float) -> Box:
        """The box of voxels within reach of a centre, both in undeformed mm."""
        reach = np.broadcast_to(np.asarray(reach, float), 3) * self.patient.size + self.MARGIN_MM
        box = []
        for axis, middle, half, size in zip(
            self.grid, np.multiply(centre, self.patient.size), reach, self.hu.shape, strict=True
        ):
            low, high = ((middle + sign * half - axis.flat[0]) / SPACING_MM for sign in (-1, 1))
            box.append(slice(int(np.clip(low, 0, size)), int(np.clip(high + 1, 0, size))))
        x, y, z = box
        return x, y, z

    def jitter(self, centre: Numbers, spread: float) -> np.ndarray:
        """The centre somewhere else, by some mm along each axis."""
        return np.asarray(centre, float) + self.rng.normal(0, spread, 3).clip(-2 * spread, 2 * spread)

    def ellipsoid(
        self, centre: Numbers, radii: Numbers, tilt: float = 0.0, rough_mm: float = 0.0
    ) -> tuple[Box, np.ndarray]:
        """Box and depth in mm (about; positive inside) of an ellipsoid, tilted in the coronal plane by `tilt` rad."""
        radii = np.asarray(radii, np.float32)
        box = self.near(centre, radii.max())
        x, y, z = self.x[box] - centre[0], self.y[box] - centre[1], self.z[box] - centre[2]
        if tilt:
            x, z = np.cos(tilt) * x + np.sin(tilt) * z, np.cos(tilt) * z - np.sin(tilt) * x
        level = np.sqrt((x / radii[0]) ** 2 + (y / radii[1]) ** 2 + (z / radii[2]) ** 2)
        depth = (1 - level) * radii.min()
        return box, depth + rough_mm * self.rough[box]

    def tube(
        self, points: Sequence[Numbers] | np.ndarray, radii: Numbers | float, rough_mm: float = 0.0
    ) -> tuple[Box, np.ndarray]:
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

    def paint(self, box: Box, mask: np.ndarray, hu: np.ndarray | float, label: int = BACKGROUND) -> None:
        """Set HU and class where the mask, of the box's shape, says so."""
        self.hu[box] = np.where(mask, hu, self.hu[box])
        self.labels[box] = np.where(mask, label, self.labels[box])

    def scan(self) -> np.ndarray:
        """What the scanner makes of it: partial volume, texture and correlated noise, int16."""
        hu = gaussian_filter(self.hu, 0.55)
        noise = gaussian_filter(self.rng.standard_normal(hu.shape, dtype=np.float32), 0.7)
        hu += noise * (self.patient.noise_hu / noise.std())
        hu += np.where(hu > -300, 4 * self.fine, 0)  # organs are not uniform
        return np.clip(np.rint(hu), -1024, 1800).astype(np.int16)


def smooth_field(rng: np.random.Generator, shape: Sequence[int], scale_mm: float) -> np.ndarray:
    """Random float32 (X, Y, Z) of zero mean and unit variance that varies over `scale_mm`."""
    coarse = [max(4, int(np.ceil(size * SPACING_MM / scale_mm)) + 3) for size in shape]
    noise = rng.standard_normal(coarse, dtype=np.float32)
    field = zoom(noise, np.divide(shape, coarse), order=1 if scale_mm < 20 else 2, grid_mode=True, mode="nearest")
    return (field - field.mean()) / field.std()


def smooth_path(
    points: Sequence[Numbers] | np.ndarray, radii: Numbers | float, step_mm: float = 3.0
) -> tuple[np.ndarray, np.ndarray]:
    """Points and radii every few mm along a curve through the given ones."""
    points = np.asarray(points, float)
    radii = np.broadcast_to(np.asarray(radii, float), len(points))
    along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    fine = np.linspace(0, along[-1], max(2, int(along[-1] / step_mm)))
    curve = PchipInterpolator(along, np.column_stack([points, radii]))(fine)
    return curve[:, :3].astype(np.float32), curve[:, 3].astype(np.float32)
