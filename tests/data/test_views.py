"""Views: every crop of a padded picture, mirrored or not, by number."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torchvision.transforms.functional as TF
from torch import Tensor

from wsl_sweep.data import Views

MODES: list[Literal["zeros", "reflect"]] = ["zeros", "reflect"]
MEAN, STD = [0.2, 0.5], [0.7, 0.4]


def pictures(count: int = 3, height: int = 5, width: int = 4) -> Tensor:
    """Random two-channel pictures, higher than wide, so that no axis can be taken for another."""
    return torch.rand(count, 2, height, width, generator=torch.Generator().manual_seed(1))


def make(
    images: Tensor,
    padding: int,
    mode: Literal["zeros", "reflect"] = "zeros",
    flip: bool = False,
    plain: bool = False,
) -> Views:
    """Views of the pictures; ``plain`` leaves normalisation out."""
    mean, std = (torch.tensor(values) for values in (([0.0, 0.0], [1.0, 1.0]) if plain else (MEAN, STD)))
    return Views(images, padding=padding, padding_mode=mode, flip=flip, mean=mean, std=std)


def by_hand(
    image: npt.NDArray[np.float32], padding: int, mode: str, mirrored: bool, row: int, column: int
) -> npt.NDArray[np.float32]:
    """Pad, normalise, slice, mirror."""
    _, height, width = image.shape
    edges = ((0, 0), (padding, padding), (padding, padding))
    padded = np.pad(image, edges, mode="reflect") if mode == "reflect" else np.pad(image, edges)
    mean, std = (np.array(values, dtype=np.float32)[:, None, None] for values in (MEAN, STD))
    crop = ((padded - mean) / std)[:, row : row + height, column : column + width]
    return crop[:, :, ::-1] if mirrored else crop


@pytest.mark.parametrize("padding", [0, 1, 2, 3])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("flip", [False, True])
def test_every_view_is_the_slice_that_its_number_says(padding: int, mode: Any, flip: bool) -> None:
    images = pictures()
    views = make(images, padding, mode, flip)
    side = 2 * padding + 1
    assert views.count == side**2 * (2 if flip else 1)
    for number in range(views.count):
        row, column = divmod(number % side**2, side)
        taken = views.take(torch.arange(3), torch.full((3,), number))
        for index, image in enumerate(images.numpy()):
            wanted = by_hand(image, padding, mode, number >= side**2, row, column)
            assert (taken[index].numpy() == wanted).all(), (number, index)


@pytest.mark.parametrize("mode", MODES)
def test_views_are_what_the_usual_transforms_make(mode: Any) -> None:
    """Pad, crop, flip, normalise, in torchvision's usual order, bit for bit."""
    image = pictures(1)[0]
    views = make(image.unsqueeze(0), 2, mode, flip=True)
    assert views.count == 50
    padded = TF.pad(image, [2, 2, 2, 2], padding_mode="constant" if mode == "zeros" else "reflect")
    for number in range(views.count):
        corner = number % 25
        crop = TF.crop(padded, corner // 5, corner % 5, 5, 4)
        crop = TF.hflip(crop) if number >= 25 else crop
        wanted = TF.normalize(crop, MEAN, STD)
        assert torch.equal(views.take(torch.tensor([0]), torch.tensor([number]))[0], wanted)


def test_all_views_of_a_picture_differ() -> None:
    views = make(pictures(1), 2, "zeros", flip=True)
    taken = views.take(torch.zeros(views.count, dtype=torch.int64), torch.arange(views.count))
    assert len(taken.flatten(1).unique(dim=0)) == views.count == 50


@pytest.mark.parametrize(("padding", "flip", "count"), [(4, True, 162), (1, False, 9), (0, False, 1), (0, True, 2)])
def test_views_are_counted(padding: int, flip: bool, count: int) -> None:
    assert make(pictures(1, 8, 8), padding, "zeros", flip).count == count


def test_examples_and_views_go_together_in_any_order_and_number() -> None:
    images = pictures(6)
    views = make(images, 1, "zeros", flip=True)
    examples, numbers = torch.tensor([4, 0, 4, 5, 2, 4, 1]), torch.tensor([0, 17, 9, 4, 13, 0, 8])
    together = views.take(examples, numbers)
    one_by_one = [views.take(e.reshape(1), v.reshape(1)) for e, v in zip(examples, numbers, strict=True)]
    assert torch.equal(together, torch.cat(one_by_one))
    assert torch.equal(together[0], together[5])
    assert together.shape == (7, 2, 5, 4)
    assert together.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_lie_in_memory_pixel_by_pixel(channels: int) -> None:
    """Strides too, which one channel leaves open: convolutions choose their arithmetic by them."""
    images = torch.rand(4, channels, 6, 5)
    views = Views(
        images, padding=1, padding_mode="zeros", flip=False, mean=torch.zeros(channels), std=torch.ones(channels)
    )
    assert views.plain(torch.arange(4)).stride() == (channels * 30, 1, 5 * channels, channels)


@pytest.mark.parametrize("padding", [0, 1, 3])
@pytest.mark.parametrize("flip", [False, True])
def test_the_plain_view_is_the_normalised_picture(padding: int, flip: bool) -> None:
    images = pictures()
    views = make(images, padding, "reflect", flip)
    found = views.plain(torch.tensor([2, 0]))
    wanted = torch.stack([TF.normalize(images[index], MEAN, STD) for index in (2, 0)])
    assert torch.equal(found, wanted)
    assert torch.equal(found, views.take(torch.tensor([2, 0]), torch.tensor([views.identity] * 2)))


def test_zero_padding_is_black_before_normalisation_not_after() -> None:
    corner = make(torch.ones(1, 2, 5, 4), 1).take(torch.tensor([0]), torch.tensor([0]))
    assert corner[0, :, 0, 0].tolist() == pytest.approx([-0.2 / 0.7, -0.5 / 0.4])
    assert corner[0, :, 1, 1].tolist() == pytest.approx([0.8 / 0.7, 0.5 / 0.4])


def test_reflection_holds_the_picture_and_not_its_edge_twice() -> None:
    image = torch.arange(20.0).reshape(1, 1, 5, 4).expand(1, 2, 5, 4)
    corner = make(image, 1, "reflect", plain=True).take(torch.tensor([0]), torch.tensor([0]))
    assert corner[0, 0].tolist()[0] == [5.0, 4.0, 5.0, 6.0]
    assert corner[0, 0, :, 1].tolist() == [4.0, 0.0, 4.0, 8.0, 12.0]


def test_what_is_done_to_a_view_is_not_done_to_the_picture() -> None:
    views = make(pictures(), 0)
    first = views.take(torch.tensor([1]), torch.tensor([0]))
    kept = first.clone()
    first.zero_()
    assert torch.equal(views.take(torch.tensor([1]), torch.tensor([0])), kept)


def test_pictures_given_are_left_as_they_are() -> None:
    images = pictures()
    kept = images.clone()
    make(images, 0).take(torch.tensor([1]), torch.tensor([0]))
    assert torch.equal(images, kept)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("height", "width", "padding"), [(5, 4, 3), (8, 8, 4), (4, 9, 2), (3, 3, 0)])
