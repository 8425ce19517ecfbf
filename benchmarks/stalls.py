"""Where a driver's time goes, call by call, and how long it stands still: clocks around methods, and a pulse."""

from __future__ import annotations

import contextlib
import functools
import itertools
import sys
import threading
import time
import traceback
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Any
from unittest import mock

TICK_SECONDS = 0.01
LOOK_SECONDS = 0.2
"""A silence that is longer is looked into: where does the thread stand?"""

KEPT = 5


@dataclass
class Clock:
    """The calls of one method: when each came to its end, and its seconds."""

    ends: array[float] = field(default_factory=lambda: array("d"))
    seconds: array[float] = field(default_factory=lambda: array("d"))

    def add(self, end: float, seconds: float) -> None:
        """One call more."""
        self.ends.append(end)
        self.seconds.append(seconds)

    def summary(self) -> dict[str, Any]:
        """How often, seconds in all, the longest call, and milliseconds a call by quarter of the calls."""
        count = len(self.seconds)
        edges = [round(index * count / 4) for index in range(5)]
        parts = [self.seconds[a:b] for a, b in itertools.pairwise(edges)]
        return {
            "calls": count,
            "seconds": sum(self.seconds),
            "longest": max(self.seconds, default=0.0),
            "quarters": [1000 * sum(part) / len(part) for part in parts] if count >= 40 else [],
        }


@dataclass(order=True)
class Stall:
    """A silence of the driver.

    Attributes:
        seconds: how long.
        calls: how many beats had been before.
        where: what the thread was doing, as far as somebody looked; the innermost first.
    """

    seconds: float
    calls: int
    where: str = ""


class Pulse:
    """Hears the driver's loop beat, and notes the longest silences; a thread looks where it stands in them.

    Args:
        watched: the identity of the driver's thread.

    Attributes:
        stalls: the longest silences, the longest first.
        late: by how much the watching thread itself was late at the most: nobody had the interpreter then.
    """

    def __init__(self, watched: int) -> None:
        self.stalls: list[Stall] = []
        self.late = 0.0
        self._watched = watched
        self._beats, self._last = 0, time.perf_counter()
        self._where, self._working = "", True
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._tick, name="pulse", daemon=True)

    def __enter__(self) -> Pulse:
        self._last = time.perf_counter()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.beat(False)
        self._end.set()
        self._thread.join()

    def beat(self, working: bool) -> None:
        """The loop has come by; ``working``: whether there is work until it comes again, so that a silence counts."""
        now = time.perf_counter()
        silent = now - self._last
        if self._working and (len(self.stalls) < KEPT or silent > self.stalls[-1].seconds):
            self.stalls = sorted([*self.stalls, Stall(silent, self._beats, self._where)], reverse=True)[:KEPT]
        self._beats, self._last, self._where, self._working = self._beats + 1, now, "", working

    def _tick(self) -> None:
        while True:
            before = time.perf_counter()
            if self._end.wait(TICK_SECONDS):
                return
            now = time.perf_counter()
            self.late = max(self.late, now - before - TICK_SECONDS)
            if now - self._last > LOOK_SECONDS and not self._where:
                self._where = standing(sys._current_frames().get(self._watched))


def standing(frame: FrameType | None, lines: int = 6) -> str:
    """Where a thread stands: functions with their files, the innermost first."""
    stack = traceback.extract_stack(frame, limit=40)[::-1][:lines] if frame is not None else []
    return " < ".join(f"{one.name} ({'/'.join(one.filename.rsplit('/', 2)[-2:])}:{one.lineno})" for one in stack)


@contextlib.contextmanager
def clocked(methods: Sequence[tuple[Any, str]], beat: Callable[[], None] = lambda: None) -> Iterator[dict[str, Clock]]:
    """Clocks by ``Owner.method`` around the methods meanwhile; ``beat`` is called at both ends of each call."""
    clocks: dict[str, Clock] = {}
    with contextlib.ExitStack() as patches:
        for owner, name in methods:
            label = f"{owner.__name__.rpartition('.')[2].lstrip('_')}.{name.strip('_')}"
            clocks[label] = Clock()
            patches.enter_context(mock.patch.object(owner, name, _wrapped(getattr(owner, name), clocks[label], beat)))
        yield clocks


def _wrapped(method: Callable[..., Any], clock: Clock, beat: Callable[[], None]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(*arguments: Any, **named: Any) -> Any:
        beat()
        begun = time.perf_counter()
        try:
            return method(*arguments, **named)
        finally:
            end = time.perf_counter()
            clock.add(end, end - begun)
            beat()

    return call
