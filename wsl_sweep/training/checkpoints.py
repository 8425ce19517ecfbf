"""Weights that others have published: read without running anything that a file says, and checked entry by entry."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wsl_sweep.errors import WslSweepError
from wsl_sweep.models.adapted import Adapted
from wsl_sweep.models.bert import TextClassifier, by_todays_names
from wsl_sweep.training.weights import entry_problems, load_tensors, shortened

WRAPPERS = ("model", "state_dict", "net", "weights", "teacher", "student")
"""Entries under which public code keeps a state dict; RepDistiller's is ``model``."""

COUNTER = "num_batches_tracked"
"""Of batch normalisation; absent from old files, and of no use with a momentum."""


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The state dict in a ``.safetensors`` file or one of ``torch.save``, which may hold it under one of WRAPPERS.

    Only tensors and plain containers are read (``weights_only``): a file that wants to run code is refused. A common
    beginning ``module.`` of all names (data-parallel training) is taken away.

    Raises:
        WslSweepError: no such file, not readable so, or no state dict in it.
    """
    if path.suffix == ".safetensors":
        return _without_module(load_tensors(path))
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise WslSweepError(f"{path}: no such file") from error
    except pickle.UnpicklingError as error:
        raise WslSweepError(_refused(path, str(error))) from error
    except Exception as error:  # a damaged file may raise anything
        raise WslSweepError(f"{path}: not a file of torch.save that can be read ({_reason(error)})") from error
    found = _state_dict(content)
    if found is None:
        held = ", ".join(map(str, content)) if isinstance(content, Mapping) else type(content).__name__
        wanted = f"as it is, or under {', '.join(WRAPPERS)}"
        raise WslSweepError(f"{path}: holds no state dict (wanted {wanted}); it holds {held}")
    return _without_module(found)


def _finite(tensor: Tensor) -> bool:
    """Whether all values are; torch cannot tell it of eight bits."""
    small = tensor.is_floating_point() and tensor.element_size() == 1
    return bool((tensor.float() if small else tensor).isfinite().all())


def _reason(error: Exception) -> str:
    """The first line of an error, without torch's advice to read the file unsafely."""
    lines = str(error).strip().splitlines()
    return type(error).__name__ if not lines or "weights_only" in lines[0] else lines[0]


def _refused(path: Path, error: str) -> str:
    named = re.search(r"(?:GLOBAL|global|type) [`'\"]?([\w.]+)", error)
    if named is None:
        return f"{path}: not a file of torch.save, or one that holds more than tensors; neither is read"
    return (
        f"{path}: refused, it holds {named.group(1)}; only tensors are read, since anything else could run code. "
        "If you trust its origin, save its state dict alone with torch.save, or as safetensors"
    )


def _state_dict(content: Any, depth: int = 0) -> dict[str, Tensor] | None:
    if not isinstance(content, Mapping) or depth > 3:
        return None
    if content and all(isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()):
        return dict(content)
    for name in WRAPPERS:
        found = _state_dict(content.get(name), depth + 1)
        if found is not None:
            return found
    return None


def _without_module(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    prefix = "module."
    if tensors and all(name.startswith(prefix) for name in tensors):
        return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def fill(model: nn.Module, tensors: Mapping[str, Tensor], what: str, name: str) -> None:
    """Puts published weights into a model, every entry and shape checked.

    Args:
        model: filled in place, in its own dtypes.
        tensors: by the model's own names; those of another library's model by that library's.
        what: the file, for messages.
        name: the model's, for messages.

    Raises:
        WslSweepError: what is missing, what is too much, which shapes differ, or which values are not finite.
    """
    own = model.state_dict()
    if isinstance(model, Adapted) and not any(key.startswith("net.") for key in tensors):
        tensors = {f"net.{key}": tensor for key, tensor in tensors.items()}
    if isinstance(model, TextClassifier):
        tensors = by_todays_names(tensors)
    aside = {name for name, _ in model.named_buffers()} - set(own)  # which some versions of a library save
    tensors = {key: tensor for key, tensor in tensors.items() if key not in aside}
    counters = {key: own[key] for key in own if key.endswith(COUNTER) and key not in tensors}
    tensors = {**tensors, **counters}
    problems = entry_problems({key: tuple(tensor.shape) for key, tensor in tensors.items()}, own, name)
    problems = problems or [
        f"{key} is no plain tensor"
        for key, tensor in tensors.items()
        if tensor.is_meta or tensor.is_quantized or tensor.layout != torch.strided
    ]
    problems = problems or [
        f"{key} has values that are not finite" for key, tensor in tensors.items() if not _finite(tensor)
    ]
    if problems:
        raise WslSweepError(f"{what} does not hold the weights of {name}: {shortened(problems)}")
    model.load_state_dict(dict(tensors))