def test_pictures_by_row_are_those_of_a_padded_copy(mode: Any, height: int, width: int, padding: int) -> None:
    """Bytes, some of them, each mapped to its place among all: as numpy pads, normalises, slices and mirrors."""
    generator = torch.Generator().manual_seed(height)
    images = torch.randint(0, 256, (9, 2, height, width), dtype=torch.uint8, generator=generator)
    rows = torch.tensor([7, 2, 2, 8])
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    views = Views(images, padding=padding, padding_mode=mode, flip=True, mean=mean, std=std, scale=255.0, rows=rows)
    examples = torch.arange(4).repeat_interleave(views.count)
    numbers = torch.arange(views.count).repeat(4)
    taken = views.take(examples, numbers).numpy()
    for picture, example, number in zip(taken, examples.tolist(), numbers.tolist(), strict=True):
        row, column = divmod(number % views.side**2, views.side)
        image = (images[rows[example]].float() / 255.0).numpy()
        assert (picture == by_hand(image, padding, mode, number >= views.side**2, row, column)).all(), (example, number)


def test_facts_tell_views_apart() -> None:
    images = pictures()
    made = [
        make(images, 1),
        make(images, 2),
        make(images, 1, "reflect"),
        make(images, 1, flip=True),
        make(images, 1, plain=True),
        make(images[:, :, :4], 1),
    ]
    facts = [str(views.facts()) for views in made]
    assert len(set(facts)) == len(facts)
    assert make(images, 0, "reflect").facts() == make(images[:1], 0, "zeros").facts()
