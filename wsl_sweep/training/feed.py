"""An epoch's batches, ready for a step: inputs by view, labels, the teacher's outputs, random numbers."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Container, Generator, Iterator, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from wsl_sweep.data import TaskData
from wsl_sweep.data.inputs import moved
from wsl_sweep.data.streams import stream
from wsl_sweep.training.bank import TeacherOutputs
from wsl_sweep.training.group import ALONE, Group
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

    def outputs(self, rows: Tensor, views: Tensor, inputs: Tensor | None = None) -> TeacherOutputs:
        """Outputs for training examples ``rows`` (N,) in ``views`` (N,), both on the CPU.

        Where their ``inputs`` (N, …) are there already they are given along.
        """

    def validation_logits(self) -> Tensor:
        """(N, C) logits of the whole validation part."""


def steps_an_epoch(examples: int, batch_size: int) -> int:
    """How many batches an epoch has. A last one of a single example is left out: it has no batch statistics."""
    return examples // batch_size + (examples % batch_size > 1)


def examples_of(examples: int, batch_size: int, steps: int) -> int:
    """How many of its ``examples`` an epoch has shown after so many of its steps; each of them once."""
    return min(examples, steps * batch_size)


def epoch_order(examples: int, seed: int, epoch: int) -> Tensor:
    """(N,) the order in which ``epoch``, counted from 0, shows the training examples."""
    return torch.randperm(examples, generator=stream(seed, "order", epoch))


def epoch_inputs(
    data: TaskData,
    teacher: TeacherLogits | None,
    *,
    seed: int,
    epoch: int,
    epochs: int,
    batch_size: int,
    draws: Container[str] = (),
    first_step: int = 0,
    group: Group = ALONE,
) -> Iterator[StepInputs]:
    """The inputs of the steps of ``epoch`` from ``first_step`` on (both counted from 0), in their order.

    Order and views are streams of (seed, epoch), ``draws`` (``keeping``, ``permuting``) of (seed, epoch, step): so
    a step's inputs are the same bits wherever an epoch begins, and of those before it nothing is computed.

    In a ``group`` a process brings the inputs of its own share of a batch, and asks the teacher for that alone; all
    else is of the whole batch.
    """
    device, train = data.train.labels.device, data.train
    order = epoch_order(len(train), seed, epoch)
    views = train.draw_views(stream(seed, "views", epoch))
    batches = torch.split(order, batch_size)[first_step : steps_an_epoch(len(train), batch_size)]
    if not batches:
        return
    labels = torch.split(train.labels[moved(torch.cat(batches), device)], [len(batch) for batch in batches])
    shares = [batch[group.share(len(batch))] for batch in batches]
    rows = torch.cat(shares)
    sizes = [len(share) for share in shares]
    brought = train.views.batches(rows, views[rows], sizes)
    step = first_step
    with contextlib.closing(brought) if isinstance(brought, Generator) else contextlib.nullcontext():
        for window in windows(batches, teacher.window if teacher is not None else WHOLE_EPOCH):
            inputs = next(brought) if len(window) == 1 else None
            of_teacher = None
            if teacher is not None:
                together = torch.cat([batch[group.share(len(batch))] for batch in window])
                of_teacher = _of_all(teacher.outputs(together, views[together], inputs), window, group)
            start = 0
            for batch in window:
                stop = start + len(batch)
                of_batch = of_teacher.part(start, stop) if of_teacher is not None else None
                drawn = {
                    purpose: moved(_DRAWS[purpose](len(batch), generator=stream(seed, purpose, epoch, step)), device)
                    for purpose in _DRAWS
                    if purpose in draws
                }
                yield StepInputs(
                    inputs=inputs if inputs is not None else next(brought),
                    labels=labels[step - first_step],
                    teacher_logits=of_batch.logits if of_batch else None,
                    teacher_cross_entropy=of_batch.cross_entropy if of_batch else None,
                    teacher_features=of_batch.features if of_batch else None,
                    epoch=epoch + 1,
                    epochs=epochs,
                    **drawn,
                )
                start, step = stop, step + 1


def _of_all(own: TeacherOutputs, window: Sequence[Tensor], group: Group) -> TeacherOutputs:
    """What the teacher says of the batches of a window, of which each process has asked for its shares."""
    if group.size == 1:
        return own
    by_batch = [group.sizes(len(batch)) for batch in window]
    sizes = [sum(of_rank) for of_rank in zip(*by_batch, strict=True)]
    places = torch.split(torch.arange(sum(sizes)), sizes)
    taken, done = [], [0] * group.size
    for batch, of_batch in zip(window, by_batch, strict=True):
        for rank, size in enumerate(of_batch if group.splits(len(batch)) else of_batch[:1]):
            taken.append(places[rank][done[rank] : done[rank] + size])
        done = [before + size for before, size in zip(done, of_batch, strict=True)]
    order = moved(torch.cat(taken), own.logits.device)
    return own.each(lambda rows: group.gather(rows, sizes)[order])


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
