"""What a worker does with a task, without Ray: rows as they come, one outcome last, never an exception."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.sweep.fakes import conductor_of, spec_of
from wsl_sweep.analysis import build_summary
from wsl_sweep.analysis.leftovers import kept_logits, kept_masks, teacher_logits
from wsl_sweep.errors import StorageError
from wsl_sweep.spec.identity import teacher_identity
from wsl_sweep.spec.plan import Trial, ablation_cells
from wsl_sweep.storage import DiskPlace, place
from wsl_sweep.sweep.conductor import sane
from wsl_sweep.sweep.elsewhere import Elsewhere, outcome_in
from wsl_sweep.sweep.ledger import fold
from wsl_sweep.sweep.trainable import Look, run_task

QUICK = "run: {recipe: digits, schedule: {epochs: 2}, teacher: {model: convnet_4, schedule: {epochs: 1}}}\n"


def trial_of(*sets: str) -> Trial:
    return ablation_cells(spec_of(QUICK + "variants: [wsl]\nseeds: 1", *sets))[0].trials[0]


def task_of(folder: Path, trial: Trial, kind: str = "train") -> dict[str, Any]:
    """As the runner sends it; every epoch is reported."""
    task = {"kind": kind, "key": "k", "attempt": 1, "trials": [trial.to_json()], "storage": str(folder)}
    task |= {"sweep_uuid": "u", "elsewhere": [], "scheduled": False, "teachers": None}
    task |= {"checkpoints": {"epochs": 1, "minutes": None, "keep_all": False}}
    task |= {"bank": {}, "gpu": 0.0, "workers": 0}
    return {**task, "metrics": ["validation/accuracy"], "report_seconds": 0.0, "rungs": []}


def do(
    folder: Path, trial: Trial, kind: str = "train", look: Look = lambda: None, **extra: Any
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    reports: list[dict[str, Any]] = []
    run_task({**task_of(folder, trial, kind), **extra}, reports.append, look)
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
    assert {
        "student.safetensors",
        "validation_logits.safetensors",
        "regularization_samples.safetensors",
        "attempt-3/rows.json",
        "attempt-3/outcome.json",
    } <= seen[-1]
    assert len(list((tmp_path / "teacher_logits").iterdir())) == 1
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


@pytest.mark.parametrize("torn", [False, True])
def test_an_evaluation_names_a_student_that_is_gone_or_torn_and_measures_the_others(tmp_path: Path, torn: bool) -> None:
    there, other = trial_of(), trial_of("distillation.alpha=3")
    do(tmp_path, there)
    student = tmp_path / "trials" / other.trial_id / "student.safetensors"
    student.parent.mkdir(parents=True)
    if torn:
        student.write_bytes((tmp_path / "trials" / there.trial_id / "student.safetensors").read_bytes()[:1000])
    reports: list[dict[str, Any]] = []
    task = task_of(tmp_path, there, "evaluate")
    run_task({**task, "trials": [other.to_json(), there.to_json()]}, reports.append)
    outcome = json.loads(reports[-1]["outcome"])
    assert outcome["status"] == "finished"
    assert list(outcome["evaluated"]) == [there.trial_id]
    assert list(outcome["unreadable"]) == [other.trial_id]
    assert ("not a readable" if torn else "no such file") in outcome["unreadable"][other.trial_id]


def test_what_a_teacher_says_is_kept_once_for_the_trials_of_a_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is what the student's nearness to it was measured by; who asks no teacher leaves none."""
    written: list[str] = []
    write = DiskPlace.write

    def remembered(self: DiskPlace, content: bytes, *, lasting: bool = True) -> None:
        written.append(self.parent.name)
        write(self, content, lasting=lasting)

    monkeypatch.setattr(DiskPlace, "write", remembered)
    trials = [trial_of(), trial_of("distillation.alpha=3"), trial_of("teacher.seed=7")]
    metrics = [do(tmp_path, trial)[1]["metrics"] for trial in trials]
    assert written.count("teacher_logits") == 2
    for trial, of_last_epoch in zip(trials, metrics, strict=True):
        named = teacher_identity(trial.config, "train", 1)
        assert named is not None
        student = kept_logits(place(tmp_path), trial.trial_id)
        assert student is not None
        teacher = teacher_logits(place(tmp_path), named[0], student)
        assert teacher is not None
        agreement = (student.logits.argmax(1) == teacher.logits.argmax(1)).mean()
        assert agreement == pytest.approx(of_last_epoch["teacher/agreement"])
    masks = [kept_masks(place(tmp_path), trial.trial_id) for trial in trials]
    for mask, of_last_epoch in zip(masks, metrics, strict=True):
        assert mask is not None
        assert mask.masks[-1].mean() == pytest.approx(of_last_epoch["regularization_samples/fraction"])
    without = spec_of("run: {recipe: digits, schedule: {epochs: 1}}\nvariants: [ce]\nseeds: 1")
    assert do(tmp_path / "alone", ablation_cells(without)[0].trials[0])[1]["status"] == "finished"
    assert not (tmp_path / "alone" / "teacher_logits").exists()


