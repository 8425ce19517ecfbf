"""Where sweeps are kept: a folder on a disk or a network's, or a part of an object store. Whole files, no appending.

Nothing here locks a file or adds to one: neither an object store nor NFS can be relied on for that. What is needed
beside whole files is one thing, a file that only one of several makers makes (``Place.create``).
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import shutil
import tempfile
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from wsl_sweep.errors import StorageError, WslSweepError
from wsl_sweep.files import sync_folder, write_whole

READS = 10
"""How often a file of an object store is read again that changed meanwhile."""

NO_LINKS = frozenset({errno.EPERM, errno.EACCES, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK})
"""What a file system without hard links says."""

CLAIM_SECONDS = 60.0
"""A claim on a file of an object store counts so long: its maker may have died."""


class Place(ABC):
    """A file or a folder, there or not yet: the part of ``pathlib.Path`` that an object store can do, too.

    ``str`` gives a path or a URL from which ``place`` makes an equal one, in any process.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """The last part."""

    @property
    @abstractmethod
    def parent(self) -> Place:
        """The folder in which it lies."""

    @property
    @abstractmethod
    def local(self) -> Path | None:
        """The path, where it is a file system's."""

    @abstractmethod
    def absolute(self) -> Place:
        """The same, wherever one looks from."""

    @abstractmethod
    def __truediv__(self, name: str) -> Place:
        """Something in this folder."""

    @abstractmethod
    def read_bytes(self) -> bytes:
        """The whole content. Raises OSError: it is not there; StorageError: the store does not answer."""

    @abstractmethod
    def write(self, content: bytes, *, lasting: bool = True) -> None:
        """Writes the file so that a reader sees all of it or what was there before; folders are made.

        Args:
            content: of the file.
            lasting: False where a file that a power cut has torn will be noticed, and does no harm.

        Raises:
            StorageError: it cannot be written.
        """

    @abstractmethod
    def create(self, content: bytes) -> bool:
        """Writes the file if there is none; of several who try, one gets True. Raises StorageError."""

    @abstractmethod
    def exists(self) -> bool:
        """Whether there is such a file or folder. Raises StorageError: the store does not answer."""

    @abstractmethod
    def names(self) -> list[str]:
        """What lies in the folder, sorted, without what begins with a dot; nothing where there is no such folder.

        Raises StorageError: the store does not answer.
        """

    @abstractmethod
    def delete(self) -> None:
        """Deletes the file, or the folder with all that is in it; nothing happens where there is none.

        Raises StorageError: it cannot be deleted.
        """

    def read_text(self) -> str:
        """The content as UTF-8."""
        return self.read_bytes().decode("utf-8")

    def read_json(self) -> Any:
        """The content as JSON. Raises OSError or ValueError."""
        return json.loads(self.read_bytes())

    def write_json(self, value: Any) -> None:
        """Writes ``value`` as JSON, whole; NaN and infinities are not JSON and raise ValueError."""
        self.write((json.dumps(value, indent=2, allow_nan=False) + "\n").encode())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Place) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def __repr__(self) -> str:
        return f"place({str(self)!r})"


def place(where: str | Path | Place) -> Place:
    """A path, or a URL of an object store (``s3://bucket/runs``, ``gs://…``, or any that fsspec knows).

    Raises WslSweepError: a URL that nothing here can open, or one that holds credentials.
    """
    if isinstance(where, Place):
        return where
    text = str(where)
    if "://" not in text:
        return DiskPlace(Path(text).expanduser())
    if text.startswith("file://"):
        return DiskPlace(Path(urlsplit(text).path))
    if "@" in urlsplit(text).netloc:
        raise WslSweepError(
            "the storage's address holds credentials, which would be kept with the sweep: give them by the environment "
            "(for S3 AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)"
        )
    system, root = _object_store(text.rstrip("/"))
    return ObjectPlace(system, PurePosixPath(root), text.rstrip("/"))


class DiskPlace(Place):
    """On a file system, a network's too."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def parent(self) -> Place:
        return DiskPlace(self.path.parent)

    @property
    def local(self) -> Path | None:
        return self.path

    def absolute(self) -> Place:
        return DiskPlace(self.path.absolute())

    def __truediv__(self, name: str) -> Place:
        return DiskPlace(self.path / name)

    def read_bytes(self) -> bytes:
        return self.path.read_bytes()

    def write(self, content: bytes, *, lasting: bool = True) -> None:
        write_whole(self.path, content, lasting=lasting)

    def create(self, content: bytes) -> bool:
        with _storing(self):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                os.chmod(temporary, 0o644)
                made = _link(temporary, self.path)
                sync_folder(self.path.parent)
                return made
            finally:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)

    def exists(self) -> bool:
        return self.path.exists()

    def names(self) -> list[str]:
        try:
            return sorted(name for name in os.listdir(self.path) if not name.startswith("."))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise StorageError(f"cannot read {self}: {error.strerror or error}") from error

    def delete(self) -> None:
        with _storing(self, "delete"):
            if self.path.is_dir() and not self.path.is_symlink():
                shutil.rmtree(self.path)
            else:
                self.path.unlink(missing_ok=True)


def _link(temporary: str, path: Path) -> bool:
    """Gives a finished file its name, unless another has it; a hard link is atomic on NFS, too."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        # NFS asks again where an answer was lost, and the second call finds what the first has made.
        return os.stat(temporary).st_nlink == 2
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            return False
        with os.fdopen(handle, "wb") as file:
            file.write(Path(temporary).read_bytes())
    return True


