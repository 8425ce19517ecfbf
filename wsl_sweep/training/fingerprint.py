"""With what a trial was made: code, libraries, device, data, teacher's weights."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from wsl_sweep.spec.catalogue import is_library_model, library_of_model
from wsl_sweep.user_code import is_import_name, source_digest

ROOMS = ("distill", "models", "data", "training")
TEACHER_CODE = (
    "models",
    "data",
    "distill/losses.py",
    "training/bank.py",
    "training/device.py",
    "training/records.py",
    "training/supply.py",
    "training/teachers.py",
    "training/weights.py",
)


@lru_cache(maxsize=1)
def training_code_digest() -> str:
    """SHA-256 (16 hex digits) of the source of everything that makes a trial's numbers."""
    return _digest_of(ROOMS)


@lru_cache(maxsize=1)
def teacher_code_digest() -> str:
    """SHA-256 (16 hex digits) of the source of everything that makes a teacher's outputs."""
    return _digest_of(TEACHER_CODE)


def _digest_of(places: Sequence[str]) -> str:
    package = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256()
    for place in places:
        path = package / place
        for file in [path] if path.suffix else sorted(path.rglob("*.py")):
            digest.update(f"{file.relative_to(package)}\0".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def library_versions() -> dict[str, str]:
    """Versions of what computes."""
    return {"python": platform.python_version(), "torch": torch.__version__}


def source_of(model: str) -> str | None:
    """A hash of the source of a user's own model; None for ours and the libraries'."""
    return source_digest(model) if is_import_name(model) and not is_library_model(model) else None


def library_of(model: str) -> str | None:
    """Name and version of the library that a model comes from, where it is not this package or a user's own."""
    library = library_of_model(model)
    return f"{library} {version(library)}" if library is not None else None


def own_code(config: Mapping[str, Any]) -> str | None:
    """A hash of the source of the user's own task, models and method in a (nested) configuration; None without any."""
    named = [config["dataset"]["name"], config["student"]["model"], config["distillation"]["method"]]
    if "teacher" in config:
        named.append(config["teacher"]["model"])
    own = sorted({name for name in named if is_import_name(name) and not is_library_model(name)})
    if not own:
        return None
    text = "".join(f"{name} {source_digest(name)}\n" for name in own)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def fingerprint(
    device: str, data_digest: str, teacher_digest: str | None, own: str | None = None
) -> dict[str, str | None]:
    """What must be equal, beside the trial id, for one trial to stand for another."""
    kind = torch.device(device).type
    return {
        "code": training_code_digest(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if kind == "cuda" else "cpu",
        "data": data_digest,
        "teacher": teacher_digest,
        "own": own,
    }
