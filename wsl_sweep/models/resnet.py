"""Residual networks for pictures of CIFAR's size (He et al. 2016).

Attributes have the names that published CIFAR-100 checkpoints (RepDistiller's) use.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from wsl_sweep.models.classifier import Classifier, pooled


def conv(inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution without bias that keeps the picture's size but for its stride."""
    return nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, groups=groups, bias=False)


def _projection(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))


def _he(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


class _Basic(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(inputs, outputs, 3, stride), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = conv(outputs, outputs, 3), nn.BatchNorm2d(outputs)
        self.downsample = _projection(inputs, outputs, stride)

    def forward(self, maps: Tensor) -> Tensor:
        shortcut = maps if self.downsample is None else self.downsample(maps)
        inner = F.relu(self.bn1(self.conv1(maps)))
        return F.relu(self.bn2(self.conv2(inner)) + shortcut)


class CifarResNet(Classifier):
    """ResNet of depth 6n + 2: three groups of n blocks at full, half and quarter size.

    Args:
        depth: 8, 14, 20, 32, 44, 56, 110, …
        widths: channels of the first convolution and of the three groups.
        num_classes: number of logits.
        in_channels: of a picture.
    """

    def __init__(self, depth: int, widths: Sequence[int], num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        self.conv1, self.bn1 = conv(in_channels, widths[0], 3), nn.BatchNorm2d(widths[0])
        groups = []
        for inputs, outputs, stride in zip(widths[:3], widths[1:], (1, 2, 2), strict=True):
            rest = [_Basic(outputs, outputs, 1) for _ in range(blocks - 1)]
            groups.append(nn.Sequential(_Basic(inputs, outputs, stride), *rest))
        self.layer1, self.layer2, self.layer3 = groups
        self.fc = nn.Linear(widths[3], num_classes)
        _he(self)

    def features(self, images: Tensor) -> Tensor:
        """(B, widths[3])."""
        maps = F.relu(self.bn1(self.conv1(images)))
        return pooled(self.layer3(self.layer2(self.layer1(maps))))


class _Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions beside a shortcut; four times as many channels leave as work inside."""

    def __init__(self, inputs: int, inner: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * inner
        self.conv1, self.bn1 = conv(inputs, inner, 1), nn.BatchNorm2d(inner)
        self.conv2, self.bn2 = conv(inner, inner, 3, stride), nn.BatchNorm2d(inner)
        self.conv3, self.bn3 = conv(inner, outputs, 1), nn.BatchNorm2d(outputs)
        self.shortcut = _projection(inputs, outputs, stride) or nn.Sequential()

    def forward(self, maps: Tensor) -> Tensor:
        inner = F.relu(self.bn1(self.conv1(maps)))
        inner = F.relu(self.bn2(self.conv2(inner)))
        return F.relu(self.bn3(self.conv3(inner)) + self.shortcut(maps))


class CifarResNet50(Classifier):
    """ImageNet's ResNet-50 with a 3x3 first convolution and no first pooling, for small pictures."""

    head = "linear"

    def __init__(self, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(in_channels, 64, 3), nn.BatchNorm2d(64)
        inputs, groups = 64, []
        for inner, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
            first = _Bottleneck(inputs, inner, stride)
            inputs = 4 * inner
            groups.append(nn.Sequential(first, *(_Bottleneck(inputs, inner, 1) for _ in range(blocks - 1))))
        self.layer1, self.layer2, self.layer3, self.layer4 = groups
        self.linear = nn.Linear(inputs, num_classes)
        _he(self)

    def features(self, images: Tensor) -> Tensor:
        """(B, 2048)."""
        maps = F.relu(self.bn1(self.conv1(images)))
        return pooled(self.layer4(self.layer3(self.layer2(self.layer1(maps)))))
