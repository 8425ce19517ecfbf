"""Stopping, listing and cleaning sweeps from another terminal; what other sweeps have finished already."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.sweep.fakes import spec_of
from wsl_sweep.app.folders import find_sweep, list_sweeps, new_folder, sweep_trials
from wsl_sweep.app.reuse import reuse_notes
from wsl_sweep.app.upkeep import clean_sweep, clean_trials, stop_sweep
from wsl_sweep.errors import WslSweepError
from wsl_sweep.spec.plan import Trial, ablation_cells
from wsl_sweep.storage import place
from wsl_sweep.sweep.control import CONTROL, STOP, ask_to_stop, forget_requests
from wsl_sweep.sweep.elsewhere import Elsewhere, newest_attempt, outcome_in
from wsl_sweep.sweep.lease import Lease
from wsl_sweep.sweep.ledger import Ledger, fold

SPEC = spec_of("name: s\nrun: {recipe: digits, schedule: {epochs: 3}}\nvariants: [kd, ce]\nseeds: 1")
PLAN = {"created": "2026", "stages": {"ablation": 2}, "description": "why?"}
ROWS = [{"epoch": 1, "timestamp": 1.0, "train/loss": 0.5}, {"epoch": 2, "timestamp": 2.0, "train/loss": 0.4}]


def trials() -> list[Trial]:
    return [cell.trials[0] for cell in ablation_cells(SPEC)]


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """A sweep of two trials; the first has finished in its second attempt, the second is under way."""
    folder = tmp_path / "runs" / "s"
    folder.mkdir(parents=True)
    (folder / "plan.json").write_text(json.dumps(PLAN))
    ledger, (one, two) = Ledger(folder / "ledger"), trials()
    for trial in (one, two):
        ledger.append("proposed", trial=trial.to_json())
        ledger.append("started", trial_id=trial.trial_id, attempt=1)
    ledger.append("lost", trial_id=one.trial_id, attempt=1, error="its worker died")
    ledger.append("started", trial_id=one.trial_id, attempt=2)
    ledger.append("finished", trial_id=one.trial_id, attempt=2, epochs=3, metrics={"validation/accuracy": 0.5})
    for trial, attempt in ((one, 1), (one, 2), (two, 1)):
        attempt_folder = folder / "trials" / trial.trial_id / f"attempt-{attempt}"
        (attempt_folder / "epoch-2").mkdir(parents=True)
        (attempt_folder / "epoch-2" / "state.json").write_text("{}")
        (attempt_folder / "rows.json").write_text(json.dumps(ROWS))
    return folder


@pytest.fixture
def driven(sweep: Path) -> Iterator[Path]:
    """The same, with a driver."""
    lease = Lease.take(place(sweep))
    yield sweep
    lease.release()


def test_cleaning_deletes_what_counts_no_more_and_keeps_the_rows(sweep: Path) -> None:
    cleaned = clean_sweep("s", str(sweep.parent))
    one, two = trials()
    assert (cleaned.attempts, cleaned.checkpoints) == (1, 1)
    assert sorted(path.name for path in (sweep / "trials" / one.trial_id).iterdir()) == ["attempt-2"]
    assert json.loads((sweep / "trials" / one.trial_id / "attempt-2" / "rows.json").read_text()) == ROWS
    assert not (sweep / "trials" / one.trial_id / "attempt-2" / "epoch-2").exists()
    assert (sweep / "trials" / two.trial_id / "attempt-1" / "epoch-2").exists()  # it may go on from there
    again = clean_sweep("s", str(sweep.parent))
    assert (again.attempts, again.checkpoints) == (0, 0)


def test_a_running_sweep_is_not_cleaned(driven: Path) -> None:
    with pytest.raises(WslSweepError, match="is being run by process"):
        clean_sweep("s", str(driven.parent))


def test_nothing_is_cleaned_of_trials_that_are_not_settled(sweep: Path) -> None:
    states = [one for one in fold(Ledger(sweep / "ledger").events()).trials.values() if not one.settled]
    assert clean_trials(place(sweep), states).checkpoints == 0


def test_only_a_running_sweep_can_be_stopped(sweep: Path) -> None:
    with pytest.raises(WslSweepError, match="is not running"):
        stop_sweep("s", storage=str(sweep.parent))
    with pytest.raises(WslSweepError, match="no sweep in"):
        stop_sweep("t", storage=str(sweep.parent))


def test_stopping_asks_the_driver_and_says_when_it_has_not_answered(driven: Path) -> None:
    assert "has been asked to stop it" in stop_sweep("s", storage=str(driven.parent), wait=0.0)
    assert place(driven / CONTROL).names() == [STOP]
    forget_requests(place(driven))
    assert place(driven / CONTROL).names() == []


def test_one_trial_is_stopped_by_the_beginning_of_its_id(driven: Path) -> None:
    one, two = trials()
    with pytest.raises(WslSweepError, match="has ended: finished"):
        stop_sweep("s", one.trial_id, str(driven.parent), wait=0.0)
    with pytest.raises(WslSweepError, match="no trial has an id that begins with 'xyz'"):
        stop_sweep("s", "xyz", str(driven.parent), wait=0.0)
    stop_sweep("s", two.trial_id[:8], str(driven.parent), wait=0.0)
    assert place(driven / CONTROL).names() == [f"{STOP}-{two.trial_id}"]


def test_what_was_asked_lies_in_files(tmp_path: Path) -> None:
    ask_to_stop(place(tmp_path))
    ask_to_stop(place(tmp_path), "abc")
    assert place(tmp_path / CONTROL).names() == [STOP, f"{STOP}-abc"]


def test_the_list_tells_who_drives(driven: Path) -> None:
    (found,) = list_sweeps(str(driven.parent))
    assert found["driver"]["pid"] > 0
    assert found["trials"] == {"finished": 1, "running": 1}


def test_a_sweep_whose_driver_died_has_none(sweep: Path) -> None:
    found = sweep_trials("s", str(sweep.parent))
    assert found["driver"] is None
    assert [(one["status"], one["attempt"], one["of"]) for one in found["of_each"]] == [
        ("finished", 2, 3),
        ("running", 1, 3),
    ]


@pytest.mark.parametrize("name", ["", "../s", "a/b", ".teachers"])
def test_what_is_no_name_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(WslSweepError, match="is no name of a sweep"):
        find_sweep(str(tmp_path), name)


def test_a_name_that_nobody_got_far_with_is_free(tmp_path: Path) -> None:
    Lease.take(place(tmp_path / "s")).release()
    assert str(new_folder(place(tmp_path), "s")) == str(tmp_path / "s")


def test_the_name_of_a_sweep_that_runs_is_taken(driven: Path) -> None:
    with pytest.raises(WslSweepError, match="is being run by process"):
        new_folder(place(driven.parent), "s")


# --- other sweeps' trials --------------------------------------------------------------------------------------------


def finished(folder: Path, trial: Trial, *, attempt: int = 1, student: bool = True, **more: Any) -> None:
    """A trial that another sweep has finished, as its worker leaves it."""
    own = folder / "trials" / trial.trial_id
    (own / f"attempt-{attempt}").mkdir(parents=True)
    word = {"status": "finished", "epochs": 3, "metrics": {"validation/accuracy": 0.5}, "fingerprint": {}, **more}
    (own / f"attempt-{attempt}" / "outcome.json").write_text(json.dumps(word))
    if student:
        (own / "student.safetensors").write_bytes(b"")


def test_other_sweeps_trials_are_found_by_id_and_not_ones_own(tmp_path: Path) -> None:
    one, two = trials()
    finished(tmp_path / "a", one, attempt=2)
    finished(tmp_path / "own", one)
    finished(tmp_path / "b", two, student=False)
    elsewhere = Elsewhere(place(tmp_path), "own")
    (found,) = elsewhere.find(one.trial_id)
    assert (found.sweep, found.attempt, found.student) == ("a", 2, True)
    assert elsewhere.find("0" * 12) == []
    assert not elsewhere.find(two.trial_id)[0].student
    assert found.differences({"code": "x", "own": None}) == ["code"]


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"status": "finis', b'{"status": "killed"}', b'{"status": "finished", "metrics": [1]}']
)
def test_a_damaged_word_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "attempt-1").mkdir()
    (tmp_path / "attempt-1" / "outcome.json").write_bytes(content)
    assert outcome_in(place(tmp_path), 1) is None
    assert outcome_in(place(tmp_path), 2) is None


def test_the_newest_attempt_is_the_largest_number(tmp_path: Path) -> None:
    assert newest_attempt(place(tmp_path)) == 0
    for name in ("attempt-2", "attempt-10", "attempt-x", "other-11"):
        (tmp_path / name).mkdir()
    assert newest_attempt(place(tmp_path)) == 10


def test_the_plan_says_what_is_not_taken_over_and_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSL_SWEEP_CACHE", str(tmp_path / "cache"))
    one, two = sorted(trials(), key=lambda trial: "ce" not in trial.variants)
    finished(tmp_path / "runs" / "a", one, fingerprint={"code": "old"})
    finished(tmp_path / "runs" / "b", two, student=False)
    notes = reuse_notes(SPEC, place(tmp_path / "runs"), "cpu")
    assert any("of the sweep a" in note and "this package's training code" in note for note in notes)
    assert any("of the sweep b" in note and "its student was not kept" in note for note in notes)


def test_the_only_rows_of_a_trial_that_failed_at_once_are_kept(sweep: Path) -> None:
    """Its last attempt came to no epoch; MLflow must be made again from the attempt before."""
    ledger, (_, two) = Ledger(sweep / "ledger"), trials()
    ledger.append("lost", trial_id=two.trial_id, attempt=1, error="its worker died")
    ledger.append("started", trial_id=two.trial_id, attempt=2)
    ledger.append("failed", trial_id=two.trial_id, attempt=2, error="ValueError")
    (sweep / "trials" / two.trial_id / "attempt-2").mkdir()
    clean_sweep("s", str(sweep.parent))
    assert json.loads((sweep / "trials" / two.trial_id / "attempt-1" / "rows.json").read_text()) == ROWS
    assert not (sweep / "trials" / two.trial_id / "attempt-1" / "epoch-2").exists()


def test_a_name_of_which_only_the_file_was_written_is_free(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "sweep.yaml").write_text("name: s")
    assert new_folder(place(tmp_path), "s").name == "s"
