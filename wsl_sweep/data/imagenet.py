"""ImageNet, or any folder of its layout, streamed: pictures are decoded while a model trains, a view is a number."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from wsl_sweep.data.crops import CROPS
from wsl_sweep.data.image_folder import broken_notes, named
from wsl_sweep.data.inputs import Inputs
from wsl_sweep.data.jpegs import PLAIN, Looker, Piece, Reader, Unreadable
from wsl_sweep.data.loading import Loading
from wsl_sweep.data.raw import Progress
from wsl_sweep.data.task import Task
from wsl_sweep.errors import StorageError, TrialError, WslSweepError
from wsl_sweep.files import write_json
from wsl_sweep.imagenet_listing import ImageNetListing, imagenet_there, list_imagenet
from wsl_sweep.paths import cache_folder

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's training pictures, as all published models have them."""

PIECE = 32
"""Pictures that a process brings at once; a batch is put together from several."""

LOOKED_AT_ONCE = 256

Broken = Sequence[tuple[int, str]]
"""Rows of a listing, with what is wrong."""


class ImageNet(Task):
    """A folder in ImageNet's layout; the part ``val`` is the test part.

    Args:
        listing: its files.
        size: pixels of a side.
        broken: what is left out of it.
    """

    in_channels = 3

    def __init__(self, listing: ImageNetListing, size: int, broken: Broken = ()) -> None:
        left_out = np.zeros(len(listing), dtype=np.bool_)
        left_out[[row for row, _ in broken]] = True
        self._listing, self._size = listing, size
        self._rows = np.flatnonzero(~left_out)
        self.labels = torch.from_numpy(listing.labels[self._rows].astype(np.int64))
        self.num_classes, self.class_names = len(listing.classes), listing.classes
        train = int((self._rows < listing.train).sum())
        self.test = torch.arange(train, len(self._rows))
        told = [(listing.path(row), reason) for row, reason in broken]
        self.notes = (*listing.notes, *broken_notes(listing.root, told))
        self.digest = hashlib.sha256(json.dumps([listing.content(), [row for row, _ in broken]]).encode()).hexdigest()
        self._loading: tuple[tuple[bool, int, bool], Loading] | None = None
        if len(np.unique(self.labels[:train])) < 2 or train == len(self._rows):
            raise WslSweepError(f"{listing.root}: too few pictures can be read: {named(told)}")

    def metrics(self, logits: Tensor, labels: Tensor) -> dict[str, float]:
        """``top5_accuracy``: how often the label is among the five largest logits; of fewer classes, among all."""
        return {"top5_accuracy": top_accuracy(logits, labels, 5)}

    def inputs(
        self, config: Mapping[str, Any], rows: Tensor, device: str, *, training: bool, workers: int = 0
    ) -> Inputs:
        """See ``Task``; ``views`` of the section is a number or ``epoch``."""
        views, flip = config.get("views", "epoch"), bool(config.get("flip", False))
        if views != "epoch" and not isinstance(views, int):
            raise WslSweepError(f"dataset.views: crops have no end, so that {views} is none: take epoch, or a number")
        return _Streamed(self, rows, device, None if views == "epoch" else views, flip, workers)

    def loading(self, flip: bool, workers: int, pin: bool) -> Loading:
        """What brings the pictures, the same for all parts and epochs."""
        reader = Reader(self._listing, self._rows, self._size, flip)
        if not workers:
            return Loading(reader, 0)
        if self._loading is None or self._loading[0] != (flip, workers, pin):
            self._loading = (flip, workers, pin), Loading(reader, workers, pin)
        return self._loading[1]

    def facts(self) -> dict[str, Any]:
        """What all inputs have in common."""
        return {
            "name": "imagenet",
            "shape": [3, self._size, self._size],
            "crops": CROPS,
            "decoder": {name: version(name) for name in ("pillow", "torchvision")},
            "scale": 255.0,
            "mean": list(MEAN),
            "std": list(STD),
        }

    def unreadable(self, what: Unreadable) -> TrialError:
        """The error where a picture cannot be read any more."""
        where = self._listing.root / what.path
        if what.gone or not imagenet_there(str(self._listing.root)):
            return StorageError(f"cannot read {where}: {what.reason}; is its disk gone?")
        return TrialError(f"cannot read {where}: {what.reason}; it could be read before: mend it, or put it back")


