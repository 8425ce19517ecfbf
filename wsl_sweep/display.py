"""What the user sees while a sweep runs: a live table in a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from wsl_sweep.spec.wording import duration, titled
from wsl_sweep.sweep.ledger import LAST_WORDS, Event, TrialState
from wsl_sweep.tracking.settings import redact

if TYPE_CHECKING:
    from wsl_sweep.sweep.conductor import Conductor


class SweepDisplay:
    """Follows a sweep.

    Args:
        console: where to write.
        conductor: whose state is shown.
    """

    def __init__(self, console: Console, conductor: Conductor) -> None:
        self.console, self.conductor = console, conductor
        self.begun = time.time()
        self.stage = "starting"
        self._done = sum(state.settled for state in conductor.state.trials.values())
        self._best_state: TrialState | None = None
        for state in conductor.state.trials.values():
            self._compare(state)
        self._fresh: deque[tuple[float, float]] = deque(maxlen=200)
        self._started: dict[str, float] = {}
        self._epochs: dict[str, int] = {}
        self._teachers: dict[str, tuple[int, int, float]] = {}
        self._recent: deque[tuple[str, ...]] = deque(maxlen=8)
        self._last_teacher_line = 0.0
        self._lock = threading.Lock()
        self._live: Live | None = None

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Shows the live table meanwhile, if the console is a terminal."""
        if not self.console.is_terminal:
            yield
            return
        with Live(self, console=self.console, refresh_per_second=4, transient=True) as live:
            self._live = live
            yield
        self._live = None

    def say(self, text: str) -> None:
        """One line. Whoever read them may be gone, or the disk that they went to full: no sweep ends of that."""
        if self._live is None:
            with contextlib.suppress(OSError, ValueError, SystemExit):  # rich ends the program of a broken pipe
                self.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            self.stage = text

    # --- listeners -----------------------------------------------------------------------------------------------

    def on_event(self, event: Event) -> None:
        """A listener of the conductor's."""
        with self._lock:
            self._on_event(event)

    def on_rows(self, trial_id: str, attempt: int, rows: list[dict[str, float]]) -> None:
        """How far each running trial is."""
        with self._lock:
            self._epochs[trial_id] = int(rows[-1]["epoch"])

    def on_teacher(self, key: str, epoch: int, epochs: int) -> None:
        """How far a teacher is."""
        now = time.time()
        with self._lock:
            self._teachers.setdefault(key, (0, epochs, now))
            begun = self._teachers[key][2]
            self._teachers[key] = (epoch, epochs, begun)
            self.stage = "training the teacher"
            if self._live is None and epoch > 3 and now - self._last_teacher_line >= 5:
                self._last_teacher_line = now
                left = duration((now - begun) / epoch * (epochs - epoch))
                self.say(f"teacher {key.removeprefix('teacher-')}: epoch {epoch}/{epochs}, about {left} left")

    def _on_event(self, event: Event) -> None:
        kind, trial_id = event["event"], event.get("trial_id", "")
        if kind == "started":
            self._started[trial_id] = event["time"]
            self.stage = self.conductor.state.trials[trial_id].trial.stage
        elif kind in LAST_WORDS and trial_id:
            self._epochs.pop(trial_id, None)
            begun = self._started.pop(trial_id, event["time"])
            if kind != "killed":
                self._done += 1
                self._fresh.append((event["time"], event["time"] - begun))
            self._ended(trial_id, event)
        elif kind == "lost":
            self._started.pop(trial_id, None)
            self._epochs.pop(trial_id, None)
            self.say(f"{trial_id}: {redact(str(event.get('error')))}; it goes on as another attempt")
        elif kind == "evaluated":
            self.stage = "final evaluation on the test set"
        elif kind == "note":
            self.say(f"note: {event['text']}")

    def _ended(self, trial_id: str, event: Event) -> None:
        state = self.conductor.state.trials[trial_id]
        self._compare(state)
        metric = self.conductor.spec.metrics[0]
        value = state.metrics.get(metric)
        result = f"{metric} {value:.4f}" if value is not None else ""
        if state.error:
            result = redact(state.error)
        what = titled(state.trial)
        self._recent.append((trial_id, state.trial.stage, what, state.status, result))
        if self._live is None:
            self.say(
                f"[{self._done}/{self._expected()}] {state.trial.stage} {trial_id} {what}: {state.status}"
                f"{', ' + result if result else ''}; {self._best()}, {self._left()}"
            )

    # --- what is shown -------------------------------------------------------------------------------------------

    def _expected(self) -> int:
        return max(self.conductor.expected, len(self.conductor.state.trials))

    def _compare(self, state: TrialState) -> None:
        """Keeps the best trial; never all of them anew, of which a sweep may have thousands."""
        metric, mode = self.conductor.spec.metrics[0], self.conductor.spec.modes[0]
        if state.status != "finished" or metric not in state.metrics or state.trial.stage == "confirm":
            return
        best = self._best_state
        value = state.metrics[metric]
        if best is None or (value > best.metrics[metric] if mode == "max" else value < best.metrics[metric]):
            self._best_state = state

    def _best(self) -> str:
        best = self._best_state
        if best is None:
            return "nothing finished yet"
        return f"best {best.metrics[self.conductor.spec.metrics[0]]:.4f} ({best.trial.trial_id})"

    def _left(self) -> str:
        left = self._expected() - self._done
        if left <= 0:
            return "all trained"
        if len(self._fresh) < 2:
            return f"{left} left"
        elapsed = self._fresh[-1][0] - self._fresh[0][0]
        each = elapsed / (len(self._fresh) - 1) if elapsed > 0 else 0.0
        return f"{left} left, about {duration(left * each)}"

    def __rich__(self) -> Group:
        with self._lock:
            bar = Progress(
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(self._left())
            )
            bar.add_task(f"{self.conductor.spec.name}: {self.stage}", total=self._expected(), completed=self._done)
            table = Table(box=None, pad_edge=False, header_style="dim")
            for column in ("trial", "stage", "what", "state", ""):
                table.add_column(column, no_wrap=column != "what")
            for row in self._recent:
                style = "red" if row[3] == "failed" else "dim" if row[3] == "pruned" else ""
                table.add_row(*row, style=style)
            for key, (epoch, epochs, _) in self._teachers.items():
                if key in self.conductor.tasks:
                    table.add_row(key.removeprefix("teacher-"), "teacher", "", "running", f"epoch {epoch}/{epochs}")
            for trial_id in list(self._started):
                trial = self.conductor.state.trials[trial_id].trial
                epoch = self._epochs.get(trial_id, 0)
                table.add_row(
                    trial_id,
                    trial.stage,
                    titled(trial),
                    "running",
                    f"epoch {epoch}/{trial.epochs}",
                    style="cyan",
                )
            return Group(table, bar, Text(f"{self._best()} · {duration(time.time() - self.begun)}", style="dim"))


@contextlib.contextmanager
def only_ours(log_file: Path) -> Iterator[Console]:
    """A console on the real output, while everything else that this process prints goes to ``log_file``.

    Libraries (and Ray's own C++ code) write to the file descriptors 1 and 2; both lead to the file meanwhile.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    log_file.parent.mkdir(parents=True, exist_ok=True)
    saved = os.dup(1), os.dup(2)
    log = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    with os.fdopen(os.dup(saved[0]), "w", buffering=1, encoding="utf-8") as real:
        os.dup2(log, 1)
        os.dup2(log, 2)
        try:
            yield Console(file=real)
        finally:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError):  # the log's disk may be full
                    stream.flush()
            os.dup2(saved[0], 1)
            os.dup2(saved[1], 2)
            for descriptor in (*saved, log):
                os.close(descriptor)
