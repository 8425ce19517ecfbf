"""How far a parameter may be from its best: of known curves, and how often it says too much."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from wsl_sweep.analysis.diagnostics.sensitivity import _fit, sensitivity
from wsl_sweep.analysis.responses import CURVE_POINTS, gaussian_process

ALPHA, TAU, LR = "distillation.alpha", "distillation.temperature", "optimizer.lr"


def parabola(trials: int, noise: float, seed: int) -> tuple[list[float], list[float]]:
    """Best at 2; 0.01 is lost at 1 and 3."""
    generator = np.random.default_rng(seed)
    xs = generator.uniform(0, 4, trials)
    return xs.tolist(), (0.9 - 0.01 * (xs - 2) ** 2 + generator.normal(0, noise, trials)).tolist()


def test_the_interval_of_a_known_curve() -> None:
    xs, ys = parabola(60, 0.001, 0)
    (found,) = sensitivity({ALPHA: xs}, ys, 0.01)
    assert found.parameter == ALPHA
    assert found.trials == 60
    assert found.best == pytest.approx(2.0, abs=0.2)
    assert found.predicted == pytest.approx((1.0, 3.0), abs=0.15)
    assert found.confirmed == pytest.approx((1.0, 3.0), abs=0.25)
    assert found.confirmed is not None
    assert found.predicted[0] <= found.confirmed[0]
    assert found.confirmed[1] <= found.predicted[1]
    assert not found.open_low
    assert not found.open_high
    assert "at a loss of no more than 0.01 (95% for each value)." in found.sentence
    assert len(found.values) == len(found.mean) == len(found.difference) == len(found.probability) == CURVE_POINTS
    at = int(np.argmin(np.abs(np.array(found.values) - 4.0)))
    assert found.difference[at] == pytest.approx(0.04, abs=0.004)
    assert found.probability[at] == 0.0
    assert dict(found.others) == {}


def test_one_parameter_has_the_curve_of_the_report() -> None:
    xs, ys = parabola(30, 0.005, 1)
    (found,) = sensitivity({ALPHA: xs}, ys, 0.01)
    band = gaussian_process(list(zip(xs, ys, strict=True)))
    assert band is not None
    np.testing.assert_allclose(found.values, band.xs)
    np.testing.assert_allclose(found.mean, band.mean, atol=1e-6)


def test_the_probabilities_are_those_of_curves_drawn_by_the_books_formulas() -> None:
    xs, ys = parabola(12, 0.006, 10)
    (found,) = sensitivity({ALPHA: xs}, ys, 0.01, draws=20_000)
    fitted = _fit({ALPHA: np.array(xs)}, np.array(ys)).process.kernel_
    amplitude, length = fitted.k1.k2.k1.constant_value, float(np.ravel(fitted.k1.k2.k2.length_scale)[0])

    def covariance(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        far = math.sqrt(5) * np.abs(one[:, None] - other[None, :]) / length
        return np.asarray(1.0 + amplitude * (1 + far + far**2 / 3) * np.exp(-far))

    places = (np.array(xs) - min(xs)) / (max(xs) - min(xs))
    values = (np.array(ys) - np.mean(ys)) / np.std(ys)
    grid = np.linspace(0, 1, CURVE_POINTS)
    weights = np.linalg.solve(covariance(places, places) + fitted.k2.noise_level * np.eye(12), covariance(places, grid))
    spread = covariance(grid, grid) - covariance(grid, places) @ weights
    curves = stats.multivariate_t(
        weights.T @ values, spread, df=12 - 3, allow_singular=True, seed=np.random.default_rng(0)
    ).rvs(20_000) * np.std(ys)
    lost = curves.max(axis=1, keepdims=True) - curves
    np.testing.assert_allclose(found.probability, (lost <= 0.01).mean(axis=0), atol=0.015)  # 4 √(2 / 4 / 20,000)
    np.testing.assert_allclose(found.difference, lost.mean(axis=0), rtol=0.04)


def test_what_is_confirmed_is_wrong_no_more_often_than_it_says() -> None:
    wrong = confirmed = 0
    for seed in range(12):
        xs, ys = parabola(20, 0.004, seed)
        (found,) = sensitivity({ALPHA: xs}, ys, 0.01, seed=seed, draws=500)
        sure = np.array(found.probability) >= 0.95
        lost = 0.01 * (np.array(found.values) - 2) ** 2
        wrong += int((sure & (lost > 0.01)).sum())
        confirmed += int(sure.sum())
    assert confirmed > 0
    assert wrong / confirmed < 0.05


def test_a_lower_level_and_a_larger_margin_confirm_more() -> None:
    xs, ys = parabola(25, 0.004, 2)

    def width(margin: float, level: float) -> float:
        (found,) = sensitivity({ALPHA: xs}, ys, margin, level=level)
        return 0.0 if found.confirmed is None else found.confirmed[1] - found.confirmed[0]

    assert width(0.01, 0.95) < width(0.01, 0.5)
    assert width(0.01, 0.95) < width(0.02, 0.95)


def test_a_loss_is_better_where_there_is_less_of_it() -> None:
    xs, ys = parabola(30, 0.002, 3)
    (one,) = sensitivity({ALPHA: xs}, ys, 0.01)
    (other,) = sensitivity({ALPHA: xs}, [1 - y for y in ys], 0.01, more_is_better=False)
    assert other.best == pytest.approx(one.best)
    assert other.confirmed == pytest.approx(one.confirmed, abs=0.15)
    np.testing.assert_allclose(np.array(one.mean) + np.array(other.mean), 1.0, atol=1e-4)


def test_the_others_are_at_their_best() -> None:
    generator = np.random.default_rng(4)
    alpha, tau = generator.uniform(0, 4, 80), generator.uniform(1, 9, 80)
    ys = 0.9 - 0.01 * (alpha - 2) ** 2 * (1 + (tau > 5)) - 0.004 * (tau - 3) ** 2 + generator.normal(0, 0.001, 80)
    one, other = sensitivity({ALPHA: alpha.tolist(), TAU: tau.tolist()}, ys.tolist(), 0.01)
    assert [one.parameter, other.parameter] == [ALPHA, TAU]
    assert one.predicted == pytest.approx((1.0, 3.0), abs=0.35)
    assert other.predicted == pytest.approx((3 - math.sqrt(2.5), 3 + math.sqrt(2.5)), abs=0.4)
    assert one.others[TAU] == pytest.approx(3.0, abs=0.8)
    assert other.others[ALPHA] == pytest.approx(2.0, abs=0.6)


def test_a_range_in_the_logarithm() -> None:
    generator = np.random.default_rng(5)
    xs = 10 ** generator.uniform(-4, 0, 50)
    ys = 0.9 - 0.01 * (np.log10(xs) + 2) ** 2 + generator.normal(0, 0.0005, 50)
    (found,) = sensitivity({LR: xs.tolist()}, ys.tolist(), 0.01, log=[LR])
    assert found.log
    assert found.confirmed is not None
    np.testing.assert_allclose(np.log10(found.confirmed), (-3, -1), atol=0.3)
    assert np.allclose(np.diff(np.log(found.values)), np.diff(np.log(found.values))[0])


def test_a_parameter_that_does_not_matter_may_lie_anywhere() -> None:
    generator = np.random.default_rng(6)
    xs = generator.uniform(0, 4, 40)
    (found,) = sensitivity({ALPHA: xs.tolist()}, generator.normal(0.9, 0.001, 40).tolist(), 0.01)
    assert (found.open_low, found.open_high) == (True, True)
    assert "anywhere in what was tried" in found.sentence


def test_an_edge_of_what_was_tried_is_said() -> None:
    xs = np.linspace(0, 4, 30)
    noise = np.random.default_rng(7).normal(0, 0.001, 30)
    (found,) = sensitivity({ALPHA: xs.tolist()}, (0.8 + 0.02 * xs + noise).tolist(), 0.01)
    assert (found.open_low, found.open_high) == (False, True)
    assert found.confirmed is not None
    assert found.confirmed[0] == pytest.approx(3.6, abs=0.2)
    assert "perhaps above, where nothing was tried" in found.sentence


def test_trials_that_are_too_noisy_confirm_nothing() -> None:
    xs, ys = parabola(8, 0.1, 8)
    (found,) = sensitivity({ALPHA: xs}, ys, 0.001)
    assert found.confirmed is None
    assert "too few trials, or they are too noisy" in found.sentence


def test_too_few_trials_or_values_have_no_answer() -> None:
    assert sensitivity({ALPHA: [1.0, 2.0, 3.0, 4.0]}, [0.1, 0.2, 0.3, 0.4], 0.01) == ()
    assert sensitivity({ALPHA: [1.0, 2.0] * 10}, np.linspace(0, 1, 20).tolist(), 0.01) == ()
    assert sensitivity({ALPHA: np.arange(9.0).tolist()}, [0.5] * 9, 0.01) == ()
    assert sensitivity({}, [0.5, 0.6], 0.01) == ()
    xs, ys = parabola(20, 0.002, 9)
    found = sensitivity({ALPHA: xs, TAU: [1.0, 4.0] * 10}, ys, 0.01)
    assert [one.parameter for one in found] == [ALPHA]


def test_what_cannot_be_fitted_is_said() -> None:
    with pytest.raises(ValueError, match="one finite number for each of 2 trials"):
        sensitivity({ALPHA: [1.0]}, [0.1, 0.2], 0.01)
    with pytest.raises(ValueError, match="the metric"):
        sensitivity({ALPHA: [1.0]}, [math.nan], 0.01)
    with pytest.raises(ValueError, match="not above 0 everywhere"):
        sensitivity({LR: [0.0, 1.0]}, [0.1, 0.2], 0.01, log=[LR])
    with pytest.raises(ValueError, match="is no parameter"):
        sensitivity({ALPHA: [1.0]}, [0.1], 0.01, log=[LR])
    with pytest.raises(ValueError, match="margin must be above 0"):
        sensitivity({ALPHA: [1.0]}, [0.1], 0.0)
