"""How often trials report, and at which epochs a scheduler decides."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

from wsl_sweep.spec.sections import SchedulerSection
from wsl_sweep.sweep.runner import UNHURRIED, report_seconds
from wsl_sweep.sweep.schedulers import ArmScheduler, build_scheduler, rung_epochs


@pytest.mark.parametrize("slots", [1, 2, 16, 1_000, 10_000])
@pytest.mark.parametrize("scheduled", [False, True])
def test_all_trials_together_report_at_most_fifty_times_a_second(slots: int, scheduled: bool) -> None:
    seconds = report_seconds(scheduled, slots)
    assert slots / seconds <= 50
    if not scheduled:
        assert seconds >= UNHURRIED


def test_a_scheduled_trial_reports_more_often_than_one_that_nobody_waits_for() -> None:
    assert report_seconds(True, 1) < report_seconds(False, 1)
    assert report_seconds(True, 10_000) == report_seconds(False, 10_000)


@pytest.mark.parametrize("name", ["asha", "hyperband"])
@pytest.mark.parametrize("epochs", [1, 2, 3, 9, 10, 26, 27, 28, 40, 81, 240])
@pytest.mark.parametrize(("grace", "factor"), [(1, 2), (1, 3), (1, 4), (2, 3), (5, 2), (10, 3), (300, 3)])
def test_rungs_are_the_epochs_at_which_ray_decides(name: str, epochs: int, grace: int, factor: int) -> None:
    """The last epoch is not among them: it comes with the outcome, and nothing is left to stop."""
    section = SchedulerSection(name=name, grace_epochs=grace, reduction_factor=factor)
    scheduler = build_scheduler(section, "validation/accuracy", "max", epochs)
    assert isinstance(scheduler, AsyncHyperBandScheduler)
    decides = {rung for bracket in scheduler._brackets for rung, _ in bracket._rungs}
    assert rung_epochs(section, epochs) == sorted(rung for rung in decides if rung < epochs)


@pytest.mark.parametrize("name", ["none", "median"])
def test_without_rungs_there_are_none(name: str) -> None:
    assert rung_epochs(SchedulerSection(name=name), 40) == []


# --- reports of several epochs ---------------------------------------------------------------------

METRIC = "validation/accuracy"
EPOCHS = 12


class RayTrial:
    """One of Ray's trials: an attempt at one of ours."""

    def __init__(self, number: int, attempt: int = 1) -> None:
        self.trial_id, self.key = f"ray {number}-{attempt}", f"trial {number}"


class Arm:
    """One arm's scheduler, behind the reports of its trials."""

    def __init__(self, name: str) -> None:
        self.section = SchedulerSection(name=name, grace_epochs=1, reduction_factor=2)
        self.stopped: list[Any] = []
        self.all = ArmScheduler(
            lambda: build_scheduler(self.section, METRIC, "max", EPOCHS),
            lambda trial: "arm",
            lambda trial: trial.key,
            lambda trial, result: self.stopped.append(trial),
        )

    def add(self, trial: Any) -> None:
        self.all.on_trial_add(None, trial)

    def hear(self, trial: Any, first: int, values: list[float], **more: Any) -> str:
        """A report of the epochs from ``first`` on."""
        rows = [{"epoch": first + place, METRIC: value} for place, value in enumerate(values)]
        return self.all.on_trial_result(None, trial, {**rows[-1], "rows": json.dumps(rows), **more})


def arm_of_three() -> Arm:
    """An arm whose median is 0.5 at every epoch."""
    arm = Arm("median")
    for number in range(3):
        assert arm.hear(RayTrial(number), 1, [0.5] * EPOCHS) == TrialScheduler.CONTINUE
    return arm


def test_a_good_epoch_in_the_middle_of_a_report_counts() -> None:
    arm, trial = arm_of_three(), RayTrial(9)
    assert arm.hear(trial, 1, [0.6, 0.9, 0.1]) == TrialScheduler.CONTINUE
    assert arm.hear(trial, 4, [0.1]) == TrialScheduler.CONTINUE
    assert arm.stopped == []


def test_a_bad_epoch_in_the_middle_of_a_report_ends_a_trial() -> None:
    """Whoever had heard of it at once had stopped the trial then; what it did afterwards is not looked at."""
    arm, trial = arm_of_three(), RayTrial(9)
    assert arm.hear(trial, 1, [0.1, 0.1, 0.9]) == TrialScheduler.STOP
    assert arm.stopped == [trial]


@pytest.mark.parametrize("values", [[0.1], [0.1, 0.1], [0.9, 0.1]])
def test_a_report_with_an_outcome_stops_nothing(values: list[float]) -> None:
    arm = arm_of_three()
    assert arm.hear(RayTrial(9), 1, values, outcome="{}") == TrialScheduler.CONTINUE
    assert arm.stopped == []


def test_a_report_without_rows_stops_nothing() -> None:
    arm = arm_of_three()
    assert arm.all.on_trial_result(None, RayTrial(9), {"outcome": "{}"}) == TrialScheduler.CONTINUE


