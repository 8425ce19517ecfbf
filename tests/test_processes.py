"""Trials of two processes in a real sweep: the numbers of a training alone, whichever process dies on the way."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import mlflow
import pytest

from tests.conftest import Workplace
from tests.test_survival import Watched, descendants, driving, end_of, until, watched
from tests.training import group_models

pytestmark = pytest.mark.slow

EPOCHS = 40
SETS = (
    "student.model=users_plain:Plain", f"schedule.epochs={EPOCHS}", "schedule.milestones=[]", "optimizer.lr=0.02",
    "teacher.model=convnet_3", "teacher.schedule.epochs=2", "teacher.schedule.milestones=[]",
)  # fmt: skip
FILE = """
run: {recipe: digits}
variants: {kd: , wsl: }
seeds: 1
resources: {processes: 2}
tracking: {best_student: false}
"""
UNTIMED = {"train/seconds"}


def helpers_of(driver: int) -> list[int]:
    """The processes that help trials, by what Ray calls them."""
    commands = {pid: Path(f"/proc/{pid}/cmdline") for pid in descendants(driver)}
    return [pid for pid, file in commands.items() if file.exists() and file.read_bytes().startswith(b"ray::Helper")]


def leader_of(sweep: Watched, trial_id: str, attempt: int) -> int:
    found = re.search(rf"attempt {attempt}: .*, process (\d+) on ", sweep.log(trial_id))
    assert found is not None
    return int(found[1])


def alone(workplace: Workplace, processes: int) -> dict[str, Any]:
    """Metrics of the weighted variant, trained without Ray."""
    sets = [word for one in (*SETS, "distillation.weighting.kind=exp", "seed=0") for word in ("--set", one)]
    told = workplace.run("train", "--json", "--processes", str(processes), *sets)
    found: dict[str, Any] = json.loads(told[told.index("{") :])
    return found


def test_trials_of_two_processes_survive_the_death_of_either(workplace: Workplace) -> None:
    shutil.copy(group_models.__file__, workplace.folder / "users_plain.py")
    sweep = watched(workplace, "pairs")
    sets = [word for one in SETS for word in ("--set", one)]
    with driving(workplace, "run", workplace.write("pairs.yaml", FILE), *sets) as process:
        (first, *_) = until(process, lambda: sweep.begun(2))
        (helper,) = helpers_of(process.pid)
        os.kill(helper, signal.SIGKILL)
        (second, *_) = until(process, lambda: [one for one in sweep.begun(2) if one != first])
        os.kill(leader_of(sweep, second, 1), signal.SIGKILL)
        end_of(process)

    states = sweep.state.trials
    ended = {one: (state.status, state.attempt) for one, state in states.items()}
    assert ended == dict.fromkeys((first, second), ("finished", 2))
    assert re.search(r"cannot go on: .*process.* died", sweep.log(first))
    assert all(re.search(r"goes on after epoch \d+, from attempt 1", sweep.log(one)) for one in states)

    trials = {trial["variants"][0]: trial for trial in sweep.summary["trials"]}
    assert {trial["processes"] for trial in trials.values()} == {2}
    client = mlflow.MlflowClient(tracking_uri=workplace.uri)
    experiment = client.get_experiment_by_name("pairs")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], filter_string="tags.trial_id != ''")
    children = [run for run in runs if "processes" in run.data.params]
    assert len(children) == len(trials)
    assert {run.data.params["processes"] for run in children} == {"2"}

    wsl = trials["wsl"]
    two, one = alone(workplace, 2), alone(workplace, 1)
    assert two["trial_id"] == wsl["trial_id"]
    assert one["trial_id"] != wsl["trial_id"]
    for name, value in wsl["metrics"].items():
        if name not in UNTIMED and not name.startswith("test/"):
            assert two["metrics"][name] == value, name
    for name in ("train/loss", "validation/loss", "weight/mean"):
        assert one["metrics"][name] == pytest.approx(wsl["metrics"][name], rel=0.05), name
