"""Weights and logits on disk: safetensors, written whole or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from wsl_sweep.errors import WslSweepError
from wsl_sweep.files import write_whole


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Saves tensors as safetensors, whole; returns the SHA-256 of the file."""
    content = _bytes(tensors)
    write_whole(path, content)
    return hashlib.sha256(content).hexdigest()


def content_digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the file that ``save_tensors`` would write."""
    return hashlib.sha256(_bytes(tensors)).hexdigest()


def _bytes(tensors: Mapping[str, Tensor]) -> bytes:
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})


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
    problems = entry_problems({key: tuple(value.shape) for key, value in tensors.items()}, model.state_dict(), name)
    if problems:
        raise WslSweepError(f"{path} does not hold the weights of {name}: {shortened(problems)}")
    model.load_state_dict(tensors)


def entry_problems(shapes: Mapping[str, tuple[int, ...]], own: Mapping[str, Tensor], name: str) -> list[str]:
    """What differs between the entries of a file (by their shapes) and those of the model ``name``."""
    problems = [
        f"{key} is {shapes[key]}, {name} has {tuple(own[key].shape)}"
        for key in own
        if key in shapes and shapes[key] != tuple(own[key].shape)
    ]
    problems += [f"missing: {key}" for key in own if key not in shapes]
    return problems + [f"not in {name}: {key}" for key in shapes if key not in own]


def shortened(problems: Sequence[str], most: int = 5) -> str:
    """The first few problems, and how many more there are."""
    return "; ".join(problems[:most]) + (f"; and {len(problems) - most} more" if len(problems) > most else "")


def file_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes in a safetensors file, without reading the tensors. Raises WslSweepError: not readable."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise WslSweepError(f"{path}: not a readable safetensors file ({error})") from error


def build_with_seed(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    """Calls ``build`` with torch's global random state at ``seed``, and puts the state back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()
