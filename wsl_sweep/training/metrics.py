"""What is measured on a student's logits."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from wsl_sweep.data import Examples
from wsl_sweep.data.task import measured_by
from wsl_sweep.distill import distillation_loss, label_cross_entropy

CALIBRATION_BINS = 15
WEIGHT_QUANTILES = {"weight/q05": 0.05, "weight/q25": 0.25, "weight/q50": 0.5, "weight/q75": 0.75, "weight/q95": 0.95}


@torch.no_grad()
def calibration_error(logits: Tensor, labels: Tensor, bins: int = CALIBRATION_BINS) -> Tensor:
    """Expected calibration error (Guo et al. 2017): the mean gap between confidence and accuracy.

    Args:
        logits: (N, C).
        labels: (N,).
        bins: number of equally wide bins of confidence over (0, 1].

    Returns:
        (), in [0, 1]: the sum over bins of ``|mean confidence - accuracy|``, weighted by the bins' sizes.
    """
    confidence, predicted = logits.softmax(dim=1).max(dim=1)
    gap = confidence - (predicted == labels).to(confidence.dtype)
    index = (confidence * bins).ceil().long().clamp(1, bins) - 1
    per_bin = torch.zeros(bins, dtype=gap.dtype, device=gap.device).index_add_(0, index, gap)
    return per_bin.abs().sum() / len(labels)


@torch.no_grad()
def classification_metrics(logits: Tensor, labels: Tensor, prefix: str) -> dict[str, float]:
    """``<prefix>/accuracy`` (a fraction), ``/loss`` (mean cross-entropy in nats) and ``/ece`` of (N, C) logits."""
    correct = (logits.argmax(dim=1) == labels).sum()
    values = torch.stack(
        [
            correct.to(torch.float64) / len(labels),
            label_cross_entropy(logits, labels).to(torch.float64).mean(),
            calibration_error(logits, labels).to(torch.float64),
        ]
    ).tolist()
    return dict(zip((f"{prefix}/accuracy", f"{prefix}/loss", f"{prefix}/ece"), values, strict=True))


@torch.no_grad()
def part_metrics(logits: Tensor, examples: Examples, prefix: str) -> dict[str, float]:
    """As ``classification_metrics``, of the (N, C) logits of a part of a data set; with what its task measures besides.

    Of each of its groups ``<prefix>/accuracy_<group>``; and ``<prefix>/<name>`` of the task's own metrics.
    """
    found = classification_metrics(logits, examples.labels, prefix)
    right = logits.argmax(dim=1) == examples.labels
    for name, rows in examples.groups.items():
        found[f"{prefix}/accuracy_{name}"] = float(right[rows.to(right.device)].to(torch.float64).mean())
    if examples.task is not None:
        own = measured_by(examples.task, logits, examples.labels)
        found |= {f"{prefix}/{name}": value for name, value in own.items()}
    return found


@torch.no_grad()
def teacher_metrics(logits: Tensor, teacher_logits: Tensor) -> dict[str, float]:
    """How near a student is to its teacher, both (N, C).

    ``teacher/agreement``: the fraction of examples on which both name the same class;
    ``teacher/kl``: the mean of ``KL(teacher ‖ student)`` at τ = 1, in nats.
    """
    agreement = (logits.argmax(dim=1) == teacher_logits.argmax(dim=1)).to(torch.float64).mean()
    divergence = distillation_loss(logits, teacher_logits, 1.0).to(torch.float64).mean()
    values = torch.stack([agreement, divergence]).tolist()
    return {"teacher/agreement": values[0], "teacher/kl": values[1]}


@torch.no_grad()
def quantiles(values: Tensor, levels: Sequence[float]) -> list[float]:
    """Quantiles with linear interpolation (Hyndman and Fan's type 7, numpy's and torch's own): of the sorted values,
    counted from 0, the one at ``level · (N - 1)``, between two of them in proportion.

    Interpolated in float64, and of any number of values: ``torch.quantile`` of older versions takes 16 million.

    Args:
        values: (N,), N >= 1.
        levels: each in [0, 1].
    """
    ordered = values.sort().values
    places = [level * (len(ordered) - 1) for level in levels]
    below = [math.floor(place) for place in places]
    above = [math.ceil(place) for place in places]
    ends = ordered[torch.tensor([*below, *above], device=ordered.device)].to(torch.float64).tolist()
    return [
        low + (place - first) * (high - low) if place - first < 0.5 else high - (first + 1 - place) * (high - low)
        for place, first, low, high in zip(places, below, ends[: len(places)], ends[len(places) :], strict=True)
    ]


def weight_metrics(weights: Sequence[Tensor]) -> dict[str, float]:
    """``weight/q05``, ``q25``, ``q50``, ``q75`` and ``q95``: how the soft label weights w of an epoch are distributed.

    Over the same as ``weight/mean``: every example of every step of the epoch, its weight as it was in that step's
    loss, before ``keep`` drops any.

    Args:
        weights: (B,) float32 of each step; together of one example or more.
    """
    return dict(zip(WEIGHT_QUANTILES, quantiles(torch.cat(list(weights)), [*WEIGHT_QUANTILES.values()]), strict=True))
