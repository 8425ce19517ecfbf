"""A data set before it is split and normalised."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

Progress = Callable[[int, int], None]
"""(done, of) -> None."""


@dataclass(frozen=True)
class RawData:
    """All pictures of a data set.

    Attributes:
        images: (N, C, H, W) uint8.
        labels: (N,) int64.
        num_classes: number of classes.
        scale: what a picture's largest value is; pictures are divided by it.
        mean: (C,) and
        std: (C,), for normalisation, of pictures in [0, 1]; None where they are to be computed.
        test: (T,) rows of the official test part; None where ``test_fraction`` of each class is split off.
        test_fraction: see there.
        digest: SHA-256 of pictures and labels.
        notes: what the user should know: pictures left out, …
        class_names: in the order of the labels; empty where they are not told here.
    """

    images: Tensor
    labels: Tensor
    num_classes: int
    digest: str
    scale: float = 255.0
    mean: Tensor | None = None
    std: Tensor | None = None
    test: Tensor | None = None
    test_fraction: float = 0.2
    notes: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
