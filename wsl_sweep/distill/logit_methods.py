"""Two later distillation losses on logits, as baselines: DKD (Zhao et al. 2022) and DIST (Huang et al. 2022)."""

from __future__ import annotations

import torch
from torch import Tensor

from wsl_sweep.distill.losses import check_temperature, label_margin, masked_distillation_loss, wide

_CORRELATION_FLOOR = 1e-8
"""Added to the product of two norms before dividing by it, as DIST's released code does."""


def decoupled_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    temperature: float,
    target_weight: float = 1.0,
    non_target_weight: float = 8.0,
) -> Tensor:
    """Decoupled distillation, ``τ² (target_weight · TCKD + non_target_weight · NCKD)`` (Zhao et al. 2022, eq. 7).

    TCKD is the KL divergence of "the label or not"; NCKD that of the distributions over the wrong classes, which plain
    distillation would multiply by ``1 - p_t[y]``.

    Args:
        student_logits: (B, C), C >= 2; the gradient goes here.
        teacher_logits: (B, C), a constant to the gradient.
        labels: (B,), integers in [0, C).
        temperature: τ > 0; 4 on CIFAR-100.
        target_weight: 1 in the authors' code.
        non_target_weight: by the pair: 2, 6 or 8 on CIFAR-100.

    Returns:
        (B,), in nats times τ², >= 0 up to rounding, float32 or wider.
    """
    student, teacher = wide(student_logits, teacher_logits.detach())
    check_temperature(temperature)
    of_student = label_margin(student / temperature, labels)
    of_teacher = label_margin(teacher / temperature, labels)
    # The label's probability is sigmoid(-margin); softplus(±margin) is minus its logarithm, and minus the rest's.
    label = (-of_teacher).sigmoid() * (_softplus(of_student) - _softplus(of_teacher))
    rest = of_teacher.sigmoid() * (_softplus(-of_student) - _softplus(-of_teacher))
    others = masked_distillation_loss(student, teacher, labels, temperature, "renormalised")
    return target_weight * temperature**2 * (label + rest) + non_target_weight * others


def _softplus(values: Tensor) -> Tensor:
    return torch.logaddexp(values, torch.zeros_like(values))


def dist_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float,
    inter_weight: float = 1.0,
    intra_weight: float = 1.0,
) -> Tensor:
    """DIST: one minus Pearson's correlation between the soft labels of student and teacher (Huang et al. 2022, §3).

    The inter-class term correlates the classes of each example, the intra-class term the examples of each class over
    the batch. The latter belongs to classes, so that DIST has no value an example and takes no weights of examples.

    Args:
        student_logits: (B, C), C >= 2; the gradient goes here.
        teacher_logits: (B, C), a constant to the gradient.
        temperature: τ > 0; 4 on CIFAR-100, 1 on ImageNet.
        inter_weight: of the inter-class term.
        intra_weight: of the intra-class term.

    Returns:
        (), times τ², in [0, 2 τ² (inter_weight + intra_weight)], float32 or wider.
    """
    student, teacher = wide(student_logits, teacher_logits.detach())
    check_temperature(temperature)
    p_student, p_teacher = (student / temperature).softmax(dim=1), (teacher / temperature).softmax(dim=1)
    inter = 1 - _correlation(p_student, p_teacher).mean()
    intra = 1 - _correlation(p_student.T, p_teacher.T).mean()
    return temperature**2 * (inter_weight * inter + intra_weight * intra)


def _correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's correlation of each row of ``a`` with that of ``b``; 0 where one is constant."""
    a, b = a - a.mean(dim=1, keepdim=True), b - b.mean(dim=1, keepdim=True)
    norms: Tensor = torch.linalg.vector_norm(a, dim=1) * torch.linalg.vector_norm(b, dim=1)
    correlation: Tensor = (a * b).sum(dim=1) / (norms + _CORRELATION_FLOOR)
    return correlation
