"""The great vessels and their branches."""

from collections.abc import Sequence

import numpy as np

from lightning_dice.data.phantom.body import Body, Numbers
from lightning_dice.data.phantom.structures import ARTERY, CAVA, ILIAC_ARTERY_LEFT, ILIAC_ARTERY_RIGHT, VEIN


def cava(body: Body) -> None:
    """The inferior vena cava, from the right common iliac vein to the heart."""
    low = [(45, 50, -190), (16, 27, -130), (19, 27, -100), (22, 27, -50), (24, 27, -10), (25, 27, 40)]
    course = [*body.by_spine(low), (18, -8, 100), (12, 5, 135)]
    box, depth = body.tube([body.jitter(c, 2) for c in course], body.rng.uniform(9, 12))
    body.paint(box, depth > 0, body.enhanced("cava"), CAVA)


def vessels(body: Body) -> None:
    """Aorta, celiac and superior mesenteric artery; portal, splenic and superior mesenteric vein; iliac arteries."""
    rng = body.rng
    artery, vein, wide = body.enhanced("artery"), body.enhanced("vein"), rng.uniform(0.78, 1.25)
    shift = rng.normal(0, 3.5, 3)

    def tube(points: Sequence[Numbers], radii: Numbers | float, hu: float, label: int) -> None:
        box, depth = body.tube([np.add(point, shift) + rng.normal(0, 1.2, 3) for point in points], radii)
        body.paint(box, depth > 0, hu, label)

    confluence = (9, 8, 2)
    tube([(12, 18, -85), (11, 13, -30), confluence], (5, 6, 7), vein, VEIN)
    tube([confluence, (25, 6, 22), (45, 5, 41)], (8, 8, 7), vein, VEIN)
    tube([confluence, (-22, 8, 12), (-56, -12, 23), (-86, -26, 34)], (6.2, 5.8, 5.4, 4.6), vein, VEIN)
    aorta = body.by_spine([(-20, 26, 230), (-17, 29, 110), (-12, 30, 20), (-8, 28, -40), (-4, 27, -95)])
    for side, label in ((-1, ILIAC_ARTERY_LEFT), (1, ILIAC_ARTERY_RIGHT)):
        iliac = body.by_spine([(side * 18, 28, -120), (side * 42, 62, -190)])
        tube([aorta[-1], *iliac], (6.5, 6, 5), artery, label)
    tube(aorta, wide * np.array([10, 9.5, 8.5, 7.8, 7]), artery, ARTERY)
    tube([(-12, -14, 18), (-8, 3, 24)], 4.2, artery, ARTERY)
    tube([(-8, 3, 24), (18, 8, 25), (42, 10, 36)], (3.4, 3.0, 2.6), artery, ARTERY)
    tube([(-8, 3, 24), (-45, -8, 32), (-84, -28, 42)], (3.4, 3.0, 2.6), artery, ARTERY)
    tube([(-11, -14, 4), (-3, 2, -8), (1, 9, -40), (4, 14, -90)], (4.2, 3.8, 3.4, 2.6), artery, ARTERY)
