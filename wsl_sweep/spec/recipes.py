"""Recipes: named defaults for everything in ``run``; and what an arm's short name stands for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wsl_sweep.spec.run import flatten

DEFAULTS: dict[str, Any] = flatten(
    {
        "dataset": {
            "validation_fraction": 0.2,
            "train_fraction": 1.0,
            "label_noise": 0.0,
            "padding": 0,
            "padding_mode": "zeros",
            "flip": False,
            "views": "all",
        },
        "teacher": {
            "label_smoothing": 0.0,
            "smoothing": "all",
            "mode": "eval",
            "seed": 0,
            "schedule": {"milestones": [], "decay": 0.1, "warmup_epochs": 0},
            "optimizer": {"name": "sgd", "momentum": 0.9, "nesterov": False, "weight_decay": 5e-4},
        },
        "distillation": {
            "method": "kd",
            "temperature": 4.0,
            "mask": "none",
            "weighting": {"kind": "exp", "of": "log_ratio", "value": "batch_mean"},
            "keep": {"regularization": 1.0, "other": 1.0},
        },
        "optimizer": {"name": "sgd", "momentum": 0.9, "nesterov": False, "weight_decay": 5e-4},
        "schedule": {"milestones": [], "decay": 0.1, "warmup_epochs": 0},
        "precision": "auto",
        "seed": 0,
    }
)
"""What holds where neither the recipe nor the file says otherwise."""


def method_defaults(method: str, weighting: str) -> dict[str, float]:
    """``ce_weight`` and ``alpha`` of a method. They belong to the method, never to the data.

    Weighted soft labels: 1 and 2.25 (WSL §5.2, CIFAR-100). Unweighted distillation: 1 and 1. The paper's
    2.25 multiplies a weight below 1 and would be another method without it.
    """
    if method == "none":
        return {}
    return {"ce_weight": 1.0, "alpha": 1.0 if weighting == "none" else 2.25}


NAMED: dict[str, dict[str, Any]] = {
    "ce": {"distillation.method": "none"},
    "kd": {"distillation.method": "kd", "distillation.weighting.kind": "none"},
    "wsl": {"distillation.method": "kd", "distillation.weighting.kind": "exp"},
    "kd_repdistiller": {
        "distillation.method": "kd",
        "distillation.weighting.kind": "none",
        "distillation.ce_weight": 0.1,
        "distillation.alpha": 0.9,
    },
}
"""The names that may stand wherever an arm, a variant or a baseline is named."""


@dataclass(frozen=True)
class Recipe:
    """Named defaults.

    Attributes:
        name: as in ``run.recipe``.
        description: one line for ``wsl-sweep recipes``.
        values: by dotted path.
    """

    name: str
    description: str
    values: Mapping[str, Any]


_DIGITS = Recipe(
    name="digits",
    description="scikit-learn's 1,797 handwritten digits, 8x8; trains on one core in seconds",
    values=flatten(
        {
            "dataset": {"name": "digits", "validation_fraction": 0.3, "train_fraction": 0.4, "padding": 1},
            "teacher": {
                "model": "convnet_32",
                "schedule": {"epochs": 60, "batch_size": 64, "milestones": [36, 48]},
                "optimizer": {"lr": 0.05},
            },
            "student": {"model": "convnet_4"},
            "schedule": {"epochs": 40, "batch_size": 64, "milestones": [24, 32]},
            "optimizer": {"lr": 0.1},
        }
    ),
)

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in (_DIGITS,)}
