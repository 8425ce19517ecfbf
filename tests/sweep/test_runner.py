"""What the conductor hears from Ray Tune's side, without Ray."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.sweep.fakes import conductor_of, spec_of
from wsl_sweep.analysis import build_summary
from wsl_sweep.sweep.conductor import Conductor
from wsl_sweep.sweep.runner import Hands, _TuneSearcher

SEARCH = """
run: {recipe: digits}
space: {distillation.alpha: {uniform: [1.0, 4.0]}}
search: {trials: 3, sampler: random}
scheduler: asha
"""


@dataclass
class Searched:
    """A searcher whose trial ``one`` has begun, and what it told.

    Attributes:
        rows: epochs in the order in which listeners heard of them.
        problems: what went wrong inside.
    """

    conductor: Conductor
    searcher: _TuneSearcher
    rows: list[float] = field(default_factory=list)
    problems: list[BaseException] = field(default_factory=list)

    def trial(self) -> dict[str, Any]:
        """The summary of trial ``one``."""
        found: dict[str, Any] = build_summary(self.conductor.spec, self.conductor.state, uuid="u")["trials"][0]
        return found


def begun(folder: Path) -> Searched:
    conductor = conductor_of(spec_of(SEARCH), folder, has_teacher=lambda _: True)
    rows: list[float] = []
    problems: list[BaseException] = []
    hands = Hands(rows=[lambda _, __, new: rows.extend(row["epoch"] for row in new)])
    searcher = _TuneSearcher(conductor, hands, lambda task: json.dumps(task.to_json()), lambda: 8, problems)
    assert "task" in searcher.suggest("one")
    conductor.started(searcher.keys["one"])
    return Searched(conductor, searcher, rows, problems)


def result(epoch: int, since: int, teacher: dict[str, Any] | None) -> dict[str, Any]:
    rows = [
        {"epoch": number, "timestamp": 1000.0 + number, "validation/accuracy": 0.1 * number, "train/seconds": 2.5}
        for number in range(since, epoch + 1)
    ]
    facts = {"teacher": teacher, "examples": 100 * epoch, "fingerprint": {"data": "d"}, "device": "cpu"}
    return {**rows[-1], "rows": json.dumps(rows), "facts": json.dumps(facts),
            "config/seed": 3, "info/step": 4, "done": False}  # fmt: skip


def test_a_pruned_trial_keeps_what_its_teacher_did_and_every_row_that_it_sent(tmp_path: Path) -> None:
    one = begun(tmp_path)
    one.searcher.on_trial_result("one", result(2, 1, {"computed": 64, "found": 3, "notes": []}))
    one.searcher.stop_early("one", result(4, 3, {"computed": 100, "found": 28, "notes": []}))
    assert one.problems == []
    assert one.rows == [1, 2, 3, 4]
    trial = one.trial()
    assert (trial["status"], trial["epochs"], trial["seconds"]) == ("pruned", 4, 2.5)
    assert trial["metrics"] == {"validation/accuracy": 0.4, "train/seconds": 2.5}
    assert trial["teacher"] == {"computed": 100, "found": 28}
    assert (trial["examples"], trial["fingerprint"]) == (400, {"data": "d"})
    summary = build_summary(one.conductor.spec, one.conductor.state, uuid="u")
    assert summary["teacher"] == {"computed": 100, "found": 28}


def test_a_pruned_trial_without_a_teacher_counts_for_nothing(tmp_path: Path) -> None:
    one = begun(tmp_path)
    one.searcher.stop_early("one", result(1, 1, None))
    assert one.problems == []
    assert one.trial()["teacher"] is None
    assert build_summary(one.conductor.spec, one.conductor.state, uuid="u")["teacher"] == {"computed": 0, "found": 0}


def test_what_a_pruned_trial_still_sends_is_not_heard(tmp_path: Path) -> None:
    one = begun(tmp_path)
    one.searcher.stop_early("one", result(1, 1, {"computed": 5, "found": 0, "notes": []}))
    one.searcher.on_trial_result("one", result(2, 2, {"computed": 9, "found": 0, "notes": []}))
    one.searcher.on_trial_complete("one", result(2, 2, None))
    assert one.problems == []
    assert one.rows == [1]
    assert (one.trial()["status"], one.trial()["teacher"]) == ("pruned", {"computed": 5, "found": 0})


def test_a_note_of_many_trials_about_the_bank_stands_once_in_the_summary(tmp_path: Path) -> None:
    one = begun(tmp_path)
    full = {"computed": 5, "found": 0, "notes": ["the bank is full"]}
    one.searcher.stop_early("one", result(1, 1, full))
    one.searcher.suggest("two")
    one.conductor.started(one.searcher.keys["two"])
    outcome = {"status": "finished", "epochs": 1, "metrics": {}, "seconds": 1.0, "teacher": full}
    one.searcher.on_trial_result("two", {"outcome": json.dumps(outcome)})
    assert one.problems == []
    summary = build_summary(one.conductor.spec, one.conductor.state, uuid="u")
    assert summary["notes"].count("the bank is full") == 1
    assert summary["teacher"] == {"computed": 10, "found": 0}


@pytest.mark.parametrize("left_attempt", [0, 1])
def test_a_worker_that_died_after_its_last_word_has_finished(tmp_path: Path, left_attempt: int) -> None:
    """Its driver reads the word where it was left; without one the trial goes on as its next attempt."""
    one = begun(tmp_path)
    epochs = one.conductor.spec.most_epochs()
    word = {"status": "finished", "epochs": epochs, "metrics": {"validation/accuracy": 0.5}, "seconds": 1.0}
    one.searcher.left = lambda state: (left_attempt, word if left_attempt else None)
    one.searcher.rows_of = lambda trial_id, attempt: [{"epoch": 1.0, "timestamp": 5.0}]
    one.searcher.lost("one", "its worker died")
    assert one.problems == []
    (state,) = one.conductor.state.trials.values()
    assert (state.status, state.losses) == (("finished", 0) if left_attempt else ("lost", 1))
    assert one.rows == ([1.0] if left_attempt else [])
