"""What a sweep left behind, as arrays: for notebooks, and for diagnostics of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wsl_sweep.analysis import leftovers
from wsl_sweep.analysis.leftovers import Logits, SampleMasks
from wsl_sweep.app.folders import rows_of
from wsl_sweep.app.results import best_student
from wsl_sweep.app.students import SweepOnDisk, read_sweep
from wsl_sweep.errors import WslSweepError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class LeftBehind:
    """What the trials of a sweep left beside their metrics; what is not there is None.

    Attributes:
        name: the sweep's.
        summary: as in ``summary.json``.
        best: the summary's trial of the best student that learned from a teacher; None where there is none.
    """

    name: str
    summary: Mapping[str, Any]
    best: Mapping[str, Any] | None
    _sweep: SweepOnDisk

    @property
    def finished(self) -> list[Mapping[str, Any]]:
        """The trials of the summary that ran to their end."""
        return [one for one in self.summary["trials"] if one["status"] == "finished"]

    def logits(self, trial_id: str) -> Logits | None:
        """What a student says of the validation part at the end of its training."""
        return leftovers.kept_logits(self._sweep.folder, trial_id)

    def teacher(self, trial_id: str) -> Logits | None:
        """What the teacher of a trial says of the same examples."""
        like, one = self.logits(trial_id), self._sweep.state.trials.get(trial_id)
        if like is None or one is None or one.trial.teacher_id is None:
            return None
        return leftovers.teacher_logits(self._sweep.folder, one.trial.teacher_id, like)

    def masks(self, trial_id: str) -> SampleMasks | None:
        """Who was a regularization sample in each epoch of a trial."""
        return leftovers.kept_masks(self._sweep.folder, trial_id)

    def curves(self, metric: str) -> tuple[list[str], NDArray[np.float64]]:
        """A metric epoch by epoch, of the finished trials of the most common length: their ids, and (T, E).

        Raises WslSweepError: no finished trial has it in every epoch.
        """
        import numpy as np

        rows = rows_of(self._sweep.folder)
        found: dict[str, list[float]] = {}
        for one in self.finished:
            trial_id = one["trial_id"]
            told = [row.get(metric, np.nan) for row in rows(trial_id, self._sweep.state.trials[trial_id].attempt)]
            if told and np.isfinite(told).all():
                found[trial_id] = told
        lengths = [len(told) for told in found.values()]
        if not lengths:
            raise WslSweepError(f"no finished trial of {self.name} has {metric} in every epoch")
        usual = max(set(lengths), key=lengths.count)
        kept = {trial_id: told for trial_id, told in found.items() if len(told) == usual}
        return list(kept), np.asarray([*kept.values()], dtype=np.float64)


def left_behind(name: str, *, storage: str | None = None) -> LeftBehind:
    """What a sweep left behind, finished or not.

    Args:
        name: of the sweep.
        storage: folder of sweeps.

    Raises:
        WslSweepError: there is no such sweep.
    """
    sweep = read_sweep(name, storage)
    return LeftBehind(name, sweep.summary, best_student(sweep.summary, distilled=True), sweep)
