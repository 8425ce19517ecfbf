"""The digits, split: disjoint, stratified, fixed; noise and views where they belong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from wsl_sweep.data import Examples, TaskData, dataset, load
from wsl_sweep.data.dataset import load_test
from wsl_sweep.data.inputs import Inputs
from wsl_sweep.data.sources import SOURCES, Source
from wsl_sweep.data.streams import stream, stream_seed
from wsl_sweep.data.task import Task
from wsl_sweep.errors import WslSweepError

TOTAL = 1797


def config(**changes: Any) -> dict[str, Any]:
    """A resolved ``dataset`` section."""
    return {
        "name": "digits",
        "validation_fraction": 0.3,
        "train_fraction": 1.0,
        "label_noise": 0.0,
        "padding": 1,
        "padding_mode": "zeros",
        "flip": False,
        "views": "all",
    } | changes


def true_labels(ids: Tensor) -> Tensor:
    return torch.tensor(load_digits().target, dtype=torch.int64)[ids]


def ids(examples: Examples) -> set[int]:
    found: list[int] = examples.ids.tolist()
    assert len(set(found)) == len(found)
    return set(found)


def counts(labels: Tensor) -> Tensor:
    return torch.bincount(labels, minlength=10)


# --- parts -----------------------------------------------------------------------------------------


def test_the_parts_are_disjoint_and_together_everything() -> None:
    data, test = load(config()), load_test(config())
    parts = [ids(data.train), ids(data.validation), ids(test)]
    assert sum(len(part) for part in parts) == TOTAL
    assert set.union(*parts) == set(range(TOTAL))


def test_each_part_has_each_class_in_its_proportion() -> None:
    data, test = load(config()), load_test(config())
    whole = counts(true_labels(torch.arange(TOTAL)))
    for part, fraction in ((test, 0.2), (data.validation, 0.8 * 0.3), (data.train, 0.8 * 0.7)):
        assert (counts(true_labels(part.ids)) - fraction * whole).abs().max() <= 1


def test_pictures_and_labels_are_those_of_their_ids() -> None:
    data, test = load(config()), load_test(config())
    images = torch.tensor(load_digits().images, dtype=torch.float32).unsqueeze(1) / 16
    for part in (data.train, data.validation, test):
        assert torch.equal(part.labels, true_labels(part.ids))
        plain = part.views.plain(torch.arange(len(part)))
        torch.testing.assert_close(plain, (images[part.ids] - 0.305) / 0.376)
    assert (data.num_classes, data.in_channels) == (10, 1)


def test_normalised_pictures_have_mean_0_and_deviation_1() -> None:
    data, test = load(config()), load_test(config())
    parts = (data.train, data.validation, test)
    pixels = torch.cat([part.views.plain(torch.arange(len(part))) for part in parts])
    assert pixels.mean().abs() < 5e-3
    assert (pixels.std() - 1).abs() < 5e-3


def test_the_split_owes_nothing_to_the_moment() -> None:
    before = load(config()), load_test(config())
    dataset.forget()
    torch.manual_seed(31)
    after = load(config()), load_test(config())
    assert torch.equal(before[0].train.ids, after[0].train.ids)
    assert torch.equal(before[0].validation.ids, after[0].validation.ids)
    assert torch.equal(before[1].ids, after[1].ids)


@pytest.mark.parametrize("change", [{"train_fraction": 0.5}, {"label_noise": 0.3}, {"padding": 0, "flip": True}])
def test_validation_and_test_are_the_same_whatever_a_student_trains_on(change: dict[str, Any]) -> None:
    plain, changed = load(config()), load(config(**change))
    assert torch.equal(plain.validation.ids, changed.validation.ids)
    assert torch.equal(plain.validation.labels, changed.validation.labels)
    tests = load_test(config()), load_test(config(**change))
    assert torch.equal(tests[0].ids, tests[1].ids)
    assert torch.equal(tests[0].labels, tests[1].labels)


def test_what_is_loaded_does_not_depend_on_the_default_dtype() -> None:
    """What loads first in a process is kept for all who come after."""
    kept = load(config(views=3, label_noise=0.2)).train
    dataset.forget()
    torch.set_default_dtype(torch.float64)
    try:
        found = load(config(views=3, label_noise=0.2)).train
    finally:
        torch.set_default_dtype(torch.float32)
        dataset.forget()
    rows = torch.arange(len(kept))
    assert found.fixed_views is not None
    assert kept.fixed_views is not None
    assert torch.equal(found.fixed_views, kept.fixed_views)
    assert torch.equal(found.labels, kept.labels)
    assert found.views.plain(rows).dtype == torch.float32
    assert torch.equal(found.views.plain(rows), kept.views.plain(rows))


def test_the_test_part_is_the_same_whatever_is_for_validation() -> None:
    few, many = config(validation_fraction=0.1), config(validation_fraction=0.5)
    assert ids(load_test(few)) == ids(load_test(many))
    assert ids(load(few).validation) < ids(load(many).validation)


def test_a_smaller_train_fraction_is_a_subset_of_a_larger() -> None:
    fractions = [0.1, 0.25, 0.4, 0.8, 1.0]
    parts = [load(config(train_fraction=fraction)).train for fraction in fractions]
    for fraction, smaller, larger in zip(fractions, parts[:-1], parts[1:], strict=False):
        assert ids(smaller) < ids(larger)
        assert len(smaller) == pytest.approx(fraction * len(parts[-1]), abs=5)
        assert (counts(smaller.labels) - fraction * counts(parts[-1].labels)).abs().max() <= 1


def test_train_and_validation_together_are_all_but_the_test_part() -> None:
    apart, together = load(config()), load(config(), part="train+validation")
    assert ids(together.train) == ids(apart.train) | ids(apart.validation)
    assert torch.equal(together.validation.ids, apart.validation.ids)
    assert not ids(together.train) & ids(load_test(config()))


def test_only_training_pictures_are_augmented() -> None:
    augmented = config(padding=2, flip=True)
    data = load(augmented)
    assert data.train.views.count == 50
    assert data.validation.views.count == load_test(augmented).views.count == 1


# --- label noise -----------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.1, 0.4])
def test_noise_is_in_the_training_labels_only_and_at_its_rate(rate: float) -> None:
    noisy = load(config(label_noise=rate))
    wrong = noisy.train.labels != true_labels(noisy.train.ids)
    assert wrong.double().mean() == pytest.approx(rate, abs=4 * (rate * (1 - rate) / len(wrong)) ** 0.5)
    assert torch.equal(noisy.validation.labels, true_labels(noisy.validation.ids))
    test = load_test(config(label_noise=rate))
    assert torch.equal(test.labels, true_labels(test.ids))


def test_a_noisy_label_is_one_of_the_other_classes_each_as_likely() -> None:
    noisy = load(config(label_noise=0.9), part="train+validation").train
    true = true_labels(noisy.ids)
    wrong = noisy.labels != true
    assert wrong.double().mean() == pytest.approx(0.9, abs=4 * (0.9 * 0.1 / len(wrong)) ** 0.5)
    shifts = ((noisy.labels - true) % 10)[wrong]
    shares = torch.bincount(shifts, minlength=10).double() / wrong.sum()
    assert (shares[1:] - 1 / 9).abs().max() < 4 * (1 / 9 * 8 / 9 / wrong.sum().item()) ** 0.5


def test_an_example_has_the_same_noisy_label_in_every_part_that_holds_it() -> None:
    small = load(config(label_noise=0.3, train_fraction=0.3)).train
    large = load(config(label_noise=0.3), part="train+validation").train
    labels = dict(zip(large.ids.tolist(), large.labels.tolist(), strict=True))
    assert [labels[example] for example in small.ids.tolist()] == small.labels.tolist()


def test_more_noise_only_adds_to_less() -> None:
    less, more = (load(config(label_noise=rate)).train.labels for rate in (0.1, 0.3))
    wrong = less != true_labels(load(config()).train.ids)
    assert torch.equal(more[wrong], less[wrong])


# --- views -----------------------------------------------------------------------------------------


def drawn(examples: Examples, epochs: int) -> Tensor:
    """(epochs, N)"""
    return torch.stack([examples.draw_views(stream(0, "views", epoch)) for epoch in range(epochs)])


def test_all_views_are_drawn_alike() -> None:
    train = load(config()).train
    assert train.fixed_views is None
    found = drawn(train, 20)
    shares = torch.bincount(found.flatten(), minlength=9).double() / found.numel()
    assert (shares - 1 / 9).abs().max() < 4 * (1 / 9 * 8 / 9 / found.numel()) ** 0.5


@pytest.mark.parametrize("k", [1, 3, 8])
def test_each_example_is_seen_in_exactly_k_different_views_of_its_own(k: int) -> None:
    train = load(config(views=k)).train
    found = drawn(train, 60 if k < 8 else 120)
    for column, fixed in zip(found.T, train.fixed_views if train.fixed_views is not None else [], strict=True):
        assert len(fixed.unique()) == k
        assert set(column.tolist()) <= set(fixed.tolist())
    seen = [len(column.unique()) for column in found.T]
    assert max(seen) == k
    assert sum(count == k for count in seen) > 0.95 * len(seen)
    assert ((found >= 0) & (found < 9)).all()


def test_the_fixed_views_differ_between_examples_and_cover_all_views() -> None:
    fixed = load(config(views=2)).train.fixed_views
    assert fixed is not None
    shares = torch.bincount(fixed.flatten(), minlength=9).double() / fixed.numel()
    assert (shares - 1 / 9).abs().max() < 4 * (1 / 9 * 8 / 9 / fixed.numel()) ** 0.5


def test_fixed_views_belong_to_the_example_not_to_the_part() -> None:
    small, large = load(config(views=3, train_fraction=0.3)).train, load(config(views=3)).train
    assert small.fixed_views is not None
    assert large.fixed_views is not None
    rows = {example: row for row, example in enumerate(large.ids.tolist())}
    wanted = large.fixed_views[[rows[example] for example in small.ids.tolist()]]
    assert torch.equal(small.fixed_views, wanted)


@pytest.mark.parametrize("k", [9, 100])
def test_as_many_views_as_there_are_is_all_of_them(k: int) -> None:
    assert load(config(views=k)).train.fixed_views is None


# --- digest and mistakes ---------------------------------------------------------------------------


def test_the_digest_tells_one_split_from_another() -> None:
    variants: list[TaskData] = [
        load(config()),
        load(config(), part="train+validation"),
        load(config(validation_fraction=0.2)),
        load(config(train_fraction=0.5)),
    ]
    digests = {data.digest for data in variants}
    assert len(digests) == len(variants)
    assert all(len(digest) == 16 for digest in digests)
    assert load(config(padding=0)).digest == load(config()).digest


def test_a_whole_number_is_the_same_fraction_in_the_digest() -> None:
    """As in a trial's id, 1 and 1.0 are one setting."""
    assert load(config(train_fraction=1)).digest == load(config(train_fraction=1.0)).digest


