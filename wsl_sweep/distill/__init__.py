"""Losses, soft label weights and regularization samples: pure functions of tensors.

All work per example, in float32 or wider. Nothing here knows of data sets, models or sweeps.
"""

from wsl_sweep.distill.logit_methods import decoupled_loss, dist_loss
from wsl_sweep.distill.losses import (
    distillation_loss,
    label_cross_entropy,
    masked_distillation_loss,
    smoothed_cross_entropy,
)
from wsl_sweep.distill.objective import Objective, Step, StepTerms
from wsl_sweep.distill.regularization import label_logit_gradients, regularization_sample_mask
from wsl_sweep.distill.relational import relational_loss
from wsl_sweep.distill.weighting import soft_label_weights

__all__ = [
    "Objective",
    "Step",
    "StepTerms",
    "decoupled_loss",
    "dist_loss",
    "distillation_loss",
    "label_cross_entropy",
    "label_logit_gradients",
    "masked_distillation_loss",
    "regularization_sample_mask",
    "relational_loss",
    "smoothed_cross_entropy",
    "soft_label_weights",
]
