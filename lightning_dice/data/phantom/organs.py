"""Solid organs of the abdomen and what lies in them."""

import numpy as np
from scipy import ndimage

from lightning_dice.data.phantom.body import Body
from lightning_dice.data.phantom.structures import (
    FAT,
    GALLBLADDER,
    KIDNEY_LEFT,
    KIDNEY_RIGHT,
    LIVER,
    PANCREAS,
    SPLEEN,
)

LIVER_VEINS = (  # three hepatic ones from the cava, three portal ones from the hilum
    ((22, -14, 88), (55, -5, 70), (95, 5, 55)),
    ((22, -10, 88), (45, 25, 65), (60, 45, 40)),
    ((18, -4, 88), (-5, 30, 66), (-30, 42, 60)),
    ((44, 6, 42), (70, 0, 40), (100, -10, 35)),
    ((44, 6, 42), (60, 30, 50), (72, 45, 50)),
    ((40, 8, 44), (15, 35, 58), (-15, 42, 62)),
)


def kidneys(body: Body) -> None:
    """With cortex, medulla and sinus fat."""
    rng = body.rng
    for side, height, label in ((1, -14, KIDNEY_RIGHT), (-1, -2, KIDNEY_LEFT)):
        centre = body.jitter((side * 62, -48, height), 5)
        box, depth = body.ellipsoid(
            centre, rng.uniform(0.9, 1.1) * np.array([27, 25, 54]), side * rng.normal(0.2, 0.08), 1.5
        )
        body.paint(box, (depth > 0) & body.inside[box], body.enhanced("kidney"), label)
        body.paint(box, (depth > 7) & (body.fine[box] > -0.3) & body.inside[box], body.enhanced("medulla"), label)
        box, sinus = body.ellipsoid(np.add(centre, (-side * 13, 6, 0)), (12, 10, 24), rough_mm=2)
        body.paint(box, sinus > 0, FAT + 20)


def spleen(body: Body) -> None:
    """A crescent against the left rib cage, hollowed out towards stomach and kidney."""
    rng = body.rng
    centre, scale = body.jitter((-104, -34, 42), 5), rng.uniform(0.82, 1.2)
    box, depth = body.ellipsoid(centre, scale * np.array([42, 60, 64]), rng.normal(-0.15, 0.15), 3)
    hilum = 1 - ((body.x[box] - centre[0] - 40) / 30) ** 2 - ((body.y[box] - centre[1] - 18) / 46) ** 2
    hilum -= ((body.z[box] - centre[2]) / 62) ** 2
    mask = (depth > 0) & (hilum < 0) & body.inside[box] & (body.z[box] < body.dome[box] - 2)
    body.paint(box, mask, body.enhanced("spleen"), SPLEEN)


def liver(body: Body) -> None:
    """Right and left lobe under the diaphragm, hollowed out below, with its veins; and the gallbladder in its fossa."""
    rng = body.rng
    scale = rng.uniform(0.88, 1.1)
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


def pancreas(body: Body) -> None:
    """Head in the duodenum's C, neck, body and tail towards the spleen, lobulated."""
    rng = body.rng
    course = [(30, 17, -20), (24, 20, -2), (6, 23, 9), (-24, 21, 15), (-58, -4, 25), (-80, -20, 33)]
    shift, size = rng.normal(0, 4, 3), rng.uniform(0.85, 1.1)
    box, depth = body.tube(
        [body.jitter(point, 3) + shift for point in course], size * np.array([10, 9.5, 6, 7.5, 7.5, 6]), 1.8
    )
    mask = (depth > 0) & body.inside[box] & (body.labels[box] != LIVER) & (body.labels[box] != SPLEEN)
    body.paint(box, mask, body.enhanced("pancreas") + 8 * body.fine[box], PANCREAS)
