"""Bringing a server in line with a ledger: as if the writer had been there, as often as wanted."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import mlflow
import pytest

from tests.conftest import REPO
from tests.tracking.helpers import (
    SWEEP,
    event,
    is_whole,
    metrics_of,
    proposed,
    rows,
    snapshot,
    story,
    sweep_of,
    tell,
    trials,
)
from wsl_sweep.errors import StorageError
from wsl_sweep.tracking import MlflowWriter, Tracking
from wsl_sweep.tracking.story import stories

NewStore = Callable[[str], Tracking]
FACTS = {
    "fingerprint": {"device": "NVIDIA A100", "torch": "2"},
    "device": "cuda",
    "teacher": {"computed": 1, "found": 2},
}
NONSENSE: list[dict[str, Any]] = [
    {"event": "finished", "trial_id": trials()[0].trial_id, "metrics": {}},
    {"event": "new"},
    {"event": "proposed", "time": 2.0},
]


def bring(
    tracking: Tracking, ledger: list[dict[str, Any]], rows_of: Any = None, status: str = "finished"
) -> MlflowWriter:
    writer = MlflowWriter(tracking, SWEEP)
    writer.start()
    writer.bring_in_line(ledger, rows_of or (lambda trial_id, attempt: rows(3)))
    writer.describe("| a | table |", {"best/accuracy": 0.5})
    assert writer.close(status, 120), (writer.problem, writer.missing())
    return writer


def sweep_with_everything() -> list[dict[str, Any]]:
    one, two, three, four, five, six = trials()
    again = [
        proposed(five),
        event("started", five, 1000.0),
        event("lost", five, 1400.0, error="its worker died"),
        event("started", five, 1500.0, attempt=2),
        event("finished", five, 2000.0, attempt=2, metrics=metrics_of(3), **FACTS),
        event("finished", five, 2100.0, attempt=1, metrics=metrics_of(2)),  # a zombie's
        {"event": "evaluated", "time": 3000.0, "trial_id": five.trial_id, "metrics": {"test/accuracy": 0.7}},
    ]
    stopped = [
        *story(six, "killed", error="the sweep was stopped"),
        event("started", six, 2500.0, attempt=2),
        event("pruned", six, 2600.0, attempt=2, metrics=metrics_of(3)),
    ]
    taken = story(two, taken_over={"sweep": "before", "uuid": "u-0"}, **FACTS)
    failed, pruned = story(three, "failed", error="diverged at postgresql://u:pw@db/x"), story(four, "pruned")
    return sweep_of([story(one), NONSENSE, taken, failed, pruned, again, stopped])


def test_an_empty_server_becomes_equal_to_the_one_that_was_there_all_along(new_store: NewStore) -> None:
    ledger = sweep_with_everything()
    there, other = new_store("there"), new_store("other")
    writer = MlflowWriter(there, SWEEP)
    writer.start()
    for one in ledger:
        if one not in NONSENSE:  # which a driver never tells
            tell(writer, [one])
            assert writer.flush(60)
    writer.describe("| a | table |", {"best/accuracy": 0.5})
    writer.close("finished", 60)
    bring(other, ledger)
    original, copy = snapshot(there), snapshot(other)
    assert copy == original
    one, two, three, four, five, six = (original[trial.trial_id] for trial in trials())
    assert [run["status"] for run in (one, two, three, four, five, six)] == [
        *("FINISHED", "FINISHED", "FAILED", "KILLED", "FINISHED", "KILLED")
    ]
    assert two["tags"]["taken_over_from"] == "before"
    assert two["tags"]["accelerator"] == five["tags"]["accelerator"] == "NVIDIA A100"
    assert two["tags"]["device"] == "cuda"
    assert five["tags"]["attempts"] == six["tags"]["attempts"] == "2"
    assert "attempts" not in one["tags"]
    assert three["tags"]["error"] == "diverged at postgresql://db/x"
    assert six["tags"]["pruned"] == "true"
    assert "error" not in six["tags"]  # it was the end of the attempt before
    assert original["parent"]["times"] == (900_000, 5000_000)
    assert original["parent"]["tags"]["mlflow.note.content"] == "| a | table |"


def test_a_second_time_changes_nothing_and_sends_nothing_of_the_trials(
    tracking: Tracking, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = sweep_with_everything()
    first = bring(tracking, ledger)
    before = snapshot(tracking)
    sent: list[str] = []
    for name in ("log_batch", "create_run", "update_run", "set_terminated", "delete_run", "delete_tag", "set_tag"):
        real = getattr(mlflow.MlflowClient, name)

        def spy(self: Any, run_id: str, *arguments: Any, real: Any = real, **named: Any) -> Any:
            sent.append(run_id)
            return real(self, run_id, *arguments, **named)

        monkeypatch.setattr(mlflow.MlflowClient, name, spy)
    asked: list[str] = []
    second = bring(tracking, ledger, lambda trial_id, attempt: asked.append(trial_id) or rows(3))
    assert set(sent) == {first.parent_id}
    assert asked == []
    assert snapshot(tracking) == before
    assert second.run_ids == first.run_ids


@pytest.mark.slow
def test_a_writer_killed_at_any_moment_and_begun_again_leaves_what_an_undisturbed_one_does(new_store: NewStore) -> None:
    disturbed, undisturbed = new_store("disturbed"), new_store("undisturbed")
    ledger = sweep_of(map(story, trials(20)))
    code = f"""
