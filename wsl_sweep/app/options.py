"""Where a sweep runs, what it leaves where, and what it computes on."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsl_sweep.errors import WslSweepError
from wsl_sweep.spec.spec import Spec
from wsl_sweep.storage import Place, place

DEFAULT_STORAGE = "runs"


@dataclass(frozen=True)
class RunOptions:
    """Where a sweep runs and what it leaves where.

    Attributes:
        storage: folder of sweeps, or the URL of one in an object store; None for ``runs`` in the working folder.
        tracking_uri: of ``--tracking-uri``.
        address: of a Ray cluster; None for this machine alone.
        insecure: join a cluster without a token.
        bank: False to have teachers compute at every step, whatever the file says.
        rerun: whether trials are run that another sweep of the storage has finished.
        as_begun: whether a sweep goes on as it began although its file has changed since.
    """

    storage: str | None = None
    tracking_uri: str | None = None
    address: str | None = None
    insecure: bool = False
    bank: bool = True
    rerun: bool = False
    as_begun: bool = False


@dataclass(frozen=True)
class Finished:
    """A sweep that has come to an end.

    Attributes:
        folder: ``<storage>/<name>``.
        summary: as in ``summary.json``.
        interrupted: the signal that stopped it, or None.
        stopped: why it ended before its end, or None.
    """

    folder: Place
    summary: dict[str, Any]
    interrupted: int | None = None
    stopped: str | None = None


def storage_folder(storage: str | None) -> Place:
    """The folder of sweeps. Raises WslSweepError for an address that nothing here can open."""
    return place(storage if storage is not None else DEFAULT_STORAGE)


def with_storage(name: str, folder: Place) -> str:
    """A sweep's name as a command takes it, with ``--storage`` where that is needed."""
    where = str(folder.parent)
    return name if where == DEFAULT_STORAGE else f"{name} --storage {shlex.quote(where)}"


def local_device_kind() -> str:
    """``cuda`` where this machine has an NVIDIA GPU that torch can use, else ``cpu``."""
    if not Path("/proc/driver/nvidia").exists():
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def settle_resources(spec: Spec, address: str | None) -> tuple[float, str]:
    """GPUs of a trial and the kind of device it computes on.

    Where this machine has a GPU and nothing is said, one for each of the trial's processes.

    Raises WslSweepError: something asks for ``student.batchnorm: sync``, and there is no GPU for it.
    """
    gpu = spec.resources.gpu
    if gpu is None:
        gpu = float(spec.processes) if address is None and local_device_kind() == "cuda" else 0.0
    if gpu == 0 and "sync" in spec.values_of("student.batchnorm"):
        raise WslSweepError(
            "student.batchnorm: sync needs a GPU for each process, and trials have none here: set resources.gpu where "
            "there are some; on CPUs batch normalisation is by process"
        )
    return gpu, "cuda" if gpu > 0 else "cpu"
