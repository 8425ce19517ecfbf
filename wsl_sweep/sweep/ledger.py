"""The ledger: state changes of trials in numbered segments, each written once. It is the truth of a sweep.

A segment is a JSON file ``ledger/<number>.json`` with a list of events. Nothing is appended to, locked or
rewritten, so a shared folder serves as well as a disk; a segment that cannot be read is passed over.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wsl_sweep.files import write_whole
from wsl_sweep.spec.plan import Trial

Event = dict[str, Any]
"""``event`` (proposed, started, finished, pruned, failed, killed, evaluated, sweep), ``time``, ``trial_id``, …"""

LAST_WORDS = frozenset({"finished", "pruned", "failed", "killed"})


class Ledger:
    """The ledger of one sweep.

    Args:
        folder: the sweep's ``ledger`` folder; made with the first segment.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        segments = self._segments()
        self._next = int(segments[-1].stem) + 1 if segments else 1

    def append(self, event: str, **fields: Any) -> Event:
        """Writes one event, whole, and returns it once it is on disk."""
        entry: Event = {"event": event, "time": time.time(), **fields}
        text = json.dumps([entry], allow_nan=False)
        write_whole(self.folder / f"{self._next:08d}.json", text.encode())
        self._next += 1
        return entry

    def events(self) -> list[Event]:
        """All events in their order; what cannot be read is passed over."""
        found: list[Event] = []
        for path in self._segments():
            try:
                entries = json.loads(path.read_text())
            except (OSError, ValueError):
                continue
            if isinstance(entries, list):
                found += [entry for entry in entries if isinstance(entry, dict) and "event" in entry]
        return found

    def _segments(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        return sorted(path for path in self.folder.glob("*.json") if path.stem.isdigit())


@dataclass
class TrialState:
    """What the ledger says of one trial.

    Attributes:
        trial: what it is.
        status: proposed, running, finished, pruned, failed or killed.
        attempt: the one that counts, from 1; 0 before the first start.
        epochs: trained whole.
        metrics: of the last epoch; ``test/…`` after the final evaluation.
        error: why it failed, or None.
        facts: fingerprint, seconds and whatever else its last word said.
    """

    trial: Trial
    status: str = "proposed"
    attempt: int = 0
    epochs: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    error: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def settled(self) -> bool:
        """Whether nothing more will come of it, short of running it again."""
        return self.status in ("finished", "pruned", "failed")


@dataclass
class SweepState:
    """The ledger folded into what holds now.

    Attributes:
        trials: by id, in the order in which they were proposed.
        status: of the sweep: running, finished, failed or stopped.
        rows: ``confirmed`` rows of the summary as far as they are decided: variant, overrides, trial ids.
        notes: for the summary.
    """

    trials: dict[str, TrialState] = field(default_factory=dict)
    status: str = "running"
    rows: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def apply(self, event: Mapping[str, Any]) -> None:
        """One event more. An attempt that is not the newest is a zombie's, and counts for nothing."""
        kind = event["event"]
        if kind == "sweep":
            self.status = event["status"]
        elif kind == "decided":
            self.rows = list(event["rows"])
        elif kind == "note":
            self.notes.append(event["text"])
        elif kind == "proposed":
            trial = Trial.from_json(event["trial"])
            known = self.trials.get(trial.trial_id)
            if known is None:
                self.trials[trial.trial_id] = TrialState(trial)
            else:
                known.trial = trial
        elif event.get("trial_id") in self.trials:
            self._apply_to(self.trials[event["trial_id"]], kind, event)

    def _apply_to(self, state: TrialState, kind: str, event: Mapping[str, Any]) -> None:
        if kind == "started":
            state.attempt, state.status, state.error = event["attempt"], "running", None
        elif kind == "evaluated":
            state.metrics |= event["metrics"]
        elif kind in LAST_WORDS and event.get("attempt", state.attempt) >= state.attempt:
            state.status = kind
            state.epochs = event.get("epochs", state.epochs)
            state.metrics = dict(event.get("metrics") or state.metrics)
            state.error = event.get("error")
            state.facts = {key: event[key] for key in ("fingerprint", "seconds", "device", "teacher") if key in event}


def fold(events: Iterable[Mapping[str, Any]]) -> SweepState:
    """The state after all events."""
    state = SweepState()
    for event in events:
        state.apply(event)
    return state


Listener = Callable[[Event], None]
