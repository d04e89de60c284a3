"""Abdominal anatomy in coarse strokes: what stands where, in the order of painting.

HU of the portal venous phase and of fat, bone, lung and gas are textbook values; sizes aim at the organs' volumes in
abdominal scans.
"""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from lightning_dice.data.labels import BACKGROUND, BACKGROUND_NAME
from lightning_dice.data.phantom.body import Body, Numbers

# What is drawn and labelled, in the order of the values: the paper's classes, then others by TotalSegmentator's names,
# also those of its MR and tissue tasks. Fat, mediastinum and the table are background.
STRUCTURES = (
    BACKGROUND_NAME, "artery", "vein", "liver", "spleen", "stomach", "gallbladder", "pancreas",
    "kidney_right", "kidney_left", "inferior_vena_cava", "iliac_artery_left", "iliac_artery_right", "heart",
    "lung_left", "lung_right", "duodenum", "small_bowel", "colon", "vertebrae", "intervertebral_discs", "spinal_cord",
    "ribs", "sternum", "hip_left", "hip_right", "skeletal_muscle",
)  # fmt: skip
(
    _, ARTERY, VEIN, LIVER, SPLEEN, STOMACH, GALLBLADDER, PANCREAS,
    KIDNEY_RIGHT, KIDNEY_LEFT, CAVA, ILIAC_ARTERY_LEFT, ILIAC_ARTERY_RIGHT, HEART,
    LUNG_LEFT, LUNG_RIGHT, DUODENUM, SMALL_BOWEL, COLON, VERTEBRAE, DISCS, SPINAL_CORD,
    RIBS, STERNUM, HIP_LEFT, HIP_RIGHT, MUSCLE,
) = range(len(STRUCTURES))  # fmt: skip
LUNG, FAT, GAS, BONE, CORTEX = -850, -105, -880, 190, 480
LIVER_VEINS = (  # three hepatic ones from the cava, three portal ones from the hilum
    ((22, -14, 88), (55, -5, 70), (95, 5, 55)),
    ((22, -10, 88), (45, 25, 65), (60, 45, 40)),
    ((18, -4, 88), (-5, 30, 66), (-30, 42, 60)),
    ((44, 6, 42), (70, 0, 40), (100, -10, 35)),
    ((44, 6, 42), (60, 30, 50), (72, 45, 50)),
    ((40, 8, 44), (15, 35, 58), (-15, 42, 62)),
)


def paint_anatomy(body: Body) -> None:
    """Everything, from the skin inwards; what comes later covers what was there."""
    for part in (trunk, bowel, kidneys_and_cava, stomach, spleen, liver, pancreas_and_duodenum, vessels, skeleton):
        part(body)


def trunk(body: Body) -> None:
    """Skin, fat, the muscles of wall and back, lungs above the diaphragm with heart, all filled with fat inside."""
    p, rng = body.patient, body.rng
    x, y, z = body.x, body.y, body.z
    waist = 1 - 0.05 * np.exp(-(((z + 20) / 60) ** 2)) + 0.06 * np.clip((-z - 90) / 60, 0, 1)
    waist = waist * (1 - 0.10 * np.clip((z - 120) / 80, 0, 1))
    width, depth = 164 * p.girth, 116 * p.girth
    exponent = 2.5
    r = ((np.abs(x) / (width * waist)) ** exponent + (np.abs(y) / (depth * waist)) ** exponent) ** (1 / exponent)
    under = (1 - r) * depth  # mm under the skin, about
    fat = p.fat_mm * (1 + 0.075 * body.rough) * (1 + 0.3 * np.clip((-z - 60) / 60, 0, 1))
    body.hu[under > 0] = 20
    muscle = body.enhanced("muscle")
    body.hu[under > 2.5] = FAT
    wall = under > fat + 2.5
    body.hu[wall] = muscle
    thickness = 9 + 14 * np.clip((-z - 105) / 40, 0, 1) * (y < 20)
    body.inside = under > fat + 2.5 + thickness
    body.under_wall = under - fat - 2.5
    body.labels[wall & ~body.inside] = MUSCLE
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
            column &= under > fat
            body.hu[column], body.labels[column] = muscle, MUSCLE
    if rng.random() < 0.6:  # the table
        gx, gy, _ = body.grid
        plate = np.abs(gy + (depth + 14) * p.size - gx**2 / 900) < 3
        body.hu[np.broadcast_to(plate, body.hu.shape) & (under < -2)] = -250

    for centre, height in ((70, rng.normal(108, 7)), (-70, rng.normal(97, 7))):
        rho = ((x - centre) / 78) ** 2 + (y / np.where(y > 0, 130, 86)) ** 2  # it reaches deepest at the back
        np.maximum(body.dome, height - 85 * rho, out=body.dome)
    middle = (np.abs(x) < 34 - 0.10 * (z - 100)) & (y < 10)
    lung = body.inside & (z > body.dome) & ~middle
    body.hu[lung] = LUNG + 30 * body.fine[lung] + 160 * (body.fine[lung] > 2.2)
    body.labels[lung] = np.where(x[lung] > 0, LUNG_RIGHT, LUNG_LEFT)
    mediastinum = body.inside & (z > body.dome) & middle
    body.hu[mediastinum], body.labels[mediastinum] = 30, BACKGROUND
    box, heart = body.ellipsoid(body.jitter((-20, 26, 138), 5), (58, 46, 50), tilt=0.4, rough_mm=2)
    body.paint(box, (heart > 0) & body.inside[box], body.enhanced("heart"), HEART)


