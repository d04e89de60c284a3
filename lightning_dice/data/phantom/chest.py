"""Diaphragm, lungs and mediastinum."""

import numpy as np

from lightning_dice.data.labels import BACKGROUND
from lightning_dice.data.phantom.body import Body
from lightning_dice.data.phantom.structures import FAT, HEART, LUNG, LUNG_LEFT, LUNG_RIGHT, MUSCLE


def chest(body: Body) -> None:
    """Lungs above the diaphragm, and between them the heart, which rests on it, and the oesophagus, in fat."""
    x, y, z = body.x, body.y, body.z
    body.dome = _diaphragm(body)
    above = body.inside & (z > body.dome)
    sheet = body.inside & ~above & (z > body.dome - 4)
    body.hu[sheet], body.labels[sheet] = body.enhanced("muscle"), MUSCLE

    centre = body.jitter((-24, 24, 0), 4)
    middle = tuple(np.unravel_index(np.hypot(x - centre[0], y - centre[1]).argmin(), x.shape))
    centre[2] = body.dome[middle] + body.rng.normal(32, 3)
    box, depth = body.ellipsoid(centre, (62, 49, 52), tilt=0.35, rough_mm=1.5)
    between = np.abs(x + 6) < 34 - 0.004 * y**2 + 3 * body.rough
    between |= np.abs(x) < 16
    # What the heart rests on: fat of the pericardium, down to the diaphragm.
    foot = np.hypot((x[box] - centre[0]) / 66, (y[box] - centre[1]) / 53) < 1
    between[box] |= (depth > -7) | (foot & (z[box] < centre[2]))
    lung = above & ~between
    body.hu[lung] = LUNG + 30 * body.fine[lung] + 160 * (body.fine[lung] > 2.2)
    body.labels[lung] = np.where(x[lung] > 0, LUNG_RIGHT, LUNG_LEFT)
    fat = above & between
    body.hu[fat], body.labels[fat] = FAT + 15, BACKGROUND
    _heart(body, centre, box, (depth > 0) & above[box])
    gullet = [*body.by_spine([(-6, 30, 260), (-6, 30, 180), (-6, 30, 120)]), (-20, -4, 92), (-38, 2, 78)]
    tube, depth = body.tube(gullet, (7, 7, 8, 8, 7))
    body.paint(tube, (depth > 0) & body.inside[tube], body.enhanced("wall"))


def _diaphragm(body: Body) -> np.ndarray:
    """Height in mm over each place: two domes, a little lower where the heart rests, and the recess at the wall."""
    x, y, rng = body.x, body.y, body.rng
    right, left = rng.normal(112, 7), rng.normal(100, 7)
    level = left + (right - left) * np.clip((x + 60) / 120, 0, 1)
    level = level - 5 * np.exp(-(((x + 8) / 30) ** 2)) - 0.0035 * (np.abs(x) - 60) ** 2 - 0.0022 * y**2
    recess = (55 - 0.5 * y).clip(25, 100)  # mm, deepest at the back
    return level - recess * np.exp(-np.maximum(body.deep, 0) / 9)


def _heart(body: Body, centre: np.ndarray, box: tuple[slice, slice, slice], mask: np.ndarray) -> None:
    """Myocardium and the four chambers with their blood."""
    body.paint(box, mask, body.enhanced("myocardium"), HEART)
    blood = body.enhanced("heart")
    for shift, radii in (
        ((-24, -2, 2), (24, 17, 26)),  # left ventricle, in thick walls
        ((-10, 26, -6), (34, 13, 26)),  # right ventricle, in front
        ((34, 6, 6), (19, 22, 26)),  # right atrium
        ((6, -28, 18), (27, 14, 20)),  # left atrium, at the back
    ):
        part, depth = body.ellipsoid(centre + shift, radii, tilt=0.35, rough_mm=1)
        body.paint(part, (depth > 0) & (body.labels[part] == HEART), blood, HEART)
