"""Errors that a user can mend. The command line prints them without a traceback."""

from __future__ import annotations


class WslSweepError(Exception):
    """Something that the user can mend: the message says what is wrong, where, and what to do.

    ``exit_code`` is what the command line ends with: 2 for bad input, 1 for a sweep that failed.
    """

    exit_code = 2


class Terminated(KeyboardInterrupt):
    """SIGTERM ended what was going on; Ctrl-C is a KeyboardInterrupt."""


class TrialError(WslSweepError):
    """A trial cannot go on, and the reason is known; the other trials of its sweep can."""

    exit_code = 1


class DivergedError(TrialError):
    """A loss or a weight became NaN or infinite."""


class ProcessLostError(TrialError):
    """Another process of the trial died: the trial can go on from its last checkpoint."""


class DamagedStudentError(WslSweepError):
    """A student that was saved is not there any more, or cannot be read."""


class StorageError(TrialError):
    """What a sweep rests on is full or gone (its storage, the cache, its data): no trial can go on until it is back."""


class SweepError(WslSweepError):
    """A sweep ended without a result."""

    exit_code = 1
