"""How a fit ends before its end: signals, other terminals, a lost lease. Trials save first."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from wsl_sweep.errors import Terminated, WslSweepError
from wsl_sweep.storage import Place
from wsl_sweep.sweep.conductor import Conductor
from wsl_sweep.sweep.control import CONTROL, STOP
from wsl_sweep.sweep.flags import lower_flags, raise_flag
from wsl_sweep.sweep.lease import Lease

SAVE_SECONDS = 30.0
"""What trials have to save, when a sweep is stopped."""

WATCH_SECONDS = 0.25

ASKED_SECONDS = {True: 1.0, False: 5.0}
"""Between two looks at what ``wsl-sweep stop`` asks: on a file system, in an object store."""


@dataclass
class Interrupt:
    """SIGINT and SIGTERM as a flag, on which trials save and the fit ends; a second one ends the process at once."""

    signum: int | None = None
    fitting: bool = False
    _before: dict[int, Any] = field(default_factory=dict)

    def install(self) -> None:
        """Takes both signals; to be called again after ``ray.init``, which takes SIGTERM for itself."""
        for signum in (signal.SIGINT, signal.SIGTERM):
            handler = signal.signal(signum, self._handle)
            self._before.setdefault(signum, handler)
        self._before.setdefault(signal.SIGUSR1, signal.signal(signal.SIGUSR1, signal.SIG_IGN))

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """Inside, a first signal is only noted."""
        before, self.fitting = self.fitting, True
        try:
            yield
        finally:
            self.fitting = before

    def restore(self) -> None:
        """Gives the signals back."""
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        self._before.clear()

    def _handle(self, signum: int, _: FrameType | None) -> None:
        again = self.signum is not None
        self.signum = signum
        if again or not self.fitting:
            raise Terminated if signum == signal.SIGTERM else KeyboardInterrupt


class Watch:
    """A thread that sees why a fit should end, asks the trials to save, and ends it once they have.

    It only raises flags; the ledger is written where the sweep's script runs.

    Args:
        conductor: whose fit it is.
        folder: of the sweep.
        uuid: of the sweep.
        lease: of the driver, or None.
        interrupt: the signals' flag.
        problems: what has gone wrong in the driver itself; a lost lease is added.
    """

    def __init__(
        self,
        conductor: Conductor,
        folder: Place,
        uuid: str,
        *,
        lease: Lease | None,
        interrupt: Interrupt,
        problems: list[BaseException],
    ) -> None:
        self._conductor, self._uuid, self._lease = conductor, uuid, lease
        self._interrupt, self._problems = interrupt, problems
        self._control = folder / CONTROL
        self._pause = ASKED_SECONDS[folder.local is not None]
        self._looked = 0.0
        self._asked: set[str] = set()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)

    def __enter__(self) -> Watch:
        lower_flags(self._uuid)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(timeout=10.0)
        lower_flags(self._uuid)

    def _watch(self) -> None:
        while not self._end.wait(WATCH_SECONDS):
            reason = self._why_end()
            if reason is None:
                continue
            self._conductor.stop(reason)
            with contextlib.suppress(Exception):  # without Ray's head there is nobody to ask
                raise_flag(self._uuid, reason)
            until = time.monotonic() + SAVE_SECONDS
            while time.monotonic() < until and self._conductor.training and self._lease_held():
                if self._end.wait(WATCH_SECONDS):
                    return
            if not self._end.wait(1.0):  # Tune ends by itself once it is told that nothing comes any more
                os.kill(os.getpid(), signal.SIGUSR1)  # its own way to end at once
            return

    def _why_end(self) -> str | None:
        if self._interrupt.signum is not None:
            return f"the sweep was stopped by {signal.Signals(self._interrupt.signum).name}"
        if not self._lease_held() or self._problems:
            return "the driver of the sweep cannot go on"
        if time.monotonic() - self._looked >= self._pause:
            self._looked = time.monotonic()
            self._heed()
        return self._conductor.stopping

    def _heed(self) -> None:
        """What other terminals ask for."""
        with contextlib.suppress(OSError, WslSweepError):
            for name in self._control.names():
                if name == STOP:
                    self._conductor.stop("the sweep was stopped by wsl-sweep stop")
                elif name.startswith(f"{STOP}-") and (trial_id := name.removeprefix(f"{STOP}-")):
                    self._conductor.unwanted.add(trial_id)
                    if trial_id not in self._asked:
                        with contextlib.suppress(Exception):  # Ray's head may not answer now; asked again then
                            raise_flag(self._uuid, "the trial was stopped by wsl-sweep stop", trial_id)
                            self._asked.add(trial_id)

    def _lease_held(self) -> bool:
        if self._lease is None or self._lease.held:
            return True
        if not self._problems:
            try:
                self._lease.check()
            except WslSweepError as error:
                self._problems.append(error)
        return False
