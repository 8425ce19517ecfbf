"""How often trials report, and at which epochs a scheduler decides."""

from __future__ import annotations

import pytest
from ray.tune.schedulers import AsyncHyperBandScheduler

from wsl_sweep.spec.sections import SchedulerSection
from wsl_sweep.sweep.runner import UNHURRIED, report_seconds
from wsl_sweep.sweep.schedulers import build_scheduler, rung_epochs


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
