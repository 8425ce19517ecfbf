"""Relational distillation: pairs and triples counted one by one, and features that coincide or are huge."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from wsl_sweep.distill import relational_loss

from .reference import Array

steady = settings(deadline=None, max_examples=25, derandomize=True)


def smooth_l1(a: float, b: float) -> float:
    gap = abs(a - b)
    return gap * gap / 2 if gap < 1 else gap - 0.5


def distances(rows: Array) -> list[list[float]]:
    """Euclidean distances over their mean, the zero ones left out of the mean."""
    size = len(rows)
    found = [[math.dist(rows[i].ravel(), rows[j].ravel()) for j in range(size)] for i in range(size)]
    apart = [value for row in found for value in row if value > 0]
    mean = math.fsum(apart) / len(apart) if apart else 1.0
    return [[value / mean for value in row] for row in found]


def cosine(rows: Array, i: int, j: int, k: int) -> float:
    """At example ``i``, between the directions to ``j`` and to ``k``; 0 where one of them is no direction."""
    here, to_j, to_k = rows[i].ravel(), rows[j].ravel(), rows[k].ravel()
    lengths = math.dist(here, to_j) * math.dist(here, to_k)
    if lengths == 0:
        return 0.0
    return math.fsum((b - a) * (c - a) for a, b, c in zip(here, to_j, to_k, strict=True)) / lengths


def by_hand(
    student: Array, teacher: Array, weights: Array | None, distance_weight: float, angle_weight: float
) -> float:
    """RKD in plain loops: the mean over all ordered pairs, and over all ordered triples (Park et al. 2019)."""
    size = len(student)
    w = [1.0] * size if weights is None else [float(weight) for weight in weights]
    own, other = distances(student), distances(teacher)
    pairs = [
        (w[i] + w[j]) / 2 * smooth_l1(own[i][j], other[i][j]) for i in range(size) for j in range(size)
    ]  # fmt: skip
    triples = [
        (w[i] + w[j] + w[k]) / 3 * smooth_l1(cosine(student, i, j, k), cosine(teacher, i, j, k))
        for i in range(size)
        for j in range(size)
        for k in range(size)
    ]
    return distance_weight * math.fsum(pairs) / size**2 + angle_weight * math.fsum(triples) / size**3


def features(size: int, width: int, seed: int) -> Array:
    return np.random.default_rng(seed).normal(0, 1, (size, width))


def tensor(values: Array, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.from_numpy(values).to(dtype)


def value_and_gradient(student: Tensor, teacher: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    leaf = student.detach().clone().requires_grad_()
    loss = relational_loss(leaf, teacher, weights)
    (gradient,) = torch.autograd.grad(loss, leaf)
    return loss.detach(), gradient


# --- the formula -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("distance_weight", "angle_weight"), [(25.0, 50.0), (1.0, 0.0), (0.0, 1.0), (3.0, 0.2)])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("size", "own", "other"), [(5, 4, 4), (7, 3, 11), (6, 9, 1), (2, 3, 2), (3, 1, 1)])
def test_it_is_the_sum_over_pairs_and_triples(
    size: int, own: int, other: int, weighted: bool, distance_weight: float, angle_weight: float
) -> None:
    student, teacher = features(size, own, seed=1), features(size, other, seed=2)
    weights = np.random.default_rng(3).uniform(0, 1, size) if weighted else None
    wanted = by_hand(student, teacher, weights, distance_weight, angle_weight)
    for dtype, near in ((torch.float64, 1e-12), (torch.float32, 2e-6)):
        w = None if weights is None else tensor(weights, dtype)
        found = relational_loss(tensor(student, dtype), tensor(teacher, dtype), w, distance_weight, angle_weight)
        assert found.dtype == dtype
        assert found.shape == ()
        assert found.item() == pytest.approx(wanted, rel=near, abs=near)


def test_both_sides_of_smooth_l1_are_met() -> None:
    """Opposite directions differ by more than 1, where the loss is linear; a squared loss would be found here."""
    student, teacher = np.array([[0.0], [1.0], [2.0]]), np.array([[0.0], [1.0], [-2.0]])
    wanted = by_hand(student, teacher, None, 0.0, 1.0)
    # At 0 the cosine between 1 and 2 turns from 1 to -1: a gap of 2, twice among the 27; at 1, from -1 to 1, twice.
    assert wanted == pytest.approx(4 * 1.5 / 27, rel=1e-15)
    assert relational_loss(tensor(student), tensor(teacher), None, 0.0, 1.0).item() == pytest.approx(wanted, rel=1e-14)


def test_unless_told_distances_weigh_25_and_angles_50() -> None:
    student, teacher = features(5, 3, seed=4), features(5, 4, seed=5)
    found = relational_loss(tensor(student), tensor(teacher)).item()
    assert found == pytest.approx(by_hand(student, teacher, None, 25.0, 50.0), rel=1e-12)


def test_a_pair_has_the_mean_weight_of_its_two_and_a_triple_of_its_three() -> None:
    """One example alone has weight: 1/2 of a pair's term once in it, 1/3 of a triple's."""
    student, teacher, size = features(5, 3, seed=6), features(5, 4, seed=7), 5
    for heavy in range(size):
        weights = np.eye(size)[heavy]
        wanted = by_hand(student, teacher, weights, 25.0, 50.0)
        found = relational_loss(tensor(student), tensor(teacher), tensor(weights)).item()
        assert found == pytest.approx(wanted, rel=1e-12)
    ones = torch.ones(size, dtype=torch.float64)
    alone = [relational_loss(tensor(student), tensor(teacher), row).item() for row in torch.eye(size).double()]
    whole = relational_loss(tensor(student), tensor(teacher)).item()
    assert math.fsum(alone) == pytest.approx(whole, rel=1e-12)
    assert relational_loss(tensor(student), tensor(teacher), ones).item() == pytest.approx(whole, rel=1e-14)
    assert relational_loss(tensor(student), tensor(teacher), 0.3 * ones).item() == pytest.approx(0.3 * whole, rel=1e-13)


def test_features_of_more_dimensions_are_flattened() -> None:
    student, teacher = features(4, 12, seed=8), features(4, 8, seed=9)
    flat = relational_loss(tensor(student), tensor(teacher))
    found = relational_loss(tensor(student).reshape(4, 3, 2, 2), tensor(teacher).reshape(4, 2, 4))
    assert torch.equal(found, flat)
    single = relational_loss(tensor(student)[:, 0], tensor(teacher)[:, :1])
    assert torch.equal(single, relational_loss(tensor(student)[:, :1], tensor(teacher)[:, 0]))
    assert single.item() == pytest.approx(by_hand(student[:, :1], teacher[:, :1], None, 25.0, 50.0), rel=1e-12)


def test_examples_that_coincide_are_left_out_of_the_mean_distance_and_have_no_directions() -> None:
    student, teacher = features(6, 3, seed=10), features(6, 4, seed=11)
    student[3] = student[0]
    teacher[5] = teacher[1]
    weights = np.linspace(0.1, 0.9, 6)
    found = relational_loss(tensor(student), tensor(teacher), tensor(weights)).item()
    assert found == pytest.approx(by_hand(student, teacher, weights, 25.0, 50.0), rel=1e-12)


# --- gradients -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("distance_weight", "angle_weight"), [(25.0, 0.0), (0.0, 50.0), (25.0, 50.0)])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_gradient_is_that_of_finite_differences(
    distance_weight: float, angle_weight: float, weighted: bool
) -> None:
    student, teacher = tensor(features(5, 3, seed=12)).requires_grad_(), tensor(features(5, 4, seed=13))
    weights = torch.linspace(0.1, 0.9, 5, dtype=torch.float64) if weighted else None

    def loss(leaf: Tensor) -> Tensor:
        return relational_loss(leaf, teacher, weights, distance_weight, angle_weight)

    assert torch.autograd.gradcheck(loss, student)
    (gradient,) = torch.autograd.grad(loss(student), student)
    assert (gradient != 0).all()


def test_no_gradient_reaches_the_teacher_or_the_weights() -> None:
    student, teacher = tensor(features(5, 3, seed=14)), tensor(features(5, 3, seed=15))
    weights = torch.full((5,), 0.5, dtype=torch.float64)
    for leaf in (student, teacher, weights):
        leaf.requires_grad_()
    relational_loss(student, teacher, weights).backward()
    assert student.grad is not None
    assert teacher.grad is None
    assert weights.grad is None


def test_moving_all_features_together_has_no_gradient() -> None:
    _, gradient = value_and_gradient(tensor(features(6, 4, seed=16)), tensor(features(6, 3, seed=17)))
    np.testing.assert_allclose(gradient.sum(dim=0).numpy(), 0, atol=1e-13)


# --- what does not change it -----------------------------------------------------------------------


@st.composite
def movements(draw: st.DrawFn) -> tuple[float, Array, Array]:
    """A scale, an orthogonal matrix and a shift, in four dimensions."""
    rough = draw(arrays(np.float64, (4, 4), elements=st.floats(-1, 1))) + 5 * np.eye(4)[[2, 0, 3, 1]]
    orthogonal, _ = np.linalg.qr(rough)
    return draw(st.floats(1e-3, 1e3)), orthogonal, draw(arrays(np.float64, 4, elements=st.floats(-10, 10)))


@given(of_student=movements(), of_teacher=movements())
@steady
def test_scaling_rotating_and_shifting_features_leaves_it_as_it_is(
    of_student: tuple[float, Array, Array], of_teacher: tuple[float, Array, Array]
) -> None:
    student, teacher = features(6, 4, seed=18), features(6, 4, seed=19)
    weights = torch.linspace(0, 1, 6, dtype=torch.float64)
    moved = [
        tensor(scale * (values @ turn + shift))
        for values, (scale, turn, shift) in ((student, of_student), (teacher, of_teacher))
    ]
    before = relational_loss(tensor(student), tensor(teacher), weights)
    torch.testing.assert_close(relational_loss(moved[0], moved[1], weights), before, rtol=1e-9, atol=1e-9)


@given(of_student=movements())
@steady
def test_a_student_that_is_its_teacher_scaled_turned_and_shifted_has_nothing_to_learn(
    of_student: tuple[float, Array, Array],
) -> None:
    teacher, (scale, turn, shift) = features(6, 4, seed=20), of_student
    loss, gradient = value_and_gradient(tensor(scale * (teacher @ turn + shift)), tensor(teacher))
    assert 0 <= loss.item() < 1e-15
    assert gradient.abs().max().item() * scale < 1e-6


def test_the_same_features_give_exactly_nothing() -> None:
    values = tensor(features(6, 4, seed=21), torch.float32)
    loss, gradient = value_and_gradient(values, values)
    assert loss.item() == 0.0
    assert (gradient == 0).all()


def test_it_does_not_depend_on_the_order_of_the_examples() -> None:
    student, teacher = tensor(features(6, 4, seed=22)), tensor(features(6, 3, seed=23))
    weights, order = torch.linspace(0, 1, 6, dtype=torch.float64), torch.tensor([3, 1, 5, 0, 2, 4])
    before = relational_loss(student, teacher, weights)
    after = relational_loss(student[order], teacher[order], weights[order])
    torch.testing.assert_close(after, before, rtol=1e-12, atol=1e-12)
    wrong = relational_loss(student[order], teacher, weights)
    assert abs(wrong.item() - before.item()) > 1e-3


# --- numbers that stay numbers ---------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("alike", ["two", "all but one", "all"])
@pytest.mark.parametrize("whose", ["student", "teacher", "both"])
def test_features_that_coincide_have_a_finite_loss_and_gradient(dtype: torch.dtype, alike: str, whose: str) -> None:
    student, teacher = features(6, 4, seed=24), features(6, 3, seed=25)
    for name, values in (("student", student), ("teacher", teacher)):
        if whose in (name, "both"):
            values[: {"two": 2, "all but one": 5, "all": 6}[alike]] = values[0]
    weights = torch.linspace(0, 1, 6, dtype=dtype)
    loss, gradient = value_and_gradient(tensor(student, dtype), tensor(teacher, dtype), weights)
    wanted = by_hand(student, teacher, np.linspace(0, 1, 6), 25.0, 50.0)
    assert loss.item() == pytest.approx(wanted, rel=1e-5 if dtype == torch.float32 else 1e-12, abs=1e-12)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("width", [64, 257])
def test_many_wide_features_that_coincide_are_no_noise(width: int) -> None:
    """Distances of nothing but rounding would count in the mean, and their directions be anything."""
    student, teacher = 3 + features(9, width, seed=41), features(9, 5, seed=42)
    student[[1, 2, 5, 8]] = student[0]
    loss, gradient = value_and_gradient(tensor(student), tensor(teacher))
    assert loss.item() == pytest.approx(by_hand(student, teacher, None, 25.0, 50.0), rel=1e-12)
    assert gradient.abs().max().item() < 1


def test_a_batch_of_one_has_no_relations() -> None:
    loss, gradient = value_and_gradient(tensor(features(1, 4, seed=26)), tensor(features(1, 3, seed=27)))
    assert loss.item() == 0.0
    assert (gradient == 0).all()


def test_two_examples_are_related_as_any_two() -> None:
    """Their one distance is its own mean, and their one direction makes no angle but with itself."""
    loss, gradient = value_and_gradient(tensor(features(2, 4, seed=28)), tensor(features(2, 3, seed=29)))
    assert loss.item() == pytest.approx(0.0, abs=1e-13)
    np.testing.assert_allclose(gradient.numpy(), 0, atol=1e-12)
    alike = tensor(np.ones((2, 4)))
    loss, gradient = value_and_gradient(alike, tensor(features(2, 3, seed=29)))
    assert loss.item() == pytest.approx(by_hand(np.ones((2, 4)), features(2, 3, seed=29), None, 25.0, 50.0), rel=1e-12)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("exponent", [-20, -10, 10, 20])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_size_of_the_features_does_not_matter_even_where_squares_overflow(
    exponent: int, dtype: torch.dtype
) -> None:
    student, teacher = tensor(features(6, 4, seed=30), dtype), tensor(features(6, 3, seed=31), dtype)
    scale, near = 10.0**exponent, 1e-5 if dtype == torch.float32 else 1e-10
    before, slope = value_and_gradient(student, teacher)
    for of_student, of_teacher in ((scale, 1.0), (1.0, scale), (scale, scale)):
        loss, gradient = value_and_gradient(student * of_student, teacher * of_teacher)
        assert loss.item() == pytest.approx(before.item(), rel=near)
        torch.testing.assert_close(gradient * of_student, slope, rtol=10 * near, atol=10 * near)


@pytest.mark.parametrize("far", [1e3, 1e5, 1e6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_example_far_out_leaves_the_others_their_angles(far: float, dtype: torch.dtype) -> None:
    student = np.array([[far, 0.0], [0.0, 0.0], [10.0, 0.0], [0.0, 7.0]])
    teacher = features(4, 2, seed=32)
    teacher = tensor(teacher, dtype).double().numpy()  # as rounded
    loss, gradient = value_and_gradient(tensor(student, dtype), tensor(teacher, dtype))
    assert loss.item() == pytest.approx(by_hand(student, teacher, None, 25.0, 50.0), rel=1e-4)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("far", [1e10, 1e20, 1e30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_example_however_far_out_gives_a_bounded_loss_and_a_finite_gradient(far: float, dtype: torch.dtype) -> None:
    """Beside it the others are one place. Cosines differ by 2 at the most, distances over their mean by 16."""
    student = torch.tensor([[far, 0.0], [0.0, 0.0], [10.0, 0.0], [0.0, 1e-20]], dtype=dtype)
    loss, gradient = value_and_gradient(student, tensor(features(4, 2, seed=32), dtype))
    assert 0 <= loss.item() <= 25.0 * 16 + 50.0 * 2
    assert gradient.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_all_features_have_in_common_costs_no_digits(dtype: torch.dtype) -> None:
    """Features of 1e4 ± 1, as behind a rectifier; and pairs a thousandth of the spread apart, as late in a training."""
    student, teacher = 1e4 + features(6, 4, seed=37), features(6, 3, seed=38)
    teacher[1] = teacher[0] + 1e-3
    rounded = [tensor(values, dtype).double().numpy() for values in (student, teacher)]
    found, _ = value_and_gradient(tensor(student, dtype), tensor(teacher, dtype))
    near = 1e-6 if dtype == torch.float32 else 1e-9
    assert found.item() == pytest.approx(by_hand(rounded[0], rounded[1], None, 25.0, 50.0), rel=near)


@pytest.mark.parametrize("gap", [1e-3, 1e-5, 1e-7, 1e-9, 1e-12, 1e-16])
def test_examples_that_all_but_coincide_have_a_finite_gradient(gap: float) -> None:
    student = features(6, 4, seed=39)
    student[1] = student[0] + gap
    loss, gradient = value_and_gradient(tensor(student), tensor(features(6, 3, seed=40)))
    assert loss.isfinite()
    assert gradient.isfinite().all()
    assert gradient.abs().max().item() < 100 / max(gap, 1e-7)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened_to_float32_before_anything_else(half: torch.dtype) -> None:
    student, teacher = tensor(features(6, 4, seed=33), half), tensor(features(6, 3, seed=34), half)
    found = relational_loss(student, teacher, torch.linspace(0, 1, 6).to(half))
    assert found.dtype == torch.float32
    wanted = relational_loss(student.float(), teacher.float(), torch.linspace(0, 1, 6).to(half).float())
    assert torch.equal(found, wanted)
    big = torch.tensor([[6e4], [-6e4], [0.0]], dtype=torch.float16)  # whose distance no float16 holds
    assert relational_loss(big, big).item() == 0.0


def test_the_loss_has_the_students_dtype_whatever_the_teachers() -> None:
    student, teacher = tensor(features(6, 4, seed=35)), tensor(features(6, 3, seed=36))
    assert relational_loss(student.float(), teacher).dtype == torch.float32
    assert relational_loss(student, teacher.half()).dtype == torch.float64
    leaf = student.float().requires_grad_()
    (gradient,) = torch.autograd.grad(relational_loss(leaf, teacher), leaf)
    assert gradient.dtype == torch.float32


# --- mistakes --------------------------------------------------------------------------------------


def test_batches_of_different_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="different batches: 4 and 5"):
        relational_loss(torch.zeros(4, 3), torch.zeros(5, 3))


@pytest.mark.parametrize("shape", [(), (3,), (4, 1), (1,)])
def test_weights_are_one_an_example(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"weights must have the shape \(4,\), not "):
        relational_loss(torch.zeros(4, 3), torch.zeros(4, 3), torch.ones(shape))
