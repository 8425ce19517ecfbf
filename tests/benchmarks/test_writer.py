"""Rows for the writer's benchmark, and that they arrive."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks.writer import METRICS, Measured, calls, one_by_one, row, through_writer, trials_of
from wsl_sweep.tracking import Tracking


def test_a_row_has_twelve_metrics() -> None:
    assert len(row(1)) == METRICS + 2


def test_the_trials_take_turns_until_each_has_its_epochs() -> None:
    found = list(calls(["a", "b"], 5, 2))
    assert [trial for trial, _ in found] == ["a", "b"] * 3
    assert [[int(one["epoch"]) for one in rows] for trial, rows in found if trial == "a"] == [[1, 2], [3, 4], [5]]


@pytest.fixture
def uri(tmp_path: Path, empty_database: Path) -> str:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


def test_all_that_is_counted_has_arrived(uri: str) -> None:
    measured = Measured()
    through_writer(Tracking(uri, "many"), trials_of(2), 3, 1, measured)
    assert len(measured.milliseconds_a_call) == 6
    assert measured.metrics_a_second[0] > 0


def test_one_by_one(uri: str) -> None:
    measured = Measured()
    one_by_one(Tracking(uri, "single"), 2, measured)
    assert len(measured.milliseconds_a_call) == 2
