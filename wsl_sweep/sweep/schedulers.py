"""Early stopping within one arm of a search."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler

from wsl_sweep.spec.sections import SchedulerSection

TIME = "epoch"


class _PatientMedian(MedianStoppingRule):  # type: ignore[misc]
    """The median rule without its pauses: a paused function would begin again from its first epoch."""

    def _on_insufficient_samples(self, *_: Any) -> str:
        return str(TrialScheduler.CONTINUE)


def build_scheduler(section: SchedulerSection, metric: str, mode: str, epochs: int) -> TrialScheduler | None:
    """Ray's scheduler of a name for trials of ``epochs`` epochs; None for ``none``.

    ``hyperband`` is its asynchronous form: the successive halving of ``asha`` in three brackets, each more patient
    than the one before. ``max_t`` lies above the last epoch, at which ASHA would otherwise stop a trial that has just
    finished.
    """
    match section.name:
        case "asha" | "hyperband":
            return AsyncHyperBandScheduler(
                time_attr=TIME,
                metric=metric,
                mode=mode,
                max_t=epochs + 1,
                grace_period=min(section.grace_epochs, epochs),
                reduction_factor=section.reduction_factor,
                brackets=3 if section.name == "hyperband" else 1,
            )
        case "median":
            return _PatientMedian(
                time_attr=TIME,
                metric=metric,
                mode=mode,
                grace_period=section.grace_epochs,
                min_samples_required=3,
            )
        case _:
            return None


def rung_epochs(section: SchedulerSection, epochs: int) -> list[int]:
    """The epochs at which ``asha`` and ``hyperband`` decide: the scheduler must hear of them when they are over."""
    if section.name not in ("asha", "hyperband"):
        return []
    rungs, rung = [], min(section.grace_epochs, epochs)
    while rung < epochs:
        rungs.append(rung)
        rung *= section.reduction_factor
    return rungs


class ArmScheduler(FIFOScheduler):  # type: ignore[misc]
    """Hands each search trial to the scheduler of its arm; everything else runs to its end.

    Args:
        make: makes the scheduler of an arm, or None.
        arm_of: the arm of a Ray trial if it is a search trial, else None.
        on_stop: told of a trial that is about to be stopped early, before it is.
    """

    def __init__(
        self,
        make: Callable[[], TrialScheduler | None],
        arm_of: Callable[[Any], str | None],
        on_stop: Callable[[Any, dict[str, Any]], None],
    ) -> None:
        super().__init__()
        self._make, self._arm_of, self._on_stop = make, arm_of, on_stop
        self._by_arm: dict[str, TrialScheduler | None] = {}

    def _scheduler(self, trial: Any) -> TrialScheduler | None:
        arm = self._arm_of(trial)
        if arm is None:
            return None
        if arm not in self._by_arm:
            self._by_arm[arm] = self._make()
        return self._by_arm[arm]

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Ray's hook."""
        scheduler = self._scheduler(trial)
        if scheduler is not None:
            scheduler.on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Ray's hook: CONTINUE or STOP."""
        scheduler = self._scheduler(trial)
        if scheduler is None:
            return str(TrialScheduler.CONTINUE)
        stops = any(  # not one row more after a stop: it would count against other trials
            scheduler.on_trial_result(tune_controller, trial, {**row, "training_iteration": row[TIME]})
            == TrialScheduler.STOP
            for row in json.loads(result.get("rows", "[]"))  # all epochs since the last report, each in turn
        )
        if not stops or "outcome" in result:
            return str(TrialScheduler.CONTINUE)
        self._on_stop(trial, result)
        return str(TrialScheduler.STOP)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Ray's hook. Only what reports epochs has something to tell."""
        scheduler = self._scheduler(trial)
        if scheduler is not None and TIME in result:
            scheduler.on_trial_complete(tune_controller, trial, result)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Ray's hook."""
        scheduler = self._scheduler(trial)
        if scheduler is not None:
            scheduler.on_trial_error(tune_controller, trial)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """Ray's hook."""
        scheduler = self._scheduler(trial)
        if scheduler is not None:
            scheduler.on_trial_remove(tune_controller, trial)
