"""The spine with discs and canal, ribs, sternum, and the iliac wings with the muscles on them."""

import numpy as np

from lightning_dice.data.labels import BACKGROUND
from lightning_dice.data.phantom.body import Body, Box
from lightning_dice.data.phantom.structures import (
    CARTILAGE,
    CORTEX,
    DISC,
    DISCS,
    FAT,
    HIP_LEFT,
    HIP_RIGHT,
    MUSCLE,
    PANCREAS,
    RIBS,
    SPINAL_CORD,
    SPONGY,
    STERNUM,
    VERTEBRAE,
)

SACRUM_MM = -152  # height of the last disc


def skeleton(body: Body) -> None:
    """All bones, thin shells around what is spongy."""
    spongy, cortex = SPONGY + body.rng.normal(0, 25), CORTEX + body.rng.normal(0, 40)
    _hips(body, spongy, cortex)
    _rib_cage(body, spongy, cortex)
    _spine(body, spongy, cortex)


def _put(body: Body, box: Box, where: np.ndarray, hu: np.ndarray | float, label: int) -> None:
    """Paint, but not over the paper's organs."""
    free = (body.labels[box] == BACKGROUND) | (body.labels[box] > PANCREAS)
    body.paint(box, where & free, hu, label)


def _trabeculae(body: Body, box: Box, spongy: float) -> np.ndarray:
    return spongy + 18 * body.fine[box] + 30 * body.rng.standard_normal(body.fine[box].shape, np.float32)


def _spine(body: Body, spongy: float, cortex: float) -> None:
    """Waisted bodies with discs between them, square to the curve, arches with their processes, and the dural sac."""
    box = body.near((0, -80, 0), (64, 75, 1000))
    x, z = np.abs(body.x[box]), body.z[box]
    y = body.y[box] - body.spine(z)
    slope = (body.spine(z + 12) - body.spine(z - 12)) / 24
    # The height on the curve; of the grid, as vertebrae do not bend.
    along = body.grid[2][..., box[2]] / body.patient.size + slope * y
    heights = np.arange(SACRUM_MM, 320.0, 2.0)
    count = np.cumsum(2 / np.interp(heights, (-100, 40, 200), (37, 33, 25)))  # of vertebrae, from the sacrum up
    level = np.interp(along, heights, count - count[0], left=-1).astype(np.float32)
    sacrum = level < 0
    level %= 1
    gap = np.interp(z, (-60, 120), (0.125, 0.095)).astype(np.float32)  # half a disc, as a part of the level
    large = body.vertebra(z)
    waist = large * (1 + np.where(sacrum, 0, 0.07 * np.cos(2 * np.pi * level)))
    radius = np.hypot(x / (24 * waist), y / (17 * waist))
    end = np.where(sacrum, 1, np.minimum(level, 1 - level) - gap)  # into the body from the disc, as a part
    trabeculae = _trabeculae(body, box, spongy)
    column = (radius < 1) & ~sacrum
    shell = (radius > 0.88) | (end < 0.07)
    _put(body, box, column & (end > 0), np.where(shell, 0.65 * cortex, trabeculae), VERTEBRAE)
    _put(body, box, (radius < 1.03) & (end <= 0), DISC + 8 * body.fine[box], DISCS)

    wing = np.hypot(x / np.interp(z, (-230, -185, SACRUM_MM), (22, 48, 40)), (y + 6) / 17)
    _put(body, box, sacrum & (wing < 1), np.where(wing > 0.88, 0.7 * cortex, trabeculae), VERTEBRAE)

    _arches(body, box, x, -y - 17 * large, np.where(sacrum, np.nan, level), cortex)


def _arches(body: Body, box: Box, x: np.ndarray, behind: np.ndarray, level: np.ndarray, cortex: float) -> None:
    """What lies `behind` the bodies, in mm, by the `level` on a vertebra, 0 to 1, NaN on the sacrum: pedicles, laminae,
    joints and processes around the canal."""
    canal = np.hypot(x / 1.15, behind - 9)
    pedicle = (x > 8) & (x < 16) & (behind < 12) & (np.abs(level - 0.66) < 0.17)
    lamina = (canal < 13.5) & (behind > 7) & (np.abs(level - 0.55) < 0.34)
    joint = (np.hypot(x - 16, behind - 15) < 6.5) & (np.abs(level - 0.5) > 0.18)
    spinous = (x < 3.2) & (behind > 18) & (behind < 40) & (np.abs(level - 0.49 + 0.004 * behind) < 0.24)
    transverse = (x > 12) & (x < 40 * body.vertebra(body.z[box])) & (np.abs(behind - 7 - 0.12 * (x - 12)) < 4)
    transverse &= np.abs(level - 0.60) < 0.13
    arch = (canal > 9.5) & (behind > -2) & (body.under_wall[box] > -4)
    for part, dense in ((pedicle, 0.6), (transverse, 0.55), (lamina, 0.75), (joint, 0.7), (spinous, 0.65)):
        _put(body, box, part & arch, dense * cortex, VERTEBRAE)
    _put(body, box, (canal <= 10.5) & (behind > 0), FAT + 60, BACKGROUND)
    _put(body, box, (canal <= 8.5) & (behind > 0) & (body.z[box] > -190), 28, SPINAL_CORD)


def _rib_cage(body: Body, spongy: float, cortex: float) -> None:
    """Ribs that fall to the front, where they end in cartilage, and the sternum."""
    x, y, z = body.x, body.y, body.z
    everywhere = (slice(None),) * 3
    margin = -28 + 0.62 * (y + 90)  # the costal arch rises to the front
    across = (z + 0.6 * y + 0.4 * np.abs(x)) / 33
    across = 33 * np.abs(across - np.rint(across))
    section = np.hypot((body.deep + 6) / 4.2, across / 6.5)
    ribs = (section < 1) & (z > margin) & (np.abs(x) > 22) & (body.under_wall > -2)
    cartilage = y > 62 - 0.2 * np.abs(x)
    _put(body, everywhere, ribs & ~cartilage, np.where(section > 0.55, 0.85 * cortex, spongy), RIBS)
    _put(body, everywhere, ribs & cartilage, CARTILAGE, BACKGROUND)
    box = body.near((0, 100, 150), (25, 70, 60))
    plate = np.hypot((body.deep[box] + 6) / 6, x[box] / 19)
    sternum = (plate < 1) & (y[box] > 40) & (z[box] > 108)
    _put(body, box, sternum, np.where(plate > 0.7, 0.5 * cortex, _trabeculae(body, box, spongy - 30)), STERNUM)


def _hips(body: Body, spongy: float, cortex: float) -> None:
    """Blades that open upwards and to the front, between iliacus and the gluteal muscles."""
    for side, label in ((-1, HIP_LEFT), (1, HIP_RIGHT)):
        box = body.near((side * 90, -45, -170), (75, 85, 90))
        x, y, z = side * body.x[box], body.y[box], body.z[box]
        across = 0.8 * (x - 84 - 0.30 * (z + 170) - 0.72 * (y + 40) + 0.0035 * (y + 40) ** 2)
        rim = np.hypot((y + 40) / 62, (z + 205) / 100)
        muscle = body.enhanced("muscle", 3)
        on_it = (rim < 0.98) & (across > -16) & (across < 34) & (body.under_wall[box] > 0)
        _put(body, box, on_it, muscle, MUSCLE)
        shell = (np.abs(across) > 2.8) | (rim > 0.94)
        blade = (np.abs(across) < 6.4) & (rim < 1) & (body.under_wall[box] > 0)
        _put(body, box, blade, np.where(shell, 0.9 * cortex, spongy), label)
