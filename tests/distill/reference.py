"""The formulas written out in numpy, in float64, by their definitions: what the package is held against."""

from __future__ import annotations

from decimal import Decimal, localcontext

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
"""Relative and absolute, between the package in a dtype and the reference."""


def draw(batch: int, classes: int, seed: int, scale: float = 3.0) -> tuple[Array, Array, Labels]:
    """Logits of a student and of a teacher, and labels."""
    generator = np.random.default_rng(seed)
    student = generator.normal(0, scale, (batch, classes))
    teacher = generator.normal(0, scale, (batch, classes))
    return student, teacher, generator.integers(0, classes, batch)


def tensors(*arrays: Array | Labels, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    """The arrays as tensors: integers stay integers, floats become ``dtype``."""
    return tuple(
        torch.from_numpy(array) if array.dtype == np.int64 else torch.from_numpy(array).to(dtype) for array in arrays
    )


def softmax(logits: Array, temperature: float = 1.0) -> Array:
    scaled = logits / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def at(values: Array, labels: Labels) -> Array:
    return np.asarray(values[np.arange(len(labels)), labels])


def one_hot(labels: Labels, classes: int) -> Array:
    return np.asarray(np.eye(classes)[labels])


def cross_entropy(logits: Array, labels: Labels) -> Array:
    return np.asarray(-np.log(at(softmax(logits), labels)))


def kl(p: Array, q: Array) -> Array:
    return np.asarray((p * (np.log(p) - np.log(q))).sum(axis=1))


def distillation(student: Array, teacher: Array, temperature: float) -> Array:
    return temperature**2 * kl(softmax(teacher, temperature), softmax(student, temperature))


def wrong_classes(values: Array, labels: Labels) -> Array:
    """(B, C-1): each row without its label's column."""
    batch, classes = values.shape
    return values[np.arange(classes) != labels[:, None]].reshape(batch, classes - 1)


def drop_term(student: Array, teacher: Array, labels: Labels, temperature: float) -> Array:
    terms = softmax(teacher, temperature) * np.log(softmax(student, temperature))
    return np.asarray(-(temperature**2) * wrong_classes(terms, labels).sum(axis=1))


def renormalised(student: Array, teacher: Array, labels: Labels, temperature: float) -> Array:
    return distillation(wrong_classes(student, labels), wrong_classes(teacher, labels), temperature)


def exp_weights(student: Array, teacher: Array, labels: Labels) -> Array:
    ratio = cross_entropy(student, labels) / (cross_entropy(teacher, labels) + 1e-7)
    return np.asarray(1 - np.exp(-ratio))


def precise_cross_entropy(logits: Array, labels: Labels) -> list[Decimal]:
    """``-log softmax(z)[y]`` by definition, in sixty decimal digits: no rounding that a float could show."""
    with localcontext() as context:
        context.prec = 60
        losses = []
        for row, label in zip(logits, labels, strict=True):
            powers = [Decimal(float(value)).exp() for value in row]
            losses.append(-(powers[label] / sum(powers)).ln())
        return losses


def precise_exp_weights(student: Array, teacher: Array, labels: Labels) -> Array:
    with localcontext() as context:
        context.prec = 60
        pairs = zip(precise_cross_entropy(student, labels), precise_cross_entropy(teacher, labels), strict=True)
        return np.array([float(1 - (-own / (other + Decimal("1e-7"))).exp()) for own, other in pairs])


def assert_near(found: Tensor, wanted: Array, dtype: torch.dtype) -> None:
    """Equal to the tolerance of ``dtype``, and of that dtype."""
    assert found.dtype == dtype
    tolerance = TOLERANCE[dtype]
    np.testing.assert_allclose(found.detach().double().numpy(), wanted, rtol=tolerance, atol=tolerance)
