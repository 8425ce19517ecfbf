"""With what a trial was made: code, libraries, device, data, teacher's weights."""

from __future__ import annotations

import hashlib
import platform
from functools import lru_cache
from pathlib import Path

import torch

ROOMS = ("distill", "models", "data", "training")


@lru_cache(maxsize=1)
def training_code_digest() -> str:
    """SHA-256 (16 hex digits) of the source of everything that makes a trial's numbers."""
    package = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256()
    for room in ROOMS:
        for path in sorted((package / room).rglob("*.py")):
            digest.update(f"{path.relative_to(package)}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def library_versions() -> dict[str, str]:
    """Versions of what computes."""
    return {"python": platform.python_version(), "torch": torch.__version__}


def fingerprint(device: str, data_digest: str, teacher_digest: str | None) -> dict[str, str | None]:
    """What must be equal, beside the trial id, for one trial to stand for another."""
    kind = torch.device(device).type
    return {
        "code": training_code_digest(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if kind == "cuda" else "cpu",
        "data": data_digest,
        "teacher": teacher_digest,
    }
