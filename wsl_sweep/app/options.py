"""Where a sweep runs, what it leaves where, and what it computes on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsl_sweep.errors import WslSweepError
from wsl_sweep.spec.spec import Spec

DEFAULT_STORAGE = Path("runs")


@dataclass(frozen=True)
class RunOptions:
    """Where a sweep runs and what it leaves where.

    Attributes:
        storage: folder of sweeps; None for ``runs`` in the working folder.
        tracking_uri: of ``--tracking-uri``.
        address: of a Ray cluster; None for this machine alone.
        insecure: join a cluster without a token.
        bank: False to have teachers compute at every step, whatever the file says.
    """

    storage: str | None = None
    tracking_uri: str | None = None
    address: str | None = None
    insecure: bool = False
    bank: bool = True


@dataclass(frozen=True)
class Finished:
    """A sweep that has come to an end.

    Attributes:
        folder: ``<storage>/<name>``.
        summary: as in ``summary.json``.
        interrupted: the signal that stopped it, or None.
    """

    folder: Path
    summary: dict[str, Any]
    interrupted: int | None = None


def storage_folder(storage: str | None) -> Path:
    """The folder of sweeps. Raises WslSweepError for what is no folder that can be written."""
    if storage is not None and "://" in storage:
        raise WslSweepError(f"--storage {storage}: must be a folder that every node sees")
    return Path(storage).expanduser() if storage is not None else DEFAULT_STORAGE


def local_device_kind() -> str:
    """``cuda`` where this machine has an NVIDIA GPU that torch can use, else ``cpu``."""
    if not Path("/proc/driver/nvidia").exists():
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def settle_resources(spec: Spec, address: str | None) -> tuple[float, str]:
    """GPUs of a trial and the kind of device it computes on: one GPU where this machine has one, unless said."""
    gpu = spec.resources.gpu
    if gpu is None:
        gpu = 1.0 if address is None and local_device_kind() == "cuda" else 0.0
    return gpu, "cuda" if gpu > 0 else "cpu"