def test_the_digest_is_of_the_pictures_and_labels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plain = load(config()).digest
    bunch = load_digits()
    bunch.images[5, 3, 3] += 1
    monkeypatch.setattr("sklearn.datasets.load_digits", lambda: bunch)
    monkeypatch.setenv("WSL_SWEEP_CACHE", str(tmp_path))  # where nothing is kept yet
    try:
        dataset.forget()
        assert load(config()).digest != plain
    finally:
        dataset.forget()


def test_an_unknown_data_set_is_refused_with_the_known_ones() -> None:
    with pytest.raises(WslSweepError, match=r'"mnist".*mnli'):
        load(config(name="mnist"))


@pytest.mark.parametrize(
    ("change", "part"),
    [({"validation_fraction": 0.001}, "validation"), ({"train_fraction": 0.0001}, "training")],
)
def test_a_part_without_examples_says_what_to_change(change: dict[str, Any], part: str) -> None:
    with pytest.raises(WslSweepError, match=f"the {part} part of digits has 0 examples.*fraction"):
        load(config(**change))


def test_reflection_beyond_the_picture_is_a_mistake_of_the_user() -> None:
    with pytest.raises(WslSweepError, match="padding"):
        load(config(padding=8, padding_mode="reflect"))


# --- inputs of other kinds -------------------------------------------------------------------------


