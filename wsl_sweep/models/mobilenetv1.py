"""MobileNet-v1 (Howard et al. 2017) for pictures of ImageNet's kind, with the paper's width multipliers."""

from __future__ import annotations

from torch import Tensor, nn

from wsl_sweep.models.classifier import Classifier, pooled
from wsl_sweep.models.mobilenet import conv_bn_relu

FIRST_CHANNELS = 32

_BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))
"""(channels at full width, stride) of each depthwise separable convolution; Howard et al., Table 1."""


class MobileNetV1(Classifier):
    """Thirteen depthwise separable convolutions; the picture is halved five times.

    Args:
        width: the paper's multiplier α of all channels: 1, 0.75, 0.5 or 0.25.
        num_classes: number of logits.
        in_channels: of a picture.
    """

    def __init__(self, width: float, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        inputs = int(FIRST_CHANNELS * width)
        self.conv1 = nn.Sequential(*conv_bn_relu(in_channels, inputs, 3, 2))
        self.blocks = nn.ModuleList()
        for channels, stride in _BLOCKS:
            outputs = int(channels * width)
            depthwise = conv_bn_relu(inputs, inputs, 3, stride, groups=inputs)
            self.blocks.append(nn.Sequential(*depthwise, *conv_bn_relu(inputs, outputs, 1)))
            inputs = outputs
        self.fc = nn.Linear(inputs, num_classes)
        for module in self.modules():  # He et al. (2015) by inputs: filters of one channel keep the signal's size
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def features(self, images: Tensor) -> Tensor:
        """(B, 1024·width)."""
        maps = self.conv1(images)
        for block in self.blocks:
            maps = block(maps)
        return pooled(maps)
