"""What a tracking server's errors mean, and how long one call may take."""

from __future__ import annotations

import logging
import os
import re
from enum import Enum

from wsl_sweep.tracking.settings import redact

TIMEOUT = "MLFLOW_HTTP_REQUEST_TIMEOUT"
FIRST_TIMEOUT, LONGEST_TIMEOUT = 10, 80
"""Seconds: a hung server is noticed soon, and one that is merely slow is given more and more."""

_timeout: int | None = None
"""Seconds that a call may take now; None before ``prepare_calls``, 0 where the user has set it."""


class Answer(Enum):
    """What an error of a call says."""

    LATER = "the server is away, busy, or lets nobody in for now"
    PERHAPS = "it may be the server or what was asked: tried again while the server does not answer others either"
    NEVER = "the server will not take this"


_NEVER = frozenset({"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS"})
_LATER = frozenset(
    {
        "TEMPORARILY_UNAVAILABLE",
        "REQUEST_LIMIT_EXCEEDED",
        "RESOURCE_EXHAUSTED",
        "DEADLINE_EXCEEDED",
        "CANCELLED",
        "PERMISSION_DENIED",  # by a proxy, or while somebody mends the server's users
        "CUSTOMER_UNAUTHORIZED",
        "UNAUTHENTICATED",
    }
)


def meaning(error: Exception) -> Answer:
    """What an error of a call to MLflow means for trying it again."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    if isinstance(error, MlflowException):
        code = getattr(error, "error_code", "INTERNAL_ERROR")  # a code that MLflow does not know leaves none
        return Answer.NEVER if code in _NEVER else Answer.LATER if code in _LATER else Answer.PERHAPS
    return Answer.PERHAPS if isinstance(error, OSError | SQLAlchemyError) else Answer.NEVER


_CALL = re.compile(
    r"""API request to (\S+?)/api/\S+ failed with .*\(Caused by \w+\(['"](?:\w+\([^)]*\): )?(.*)['"]\)\)"""
)
"""Of what MLflow says of a failed call: the server's address and the reason."""


def told(error: Exception) -> str:
    """An error in a line, without credentials."""
    first = next((line for line in str(error).splitlines() if line.strip()), "")
    call = _CALL.search(first)
    text = f"{call[1]}: {call[2]}" if call is not None else f"{type(error).__name__}: {first}"
    return redact(text)[:200]


def prepare_calls() -> None:
    """Sets how MLflow's client calls a server, as far as the user has not.

    It tries nothing again by itself: it would for minutes, obey a server that says when to come back, and send what
    makes a run a second time. The writer tries again, and looks first.
    """
    global _timeout
    if _timeout is None:
        _timeout = 0 if TIMEOUT in os.environ else FIRST_TIMEOUT
        shorter_calls()
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # which asks for the run again first
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("mlflow.store").setLevel(logging.CRITICAL)  # its errors are raised too


def longer_calls(seconds: float) -> None:
    """After a call that failed in so many seconds: where that was all it had, the next ones get twice as many."""
    global _timeout
    if _timeout and seconds >= 0.9 * _timeout:
        _timeout = min(2 * _timeout, LONGEST_TIMEOUT)
        os.environ[TIMEOUT] = str(_timeout)


def shorter_calls() -> None:
    """Back to the first seconds: for a writer that begins or is about to end."""
    global _timeout
    if _timeout:
        _timeout = FIRST_TIMEOUT
        os.environ[TIMEOUT] = str(_timeout)
