"""ShuffleNet V1 (Zhang et al. 2018) and V2 (Ma et al. 2018) for small pictures, as distillation code has them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsl_sweep.models.classifier import Classifier, pooled
from wsl_sweep.models.resnet import conv

FIRST_CHANNELS = 24


def shuffle(maps: Tensor, groups: int) -> Tensor:
    """The channels of (B, C, H, W) dealt out anew: channel ``c`` of group ``g`` comes to stand at ``c·groups + g``."""
    batch, channels, height, width = maps.shape
    return maps.reshape(batch, groups, channels // groups, height, width).transpose(1, 2).reshape(maps.shape)


class _GroupedBottleneck(nn.Module):
    """ShuffleNet V1's unit. With stride 2 the pooled input is appended to the output, else added."""

    def __init__(self, inputs: int, outputs: int, stride: int, groups: int) -> None:
        super().__init__()
        inner = outputs // 4
        self.stride = stride
        self.first_groups = 1 if inputs == FIRST_CHANNELS else groups
        self.conv1, self.bn1 = conv(inputs, inner, 1, groups=self.first_groups), nn.BatchNorm2d(inner)
        self.conv2, self.bn2 = conv(inner, inner, 3, stride, groups=inner), nn.BatchNorm2d(inner)
        self.conv3, self.bn3 = conv(inner, outputs, 1, groups=groups), nn.BatchNorm2d(outputs)

    def forward(self, maps: Tensor) -> Tensor:
        inner = shuffle(F.relu(self.bn1(self.conv1(maps))), self.first_groups)
        inner = F.relu(self.bn2(self.conv2(inner)))
        out = self.bn3(self.conv3(inner))
        if self.stride == 1:
            return F.relu(out + maps)
        return F.relu(torch.cat([out, F.avg_pool2d(maps, 3, stride=2, padding=1)], dim=1))


class ShuffleNetV1(Classifier):
    """Three groups, 1x, three-way grouped convolutions.

    Args:
        num_classes: number of logits.
        in_channels: of a picture.
    """

    head = "linear"

    def __init__(self, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(in_channels, FIRST_CHANNELS, 1), nn.BatchNorm2d(FIRST_CHANNELS)
        inputs, stages = FIRST_CHANNELS, []
        for outputs, blocks in ((240, 4), (480, 8), (960, 4)):
            first = _GroupedBottleneck(inputs, outputs - inputs, 2, groups=3)
            rest = [_GroupedBottleneck(outputs, outputs, 1, groups=3) for _ in range(blocks - 1)]
            stages.append(nn.Sequential(first, *rest))
            inputs = outputs
        self.layer1, self.layer2, self.layer3 = stages
        self.linear = nn.Linear(inputs, num_classes)

    def features(self, images: Tensor) -> Tensor:
        """(B, 960)."""
        maps = F.relu(self.bn1(self.conv1(images)))
        return pooled(self.layer3(self.layer2(self.layer1(maps))))


class _Split(nn.Module):
    """ShuffleNet V2's unit: one half of the channels passes by, the other is worked on."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.width = channels // 2
        self.conv1, self.bn1 = conv(self.width, self.width, 1), nn.BatchNorm2d(self.width)
        self.conv2, self.bn2 = conv(self.width, self.width, 3, groups=self.width), nn.BatchNorm2d(self.width)
        self.conv3, self.bn3 = conv(self.width, self.width, 1), nn.BatchNorm2d(self.width)

    def forward(self, maps: Tensor) -> Tensor:
        passing, worked = maps[:, : self.width], maps[:, self.width :]
        worked = F.relu(self.bn1(self.conv1(worked)))
        worked = self.bn2(self.conv2(worked))
        worked = F.relu(self.bn3(self.conv3(worked)))
        return shuffle(torch.cat([passing, worked], dim=1), 2)


class _Halve(nn.Module):
    """ShuffleNet V2's unit of stride 2: both branches see all channels."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        half = outputs // 2
        self.conv1, self.bn1 = conv(inputs, inputs, 3, 2, groups=inputs), nn.BatchNorm2d(inputs)
        self.conv2, self.bn2 = conv(inputs, half, 1), nn.BatchNorm2d(half)
        self.conv3, self.bn3 = conv(inputs, half, 1), nn.BatchNorm2d(half)
        self.conv4, self.bn4 = conv(half, half, 3, 2, groups=half), nn.BatchNorm2d(half)
        self.conv5, self.bn5 = conv(half, half, 1), nn.BatchNorm2d(half)

    def forward(self, maps: Tensor) -> Tensor:
        left = F.relu(self.bn2(self.conv2(self.bn1(self.conv1(maps)))))
        right = F.relu(self.bn3(self.conv3(maps)))
        right = F.relu(self.bn5(self.conv5(self.bn4(self.conv4(right)))))
        return shuffle(torch.cat([left, right], dim=1), 2)


class ShuffleNetV2(Classifier):
    """Three stages, 1x.

    Args:
        num_classes: number of logits.
        in_channels: of a picture.
    """

    head = "linear"

    def __init__(self, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(in_channels, FIRST_CHANNELS, 1), nn.BatchNorm2d(FIRST_CHANNELS)
        inputs, stages = FIRST_CHANNELS, []
        for outputs, blocks in ((116, 3), (232, 7), (464, 3)):
            stages.append(nn.Sequential(_Halve(inputs, outputs), *(_Split(outputs) for _ in range(blocks))))
            inputs = outputs
        self.layer1, self.layer2, self.layer3 = stages
        self.conv2, self.bn2 = conv(inputs, 1024, 1), nn.BatchNorm2d(1024)
        self.linear = nn.Linear(1024, num_classes)

    def features(self, images: Tensor) -> Tensor:
        """(B, 1024)."""
        maps = F.relu(self.bn1(self.conv1(images)))
        maps = self.layer3(self.layer2(self.layer1(maps)))
        return pooled(F.relu(self.bn2(self.conv2(maps))))
