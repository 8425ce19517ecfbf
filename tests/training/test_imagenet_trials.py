"""Trials on streamed pictures: the promises of bits are those of pictures in memory."""

from __future__ import annotations

import gc
import itertools
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.data.imagenet_folders import fill
from wsl_sweep.data import dataset
from wsl_sweep.errors import TrialError
from wsl_sweep.storage import place
from wsl_sweep.training import FrozenTeacher, Job, TeacherStore, TrialTraining, evaluate_on_test
from wsl_sweep.training.bank import BankSettings, list_banks

from .conftest import make_job
from .test_resuming import Result, assert_same, chain, result, undisturbed

OFF = BankSettings(use=False)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("imagenet"), train=16, val=4)


@pytest.fixture(autouse=True)
def no_process_stays() -> Iterator[None]:
    yield
    dataset.forget()
    gc.collect()
    assert not multiprocessing.active_children()


def job_on(root: Path, *sets: str, workers: int = 0, **options: Any) -> Job:
    """36 training pictures in batches of 10, 12 of validation."""
    usual = [
        "dataset.name=imagenet",
        f"dataset.root={root}",
        "dataset.size=32",
        "dataset.flip=true",
        "dataset.views=epoch",
        "dataset.validation_fraction=0.25",
        "dataset.train_fraction=1.0",
        "schedule.batch_size=10",
    ]
    usual += ["teacher.schedule.batch_size=18"] if options.get("teacher", True) else []
    given = {text.split("=")[0] for text in sets}
    usual = [text for text in usual if text.split("=")[0] not in given]
    return replace(make_job(*usual, *sets, **options), workers=workers)


def trained(job: Job, store: TeacherStore) -> tuple[Result, dict[str, Any]]:
    with TrialTraining(job, store) as training:
        list(training)
        facts = training.teacher_facts()
        assert facts is not None
        return result(training), facts


def test_with_k_views_the_bank_serves_every_later_trial_with_the_same_bits(root: Path, store: TeacherStore) -> None:
    job = job_on(root, "dataset.views=2", "schedule.epochs=4")
    without, facts = trained(replace(job, bank=OFF), store)
    assert facts["found"] == 0
    cold, first = trained(job, store)
    warm, second = trained(replace(job, workers=2), store)
    assert_same(cold, without)
    assert_same(warm, without)
    assert 36 < first["computed"] <= 36 * 2 + 12
    assert second["computed"] == 0
    assert second["found"] == 4 * 36 + 12
    (bank,) = list_banks()
    assert bank.usage.rows == first["computed"]
    assert not bank.in_use  # though processes that brought pictures are still there


def test_with_a_view_an_epoch_there_is_no_bank_and_nothing_depends_on_the_processes(
    root: Path, store: TeacherStore
) -> None:
    alone, facts = trained(job_on(root), store)
    others, _ = trained(job_on(root, workers=2), store)
    assert_same(others, alone)
    assert facts["computed"] == 2 * 36 + 12
    assert facts["found"] == 0
    assert not list_banks()


@pytest.mark.slow
def test_two_processes_that_train_have_processes_of_their_own_that_bring_pictures(
    root: Path, store: TeacherStore
) -> None:
    job = replace(job_on(root, "schedule.epochs=1", teacher=False), processes=2, workers=1)
    with TrialTraining(job, store) as training:
        (helper,) = training._group.lost.__self__._children  # type: ignore[attr-defined]
        hanging = threading.Timer(120, os.killpg, (helper.pid, signal.SIGKILL))  # then the training ends with an error
        hanging.start()
        list(training)
        hanging.cancel()
    assert [row["epoch"] for row in training.rows] == [1]
    assert helper.returncode == 0


def test_the_teacher_looks_at_the_students_own_inputs_and_none_is_brought_twice(
    root: Path, store: TeacherStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_on(root)
    seen: dict[str, list[Tensor]] = {"student": [], "teacher": []}
    outputs = FrozenTeacher.outputs

    def listening(self: FrozenTeacher, inputs: Tensor, features: bool) -> Any:
        seen["teacher"] += [one.clone() for one in inputs]
        return outputs(self, inputs, features)

    def never(*_: Any) -> Tensor:
        raise AssertionError("brought again")

    with TrialTraining(job, store) as training:
        monkeypatch.setattr(FrozenTeacher, "outputs", listening)
        monkeypatch.setattr(training.data.train.views, "take", never)
        training.student.register_forward_pre_hook(
            lambda module, given: seen["student"].extend(given[0].clone()) if module.training else None
        )
        list(training)
    assert len(seen["student"]) == 2 * 36
    kept = {one.contiguous().numpy().tobytes() for one in seen["teacher"]}
    assert all(one.contiguous().numpy().tobytes() in kept for one in seen["student"])
    assert len({one.contiguous().numpy().tobytes() for one in seen["student"]}) == 2 * 36  # a new crop each epoch


@pytest.mark.parametrize("views", ["epoch", "2"])
def test_a_training_that_ends_anywhere_goes_on_to_the_same_bits(
    root: Path, store: TeacherStore, tmp_path: Path, views: str
) -> None:
    job = job_on(root, f"dataset.views={views}", workers=1)
    expected = undisturbed(job, store)
    assert_same(result(chain(job, store, place(tmp_path / "t"), 3)), expected)


def test_a_trial_is_measured_by_top_five_too_and_at_last_on_val(
    root: Path, store: TeacherStore, tmp_path: Path
) -> None:
    job = job_on(root, workers=1)
    with TrialTraining(job, store) as training:
        rows = list(training)
        training.save(tmp_path)
    assert all(row["validation/top5_accuracy"] == 1.0 for row in rows)  # of three classes
    metrics = evaluate_on_test(job, tmp_path)
    assert metrics["test/top5_accuracy"] == 1.0
    assert 0 <= metrics["test/accuracy"] <= 1
    assert metrics["test/accuracy"] * 12 == pytest.approx(round(metrics["test/accuracy"] * 12))


def test_a_file_that_goes_while_it_is_trained_on_fails_the_trial_by_name(
    root: Path, store: TeacherStore, tmp_path: Path
) -> None:
    own = fill(tmp_path / "own", train=16, val=4)
    job = job_on(own, teacher=False, workers=2)
    with TrialTraining(job, store) as training:
        rows = iter(training)
        next(rows)
        gone = sorted((own / "train").glob("*/*"))
        for path in gone:
            path.unlink()
        with pytest.raises(TrialError, match=r"cannot read .*\.JPEG: No such file or directory"):
            next(rows)


def test_another_size_crop_or_version_of_a_decoder_is_another_bank(
    root: Path, store: TeacherStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wsl_sweep.data import imagenet

    def facts_of(*sets: str) -> dict[str, Any]:
        return dataset.load(job_on(root, *sets).config["dataset"]).train.views.facts()

    facts = [facts_of("dataset.views=2"), facts_of("dataset.views=3"), facts_of("dataset.views=2", "dataset.size=40")]
    facts.append(facts_of("dataset.views=2", "dataset.flip=false"))
    monkeypatch.setattr(imagenet, "version", lambda name: "0.1")
    facts.append(facts_of("dataset.views=2"))
    assert all(one != other for one, other in itertools.combinations(facts, 2))


def test_random_states_are_the_students_own(root: Path, store: TeacherStore) -> None:
    """Dropout and the like draw the same whoever brings the pictures."""
    states = []
    for workers in (0, 2):
        with TrialTraining(job_on(root, teacher=False, workers=workers), store) as training:
            list(training)
        states.append(torch.get_rng_state())
    assert torch.equal(*states)
