"""A stream of random numbers for every purpose, each a function of (seed, purpose, epoch, step) alone.

So two variants with the same seed see the same pictures in the same order, whatever else they draw.
"""

from __future__ import annotations

import hashlib

import torch


def stream_seed(seed: int, purpose: str, epoch: int = 0, step: int = 0) -> int:
    """A 63-bit seed from the SHA-256 of its arguments."""
    text = f"{seed}/{purpose}/{epoch}/{step}".encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1


def stream(seed: int, purpose: str, epoch: int = 0, step: int = 0) -> torch.Generator:
    """A CPU generator at the start of its stream, the same on every machine and device."""
    return torch.Generator().manual_seed(stream_seed(seed, purpose, epoch, step))
