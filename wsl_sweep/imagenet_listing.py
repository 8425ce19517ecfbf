"""What lies in ImageNet's folders, told from names alone; a million files are a few arrays, not a million objects."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsl_sweep.errors import WslSweepError
from wsl_sweep.image_listing import folder_stamp, is_picture
from wsl_sweep.paths import node_folder

TRAIN, TEST = "train", "val"
"""The folders of the training pictures and of those that are the test part."""

LAYOUT = f"imagenet reads ROOT/{TRAIN}/<class>/*.JPEG and, as its test part, ROOT/{TEST}/<class>/*.JPEG"

LISTERS = 16
"""Threads that list folders: most of the time is a disk's, or a network's."""


@dataclass(frozen=True)
class ImageNetListing:
    """Folders of pictures; M of them, first the N training pictures, then those of the test part.

    Attributes:
        root: the folder.
        classes: names of the class folders that have training pictures, in order; a label is an index into it.
        names: where each picture lies in its class folder, one after the other.
        ends: (M,) int64, where each name ends.
        labels: (M,) int32.
        sizes: (M,) int64, of the files in bytes.
        modified: (M,) int64, in nanoseconds since 1970.
        train: N.
        notes: what was left out, for the user.
    """

    root: Path
    classes: tuple[str, ...]
    names: bytes
    ends: NDArray[np.int64]
    labels: NDArray[np.int32]
    sizes: NDArray[np.int64]
    modified: NDArray[np.int64]
    train: int
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def path(self, row: int) -> str:
        """Where a picture lies, relative to the root."""
        name = os.fsdecode(self.names[int(self.ends[row - 1]) if row else 0 : int(self.ends[row])])
        return os.path.join(TRAIN if row < self.train else TEST, self.classes[int(self.labels[row])], name)

    def content(self) -> str:
        """SHA-256 of every picture's place and size: the same for a copy elsewhere. No file is read for it."""
        return self._content

    @cached_property
    def _content(self) -> str:
        digest = hashlib.sha256("\0".join([*self.classes, str(self.train)]).encode("utf-8", "surrogateescape"))
        digest.update(self.names)
        for numbers in (self.ends, self.labels, self.sizes):
            digest.update(numbers.astype("<i8").tobytes())
        return digest.hexdigest()

    def state(self) -> str:
        """As ``content``, of the times of last change too: what is remembered of the pictures is valid for it."""
        return hashlib.sha256(self.content().encode() + self.modified.astype("<i8").tobytes()).hexdigest()


def list_imagenet(root: str) -> ImageNetListing:
    """The pictures of ``root`` in torchvision's layout: ``root/train/<class>/…`` and ``root/val/<class>/…``.

    Classes are the training part's class folders, sorted by name. Any other folder (``test``, which has no labels) is
    passed over, as are hidden files and files that are no pictures. Looked at again only where a folder has changed.

    Raises:
        WslSweepError: a folder is missing or cannot be read, or fewer than two classes have pictures.
    """
    return _listed(root, folder_stamp(root))


def imagenet_there(root: str | None) -> bool:
    """Whether both folders are on this machine."""
    return root is not None and all((node_folder(root) / part).is_dir() for part in (TRAIN, TEST))


@lru_cache(maxsize=4)
def _listed(root: str, stamp: tuple[tuple[str, int], ...]) -> ImageNetListing:
    base = node_folder(root)
    if not base.is_dir():
        what = "is a file, not a folder" if base.exists() else "there is no such folder"
        raise WslSweepError(f"{root}: {what}; {LAYOUT}")
    try:
        return _list(base)
    except OSError as error:
        raise WslSweepError(f"{error.filename or root}: cannot be read ({error.strerror or error})") from error


