"""Any folder of class folders: decoded and resized once, kept as one file in the user's cache."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image, ImageOps
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from wsl_sweep.data.raw import Progress, RawData
from wsl_sweep.errors import WslSweepError
from wsl_sweep.files import write_json, write_whole
from wsl_sweep.image_listing import Listing, Picture, list_pictures
from wsl_sweep.paths import cache_folder

GREY_MODES = frozenset({"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N", "F"})

NAMED_AT_MOST = 5
"""Broken pictures that are named; the rest are counted."""

MEMORY_SHARE = 0.8
"""Of the machine's memory that COPIES of the pictures may take."""

COPIES = 3
"""While they are decoded and written: as they come, without what is left out, and as the bytes of the file."""

DECODER = 2
"""Changes with how pictures are decoded, so that older ones in a cache are not taken for these."""


def load_image_folder(root: str, size: int, progress: Progress = lambda done, of: None) -> RawData:
    """The pictures of ``root`` as ``list_pictures`` finds them, each cut to a square and resized to ``size`` pixels.

    Grey where every picture is, else colour. What cannot be decoded is left out and told in ``notes``. The result is
    kept in the cache, so that other processes and later sweeps do not decode again.

    Args:
        root: the folder.
        size: pixels of a side.
        progress: hears (done, of) while pictures are decoded.

    Raises:
        WslSweepError: no such folder, fewer than two classes, too many pictures that are broken, or more pictures
            than memory.
    """
    listing = list_pictures(root)
    _check_memory(listing, size)
    key = hashlib.sha256(f"{DECODER}/{listing.state()}/{size}".encode()).hexdigest()[:16]
    folder = cache_folder() / "data" / key
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            found = _read(folder, listing)
            if found is None:
                _decode(listing, size, folder, progress)
                found = _read(folder, listing)
    except OSError as error:
        raise WslSweepError(
            f"cannot keep the pictures of {root} in {folder}: {error.strerror or error}; "
            "set WSL_SWEEP_CACHE to a folder that can be written"
        ) from error
    assert found is not None
    return found


def _read(folder: Path, listing: Listing) -> RawData | None:
    """What an earlier run has left, or None."""
    try:
        facts = json.loads((folder / "facts.json").read_text())
        tensors = load_file(folder / "pictures.safetensors")
        images, labels, test = tensors["images"], tensors["labels"], tensors["test"]
        broken: list[tuple[str, str]] = [(str(path), str(reason)) for path, reason in facts["broken"]]
        lost = [
            f"{listing.root}: no picture of class {name} can be read; the class is left out" for name in facts["lost"]
        ]
        digest, names = str(facts["digest"]), tuple(map(str, facts["class_names"]))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        return None
    return RawData(
        images=images,
        labels=labels,
        num_classes=len(names),
        digest=digest,
        test=test.nonzero().squeeze(1) if bool(test.any()) else None,
        notes=(*listing.notes, *broken_notes(listing.root, broken), *lost),
        class_names=names,
    )


def _decode(listing: Listing, size: int, folder: Path, progress: Progress) -> None:
    good: list[Picture] = []
    broken: list[tuple[str, str]] = []
    grey, coloured = True, list[int]()
    pixels = np.empty((len(listing.pictures), 3, size, size), dtype=np.uint8)
    for done, (picture, result) in enumerate(_decoded(listing, size), start=1):
        if isinstance(result, str):
            broken.append((picture.path, result))
        else:
            pixels[len(good)] = result.pixels
            grey = grey and (result.grey or picture.test)  # nothing is decided by the test part
            if not result.grey:
                coloured.append(len(good))
            good.append(picture)
        progress(done, len(listing.pictures))
    if len(broken) * 2 > len(listing.pictures):
        raise WslSweepError(
            f"{listing.root}: {len(broken)} of {len(listing.pictures)} pictures cannot be read, the first of them "
            f"{broken[0][0]} ({broken[0][1]})"
        )
    filled = sorted({picture.label for picture in good if not picture.test})
    if len(filled) < 2:
        raise WslSweepError(f"{listing.root}: pictures of {len(filled)} class can be read; two or more must")
    new_label = {label: index for index, label in enumerate(filled)}
    rows = [row for row, picture in enumerate(good) if picture.label in new_label]
    if listing.has_test and not any(good[row].test for row in rows):
        raise WslSweepError(f"{listing.root}: no picture of the test folder can be read")
    if grey:
        pixels[coloured, 0] = _luminance(pixels[coloured])
    kept = pixels[: len(good)] if len(rows) == len(good) else pixels[rows]
    if grey:
        kept = np.ascontiguousarray(kept[:, :1])
    labels = np.array([new_label[good[row].label] for row in rows], dtype=np.int64)
    tensors = {
        "images": torch.from_numpy(kept),
        "labels": torch.from_numpy(labels),
        "test": torch.tensor([good[row].test for row in rows], dtype=torch.bool),
    }
    digest = hashlib.sha256()
    for array in (kept, labels, tensors["test"].numpy()):
        digest.update(array.data)
    write_whole(folder / "pictures.safetensors", save(tensors))
    facts = {
        "root": str(listing.root),
        "size": size,
        "class_names": [listing.classes[label] for label in filled],
        "broken": broken,
        "lost": [name for label, name in enumerate(listing.classes) if label not in filled],
        "digest": digest.hexdigest(),
    }
    write_json(folder / "facts.json", facts)


