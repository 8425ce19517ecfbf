"""What lies in a folder of class folders, told from names alone: no picture is opened, nothing heavy is imported."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from wsl_sweep.errors import TrialError, WslSweepError
from wsl_sweep.files import file_digest, write_json
from wsl_sweep.paths import cache_folder, node_folder

PICTURE_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
TRAIN_FOLDERS = ("train", "training")
TEST_FOLDERS = ("test", "testing", "val", "valid", "validation")


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
        """SHA-256 of every picture's place in the folder and bytes: the same for a copy elsewhere.

        Reading them all takes seconds for some ten thousand pictures, so the answer is kept in the user's cache for as
        long as no file's size or time of change differs.
        """
        return self._content

    @cached_property
    def _content(self) -> str:
        kept = cache_folder() / "data" / f"content-{self.state()[:16]}.json"
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            return str(json.loads(kept.read_text())["content"])
        digest = hashlib.sha256()
        for picture in self.pictures:
            place = picture.path.encode("utf-8", "surrogateescape")
            try:
                digest.update(place + b"\0" + bytes.fromhex(file_digest(self.root / picture.path)))
            except OSError as error:
                raise WslSweepError(
                    f"{self.root / picture.path}: cannot be read ({error.strerror or error})"
                ) from error
        with contextlib.suppress(TrialError):  # it is computed again next time
            write_json(kept, {"content": digest.hexdigest()})
        return digest.hexdigest()

    def state(self) -> str:
        """SHA-256 of every picture's place, size and time of last change: what caches of pictures are valid for."""
        digest = hashlib.sha256()
        for picture in self.pictures:
            digest.update(
                os.fsencode(picture.path) + f"\0{picture.size}\0{picture.modified}\0{picture.test}\0".encode()
            )
        return digest.hexdigest()


_stamps: ContextVar[dict[str, tuple[tuple[str, int], ...]] | None] = ContextVar("stamps", default=None)


@contextlib.contextmanager
def unchanging() -> Iterator[None]:
    """Within this, each folder is looked at once: a sweep is about pictures that stay as they are."""
    token = _stamps.set({})
    try:
        yield
    finally:
        _stamps.reset(token)


def folder_stamp(root: str) -> tuple[tuple[str, int], ...]:
    """Times of last change of a folder and of the folders two levels below: changes when files come or go."""
    known = _stamps.get()
    if known is not None and root in known:
        return known[root]
    base = node_folder(root)
    stamp = []
    with contextlib.suppress(OSError):
        stamp.append((".", base.stat().st_mtime_ns))
        for one in _folders(base):
            stamp.append((one, (base / one).stat().st_mtime_ns))
            stamp += [(f"{one}/{two}", (base / one / two).stat().st_mtime_ns) for two in _folders(base / one)]
    if known is not None:
        known[root] = tuple(stamp)
    return tuple(stamp)


def list_pictures(root: str) -> Listing:
    """The pictures of ``root``, where each class is a folder.

    Three layouts: ``root/<class>/…``, of which a test part is split off; ``root/train/<class>/…``, likewise; and with
    ``root/test/<class>/…`` beside it. ``val``, ``valid`` or ``validation`` is the test part where there is no ``test``,
    and joins the training pictures where there is; ``training`` and ``testing`` do as well, in upper or lower case.
    Hidden files and files that are no pictures are passed over. Read again only where the folder has changed.

    Raises:
        WslSweepError: no such folder, no class folders, pictures of fewer than two classes, or class folders that hold
            nothing but the same folders again.
    """
    return _listed(root, folder_stamp(root))


@lru_cache(maxsize=8)
def _listed(root: str, stamp: tuple[tuple[str, int], ...]) -> Listing:
    base = node_folder(root)
    if not base.is_dir():
        what = "is a file, not a folder" if base.exists() else "there is no such folder"
        raise WslSweepError(f"{root}: {what}")
    try:
        return _list(base)
    except OSError as error:
        raise WslSweepError(f"{error.filename or root}: cannot be read ({error.strerror or error})") from error


def _list(base: Path) -> Listing:
    train, tests = _parts(base)
    pool = [base] if train is None else [train, *tests[1:]]
    tests = tests[:1]
    classes = sorted({name for folder in pool for name in _folders(folder)})
    if not classes:
        loose = sum(is_picture(entry.name) for entry in os.scandir(pool[0]))
        hint = f" (but {loose} pictures that belong to no class)" if loose else ""
        raise WslSweepError(f"{pool[0]}: has no folders, one for each class{hint}")
    _check_classes(pool[0], _folders(pool[0]))
    files: list[tuple[str, str, bool, os.stat_result]] = []
    for folder, test in [*((one, False) for one in pool), *((one, True) for one in tests)]:
        for name in _folders(folder):
            files += [(str(path.relative_to(base)), name, test, path.stat()) for path in _walk(folder / name)]
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


def _parts(base: Path) -> tuple[Path | None, list[Path]]:
    """The folder of training pictures, if there is one that holds class folders, and those of test pictures."""
    names = {name.lower(): name for name in reversed(_folders(base))}
    train = next((base / names[name] for name in TRAIN_FOLDERS if name in names), None)
    if train is None or not _folders(train):
        return None, []
    return train, [base / names[name] for name in TEST_FOLDERS if name in names and _folders(base / names[name])]


def _check_classes(folder: Path, names: list[str]) -> None:
    """Folders without a picture of their own that all hold the same folders are parts of the data, not classes."""
    inner = [_folders(folder / name) for name in names]
    if len(names) < 2 or not inner[0] or any(one != inner[0] for one in inner):
        return
    if any(is_picture(entry.name) for name in names for entry in os.scandir(folder / name)):
        return
    raise WslSweepError(
        f"{folder}: {', '.join(names)} hold the same folders, {', '.join(inner[0][:5])}: if these are the classes, "
        "call the parts train and test, or name one of the parts by dataset.root"
    )


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
            if is_picture(name) and (Path(place) / name).is_file():
                yield Path(place) / name


def is_picture(name: str) -> bool:
    """Whether a file is a picture, told from its name; hidden ones are none."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in PICTURE_SUFFIXES
