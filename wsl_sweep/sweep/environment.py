"""Environment variables that Ray reads when it is imported; so this module does not import it."""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
from pathlib import Path

from wsl_sweep.paths import cache_folder

SETTINGS = {
    "RAY_DISABLE_IMPORT_WARNING": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_prestart_worker_first_driver": "0",  # one for each core, of which Tune's actors take none
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_MAX_PENDING_TRIALS_PG": "64",  # workers start side by side; who waits is the searcher's to say
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "600",
}


def prepare_environment(*, local: bool) -> None:
    """Sets what Ray is to find, before it is imported; what the user has set stays.

    A Ray of this machine alone gets a token of the user's own: it listens on all addresses whatever it is told, and
    only the token keeps others from running code in it.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    if local and "ray" not in sys.modules:
        os.environ["RAY_AUTH_MODE"] = "token"
        if not (os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")):
            os.environ["RAY_AUTH_TOKEN_PATH"] = str(_own_token())


def _own_token() -> Path:
    """A token of this user's own, readable by nobody else."""
    path = cache_folder() / "ray_token"
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with contextlib.suppress(FileExistsError):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))
    return path
