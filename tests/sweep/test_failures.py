"""Deaths, budgets and resumption, as the conductor sees them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.sweep.fakes import conductor_of, good, outcome_of, play, spec_of
from wsl_sweep.app.syncing import left_by_workers
from wsl_sweep.spec.plan import Trial
from wsl_sweep.storage import place
from wsl_sweep.sweep import conductor as conductor_module
from wsl_sweep.sweep.conductor import Conductor, Task
from wsl_sweep.sweep.ledger import Ledger

PAIR = "run: {recipe: digits}\nvariants: [kd]\nseeds: 2\n"
SEARCH = """
run: {recipe: digits}
space: {distillation.alpha: {uniform: [1.0, 4.0]}}
search: {arms: [wsl, kd], trials: 6, sampler: SAMPLER}
"""
DIED = "its worker process died"


def there(_: str) -> bool:
    return True


def begun(conductor: Conductor) -> Task:
    task = conductor.next()
    assert task is not None
    conductor.started(task.key)
    return task


# --- a worker dies ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [0, 1, 3])
def test_a_lost_trial_goes_on_as_the_next_attempt_and_at_last_fails(tmp_path: Path, most: int) -> None:
    conductor = conductor_of(spec_of(PAIR + f"resources: {{max_failures: {most}}}\n"), tmp_path, has_teacher=there)
    attempts = []
    for _ in range(most + 1):
        task = begun(conductor)
        attempts.append((task.key, task.attempt))
        conductor.lost(task.key, DIED)
    key = attempts[0][0]
    assert attempts == [(key, number) for number in range(1, most + 2)]
    state = conductor.state.trials[key]
    assert state.status == "failed"
    assert DIED in str(state.error)
    assert f"resources.max_failures is {most}" in str(state.error)
    assert begun(conductor).key != key  # the others go on


def test_a_lost_trial_that_finishes_at_last_is_finished_once(tmp_path: Path) -> None:
    conductor = conductor_of(spec_of(PAIR), tmp_path, has_teacher=there)
    first = begun(conductor)
    conductor.lost(first.key, DIED)
    assert conductor.state.trials[first.key].status == "lost"
    conductor.ended(first.key, good(first.trials[0]))  # a zombie: nobody waits for it
    assert conductor.state.trials[first.key].status == "lost"
    play(conductor)
    state = conductor.state.trials[first.key]
    assert (state.status, state.attempt, state.error, state.losses) == ("finished", 2, None, 1)


def test_losses_are_counted_over_drivers(tmp_path: Path) -> None:
    spec = spec_of(PAIR + "resources: {max_failures: 1}\n")
    first = conductor_of(spec, tmp_path, has_teacher=there)
    key = begun(first).key
    first.lost(key, DIED)
    second = conductor_of(spec, tmp_path, has_teacher=there)  # the driver itself died then
    task = begun(second)
    assert (task.key, task.attempt) == (key, 2)
    second.lost(key, DIED)
    assert second.state.trials[key].status == "failed"


def test_a_lost_teacher_is_tried_again_and_at_last_fails_its_trials(tmp_path: Path) -> None:
    conductor = conductor_of(spec_of(PAIR + "resources: {max_failures: 2}\n"), tmp_path)
    for attempt in (1, 2, 3):
        task = begun(conductor)
        assert (task.kind, task.attempt) == ("teacher", attempt)
        conductor.lost(task.key, DIED)
    assert conductor.next() is None or conductor.finished
    while not conductor.finished:
        assert conductor.next() is None
    assert {state.status for state in conductor.state.trials.values()} == {"failed"}
    assert all(DIED in str(state.error) for state in conductor.state.trials.values())


def test_a_lost_evaluation_is_tried_again_and_at_last_said(tmp_path: Path) -> None:
    conductor = conductor_of(spec_of(PAIR + "resources: {max_failures: 1}\n"), tmp_path, has_teacher=there)
    play(conductor, most=2, slots=1)
    for attempt in (1, 2):
        task = begun(conductor)
        assert (task.kind, task.attempt) == ("evaluate", attempt)
        conductor.lost(task.key, DIED)
    while not conductor.finished:
        assert conductor.next() is None
    assert any("the final evaluation failed" in note and DIED in note for note in conductor.state.notes)


# --- memory, storage, stops ------------------------------------------------------------------------------------------


def test_a_gpu_that_is_too_small_gives_one_more_attempt_with_the_whole_card(tmp_path: Path) -> None:
    conductor = conductor_of(spec_of(PAIR + "resources: {gpu: 0.25}\n"), tmp_path, has_teacher=there)
    small = {"status": "out_of_memory", "error": "OutOfMemoryError: CUDA out of memory"}
    first = begun(conductor)
    conductor.ended(first.key, small)
    assert not first.whole_card
    assert conductor.state.trials[first.key].losses == 0
    again = begun(conductor)
    assert (again.key, again.attempt, again.whole_card) == (first.key, 2, True)
    conductor.ended(again.key, small)
    state = conductor.state.trials[first.key]
    assert state.status == "failed"
    assert "CUDA out of memory" in str(state.error)
    assert begun(conductor).key != first.key


def test_after_a_resume_it_still_has_the_whole_card(tmp_path: Path) -> None:
    first = conductor_of(spec_of(PAIR), tmp_path, has_teacher=there)
    key = begun(first).key
    first.ended(key, {"status": "out_of_memory", "error": "CUDA out of memory"})
    second = conductor_of(spec_of(PAIR), tmp_path, has_teacher=there)
    task = begun(second)
    assert (task.key, task.attempt, task.whole_card) == (key, 2, True)


def test_where_the_storage_is_gone_the_sweep_stops_and_can_go_on(tmp_path: Path) -> None:
    conductor = conductor_of(spec_of(PAIR), tmp_path, has_teacher=there)
    one, two = begun(conductor), begun(conductor)
    conductor.ended(one.key, {"status": "gone", "error": "cannot write x: No space left on device"})
    assert conductor.halted == "cannot write x: No space left on device"
    assert conductor.next() is None
    conductor.interrupt()
    assert conductor.state.status == "stopped"
    assert {state.status for state in conductor.state.trials.values()} == {"killed"}
    assert "No space left" in str(conductor.state.trials[two.key].error)
    again = conductor_of(spec_of(PAIR), tmp_path, has_teacher=there)
    tasks = play(again)
    assert [(task.key, task.attempt) for task in tasks if task.kind == "train"] == [(one.key, 2), (two.key, 2)]
    assert {state.status for state in again.state.trials.values()} == {"finished"}


def test_after_a_stop_nothing_new_begins(tmp_path: Path) -> None:
    conductor = conductor_of(spec_of(PAIR), tmp_path, has_teacher=there)
    task = begun(conductor)
    conductor.stop("the sweep was stopped by SIGTERM")
    conductor.stop("another reason")
    assert conductor.next() is None
    assert not conductor.finished
    conductor.ended(task.key, good(task.trials[0]))  # what ends by itself meanwhile counts
    conductor.interrupt()
    assert [state.status for state in conductor.state.trials.values()] == ["finished"]
    assert conductor.stopping == "the sweep was stopped by SIGTERM"


def test_a_lost_trial_that_waits_is_killed_by_a_stop_and_goes_on_later(tmp_path: Path) -> None:
    conductor = conductor_of(spec_of(PAIR), tmp_path, has_teacher=there)
    key = begun(conductor).key
    conductor.lost(key, DIED)
    conductor.stop("stopped")
    conductor.interrupt()
    assert conductor.state.trials[key].status == "killed"
    task = begun(conductor_of(spec_of(PAIR), tmp_path, has_teacher=there))
    assert (task.key, task.attempt) == (key, 2)


def test_a_trial_that_the_user_stopped_is_not_run_again(tmp_path: Path) -> None:
    conductor = conductor_of(spec_of(PAIR), tmp_path, has_teacher=there)
    one, two = begun(conductor), begun(conductor)
    conductor.unwanted.add(one.key)
    for task in (one, two):
        conductor.ended(task.key, {"status": "killed", "error": "stopped"})
    conductor.interrupt()
    again = conductor_of(spec_of(PAIR), tmp_path, has_teacher=there)
    assert [task.key for task in play(again) if task.kind == "train"] == [two.key]
    assert again.state.trials[one.key].status == "killed"


# --- what workers left -----------------------------------------------------------------------------------------------


def orphaned(folder: Path, attempt: int, outcome: object, *, student: bool = True) -> Trial:
    """A sweep whose driver died while a trial ran as attempt 1; its worker left something as ``attempt``."""
    task = begun(conductor_of(spec_of(PAIR), folder, has_teacher=there))
    trial = folder / "trials" / task.key
    (trial / f"attempt-{attempt}").mkdir(parents=True)
    if student:
        (trial / "student.safetensors").write_bytes(b"")
    content = outcome if isinstance(outcome, bytes) else json.dumps(outcome).encode()
    (trial / f"attempt-{attempt}" / "outcome.json").write_bytes(content)
    return task.trials[0]


def taken_in(folder: Path) -> Conductor:
    conductor = conductor_of(spec_of(PAIR), folder, has_teacher=there)
    conductor.take_in(left_by_workers(place(folder)))
    return conductor


WORD = {"status": "finished", "epochs": 40, "metrics": {"validation/accuracy": 0.7}, "seconds": 3.0, "attempt": 1}


def test_what_a_worker_finished_without_its_driver_is_taken_in(tmp_path: Path) -> None:
    trial = orphaned(tmp_path, 1, WORD | {"examples": 40 * 1005})
    conductor = taken_in(tmp_path)
    state = conductor.state.trials[trial.trial_id]
    assert (state.status, state.metrics, state.attempt) == ("finished", WORD["metrics"], 1)
    assert state.facts["examples"] == 40 * 1005
    assert trial.trial_id not in [task.key for task in play(conductor)]
    assert (
        conductor_of(spec_of(PAIR), tmp_path).state.trials[trial.trial_id].status == "finished"
    )  # it is in the ledger


def test_a_failure_is_taken_in_with_its_reason(tmp_path: Path) -> None:
    trial = orphaned(tmp_path, 1, {"status": "failed", "error": "train/loss became nan"}, student=False)
    state = taken_in(tmp_path).state.trials[trial.trial_id]
    assert (state.status, state.error) == ("failed", "train/loss became nan")


@pytest.mark.parametrize(
    "outcome",
    [
        b"", b'{"status": "fin', b"\xff\xfe", [], "finished", {}, {"status": "killed"}, {"status": ["finished"]},
        {**WORD, "metrics": 3}, {**WORD, "metrics": {"validation/accuracy": "good"}}, {**WORD, "epochs": 39},
        {**WORD, "epochs": None},
    ],
)  # fmt: skip
def test_a_torn_or_foreign_outcome_is_no_last_word(tmp_path: Path, outcome: object) -> None:
    trial = orphaned(tmp_path, 1, outcome)
    conductor = taken_in(tmp_path)
    assert not conductor.state.trials[trial.trial_id].settled
    assert next((task.key, task.attempt) for task in play(conductor)) == (trial.trial_id, 2)


@pytest.mark.parametrize(
    "more",
    [
        {"metrics": {"validation/accuracy": float("nan")}}, {"seconds": "three"}, {"seconds": float("inf")},
        {"examples": "many"}, {"examples": True}, {"teacher": "convnet"}, {"trial_id": "other"}, {"event": "note"},
        {"fingerprint": float("nan")},
    ],
)  # fmt: skip
def test_an_outcome_that_only_half_makes_sense_does_not_end_the_driver(tmp_path: Path, more: dict[str, Any]) -> None:
    trial = orphaned(tmp_path, 1, {**WORD, **more})
    conductor = taken_in(tmp_path)
    play(conductor)
    assert conductor.state.trials[trial.trial_id].status == "finished"
    assert "examples" not in conductor.state.trials[trial.trial_id].facts


def test_a_finished_trial_without_its_student_is_run_again(tmp_path: Path) -> None:
    trial = orphaned(tmp_path, 1, WORD, student=False)
    assert not taken_in(tmp_path).state.trials[trial.trial_id].settled


def test_an_attempt_on_disk_that_the_ledger_does_not_know_is_not_begun_twice(tmp_path: Path) -> None:
    trial = orphaned(tmp_path, 4, b"torn")
    conductor = taken_in(tmp_path)
    assert next((task.key, task.attempt) for task in play(conductor)) == (trial.trial_id, 5)


def test_the_word_of_an_attempt_older_than_the_ledgers_is_left_aside(tmp_path: Path) -> None:
    trial = orphaned(tmp_path, 1, WORD)
    Ledger(tmp_path / "ledger").append("started", trial_id=trial.trial_id, attempt=2)
    assert not taken_in(tmp_path).state.trials[trial.trial_id].settled


def test_a_trial_of_which_the_ledger_knows_nothing_is_taken_up(tmp_path: Path) -> None:
    whole = conductor_of(spec_of(PAIR), tmp_path / "whole", has_teacher=there)
    trial = begun(whole).trials[0]
    conductor = conductor_of(spec_of(PAIR), tmp_path, has_teacher=there)
    conductor.take_up(trial)
    conductor.take_up(trial)
    assert [event["event"] for event in conductor.ledger.events()] == ["proposed"]
    conductor.take_in(lambda state: (1, {**WORD}))
    assert conductor.state.trials[trial.trial_id].status == "finished"
    assert trial.trial_id not in [task.key for task in play(conductor)]


# --- Optuna hears the same again -------------------------------------------------------------------------------------


def some_end_early(trial: Trial) -> dict[str, Any]:
    chance = int(trial.trial_id, 16) % 4
    if chance == 0:
        return {**good(trial), "status": "pruned", "epochs": 3}
    return {"status": "failed", "error": "why", "seconds": 1.0} if chance == 1 else good(trial)


def told(conductor: Conductor) -> dict[str, list[tuple[Any, ...]]]:
    return {
        arm: [(t.state, t.params, t.intermediate_values) for t in study.study.trials]
        for arm, study in conductor._studies.items()
    }


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_resumed_study_has_heard_what_an_undisturbed_one_has(tmp_path: Path, sampler: str) -> None:
    spec = spec_of(SEARCH.replace("SAMPLER", sampler))
    first = conductor_of(spec, tmp_path, has_teacher=there)
    play(first, some_end_early, slots=1, most=9)
    ids = list(first.state.trials)
    heard = told(first)
    values = {arm: [t.values for t in s.study.trials if t.values] for arm, s in first._studies.items()}
    running = begun(first)  # and then the driver dies
    second = conductor_of(spec, tmp_path, has_teacher=there)
    task = begun(second)
    assert (task.key, task.attempt, dict(task.trials[0].overrides)) == (
        running.key, 2, dict(running.trials[0].overrides),
    )  # fmt: skip
    assert list(second.state.trials) == [*ids, running.key]
    again = told(second)
    arm = str(running.trials[0].arm)
    assert again[arm][-1][1] == dict(running.trials[0].overrides)
    assert {name: trials[:-1] if name == arm else trials for name, trials in again.items()} == heard
    finished = {
        name: [t.values for t in s.study.trials if t.values and t.state.name == "COMPLETE"]
        for name, s in second._studies.items()
    }
    assert finished == {
        name: [v for v, t in zip(values[name], [t for t in s.study.trials if t.values], strict=True)
               if t.state.name == "COMPLETE"]
        for name, s in first._studies.items()
    }  # fmt: skip
    second.ended(task.key, good(task.trials[0]))
    play(second, some_end_early)
    assert len([s for s in second.state.trials.values() if s.trial.stage == "search"]) == 12


# --- budgets ----------------------------------------------------------------------------------------------------------


class Clock:
    """Stands in for the conductor's ``time``."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    from wsl_sweep.sweep import ledger as ledger_module

    clock = Clock()
    monkeypatch.setattr(conductor_module, "time", clock)
    monkeypatch.setattr(ledger_module, "time", clock)
    return clock


