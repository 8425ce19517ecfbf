"""What a student minimises, put together from the ``distillation`` section of a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from wsl_sweep.distill.losses import label_cross_entropy
from wsl_sweep.distill.methods import Batch, make_method
from wsl_sweep.distill.regularization import regularization_sample_mask
from wsl_sweep.distill.weighting import soft_label_weights
from wsl_sweep.errors import WslSweepError

Draw = torch.Generator | Tensor
"""Random numbers, or the CPU generator that they come from."""


@dataclass(frozen=True)
class Step:
    """What a loss may look at in one step of a training.

    Attributes:
        logits: (B, C) of the model that is trained; the gradient goes here.
        labels: (B,), integers in [0, C).
        teacher_logits: (B, C), or None without a teacher.
        features: (B, D) of the model, or None where they are not asked for.
        teacher_features: (B, E), or None.
        epoch: counted from 1.
        epochs: how many are planned.
        keeping: the draws of the probabilistic dropping, (B,) in [0, 1), or where they are drawn from.
        permuting: the permutation of the ``permuted`` weighting, (B,), or where it is drawn from.
        teacher_cross_entropy: (B,) of ``teacher_logits``, in nats; None to have it computed from them.
    """

    logits: Tensor
    labels: Tensor
    teacher_logits: Tensor | None = None
    features: Tensor | None = None
    teacher_features: Tensor | None = None
    epoch: int = 1
    epochs: int = 1
    keeping: Draw | None = None
    permuting: Draw | None = None
    teacher_cross_entropy: Tensor | None = None


@dataclass(frozen=True)
class StepTerms:
    """One batch's loss and what it was made of.

    Attributes:
        loss: (), the batch's mean of ``ce_weight · L_ce + alpha · w · L_method``.
        cross_entropy: (B,), detached, in nats.
        weights: (B,), the soft label weights w; None where the method takes none.
        regularization_samples: (B,) bool; None where there is no temperature to tell them by.
    """

    loss: Tensor
    cross_entropy: Tensor
    weights: Tensor | None = None
    regularization_samples: Tensor | None = None


class Objective:
    """``ce_weight · L_ce + alpha · w · L_method``, averaged over the batch (WSL eq. 6 and §5.2).

    Args:
        distillation: the resolved ``distillation`` section: ``method`` (``none``, ``kd``, ``dkd``, ``dist``, ``rkd`` or
            ``package.module:name``) and, with any but ``none``, ``ce_weight``, ``alpha`` and what the method reads of
            ``temperature``, ``mask``, ``weighting``, ``keep`` and its own settings.

    The cross-entropy term always stays. ``keep`` holds two probabilities: each regularization sample's
    distillation term is kept with ``regularization``, every other example's with ``other``, drawn afresh at
    every step (WSL Tab. 2, 5, 7). A method that belongs to the batch (``dist``, ``rkd``) is not averaged over examples;
    ``rkd`` takes the weights into its pairs and triples.

    Raises:
        ValueError: an unknown method.
        WslSweepError: a user's own method is not found, or does not fit its weighting.
    """

    def __init__(self, distillation: Mapping[str, Any]) -> None:
        self.method: str = distillation["method"]
        self.distils = self.method != "none"
        self.needs_features = False
        if not self.distils:
            return
        made = make_method(distillation)
        self._loss, self.needs_features, self._takes_weights = made.loss, made.needs_features, made.weighs
        self._settled_from = made.settled_from
        self.ce_weight = float(distillation["ce_weight"])
        self.alpha = float(distillation["alpha"])
        temperature = distillation.get("temperature")
        self.temperature = None if temperature is None else float(temperature)
        weighting = distillation.get("weighting", {})
        self.kind: str | None = weighting.get("kind")
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
        student_features: Tensor | None = None,
        teacher_features: Tensor | None = None,
        epoch: int = 1,
        epochs: int = 1,
        keeping: Draw | None = None,
        permuting: Draw | None = None,
        teacher_cross_entropy: Tensor | None = None,
    ) -> StepTerms:
        """The loss of one batch; the arguments are those of ``Step``."""
        student_logits = _at_least_float32(student_logits)
        cross_entropy = label_cross_entropy(student_logits, labels)
        if not self.distils:
            return StepTerms(loss=cross_entropy.mean(), cross_entropy=cross_entropy.detach())
        if teacher_logits is None:
            raise ValueError(f"method {self.method!r} needs the teacher's logits")
        weights = None
        if self.kind is not None:
            weights = soft_label_weights(
                student_logits,
                teacher_logits,
                labels,
                self.kind,
                self.of,
                value=self.value,
                generator=permuting,
                teacher_cross_entropy=teacher_cross_entropy,
            )
        batch = Batch(
            student_logits,
            teacher_logits.detach(),
            labels,
            weights,
            None if student_features is None else _at_least_float32(student_features),
            None if teacher_features is None else _at_least_float32(teacher_features.detach()),
            epoch,
            epochs,
        )
        distillation = self._loss(batch)
        regularization = None
        if self.temperature is not None:
            regularization = regularization_sample_mask(student_logits, teacher_logits, labels, self.temperature)
        if distillation.ndim == 1:
            loss = self._by_example(cross_entropy, distillation, weights, regularization, keeping)
        else:
            self._check_whole_batch()
            loss = self.ce_weight * cross_entropy.mean() + self.alpha * distillation
        return StepTerms(loss, cross_entropy.detach(), weights, regularization)

    def step(self, step: Step) -> StepTerms:
        """As a call, from a ``Step``."""
        return self(
            step.logits,
            step.teacher_logits,
            step.labels,
            student_features=step.features,
            teacher_features=step.teacher_features,
            epoch=step.epoch,
            epochs=step.epochs,
            keeping=step.keeping,
            permuting=step.permuting,
            teacher_cross_entropy=step.teacher_cross_entropy,
        )

    @property
    def draws(self) -> frozenset[str]:
        """The random numbers that it reads: ``keeping``, ``permuting``."""
        if not self.distils:
            return frozenset()
        keeps = {"keeping"} if min(self.keep_regularization, self.keep_other) < 1.0 else set()
        return frozenset(keeps | ({"permuting"} if self.kind == "permuted" else set()))

    @property
    def weighs(self) -> bool:
        """Whether it weights soft labels otherwise than plain distillation does, all of them with 1."""
        return self.distils and self.kind not in (None, "none")

    def settled(self, epoch: int) -> bool:
        """Whether it computes the same at every step from ``epoch`` (from 1) on; a user's own method may not."""
        return not self.distils or epoch >= self._settled_from

    def _by_example(
        self,
        cross_entropy: Tensor,
        distillation: Tensor,
        weights: Tensor | None,
        regularization: Tensor | None,
        keeping: Draw | None,
    ) -> Tensor:
        if self.keep_regularization < 1.0 or self.keep_other < 1.0:
            assert regularization is not None
            if isinstance(keeping, Tensor):
                draw = keeping
            else:
                draw = torch.rand(len(distillation), generator=keeping, dtype=torch.float32).to(distillation.device)
            keep = torch.where(regularization, self.keep_regularization, self.keep_other)
            # Not a product: a loss that is infinite where it is left out must not become NaN.
            distillation = torch.where(draw < keep, distillation, torch.zeros_like(distillation))
        weight: float | Tensor = self.alpha if weights is None else self.alpha * weights
        return (self.ce_weight * cross_entropy + weight * distillation).mean()

    def _check_whole_batch(self) -> None:
        keeps_all = self.keep_regularization == 1.0 and self.keep_other == 1.0
        if self._takes_weights or (self.kind in (None, "none") and keeps_all):
            return
        raise WslSweepError(
            f"{self.method} gives one loss for a batch: distillation.weighting.kind must be none and keep 1, not "
            f"{self.kind} and {self.keep_regularization:g}, {self.keep_other:g}"
        )


def _at_least_float32(values: Tensor) -> Tensor:
    return values.float() if values.dtype.itemsize < 4 else values
