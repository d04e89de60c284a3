"""Intervals and tests against SciPy called otherwise, hand-worked cases, and enumeration."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lightning_dice.paper.grid import read_grid
from lightning_dice.paper.intervals import bootstrap_interval
from lightning_dice.paper.statistics import (
    ORGANS_MEAN,
    compare_cells,
    holm,
    ranking,
    smallest_p,
    wilcoxon,
)
from tests.grids import PAPER, write_run


def enumerated_p(difference: np.ndarray) -> float:
    """The signed-rank test's two-sided p by trying all signs, for differences without ties and zeros."""
    ranks = stats.rankdata(abs(difference))
    observed = abs((ranks * np.sign(difference)).sum())
    signs = itertools.product((-1, 1), repeat=len(ranks))
    return np.mean([abs(np.dot(sign, ranks)) >= observed - 1e-9 for sign in signs])


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=9, unique=True), st.randoms())
def test_wilcoxons_p_is_that_of_trying_all_signs(sizes, random):
    a = np.array([random.choice((-1, 1)) * size for size in sizes], float)
    p, effect = wilcoxon(a, np.zeros(len(a)))
    assert p == pytest.approx(enumerated_p(a))
    assert wilcoxon(np.zeros(len(a)), a) == pytest.approx((p, -effect))


def test_the_effect_size_is_the_share_of_ranks_by_hand():
    # Differences 1, −2, 3, 4: ranks 1, 2, 3, 4; for a 1 + 3 + 4 = 8, against 2; (8 − 2) / 10.
    p, effect = wilcoxon(np.array([2.0, 1.0, 6.0, 9.0]), np.array([1.0, 3.0, 3.0, 5.0]))
    assert effect == pytest.approx(0.6)
    assert p == pytest.approx(6 / 16)  # W = 2: {}, {1}, {2} below or at it on each side
    assert wilcoxon(np.ones(3), np.ones(3)) == (1.0, 0.0)


def test_zero_differences_are_left_out():
    a, b = np.array([1.0, 2.0, 3.0, 5.0, 8.0]), np.array([1.0, 1.0, 1.0, 2.0, 2.0])
    assert wilcoxon(a, b) == wilcoxon(a[1:], b[1:])


def test_holm_by_hand():
    # Sorted 0.01, 0.02, 0.03, 0.4: times 4, 3, 2, 1: 0.04, 0.06, 0.06, 0.4; never falling, never above 1.
    assert holm([0.02, 0.4, 0.01, 0.03]).tolist() == pytest.approx([0.06, 0.4, 0.04, 0.06])
    assert holm([0.9, 0.8]).tolist() == [1.0, 1.0]
    assert holm([]).tolist() == []
    assert holm([0.02, math.nan, 0.01]).tolist() == pytest.approx([0.02, math.nan, 0.02], nan_ok=True)


def test_the_smallest_p_is_the_tests_own():
    for cases in range(1, 8):
        assert smallest_p(cases) == pytest.approx(wilcoxon(np.arange(1.0, cases + 1), np.zeros(cases))[0])


def test_the_interval_of_one_class_is_a_bootstrap_of_its_mean():
    values = np.random.default_rng(1).beta(5, 2, 37)
    low, high = bootstrap_interval([values[:, None]], [1])
    draws = np.random.default_rng(2).choice(values, (40_000, 37)).mean(axis=1)  # by hand, with another seed
    spread = np.diff(np.percentile(draws, [2.5, 97.5]))[0]
    assert (low, high) == pytest.approx(np.percentile(draws, [2.5, 97.5]), abs=0.05 * spread)
    assert bootstrap_interval([values[:, None]], [1]) == (low, high)  # seeded


def test_the_interval_of_an_average_resamples_patients_with_all_their_classes():
    rng = np.random.default_rng(3)
    matrix = rng.beta(5, 2, (20, 3))
    matrix[rng.random(20) < 0.3, 2] = np.nan
    low, high = bootstrap_interval([matrix], [1])
    draws = [np.nanmean(matrix[rng.integers(0, 20, 20)], axis=0).mean() for _ in range(20_000)]
    spread = np.diff(np.percentile(draws, [2.5, 97.5]))[0]
    assert (low, high) == pytest.approx(np.percentile(draws, [2.5, 97.5]), abs=0.05 * spread)