FIVE = "run: {recipe: digits}\nvariants: [ce]\nseeds: 5\n"


def a_trial(conductor: Conductor, clock: Clock, hours: float) -> bool:
    """Runs one more, if there is one."""
    task = conductor.next()
    if task is None or task.kind != "train":
        return False
    conductor.started(task.key)
    clock.now += hours * 3600
    conductor.ended(task.key, {**outcome_of(task), "seconds": hours * 3600})
    return True


def budget_note(conductor: Conductor) -> str:
    (note,) = [note for note in conductor.state.notes if "budget" in note]
    return note


def test_hours_are_counted_over_drivers_and_not_between_them(tmp_path: Path, clock: Clock) -> None:
    spec = spec_of(FIVE + "budget: {hours: 3}\n")
    first = conductor_of(spec, tmp_path)
    assert a_trial(first, clock, 1.0)
    assert a_trial(first, clock, 1.0)
    first.interrupt()
    clock.now += 100 * 3600
    second = conductor_of(spec, tmp_path)
    assert a_trial(second, clock, 1.0)
    assert not a_trial(second, clock, 1.0)
    assert budget_note(second) == "the budget of 3 hours is used up; 2 trials were not run"


def test_gpu_hours_of_running_trials_count(tmp_path: Path, clock: Clock) -> None:
    conductor = conductor_of(spec_of(FIVE + "resources: {gpu: 0.5}\nbudget: {gpu_hours: 2}\n"), tmp_path)
    assert a_trial(conductor, clock, 2.0)
    begun(conductor)
    clock.now += 1.9 * 3600
    begun(conductor)
    clock.now += 0.1 * 3600
    assert conductor.next() is None
    assert "2 gpu_hours is used up; 2 trials were not run" in budget_note(conductor)


