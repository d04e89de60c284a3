"""Class weighting of the Dice loss in multi-organ CT segmentation, after Shen et al. 2018."""

__version__ = "0.2.0"
