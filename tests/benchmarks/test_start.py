"""From a ledger to what a warm start costs."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.start import Ended, cycles, from_ledger, in_slots, proposed_before, search_space, workers_of
from tests.sweep.fakes import spec_of
from wsl_sweep.spec.plan import make_plan
from wsl_sweep.sweep.ledger import Ledger


def test_the_time_between_two_trials_is_what_the_second_did_not_use() -> None:
    ended = [Ended("a", 10.0, 9.0), Ended("b", 10.5, 9.0), Ended("a", 12.0, 1.5), Ended("b", 13.5, 2.9)]
    found = cycles(reversed(ended))  # in any order
    assert [one.wall for one in found] == pytest.approx([2.0, 3.0])
    assert [one.inside for one in found] == pytest.approx([1.5, 2.9])
    assert [one.between for one in found] == pytest.approx([0.5, 0.1])


def test_a_workers_first_trial_is_left_out() -> None:
    assert cycles([Ended("a", 10.0, 9.0), Ended("b", 11.0, 1.0)]) == []


def test_a_made_up_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(tmp_path / "ledger")
    story = [
        (0.0, "proposed", "t1", {}),
        (1.0, "started", "t1", {}),
        (5.0, "finished", "t1", {"seconds": 0.5}),
        (5.1, "proposed", "t2", {}),
        (5.2, "started", "t2", {}),
        (6.0, "finished", "t2", {"seconds": 0.7}),
        (6.1, "proposed", "t3", {}),
        (6.4, "started", "t3", {}),
        (7.0, "failed", "t3", {"seconds": 0.1}),
        (9.0, "evaluated", "t1", {"metrics": {}}),
    ]
    for when, event, trial, fields in story:
        monkeypatch.setattr("wsl_sweep.sweep.ledger.time.time", lambda when=when: when)
        about = {"trial": {"trial_id": trial}} if event == "proposed" else {"trial_id": trial, **fields}
        ledger.append(event, **about)
    for trial in ("t1", "t2", "t3"):
        log = tmp_path / "trials" / trial / "log.txt"
        log.parent.mkdir(parents=True)
        log.write_text(f"trial {trial}, attempt 1: ablation ce, process 77 on somewhere\n")
    workers = workers_of(tmp_path)
    assert workers == {"t1": "77", "t2": "77", "t3": "77"}
    events = ledger.events()
    (cycle,) = cycles(from_ledger(events, workers))
    assert (cycle.wall, cycle.between) == pytest.approx((1.0, 0.3))
    assert proposed_before(events) == pytest.approx([0.1, 0.3])


def test_the_scripts_trials_follow_each_other_in_slots() -> None:
    found = [{"ended": float(end), "seconds": 0.5} for end in (9, 4, 5, 8)]
    assert [(one.worker, one.time) for one in in_slots(found)] == [("0", 4), ("1", 5), ("0", 8), ("1", 9)]
    assert [one.wall for one in cycles(in_slots(found))] == pytest.approx([4.0, 4.0])


def test_the_file_asks_for_empty_trials_without_a_teacher() -> None:
    plan = make_plan(spec_of(search_space(5)))
    assert dict(plan.stages) == {"ablation": 5}
    assert not plan.teachers
    assert plan.examples["ablation"].epochs == 1