class Numbers(Task):
    """Twelve examples of each of three classes; the test part is the last three rows, in two groups."""

    num_classes, in_channels, views = 3, 4, 5

    def __init__(self) -> None:
        self.labels = torch.arange(36) % 3
        self.test = torch.tensor([35, 33, 34])
        self.test_groups = {"even": torch.tensor([34]), "odd": torch.tensor([33, 35]), "nobody": torch.tensor([2])}

    def take(self, rows: Tensor, views: Tensor) -> Tensor:
        return rows.unsqueeze(1) * 10.0 + views.unsqueeze(1) + torch.arange(4) / 8


class Streamed(Numbers):
    """The same, its inputs streamed: in ``views`` views and a plain one, or in new ones each epoch."""

    def inputs(
        self, config: Mapping[str, Any], rows: Tensor, device: str, *, training: bool, workers: int = 0
    ) -> Inputs:
        made = super().inputs(config, rows, device, training=training, workers=workers)
        made.streamed, made.count = True, None if config["views"] == "epoch" else 5
        return made


@pytest.fixture(params=[Numbers, Streamed])
def task(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Numbers]]:
    """A task under the name ``numbers``."""
    made: type[Numbers] = request.param
    monkeypatch.setitem(SOURCES, "numbers", Source(lambda config: made()))
    dataset.forget()
    yield made
    dataset.forget()


