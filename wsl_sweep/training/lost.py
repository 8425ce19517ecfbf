"""Whether an error means that what a trial rests on is gone or full, so that no other trial could go on either."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator

from wsl_sweep.errors import StorageError, WslSweepError

GONE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ENODEV})
"""What the system says of disks that are full, gone, broken or not to be written to."""

LOST = GONE | {errno.ENOENT}
"""The same, and of files that are gone."""


@contextlib.contextmanager
def resting_on(what: str, there: Callable[[], bool] = lambda: True) -> Iterator[None]:
    """Inside, data or weights are read that were there when the sweep began.

    Args:
        what: for the message of an error that has no good one.
        there: whether they still are, where an error does not say so itself.

    Raises:
        StorageError: they are gone, or what keeps them is full. Any other error stays what it is.
    """
    try:
        yield
    except StorageError:
        raise
    except WslSweepError as error:
        if _says_lost(error.__cause__) or not there():
            raise StorageError(str(error)) from error
        raise
    except OSError as error:
        if _says_lost(error):
            name = f" ({error.filename})" if error.filename else ""
            raise StorageError(f"cannot read {what}{name}: {error.strerror or error}") from error
        raise


def _says_lost(error: BaseException | None) -> bool:
    return isinstance(error, FileNotFoundError) or (isinstance(error, OSError) and error.errno in LOST)