def test_gpu_hours_are_counted_over_drivers(tmp_path: Path, clock: Clock) -> None:
    spec = spec_of(FIVE + "resources: {gpu: 1}\nbudget: {gpu_hours: 2}\n")
    first = conductor_of(spec, tmp_path)
    assert a_trial(first, clock, 1.0)
    first.interrupt()
    second = conductor_of(spec, tmp_path)
    assert a_trial(second, clock, 1.0)
    assert not a_trial(second, clock, 1.0)
    assert "3 trials were not run" in budget_note(second)


def test_gpu_hours_of_an_attempt_that_was_lost_or_killed_count(tmp_path: Path, clock: Clock) -> None:
    spec = spec_of(FIVE + "resources: {gpu: 1}\nbudget: {gpu_hours: 2}\n")
    first = conductor_of(spec, tmp_path)
    task = begun(first)
    clock.now += 2 * 3600
    first.lost(task.key, DIED)
    first.stop("stopped")
    first.interrupt()
    second = conductor_of(spec, tmp_path)
    assert not a_trial(second, clock, 1.0)


def test_the_trials_of_a_budget_are_those_of_all_drivers(tmp_path: Path, clock: Clock) -> None:
    spec = spec_of(FIVE + "budget: {trials: 3}\n")
    first = conductor_of(spec, tmp_path)
    assert a_trial(first, clock, 1.0)
    first.interrupt()
    second = conductor_of(spec, tmp_path)
    assert [a_trial(second, clock, 1.0) for _ in range(3)] == [True, True, False]
    assert budget_note(second) == "the budget of 3 trials is used up; 2 trials were not run"


