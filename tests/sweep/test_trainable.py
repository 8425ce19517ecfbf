"""What a worker does with a task, without Ray: rows as they come, one outcome last, never an exception."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.sweep.fakes import spec_of
from wsl_sweep.spec.plan import Trial, ablation_cells
from wsl_sweep.sweep.trainable import run_task

QUICK = "run: {recipe: digits, schedule: {epochs: 2}, teacher: {model: convnet_4, schedule: {epochs: 1}}}\n"


def trial_of(*sets: str) -> Trial:
    return ablation_cells(spec_of(QUICK + "variants: [wsl]\nseeds: 1", *sets))[0].trials[0]


def task_of(folder: Path, trial: Trial, kind: str = "train") -> dict[str, Any]:
    """As the runner sends it; every epoch is reported."""
    task = {"kind": kind, "key": "k", "attempt": 1, "trials": [trial.to_json()], "storage": str(folder)}
    return {**task, "bank": {}, "gpu": 0.0, "metrics": ["validation/accuracy"], "report_seconds": 0.0, "rungs": []}


def do(folder: Path, trial: Trial, kind: str = "train", **extra: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    reports: list[dict[str, Any]] = []
    run_task({**task_of(folder, trial, kind), **extra}, reports.append)
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
    task = {**task_of(tmp_path, trial), "attempt": 3}

    def report(values: dict[str, Any]) -> None:
        seen.append({str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()})

    run_task(task, report)
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


# --- who hears of an epoch, and when ---------------------------------------------------------------------------------

NEVER = 1e9
EPOCHS = 8


class Clock:
    """Stands in for ``time``: it moves when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Of what a worker does; the training keeps the real one."""
    import wsl_sweep.sweep.trainable as module

    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def epochs_in(reports: list[dict[str, Any]]) -> list[list[int]]:
    """The epochs whose rows each report carries."""
    return [[row["epoch"] for row in json.loads(report["rows"])] for report in reports]


@pytest.mark.parametrize("rungs", [[], [1], [3], [1, 3, 6], [EPOCHS], [2, 100]])
def test_a_trial_that_may_keep_silent_reports_at_its_rungs_and_at_its_end(tmp_path: Path, rungs: list[int]) -> None:
    reports, outcome = do(tmp_path, trial_of(f"schedule.epochs={EPOCHS}"), report_seconds=NEVER, rungs=rungs)
    assert [report["epoch"] for report in reports] == [*(rung for rung in rungs if rung < EPOCHS), EPOCHS]
    assert outcome["epochs"] == EPOCHS
    sent = epochs_in(reports)
    assert [epochs[-1] for epochs in sent] == [report["epoch"] for report in reports]
    assert [epoch for epochs in sent for epoch in epochs] == list(range(1, EPOCHS + 1))


def test_the_first_report_after_a_long_silence_has_every_epoch_since_the_last(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An epoch takes a second; reports are three and more apart, and a rung starts the waiting anew."""
    from wsl_sweep.training import TrialTraining

    epochs = TrialTraining.__iter__

    def timed(training: TrialTraining) -> Iterator[dict[str, float]]:
        for row in epochs(training):
            clock.now += 1.0
            yield row

    monkeypatch.setattr(TrialTraining, "__iter__", timed)
    reports, _ = do(tmp_path, trial_of(f"schedule.epochs={EPOCHS}"), report_seconds=3.0, rungs=[4])
    assert epochs_in(reports) == [[1, 2, 3], [4], [5, 6, 7], [8]]
    trial_folder = next((tmp_path / "trials").iterdir())
    kept = json.loads((trial_folder / "attempt-1" / "rows.json").read_text())
    assert [row["epoch"] for row in kept] == list(range(1, EPOCHS + 1))


def test_how_often_a_trial_reports_changes_none_of_its_numbers(tmp_path: Path) -> None:
    trial = trial_of(f"schedule.epochs={EPOCHS}")
    often, _ = do(tmp_path / "often", trial)
    seldom, _ = do(tmp_path / "seldom", trial, report_seconds=NEVER)
    own = {"train/seconds", "timestamp"}

    def numbers(reports: list[dict[str, Any]]) -> list[dict[str, float]]:
        rows = [row for report in reports for row in json.loads(report["rows"])]
        return [{name: value for name, value in row.items() if name not in own} for row in rows]

    assert numbers(often) == numbers(seldom)
    assert (len(often), len(seldom)) == (EPOCHS, 1)


# --- the teacher's part ----------------------------------------------------------------------------------------------


def without_times(outcome: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in outcome["metrics"].items() if name != "train/seconds"}


def test_a_worker_says_how_often_the_teacher_ran_and_the_second_trial_needs_it_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WSL_SWEEP_BANK", str(tmp_path / "bank"))
    reports, cold = do(tmp_path, trial_of())
    assert cold["teacher"]["computed"] > 0
    _, warm = do(tmp_path, trial_of("distillation.alpha=3"))
    asked = cold["teacher"]["computed"] + cold["teacher"]["found"]
    assert warm["teacher"] == {"computed": 0, "found": asked, "notes": []}
    after_one = json.loads(reports[0]["teacher"])
    assert 0 < after_one["computed"] < cold["teacher"]["computed"]
    _, again = do(tmp_path, trial_of())
    assert without_times(again) == without_times(cold)


def test_a_task_without_a_bank_computes_at_every_step_and_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WSL_SWEEP_BANK", str(tmp_path / "bank"))
    _, off = do(tmp_path, trial_of(), bank={"use": False})
    assert not (tmp_path / "bank").exists()
    assert off["teacher"]["found"] == 0
    _, on = do(tmp_path, trial_of())
    assert without_times(on) == without_times(off)
    assert off["teacher"]["computed"] >= on["teacher"]["computed"]


def test_a_trial_without_a_teacher_has_nothing_to_say_of_one(tmp_path: Path) -> None:
    spec = spec_of("run: {recipe: digits, schedule: {epochs: 1}}\nvariants: [ce]\nseeds: 1")
    _, outcome = do(tmp_path, ablation_cells(spec)[0].trials[0])
    assert outcome["status"] == "finished"
    assert outcome["teacher"] is None


def test_a_bank_that_cannot_be_had_is_noted_and_the_trial_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bank").write_text("a file where the folder should be")
    monkeypatch.setenv("WSL_SWEEP_BANK", str(tmp_path / "bank"))
    _, outcome = do(tmp_path, trial_of())
    assert outcome["status"] == "finished"
    (note,) = outcome["teacher"]["notes"]
    assert "the logit bank cannot be used" in note
    assert str(tmp_path / "bank") in note