def test_a_worker_that_was_given_up_leaves_later_attempts_alone(tmp_path: Path) -> None:
    trial = trial_of()
    later = tmp_path / "trials" / trial.trial_id / "attempt-2" / "epoch-1"
    run_task({**task_of(tmp_path, trial)}, lambda _: None)
    later.mkdir(parents=True)
    from wsl_sweep.sweep.trainable import _delete_checkpoints

    _delete_checkpoints(place(tmp_path / "trials" / trial.trial_id), 1)
    assert later.is_dir()
    _delete_checkpoints(place(tmp_path / "trials" / trial.trial_id), 2)
    assert not later.is_dir()


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
    after_one = json.loads(reports[0]["facts"])["teacher"]
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


# --- what it cost, and with what it was made -------------------------------------------------------------------------

EXAMPLES = 402
"""For training; in seven batches of 64, the last one of 18."""


def summary_of(outcome: dict[str, Any], trial: Trial, folder: Path) -> dict[str, Any]:
    """What the summary says of a trial after an outcome."""
    conductor = conductor_of(spec_of(QUICK + "variants: [wsl]\nseeds: 1"), folder, has_teacher=lambda _: True)
    conductor.take_up(trial)
    task = conductor.next()
    assert task is not None
    assert task.key == trial.trial_id
    conductor.started(task.key)
    conductor.ended(task.key, outcome)
    found: dict[str, Any] = build_summary(conductor.spec, fold(conductor.ledger.events()), uuid="u")["trials"][0]
    return found


def test_the_summary_says_with_what_a_trial_was_made_and_what_it_cost(tmp_path: Path) -> None:
    from wsl_sweep.data import load
    from wsl_sweep.training import TeacherStore
    from wsl_sweep.training.fingerprint import training_code_digest

    trial = trial_of()
    _, outcome = do(tmp_path, trial)
    said = summary_of(outcome, trial, tmp_path / "own")
    data = load(trial.config["dataset"])
    assert len(data.train) == EXAMPLES
    assert said["examples"] == 2 * EXAMPLES
    named = teacher_identity(trial.config, trial.part, trial.threads)
    assert named is not None
    assert said["teacher_id"] == named[0]
    weights = TeacherStore().weights(named[0]).read_bytes()
    assert said["fingerprint"] == {
        "code": training_code_digest(),
        "torch": torch.__version__,
        "device": said["fingerprint"]["device"],
        "data": data.digest,
        "teacher": hashlib.sha256(weights).hexdigest(),
        "own": None,
    }


def test_an_example_that_is_left_out_of_every_epoch_is_not_counted(tmp_path: Path) -> None:
    """Of batches of 401 the second would be of a single one."""
    _, outcome = do(tmp_path, trial_of("schedule.batch_size=401"))
    assert outcome["examples"] == 2 * 401