# --- what travels, and where ---------------------------------------------------------------------------------------


def test_what_other_sweeps_have_travels_with_the_task_and_with_its_next_attempt(tmp_path: Path) -> None:
    asked: list[str] = []

    def elsewhere(trial_id: str) -> list[dict[str, Any]]:
        asked.append(trial_id)
        return [{"sweep": "other", "folder": "f", "attempt": 1, "outcome": {}, "student": True}]

    conductor = conductor_of(spec_of(PAIR), tmp_path, has_teacher=there, elsewhere=elsewhere)
    task = begun(conductor)
    assert asked == [task.key]
    assert task.to_json()["elsewhere"] == elsewhere("")
    conductor.lost(task.key, DIED)
    assert begun(conductor).elsewhere == task.elsewhere


def _kinds(**kinds: float) -> dict[str, float]:
    return kinds


@pytest.mark.parametrize("settle", [lambda c: c.settle_accelerator(_kinds(T4=2, A100=8))])
def test_the_kind_of_card_is_settled_once(tmp_path: Path, settle: Callable[[Conductor], None]) -> None:
    conductor = conductor_of(spec_of(PAIR), tmp_path, has_teacher=there)
    settle(conductor)
    assert conductor.state.accelerator == "A100"
    assert any("A100" in note and "T4" in note for note in conductor.state.notes)
    assert conductor.accelerator_of(begun(conductor)) == "A100"
    again = conductor_of(spec_of(PAIR), tmp_path, has_teacher=there)
    again.settle_accelerator(_kinds(T4=50, A100=1))
    assert again.accelerator_of(begun(again)) == "A100"


