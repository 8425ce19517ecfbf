"""Weights and logits on disk: safetensors, written whole or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load, load_file, save
from torch import Tensor, nn

from wsl_sweep.errors import WslSweepError
from wsl_sweep.storage import Place, place
from wsl_sweep.training.device import seed_everything, undisturbed


def save_tensors(path: Path | Place, tensors: Mapping[str, Tensor]) -> str:
    """Saves tensors as safetensors, whole; returns the SHA-256 of the file. Raises StorageError."""
    content = tensor_bytes(tensors)
    place(path).write(content)
    return hashlib.sha256(content).hexdigest()


def content_digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the file that ``save_tensors`` would write."""
    return hashlib.sha256(tensor_bytes(tensors)).hexdigest()


def tensor_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """The safetensors file of some tensors."""
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})


def load_tensors(path: Path | Place) -> dict[str, Tensor]:
    """Loads a safetensors file. Raises WslSweepError where it is absent or damaged."""
    where = place(path)
    try:
        return load(where.read_bytes()) if where.local is None else load_file(where.local)
    except FileNotFoundError as error:
        raise WslSweepError(f"{path}: no such file") from error
    except (SafetensorError, OSError) as error:
        raise WslSweepError(f"{path}: not a readable safetensors file ({error})") from error


def load_into(model: nn.Module, path: Path | Place, name: str) -> None:
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
    """Calls ``build`` with the global random states at ``seed``, and puts them back."""
    with undisturbed():
        seed_everything(seed)
        return build()