@pytest.mark.parametrize(("epochs", "batches", "wanted"), [(0, 3, 192), (0, 7, 402), (1, 5, 402 + 320)])
def test_of_a_stopped_trial_what_it_has_done_is_counted_and_at_its_end_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epochs: int, batches: int, wanted: int
) -> None:
    from wsl_sweep.training import loop

    trial, left = trial_of("distillation.weighting.kind=none"), [7 * epochs + batches]
    step = loop.StepRunner.__call__

    def counted(self: Any, *arguments: Any) -> None:
        left[0] -= 1
        step(self, *arguments)

    do(tmp_path / "other", trial, "teacher")
    monkeypatch.setattr(loop.StepRunner, "__call__", counted)
    _, stopped = do(tmp_path, trial, look=lambda: "stop" if left[0] == 0 else None)
    assert (stopped["status"], stopped["examples"]) == ("killed", wanted)
    left[0] = 1
    _, stopped = do(tmp_path, trial, attempt=2, look=lambda: "stop" if left[0] == 0 else None)
    assert (stopped["status"], stopped["examples"]) == ("killed", wanted + 64)
    _, outcome = do(tmp_path, trial, attempt=3)
    assert (outcome["status"], outcome["examples"]) == ("finished", 2 * EXAMPLES)


def test_of_a_failed_trial_the_epoch_that_failed_is_counted(tmp_path: Path) -> None:
    trial = trial_of("optimizer.lr=1e20")
    _, outcome = do(tmp_path, trial)
    assert (outcome["status"], outcome["examples"]) == ("failed", EXAMPLES)
    left = outcome_in(place(tmp_path / "trials" / trial.trial_id), 1)
    assert left is not None
    assert sane(left)["examples"] == EXAMPLES


def test_a_trial_that_did_not_come_to_its_training_does_not_say(tmp_path: Path) -> None:
    trial = trial_of()
    _, outcome = do(tmp_path, trial, look=lambda: "not wanted")
    assert "examples" not in outcome
    said = summary_of({"status": "failed", "error": "why"}, trial, tmp_path / "own")
    assert (said["examples"], said["fingerprint"]) == (None, None)


def test_a_report_says_what_was_done_so_far(tmp_path: Path) -> None:
    reports, outcome = do(tmp_path, trial_of("schedule.epochs=3"))
    facts = [json.loads(report["facts"]) for report in reports[:-1]]
    assert [one["examples"] for one in facts] == [EXAMPLES, 2 * EXAMPLES]
    for one in facts:
        assert (one["fingerprint"], one["device"]) == (outcome["fingerprint"], outcome["device"])
    assert outcome["examples"] == 3 * EXAMPLES


# --- stopped, and gone on --------------------------------------------------------------------------------------------


def after(calls: int, reason: str = "the sweep was stopped by SIGTERM") -> Look:
    """A look that finds a raised flag from its ``calls``-th call on."""
    seen = [0]

    def look() -> str | None:
        seen[0] += 1
        return reason if seen[0] >= calls else None

    return look


def numbers_of(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name not in ("train/seconds", "timestamp")} for row in rows]


def rows_in(folder: Path, trial: Trial, attempt: int) -> list[dict[str, float]]:
    kept = folder / "trials" / trial.trial_id / f"attempt-{attempt}" / "rows.json"
    rows: list[dict[str, float]] = json.loads(kept.read_text())
    return rows


