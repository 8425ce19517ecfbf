"""A file of rows by cell that many processes fill together, each cell once. No torch here.

A folder holds ``index`` (a number for each cell: empty, claimed by a process, or where its row lies), ``rows`` (in
the order in which they came) and small files to lock. Rows are found through memory maps, so that what one process has
written another reads without a copy; they are written by calls that can say that the disk is full.

A row names its cell and carries a checksum, so whatever a crash leaves behind, only whole rows are believed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Cells = NDArray[np.int64]
Words = NDArray[np.uint32]
Mask = NDArray[np.bool_]

HEADER_WORDS = 16
"""64-bit words at the beginning of the index; see ``_NEXT`` and what follows."""

MOST_CELLS = 2**31 - 1
"""Cells are numbered by 32 bits."""

LOCK_PATIENCE = 60.0
"""Seconds after which a lock that is held for microseconds is taken to be a sleeping process's."""

PATIENCE = 120.0
"""Seconds after which a process that claims cells and does not fill them is no longer waited for."""

_NEXT, _FOUND, _COMPUTED = 0, 1, 2
_CELL, _CHECKSUM, _OWN_WORDS = 0, 1, 2


class LockedOutError(OSError):
    """Somebody holds the lock of a record file and does not give it back."""


@dataclass(frozen=True)
class Usage:
    """What a file holds and what it was good for.

    Attributes:
        rows: written so far.
        cells: how many there can be.
        bytes: on disk.
        found: rows that somebody looked for and found.
        computed: rows that somebody looked for and had to compute.
    """

    rows: int
    cells: int
    bytes: int
    found: int
    computed: int


