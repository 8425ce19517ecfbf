"""Inputs that are brought once for student and teacher, of several shapes, with a plain view of their own or no end."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from wsl_sweep.data import Examples, TaskData
from wsl_sweep.data.inputs import Inputs
from wsl_sweep.training.bank import BankSettings, TeacherOutputs, list_banks
from wsl_sweep.training.feed import epoch_inputs
from wsl_sweep.training.supply import WINDOW, TeacherSupply, supply_for
from wsl_sweep.training.teachers import FrozenTeacher, teacher_batch

OFF = BankSettings(use=False)
TEACHER = {"model": "convnet_3", "weights": "0" * 64, "own_code": None}
TRAIN, VALIDATION = 150, 40
CLASSES, LONGEST = 5, 12


class Sounds(Inputs):
    """Example i in view v is a row of numbers of its own; what is asked for is noted.

    Args:
        ids: (N,) of the examples.
        count: see ``Inputs``; the plain view is one more.
        streamed: see ``Inputs``.
        uneven: whether they have different lengths, padded with zeros to the longest of a batch.
    """

    def __init__(self, ids: Tensor, count: int | None, streamed: bool = False, uneven: bool = False) -> None:
        self.count, self.streamed, self.identity = count, streamed, -1 if count is None else count
        self._ids, self._uneven = ids, uneven
        self.taken: list[tuple[list[int], list[int]]] = []
        self.brought: list[list[int]] = []
        self.closed = 0

    @property
    def cells(self) -> int:
        return 0 if self.count is None else self.count + 1

    def lengths(self, examples: Tensor) -> Tensor:
        return 4 * (1 + self._ids[examples] % 3) if self._uneven else torch.full_like(examples, LONGEST)

    def made(self, examples: Tensor, views: Tensor) -> Tensor:
        """(B, L), what ``take`` gives, unnoted."""
        lengths = self.lengths(examples)
        numbers = (1 + self._ids[examples].unsqueeze(1) + 7 * (views.unsqueeze(1) % 1009)) * (1 + torch.arange(LONGEST))
        there = torch.arange(LONGEST) < lengths.unsqueeze(1)
        return (numbers.float().sin() * there)[:, : int(lengths.max())].clone()

    def take(self, examples: Tensor, views: Tensor) -> Tensor:
        self.taken.append((examples.tolist(), views.tolist()))
        return self.made(examples, views)

    def batches(self, examples: Tensor, views: Tensor, sizes: Sequence[int]) -> Generator[Tensor]:
        try:
            for some, of_them in zip(torch.split(examples, list(sizes)), torch.split(views, list(sizes)), strict=True):
                self.brought.append(some.tolist())
                yield self.made(some, of_them)
        finally:
            self.closed += 1

    def shapes(self, examples: Tensor) -> Tensor | None:
        return self.lengths(examples) if self._uneven else None

    def facts(self) -> dict[str, Any]:
        return {"count": self.count, "uneven": self._uneven}


def data_of(count: int | None = 3, **options: bool) -> TaskData:
    """A training part of the ids from 0 on, and a validation part of those after."""
    labels = torch.arange(TRAIN + VALIDATION) * 3 % CLASSES
    ids = torch.arange(len(labels))
    train, validation = (
        Examples(Sounds(some, count, **options), labels[some], some) for some in torch.split(ids, [TRAIN, VALIDATION])
    )
    return TaskData(train, validation, CLASSES, 1, digest="d", source="s", all_labels=labels)


def sounds(data: TaskData) -> Sounds:
    assert isinstance(data.train.views, Sounds)
    return data.train.views


class Listening(nn.Module):
    """A teacher of inputs of any length, which notes the shapes and rows that it computes with."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.head = nn.Linear(3, CLASSES)
        self.norm = nn.BatchNorm1d(3)
        self.seen: list[Tensor] = []

    def forward(self, inputs: Tensor) -> Tensor:
        self.seen.append(inputs.clone())
        found: Tensor = self.head(self.norm(torch.stack([inputs.sum(1), inputs.amax(1), inputs[:, 0]], dim=1)))
        return found


class Careless(Listening):
    """One that writes into what it is given, as a first layer with ``inplace=True`` does."""

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs.mul_(3))


