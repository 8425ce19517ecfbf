"""Pretrained models, from a folder or the hub: looked for once, and kept in the hub's own cache."""

from __future__ import annotations

from pathlib import Path

from wsl_sweep.errors import WslSweepError
from wsl_sweep.hub import NotOnHubError, cached_file, hub_file
from wsl_sweep.model_folders import CONFIG, INDEX, WEIGHTS, is_hub_name, local_folder, parts_of

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
    try:
        for _ in range(2):  # the hub may have a new version since what is kept was downloaded
            files = _weights(name) if weights else []
            folder = hub_file(name, CONFIG).parent
            if all(file.parent == folder for file in files):
                return folder
    except NotOnHubError as error:
        raise WslSweepError(f'"{name}" is no folder here, and {error}') from error
    except WslSweepError as error:
        raise WslSweepError(
            f'"{name}" is not kept on this machine: {error}; give the folder of a copy instead, with {CONFIG} and '
            f"{WEIGHTS[0]} in it"
        ) from error
    raise WslSweepError(f'the files of "{name}" in the hub\'s cache are of several versions: delete them there')


def _weights(name: str) -> list[Path]:
    """The files of a model's weights; of those that the hub may have, the first, unless another is kept here."""
    kept = next((file for file in WEIGHTS if cached_file(name, file) is not None), None)
    for file in (kept,) if kept is not None else WEIGHTS:
        try:
            path = hub_file(name, file)
        except NotOnHubError:
            continue
        return [path, *(hub_file(name, part) for part in (parts_of(path) if file == INDEX else ()))]
    raise NotOnHubError(f"the hub has no weights of {name} that are read here: {', '.join(WEIGHTS)}")
