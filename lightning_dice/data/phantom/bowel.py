"""The digestive tube: stomach, duodenum, small bowel and colon, with wall, fluid, stool and gas."""

from collections.abc import Sequence

import numpy as np

from lightning_dice.data.phantom.body import Body, Numbers, smooth_path
from lightning_dice.data.phantom.structures import COLON, DUODENUM, GAS, SMALL_BOWEL, STOMACH

SIDES, LAYERS = ((-70, -42, -14), (14, 42, 70)), (2, 29, 56)  # mm, of the loops of small bowel
ROWS = (-168, -142, -116, -90, -64, -38)
HAUSTRA = (1.14, 1.0, 0.78, 1.0)  # of the radius, along a fold and its pouch of 36 mm


def bowel(body: Body) -> None:
    """Small bowel packed into the frame of the colon."""
    _small_bowel(body)
    _colon(body)


def _small_bowel(body: Body) -> None:
    """One long tube that winds to and fro, layer by layer, with other content from loop to loop."""
    rng = body.rng
    path: list[tuple[float, float, float]] = []
    for side in SIDES:
        for i, y in enumerate(LAYERS[:: -1 if side[0] < 0 else 1]):
            for j, z in enumerate(ROWS[:: (-1) ** i]):
                path += [(x, y, z) for x in side[:: (-1) ** j]]
    points = np.array(path) + rng.uniform(-12, 12, (len(path), 3))
    size = rng.uniform(0.88, 1.06)
    for start in range(0, len(points) - 1, 6):
        loop = points[start : start + 7]
        radii = size * rng.uniform(11, 15, len(loop))
        gas = rng.uniform(0.1, 0.4) if rng.random() < 0.15 else 0.0
        hollow(body, loop, radii, rng.uniform(5, 60), gas, 1.2, SMALL_BOWEL)


def _colon(body: Body) -> None:
    """From the caecum up, across below the stomach, and down to the sigmoid, in pouches, with stool."""
    rng = body.rng
    course = [
        *((84, 22, -160), (98, 4, -130), (102, -8, -95), (98, 0, -62), (78, 40, -56), (40, 64, -52), (0, 72, -50)),
        *((-46, 66, -38), (-84, 44, -10), (-102, 16, -6), (-109, -14, -44), (-108, -20, -90), (-100, -4, -140)),
        *((-74, 8, -172), (-36, -6, -190), (-10, -26, -205), (0, -44, -235)),
    ]
    sag = rng.normal(0, 8)  # of the transverse part
    points = [body.jitter((x, y, z + sag * (abs(x) < 70 and y > 50)), 4) for x, y, z in course]
    dense, radii = smooth_path(points, rng.uniform(15, 19) * np.linspace(1.25, 0.85, len(points)), 9.0)
    radii = radii * np.resize(HAUSTRA, len(radii)) * rng.uniform(0.94, 1.06, len(radii))
    hollow(body, dense, radii, rng.uniform(0, 45), rng.uniform(0.05, 0.45), 1.2, COLON, stool=rng.uniform(0.06, 0.25))


def stomach(body: Body) -> None:
    """From the fundus under the left dome to the pylorus, filled with fluid, food and gas."""
    rng, filling = body.rng, body.patient.stomach
    course = [(-58, -14, 78), (-64, 10, 62), (-52, 38, 34), (-22, 50, 8), (10, 42, 4), (27, 30, 6)]
    points = [body.jitter(point, 5) for point in course]
    radii = filling * np.array([24, 28, 24, 17, 12, 9])
    hollow(body, points, radii, rng.uniform(0, 70), body.patient.gas, 2.5, STOMACH)


def duodenum(body: Body) -> None:
    """The C around the pancreatic head."""
    loop = [
        body.jitter(p, 3) for p in ((30, 32, 8), (50, 22, 0), (52, 10, -30), (34, 4, -50), (0, 8, -50), (-30, 14, -48))
    ]
    hollow(body, loop, 10.5, 25, 0.15, 1.5, DUODENUM)


def hollow(
    body: Body,
    points: Sequence[Numbers] | np.ndarray,
    radii: Numbers | float,
    content: float,
    gas: float,
    rough_mm: float,
    label: int,
    stool: float = 0.0,
) -> None:
    """A tube with an enhancing wall, its content, and gas in front, where it rises to in a patient on the back.

    Args:
        content: HU of what fills the lumen but for the shares of `gas` and, mixed into it, of the bubbles of `stool`.
    """
    box, depth = body.tube(points, radii, rough_mm)
    depth = np.where(body.inside[box] & (body.z[box] < body.dome[box] - 3), depth, -np.inf)
    if not (depth > 0).any():
        return
    body.paint(box, depth > 0, body.enhanced("wall"), label)
    lumen = depth > 3.5
    body.paint(box, lumen, content + 12 * body.fine[box], label)
    if stool:
        body.paint(box, lumen & (body.rng.random(lumen.shape, np.float32) < stool), -420, label)
    if gas and lumen.any():
        heights = body.y[box][lumen]
        level = np.quantile(heights, 1 - gas)
        body.paint(box, lumen & (body.y[box] > level), GAS, label)
