"""Sweeps that never ran: the trials that a file stands for, with metrics that a test makes up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from tests.conftest import REPO
from wsl_sweep.analysis import Record, SweepRecords
from wsl_sweep.spec import CommandLine, parse_spec
from wsl_sweep.spec.plan import Trial, ablation_cells
from wsl_sweep.sweep.table import standings
from wsl_sweep.tracking.runs import trial_params

Values = Callable[[Trial], float]
SAMPLES = "regularization_samples/fraction"


def ends(trial: Trial) -> float:
    """90 and 92 % in turns: of two seeds the mean is 91 and half of the interval 12.706 · 1 (t of one degree)."""
    return 0.90 + 0.02 * (trial.seed % 2)


def sweep_of(
    text: str,
    value: Values = ends,
    *,
    status: Callable[[Trial], str] = lambda trial: "finished",
    change: Callable[[Record], Record] = lambda record: record,
    **command_line: Any,
) -> SweepRecords:
    """The records of an ablation at its end.

    Args:
        text: of its file.
        value: test/accuracy of a trial.
        status: of a trial; one that has not finished has no value.
        change: what is done to each record.
        command_line: ``recipe``, ``sets``, ``seeds``.
    """
    spec = parse_spec(text, "file.yaml", CommandLine(**command_line))
    cells = ablation_cells(spec)
    rows = [
        {
            "variant": cell.variant,
            "overrides": cell.overrides,
            "seeds": [trial.seed for trial in cell.trials],
            "trial_ids": [trial.trial_id for trial in cell.trials],
        }
        for cell in cells
    ]
    places = standings(rows)
    trials = {trial.trial_id: trial for cell in cells for trial in cell.trials}
    records = [
        Record(
            sweep=spec.name,
            trial_id=trial.trial_id,
            stage="ablation",
            arm=None,
            variants=tuple(place.variant for place in places[trial.trial_id]),
            seed=trial.seed,
            status=status(trial),
            params=trial_params(trial),
            overrides=trial.overrides,
            metrics=_metrics(trial, value) if status(trial) == "finished" else {},
            standings=places[trial.trial_id],
        )
        for trial in trials.values()
    ]
    return SweepRecords(spec.name, "u", "finished", spec.compare, dict(spec.space), tuple(map(change, records)))


def _metrics(trial: Trial, value: Values) -> dict[str, float]:
    metrics = {"test/accuracy": value(trial), "test/loss": 0.25}
    return {**metrics, SAMPLES: 0.5} if trial.config["distillation"]["method"] == "kd" else metrics


def space(name: str) -> str:
    """The text of a file of ``search_spaces/``."""
    return (REPO / "search_spaces" / name).read_text()


def with_params(record: Record, **params: str) -> Record:
    """A record with other values at dotted paths, written with ``__`` for the dots."""
    changed: Mapping[str, str] = {path.replace("__", "."): value for path, value in params.items()}
    return replace(record, params={**record.params, **changed})
