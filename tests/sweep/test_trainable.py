"""What a worker does with a task, without Ray: rows as they come, one outcome last, never an exception."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.sweep.fakes import spec_of
from wsl_sweep.spec.plan import Trial, ablation_cells
from wsl_sweep.sweep.trainable import run_task

QUICK = "run: {recipe: digits, schedule: {epochs: 2}, teacher: {model: convnet_4, schedule: {epochs: 1}}}\n"


def trial_of(*sets: str) -> Trial:
    return ablation_cells(spec_of(QUICK + "variants: [wsl]\nseeds: 1", *sets))[0].trials[0]


def do(folder: Path, trial: Trial, kind: str = "train", **extra: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    task = {"kind": kind, "key": "k", "attempt": 1, "trials": [trial.to_json()], "storage": str(folder)}
    reports: list[dict[str, Any]] = []
    run_task({**task, "every_epoch": True, **extra}, reports.append)
    return reports, json.loads(reports[-1]["outcome"])


def test_a_training_reports_every_row_once_and_its_outcome_last(tmp_path: Path) -> None:
    trial = trial_of()
    reports, outcome = do(tmp_path, trial)
    rows = [row for report in reports for row in json.loads(report["rows"])]
    assert [row["epoch"] for row in rows] == [1, 2]
    assert [("outcome" in report) for report in reports] == [False, True]
    assert outcome["status"] == "finished"
    assert outcome["epochs"] == 2
    assert outcome["metrics"]["validation/accuracy"] == rows[-1]["validation/accuracy"]
    assert not [name for name in outcome["metrics"] if name.startswith("test/")]
    assert set(outcome["fingerprint"]) == {"code", "torch", "device", "data", "teacher", "own"}


def test_everything_is_on_disk_before_the_last_report(tmp_path: Path) -> None:
    trial = trial_of()
    folder = tmp_path / "trials" / trial.trial_id
    seen: list[set[str]] = []
    task = {"kind": "train", "key": "k", "attempt": 3, "trials": [trial.to_json()], "storage": str(tmp_path)}

    def report(values: dict[str, Any]) -> None:
        seen.append({str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()})

    run_task({**task, "every_epoch": True}, report)
    assert {"student.safetensors", "validation_logits.safetensors", "attempt-3/rows.json"} <= seen[-1]
    assert not [name for name in seen[-1] if name.startswith("test_logits")]
    assert "student.safetensors" not in seen[0]


def test_a_diverging_trial_is_an_outcome_with_its_epoch(tmp_path: Path) -> None:
    _, outcome = do(tmp_path, trial_of("optimizer.lr=1e20"))
    assert outcome["status"] == "failed"
    assert "in epoch 1" in outcome["error"]


def test_a_crash_is_an_outcome_with_its_reason_and_its_traceback_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wsl_sweep.training.trial as module

    def broken(*_: Any) -> None:
        raise RuntimeError("something unforeseen\nwith a second line")

    monkeypatch.setattr(module.TrialTraining, "save", broken)
    trial = trial_of()
    _, outcome = do(tmp_path, trial)
    assert outcome["status"] == "failed"
    assert outcome["error"] == "RuntimeError: something unforeseen"
    log = (tmp_path / "trials" / trial.trial_id / "log.txt").read_text()
    assert "Traceback" in log
    assert "with a second line" in log


def test_an_evaluation_measures_saved_students_and_leaves_their_test_logits(tmp_path: Path) -> None:
    trial = trial_of()
    do(tmp_path, trial)
    reports, outcome = do(tmp_path, trial, kind="evaluate")
    assert len(reports) == 1
    (metrics,) = outcome["evaluated"].values()
    assert set(metrics) == {"test/accuracy", "test/loss", "test/ece"}
    assert (tmp_path / "trials" / trial.trial_id / "test_logits.safetensors").is_file()


def test_an_evaluation_without_its_student_is_an_outcome(tmp_path: Path) -> None:
    _, outcome = do(tmp_path, trial_of(), kind="evaluate")
    assert outcome["status"] == "failed"
    assert "student.safetensors: no such file" in outcome["error"]


def test_what_a_trial_prints_goes_to_its_own_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trial = trial_of()
    do(tmp_path, trial)
    assert capsys.readouterr().out == ""
    assert "epoch=2" in (tmp_path / "trials" / trial.trial_id / "log.txt").read_text()
