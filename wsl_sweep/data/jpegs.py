"""Pictures from files, cropped and resized as a view says: what the processes do that bring ImageNet's pictures."""

from __future__ import annotations

import contextlib
import errno
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from wsl_sweep.data.crops import crop_of, flipped, words_of
from wsl_sweep.data.image_folder import reason_of, to_rgb
from wsl_sweep.imagenet_listing import ImageNetListing

REDUCTIONS = (8, 4, 2)
"""By how much a JPEG may be made smaller while it is decoded, which is faster."""

PLAIN = -1
"""The number of the plain view here."""

LONGEST = 4
"""How many times its shorter side a picture's longer one may be before it is resized; no more of it is cut out."""

GONE = frozenset({errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ENODEV})
"""What the system says of disks that are gone or broken."""

Piece = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Examples and their views."""

Decode = Callable[[Image.Image], Tensor]


@dataclass(frozen=True)
class Unreadable:
    """A picture that cannot be read.

    Attributes:
        path: relative to the root.
        reason: what the decoder said.
        gone: whether the disk said so.
    """

    path: str
    reason: str
    gone: bool = False


class Reader:
    """Reads pictures of a listing; the same bytes in every process.

    Args:
        listing: of the files.
        rows: (M,) where the examples stand in it.
        size: pixels of a side.
        flip: whether half of the views are mirrored.
    """

    def __init__(self, listing: ImageNetListing, rows: NDArray[np.int64], size: int, flip: bool) -> None:
        self._listing, self._rows, self._size, self._flip = listing, rows, size, flip

    def __call__(self, piece: Piece) -> Tensor | Unreadable:
        """(B, 3, size, size) uint8, in channels_last, of examples (B,) in views (B,), or the first that fails."""
        ids, views = piece
        words = words_of(ids, np.maximum(views, 0)).tolist()
        shape = (len(ids), 3, self._size, self._size)
        pictures = torch.empty(shape, dtype=torch.uint8, memory_format=torch.channels_last)
        with _silence():
            for place, (example, view) in enumerate(zip(ids.tolist(), views.tolist(), strict=True)):
                decode: Decode
                if view == PLAIN:
                    decode = partial(plain_view, size=self._size)
                else:
                    decode = partial(random_view, words=words[place], size=self._size, flip=self._flip)
                read = _read(self._listing, int(self._rows[example]), decode)
                if isinstance(read, Unreadable):
                    return read
                pictures[place] = read
        return pictures


class Looker:
    """Looks whether pictures can be read, at the smallest size that their decoder has.

    Args:
        listing: of the files.
    """

    def __init__(self, listing: ImageNetListing) -> None:
        self._listing = listing

    def __call__(self, rows: Sequence[int]) -> list[tuple[int, str]]:
        """(row, reason) of those that cannot."""
        with _silence():
            found = [(row, _read(self._listing, row, _all_of_it)) for row in rows]
        return [(row, read.reason) for row, read in found if isinstance(read, Unreadable)]


def random_view(image: Image.Image, *, words: list[list[int]], size: int, flip: bool) -> Tensor:
    """(3, size, size) uint8: the crop that ``words`` say, mirrored if they do and ``flip`` is true.

    Decoded at a reduced size where the crop still has ``size`` pixels each way then.
    """
    width, height = image.size
    top, left, high, wide = crop_of(words, height, width)
    by = _reduced(image, min(high, wide), size)
    top, left, high, wide = (number // by for number in (top, left, high, wide))
    cut = _colour(image).crop((left, top, left + wide, top + high))
    picture = _resized(_tensor(cut), [size, size])
    return picture.flip(-1) if flip and flipped(words) else picture


def plain_view(image: Image.Image, *, size: int) -> Tensor:
    """(3, size, size) uint8: the middle, after the shorter side was resized to 256/224 of ``size``."""
    short = round(size * 256 / 224)
    _reduced(image, min(image.size), short)
    image = _colour(image)
    width, height = image.size
    longest = LONGEST * min(image.size)
    if max(image.size) > longest:
        left, top = max(0, width - longest) // 2, max(0, height - longest) // 2
        image = image.crop((left, top, left + min(width, longest), top + min(height, longest)))
    picture: Tensor = F.center_crop(_resized(_tensor(image), [short]), [size, size])
    return picture


def _all_of_it(image: Image.Image) -> Tensor:
    image.draft(None, (1, 1))
    image.load()
    return torch.empty(0)


def _read(listing: ImageNetListing, row: int, decode: Decode) -> Tensor | Unreadable:
    path = listing.path(row)
    try:
        with Image.open(os.path.join(listing.root, path)) as image:
            return decode(image)
    except Exception as error:  # a decoder meets anything in a broken file
        gone = isinstance(error, OSError) and error.errno in GONE
        return Unreadable(path, _reason(error, listing.root), gone)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """No warnings, of EXIF, palettes and very large pictures."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _reason(error: Exception, root: Path) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno)
    return reason_of(error, root)


def _reduced(image: Image.Image, shortest: int, least: int) -> int:
    """Has a JPEG decoded smaller, as far as ``shortest`` of its pixels stay ``least``; returns by how much."""
    width, height = image.size
    by = next((by for by in REDUCTIONS if shortest // by >= least), 1)
    if by > 1:
        image.draft(None, (width // by, height // by))
    return by if image.size != (width, height) else 1


def _colour(image: Image.Image) -> Image.Image:
    return image if image.mode == "RGB" else to_rgb(image)


def _tensor(image: Image.Image) -> Tensor:
    """(3, H, W), as the bytes lie: channels last."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def _resized(picture: Tensor, size: list[int]) -> Tensor:
    resized: Tensor = F.resize(picture, size, interpolation=InterpolationMode.BILINEAR, antialias=True)
    return resized
