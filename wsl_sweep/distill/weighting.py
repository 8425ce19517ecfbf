"""The weight w of each example's soft label (WSL eq. 6, Tab. 9)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from wsl_sweep.distill.losses import label_cross_entropy, wide

TEACHER_LOSS_FLOOR = 1e-7
"""Added to the teacher's cross-entropy before dividing by it, as the paper's released code does."""


@torch.no_grad()
def soft_label_weights(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    kind: str = "exp",
    of: str | None = None,
    *,
    value: float | str | None = None,
    generator: torch.Generator | Tensor | None = None,
    teacher_cross_entropy: Tensor | None = None,
) -> Tensor:
    """Weight of each example's distillation loss; a constant to the gradient.

    With ``r = L_s / (L_t + 1e-7)``, the ratio of the student's to the teacher's cross-entropy at τ = 1:

    ============ ============== ======================================================================
    kind         of             w
    ============ ============== ======================================================================
    ``none``                    1, plain distillation
    ``exp``                     ``1 - exp(-r)`` (WSL eq. 6); 0.632 at equal losses, → 1 as L_t → 0
    ``sigmoid``  ``log_ratio``  ``sigmoid(log r) = r / (1 + r)``; the default of ``sigmoid``
    ``sigmoid``  ``difference`` ``sigmoid(L_s - L_t)``
    ``sigmoid``  ``ratio``      ``sigmoid(r)``, so never below 0.5
    ``constant``                ``value`` for all, or with ``value="batch_mean"`` the mean of ``exp``'s weights
    ``permuted``                ``exp``'s weights shuffled within the batch: no link to the example
    ============ ============== ======================================================================

    WSL Tab. 9 compares ``exp`` with "the Sigmoid baseline" and does not give its argument: the three are our
    reading. Each falls as the student outdoes the teacher. ``constant`` and ``permuted`` are controls.

    Args:
        student_logits: (B, C), C >= 2.
        teacher_logits: (B, C).
        labels: (B,), integers in [0, C).
        kind: see above.
        of: the argument of ``sigmoid``; None for every other kind.
        value: for ``constant`` only: a weight >= 0, or ``batch_mean``.
        generator: for ``permuted`` only: where the shuffle is drawn from, or the shuffle itself, a permutation (B,).
        teacher_cross_entropy: (B,), L_t where it is known better than from the logits; None to have it computed.

    Returns:
        (B,), in [0, 1] (``constant``: its value), float32 or wider.

    Raises:
        ValueError: an unknown kind or argument, or shapes that do not fit.
    """
    student, teacher = wide(student_logits, teacher_logits)
    if of is not None and kind != "sigmoid":
        raise ValueError(f"kind {kind!r} takes no argument 'of'; only sigmoid does")
    if value is not None and kind != "constant":
        raise ValueError(f"kind {kind!r} takes no 'value'; only constant does")
    if kind == "none":
        return student.new_ones(student.shape[0])
    if kind == "constant" and value != "batch_mean":
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise ValueError(f"kind 'constant' needs a value: a finite number >= 0, or 'batch_mean', not {value!r}")
        return student.new_full((student.shape[0],), float(value))

    loss_student = label_cross_entropy(student, labels)
    loss_teacher = label_cross_entropy(teacher, labels) if teacher_cross_entropy is None else teacher_cross_entropy
    ratio = loss_student / (loss_teacher + TEACHER_LOSS_FLOOR)
    if kind == "sigmoid":
        if of in (None, "log_ratio"):
            return loss_student / (loss_student + loss_teacher + TEACHER_LOSS_FLOOR)
        if of == "difference":
            return (loss_student - loss_teacher).sigmoid()
        if of == "ratio":
            return ratio.sigmoid()
        raise ValueError(f"unknown argument of sigmoid {of!r}: log_ratio, difference or ratio")
    weights = -torch.expm1(-ratio)
    if kind == "exp":
        return weights
    if kind == "constant":
        return weights.mean().expand_as(weights)
    if kind == "permuted":
        if isinstance(generator, Tensor):
            return weights[generator]
        order = torch.randperm(len(weights), generator=generator, device="cpu")
        return weights[order.to(weights.device)]
    raise ValueError(f"unknown kind of weighting {kind!r}: none, exp, sigmoid, constant or permuted")
