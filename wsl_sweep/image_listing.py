"""What lies in a folder of class folders, told from names alone: no picture is opened, nothing heavy is imported."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from wsl_sweep.errors import WslSweepError

PICTURE_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
TEST_FOLDERS = ("test", "val", "valid", "validation")


@dataclass(frozen=True)
class Picture:
    """One picture file.

    Attributes:
        path: relative to the root.
        label: number of its class.
        test: whether it lies in the test folder.
        size: of the file, in bytes.
        modified: in nanoseconds since 1970.
    """

    path: str
    label: int
    test: bool
    size: int
    modified: int


@dataclass(frozen=True)
class Listing:
    """A folder of pictures.

    Attributes:
        root: the folder.
        classes: names of the classes that have pictures, in order; a label is an index into it.
        pictures: in the order of their paths.
        has_test: whether a test folder was found.
        notes: what was left out, for the user.
    """

    root: Path
    classes: tuple[str, ...]
    pictures: tuple[Picture, ...]
    has_test: bool
    notes: tuple[str, ...]

    def content(self) -> str:
        """SHA-256 of every picture's place in the folder and size: the same for a copy elsewhere."""
        return self._content

    @cached_property
    def _content(self) -> str:
        digest = hashlib.sha256()
        for picture in self.pictures:
            digest.update(f"{picture.path}\0{picture.size}\0".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def state(self) -> str:
        """As ``content``, with the times of last change: what a cache of decoded pictures is valid for."""
        digest = hashlib.sha256(self.content().encode())
        for picture in self.pictures:
            digest.update(str(picture.modified).encode() + b"\0")
        return digest.hexdigest()


def folder_stamp(root: str) -> tuple[tuple[str, int], ...]:
    """Times of last change of a folder and of the folders two levels below: changes when files come or go."""
    base = Path(root).expanduser()
    stamp = []
    with contextlib.suppress(OSError):
        stamp.append((".", base.stat().st_mtime_ns))
        for one in _folders(base):
            stamp.append((one, (base / one).stat().st_mtime_ns))
            stamp += [(f"{one}/{two}", (base / one / two).stat().st_mtime_ns) for two in _folders(base / one)]
    return tuple(stamp)


def list_pictures(root: str) -> Listing:
    """The pictures of ``root``, where each class is a folder.

    Three layouts: ``root/<class>/…``, of which a test part is split off; ``root/train/<class>/…``, likewise; and with
    ``root/test/<class>/…`` beside it (or ``val``, ``valid``, ``validation``, which join the training pictures where
    there is a ``test`` too). Hidden files and files that are no pictures are passed over. Read again only
    where the folder has changed.

    Raises:
        WslSweepError: no such folder, no class folders, or pictures of fewer than two classes.
    """
    return _listed(root, folder_stamp(root))


@lru_cache(maxsize=8)
def _listed(root: str, stamp: tuple[tuple[str, int], ...]) -> Listing:
    base = Path(root).expanduser()
    if not base.is_dir():
        what = "is a file, not a folder" if base.exists() else "there is no such folder"
        raise WslSweepError(f"{root}: {what}")
    try:
        return _list(base)
    except OSError as error:
        raise WslSweepError(f"{error.filename or root}: cannot be read ({error.strerror or error})") from error


def _list(base: Path) -> Listing:
    names = _folders(base)
    pool, tests = [base], []
    if "train" in names:
        found = [name for name in TEST_FOLDERS if name in names]
        tests = [base / name for name in found[:1]]
        pool = [base / "train", *(base / name for name in found[1:])]
    classes = sorted({name for folder in pool for name in _folders(folder)})
    if not classes:
        loose = sum(_is_picture(entry.name) for entry in os.scandir(pool[0]))
        hint = f" (but {loose} pictures that belong to no class)" if loose else ""
        raise WslSweepError(f"{pool[0]}: has no folders, one for each class{hint}")
    files: list[tuple[str, str, bool, os.stat_result]] = []
    for folder, test in [*((one, False) for one in pool), *((one, True) for one in tests)]:
        for name in _folders(folder):
            for path in _walk(folder / name):
                files.append((str(path.relative_to(base)), name, test, path.stat()))  # noqa: PERF401
    filled = sorted({name for _, name, test, _ in files if not test})
    only_test = sorted({name for _, name, test, _ in files if test} - set(filled))
    notes = [f"{base}: class folder {name} has no pictures and is left out" for name in classes if name not in filled]
    notes += [f"{base}: class {name} has test pictures only and is left out" for name in only_test]
    if len(filled) < 2:
        raise WslSweepError(f"{base}: {len(filled)} of its class folders have pictures; two or more must")
    labels = {name: label for label, name in enumerate(filled)}
    pictures = tuple(
        Picture(path, labels[name], test, stat.st_size, stat.st_mtime_ns)
        for path, name, test, stat in sorted(files, key=lambda file: file[0])
        if name in labels
    )
    return Listing(base, tuple(filled), pictures, any(picture.test for picture in pictures), tuple(notes))


def _folders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))


def _walk(folder: Path) -> Iterator[Path]:
    seen = {os.path.realpath(parent) for parent in (folder, *folder.parents)}
    seen |= {str(parent) for parent in Path(os.path.realpath(folder)).parents}

    def fail(error: OSError) -> None:
        raise error

    for place, inner, names in os.walk(folder, onerror=fail, followlinks=True):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        real = {name: os.path.realpath(os.path.join(place, name)) for name in inner}
        inner[:] = [name for name in inner if real[name] not in seen]
        seen.update(real.values())
        for name in sorted(names):
            if _is_picture(name) and (Path(place) / name).is_file():
                yield Path(place) / name


def _is_picture(name: str) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in PICTURE_SUFFIXES
