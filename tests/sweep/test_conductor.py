"""A sweep's script: teachers, search, confirm, final evaluation; what it does when something goes wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.sweep.fakes import conductor_of, good, play, spec_of
from wsl_sweep.spec.plan import Trial
from wsl_sweep.sweep.conductor import Task
from wsl_sweep.sweep.ledger import unevaluated

SEARCH = """
run: {recipe: digits}
space: {distillation.alpha: {uniform: [1.0, 4.0]}}
search: {arms: [wsl, kd], trials: 5, sampler: random}
confirm: {top: 2, seeds: 3, baselines: [kd, ce]}
"""
ABLATION = """
run: {recipe: digits}
space: {distillation.temperature: {grid: [1.0, 4.0]}}
variants: [ce, kd, wsl]
seeds: 2
"""


def test_teachers_come_first_then_search_confirm_and_one_evaluation(tmp_path: Path) -> None:
    conductor = conductor_of(spec_of(SEARCH), tmp_path)
    tasks = play(conductor)
    stages = [task.kind if task.kind != "train" else task.trials[0].stage for task in tasks]
    assert stages == ["teacher"] + ["search"] * 10 + ["confirm"] * (4 + 2) * 3 + ["evaluate"]


def test_a_teacher_that_is_there_is_not_trained(tmp_path: Path) -> None:
    tasks = play(conductor_of(spec_of(SEARCH), tmp_path, has_teacher=lambda _: True))
    assert "teacher" not in [task.kind for task in tasks]


def test_the_arms_take_turns_and_have_equally_many_trials(tmp_path: Path) -> None:
    tasks = play(conductor_of(spec_of(SEARCH), tmp_path))
    arms = [task.trials[0].arm for task in tasks if task.kind == "train" and task.trials[0].stage == "search"]
    assert arms == ["wsl", "kd"] * 5


def test_only_winners_and_baselines_are_evaluated_and_only_at_the_end(tmp_path: Path) -> None:
    """Promise 4: nothing is chosen on the test set."""
    conductor = conductor_of(spec_of(SEARCH), tmp_path)
    tasks = play(conductor)
    evaluated = [trial for task in tasks if task.kind == "evaluate" for trial in task.trials]
    assert sorted({trial.variants for trial in evaluated}) == [("ce",), ("kd",), ("kd (untuned)",), ("wsl",)]
    assert len(evaluated) == 4 * 3
    events = [event["event"] for event in conductor.ledger.events()]
    assert set(events[events.index("evaluated") :]) == {"evaluated"}
    tested = {t for t, state in conductor.state.trials.items() if "test/accuracy" in state.metrics}
    assert tested == {trial.trial_id for trial in evaluated}


def test_confirm_takes_fresh_seeds_and_the_winner_by_validation(tmp_path: Path) -> None:
    conductor = conductor_of(spec_of(SEARCH), tmp_path)
    play(conductor)
    row = next(row for row in conductor.state.rows if row["variant"] == "wsl")
    assert row["seeds"] == [1000, 1001, 1002]
    searched = [s.trial for s in conductor.state.trials.values() if s.trial.arm == "wsl" and s.trial.stage == "search"]
    nearest = min(searched, key=lambda trial: abs(trial.overrides["distillation.alpha"] - 2.0))
    assert row["overrides"] == nearest.overrides


def test_train_on_everything_ranks_first_and_trains_the_winner_again(tmp_path: Path) -> None:
    text = SEARCH.replace("baselines:", "train_on: train+validation, baselines:")
    conductor = conductor_of(spec_of(text), tmp_path)
    play(conductor)
    for row in conductor.state.rows:
        assert {conductor.state.trials[trial_id].trial.part for trial_id in row["trial_ids"]} == {"train+validation"}
    ranked = [s for s in conductor.state.trials.values() if s.trial.stage == "confirm" and s.trial.part == "train"]
    assert len(ranked) == 2 * 2 * 3
    assert not [s for s in ranked if "test/accuracy" in s.metrics]


def test_an_ablation_crosses_variants_grid_and_seeds(tmp_path: Path) -> None:
    conductor = conductor_of(spec_of(ABLATION), tmp_path)
    tasks = play(conductor)
    assert len([task for task in tasks if task.kind == "train"]) == (1 + 2 + 2) * 2
    assert [(row["variant"], row["overrides"].get("distillation.temperature")) for row in conductor.state.rows] == [
        ("ce", None), ("kd", 1.0), ("kd", 4.0), ("wsl", 1.0), ("wsl", 4.0),
    ]  # fmt: skip


def test_a_failed_trial_fails_alone(tmp_path: Path) -> None:
    def one_diverges(trial: Trial) -> dict[str, Any]:
        if trial.variants == ("kd",) and trial.seed == 1 and trial.config["distillation"]["temperature"] == 4.0:
            return {"status": "failed", "error": "train/loss became nan in epoch 3"}
        return good(trial)

    conductor = conductor_of(spec_of(ABLATION), tmp_path)
    tasks = play(conductor, one_diverges)
    statuses = [state.status for state in conductor.state.trials.values()]
    assert sorted(set(statuses)) == ["failed", "finished"]
    assert statuses.count("failed") == 1
    evaluated = [trial for task in tasks if task.kind == "evaluate" for trial in task.trials]
    assert len(evaluated) == len(statuses) - 1


def test_trials_of_a_teacher_that_failed_fail_with_its_reason_and_are_not_run(tmp_path: Path) -> None:
    conductor = conductor_of(spec_of(ABLATION), tmp_path)
    task = conductor.next()
    assert task is not None
    assert task.kind == "teacher"
    conductor.ended(task.key, {"status": "failed", "error": "the disk is full"})
    tasks = play(conductor)
    assert {task.trials[0].variants for task in tasks if task.kind == "train"} == {("ce",)}
    failed = [s for s in conductor.state.trials.values() if s.status == "failed"]
    assert len(failed) == 8
    assert all("the disk is full" in str(state.error) for state in failed)


def test_a_sweep_stopped_anywhere_ends_like_an_undisturbed_one(tmp_path: Path) -> None:
    """Promise 2, for an ablation: every trial once, the same rows."""
    whole = conductor_of(spec_of(ABLATION), tmp_path / "whole")
    play(whole)
    for stop in range(12):
        folder = tmp_path / str(stop)
        first = conductor_of(spec_of(ABLATION), folder)
        play(first, most=stop)
        first.interrupt()
        second = conductor_of(spec_of(ABLATION), folder)
        play(second)
        assert second.state.rows == whole.state.rows
        assert {t: s.metrics for t, s in second.state.trials.items()} == {
            t: s.metrics for t, s in whole.state.trials.items()
        }
        finished = [e["trial_id"] for e in second.ledger.events() if e["event"] == "finished"]
        assert len(finished) == len(set(finished))


def test_a_search_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    first = conductor_of(spec_of(SEARCH), tmp_path)
    play(first, most=6)
    first.interrupt()
    done = {t for t, s in first.state.trials.items() if s.status == "finished"}
    second = conductor_of(spec_of(SEARCH), tmp_path, has_teacher=lambda _: True)
    tasks = play(second)
    again = [task.trials[0].trial_id for task in tasks if task.kind == "train"]
    assert not done & set(again)
    searched = [s for s in second.state.trials.values() if s.trial.stage == "search"]
    assert len(searched) == 10
    assert all(state.status == "finished" for state in searched)


def test_an_interrupt_kills_what_runs_and_keeps_what_is_done(tmp_path: Path) -> None:
    conductor = conductor_of(spec_of(ABLATION), tmp_path)
    play(conductor, most=4, slots=1)
    task = conductor.next()
    assert task is not None
    conductor.started(task.key)
    conductor.interrupt()
    assert conductor.state.status == "stopped"
    assert [s.status for s in conductor.state.trials.values()] == ["finished"] * 3 + ["killed"]


def test_the_budget_ends_the_proposals_and_says_what_was_not_run(tmp_path: Path) -> None:
    conductor = conductor_of(spec_of(SEARCH + "budget: {trials: 4}\n"), tmp_path)
    tasks = play(conductor)
    assert len([task for task in tasks if task.kind == "train"]) == 4
    (note,) = [note for note in conductor.state.notes if "budget" in note]
    assert "24 trials were not run" in note


def test_a_space_that_is_used_up_is_said(tmp_path: Path) -> None:
    text = "run: {recipe: digits}\nspace: {distillation.temperature: {choice: [1.0, 2.0]}}\nsearch: {trials: 9}"
    conductor = conductor_of(spec_of(text), tmp_path)
    play(conductor)
    assert any("no more than 2 different trials" in note for note in conductor.state.notes)


def test_variants_that_are_the_same_share_their_trials(tmp_path: Path) -> None:
    text = "run: {recipe: digits}\nvariants: {a: {distillation.alpha: 2.25}, b: }\nseeds: 2"
    conductor = conductor_of(spec_of(text), tmp_path)
    tasks = play(conductor)
    assert len([task for task in tasks if task.kind == "train"]) == 2
    assert {state.trial.variants for state in conductor.state.trials.values()} == {("a", "b")}
    assert [row["variant"] for row in conductor.state.rows] == ["a", "b"]


def test_a_student_that_is_gone_is_trained_again_and_then_evaluated(tmp_path: Path) -> None:
    """``extend`` may make a winner of a candidate whose students were not kept; the others are evaluated once."""
    gone: set[str] = set()

    def unreadable(task: Task, trial: Trial) -> bool:
        first = not gone and trial.variants == ("wsl",)
        if first:
            gone.add(trial.trial_id)
        return first

    conductor = conductor_of(spec_of(ABLATION), tmp_path)
    tasks = play(conductor, unreadable=unreadable)
    (trial_id,) = gone
    attempts = [task.attempt for task in tasks if task.key == trial_id]
    assert attempts == [1, 2]
    assert [len(task.trials) for task in tasks if task.kind == "evaluate"] == [10, 1]
    assert all("test/accuracy" in state.metrics for state in conductor.state.trials.values())
    assert unevaluated(conductor.state, conductor.state.rows) == []
    assert f"the student of {trial_id} is trained again: no such file" in conductor.state.notes


def test_a_student_that_stays_unreadable_is_said_and_the_others_are_evaluated(tmp_path: Path) -> None:
    conductor = conductor_of(spec_of(ABLATION), tmp_path)
    tasks = play(conductor, unreadable=lambda task, trial: trial.variants == ("ce",))
    assert [task.kind for task in tasks].count("evaluate") == 2
    left = unevaluated(conductor.state, conductor.state.rows)
    assert {conductor.state.trials[one].trial.variants for one in left} == {("ce",)}
    assert any("the final evaluation of" in note for note in conductor.state.notes)
    again = conductor_of(spec_of(ABLATION), tmp_path)  # a later driver tries it again
    play(again)
    assert unevaluated(again.state, again.state.rows) == []