class RecordFile:
    """Rows of ``words`` 32-bit words, one a cell.

    Args:
        folder: where it lies; made if it is absent.
        cells: how many there are, at most MOST_CELLS.
        words: of a row.
        most_bytes: how large ``rows`` may become.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
        ValueError: too many cells, or the index has another length and somebody has it open.

    Not for several threads of one process; each is to open its own.
    """

    def __init__(self, folder: Path, cells: int, words: int, most_bytes: int) -> None:
        if not 0 < cells <= MOST_CELLS:
            raise ValueError(f"{cells} cells; at most {MOST_CELLS} can be told apart")
        self.folder, self.cells, self.words = folder, cells, words
        self._row_words = words + _OWN_WORDS
        self.allow(most_bytes)
        self._factors = _factors(self._row_words)
        self.full = False
        self._closing = contextlib.ExitStack()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock_file, self._index_file, self._rows_file = map(self._open, ("lock", "index", "rows"))
            with self._locked():
                if not _is(self._lock_file, folder / "lock"):
                    raise OSError(errno.ESTALE, "was deleted just now", str(folder))
                size = 8 * HEADER_WORDS + 4 * cells
                there = os.fstat(self._index_file).st_size
                if there != size:
                    if there:
                        self._begin_anew()
                    _reserve(self._index_file, size)
                index = mmap.mmap(self._index_file, size)
                self._header = np.frombuffer(index, dtype=np.int64, count=HEADER_WORDS)
                self._index = np.frombuffer(index, dtype=np.int32, offset=8 * HEADER_WORDS)
                self._rows: Words = np.zeros((0, self._row_words), dtype=np.uint32)
                self.owner = self._become_owner()
        except BaseException:
            self._closing.close()
            raise

    def close(self) -> None:
        """Gives up the claims and the files."""
        with contextlib.suppress(LockedOutError), self._locked(patience=1.0):
            self._index[self._index == -self.owner] = 0  # else whoever is this owner next does it
        self._closing.close()
        self._lock_file = self._index_file = self._rows_file = -1  # these numbers will be other files'

    def usage(self) -> Usage:
        """What it holds and what it was good for."""
        return self.peek(self.folder, self.cells)

    @staticmethod
    def peek(folder: Path, cells: int) -> Usage:
        """What a folder holds, from outside; nothing is written.

        Raises OSError or ValueError where it holds no whole index.
        """
        index = np.memmap(folder / "index", dtype=np.uint8, mode="r")
        header = index[: 8 * HEADER_WORDS].view(np.int64)
        entries = index[8 * HEADER_WORDS :].view(np.int32)
        if len(entries) != cells:
            raise ValueError(f"{folder} has {len(entries)} cells, not {cells}")
        return Usage(
            rows=int((entries > 0).sum()),
            cells=cells,
            bytes=sum((folder / name).stat().st_blocks * 512 for name in ("index", "rows")),
            found=int(header[_FOUND]),
            computed=int(header[_COMPUTED]),
        )

    def count(self, found: int, computed: int) -> None:
        """Adds to what the file was good for."""
        with self._locked():
            self._header[_FOUND] += found
            self._header[_COMPUTED] += computed

    def find(self, cells: Cells) -> tuple[Words, Mask]:
        """(n, words) rows of the cells, and which of them are there; the others' rows are not to be read."""
        entries = self._index[cells]
        there = entries > 0
        places = np.where(there, entries - 1, 0)
        if there.any() and int(places.max()) >= len(self._rows):
            self._map_rows()
        within = places < len(self._rows)
        rows: Words = np.zeros((len(cells), self._row_words), dtype=np.uint32)
        rows[within] = self._rows[places[within]]
        good = there & within & (rows[:, _CELL] == cells) & (rows[:, _CHECKSUM] == self._checksums(rows))
        bad = there & ~good
        if bad.any():  # a crash of the machine has taken it, or somebody has written into the file
            with self._locked():
                still = self._index[cells[bad]] == entries[bad]
                self._index[cells[bad][still]] = 0
        return rows[:, _OWN_WORDS:], good

    def claim(self, cells: Cells, most: int) -> Cells:
        """The first ``most`` of the cells that are empty, now this process's own to fill; each cell named once."""
        with self._locked():
            mine: Cells = cells[self._index[cells] == 0][:most]
            self._index[mine] = -self.owner
        return mine

    def release(self, cells: Cells) -> None:
        """Gives claimed cells back, unfilled."""
        with self._locked():
            self._index[cells[self._index[cells] == -self.owner]] = 0

    def put(self, cells: Cells, rows: Words) -> bool:
        """Fills claimed cells; False where there is no room (any more), and the claims are given back.

        Args:
            cells: (n,).
            rows: (n, words).
        """
        with self._locked():
            start = int(self._header[_NEXT])
            self.full = self.full or start + len(cells) > self._most_rows
            if not self.full:
                self._header[_NEXT] = start + len(cells)
        if not self.full:
            whole = np.empty((len(cells), self._row_words), dtype=np.uint32)
            whole[:, _CELL] = cells
            whole[:, _OWN_WORDS:] = rows
            whole[:, _CHECKSUM] = self._checksums(whole)
            try:
                _write(self._rows_file, whole, 4 * self._row_words * start)
            except OSError:  # the disk is full
                self.full = True
        if self.full:
            self.release(cells)
            return False
        with self._locked():  # which also keeps the rows before the index for whoever looks
            own = self._index[cells] == -self.owner  # not what was taken from a process that slept too long
            self._index[cells[own]] = np.arange(start + 1, start + 1 + len(cells), dtype=np.int32)[own]
        return True

    def wait(self, cells: Cells, check: Waiting) -> None:
        """Waits a little for cells that others have claimed; what a dead process has claimed becomes empty."""
        entries = self._index[cells]
        owners = np.unique(-entries[entries < 0])
        if not len(owners):
            return
        if check.due():
            for owner in owners.tolist():
                self._bury(int(owner), check.patience_is_over())
        check.sleep()

    def allow(self, most_bytes: int) -> None:
        """Sets how large ``rows`` may become."""
        self._most_rows = most_bytes // (4 * self._row_words)

    # --- inside --------------------------------------------------------------------------------------------------

    def _open(self, name: str) -> int:
        file = os.open(self.folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._closing.callback(os.close, file)
        return file

    @contextlib.contextmanager
    def _locked(self, patience: float | None = None) -> Iterator[None]:
        _acquire(self._lock_file, self.folder, patience)
        try:
            yield
        finally:
            fcntl.flock(self._lock_file, fcntl.LOCK_UN)

    def _begin_anew(self) -> None:
        """Empties a folder whose index was cut, or belongs to something else: nothing in it can be found."""
        if owned(self.folder):
            raise ValueError(f"{self.folder} has an index of another length, and is in use")
        os.ftruncate(self._rows_file, 0)
        os.ftruncate(self._index_file, 0)

    def _become_owner(self) -> int:
        """The first number whose file nobody alive has locked; a dead owner's claims become empty. Under the lock."""
        number = 1
        while True:
            file = os.open(self.folder / f"owner-{number}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(file)
                number += 1
                continue
            except BaseException:
                os.close(file)
                raise
            self._closing.callback(os.close, file)
            self._index[self._index == -number] = 0
            return number

    def _bury(self, owner: int, at_once: bool) -> None:
        """Empties the claims of an owner that is dead, or, ``at_once``, of one that is too slow."""
        file = os.open(self.folder / f"owner-{owner}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            with self._locked():  # so that nobody becomes this owner meanwhile
                if not at_once and owner != self.owner:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if at_once or owner != self.owner:
                    self._index[self._index == -owner] = 0
        except BlockingIOError:
            pass  # it lives
        finally:
            os.close(file)

    def _map_rows(self) -> None:
        size = os.fstat(self._rows_file).st_size // (4 * self._row_words)
        if size > len(self._rows):
            length = size * 4 * self._row_words
            mapped = mmap.mmap(self._rows_file, length, access=mmap.ACCESS_READ)
            self._rows = np.frombuffer(mapped, dtype=np.uint32).reshape(size, self._row_words)

    def _checksums(self, rows: Words) -> Words:
        sums: Words = rows @ self._factors
        return sums + np.uint32(0x9E3779B9)


def owned(folder: Path) -> bool:
    """Whether a living process has the file of this folder open."""
    for path in folder.glob("owner-*"):
        try:
            with path.open("r+") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return True
        except FileNotFoundError:
            continue
    return False


def set_aside(folder: Path) -> Path | None:
    """Renames a folder that no living process has open, so that whoever comes next begins a new one; None if one has.

    Raises OSError where it cannot be renamed, or its lock is not given back.
    """
    with (folder / "lock").open("a") as lock:
        _acquire(lock.fileno(), folder)
        if owned(folder) or not _is(lock.fileno(), folder / "lock"):
            return None
        return folder.rename(folder.with_name(f".{folder.name}.{os.getpid()}"))


def _acquire(file: int, folder: Path, patience: float | None = None) -> None:
    """Locks a file. It is held for microseconds; who waits in vain is told, not left waiting."""
    deadline, pause = time.monotonic() + (LOCK_PATIENCE if patience is None else min(patience, LOCK_PATIENCE)), 0.0001
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                what = f"a process that sleeps holds the lock of {folder}"
                raise LockedOutError(errno.EDEADLK, what) from None
        time.sleep(pause)
        pause = min(2 * pause, 0.01)


def _is(file: int, path: Path) -> bool:
    """Whether an open file is the one that lies at a path."""
    try:
        own, other = os.fstat(file), path.stat()
    except FileNotFoundError:
        return False
    return (own.st_dev, own.st_ino) == (other.st_dev, other.st_ino)


class Waiting:
    """How long somebody has waited for others: a little longer each time, and a look at the dead now and then."""

    def __init__(self) -> None:
        self._since = time.monotonic()
        self._looked = self._since
        self._pause = 0.0005

    def progress(self) -> None:
        """What was waited for has moved."""
        self._since, self._pause = time.monotonic(), 0.0005

    def due(self) -> bool:
        """Whether it is time to look whether they live."""
        if time.monotonic() - self._looked < 0.25:
            return False
        self._looked = time.monotonic()
        return True

    def patience_is_over(self) -> bool:
        """Whether nothing has moved for PATIENCE seconds."""
        return time.monotonic() - self._since > PATIENCE

    def sleep(self) -> None:
        """A pause."""
        time.sleep(self._pause)
        self._pause = min(self._pause * 1.5, 0.02)


def _factors(words: int) -> Words:
    """An odd factor for each word: no change of a single one goes unnoticed. None for the checksum's own place."""
    factors = (np.arange(1, words + 1, dtype=np.uint64) * np.uint64(2654435761)).astype(np.uint32) | np.uint32(1)
    factors[_CHECKSUM] = 0
    return factors


def _reserve(file: int, size: int) -> None:
    """Makes a file of zeros whose every byte has its place on the disk, so that writing to its map cannot fail."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
    else:
        zeros = bytes(1 << 20)
        for start in range(0, size, len(zeros)):
            os.pwrite(file, zeros[: size - start], start)


def _write(file: int, rows: Words, offset: int) -> None:
    content = memoryview(rows.data).cast("B")
    while content:
        written = os.pwrite(file, content, offset)
        content, offset = content[written:], offset + written
