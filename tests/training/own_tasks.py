"""Tasks and models as a user would write them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from wsl_sweep.data import Task


class Vectors(Task):
    num_classes, in_channels = 3, 4

    def __init__(self) -> None:
        self.points = torch.randn(240, 4, generator=torch.Generator().manual_seed(0))
        self.labels = self.points.sum(dim=1).argsort().argsort() // 80

    def take(self, rows: Tensor, views: Tensor) -> Tensor:
        return self.points[rows]

    def metrics(self, logits: Tensor, labels: Tensor) -> dict[str, float]:
        return {"confidence": float(logits.softmax(dim=1).amax(dim=1).mean())}


class Augmented(Vectors):
    views = 3

    def take(self, rows: Tensor, views: Tensor) -> Tensor:
        return self.points[rows] + 0.1 * views[:, None]


class Tokens(Vectors):
    in_channels = 64

    def take(self, rows: Tensor, views: Tensor) -> Tensor:
        return ((self.points[rows] * 8).long() + 32).clamp(0, 63)


class Parted(Vectors):
    def __init__(self) -> None:
        super().__init__()
        self.test = torch.arange(200, 240)
        self.test_groups = {"first": self.test[:20], "last": self.test[20:]}


class FromFile(Vectors):
    def __init__(self, root: str) -> None:
        super().__init__()
        self.points = self.points + float((Path(root) / "moved").read_text())


class Broken(Vectors):
    @property
    def digest(self) -> str:  # type: ignore[override]
        return "broken"

    def take(self, rows: Tensor, views: Tensor) -> Tensor:
        if 7 in rows.tolist():
            raise ValueError("no example 7")
        return self.points[rows]


def net(num_classes: int, in_channels: int) -> nn.Module:
    return nn.Sequential(nn.Linear(in_channels, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, num_classes))


def reader(num_classes: int, in_channels: int) -> nn.Module:
    return nn.Sequential(nn.EmbeddingBag(in_channels, 8), nn.Linear(8, num_classes))