@pytest.mark.parametrize("name", ["median", "asha", "hyperband"])
@pytest.mark.parametrize("seed", range(5))
def test_decisions_are_those_of_a_scheduler_that_hears_of_every_epoch(name: str, seed: int) -> None:
    chance = random.Random(seed)
    slow, quick = Arm(name), Arm(name)
    running = {RayTrial(number): 1 for number in range(10)}
    curves = {trial: [chance.random() for _ in range(EPOCHS)] for trial in running}
    for place, arm in enumerate((slow, quick)):
        np.random.seed(place)  # a trial's bracket is drawn by its id, whatever the process drew before
        for trial in running:
            arm.add(trial)
    decided = 0
    while running:
        trial = chance.choice(list(running))
        first = running[trial]
        last = min(EPOCHS, first + chance.randrange(4))
        values = curves[trial][first - 1 : last]
        wanted = str(TrialScheduler.CONTINUE)
        for place, value in enumerate(values):
            wanted = quick.hear(trial, first + place, [value])
            if wanted == TrialScheduler.STOP:
                break
        assert slow.hear(trial, first, values) == wanted
        decided += wanted == TrialScheduler.STOP
        running[trial] = last + 1
        if last == EPOCHS or wanted == TrialScheduler.STOP:
            del running[trial]
    assert decided > 0
    assert slow.stopped == quick.stopped


# --- another driver, another attempt -----------------------------------------------------------------


@pytest.mark.parametrize("name", ["median", "asha", "hyperband"])
@pytest.mark.parametrize("seed", range(5))
def test_a_scheduler_that_is_told_again_decides_as_one_that_was_never_gone(name: str, seed: int) -> None:
    chance = random.Random(seed)
    curves = [[chance.random() for _ in range(EPOCHS)] for _ in range(14)]
    stops: dict[int, int] = {}
    whole = Arm(name)
    for number in range(8):  # before the driver died
        trial = RayTrial(number)
        whole.add(trial)
        for epoch in range(1, EPOCHS + 1):
            if whole.hear(trial, epoch, [curves[number][epoch - 1]]) == TrialScheduler.STOP:
                stops[number] = epoch
                break
    again = Arm(name)
    np.random.seed(seed)
    rows = {
        f"trial {number}": [
            {"epoch": e, METRIC: curves[number][e - 1], "timestamp": number * EPOCHS + e}
            for e in range(1, stops.get(number, EPOCHS) + 1)
        ]
        for number in range(8)
    }
    again.all.recall("arm", dict(reversed(rows.items())))  # their times tell the order
    assert again.stopped == []  # what is decided again was acted upon then
    decisions: list[list[tuple[int, int, str]]] = [[], []]
    for decided, arm in zip(decisions, (whole, again), strict=True):
        for number in range(8, 14):
            trial = RayTrial(number)
            arm.add(trial)
            for epoch in range(1, EPOCHS + 1):
                word = arm.hear(trial, epoch, [curves[number][epoch - 1]])
                decided.append((number, epoch, word))
                if word == TrialScheduler.STOP:
                    break
    assert decisions[0] == decisions[1]
    assert any(word == TrialScheduler.STOP for _, _, word in decisions[0])


def _recorded(arm: Arm) -> list[dict[Any, float]]:
    scheduler = arm.all._of_arm("arm")
    assert isinstance(scheduler, AsyncHyperBandScheduler)
    return [dict(recorded) for bracket in scheduler._brackets for _, recorded in bracket._rungs]


def test_rows_that_another_attempt_repeats_are_not_heard_twice() -> None:
    arm, first, second = Arm("asha"), RayTrial(1), RayTrial(1, attempt=2)
    arm.add(first)
    assert arm.hear(first, 1, [0.5, 0.6]) == TrialScheduler.CONTINUE
    before = _recorded(arm)
    arm.all.on_trial_error(None, first)
    arm.add(second)
    assert arm.hear(second, 1, [0.1, 0.1]) == TrialScheduler.CONTINUE  # epochs that were heard of
    assert _recorded(arm) == before
    assert arm.hear(second, 3, [0.7, 0.8]) == TrialScheduler.CONTINUE
    assert _recorded(arm) != before
    assert {key for rung in _recorded(arm) for key in rung} == {"trial 1"}


def test_no_arm_hears_of_another_arms_trials() -> None:
    section = SchedulerSection(name="asha", grace_epochs=1, reduction_factor=2)
    both = ArmScheduler(
        lambda: build_scheduler(section, METRIC, "max", EPOCHS),
        lambda trial: {"trial 8": "other"}.get(trial.key, "arm"),
        lambda trial: trial.key,
        lambda trial, result: None,
    )
    both.recall("arm", {f"trial {number}": [{"epoch": 1, "timestamp": 1.0, METRIC: 0.9}] for number in range(8)})
    rows = json.dumps([{"epoch": 1, METRIC: 0.1}])
    for number, word in ((8, TrialScheduler.CONTINUE), (9, TrialScheduler.STOP)):
        both.on_trial_add(None, RayTrial(number))
        assert both.on_trial_result(None, RayTrial(number), {"rows": rows}) == word
