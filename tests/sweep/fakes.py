"""A sweep without Ray and without training: tasks are done at once by a function of the trial."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from wsl_sweep.spec import CommandLine, Spec, parse_spec
from wsl_sweep.spec.plan import Trial
from wsl_sweep.sweep.conductor import Conductor, Task
from wsl_sweep.sweep.ledger import Ledger

Result = Callable[[Trial], dict[str, Any]]


def spec_of(text: str, *sets: str, **options: Any) -> Spec:
    """A specification from the text of a file."""
    return parse_spec(text, "file.yaml", CommandLine(sets=sets, **options))


def good(trial: Trial) -> dict[str, Any]:
    """Finished; the nearer α is to 2, the better; a little luck by seed."""
    alpha = trial.config["distillation"].get("alpha", 0.0)
    accuracy = 0.9 - 0.01 * abs(alpha - 2.0) + 0.0001 * (trial.seed % 7)
    metrics = {"validation/accuracy": accuracy, "validation/loss": 1 - accuracy, "train/seconds": 1.0 + alpha}
    return {"status": "finished", "epochs": trial.epochs, "metrics": metrics, "seconds": 2.0}


def outcome_of(task: Task, result: Result = good) -> dict[str, Any]:
    """What a worker would say."""
    if task.kind == "train":
        return result(task.trials[0])
    if task.kind == "evaluate":
        return {"status": "finished", "evaluated": {t.trial_id: {"test/accuracy": 0.8} for t in task.trials}}
    return {"status": "finished"}


def play(
    conductor: Conductor,
    result: Result = good,
    *,
    slots: int = 2,
    most: int = 10_000,
    unreadable: Callable[[Task, Trial], bool] = lambda task, trial: False,
) -> list[Task]:
    """Runs a conductor's script with ``slots`` workers, first in first out; returns the tasks in their order.

    ``unreadable`` says of which trials an evaluation finds no student.
    """
    done: list[Task] = []
    running: list[Task] = []
    while len(done) < most:
        while len(running) < slots:
            task = conductor.next()
            if task is None:
                break
            conductor.started(task.key)
            running.append(task)
        if not running:
            if conductor.finished:
                break
            raise AssertionError("the conductor waits for nothing")
        task = running.pop(0)
        outcome = outcome_of(task, result)
        for trial in task.trials if task.kind == "evaluate" else ():
            if unreadable(task, trial):
                del outcome["evaluated"][trial.trial_id]
                outcome.setdefault("unreadable", {})[trial.trial_id] = "no such file"
        conductor.ended(task.key, outcome)
        done.append(task)
    return done


def conductor_of(spec: Spec, folder: Path, **options: Any) -> Conductor:
    """A conductor over the ledger in ``folder``."""
    return Conductor(spec, Ledger(folder / "ledger"), **options)
