"""What a training tells between its steps, so that it can go on from there."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from wsl_sweep.errors import StorageError
from wsl_sweep.training.attempts import Attempts, Checkpoint, CheckpointSettings, Row, Stopped
from wsl_sweep.training.state import TrainingState
from wsl_sweep.training.weights import tensor_bytes

Take = Callable[[], TrainingState]
"""Takes the state of a training, if it is wanted."""


class Keeper:
    """Hears of a training and keeps its rows; of where it stands, nothing.

    Args:
        rows: of the epochs before.
        steps: made before, of the epoch after them.

    Attributes:
        rows: of all epochs so far.
        steps: made of the epoch after them.
    """

    def __init__(self, rows: Sequence[Row] = (), steps: int = 0) -> None:
        self.rows, self.steps = list(rows), steps

    def before_step(self, take: Take) -> None:
        """A step is to begin."""

    def after_step(self) -> None:
        """A step is made."""
        self.steps += 1

    def after_epoch(self, row: Row, take: Take) -> None:
        """An epoch is done, its row not yet handed out."""
        self.rows.append(row)
        self.steps = 0

    @contextmanager
    def stopping(self, take: Take) -> Iterator[None]:
        """Inside, somebody may raise ``Stopped``."""
        yield


class CheckpointKeeper(Keeper):
    """Saves checkpoints of a trial.

    Args:
        attempts: where.
        attempt: which it is.
        settings: when.
        epochs: how many are planned.
        checkpoint: makes one of the rows so far and a training's state.
        saved: the epoch and step that it went on from.
        rows: of the epochs before.
        needed: False where one that cannot be saved is no harm: others may have taken its folder away, since they have
            come to the end.
    """

    def __init__(
        self,
        attempts: Attempts,
        attempt: int,
        settings: CheckpointSettings,
        epochs: int,
        checkpoint: Callable[[Sequence[Row], TrainingState], Checkpoint],
        saved: tuple[int, int] = (0, 0),
        rows: Sequence[Row] = (),
        needed: bool = True,
    ) -> None:
        super().__init__(rows, saved[1])
        self._attempts, self._attempt, self._settings = attempts, attempt, settings
        self._epochs, self._checkpoint = epochs, checkpoint
        self._saved, self._saved_at, self._needed = saved, time.monotonic(), needed

    def before_step(self, take: Take) -> None:
        """Saves where ``minutes`` have passed."""
        minutes = self._settings.minutes
        if minutes is not None and time.monotonic() - self._saved_at >= minutes * 60:
            self._save(take)

    def after_epoch(self, row: Row, take: Take) -> None:
        """Saves after each ``epochs``-th epoch and the last."""
        super().after_epoch(row, take)
        if len(self.rows) % self._settings.epochs == 0 or len(self.rows) == self._epochs:
            self._save(take)

    @contextmanager
    def stopping(self, take: Take) -> Iterator[None]:
        """Saves where somebody asks for the end."""
        try:
            yield
        except Stopped:
            self._save(take)
            raise

    def _save(self, take: Take) -> None:
        """Saves, unless the training stands where it was saved last."""
        state = take()
        if (state.epoch, state.step) != self._saved:
            with contextlib.suppress(*(() if self._needed else (StorageError,))):
                self._attempts.save(self._attempt, self._checkpoint(self.rows, state), keep_all=self._settings.keep_all)
            self._saved = state.epoch, state.step
        self._saved_at = time.monotonic()


def checkpoint_of(
    state: TrainingState,
    rows: Sequence[Row],
    *,
    trial_id: str,
    fingerprint: Mapping[str, str | None],
    teacher: Mapping[str, Any] | None,
) -> Checkpoint:
    """A training's state as what is written of it."""
    return Checkpoint(
        trial_id=trial_id,
        fingerprint=fingerprint,
        epoch=state.epoch,
        step=state.step,
        seconds=state.seconds,
        rows=rows,
        teacher=teacher,
        training=state.facts,
        tensors=tensor_bytes(state.tensors),
    )
