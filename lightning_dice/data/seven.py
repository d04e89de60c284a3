"""The paper's eight classes, in the order of its Table 1."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Label:
    """One class: its index in label maps and network outputs, its name, its colour (8-bit red, green, blue)."""

    index: int
    name: str
    colour: tuple[int, int, int]


# Okabe & Ito's palette, which readers with the common colour deficiencies can tell apart (Wong 2011, Nature Methods
# 8:441). Artery and vein take the customary red and blue of it.
LABELS = (
    Label(0, "background", (0, 0, 0)),
    Label(1, "artery", (213, 94, 0)),
    Label(2, "vein", (0, 114, 178)),
    Label(3, "liver", (204, 121, 167)),
    Label(4, "spleen", (86, 180, 233)),
    Label(5, "stomach", (240, 228, 66)),
    Label(6, "gallbladder", (0, 158, 115)),
    Label(7, "pancreas", (230, 159, 0)),
)
NAMES = tuple(label.name for label in LABELS)
NUM_CLASSES = len(LABELS)
BACKGROUND = 0
