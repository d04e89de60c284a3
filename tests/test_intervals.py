"""Means over seeds and patients against SciPy's t-tests where they reduce to these, and against a bootstrap by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from lightning_dice.paper.grid import read_grid
from lightning_dice.paper.intervals import by_seed, estimate
from lightning_dice.paper.statistics import compare_cells, ranking
from lightning_dice.paper.table1 import grid_table, latex_table, markdown_table
from lightning_dice.paper.variance import components, variance_lines, variance_table
from tests.grids import PAPER, write_run


def layout(rng, seeds: int, patients: int, *, of_seeds=1.5, of_patients=4.0, residual=0.0) -> np.ndarray:
    """(seeds, patients, 1)"""
    values = rng.normal(0, of_seeds, (seeds, 1)) + rng.normal(0, of_patients, patients)
    return (values + rng.normal(0, residual, (seeds, patients)))[..., None]


@pytest.mark.parametrize(("first", "second"), [(3, 3), (2, 5), (8, 4)])
def test_where_patients_react_alike_it_is_welchs_test_of_the_seeds_means(first, second):
    rng = np.random.default_rng(first)
    a = layout(rng, first, 20)
    b = rng.normal(2, 3, (second, 1, 1)) + a.mean(axis=0)
    found = estimate([a, b], [1, -1])
    welch = stats.ttest_ind(a.mean(axis=(1, 2)), b.mean(axis=(1, 2)), equal_var=False)
    assert found.p == pytest.approx(welch.pvalue)
    assert found.freedom == pytest.approx(welch.df)
    interval = welch.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert (found.cases, found.seeds) == (20, min(first, second))


def test_where_seeds_agree_it_has_the_error_of_the_paired_test_over_patients_but_the_seeds_freedom():
    rng = np.random.default_rng(0)
    a, b = (np.repeat(layout(rng, 1, 20), 3, axis=0) for _ in range(2))
    found = estimate([a, b], [1, -1])
    paired = stats.ttest_rel(a[0, :, 0], b[0, :, 0])
    assert found.value / found.error == pytest.approx(paired.statistic)
    assert found.p == pytest.approx(2 * stats.t.sf(abs(paired.statistic), 4))


@pytest.mark.filterwarnings("ignore:Mean of empty slice")  # of the hand's own means
def test_the_error_is_that_of_drawing_seeds_and_patients():
    """Of many of both, with undefined scores; of a class that one lacks nothing counts."""
    rng = np.random.default_rng(1)
    both = [layout(rng, seeds, 60) + rng.normal(0, 2, 5) + rng.normal(0, 3, (60, 5)) for seeds in (25, 30)]
    for values in both:
        values[:, rng.random((60, 5)) < 0.3] = np.nan
        values[rng.random(values.shape) < 0.1] = np.nan
    both[1][..., 4] = np.nan
    found = estimate(both, [1, -1])

    def mean(values, seeds, patients) -> float:
        return np.nanmean(np.nanmean(values[seeds][:, patients][..., :4], axis=0), axis=0).mean()

    whole = [mean(values, slice(None), slice(None)) for values in both]
    assert found.value == pytest.approx(whole[0] - whole[1])
    draws = []
    for _ in range(1500):
        patients = rng.integers(0, 60, 60)
        means = [mean(values, rng.integers(0, len(values), len(values)), patients) for values in both]
        draws.append(means[0] - means[1])
    assert found.error == pytest.approx(np.std(draws), rel=0.1)


def test_what_does_not_vary_has_an_interval_of_no_width():
    same = np.full((2, 5, 3), 0.1)
    found = estimate([same, same], [1, -1])
    assert (found.value, found.low, found.high, found.p) == (0, 0, 0, 1)
    more = estimate([same + 0.2, same], [1, -1])
    assert (more.low, more.high) == pytest.approx((0.2, 0.2))
    assert more.p < 1e-9


def test_one_seed_has_the_patients_interval_and_no_p():
    one = layout(np.random.default_rng(2), 1, 20)
    found = estimate([one], [1])
    assert found.low < found.value < found.high
    assert math.isnan(found.p)
    assert math.isnan(estimate([one[:, :1]], [1]).low)


def test_a_class_of_few_patients_has_the_error_of_these():
    same = np.full((2, 9, 2), 0.5)
    same[:, :, 1] = np.nan
    same[:, 3:5, 1] = 0.2, 0.8
    own = stats.sem(same[0, 3:5, 1])  # of two patients, n − 1 = 1, and the other class adds nothing
    assert estimate([same], [1]).error == pytest.approx(own / 2)


def test_one_seeds_interval_is_of_all_classes_whoever_is_drawn():
    one = np.full((1, 9, 2), 0.9)
    one[..., 1] = [*[np.nan] * 8, 0.1]  # which every third resample lacks
    found = estimate([one], [1])
    assert (found.low, found.value, found.high) == pytest.approx((0.5, 0.5, 0.5))


@pytest.mark.parametrize("seeds", [1, 2])
def test_cells_are_tested_by_the_mean_that_orders_them(seeds, tmp_path):
    """Where an organ is in few cases, the mean of the cases' means may favour the other cell."""
    for loss, common, rare in (("uniform", 0.7, 0.8), ("simple", 0.72, 0.2)):
        for seed in range(seeds):
            dice = {
                f"c{case}": [0.9, *[common + case / 1000 + seed / 1000] * 6, rare if case < 1 else np.nan]
                for case in range(12)
            }
            write_run(tmp_path, loss, 0.001, dice, seed)
    cells = read_grid(tmp_path).cells
    pairs, table = compare_cells(cells), grid_table(cells).set_index(["cell", "row"])["dice"]
    mean = pairs[pairs["row"] == "AVG organs"].iloc[0]
    assert 100 * mean["mean_a"] == pytest.approx(table["uniform, 0.001", "AVG organs"])
    assert mean["difference"] == pytest.approx((0.6 - 6 * 0.02) / 7)
    assert mean["p_networks"] < 0.05  # of eleven cases in twelve simple is the better network
    first, second = ranking(cells, pairs)
    assert first.startswith("uniform, 0.001: ")
    assert ("not dis" in first, "not dis" in second) == ((True, True) if seeds == 1 else (False, False))


