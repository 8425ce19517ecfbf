"""A trial of two processes ends anywhere and goes on; its teacher is a teacher of two processes."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from wsl_sweep.errors import ProcessLostError
from wsl_sweep.storage import place
from wsl_sweep.training import Job, TeacherStore, TrialTraining, helping, train_teacher
from wsl_sweep.training.attempts import Attempts, Stopped

from .conftest import make_job

UNTIMED = ("timestamp", "train/seconds")
DRAWING = "tests.training.group_models:Drawing"

JOB = (f"student.model={DRAWING}", "schedule.batch_size=128", "distillation.keep.other=0.7", "schedule.epochs=3")


def untimed(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name not in UNTIMED} for row in rows]


@pytest.mark.slow
def test_attempts_of_two_processes_end_anywhere_and_the_last_gives_the_bits_of_one_undisturbed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = replace(make_job(*JOB), processes=2)
    children: list[subprocess.Popen[str]] = []

    class Recorded(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            children.append(self)

    monkeypatch.setattr(helping.subprocess, "Popen", Recorded)
    with TrialTraining(job, TeacherStore()) as undisturbed:
        list(undisturbed)
    undisturbed.save(tmp_path / "undisturbed")
    undisturbed.save_teacher_logits(tmp_path / "undisturbed")
    rows, student = undisturbed.rows, undisturbed.student.state_dict()
    assert children.pop().returncode == 0  # it came to its end by itself

    folder, seen = place(tmp_path / "trial"), [0]

    def stop() -> None:
        if seen[0] == 6:  # in the second epoch, of four steps
            raise Stopped("enough")

    def attempt(number: int, **options: Any) -> TrialTraining:
        return TrialTraining(job, TeacherStore(), attempts=Attempts(folder), attempt=number, **options)

    with attempt(1, check=stop) as training:
        training.student.register_forward_pre_hook(
            lambda module, _: seen.__setitem__(0, seen[0] + 1) if module.training else None
        )
        with pytest.raises(Stopped):
            list(training)
    assert children[0].poll() is not None

    with attempt(2) as training:
        assert training.resumed == (1, 1, 2)
        rows_of_second = iter(training)
        assert next(rows_of_second)["epoch"] == 2
        children[1].kill()
        children[1].wait()
        with pytest.raises(ProcessLostError, match="process 2 of the trial died"):
            next(rows_of_second)

    with attempt(3) as training:
        assert training.resumed == (2, 2, 0)
        list(training)
    assert untimed(training.rows) == untimed(rows)
    assert all(torch.equal(value, student[name]) for name, value in training.student.state_dict().items())
    training.save(tmp_path / "last")
    for name in ("regularization_samples.safetensors", "validation_logits.safetensors"):
        assert (tmp_path / "last" / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes()
    found = training.teacher_facts()
    assert found is not None
    assert found["computed"] == 0  # by then the bank has it all

    with attempt(4) as training:  # whose last attempt died before it could leave what its teacher says
        assert training.resumed == (3, 3, 0)
        assert list(training) == []
        training.save_teacher_logits(tmp_path / "last")
    name = training.teacher_logits_name()
    assert name is not None
    assert (tmp_path / "last" / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes()


@pytest.mark.slow
def test_a_teacher_of_two_processes_is_another_and_is_trained_by_both(store: TeacherStore) -> None:
    alone = make_job()
    job: Job = replace(alone, processes=2)
    one, other = alone.teacher(), job.teacher()
    assert one is not None
    assert other is not None
    assert one[0] != other[0]
    card = train_teacher(job, store)
    assert card is not None
    assert store.has(other[0])
    assert card["identity"]["processes"] == 2
    assert len([name for name in card["metrics"] if name.startswith("validation/")]) >= 3
