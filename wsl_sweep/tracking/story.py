"""What the ledger's events say of a trial, as far as MLflow shall know it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from wsl_sweep.spec.plan import Trial
from wsl_sweep.sweep.ledger import Event
from wsl_sweep.sweep.table import Standing, standings, standings_text, unrun_text
from wsl_sweep.tracking.settings import redact

STATUS = {"finished": "FINISHED", "pruned": "KILLED", "failed": "FAILED", "killed": "KILLED"}
SWEEP_STATUS = {"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}
TEACHER_TAGS = {"computed": "teacher_forwards", "found": "teacher_outputs_found"}

CONFIRMED = "confirmed"
"""The tag of a trial that stands in the sweep's final table: in which rows, as JSON."""

PASSING_TAGS = frozenset({"pruned", "error", "incomplete", "attempts", "taken_over_from", CONFIRMED})
"""Tags of one end of a trial that a later end of it may not have."""


@dataclass
class Story:
    """One trial's.

    Attributes:
        trial: what it is.
        begun: when it first started, in seconds since 1970; None before.
        attempt: the one that counts; 0 before the first start.
        last: the event of its last word, or None while it is open.
        evaluated: the event of its final evaluation, or None.
        confirmed: its places in the final table as MLflow has them, or None.
    """

    trial: Trial
    begun: float | None = None
    attempt: int = 0
    last: Event | None = None
    evaluated: Event | None = None
    confirmed: str | None = None

    def apply(self, event: Event) -> bool:
        """One event more; False where it is of no account: an attempt's that was given up, or of another kind.

        Raises KeyError, TypeError or ValueError for one that makes no sense; nothing has changed then.
        """
        kind, attempt = event["event"], int(event.get("attempt", self.attempt))
        counts = kind == "evaluated" or (attempt >= self.attempt and (kind == "started" or kind in STATUS))
        if not counts:
            return False
        when = float(event["time"])
        if kind == "evaluated":
            self.evaluated = event
        elif kind == "started":
            self.attempt, self.last = attempt, None
            self.begun = when if self.begun is None else self.begun
        else:
            self.attempt, self.last = attempt, event
        return True

    @property
    def never_began(self) -> bool:
        """Whether it was proposed and nothing more: MLflow does not hear of it."""
        return self.begun is None and (self.last is None or self.last["event"] == "killed")

    @property
    def start(self) -> float:
        """When its run began; of one that only has an end, that."""
        return self.begun if self.begun is not None else float(self.last["time"]) if self.last is not None else 0.0

    def test_row(self) -> dict[str, float] | None:
        """The row of the final evaluation, at the trial's last epoch and the time of its end.

        One that a damaged ledger has forgotten is made again, and must give the same point of MLflow's.
        """
        if self.evaluated is None:
            return None
        return {
            **self.evaluated["metrics"],
            "epoch": float(self.trial.epochs),
            "timestamp": float((self.last or self.evaluated)["time"]),
        }

    def end(self) -> tuple[str, int] | None:
        """Status and end time, in milliseconds, as MLflow shall have them; None while it is open."""
        return (STATUS[self.last["event"]], milliseconds(self.last["time"])) if self.last is not None else None

    def end_tags(self) -> dict[str, str]:
        """What its last word says beside status and time."""
        event = self.last or {}
        teacher = event.get("teacher") or {}
        tags = {tag: str(teacher[name]) for name, tag in TEACHER_TAGS.items() if name in teacher}
        if event.get("event") == "pruned":
            tags["pruned"] = "true"
        if event.get("error"):
            tags["error"] = redact(str(event["error"]))[:5000]
        if event.get("device"):
            tags["device"] = str(event["device"])
        card = _entry(event, "fingerprint", "device")
        if card:
            tags["accelerator"] = card
        other = _entry(event, "taken_over", "sweep")
        if other:
            tags["taken_over_from"] = other
        if self.attempt > 1:
            tags["attempts"] = str(self.attempt)
        if self.confirmed:
            tags[CONFIRMED] = self.confirmed
        return tags

    def last_metrics(self) -> dict[str, float]:
        """The finite metrics that its run shows at the end, as far as the ledger has them."""
        metrics = {**((self.last or {}).get("metrics") or {}), **((self.evaluated or {}).get("metrics") or {})}
        return {name: value for name, value in metrics.items() if math.isfinite(value)}


class Stories(dict[str, Story]):
    """By trial id, in the order in which they were proposed.

    Attributes:
        rows: of the final table, as far as they are decided.
        places: trial id → its places in them; of trials that are not proposed yet, too.
    """

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[Mapping[str, Any]] = []
        self.places: dict[str, tuple[Standing, ...]] = {}

    def take(self, other: Stories) -> None:
        """Knows what ``other`` knows, too."""
        self.update(other)
        self.rows, self.places = other.rows, other.places

    def decide(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """The final table. Raises KeyError or TypeError for one that makes no sense; nothing has changed then."""
        decided = list(rows)
        self.places, self.rows = standings(decided), decided
        for trial_id in self:
            self._place(trial_id)

    def propose(self, trial: Trial) -> Story:
        """A trial that is new, or one that stands for more variants now."""
        story = self.setdefault(trial.trial_id, Story(trial))
        story.trial = trial
        self._place(trial.trial_id)
        return story

    def unrun(self) -> str:
        """Which rows of the table have no trial that has begun; "" where there is none."""
        return unrun_text(self.rows, {trial_id for trial_id, one in self.items() if not one.never_began})

    def _place(self, trial_id: str) -> None:
        places = self.places.get(trial_id)
        self[trial_id].confirmed = standings_text(places) if places else None


def stories(events: Iterable[Event]) -> Stories:
    """What all events say; one that makes no sense is passed over."""
    found = Stories()
    for event in events:
        try:
            tell(found, event)
        except (KeyError, TypeError, ValueError, AttributeError):
            continue
    return found


def tell(known: Stories, event: Event) -> tuple[Story | None, bool]:
    """Adds an event to the stories; which trials stand in the final table is told to all of them.

    Returns:
        The story of its trial, or None where it has none; and whether the event counts. For a trial that is proposed
        again, as one that stands for more variants, that is so too.
    """
    if event["event"] == "decided":
        known.decide(event["rows"])
        return None, False
    if event["event"] == "proposed":
        trial = Trial.from_json(event["trial"])
        again = trial.trial_id in known
        return known.propose(trial), again
    story = known.get(event.get("trial_id", ""))
    return story, story is not None and story.apply(event)


def ended(events: Iterable[Event]) -> float | None:
    """When the sweep came to its end, or, where its driver died without a word, when it was last heard of."""
    last: float | None = None
    for event in events:
        moment = event.get("time")
        if isinstance(moment, int | float):
            last = float(moment)
    return last


def milliseconds(seconds: float) -> int:
    """As MLflow counts time."""
    return int(seconds * 1000)


def _entry(event: Mapping[str, Any], field: str, key: str) -> str:
    """``event[field][key]``, or nothing."""
    inside = event.get(field)
    return str(inside.get(key) or "") if isinstance(inside, Mapping) else ""
