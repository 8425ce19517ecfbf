"""Which leaves of a resolved configuration a training reads. Only these make its identity."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

STEERING: tuple[str, ...] = (
    "dataset.name",
    "dataset.padding",
    "distillation.method",
    "distillation.weighting.kind",
    "optimizer.name",
    "optimizer.momentum",
    "schedule.milestones",
    "teacher.checkpoint",
    "teacher.label_smoothing",
    "teacher.optimizer.name",
    "teacher.optimizer.momentum",
    "teacher.schedule.milestones",
)
"""The leaves whose values decide whether other leaves are read."""


def reads(config: Mapping[str, Any]) -> set[str]:
    """The dotted paths that a training with this (flat, complete) configuration reads.

    ``dataset.root`` and ``teacher.checkpoint`` count as read where they are used, though an identity holds the
    content they lead to, not the place.
    """
    paths = {f"dataset.{leaf}" for leaf in ("name", "validation_fraction", "train_fraction", "label_noise")}
    paths |= {"dataset.padding", "dataset.flip", "dataset.views", "student.model", "precision", "seed"}
    if config.get("dataset.padding"):
        paths.add("dataset.padding_mode")
    paths |= _optimizer("optimizer.", config) | _schedule("schedule.", config) | {"distillation.method"}
    if config.get("distillation.method") != "none":
        paths |= _distillation(config) | _teacher(config)
    return paths


def _distillation(config: Mapping[str, Any]) -> set[str]:
    paths = {f"distillation.{leaf}" for leaf in ("ce_weight", "alpha", "temperature", "mask")}
    paths |= {"distillation.weighting.kind", "distillation.keep.regularization", "distillation.keep.other"}
    kind = config.get("distillation.weighting.kind")
    if kind == "sigmoid":
        paths.add("distillation.weighting.of")
    if kind == "constant":
        paths.add("distillation.weighting.value")
    return paths


def _teacher(config: Mapping[str, Any]) -> set[str]:
    paths = {"teacher.model", "teacher.mode"}
    if config.get("teacher.checkpoint"):
        return paths | {"teacher.checkpoint"}
    paths |= {"teacher.label_smoothing", "teacher.seed"}
    if config.get("teacher.label_smoothing"):
        paths.add("teacher.smoothing")
    return paths | _optimizer("teacher.optimizer.", config) | _schedule("teacher.schedule.", config)


def _optimizer(prefix: str, config: Mapping[str, Any]) -> set[str]:
    paths = {prefix + leaf for leaf in ("name", "lr", "weight_decay")}
    if config.get(f"{prefix}name") == "sgd":
        paths.add(f"{prefix}momentum")
        if config.get(f"{prefix}momentum"):
            paths.add(f"{prefix}nesterov")
    return paths


def _schedule(prefix: str, config: Mapping[str, Any]) -> set[str]:
    paths = {prefix + leaf for leaf in ("epochs", "batch_size", "milestones", "warmup_epochs")}
    if config.get(f"{prefix}milestones"):
        paths.add(f"{prefix}decay")
    return paths


def possible_reads(config: Mapping[str, Any], possible: Mapping[str, Sequence[Any]]) -> set[str]:
    """The paths that are read under at least one assignment of the swept values.

    Args:
        config: flat; what is fixed.
        possible: for each swept path some values it can take; only steering ones matter.
    """
    steering = [path for path in STEERING if path in possible]
    assignments: Iterable[tuple[Any, ...]] = itertools.product(*(possible[path] for path in steering))
    found: set[str] = set()
    for values in itertools.islice(assignments, 20_000):
        found |= reads({**config, **dict(zip(steering, values, strict=True))})
    return found
