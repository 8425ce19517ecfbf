"""Disjoint parts of the training part: what the regimes of bias and variance train on."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.data.test_dataset import config, ids
from wsl_sweep.data import load
from wsl_sweep.data.splits import dealt
from wsl_sweep.errors import WslSweepError


def parts(splits: int, **changes: Any) -> list[set[int]]:
    loaded = [load(config(splits=splits, split=split, **changes)) for split in range(splits)]
    return [ids(one.train) for one in loaded]


@pytest.mark.parametrize("splits", [2, 5, 7])
def test_the_parts_are_disjoint_and_together_the_training_part(splits: int) -> None:
    found = parts(splits)
    assert sum(map(len, found)) == len(set().union(*found))
    assert set().union(*found) == ids(load(config()).train)
    assert max(map(len, found)) - min(map(len, found)) <= 1


def test_each_part_has_each_class_in_its_proportion() -> None:
    counts = torch.stack([load(config(splits=5, split=one)).train.labels.bincount() for one in range(5)])
    assert int((counts.amax(dim=0) - counts.amin(dim=0)).max()) <= 1


def test_they_are_dealt_out_of_what_is_used_of_the_training_part() -> None:
    found = parts(3, train_fraction=0.5)
    assert set().union(*found) == ids(load(config(train_fraction=0.5)).train)


def test_validation_is_the_same_and_the_digests_differ() -> None:
    whole, *others = [load(config()), *(load(config(splits=3, split=split)) for split in range(3))]
    assert all(ids(one.validation) == ids(whole.validation) for one in others)
    assert len({one.digest for one in (whole, *others)}) == 4
    assert load(config(splits=1)).digest == whole.digest
    assert {one.source for one in others} == {whole.source}


def test_with_validation_they_are_parts_of_both_together() -> None:
    loaded = [load(config(splits=4, split=split), "train+validation") for split in range(4)]
    assert set().union(*(ids(one.train) for one in loaded)) == ids(load(config(), "train+validation").train)


def test_too_many_parts_say_what_to_change() -> None:
    with pytest.raises(WslSweepError, match=r"dataset\.splits"):
        load(config(splits=2000, split=0))


def test_a_class_of_fewer_examples_than_parts_is_in_some_of_them() -> None:
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 2])
    found = [dealt(labels, torch.arange(7), 3, split) for split in range(3)]
    assert sorted(torch.cat(found).tolist()) == [*range(7)]
    assert [len(one) for one in found] == [3, 2, 2]
    assert all(one.tolist() == sorted(one.tolist()) for one in found)
    assert all(dealt(labels, torch.arange(7), 3, split).equal(one) for split, one in enumerate(found))
