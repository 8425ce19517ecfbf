"""Crops by number: the same bits on every machine, and distributed as torchvision's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torchvision.transforms.v2 import RandomResizedCrop

from wsl_sweep.data.crops import LOG_RATIO, TRIES, crop_of, flipped, philox, words_of

MANY = 4_000
BIG = 2**63 - 1


def words(example: int, view: int) -> list[list[int]]:
    found: list[list[int]] = words_of(np.array([example]), np.array([view]))[0].tolist()
    return found


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_the_generator_gives_the_words_of_its_authors(
    counter: tuple[int, ...], key: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    got = philox(np.array(counter, dtype=np.uint64), np.array(key, dtype=np.uint64))
    assert tuple(got.tolist()) == expected


@pytest.mark.parametrize(
    ("example", "view", "size", "crop", "mirrored"),
    [
        (0, 0, (375, 500), (21, 2, 285, 248), True),
        (1, 0, (375, 500), (32, 74, 314, 399), True),
        (1281166, 1, (500, 333), (312, 36, 147, 193), True),
        (7, 2**62 + 5, (64, 48), (28, 11, 27, 29), False),
        (2**40, BIG, (1200, 1600), (84, 296, 1063, 1144), True),
    ],
)
def test_a_crop_is_its_number_on_every_machine(
    example: int, view: int, size: tuple[int, int], crop: tuple[int, ...], mirrored: bool
) -> None:
    found = words(example, view)
    assert crop_of(found, *size) == crop
    assert flipped(found) is mirrored


def test_words_depend_on_example_and_view_alone() -> None:
    ids, views = np.array([0, 5, 2**40, BIG, 5]), np.array([3, 0, BIG, 2**33, 2**32])
    together = words_of(ids, views)
    assert together.shape == (5, TRIES + 1, 4)
    for place in range(5):
        assert np.array_equal(together[place : place + 1], words_of(ids[place : place + 1], views[place : place + 1]))
    assert len({tuple(one.ravel().tolist()) for one in together}) == 5
    assert together.max() < 2**32


def test_area_and_logarithm_of_the_ratio_are_uniform_and_half_is_mirrored() -> None:
    rows = words_of(np.arange(MANY), np.full(MANY, 7)).tolist()
    crops = [crop_of(one, 100_000, 100_000) for one in rows]
    # Up to three quarters of a square, every ratio fits: there the first try counts.
    fitting = [(high * wide / 1e10, wide / high) for _, _, high, wide in crops if high * wide < 0.7e10]
    areas, ratios = zip(*fitting, strict=True)
    assert stats.kstest(areas, stats.uniform(0.08, 0.62).cdf).pvalue > 1e-3
    assert stats.kstest(np.log(ratios), stats.uniform(-LOG_RATIO, 2 * LOG_RATIO).cdf).pvalue > 1e-3
    assert stats.binomtest(sum(map(flipped, rows)), MANY).pvalue > 1e-3


def test_the_place_of_a_crop_is_uniform() -> None:
    rows = words_of(np.full(MANY, 11), np.arange(MANY)).tolist()
    crops = [crop_of(one, 3000, 4000) for one in rows]
    tops = [(top + 0.5) / (3000 - high + 1) for top, _, high, _ in crops]
    lefts = [(left + 0.5) / (4000 - wide + 1) for _, left, _, wide in crops]
    for places in (tops, lefts):
        assert stats.kstest(places, stats.uniform(0, 1).cdf).pvalue > 1e-3


@pytest.mark.parametrize(("height", "width"), [(375, 500), (64, 64), (40, 400)])
def test_crops_are_distributed_as_torchvisions(height: int, width: int) -> None:
    rows = words_of(np.arange(MANY), np.full(MANY, 2**50)).tolist()
    ours = [crop_of(one, height, width) for one in rows]
    torch.manual_seed(3)
    transform, image = RandomResizedCrop(8), torch.zeros(1, height, width)
    theirs = [transform.make_params([image]) for _ in range(MANY // 2)]
    for place, name in enumerate(("top", "left", "height", "width")):
        one, other = [crop[place] for crop in ours], [crop[name] for crop in theirs]
        assert stats.ks_2samp(one, other).pvalue > 1e-3, name


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 300), (300, 1), (7, 9), (33, 90), (2000, 3)])
def test_a_crop_lies_inside_of_a_picture_of_any_shape(height: int, width: int) -> None:
    for one in words_of(np.arange(300), np.arange(300)).tolist():
        top, left, high, wide = crop_of(one, height, width)
        assert high >= 1
        assert wide >= 1
        assert 0 <= top <= height - high
        assert 0 <= left <= width - wide


def test_where_no_try_fits_the_middle_is_taken() -> None:
    none_fits = [[0xFFFFFFFF] * 4] * (TRIES + 1)  # the whole area in a ratio of 4/3
    assert crop_of(none_fits, 300, 300) == (0, 0, 300, 300)
    assert crop_of(none_fits, 100, 400) == (0, (400 - 133) // 2, 100, 133)
    assert crop_of(none_fits, 400, 99) == ((400 - 132) // 2, 0, 132, 99)
