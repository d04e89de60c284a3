"""Lesions of the liver, in part of the patients: painted into a finished phantom, which changes nowhere else."""

import numpy as np
from scipy import ndimage

from lightning_dice.data.phantom.body import SPACING_MM, Body
from lightning_dice.data.phantom.structures import LIVER, STRUCTURES

LIVER_TUMOUR = len(STRUCTURES)  # the value after all others
SHARE = 0.5  # of the patients
MOST = 3  # lesions of one
RADII_MM = (4.0, 8.0)  # about 10 to 80 voxels
DARKER, LEAST_HU = (0.35, 0.6), 30  # than the liver, as a share of its HU, and at least by so much
DEPTH = 2  # voxels, from the liver's surface to a lesion's centre


def paint_tumours(body: Body, hu: np.ndarray, rng: np.random.Generator) -> None:
    """Lower the HU of the scan and set the class within lesions, whose edges take part of the liver's HU.

    Args:
        hu: int16 (X, Y, Z), what `body.scan` gave; its noise stays.
        rng: none that draws anything else of the phantom.
    """
    if rng.random() >= SHARE:
        return
    liver = body.labels == LIVER
    inner = np.flatnonzero(ndimage.binary_erosion(liver, iterations=DEPTH))
    parenchyma = float(np.median(body.hu[liver]))
    for _ in range(rng.integers(1, MOST, endpoint=True)):
        place = np.unravel_index(rng.choice(inner), liver.shape)
        centre = [axis[place] for axis in (body.x, body.y, body.z)]
        radii = np.exp(rng.uniform(*np.log(RADII_MM))) * rng.uniform(0.85, 1.15, 3)
        box, depth = body.ellipsoid(centre, radii, tilt=rng.uniform(-0.8, 0.8))
        level = parenchyma - max(LEAST_HU, rng.uniform(*DARKER) * parenchyma)
        lesion = (depth > 0) & (body.labels[box] == LIVER)
        share = np.clip(0.5 + depth[lesion] / SPACING_MM, 0, 1)
        hu[box][lesion] += np.rint(share * (level - body.hu[box][lesion])).astype(np.int16)
        body.labels[box][lesion] = LIVER_TUMOUR
