"""What all our models share: features, a linear classifier on them, and how their weights begin."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

from torch import Tensor, nn


class Classifier(nn.Module, ABC):
    """A classifier of pictures: ``forward`` is a linear map of ``features``.

    ``head`` names the attribute that holds the linear map, since published checkpoints call it differently.
    """

    head = "fc"

    @abstractmethod
    def features(self, images: Tensor) -> Tensor:
        """(B, D) penultimate features of (B, C, H, W) pictures: what the linear map sees."""

    def forward(self, images: Tensor) -> Tensor:
        """(B, num_classes) logits."""
        logits: Tensor = getattr(self, self.head)(self.features(images))
        return logits


def pooled(maps: Tensor) -> Tensor:
    """(B, C), the mean of (B, C, H, W) over the picture."""
    return maps.mean(dim=(2, 3))


def he_by_outputs(model: nn.Module, *, linear_std: float | None = None) -> None:
    """He et al. (2015): convolutions from a normal distribution of variance 2 / (kernel size · output channels).

    Args:
        model: changed in place.
        linear_std: standard deviation of linear maps, with a bias of 0; None leaves torch's own.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            outputs = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
            nn.init.normal_(module.weight, std=math.sqrt(2 / outputs))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear) and linear_std is not None:
            nn.init.normal_(module.weight, std=linear_std)
            nn.init.zeros_(module.bias)