class _Streamed(Inputs):
    streamed = True

    def __init__(self, task: ImageNet, rows: Tensor, device: str, count: int | None, flip: bool, workers: int) -> None:
        self.count, self.device = count, torch.device(device)
        self.identity = PLAIN if count is None else count
        self._task, self._rows, self._flip, self._workers = task, rows.numpy(), flip, workers
        self._shape: list[int] = task.facts()["shape"]
        # One number for each of a picture's, though three would do: three at a time are slow to subtract on a CPU.
        self._mean, self._std = (
            torch.tensor(one, dtype=torch.float32, device=device)
            .view(1, 3, 1, 1)
            .expand(1, *self._shape)
            .contiguous(memory_format=torch.channels_last)
            for one in (MEAN, STD)
        )

    @property
    def cells(self) -> int:
        """The crops, and the plain view."""
        return 0 if self.count is None else self.count + 1

    def take(self, examples: Tensor, views: Tensor) -> Tensor:
        """See ``Inputs``."""
        examples, views = examples.cpu(), views.cpu()
        workers = self._workers if len(examples) > PIECE else 0
        with contextlib.closing(self._batches(examples, views, [len(examples)], workers)) as batches:
            return next(batches)

    def batches(self, examples: Tensor, views: Tensor, sizes: Sequence[int]) -> Generator[Tensor]:
        """See ``Inputs``; closing it ends the processes that are at work for it."""
        return self._batches(examples, views, sizes, self._workers)

    def facts(self) -> dict[str, Any]:
        """See ``Inputs``."""
        return {**self._task.facts(), "count": self.count, "flip": self._flip}

    def _batches(self, examples: Tensor, views: Tensor, sizes: Sequence[int], workers: int) -> Generator[Tensor]:
        ids, numbers = self._rows[examples.numpy()], views.numpy()
        numbers = np.where(numbers == self.identity, PLAIN, numbers)
        ends = np.cumsum(sizes).tolist()
        pieces: list[Piece] = []
        for start, end in itertools.pairwise([0, *ends]):
            cuts = [*range(start, end, PIECE), end]
            pieces += [(ids[a:b], numbers[a:b]) for a, b in itertools.pairwise(cuts)]
        loading = self._task.loading(self._flip, workers, self.device.type == "cuda")
        with contextlib.closing(loading.results(pieces)) as results:
            for size in sizes:
                yield self._normalised(results, size)

    def _normalised(self, results: Iterator[Tensor | Unreadable], size: int) -> Tensor:
        """The next ``size`` pictures on the device, float32, in channels_last."""
        shape = (size, *self._shape)
        pictures = torch.empty(shape, dtype=torch.float32, device=self.device, memory_format=torch.channels_last)
        filled = 0
        while filled < size:
            some = next(results)
            if isinstance(some, Unreadable):
                raise self._task.unreadable(some)
            # Bytes cross to a device, and become numbers there.
            pictures[filled : filled + len(some)].copy_(some.to(self.device, non_blocking=True))
            filled += len(some)
        return pictures.div_(255.0).sub_(self._mean).div_(self._std)


def top_accuracy(logits: Tensor, labels: Tensor, k: int) -> float:
    """How often the label (N,) is among the ``k`` largest of (N, C) logits, in [0, 1]; of fewer classes, among all."""
    best = logits.topk(min(k, logits.shape[1]), dim=1).indices
    return float((best == labels.unsqueeze(1)).any(dim=1).double().mean())


def read_imagenet(
    config: Mapping[str, Any], progress: Progress = lambda done, of: None, *, again: bool = False
) -> ImageNet:
    """The data set of a ``dataset`` section whose name is ``imagenet``; the first time all its files are looked at.

    Args:
        config: ``root``, ``size``, ``damaged``.
        progress: hears (done, of) while files are looked at.
        again: as for ``find_broken``.

    Raises:
        WslSweepError: the layout is another, or pictures are damaged and not to be left out.
    """
    root, size = config.get("root"), config.get("size")
    if root is None or size is None:
        raise WslSweepError("imagenet needs dataset.root, a folder with train and val, and dataset.size")
    listing = list_imagenet(str(root))
    broken = find_broken(listing, progress, again=again)
    if broken and config.get("damaged", "refuse") != "skip":
        told = named([(listing.path(row), reason) for row, reason in broken])
        raise WslSweepError(
            f"{listing.root}: {len(broken)} of {len(listing):,} pictures cannot be read: {told}; mend them, or set "
            "dataset.damaged: skip to leave them out"
        )
    return ImageNet(listing, size, broken)


def find_broken(listing: ImageNetListing, progress: Progress = lambda done, of: None, *, again: bool = False) -> Broken:
    """The pictures that cannot be read, found by all of this machine's cores; remembered in the user's cache.

    Args:
        listing: of the files.
        progress: hears (done, of) while they are looked at.
        again: whether those that are remembered as broken are looked at once more: of a disk that had a fault, or of a
            permission that was missing, no time of change tells that it is mended.
    """
    kept = cache_folder() / "data" / f"imagenet-{listing.state()[:16]}.json"
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(kept.with_suffix(".lock")):
            found = _remembered(kept)
            if found is None:
                found = _look(listing, progress)
                _remember(kept, found)
            elif again and found:
                before, found = found, Looker(listing)([row for row, _ in found])
                if found != before:
                    _remember(kept, found)
            return found
    except OSError as error:
        raise WslSweepError(
            f"cannot remember in {kept.parent} which pictures of {listing.root} can be read: "
            f"{error.strerror or error}; set WSL_SWEEP_CACHE to a folder that can be written"
        ) from error


def _remember(kept: Path, found: Broken) -> None:
    write_json(kept, {"pillow": version("pillow"), "broken": found})


def _remembered(kept: Path) -> Broken | None:
    try:
        facts = json.loads(kept.read_text())
        found = [(int(row), str(reason)) for row, reason in facts["broken"]]
        return found if facts["pillow"] == version("pillow") else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _look(listing: ImageNetListing, progress: Progress) -> Broken:
    count, found = len(listing), list[tuple[int, str]]()
    pieces = [range(start, min(start + LOOKED_AT_ONCE, count)) for start in range(0, count, LOOKED_AT_ONCE)]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = min(cores, len(pieces)) if len(pieces) > 1 else 0
    for piece, broken in zip(pieces, Loading(Looker(listing), workers).results(pieces), strict=True):
        found += broken
        progress(piece.stop, count)
    return found
