"""DKD and DIST: their formulas, what they are made of, and numbers that stay numbers."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from wsl_sweep.distill import decoupled_loss, dist_loss, distillation_loss, masked_distillation_loss

from .reference import Array, Labels, assert_near, at, draw, kl, softmax, tensors, wrong_classes

SHAPES = [(7, 5), (16, 100), (4, 2), (1, 10), (1, 2)]
TEMPERATURES = [1.0, 4.0, 0.5]
DTYPES = [torch.float32, torch.float64]

steady = settings(deadline=None, max_examples=25, derandomize=True)


def label_or_not(logits: Array, labels: Labels, temperature: float) -> Array:
    """(B, 2): the probability of the label, and of all else."""
    p = at(softmax(logits, temperature), labels)
    return np.stack([p, wrong_classes(softmax(logits, temperature), labels).sum(axis=1)], axis=1)


def among_wrong(logits: Array, labels: Labels, temperature: float) -> Array:
    """(B, C-1): the distribution over the wrong classes, given that it is one of them."""
    p = wrong_classes(softmax(logits, temperature), labels)
    return np.asarray(p / p.sum(axis=1, keepdims=True))


def decoupled(student: Array, teacher: Array, labels: Labels, temperature: float, target: float, rest: float) -> Array:
    """DKD by its definition: two divergences of probabilities (Zhao et al. 2022, eq. 7)."""
    tckd = kl(label_or_not(teacher, labels, temperature), label_or_not(student, labels, temperature))
    nckd = kl(among_wrong(teacher, labels, temperature), among_wrong(student, labels, temperature))
    return temperature**2 * (target * tckd + rest * nckd)


def precise_decoupled(
    student: Array, teacher: Array, labels: Labels, temperature: float, target: float, rest: float
) -> Array:
    """The same in sixty decimal digits."""
    found = []
    with localcontext() as context:
        context.prec = 60
        tau = Decimal(temperature)
        for row_s, row_t, label in zip(student, teacher, labels, strict=True):
            own, other = ([(Decimal(float(z)) / tau).exp() for z in row] for row in (row_s, row_t))
            wrong = [k for k in range(len(own)) if k != label]
            p_s, p_t = own[label] / sum(own), other[label] / sum(other)
            q_s, q_t = sum(own[k] for k in wrong) / sum(own), sum(other[k] for k in wrong) / sum(other)
            tckd = p_t * (p_t / p_s).ln() + q_t * (q_t / q_s).ln()
            all_s, all_t = sum(own[k] for k in wrong), sum(other[k] for k in wrong)
            nckd = sum(other[k] / all_t * ((other[k] / all_t) / (own[k] / all_s)).ln() for k in wrong)
            found.append(float(tau**2 * (Decimal(target) * tckd + Decimal(rest) * nckd)))
    return np.array(found)


def pearson(a: list[float], b: list[float]) -> float:
    """Correlation by its definition; 0 where one is constant; with the 1e-8 of DIST's released code."""
    mean_a, mean_b = math.fsum(a) / len(a), math.fsum(b) / len(b)
    both = math.fsum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
    squares_a, squares_b = math.fsum((x - mean_a) ** 2 for x in a), math.fsum((y - mean_b) ** 2 for y in b)
    return both / (math.sqrt(squares_a) * math.sqrt(squares_b) + 1e-8)


def dist(student: Array, teacher: Array, temperature: float, inter: float, intra: float) -> float:
    """DIST by its definition, in loops over examples and over classes."""
    p, q = softmax(student, temperature), softmax(teacher, temperature)
    of_examples = [pearson(a.tolist(), b.tolist()) for a, b in zip(p, q, strict=True)]
    of_classes = [pearson(a.tolist(), b.tolist()) for a, b in zip(p.T, q.T, strict=True)]
    by_example = 1 - math.fsum(of_examples) / len(of_examples)
    by_class = 1 - math.fsum(of_classes) / len(of_classes)
    return temperature**2 * (inter * by_example + intra * by_class)


