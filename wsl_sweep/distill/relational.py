"""Relational knowledge distillation (Park et al. 2019), and soft label weights on it (WSL A.3, Tab. 8)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def relational_loss(
    student_features: Tensor,
    teacher_features: Tensor,
    weights: Tensor | None = None,
    distance_weight: float = 25.0,
    angle_weight: float = 50.0,
) -> Tensor:
    """How far the student's features are from having the teacher's distances and angles.

    Distances: the Euclidean distances of all pairs of a batch, divided by their mean over those that are not zero;
    smooth-L1 between student and teacher, averaged over all B² pairs. Angles: the cosine at ``i`` between the
    directions to ``j`` and to ``k``, for all triples; smooth-L1, averaged over all B³. Pairs and triples that name an
    example twice count in these means, as in RepDistiller's code, whose weights 25 and 50 belong to them.

    Args:
        student_features: (B, D), or (B, …), which is flattened; the gradient goes here.
        teacher_features: (B, E), a constant to the gradient; E need not be D.
        weights: (B,) soft label weights: a pair's term is multiplied by the mean of its two examples' weights, a
            triple's by the mean of its three (WSL A.3); None for 1.
        distance_weight: of the distances.
        angle_weight: of the angles.

    Returns:
        (), float32 or wider, finite also where examples have the same features. Takes memory of B²·D + B³.

    Raises:
        ValueError: the batches differ in size, or ``weights`` is not (B,).
    """
    student, teacher = _rows(student_features), _rows(teacher_features.detach())
    if len(student) != len(teacher):
        raise ValueError(f"features of different batches: {len(student)} and {len(teacher)} examples")
    if weights is not None and weights.shape != student.shape[:1]:
        raise ValueError(f"weights must have the shape ({len(student)},), not {tuple(weights.shape)}")
    student_differences, teacher_differences = _differences(student), _differences(teacher)
    student_lengths, teacher_lengths = _lengths(student_differences), _lengths(teacher_differences)

    pairs = F.smooth_l1_loss(_by_mean(student_lengths), _by_mean(teacher_lengths), reduction="none")
    triples = F.smooth_l1_loss(
        _cosines(student_differences, student_lengths),
        _cosines(teacher_differences, teacher_lengths),
        reduction="none",
    )
    if weights is not None:
        w = weights.detach().to(pairs.dtype)
        of_pair = (w[:, None] + w[None, :]) / 2
        of_triple = (w[:, None, None] + w[None, :, None] + w[None, None, :]) / 3
        pairs, triples = pairs * of_pair, triples * of_triple
    return distance_weight * pairs.mean() + angle_weight * triples.mean()


def _rows(features: Tensor) -> Tensor:
    rows = features.flatten(1) if features.ndim > 1 else features.unsqueeze(1)
    return rows.to(torch.promote_types(torch.float32, rows.dtype))


def _differences(rows: Tensor) -> Tensor:
    """(B, B, D): at ``i, j`` the direction from example ``i`` to example ``j``."""
    return rows.unsqueeze(0) - rows.unsqueeze(1)


def _lengths(differences: Tensor) -> Tensor:
    """(B, B) lengths whose gradient is 0, not NaN, where they are 0.

    Scaled by the largest entry, so that squares neither overflow nor vanish.
    """
    scale = differences.detach().abs().amax()
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    squares = (differences / scale).square().sum(dim=2)
    apart = squares > 0
    return scale * torch.where(apart, squares, torch.ones_like(squares)).sqrt() * apart


def _by_mean(lengths: Tensor) -> Tensor:
    apart = lengths > 0
    mean = lengths.sum() / apart.sum().clamp(min=1)
    return lengths / torch.where(mean > 0, mean, torch.ones_like(mean))


def _cosines(differences: Tensor, lengths: Tensor) -> Tensor:
    """(B, B, B): at ``i, j, k`` the cosine at ``i`` between ``j`` and ``k``; 0 where a direction does not exist."""
    directions = differences / torch.where(lengths > 0, lengths, torch.ones_like(lengths)).unsqueeze(2)
    return directions @ directions.transpose(1, 2)
