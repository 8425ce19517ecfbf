"""How a data set is split, and its labels made noisy: fixed, stratified, the same for every seed and file."""

from __future__ import annotations

import torch
from torch import Tensor

from wsl_sweep.data.streams import stream
from wsl_sweep.data.task import Task

SPLIT_SEED = 0
"""Splits, label noise and view tables belong to the data, not to a trial: the same for every seed."""


def split_off_test(task: Task) -> tuple[Tensor, Tensor]:
    """Rows of the pool (training and validation) and of the test part."""
    everything = torch.arange(len(task.labels))
    if task.test is None:
        return stratified(task.labels, everything, task.test_fraction, "test")
    in_test = torch.zeros(len(task.labels), dtype=torch.bool)
    in_test[task.test] = True
    return everything[~in_test], everything[in_test]


def stratified(labels: Tensor, rows: Tensor, fraction: float, purpose: str) -> tuple[Tensor, Tensor]:
    """``rows`` without and with a ``fraction`` of each class, in ascending order.

    The same fixed permutation of each class serves every fraction, so the taken part only grows with it.
    """
    rest, taken = [rows[:0]], [rows[:0]]
    there, counts = torch.unique(labels[rows], return_counts=True)  # in ascending order
    by_class = torch.split(rows[labels[rows].argsort(stable=True)], counts.tolist())
    for label, of_class in zip(there.tolist(), by_class, strict=True):
        members = of_class[torch.randperm(len(of_class), generator=stream(SPLIT_SEED, purpose, step=label))]
        count = round(len(members) * fraction)
        taken.append(members[:count])
        rest.append(members[count:])
    return torch.cat(rest).sort().values, torch.cat(taken).sort().values


def dealt(labels: Tensor, rows: Tensor, splits: int, split: int) -> Tensor:
    """``rows`` of one of ``splits`` disjoint parts, which hold all of them together, in ascending order.

    They are dealt out class by class, each class in a fixed order of its own, so that the parts, and the classes within
    them, differ by one example at most.
    """
    there, counts = torch.unique(labels[rows], return_counts=True)  # in ascending order
    by_class = torch.split(rows[labels[rows].argsort(stable=True)], counts.tolist())
    shuffled = [
        of_class[torch.randperm(len(of_class), generator=stream(SPLIT_SEED, "splits", step=label))]
        for label, of_class in zip(there.tolist(), by_class, strict=True)
    ]
    return torch.cat(shuffled)[split::splits].sort().values


def noisy_labels(task: Task, fraction: float) -> Tensor:
    """The labels with each one replaced, with probability ``fraction``, by another class."""
    if not fraction:
        return task.labels
    generator = stream(SPLIT_SEED, "label noise")
    chosen = torch.rand(len(task.labels), generator=generator, dtype=torch.float32) < fraction
    shift = torch.randint(1, task.num_classes, (len(task.labels),), generator=generator)
    return torch.where(chosen, (task.labels + shift) % task.num_classes, task.labels)
