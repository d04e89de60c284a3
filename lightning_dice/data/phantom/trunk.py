"""The trunk's outline, the fat under the skin, the muscles of wall and back, and the table underneath."""

import numpy as np

from lightning_dice.data.labels import BACKGROUND
from lightning_dice.data.phantom.body import Body
from lightning_dice.data.phantom.structures import FAT, MUSCLE

SKIN_MM = 2.5
TABLE_SHARE = 0.9  # of the patients, with the couch in the field of view


def trunk(body: Body) -> None:
    """Skin, fat and muscles around a cavity that is filled with fat, where all else is painted later."""
    under = _under_skin(body)
    body.hu[under > 0] = 10
    body.hu[under > SKIN_MM] = FAT
    body.under_wall = under - SKIN_MM - _fat_mm(body)
    thick, back = _wall_mm(body), _back(body)
    body.deep = np.minimum(body.under_wall - thick, back)
    column = np.hypot(body.x / 27, (body.y - body.spine(body.z)) / 19) < body.vertebra(body.z)
    body.inside = (body.deep > 0) & ~column
    wall = (body.under_wall > 0) & ~body.inside
    body.hu[wall], body.labels[wall] = body.enhanced("muscle") + 5 * body.fine[wall], MUSCLE
    _planes(body, thick, back, wall)
    body.hu[body.inside] = FAT + 6
    body.hu[body.inside & (body.fine > 1.6)] = -30  # mesenteric vessels
    _deep_muscles(body)
    if body.rng.random() < TABLE_SHARE:
        _table(body, under)


def _back_mm(body: Body) -> np.ndarray:
    """How far the back's skin lies behind the origin, by height: it follows the spine, flattened by the table."""
    _, _, z = body.grid
    z = z / body.patient.size
    return 122 + 0.5 * body.patient.fat_mm - 0.3 * (body.spine(z) + 56)


def _under_skin(body: Body) -> np.ndarray:
    """Depth in mm under the skin, along the line to the axis; smooth, as it knows nothing of the bend inside."""
    p = body.patient
    x, y, z = (axis / p.size for axis in body.grid)
    wide, waist, belly, turn, skew, chest = p.outline
    profile = 1 - (0.05 + waist) * np.exp(-(((z + 25) / 60) ** 2)) + (0.05 + waist) * np.clip((-z - 90) / 60, 0, 1)
    profile = profile - (0.09 + chest) * np.clip((z - 100) / 90, 0, 1) ** 2
    width = 163 * p.girth * (1 + wide) * profile
    back = _back_mm(body)
    front = 242 * p.girth * (1 - 0.05 * np.clip((z - 60) / 90, 0, 1)) - back
    front = front * (1 + belly + (0.04 + belly) * np.exp(-(((z + 70) / 70) ** 2)))
    angle = np.arctan2(y, x)
    reach = np.hypot(x, y) + 1e-3
    uneven = 1 + turn * np.cos(2 * angle + 1) + 0.5 * skew * np.cos(3 * angle)
    uneven = uneven * (1 - 0.035 * np.exp(-((x / 26) ** 2)) * (y < 0))  # the furrow over the spine
    r = np.empty(np.broadcast_shapes(x.shape, y.shape, z.shape), np.float32)
    half = int(np.searchsorted(y.ravel(), 0))
    for part, depth, power in ((slice(half), back, 2.9), (slice(half, None), front, 2.2)):
        r[:, part] = ((np.abs(x) / width) ** power + (np.abs(y[:, part]) / depth) ** power) ** (1 / power)
    r *= 1 / uneven
    return (1 / (r + 1e-3) - 1) * reach


