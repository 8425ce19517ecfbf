"""A training that ends anywhere and goes on gives the bits of one that was never disturbed."""

from __future__ import annotations

import errno
import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from wsl_sweep.data import TaskData, load
from wsl_sweep.data import dataset as datasets
from wsl_sweep.distill import Step, StepTerms, label_cross_entropy
from wsl_sweep.errors import StorageError, TrialError, WslSweepError
from wsl_sweep.storage import DiskPlace, Place, place
from wsl_sweep.training import Job, TeacherStore, TrialTraining, evaluate_on_test, keeper, train_teacher
from wsl_sweep.training.attempts import MANIFEST, STATE, TENSORS, Attempts, CheckpointSettings, Row, Stopped
from wsl_sweep.training.feed import epoch_inputs
from wsl_sweep.training.keeper import Keeper, Take
from wsl_sweep.training.loop import build_optimizer, train_epochs
from wsl_sweep.training.state import TrainingState
from wsl_sweep.training.step import StepRunner
from wsl_sweep.training.trial import load_student
from wsl_sweep.training.weights import load_tensors, save_tensors, tensor_bytes
from wsl_sweep.user_code import search_in

from . import own_models
from .conftest import make_job
from .test_step import inputs

UNTIMED = ("timestamp", "train/seconds")
NOISY = "users_noisy:Noisy"
STEPS = 4
"""Of an epoch: 402 examples in batches of 128, the last one of 18."""

Result = tuple[list[Row], dict[str, Tensor]]


@pytest.fixture(scope="module", autouse=True)
def users_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the user's own that holds nothing but the model: its source is part of a fingerprint."""
    folder = tmp_path_factory.mktemp("user")
    shutil.copy(own_models.__file__, folder / "users_noisy.py")
    search_in([folder])
    return folder


def small(*sets: str, **options: Any) -> Job:
    return make_job("schedule.batch_size=128", *sets, **options)


def untimed(rows: list[Row]) -> list[Row]:
    return [{name: value for name, value in row.items() if name not in UNTIMED} for row in rows]


def result(training: TrialTraining) -> Result:
    """Rows, the student, and who was a regularization sample in which epoch."""
    tensors = {name: value.clone() for name, value in training.student.state_dict().items()}
    return untimed(training.rows), tensors | masks(training.samples.epochs)


def masks(epochs: Iterable[Tensor]) -> dict[str, Tensor]:
    return {f"regularization samples of epoch {number}": mask for number, mask in enumerate(epochs, start=1)}


def undisturbed(job: Job, store: TeacherStore) -> Result:
    with TrialTraining(job, store) as training:
        list(training)
        return result(training)


def assert_same(one: Result, other: Result) -> None:
    assert one[0] == other[0]
    assert one[1].keys() == other[1].keys()
    assert all(torch.equal(one[1][name], other[1][name]) for name in one[1])


