"""Early stopping within one arm of a search."""

from __future__ import annotations

import contextlib
import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler

from wsl_sweep.spec.sections import SchedulerSection

TIME = "epoch"


@dataclass(frozen=True)
class _Known:
    """A trial of ours as a scheduler sees it, whichever of Ray's trials runs its attempts."""

    trial_id: str


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
        key_of: the id of ours that a Ray trial runs an attempt of.
        on_stop: told of a trial that is about to be stopped early, before it is.
    """

    def __init__(
        self,
        make: Callable[[], TrialScheduler | None],
        arm_of: Callable[[Any], str | None],
        key_of: Callable[[Any], str],
        on_stop: Callable[[Any, dict[str, Any]], None],
    ) -> None:
        super().__init__()
        self._make, self._arm_of, self._key_of, self._on_stop = make, arm_of, key_of, on_stop
        self._known: dict[str, int] = {}
        self._by_arm: dict[str, TrialScheduler | None] = {}

    def _scheduler(self, trial: Any) -> TrialScheduler | None:
        arm = self._arm_of(trial)
        return None if arm is None else self._of_arm(arm)

    def _of_arm(self, arm: str) -> TrialScheduler | None:
        if arm not in self._by_arm:
            self._by_arm[arm] = self._make()
        return self._by_arm[arm]

    def recall(self, arm: str, rows: Mapping[str, Sequence[Mapping[str, float]]]) -> None:
        """Hears again, in the order of their times, what an arm's trials reported when another driver listened.

        Args:
            arm: of the search.
            rows: trial id → its rows of epochs.
        """
        scheduler = self._of_arm(arm)
        if scheduler is None:
            return
        stopped: set[str] = set()
        for trial_id in rows:
            self._add(scheduler, trial_id)
        told = [(row["timestamp"], trial_id, row) for trial_id, own in rows.items() for row in own]
        for _, trial_id, row in sorted(told, key=lambda one: one[0]):
            if trial_id not in stopped and self._hear(scheduler, None, trial_id, row) == TrialScheduler.STOP:
                stopped.add(trial_id)  # not a row more, or it would count against others

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Ray's hook."""
        scheduler = self._scheduler(trial)
        if scheduler is not None:
            self._add(scheduler, self._key_of(trial))

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Ray's hook: CONTINUE or STOP."""
        scheduler = self._scheduler(trial)
        if scheduler is None:
            return str(TrialScheduler.CONTINUE)
        stops = any(  # not one row more after a stop: it would count against other trials
            self._hear(scheduler, tune_controller, self._key_of(trial), row) == TrialScheduler.STOP
            for row in json.loads(result.get("rows", "[]"))  # all epochs since the last report, each in turn
        )
        if not stops or "outcome" in result:
            return str(TrialScheduler.CONTINUE)
        self._on_stop(trial, result)
        return str(TrialScheduler.STOP)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Ray's hook. The last rows have been heard; nothing is forgotten, since another attempt may come."""

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Ray's hook. The trial goes on in another attempt."""

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """Ray's hook."""

    def _add(self, scheduler: TrialScheduler, trial_id: str) -> None:
        """Once for each trial, whatever its attempts. Its bracket of ``hyperband`` is drawn by its id."""
        if trial_id not in self._known:
            self._known[trial_id] = 0
            draws = len(getattr(scheduler, "_brackets", ())) > 1
            with _drawing(trial_id) if draws else contextlib.nullcontext():
                scheduler.on_trial_add(None, _Known(trial_id))

    def _hear(self, scheduler: TrialScheduler, controller: Any, trial_id: str, row: Mapping[str, float]) -> str:
        """Each epoch of a trial once: an attempt repeats what followed the checkpoint of the one before."""
        if row[TIME] <= self._known.get(trial_id, 0):
            return str(TrialScheduler.CONTINUE)
        self._known[trial_id] = int(row[TIME])
        result = {**row, "training_iteration": row[TIME]}
        return str(scheduler.on_trial_result(controller, _Known(trial_id), result))


@contextlib.contextmanager
def _drawing(trial_id: str) -> Iterator[None]:
    """numpy's global random state, which Ray draws from, is a function of the trial meanwhile."""
    state = np.random.get_state()
    np.random.seed(zlib.crc32(trial_id.encode()))
    try:
        yield
    finally:
        np.random.set_state(state)
