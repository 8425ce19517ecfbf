"""What another terminal asks of a running sweep: files in its folder ``control``, which its driver looks for."""

from __future__ import annotations

from wsl_sweep.storage import Place

CONTROL = "control"
STOP = "stop"


def ask_to_stop(sweep: Place, trial_id: str | None = None) -> None:
    """Asks the driver of a sweep to save and end it, or one trial of it. Raises StorageError."""
    (sweep / CONTROL / (STOP if trial_id is None else f"{STOP}-{trial_id}")).write(b"{}\n")


def forget_requests(sweep: Place) -> None:
    """Deletes what was asked of an earlier driver."""
    (sweep / CONTROL).delete()