class After:
    """Asks for the end once so many steps have been made."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def __call__(self) -> None:
        if self.left == 0:
            raise Stopped

    def watch(self, training: TrialTraining) -> None:
        """Counts the steps of a student; what its teacher asks before does not count."""
        training.student.register_forward_pre_hook(lambda module, _: self.step() if module.training else None)

    def step(self) -> None:
        self.left -= 1


def run(job: Job, store: TeacherStore, folder: Place, attempt: int, steps: int = -1) -> TrialTraining:
    """An attempt that ends after so many steps of its own, or goes to the end."""
    train_teacher(job, store)
    check = After(-1)
    with TrialTraining(job, store, check=check, attempts=Attempts(folder), attempt=attempt) as training:
        check.left = steps
        check.watch(training)
        try:
            list(training)
        except Stopped:
            assert steps >= 0
    return training


def chain(job: Job, store: TeacherStore, folder: Place, steps: int) -> TrialTraining:
    """Attempts of so many steps each, to the end."""
    training = run(job, store, folder, 1, steps)
    for attempt in itertools.count(2):
        if len(training.rows) == training.epochs:
            return training
        assert attempt < 30
        training = run(job, store, folder, attempt, steps)
    raise AssertionError


KINDS: dict[str, tuple[str, ...]] = {
    "wsl": (),
    "ce": ("distillation.method=none",),
    "kd, adamw": ("distillation.weighting.kind=none", "optimizer.name=adamw", "optimizer.lr=0.01"),
    "dropping": ("distillation.keep.regularization=0.5", "distillation.keep.other=0.7"),
    "permuted": ("distillation.weighting.kind=permuted", "schedule.warmup_epochs=1"),
    "dist": ("distillation.method=dist",),
    "rkd, adamw": ("distillation.method=rkd", "optimizer.name=adamw", "optimizer.lr=0.01"),
    "train mode": ("teacher.mode=train",),
    "train mode, a noisy teacher": ("teacher.mode=train", f"teacher.model={NOISY}"),
    "label noise, few views": ("dataset.label_noise=0.3", "dataset.views=2", "optimizer.nesterov=true"),
    "no momentum": ("optimizer.momentum=0.0", "optimizer.weight_decay=0.1"),
    "a noisy student": (f"student.model={NOISY}",),
    "a noisy student, adamw, bfloat16": (
        f"student.model={NOISY}",
        "optimizer.name=adamw",
        "optimizer.lr=0.01",
        "precision=bfloat16",
        "distillation.keep.other=0.5",
    ),
}


def job_of(kind: str) -> Job:
    return small(*KINDS[kind], teacher="distillation.method=none" not in KINDS[kind])


# --- the same bits ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_chain_that_ends_after_every_step_gives_the_same_bits(kind: str, store: TeacherStore, tmp_path: Path) -> None:
    job = job_of(kind)
    wanted = undisturbed(job, store)
    last = chain(job, store, place(tmp_path / "trial"), 1)
    assert last.resumed == (2 * STEPS - 1, 1, STEPS - 1)
    assert_same(result(last), wanted)


@pytest.mark.parametrize("kind", ["dropping", "a noisy student"])
@pytest.mark.parametrize("steps", range(2 * STEPS))
def test_one_end_anywhere_gives_the_same_bits(kind: str, steps: int, store: TeacherStore, tmp_path: Path) -> None:
    job, folder = job_of(kind), place(tmp_path / "trial")
    wanted = undisturbed(job, store)
    first = run(job, store, folder, 1, steps)
    assert len(first.rows) == steps // STEPS
    second = run(job, store, folder, 2)
    assert second.resumed == ((1, steps // STEPS, steps % STEPS) if steps else None)
    assert_same(result(second), wanted)
    assert second.rows[: len(first.rows)] == first.rows  # with their times


@pytest.mark.parametrize("minutes", [None, 0.0])
@pytest.mark.parametrize("kind", ["wsl", "a noisy student"])
def test_nor_does_saving_disturb(kind: str, minutes: float | None, store: TeacherStore, tmp_path: Path) -> None:
    job = job_of(kind)
    settings = CheckpointSettings(minutes=minutes, keep_all=True)
    with TrialTraining(job, store, attempts=Attempts(place(tmp_path)), checkpoints=settings) as training:
        list(training)
    assert_same(result(training), undisturbed(job, store))
    names = {path.name for path in (tmp_path / "attempt-1").iterdir()}
    within = {f"epoch-{epoch}-step-{step}" for epoch in (0, 1) for step in range(1, STEPS)}
    assert names == {"epoch-1", "epoch-2"} | (within if minutes == 0 else set())


def test_every_checkpoint_of_a_training_leads_to_the_same_bits(store: TeacherStore, tmp_path: Path) -> None:
    job = job_of("a noisy student, adamw, bfloat16")
    settings = CheckpointSettings(minutes=0.0, keep_all=True)
    with TrialTraining(job, store, attempts=Attempts(place(tmp_path / "all")), checkpoints=settings) as training:
        list(training)
    for path in (tmp_path / "all" / "attempt-1").iterdir():
        shutil.copytree(path, tmp_path / path.name / "attempt-1" / path.name)
        again = TrialTraining(job, store, attempts=Attempts(place(tmp_path / path.name)), trial_id="all", attempt=2)
        with again:
            list(again)
        assert_same(result(again), result(training))


def test_whoever_ran_before_does_not_show_in_a_resumed_one(store: TeacherStore, tmp_path: Path) -> None:
    job = job_of("a noisy student")
    wanted = undisturbed(job, store)
    run(job, store, place(tmp_path / "trial"), 1, 5)
    undisturbed(small("optimizer.name=adamw", f"student.model={NOISY}", seed=5), store)
    assert_same(result(run(job, store, place(tmp_path / "trial"), 2)), wanted)


def test_an_object_store_does_as_well(store: TeacherStore, tmp_path: Path) -> None:
    job, folder = job_of("dropping"), place(f"memory://{uuid.uuid4().hex}") / "trial"
    last = chain(job, store, folder, 3)
    assert_same(result(last), undisturbed(job, store))
    last.save(folder)
    last.save(tmp_path)
    assert (folder / "student.safetensors").read_bytes() == (tmp_path / "student.safetensors").read_bytes()
    samples = "regularization_samples.safetensors"
    assert (folder / samples).read_bytes() == (tmp_path / samples).read_bytes()
    student = load_student(job, folder, 10, 1).state_dict()
    assert all(torch.equal(student[name], value) for name, value in last.student.state_dict().items())
    assert evaluate_on_test(job, folder) == evaluate_on_test(job, tmp_path)
    assert (folder / "test_logits.safetensors").exists()


# --- channels_last, and what fused optimizers make of it -------------------------------------------


class Remembering(Keeper):
    """Keeps the last state as a copy."""

    def after_epoch(self, row: Row, take: Take) -> None:
        super().after_epoch(row, take)
        state = take()
        tensors = {
            name: value.detach().clone(memory_format=torch.contiguous_format) for name, value in state.tensors.items()
        }
        self.state = TrainingState(state.epoch, state.step, state.seconds, tensors, state.facts)


@pytest.mark.parametrize(
    "optimizer",
    [
        {"name": "sgd", "lr": 0.1, "momentum": 0.0, "weight_decay": 0.01},
        {"name": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": False, "weight_decay": 0.01},
        {"name": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
        {"name": "adamw", "lr": 0.01, "weight_decay": 0.1},
    ],
    ids=["sgd", "momentum", "nesterov", "adamw"],
)
def test_an_optimizers_tensors_lie_as_their_parameters_do(optimizer: dict[str, Any]) -> None:
    def convolutions() -> nn.Module:
        torch.manual_seed(1)
        body = [nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 5, 3), nn.Flatten(), nn.Linear(5 * 36, 10)]
        return nn.Sequential(*body).to(memory_format=torch.channels_last)

    def step_loss(step: Step) -> StepTerms:
        loss = label_cross_entropy(step.logits, step.labels)
        return StepTerms(loss.mean(), loss.detach())

    def train(model: nn.Module, epochs: int, **changes: Any) -> list[Row]:
        plan = {"epochs": epochs, "batch_size": 128, "milestones": [], "warmup_epochs": 0}
        return list(train_epochs(model, data, step_loss, optimizer=optimizer, schedule=plan, seed=3, **changes))

    data: TaskData = load(small().config["dataset"])
    through, first, again = convolutions(), convolutions(), convolutions()
    rows, memory = train(through, 3), Remembering()
    train(first, 1, keeper=memory)
    assert untimed(train(again, 3, start=memory.state)) == untimed(rows[1:])
    assert all(torch.equal(*pair) for pair in zip(through.parameters(), again.parameters(), strict=True))

    runner = StepRunner(again, step_loss, build_optimizer(again, optimizer))
    memory.state.restore(runner)
    for parameter, state in runner.optimizer.state.items():
        shaped = [value for value in state.values() if value.shape == parameter.shape]
        assert all(value.stride() == parameter.stride() and not value.requires_grad for value in shaped)
        assert shaped


def test_inputs_are_the_same_wherever_an_epoch_begins() -> None:
    data = load(small().config["dataset"])

    def of(first_step: int) -> list[Any]:
        draws = ("keeping", "permuting")
        return list(
            epoch_inputs(data, None, seed=1, epoch=2, epochs=3, batch_size=128, draws=draws, first_step=first_step)
        )

    whole = of(0)
    for first_step in range(STEPS + 1):
        later = of(first_step)
        assert len(later) == STEPS - first_step
        for one, other in zip(whole[first_step:], later, strict=True):
            assert all(torch.equal(*pair) for pair in zip(one.tensors(), other.tensors(), strict=True))


def test_a_state_holds_what_a_step_changes() -> None:
    """Each of its tensors, once changed, is put back; the terms that a replayed step does not name are, too."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(8, 6), nn.BatchNorm1d(6), nn.Linear(6, 3))

    def step_loss(step: Step) -> StepTerms:
        loss = label_cross_entropy(step.logits, step.labels)
        return StepTerms(loss.mean(), loss.detach(), torch.ones(len(step.labels)), step.labels == 1)

    config = {"name": "adamw", "lr": 0.01, "weight_decay": 0.1}
    runner = StepRunner(model, step_loss, build_optimizer(model, config))
    for number in (1, 2):
        runner(inputs(number), 0.01)
    runner.samples.end_epoch(torch.arange(16))
    runner.begin_epoch()
    runner(inputs(0), 0.01)
    state = TrainingState.of(runner, 1, 1, 0.5)
    copies = {name: value.clone() for name, value in state.tensors.items()}
    kept = TrainingState(1, 1, 0.5, copies, state.facts)
    other = StepRunner(model, step_loss, build_optimizer(model, config))
    for number in range(3):
        other(inputs(number), 0.1)
    other.has_weights = other.has_regularization = False
    kept.restore(other)
    again = TrainingState.of(other, 1, 1, 0.5)
    assert again.facts == state.facts
    assert again.tensors.keys() == copies.keys()
    assert all(torch.equal(value, copies[name]) for name, value in again.tensors.items())
    assert len(copies) == 6 + 3 + 6 * 3 + 1 + 3 + 3
    assert torch.equal(copies["weights"], torch.ones(8))
    assert torch.equal(copies["samples"], inputs(0).labels == 1)
    assert copies["samples.epochs"].shape == (1, 2)


