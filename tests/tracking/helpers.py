"""Sweeps that never ran, told to a writer or as a ledger, and what a server has of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import mlflow

from tests.sweep.fakes import spec_of
from wsl_sweep.spec.plan import Trial, ablation_cells
from wsl_sweep.tracking import MlflowWriter, Tracking

SWEEP = {"name": "s", "uuid": "u-1", "description": "Why?", "git_commit": "abc", "device": "cpu"}
BEGUN, ENDED = 900.0, 5000.0


def trials(seeds: int = 2) -> list[Trial]:
    """Three variants of that many seeds."""
    cells = ablation_cells(spec_of(f"run: {{recipe: digits}}\nvariants: [ce, kd, wsl]\nseeds: {seeds}"))
    return [trial for cell in cells for trial in cell.trials]


def row(epoch: int, late: float = 0.0) -> dict[str, float]:
    """An epoch's metrics."""
    return {
        "epoch": float(epoch),
        "timestamp": 1000.25 + epoch + late,
        "validation/accuracy": 0.1 * epoch,
        "train/loss": 1 / epoch,
    }


def rows(last: int, first: int = 1, late: float = 0.0) -> list[dict[str, float]]:
    """Of these epochs; ``late`` of another attempt."""
    return [row(epoch, late) for epoch in range(first, last + 1)]


def metrics_of(last: int) -> dict[str, float]:
    """What the last word says of them."""
    return {name: value for name, value in row(last).items() if name not in ("epoch", "timestamp")}


def proposed(trial: Trial) -> dict[str, Any]:
    return {"event": "proposed", "time": 901.0, "trial": trial.to_json()}


def event(kind: str, trial: Trial, when: float, attempt: int = 1, **fields: Any) -> dict[str, Any]:
    return {"event": kind, "time": when, "trial_id": trial.trial_id, "attempt": attempt, **fields}


def story(trial: Trial, word: str = "finished", epochs: int = 3, **fields: Any) -> list[dict[str, Any]]:
    """The events of a trial from its proposal to its last word, and the evaluation of a finished one."""
    events = [
        proposed(trial),
        event("started", trial, 1000.0),
        event(word, trial, 2000.0, metrics=metrics_of(epochs), **fields),
    ]
    if word == "finished":
        evaluated = {"event": "evaluated", "time": 3000.0, "trial_id": trial.trial_id}
        events.append({**evaluated, "metrics": {"test/accuracy": 0.75}})
    return events


def sweep_of(parts: Iterable[list[dict[str, Any]]], status: str = "finished") -> list[dict[str, Any]]:
    """A sweep's whole ledger."""
    events = [{"event": "sweep", "time": BEGUN, "status": "running"}]
    for part in parts:
        events += part
    return [*events, {"event": "sweep", "time": ENDED, "status": status}]


def tell(writer: MlflowWriter, events: Iterable[dict[str, Any]], epochs: int = 3) -> None:
    """Tells a writer a ledger as a driver does, with the rows of a trial between its start and its last word."""
    for one in events:
        writer.on_event(one)
        if one["event"] == "started":
            for epoch in range(1, epochs + 1):
                writer.on_rows(one["trial_id"], one["attempt"], [row(epoch)])


def snapshot(tracking: Tracking) -> dict[str, Any]:
    """What a server shows of an experiment's runs, by trial id (the parent's is ``parent``), without ids."""
    client = mlflow.MlflowClient(tracking_uri=tracking.uri)
    experiment = client.get_experiment_by_name(tracking.experiment)
    assert experiment is not None
    found: dict[str, Any] = {}
    for run in client.search_runs([experiment.experiment_id], max_results=5000):
        name = run.data.tags.get("trial_id", "parent")
        assert name not in found, f"two runs of {name}"
        found[name] = {
            "name": run.info.run_name,
            "status": run.info.status,
            "times": (run.info.start_time, run.info.end_time),
            "params": run.data.params,
            "tags": {key: value for key, value in run.data.tags.items() if key != "mlflow.parentRunId"},
            "child": "mlflow.parentRunId" in run.data.tags,
            "metrics": {
                metric: sorted(
                    (point.step, point.timestamp, point.value)
                    for point in client.get_metric_history(run.info.run_id, metric)
                )
                for metric in run.data.metrics
            },
        }
    return found


def expected_history(last: int) -> list[tuple[int, int, float]]:
    """Of ``validation/accuracy`` after that many epochs."""
    return [(e, 1000_250 + 1000 * e, 0.1 * e) for e in range(1, last + 1)]


def is_whole(found: dict[str, Any], wanted: Iterable[Trial], epochs: int = 3) -> bool:
    """Asserts one finished run a trial with each epoch once, and a finished parent."""
    assert found["parent"]["status"] == "FINISHED"
    assert set(found) == {"parent", *(trial.trial_id for trial in wanted)}
    for trial in wanted:
        run = found[trial.trial_id]
        assert run["status"] == "FINISHED", trial.trial_id
        assert run["metrics"]["validation/accuracy"] == expected_history(epochs)
        assert run["metrics"]["test/accuracy"] == [(trial.epochs, run["times"][1], 0.75)]
        assert run["params"]["distillation.method"] == trial.config["distillation"]["method"]
    return True
