"""Soft label weights: the formulas, their precision near certain teachers, and the controls."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from wsl_sweep.distill import label_cross_entropy, soft_label_weights

from .reference import assert_near, cross_entropy, draw, exp_weights, precise_exp_weights, tensors

KINDS: list[tuple[str, str | None, float | str | None]] = [
    ("none", None, None),
    ("exp", None, None),
    ("sigmoid", None, None),
    ("sigmoid", "log_ratio", None),
    ("sigmoid", "difference", None),
    ("sigmoid", "ratio", None),
    ("constant", None, 0.3),
    ("constant", None, "batch_mean"),
    ("permuted", None, None),
]


def weights(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    kind: str,
    of: str | None = None,
    value: float | str | None = None,
) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return soft_label_weights(student, teacher, labels, kind, of, value=value, generator=generator)


def with_loss(losses: list[float]) -> Tensor:
    """(B, 2) float64 logits whose cross-entropy with class 0 is as given."""
    return torch.tensor([[-math.log(math.expm1(loss)), 0.0] for loss in losses], dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("classes", [2, 10])
def test_each_kind_is_its_formula(dtype: torch.dtype, classes: int) -> None:
    student, teacher, labels = draw(40, classes, seed=1)
    s, t, y = tensors(student, teacher, labels, dtype=dtype)
    own, other = cross_entropy(student, labels), cross_entropy(teacher, labels)
    ratio = own / (other + 1e-7)
    exp = exp_weights(student, teacher, labels)
    assert_near(weights(s, t, y, "none"), np.ones(40), dtype)
    assert_near(weights(s, t, y, "exp"), exp, dtype)
    assert_near(weights(s, t, y, "sigmoid"), ratio / (1 + ratio), dtype)
    assert_near(weights(s, t, y, "sigmoid", "log_ratio"), ratio / (1 + ratio), dtype)
    assert_near(weights(s, t, y, "sigmoid", "difference"), 1 / (1 + np.exp(other - own)), dtype)
    assert_near(weights(s, t, y, "sigmoid", "ratio"), 1 / (1 + np.exp(-ratio)), dtype)
    assert_near(weights(s, t, y, "constant", value=0.3), np.full(40, 0.3), dtype)
    assert_near(weights(s, t, y, "constant", value="batch_mean"), np.full(40, exp.mean()), dtype)


def test_equal_losses_weigh_0_632() -> None:
    logits, _, labels = draw(20, 10, seed=2)
    z, y = tensors(logits, labels)
    np.testing.assert_allclose(weights(z, z, y, "exp").numpy(), 1 - math.exp(-1), atol=1e-4)


def test_the_weight_rises_to_one_as_the_teacher_becomes_certain() -> None:
    teacher = with_loss([1.0, 0.5, 0.1, 1e-2, 1e-4, 1e-8])
    student, labels = with_loss([0.5] * 6), torch.zeros(6, dtype=torch.int64)
    w = weights(student, teacher, labels, "exp")
    assert (w.diff() >= 0).all()
    assert w[0] == pytest.approx(1 - math.exp(-0.5), abs=1e-6)
    assert w[-1] == 1.0


def test_the_weight_falls_to_zero_as_the_student_becomes_certain() -> None:
    student = with_loss([1.0, 0.1, 1e-3, 1e-6, 1e-12])
    teacher, labels = with_loss([0.5] * 5), torch.zeros(5, dtype=torch.int64)
    w = weights(student, teacher, labels, "exp")
    assert (w.diff() < 0).all()
    np.testing.assert_allclose(w[-2:].numpy(), [2e-6, 2e-12], rtol=1e-5)


def test_a_student_as_certain_as_its_teacher_weighs_little_where_both_know() -> None:
    """The 1e-7 under the ratio: at losses of 1e-9 the weight is near 0.01, not 0.632."""
    both, labels = with_loss([1e-9]), torch.zeros(1, dtype=torch.int64)
    assert weights(both, both, labels, "exp").item() == pytest.approx(1e-9 / 1.01e-7, rel=0.01)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("classes", [2, 10, 100])
def test_the_weight_is_precise_near_certain_teachers(dtype: torch.dtype, classes: int) -> None:
    """Teachers' losses from 1 down to 1e-18, students' in the same decades: within 5e-6 everywhere."""
    generator = np.random.default_rng(3)
    labels = generator.integers(0, classes, 120)
    student, teacher = (generator.normal(0, 1, (120, classes)).astype(np.float32) for _ in range(2))
    rows, margins = np.arange(120), np.linspace(0, 42, 120, dtype=np.float32)
    teacher[rows, labels] = margins
    student[rows, labels] = margins + generator.normal(0, 1.5, 120).astype(np.float32)
    wanted = precise_exp_weights(student.astype(np.float64), teacher.astype(np.float64), labels)
    assert wanted.min() < 1e-3
    assert wanted.max() > 0.99
    s, t, y = (torch.from_numpy(array) for array in (student, teacher, labels))
    found = weights(s.to(dtype), t.to(dtype), y, "exp")
    assert found.dtype == dtype
    assert np.abs(found.double().numpy() - wanted).max() < (5e-6 if dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize("of", [None, "log_ratio", "difference", "ratio"])
def test_each_sigmoid_falls_as_the_student_outdoes_the_teacher(of: str | None) -> None:
    student = with_loss([4.0, 2.0, 1.0, 0.5, 0.2, 0.05])
    teacher, labels = with_loss([0.7] * 6), torch.zeros(6, dtype=torch.int64)
    w = weights(student, teacher, labels, "sigmoid", of)
    assert (w.diff() < 0).all()


def test_the_sigmoid_of_the_ratio_never_falls_below_a_half() -> None:
    student, teacher = with_loss([1e-12, 5.0]), with_loss([5.0, 1e-12])
    w = weights(student, teacher, torch.zeros(2, dtype=torch.int64), "sigmoid", "ratio")
    assert w[0] == pytest.approx(0.5, abs=1e-9)
    assert w[1] == 1.0


def test_the_batch_mean_is_one_number_for_all_bit_for_bit() -> None:
    student, teacher, labels = draw(33, 10, seed=4)
    s, t, y = tensors(student, teacher, labels, dtype=torch.float32)
    w = weights(s, t, y, "constant", value="batch_mean")
    assert w.shape == (33,)
    assert len(w.unique()) == 1


def test_permuted_weights_are_the_same_weights_on_other_examples() -> None:
    student, teacher, labels = draw(64, 10, seed=5)
    s, t, y = tensors(student, teacher, labels, dtype=torch.float32)
    plain, permuted = weights(s, t, y, "exp"), weights(s, t, y, "permuted")
    assert torch.equal(permuted.sort().values, plain.sort().values)
    assert (permuted != plain).sum() > 50


def test_the_shuffle_is_its_generators_alone() -> None:
    student, teacher, labels = draw(64, 10, seed=6)
    s, t, y = tensors(student, teacher, labels)

    def shuffled(seed: int) -> Tensor:
        torch.rand(1)  # the global random state moves on and does not matter
        generator = torch.Generator().manual_seed(seed)
        return soft_label_weights(s, t, y, "permuted", generator=generator)

    assert torch.equal(shuffled(1), shuffled(1))
    assert not torch.equal(shuffled(1), shuffled(2))


@pytest.mark.parametrize(("kind", "of", "value"), KINDS)
def test_weights_are_constants_to_the_gradient(kind: str, of: str | None, value: float | str | None) -> None:
    student, teacher, labels = draw(6, 5, seed=7)
    s, t, y = tensors(student, teacher, labels)
    s.requires_grad_()
    t.requires_grad_()
    assert not weights(s, t, y, kind, of, value).requires_grad


@pytest.mark.parametrize(("kind", "of", "value"), KINDS)
@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened_to_float32(
    kind: str, of: str | None, value: float | str | None, half: torch.dtype
) -> None:
    student, teacher, labels = draw(6, 5, seed=8)
    s, t, y = tensors(student, teacher, labels, dtype=half)
    found = weights(s, t, y, kind, of, value)
    assert found.dtype == torch.float32
    assert torch.equal(found, weights(s.float(), t.float(), y, kind, of, value))


@pytest.mark.parametrize(("kind", "of", "value"), KINDS)
@pytest.mark.parametrize("classes", [2, 10])
def test_weights_are_finite_for_huge_logits(kind: str, of: str | None, value: float | str | None, classes: int) -> None:
    sure = torch.full((classes, classes), -1e4).fill_diagonal_(1e4)
    rows = torch.cartesian_prod(torch.arange(classes), torch.arange(classes))
    labels = torch.arange(len(rows)) % classes
    w = weights(sure[rows[:, 0]], sure[rows[:, 1]], labels, kind, of, value)
    assert w.isfinite().all()
    assert (w >= 0).all()
    assert (w <= 1).all()


@given(data=st.data())
@settings(deadline=None, max_examples=40, derandomize=True)
def test_weights_lie_between_zero_and_one(data: st.DataObject) -> None:
    batch, classes = data.draw(st.integers(1, 6)), data.draw(st.integers(2, 5))
    width = data.draw(st.sampled_from([16, 32]))
    logits = arrays(np.dtype(f"float{width}"), (batch, classes), elements=st.floats(-1000, 1000, width=width))
    s, t = (torch.from_numpy(data.draw(logits)) for _ in range(2))
    y = torch.from_numpy(data.draw(arrays(np.int64, batch, elements=st.integers(0, classes - 1))))
    for kind, of, value in KINDS:
        w = weights(s, t, y, kind, of, value)
        assert w.shape == (batch,)
        assert ((w >= 0) & (w <= 1)).all(), (kind, of, value)


@given(data=st.data())
@settings(deadline=None, max_examples=25, derandomize=True)
def test_the_weight_tells_who_is_the_better(data: st.DataObject) -> None:
    """Above 0.632 exactly where the student's loss is above the teacher's (and its floor of 1e-7)."""
    logits = arrays(np.float64, (4, 3), elements=st.floats(-8, 8))
    s, t = (torch.from_numpy(data.draw(logits)) for _ in range(2))
    y = torch.from_numpy(data.draw(arrays(np.int64, 4, elements=st.integers(0, 2))))
    gap = label_cross_entropy(s, y) - label_cross_entropy(t, y) - 1e-7
    clear = gap.abs() > 1e-6
    w = weights(s, t, y, "exp")
    assert torch.equal((w > 1 - math.exp(-1))[clear], (gap > 0)[clear])


def test_an_unknown_kind_or_argument_is_refused_with_the_known_ones() -> None:
    z, y = torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match="'softmax': none, exp, sigmoid, constant or permuted"):
        soft_label_weights(z, z, y, "softmax")
    with pytest.raises(ValueError, match="'loss': log_ratio, difference or ratio"):
        soft_label_weights(z, z, y, "sigmoid", "loss")


@pytest.mark.parametrize("kind", ["none", "exp", "constant", "permuted"])
def test_only_sigmoid_has_an_argument(kind: str) -> None:
    z, y = torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match="'of'"):
        soft_label_weights(z, z, y, kind, "ratio")


@pytest.mark.parametrize("kind", ["none", "exp", "sigmoid", "permuted"])
def test_only_constant_has_a_value(kind: str) -> None:
    z, y = torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match="'value'"):
        soft_label_weights(z, z, y, kind, value=0.5)


@pytest.mark.parametrize("value", [None, "mean"])
def test_a_constant_needs_its_value(value: str | None) -> None:
    z, y = torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match="batch_mean"):
        soft_label_weights(z, z, y, "constant", value=value)


def test_shapes_that_do_not_fit_are_refused() -> None:
    y = torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match="different shapes"):
        soft_label_weights(torch.zeros(2, 3), torch.zeros(2, 4), y)
    with pytest.raises(ValueError, match="labels"):
        soft_label_weights(torch.zeros(3, 3), torch.zeros(3, 3), y)
