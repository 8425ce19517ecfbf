"""Bootstrap and jackknife: against scipy and formulas, and how often they cover in simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from wsl_sweep.analysis.diagnostics import resampling
from wsl_sweep.analysis.diagnostics.resampling import bootstrap_interval, bootstrap_means, jackknife_interval


@pytest.mark.parametrize(("method", "name"), [("bca", "BCa"), ("percentile", "percentile")])
def test_the_interval_is_scipys(method: resampling.Method, name: str) -> None:
    values = np.random.default_rng(0).exponential(size=60)
    found = bootstrap_interval(values, method=method, resamples=20_000)
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method=name, rng=np.random.default_rng(1), vectorized=True
    ).confidence_interval
    width = expected.high - expected.low
    np.testing.assert_allclose(found, (expected.low, expected.high), atol=0.03 * width)


def test_the_means_have_the_spread_that_theory_says() -> None:
    values = np.random.default_rng(2).normal(3.0, 2.0, 400)
    means = bootstrap_means(values, 5000)
    assert means.mean() == pytest.approx(values.mean(), abs=4 * values.std() / 20 / math.sqrt(5000))
    assert means.std() == pytest.approx(values.std() / 20, rel=0.04)


def test_statistics_of_the_same_examples_are_drawn_together() -> None:
    values = np.random.default_rng(3).normal(size=50)
    both = bootstrap_means(np.stack([values, 2 * values + 1], axis=1), 300, seed=5)
    np.testing.assert_allclose(both[:, 1], 2 * both[:, 0] + 1)
    np.testing.assert_allclose(both[:, 0], bootstrap_means(values, 300, seed=5))
    assert not np.allclose(both[:, 0], bootstrap_means(values, 300, seed=6))


def test_many_examples_are_drawn_in_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(4).normal(size=30)
    monkeypatch.setattr(resampling, "DRAWS", 100)
    means = bootstrap_means(values, 1000)
    assert means.std() == pytest.approx(values.std() / math.sqrt(30), rel=0.1)


def test_bca_misses_skewed_values_on_both_sides_more_evenly_than_percentile() -> None:
    generator = np.random.default_rng(5)
    truth, runs = math.exp(0.5), 600
    below = {"bca": 0, "percentile": 0}
    above = dict(below)
    methods: tuple[resampling.Method, ...] = ("bca", "percentile")
    for seed in range(runs):
        values = generator.lognormal(0, 1, 40)
        means = bootstrap_means(values, 500, seed)
        for method in methods:
            low, high = resampling.interval_of_means(values, means, method=method)
            below[method] += truth < low
            above[method] += truth > high
    uneven = {method: (above[method] - below[method]) / runs for method in methods}
    assert abs(uneven["bca"]) < abs(uneven["percentile"])  # 0.05 and 0.09 in 3000 runs
    assert (above["bca"] + below["bca"]) / runs < 0.15  # 0.10 in 3000 runs, and four standard errors


def test_values_that_are_all_the_same_have_no_width() -> None:
    assert bootstrap_interval([2.0, 2.0, 2.0], resamples=50) == (2.0, 2.0)


def test_the_jackknife_of_a_mean_is_students_t() -> None:
    values = np.array([1.0, 4.0, 2.0, 7.0, 3.0])
    without = (values.sum() - values) / 4
    found = jackknife_interval(float(values.mean()), without)
    assert found == pytest.approx(stats.t.interval(0.95, 4, values.mean(), stats.sem(values)))


def test_the_jackknife_needs_two_models_of_which_each_can_be_left_out() -> None:
    assert jackknife_interval(1.0, [1.0]) is None
    assert jackknife_interval(1.0, [np.nan, np.nan]) is None


def test_what_cannot_be_resampled_is_said() -> None:
    with pytest.raises(ValueError, match="one example"):
        bootstrap_means([])
    with pytest.raises(ValueError, match="finite"):
        bootstrap_means([1.0, math.nan])
    with pytest.raises(ValueError, match="one line"):
        bootstrap_interval([[1.0], [2.0]])
