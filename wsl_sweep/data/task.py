"""A kind of task: examples with labels, what a model reads of them, what is measured. A user's own is a subclass."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from wsl_sweep.data.inputs import Inputs, moved

HASHED_AT_ONCE = 1024


class Task:
    """What is learned: a classification of any inputs. Subclass it for data of your own.

    ``dataset.name: package.module:YourTask`` names it in a file. It is made once a process, called with ``root``
    (``dataset.root``, or None) if its ``__init__`` takes that. The least that it needs: ``num_classes``, ``labels`` and
    ``take``; parts, splits, label noise, the teacher's logit bank, sweeps and reports come by themselves.

    Attributes:
        num_classes: C, two or more.
        labels: (M,) int64 in [0, C), of the whole data set.
        in_channels: what models are told of the inputs beside C: channels of pictures, words of a vocabulary, features.
        views: how many forms of an example there are for training, one or more.
        test: (T,) rows of the official test part; None has ``test_fraction`` of each class split off.
        test_fraction: see there.
        test_groups: name → rows of the test part that have an accuracy of their own, ``test/accuracy_<name>``.
        class_names: in the order of the labels; may be empty.
        notes: what a user should know of the data: what was left out, …
    """

    num_classes: int
    labels: Tensor
    in_channels: int = 1
    views: int = 1
    test: Tensor | None = None
    test_fraction: float = 0.2
    test_groups: Mapping[str, Tensor] = {}
    class_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def take(self, rows: Tensor, views: Tensor) -> Tensor:
        """(B, …) inputs, on the CPU, of examples ``rows`` (B,) in ``views`` (B,); view 0 is an example as it is.

        A function of (row, view) alone: the same bits whenever it is called, and beside whichever other rows.
        """
        raise NotImplementedError

    def metrics(self, logits: Tensor, labels: Tensor) -> Mapping[str, float]:
        """What is measured of (N, C) logits beside ``accuracy``, ``loss`` and ``ece``, by name.

        Reported as ``validation/<name>`` by epoch and as ``test/<name>`` at the end.
        """
        return {}

    @cached_property
    def digest(self) -> str:
        """SHA-256 of everything that is learned from: the labels, and what a model reads of each example as it is."""
        digest = hashlib.sha256(self.labels.numpy().tobytes())
        for rows in torch.split(torch.arange(len(self.labels)), HASHED_AT_ONCE):
            digest.update(self.take(rows, torch.zeros_like(rows)).contiguous().numpy().tobytes())
        return digest.hexdigest()

    def inputs(
        self, config: Mapping[str, Any], rows: Tensor, device: str, *, training: bool, workers: int = 0
    ) -> Inputs:
        """The inputs of ``rows`` (N,) of the data set, an example being counted within them.

        Args:
            config: the resolved ``dataset`` section.
            rows: which.
            device: where they are wanted.
            training: whether there are views beside the plain one.
            workers: processes that bring inputs which do not lie in memory.
        """
        return _Called(self, rows, device, self.views if training else 1)


class _Called(Inputs):
    """The inputs that a task's ``take`` gives."""

    def __init__(self, task: Task, rows: Tensor, device: str, count: int) -> None:
        self.count, self.device = count, torch.device(device)
        self._task, self._rows = task, rows

    def take(self, examples: Tensor, views: Tensor) -> Tensor:
        """See ``Inputs``."""
        taken = self._task.take(self._rows[examples.cpu()], views.cpu())
        if taken.ndim == 4:
            taken = taken.to(memory_format=torch.channels_last)
        return moved(taken, self.device)

    def facts(self) -> dict[str, Any]:
        """See ``Inputs``."""
        return {"task": type(self._task).__qualname__, "count": self._task.views}


@dataclass(frozen=True)
class Examples:
    """One part of a data set.

    Attributes:
        views: what a model reads, by (example, view).
        labels: (N,) int64 on the device; of the training part with its label noise.
        ids: (N,) int64 on the device, each example's number in the whole data set.
        fixed_views: (N, k) on the CPU, the only views an example is seen in; None for all of them.
        task: what they are examples of; None measures nothing beside what every classification has.
        groups: name → examples (by their place here) that have an accuracy of their own.
    """

    views: Inputs
    labels: Tensor
    ids: Tensor
    fixed_views: Tensor | None = None
    task: Task | None = None
    groups: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    def draw_views(self, generator: torch.Generator) -> Tensor:
        """(N,) a view for each example, uniformly drawn, on the CPU; where views have no end, one that is new."""
        if self.views.count is None:
            return torch.full((len(self),), generator.initial_seed())
        count = self.views.count if self.fixed_views is None else self.fixed_views.shape[1]
        draw = torch.randint(count, (len(self),), generator=generator)
        if self.fixed_views is None:
            return draw
        return self.fixed_views.gather(1, draw.unsqueeze(1)).squeeze(1)


@dataclass(frozen=True)
class TaskData:
    """A data set, ready for training.

    Attributes:
        train: what a student trains on.
        validation: what settings are chosen on.
        num_classes: number of classes.
        in_channels: channels of a picture; of text the words of its vocabulary.
        digest: SHA-256 (16 hex digits) of the examples, the labels and how they were split.
        source: SHA-256 of the examples and labels of the whole data set, whatever the split.
        all_labels: (M,) int64, the labels of the whole data set as a student would train on them, with their noise.
        notes: what the user should know of it: pictures that were left out, …
    """

    train: Examples
    validation: Examples
    num_classes: int
    in_channels: int
    digest: str
    source: str
    all_labels: Tensor
    notes: tuple[str, ...] = ()
