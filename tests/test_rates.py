"""Dice by learning rate: what the figure shows, and when there is one."""

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from lightning_dice.paper.grid import read_grid
from lightning_dice.paper.interactive import interactive_figures
from lightning_dice.paper.rates import rate_lines, rates_figure
from lightning_dice.paper.statistics import compare_cells
from lightning_dice.paper.table1 import grid_table
from tests.grids import write_run
from tests.test_escaping import LOSS


def lines_of(sweep):
    cells = read_grid(sweep).cells
    return rate_lines(cells, grid_table(cells))


def scores(mean: float) -> dict[str, list[float]]:
    return {f"c{case}": [1.0] + [mean + case / 100] * 7 for case in (-1, 0, 1)}


def test_a_weighting_at_two_rates_has_a_line_with_its_seeds(tmp_path):
    for seed in range(3):
        write_run(tmp_path, "simple", 0.01, scores(0.6 + seed / 100), seed)
        write_run(tmp_path, "uniform", 0.01, scores(0.5), seed)
    assert lines_of(tmp_path) == {}
    write_run(tmp_path, "simple", 0.0003, scores(0.4))
    write_run(tmp_path, "simple", 0.1, None)
    lines = lines_of(tmp_path)
    assert list(lines) == ["uniform", "simple"]
    simple = lines["simple"]
    assert simple["lr"].tolist() == [0.0003, 0.01]
    assert simple["dice"].tolist() == pytest.approx([40, 61])
    assert simple["seeds"].tolist() == [pytest.approx([40]), pytest.approx([60, 61, 62])]
    assert (simple["low"] < simple["dice"]).all()
    assert (simple["dice"] < simple["high"]).all()


def test_beside_curves_of_three_rates_lines_of_fewer_are_not_drawn(tmp_path):
    for rate in (0.001, 0.01):
        for loss in ("uniform", "simple"):
            write_run(tmp_path, loss, rate, scores(0.5))
    assert list(lines_of(tmp_path)) == ["uniform", "simple"]
    write_run(tmp_path, "simple", 0.1, scores(0.5))
    assert list(lines_of(tmp_path)) == ["simple"]


def test_both_figures_are_drawn_whatever_a_loss_is_called(tmp_path):
    for number, rate in enumerate((0.001, 0.01)):
        write_run(tmp_path, LOSS, rate, scores(0.5), folder=f"loss=x,lr={rate},seed={number}")
    cells = read_grid(tmp_path).cells
    lines = lines_of(tmp_path)
    figure = rates_figure(lines)
    FigureCanvasAgg(figure).draw()
    axis = figure.axes[0]
    assert axis.get_xscale() == "log"
    assert [text.get_text() for text in axis.get_xticklabels()] == ["0.001", "0.01"]
    assert len(axis.collections) == len(lines) == 1
    figures = interactive_figures(cells, compare_cells(cells), lines)
    assert list(figures["rates"].data[2].y) == pytest.approx([50, 50])
    assert "rates" not in interactive_figures(cells, compare_cells(cells), {})
