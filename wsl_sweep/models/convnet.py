"""A small convolutional network for small pictures: the teachers and students of the ``digits`` recipe."""

from __future__ import annotations

from torch import Tensor, nn

from wsl_sweep.models.classifier import Classifier, pooled


class ConvNet(Classifier):
    """Three 3x3 convolutions of ``width``, ``2·width`` and ``4·width`` channels, each with batch normalisation
    and ReLU, the second and third with stride 2; global average pooling and a linear classifier.

    Args:
        width: channels of the first convolution.
        num_classes: number of logits.
        in_channels: channels of a picture.

    Input (B, in_channels, H, W) with H, W >= 4; output (B, num_classes) logits.
    """

    head = "classifier"

    def __init__(self, width: int, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = in_channels
        for factor, stride in ((1, 1), (2, 2), (4, 2)):
            layers += [
                nn.Conv2d(channels, factor * width, 3, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(factor * width),
                nn.ReLU(inplace=True),
            ]
            channels = factor * width
        self.body = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, num_classes)

    def features(self, images: Tensor) -> Tensor:
        """(B, 4·width), what the classifier sees."""
        return pooled(self.body(images))
