"""Cross-entropy and distillation losses, one value an example."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

Mask = Literal["drop_term", "detach", "renormalised"]


def wide(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors in one dtype, float32 at the least: half precision is widened, float64 stays.

    Raises ValueError where a shape is not (B, C) with C >= 2, or where the shapes differ.
    """
    shape = tensors[0].shape
    for tensor in tensors:
        if tensor.ndim != 2 or tensor.shape[1] < 2:
            raise ValueError(f"logits must have the shape (batch, classes >= 2), not {tuple(tensor.shape)}")
        if tensor.shape != shape:
            raise ValueError(f"logits of different shapes: {tuple(shape)} and {tuple(tensor.shape)}")
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return tuple(tensor.to(dtype) for tensor in tensors)


def check_temperature(temperature: float) -> None:
    """Raises ValueError unless ``temperature`` is finite and above 0."""
    if not (math.isfinite(temperature) and temperature > 0):
        raise ValueError(f"temperature must be finite and above 0, not {temperature}")


def label_mask(logits: Tensor, labels: Tensor) -> Tensor:
    """(B, C) bool, True at each example's label. ``labels``: (B,) integers in [0, C)."""
    if labels.shape != logits.shape[:1]:
        raise ValueError(f"labels must have the shape ({logits.shape[0]},), not {tuple(labels.shape)}")
    classes = torch.arange(logits.shape[1], device=logits.device)
    return classes == labels.unsqueeze(1)


def label_margin(logits: Tensor, labels: Tensor) -> Tensor:
    """(B,) ``logsumexp_{k != y} z_k - z_y``: minus the log-odds of the label.

    The probability of the label is ``sigmoid(-margin)`` and its cross-entropy ``softplus(margin)``, both to
    full relative precision where ``log_softmax`` has lost every digit (a certain model).
    """
    others = logits.masked_fill(label_mask(logits, labels), -math.inf).logsumexp(dim=1)
    return others - logits.gather(1, labels.long().unsqueeze(1)).squeeze(1)


def label_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy with the true class, ``-log softmax(z)[y]``.

    Args:
        logits: (B, C), C >= 2.
        labels: (B,), integers in [0, C).

    Returns:
        (B,), in nats, >= 0, float32 or wider. Computed as ``softplus(logsumexp_{k != y} z_k - z_y)``, which
        keeps the relative precision of tiny losses; the soft label weights divide by the teacher's.
    """
    (logits,) = wide(logits)
    margin = label_margin(logits, labels)
    return torch.logaddexp(margin, torch.zeros_like(margin))


def smoothed_cross_entropy(
    logits: Tensor, labels: Tensor, smoothing: float, over: Literal["all", "others"] = "all"
) -> Tensor:
    """Cross-entropy with a smoothed label, for training a teacher (Szegedy et al. 2016).

    Args:
        logits: (B, C).
        labels: (B,), integers in [0, C).
        smoothing: ε in [0, 1).
        over: ``all`` puts ε/C on every class (PyTorch's convention), ``others`` ε/(C-1) on the wrong ones
            ("Is Label Smoothing Truly Incompatible with Knowledge Distillation", Shen et al. 2021).

    Returns:
        (B,), in nats.
    """
    if not 0.0 <= smoothing < 1.0:
        raise ValueError(f"label smoothing must lie in [0, 1), not {smoothing}")
    (logits,) = wide(logits)
    hard = label_cross_entropy(logits, labels)
    if smoothing == 0.0:
        return hard
    negative = -logits.log_softmax(dim=1)
    if over not in ("all", "others"):
        raise ValueError(f"unknown convention {over!r} of label smoothing: all or others")
    if over == "all":
        return (1 - smoothing) * hard + smoothing * negative.mean(dim=1)
    wrong = negative.masked_fill(label_mask(logits, labels), 0.0).sum(dim=1) / (logits.shape[1] - 1)
    return (1 - smoothing) * hard + smoothing * wrong


def distillation_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Distillation loss of Hinton et al. (2015): ``τ² · KL(softmax(z_t/τ) ‖ softmax(z_s/τ))``.

    Args:
        student_logits: (B, C); the gradient goes here.
        teacher_logits: (B, C); a constant to the gradient.
        temperature: τ > 0.

    Returns:
        (B,), in nats times τ², >= 0 up to rounding, float32 or wider.

    Raises:
        ValueError: shapes differ, fewer than two classes, or τ not above 0.
    """
    student, teacher = wide(student_logits, teacher_logits.detach())
    check_temperature(temperature)
    log_student = (student / temperature).log_softmax(dim=1)
    log_teacher = (teacher / temperature).log_softmax(dim=1)
    return temperature**2 * (log_teacher.exp() * (log_teacher - log_student)).sum(dim=1)


def masked_distillation_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    temperature: float,
    mask: Mask = "drop_term",
) -> Tensor:
    """Distillation without the true class (WSL §3.3, Tab. 2), in one of three readings.

    The paper writes ``L*_kd = -τ² Σ_{k≠y} p_t[k] log p_s[k]`` and says that its gradient on ``z_s[y]`` is 0.
    The sum's own gradient there is ``τ (1 - p_t[y]) p_s[y] > 0``, because the normaliser holds ``z_s[y]``; so
    the sentence and the formula are two different losses, and all readings are offered.

    Args:
        student_logits: (B, C); the gradient goes here.
        teacher_logits: (B, C); a constant to the gradient.
        labels: (B,), integers in [0, C).
        temperature: τ > 0.
        mask: ``drop_term`` is the formula; ``detach`` is the distillation loss with ``z_s[y]`` a constant to the
            gradient; ``renormalised`` takes both softmaxes over the wrong classes only (the non-target term of
            DKD, Zhao et al. 2022).

    Returns:
        (B,), in nats times τ², float32 or wider.
    """
    student, teacher = wide(student_logits, teacher_logits.detach())
    check_temperature(temperature)
    at_label = label_mask(student, labels)
    if mask == "detach":
        return distillation_loss(torch.where(at_label, student.detach(), student), teacher, temperature)
    if mask == "drop_term":
        log_student = (student / temperature).log_softmax(dim=1)
        soft_labels = (teacher / temperature).softmax(dim=1)
        return -(temperature**2) * (soft_labels * log_student).masked_fill(at_label, 0.0).sum(dim=1)
    if mask == "renormalised":
        log_student = (student / temperature).masked_fill(at_label, -math.inf).log_softmax(dim=1)
        log_teacher = (teacher / temperature).masked_fill(at_label, -math.inf).log_softmax(dim=1)
        difference = (log_teacher - log_student).masked_fill(at_label, 0.0)
        return temperature**2 * (log_teacher.exp() * difference).sum(dim=1)
    raise ValueError(f"unknown mask {mask!r}: drop_term, detach or renormalised")