def bowel(body: Body) -> None:
    """Colon around and small bowel in the middle, with wall, fluid, stool and gas."""
    rng = body.rng
    colon = [
        *((100, -5, -125), (101, 0, -70), (88, 30, -34), (40, 62, -45)),
        *((-30, 66, -40), (-88, 34, -2), (-104, -12, -40), (-104, -12, -125)),
    ]
    radii = rng.uniform(12, 19, len(colon))
    course, content, gas = [body.jitter(c, 8) for c in colon], rng.uniform(-20, 70), rng.uniform(0.0, 0.45)
    _hollow(body, course, radii, content, gas, 2.5, COLON)
    for _ in range(24):  # loops of jejunum and ileum
        loop = rng.uniform((-80, 5, -160), (80, 75, -40)) + rng.uniform(-28, 28, (5, 3))
        radius, content, gas = rng.uniform(9, 13), rng.uniform(5, 60), 0.3 * (rng.random() < 0.2)
        _hollow(body, loop, radius, content, gas, 1.5, SMALL_BOWEL)


def _hollow(
    body: Body,
    points: Sequence[Numbers] | np.ndarray,
    radii: Numbers | float,
    content: float,
    gas: float,
    rough_mm: float,
    label: int,
) -> None:
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
        body.paint(box, lumen & (body.y[box] > level), GAS, label)


def kidneys_and_cava(body: Body) -> None:
    """Kidneys with cortex, medulla and sinus fat, and the inferior vena cava."""
    rng = body.rng
    for side, height, label in ((1, -14, KIDNEY_RIGHT), (-1, -2, KIDNEY_LEFT)):
        centre = body.jitter((side * 58, -48, height), 5)
        box, depth = body.ellipsoid(
            centre, rng.uniform(0.9, 1.1) * np.array([27, 25, 54]), side * rng.normal(0.2, 0.08), 1.5
        )
        body.paint(box, depth > 0, body.enhanced("kidney"), label)
        body.paint(box, (depth > 7) & (body.fine[box] > -0.3), body.enhanced("medulla"), label)
        box, sinus = body.ellipsoid(np.add(centre, (-side * 13, 6, 0)), (12, 10, 24), rough_mm=2)
        body.paint(box, sinus > 0, FAT + 20)
    cava = [(19, -20, -200), (21, -20, -100), (24, -19, -10), (25, -20, 40), (18, -8, 100), (14, 5, 135)]
    box, depth = body.tube([body.jitter(c, 2) for c in cava], rng.uniform(9, 12))
    body.paint(box, depth > 0, body.enhanced("cava"), CAVA)


