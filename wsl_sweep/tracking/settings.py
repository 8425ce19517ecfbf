"""Which tracking server, which experiment; and what may be shown of an address."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

DEFAULT_URI = "sqlite:///mlflow.db"
"""MLflow's own default: a bare ``mlflow ui`` in the same folder shows it."""


@dataclass(frozen=True)
class Tracking:
    """Where the runs go.

    Attributes:
        uri: as MLflow takes it; may hold credentials, so never shown without ``redact``.
        experiment: its name.
    """

    uri: str
    experiment: str


def resolve_tracking(option: str | None, in_file: str | None, experiment: str) -> Tracking:
    """The command line wins over the file, the file over ``MLFLOW_TRACKING_URI``, that over the default."""
    uri = option or in_file or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI
    return Tracking(uri, experiment)


_USER = re.compile(r"""(\w[\w+.-]*://)(?:[^/\s'"]*|[^/:\s'"]*:[^\s'"]*)@""")
"""Of an address; a password may hold ``@``, ``:`` and ``/``."""

_QUERY = re.compile(r"(\w[\w+.-]*://[^?\s]*)\?\S*")
_PASSWORD = re.compile(r"""\b(password|passwd|pwd)\s*=\s*('[^']*'|"[^"]*"|[^\s&;,'"]+)""", re.IGNORECASE)


def redact(text: str) -> str:
    """The text without user names, passwords and query strings in its addresses."""
    return _PASSWORD.sub(r"\1=***", _QUERY.sub(r"\1", _USER.sub(r"\1", text)))


def git_commit(folder: Path) -> str:
    """The commit checked out in ``folder``, with ``-dirty`` where files differ from it, or ``unknown``."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return described.stdout.strip() or "unknown"
