"""Eq. 1 to 6 of the paper in float64 numpy, voxel by voxel, sharing nothing with the package."""

import math

import numpy as np


def weights(counts, kind, epsilon=1.0):
    total, classes = sum(counts), len(counts)
    if kind == "uniform":
        return [1.0 for _ in counts]  # Eq. 3
    if kind == "simple":
        return [total / (classes * count + epsilon) for count in counts]  # Eq. 4
    return [total / (classes * count**2 + epsilon) for count in counts]  # Eq. 5


def softmax(logits):
    """Of one voxel's logits."""
    top = max(logits)
    powers = [math.exp(value - top) for value in logits]
    return [power / sum(powers) for power in powers]


def dice_loss(logits, target, w, smooth=0.0):
    """Eq. 6 with Eq. 2 inside; logits (B, L, D, H, W), target (B, D, H, W), sums over the batch and all voxels."""
    logits, target = np.asarray(logits, np.float64), np.asarray(target)
    classes = logits.shape[1]
    overlap, predicted, true = [0.0] * classes, [0.0] * classes, [0.0] * classes
    for place in np.ndindex(target.shape):
        b, *voxel = place
        s = softmax([logits[(b, k, *voxel)] for k in range(classes)])
        for k in range(classes):
            r = 1.0 if target[place] == k else 0.0
            overlap[k] += s[k] * r
            predicted[k] += s[k]
            true[k] += r
    total = 0.0
    for k in range(classes):
        total += w[k] * -(2 * overlap[k] + smooth) / (predicted[k] + true[k] + smooth)  # Eq. 2
    return total / classes


def dsc(segmentation, reference):
    """Eq. 1, of two sets of voxels."""
    return 2 * len(segmentation & reference) / (len(segmentation) + len(reference))
