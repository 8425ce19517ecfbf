"""Pretrained models, from a folder or the hub: looked for once, and kept in the hub's own cache."""

from __future__ import annotations

from pathlib import Path

from wsl_sweep.errors import WslSweepError
from wsl_sweep.model_folders import CONFIG, INDEX, WEIGHTS, is_hub_name, local_folder, parts_of

SECONDS = 10.0
"""How long the hub is waited for."""

INSTALL = 'pip install "wsl-sweep[nlp]"'


def model_folder(name: str, *, weights: bool) -> Path:
    """The folder on this machine that holds a model's ``config.json`` and, where asked for, its weights.

    What is in the hub's cache is taken from there and nobody is asked; what is not is downloaded to it.

    Args:
        name: a folder, or a name on the hub.
        weights: whether they are wanted too.

    Raises:
        WslSweepError: there is no such folder; or the hub has none of that name, or cannot be reached.
    """
    if not is_hub_name(name):
        return local_folder(name)
    kept = kept_folder(name, weights=weights)
    return kept if kept is not None else _downloaded(name, weights)


def kept_folder(name: str, *, weights: bool) -> Path | None:
    """Where what is wanted of a model on the hub lies on this machine; None where something of it is not there."""
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError as error:
        raise WslSweepError(f'"{name}" is a name on the hub, which needs transformers: {INSTALL}') from error
    config = try_to_load_from_cache(name, CONFIG)
    if not isinstance(config, str):
        return None
    folder = Path(config).parent  # of one commit
    first = next((file for file in WEIGHTS if (folder / file).is_file()), None)
    parts = parts_of(folder / INDEX) if first == INDEX else [first] if first is not None else []
    whole = bool(parts) and all((folder / part).is_file() for part in parts)
    return folder if whole or not weights else None


def _downloaded(name: str, weights: bool) -> Path:
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        # Asked first, and once: a download tries again for half a minute where there is no network.
        commit = HfApi().model_info(name, timeout=SECONDS)
        there = {file.rfilename for file in commit.siblings or ()}
        config = Path(hf_hub_download(name, CONFIG, revision=commit.sha))
        first = next((file for file in WEIGHTS if file in there), None)
        if weights and first is not None:
            path = Path(hf_hub_download(name, first, revision=commit.sha))
            for part in parts_of(path) if first == INDEX else ():
                hf_hub_download(name, part, revision=commit.sha)
    except RepositoryNotFoundError as error:
        raise WslSweepError(f'"{name}" is no folder here, and the hub has no model of that name') from error
    except WslSweepError:
        raise
    except Exception as error:  # whatever the hub's client and the network raise
        raise WslSweepError(
            f'"{name}" is not kept on this machine, and the hub cannot be reached ({type(error).__name__}); '
            f"give the folder of a copy instead, with {CONFIG} and {WEIGHTS[0]} in it"
        ) from error
    if weights and first is None:
        raise WslSweepError(f'"{name}" has no weights on the hub that are read here: {", ".join(WEIGHTS)}')
    return config.parent
