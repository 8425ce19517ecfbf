"""Wide residual networks (Zagoruyko and Komodakis 2016), with the attribute names of published checkpoints."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from wsl_sweep.models.classifier import Classifier, he_by_outputs, pooled
from wsl_sweep.models.resnet import conv


class _PreActivation(nn.Module):
    """Normalise and activate first; where the width changes, the shortcut starts from the activated maps."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), conv(inputs, outputs, 3, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(outputs), conv(outputs, outputs, 3)
        self.convShortcut = conv(inputs, outputs, 1, stride) if inputs != outputs else None

    def forward(self, maps: Tensor) -> Tensor:
        active = F.relu(self.bn1(maps))
        inner: Tensor = self.conv2(F.relu(self.bn2(self.conv1(active))))
        return inner + (maps if self.convShortcut is None else self.convShortcut(active))


class _Group(nn.Module):
    def __init__(self, inputs: int, outputs: int, blocks: int, stride: int) -> None:
        super().__init__()
        rest = [_PreActivation(outputs, outputs, 1) for _ in range(blocks - 1)]
        self.layer = nn.Sequential(_PreActivation(inputs, outputs, stride), *rest)

    def forward(self, maps: Tensor) -> Tensor:
        out: Tensor = self.layer(maps)
        return out


class WideResNet(Classifier):
    """WRN-depth-widen: three groups of (depth - 4) / 6 blocks.

    Args:
        depth: 6n + 4.
        widen: factor on the channels 16, 32, 64.
        num_classes: number of logits.
        in_channels: of a picture.
    """

    def __init__(self, depth: int, widen: int, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        blocks = (depth - 4) // 6
        self.conv1 = conv(in_channels, 16, 3)
        self.block1 = _Group(16, 16 * widen, blocks, 1)
        self.block2 = _Group(16 * widen, 32 * widen, blocks, 2)
        self.block3 = _Group(32 * widen, 64 * widen, blocks, 2)
        self.bn1 = nn.BatchNorm2d(64 * widen)
        self.fc = nn.Linear(64 * widen, num_classes)
        he_by_outputs(self)
        nn.init.zeros_(self.fc.bias)

    def features(self, images: Tensor) -> Tensor:
        """(B, 64·widen)."""
        maps = self.block3(self.block2(self.block1(self.conv1(images))))
        return pooled(F.relu(self.bn1(maps)))
