"""A user's own model that draws from every random state and changes a buffer that ``state_dict`` leaves out."""

from __future__ import annotations

import random

import numpy as np
import torch
from torch import Tensor, nn


class Noisy(nn.Module):
    """Convolutions, dropout, batch norm; in training noise from numpy and Python, and a count of the steps."""

    steps: Tensor

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(in_channels, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Dropout(0.3)
        )
        self.classifier = nn.Linear(4, num_classes)
        self.register_buffer("steps", torch.zeros(()), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(B, num_classes) logits."""
        features = self.body(images).mean(dim=(2, 3))
        if self.training:
            self.steps += 1
            noise = np.random.normal() + random.gauss(0, 1)
            features = features + 0.1 * noise * self.steps / (1 + self.steps)
        logits: Tensor = self.classifier(features)
        return logits
