"""Metrics against their definitions, written out in numpy and plain loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from wsl_sweep.training.metrics import (
    WEIGHT_QUANTILES,
    calibration_error,
    classification_metrics,
    quantiles,
    teacher_metrics,
    weight_metrics,
)

Array = npt.NDArray[np.float64]


def problem(count: int, classes: int, seed: int, scale: float = 2.0) -> tuple[Tensor, Tensor, Tensor]:
    """(student's logits, teacher's logits, labels that the student often gets right)."""
    generator = np.random.default_rng(seed)
    student, teacher = (generator.normal(0, scale, (count, classes)).astype(np.float32) for _ in range(2))
    labels = generator.integers(0, classes, count)
    right = generator.random(count) < 0.6
    labels[right] = student[right].argmax(axis=1)
    return torch.from_numpy(student), torch.from_numpy(teacher), torch.from_numpy(labels)


def softmax(logits: Tensor) -> Array:
    powers = np.exp(logits.double().numpy())
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def ece(probabilities: Array, labels: Any, bins: int) -> float:
    """Bins (k/bins, (k+1)/bins]; each bin's |accuracy - confidence| by its share of the examples."""
    confidence, predicted = probabilities.max(axis=1), probabilities.argmax(axis=1)
    total = 0.0
    for k in range(bins):
        inside = (confidence > k / bins) & (confidence <= (k + 1) / bins)
        if inside.any():
            accuracy = (predicted[inside] == labels[inside]).mean()
            total += inside.mean() * abs(accuracy - confidence[inside].mean())
    return total


@pytest.mark.parametrize("classes", [2, 10, 100])
@pytest.mark.parametrize("seed", [0, 1])
def test_classification_metrics_are_their_definitions(classes: int, seed: int) -> None:
    logits, _, labels = problem(700, classes, seed)
    p, y = softmax(logits), labels.numpy()
    found = classification_metrics(logits, labels, "validation")
    assert set(found) == {"validation/accuracy", "validation/loss", "validation/ece"}
    assert found["validation/accuracy"] == (p.argmax(axis=1) == y).mean()
    assert found["validation/loss"] == pytest.approx(-np.log(p[np.arange(700), y]).mean(), rel=1e-6)
    assert found["validation/ece"] == pytest.approx(ece(p, y, 15), abs=1e-6)
    assert found["validation/ece"] > 0.01


@pytest.mark.parametrize("bins", [1, 5, 15])
def test_the_calibration_error_depends_on_its_bins(bins: int) -> None:
    logits, _, labels = problem(400, 5, seed=2)
    wanted = ece(softmax(logits), labels.numpy(), bins)
    assert calibration_error(logits, labels, bins).item() == pytest.approx(wanted, abs=1e-6)


def test_a_model_certain_and_right_is_calibrated_and_certain_and_wrong_is_not() -> None:
    logits = torch.full((10, 4), -1e4)
    logits[:, 1] = 1e4
    assert calibration_error(logits, torch.full((10,), 1)).item() == 0.0
    assert calibration_error(logits, torch.full((10,), 2)).item() == 1.0


def test_a_model_that_knows_how_often_it_is_right_is_calibrated() -> None:
    """Confidence 0.8, right 8 times of 10."""
    logits = torch.tensor([[0.8, 0.2]]).log().expand(10, 2)
    labels = torch.tensor([0] * 8 + [1] * 2)
    assert calibration_error(logits, labels).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("classes", [2, 10])
def test_teacher_metrics_are_their_definitions(classes: int) -> None:
    student, teacher, _ = problem(500, classes, seed=3)
    p, q = softmax(teacher), softmax(student)
    found = teacher_metrics(student, teacher)
    assert set(found) == {"teacher/agreement", "teacher/kl"}
    assert found["teacher/agreement"] == (p.argmax(axis=1) == q.argmax(axis=1)).mean()
    assert found["teacher/kl"] == pytest.approx((p * np.log(p / q)).sum(axis=1).mean(), rel=1e-5)


def test_a_student_that_is_its_teacher_agrees_with_it() -> None:
    logits, _, _ = problem(50, 10, seed=4)
    assert teacher_metrics(logits, logits) == {"teacher/agreement": 1.0, "teacher/kl": 0.0}


@given(data=st.data())
@settings(deadline=None, max_examples=30, derandomize=True)
def test_metrics_stay_in_their_bounds(data: st.DataObject) -> None:
    count, classes = data.draw(st.integers(1, 8)), data.draw(st.integers(2, 5))
    logits = arrays(np.float32, (count, classes), elements=st.floats(-1e4, 1e4, width=32))
    student, teacher = (torch.from_numpy(data.draw(logits)) for _ in range(2))
    labels = torch.from_numpy(data.draw(arrays(np.int64, count, elements=st.integers(0, classes - 1))))
    found = classification_metrics(student, labels, "test") | teacher_metrics(student, teacher)
    assert all(np.isfinite(value) for value in found.values())
    assert 0 <= found["test/accuracy"] <= 1
    assert -1e-6 <= found["test/ece"] <= 1 + 1e-6
    assert found["test/loss"] >= 0
    assert found["teacher/kl"] >= -1e-3  # logits of 1e4 are rounded to 1e-3
    assert 0 <= found["teacher/agreement"] <= 1


# --- quantiles -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "level", "wanted"),
    [
        ([3.0], 0.05, 3.0),
        ([3.0, 1.0], 0.5, 2.0),
        ([3.0, 1.0], 0.95, 2.9),
        ([5.0, 1.0, 3.0], 0.25, 2.0),
        ([5.0, 1.0, 3.0], 0.0, 1.0),
        ([5.0, 1.0, 3.0], 1.0, 5.0),
        ([4.0, 4.0, 4.0, 1.0], 0.05, 1.45),
    ],
)
def test_quantiles_worked_out_by_hand(values: list[float], level: float, wanted: float) -> None:
    assert quantiles(torch.tensor(values), [level]) == pytest.approx([wanted], rel=1e-12)


@settings(deadline=None)
@given(
    arrays(np.float32, st.integers(1, 70), elements=st.floats(0, 1, width=32)),
    st.lists(st.floats(0, 1), min_size=1, max_size=4),
)
def test_quantiles_are_numpys(values: npt.NDArray[np.float32], levels: list[float]) -> None:
    found = quantiles(torch.from_numpy(values), levels)
    assert found == np.quantile(values.astype(np.float64), levels).tolist()


def test_more_values_than_torch_quantile_took() -> None:
    count = 2**24 + 5
    values = torch.arange(count, dtype=torch.float64).flip(0)
    assert quantiles(values, [0.05, 0.5]) == pytest.approx([0.05 * (count - 1), (count - 1) / 2], rel=1e-12)


def test_weights_are_put_together_before_their_quantiles_are_found() -> None:
    found = weight_metrics([torch.tensor([0.1, 0.9]), torch.tensor([0.5]), torch.tensor([0.2, 0.3])])
    assert list(found) == [*WEIGHT_QUANTILES]
    wanted = [0.12, 0.2, 0.3, 0.5, 0.82]
    assert list(found.values()) == pytest.approx(wanted, rel=1e-6)  # of float32
