"""CIFAR-10 and CIFAR-100 through torchvision: downloaded once, checked by their checksums."""

from __future__ import annotations

import contextlib
import hashlib
import pickle
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from wsl_sweep.data.kept import find_pictures, keep_pictures, kept_pictures
from wsl_sweep.data.raw import RawData
from wsl_sweep.errors import WslSweepError
from wsl_sweep.paths import cache_folder, node_folder

STATISTICS = {"cifar100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761))}
"""Mean and standard deviation as RepDistiller has them; CIFAR-10's are computed."""

DOWNLOAD_TIMEOUT = 30.0
"""Seconds without an answer after which a download is given up."""


def cifar_root(root: str | None) -> Path:
    """Where the data lie: ``dataset.root``, or ``datasets`` in the user's cache."""
    return node_folder(root) if root else cache_folder() / "datasets"


def cifar_there(name: str, root: str | None = None) -> bool:
    """Whether the data are in their folder, unpacked or not."""
    from torchvision.datasets import CIFAR10, CIFAR100

    kind: Any = {"cifar10": CIFAR10, "cifar100": CIFAR100}[name]
    return any((cifar_root(root) / entry).exists() for entry in (kind.base_folder, kind.filename))


def load_cifar(name: str, root: str | None = None) -> RawData:
    """``cifar10`` or ``cifar100``: 50,000 training and 10,000 test pictures of 32x32 pixels.

    torchvision's own reader, which checks every file against the official checksum before it opens it, and downloads
    what is absent with a progress bar.

    Raises:
        WslSweepError: the data are not there and cannot be downloaded, with the folder and the name of the file.
    """
    from torchvision.datasets import CIFAR10, CIFAR100

    kind: Any = {"cifar10": CIFAR10, "cifar100": CIFAR100}[name]
    folder = cifar_root(root)
    kept = _kept_in(folder / kind.base_folder)
    found = None if kept is None else find_pictures(kept)
    if found is not None:
        images, labels, facts = found
        return _raw(name, images, labels, int(facts["classes"]), int(facts["train"]), facts["digest"])
    try:
        train, test = (kind(str(folder), train=part, download=False) for part in (True, False))
    except RuntimeError:
        _download(name, kind, folder)
        train, test = (kind(str(folder), train=part, download=False) for part in (True, False))
    pictures = np.concatenate([train.data, test.data])
    images = torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2)))
    labels = torch.tensor([*train.targets, *test.targets], dtype=torch.int64)
    digest = hashlib.sha256(images.numpy().data)
    digest.update(labels.numpy().data)
    kept = _kept_in(folder / kind.base_folder)
    if kept is not None:
        facts = {"digest": digest.hexdigest(), "classes": str(len(train.classes)), "train": str(len(train.data))}
        keep_pictures(kept, images, labels, facts)
    return _raw(name, images, labels, len(train.classes), len(train.data), digest.hexdigest())


def cifar_names(name: str, root: str | None = None) -> tuple[str, ...]:
    """The names of the classes, in the order of the labels. Raises WslSweepError: the data are absent or damaged."""
    from torchvision.datasets import CIFAR10, CIFAR100

    kind: Any = {"cifar10": CIFAR10, "cifar100": CIFAR100}[name]
    try:
        return tuple(kind(str(cifar_root(root)), train=False, download=False).classes)
    except RuntimeError as error:
        raise WslSweepError(f"{name} in {cifar_root(root)}: {str(error).strip().splitlines()[0]}") from error


def cifar_superclasses(root: str | None = None) -> tuple[str, ...]:
    """Of each class of CIFAR-100 the name of its superclass, as the training file's own coarse labels have it.

    Raises:
        WslSweepError: the data are absent or damaged, or a class has not exactly one superclass.
    """
    from torchvision.datasets import CIFAR100
    from torchvision.datasets.utils import check_integrity

    kind: Any = CIFAR100
    folder = cifar_root(root) / kind.base_folder
    meta, batch = (
        _unpickled(folder / name, checksum, check_integrity)
        for name, checksum in ((kind.meta["filename"], kind.meta["md5"]), *kind.train_list)
    )
    classes, names = meta["fine_label_names"], meta["coarse_label_names"]
    pairs = {*zip(batch["fine_labels"], batch["coarse_labels"], strict=True)}
    found = dict(pairs)
    if len(pairs) != len(found) or sorted(found) != list(range(len(classes))):
        raise WslSweepError(f"{folder}: not every class of cifar100 has exactly one superclass")
    return tuple(str(names[found[label]]) for label in range(len(classes)))


def _unpickled(file: Path, checksum: str, check_integrity: Callable[[str, str], bool]) -> dict[str, Any]:
    """What a published file holds; no other is opened."""
    if not check_integrity(str(file), checksum):
        raise WslSweepError(f"cifar100 in {file.parent.parent}: {file.name} is absent or damaged")
    return dict(pickle.loads(file.read_bytes(), encoding="latin1"))


def _raw(name: str, images: Tensor, labels: Tensor, classes: int, train: int, digest: str) -> RawData:
    mean, std = (torch.tensor(values) for values in STATISTICS[name]) if name in STATISTICS else (None, None)
    return RawData(
        images=images,
        labels=labels,
        num_classes=classes,
        digest=digest,
        mean=mean,
        std=std,
        test=torch.arange(train, len(images)),
    )


def _kept_in(folder: Path) -> Path | None:
    """Where the pictures of an unpacked data set are kept: named by its files and their times; None if absent."""
    try:
        files = [(entry.name, entry.stat().st_size, entry.stat().st_mtime_ns) for entry in sorted(folder.iterdir())]
    except OSError:
        return None
    key = hashlib.sha256(repr((str(folder.resolve()), files)).encode()).hexdigest()[:16]
    return kept_pictures(f"cifar-{key}")


def _download(name: str, kind: Any, folder: Path) -> None:
    from torchvision.datasets.utils import download_and_extract_archive

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{name}.lock"), _impatient(), contextlib.redirect_stdout(sys.stderr):
            with contextlib.suppress(RuntimeError):
                kind(str(folder), train=True, download=False)
                return  # another process has brought it while this one waited
            # Not by the data set itself, which asks for the pictures' files only and never repairs the classes' names.
            download_and_extract_archive(kind.url, str(folder), filename=kind.filename, md5=kind.tgz_md5)
    except (OSError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise WslSweepError(
            f"{name} is not in {folder} and cannot be downloaded ({reason}); put the file {kind.filename} there, "
            f"or the folder {kind.base_folder} that it unpacks to, or name another folder by dataset.root"
        ) from error


@contextlib.contextmanager
def _impatient() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
