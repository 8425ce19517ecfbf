"""What a trial of several processes takes of a cluster, and how many of them fit."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.sweep.fakes import conductor_of, spec_of
from wsl_sweep.app.changes import compare
from wsl_sweep.app.options import settle_resources
from wsl_sweep.errors import ProcessLostError, WslSweepError
from wsl_sweep.storage import place
from wsl_sweep.sweep import cluster, trainable
from wsl_sweep.sweep.conductor import Task
from wsl_sweep.sweep.runner import Setting, _resources, _task_writer
from wsl_sweep.sweep.trainable import run_task

FILE = "run: {recipe: digits}\nvariants: [kd]\nseeds: 2\nresources: {%s}\n"


def task_for(folder: Path, resources: str) -> Task:
    conductor = conductor_of(spec_of(FILE % resources), folder, has_teacher=lambda _: True)
    task = conductor.next()
    assert task is not None
    return task


@pytest.mark.parametrize(
    ("resources", "gpu", "bundles"),
    [
        ("cpu: 2", 0.5, [{"CPU": 2, "GPU": 0.5}]),
        ("cpu: 4, gpu: 2", 2.0, [{"CPU": 4, "GPU": 1}] * 2),
        ("processes: 3", 0.0, [{"CPU": 1}] * 3),
        ("processes: 2, gpu: 4", 4.0, [{"CPU": 1, "GPU": 2}] * 2),
    ],
)
def test_each_process_has_a_bundle_of_its_own(
    tmp_path: Path, resources: str, gpu: float, bundles: list[dict[str, float]]
) -> None:
    task = task_for(tmp_path, resources)
    asked = _resources(spec_of(FILE % resources), gpu)({"processes": task.processes, "accelerator": None})
    assert asked.bundles == bundles
    assert asked.strategy == "PACK"
    assert Task("evaluate", "e", task.trials).processes == 1


def test_a_worker_is_told_what_each_process_may_take(tmp_path: Path) -> None:
    spec = spec_of(FILE % "cpu: 3, gpu: 2")
    conductor = conductor_of(spec, tmp_path, has_teacher=lambda _: True)
    task = conductor.next()
    assert task is not None
    told = json.loads(_task_writer(conductor, Setting(place(tmp_path), "u", gpu=2.0), 1)(task))
    assert (told["cpu"], told["gpu"], told["trials"][0]["processes"]) == (3, 1.0, 2)


def nodes(*has: tuple[float, float]) -> list[dict[str, Any]]:
    return [{"Alive": True, "Resources": {"CPU": cpu, "GPU": gpu}} for cpu, gpu in has]


@pytest.mark.parametrize(
    ("cluster_of", "cpu", "gpu", "processes", "slots"),
    [
        ([(8, 0)], 2, 0, 2, 2),
        ([(8, 0)], 2, 0, 3, 1),
        ([(2, 0), (2, 0)], 2, 0, 2, 1),
        ([(16, 4), (16, 3)], 1, 2, 2, 3),
        ([(16, 4)], 1, 0.5, 1, 8),
    ],
    ids=["one node", "a rest", "over two nodes", "cards of two nodes", "parts of a card"],
)
def test_processes_of_a_trial_may_lie_on_several_nodes(
    monkeypatch: pytest.MonkeyPatch,
    cluster_of: Sequence[tuple[float, float]],
    cpu: float,
    gpu: float,
    processes: int,
    slots: int,
) -> None:
    monkeypatch.setattr("ray.nodes", lambda: nodes(*cluster_of))
    assert cluster.check_resources(cpu, gpu, None, processes) == slots


def test_too_many_processes_for_a_cluster_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.nodes", lambda: nodes((2, 0), (1, 0)))
    with pytest.raises(WslSweepError, match="4 processes of 1 CPUs and 0 GPUs each, and there is room for 3"):
        cluster.check_resources(1, 0, None, 4)


def test_where_there_are_gpus_and_nothing_is_said_each_process_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsl_sweep.app.options.local_device_kind", lambda: "cuda")
    assert settle_resources(spec_of(FILE % "processes: 2"), None) == (2.0, "cuda")
    assert settle_resources(spec_of(FILE % "processes: 2, gpu: 0"), None) == (0.0, "cpu")


def test_batch_normalisation_over_processes_is_refused_where_no_gpu_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsl_sweep.app.options.local_device_kind", lambda: "cpu")
    spec = spec_of("run: {recipe: digits, student.batchnorm: sync}\nvariants: [kd]\nresources: {processes: 2}\n")
    with pytest.raises(WslSweepError, match="sync needs a GPU for each process"):
        settle_resources(spec, None)


@pytest.mark.parametrize(("old", "new"), [("", "processes: 2"), ("processes: 2", "processes: 4"), ("gpu: 1", "gpu: 2")])
def test_other_processes_are_no_addition_to_a_sweep(old: str, new: str) -> None:
    added, changed = compare(spec_of(FILE % old), spec_of(FILE % new))
    assert [told.partition(":")[0] for told in changed] == ["resources.processes"]
    assert all("processes" not in told for told in added)


def test_a_lost_process_leaves_the_worker_as_if_it_had_died_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the conductor hears of a lost worker, and the trial goes on from its checkpoint."""

    def lose(*_: Any) -> dict[str, Any]:
        raise ProcessLostError("process 2 of the trial died")

    monkeypatch.setitem(trainable._DO, "train", lose)
    trial = task_for(tmp_path, "processes: 2").trials[0]
    task = {"kind": "train", "trials": [trial.to_json()], "storage": str(tmp_path), "attempt": 1}
    reports: list[dict[str, Any]] = []
    with pytest.raises(ProcessLostError):
        run_task(task, reports.append)
    assert not reports
    log = tmp_path / "trials" / trial.trial_id / "log.txt"
    assert "cannot go on: process 2 of the trial died" in log.read_text()
    assert not (log.parent / "attempt-1" / "outcome.json").exists()
