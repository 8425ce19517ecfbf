"""A user's own task: found, made, put in order, and tried on a few of its examples."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wsl_sweep.data.task import METRIC_NAME, Task, measured_by, taken_by
from wsl_sweep.errors import WslSweepError
from wsl_sweep.paths import node_folder
from wsl_sweep.user_code import arguments_for, find, pick, told

ALWAYS_MEASURED = ("accuracy", "loss", "ece")
"""Names that no task's own metric may have."""

TRIED = 8
"""Examples on which ``take`` is tried."""

MEASURED = 256
"""Examples on which ``metrics`` are tried."""

OTHER_SEED = 20_000_003
"""Of the random states where a task is made a second time."""

QUICKLY_MADE = 10.0
"""Seconds: a task that takes no longer is made a second time, to see that it holds the same."""


def make_task(name: str, root: str | None, seed: int | None = None) -> Task:
    """The task ``package.module:YourTask``, its labels and rows as int64 tensors; random states stay as they are.

    Args:
        name: its import name.
        root: ``dataset.root``.
        seed: of random states while it is made; None leaves them as they are.

    Raises WslSweepError: it is not found, cannot be made, or its attributes are not what ``Task`` says.
    """
    make = find(name)
    place = None if root is None else str(node_folder(root))
    if not (isinstance(make, type) and issubclass(make, Task)):
        raise WslSweepError(f'"{name}" is no subclass of wsl_sweep.data.Task')
    try:
        task = _made(make, place, seed)
        for attribute, value in _in_order(task).items():
            setattr(task, attribute, value)
    except WslSweepError as error:
        raise WslSweepError(f'"{name}": {error}') from error
    except (Exception, SystemExit) as error:
        raise WslSweepError(f'"{name}" cannot be made: {told(error)}') from error
    return task


def try_task(name: str, root: str | None) -> tuple[str, ...]:
    """Makes a task, tries it on some of its examples, and returns the metrics that it adds: ``validation/f1``, …

    Raises WslSweepError: it cannot be made, or ``take`` or ``metrics`` are not what ``Task`` says.
    """
    began = time.monotonic()
    task = make_task(name, root)
    quick = time.monotonic() - began < QUICKLY_MADE
    try:
        if type(task).take is not Task.take:
            _try_take(task, make_task(name, root, OTHER_SEED) if quick else None)
        elif type(task).inputs is Task.inputs:
            raise WslSweepError("has no method take(rows, views), which gives what a model reads")
        own = _try_metrics(task)
    except WslSweepError as error:
        raise WslSweepError(f'"{name}": {error}' if name not in str(error) else str(error)) from error
    groups = (f"test/accuracy_{group}" for group in task.test_groups)
    return (*(f"{part}/{metric}" for part in ("validation", "test") for metric in own), *groups)


def _made(make: type[Task], root: str | None, seed: int | None) -> Task:
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        if seed is not None:
            torch.manual_seed(seed)
            np.random.seed(seed)
            random.seed(seed)
        return make(**pick(arguments_for(make, ("root",)), {"root": root}))
    finally:  # whether a process has made its data yet must not show in what it draws afterwards
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])


# --- attributes ------------------------------------------------------------------------------------------------------


def _in_order(task: Task) -> Mapping[str, Any]:
    """The attributes of a task, checked, as ``Task`` has them."""
    for needed in ("num_classes", "labels"):
        if not hasattr(task, needed):
            raise WslSweepError(f"has no {needed}")
    classes = _count(task, "num_classes", 2)
    labels = _whole_numbers("labels", task.labels)
    if len(labels) == 0:
        raise WslSweepError("labels are empty: there are no examples")
    _check_range("labels", labels, classes, f"a class, 0 to {classes - 1} of num_classes = {classes}")
    test = None if task.test is None else _rows("test", task.test, labels)
    names = task.class_names
    if isinstance(names, str) or len(names) not in (0, classes):
        raise WslSweepError(f"class_names has {len(names)} names for {classes} classes")
    if isinstance(task.notes, str):
        raise WslSweepError("notes must be a tuple of texts, not one text")
    fraction = task.test_fraction
    if not isinstance(fraction, int | float) or not 0 <= fraction < 1:
        raise WslSweepError(f"test_fraction must be a number in [0, 1), not {fraction!r}")
    return {
        "num_classes": classes,
        "labels": labels,
        "in_channels": _count(task, "in_channels", 1),
        "views": _count(task, "views", 1),
        "test": test,
        "test_groups": dict(_groups(task.test_groups, labels, test)),
        "class_names": tuple(map(str, names)),
        "notes": tuple(map(str, task.notes)),
    }


def _count(task: Task, attribute: str, least: int) -> int:
    value = getattr(task, attribute)
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise WslSweepError(f"{attribute} must be a whole number of {least} or more, not {value!r}")
    return int(value)


def _whole_numbers(what: str, values: Any) -> Tensor:
    """(N,) int64 on the CPU, from a tensor, an array or a list."""
    try:
        found = values.detach() if isinstance(values, Tensor) else torch.as_tensor(np.asarray(values))
    except (TypeError, ValueError, RuntimeError) as error:
        raise WslSweepError(f"{what} must be whole numbers, (N,): {told(error)}") from error
    if found.ndim != 1:
        raise WslSweepError(f"{what} must have one dimension, (N,), not {tuple(found.shape)}")
    if len(found) and (found.is_floating_point() or found.is_complex() or found.dtype == torch.bool):
        raise WslSweepError(f"{what} must be whole numbers, not {_dtype(found)}")
    return found.to("cpu", torch.int64).contiguous()


