"""Augmentation by enumerated views: a crop of a padded picture, with or without a flip, is a number."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


class Views:
    """Every crop of the pictures padded by ``padding`` pixels, at the pictures' own size.

    View ``v`` is the crop whose corner lies at row ``(v // side) % side``, column ``v % side`` of the padded
    picture, ``side = 2·padding + 1``; from ``side²`` on, mirrored. CIFAR's padding of 4 with flips makes 162
    views, digits' padding of 1 without makes 9.

    Args:
        images: (N, C, H, W), as they come, before normalisation; they stay on their device.
        padding: pixels on each side, >= 0.
        padding_mode: ``zeros`` or ``reflect``.
        flip: whether each crop exists mirrored too.
        mean: (C,) and
        std: (C,), for normalising after padding, as torchvision's usual order of transforms has it.
        scale: what pictures are divided by before that; they are kept as they come, so that bytes stay bytes.
    """

    def __init__(
        self,
        images: Tensor,
        *,
        padding: int,
        padding_mode: Literal["zeros", "reflect"],
        flip: bool,
        mean: Tensor,
        std: Tensor,
        scale: float = 1.0,
    ) -> None:
        self.side = 2 * padding + 1
        self.count = self.side**2 * (2 if flip else 1)
        self.height, self.width = int(images.shape[2]), int(images.shape[3])
        self.identity = padding * self.side + padding
        self._padded = _pad(images, padding, padding_mode)
        self._scale, self._mean, self._std = scale, mean.view(1, -1, 1, 1), std.view(1, -1, 1, 1)
        self._rows = torch.arange(self.height, device=images.device)
        self._columns = torch.arange(self.width, device=images.device)

    def take(self, examples: Tensor, views: Tensor) -> Tensor:
        """The pictures (B, C, H, W) of ``examples`` (B,) in ``views`` (B,), both integers on the device."""
        corner = views % self.side**2
        rows = (corner // self.side).unsqueeze(1) + self._rows
        columns = self._columns.expand(len(views), -1)
        if self.count > self.side**2:
            mirrored = (views >= self.side**2).unsqueeze(1)
            columns = torch.where(mirrored, self.width - 1 - columns, columns)
        columns = columns + (corner % self.side).unsqueeze(1)
        # Advanced indices with a slice between them put the channel last: (B, H, W, C).
        picked = self._padded[examples[:, None, None], :, rows[:, :, None], columns[:, None, :]]
        # A copy in any case: with one channel `contiguous` would keep strides that look like channels last, and the
        # arithmetic (and so the bits) would depend on how a batch was put together.
        pictures = picked.permute(0, 3, 1, 2).clone(memory_format=torch.contiguous_format)
        return (pictures.to(self._mean.dtype) / self._scale - self._mean) / self._std

    def plain(self, examples: Tensor) -> Tensor:
        """The pictures (B, C, H, W) of ``examples`` (B,) as they are, normalised."""
        return self.take(examples, torch.full_like(examples, self.identity))


def _pad(images: Tensor, padding: int, mode: Literal["zeros", "reflect"]) -> Tensor:
    """(N, C, H + 2·padding, W + 2·padding); a reflection does not repeat the edge."""
    if not padding:
        return images
    if mode == "zeros":
        return F.pad(images, (padding,) * 4)
    for axis in (2, 3):
        size = images.shape[axis]
        places = torch.arange(-padding, size + padding, device=images.device).abs()
        images = images.index_select(axis, torch.where(places >= size, 2 * (size - 1) - places, places))
    return images