@pytest.mark.parametrize("calls", [5, 12, 18])
def test_a_stopped_trial_goes_on_to_the_bits_of_an_undisturbed_one(tmp_path: Path, calls: int) -> None:
    trial = trial_of("schedule.epochs=4")
    _, whole = do(tmp_path / "whole", trial)
    folder = tmp_path / "trials" / trial.trial_id
    reports, stopped = do(tmp_path, trial, look=after(calls))
    assert stopped["status"] == "killed"
    assert stopped["error"] == "the sweep was stopped by SIGTERM"
    assert not (folder / "student.safetensors").exists()
    assert outcome_in(place(folder), 1) is None
    heard = sum(len(json.loads(report.get("rows", "[]"))) for report in reports)
    assert heard < 4
    reports, outcome = do(tmp_path, trial, attempt=2)
    assert outcome["status"] == "finished"
    assert "goes on after epoch" in (folder / "log.txt").read_text() or heard == 0
    assert without_times(outcome) == without_times(whole)
    assert epochs_in(reports)[-1][-1] == 4
    assert [epoch for epochs in epochs_in(reports) for epoch in epochs] == [1, 2, 3, 4]
    assert numbers_of(rows_in(tmp_path, trial, 2)) == numbers_of(rows_in(tmp_path / "whole", trial, 1))
    name = "student.safetensors"
    assert (folder / name).read_bytes() == (tmp_path / "whole/trials" / trial.trial_id / name).read_bytes()


def test_a_flag_that_is_raised_before_the_start_costs_no_training(tmp_path: Path) -> None:
    reports, outcome = do(tmp_path, trial_of(), look=lambda: "not wanted")
    assert (outcome["status"], outcome["error"]) == ("killed", "not wanted")
    assert len(reports) == 1


def test_a_stopped_evaluation_and_a_stopped_teacher_are_killed_not_failed(tmp_path: Path) -> None:
    trial = trial_of("teacher.seed=77")
    do(tmp_path, trial_of())
    assert do(tmp_path, trial_of(), "evaluate", look=lambda: "stop")[1]["status"] == "killed"
    assert do(tmp_path, trial, "teacher", look=after(3))[1]["status"] == "killed"


def test_a_finished_trial_leaves_its_last_word_and_no_checkpoints(tmp_path: Path) -> None:
    trial = trial_of()
    _, outcome = do(tmp_path, trial)
    attempt = tmp_path / "trials" / trial.trial_id / "attempt-1"
    left = outcome_in(place(attempt.parent), 1)
    assert left is not None
    assert {key: left[key] for key in ("status", "epochs", "metrics", "fingerprint")} == {
        key: outcome[key] for key in ("status", "epochs", "metrics", "fingerprint")
    }
    assert sorted(path.name for path in attempt.iterdir()) == ["outcome.json", "rows.json"]
    kept = {"epochs": 1, "minutes": None, "keep_all": True}
    do(tmp_path / "all", trial, checkpoints=kept)
    names = {path.name for path in (tmp_path / "all" / "trials" / trial.trial_id / "attempt-1").iterdir()}
    assert {"epoch-1", "epoch-2"} <= names


def test_a_failed_trial_leaves_its_last_word(tmp_path: Path) -> None:
    trial = trial_of("optimizer.lr=1e20")
    _, outcome = do(tmp_path, trial)
    left = outcome_in(place(tmp_path / "trials" / trial.trial_id), 1)
    assert left is not None
    assert (left["status"], left["error"]) == ("failed", outcome["error"])


def test_a_worker_that_was_given_up_for_lost_leaves_no_student(tmp_path: Path) -> None:
    trial = trial_of()
    (tmp_path / "trials" / trial.trial_id / "attempt-2").mkdir(parents=True)
    _, outcome = do(tmp_path, trial)
    assert outcome["status"] == "failed"
    assert "attempt 1 was given up" in outcome["error"]
    assert not (tmp_path / "trials" / trial.trial_id / "student.safetensors").exists()


def test_where_any_report_may_be_the_last_its_rows_are_kept_before_it(tmp_path: Path) -> None:
    trial = trial_of("schedule.epochs=3")
    kept: list[int] = []

    def report(values: dict[str, Any]) -> None:
        kept.append(len(rows_in(tmp_path, trial, 1)))

    run_task({**task_of(tmp_path, trial), "scheduled": True}, report)
    assert kept == [1, 2, 3]


# --- what a sweep rests on --------------------------------------------------------------------------------------------


