"""Trials of other sweeps in the same storage, which need not be run again where they are the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wsl_sweep.storage import Place
from wsl_sweep.training.files import STUDENT

OUTCOME = "outcome.json"


def newest_attempt(folder: Place) -> int:
    """The number of a trial's newest attempt on disk; 0 where there is none."""
    numbers = [name.removeprefix("attempt-") for name in folder.names() if name.startswith("attempt-")]
    return max((int(number) for number in numbers if number.isdigit()), default=0)


def outcome_in(folder: Place, attempt: int) -> dict[str, Any] | None:
    """What the worker of an attempt wrote as its last word: a finished or failed trial; None if it wrote none."""
    try:
        outcome = (folder / f"attempt-{attempt}" / OUTCOME).read_json()
    except (OSError, ValueError):
        return None
    if not isinstance(outcome, dict) or outcome.get("status") not in ("finished", "failed"):
        return None
    metrics = outcome.get("metrics") or {}
    numbers = isinstance(metrics, dict) and all(isinstance(value, int | float) for value in metrics.values())
    return outcome if numbers and isinstance(outcome.get("epochs", 0), int) else None


@dataclass(frozen=True)
class Found:
    """A finished trial of another sweep.

    Attributes:
        sweep: its name.
        folder: the trial's.
        attempt: the one that finished.
        outcome: its last word.
        student: whether its student is still there.
    """

    sweep: str
    folder: Place
    attempt: int
    outcome: Mapping[str, Any]
    student: bool

    def to_json(self) -> dict[str, Any]:
        """As plain data, for a worker."""
        return {
            "sweep": self.sweep,
            "folder": str(self.folder),
            "attempt": self.attempt,
            "outcome": dict(self.outcome),
            "student": self.student,
        }

    def differences(self, fingerprint: Mapping[str, Any]) -> list[str]:
        """What it was made with that is not so here: code, torch, device, data, teacher, own."""
        made = self.outcome.get("fingerprint") or {}
        return [name for name, value in fingerprint.items() if made.get(name) != value]


class Elsewhere:
    """The finished trials of a storage's other sweeps, by id. Each sweep's folder is listed once, when first asked.

    Args:
        storage: of the sweeps.
        own: the name of the sweep that asks.
    """

    def __init__(self, storage: Place, own: str) -> None:
        self._storage, self._own = storage, own
        self._ids: dict[str, list[str]] | None = None

    def find(self, trial_id: str) -> list[Found]:
        """Those with this id."""
        found = []
        for sweep in self._index().get(trial_id, ()):
            folder = self._storage / sweep / "trials" / trial_id
            names = folder.names()
            numbers = [name.removeprefix("attempt-") for name in names if name.startswith("attempt-")]
            for attempt in sorted((int(number) for number in numbers if number.isdigit()), reverse=True):
                outcome = outcome_in(folder, attempt)
                if outcome is not None and outcome["status"] == "finished":
                    found.append(Found(sweep, folder, attempt, outcome, STUDENT in names))
                    break
        return found

    def _index(self) -> dict[str, list[str]]:
        if self._ids is None:
            self._ids = {}
            for sweep in self._storage.names():
                if sweep != self._own:
                    for trial_id in (self._storage / sweep / "trials").names():
                        self._ids.setdefault(trial_id, []).append(sweep)
        return self._ids