@dataclass(frozen=True)
class _Decoded:
    pixels: NDArray[np.uint8]
    grey: bool


def _decoded(listing: Listing, size: int) -> Iterator[tuple[Picture, _Decoded | str]]:
    """Each picture with its pixels (3, size, size), or with what is wrong with it."""

    def work(picture: Picture) -> _Decoded | str:
        try:
            with Image.open(listing.root / picture.path) as image:
                return _square(image, size)
        except Exception as error:  # a decoder meets anything in a broken file
            return reason_of(error, listing.root)

    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as workers:
        step = 512  # so that not all of a large folder waits in memory
        for start in range(0, len(listing.pictures), step):
            chunk = listing.pictures[start : start + step]
            yield from zip(chunk, workers.map(work, chunk), strict=True)


def _square(image: Image.Image, size: int) -> _Decoded:
    """The picture as its camera was held, cut to the largest square in its middle, resized with antialiasing."""
    grey = image.mode in GREY_MODES
    colour = to_rgb(ImageOps.exif_transpose(image))
    if colour.size != (size, size):
        colour = ImageOps.fit(colour, (size, size), method=Image.Resampling.BILINEAR)
    return _Decoded(np.asarray(colour, dtype=np.uint8).transpose(2, 0, 1), grey)


def to_rgb(image: Image.Image) -> Image.Image:
    """A picture of any mode (grey, of a palette, of inks, of 16 bits) in colour; transparency is dropped."""
    if image.mode.startswith(("I", "F")):
        image = Image.fromarray(_to_bytes(np.asarray(image).astype(np.float64), image.mode))
    return image.convert("RGB")


def _to_bytes(values: NDArray[np.float64], mode: str) -> NDArray[np.uint8]:
    """Numbers of 16 bits and more as bytes; their range is the mode's, or, where that is open, told by the values."""
    largest = float(values.max(initial=0.0))
    if mode == "F" and largest <= 1:
        values = values * 255
    elif mode.startswith("I;16") or (mode == "I" and 255 < largest <= 65535):
        values = values / 257
    elif largest > 65535:
        values = values * (255 / largest)
    return values.clip(0, 255).round().astype(np.uint8)


def _luminance(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(N, H, W) grey values of (N, 3, H, W) colours (ITU-R 601, as Pillow has it)."""
    weights = np.array([299, 587, 114], dtype=np.uint32).reshape(1, 3, 1, 1)
    grey: NDArray[np.uint8] = ((pixels * weights).sum(axis=1) // 1000).astype(np.uint8)
    return grey


def reason_of(error: Exception, root: Path) -> str:
    """What a decoder says of a broken file, in a line, without the folder."""
    lines = str(error).replace(str(root) + os.sep, "").strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def named(broken: Sequence[tuple[str, str]]) -> str:
    """The first of the broken pictures (path, what is wrong), and how many more there are."""
    first = ", ".join(f"{path} ({reason})" for path, reason in broken[:NAMED_AT_MOST])
    return first + (f", and {len(broken) - NAMED_AT_MOST} more" if len(broken) > NAMED_AT_MOST else "")


def broken_notes(root: Path, broken: Sequence[tuple[str, str]]) -> list[str]:
    """A note on pictures that are left out: nothing where there are none."""
    if not broken:
        return []
    count = f"{len(broken)} pictures cannot be read and are" if len(broken) > 1 else "1 picture cannot be read and is"
    return [f"{root}: {count} left out: {named(broken)}"]


def _check_memory(listing: Listing, size: int) -> None:
    needed = COPIES * len(listing.pictures) * 3 * size * size
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > MEMORY_SHARE * there:
        raise WslSweepError(
            f"{listing.root}: {len(listing.pictures):,} pictures of {size}x{size} take {needed / 2**30:.1f} GiB, and "
            f"this machine has {there / 2**30:.1f}; lower dataset.size"
        )
