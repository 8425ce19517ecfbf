"""Which leaves of a resolved configuration a training reads. Only these make its identity."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from wsl_sweep.spec.datasets import data_set
from wsl_sweep.spec.recipes import weighting_kind

STEERING: tuple[str, ...] = (
    "recipe",
    "dataset.name",
    "dataset.padding",
    "dataset.damaged",
    "dataset.splits",
    "distillation.method",
    "distillation.kd_weight",
    "distillation.weighting.kind",
    "optimizer.name",
    "optimizer.momentum",
    "optimizer.decay_on",
    "schedule.milestones",
    "schedule.shape",
    "student.init",
    "student.batchnorm",
    "teacher.checkpoint",
    "teacher.label_smoothing",
    "teacher.optimizer.name",
    "teacher.optimizer.momentum",
    "teacher.optimizer.decay_on",
    "teacher.schedule.milestones",
    "teacher.schedule.shape",
    "teacher.init",
)
"""The leaves whose values decide whether other leaves are read."""

OWN_SETTINGS: dict[str, tuple[str, ...]] = {
    "kd": ("mask",),
    "dkd": ("target_weight", "non_target_weight", "warmup_epochs"),
    "dist": ("inter_weight", "intra_weight"),
    "rkd": ("distance_weight", "angle_weight", "kd_weight"),
}
"""What a method reads of ``distillation`` that others do not."""

NO_EXAMPLE_WEIGHTS = ("dist",)
"""Methods whose loss belongs to a batch, so that no example's part of it can be weighted."""

NO_KEEPING = ("dist", "rkd")
"""Methods of whose loss no example's part can be left out."""


def reads(config: Mapping[str, Any]) -> set[str]:
    """The dotted paths that a training with this (flat, complete) configuration reads.

    ``dataset.root`` and ``teacher.checkpoint`` count as read where they are used, though an identity holds the
    content they lead to, not the place; ``recipe`` counts where there is one, though its values are what is read.
    """
    paths = {"recipe"} if config.get("recipe") else set()
    paths |= _dataset(config) | {"student.model", "precision", "seed"}
    paths |= _optimizer("optimizer.", config) | _schedule("schedule.", config) | {"distillation.method"}
    paths |= _unusual("student.", config, init="random", batchnorm="process")
    if config.get("distillation.method") != "none":
        paths |= _distillation(config)
        paths |= _teacher(config) | {"teacher.mode"}
    elif config.get("student.init") == "teacher":
        paths |= _teacher(config)
    return paths


def keeps_outputs(config: Mapping[str, Any]) -> bool:
    """Whether a student reads outputs of its teacher that a logit bank may keep.

    Not in train mode, in which they belong to a batch, nor where each epoch has new views.
    """
    return (
        config.get("distillation.method") != "none"
        and config.get("teacher.mode") == "eval"
        and config.get("dataset.views") != "epoch"
    )


def _dataset(config: Mapping[str, Any]) -> set[str]:
    leaves = ["name", "validation_fraction", "train_fraction", "label_noise"]
    known = data_set(str(config.get("dataset.name")))
    leaves += known.reads
    if "padding" in leaves and config.get("dataset.padding"):
        leaves.append("padding_mode")
    if known.root == "may" and config.get("dataset.root"):
        leaves.append("root")
    if is_split(config):
        leaves += ["splits", "split"]
    paths = {f"dataset.{leaf}" for leaf in leaves}
    return paths | (_unusual("dataset.", config, damaged="refuse") if known.may_be_damaged else set())


def is_split(config: Mapping[str, Any]) -> bool:
    """Whether a (flat) configuration trains on one of several disjoint parts of the training part."""
    return int(config.get("dataset.splits") or 1) > 1


def _unusual(prefix: str, config: Mapping[str, Any], **usual: str) -> set[str]:
    """Leaves that count as read only where they are not as usual: so that what has none keeps its identity."""
    return {prefix + leaf for leaf, value in usual.items() if config.get(prefix + leaf, value) != value}


def _distillation(config: Mapping[str, Any]) -> set[str]:
    method = str(config.get("distillation.method"))
    leaves = ["ce_weight", "alpha", *OWN_SETTINGS.get(method, ())]
    if method != "rkd" or config.get("distillation.kd_weight"):
        leaves.append("temperature")
    if method not in NO_KEEPING:
        leaves += ["keep.regularization", "keep.other"]
    if method not in NO_EXAMPLE_WEIGHTS:
        kind = weighting_kind(config)
        leaves += ["weighting.kind", *{"sigmoid": ["weighting.of"], "constant": ["weighting.value"]}.get(kind, [])]
    return {f"distillation.{leaf}" for leaf in leaves}


def _teacher(config: Mapping[str, Any]) -> set[str]:
    paths = {"teacher.model"}
    if config.get("teacher.checkpoint"):
        return paths | {"teacher.checkpoint"}
    paths |= {"teacher.label_smoothing", "teacher.seed"} | _unusual("teacher.", config, init="random")
    if is_split(config):
        paths.add("teacher.split")
    if config.get("teacher.label_smoothing"):
        paths.add("teacher.smoothing")
    return paths | _optimizer("teacher.optimizer.", config) | _schedule("teacher.schedule.", config)


def _optimizer(prefix: str, config: Mapping[str, Any]) -> set[str]:
    paths = {prefix + leaf for leaf in ("name", "lr", "weight_decay")}
    if config.get(f"{prefix}name") == "sgd":
        paths.add(f"{prefix}momentum")
        if config.get(f"{prefix}momentum"):
            paths.add(f"{prefix}nesterov")
    return paths | _unusual(prefix, config, decay_on="all")


def _schedule(prefix: str, config: Mapping[str, Any]) -> set[str]:
    paths = {prefix + leaf for leaf in ("epochs", "batch_size", "warmup_epochs")}
    if config.get(f"{prefix}shape") == "linear":
        return paths | {f"{prefix}shape"}
    return paths | {f"{prefix}milestones"} | ({f"{prefix}decay"} if config.get(f"{prefix}milestones") else set())


def possible_reads(
    complete: Callable[[Mapping[str, Any]], Mapping[str, Any]], possible: Mapping[str, Sequence[Any]]
) -> set[str]:
    """The paths that are read under at least one assignment of the swept values.

    Args:
        complete: from values of steering paths to the flat, complete configuration.
        possible: for each swept path some values it can take; only steering ones matter.
    """
    steering = [path for path in STEERING if path in possible]
    assignments: Iterable[tuple[Any, ...]] = itertools.product(*(possible[path] for path in steering))
    found: set[str] = set()
    for values in itertools.islice(assignments, 20_000):
        found |= reads(complete(dict(zip(steering, values, strict=True))))
    return found