def _fat_mm(body: Body) -> np.ndarray:
    """Thickness under the skin: least in the midline, most at the flanks and low at the back, less on the chest."""
    x, y, z = (axis / body.patient.size for axis in body.grid)
    angle = np.degrees(np.arctan2(y, np.abs(x)))  # 90 in front, 0 at the side
    around = 1 - 0.3 * np.exp(-(((angle - 90) / 25) ** 2)) + 0.55 * np.exp(-(((angle + 38) / 22) ** 2))
    around = around - 0.30 * np.exp(-(((angle + 90) / 20) ** 2))
    height = 1 + 0.35 * np.clip((-z - 20) / 90, 0, 1) - 0.45 * np.clip((z - 20) / 90, 0, 1)
    return body.patient.fat_mm * around * height


def _wall_mm(body: Body) -> np.ndarray:
    """Thickness of the wall: rectus in front, three layers at the side, ribs with muscles on them above."""
    x, y, z = (axis / body.patient.size for axis in body.grid)
    angle = np.degrees(np.arctan2(y, np.abs(x)))
    belly = 10 + 9 * np.exp(-(((angle - 2) / 32) ** 4))
    chest = 15 + 7 * np.exp(-(((angle + 30) / 35) ** 2))
    share = np.clip((z - 0.55 * y - 5) / 30, 0, 1)  # of the chest
    return belly + (chest - belly) * share


def _back(body: Body) -> np.ndarray:
    """Distance in mm in front of the back's muscles, which reach to the transverse processes."""
    side = np.maximum(np.abs(body.x) - 40, 0)
    return body.y - body.spine(body.z) + 21 + 0.016 * side**2


def _planes(body: Body, thick: np.ndarray, back: np.ndarray, wall: np.ndarray) -> None:
    """Fat: linea alba, beside rectus, between the layers at the side, around erector spinae that thins out upwards."""
    x, y, z = np.abs(body.x), body.y, body.z
    below = wall & (z - 0.55 * y < 5)
    beside = below & (y > 0) & (body.deep < -2.5) & ((x < 3.5) | (np.abs(x - 70 * body.patient.girth) < 3))
    body.hu[beside], body.labels[beside] = FAT + 45, BACKGROUND
    lateral = below & (x > 80 * body.patient.girth) & (back > 0)
    for share in (0.36, 0.68):
        body.hu[lateral & (np.abs(body.under_wall - share * thick) < 1.0)] -= 50
    box = body.near((0, -90, 0), (110, 75, 1000))
    x, y, z = x[box], y[box], z[box]
    full = 1 - 0.35 * np.clip(z / 110, 0, 1)
    column = np.hypot((x - 33) / (32 * full**0.3), (y - body.spine(z) + 43) / (25 * full))
    behind = wall[box] & (back[box] < 0) & (x > 4)
    gap = behind & ((np.abs(column - 1.03) < 0.05) | ((column > 1.05) & (body.under_wall[box] > 12) & (z < 10)))
    body.paint(box, gap, FAT + 25)


def _deep_muscles(body: Body) -> None:
    """Psoas, which grows downwards, and quadratus lumborum."""
    for side in (-1, 1):
        muscle = body.enhanced("muscle", 3)
        psoas = [(27, -4, 15), (32, -2, -40), (42, 3, -100), (55, 22, -175), (62, 50, -250)]
        quadratus = [(52, -26, 12), (62, -24, -40), (72, -24, -95)]
        for points, radii in ((psoas, (4, 10, 16, 19, 18)), (quadratus, (8, 11, 12))):
            box, depth = body.tube(body.by_spine([(side * x, y, z) for x, y, z in points]), radii)
            body.paint(box, (depth > 0) & (body.under_wall[box] > 0), muscle, MUSCLE)


def _table(body: Body, under: np.ndarray) -> None:
    """A couch's thin shell, hollowed out like the back that lies on it."""
    gx, gy, _ = body.grid
    top = -body.patient.size * float(np.max(_back_mm(body))) - 3 + gx**2 / 1500
    low = top - 30 + 22 * (gx / 170) ** 4
    shell = (np.abs(gy - top) < 2.6) | (np.abs(gy - low) < 2.6)
    body.hu[np.broadcast_to(shell & (top > low), body.hu.shape) & (under < -1)] = 20