def _check_range(what: str, values: Tensor, end: int, meaning: str) -> None:
    outside = ((values < 0) | (values >= end)).nonzero().flatten()
    if len(outside):
        place = int(outside[0])
        raise WslSweepError(f"{what}[{place}] is {int(values[place])}, and not {meaning}")


def _rows(what: str, values: Any, labels: Tensor) -> Tensor:
    rows = _whole_numbers(what, values)
    _check_range(what, rows, len(labels), f"a row, 0 to {len(labels) - 1}")
    ordered = rows.sort().values
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(twice):
        raise WslSweepError(f"{what} has row {int(twice[0])} twice")
    return rows


def _groups(groups: Any, labels: Tensor, test: Tensor | None) -> Iterator[tuple[str, Tensor]]:
    if not isinstance(groups, Mapping):
        raise WslSweepError(f"test_groups must be a mapping of rows by name, not {type(groups).__name__}")
    for name, values in groups.items():
        if not isinstance(name, str) or METRIC_NAME.fullmatch(name) is None:
            raise WslSweepError(f"test_groups: {name!r} is no name of a group; take letters, digits, '_', '.' and '-'")
        rows = _rows(f'test_groups["{name}"]', values, labels)
        outside = rows[~torch.isin(rows, test)] if test is not None else rows[:0]
        if len(outside):
            raise WslSweepError(f'test_groups["{name}"] has row {int(outside[0])}, which is not in the test part')
        yield name, rows


# --- what it does ----------------------------------------------------------------------------------------------------


def _try_take(task: Task, again: Task | None) -> None:
    """Tries whether inputs are a function of (row, view); ``again`` is the same task made a second time."""
    rows = torch.linspace(0, len(task.labels) - 1, min(TRIED, len(task.labels))).long()
    for view in dict.fromkeys((0, task.views - 1)):
        views = torch.full_like(rows, view)
        taken = taken_by(task, rows, views)
        of_view = f" in view {view}" if task.views > 1 else ""
        if taken.device.type != "cpu":
            raise WslSweepError(f"take gives a tensor on {taken.device}; it must be on the CPU, from where it is moved")
        if taken.is_floating_point() and not bool(taken.isfinite().all()):
            raise WslSweepError(f"take gives a value that is not finite (NaN or infinite) among rows {rows.tolist()}")
        if not _same(taken, taken_by(task, rows, views)):
            raise WslSweepError(
                f"two calls of take give different inputs of the same rows{of_view}; draw from a generator seeded by "
                "row and view"
            )
        for place, row in enumerate(rows.tolist()):
            alone = taken_by(task, rows[place : place + 1], views[place : place + 1])
            _check_alone(alone, taken[place : place + 1], f"row {row}{of_view}")
        if not _same(taken_by(task, rows.flip(0), views), taken.flip(0)):
            raise WslSweepError(f"take gives other inputs{of_view} where rows come in another order")
        if again is not None and not (
            torch.equal(again.labels, task.labels) and _same(taken_by(again, rows, views), taken)
        ):
            raise WslSweepError(
                "made twice it holds different data; each process makes its own, so that whatever __init__ draws must "
                "come from a generator with a seed"
            )
    if task.views > 1:
        mixed = torch.arange(len(rows)) % 2 * (task.views - 1)
        taken = taken_by(task, rows, mixed)
        for place, row in enumerate(rows.tolist()):
            alone = taken_by(task, rows[place : place + 1], mixed[place : place + 1])
            _check_alone(alone, taken[place : place + 1], f"row {row} in view {int(mixed[place])} beside other views")


def _check_alone(alone: Tensor, beside: Tensor, what: str) -> None:
    if alone.shape != beside.shape or alone.dtype != beside.dtype:
        shapes = [f"{tuple(one.shape[1:])} {_dtype(one)}" for one in (beside, alone)]
        raise WslSweepError(
            f"take gives {what} as {shapes[0]} beside others and as {shapes[1]} alone; all inputs must have one "
            "shape, so pad them to one length"
        )
    if not _same(alone, beside):
        raise WslSweepError(
            f"what take gives of {what} depends on the rows beside it; it must depend on row and view only"
        )


def _same(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one, other)


def _try_metrics(task: Task) -> tuple[str, ...]:
    """The names of a task's own metrics, as it gives them for random logits."""
    labels = task.labels[torch.linspace(0, len(task.labels) - 1, min(MEASURED, len(task.labels))).long()]
    generator = torch.Generator().manual_seed(0)
    named: list[list[str]] = []
    for count in (len(labels), (len(labels) + 1) // 2):
        logits = torch.randn(count, task.num_classes, generator=generator)
        before = logits.clone()
        found = measured_by(task, logits, labels[:count])
        if not torch.equal(logits, before):
            raise WslSweepError("metrics change the logits that they are given; others read them, too")
        named.append(sorted(found))
    if named[0] != named[1]:
        raise WslSweepError(
            f"metrics have other names at another time: {', '.join(named[0]) or 'none'}, then "
            f"{', '.join(named[1]) or 'none'}"
        )
    taken = {*ALWAYS_MEASURED, *(f"accuracy_{group}" for group in task.test_groups)}
    clash = sorted(taken & set(named[0]))
    if clash:
        raise WslSweepError(f'metrics has "{clash[0]}", which is measured already; give yours another name')
    return tuple(named[0])


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