def spleen(body: Body) -> None:
    """A crescent against the left rib cage, hollowed out towards stomach and kidney."""
    rng = body.rng
    centre, scale = body.jitter((-104, -34, 42), 5), rng.uniform(0.88, 1.14)
    box, depth = body.ellipsoid(centre, scale * np.array([42, 60, 64]), rng.normal(-0.15, 0.15), 3)
    hilum = 1 - ((body.x[box] - centre[0] - 40) / 30) ** 2 - ((body.y[box] - centre[1] - 18) / 46) ** 2
    hilum -= ((body.z[box] - centre[2]) / 62) ** 2
    mask = (depth > 0) & (hilum < 0) & body.inside[box] & (body.z[box] < body.dome[box] - 2)
    body.paint(box, mask, body.enhanced("spleen"), SPLEEN)


def liver(body: Body) -> None:
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
    # The lower edge runs down to the side.
    edge = rng.normal(8, 7) - rng.normal(0.62, 0.1) * np.maximum(body.x - 30, 0) + 4 * body.rough
    mask = (whole > 0) & (body.z > edge) & body.inside & (body.z < body.dome - 2) & (body.labels != SPLEEN)
    cava = np.hypot(body.x - 24, body.y + 22) < 11
    mask &= ~cava
    pieces, _ = ndimage.label(mask)
    mask = pieces == np.bincount(pieces.ravel())[1:].argmax() + 1  # what the hollow cuts off is no liver
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


def stomach(body: Body) -> None:
    """From the fundus under the left dome to the pylorus, filled with fluid, food and gas."""
    rng, filling = body.rng, body.patient.stomach
    course = [(-58, -14, 78), (-64, 10, 62), (-52, 38, 34), (-22, 50, 8), (10, 42, 4), (27, 30, 6)]
    points = [body.jitter(point, 5) for point in course]
    radii = filling * np.array([24, 28, 24, 17, 12, 9])
    _hollow(body, points, radii, rng.uniform(0, 70), body.patient.gas, 2.5, STOMACH)


def pancreas_and_duodenum(body: Body) -> None:
    """The duodenum's C around the pancreatic head; neck, body and tail towards the spleen, lobulated."""
    rng = body.rng
    loop = [body.jitter(p, 3) for p in ((30, 32, 8), (50, 22, 0), (52, 10, -30), (34, 4, -50), (0, 6, -48))]
    _hollow(body, loop, 10.5, 25, 0.15, 1.5, DUODENUM)
    course = [(30, 17, -20), (24, 20, -2), (6, 23, 9), (-24, 21, 15), (-58, -4, 25), (-80, -20, 33)]
    shift, size = rng.normal(0, 4, 3), rng.uniform(0.85, 1.1)
    box, depth = body.tube(
        [body.jitter(point, 3) + shift for point in course], size * np.array([10, 9.5, 6, 7.5, 7.5, 6]), 1.8
    )
    mask = (depth > 0) & body.inside[box] & (body.labels[box] != LIVER) & (body.labels[box] != SPLEEN)
    body.paint(box, mask, body.enhanced("pancreas") + 8 * body.fine[box], PANCREAS)


def vessels(body: Body) -> None:
    """Aorta, celiac and superior mesenteric artery; portal, splenic and superior mesenteric vein; iliac arteries."""
    rng = body.rng
    artery, vein, wide = body.enhanced("artery"), body.enhanced("vein"), rng.uniform(0.85, 1.2)
    shift = rng.normal(0, 2.5, 3)

    def tube(points: Sequence[Numbers], radii: Numbers | float, hu: float, label: int) -> None:
        box, depth = body.tube([np.add(point, shift) + rng.normal(0, 1.2, 3) for point in points], radii)
        body.paint(box, depth > 0, hu, label)

    confluence = (9, 8, 2)
    tube([(12, 18, -85), (11, 13, -30), confluence], (5, 6, 7), vein, VEIN)
    tube([confluence, (25, 6, 22), (45, 5, 41)], (8, 8, 7), vein, VEIN)
    tube([confluence, (-22, 8, 12), (-56, -12, 23), (-86, -26, 34)], (6.2, 5.8, 5.4, 4.6), vein, VEIN)
    aorta = [(-15, -29, 230), (-14, -26, 110), (-12, -20, 20), (-4, -18, -95)]
    for side, label in ((-1, ILIAC_ARTERY_LEFT), (1, ILIAC_ARTERY_RIGHT)):
        tube([aorta[-1], (side * 18, -18, -120), (side * 42, -4, -190)], (6.5, 6, 5), artery, label)
    tube(aorta, wide * np.array([10, 9.5, 8.5, 7]), artery, ARTERY)
    tube([(-12, -14, 18), (-8, 3, 24)], 4.2, artery, ARTERY)
    tube([(-8, 3, 24), (18, 8, 25), (42, 10, 36)], (3.4, 3.0, 2.6), artery, ARTERY)
    tube([(-8, 3, 24), (-45, -8, 32), (-84, -28, 42)], (3.4, 3.0, 2.6), artery, ARTERY)
    tube([(-11, -14, 4), (-3, 2, -8), (1, 9, -40), (4, 14, -90)], (4.2, 3.8, 3.4, 2.6), artery, ARTERY)