def test_a_search_runs_on_every_kind_and_a_file_that_names_one_on_that(tmp_path: Path) -> None:
    searching = conductor_of(spec_of(SEARCH.replace("SAMPLER", "random")), tmp_path / "a", has_teacher=there)
    searching.settle_accelerator(_kinds(T4=2, A100=8))
    assert searching.accelerator_of(begun(searching)) is None
    named = conductor_of(spec_of(PAIR + "resources: {accelerator: T4}\n"), tmp_path / "b")
    named.settle_accelerator(_kinds(T4=2, A100=8))
    assert named.state.accelerator is None
    assert named.accelerator_of(begun(named)) == "T4"
    single = conductor_of(spec_of(PAIR), tmp_path / "c", has_teacher=there)
    single.settle_accelerator(_kinds(A100=8))
    assert single.accelerator_of(begun(single)) is None


def test_a_budget_of_trials_lets_the_interrupted_ones_end(tmp_path: Path) -> None:
    """They are among those that the budget counts."""
    spec = spec_of(PAIR.replace("[kd]", "[kd, ce]") + "budget: {trials: 2}\n")
    first = conductor_of(spec, tmp_path, has_teacher=there)
    one, two = begun(first), begun(first)
    first.interrupt()
    second = conductor_of(spec, tmp_path, has_teacher=there)
    play(second)
    assert {second.state.trials[task.key].status for task in (one, two)} == {"finished"}
    assert len(second.state.trials) == 2


def test_a_teacher_that_is_being_trained_is_waited_for_at_a_stop(tmp_path: Path) -> None:
    conductor = conductor_of(spec_of(PAIR), tmp_path)
    task = conductor.next()
    assert task is not None
    assert task.kind == "teacher"
    assert not conductor.training
    conductor.started(task.key)
    assert conductor.training
    conductor.ended(task.key, {"status": "killed"})
    assert not conductor.training
