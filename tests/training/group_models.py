"""A user's own models: one without batch normalisation, and one that draws."""

from __future__ import annotations

from torch import Tensor, nn


class Plain(nn.Module):
    """A convolution and two linear layers: what it says of an example does not depend on the others."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(in_channels, 4, 3, stride=2), nn.ReLU(), nn.Flatten())
        self.hidden = nn.Linear(4 * 9, 6)
        self.classifier = nn.Linear(6, num_classes)

    def features(self, images: Tensor) -> Tensor:
        """(B, 6)."""
        return self.hidden(self.body(images)).relu()

    def forward(self, images: Tensor) -> Tensor:
        """(B, num_classes) logits."""
        logits: Tensor = self.classifier(self.features(images))
        return logits


class Drawing(nn.Module):
    """As digits come, with batch normalisation and dropout."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(in_channels, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
        self.classifier = nn.Sequential(nn.Dropout(0.3), nn.Linear(4 * 9, num_classes))

    def forward(self, images: Tensor) -> Tensor:
        """(B, num_classes) logits."""
        logits: Tensor = self.classifier(self.body(images))
        return logits
