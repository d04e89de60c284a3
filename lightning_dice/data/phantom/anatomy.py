"""Abdominal anatomy in coarse strokes: what stands where, in the order of painting.

Sizes aim at the organs' volumes in abdominal scans.
"""

from lightning_dice.data.phantom.body import Body
from lightning_dice.data.phantom.bowel import bowel, duodenum, stomach
from lightning_dice.data.phantom.chest import chest
from lightning_dice.data.phantom.organs import kidneys, liver, pancreas, spleen
from lightning_dice.data.phantom.skeleton import skeleton
from lightning_dice.data.phantom.trunk import trunk
from lightning_dice.data.phantom.vessels import cava, vessels

PARTS = (trunk, chest, bowel, kidneys, cava, stomach, spleen, liver, duodenum, pancreas, vessels, skeleton)


def paint_anatomy(body: Body) -> None:
    """Everything, from the skin inwards; what comes later covers what was there."""
    for part in PARTS:
        part(body)