def extremes(classes: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Students, teachers and labels at ±1e4: certain and right, certain and wrong, undecided, in every combination."""
    rows = torch.full((2 * classes + 1, classes), -1e4)
    rows[torch.arange(2 * classes), torch.arange(2 * classes) % classes] = 1e4
    rows[classes : 2 * classes] *= -1
    pairs = torch.cartesian_prod(torch.arange(len(rows)), torch.arange(len(rows)), torch.arange(classes))
    return rows[pairs[:, 0]].to(dtype), rows[pairs[:, 1]].to(dtype), pairs[:, 2]


# --- DKD: the formula ------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_dkd_is_the_divergence_of_label_or_not_and_that_among_the_wrong_classes(
    shape: tuple[int, int], temperature: float, dtype: torch.dtype
) -> None:
    student, teacher, labels = draw(*shape, seed=1, scale=1.5)
    s, t, y = tensors(student, teacher, labels, dtype=dtype)
    for target, rest in ((1.0, 8.0), (1.0, 0.0), (0.0, 1.0), (0.3, 2.5)):
        wanted = decoupled(student, teacher, labels, temperature, target, rest)
        found = decoupled_loss(s, t, y, temperature, target, rest)
        assert found.shape == (shape[0],)
        assert_near(found, wanted, dtype)


def test_dkd_weighs_1_and_8_unless_told() -> None:
    student, teacher, labels = draw(7, 5, seed=2)
    s, t, y = tensors(student, teacher, labels)
    assert_near(decoupled_loss(s, t, y, 4.0), decoupled(student, teacher, labels, 4.0, 1.0, 8.0), torch.float64)


@pytest.mark.parametrize("classes", [2, 10])
def test_dkd_is_precise_for_certain_students_and_teachers(classes: int) -> None:
    """Margins up to 80, where the probability of being wrong is 1e-35 and a float64's 1 - p has been 0 for long."""
    generator = np.random.default_rng(3)
    labels = generator.integers(0, classes, 40)
    student, teacher = (generator.normal(0, 1, (40, classes)) for _ in range(2))
    student[np.arange(40), labels] = np.linspace(-80, 80, 40)
    teacher[np.arange(40), labels] = generator.permutation(np.linspace(-80, 80, 40))
    s, t, y = tensors(student, teacher, labels)
    for target, rest in ((1.0, 0.0), (0.0, 1.0), (1.0, 8.0)):
        wanted = precise_decoupled(student, teacher, labels, 1.0, target, rest)
        np.testing.assert_allclose(decoupled_loss(s, t, y, 1.0, target, rest).numpy(), wanted, rtol=1e-11, atol=1e-12)
    halved = decoupled_loss(s.float(), t.float(), y, 1.0)
    wanted = precise_decoupled(s.float().double().numpy(), t.float().double().numpy(), labels, 1.0, 1.0, 8.0)
    np.testing.assert_allclose(halved.numpy(), wanted, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_dkd_with_the_teachers_doubt_as_weight_of_the_wrong_classes_is_plain_distillation(temperature: float) -> None:
    """KD = TCKD + (1 - p_t[y]) NCKD (Zhao et al. 2022, eq. 6), example by example."""
    student, teacher, labels = draw(12, 6, seed=4)
    s, t, y = tensors(student, teacher, labels)
    plain = distillation_loss(s, t, temperature)
    doubt = 1 - at(softmax(teacher, temperature), labels)
    for i in range(12):
        one = slice(i, i + 1)
        found = decoupled_loss(s[one], t[one], y[one], temperature, 1.0, float(doubt[i]))
        torch.testing.assert_close(found, plain[one], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_the_non_target_part_of_dkd_is_the_renormalised_masked_loss(temperature: float) -> None:
    student, teacher, labels = draw(12, 6, seed=5)
    s, t, y = tensors(student, teacher, labels)
    masked = masked_distillation_loss(s, t, y, temperature, "renormalised")
    torch.testing.assert_close(decoupled_loss(s, t, y, temperature, 0.0, 3.0), 3 * masked, rtol=1e-13, atol=0)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_with_two_classes_dkd_is_distillation_and_its_non_target_part_is_nothing(temperature: float) -> None:
    student, teacher, labels = draw(9, 2, seed=6)
    s, t, y = tensors(student, teacher, labels)
    s.requires_grad_()
    found = decoupled_loss(s, t, y, temperature, 1.0, 8.0)
    torch.testing.assert_close(found, distillation_loss(s, t, temperature), rtol=1e-10, atol=1e-12)
    nothing = decoupled_loss(s, t, y, temperature, 0.0, 8.0)
    assert (nothing == 0).all()
    (gradient,) = torch.autograd.grad(nothing.sum(), s)
    assert (gradient == 0).all()


# --- DKD: gradients --------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize(("target", "rest"), [(1.0, 0.0), (0.0, 1.0), (1.0, 8.0)])
def test_the_gradient_of_dkd_is_that_of_finite_differences(
    classes: int, temperature: float, target: float, rest: float
) -> None:
    student, teacher, labels = draw(4, classes, seed=7, scale=1.0)
    s, t, y = tensors(student, teacher, labels)
    s.requires_grad_()
    assert torch.autograd.gradcheck(lambda leaf: decoupled_loss(leaf, t, y, temperature, target, rest), s)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_the_two_parts_of_dkd_pull_at_the_label_and_at_the_others_as_they_should(temperature: float) -> None:
    """τ(p_s[y] - p_t[y]) on the label from TCKD alone; τ(q_s - q_t) on the others from NCKD alone, 0 on the label."""
    student, teacher, labels = draw(8, 7, seed=8)
    s, t, y = tensors(student, teacher, labels)
    s.requires_grad_()
    (target,) = torch.autograd.grad(decoupled_loss(s, t, y, temperature, 1.0, 0.0).sum(), s)
    (rest,) = torch.autograd.grad(decoupled_loss(s, t, y, temperature, 0.0, 1.0).sum(), s)
    p_s, p_t = (at(softmax(logits, temperature), labels) for logits in (student, teacher))
    np.testing.assert_allclose(at(target.numpy(), labels), temperature * (p_s - p_t), rtol=1e-10, atol=1e-13)
    q_s, q_t = (among_wrong(logits, labels, temperature) for logits in (student, teacher))
    wanted = temperature * (q_s - q_t)
    np.testing.assert_allclose(wrong_classes(rest.numpy(), labels), wanted, rtol=1e-10, atol=1e-13)
    assert (at(rest.numpy(), labels) == 0).all()


# --- DIST: the formula -----------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 2e-5), (torch.float64, 1e-10)])
def test_dist_is_one_minus_the_correlations_of_examples_and_of_classes(
    shape: tuple[int, int], temperature: float, dtype: torch.dtype, near: float
) -> None:
    student, teacher, _ = draw(*shape, seed=9)
    s, t = tensors(student, teacher, dtype=dtype)
    for inter, intra in ((1.0, 1.0), (1.0, 0.0), (0.0, 1.0), (0.3, 2.5)):
        found = dist_loss(s, t, temperature, inter, intra)
        assert found.dtype == dtype
        assert found.shape == ()
        assert found.item() == pytest.approx(dist(student, teacher, temperature, inter, intra), rel=near, abs=near)
    assert dist_loss(s, t, temperature).item() == dist_loss(s, t, temperature, 1.0, 1.0).item()


def test_dist_is_what_numpy_calls_correlation() -> None:
    student, teacher, _ = draw(6, 5, seed=10)
    s, t = tensors(student, teacher)
    p, q = softmax(student, 2.0), softmax(teacher, 2.0)
    inter = 1 - np.mean([np.corrcoef(p[i], q[i])[0, 1] for i in range(6)])
    intra = 1 - np.mean([np.corrcoef(p[:, c], q[:, c])[0, 1] for c in range(5)])
    assert dist_loss(s, t, 2.0, 1.0, 0.0).item() == pytest.approx(4 * inter, rel=1e-5)
    assert dist_loss(s, t, 2.0, 0.0, 1.0).item() == pytest.approx(4 * intra, rel=1e-5)


def test_two_classes_correlate_fully_or_not_at_all() -> None:
    """Of two probabilities only the order counts: 0 where it is the teacher's, 2 where it is not."""
    teacher = torch.tensor([[2.0, 0.0], [2.0, 0.0]], dtype=torch.float64)
    student = torch.tensor([[0.5, 0.0], [0.0, 3.0]], dtype=torch.float64)
    assert dist_loss(student[:1], teacher[:1], 1.0, 1.0, 0.0).item() == pytest.approx(0.0, abs=1e-6)
    assert dist_loss(student[1:], teacher[1:], 1.0, 1.0, 0.0).item() == pytest.approx(2.0, abs=1e-6)
    assert dist_loss(student, teacher, 3.0, 1.0, 0.0).item() == pytest.approx(9 * 1.0, abs=1e-5)


def test_a_batch_of_one_has_no_correlation_within_a_class() -> None:
    student, teacher, _ = draw(1, 10, seed=11)
    s, t = tensors(student, teacher)
    s.requires_grad_()
    intra = dist_loss(s, t, 4.0, 0.0, 1.0)
    assert intra.item() == 16.0
    (gradient,) = torch.autograd.grad(intra, s)
    assert (gradient == 0).all()
    assert dist_loss(s, t, 4.0, 1.0, 0.0).item() == pytest.approx(dist(student, teacher, 4.0, 1.0, 0.0), rel=1e-10)


def test_a_constant_row_correlates_with_nothing() -> None:
    """An undecided student (or teacher) has correlation 0, not NaN: its part of the inter-class term is 1."""
    decided, _, _ = draw(1, 6, seed=12)
    (z,) = tensors(decided)
    flat = torch.full_like(z, 3.0)
    for student, teacher in ((flat, z), (z, flat), (flat, flat)):
        leaf = student.clone().requires_grad_()
        loss = dist_loss(leaf, teacher, 4.0, 1.0, 0.0)
        assert loss.item() == pytest.approx(16.0, rel=1e-6)
        (gradient,) = torch.autograd.grad(loss, leaf)
        assert gradient.isfinite().all()
    half_flat = torch.cat([flat, z])
    assert dist_loss(half_flat, torch.cat([z, z]), 4.0, 1.0, 0.0).item() == pytest.approx(8.0, rel=1e-5)


# --- DIST: what holds for all logits ---------------------------------------------------------------


@st.composite
def problems(draw_: st.DrawFn) -> tuple[Tensor, Tensor, Tensor, float]:
    """(student, teacher, labels, temperature) in float64."""
    batch, classes = draw_(st.integers(1, 5)), draw_(st.integers(2, 6))
    logits = arrays(np.float64, (batch, classes), elements=st.floats(-30, 30, allow_subnormal=False))
    labels = draw_(arrays(np.int64, batch, elements=st.integers(0, classes - 1)))
    s, t, y = tensors(draw_(logits), draw_(logits), labels)
    return s, t, y, draw_(st.sampled_from([0.5, 1.0, 2.0, 4.0, 10.0]))


@given(problem=problems(), inter=st.floats(0, 3), intra=st.floats(0, 3))
@steady
def test_dist_lies_between_zero_and_two_of_each_part(
    problem: tuple[Tensor, Tensor, Tensor, float], inter: float, intra: float
) -> None:
    s, t, _, temperature = problem
    loss = dist_loss(s, t, temperature, inter, intra).item()
    top = 2 * temperature**2 * (inter + intra)
    assert -1e-12 * top <= loss <= top * (1 + 1e-12)


@given(problem=problems(), shift=st.floats(-50, 50), other=st.floats(-50, 50))
@steady
def test_neither_loss_changes_when_all_logits_of_a_model_are_shifted(
    problem: tuple[Tensor, Tensor, Tensor, float], shift: float, other: float
) -> None:
    s, t, y, temperature = problem
    moved = s + shift, t + other
    before = decoupled_loss(s, t, y, temperature)
    torch.testing.assert_close(decoupled_loss(*moved, y, temperature), before, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(dist_loss(*moved, temperature), dist_loss(s, t, temperature), rtol=1e-7, atol=1e-5)


@given(problem=problems())
@steady
def test_dkd_is_not_negative_up_to_rounding(problem: tuple[Tensor, Tensor, Tensor, float]) -> None:
    s, t, y, temperature = problem
    for target, rest in ((1.0, 0.0), (0.0, 1.0), (1.0, 8.0)):
        assert (decoupled_loss(s, t, y, temperature, target, rest) >= -1e-11).all()


@given(problem=problems(), data=st.data())
@steady
def test_both_follow_a_reordering_of_examples_and_of_classes(
    problem: tuple[Tensor, Tensor, Tensor, float], data: st.DataObject
) -> None:
    s, t, y, temperature = problem
    rows = torch.tensor(data.draw(st.permutations(range(s.shape[0]))))
    columns = torch.tensor(data.draw(st.permutations(range(s.shape[1]))))
    student, teacher, labels = s[rows][:, columns], t[rows][:, columns], columns.argsort()[y][rows]
    before = decoupled_loss(s, t, y, temperature)[rows]
    torch.testing.assert_close(decoupled_loss(student, teacher, labels, temperature), before, rtol=1e-10, atol=1e-10)
    whole = dist_loss(s, t, temperature)
    torch.testing.assert_close(dist_loss(student, teacher, temperature), whole, rtol=1e-7, atol=1e-7)


def mixed_with_uniform(logits: Array, shares: Array) -> Array:
    """Logits at τ = 1 whose probabilities are (1 - share) p + share / C, a share an example."""
    p, share = softmax(logits), shares[:, None]
    return np.asarray(np.log((1 - share) * p + share / logits.shape[1]))


def test_the_correlation_of_an_examples_classes_takes_no_notice_of_an_affine_map_of_its_probabilities() -> None:
    """A student less sure than its teacher, but alike in its preferences, has nothing to learn: what DIST is for."""
    student, teacher, _ = draw(8, 6, seed=13)
    s, t = tensors(student, teacher)
    shares = np.linspace(0.1, 0.8, 8)
    (mixed,) = tensors(mixed_with_uniform(student, shares))
    found, wanted = (dist_loss(z, t, 1.0, 1.0, 0.0).item() for z in (mixed, s))
    assert found == pytest.approx(wanted, rel=1e-6)
    (softer,) = tensors(mixed_with_uniform(teacher, shares))
    assert dist_loss(softer, t, 1.0, 1.0, 0.0).item() == pytest.approx(0.0, abs=1e-6)
    # Another map for each example is no affine map of a class; the same one for all is.
    assert dist_loss(softer, t, 1.0, 0.0, 1.0).item() > 1e-3
    (alike,) = tensors(mixed_with_uniform(teacher, np.full(8, 0.6)))
    assert dist_loss(alike, t, 1.0, 0.0, 1.0).item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_student_equal_to_its_teacher_has_nothing_to_learn_from_it(temperature: float, dtype: torch.dtype) -> None:
    logits, _, labels = draw(9, 6, seed=14)
    z, y = tensors(logits, labels, dtype=dtype)
    leaf = z.clone().requires_grad_()
    near = 1e-12 if dtype == torch.float64 else 1e-4
    decoupled_to_itself = decoupled_loss(leaf, z, y, temperature)
    assert decoupled_to_itself.abs().max().item() < near
    (gradient,) = torch.autograd.grad(decoupled_to_itself.sum(), leaf)
    assert gradient.abs().max().item() < near
    # The 1e-8 under DIST's correlation leaves a rest of that size over the norms.
    to_itself = dist_loss(leaf, z, temperature)
    assert abs(to_itself.item()) < 1e-4
    (gradient,) = torch.autograd.grad(to_itself, leaf)
    assert gradient.abs().max().item() < 1e-3


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize(("inter", "intra"), [(1.0, 0.0), (0.0, 1.0), (1.0, 1.0)])
def test_the_gradient_of_dist_is_that_of_finite_differences(
    classes: int, temperature: float, inter: float, intra: float
) -> None:
    student, teacher, _ = draw(4, classes, seed=15, scale=1.0)
    s, t = tensors(student, teacher)
    s.requires_grad_()
    assert torch.autograd.gradcheck(lambda leaf: dist_loss(leaf, t, temperature, inter, intra), s)


# --- both: numbers that stay numbers ---------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("temperature", [1.0, 4.0, 0.5])
def test_dkd_and_its_gradient_are_finite_for_huge_logits(dtype: torch.dtype, classes: int, temperature: float) -> None:
    student, teacher, labels = extremes(classes, dtype)
    student.requires_grad_()
    loss = decoupled_loss(student, teacher, labels, temperature)
    (gradient,) = torch.autograd.grad(loss.sum(), student)
    assert loss.isfinite().all()
    assert gradient.isfinite().all()
    assert (loss >= -1e-3).all()
    assert (loss[(student == teacher).all(dim=1)].abs() < 1e-3).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("temperature", [1.0, 4.0, 0.5])
def test_dist_and_its_gradient_are_finite_for_huge_logits(dtype: torch.dtype, classes: int, temperature: float) -> None:
    """Not in float16, which does not hold the slope at an undecided student: up to 1e8, by the correlation's floor."""
    student, teacher, _ = extremes(classes, dtype)
    student.requires_grad_()
    for rows in (slice(None), *(slice(i, i + 1) for i in range(0, len(student), 7))):
        loss = dist_loss(student[rows], teacher[rows], temperature)
        (gradient,) = torch.autograd.grad(loss, student)
        assert 0 <= loss.item() + 1e-3 <= 4 * temperature**2 + 2e-3
        assert gradient.isfinite().all()


def test_dkd_of_a_certain_and_wrong_student_is_its_margin() -> None:
    """The teacher is sure of class 0, the student of class 1: TCKD is 2e4 nats."""
    teacher = torch.tensor([[1e4, -1e4, -1e4]])
    student = torch.tensor([[-1e4, 1e4, -1e4]])
    assert decoupled_loss(student, teacher, torch.tensor([0]), 1.0, 1.0, 0.0).item() == pytest.approx(2e4, rel=1e-6)
    # Among the wrong classes the teacher is undecided and the student is not: ln ½ + 1e4 nats.
    wanted = math.log(0.5) + 1e4
    assert decoupled_loss(student, teacher, torch.tensor([0]), 1.0, 0.0, 1.0).item() == pytest.approx(wanted, rel=1e-6)


def test_no_gradient_reaches_the_teacher() -> None:
    student, teacher, labels = draw(5, 4, seed=16)
    s, t, y = tensors(student, teacher, labels)
    s.requires_grad_()
    t.requires_grad_()
    (decoupled_loss(s, t, y, 2.0).sum() + dist_loss(s, t, 2.0)).backward()
    assert s.grad is not None
    assert t.grad is None


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened_to_float32_before_anything_else(half: torch.dtype) -> None:
    student, teacher, labels = draw(6, 5, seed=17)
    s, t, y = tensors(student, teacher, labels, dtype=half)
    for found, wanted in (
        (decoupled_loss(s, t, y, 4.0), decoupled_loss(s.float(), t.float(), y, 4.0)),
        (dist_loss(s, t, 4.0), dist_loss(s.float(), t.float(), 4.0)),
    ):
        assert found.dtype == torch.float32
        assert torch.equal(found, wanted)
    assert decoupled_loss(s, t.double(), y, 4.0).dtype == torch.float64
    assert dist_loss(s, t.double(), 4.0).dtype == torch.float64


def test_labels_may_be_of_any_integer_type() -> None:
    student, teacher, labels = draw(6, 5, seed=18)
    s, t, y = tensors(student, teacher, labels)
    wanted = decoupled_loss(s, t, y, 4.0)
    for dtype in (torch.uint8, torch.int32):
        assert torch.equal(decoupled_loss(s, t, y.to(dtype), 4.0), wanted)


def test_each_examples_dkd_is_its_own_and_dists_is_the_batchs() -> None:
    student, teacher, labels = draw(6, 5, seed=19)
    s, t, y = tensors(student, teacher, labels)
    alone = torch.cat([decoupled_loss(s[i : i + 1], t[i : i + 1], y[i : i + 1], 4.0) for i in range(6)])
    torch.testing.assert_close(decoupled_loss(s, t, y, 4.0), alone, rtol=1e-12, atol=1e-12)
    singly = torch.stack([dist_loss(s[i : i + 1], t[i : i + 1], 4.0, 1.0, 0.0) for i in range(6)]).mean()
    torch.testing.assert_close(dist_loss(s, t, 4.0, 1.0, 0.0), singly, rtol=1e-12, atol=1e-12)


# --- mistakes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_must_be_finite_and_above_zero(temperature: float) -> None:
    z, y = torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match="temperature"):
        decoupled_loss(z, z, y, temperature)
    with pytest.raises(ValueError, match="temperature"):
        dist_loss(z, z, temperature)


def test_shapes_that_do_not_fit_are_named() -> None:
    z, y = torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(2, 4\)"):
        decoupled_loss(z, torch.zeros(2, 4), y, 1.0)
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(1, 3\)"):
        dist_loss(z, torch.zeros(1, 3), 1.0)
    with pytest.raises(ValueError, match=r"labels must have the shape \(2,\), not \(3,\)"):
        decoupled_loss(z, z, torch.zeros(3, dtype=torch.int64), 1.0)


@pytest.mark.parametrize("shape", [(3,), (2, 1), (2, 3, 4)])
def test_logits_are_a_batch_of_two_classes_or_more(shape: tuple[int, ...]) -> None:
    z, y = torch.zeros(shape), torch.zeros(shape[0], dtype=torch.int64)
    with pytest.raises(ValueError, match="batch, classes >= 2"):
        decoupled_loss(z, z, y, 1.0)
    with pytest.raises(ValueError, match="batch, classes >= 2"):
        dist_loss(z, z, 1.0)
