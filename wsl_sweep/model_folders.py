"""Pretrained models of transformers' form, a folder or a name on the hub, told without reading a weight."""

from __future__ import annotations

import hashlib
import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from wsl_sweep.errors import WslSweepError
from wsl_sweep.files import file_digest
from wsl_sweep.paths import node_folder

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
WEIGHTS = ("model.safetensors", INDEX, "pytorch_model.bin")
"""What may hold a model's weights, the first that is there counting; of an index the files that it names."""

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def is_hub_name(name: str) -> bool:
    """Whether ``name`` is that of a model on the hub, ``model`` or ``owner/model``, and of no folder here."""
    return _HUB_NAME.fullmatch(name) is not None and not Path(name).is_dir()


def local_folder(name: str) -> Path:
    """The folder of a name that is none of the hub's. Raises WslSweepError: there is no such folder here."""
    folder = node_folder(name)
    if not folder.is_dir():
        raise WslSweepError(f"{name}: no such folder, and no name of a model on the hub (model, or owner/model)")
    return folder


def read_config(folder: Path) -> dict[str, Any]:
    """What ``config.json`` says. Raises WslSweepError: there is none, or it is damaged."""
    path = folder / CONFIG
    try:
        config = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise WslSweepError(f"{path}: no such file; a folder of a model has one beside its weights") from error
    except (OSError, ValueError, RecursionError) as error:
        raise WslSweepError(f"{path}: cannot be read ({error})") from error
    if not isinstance(config, dict):
        raise WslSweepError(f"{path}: holds no configuration of a model")
    return config


def weight_files(folder: Path) -> list[Path]:
    """The files of a model's weights. Raises WslSweepError: there are none, or an index is damaged."""
    for name in WEIGHTS:
        path = folder / name
        if path.is_file():
            return [path] if name != INDEX else [folder / part for part in parts_of(path)]
    raise WslSweepError(f"{folder}: holds no weights; wanted is {', '.join(WEIGHTS)}")


def parts_of(index: Path) -> list[str]:
    """The names of the files that an index names, all of them beside it. Raises WslSweepError: it is damaged."""
    try:
        names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise WslSweepError(f"{index}: cannot be read ({error})") from error
    if not names or any(not isinstance(name, str) or Path(name).name != name for name in names):
        raise WslSweepError(f"{index}: names files that do not lie beside it")
    return names


def weights_content(name: str) -> str:
    """Pretrained weights as they stand in an identity: a folder's by their content, the hub's by their name.

    A folder that is not there (yet) stands there by its name too.
    """
    if is_hub_name(name):
        return name
    try:
        return _content(weight_files(local_folder(name)))
    except (OSError, WslSweepError):
        return name


def config_content(name: str) -> str:
    """As ``weights_content``, of what ``config.json`` says of a model's shape."""
    if is_hub_name(name):
        return name
    try:
        return _content([local_folder(name) / CONFIG])
    except (OSError, WslSweepError):
        return name


def _content(files: list[Path]) -> str:
    stamps = ((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files)
    digests = [_digest_of(*stamp) for stamp in stamps]
    whole = digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    return f"sha256:{whole}"


@lru_cache(maxsize=64)
def _digest_of(path: str, size: int, modified: int) -> str:
    return file_digest(Path(path))