class ObjectPlace(Place):
    """In an object store.

    Args:
        system: a ``pyarrow.fs.FileSystem``.
        path: in it.
        url: of the whole.
    """

    def __init__(self, system: Any, path: PurePosixPath, url: str) -> None:
        self._system, self._path, self._url = system, path, url

    def __str__(self) -> str:
        return self._url

    @property
    def name(self) -> str:
        return self._path.name

    @property
    def parent(self) -> Place:
        return ObjectPlace(self._system, self._path.parent, self._url.rpartition("/")[0])

    @property
    def local(self) -> Path | None:
        return None

    def absolute(self) -> Place:
        return self

    def __truediv__(self, name: str) -> Place:
        return ObjectPlace(self._system, self._path / name, f"{self._url}/{name}")

    def read_bytes(self) -> bytes:
        with _storing(self, "read"):
            for again in reversed(range(READS)):
                # Its size is asked for before its content: a file that is written anew in between is read again.
                try:
                    with self._system.open_input_file(str(self._path)) as file:
                        size = file.size()
                        # In one request: ``read`` would ask for the rest of a shorter file that came in between, and
                        # might get it of the next.
                        content: bytes = file.read_at(size, 0)
                except OSError:
                    if not again or not self.exists():
                        raise
                    continue
                if size == len(content) and self._system.get_file_info(str(self._path)).size in (None, size):
                    return content
        raise StorageError(f"cannot read {self}: it is written anew all the time")

    def write(self, content: bytes, *, lasting: bool = True) -> None:
        with _storing(self), self._system.open_output_stream(str(self._path)) as stream:
            stream.write(content)

    def create(self, content: bytes) -> bool:
        """See ``Place.create``. An object store has no such thing: who writes is agreed on by claims beside the file.

        Who sees no other claim after making its own writes; of those who see each other the first in the order of
        their names waits until the others have written or withdrawn. Stores that list what was written before the
        listing began, as S3 and its like do, let no two through.
        """
        own = f".{self.name}.claim-{uuid.uuid4().hex}"
        claim = self.parent / own
        with _storing(self):
            if self.exists():
                return False
            claim.write(b"")
            try:
                give_up = time.monotonic() + CLAIM_SECONDS
                while others := self._claims_beside(own):
                    if self.exists() or own > min(others):
                        return False
                    if time.monotonic() > give_up:
                        break  # whoever claimed it has died
                    time.sleep(0.05)
                if self.exists():
                    return False
                self.write(content)
                return True
            finally:
                claim.delete()

    def _claims_beside(self, own: str) -> list[str]:
        """The other claims that count: by the store's clock not much older than one's own."""
        prefix = f".{self.name}.claim-"
        made = {info.base_name: info.mtime_ns or 0 for info in self._infos(self._path.parent)}
        oldest = made.get(own, 0) - CLAIM_SECONDS * 1e9
        return [name for name, when in made.items() if name.startswith(prefix) and name != own and when >= oldest]

    def exists(self) -> bool:
        from pyarrow.fs import FileType

        with _storing(self, "read"):
            return bool(self._system.get_file_info(str(self._path)).type != FileType.NotFound)

    def names(self) -> list[str]:
        return sorted(info.base_name for info in self._infos(self._path) if not info.base_name.startswith("."))

    def _infos(self, path: PurePosixPath) -> list[Any]:
        from pyarrow.fs import FileSelector

        with _storing(self, "read"):
            return list(self._system.get_file_info(FileSelector(str(path), allow_not_found=True)))

    def delete(self) -> None:
        from pyarrow.fs import FileType

        with _storing(self, "delete"):
            kind = self._system.get_file_info(str(self._path)).type
            if kind == FileType.Directory:
                self._system.delete_dir(str(self._path))
            elif kind == FileType.File:
                self._system.delete_file(str(self._path))


@contextlib.contextmanager
def _storing(where: Place, doing: str = "write") -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        if doing == "read":
            raise
        raise StorageError(f"cannot {doing} {where}: no such place") from None
    except OSError as error:
        lines = str(error.strerror or error).strip().splitlines()
        raise StorageError(f"cannot {doing} {where}: {lines[0] if lines else type(error).__name__}") from error


@functools.lru_cache(maxsize=64)
def _object_store(url: str) -> tuple[Any, str]:
    """pyarrow's file system for a URL and the path in it; what pyarrow does not know itself, fsspec may."""
    try:
        from pyarrow.fs import FileSystem, FSSpecHandler, PyFileSystem
    except ImportError as error:
        raise WslSweepError(f"{url}: an object store needs pyarrow: pip install pyarrow") from error
    try:
        system, path = FileSystem.from_uri(url)
        return system, str(path)
    except (OSError, ValueError) as first:
        if url.startswith(("s3://", "gs://", "hdfs://")):
            raise WslSweepError(f"{url}: {str(first).splitlines()[0]}") from first
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(url, use_listings_cache=False)
    except (ImportError, ValueError, OSError) as error:
        raise WslSweepError(f"{url}: {str(error).splitlines()[0]}") from error
    return PyFileSystem(FSSpecHandler(system)), str(path)
