"""Pictures and labels kept in the user's cache as plain bytes, which processes share by mapping them."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from wsl_sweep.errors import TrialError
from wsl_sweep.files import write_whole
from wsl_sweep.paths import cache_folder


def kept_pictures(name: str) -> Path:
    """Where the pictures of a name, which says what they were read from, are kept."""
    return cache_folder() / "data" / f"{name}.safetensors"


def keep_pictures(path: Path, images: Tensor, labels: Tensor, facts: dict[str, str]) -> None:
    """Keeps them, whole or not at all; where that cannot be, they are read from their source again next time.

    Args:
        path: of ``kept_pictures``.
        images: (N, C, H, W) uint8.
        labels: (N,) int64.
        facts: what else is to be known.
    """
    with contextlib.suppress(TrialError):
        write_whole(path, save({"images": images, "labels": labels}, {**facts, "kept": _digest(images, labels, facts)}))


def find_pictures(path: Path) -> tuple[Tensor, Tensor, dict[str, str]] | None:
    """Pictures, labels and facts as they were kept; None where they are absent, or not (any more) the bytes kept."""
    try:
        with safe_open(path, framework="pt") as file:
            facts = dict(file.metadata() or {})
        tensors = load_file(path)
        images, labels = tensors["images"], tensors["labels"]
    except (OSError, KeyError, SafetensorError):
        return None
    kept = facts.pop("kept", None)
    whole = images.dtype == torch.uint8 and kept == _digest(images, labels, facts)
    return (images, labels, facts) if whole else None


def _digest(images: Tensor, labels: Tensor, facts: dict[str, str]) -> str:
    digest = hashlib.sha256(images.numpy().data)
    digest.update(labels.numpy().data)
    digest.update(repr(sorted(facts.items())).encode())
    return digest.hexdigest()