def test_a_storage_that_is_no_folder_any_more_is_gone(tmp_path: Path) -> None:
    (tmp_path / "trials").write_text("")
    _, outcome = do(tmp_path, trial_of())
    assert outcome["status"] == "gone"
    assert "cannot write" in outcome["error"]


def test_an_attempt_that_cannot_be_written_is_gone(tmp_path: Path) -> None:
    trial = trial_of()
    (tmp_path / "trials" / trial.trial_id).mkdir(parents=True)
    (tmp_path / "trials" / trial.trial_id / "attempt-1").write_text("")
    _, outcome = do(tmp_path, trial)
    assert outcome["status"] == "gone"


@pytest.mark.parametrize(
    "file",
    [
        "config.json",
        "manifest.json",
        "rows.json",
        "student.safetensors",
        "regularization_samples.safetensors",
        "teacher_logits",
        "outcome.json",
    ],
)
def test_a_disk_that_is_full_at_any_file_is_gone_not_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    write = DiskPlace.write

    def full(self: DiskPlace, content: bytes, *, lasting: bool = True) -> None:
        if file in (self.name, self.parent.name):
            raise StorageError(f"cannot write {self}: No space left on device")
        write(self, content, lasting=lasting)

    monkeypatch.setattr(DiskPlace, "write", full)
    _, outcome = do(tmp_path, trial_of())
    assert outcome["status"] == "gone"
    assert "No space left" in outcome["error"]


@pytest.mark.parametrize(
    ("model", "status"), [("Full", "gone"), ("TooLarge", "out_of_memory"), ("Missing", "failed"), ("Fine", "finished")]
)
def test_what_a_users_own_model_raises_means_what_it_is(tmp_path: Path, model: str, status: str) -> None:
    trial = trial_of(f"student.model=tests.sweep.own_models:{model}")
    _, outcome = do(tmp_path, trial, report_seconds=NEVER)
    assert outcome["status"] == status
    left = outcome_in(place(tmp_path / "trials" / trial.trial_id), 1)
    assert (left is not None) == (status in ("finished", "failed"))


# --- taken over from another sweep ----------------------------------------------------------------------------------


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """The sweep ``other`` beside ``own``, with one finished trial."""
    do(tmp_path / "other", trial_of())
    return tmp_path / "other" / "trials" / trial_of().trial_id


def found_by(folder: Path, trial: Trial) -> list[dict[str, Any]]:
    return [one.to_json() for one in Elsewhere(place(folder), "own").find(trial.trial_id)]


