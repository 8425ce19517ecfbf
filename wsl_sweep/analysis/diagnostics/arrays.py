"""What the diagnostics share: arrays of logits, read in pieces and computed in float64."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Numbers = NDArray[Any]
"""Logits or log-probabilities of any float type, perhaps a memory map."""
Labels = NDArray[np.int64]
Mask = NDArray[np.bool_]

CELLS = 2**19
"""Numbers of float64 worked on at a time: 4 MiB, which stay in a processor's cache."""


def as_logits(logits: ArrayLike, name: str = "logits") -> Numbers:
    """The logits as they are, (N, C) with N >= 1 and C >= 2; nothing is copied or widened.

    Raises:
        ValueError: another shape, or no numbers.
    """
    array = np.asarray(logits)
    if array.ndim != 2 or array.shape[0] < 1 or array.shape[1] < 2:
        raise ValueError(f"{name} must have the shape (examples >= 1, classes >= 2), not {array.shape}")
    if not (np.issubdtype(array.dtype, np.floating) or np.issubdtype(array.dtype, np.integer)):
        raise ValueError(f"{name} must be numbers, not {array.dtype}")
    return array


def as_labels(labels: ArrayLike, examples: int, classes: int) -> Labels:
    """(N,) int64.

    Raises:
        ValueError: another shape, no whole numbers, or one that is no class.
    """
    array = np.asarray(labels)
    if array.shape != (examples,):
        raise ValueError(f"labels must have the shape ({examples},), not {array.shape}")
    if not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"labels must be whole numbers, not {array.dtype}")
    if array.size and not (array.min() >= 0 and array.max() < classes):
        raise ValueError(f"labels must lie in 0 … {classes - 1}, and go from {array.min()} to {array.max()}")
    return array.astype(np.int64)


def as_masks(masks: ArrayLike, dimensions: int, name: str = "masks") -> Mask:
    """Bool, of so many dimensions, none of them empty.

    Raises:
        ValueError: another shape or type.
    """
    array = np.asarray(masks)
    if array.dtype != np.bool_:
        raise ValueError(f"{name} must be bool, not {array.dtype}")
    if array.ndim != dimensions or 0 in array.shape:
        raise ValueError(f"{name} must have {dimensions} dimensions, none of them empty, not the shape {array.shape}")
    return array


def check_temperature(temperature: float) -> None:
    """Raises ValueError unless ``temperature`` is finite and above 0."""
    if not (math.isfinite(temperature) and temperature > 0):
        raise ValueError(f"temperature must be finite and above 0, not {temperature}")


def as_pair(
    student_logits: ArrayLike, teacher_logits: ArrayLike, labels: ArrayLike, temperature: float
) -> tuple[Numbers, Numbers, Labels]:
    """What a student and a teacher say of the same examples, and their labels, for a temperature; nothing is copied.

    Raises:
        ValueError: shapes, labels or temperature are none.
    """
    student, teacher = as_logits(student_logits, "student logits"), as_logits(teacher_logits, "teacher logits")
    if student.shape != teacher.shape:
        raise ValueError(f"student and teacher logits differ in shape: {student.shape} and {teacher.shape}")
    check_temperature(temperature)
    return student, teacher, as_labels(labels, *student.shape)


def pieces(examples: int, width: int) -> Iterator[slice]:
    """Slices over examples, each of about CELLS numbers where an example has ``width`` of them."""
    step = max(1, CELLS // max(1, width))
    for first in range(0, examples, step):
        yield slice(first, min(examples, first + step))


def wide(logits: Numbers, name: str = "logits") -> Floats:
    """A piece in float64.

    Raises:
        ValueError: one of them is no finite number.
    """
    piece = np.asarray(logits, dtype=np.float64)
    if not np.isfinite(piece).all():
        raise ValueError(f"{name} must be finite: some are NaN or infinite")
    return piece


def log_softmax(logits: Floats) -> Floats:
    """Over the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def softmax(logits: Floats) -> Floats:
    """Over the last axis."""
    raised = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=-1, keepdims=True))


def label_margin(logits: Floats, labels: Labels) -> Floats:
    """``logsumexp_{k != y} z_k - z_y``, of which the sigmoid is ``1 - softmax(z)[y]``; (N, C) → (N,)."""
    rows = np.arange(len(labels))
    others = logits.copy()
    others[rows, labels] = -np.inf
    highest = others.max(axis=1)
    return np.asarray(highest + np.log(np.exp(others - highest[:, None]).sum(axis=1)) - logits[rows, labels])


def label_cross_entropy(logits: Floats, labels: Labels) -> Floats:
    """``-log softmax(z)[y]`` as the softplus of ``label_margin``, which keeps tiny ones; (N, C) → (N,)."""
    return np.asarray(np.logaddexp(0.0, label_margin(logits, labels)))


def add_by_label(total: Floats, values: Floats, labels: Labels) -> None:
    """Adds to ``total``, (classes, V), the sums of (N, V) values over the examples of each class."""
    order = np.argsort(labels, kind="stable")
    present, starts = np.unique(labels[order], return_index=True)
    total[present] += np.add.reduceat(values[order], starts, axis=0)
