"""scikit-learn's digits: 1,797 grey pictures of 8x8 pixels, ten classes, part of its package."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class RawData:
    """A data set before it is split.

    Attributes:
        images: (N, C, H, W) float32 in [0, 1].
        labels: (N,) int64.
        num_classes: number of classes.
        mean: (C,) and
        std: (C,), for normalisation.
        test_fraction: how much of each class is the test part.
        digest: SHA-256 of pictures and labels.
    """

    images: Tensor
    labels: Tensor
    num_classes: int
    mean: Tensor
    std: Tensor
    test_fraction: float
    digest: str


def load_digits() -> RawData:
    """The digits; a fifth of each class is the test part.

    Mean and standard deviation are rounded constants of the whole set (no label enters them).
    """
    from sklearn.datasets import load_digits as sklearn_digits

    bunch = sklearn_digits()
    images = torch.tensor(bunch.images, dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.tensor(bunch.target, dtype=torch.int64)
    digest = hashlib.sha256(images.numpy().tobytes() + labels.numpy().tobytes()).hexdigest()
    return RawData(
        images=images,
        labels=labels,
        num_classes=10,
        mean=torch.tensor([0.305], dtype=torch.float32),
        std=torch.tensor([0.376], dtype=torch.float32),
        test_fraction=0.2,
        digest=digest,
    )
