"""Correlations and their intervals, against scipy and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from wsl_sweep.analysis.diagnostics.correlation import pearson, spearman


def test_pearsons_value_and_interval_are_scipys() -> None:
    generator = np.random.default_rng(0)
    xs = generator.normal(size=12)
    ys = xs + generator.normal(size=12)
    found, expected = pearson(xs.tolist(), ys.tolist()), stats.pearsonr(xs, ys)
    assert found.value == pytest.approx(expected.statistic)
    assert found.interval == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert (found.n, found.note) == (12, "")


def test_spearmans_value_is_scipys_with_ties() -> None:
    xs, ys = [1.0, 2.0, 2.0, 4.0, 5.0, 0.0], [2.0, 1.0, 3.0, 3.0, 9.0, 0.5]
    found = spearman(xs, ys)
    assert found.value == pytest.approx(stats.spearmanr(xs, ys).statistic)
    assert found.interval is not None
    rho = found.value or 0.0
    half = 1.959964 * math.sqrt((1 + rho**2 / 2) / 3)
    assert found.interval == pytest.approx((math.tanh(math.atanh(rho) - half), math.tanh(math.atanh(rho) + half)), 1e-5)


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_spearmans_interval_covers_as_often_as_it_says(rho: float) -> None:
    generator = np.random.default_rng(3)
    truth = 6 / math.pi * math.asin(rho / 2)  # of a bivariate normal
    covered, runs = 0, 600
    for _ in range(runs):
        xs = generator.normal(size=20)
        ys = rho * xs + math.sqrt(1 - rho**2) * generator.normal(size=20)
        interval = spearman(xs.tolist(), ys.tolist()).interval
        assert interval is not None
        covered += interval[0] <= truth <= interval[1]
    assert covered / runs > 0.91  # 0.95 less four standard errors of the simulation, 0.036


def test_ranks_that_agree_wholly_still_have_an_interval() -> None:
    found = spearman([1.0, 2.0, 3.0, 4.0], [1.0, 5.0, 6.0, 9.0])
    assert found.value == pytest.approx(1.0)
    assert found.interval is not None
    low, high = found.interval
    assert low < 0.5
    assert high == pytest.approx(1.0)
    down = spearman([1.0, 2.0, 3.0, 4.0], [9.0, 6.0, 5.0, 1.0])
    assert down.interval == pytest.approx((-high, -low))


def test_points_on_a_line_correlate_wholly() -> None:
    found = pearson([0.0, 1.0, 2.0, 4.0], [1.0, 3.0, 5.0, 9.0])
    assert found.value == pytest.approx(1.0)


def test_few_trials_and_what_does_not_vary_are_said() -> None:
    three = pearson([1.0, 2.0, 3.0], [1.0, 2.0, 2.5])
    assert three.value is not None
    assert three.interval is None
    assert "fewer than 4" in three.note
    assert pearson([1.0], [1.0]).note == "Fewer than two trials."
    assert spearman([], []).value is None
    still = spearman([1.0, 1.0, 1.0, 1.0], [1.0, 2.0, 3.0, 4.0])
    assert (still.value, still.interval, still.note) == (None, None, "One of the two does not vary.")
    with pytest.raises(ValueError, match="one length"):
        pearson([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="finite"):
        pearson([1.0, math.nan], [1.0, 2.0])