def test_views_are_fixed_where_inputs_lie_in_memory_and_come_as_they_are_where_they_are_streamed(
    task: type[Numbers],
) -> None:
    part = load(config(name="numbers", views=2)).train
    if task is Streamed:
        assert part.fixed_views is None
    else:
        assert part.fixed_views is not None
        assert part.fixed_views.shape == (len(part), 2)
    drawn = torch.stack([part.draw_views(stream(0, "views", epoch)) for epoch in range(60)])
    assert [len(seen.unique()) for seen in drawn.T] == [5 if task is Streamed else 2] * len(part)


@pytest.mark.parametrize("task", [Streamed], indirect=True)
def test_views_without_end_are_the_numbers_of_their_stream(task: type[Numbers]) -> None:
    part = load(config(name="numbers", views="epoch")).train
    for epoch in (0, 1):
        drawn = part.draw_views(stream(3, "views", epoch))
        assert drawn.tolist() == [stream_seed(3, "views", epoch)] * len(part)


@pytest.mark.parametrize("task", [Numbers], indirect=True)
def test_a_group_is_of_the_test_part_alone_and_by_its_places(task: type[Numbers]) -> None:
    data, test = load(config(name="numbers")), load_test(config(name="numbers"))
    assert data.train.groups == data.validation.groups == {}
    assert set(test.groups) == {"even", "odd"}  # a group of which nobody is in the test part is none
    for name, rows in (("even", {34}), ("odd", {33, 35})):
        assert set(test.ids[test.groups[name]].tolist()) == rows


@pytest.mark.parametrize("task", [Numbers], indirect=True)
def test_validation_and_test_read_the_plain_view(task: type[Numbers]) -> None:
    data, test = load(config(name="numbers")), load_test(config(name="numbers"))
    for part in (data.validation, test):
        rows = torch.arange(len(part))
        assert torch.equal(part.views.plain(rows), task().take(part.ids, torch.zeros_like(rows)))
    assert (data.validation.views.count, test.views.count, data.train.views.count) == (1, 1, 5)
    assert data.train.views.cells == 5


@pytest.mark.parametrize("task", [Numbers], indirect=True)
def test_a_task_is_made_once_for_all_its_parts_and_again_for_what_it_is_made_from(
    task: type[Numbers], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[dict[str, Any]] = []

    def read(config: Mapping[str, Any]) -> Task:
        made.append(dict(config))
        return task()

    stamps = [1]
    monkeypatch.setitem(SOURCES, "numbers", Source(read, stamp=lambda config: stamps[0]))
    load(config(name="numbers"))
    load_test(config(name="numbers", label_noise=0.5, validation_fraction=0.4))
    load(config(name="numbers", validation_fraction=0.4), "train+validation")
    assert made == [{"name": "numbers"}]
    load_test(config(name="numbers", max_length=64, damaged="skip"))
    assert made[1:] == [{"name": "numbers", "damaged": "skip", "max_length": 64}]
    stamps[0] = 2  # its files are other ones now
    load_test(config(name="numbers"))
    assert made[2:] == [{"name": "numbers"}]


@pytest.mark.parametrize("count", [2, 40])
@pytest.mark.parametrize("task", [Numbers], indirect=True)
def test_some_inputs_are_the_first_ones_as_often_as_it_takes(count: int, task: type[Numbers]) -> None:
    rows = torch.arange(count) % 36
    found = dataset.some_inputs(config(name="numbers"), count)
    assert torch.equal(found, task().take(rows, torch.zeros_like(rows)))
