"""Relational knowledge distillation (Park et al. 2019), and soft label weights on it (WSL A.3, Tab. 8)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

COINCIDENT = 1e-12
"""Examples whose squared distance is less than this share of their squared distances from the mean are one place."""


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
        (), float32 or wider, finite also where examples have the same features. Takes memory of B³ numbers.

    Raises:
        ValueError: the batches differ in size, or ``weights`` is not (B,).
    """
    student, teacher = _rows(student_features), _rows(teacher_features.detach())
    if len(student) != len(teacher):
        raise ValueError(f"features of different batches: {len(student)} and {len(teacher)} examples")
    if weights is not None and weights.shape != student.shape[:1]:
        raise ValueError(f"weights must have the shape ({len(student)},), not {tuple(weights.shape)}")
    student_lengths, student_cosines = _geometry(student)
    teacher_lengths, teacher_cosines = _geometry(teacher)
    pairs = F.smooth_l1_loss(_by_mean(student_lengths), _by_mean(teacher_lengths), reduction="none")
    triples = F.smooth_l1_loss(student_cosines, teacher_cosines, reduction="none")
    if weights is not None:
        w = weights.detach().to(pairs.dtype)
        of_pair = (w[:, None] + w[None, :]) / 2
        of_triple = (w[:, None, None] + w[None, :, None] + w[None, None, :]) / 3
        pairs, triples = pairs * of_pair, triples * of_triple
    loss = distance_weight * pairs.mean() + angle_weight * triples.mean()
    return loss.to(torch.promote_types(torch.float32, student_features.dtype))


def _rows(features: Tensor) -> Tensor:
    """(B, D) in float64."""
    return (features.flatten(1) if features.ndim > 1 else features.unsqueeze(1)).double()


def _geometry(rows: Tensor) -> tuple[Tensor, Tensor]:
    """(B, B) distances; (B, B, B) cosines, at ``i, j, k`` the one at ``i`` between the directions to ``j`` and ``k``.

    From the products of all pairs of rows, so that no direction is ever written down: B²·D multiplications and not
    B³·D. What such differences of products lose in digits, float64 and rows around their mean give back. Where two
    examples coincide their distance, their cosines and all gradients of these are 0.
    """
    rows = rows - rows.detach().mean(dim=0)
    products = rows @ rows.T
    norms = products.diagonal()
    sums = norms[:, None] + norms[None, :]
    squares = sums - 2 * products
    apart = squares.detach() > COINCIDENT * sums.detach()
    lengths = torch.where(apart, squares, torch.ones_like(squares)).sqrt()
    inverse = torch.where(apart, 1 / lengths, torch.zeros_like(lengths))
    inner = products[None, :, :] - products[:, :, None] - products[:, None, :] + norms[:, None, None]
    return lengths * apart, inner * inverse[:, :, None] * inverse[:, None, :]


def _by_mean(lengths: Tensor) -> Tensor:
    apart = (lengths > 0).sum()
    mean = lengths.sum() / apart.clamp(min=1)
    return lengths / torch.where(apart > 0, mean, torch.ones_like(mean))
