"""One driver at a time: whoever runs a sweep holds its lease, renews it, and stops where it cannot."""

from __future__ import annotations

import contextlib
import json
import math
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsl_sweep import storage
from wsl_sweep.errors import SweepError, WslSweepError
from wsl_sweep.storage import Place

LEASE_SECONDS = 60.0
"""What nobody has renewed for so long is stale."""

RENEW_SECONDS = 10.0
LONG_PAST = 300.0
"""A lease that expired so long ago is stale whatever two machines' clocks differ by."""

_Content = dict[str, Any]


class LeaseLostError(SweepError):
    """Another driver has the sweep now, or may have it soon: this one must not act any more."""


@dataclass(frozen=True)
class Holder:
    """Who drives a sweep, as far as can be told.

    Attributes:
        host: its machine.
        pid: its process there.
        alive: True or False where that is known, None where only time can tell.
        taken: when it began, in seconds since 1970.
    """

    host: str
    pid: int
    alive: bool | None
    taken: float

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


class Lease:
    """The right to drive a sweep. Use ``take``.

    Its generations are the files ``lease/<number>.json``: a new one is made by exactly one taker, and renewed, or given
    back, by writing it anew.
    """

    def __init__(self, folder: Place, number: int, stale: Holder | None) -> None:
        self.stale = stale
        self.takeover = number > 1
        self._file = folder / f"{number:06d}.json"
        self._folder, self._number = folder, number
        self._owner, self._taken = uuid.uuid4().hex, time.time()
        self._until = time.monotonic() + LEASE_SECONDS
        self._why: str | None = None
        self._last_error = ""
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    @classmethod
    def take(cls, sweep: Place, say: Callable[[str], None] = lambda text: None) -> Lease:
        """The lease of a sweep; a stale one is taken over.

        A holder on this machine is alive or not; one elsewhere is given the time in which it would renew.

        Args:
            sweep: its folder.
            say: told what is waited for.

        Raises:
            WslSweepError: another driver holds it.
            StorageError: it cannot be written.
        """
        folder = sweep / "lease"
        number, content = _newest(folder)
        stale = None
        if content is not None and not content.get("released"):
            stale = _holder(content)
            if stale.alive or (stale.alive is None and _renews(folder, number, content, say)):
                since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(stale.taken))
                raise WslSweepError(
                    f"the sweep {sweep.name} is being run by {stale}, since {since}; follow it by wsl-sweep status "
                    f"--watch, or end it by wsl-sweep stop {sweep.name}"
                )
        lease = cls(folder, number + 1, stale)
        made = lease._file.create(lease._content())
        patience = time.monotonic() + storage.CLAIM_SECONDS + 5.0
        while not made and _newest(folder)[0] == number and time.monotonic() < patience:
            time.sleep(1.0)  # nobody has it: who claimed it in an object store, and died, is outlived
            made = lease._file.create(lease._content())
        if not made or _newest(folder)[0] != lease._number:
            if made:
                lease._file.delete()
            raise WslSweepError(f"another driver has just taken the sweep {sweep.name}; wsl-sweep status shows it")
        if number:
            with contextlib.suppress(WslSweepError):
                (folder / f"{number:06d}.json").delete()
        lease._thread.start()
        return lease

    def check(self) -> None:
        """Raises LeaseLostError where the lease is not held any more."""
        if self._why is None and time.monotonic() > self._until:
            last = f" ({self._last_error})" if self._last_error else ""
            self._why = f"it could not be renewed for {LEASE_SECONDS:g} s{last}"
        if self._why is not None:
            raise LeaseLostError(
                f"the lease on {self._folder.parent} is lost: {self._why}; this driver stops. What was done is kept: "
                f"wsl-sweep resume {self._folder.parent.name}"
            )

    @property
    def held(self) -> bool:
        """Whether it is."""
        try:
            self.check()
        except LeaseLostError:
            return False
        return True

    def release(self) -> None:
        """Gives it back, for the next driver to take at once."""
        if self._end.is_set():
            return
        self._end.set()
        self._thread.join(timeout=RENEW_SECONDS)
        if self.held:
            with contextlib.suppress(WslSweepError, OSError):
                if self._is_own(*_newest(self._folder)):
                    self._file.write(self._content(released=True))

    def _keep(self) -> None:
        while not self._end.wait(RENEW_SECONDS) and self._why is None:
            begun = time.monotonic()
            try:  # again and again, until the lease is over
                number, content = _newest(self._folder)
                if self._is_own(number, content):
                    self._file.write(self._content())
                    self._until, self._last_error = begun + LEASE_SECONDS, ""
                elif number >= self._number:
                    self._why = "another driver has taken it over"
                    return
            except (WslSweepError, OSError) as error:
                self._last_error = str(error)

    def _is_own(self, number: int, content: _Content | None) -> bool:
        """Whether the newest generation is this one; of one that cannot be read its number tells."""
        return number == self._number and (content or {}).get("owner", self._owner) == self._owner

    def _content(self, released: bool = False) -> bytes:
        now = time.time()
        content: _Content = {
            "owner": self._owner,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "process": _process(os.getpid()),
            "taken": self._taken,
            "renewed": now,
            "expires": now + LEASE_SECONDS,
            "released": released,
        }
        return (json.dumps(content, indent=2) + "\n").encode()


