"""Pictures, texts and labels kept in the user's cache as plain bytes, which processes share by mapping them."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
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
        keep_tensors(path, {"images": images, "labels": labels}, facts)


def find_pictures(path: Path) -> tuple[Tensor, Tensor, dict[str, str]] | None:
    """Pictures, labels and facts as they were kept; None where they are absent, or not (any more) the bytes kept."""
    found = find_tensors(path)
    if found is None or set(found[0]) != {"images", "labels"} or found[0]["images"].dtype != torch.uint8:
        return None
    return found[0]["images"], found[0]["labels"], found[1]


def keep_tensors(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> None:
    """Keeps tensors and what else is to be known of them, whole or not at all.

    Raises StorageError: they cannot be written.
    """
    write_whole(path, save(dict(tensors), {**facts, "kept": _digest(tensors, facts)}))


def find_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]] | None:
    """Tensors and facts as they were kept; None where they are absent, or not (any more) the bytes kept."""
    try:
        with safe_open(path, framework="pt") as file:
            facts = dict(file.metadata() or {})
        tensors = load_file(path)
    except (OSError, SafetensorError):
        return None
    kept = facts.pop("kept", None)
    return (tensors, facts) if kept == _digest(tensors, facts) else None


def _digest(tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        digest.update(tensor.contiguous().numpy().data)
    digest.update(repr(sorted(facts.items())).encode())
    return digest.hexdigest()
