"""Random-resized crops by number: a crop is a function of (example, view) alone, the same on every machine."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

CROPS = 1
"""Changes where a view's number begins to mean another crop, so that what a bank holds is not taken for it."""

SCALE = (0.08, 1.0)
"""Area of a crop, as a part of the picture's."""

LOG_RATIO = 0.28768207245178093
"""ln 4/3: a crop's width to its height lies between 3/4 and 4/3."""

TRIES = 10
"""Crops that are drawn before the middle of the picture is taken."""

_MULTIPLIERS, _STEPS = (0xD2511F53, 0xCD9E8D57), (0x9E3779B9, 0xBB67AE85)
_ROUNDS, _WORD, _HALF = 10, np.uint64(0xFFFFFFFF), np.uint64(32)
_KEY = 0x57534C31


def philox(counters: NDArray[np.uint64], keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).

    Args:
        counters: (..., 4), each below 2³².
        keys: (..., 2), likewise.

    Returns:
        (..., 4) words below 2³², each a function of its counter and key alone.
    """
    a, b, c, d = (counters[..., place] for place in range(4))
    first, second = keys[..., 0], keys[..., 1]
    for _ in range(_ROUNDS):
        left, right = a * np.uint64(_MULTIPLIERS[0]), c * np.uint64(_MULTIPLIERS[1])
        a, b, c, d = (right >> _HALF) ^ b ^ first, right & _WORD, (left >> _HALF) ^ d ^ second, left & _WORD
        first, second = (first + np.uint64(_STEPS[0])) & _WORD, (second + np.uint64(_STEPS[1])) & _WORD
    return np.stack(np.broadcast_arrays(a, b, c, d), axis=-1)


def words_of(ids: NDArray[np.int64], views: NDArray[np.int64]) -> NDArray[np.uint64]:
    """(B, TRIES + 1, 4) random words of examples ``ids`` (B,) in ``views`` (B,), both below 2⁶³."""
    numbers = [one.astype(np.uint64) for one in (ids, views)]
    halves = [half for one in numbers for half in (one & _WORD, one >> _HALF)]
    counters = np.stack(halves, axis=-1)[:, None, :]
    blocks = np.arange(TRIES + 1, dtype=np.uint64)
    keys = np.stack([blocks, np.full_like(blocks, _KEY)], axis=-1)
    return philox(counters, keys)


def crop_of(words: Sequence[Sequence[int]], height: int, width: int) -> tuple[int, int, int, int]:
    """Top, left, height and width of a crop: torchvision's ``RandomResizedCrop``, its numbers from ``words``.

    An area uniform in SCALE and a ratio uniform in its logarithm are drawn up to TRIES times, until such a crop fits
    into the picture; its place is uniform. Where none fits, the middle is taken, as large as the ratio allows.

    Args:
        words: TRIES rows or more of four words.
        height: of the picture, in pixels.
        width: likewise.
    """
    for area, ratio, row, column in words[:TRIES]:
        wanted = height * width * (SCALE[0] + (SCALE[1] - SCALE[0]) * _uniform(area))
        shape = _exp(LOG_RATIO * (2.0 * _uniform(ratio) - 1.0))
        wide, high = round(math.sqrt(wanted * shape)), round(math.sqrt(wanted / shape))
        if 0 < wide <= width and 0 < high <= height:
            return _below(row, height - high + 1), _below(column, width - wide + 1), high, wide
    wide, high = width, height
    if width / height < 3 / 4:
        high = round(width / (3 / 4))
    elif width / height > 4 / 3:
        wide = round(height * (4 / 3))
    return (height - high) // 2, (width - wide) // 2, high, wide


def flipped(words: Sequence[Sequence[int]]) -> bool:
    """Whether a view is mirrored, in half of the cases."""
    return words[TRIES][0] < 2**31


def _uniform(word: int) -> float:
    """In (0, 1)."""
    return (word + 0.5) / 2**32


def _below(word: int, bound: int) -> int:
    """One of the whole numbers from 0 to ``bound - 1``."""
    return (word * bound) >> 32


def _exp(x: float) -> float:
    """e to a small power by sums and products, which every machine rounds alike; libraries' differ in the last bit."""
    value = 1.0
    for number in range(13, 0, -1):
        value = 1.0 + x * value / number
    return value
