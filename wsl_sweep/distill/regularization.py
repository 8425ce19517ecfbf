"""Regularization samples: the examples on which variance reduction outweighs bias reduction (WSL §3.1-3.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from wsl_sweep.distill.losses import check_temperature, label_margin, wide


@torch.no_grad()
def label_logit_gradients(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Gradients on the student's true-class logit of the two parts of the distillation loss (WSL §3.2).

    ``a = ∂L_ce/∂z[y] = p_s[y] - 1`` stands for bias reduction,
    ``b = ∂(L_kd - L_ce)/∂z[y] = τ (p_s^τ[y] - p_t^τ[y]) - (p_s[y] - 1)`` for variance reduction.

    Args:
        student_logits: (B, C), C >= 2.
        teacher_logits: (B, C).
        labels: (B,), integers in [0, C).
        temperature: τ > 0.

    Returns:
        ``(a, b)``, each (B,), float32 or wider; ``a`` in [-1, 0]. Both are computed from the probability of
        *not* the label, so that they keep their precision for a certain student or teacher.
    """
    student, teacher = wide(student_logits, teacher_logits)
    check_temperature(temperature)
    not_label = label_margin(student, labels).sigmoid()
    soft_not_label = label_margin(student / temperature, labels).sigmoid()
    teacher_not_label = label_margin(teacher / temperature, labels).sigmoid()
    return -not_label, temperature * (teacher_not_label - soft_not_label) + not_label


def regularization_sample_mask(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, temperature: float
) -> Tensor:
    """True where an example is a regularization sample: ``|b| > |a|`` (WSL §3.2).

    At τ = 1 this is ``p_s[y] > p_t[y]``.

    Args:
        student_logits: (B, C), C >= 2.
        teacher_logits: (B, C).
        labels: (B,), integers in [0, C).
        temperature: τ > 0.

    Returns:
        (B,) bool.
    """
    a, b = label_logit_gradients(student_logits, teacher_logits, labels, temperature)
    return b.abs() > a.abs()
