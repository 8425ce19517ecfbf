"""Losses: the formulas, their gradients, and numbers that stay numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from wsl_sweep.distill import (
    distillation_loss,
    label_cross_entropy,
    masked_distillation_loss,
    smoothed_cross_entropy,
)

from .reference import (
    Array,
    assert_near,
    at,
    cross_entropy,
    distillation,
    draw,
    drop_term,
    one_hot,
    precise_cross_entropy,
    renormalised,
    softmax,
    tensors,
    wrong_classes,
)

SHAPES = [(7, 5), (16, 100), (4, 2), (1, 10)]
TEMPERATURES = [1.0, 4.0, 0.5]
DTYPES = [torch.float32, torch.float64]
MASKS: list[Any] = ["drop_term", "detach", "renormalised"]

steady = settings(deadline=None, max_examples=25, derandomize=True)


def gradient(loss: Tensor, of: Tensor) -> Array:
    (found,) = torch.autograd.grad(loss.sum(), of)
    return found.double().numpy()


def every_loss(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> dict[str, Tensor]:
    losses = {
        "cross-entropy": label_cross_entropy(student, labels),
        "distillation": distillation_loss(student, teacher, temperature),
        "smoothed over all": smoothed_cross_entropy(student, labels, 0.1, "all"),
        "smoothed over others": smoothed_cross_entropy(student, labels, 0.1, "others"),
    }
    for mask in MASKS:
        losses[mask] = masked_distillation_loss(student, teacher, labels, temperature, mask)
    return losses


# --- the formulas ----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_cross_entropy_is_minus_the_log_of_the_labels_probability(shape: tuple[int, int], dtype: torch.dtype) -> None:
    logits, _, labels = draw(*shape, seed=1)
    z, y = tensors(logits, labels, dtype=dtype)
    assert_near(label_cross_entropy(z, y), cross_entropy(logits, labels), dtype)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_distillation_is_tau_squared_times_the_divergence(
    shape: tuple[int, int], temperature: float, dtype: torch.dtype
) -> None:
    student, teacher, _ = draw(*shape, seed=2)
    s, t = tensors(student, teacher, dtype=dtype)
    assert_near(distillation_loss(s, t, temperature), distillation(student, teacher, temperature), dtype)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_masked_distillation_is_its_reading_of_the_paper(
    shape: tuple[int, int], temperature: float, dtype: torch.dtype
) -> None:
    student, teacher, labels = draw(*shape, seed=3)
    s, t, y = tensors(student, teacher, labels, dtype=dtype)
    wanted = {
        "drop_term": drop_term(student, teacher, labels, temperature),
        "detach": distillation(student, teacher, temperature),
        "renormalised": renormalised(student, teacher, labels, temperature),
    }
    for mask in MASKS:
        assert_near(masked_distillation_loss(s, t, y, temperature, mask), wanted[mask], dtype)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_smoothing_spreads_its_part_over_all_or_over_the_wrong_classes(
    shape: tuple[int, int], dtype: torch.dtype
) -> None:
    logits, _, labels = draw(*shape, seed=4)
    z, y = tensors(logits, labels, dtype=dtype)
    hot, log_p, classes = one_hot(labels, shape[1]), np.log(softmax(logits)), shape[1]
    over_all = 0.7 * hot + 0.3 / classes
    over_others = 0.7 * hot + 0.3 / (classes - 1) * (1 - hot)
    assert_near(smoothed_cross_entropy(z, y, 0.3, "all"), -(over_all * log_p).sum(axis=1), dtype)
    assert_near(smoothed_cross_entropy(z, y, 0.3, "others"), -(over_others * log_p).sum(axis=1), dtype)


def test_smoothing_over_all_is_the_convention_of_pytorch() -> None:
    logits, _, labels = draw(9, 6, seed=5)
    z, y = tensors(logits, labels)
    wanted = F.cross_entropy(z, y, label_smoothing=0.2, reduction="none")
    torch.testing.assert_close(smoothed_cross_entropy(z, y, 0.2), wanted, rtol=1e-12, atol=1e-12)


def test_no_smoothing_is_the_plain_cross_entropy_bit_for_bit() -> None:
    logits, _, labels = draw(9, 6, seed=6)
    z, y = tensors(logits, labels, dtype=torch.float32)
    assert torch.equal(smoothed_cross_entropy(z, y, 0.0, "others"), label_cross_entropy(z, y))


def test_a_student_equal_to_its_teacher_has_nothing_to_learn_from_it() -> None:
    logits, _, _ = draw(9, 6, seed=7)
    (z,) = tensors(logits)
    z.requires_grad_()
    loss = distillation_loss(z, z.detach(), 4.0)
    assert loss.abs().max() < 1e-14
    assert np.abs(gradient(loss, z)).max() < 1e-14


# --- gradients -------------------------------------------------------------------------------------


def test_gradient_of_the_cross_entropy_is_probability_minus_label() -> None:
    logits, _, labels = draw(8, 7, seed=8)
    z, y = tensors(logits, labels)
    z.requires_grad_()
    wanted = softmax(logits) - one_hot(labels, 7)
    np.testing.assert_allclose(gradient(label_cross_entropy(z, y), z), wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_gradient_of_distillation_is_tau_times_the_difference_of_probabilities(temperature: float) -> None:
    student, teacher, _ = draw(8, 7, seed=9)
    s, t = tensors(student, teacher)
    s.requires_grad_()
    wanted = temperature * (softmax(student, temperature) - softmax(teacher, temperature))
    found = gradient(distillation_loss(s, t, temperature), s)
    np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_drop_term_still_pushes_the_label_down_through_the_normaliser(temperature: float) -> None:
    student, teacher, labels = draw(8, 7, seed=10)
    s, t, y = tensors(student, teacher, labels)
    s.requires_grad_()
    found = gradient(masked_distillation_loss(s, t, y, temperature, "drop_term"), s)
    p_s, p_t = softmax(student, temperature), softmax(teacher, temperature)
    wanted = temperature * (1 - at(p_t, labels)) * at(p_s, labels)
    assert (wanted > 0).all()
    np.testing.assert_allclose(at(found, labels), wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_detach_is_distillation_without_the_gradient_on_the_label(temperature: float) -> None:
    student, teacher, labels = draw(8, 7, seed=11)
    s, t, y = tensors(student, teacher, labels)
    s.requires_grad_()
    found = gradient(masked_distillation_loss(s, t, y, temperature, "detach"), s)
    plain = gradient(distillation_loss(s, t, temperature), s)
    assert (at(found, labels) == 0).all()
    assert (at(plain, labels) != 0).all()
    np.testing.assert_allclose(wrong_classes(found, labels), wrong_classes(plain, labels), rtol=1e-12)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_renormalised_neither_sees_nor_moves_the_labels_logit(temperature: float) -> None:
    student, teacher, labels = draw(8, 7, seed=12)
    s, t, y = tensors(student, teacher, labels)
    s.requires_grad_()
    loss = masked_distillation_loss(s, t, y, temperature, "renormalised")
    found = gradient(loss, s)
    assert (at(found, labels) == 0).all()
    without = [softmax(wrong_classes(logits, labels), temperature) for logits in (student, teacher)]
    np.testing.assert_allclose(
        wrong_classes(found, labels), temperature * (without[0] - without[1]), rtol=1e-10, atol=1e-12
    )
    hot = torch.from_numpy(one_hot(labels, 7))
    moved = masked_distillation_loss(s + 5 * hot, t - 3 * hot, y, temperature, "renormalised")
    torch.testing.assert_close(moved, loss, rtol=1e-12, atol=1e-12)


def test_no_gradient_reaches_the_teacher() -> None:
    student, teacher, labels = draw(5, 4, seed=13)
    s, t, y = tensors(student, teacher, labels)
    s.requires_grad_()
    t.requires_grad_()
    losses = [distillation_loss(s, t, 2.0), *(masked_distillation_loss(s, t, y, 2.0, mask) for mask in MASKS)]
    torch.stack(losses).sum().backward()
    assert s.grad is not None
    assert t.grad is None


# --- numbers that stay numbers ---------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_losses_and_gradients_are_finite_for_huge_logits(dtype: torch.dtype, classes: int, temperature: float) -> None:
    """Students and teachers at ±1e4: certain and right, certain and wrong, in every combination."""
    extremes = torch.full((2 * classes, classes), -1e4)
    extremes[torch.arange(2 * classes), torch.arange(2 * classes) % classes] = 1e4
    extremes[classes:] *= -1
    rows = torch.cartesian_prod(torch.arange(len(extremes)), torch.arange(len(extremes)))
    student = extremes[rows[:, 0]].to(dtype).requires_grad_()
    teacher = extremes[rows[:, 1]].to(dtype)
    labels = torch.arange(len(rows)) % classes
    for name, loss in every_loss(student, teacher, labels, temperature).items():
        assert loss.isfinite().all(), name
        (found,) = torch.autograd.grad(loss.sum(), student)
        assert found.isfinite().all(), name


def test_cross_entropy_of_certain_models_is_exact() -> None:
    sure = torch.tensor([[1e4, -1e4, -1e4], [-1e4, 1e4, -1e4]])
    assert label_cross_entropy(sure, torch.tensor([0, 0])).tolist() == [0.0, 2e4]


def test_cross_entropy_keeps_its_relative_precision_near_certainty() -> None:
    """From 1e-1 down to 1e-34, where ``log_softmax`` in float32 has been 0 for long."""
    generator = np.random.default_rng(14)
    logits = generator.normal(0, 1, (60, 5)).astype(np.float32)
    labels = generator.integers(0, 5, 60)
    logits[np.arange(60), labels] = np.linspace(3, 78, 60, dtype=np.float32)
    wide = logits.astype(np.float64)
    wanted = np.array([float(loss) for loss in precise_cross_entropy(wide, labels)])
    found = label_cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels))
    np.testing.assert_allclose(found.numpy(), wanted, rtol=2e-5, atol=0)
    in_float64 = label_cross_entropy(torch.from_numpy(wide), torch.from_numpy(labels))
    np.testing.assert_allclose(in_float64.numpy(), wanted, rtol=1e-13, atol=0)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened_to_float32_before_anything_else(half: torch.dtype) -> None:
    student, teacher, labels = draw(6, 5, seed=15)
    s, t, y = tensors(student, teacher, labels, dtype=half)
    narrow, widened = every_loss(s, t, y, 4.0), every_loss(s.float(), t.float(), y, 4.0)
    for name, loss in narrow.items():
        assert loss.dtype == torch.float32, name
        assert torch.equal(loss, widened[name]), name


def test_the_wider_of_student_and_teacher_decides_the_dtype() -> None:
    student, teacher, labels = draw(6, 5, seed=16)
    s, t, y = tensors(student, teacher, labels)
    assert distillation_loss(s.float(), t, 1.0).dtype == torch.float64
    assert distillation_loss(s.half(), t.bfloat16(), 1.0).dtype == torch.float32
    assert masked_distillation_loss(s, t.half(), y, 1.0).dtype == torch.float64


# --- what holds for all logits ---------------------------------------------------------------------


@st.composite
def problems(draw_: st.DrawFn) -> tuple[Tensor, Tensor, Tensor, float]:
    """(student, teacher, labels, temperature) in float64."""
    batch, classes = draw_(st.integers(1, 5)), draw_(st.integers(2, 6))
    logits = arrays(np.float64, (batch, classes), elements=st.floats(-30, 30, allow_subnormal=False))
    labels = draw_(arrays(np.int64, batch, elements=st.integers(0, classes - 1)))
    s, t, y = tensors(draw_(logits), draw_(logits), labels)
    return s, t, y, draw_(st.sampled_from([0.5, 1.0, 2.0, 4.0, 10.0]))


@given(problem=problems(), shift=st.floats(-50, 50), other=st.floats(-50, 50))
@steady
def test_no_loss_changes_when_all_logits_of_a_model_are_shifted(
    problem: tuple[Tensor, Tensor, Tensor, float], shift: float, other: float
) -> None:
    s, t, y, temperature = problem
    before = every_loss(s, t, y, temperature)
    for name, loss in every_loss(s + shift, t + other, y, temperature).items():
        torch.testing.assert_close(loss, before[name], rtol=1e-9, atol=1e-9, msg=name)


@given(problem=problems())
@steady
def test_losses_are_not_negative_up_to_rounding(problem: tuple[Tensor, Tensor, Tensor, float]) -> None:
    s, t, y, temperature = problem
    for name, loss in every_loss(s, t, y, temperature).items():
        assert (loss >= -1e-11).all(), name
    assert (label_cross_entropy(s.float(), y) >= 0).all()


@given(problem=problems(), data=st.data())
@steady
def test_losses_follow_a_reordering_of_examples_and_of_classes(
    problem: tuple[Tensor, Tensor, Tensor, float], data: st.DataObject
) -> None:
    s, t, y, temperature = problem
    rows = torch.tensor(data.draw(st.permutations(range(s.shape[0]))))
    columns = torch.tensor(data.draw(st.permutations(range(s.shape[1]))))
    renamed = columns.argsort()[y]
    before = every_loss(s, t, y, temperature)
    after = every_loss(s[rows][:, columns], t[rows][:, columns], renamed[rows], temperature)
    for name, loss in after.items():
        torch.testing.assert_close(loss, before[name][rows], rtol=1e-10, atol=1e-10, msg=name)


# --- mistakes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_must_be_finite_and_above_zero(temperature: float) -> None:
    z, y = torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match="temperature"):
        distillation_loss(z, z, temperature)
    for mask in MASKS:
        with pytest.raises(ValueError, match="temperature"):
            masked_distillation_loss(z, z, y, temperature, mask)


def test_shapes_that_do_not_fit_are_named() -> None:
    z, y = torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(2, 4\)"):
        distillation_loss(z, torch.zeros(2, 4), 1.0)
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(1, 3\)"):
        masked_distillation_loss(z, torch.zeros(1, 3), y, 1.0)
    with pytest.raises(ValueError, match=r"labels must have the shape \(2,\), not \(3,\)"):
        label_cross_entropy(z, torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"not \(2, 1\)"):
        label_cross_entropy(z, y.unsqueeze(1))


@pytest.mark.parametrize("shape", [(3,), (2, 1), (2, 3, 4)])
def test_logits_are_a_batch_of_two_classes_or_more(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="batch, classes >= 2"):
        distillation_loss(torch.zeros(shape), torch.zeros(shape), 1.0)


def test_an_unknown_mask_is_refused_with_the_known_ones() -> None:
    z, y = torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64)
    unknown: Any = "drop"
    with pytest.raises(ValueError, match="'drop': drop_term, detach or renormalised"):
        masked_distillation_loss(z, z, y, 1.0, unknown)


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, float("nan")])
def test_smoothing_lies_between_zero_and_one(smoothing: float) -> None:
    with pytest.raises(ValueError, match="label smoothing"):
        smoothed_cross_entropy(torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64), smoothing)
