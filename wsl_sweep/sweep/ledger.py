"""The ledger: state changes of trials in numbered segments, each written once. It is the truth of a sweep.

A segment is a JSON file ``ledger/<number>.json`` with a list of events. Nothing is appended to, locked or
rewritten, so a shared folder or an object store serves as well as a disk; a segment that cannot be read is passed
over, and so is an event in it that makes no sense.
"""

from __future__ import annotations

import functools
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wsl_sweep.spec.plan import Trial
from wsl_sweep.storage import Place, place
from wsl_sweep.sweep.lease import Lease, LeaseLostError

Event = dict[str, Any]
"""``time``, and ``event``: proposed, started, lost, finished, pruned, failed, killed, evaluated, decided, settled,
note, sweep.
"""

LAST_WORDS = frozenset({"finished", "pruned", "failed", "killed"})

TAKEN_OVER_STEP = 1000
"""Numbers left free after a driver that may still be writing one last segment."""

READERS = 32
"""Segments that are read at once from an object store."""


class Ledger:
    """The ledger of one sweep.

    Args:
        folder: the sweep's ``ledger`` folder; made with the first segment.
        lease: of its driver; without one nothing but reading is meant.
    """

    def __init__(self, folder: Path | Place, lease: Lease | None = None) -> None:
        self.folder, self.lease = place(folder), lease
        numbers = self._numbers()
        self._next = numbers[-1] + 1 if numbers else 1
        if lease is not None and lease.stale is not None and self.folder.local is None:
            self._next += TAKEN_OVER_STEP

    def append(self, event: str, **fields: Any) -> Event:
        """Writes one event, whole, and returns it once it is kept.

        Raises:
            LeaseLostError: another driver writes, or may write, this ledger.
            StorageError: it cannot be written.
        """
        if self.lease is not None:
            self.lease.check()
        entry: Event = {"event": event, "time": time.time(), **fields}
        content = json.dumps([entry], allow_nan=False).encode()
        segment = self.folder / f"{self._next:08d}.json"
        if self.folder.local is None:
            segment.write(content)
        elif not segment.create(content):
            raise LeaseLostError(f"{segment} was written by another driver; this one stops")
        self._next += 1
        return entry

    def events(self) -> list[Event]:
        """All events in their order; what cannot be read is passed over."""
        names = [f"{number:08d}.json" for number in self._numbers()]
        local = self.folder.local
        if local is not None:
            read = [_read(functools.partial(_content, os.path.join(local, name))) for name in names]
        else:
            with ThreadPoolExecutor(READERS) as readers:
                read = list(readers.map(lambda name: _read((self.folder / name).read_bytes), names))
        return [event for events in read for event in events]

    def _numbers(self) -> list[int]:
        return sorted(int(name[:8]) for name in self.folder.names() if len(name) == 13 and _numbered(name))


def _numbered(name: str) -> bool:
    return name.endswith(".json") and name[:8].isdigit()


def _content(path: str) -> bytes:
    """As ``Place.read_bytes``, for thousands of files."""
    with open(path, "rb") as file:
        return file.read()


def _read(content: Callable[[], bytes]) -> list[Event]:
    try:
        entries = json.loads(content())
    except (OSError, ValueError, RecursionError):
        return []
    if not isinstance(entries, list):
        return []
    return [entry for entry in entries if isinstance(entry, dict) and isinstance(entry.get("event"), str)]


@dataclass
class TrialState:
    """What the ledger says of one trial.

    Attributes:
        trial: what it is.
        status: proposed, running, lost (its worker died; it will be tried again), finished, pruned, failed or killed.
        attempt: the one that counts, from 1; 0 before the first start.
        epochs: trained whole.
        metrics: of the last epoch; ``test/…`` after the final evaluation.
        error: why it failed, or None.
        facts: fingerprint, seconds, training examples and whatever else its last word said; see FACTS.
        seconds: of all its attempts that ended with a word.
        losses: how often its worker died.
        out_of_memory: whether a GPU was too small for it once.
        unwanted: whether the user stopped this very trial.
    """

    trial: Trial
    status: str = "proposed"
    attempt: int = 0
    epochs: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    error: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    losses: int = 0
    out_of_memory: bool = False
    unwanted: bool = False

    @property
    def settled(self) -> bool:
        """Whether nothing more will come of it, short of running it again."""
        return self.status in ("finished", "pruned", "failed") or (self.status == "killed" and self.unwanted)


