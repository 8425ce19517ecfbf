"""Where sentence pairs and a vocabulary lie, told from names and bytes: nothing heavy is imported."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from wsl_sweep.errors import WslSweepError
from wsl_sweep.files import file_digest
from wsl_sweep.paths import node_folder

PARTS: dict[str, str] = {"train": "train.tsv", "matched": "dev_matched.tsv", "mismatched": "dev_mismatched.tsv"}
"""The files of MultiNLI as GLUE has them, by part; those of its test set have no labels."""

INNER_FOLDER = "MNLI"
"""What GLUE's archive unpacks to."""

LEARNED = "learned"
"""The vocabulary that is made from the training sentences."""

TOKENIZER_FILE, WORDS_FILE, SETTINGS_FILE = "tokenizer.json", "vocab.txt", "tokenizer_config.json"

FileState = tuple[str, int, int]
"""(name, size in bytes, time of last change in nanoseconds since 1970)."""


@dataclass(frozen=True)
class PairFiles:
    """The files of a folder of sentence pairs.

    Attributes:
        folder: that holds them.
        files: in the order of ``PARTS``.
    """

    folder: Path
    files: tuple[Path, ...]

    def state(self) -> tuple[FileState, ...]:
        """What caches of the sentences are valid for."""
        return tuple(_state(file) for file in self.files)

    def content(self) -> str:
        """SHA-256 of the files' bytes: the same for a copy elsewhere."""
        return content_of(self.files)


def pair_files(root: str) -> PairFiles:
    """The files of ``root``, or of its folder ``MNLI``. Raises WslSweepError: one of them is not there."""
    base = node_folder(root)
    if not base.is_dir():
        what = "is a file, not a folder" if base.exists() else "there is no such folder"
        raise WslSweepError(f"{root}: {what}")
    inner = base / INNER_FOLDER
    folder = inner if inner.is_dir() and not (base / PARTS["train"]).exists() else base
    missing = [name for name in PARTS.values() if not (folder / name).is_file()]
    if missing:
        verb = "are" if len(missing) > 1 else "is"
        raise WslSweepError(
            f"{folder}: {' and '.join(missing)} {verb} not there; mnli needs GLUE's {', '.join(PARTS.values())}"
        )
    return PairFiles(folder, tuple(folder / name for name in PARTS.values()))


def vocabulary_files(name: str) -> tuple[Path, ...] | None:
    """The files of a vocabulary on this machine; None for ``learned`` and for a name on the hub.

    A path is absolute, or has ``.txt`` or ``.json`` at its end, or begins with a dot, ``~`` or a variable: a name on
    the hub is never taken for a folder of the place where a process happens to run.
    A folder's ``tokenizer.json``, or its ``vocab.txt`` with the ``tokenizer_config.json`` beside it, if there is one;
    or one such file by itself.

    Raises:
        WslSweepError: ``name`` is the path of nothing, or of a folder without either file.
    """
    if not (name.startswith(("/", ".", "~", "$")) or name.endswith((".txt", ".json"))):
        return None
    path = node_folder(name)
    if path.is_file():
        return (path,)
    if not path.is_dir():
        raise WslSweepError(f"dataset.vocabulary: {name}: there is no such file or folder")
    if (path / TOKENIZER_FILE).is_file():
        return (path / TOKENIZER_FILE,)
    if (path / WORDS_FILE).is_file():
        return tuple(path / file for file in (WORDS_FILE, SETTINGS_FILE) if (path / file).is_file())
    raise WslSweepError(f"dataset.vocabulary: {name} holds neither {TOKENIZER_FILE} nor {WORDS_FILE}")


def vocabulary_content(name: str) -> str:
    """A vocabulary as it stands in an identity: what is on this machine by its content, all else by its name."""
    try:
        files = vocabulary_files(name)
    except WslSweepError:  # not there (yet)
        return name
    return name if files is None else f"sha256:{content_of(files)}"


def content_of(files: tuple[Path, ...]) -> str:
    """SHA-256 of the bytes of several files and their order; computed once as long as none of them changes.

    Raises WslSweepError: one cannot be read.
    """
    digest = hashlib.sha256()
    for file in files:
        _, size, modified = _state(file)
        digest.update(bytes.fromhex(_digest_of(file, size, modified)))
    return digest.hexdigest()


def _state(file: Path) -> FileState:
    try:
        stat = file.stat()
    except OSError as error:
        raise WslSweepError(f"{file}: cannot be read ({error.strerror or error})") from error
    return file.name, stat.st_size, stat.st_mtime_ns


@lru_cache(maxsize=32)
def _digest_of(file: Path, size: int, modified: int) -> str:
    try:
        return file_digest(file)
    except OSError as error:
        raise WslSweepError(f"{file}: cannot be read ({error.strerror or error})") from error
