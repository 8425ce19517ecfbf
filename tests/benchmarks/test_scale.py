"""The arithmetic of the scale benchmark, and its trivial trial."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.scale import METRICS, SPACE, costs, finished_report, quarters, verdicts
from tests.sweep.fakes import play, spec_of
from wsl_sweep.spec.plan import Trial
from wsl_sweep.sweep.conductor import Conductor
from wsl_sweep.sweep.ledger import Ledger


def test_a_trivial_trial_says_what_a_finished_one_says(tmp_path: Path) -> None:
    spec = spec_of(SPACE.format(trials=7))
    conductor = Conductor(spec, Ledger(tmp_path / "ledger"), has_teacher=lambda _: True)

    def outcome(trial: Trial) -> dict[str, Any]:
        report = finished_report({"kind": "train", "trials": [trial.to_json()], "metrics": ["validation/accuracy"]})
        (row,) = json.loads(report["rows"])
        assert set(METRICS) < set(row)
        found: dict[str, Any] = json.loads(report["outcome"])
        return found

    tasks = play(conductor, outcome)
    assert [task.kind for task in tasks] == ["train"] * 7
    assert {state.status for state in conductor.state.trials.values()} == {"finished"}


def test_milliseconds_by_quarter() -> None:
    ends = [0.1 * index for index in range(41)]
    assert quarters(ends) == pytest.approx([100.0] * 4)
    assert quarters(ends[:39]) == []
    slower = [0.0]
    for index in range(80):
        slower.append(slower[-1] + (0.1 if index < 40 else 0.3))
    assert quarters(slower) == pytest.approx([100, 100, 300, 300])


def size(trials: int, seconds: float, grown: float) -> dict[str, Any]:
    return {
        "trials": trials,
        "fit_seconds": seconds - 1,
        "writer_seconds_after": 1.0,
        "mb_before": 200.0,
        "mb_after": 200.0 + grown,
    }


def test_what_one_trial_more_costs() -> None:
    made = costs([size(1, 2.0, 50.0), size(101, 12.0, 60.0), size(1001, 102.0, 150.0)])
    assert made[0]["seconds_more"] is None
    assert [one["seconds_more"] for one in made[1:]] == pytest.approx([0.1, 0.1])
    assert [one["mb_more"] for one in made[1:]] == pytest.approx([0.1, 0.1])
    assert made[1]["seconds_a_trial"] == pytest.approx(12 / 101)
    assert verdicts(made) == {"seconds": True, "memory": True}


def test_what_grows_is_not_flat() -> None:
    made = costs([size(1, 2.0, 50.0), size(101, 12.0, 60.0), size(1001, 1002.0, 550.0)])
    assert verdicts(made) == {"seconds": False, "memory": False}
    assert verdicts(made[:2]) == {"seconds": None, "memory": None}
