"""The device a process computes on, and the settings that must not leak from one trial into the next."""

from __future__ import annotations

import contextlib
import os
import platform
import random
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from wsl_sweep.errors import WslSweepError

DECIDES_KERNELS = ("ONEDNN_MAX_CPU_ISA", "ONEDNN_DEFAULT_FPMATH_MODE", "MKL_CBWR", "ATEN_CPU_CAPABILITY")
"""Environment variables by which the CPU's kernels, and so the last bits, are chosen."""


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
    seed_everything(0)


def seed_everything(seed: int) -> None:
    """Seeds torch's random states, numpy's and Python's: users' own models may draw from any of them."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


def device_facts(device: str) -> dict[str, Any]:
    """What decides, beside torch itself, in which order a device adds numbers up."""
    if torch.device(device).type == "cuda":
        return {"kind": "cuda", "name": torch.cuda.get_device_name(), "cudnn": _cudnn()}
    told = {name: os.environ[name] for name in DECIDES_KERNELS if name in os.environ}
    return {"kind": "cpu", "name": _processor(), "capability": torch.backends.cpu.get_cpu_capability(), **told}


def _cudnn() -> int | None:
    return torch.backends.cudnn.version()  # type: ignore[no-untyped-call,no-any-return]


@lru_cache(maxsize=1)
def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def as_computed(model: nn.Module) -> nn.Module:
    """The model with its convolutions' weights in channels_last, the format that every picture comes in."""
    return model.to(memory_format=torch.channels_last)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Whatever is drawn inside leaves the random states as they were: torch's, the GPU's, numpy's, Python's."""
    torchs, numpys, pythons = torch.get_rng_state(), np.random.get_state(), random.getstate()
    gpus = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    try:
        yield
    finally:
        torch.set_rng_state(torchs)
        np.random.set_state(numpys)
        random.setstate(pythons)
        if gpus is not None:
            torch.cuda.set_rng_state(gpus)


def autocast(device: str, precision: str) -> AbstractContextManager[Any]:
    """The context of the student's forward pass; losses, weights and optimizer stay in float32."""
    if precision == "bfloat16":
        return torch.autocast(device_type=torch.device(device).type, dtype=torch.bfloat16)
    if precision != "float32":
        raise WslSweepError(f"precision must be float32 or bfloat16 by now, not {precision!r}")
    return contextlib.nullcontext()
