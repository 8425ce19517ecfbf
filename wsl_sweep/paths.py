"""Where things lie on a machine."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """The user's cache: teachers and timings, shared by all sweeps of a machine.

    ``WSL_SWEEP_CACHE``, else ``XDG_CACHE_HOME/wsl-sweep``, else ``~/.cache/wsl-sweep``. Not made here.
    """
    named = os.environ.get("WSL_SWEEP_CACHE")
    if named:
        return Path(named).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser().absolute() / "wsl-sweep"