from tests.tracking.helpers import *
from wsl_sweep.tracking import MlflowWriter, Tracking
writer = MlflowWriter(Tracking({disturbed.uri!r}, "exp"), SWEEP)
writer.start()
writer.flush(60)
print("connected", flush=True)
writer.bring_in_line(sweep_of(map(story, trials(20))), lambda trial_id, attempt: rows(3))
writer.flush(60)
print("through", flush=True)
"""
    through = []
    for seconds in (0.0, 0.1, 0.3, 0.6):
        process = subprocess.Popen([sys.executable, "-c", code], cwd=REPO, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "connected\n"
        time.sleep(seconds)
        process.kill()
        through.append("through" in process.stdout.read())
        process.wait()
    assert not through[1]
    bring(disturbed, ledger)
    bring(undisturbed, ledger)
    assert snapshot(disturbed) == snapshot(undisturbed)
    assert is_whole(snapshot(disturbed), trials(20))


def test_what_a_killed_driver_left_half_done_is_completed(tracking: Tracking) -> None:
    wanted = trials()[:4]
    whole, no_end, no_rows, _ = wanted
    ledger = sweep_of(map(story, wanted))
    killed = MlflowWriter(tracking, SWEEP)
    killed.start()
    tell(killed, [ledger[0], *story(whole)])
    tell(killed, story(no_end)[:2])
    tell(killed, story(no_rows), epochs=0)
    assert killed.flush(60)
    bring(tracking, ledger)
    assert is_whole(snapshot(tracking), wanted)


def test_a_later_end_is_written_over_an_earlier_one_with_the_same_status(tracking: Tracking) -> None:
    (one,) = trials()[:1]
    bring(tracking, sweep_of([story(one, "killed")], "stopped"), status="stopped")
    again = [event("started", one, 6000.0, attempt=2), event("killed", one, 7000.0, attempt=2)]
    bring(tracking, [*sweep_of([story(one, "killed")], "stopped"), *again], status="stopped")
    run = snapshot(tracking)[one.trial_id]
    assert (run["status"], run["times"]) == ("KILLED", (1000_000, 7000_000))


def test_a_trial_that_stands_for_more_variants_since_says_so(tracking: Tracking) -> None:
    from dataclasses import replace

    (one,) = trials()[:1]
    bring(tracking, sweep_of([story(one)]))
    more = replace(one, variants=(*one.variants, "plain"))
    bring(tracking, sweep_of([story(one), [proposed(more)]]))
    run = snapshot(tracking)[one.trial_id]
    assert run["tags"]["variants"] == "ce,plain"
    assert run["name"].startswith("ce+plain")


@pytest.mark.parametrize("failure", [OSError("gone"), ValueError("torn"), StorageError("away")])
def test_rows_that_cannot_be_read_cost_only_themselves(tracking: Tracking, failure: Exception) -> None:
    one, two = trials()[:2]

    def rows_of(trial_id: str, attempt: int) -> list[dict[str, float]]:
        if trial_id == one.trial_id:
            raise failure
        return rows(3)

    bring(tracking, sweep_of([story(one), story(two)]), rows_of)
    found = snapshot(tracking)
    assert set(found[one.trial_id]["metrics"]) == {"test/accuracy"}
    assert len(found[two.trial_id]["metrics"]["validation/accuracy"]) == 3
    assert found[one.trial_id]["status"] == "FINISHED"


def test_an_attempt_without_rows_shows_those_of_the_one_before(tracking: Tracking) -> None:
    (one,) = trials()[:1]
    events = [*story(one)[:2], event("started", one, 1500.0, attempt=2), event("killed", one, 1600.0, attempt=2)]
    bring(tracking, sweep_of([events], "stopped"), lambda trial_id, attempt: rows(2) if attempt == 1 else [], "stopped")
    assert len(snapshot(tracking)[one.trial_id]["metrics"]["validation/accuracy"]) == 2


def test_points_of_an_attempt_that_does_not_count_go(tracking: Tracking) -> None:
    (one,) = trials()[:1]
    before = MlflowWriter(tracking, SWEEP)
    before.start()
    tell(before, story(one)[:2], epochs=3)
    assert before.flush(60)
    right = [*rows(2), *rows(3, first=3, late=50.0)]
    ledger = sweep_of([[*story(one)[:2], *story(one)[1:]]])
    bring(tracking, ledger, lambda trial_id, attempt: right)
    history = snapshot(tracking)[one.trial_id]["metrics"]["validation/accuracy"]
    assert [moment for _, moment, _ in history] == [1001_250, 1002_250, 1053_250]


def test_a_sweep_that_goes_on_is_told_the_rest(tracking: Tracking) -> None:
    done, open_, new = trials()[:3]
    before = MlflowWriter(tracking, SWEEP)
    before.start()
    first = [{"event": "sweep", "time": 900.0, "status": "running"}, *story(done), *story(open_)[:2]]
    tell(before, first)
    assert before.flush(60)  # then killed
    after = MlflowWriter(tracking, SWEEP)
    after.start()
    after.bring_in_line(first, lambda trial_id, attempt: rows(2))
    after.on_event({"event": "sweep", "time": 4000.0, "status": "running"})
    after.on_event(event("started", open_, 4001.0, attempt=2))
    after.on_rows(open_.trial_id, 2, rows(3))
    after.on_event(event("finished", open_, 4002.0, attempt=2, metrics=metrics_of(3)))
    evaluated = {"event": "evaluated", "time": 3000.0, "metrics": {"test/accuracy": 0.75}}
    after.on_event({**evaluated, "trial_id": open_.trial_id})
    tell(after, [*story(new), {"event": "sweep", "time": 5000.0, "status": "finished"}])
    assert after.close("finished", 60), after.problem
    found = snapshot(tracking)
    assert is_whole(found, [done, open_, new])
    assert found[open_.trial_id]["times"] == (1000_000, 4002_000)


def test_an_evaluation_that_was_made_twice_is_one_point() -> None:
    """A damaged ledger may have forgotten the first; MLflow has not."""
    trial = trials(1)[0]
    events = [*story(trial)]
    first = {"event": "evaluated", "time": 3000.0, "trial_id": trial.trial_id, "metrics": {"test/accuracy": 0.75}}
    rows = [stories([*events, {**first, "time": when}])[trial.trial_id].test_row() for when in (3000.0, 4000.0)]
    assert rows[0] is not None
    assert rows[0] == rows[1]
