"""MobileNetV2 (Sandler et al. 2018) at half width for small pictures, as public CIFAR-100 distillation code has it."""

from __future__ import annotations

from torch import Tensor, nn

from wsl_sweep.models.classifier import Classifier, he_by_outputs, pooled
from wsl_sweep.models.resnet import conv

EXPANSION = 6
WIDTH = 0.5
LAST_CHANNELS = 1280

_STAGES = ((1, 16, 1, 1), (EXPANSION, 24, 2, 1), (EXPANSION, 32, 3, 2), (EXPANSION, 64, 4, 2),
           (EXPANSION, 96, 3, 1), (EXPANSION, 160, 3, 2), (EXPANSION, 320, 1, 1))  # fmt: skip
"""(expansion, channels at full width, blocks, stride of the first)."""


def conv_bn_relu(inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """A convolution that keeps the picture's size but for its stride, normalised and rectified."""
    return [conv(inputs, outputs, size, stride, groups), nn.BatchNorm2d(outputs), nn.ReLU()]


class _InvertedResidual(nn.Module):
    """Expand, filter each channel by itself, project back without activation."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.conv = nn.Sequential(
            *conv_bn_relu(inputs, inner, 1),
            *conv_bn_relu(inner, inner, 3, stride, groups=inner),
            conv(inner, outputs, 1),
            nn.BatchNorm2d(outputs),
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, maps: Tensor) -> Tensor:
        out: Tensor = self.conv(maps)
        return maps + out if self.residual else out


class MobileNetV2(Classifier):
    """Seven stages of inverted residuals; the picture is halved four times.

    Args:
        num_classes: number of logits.
        in_channels: of a picture.
    """

    head = "classifier"

    def __init__(self, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        inputs = int(32 * WIDTH)
        self.conv1 = nn.Sequential(*conv_bn_relu(in_channels, inputs, 3, 2))
        self.blocks = nn.ModuleList()
        for expansion, channels, count, stride in _STAGES:
            outputs, stage = int(channels * WIDTH), []
            for index in range(count):
                stage.append(_InvertedResidual(inputs, outputs, stride if index == 0 else 1, expansion))
                inputs = outputs
            self.blocks.append(nn.Sequential(*stage))
        self.conv2 = nn.Sequential(*conv_bn_relu(inputs, LAST_CHANNELS, 1))
        self.classifier = nn.Sequential(nn.Linear(LAST_CHANNELS, num_classes))
        he_by_outputs(self, linear_std=0.01)

    def features(self, images: Tensor) -> Tensor:
        """(B, 1280)."""
        maps = self.conv1(images)
        for stage in self.blocks:
            maps = stage(maps)
        return pooled(self.conv2(maps))
