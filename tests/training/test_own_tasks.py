"""A user's own task is trained as pictures are: bank, resuming, label noise, parts, its own metrics."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from wsl_sweep.data import forget, load
from wsl_sweep.errors import TrialError
from wsl_sweep.storage import place
from wsl_sweep.training import BankSettings, Job, TeacherStore, TrialTraining, evaluate_on_test, train_teacher
from wsl_sweep.training.bank import list_banks
from wsl_sweep.user_code import search_in

from . import own_tasks
from .conftest import make_job
from .test_resuming import assert_same, run, undisturbed

MODULE = "users_vectors"


@pytest.fixture(scope="module", autouse=True)
def users_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the user's own that holds nothing but the task and its models."""
    folder = tmp_path_factory.mktemp("user")
    shutil.copy(own_tasks.__file__, folder / f"{MODULE}.py")
    search_in([folder])
    return folder


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    yield
    forget()


def own(
    task: str, *sets: str, model: str = "net", part: str = "train", teacher: bool = True, use_bank: bool = True
) -> Job:
    models = (f"student.model={MODULE}:{model}", *([f"teacher.model={MODULE}:{model}"] if teacher else []))
    of_data = (f"dataset.name={MODULE}:{task}", "dataset.train_fraction=1.0", "schedule.batch_size=32")
    job = make_job(*models, *of_data, *sets, part=part, teacher=teacher)
    return replace(job, bank=BankSettings(use=use_bank))


TASKS = [("Vectors", "net"), ("Augmented", "net"), ("Tokens", "reader")]


@pytest.mark.parametrize(("task", "model"), TASKS)
def test_the_bank_changes_nothing(task: str, model: str) -> None:
    store = TeacherStore()
    without = undisturbed(own(task, model=model, use_bank=False), store)
    cold = undisturbed(own(task, model=model), store)
    (bank,) = list_banks()
    with TrialTraining(own(task, model=model), store) as training:
        list(training)
        facts = training.teacher_facts()
    assert facts is not None
    assert (facts["computed"], facts["found"] > 0) == (0, True)
    assert_same(cold, without)
    assert bank.usage.rows > 0
    assert cold[0][-1]["validation/confidence"] > 0


def test_a_trial_that_is_stopped_goes_on_to_the_same_end(tmp_path: Path) -> None:
    job, store = own("Augmented"), TeacherStore()
    whole = undisturbed(job, store)
    folder = place(tmp_path / "trial")
    run(job, store, folder, 1, steps=5)
    last = run(job, store, folder, 2)
    assert [row["validation/confidence"] for row in last.rows] == [row["validation/confidence"] for row in whole[0]]
    assert all(torch.equal(value, whole[1][name]) for name, value in last.student.state_dict().items())


def test_label_noise_and_both_parts(tmp_path: Path) -> None:
    noisy = own("Vectors", "dataset.label_noise=0.5", part="train+validation")
    data = load(noisy.config["dataset"], "train+validation")
    clean = load(own("Vectors").config["dataset"], "train+validation")
    assert 0.3 < float((data.train.labels != clean.train.labels).float().mean()) < 0.7
    assert torch.equal(data.validation.labels, clean.validation.labels)
    card = train_teacher(noisy, TeacherStore())
    assert card is not None
    assert card["seen_validation"]
    assert "validation/confidence" in card["metrics"]


def test_the_test_part_is_measured_at_the_end_by_group_too(tmp_path: Path) -> None:
    job = own("Parted", teacher=False)
    with TrialTraining(job, TeacherStore()) as training:
        list(training)
        training.save(place(tmp_path / "trial"))
    found = evaluate_on_test(job, place(tmp_path / "trial"))
    assert {*found} == {
        f"test/{name}" for name in ("accuracy", "loss", "ece", "confidence", "accuracy_first", "accuracy_last")
    }
    assert found["test/accuracy"] == pytest.approx((found["test/accuracy_first"] + found["test/accuracy_last"]) / 2)


def test_fewer_views_are_fixed() -> None:
    job = own("Augmented", "dataset.views=1")
    with TrialTraining(job, TeacherStore()) as training:
        list(training)
        facts = training.teacher_facts()
    data = load(job.config["dataset"])
    assert facts is not None
    assert facts["computed"] <= len(data.train) + len(data.validation)


def test_a_teacher_of_other_data_is_refused(tmp_path: Path) -> None:
    for name, moved in (("one", "0"), ("copy", "0"), ("other", "1")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "moved").write_text(moved)
    store = TeacherStore()
    jobs = {name: own("FromFile", f"dataset.root={tmp_path / name}") for name in ("one", "copy", "other")}
    card = train_teacher(jobs["one"], store)
    assert card is not None
    undisturbed(jobs["copy"], store)
    told = rf"the teacher {card['teacher_id']} was trained on other data than {MODULE}:FromFile holds now: take another"
    with pytest.raises(TrialError, match=told):
        undisturbed(jobs["other"], store)
    undisturbed(own("FromFile", f"dataset.root={tmp_path / 'other'}", "teacher.seed=1"), store)
    shutil.rmtree(store.weights(card["teacher_id"]).parent)
    undisturbed(jobs["other"], store)


def test_a_task_that_fails_ends_the_trial_with_its_reason() -> None:
    with (
        pytest.raises(TrialError, match=rf"take of {MODULE}:Broken fails: ValueError: no example 7"),
        TrialTraining(own("Broken", teacher=False), TeacherStore()) as training,
    ):
        list(training)
