"""Regularization samples: the two gradients on the label's logit, and who is one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from wsl_sweep.distill import (
    distillation_loss,
    label_cross_entropy,
    label_logit_gradients,
    regularization_sample_mask,
)

from .reference import at, cross_entropy, draw, softmax, tensors

TEMPERATURES = [1.0, 2.0, 4.0, 0.5]


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("classes", [2, 10])
def test_the_two_gradients_are_those_of_autograd(temperature: float, classes: int) -> None:
    student, teacher, labels = draw(50, classes, seed=1)
    s, t, y = tensors(student, teacher, labels)
    s.requires_grad_()
    hard, soft = label_cross_entropy(s, y), distillation_loss(s, t, temperature)
    (bias,) = torch.autograd.grad(hard.sum(), s, retain_graph=True)
    (variance,) = torch.autograd.grad((soft - hard).sum(), s)
    a, b = label_logit_gradients(s, t, y, temperature)
    np.testing.assert_allclose(a.numpy(), at(bias.numpy(), labels), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(b.numpy(), at(variance.numpy(), labels), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_the_two_gradients_are_their_formulas(temperature: float, dtype: torch.dtype, tolerance: float) -> None:
    student, teacher, labels = draw(50, 10, seed=2)
    s, t, y = tensors(student, teacher, labels, dtype=dtype)
    a, b = label_logit_gradients(s, t, y, temperature)
    p = at(softmax(student), labels)
    soft = temperature * (at(softmax(student, temperature), labels) - at(softmax(teacher, temperature), labels))
    assert a.dtype == b.dtype == dtype
    np.testing.assert_allclose(a.double().numpy(), p - 1, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(b.double().numpy(), soft - (p - 1), rtol=tolerance, atol=tolerance)


def test_at_temperature_one_the_better_student_makes_the_sample() -> None:
    """|b| > |a| is p_s[y] > p_t[y], which is a smaller loss than the teacher's."""
    student, teacher, labels = draw(2000, 10, seed=3)
    s, t, y = tensors(student, teacher, labels)
    found = regularization_sample_mask(s, t, y, 1.0).numpy()
    assert (found == (at(softmax(student), labels) > at(softmax(teacher), labels))).all()
    assert (found == (cross_entropy(student, labels) < cross_entropy(teacher, labels))).all()
    assert 0.3 < found.mean() < 0.7


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_a_regularization_sample_is_one_whose_variance_gradient_is_the_larger(temperature: float) -> None:
    student, teacher, labels = draw(2000, 10, seed=4)
    s, t, y = tensors(student, teacher, labels)
    a = at(softmax(student), labels) - 1
    b = temperature * (at(softmax(student, temperature), labels) - at(softmax(teacher, temperature), labels)) - a
    found = regularization_sample_mask(s, t, y, temperature)
    assert found.dtype == torch.bool
    assert (found.numpy() == (np.abs(b) > np.abs(a))).all()
    assert 0.05 < found.double().mean() < 0.95


def test_the_temperature_changes_who_is_one() -> None:
    student, teacher, labels = draw(2000, 10, seed=5)
    s, t, y = tensors(student, teacher, labels)
    masks = [regularization_sample_mask(s, t, y, temperature) for temperature in (1.0, 4.0)]
    assert (masks[0] != masks[1]).sum() > 50


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_a_student_equal_to_its_teacher_has_none(temperature: float, dtype: torch.dtype) -> None:
    logits, _, labels = draw(500, 10, seed=6)
    z, y = tensors(logits, labels, dtype=dtype)
    assert not regularization_sample_mask(z, z, y, temperature).any()


def test_certain_models_are_still_told_apart_in_float32() -> None:
    """Probabilities that both round to 1: 1 - 2e-9 and 1 - 2e-11."""
    sure, surer = torch.tensor([[20.0, 0.0]]), torch.tensor([[25.0, 0.0]])
    y = torch.tensor([0])
    assert regularization_sample_mask(surer, sure, y, 1.0).tolist() == [True]
    assert regularization_sample_mask(sure, surer, y, 1.0).tolist() == [False]
    a, _ = label_logit_gradients(sure, surer, y, 1.0)
    assert a.item() == pytest.approx(-2.0611536e-9, rel=1e-6)


@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_gradients_are_finite_for_huge_logits(classes: int, temperature: float) -> None:
    sure = torch.full((classes, classes), -1e4).fill_diagonal_(1e4)
    rows = torch.cartesian_prod(torch.arange(classes), torch.arange(classes))
    labels = torch.arange(len(rows)) % classes
    a, b = label_logit_gradients(sure[rows[:, 0]], sure[rows[:, 1]], labels, temperature)
    assert a.isfinite().all()
    assert b.isfinite().all()


@given(data=st.data(), temperature=st.sampled_from(TEMPERATURES))
@settings(deadline=None, max_examples=25, derandomize=True)
def test_gradients_stay_in_their_bounds(data: st.DataObject, temperature: float) -> None:
    logits = arrays(np.float32, (5, 4), elements=st.floats(-100, 100, width=32))
    s, t = (torch.from_numpy(data.draw(logits)) for _ in range(2))
    y = torch.from_numpy(data.draw(arrays(np.int64, 5, elements=st.integers(0, 3))))
    a, b = label_logit_gradients(s, t, y, temperature)
    assert ((a >= -1) & (a <= 0)).all()
    assert ((b >= -temperature - 1e-5) & (b <= 1 + temperature + 1e-5)).all()


def test_no_gradient_passes_through_the_choice() -> None:
    student, teacher, labels = draw(5, 4, seed=7)
    s, t, y = tensors(student, teacher, labels)
    s.requires_grad_()
    a, b = label_logit_gradients(s, t, y, 2.0)
    assert not a.requires_grad
    assert not b.requires_grad


def test_mistakes_are_refused() -> None:
    z, y = torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match="temperature"):
        regularization_sample_mask(z, z, y, 0.0)
    with pytest.raises(ValueError, match="different shapes"):
        regularization_sample_mask(z, torch.zeros(2, 4), y, 1.0)
    with pytest.raises(ValueError, match="labels"):
        label_logit_gradients(z, z, torch.zeros(1, dtype=torch.int64), 1.0)