def skeleton(body: Body) -> None:
    """Vertebrae with discs, canal and processes; ribs, sternum and iliac wings."""
    x, y, z, rng = body.x, body.y, body.z, body.rng
    spongy, cortex = BONE + rng.normal(0, 25), CORTEX + rng.normal(0, 40)
    front = -52 + 6 * np.cos((z + 40) / 70) - 12 * np.clip((-z - 100) / 60, 0, 1)  # the lordosis
    level = (z / 34 + 0.1) % 1
    waist = 1 + 0.10 * np.cos(2 * np.pi * level)
    radius = np.sqrt((x / (22 * waist)) ** 2 + ((y - front) / (16 * waist)) ** 2)
    vertebra, disc = radius < 1, (np.abs(level - 0.0) < 0.1) | (level > 0.9)
    free = (body.labels == BACKGROUND) | (body.labels > PANCREAS)
    vertebra &= free  # the aorta lies on it
    shell = (radius > 0.86) | (np.abs(level - 0.5) > 0.36)
    body.hu[vertebra] = np.where(disc, 75, np.where(shell, cortex * 0.75, spongy))[vertebra]
    body.labels[vertebra] = np.where(disc[vertebra], DISCS, VERTEBRAE)

    def put(where: np.ndarray, hu: float, label: int) -> None:
        """Organs of the paper that it covers keep their class."""
        body.hu[where] = hu
        body.labels[where & free] = label

    canal = np.hypot(x, y - front + 26)
    put((canal < 16) & ~vertebra & (level > 0.15), cortex * 0.7, VERTEBRAE)
    spinous = (np.abs(x) < 3.5) & (y < front - 32) & (y > front - 52) & (level > 0.2) & (level < 0.75)
    put(spinous, cortex * 0.7, VERTEBRAE)
    transverse = (np.abs(y - front + 22) < 5) & (np.abs(x) > 12) & (np.abs(x) < 40) & (np.abs(level - 0.5) < 0.14)
    put(transverse, cortex * 0.6, VERTEBRAE)
    put(canal < 9, 25, SPINAL_CORD)

    margin = -28 + 0.62 * (y + 90)  # the costal arch rises to the front
    slats = np.sin(2 * np.pi * (z + 0.5 * y) / 27) > 0.25
    ribs = (np.abs(body.under_wall - 5) < 3.5) & (z > margin) & slats & (np.abs(x) > 20)
    put(ribs, cortex * 0.85, RIBS)
    put((np.abs(body.under_wall - 4) < 5) & (np.abs(x) < 17) & (y > 40) & (z > 105), spongy, STERNUM)
    for side, label in ((-1, HIP_LEFT), (1, HIP_RIGHT)):
        box = body.near((side * 90, -35, -150), 60)
        # A blade that opens upwards.
        across = side * body.x[box] - 62 - 0.42 * (body.z[box] + 170) - 0.25 * (body.y[box] + 40)
        rim = ((body.y[box] + 35) / 62) ** 2 + ((body.z[box] + 190) / 84) ** 2 < 1
        body.paint(box, (np.abs(across) < 5) & rim & (body.under_wall[box] > 0), cortex, label)
