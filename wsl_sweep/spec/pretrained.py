"""torchvision's pretrained teachers: how they are asked for, and where their weights lie once they are here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wsl_sweep.paths import cache_folder

LIBRARY = "torchvision:"

_NAME = re.compile(rf"{LIBRARY}\w+")


def is_pretrained(checkpoint: object) -> bool:
    """Whether a ``teacher.checkpoint`` names weights of torchvision, such as ``torchvision:IMAGENET1K_V1``."""
    return isinstance(checkpoint, str) and _NAME.fullmatch(checkpoint) is not None


def note_of(model: str, checkpoint: str) -> Path:
    """The file that holds the id of the teacher that has been made of such weights.

    Args:
        model: ``torchvision:`` and the model's name.
        checkpoint: ``torchvision:`` and the weights' name.
    """
    return cache_folder() / "teachers" / f"{model.replace(':', '-')}-{checkpoint.removeprefix(LIBRARY)}.id"


def kept_weights(model: str, checkpoint: str) -> Path | None:
    """The safetensors file of a pretrained teacher, or None where it has not been fetched."""
    if not (is_pretrained(model) and is_pretrained(checkpoint)):
        return None
    try:
        teacher_id = note_of(model, checkpoint).read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None
    if re.fullmatch(r"[0-9a-f]{12}", teacher_id) is None:
        return None
    weights = cache_folder() / "teachers" / teacher_id / "weights.safetensors"
    return weights if weights.is_file() else None


def with_weights(teacher: Mapping[str, Any]) -> dict[str, Any]:
    """A ``teacher`` section with its file in place of its weights' name, once they are here."""
    checkpoint = teacher.get("checkpoint")
    found = kept_weights(str(teacher["model"]), checkpoint) if checkpoint is not None else None
    return dict(teacher) if found is None else {**teacher, "checkpoint": str(found)}
