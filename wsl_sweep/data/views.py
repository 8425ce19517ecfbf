"""Augmentation by enumerated views: a crop of a padded picture, with or without a flip, is a number."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from wsl_sweep.data.inputs import Inputs


class Views(Inputs):
    """Every crop of the pictures padded by ``padding`` pixels, at the pictures' own size.

    View ``v`` is the crop whose corner lies at row ``(v // side) % side``, column ``v % side`` of the padded
    picture, ``side = 2·padding + 1``; from ``side²`` on, mirrored. CIFAR's padding of 4 with flips makes 162
    views, digits' padding of 1 without makes 9. Nothing is padded or cropped beforehand: a picture is put together
    from the pictures as they lie, which several processes may share.

    Args:
        images: (M, C, H, W), as they come, before normalisation; they stay on their device.
        padding: pixels on each side, >= 0.
        padding_mode: ``zeros`` or ``reflect`` (which does not repeat the edge).
        flip: whether each crop exists mirrored too.
        mean: (C,) and
        std: (C,), for normalising after padding, as torchvision's usual order of transforms has it.
        scale: what pictures are divided by before that; they are kept as they come, so that bytes stay bytes.
        rows: (N,) where the examples lie in ``images``; None for all of them as they lie.
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
        rows: Tensor | None = None,
    ) -> None:
        self.side = 2 * padding + 1
        self._flip = flip
        self.count = self.side**2 * (2 if flip else 1)
        self.height, self.width = int(images.shape[2]), int(images.shape[3])
        self.identity = padding * self.side + padding
        self.device = images.device
        self._images, self._of_example = images, rows
        self._padding, self._mode = padding, padding_mode
        self._scale, self._mean, self._std = scale, mean.view(1, -1, 1, 1), std.view(1, -1, 1, 1)
        self._rows = torch.arange(self.height, device=images.device) - padding
        self._columns = torch.arange(self.width, device=images.device) - padding

    def facts(self) -> dict[str, Any]:
        """What a picture depends on beside its bytes and its view's number, as plain data."""
        return {
            "padding": self._padding,
            "padding_mode": self._mode if self._padding else "zeros",
            "count": self.count,
            "shape": list(self._images.shape[1:]),
            "scale": self._scale,
            "mean": self._mean.flatten().tolist(),
            "std": self._std.flatten().tolist(),
        }

    def take(self, examples: Tensor, views: Tensor) -> Tensor:
        """The pictures (B, C, H, W) of ``examples`` (B,) in ``views`` (B,), both integers.

        In channels_last, always in a fresh tensor of the same layout.
        """
        examples, views = examples.to(self.device), views.to(self.device)
        corner = views % self.side**2
        rows = (corner // self.side).unsqueeze(1) + self._rows
        columns = self._columns.expand(len(views), -1)
        if self._flip:
            mirrored = (views >= self.side**2).unsqueeze(1)
            columns = torch.where(mirrored, columns.flip(1), columns)
        columns = columns + (corner % self.side).unsqueeze(1)
        if self._of_example is not None:
            examples = self._of_example[examples]
        # Advanced indices with a slice between them put the channel last: (B, H, W, C).
        source_rows, source_columns = self._inside(rows, self.height), self._inside(columns, self.width)
        picked = self._images[examples[:, None, None], :, source_rows[:, :, None], source_columns[:, None, :]]
        if self._padding and self._mode == "zeros":
            inside = (rows == source_rows)[:, :, None] & (columns == source_columns)[:, None, :]
            picked = picked * inside.unsqueeze(3)
        # Strides are set, not kept: with one channel, or one row, a permuted tensor counts as either format, and the
        # arithmetic (and so the bits) would depend on how a batch was put together.
        shape = (len(views), self._images.shape[1], self.height, self.width)
        pictures = torch.empty(shape, dtype=self._mean.dtype, device=picked.device, memory_format=torch.channels_last)
        pictures.copy_(picked.permute(0, 3, 1, 2))
        return pictures.div_(self._scale).sub_(self._mean).div_(self._std)

    def _inside(self, places: Tensor, size: int) -> Tensor:
        """Where in the picture a place of the padded one comes from; outside of it, for zeros, the nearest edge."""
        if self._mode == "zeros" or not self._padding:
            return places.clamp(0, size - 1)
        places = places.abs()
        return torch.where(places >= size, 2 * (size - 1) - places, places)