def test_the_same_trial_of_another_sweep_is_not_trained_again(
    tmp_path: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wsl_sweep.training import TrialTraining

    def never(_: TrialTraining) -> Iterator[dict[str, float]]:
        raise AssertionError("it was trained")

    monkeypatch.setattr(TrialTraining, "__iter__", never)
    trial = trial_of()
    reports, outcome = do(tmp_path / "own", trial, elsewhere=found_by(tmp_path, trial))
    assert outcome["status"] == "finished"
    assert outcome["taken_over"] == {"sweep": "other", "attempt": 1}
    there = json.loads((other / "attempt-1" / "outcome.json").read_text())
    assert outcome["examples"] == there["examples"] == 2 * EXAMPLES
    assert outcome["metrics"] == json.loads((other / "attempt-1" / "outcome.json").read_text())["metrics"]
    assert epochs_in(reports) == [[1, 2]]
    for name in ("student.safetensors", "validation_logits.safetensors", "attempt-1/rows.json"):
        assert (tmp_path / "own/trials" / trial.trial_id / name).is_file()
    own = tmp_path / "own/trials" / trial.trial_id / "student.safetensors"
    assert own.read_bytes() == (other / "student.safetensors").read_bytes()
    assert rows_in(tmp_path / "own", trial, 1) == rows_in(tmp_path / "other", trial, 1)


def test_what_the_diagnostics_read_is_brought_along(tmp_path: Path, other: Path) -> None:
    trial = trial_of()
    _, outcome = do(tmp_path / "own", trial, elsewhere=found_by(tmp_path, trial))
    assert "taken_over" in outcome
    samples = "regularization_samples.safetensors"
    assert (tmp_path / "own/trials" / trial.trial_id / samples).read_bytes() == (other / samples).read_bytes()
    (there,) = (tmp_path / "other/teacher_logits").iterdir()
    (here,) = (tmp_path / "own/teacher_logits").iterdir()
    assert (here.name, here.read_bytes()) == (there.name, there.read_bytes())


@pytest.mark.parametrize("student", [True, False])
def test_older_sweeps_that_lack_it_are_taken_over_all_the_same(tmp_path: Path, other: Path, student: bool) -> None:
    (other / "regularization_samples.safetensors").unlink()
    shutil.rmtree(tmp_path / "other/teacher_logits")
    if not student:
        damaged(other, "no student")
    trial = trial_of() if student else replace(trial_of(), stage="search", arm="tuned")
    _, outcome = do(tmp_path / "own", trial, elsewhere=found_by(tmp_path, trial))
    assert outcome["taken_over"] == {"sweep": "other", "attempt": 1}
    assert not (tmp_path / "own/trials" / trial.trial_id / "regularization_samples.safetensors").exists()
    assert not (tmp_path / "own/teacher_logits").exists()


def damaged(other: Path, how: str) -> None:
    outcome, rows = other / "attempt-1" / "outcome.json", other / "attempt-1" / "rows.json"
    content = json.loads(outcome.read_text())
    match how:
        case "fingerprint":
            content["fingerprint"]["torch"] = "0.0"
            outcome.write_text(json.dumps(content))
        case "torn rows":
            rows.write_bytes(rows.read_bytes()[:100])
        case "fewer rows":
            rows.write_text(json.dumps(json.loads(rows.read_text())[:1]))
        case "other metrics":
            content["metrics"]["validation/accuracy"] = 1.0
            outcome.write_text(json.dumps(content))
        case "no student":
            (other / "student.safetensors").unlink()
        case "no logits":
            (other / "validation_logits.safetensors").unlink()


@pytest.mark.parametrize("how", ["fingerprint", "torn rows", "fewer rows", "other metrics", "no student", "no logits"])
def test_what_is_not_the_same_or_not_whole_is_trained(tmp_path: Path, other: Path, how: str) -> None:
    trial = trial_of()
    damaged(other, how)
    _, outcome = do(tmp_path / "own", trial, elsewhere=found_by(tmp_path, trial))
    assert outcome["status"] == "finished"
    assert "taken_over" not in outcome
    assert outcome["metrics"]["validation/accuracy"] != 1.0
    assert (tmp_path / "own/trials" / trial.trial_id / "student.safetensors").is_file()


def test_without_its_student_a_trial_is_taken_over_for_a_search_alone(tmp_path: Path, other: Path) -> None:
    damaged(other, "no student")
    trial = replace(trial_of(), stage="search", arm="tuned")
    _, outcome = do(tmp_path / "own", trial, elsewhere=found_by(tmp_path, trial))
    assert outcome["taken_over"] == {"sweep": "other", "attempt": 1}


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EMFILE])
def test_a_student_that_cannot_be_read_now_is_not_taken_for_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """It would be trained again from the beginning: the sweep stops instead, and can go on."""
    trial = trial_of()
    do(tmp_path, trial)
    read = DiskPlace.read_bytes

    def fails(self: DiskPlace) -> bytes:
        if self.name == "student.safetensors":
            raise OSError(number, os.strerror(number))
        return read(self)

    monkeypatch.setattr(DiskPlace, "read_bytes", fails)
    assert do(tmp_path, trial, kind="evaluate")[1]["status"] == "gone"


def test_a_storage_that_is_gone_is_not_taken_for_damaged_students(tmp_path: Path) -> None:
    assert do(tmp_path, trial_of(), kind="evaluate")[1]["status"] == "gone"
