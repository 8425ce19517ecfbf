"""Folders in ImageNet's layout: JPEGs of odd sizes, made in a blink, and what may be wrong with them."""

from __future__ import annotations

import io
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CLASSES = ("n01440764", "n01443537", "n02102040")

SIZES = ((40, 56), (61, 47), (37, 37), (33, 90), (80, 64))
"""Heights and widths, in turns."""


def picture(seed: int, height: int, width: int, mode: str = "RGB") -> Image.Image:
    """Smooth colours, so that a JPEG of it is small and looks like it."""
    rough = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(rough).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def put(path: Path, image: Image.Image, kind: str = "JPEG", **options: Any) -> Path:
    """A picture file; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, kind, **options)
    return path


def fill(root: Path, train: int = 8, val: int = 2, classes: tuple[str, ...] = CLASSES) -> Path:
    """``root/train`` and ``root/val`` with so many pictures a class, of all SIZES."""
    for part, count in (("train", train), ("val", val)):
        for name in classes:
            for index in range(count):
                path = root / part / name / f"{name}_{part}_{index}.JPEG"
                put(path, picture(zlib.crc32(path.name.encode()), *SIZES[index % len(SIZES)]))
    return root


def cut_off(path: Path) -> Path:
    """Leaves the first two thirds of a file."""
    path.write_bytes(path.read_bytes()[: 2 * path.stat().st_size // 3])
    return path


def config(root: Path, **changes: Any) -> dict[str, Any]:
    """A resolved ``dataset`` section."""
    return {
        "name": "imagenet",
        "root": str(root),
        "size": 32,
        "validation_fraction": 0.25,
        "train_fraction": 1.0,
        "label_noise": 0.0,
        "flip": True,
        "views": "epoch",
    } | changes


def as_jpeg(image: Image.Image) -> Image.Image:
    """What a decoder makes of an image's JPEG."""
    file = io.BytesIO()
    image.save(file, "JPEG")
    return Image.open(file)
