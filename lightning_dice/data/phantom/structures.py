"""What phantoms are made of: the structures with their label values, and the HU of what takes up no contrast.

HU are textbook values, as those of the portal venous phase are in `body.ENHANCED`.
"""

from lightning_dice.data.labels import BACKGROUND_NAME

# What is drawn and labelled, in the order of the values: the paper's classes, then others by TotalSegmentator's names,
# also those of its MR and tissue tasks. Fat, oesophagus, cartilage and table are background.
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
LUNG, FAT, GAS, SPONGY, CORTEX, DISC, CARTILAGE = -850, -105, -880, 150, 560, 78, 105