def test_only_a_state_within_an_epoch_holds_its_weights_and_masks() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(8, 3))

    def step_loss(step: Step) -> StepTerms:
        loss = label_cross_entropy(step.logits, step.labels)
        return StepTerms(loss.mean(), loss.detach(), loss.detach(), step.labels == 1)

    runner = StepRunner(model, step_loss, torch.optim.SGD(model.parameters(), lr=0.1))
    for number in range(3):
        runner(inputs(number), 0.1)
    within, after = TrainingState.of(runner, 0, 3, 0.5), TrainingState.of(runner, 1, 0, 0.5)
    assert torch.equal(within.tensors["weights"], torch.cat(runner.weights))
    assert torch.equal(within.tensors["samples"], torch.cat([inputs(number).labels == 1 for number in range(3)]))
    assert {"weights", "samples"}.isdisjoint(after.tensors)
    within.restore(runner)
    runner(inputs(3), 0.1)
    assert [len(one) for one in runner.weights] == [24, 8]
    assert torch.equal(torch.cat(runner.weights)[:24], within.tensors["weights"])
    assert [one.tolist() for one in runner.samples.steps] == [
        within.tensors["samples"].tolist(),
        (inputs(3).labels == 1).tolist(),
    ]
    after.restore(runner)
    assert runner.weights == runner.samples.steps == []


