"""A kind of task: examples with labels, what a model reads of them, what is measured. A user's own is a subclass."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from wsl_sweep.data.inputs import Inputs, moved
from wsl_sweep.errors import TrialError, WslSweepError
from wsl_sweep.user_code import source_digest, told

HASHED_AT_ONCE = 1024

METRIC_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
"""What a metric of a task's, or a group of its test part, may be called."""


class Task:
    """What is learned: to tell classes apart, of any inputs. Subclass it for data of your own.

    ``dataset.name: package.module:YourTask`` names it in a file. Python must find the module: installed, in the working
    folder or beside the file. The least that it needs is ``num_classes``, ``labels`` and ``take``; its parts, label
    noise, the teacher's logit bank, sweeps, comparisons, reports and exports come by themselves. It is made once in
    every process, called with ``root`` (``dataset.root``, or None) if its ``__init__`` takes that, and must hold the
    same data each time: whatever it draws comes from a generator with a seed. Before anything starts it is tried on a
    few examples, with the models that shall learn it.

    Models are your own, too: ``student.model: package.module:name`` is called with ``num_classes`` and
    ``in_channels``, as far as it takes them, and gives a ``torch.nn.Module`` from what ``take`` gives to (B, C) logits.

    Attributes:
        num_classes: C, two or more.
        labels: (M,) whole numbers in [0, C), one for each example of the whole data set: a tensor, an array or a list.
            A row, here and below, is an example's place among them.
        in_channels: what models are told of the inputs beside C: features, channels of pictures, words of a vocabulary.
        views: how many forms of an example there are for training, one or more; each epoch shows each in one of them.
        test: (T,) rows of the official test part, each once; None has ``test_fraction`` of each class split off. Nobody
            looks at it before the end of a sweep.
        test_fraction: see there; in [0, 1).
        test_groups: name → rows of the test part that have an accuracy of their own, ``test/accuracy_<name>``.
        class_names: C of them, in the order of the labels; or none.
        notes: what whoever runs it should know of the data: what was left out, …

    Example:
        >>> import torch
        >>> class Signs(Task):
        ...     num_classes, in_channels = 2, 3
        ...
        ...     def __init__(self):
        ...         self.points = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
        ...         self.labels = (self.points.sum(dim=1) > 0).long()
        ...
        ...     def take(self, rows, views):
        ...         return self.points[rows]
        >>> Signs().take(torch.tensor([5, 0]), torch.tensor([0, 0])).shape
        torch.Size([2, 3])
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
        """(B, …) inputs, on the CPU, of examples ``rows`` (B,) in ``views`` (B,), both int64; what a model is given.

        Of any dtype, and all of one shape: float32 vectors or pictures (B, channels, H, W), int64 tokens (B, L), …
        View 0 is an example as it is, which is what is validated and tested on; training draws from 0 to
        ``self.views - 1``, uniformly.

        A function of (row, view) alone: the same bits whenever it is called, in whatever process, and beside whichever
        other rows. So augmentation draws from ``torch.Generator().manual_seed(…)`` of row and view, or looks a view's
        number up; nothing is normalised over, or padded to the longest of, the rows of one call.
        """
        raise NotImplementedError

    def metrics(self, logits: Tensor, labels: Tensor) -> Mapping[str, float]:
        """What is measured of (N, C) float32 ``logits`` and (N,) int64 ``labels``, on the CPU; name → a number.

        Beside ``accuracy``, ``loss`` and ``ece``, which are always measured. Of the validation part after each epoch,
        as ``validation/<name>``, which ``search.metric`` may name; of the test part at the end of a sweep, as
        ``test/<name>``, which ``compare.metric`` may name. The names are of letters, digits, ``_``, ``.`` and ``-``,
        and always the same. More is better, but where a word of the name says otherwise (``loss``, ``error``, …: see
        ``wsl_sweep.spec.sections.LOWER_IS_BETTER``), or ``search.mode`` and ``compare.mode`` do.
        """
        return {}

    @cached_property
    def digest(self) -> str:
        """SHA-256 of what the data are: labels, what a model reads of each example as it is, and the rows of ``test``.

        Found by taking every example once. Override it where that takes long; a trial is known by it, and the teacher's
        logits are kept under it, so that it must change with the data.
        """
        digest = hashlib.sha256(self.labels.numpy().tobytes())
        if self.test is not None:
            digest.update(b"test" + self.test.sort().values.numpy().tobytes())
        for rows in torch.split(torch.arange(len(self.labels)), HASHED_AT_ONCE):
            taken = taken_by(self, rows, torch.zeros_like(rows))
            digest.update(f"{taken.dtype} {tuple(taken.shape)}".encode())
            digest.update(taken.contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def inputs(
        self, config: Mapping[str, Any], rows: Tensor, device: str, *, training: bool, workers: int = 0
    ) -> Inputs:
        """The inputs of ``rows`` (N,) of the data set, an example being counted within them.

        Made of ``take``; override it only for inputs that need more than that, such as those that are brought from a
        disk by processes of their own.

        Args:
            config: the resolved ``dataset`` section.
            rows: which.
            device: where they are wanted.
            training: whether there are views beside the plain one.
            workers: processes that bring inputs which do not lie in memory.
        """
        return _Called(self, rows, device, self.views if training else 1)


def taken_by(task: Task, rows: Tensor, views: Tensor) -> Tensor:
    """What a task's ``take`` gives. Raises TrialError: it fails, or gives something else than a tensor with B rows."""
    try:
        taken = task.take(rows, views)
    except (WslSweepError, OSError):
        raise
    except (Exception, SystemExit) as error:
        raise TrialError(f"take of {_name(task)} fails: {told(error)}") from error
    if not isinstance(taken, Tensor):
        raise TrialError(f"take of {_name(task)} gives {type(taken).__name__}; it must give a torch tensor")
    if taken.ndim == 0 or len(taken) != len(rows):
        raise TrialError(
            f"take of {_name(task)} gives {tuple(taken.shape)} for {len(rows)} rows; the first dimension must be theirs"
        )
    return taken.detach()


