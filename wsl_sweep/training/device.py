"""The device a process computes on, and the settings that must not leak from one trial into the next."""

from __future__ import annotations

import contextlib
import random
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import nn

from wsl_sweep.errors import WslSweepError


def pick_device() -> str:
    """``cuda`` where a GPU is visible to this process, else ``cpu``."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def prepare_process(threads: int, gpu: float = 1.0) -> None:
    """Puts torch's process-wide settings where every trial expects them.

    Args:
        threads: torch's.
        gpu: the part of a GPU's memory that this process may take, in (0, 1]; several trials share a card by it.

    Workers are reused: whatever the trial before has changed is set again here, and the arithmetic is float32
    without TF32 (a stored teacher logit must be the bits of a computed one).
    """
    torch.set_num_threads(threads)
    torch.set_default_dtype(torch.float32)
    torch.set_default_device(None)
    torch.set_grad_enabled(True)
    torch.set_autocast_enabled("cpu", False)
    torch.set_autocast_enabled("cuda", False)
    # The older flags first: torch.export reads them, and fails where they say another thing than the newer ones.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    setattr(torch.backends, "fp32_precision", "ieee")  # noqa: B010 - mypy does not know of it
    for backend in (torch.backends.mkldnn, torch.backends.cuda, torch.backends.cudnn):
        for operation in ("matmul", "conv", "rnn"):
            if hasattr(getattr(backend, operation, None), "fp32_precision"):
                getattr(backend, operation).fp32_precision = "ieee"
    torch.backends.cudnn.benchmark = False
    if torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(min(1.0, gpu) if gpu > 0 else 1.0)
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)


def as_computed(model: nn.Module) -> nn.Module:
    """The model with its convolutions' weights in channels_last, the format that every picture comes in."""
    return model.to(memory_format=torch.channels_last)


def autocast(device: str, precision: str) -> AbstractContextManager[Any]:
    """The context of the student's forward pass; losses, weights and optimizer stay in float32."""
    if precision == "bfloat16":
        return torch.autocast(device_type=torch.device(device).type, dtype=torch.bfloat16)
    if precision != "float32":
        raise WslSweepError(f"precision must be float32 or bfloat16 by now, not {precision!r}")
    return contextlib.nullcontext()
