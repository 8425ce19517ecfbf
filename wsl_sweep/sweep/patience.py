"""Ray Tune with one change: a worker that is starting is waited for, not ended.

Where a worker becomes free, Tune hands it to a trial whose own worker is just starting, and ends that one. Trials that
take less time than a worker's start (some seconds, for torch) would then run one after another for ever, on however
many CPUs: after a teacher, say, which was alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from ray.tune import tune as tune_module
from ray.tune.execution.tune_controller import TuneController


class PatientController(TuneController):  # type: ignore[misc]
    """Ray's controller. A trial whose worker has its CPUs already, and is not ready yet, keeps it."""

    def _maybe_reuse_cached_actor(self, trial: Any) -> bool:
        own = self._trial_to_actor.get(trial)
        starting = own is not None and own not in self._started_actors and self._actor_manager.is_actor_started(own)
        return False if starting else bool(super()._maybe_reuse_cached_actor(trial))


@contextlib.contextmanager
def patient() -> Iterator[None]:
    """Fits that begin inside have the patient controller. Ray has no setting for it."""
    before = tune_module.TuneController
    tune_module.TuneController = PatientController
    try:
        yield
    finally:
        tune_module.TuneController = before