def test_too_few_cases_have_no_interval():
    assert all(map(math.isnan, bootstrap_interval([np.array([[0.5]])], [1])))
    assert bootstrap_interval([np.full((4, 2), 0.5)], [1]) == (0.5, 0.5)


def test_pairs_of_cells_are_compared_on_the_cases_that_both_have(tmp_path):
    good = {f"c{i}": [0.9 + i / 100] * 8 for i in range(6)}
    bad = {f"c{i}": [0.5 + i / 50] * 8 for i in range(6)}
    bad["c0"][PAPER.names.index("gallbladder")] = math.nan
    write_run(tmp_path, "uniform", 0.001, good)
    write_run(tmp_path, "simple", 0.001, bad)
    write_run(tmp_path, "square", 0.001, None)  # unfinished: takes no part
    cells = read_grid(tmp_path).cells
    pairs = compare_cells(cells)
    assert len(pairs) == len(PAPER.names) + 1
    liver, gallbladder, mean = (pairs[pairs["row"] == row].iloc[0] for row in ("liver", "gallbladder", ORGANS_MEAN))
    assert (liver["cell_a"], liver["cell_b"], liver["cases"]) == ("uniform, 0.001", "simple, 0.001", 6)
    assert (liver["mean_a"], liver["mean_b"]) == pytest.approx((0.925, 0.55))
    assert liver["difference"] == pytest.approx(0.375)
    assert liver["p_networks"] == liver["p_networks_holm"] == pytest.approx(2 / 2**6)
    assert liver["rank_biserial"] == 1
    assert gallbladder["cases"] == 5
    assert gallbladder["p_networks"] == pytest.approx(2 / 2**5)
    assert mean["p_networks"] == pytest.approx(2 / 2**6)
    first, second = ranking(cells, pairs)
    assert first == (
        "uniform, 0.001: mean organ Dice 92.5 %, distinguishable from all others (these networks, not the weightings)"
    )
    assert second.startswith("simple, 0.001: mean organ Dice 55.1 %")


def test_cells_without_a_case_in_common_are_not_called_distinguishable(tmp_path):
    write_run(tmp_path, "uniform", 0.001, {f"a{i}": [0.9] * 8 for i in range(6)})
    (alone,) = ranking(cells := read_grid(tmp_path).cells, compare_cells(cells))
    assert alone == "uniform, 0.001: mean organ Dice 90.0 %, with no other to compare"
    write_run(tmp_path, "simple", 0.001, {f"b{i}": [0.5] * 8 for i in range(5)})
    first, second = ranking(cells := read_grid(tmp_path).cells, compare_cells(cells))
    assert first == (
        "uniform, 0.001: mean organ Dice 90.0 % (of 6 cases and 7 organs), "
        "not comparable with simple, 0.001 (no test case in common)"
    )
    assert second.startswith("simple, 0.001: mean organ Dice 50.0 % (of 5 cases and 7 organs), not comparable with")


def test_a_mean_over_organs_is_compared_on_the_organs_that_both_cells_have(tmp_path):
    """The pancreas, at which the first is bad, was never taught to the second."""
    write_run(tmp_path, "uniform", 0.001, {f"c{i}": [0.9 + i / 100] * 7 + [0.1] for i in range(6)})
    write_run(tmp_path, "simple", 0.001, {f"c{i}": [0.8 + i / 200] * 7 + [math.nan] for i in range(6)})
    cells = read_grid(tmp_path).cells
    pairs = compare_cells(cells).set_index("row")
    assert pairs.loc[ORGANS_MEAN, ["mean_a", "mean_b"]].tolist() == pytest.approx([0.925, 0.8125])
    assert "pancreas" not in pairs.index
    assert ranking(cells, pairs.reset_index())[0].startswith(
        "simple, 0.001: mean organ Dice 81.2 % (of 6 cases and 6 organs)"
    )


def test_a_cell_whose_cases_have_no_organ_is_not_ranked(tmp_path):
    for loss in ("uniform", "simple"):
        write_run(tmp_path, loss, 0.001, {f"c{i}": [0.9] + [math.nan] * 7 for i in range(6)})
    said = ranking(cells := read_grid(tmp_path).cells, compare_cells(cells))
    assert said == [f"{loss}, 0.001: no organ in its test cases" for loss in ("uniform", "simple")]
