"""What a student minimises, put together from the ``distillation`` section of a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from wsl_sweep.distill.losses import (
    distillation_loss,
    label_cross_entropy,
    masked_distillation_loss,
)
from wsl_sweep.distill.regularization import regularization_sample_mask
from wsl_sweep.distill.weighting import soft_label_weights


@dataclass(frozen=True)
class StepTerms:
    """One batch's loss and what it was made of.

    Attributes:
        loss: (), the batch's mean of ``ce_weight · L_ce + alpha · w · L_method``.
        cross_entropy: (B,), detached, in nats.
        weights: (B,), the soft label weights w; None without distillation.
        regularization_samples: (B,) bool; None without distillation.
    """

    loss: Tensor
    cross_entropy: Tensor
    weights: Tensor | None = None
    regularization_samples: Tensor | None = None


class Objective:
    """``ce_weight · L_ce + alpha · w · L_method``, averaged over the batch (WSL eq. 6 and §5.2).

    Args:
        distillation: the resolved ``distillation`` section: ``method`` (``none`` or ``kd``) and, with ``kd``,
            ``ce_weight``, ``alpha``, ``temperature``, ``mask``, ``weighting`` and ``keep``.

    The cross-entropy term always stays. ``keep`` holds two probabilities: each regularization sample's
    distillation term is kept with ``regularization``, every other example's with ``other``, drawn afresh at
    every step (WSL Tab. 2, 5, 7).
    """

    def __init__(self, distillation: Mapping[str, Any]) -> None:
        self.method: str = distillation["method"]
        if self.method not in ("none", "kd"):
            raise ValueError(f"unknown distillation method {self.method!r}: none or kd")
        self.distils = self.method != "none"
        if not self.distils:
            return
        self.ce_weight = float(distillation["ce_weight"])
        self.alpha = float(distillation["alpha"])
        self.temperature = float(distillation["temperature"])
        self.mask: Any = distillation.get("mask", "none")
        weighting = distillation["weighting"]
        self.kind: str = weighting["kind"]
        self.of: str | None = weighting.get("of")
        self.value: float | str | None = weighting.get("value")
        keep = distillation.get("keep", {})
        self.keep_regularization = float(keep.get("regularization", 1.0))
        self.keep_other = float(keep.get("other", 1.0))

    def __call__(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor | None,
        labels: Tensor,
        *,
        keeping: torch.Generator | None = None,
        permuting: torch.Generator | None = None,
    ) -> StepTerms:
        """The loss of one batch.

        Args:
            student_logits: (B, C); the gradient goes here.
            teacher_logits: (B, C); None without distillation.
            labels: (B,), integers in [0, C).
            keeping: where the probabilistic dropping is drawn from (a CPU generator).
            permuting: where the ``permuted`` weighting is drawn from (a CPU generator).
        """
        student_logits = student_logits.float() if student_logits.dtype.itemsize < 4 else student_logits
        cross_entropy = label_cross_entropy(student_logits, labels)
        if not self.distils:
            return StepTerms(loss=cross_entropy.mean(), cross_entropy=cross_entropy.detach())
        if teacher_logits is None:
            raise ValueError(f"method {self.method!r} needs the teacher's logits")
        if self.mask == "none":
            distillation = distillation_loss(student_logits, teacher_logits, self.temperature)
        else:
            distillation = masked_distillation_loss(student_logits, teacher_logits, labels, self.temperature, self.mask)
        weights = soft_label_weights(
            student_logits, teacher_logits, labels, self.kind, self.of, value=self.value, generator=permuting
        )
        regularization = regularization_sample_mask(student_logits, teacher_logits, labels, self.temperature)
        if self.keep_regularization < 1.0 or self.keep_other < 1.0:
            draw = torch.rand(len(labels), generator=keeping, dtype=torch.float32).to(weights.device)
            keep = torch.where(regularization, self.keep_regularization, self.keep_other)
            distillation = distillation * (draw < keep)
        loss = self.ce_weight * cross_entropy + self.alpha * weights * distillation
        return StepTerms(loss.mean(), cross_entropy.detach(), weights, regularization)
