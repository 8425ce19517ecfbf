"""Students of disjoint parts: one teacher and one bank for all of them, or a teacher for each."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.training.conftest import make_job
from wsl_sweep.data import dataset
from wsl_sweep.training import TeacherStore, TrialTraining, train_teacher


def trained(store: TeacherStore, *sets: str, seed: int = 0) -> TrialTraining:
    with TrialTraining(make_job(*sets, seed=seed), store) as training:
        list(training)
    return training


def test_students_of_all_parts_share_a_teacher_that_has_seen_them_all(own_cache: Path) -> None:
    store = TeacherStore()
    first = trained(store, "dataset.splits=4", "dataset.views=1", seed=0)
    second = trained(store, "dataset.splits=4", "dataset.views=1", seed=1)
    again = trained(store, "dataset.splits=4", "dataset.views=1", "distillation.alpha=3", seed=1)
    assert len(store.cards()) == 1
    whole = train_teacher(make_job("dataset.views=1"), store)
    assert whole is not None
    assert whole["teacher_id"] == store.cards()[0]["teacher_id"]
    assert not {*first.data.train.ids.tolist()} & {*second.data.train.ids.tolist()}
    facts = [one.teacher_facts() for one in (first, second, again)]
    validation = len(first.data.validation)
    assert facts[0] is not None
    assert facts[1] is not None
    assert facts[2] is not None
    assert facts[0]["computed"] == validation + len(first.data.train)
    assert facts[1]["computed"] == len(second.data.train)
    assert facts[2]["computed"] == 0


def test_a_teacher_of_the_same_part_has_seen_that_alone(own_cache: Path) -> None:
    store = TeacherStore()
    jobs = [make_job("dataset.splits=4", "teacher.split=same", seed=seed) for seed in range(2)]
    cards = [train_teacher(job, store) for job in jobs]
    digests = [dataset.load(job.config["dataset"]).digest for job in jobs]
    assert [card and card["data"] for card in cards] == digests
    assert len({card and card["teacher_id"] for card in cards}) == 2
    assert all(card and card["identity"]["dataset"]["splits"] == 4 for card in cards)


OWN = """
import torch
from wsl_sweep.data import Task

class Signs(Task):
    num_classes, in_channels = 2, 3

    def __init__(self):
        self.points = torch.randn(300, 3, generator=torch.Generator().manual_seed(0))
        self.labels = (self.points.sum(dim=1) > 0).long()

    def take(self, rows, views):
        return self.points[rows]

def line(num_classes, in_channels):
    return torch.nn.Linear(in_channels, num_classes)
"""


@pytest.fixture
def own_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., TrialTraining]]:
    (tmp_path / "signs_of_splits.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    store = TeacherStore()

    def train(*sets: str, seed: int = 0) -> TrialTraining:
        names = ("dataset.name=signs_of_splits:Signs", "student.model=signs_of_splits:line")
        return trained(store, *names, "teacher.model=signs_of_splits:line", *sets, seed=seed)

    yield train
    sys.modules.pop("signs_of_splits", None)


@pytest.mark.parametrize("split", ["all", "same"])
def test_the_teacher_of_a_users_task_is_known_by_the_data_that_it_was_trained_on(
    own_task: Callable[..., TrialTraining], split: str
) -> None:
    for _ in range(2):
        training = own_task("dataset.splits=3", f"teacher.split={split}", seed=2)
    assert len(training.rows) == 2
