"""A queue of operations for a server that may be slow or away, a thread that does them in order, and its end."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from wsl_sweep.tracking.answers import Answer, longer_calls, meaning, shorter_calls, told

FIRST_PAUSE, LONGEST_PAUSE, PAUSE_AT_END = 0.5, 10.0, 1.0
TRIES = 8
"""Of an operation that fails while the server answers others: after them it is left out."""

RESERVE = 5.0
"""Seconds of the end that are left, by all but the last ``flush``, for the last."""

THREAD = "mlflow-writer"
"""The name of the thread that does them."""

log = logging.getLogger("wsl_sweep.tracking")


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Operation:
    """Something to do.

    Attributes:
        do: may raise, and may then be called again.
        what: a key of ``WHAT``, by which it is counted as long as it is not done; empty if it need not be.
        whose: of things with the same key and the same owner one counts.
        give_up: called where it is left out.
        essential: without it nothing else can be done, so it is tried whatever the server says.
    """

    do: Callable[[], None]
    what: str = ""
    whose: str = ""
    give_up: Callable[[], None] = _nothing
    essential: bool = False


WHAT = {
    "run": ("a run", "{} runs"),
    "metrics": ("the metrics of a trial", "the metrics of {} trials"),
    "test": ("the test metrics of a trial", "the test metrics of {} trials"),
    "end": ("the end of a run", "the ends of {} runs"),
    "description": ("the sweep's description", "the sweep's description"),
    "artifacts": ("a file of the report", "{} files of the report"),
    "sweep": ("the sweep's own end", "the sweep's own end"),
}


class Outbox:
    """Does operations one after the other in a thread of its own; nobody who adds one waits.

    Args:
        probe: raises where the server does not answer.
        answered: when it last did, by ``time.monotonic``.

    Attributes:
        problem: what is wrong with the server, in a line, or None.
        refused: what was left out: keys of ``WHAT`` and whose.
    """

    def __init__(self, probe: Callable[[], None], answered: Callable[[], float]) -> None:
        self.problem: str | None = None
        self.refused: set[tuple[str, str]] = set()
        self._probe, self._answered = probe, answered
        self._queue: queue.Queue[Operation] = queue.Queue()
        self._current: Operation | None = None
        self._left: float | None = None
        self._patience: float | None = None
        self._ending = threading.Event()
        self._over = self._at_once = False
        self._thread = threading.Thread(target=self._work, name=THREAD, daemon=True)

    def start(self) -> None:
        """Starts the thread; again is no harm."""
        if not self._thread.is_alive():
            self._thread.start()

    def put(self, operation: Operation) -> None:
        """Adds an operation."""
        self._queue.put(operation)

    def begin_end(self, seconds: float, patience: float | None) -> None:
        """From now on all waiting together takes at most so long. See ``MlflowWriter.begin_end``."""
        self._left, self._patience = seconds, patience
        shorter_calls()
        self._ending.set()

    def flush(self, seconds: float, *, last: bool = True) -> bool:
        """Waits until what is there by now is done or left out; False where that was not in time.

        Unless it is the ``last`` flush, it leaves some of the end's seconds for that.
        """
        done = threading.Event()
        self.put(Operation(done.set))
        most = seconds
        if self._left is not None:
            most = min(seconds, self._left if last else self._left - min(RESERVE, self._left / 4))
        begun = time.monotonic()
        while not done.is_set() and self._waits(begun, most):
            done.wait(min(0.2, max(0.0, begun + most - time.monotonic())))
        waited = time.monotonic() - begun
        if self._left is not None:
            self._left = max(0.0, self._left - waited)
        if last and not done.is_set() and self.problem is None:
            said = "too slow to take it all" if self._answered() > begun else "no answer"
            self.problem = f"{said} in {max(1, round(waited))} s"
        return done.is_set()

    def _waits(self, begun: float, most: float) -> bool:
        now = time.monotonic()
        if not self._thread.is_alive() or now - begun >= most:
            return False
        return self._patience is None or now - max(begun, self._answered()) < self._patience

    def stop(self, *, at_once: bool) -> None:
        """Ends the thread: ``at_once`` after what it has in hand. Where a call holds it, it ends with the process."""
        self._over, self._at_once = True, at_once
        self._ending.set()
        self.put(_STOP)
        if self._thread.is_alive():
            self._thread.join(timeout=0.1 if at_once else 5.0)

    def left(self) -> set[tuple[str, str]]:
        """What is not done: left out, in hand, or still to come."""
        with self._queue.mutex:
            waiting = [*self._queue.queue]
        if self._current is not None:
            waiting.append(self._current)
        return self.refused | {(one.what, one.whose) for one in waiting if one.what}

    # --- the thread ----------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while (operation := self._queue.get()) is not _STOP:
            self._current = operation
            if not self._until_done(operation) or self._at_once:
                return
            self._current = None

    def _until_done(self, operation: Operation) -> bool:
        """Tries again while the server is away; what it refuses is left out, and what comes after goes on.

        False where the server did not come back before the end.
        """
        pause, tries = FIRST_PAUSE, 0
        while True:
            begun = time.monotonic()
            try:
                operation.do()
            except Exception as error:
                longer_calls(time.monotonic() - begun)
                self._note(error)
                tries += 1
                if not operation.essential and self._hopeless(error, tries):
                    self.refused.add((operation.what or "description", operation.whose))
                    operation.give_up()
                    return True
                if self._over:
                    return False
                self._pause(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
                continue
            if not self.refused:
                self.problem = None  # the server was away, and is back
            return True

    def _note(self, error: Exception) -> None:
        problem = told(error)
        if problem != self.problem:
            log.warning("%s", problem)
        self.problem = problem

    def _hopeless(self, error: Exception, tries: int) -> bool:
        """Whether an operation is to be left out: refused, or failing again and again while the server is well."""
        answer = meaning(error)
        if answer is not Answer.PERHAPS or tries < TRIES:
            return answer is Answer.NEVER
        try:
            self._probe()
        except Exception:
            return False
        return True

    def _pause(self, seconds: float) -> None:
        if self._ending.is_set():
            time.sleep(min(seconds, PAUSE_AT_END))
        else:
            self._ending.wait(seconds)


_STOP = Operation(_nothing)


def held() -> bool:
    """Whether a call to a server or a store of artifacts that does not answer still holds a thread."""
    return any(thread.name == THREAD and thread.is_alive() for thread in threading.enumerate())


def sentence(left: set[tuple[str, str]]) -> str | None:
    """What of a sweep is missing on the server, or None: "the metrics of 3 trials and the ends of 5 runs"."""
    parts = []
    for what, (one, several) in WHAT.items():
        count = sum(key == what for key, _ in left)
        if count:
            parts.append(one if count == 1 else several.format(f"{count:,}"))
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1]))) if parts else None
