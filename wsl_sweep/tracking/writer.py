"""The one writer of a sweep: it brings what the ledger and the trials say into MLflow, and nobody waits for it.

What the server does not take is tried again until the sweep's end, in order; the same again leaves one run of a trial
and one point of an epoch, since a run is found by its trial's id and timestamps are the trial's own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from wsl_sweep.errors import WslSweepError
from wsl_sweep.sweep.ledger import Event
from wsl_sweep.tracking.answers import Answer, meaning, prepare_calls
from wsl_sweep.tracking.outbox import Operation, Outbox, sentence
from wsl_sweep.tracking.runs import Row, Run, SweepRuns, row_name
from wsl_sweep.tracking.settings import Tracking
from wsl_sweep.tracking.story import CONFIRMED, STATUS, SWEEP_STATUS, Stories, Story, ended, milliseconds, stories, tell
from wsl_sweep.tracking.students import log_student

__all__ = ["MlflowWriter", "RowsOf", "log_student"]

END_SECONDS = 30.0
"""How long the end of a sweep waits for the server."""

RowsOf = Callable[[str, int], list[dict[str, float]]]
"""What gives the rows of epochs of a trial's attempt."""


@dataclass
class _Waiting:
    """Rows of one attempt that the server has not taken yet."""

    attempt: int
    rows: list[Row] = field(default_factory=list)


