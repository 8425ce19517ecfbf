"""scikit-learn's digits: 1,797 grey pictures of 8x8 pixels, ten classes, part of its package."""

from __future__ import annotations

import hashlib
from importlib.metadata import version

import torch

from wsl_sweep.data.kept import find_pictures, keep_pictures, kept_pictures
from wsl_sweep.data.raw import RawData

LARGEST = 16
"""Pixels are whole numbers from 0 to this."""


def load_digits() -> RawData:
    """The digits; a fifth of each class is the test part.

    Mean and standard deviation are rounded constants of the whole set (no label enters them).
    """
    kept = kept_pictures(f"digits-{version('scikit-learn')}")  # importing it takes longer than many a training
    found = find_pictures(kept)
    if found is not None:
        images, labels, _ = found
    else:
        from sklearn.datasets import load_digits as sklearn_digits

        bunch = sklearn_digits()
        images = torch.tensor(bunch.images, dtype=torch.uint8).unsqueeze(1)
        labels = torch.tensor(bunch.target, dtype=torch.int64)
        keep_pictures(kept, images, labels, {})
    floats = images.to(torch.float32) / LARGEST
    return RawData(
        images=images,
        labels=labels,
        num_classes=10,
        digest=hashlib.sha256(floats.numpy().tobytes() + labels.numpy().tobytes()).hexdigest(),
        scale=LARGEST,
        mean=torch.tensor([0.305], dtype=torch.float32),
        std=torch.tensor([0.376], dtype=torch.float32),
        class_names=tuple(map(str, range(10))),
    )
