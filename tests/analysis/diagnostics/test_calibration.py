"""Calibration: against the training's own, by hand, and against a teacher with a known temperature."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import optimize, special

from wsl_sweep.analysis.diagnostics import arrays
from wsl_sweep.analysis.diagnostics.calibration import HIGHEST, LOWEST, best_temperature, calibration
from wsl_sweep.training.metrics import calibration_error, classification_metrics


def drawn(n: int, classes: int, seed: int, sharpness: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose softmax is the distribution of the labels, times a sharpness."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 2, (n, classes))
    chosen = (special.softmax(logits, axis=1).cumsum(axis=1) < generator.uniform(size=(n, 1))).sum(axis=1)
    return logits * sharpness, np.minimum(chosen, classes - 1)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("bins", [1, 7, 15])
def test_the_error_is_the_trainings(dtype: type, bins: int) -> None:
    logits, labels = drawn(700, 9, 0, 2.5)
    logits = logits.astype(dtype)
    expected = calibration_error(torch.tensor(logits), torch.tensor(labels), bins).item()
    assert calibration(logits, labels, bins=bins).error == pytest.approx(
        expected, rel=1e-5 if dtype == np.float32 else 1e-12
    )


def test_accuracy_and_loss_are_the_trainings() -> None:
    logits, labels = drawn(300, 5, 1)
    found = calibration(logits, labels)
    expected = classification_metrics(torch.tensor(logits), torch.tensor(labels), "x")
    assert found.accuracy == expected["x/accuracy"]
    assert found.loss == pytest.approx(expected["x/loss"])
    assert found.error == pytest.approx(expected["x/ece"])


def test_bins_by_hand() -> None:
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.7, 0.3], [0.25, 0.75]])
    found = calibration(np.log(probabilities), [0, 1, 0, 1], bins=4)
    assert [one.count for one in found.bins] == [0, 0, 2, 2]  # 0.75 belongs to (0.5, 0.75]
    assert found.bins[0].confidence is None
    assert found.bins[0].accuracy is None
    assert (found.bins[2].low, found.bins[2].high) == (0.5, 0.75)
    assert found.bins[2].confidence == pytest.approx(0.725)
    assert found.bins[2].accuracy == pytest.approx(1.0)
    assert found.bins[3].confidence == pytest.approx(0.9)
    assert found.bins[3].accuracy == pytest.approx(0.5)
    assert found.error == pytest.approx(0.5 * 0.275 + 0.5 * 0.4)
    assert found.gap == pytest.approx((0.9 + 0.9 + 0.7 + 0.75) / 4 - 0.75)
    gaps = np.array([-0.1, 0.9, -0.3, -0.25])
    assert found.gap_error == pytest.approx(gaps.std(ddof=1) / 2)


def test_a_temperature_divides_the_logits() -> None:
    logits, labels = drawn(200, 4, 2)
    soft, plain = calibration(logits, labels, 3.0), calibration(logits / 3.0, labels)
    assert soft.error == pytest.approx(plain.error)
    assert soft.accuracy == plain.accuracy
    assert soft.temperature == 3.0


def test_the_best_temperature_finds_the_one_that_was_put_in() -> None:
    logits, labels = drawn(20_000, 6, 3, sharpness=3.0)
    found = best_temperature(logits, labels)
    assert found.temperature == pytest.approx(3.0, rel=0.05)
    assert not found.at_bound
    assert found.loss < found.loss_before
    assert calibration(logits, labels, found.temperature).error < 0.015 < calibration(logits, labels).error


def test_the_best_temperature_is_scipys_own_minimum() -> None:
    logits, labels = drawn(150, 4, 4, sharpness=0.4)

    def loss(temperature: float) -> float:
        return float(-special.log_softmax(logits / temperature, axis=1)[np.arange(150), labels].mean())

    expected = optimize.minimize_scalar(loss, bounds=(0.05, 20.0), method="bounded", options={"xatol": 1e-9})
    found = best_temperature(logits, labels)
    assert found.temperature == pytest.approx(expected.x, rel=1e-5)
    assert found.loss == pytest.approx(loss(found.temperature))


def test_where_there_is_no_best_temperature_it_is_said() -> None:
    right = np.array([[2.0, 0.0], [0.0, 1.0]])
    assert best_temperature(right, [0, 1]).temperature == LOWEST
    wrong = best_temperature(right, [1, 0])
    assert (wrong.temperature, wrong.at_bound) == (HIGHEST, True)
    nothing = best_temperature(np.ones((3, 4)), [0, 1, 2])
    assert (nothing.temperature, nothing.at_bound) == (1.0, True)
    assert nothing.loss == pytest.approx(math.log(4))


def test_pieces_give_what_the_whole_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, labels = drawn(101, 5, 5)
    whole = calibration(logits, labels), best_temperature(logits, labels)
    monkeypatch.setattr(arrays, "CELLS", 35)
    again = calibration(logits, labels), best_temperature(logits, labels)
    assert again[0].error == pytest.approx(whole[0].error, rel=1e-12)
    assert again[1].temperature == pytest.approx(whole[1].temperature, rel=1e-9)


def test_what_cannot_be_calibrated_is_said() -> None:
    with pytest.raises(ValueError, match="temperature"):
        calibration(np.zeros((2, 2)), [0, 1], 0.0)
    with pytest.raises(ValueError, match="one bin"):
        calibration(np.zeros((2, 2)), [0, 1], bins=0)
    with pytest.raises(ValueError, match="finite"):
        best_temperature(np.array([[np.inf, 0.0]]), [0])