FACTS = ("fingerprint", "seconds", "device", "teacher", "examples", "taken_over")
"""What else a last word says, as far as who wrote it knew. ``examples``: how many training examples the student was
shown, one as often as it was, in the epochs and steps that count, also of earlier attempts or of a trial taken over.
"""


@dataclass
class SweepState:
    """The ledger folded into what holds now.

    Attributes:
        trials: by id, in the order in which they were proposed.
        status: of the sweep: running, finished, failed or stopped.
        rows: ``confirmed`` rows of the summary as far as they are decided: variant, overrides, trial ids.
        notes: for the summary.
        accelerator: the kind of card on which paired seeds run, where a cluster has several.
        seconds_before: how long earlier drivers have run it, by the clock.
    """

    trials: dict[str, TrialState] = field(default_factory=dict)
    status: str = "running"
    rows: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    accelerator: str | None = None
    seconds_before: float = 0.0
    _session: tuple[float, float] | None = None

    @property
    def last_session_seconds(self) -> float:
        """How long the last driver has run it, as far as the ledger knows."""
        return max(0.0, self._session[1] - self._session[0]) if self._session is not None else 0.0

    def apply(self, event: Mapping[str, Any]) -> None:
        """One event more. An attempt that is not the newest is a zombie's, and counts for nothing.

        Raises KeyError, TypeError or ValueError for an event that makes no sense.
        """
        kind = event["event"]
        self._count(kind, float(event.get("time") or 0.0), event)
        if kind == "sweep":
            self.status = str(event["status"])
        elif kind == "decided":
            self.rows = [dict(row) for row in event["rows"]]
        elif kind == "settled":
            self.accelerator = str(event["accelerator"])
        elif kind == "note":
            if event["text"] not in self.notes:
                self.notes.append(str(event["text"]))
        elif kind == "proposed":
            trial = Trial.from_json(event["trial"])
            known = self.trials.get(trial.trial_id)
            if known is None:
                self.trials[trial.trial_id] = TrialState(trial)
            else:
                known.trial = trial
        elif event.get("trial_id") in self.trials:
            self._apply_to(self.trials[event["trial_id"]], kind, event)

    def _count(self, kind: str, when: float, event: Mapping[str, Any]) -> None:
        begins = kind == "sweep" and event.get("status") == "running"
        if self._session is None or begins:
            if self._session is not None:
                self.seconds_before += max(0.0, self._session[1] - self._session[0])
            self._session = (when, when)
        else:
            self._session = (self._session[0], when)

    def _apply_to(self, state: TrialState, kind: str, event: Mapping[str, Any]) -> None:
        attempt = int(event.get("attempt", state.attempt))
        if kind == "lost" or kind in LAST_WORDS:
            state.seconds += float(event.get("seconds") or 0.0)
        if kind == "started" and attempt >= state.attempt:
            state.attempt, state.status, state.error, state.unwanted = attempt, "running", None, False
        elif kind == "evaluated":
            state.metrics |= event["metrics"]
        elif kind == "lost" and attempt >= state.attempt:
            state.status, state.error = "lost", event.get("error")
            state.losses += not event.get("out_of_memory")
            state.out_of_memory |= bool(event.get("out_of_memory"))
        elif kind in LAST_WORDS and attempt >= state.attempt:
            state.attempt, state.status = attempt, kind
            state.epochs = int(event.get("epochs", state.epochs))
            state.metrics = dict(event.get("metrics") or state.metrics)
            state.error = event.get("error")
            state.unwanted = bool(event.get("unwanted"))
            state.facts = {key: event[key] for key in FACTS if key in event}


def unevaluated(state: SweepState, rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Finished trials of a table's rows that the final evaluation has not reached."""
    ids = dict.fromkeys(trial_id for row in rows for trial_id in row["trial_ids"])
    known = [state.trials[trial_id] for trial_id in ids if trial_id in state.trials]
    return [one.trial.trial_id for one in known if one.status == "finished" and "test/accuracy" not in one.metrics]


def fold(events: Iterable[Mapping[str, Any]]) -> SweepState:
    """The state after all events; one that makes no sense is passed over."""
    state = SweepState()
    for event in events:
        try:
            state.apply(event)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            continue
    return state


Listener = Callable[[Event], None]