def test_variance_components_by_hand():
    # Means of seeds 2 and 6, of patients 3 and 5; what is left is ±1, of one degree of freedom: 4 · 1 = 4.
    # Between seeds 8 − 4 / 2 = 6, between patients 2 − 4 / 2 = 0.
    found = components(np.array([[2.0, 2.0], [4.0, 8.0]]))
    assert (found.seeds, found.patients, found.residual) == pytest.approx((6**0.5, 0, 2))
    # The same with the patients' means 4 ± 0: 0 − 2 is negative and counts as none.
    assert components(np.array([[3.0, 1.0], [5.0, 7.0]])).patients == 0
    assert math.isnan(components(np.ones((1, 9))).seeds)


def test_variance_components_find_what_was_put_in():
    values = layout(np.random.default_rng(3), 400, 300, residual=3.0)[..., 0]
    found = components(values)
    assert (found.seeds, found.patients, found.residual) == pytest.approx((1.5, 4, 3), rel=0.12)


@pytest.fixture
def seeded(tmp_path):
    """Two weightings of three seeds that differ by ten points, and a third of one seed."""
    rng = np.random.default_rng(4)
    for loss, mean, seeds in (("uniform", 0.8, 3), ("simple", 0.7, 3), ("square", 0.5, 1)):
        hard = np.random.default_rng(5).normal(0, 0.04, 12)
        for seed in range(seeds):
            dice = mean + hard + (seed - 1) / 100 + rng.normal(0, 0.01, 12)
            write_run(tmp_path, loss, 0.001, {f"c{i:02d}": [value] * 8 for i, value in enumerate(dice)}, seed)
    return read_grid(tmp_path).cells


def test_scores_by_seed_are_those_of_the_files(seeded):
    cases, dice = by_seed(seeded[0])
    assert dice.shape == (3, 12, 8)
    for run, own in zip(seeded[0].finished, dice, strict=True):
        table = run.scores.pivot(index="case", columns="name", values="dice")[list(PAPER.names)]
        assert (own == table.loc[cases].to_numpy()).all()


def test_weightings_are_compared_over_seeds_and_networks_over_patients(seeded):
    pairs = compare_cells(seeded)
    mean = pairs[pairs["row"] == "AVG organs"].set_index(["cell_a", "cell_b"])
    pair = mean.loc["uniform, 0.001", "simple, 0.001"]
    values = [100 * by_seed(cell)[1][..., 1:2] for cell in seeded[:2]]
    assert pair["p_weightings"] == pair["p_weightings_holm"] == pytest.approx(estimate(values, [1, -1]).p)
    assert pair["low"] < pair["difference"] < pair["high"]
    assert (pair["seeds_a"], pair["seeds_b"]) == (3, 3)
    one = mean.loc["uniform, 0.001", "square, 0.001"]
    assert np.isnan(one[["p_weightings", "p_weightings_holm", "low", "high"]].astype(float)).all()
    assert one["p_networks"] == pytest.approx(2 / 2**12)
    assert ranking(seeded, pairs) == [
        f"uniform, 0.001: mean organ Dice {100 * pair['mean_a']:.1f} %, distinguishable from simple, 0.001, "
        "distinguishable from square, 0.001 (these networks, not the weightings)",
        f"simple, 0.001: mean organ Dice {100 * pair['mean_b']:.1f} %, distinguishable from uniform, 0.001, "
        "distinguishable from square, 0.001 (these networks, not the weightings)",
        f"square, 0.001: mean organ Dice {100 * one['mean_b']:.1f} %, distinguishable from all others "
        "(these networks, not the weightings)",
    ]


def test_tables_tell_the_spread_between_seeds(seeded):
    table = grid_table(seeded).set_index(["cell", "row"])
    means = 100 * by_seed(seeded[0])[1].mean(axis=(1, 2))
    liver = table.loc["uniform, 0.001", "liver"]
    assert (liver["sd_seeds"], liver["seeds"]) == (pytest.approx(means.std(ddof=1)), 3)
    assert liver["low"] < liver["dice"] < liver["high"]
    assert np.isnan(table.loc[("square, 0.001", "liver"), "sd_seeds"])
    variances = variance_table(seeded).set_index("cell")
    assert variances["seeds"].tolist() == [3, 3, 1]
    assert variances.loc["uniform, 0.001", "sd_patients"] == pytest.approx(4, rel=0.5)
    (first, second) = variance_lines(variances.reset_index())
    assert f"seed 0: {means[0]:.1f}; seed 1: {means[1]:.1f}; seed 2: {means[2]:.1f}" in first
    assert second.startswith("simple, 0.001: standard deviation of mean organ Dice ")
    text = markdown_table(table.reset_index(), [], [first])
    assert f"**{liver['dice']:.1f}** ± {liver['sd_seeds']:.1f} (96.5, " in text
    assert "## Between seeds and between patients" in text
    latex = latex_table(table.reset_index())
    assert rf"\textbf{{{liver['dice']:.1f}}} $\pm$ {liver['sd_seeds']:.1f}" in latex
