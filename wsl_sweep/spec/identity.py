"""What a trial is: the id that two equal trainings share, in whatever sweep they run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from wsl_sweep.errors import WslSweepError
from wsl_sweep.files import file_digest
from wsl_sweep.image_listing import list_pictures
from wsl_sweep.model_folders import config_content, weights_content
from wsl_sweep.pair_files import pair_files, vocabulary_content
from wsl_sweep.spec.catalogue import is_library_model
from wsl_sweep.spec.datasets import data_set
from wsl_sweep.user_code import is_import_name, source_digest

ID_DIGITS = 12


def canonical_json(value: Any) -> str:
    """JSON with sorted keys, no spaces, no NaN: equal values, equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def short_hash(value: Any) -> str:
    """The first 12 hex digits of the SHA-256 of the canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:ID_DIGITS]


def _content(path: str) -> str:
    """A checkpoint stands in an identity by its content; one that is not there (yet) by its name."""
    try:
        stat = Path(path).stat()
        return _digest_of(path, stat.st_size, stat.st_mtime_ns)
    except OSError:
        return path


@lru_cache(maxsize=64)
def _digest_of(path: str, size: int, modified: int) -> str:
    return f"sha256:{file_digest(Path(path))}"


def content_of_folder(dataset: Mapping[str, Any]) -> str:
    """SHA-256 of what a folder of pictures holds; of ImageNet's, which is too large to be read, names and sizes."""
    if dataset["name"] == "image_folder":
        return list_pictures(str(dataset["root"])).content()
    from wsl_sweep.imagenet_listing import list_imagenet  # with numpy, for which a file of other data need not wait

    return list_imagenet(str(dataset["root"])).content()


def data_identity(dataset: Mapping[str, Any]) -> dict[str, Any]:
    """A data set as it stands in an identity: without its place; a folder of pictures or sentences by what it holds, a
    user's own task with the source of its class.
    """
    name = str(dataset.get("name"))
    own = {key: value for key, value in dataset.items() if key != "root"} | _own_code(name)
    if data_set(name).folder_of_pictures and dataset.get("root"):
        try:
            own["content"] = content_of_folder(dataset)
        except WslSweepError:  # not there (yet)
            own["content"] = None
    if data_set(name).of == "sentences":
        own |= _sentences(dataset)
    return own


def _sentences(dataset: Mapping[str, Any]) -> dict[str, Any]:
    """Sentences and a vocabulary of this machine by their content; those of the hub by their names."""
    found: dict[str, Any] = {}
    if dataset.get("root"):
        try:
            found["content"] = pair_files(str(dataset["root"])).content()
        except WslSweepError:  # not there (yet)
            found["content"] = None
    if dataset.get("vocabulary"):
        found["vocabulary"] = vocabulary_content(str(dataset["vocabulary"]))
    return found


def _numbers_alike(value: Any) -> Any:
    """2 and 2.0 are the same setting."""
    if isinstance(value, Mapping):
        return {key: _numbers_alike(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_numbers_alike(inner) for inner in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value


def _own_code(name: str) -> dict[str, Any]:
    """What the name of a user's own model or task does not say of it."""
    own = is_import_name(name) and not is_library_model(name)
    return {"code": source_digest(name)} if own else {}


def _model(name: str) -> str:
    """A model as it stands in an identity: one of a folder's by its shape, wherever the folder is."""
    library, _, inner = name.partition(":")
    return f"{library}:{config_content(inner)}" if library == "transformers" and inner else name


def network_identity(section: Mapping[str, Any]) -> dict[str, Any]:
    """A ``teacher`` or ``student`` section as it stands in an identity: folders by what they hold."""
    own = dict(section)
    if "model" in own:
        own["model"] = _model(str(own["model"]))
    if own.get("init") not in (None, "random", "teacher"):
        own["init"] = weights_content(str(own["init"]))
    return own


OF_ITS_USE = ("mode", "stored_precision", "stored_top_k")
"""What a configuration says of how students use a teacher, not of what it is."""


def of_any_split(dataset: Mapping[str, Any]) -> dict[str, Any]:
    """A ``dataset`` section, whichever of its splits: trials of other seeds see other ones."""
    return {key: value for key, value in dataset.items() if key != "split"}


def teachers_dataset(config: Mapping[str, Any]) -> dict[str, Any]:
    """The ``dataset`` section that the teacher of a (nested) configuration is trained on.

    That is the student's; where that is one of several splits, all of them, unless ``teacher.split`` is ``same``.
    """
    own = dict(config["dataset"])
    if config["teacher"].get("split", "all") == "all":
        own = of_any_split(own)
        own.pop("splits", None)
    return own


def imported_identity(model: str, checkpoint: str) -> tuple[str, dict[str, Any]]:
    """Id and identity of a teacher that is brought in.

    Args:
        model: its name.
        checkpoint: ``sha256:`` and the hash of its safetensors file.
    """
    identity = {"model": _model(model), **_own_code(model), "checkpoint": checkpoint}
    return short_hash(identity), identity


def teacher_identity(
    config: Mapping[str, Any], part: str, threads: int, processes: int = 1
) -> tuple[str, dict[str, Any]] | None:
    """Id and identity of the teacher that a (nested, read-only-what-is-read) configuration names, or None.

    A teacher is what it is by its model, labels, seed, schedule and optimizer, the data it is trained on, and the
    threads and processes that sum its numbers. How students use it (``mode``) is not part of it.
    """
    teacher = config.get("teacher")
    if teacher is None:
        return None
    if teacher.get("checkpoint"):
        return imported_identity(teacher["model"], _content(teacher["checkpoint"]))
    own = {key: value for key, value in network_identity(teacher).items() if key not in (*OF_ITS_USE, "split")}
    own |= _own_code(teacher["model"])
    dataset = data_identity(teachers_dataset(config))
    identity = {"dataset": dataset, "teacher": own, "part": part, "threads": threads}
    identity |= _several(processes)
    return short_hash(_numbers_alike(identity)), identity


def _several(processes: int) -> dict[str, int]:
    """What is said of processes: nothing of one, so that what was trained by one keeps its identity."""
    return {"processes": processes} if processes > 1 else {}


def trial_id(config: Mapping[str, Any], part: str, threads: int, processes: int = 1) -> str:
    """The first 12 hex digits of the SHA-256 of the canonical JSON of what makes a trial's result.

    That is the configuration as far as it is read, with the seed, the epochs and the precision in it, the part
    trained on, the threads and processes, and the teacher's own configuration. Not in it: roots, names, storage,
    tracking, scheduler, stage, checkpointing.
    """
    own = {key: value for key, value in config.items() if key != "teacher"}
    own["dataset"] = data_identity(config["dataset"])
    own["student"] = network_identity(config["student"])
    named = teacher_identity(config, part, threads, processes)
    if named is not None:
        own["teacher"] = {"identity": named[1]} | {
            key: value for key, value in config["teacher"].items() if key in OF_ITS_USE
        }
    return short_hash(_numbers_alike({"config": own, "part": part, "threads": threads, **_several(processes)}))
