"""Which leaves a training reads: only these make its identity, and the others are mistakes in a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from wsl_sweep.spec.reads import STEERING, possible_reads, reads
from wsl_sweep.spec.recipes import DEFAULTS, RECIPES
from wsl_sweep.spec.run import leaves

COMPLETE: dict[str, Any] = {
    **DEFAULTS,
    **RECIPES["digits"].values,
    "distillation.alpha": 2.25,
    "distillation.ce_weight": 1.0,
}


@pytest.mark.parametrize(
    ("leaf", "steering", "where", "where_not"),
    [
        ("distillation.weighting.of", "distillation.weighting.kind", "sigmoid", "exp"),
        ("distillation.weighting.value", "distillation.weighting.kind", "constant", "sigmoid"),
        ("dataset.padding_mode", "dataset.padding", 1, 0),
        ("optimizer.momentum", "optimizer.name", "sgd", "adamw"),
        ("optimizer.nesterov", "optimizer.name", "sgd", "adamw"),
        ("optimizer.nesterov", "optimizer.momentum", 0.9, 0.0),
        ("schedule.decay", "schedule.milestones", [3], []),
        ("teacher.smoothing", "teacher.label_smoothing", 0.1, 0.0),
        ("teacher.optimizer.momentum", "teacher.optimizer.name", "sgd", "adamw"),
        ("teacher.optimizer.nesterov", "teacher.optimizer.momentum", 0.9, 0.0),
        ("teacher.schedule.decay", "teacher.schedule.milestones", [3], []),
        ("teacher.checkpoint", "teacher.checkpoint", "t.safetensors", None),
        ("teacher.seed", "teacher.checkpoint", None, "t.safetensors"),
        ("teacher.schedule.epochs", "teacher.checkpoint", None, "t.safetensors"),
        ("teacher.label_smoothing", "teacher.checkpoint", None, "t.safetensors"),
        ("distillation.alpha", "distillation.method", "kd", "none"),
        ("distillation.temperature", "distillation.method", "kd", "none"),
        ("distillation.weighting.kind", "distillation.method", "kd", "none"),
        ("distillation.keep.other", "distillation.method", "kd", "none"),
        ("teacher.model", "distillation.method", "kd", "none"),
        ("teacher.mode", "distillation.method", "kd", "none"),
    ],
)
def test_some_leaves_are_read_only_under_some_value_of_another(
    leaf: str, steering: str, where: Any, where_not: Any
) -> None:
    assert leaf in reads({**COMPLETE, steering: where})
    assert leaf not in reads({**COMPLETE, steering: where_not})
    assert steering in STEERING


@pytest.mark.parametrize("method", ["kd", "none"])
@pytest.mark.parametrize(
    "leaf",
    ["seed", "precision", "student.model", "dataset.name", "dataset.label_noise", "optimizer.lr", "schedule.epochs"],
)
def test_what_makes_a_student_is_read_by_every_method(leaf: str, method: str) -> None:
    assert leaf in reads({**COMPLETE, "distillation.method": method})


def test_a_teacher_that_is_brought_in_reads_nothing_of_how_one_is_trained() -> None:
    read = reads({**COMPLETE, "teacher.checkpoint": "t.safetensors"})
    assert {path for path in read if path.startswith("teacher.")} == {
        "teacher.model",
        "teacher.mode",
        "teacher.checkpoint",
    }


@pytest.mark.parametrize("kind", ["none", "exp", "sigmoid", "constant", "permuted"])
def test_only_leaves_of_run_are_read_and_the_recipe_gives_them_all_a_value(kind: str) -> None:
    config = {**COMPLETE, "distillation.weighting.kind": kind}
    assert reads(config) <= set(leaves())
    assert reads(config) <= set(config)


def complete(config: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
    return lambda params: {**config, **params}


def test_every_leaf_is_read_by_some_training() -> None:
    possible: dict[str, list[Any]] = {
        "recipe": ["digits"],
        "dataset.name": ["digits", "image_folder", "imagenet", "mnli"],
        "dataset.damaged": ["skip"],
        "dataset.splits": [1, 3],
        "distillation.method": ["kd", "dkd", "dist", "rkd"],
        "distillation.weighting.kind": ["sigmoid", "constant"],
        "dataset.padding": [1],
        "teacher.label_smoothing": [0.1],
        "teacher.checkpoint": [None, "t.safetensors"],
        **{f"{whose}init": ["bert-base-cased"] for whose in ("student.", "teacher.")},
        "student.batchnorm": ["sync"],
        **{f"{whose}optimizer.decay_on": ["weights"] for whose in ("", "teacher.")},
        **{f"{whose}schedule.shape": ["steps", "linear"] for whose in ("", "teacher.")},
    }
    assert set(leaves()) == possible_reads(complete(COMPLETE), possible)


def test_what_a_sweep_reads_is_what_any_of_its_values_reads() -> None:
    config = {**COMPLETE, "distillation.weighting.kind": "exp"}
    possible: dict[str, list[Any]] = {"distillation.weighting.kind": ["exp", "constant"], "distillation.alpha": [1, 2]}
    gained = possible_reads(complete(config), possible) - possible_reads(complete(config), {})
    assert gained == {"distillation.weighting.value"}


def test_steering_values_are_taken_together() -> None:
    config = {**COMPLETE, "distillation.method": "none", "distillation.weighting.kind": "exp"}
    alone = possible_reads(complete(config), {"distillation.weighting.kind": ["exp", "sigmoid"]})
    assert "distillation.weighting.of" not in alone
    both = {"distillation.weighting.kind": ["exp", "sigmoid"], "distillation.method": ["none", "kd"]}
    assert "distillation.weighting.of" in possible_reads(complete(config), both)
