"""VGG with batch normalisation (Simonyan and Zisserman 2015) for small pictures: one linear map in place of three."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from wsl_sweep.models.classifier import Classifier, he_by_outputs, pooled

VGG_BLOCKS: dict[int, tuple[int, int, int, int, int]] = {
    8: (1, 1, 1, 1, 1),
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
"""Depth → convolutions of each of the five blocks."""

_WIDTHS = (64, 128, 256, 512, 512)


class VGG(Classifier):
    """Five blocks of 3x3 convolutions, halved in size after the first three (and the fourth, from 64 pixels up).

    Args:
        blocks: convolutions of each block.
        num_classes: number of logits.
        in_channels: of a picture.
    """

    head = "classifier"

    def __init__(self, blocks: Sequence[int], num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        inputs = in_channels
        for number, (width, convolutions) in enumerate(zip(_WIDTHS, blocks, strict=True)):
            layers: list[nn.Module] = []
            for _ in range(convolutions):
                layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
                inputs = width
            self.add_module(f"block{number}", nn.Sequential(*layers[:-1]))  # the last ReLU comes after the block
        self.classifier = nn.Linear(_WIDTHS[-1], num_classes)
        he_by_outputs(self, linear_std=0.01)

    def features(self, images: Tensor) -> Tensor:
        """(B, 512)."""
        halvings = 4 if min(images.shape[2:]) >= 64 else 3
        maps = images
        for number in range(5):
            maps = F.relu(getattr(self, f"block{number}")(maps))
            if number < halvings:
                maps = F.max_pool2d(maps, 2)
        return pooled(maps)
