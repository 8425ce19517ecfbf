"""Files, written whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from wsl_sweep.errors import StorageError


def write_whole(path: Path, content: bytes, *, lasting: bool = True) -> None:
    """Writes ``content`` to ``path`` so that a reader sees all of it or what was there before.

    Args:
        path: its folder is made.
        content: of the file.
        lasting: whether to wait until it is on the disk itself, where no power cut takes it.

    Raises:
        StorageError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                if lasting:
                    file.flush()
                    os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
            if lasting:
                sync_folder(path.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error


def sync_folder(folder: Path) -> None:
    """Makes a rename in ``folder`` last through a power cut, where the file system knows such a thing."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    """Writes ``value`` as JSON, whole; NaN and infinities are not JSON and raise ValueError."""
    write_whole(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