class MlflowWriter:
    """Writes one sweep's parent run and its trials' child runs.

    Give ``on_event`` and ``on_rows`` to the sweep as listeners; call ``close`` at its end.

    Args:
        tracking: server and experiment.
        sweep: name, ``uuid``, ``description``, ``git_commit``, ``device`` of the sweep.
    """

    def __init__(self, tracking: Tracking, sweep: Mapping[str, str]) -> None:
        self.tracking = tracking
        self._runs = SweepRuns(tracking, sweep)
        self._outbox = Outbox(self._runs.probe, lambda: self._runs.answered)
        self._stories = Stories()
        self._waiting: dict[str, _Waiting] = {}
        self._waiting_lock = threading.Lock()
        self._one_attempt: dict[str, int] = {}
        self._incomplete: set[str] = set()
        self._files: dict[str, bytes] = {}
        self._no_files = False
        self._first: float | None = None
        self._last: float | None = None

    @property
    def run_ids(self) -> dict[str, str]:
        """MLflow's run ids by trial id, of the runs found or made so far."""
        return {trial_id: run.run_id for trial_id, run in dict(self._runs.children).items()}

    @property
    def parent_id(self) -> str | None:
        """The run id of the sweep itself, once it is found or made."""
        return self._runs.parent.run_id if self._runs.parent is not None else None

    @property
    def problem(self) -> str | None:
        """What is wrong with the server, in a line without credentials, or None."""
        return self._outbox.problem

    def missing(self) -> str | None:
        """What the server has not taken, such as "the metrics of 3 trials and the ends of 5 runs", or None."""
        with self._waiting_lock:
            rows = {("metrics", trial_id) for trial_id in self._waiting}
        return sentence(self._outbox.left() | rows)

    def start(self) -> None:
        """Has the thread find or make the experiment, and find the sweep's runs, before anything else is written."""
        self._outbox.put(Operation(self._connect, essential=True))
        self._outbox.start()

    def warm_up(self) -> None:
        """Starts the thread with the import alone, beside whatever else is starting; nothing is written yet."""
        self._outbox.put(Operation(_import_mlflow))
        self._outbox.start()

    def on_event(self, event: Event) -> None:
        """A listener of the conductor's."""
        self._heard(event)
        kind = event["event"]
        what = {"started": "run", "evaluated": "test"}.get(kind, "end" if kind in STATUS else "")
        trial_id = str(event.get("trial_id", ""))
        self._outbox.put(Operation(partial(self._of_trial, trial_id, lambda: self._event(event)), what, trial_id))

    def on_rows(self, trial_id: str, attempt: int, rows: list[dict[str, float]]) -> None:
        """Rows of epochs of a trial. What comes while the writer is busy goes to the server in one call.

        A later attempt gives all rows again, of the epochs before it too: what waits of an earlier one is dropped.
        """
        with self._waiting_lock:
            first = trial_id not in self._waiting
            waiting = self._waiting.setdefault(trial_id, _Waiting(attempt))
            if attempt > waiting.attempt:
                waiting = self._waiting[trial_id] = _Waiting(attempt)
            if attempt == waiting.attempt:
                waiting.rows += rows
        if first:
            send = partial(self._of_trial, trial_id, partial(self._waiting_rows, trial_id))
            give_up = partial(self._give_up, trial_id)
            self._outbox.put(Operation(send, "metrics", trial_id, give_up))

    def bring_in_line(self, events: Sequence[Event], rows_of: RowsOf) -> None:
        """Has everything written that the ledger says and MLflow lacks; a run that is in line costs nothing.

        Call it after ``start`` and before anything of this driver is told: for a sweep that goes on it also is what
        lets the writer know the trials.

        Args:
            events: the whole ledger so far.
            rows_of: asked for a trial's rows when its turn comes. What it cannot read is passed over.
        """
        for event in events:
            self._heard(event)
        told = stories(events)
        self._outbox.put(Operation(lambda: self._stories.take(told)))
        if told:
            self._outbox.put(Operation(self._begin, "run"))
        for trial_id, story in told.items():
            if not story.never_began:
                compare = partial(self._of_trial, trial_id, partial(self._compare, trial_id, rows_of))
                self._outbox.put(Operation(compare, "run", trial_id))
        self._outbox.put(Operation(self._runs.forget_metrics))

    def describe(self, text: str, metrics: Mapping[str, float]) -> None:
        """Sets the parent run's description (Markdown) and metrics."""
        self._outbox.put(Operation(lambda: self._describe(text, metrics), "description"))

    def artifacts(self, files: Mapping[str, bytes]) -> None:
        """Has the parent run keep files: path in its artifacts → content.

        They are written by ``close``, behind everything else: where artifacts are kept may be another place than the
        server, which may be away or out of reach from here. After one that is refused the others are not tried.
        """
        self._files |= files

    def begin_end(self, seconds: float = END_SECONDS, patience: float | None = None) -> None:
        """From now on ``flush`` and ``close`` together wait at most ``seconds``, whatever they are given.

        Args:
            seconds: in all, of which ``flush`` leaves ``close`` a few.
            patience: they stop waiting sooner where the server has not answered for so long; None for no such limit.
        """
        self._outbox.begin_end(seconds, patience)

    def flush(self, seconds: float = END_SECONDS) -> bool:
        """Waits until everything so far is written or refused; False where it was not in time."""
        return self._outbox.flush(seconds, last=False)

    def close(self, status: str, seconds: float = END_SECONDS) -> bool:
        """Ends the runs that are left, the parent run, and the thread. False where something was not taken in time.

        Args:
            status: of the sweep: finished, failed or stopped.
            seconds: how long to wait for the server at most.
        """
        self._outbox.put(Operation(lambda: self._close(SWEEP_STATUS[status]), "sweep"))
        for path, content in self._files.items():
            self._outbox.put(Operation(partial(self._artifact, path, content), "artifacts", path, self._refuse_files))
        in_time = self._outbox.flush(seconds)
        self._outbox.stop(at_once=not in_time)
        return in_time and self.missing() is None

    def _heard(self, event: Event) -> None:
        """Notes when the sweep began and when it was last heard of: the parent's times are the ledger's too."""
        moment = ended([event])
        if moment is not None:
            self._first = moment if self._first is None else self._first
            if self._last is None or moment >= self._last:
                self._last = moment

    # --- in the thread -------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        prepare_calls()
        self._runs.connect()

    def _parent(self) -> Run:
        return self._runs.ensure_parent(self._first if self._first is not None else time.time())

    def _begin(self) -> None:
        self._parent()

    def _of_trial(self, trial_id: str, do: Callable[[], None]) -> None:
        """Does something of a trial; where another driver left the trial another run in place of ours, with that."""
        try:
            do()
        except Exception as error:
            if meaning(error) is not Answer.NEVER or not self._runs.replaced(trial_id):
                raise
            do()

    def _event(self, event: Event) -> None:
        if event["event"] == "sweep":
            if event["status"] == "running":
                self._runs.set_running(self._parent())
            return
        story, counts = tell(self._stories, event)
        if event["event"] == "decided":
            self._decided()
        if story is None or not counts:
            return
        if event["event"] == "proposed":
            run = self._runs.children.get(story.trial.trial_id)
            if run is not None:
                self._runs.set_variants(run, story.trial)
        elif event["event"] == "started":
            run = self._runs.ensure(story.trial, story.start)
            self._runs.set_running(run)
            self._runs.log_params(run, story.trial)
        elif event["event"] == "evaluated":
            self._evaluated(story)
        else:
            self._end(story)

    def _decided(self) -> None:
        """Marks the runs of the final table; one that was in an earlier table and is in no row now loses the mark."""
        for trial_id, story in self._stories.items():
            run = self._runs.children.get(trial_id)
            if run is not None and story.last is not None and run.tags.get(CONFIRMED) != story.confirmed:
                self._runs.set_tags(run, self._end_tags(story))

    def _evaluated(self, story: Story) -> None:
        run, row = self._runs.children.get(story.trial.trial_id), story.test_row()
        if run is not None and row is not None:
            self._runs.log_rows(run, [row])

    def _end(self, story: Story) -> None:
        end = story.end()
        if end is None or (story.never_began and story.trial.trial_id not in self._runs.children):
            return
        if story.trial.trial_id not in self._runs.children:
            self._runs.log_params(self._runs.ensure(story.trial, story.start), story.trial)
        run = self._runs.children[story.trial.trial_id]
        self._runs.set_tags(run, self._end_tags(story))
        self._runs.terminate(run, *end)

    def _end_tags(self, story: Story) -> dict[str, str]:
        tags = story.end_tags()
        if story.trial.trial_id in self._incomplete:
            tags["incomplete"] = "true"  # what is brought in line later begins with this one
        return tags

    def _compare(self, trial_id: str, rows_of: RowsOf) -> None:
        """Writes what the server lacks of a trial."""
        story, run = self._stories[trial_id], self._runs.children.get(trial_id)
        if run is not None and _in_line(story, run):
            return
        self._incomplete.discard(trial_id)
        run = self._runs.ensure(story.trial, story.start)
        self._runs.set_variants(run, story.trial)
        self._runs.log_params(run, story.trial)
        rows = _rows_of(story, rows_of)
        if rows and not run.fresh and any(epoch <= rows[-1]["epoch"] for epoch in self._runs.strays(run, rows)):
            run = self._anew(story)
        self._runs.log_rows(run, rows)
        self._evaluated(story)
        self._end(story)

    def _anew(self, story: Story) -> Run:
        """An attempt that no longer counts left points that this one has otherwise: only a new run is without them."""
        run = self._runs.replace(story.trial, story.start)
        self._runs.log_params(run, story.trial)
        return run

    def _waiting_rows(self, trial_id: str) -> None:
        """Writes what waits of a trial, and what comes meanwhile."""
        while (waiting := self._peek(trial_id)) is not None:
            self._write_rows(trial_id, waiting)
            self._drop(trial_id, waiting)

    def _write_rows(self, trial_id: str, waiting: _Waiting) -> None:
        story, run = self._stories.get(trial_id), self._runs.children.get(trial_id)
        if story is None or run is None or waiting.attempt < story.attempt:
            return
        known = run.fresh or self._one_attempt.get(trial_id) == waiting.attempt
        if not known and self._runs.strays(run, waiting.rows):
            run = self._anew(story)
        self._one_attempt[trial_id] = waiting.attempt
        self._runs.log_rows(run, waiting.rows)

    def _peek(self, trial_id: str) -> _Waiting | None:
        with self._waiting_lock:
            waiting = self._waiting.get(trial_id)
            return _Waiting(waiting.attempt, list(waiting.rows)) if waiting is not None else None

    def _drop(self, trial_id: str, written: _Waiting) -> None:
        with self._waiting_lock:
            waiting = self._waiting[trial_id]
            if waiting.attempt == written.attempt:
                del waiting.rows[: len(written.rows)]
                if not waiting.rows:
                    del self._waiting[trial_id]

    def _give_up(self, trial_id: str) -> None:
        with self._waiting_lock:
            self._waiting.pop(trial_id, None)
        self._incomplete.add(trial_id)

    def _describe(self, text: str, metrics: Mapping[str, float]) -> None:
        self._runs.describe(self._parent(), text, metrics, self._last if self._last is not None else time.time())

    def _refuse_files(self) -> None:
        self._no_files = True

    def _artifact(self, path: str, content: bytes) -> None:
        if self._no_files:
            self._outbox.refused.add(("artifacts", path))
            return
        self._runs.log_artifact(self._parent(), path, content)

    def _close(self, status: str) -> None:
        """No run stays RUNNING: a trial without a last word ends with the sweep."""
        if not self._runs.connected or (self._first is None and self._runs.parent is None):
            return  # nothing was ever told
        end = milliseconds(self._last if self._last is not None else time.time())
        for trial_id, run in self._runs.still_running():
            story = self._stories.get(trial_id)
            word = story.end() if story is not None else None
            try:
                self._runs.terminate(run, *(word or ("KILLED", end)))
            except Exception as error:
                if meaning(error) is not Answer.NEVER:
                    raise
                self._outbox.refused.add(("end", trial_id))  # the sweep's own end is written all the same
        self._runs.set_unrun(self._parent(), self._stories.unrun())
        self._runs.terminate(self._parent(), status, end)


def _in_line(story: Story, run: Run) -> bool:
    """Whether a run is what the ledger says: an end with its time, tags and last metrics."""
    end, tags = story.end(), {**story.end_tags(), "variants": ",".join(story.trial.variants)}
    return (
        end == (run.status, run.end)
        and "incomplete" not in run.tags
        and run.tags.get(CONFIRMED) == story.confirmed
        and run.tags.get("row") == row_name(story.trial)
        and tags.items() <= run.tags.items()
        and all(run.metrics.get(name) == value for name, value in story.last_metrics().items())
    )


def _rows_of(story: Story, rows_of: RowsOf) -> list[dict[str, float]]:
    """The rows of the attempt that counts; where it came to none, those of the last one that had any."""
    for attempt in range(story.attempt, 0, -1):
        try:
            rows = rows_of(story.trial.trial_id, attempt)
        except (OSError, ValueError, WslSweepError):
            continue
        if rows:
            return rows
    return []


def _import_mlflow() -> None:
    import mlflow  # noqa: F401
