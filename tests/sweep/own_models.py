"""A user's own models, one fine and the others with a fault that shows in the first step."""

from __future__ import annotations

import errno

import torch
from torch import Tensor, nn


class Fine(nn.Module):
    """One convolution."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.body = nn.Conv2d(in_channels, 4, 3)
        self.classifier = nn.Linear(4, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """(B, num_classes) logits."""
        self.fault()
        logits: Tensor = self.classifier(self.body(images).mean(dim=(2, 3)))
        return logits

    def fault(self) -> None:
        """None here."""


class Full(Fine):
    """Writes to a full disk."""

    def fault(self) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


class TooLarge(Fine):
    """Asks for more memory than a GPU has."""

    def fault(self) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")


class Missing(Fine):
    """Reads a file that is not there: its own fault, not the storage's."""

    def fault(self) -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "words.txt")
