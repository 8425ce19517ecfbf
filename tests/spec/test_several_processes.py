"""Several processes of a trial: who asks for them, what it is called then, and what cannot be."""

from __future__ import annotations

import json
from typing import Any

import pytest

from wsl_sweep.spec.identity import teacher_identity, trial_id
from wsl_sweep.spec.plan import Trial, ablation_cells, make_plan

from .helpers import problems_of, spec_of

FILE = "run: {recipe: digits}\nvariants: [kd]\nresources: {%s}\n"


@pytest.mark.parametrize(
    ("resources", "processes"),
    [
        ("", 1),
        ("gpu: 0.5", 1),
        ("gpu: 1", 1),
        ("gpu: 4", 4),
        ("gpu: 4, processes: 2", 2),
        ("gpu: 4, processes: 1", 1),
        ("processes: 3", 3),
        ("processes: 2, gpu: 0", 2),
    ],
)
def test_a_trial_has_a_process_for_each_whole_gpu_unless_it_is_said(resources: str, processes: int) -> None:
    assert spec_of(FILE % resources).processes == processes


def test_one_process_leaves_every_id_as_it_was_and_two_make_another() -> None:
    config: dict[str, Any] = spec_of(FILE % "").config({})
    assert trial_id(config, "train", 1) == trial_id(config, "train", 1, 1) != trial_id(config, "train", 1, 2)
    alone, several = teacher_identity(config, "train", 1), teacher_identity(config, "train", 1, 2)
    assert alone is not None
    assert several is not None
    assert "processes" not in alone[1]
    assert several[1]["processes"] == 2
    assert alone[0] != several[0]


def test_a_trial_carries_its_processes_through_the_ledger_and_an_old_one_has_one() -> None:
    spec = spec_of(FILE % "processes: 2")
    (cell,) = ablation_cells(spec)
    trial = cell.trials[0]
    told = json.loads(json.dumps(trial.to_json()))
    assert Trial.from_json(told) == trial
    assert trial.processes == 2
    assert trial.teacher_id in make_plan(spec).teachers
    del told["processes"]
    assert Trial.from_json(told).processes == 1


@pytest.mark.parametrize(
    ("text", "line", "path", "what"),
    [
        (FILE % "processes: 2, gpu: 1.5", 3, "resources.gpu", "each of the 2 processes of a trial needs whole GPUs"),
        (FILE % "processes: 2, gpu: 0.5", 3, "resources.gpu", "2, a multiple of it, or 0 for the CPU, not 0.5"),
        (
            "run:\n  recipe: digits\n  schedule.batch_size: 7\nvariants: [kd]\nresources: {processes: 4}\n",
            3,
            "run.schedule.batch_size",
            "schedule.batch_size 7 is too small for 4 processes: each needs 2 examples",
        ),
        (
            "run: {recipe: digits}\nvariants:\n  kd:\n    teacher.schedule.batch_size: 3\nresources: {processes: 2}\n",
            4,
            "variants.kd.teacher.schedule.batch_size",
            "teacher.schedule.batch_size 3 is too small for 2 processes",
        ),
        (
            "run: {recipe: digits}\nspace:\n  schedule.batch_size: {choice: [64, 2]}\nsearch: {trials: 2}\n"
            "resources: {processes: 2}\n",
            3,
            "space.schedule.batch_size",
            "schedule.batch_size 2 is too small",
        ),
        (
            "run:\n  recipe: digits\n  student.batchnorm: sync\nvariants: [kd, ce]\n",
            3,
            "run.student.batchnorm",
            "a trial has one: set resources.processes",
        ),
        (
            "run: {recipe: digits}\nvariants:\n  kd:\n  sync:\n    student.batchnorm: sync\n"
            "resources: {processes: 2, gpu: 0}\n",
            5,
            "variants.sync.student.batchnorm",
            "sync needs a GPU for each process, and resources.gpu is 0",
        ),
    ],
    ids=["parts of cards", "half a card", "batch", "teachers batch", "swept batch", "sync alone", "sync on a CPU"],
)
def test_what_several_processes_cannot_do_is_said_with_its_line(text: str, line: int, path: str, what: str) -> None:
    (problem,) = problems_of(text)
    assert (problem.line, problem.path) == (line, path)
    assert what in problem.what


def test_what_they_can_do_is_no_problem() -> None:
    assert not problems_of(FILE % "processes: 2, gpu: 4")
    assert not problems_of("run: {recipe: digits, student.batchnorm: sync}\nvariants: [kd]\nresources: {gpu: 2}\n")
    assert not problems_of(FILE % "processes: 32")


def test_a_batch_size_of_the_command_line_is_named_as_that() -> None:
    (problem,) = problems_of(FILE % "processes: 2", sets=("schedule.batch_size=3",))
    assert "command line" in str(problem) or "--set" in str(problem)
    assert "too small for 2 processes" in problem.what
