"""An epoch's batches, ready for a step: pictures by view, labels, the teacher's outputs, random numbers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from wsl_sweep.data import VisionData
from wsl_sweep.data.streams import stream
from wsl_sweep.training.bank import TeacherOutputs
from wsl_sweep.training.step import StepInputs

WHOLE_EPOCH = 2**62

_DRAWS: dict[str, Callable[..., Tensor]] = {
    "keeping": functools.partial(torch.rand, dtype=torch.float32),
    "permuting": torch.randperm,
}


class TeacherLogits(Protocol):
    """Where a student's batches get their teacher's outputs.

    Attributes:
        window: how many examples' outputs are asked for at once, in whole batches, at least one.
    """

    window: int

    def drifting(self) -> Mapping[str, Tensor]:
        """What ``outputs`` change of the teacher."""

    def outputs(self, rows: Tensor, views: Tensor) -> TeacherOutputs:
        """Outputs for training examples ``rows`` (N,) in ``views`` (N,), both on the CPU."""

    def validation_logits(self) -> Tensor:
        """(N, C) logits of the whole validation part."""


def steps_an_epoch(examples: int, batch_size: int) -> int:
    """How many batches an epoch has. A last one of a single example is left out: it has no batch statistics."""
    return examples // batch_size + (examples % batch_size > 1)


def examples_of(examples: int, batch_size: int, steps: int) -> int:
    """How many of its ``examples`` an epoch has shown after so many of its steps; each of them once."""
    return min(examples, steps * batch_size)


def epoch_inputs(
    data: VisionData,
    teacher: TeacherLogits | None,
    *,
    seed: int,
    epoch: int,
    epochs: int,
    batch_size: int,
    draws: Container[str] = (),
    first_step: int = 0,
) -> Iterator[StepInputs]:
    """The inputs of the steps of ``epoch`` from ``first_step`` on (both counted from 0), in their order.

    Order and views are streams of (seed, epoch), ``draws`` (``keeping``, ``permuting``) of (seed, epoch, step): so
    a step's inputs are the same bits wherever an epoch begins, and of those before it nothing is computed.
    """
    device = data.train.labels.device
    order = torch.randperm(len(data.train), generator=stream(seed, "order", epoch))
    views = data.train.draw_views(stream(seed, "views", epoch))
    batches = torch.split(order, batch_size)[first_step : steps_an_epoch(len(data.train), batch_size)]
    step = first_step
    for window in windows(batches, teacher.window if teacher is not None else WHOLE_EPOCH):
        rows = torch.cat(window)
        of_teacher = teacher.outputs(rows, views[rows]) if teacher is not None else None
        rows_there, views_there = moved(rows, device), moved(views[rows], device)
        start = 0
        for batch in window:
            stop = start + len(batch)
            examples = rows_there[start:stop]
            of_batch = of_teacher.part(start, stop) if of_teacher is not None else None
            drawn = {
                purpose: moved(_DRAWS[purpose](len(batch), generator=stream(seed, purpose, epoch, step)), device)
                for purpose in _DRAWS
                if purpose in draws
            }
            yield StepInputs(
                images=data.train.views.take(examples, views_there[start:stop]),
                labels=data.train.labels[examples],
                teacher_logits=of_batch.logits if of_batch else None,
                teacher_cross_entropy=of_batch.cross_entropy if of_batch else None,
                teacher_features=of_batch.features if of_batch else None,
                epoch=epoch + 1,
                epochs=epochs,
                **drawn,
            )
            start, step = stop, step + 1


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU's on a device; nobody waits for the copy."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def windows(batches: Sequence[Tensor], most: int) -> Iterator[list[Tensor]]:
    """The batches in groups of at most ``most`` examples together, or of one batch where that is more."""
    window: list[Tensor] = []
    size = 0
    for batch in batches:
        if window and size + len(batch) > most:
            yield window
            window, size = [], 0
        window.append(batch)
        size += len(batch)
    if window:
        yield window
