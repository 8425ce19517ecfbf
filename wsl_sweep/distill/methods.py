"""Distillation methods by name: each turns a batch into a loss an example, or one for the batch."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from wsl_sweep.distill.logit_methods import decoupled_loss, dist_loss
from wsl_sweep.distill.losses import distillation_loss, masked_distillation_loss
from wsl_sweep.distill.relational import relational_loss
from wsl_sweep.errors import WslSweepError
from wsl_sweep.user_code import arguments_for, find, pick, told

USER_METHOD_ARGUMENTS = (
    "student_logits",
    "teacher_logits",
    "labels",
    "temperature",
    "epoch",
    "epochs",
    "student_features",
    "teacher_features",
)
"""What a user's own method may take, by name, or by position where a name is another."""


@dataclass(frozen=True)
class Batch:
    """What a method sees of a batch.

    Attributes:
        student_logits: (B, C); the gradient goes here.
        teacher_logits: (B, C), detached.
        labels: (B,), integers in [0, C).
        weights: (B,) soft label weights, or None where the method takes none.
        student_features: (B, D), or None where the method needs none.
        teacher_features: (B, E), detached, or None.
        epoch: counted from 1.
        epochs: how many are planned.
    """

    student_logits: Tensor
    teacher_logits: Tensor
    labels: Tensor
    weights: Tensor | None = None
    student_features: Tensor | None = None
    teacher_features: Tensor | None = None
    epoch: int = 1
    epochs: int = 1


@dataclass(frozen=True)
class Method:
    """A distillation method with its settings.

    Attributes:
        loss: a batch → (B,), a loss an example; or (), one for the batch, with the weights already in it.
        needs_features: whether it reads the features.
        weighs: whether a loss for the batch has the weights in it already.
        settled_from: the epoch (counted from 1) from which on it computes the same at every step.
    """

    loss: Callable[[Batch], Tensor]
    needs_features: bool = False
    weighs: bool = False
    settled_from: float = 1.0


def make_method(distillation: Mapping[str, Any]) -> Method:
    """The method of a resolved ``distillation`` section, other than ``none``.

    Raises WslSweepError: a user's own method is not found or cannot be called.
    """
    name = str(distillation["method"])
    make = _MAKERS.get(name)
    if make is not None:
        return make(distillation)
    if ":" in name:
        return _users(name, distillation)
    raise ValueError(f"unknown distillation method {name!r}: none, {', '.join(_MAKERS)}, or package.module:name")


def _kd(settings: Mapping[str, Any]) -> Method:
    temperature, mask = float(settings["temperature"]), settings.get("mask", "none")

    def loss(batch: Batch) -> Tensor:
        if mask == "none":
            return distillation_loss(batch.student_logits, batch.teacher_logits, temperature)
        return masked_distillation_loss(batch.student_logits, batch.teacher_logits, batch.labels, temperature, mask)

    return Method(loss)


def _dkd(settings: Mapping[str, Any]) -> Method:
    temperature, warmup = float(settings["temperature"]), int(settings["warmup_epochs"])
    target_weight, non_target_weight = float(settings["target_weight"]), float(settings["non_target_weight"])

    def loss(batch: Batch) -> Tensor:
        warm = min(batch.epoch / warmup, 1.0) if warmup else 1.0
        return warm * decoupled_loss(
            batch.student_logits, batch.teacher_logits, batch.labels, temperature, target_weight, non_target_weight
        )

    return Method(loss, settled_from=max(1, warmup))


def _dist(settings: Mapping[str, Any]) -> Method:
    temperature = float(settings["temperature"])
    inter, intra = float(settings["inter_weight"]), float(settings["intra_weight"])
    return Method(lambda batch: dist_loss(batch.student_logits, batch.teacher_logits, temperature, inter, intra))


def _rkd(settings: Mapping[str, Any]) -> Method:
    distance, angle = float(settings["distance_weight"]), float(settings["angle_weight"])
    kd_weight = float(settings.get("kd_weight", 0.0))

    def loss(batch: Batch) -> Tensor:
        if batch.student_features is None or batch.teacher_features is None:
            raise ValueError("method 'rkd' needs the features of student and teacher")
        relational = relational_loss(batch.student_features, batch.teacher_features, batch.weights, distance, angle)
        if kd_weight == 0.0:
            return relational
        beside = distillation_loss(batch.student_logits, batch.teacher_logits, float(settings["temperature"]))
        weighted = beside if batch.weights is None else batch.weights * beside
        return relational + kd_weight * weighted.mean()

    return Method(loss, needs_features=True, weighs=True)


_MAKERS: dict[str, Callable[[Mapping[str, Any]], Method]] = {"kd": _kd, "dkd": _dkd, "dist": _dist, "rkd": _rkd}


def _users(name: str, settings: Mapping[str, Any]) -> Method:
    """A user's function, or a class that is made without arguments and then called.

    It takes any of USER_METHOD_ARGUMENTS by name (``epoch`` counts from 1); a parameter of another name takes the one
    at its position. It returns (B,), a loss an example, which is then weighted and kept like ``kd``'s; or (), one loss
    for the batch.
    """
    function = find(name)
    try:
        if isinstance(function, type):
            try:
                function = function()
            except Exception as error:
                raise WslSweepError(f"cannot be made without arguments: {told(error)}") from error
        if not callable(function):
            raise WslSweepError("cannot be called")
        # A torch module's own __call__ takes (*args, **kwargs): what it wants stands at its forward.
        asked = function.forward if isinstance(function, nn.Module) else function
        taken = arguments_for(asked, USER_METHOD_ARGUMENTS)
    except WslSweepError as error:
        raise WslSweepError(f'"{name}": {error}') from error
    temperature = float(settings["temperature"])

    def loss(batch: Batch) -> Tensor:
        values = {**vars(batch), "temperature": temperature}
        try:
            result = function(**pick(taken, values))
        except SystemExit as error:
            raise WslSweepError(f'"{name}" calls sys.exit') from error
        wanted = tuple(batch.labels.shape)
        if not isinstance(result, Tensor) or tuple(result.shape) not in ((), wanted):
            shape = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
            raise WslSweepError(f'"{name}" must return a tensor of the shape {wanted} (an example) or (), not {shape}')
        return result

    by_name = {parameter for parameter in inspect.signature(asked).parameters if parameter in taken}
    features = {"student_features", "teacher_features"} & {taken[parameter] for parameter in by_name}
    # ``**kwargs`` alone asks for no features. What a user's own code does at a step is not known.
    return Method(loss, needs_features=bool(features), settled_from=math.inf)
