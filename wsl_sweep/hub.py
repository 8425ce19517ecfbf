"""Files of the Hugging Face hub: from its cache on this machine, or downloaded to it; soon told where neither works."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from wsl_sweep.errors import WslSweepError

Kind = Literal["model", "dataset"]

ANSWER_SECONDS = 10.0
"""After which the hub counts as out of reach."""

MISSING_LIBRARY = 'needs huggingface_hub: pip install "wsl-sweep[nlp]"'


class NotOnHubError(WslSweepError):
    """The hub answers, and has no such file."""


def cached_file(repository: str, name: str, kind: Kind = "model") -> Path | None:
    """A file that was downloaded earlier, or None."""
    try:
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError
    except ImportError:
        return None
    try:
        found = try_to_load_from_cache(repository, name, repo_type=kind)
    except HFValidationError:
        return None
    return Path(found) if isinstance(found, str) and Path(found).is_file() else None


def hub_file(repository: str, name: str, kind: Kind = "model") -> Path:
    """A file of the hub, from the cache where it is there.

    Raises:
        NotOnHubError: there is no such file.
        WslSweepError: the library is not installed, or the hub cannot be reached, with the reason.
    """
    found = cached_file(repository, name, kind)
    if found is not None:
        return found
    try:
        from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
        from huggingface_hub.errors import EntryNotFoundError, HFValidationError, RepositoryNotFoundError
    except ImportError as error:
        raise WslSweepError(f"{repository} {MISSING_LIBRARY}") from error
    try:
        # Asked first: hf_hub_download tries again and again where there is no network at all.
        get_hf_file_metadata(hf_hub_url(repository, name, repo_type=kind), timeout=ANSWER_SECONDS)
        return Path(hf_hub_download(repository, name, repo_type=kind, etag_timeout=ANSWER_SECONDS))
    except (EntryNotFoundError, RepositoryNotFoundError, HFValidationError) as error:
        raise NotOnHubError(f"the hub has no file {name} of {repository}") from error
    except Exception as error:  # what a network does is told by several libraries
        lines = str(error).strip().splitlines()
        raise WslSweepError(
            f"{repository} cannot be downloaded ({lines[0] if lines else type(error).__name__})"
        ) from error
