"""Weights and logits on disk: safetensors, written whole or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from wsl_sweep.errors import WslSweepError
from wsl_sweep.files import write_whole


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Saves tensors as safetensors, whole; returns the SHA-256 of the file."""
    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    write_whole(path, content)
    return hashlib.sha256(content).hexdigest()


def load_tensors(path: Path, device: str = "cpu") -> dict[str, Tensor]:
    """Loads a safetensors file. Raises WslSweepError where it is absent or damaged."""
    try:
        return load_file(path, device=device)
    except FileNotFoundError as error:
        raise WslSweepError(f"{path}: no such file") from error
    except (SafetensorError, OSError) as error:
        raise WslSweepError(f"{path}: not a readable safetensors file ({error})") from error


def load_into(model: nn.Module, path: Path, name: str) -> None:
    """Loads a model's weights, every entry and shape checked.

    Raises WslSweepError naming what is missing, what is too much and which shapes differ.
    """
    tensors = load_tensors(path)
    own = model.state_dict()
    problems = [f"missing: {key}" for key in own if key not in tensors]
    problems += [f"not in {name}: {key}" for key in tensors if key not in own]
    problems += [
        f"{key} is {tuple(tensors[key].shape)}, {name} has {tuple(own[key].shape)}"
        for key in own
        if key in tensors and tensors[key].shape != own[key].shape
    ]
    if problems:
        shown = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        raise WslSweepError(f"{path} does not hold the weights of {name}: {shown}")
    model.load_state_dict(tensors)


def build_with_seed(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    """Calls ``build`` with torch's global random state at ``seed``, and puts the state back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()