def _list(base: Path) -> ImageNetListing:
    train, test = _class_folders(base / TRAIN), _class_folders(base / TEST)
    with ThreadPoolExecutor(max_workers=LISTERS) as pool:
        of_train = dict(zip(train, pool.map(_files, [base / TRAIN / name for name in train]), strict=True))
        of_test = dict(zip(test, pool.map(_files, [base / TEST / name for name in test]), strict=True))
    classes = tuple(name for name in train if len(of_train[name].sizes))
    notes = [f"{base}: class folder {name} has no training pictures and is left out" for name in train]
    notes = [note for name, note in zip(train, notes, strict=True) if name not in classes]
    unknown = [name for name in test if name not in of_train and len(of_test[name].sizes)]
    notes += [f"{base}: class {name} has pictures in {TEST} only and is left out" for name in unknown]
    if len(classes) < 2:
        raise WslSweepError(f"{base / TRAIN}: {len(classes)} of its class folders have pictures; two or more must")
    shown = [(label, of_test[name]) for label, name in enumerate(classes) if name in of_test]
    if not any(len(files.sizes) for _, files in shown):
        raise WslSweepError(f"{base / TEST}: has no pictures of the classes of {TRAIN}; {LAYOUT}")
    folders = [*((label, of_train[name]) for label, name in enumerate(classes)), *shown]
    counts = [len(files.sizes) for _, files in folders]
    return ImageNetListing(
        base,
        classes,
        b"".join(files.names for _, files in folders),
        np.concatenate([files.lengths for _, files in folders]).cumsum(),
        np.repeat(np.array([label for label, _ in folders], dtype=np.int32), counts),
        np.concatenate([files.sizes for _, files in folders]),
        np.concatenate([files.modified for _, files in folders]),
        sum(counts[: len(classes)]),
        tuple(notes),
    )


def _class_folders(folder: Path) -> list[str]:
    """Their names, sorted. Raises WslSweepError: there are none."""
    if not folder.is_dir():
        raise WslSweepError(f"{folder}: there is no such folder; {LAYOUT}")
    with os.scandir(folder) as entries:
        found = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    if not found:
        with os.scandir(folder) as entries:
            loose = sum(is_picture(entry.name) for entry in entries)
        hint = f", but {loose} pictures that belong to no class: sort them into class folders" if loose else ""
        raise WslSweepError(f"{folder}: has no folders, one for each class{hint}; {LAYOUT}")
    return found


@dataclass(frozen=True)
class _Files:
    names: bytes
    lengths: NDArray[np.int64]
    sizes: NDArray[np.int64]
    modified: NDArray[np.int64]


def _files(folder: Path) -> _Files:
    """The pictures of a class, in the order of their names."""
    found = sorted(_found(str(folder), "", (os.path.realpath(folder),)))
    numbers = np.array([(len(name), size, modified) for name, size, modified in found], dtype=np.int64).reshape(-1, 3)
    lengths, sizes, modified = (np.ascontiguousarray(numbers[:, column]) for column in range(3))
    return _Files(b"".join(name for name, _, _ in found), lengths, sizes, modified)


def _found(folder: str, prefix: str, above: Sequence[str]) -> list[tuple[bytes, int, int]]:
    """(name, size, time of last change) of the pictures in a folder and in those below it; links are followed.

    A link that leads nowhere is a picture, too: one that cannot be read, and not one that is missed by nobody.
    """
    found, inner = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if _leads_nowhere(entry):
                if is_picture(entry.name):
                    found.append((os.fsencode(prefix + entry.name), 0, entry.stat(follow_symlinks=False).st_mtime_ns))
            elif entry.is_dir():
                inner.append(entry.name)
            elif is_picture(entry.name) and entry.is_file():
                stat = entry.stat()
                found.append((os.fsencode(prefix + entry.name), stat.st_size, stat.st_mtime_ns))
    for name in inner:
        path = os.path.join(folder, name)
        real = os.path.realpath(path)
        if real not in above:
            found += _found(path, f"{prefix}{name}/", (*above, real))
    return found


def _leads_nowhere(entry: os.DirEntry[str]) -> bool:
    """Whether it is a link to what is not there, or to itself."""
    return entry.is_symlink() and not os.path.exists(entry.path)