def measured_by(task: Task, logits: Tensor, labels: Tensor) -> dict[str, float]:
    """What a task's ``metrics`` say of (N, C) logits. Raises TrialError: they fail, or are no numbers by name."""
    if type(task).metrics is Task.metrics:
        return {}
    at_hand = logits.detach().to("cpu", torch.float32), labels.cpu()
    try:
        found = task.metrics(*at_hand)
    except (WslSweepError, OSError):
        raise
    except (Exception, SystemExit) as error:
        raise TrialError(f"metrics of {_name(task)} fail: {told(error)}") from error
    if not isinstance(found, Mapping):
        raise TrialError(
            f"metrics of {_name(task)} are {type(found).__name__}; they must be a mapping of numbers by name"
        )
    return {name: _number(task, name, value) for name, value in found.items()}


def _number(task: Task, name: object, value: object) -> float:
    if not isinstance(name, str) or METRIC_NAME.fullmatch(name) is None:
        raise TrialError(
            f"metrics of {_name(task)}: {name!r} is no name of a metric; take letters, digits, '_', '.' and '-'"
        )
    if not isinstance(value, str | bytes):
        with contextlib.suppress(TypeError, ValueError, RuntimeError):
            return float(value)  # type: ignore[arg-type]
    shown = " ".join(repr(value).split())
    raise TrialError(f'metrics of {_name(task)}: "{name}" is {shown:.80}, and must be a number')


def _name(task: Task) -> str:
    return f"{type(task).__module__}:{type(task).__qualname__}"


class _Called(Inputs):
    """The inputs that a task's ``take`` gives."""

    def __init__(self, task: Task, rows: Tensor, device: str, count: int) -> None:
        self.count, self.device = count, torch.device(device)
        self._task, self._rows = task, rows

    def take(self, examples: Tensor, views: Tensor) -> Tensor:
        """See ``Inputs``."""
        taken = taken_by(self._task, self._rows[examples.cpu()], views.cpu())
        # Strides are set, not kept: one channel, or one row, counts as either format, and bits would depend on it.
        laid_out = torch.channels_last if taken.ndim == 4 else torch.contiguous_format
        fresh = torch.empty(taken.shape, dtype=taken.dtype, memory_format=laid_out)
        return moved(fresh.copy_(taken), self.device)

    def facts(self) -> dict[str, Any]:
        """See ``Inputs``."""
        name = _name(self._task)
        return {"task": name, "code": source_digest(name), "count": self._task.views}


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
        in_channels: channels of a picture; of text the words of its vocabulary; of a user's task its own.
        digest: SHA-256 (16 hex digits) of the examples, the labels and how they were split.
        source: SHA-256 of the examples and labels of the whole data set, whatever the split.
        all_labels: (M,) int64, the labels of the whole data set as a student would train on them, with their noise.
        notes: what the user should know of it: examples that were left out, …
    """

    train: Examples
    validation: Examples
    num_classes: int
    in_channels: int
    digest: str
    source: str
    all_labels: Tensor
    notes: tuple[str, ...] = ()