# --- when checkpoints are saved --------------------------------------------------------------------


def names(folder: Path) -> list[str]:
    return sorted(f"{path.parent.name}/{path.name}" for path in folder.glob("attempt-*/*"))


def test_a_row_is_handed_out_only_when_its_checkpoint_is_saved(store: TeacherStore, tmp_path: Path) -> None:
    job = small("schedule.epochs=3")
    with TrialTraining(job, store, attempts=Attempts(place(tmp_path / "trial"))) as training:
        for row in training:
            again = TrialTraining(job, store, attempts=Attempts(place(tmp_path / "trial")), attempt=2)
            with again:
                assert again.resumed == (1, row["epoch"], 0)
                assert again.rows == training.rows
                assert again.rows[-1] == row


def test_only_each_so_many_epochs_and_after_the_last(store: TeacherStore, tmp_path: Path) -> None:
    settings = CheckpointSettings(epochs=2, keep_all=True)
    attempts = Attempts(place(tmp_path / "trial"))
    with TrialTraining(small("schedule.epochs=5"), store, attempts=attempts, checkpoints=settings) as training:
        list(training)
    assert names(tmp_path / "trial") == ["attempt-1/epoch-2", "attempt-1/epoch-4", "attempt-1/epoch-5"]


def test_within_an_epoch_when_the_minutes_have_passed(
    store: TeacherStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count(0, 40)  # seconds; a look at it before each step and after each saving

    class Clock:
        @staticmethod
        def monotonic() -> float:
            return float(next(clock))

    monkeypatch.setattr(keeper, "time", Clock)
    settings = CheckpointSettings(epochs=9, minutes=2.0, keep_all=True)
    attempts = Attempts(place(tmp_path / "trial"))
    with TrialTraining(small(), store, attempts=attempts, checkpoints=settings) as training:
        list(training)
    assert names(tmp_path / "trial") == ["attempt-1/epoch-0-step-2", "attempt-1/epoch-1-step-1", "attempt-1/epoch-2"]


def test_without_attempts_nothing_is_read_or_written(store: TeacherStore, tmp_path: Path) -> None:
    with TrialTraining(small(), store) as training:
        rows = list(training)
    assert training.rows == rows
    assert training.resumed is None
    assert names(tmp_path) == []


def test_a_finished_trial_yields_nothing_more_and_can_be_saved(store: TeacherStore, tmp_path: Path) -> None:
    job, folder = small(), place(tmp_path / "trial")
    first = run(job, store, folder, 1)
    second = TrialTraining(job, store, attempts=Attempts(folder), attempt=2)
    assert second.resumed == (1, 2, 0)
    assert list(second) == []
    assert second.rows == first.rows
    first.save(tmp_path / "first")
    second.save(tmp_path / "second")
    for name in ("student.safetensors", "validation_logits.safetensors", "regularization_samples.safetensors"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_seconds_and_the_teachers_facts_go_on(store: TeacherStore, tmp_path: Path) -> None:
    job, folder = small("teacher.mode=train"), place(tmp_path / "trial")
    first = run(job, store, folder, 1, STEPS + 2)
    time.sleep(0.3)
    second = run(job, store, folder, 2)
    seconds = [row["train/seconds"] for row in second.rows]
    assert first.rows[0]["train/seconds"] == seconds[0] < seconds[1] < seconds[0] + 0.3
    one, both = first.teacher_facts(), second.teacher_facts()
    assert one is not None
    assert both is not None
    assert both["computed"] == one["computed"] + 128 + 18  # the steps that were left; validation is in the bank by now
    assert both["found"] > one["found"]


def test_no_checkpoint_is_saved_while_the_teacher_is_trained(store: TeacherStore, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        TrialTraining(small(), store, check=After(0), attempts=Attempts(place(tmp_path / "trial")))
    assert names(tmp_path) == []


def test_stopped_while_the_teacher_looks_at_pictures_keeps_the_place(store: TeacherStore, tmp_path: Path) -> None:
    """The supply asks too, in the middle of a step's inputs, and in the validation after an epoch."""
    job, folder = small(), place(tmp_path / "trial")
    wanted = undisturbed(small("schedule.epochs=2"), TeacherStore(tmp_path / "other"))
    asked = 0
    while True:
        limit, check = asked, iter(range(10**6))

        def stop(check: Iterator[int] = check, limit: int = limit) -> None:
            if next(check) == limit:
                raise Stopped

        shutil.rmtree(tmp_path / "trial", ignore_errors=True)
        shutil.rmtree(Path(os.environ["WSL_SWEEP_CACHE"]) / "bank", ignore_errors=True)
        TrialTraining(job, store).close()  # the teacher is there
        shutil.rmtree(Path(os.environ["WSL_SWEEP_CACHE"]) / "bank", ignore_errors=True)
        with TrialTraining(job, store, check=stop, attempts=Attempts(folder)) as training:
            try:
                list(training)
                break
            except Stopped:
                pass
        assert_same(result(run(job, store, folder, 2)), wanted)
        asked += 3
    assert asked > 2 * STEPS + 6


def test_any_other_error_leaves_no_checkpoint_of_its_place(store: TeacherStore, tmp_path: Path) -> None:
    class Dead(Exception):
        pass

    calls = iter(range(99))

    def check() -> None:
        if next(calls) == STEPS + 2:
            raise Dead

    job = small("distillation.method=none", teacher=False)
    training = TrialTraining(job, store, check=check, attempts=Attempts(place(tmp_path / "trial")))
    with pytest.raises(Dead):
        list(training)
    assert names(tmp_path / "trial") == ["attempt-1/epoch-1"]


@pytest.mark.parametrize("what", ["an epoch", "the place"])
def test_a_checkpoint_that_cannot_be_written_ends_the_training(
    what: str, store: TeacherStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise StorageError("cannot write it: No space left on device")

    monkeypatch.setattr(DiskPlace, "write", full)
    job = small("distillation.method=none", teacher=False)
    check = After(2 if what == "the place" else -1)
    training = TrialTraining(job, store, check=check, attempts=Attempts(place(tmp_path / "trial")))
    check.watch(training)
    with pytest.raises(StorageError, match="No space left"):
        list(training)


# --- what it does not go on from -------------------------------------------------------------------


def test_a_torn_checkpoint_is_passed_over_for_the_one_before(
    store: TeacherStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job, folder = small("schedule.epochs=3"), tmp_path / "trial"
    wanted = undisturbed(job, store)
    for damage in (TENSORS, STATE, MANIFEST):
        shutil.rmtree(folder, ignore_errors=True)
        run(job, store, place(folder), 1, 2 * STEPS + 1)
        path = folder / "attempt-1" / "epoch-2-step-1" / damage
        path.write_bytes(path.read_bytes()[:-3])
        second = run(job, store, place(folder), 2)
        assert second.resumed == (1, 2, 0)
        assert "checkpoint passed over: attempt-1/epoch-2-step-1: " in capsys.readouterr().err
        assert_same(result(second), wanted)


@pytest.mark.parametrize("other", ["code", "trial"])
def test_one_made_with_something_else_is_passed_over(
    other: str, store: TeacherStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job, folder = small(), place(tmp_path / "trial")
    wanted = undisturbed(job, store)
    run(job, store, folder, 1, STEPS + 1)
    options: dict[str, Any] = {"trial_id": "another"} if other == "trial" else {}
    if other == "code":
        monkeypatch.setattr("wsl_sweep.training.fingerprint.training_code_digest", lambda: "other")
    with TrialTraining(job, store, attempts=Attempts(folder), attempt=2, **options) as training:
        assert training.resumed is None
        assert capsys.readouterr().err.count("checkpoint passed over") == 2
        list(training)
    assert_same(result(training), wanted)


def rewritten(folder: Path, changes: dict[str, Tensor | None], **facts: Any) -> None:
    """A checkpoint with other content and hashes that are right."""
    attempts = Attempts(place(folder))
    training = list(folder.glob("attempt-1/*"))
    assert len(training) == 1
    manifest = json.loads((training[0] / MANIFEST).read_text())
    state = json.loads((training[0] / STATE).read_text())
    found, _ = attempts.newest(manifest["trial_id"], state["fingerprint"])
    assert found is not None
    tensors = load_tensors(training[0] / TENSORS)
    for name, value in changes.items():
        tensors.pop(name) if value is None else tensors.update({name: value})
    save_tensors(folder / "tensors", tensors)
    content = (folder / "tensors").read_bytes()
    one = found.checkpoint
    attempts.save(1, replace(one, tensors=content, training={**one.training, **facts}))


WRONG: dict[str, tuple[dict[str, Tensor | None], dict[str, Any]]] = {
    "a weight is missing": ({"model.classifier.weight": None}, {}),
    "a weight of another shape": ({"model.classifier.weight": torch.zeros(3)}, {}),
    "a weight of another kind": ({"model.classifier.bias": torch.zeros(10, dtype=torch.int32)}, {}),
    "a weight too many": ({"model.new": torch.zeros(3)}, {}),
    "momentum of another shape": ({"optimizer.0.momentum_buffer": torch.zeros(7)}, {}),
    "momentum of no parameter": ({"optimizer.99.momentum_buffer": torch.zeros(7)}, {}),
    "momentum of nothing": ({"optimizer.momentum_buffer": torch.zeros(7)}, {}),
    "no sums": ({"sums": None}, {}),
    "no random state": ({"random.torch": None}, {}),
    "a short random state": ({"random.torch": torch.zeros(3, dtype=torch.uint8)}, {}),
    "numpy's of another length": ({"random.numpy": torch.zeros(3, dtype=torch.int64)}, {}),
    "Python's of another length": ({"random.python": torch.zeros(3, dtype=torch.int64)}, {}),
    "Python's of another kind": ({"random.python": torch.zeros(625)}, {}),
    "terms of another kind": ({}, {"has_weights": "yes"}),
    "weights that it does not have": ({"weights": torch.zeros(256)}, {}),
    "no soft label weights": ({}, {"has_weights": True}),
    "too few of them": ({"weights": torch.zeros(255)}, {"has_weights": True}),
    "of another kind": ({"weights": torch.zeros(256, dtype=torch.float64)}, {"has_weights": True}),
    "of another shape": ({"weights": torch.zeros(256, 1)}, {"has_weights": True}),
    "as many as no number": ({"weights": torch.zeros(256), "sums": torch.full((5,), math.nan)}, {"has_weights": True}),
    "masks that it does not have": ({"samples": torch.zeros(256, dtype=torch.bool)}, {}),
    "no masks": ({}, {"has_regularization": True}),
    "a mask of too few": ({"samples": torch.zeros(255, dtype=torch.bool)}, {"has_regularization": True}),
    "a mask of another kind": ({"samples": torch.zeros(256)}, {"has_regularization": True}),
    "masks of epochs that it has not had": ({"samples.epochs": torch.zeros(1, 51, dtype=torch.uint8)}, {}),
    "masks of no epoch": ({"samples.epochs": torch.zeros(0, 51, dtype=torch.uint8)}, {}),
    "numpy's facts": ({}, {"numpy": 3}),
    "Python's facts": ({}, {"python": "x"}),
    "no number": ({}, {"numpy": [math.nan, 0, 0.0]}),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_one_that_does_not_fit_is_passed_over(
    wrong: str, store: TeacherStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job, folder = small("distillation.method=none", teacher=False), tmp_path / "trial"
    run(job, store, place(folder), 1, 2)
    tensors, facts = WRONG[wrong]
    rewritten(folder, tensors, **facts)
    with TrialTraining(job, store, attempts=Attempts(place(folder)), attempt=2) as training:
        assert training.resumed is None
    assert "checkpoint passed over: attempt-1/epoch-0-step-2: " in capsys.readouterr().err


def test_masks_of_other_epochs_or_examples_do_not_fit(store: TeacherStore, tmp_path: Path) -> None:
    folder = place(tmp_path / "trial")
    training = run(small(), store, folder, 1, STEPS + 1)
    found, _ = Attempts(folder).newest("trial", training.fingerprint)
    assert found is not None
    tensors = load_file(tmp_path / "trial" / "attempt-1" / "epoch-1-step-1" / TENSORS)
    there = tensors["samples.epochs"]
    assert there.shape == (1, 51)  # 402 examples

    def reads(change: dict[str, Tensor], **facts: Any) -> TrainingState:
        one = replace(found.checkpoint, tensors=tensor_bytes({**tensors, **change}))
        return TrainingState.read(replace(one, training={**one.training, **facts}), training.student, 402)

    last, beyond = there.clone(), there.clone()
    last[0, 50] |= 0b01000000  # example 402
    beyond[0, 50] |= 0b00100000
    assert torch.equal(reads({"samples.epochs": last}).tensors["samples.epochs"], last)
    wrong = [beyond, there.expand(2, -1), there[:, :50], torch.cat([there, there[:, :1]], 1), there.int(), there[0]]
    for one in wrong:
        with pytest.raises((ValueError, TypeError)):
            reads({"samples.epochs": one})
    del tensors["samples.epochs"]
    with pytest.raises(ValueError, match="not those of the epochs so far"):
        reads({})
    tensors["samples.epochs"] = there
    with pytest.raises(ValueError, match="it has samples that no epoch has"):
        reads({}, has_regularization=False)


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 8, b"\xff\xff\xff\xff\xff\xff\xff\x7f{}", (2).to_bytes(8, "little") + b"[]"]
)
def test_bytes_that_are_no_tensors_are_passed_over(content: bytes, store: TeacherStore, tmp_path: Path) -> None:
    job, folder = small("distillation.method=none", teacher=False), place(tmp_path / "trial")
    first = run(job, store, folder, 1, 2)
    attempts = Attempts(folder)
    found, _ = attempts.newest("trial", first.fingerprint)
    assert found is not None
    attempts.save(1, replace(found.checkpoint, tensors=content))
    assert TrialTraining(job, store, attempts=Attempts(folder), attempt=2).resumed is None


# --- what a trial rests on -------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.ESTALE, errno.EROFS])
def test_data_that_are_gone_are_the_storages_fault(
    number: int, store: TeacherStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise OSError(number, os.strerror(number), "/data/pictures")

    monkeypatch.setattr(datasets, "_load", broken)
    with pytest.raises(StorageError, match=f"cannot read the data set .*/data/pictures.*{os.strerror(number)}"):
        TrialTraining(small("distillation.method=none", teacher=False), store)


def test_a_setting_that_leaves_no_examples_is_not(store: TeacherStore) -> None:
    job = small("distillation.method=none", "dataset.validation_fraction=0.0001", teacher=False)
    with pytest.raises(WslSweepError, match="validation part") as caught:
        TrialTraining(job, store)
    assert not isinstance(caught.value, StorageError)


def test_a_folder_of_pictures_that_is_gone_is(store: TeacherStore, tmp_path: Path) -> None:
    job = small(
        "dataset.name=image_folder",
        f"dataset.root={tmp_path / 'gone'}",
        "dataset.size=8",
        "distillation.method=none",
        teacher=False,
    )
    with pytest.raises(StorageError, match="gone"):
        TrialTraining(job, store)


def test_a_teacher_whose_weights_go_during_a_trial_is(store: TeacherStore) -> None:
    job = small()
    with TrialTraining(job, store) as training:
        shutil.rmtree(store.root)
        with pytest.raises(StorageError, match="no such file"):
            list(training)


def test_a_store_that_is_full_is(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="WSL_SWEEP_CACHE"):
        TeacherStore(tmp_path / "file").ensure("teacher", lambda: (nn.Linear(2, 2), {}))


def test_what_the_device_cannot_hold_leaves_as_it_is(store: TeacherStore, tmp_path: Path) -> None:
    def check() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    job = small("distillation.method=none", teacher=False)
    with pytest.raises(torch.OutOfMemoryError) as caught:
        list(TrialTraining(job, store, check=check, attempts=Attempts(place(tmp_path / "trial"))))
    assert not isinstance(caught.value, TrialError)


# --- kill -9 ---------------------------------------------------------------------------------------

PROGRAM = """
import json, sys
from wsl_sweep.storage import place
from wsl_sweep.user_code import search_in
from wsl_sweep.training import Job, TeacherStore, TrialTraining
from wsl_sweep.training.attempts import Attempts, CheckpointSettings

config, folder, attempt = json.loads(sys.argv[1]), place(sys.argv[2]), int(sys.argv[3])
search_in([sys.argv[4]])
settings = CheckpointSettings(minutes=0.0)
attempts = Attempts(folder)
with TrialTraining(Job(config), TeacherStore(), attempts=attempts, attempt=attempt, checkpoints=settings) as one:
    print(*(one.resumed or (0, 0, 0)), flush=True)
    for row in one:
        print(row["epoch"], flush=True)
    one.save(folder)
    (folder / "rows.json").write_json(one.rows)
"""


@pytest.mark.slow
def test_killed_again_and_again_it_ends_with_the_same_bits(
    store: TeacherStore, users_folder: Path, tmp_path: Path
) -> None:
    job, folder = small("schedule.epochs=30", "schedule.batch_size=64", f"student.model={NOISY}"), tmp_path / "trial"
    wanted = undisturbed(job, store)
    resumed: list[tuple[int, ...]] = []
    for attempt in range(1, 5):
        arguments = [
            sys.executable,
            "-c",
            PROGRAM,
            json.dumps(job.config),
            str(folder),
            str(attempt),
            str(users_folder),
        ]
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
        assert process.stdout is not None
        resumed.append(tuple(map(int, process.stdout.readline().split())))
        if attempt < 4:
            for _ in range(attempt):
                process.stdout.readline()
            time.sleep(0.007 * attempt)
            process.send_signal(signal.SIGKILL)
        process.communicate(timeout=120)
    assert process.returncode == 0
    assert resumed[0] == (0, 0, 0)
    assert [one[0] for one in resumed[1:]] == [1, 2, 3]
    assert sorted(one[1:] for one in resumed) == [one[1:] for one in resumed]
    rows = json.loads((folder / "rows.json").read_text())
    samples = load_tensors(folder / "regularization_samples.safetensors")
    assert_same((untimed(rows), load_tensors(folder / "student.safetensors") | masks(samples["masks"])), wanted)
