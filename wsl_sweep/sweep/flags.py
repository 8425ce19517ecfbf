"""Flags that the driver raises and every trial reads between its steps: the end of a sweep, or of one trial.

They lie in the memory of Ray's head, where a worker reads one in about a millisecond, whatever the storage is.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

ALL = "all"

LOOK_SECONDS = 0.5
"""Between two looks of a trial."""

Look = Callable[[], str | None]
"""Why a trial should end, or None."""


def _key(sweep: str, what: str) -> bytes:
    return f"wsl-sweep/{sweep}/stop/{what}".encode()


def raise_flag(sweep: str, reason: str, what: str = ALL) -> None:
    """Asks the trials of a sweep (by its UUID), or the one with the id ``what``, to save and end."""
    from ray.experimental.internal_kv import _internal_kv_put

    _internal_kv_put(_key(sweep, what), reason.encode(), overwrite=True)


def lower_flags(sweep: str) -> None:
    """Takes all flags of a sweep down: another driver may go on with it on the same cluster."""
    from ray.experimental.internal_kv import _internal_kv_del

    with contextlib.suppress(Exception):  # the cluster itself may be gone
        _internal_kv_del(_key(sweep, ""), del_by_prefix=True)


def look_of(sweep: str, trial_ids: list[str]) -> Look:
    """What a worker calls as often as it likes; it looks every LOOK_SECONDS, and never fails."""
    from ray.experimental.internal_kv import _internal_kv_get

    last = [0.0]
    known: list[str | None] = [None]

    def look() -> str | None:
        now = time.monotonic()
        if known[0] is None and now - last[0] >= LOOK_SECONDS:
            last[0] = now
            with contextlib.suppress(Exception):  # Ray itself ends a worker whose head is gone
                for what in (ALL, *trial_ids):
                    found = _internal_kv_get(_key(sweep, what))
                    if found is not None:
                        known[0] = found.decode()
        return known[0]

    return look