@pytest.fixture
def supplied() -> Iterator[Any]:
    """Makes supplies; closed at the end."""
    made: list[TeacherSupply] = []

    def make(data: TaskData, model: nn.Module | None = None, mode: str = "eval", **options: Any) -> TeacherSupply:
        teacher = FrozenTeacher(model or Listening(), data.validation, mode)
        made.append(supply_for(data, lambda: teacher, TEACHER, by_batch=mode == "train", **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def a_batch(count: int = 50) -> tuple[Tensor, Tensor]:
    rows = torch.randperm(TRAIN, generator=torch.Generator().manual_seed(count))[:count]
    return rows, rows % 3


def logits_of(data: TaskData, rows: Tensor, views: Tensor, part: str = "train") -> Tensor:
    """What the teacher says of each by itself."""
    inputs = getattr(data, part).views
    teacher = FrozenTeacher(Listening(), data.validation)
    return torch.cat(
        [teacher.outputs(inputs.made(row[None], view[None]))[0] for row, view in zip(rows, views, strict=True)]
    )


# --- what a teacher is given -------------------------------------------------------------------------


@pytest.mark.parametrize("count", [3, None])
def test_inputs_that_are_handed_over_are_not_taken_again(count: int | None, supplied: Any) -> None:
    data = data_of(count, streamed=True)
    rows, views = a_batch()
    found = supplied(data).outputs(rows, views, sounds(data).made(rows, views))
    assert sounds(data).taken == []
    assert torch.equal(found.logits, logits_of(data, rows, views))


def test_of_inputs_that_are_handed_over_the_teacher_looks_at_those_that_the_bank_lacks(supplied: Any) -> None:
    data, model = data_of(streamed=True), Listening()
    rows, views = a_batch()
    wanted = logits_of(data, rows, views)
    supplied(data).outputs(rows[::2], views[::2])
    one = supplied(data, model)
    found = one.outputs(rows, views, sounds(data).made(rows, views))
    assert torch.equal(found.logits, wanted)
    assert (one.found, one.computed) == (25, 25)
    missing = sounds(data).made(rows[1::2].sort().values, views[1::2][rows[1::2].argsort()])
    (seen,) = model.seen
    assert torch.equal(seen[:25], missing)
    assert len(sounds(data).taken) == 1  # of the first supply


def test_without_inputs_only_what_is_missing_is_taken(supplied: Any) -> None:
    data = data_of()
    rows, views = a_batch()
    one = supplied(data)
    one.outputs(rows[:30], views[:30])
    one.outputs(rows, views)
    assert [len(some) for some, _ in sounds(data).taken] == [30, 20]
    assert sorted(sounds(data).taken[1][0]) == sorted(rows[30:].tolist())
    one.outputs(rows, views)
    assert len(sounds(data).taken) == 2


@pytest.mark.parametrize("settings", [OFF, BankSettings()])
def test_examples_of_several_shapes_are_computed_by_shape_each_padded_by_itself(
    settings: BankSettings, supplied: Any
) -> None:
    data, model = data_of(uneven=True), Listening()
    rows, views = a_batch(120)
    handed = sounds(data).made(rows, views)
    assert handed.shape[1] == LONGEST
    found = supplied(data, model, settings=settings).outputs(rows, views, handed)
    assert torch.equal(found.logits, logits_of(data, rows, views))
    assert {batch.shape[1] for batch in model.seen} == {4, 8, 12}
    assert {batch.shape[0] for batch in model.seen} == {teacher_batch("cpu")}
    assert len(model.seen) <= 120 // teacher_batch("cpu") + 1 + 2  # where one shape ends another begins
    for examples, _ in sounds(data).taken:
        assert len(set(sounds(data).lengths(torch.tensor(examples)).tolist())) == 1


def test_in_train_mode_a_teacher_gets_the_students_own_batch_whatever_its_shapes(supplied: Any) -> None:
    data, model = data_of(uneven=True), Listening()
    one = supplied(data, model, "train")
    model.seen.clear()
    rows, views = a_batch()
    handed = sounds(data).made(rows, views)
    one.outputs(rows, views, handed)
    assert torch.equal(model.seen[0], handed)
    assert sounds(data).taken == []


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_a_teacher_that_writes_into_its_inputs_does_not_touch_the_students(mode: str, supplied: Any) -> None:
    data = data_of(streamed=True)
    rows, views = a_batch(teacher_batch("cpu"))
    handed = sounds(data).made(rows, views)
    supplied(data, Careless(), mode).outputs(rows, views, handed)
    assert torch.equal(handed, sounds(data).made(rows, views))


# --- plain views, and views without end --------------------------------------------------------------


def test_a_plain_view_of_its_own_has_a_cell_of_its_own(supplied: Any) -> None:
    data = data_of(3)
    rows = torch.arange(TRAIN)
    one = supplied(data)
    for view in range(3):
        one.outputs(rows, torch.full_like(rows, view))
    places = torch.arange(VALIDATION)
    plain = torch.full_like(places, 3)
    assert torch.equal(one.validation_logits(), logits_of(data, places, plain, "validation"))
    assert (one.found, one.computed) == (0, 3 * TRAIN + VALIDATION)
    one.close()
    (entry,) = list_banks()
    assert entry.usage.cells == (TRAIN + VALIDATION) * 4
    again = supplied(data)
    for view in range(3):
        views = torch.full_like(rows, view)
        assert torch.equal(again.outputs(rows, views).logits, logits_of(data, rows, views))
    assert torch.equal(again.validation_logits(), logits_of(data, places, plain, "validation"))
    assert again.computed == 0


def test_views_without_end_have_no_bank_and_nothing_is_said_of_that(supplied: Any) -> None:
    data = data_of(None)
    one = supplied(data, settings=BankSettings(features=True))
    rows = torch.arange(TRAIN)
    for epoch in (11, 12, 11):
        views = torch.full_like(rows, 2**62 + epoch)
        assert torch.equal(one.outputs(rows, views).logits, logits_of(data, rows, views))
    assert (one.found, one.computed) == (0, 3 * TRAIN)
    plain = torch.full((VALIDATION,), -1)
    assert torch.equal(one.validation_logits(), logits_of(data, torch.arange(VALIDATION), plain, "validation"))
    one.validation_logits()
    assert one.computed == 3 * TRAIN + VALIDATION
    assert one.notes == []
    assert list_banks() == []


@pytest.mark.parametrize("streamed", [True, False])
def test_a_window_is_one_batch_where_inputs_are_streamed(streamed: bool, supplied: Any) -> None:
    assert supplied(data_of(streamed=streamed)).window == (1 if streamed else WINDOW)
    assert supplied(data_of(streamed=streamed), mode="train").window == 1


# --- an epoch's batches ------------------------------------------------------------------------------


class Asked:
    """A teacher that says of an example its number, and notes what it is given."""

    def __init__(self, window: int) -> None:
        self.window = window
        self.given: list[tuple[list[int], Tensor | None]] = []

    def drifting(self) -> dict[str, Tensor]:
        return {}

    def outputs(self, rows: Tensor, views: Tensor, inputs: Tensor | None = None) -> TeacherOutputs:
        self.given.append((rows.tolist(), inputs))
        return TeacherOutputs(rows.unsqueeze(1).float())

    def validation_logits(self) -> Tensor:
        return torch.zeros(VALIDATION, 1)


def steps_of(data: TaskData, teacher: Asked | None, *, epoch: int = 2, first_step: int = 0) -> list[Any]:
    return list(epoch_inputs(data, teacher, seed=1, epoch=epoch, epochs=3, batch_size=32, first_step=first_step))


@pytest.mark.parametrize("count", [3, None])
def test_a_streamed_batch_is_brought_once_and_both_read_it(count: int | None) -> None:
    data, teacher = data_of(count, streamed=True), Asked(1)
    steps = steps_of(data, teacher)
    assert [len(step.labels) for step in steps] == [32, 32, 32, 32, 22]
    assert sounds(data).taken == []
    assert [rows for rows, _ in teacher.given] == sounds(data).brought
    for step, (rows, inputs) in zip(steps, teacher.given, strict=True):
        assert step.inputs is inputs
        assert step.teacher_logits.flatten().tolist() == rows
        assert torch.equal(step.labels, data.train.labels[rows])
    assert sorted(itertools.chain(*sounds(data).brought)) == list(range(TRAIN))
    assert sounds(data).closed == 1


@pytest.mark.parametrize(("window", "handed"), [(64, [2, 2, 1]), (150, [5]), (33, [1, 1, 1, 1, 1])])
def test_only_a_batch_that_is_asked_for_by_itself_is_handed_over(window: int, handed: list[int]) -> None:
    data, teacher = data_of(), Asked(window)
    steps = iter(steps_of(data, teacher))
    assert [len(rows) for rows, _ in teacher.given] == [
        min(32 * n, TRAIN - 32 * sum(handed[:i])) for i, n in enumerate(handed)
    ]
    for rows, inputs in teacher.given:
        own = [next(steps) for _ in range((len(rows) + 31) // 32)]
        assert torch.cat([step.teacher_logits for step in own]).flatten().tolist() == rows
        assert (inputs is None) == (len(own) > 1)
        assert inputs is None or inputs is own[0].inputs


def test_who_ends_an_epoch_early_ends_what_brings_its_inputs() -> None:
    data = data_of(streamed=True)
    feed = epoch_inputs(data, Asked(1), seed=1, epoch=0, epochs=1, batch_size=32)
    next(feed)
    assert isinstance(feed, Generator)
    feed.close()
    assert (len(sounds(data).brought), sounds(data).closed) == (1, 1)


@pytest.mark.parametrize("count", [3, None])
def test_an_epoch_that_goes_on_brings_what_is_left_and_the_same_bits(count: int | None) -> None:
    whole, data = steps_of(data_of(count, streamed=True), Asked(1)), data_of(count, streamed=True)
    rest = steps_of(data, Asked(1), first_step=3)
    assert [len(rows) for rows in sounds(data).brought] == [32, 22]
    for step, other in zip(whole[3:], rest, strict=True):
        assert torch.equal(step.inputs, other.inputs)
        assert torch.equal(step.labels, other.labels)
        assert torch.equal(step.teacher_logits, other.teacher_logits)
    assert steps_of(data, Asked(1), first_step=5) == []


def test_where_views_have_no_end_each_epoch_and_seed_has_its_own() -> None:
    data = data_of(None)
    drawn = {
        (seed, epoch): data.train.draw_views(torch.Generator().manual_seed(2**62 + 10 * seed + epoch))
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    assert all(len(views) == TRAIN and len(set(views.tolist())) == 1 for views in drawn.values())
    assert len({int(views[0]) for views in drawn.values()}) == 4
    inputs = [torch.cat([step.inputs for step in steps_of(data, None, epoch=epoch)]) for epoch in (0, 0, 1)]
    assert torch.equal(inputs[0], inputs[1])
    assert not torch.equal(inputs[0].sort(dim=0).values, inputs[2].sort(dim=0).values)