def holder(sweep: Place) -> Holder | None:
    """Who drives a sweep now; None where nobody does. ``alive`` is None only for a lease that has not expired."""
    number, content = _newest(sweep / "lease")
    if number == 0 or content is None or content.get("released"):
        return None
    found = _holder(content)
    if found.alive is False or (found.alive is None and time.time() > _number(content, "expires")):
        return None
    return found


def _newest(folder: Place) -> tuple[int, _Content | None]:
    """The number and content of the newest generation; (0, None) where there is none.

    One that cannot be read counts as held by somebody unknown.
    """
    numbers = [int(name[:-5]) for name in folder.names() if name.endswith(".json") and name[:-5].isdigit()]
    if not numbers:
        return 0, None
    number = max(numbers)
    try:
        content = (folder / f"{number:06d}.json").read_json()
    except (OSError, ValueError):
        content = None
    return number, content if isinstance(content, dict) else {}


def _holder(content: _Content) -> Holder:
    host, pid = str(content.get("host", "an unknown machine")), int(_number(content, "pid"))
    process = content.get("process")
    alive: bool | None = None
    if isinstance(process, dict) and host == socket.gethostname():
        own = _process(os.getpid())
        if (process.get("boot"), process.get("namespace")) == (own["boot"], own["namespace"]):
            alive = _process(pid) == process
    return Holder(host, pid, alive, _number(content, "taken"))


def _number(content: _Content, key: str) -> float:
    """A number in a lease; 0 for what is none."""
    value = content.get(key)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) and abs(value) < 1e15 else 0.0


def _process(pid: int) -> dict[str, Any]:
    """What tells a process from all others, also from a later one with the same number."""

    def read(path: str) -> str | None:
        try:
            return Path(path).read_text().strip()
        except OSError:
            return None

    stat = read(f"/proc/{pid}/stat")
    fields = stat.rpartition(")")[2].split() if stat else []
    running = bool(fields) and fields[0] not in ("Z", "X")
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = None
    return {
        "boot": read("/proc/sys/kernel/random/boot_id"),
        "namespace": namespace,
        "start": fields[19] if running else None,
    }


def _renews(folder: Place, number: int, content: _Content, say: Callable[[str], None]) -> bool:
    """Watches a lease that may be another machine's for as long as it takes to tell; True where it is renewed."""
    expires = _number(content, "expires")
    if expires and time.time() > expires + LONG_PAST:
        return False
    say(f"waiting for up to {LEASE_SECONDS:g} s: {_holder(content)} held this sweep, and may still do")
    until = time.monotonic() + LEASE_SECONDS
    while time.monotonic() < until:
        time.sleep(1.0)
        now_number, now = _newest(folder)
        if now_number != number or (now or {}).get("renewed") != content.get("renewed"):
            return not (now or {}).get("released")
    return False
