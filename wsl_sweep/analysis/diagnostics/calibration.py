"""Calibration: whether a model is as right as it is sure."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from wsl_sweep.analysis.diagnostics.arrays import (
    Floats,
    Labels,
    Numbers,
    as_labels,
    as_logits,
    check_temperature,
    label_cross_entropy,
    pieces,
    softmax,
    wide,
)

BINS = 15
"""As ``wsl_sweep.training.metrics.calibration_error``."""

LOWEST, HIGHEST = 0.01, 100.0
"""Between these the best temperature is looked for."""


@dataclass(frozen=True)
class ReliabilityBin:
    """The examples whose confidence lies in ``(low, high]``; the first bin holds 0, too.

    Attributes:
        low, high: its ends.
        count: how many examples.
        confidence: their mean highest probability; None for none.
        accuracy: the share of them that is right; None for none.
    """

    low: float
    high: float
    count: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Calibration:
    """How sure a model is, and how right.

    Attributes:
        temperature: the logits were divided by it.
        examples: N.
        error: expected calibration error (Guo et al. 2017), in [0, 1]: the sum over bins of
            ``count / N · |confidence - accuracy|``.
        accuracy: the share that is right, in [0, 1].
        confidence: the mean highest probability.
        gap: ``confidence - accuracy``; above 0 the model is surer than it is right.
        gap_error: the standard error of ``gap`` over examples.
        loss: mean cross-entropy, in nats.
        bins: for a reliability plot, from the least sure on.
    """

    temperature: float
    examples: int
    error: float
    accuracy: float
    confidence: float
    gap: float
    gap_error: float
    loss: float
    bins: tuple[ReliabilityBin, ...]


@dataclass(frozen=True)
class BestTemperature:
    """The temperature with the lowest mean cross-entropy.

    Attributes:
        temperature: in [0.01, 100]; above 1 the model is too sure, below 1 not sure enough.
        loss: mean cross-entropy at it, in nats.
        loss_before: at temperature 1.
        at_bound: there is no lowest: the loss still falls at the end of the range. That is so where every label has the
            highest logit (towards 0), and where the logits say nothing of the labels (towards infinity).
    """

    temperature: float
    loss: float
    loss_before: float
    at_bound: bool


def calibration(logits: ArrayLike, labels: ArrayLike, temperature: float = 1.0, bins: int = BINS) -> Calibration:
    """Expected calibration error (Guo et al. 2017, eq. 3) with its bins, equally wide over (0, 1].

    The bins and the error are those of ``wsl_sweep.training.metrics.calibration_error``, in float64. Of equal logits
    the first counts as the highest.

    Args:
        logits: (N, C), finite.
        labels: (N,), in [0, C).
        temperature: by which the logits are divided, above 0.
        bins: how many, at least 1.

    Raises:
        ValueError: shapes, labels, temperature or bins are none, or a logit is not finite.
    """
    given = as_logits(logits)
    right_labels = as_labels(labels, *given.shape)
    check_temperature(temperature)
    if bins < 1:
        raise ValueError(f"calibration takes one bin or more, not {bins}")
    confidence, right, loss = _by_example(given, right_labels, temperature)
    place = np.clip(np.ceil(confidence * bins).astype(np.int64), 1, bins) - 1
    counts = np.bincount(place, minlength=bins)
    sure, correct = (np.bincount(place, weights=values, minlength=bins) for values in (confidence, right))
    gaps = confidence - right
    n = len(gaps)
    return Calibration(
        temperature=temperature,
        examples=n,
        error=float(np.abs(sure - correct).sum() / n),
        accuracy=float(right.mean()),
        confidence=float(confidence.mean()),
        gap=float(gaps.mean()),
        gap_error=float(gaps.std(ddof=1) / math.sqrt(n)) if n > 1 else math.inf,
        loss=float(loss.mean()),
        bins=tuple(
            ReliabilityBin(
                low=index / bins,
                high=(index + 1) / bins,
                count=int(count),
                confidence=float(sure[index] / count) if count else None,
                accuracy=float(correct[index] / count) if count else None,
            )
            for index, count in enumerate(counts)
        ),
    )


def _by_example(logits: Numbers, labels: Labels, temperature: float) -> tuple[Floats, Floats, Floats]:
    """Confidence, right or wrong as 1 or 0, and cross-entropy."""
    found = np.empty((3, len(labels)))
    for part in pieces(*logits.shape):
        piece = wide(logits[part])
        softened = piece / temperature
        found[0, part] = softmax(softened).max(axis=1)
        found[1, part] = piece.argmax(axis=1) == labels[part]
        found[2, part] = label_cross_entropy(softened, labels[part])
    return found[0], found[1], found[2]


def best_temperature(logits: ArrayLike, labels: ArrayLike) -> BestTemperature:
    """Temperature scaling (Guo et al. 2017, §4.2): the T with the lowest mean ``-log softmax(z/T)[y]``.

    The loss is convex in β = 1/T, so its slope ``mean(Σ_c p_c z_c - z_y)`` has one zero, which is looked for in the
    logarithm of T. It is fitted to the examples that it is given: with a thousand of them or more its one parameter
    hardly flatters the loss.

    Args:
        logits: (N, C), finite.
        labels: (N,), in [0, C).

    Raises:
        ValueError: shapes or labels are none, or a logit is not finite.
    """
    from scipy.optimize import brentq

    given = as_logits(logits)
    right_labels = as_labels(labels, *given.shape)

    def slope(log_temperature: float) -> float:
        total = 0.0
        for part in pieces(*given.shape):
            piece = wide(given[part])
            piece = piece - piece.max(axis=1, keepdims=True)
            expected = (softmax(piece / math.exp(log_temperature)) * piece).sum(axis=1)
            total += float((expected - piece[np.arange(len(piece)), right_labels[part]]).sum())
        return total / len(right_labels)

    low, high = math.log(LOWEST), math.log(HIGHEST)
    sharp, flat = slope(low), slope(high)
    if sharp == flat == 0:  # all logits of an example are the same
        found, at_bound = 1.0, True
    elif sharp <= 0:  # more of it would still be better
        found, at_bound = LOWEST, True
    elif flat >= 0:
        found, at_bound = HIGHEST, True
    else:
        found, at_bound = math.exp(float(brentq(slope, low, high, xtol=1e-10))), False
    losses = [float(_by_example(given, right_labels, one)[2].mean()) for one in (found, 1.0)]
    return BestTemperature(found, losses[0], losses[1], at_bound)
