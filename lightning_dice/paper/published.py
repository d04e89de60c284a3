"""Table 1 as printed by Shen et al. 2018 (arXiv 1801.05912), and its slips: facts to compare with, never corrected."""

WEIGHTINGS = {"uniform": "W_u", "simple": "W_s", "square": "W_q"}
RATES = {0.001: "μ_1", 0.01: "μ_2"}
# Of the loss beside the weighting; the paper has ε in the weights and no smoothing, the other two it leaves open.
LOSS_SETTINGS = {"epsilon": 1.0, "pool": "batch", "smooth": 0.0, "normalize": None}
ROWS = (
    "background", "artery", "vein", "liver", "spleen", "stomach", "gallbladder", "pancreas", "AVG", "MAX", "MIN",
)  # fmt: skip
CLASSES = ROWS[:-3]
# Dice in percent, in the order of ROWS.
TABLE1 = {
    ("uniform", 0.001): (99.9, 80.4, 78.6, 96.5, 94.7, 96.3, 77.3, 82.7, 88.3, 99.9, 77.3),
    ("simple", 0.001): (99.1, 63.6, 68.8, 73.4, 71.6, 64.1, 74.7, 78.0, 74.2, 99.1, 63.6),
    ("square", 0.001): (79.2, 63.4, 69.1, 10.1, 0.0, 6.9, 54.3, 69.1, 44.0, 79.2, 0.0),
    ("uniform", 0.01): (99.8, 79.5, 75.1, 95.6, 92.0, 93.9, 73.2, 82.4, 86.4, 99.8, 73.2),
    ("simple", 0.01): (99.8, 89.2, 79.3, 96.3, 93.9, 96.1, 80.8, 84.7, 88.9, 99.8, 79.3),
    ("square", 0.01): (99.6, 72.4, 73.0, 87.7, 91.6, 82.4, 54.2, 70.3, 78.9, 99.6, 54.2),
}
NOTES = (
    "The printed column W_s, 0.01 has AVG 88.9, but its rows average 90.0; with artery 80.2 in place of 89.2 they "
    "would give 88.9.",
    "The abstract's averages (81.3, 59.5, 31.7 at 0.001; 78.2, 81.0, 58.5 at 0.01) are not those of Table 1. They are "
    "near the mean Jaccard of its rows (80.2, 60.2, 33.0; 77.3, 80.9, 67.2), but for the last.",
    "The paper's artery is an undefined vessel tree; what ours is depends on the data set. The paper's test cases, 37 "
    "clinical CTs, are not public, so printed and measured values are of different data.",
)
