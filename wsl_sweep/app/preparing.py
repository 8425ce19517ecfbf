"""What has to be there before a sweep starts: its data, decoded or downloaded, and what is known of its teachers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from wsl_sweep.errors import WslSweepError
from wsl_sweep.model_folders import is_hub_name, weights_content
from wsl_sweep.pair_files import pair_files, vocabulary_content
from wsl_sweep.spec.catalogue import is_library_model, is_text_model
from wsl_sweep.spec.datasets import data_set
from wsl_sweep.spec.identity import canonical_json, content_of_folder, data_identity
from wsl_sweep.spec.spec import Spec
from wsl_sweep.spec.world import ASKED, assignments
from wsl_sweep.user_code import is_import_name, source_digest


def has_to_be_read(dataset: Mapping[str, Any]) -> bool:
    """Whether a data set is looked at before trials are: it lies on a disk, or is made by a user's own code."""
    return data_set(dataset["name"]).root != "none"


def configurations(spec: Spec) -> Iterator[dict[str, Any]]:
    """Configurations of every arm, variant and baseline at the swept values of what lies outside of a file."""
    for _, overrides, params in assignments(spec, ASKED):
        yield spec.config(overrides, params)


def prepare_data(spec: Spec) -> list[str]:
    """Brings a sweep's data to where its trials find them at once, with progress; returns what the user should know.

    Raises WslSweepError: data are absent, or too few.
    """
    wanted: dict[str, Mapping[str, Any]] = {}
    for config in configurations(spec):
        dataset = config["dataset"]
        if has_to_be_read(dataset):
            keys = ("name", "root", "size", "damaged", "max_length", "vocabulary")
            wanted.setdefault(repr([dataset.get(key) for key in keys]), dataset)
    notes: list[str] = []
    for dataset in wanted.values():
        notes += prepare_one(dataset, need_test=True)
    if prepare_text_models(configurations(spec)) or wanted:
        from wsl_sweep.data import forget

        forget()  # the driver trains nothing
    return list(dict.fromkeys(notes))


def prepare_text_models(configs: Iterable[Mapping[str, Any]]) -> bool:
    """Downloads what text models begin from, and checks that it fits their data; whether there are any such models.

    Raises WslSweepError: weights are absent, cannot be had or are of other shapes, or a vocabulary is too large.
    """
    checked: set[str] = set()
    for config in configs:
        for name in ("student", "teacher"):
            section: Mapping[str, Any] = config.get(name, {})
            model, init = str(section.get("model", "")), str(section.get("init", "random"))
            asked = canonical_json([model, init, config["dataset"]])
            if asked in checked or not is_text_model(model):
                continue
            checked.add(asked)
            from wsl_sweep.data import available, shape
            from wsl_sweep.training.beginning import check_beginning

            if not available(config["dataset"]):  # told where they are loaded
                continue
            try:
                check_beginning(model, init, *shape(config["dataset"]), int(config["dataset"].get("max_length", 0)))
            except WslSweepError as error:
                path = "init" if init not in ("random", "teacher") else "model"
                raise WslSweepError(f"{name}.{path}: {error}") from error
    return bool(checked)


def prepare_one(dataset: Mapping[str, Any], *, need_test: bool = False, split: bool = True) -> tuple[str, ...]:
    """As ``prepare_data``, for one resolved ``dataset`` section.

    Args:
        dataset: the section.
        need_test: whether an empty test part is an error.
        split: False for reading the examples only, without looking at their parts.
    """
    from wsl_sweep.data import prepare

    with _decoding(data_set(dataset["name"]).of, Path(str(dataset.get("root") or dataset["name"])).name) as progress:
        return prepare(dataset, progress, need_test=need_test, split=split)


@contextlib.contextmanager
def _decoding(what: str, name: str) -> Iterator[Callable[[int, int], None]]:
    """Progress on standard error, shown once there is some."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(f"reading the {what} of {name}", total=None, visible=False)

        def show(done: int, of: int) -> None:
            progress.update(task, completed=done, total=of, visible=True)

        yield show


def surroundings(spec: Spec) -> dict[str, str | None]:
    """What a sweep's results rest on beside its file: pictures, sentences, users' own data and code; name → hash."""
    found: dict[str, str | None] = {}
    for config in configurations(spec):
        dataset = config["dataset"]
        if data_set(dataset["name"]).folder_of_pictures:
            found[f"the pictures in {dataset['root']}"] = content_of_folder(dataset)
        if data_set(dataset["name"]).of == "sentences":
            found |= _sentences(dataset)
        about = f"the data of {dataset['name']}" + (f" in {dataset['root']}" if dataset.get("root") else "")
        if is_import_name(dataset["name"]) and about not in found:
            found[about] = _digest_of_task(dataset)
        for section in (config["student"], config.get("teacher", {})):
            init = str(section.get("init", "teacher"))
            if init != "teacher" and not is_hub_name(init):
                found[f"the weights in {init}"] = weights_content(init)
        models = config["student"]["model"], config.get("teacher", {}).get("model")
        for name in (dataset["name"], *models, _method(config)):
            if name is not None and is_import_name(name) and not is_library_model(name):
                found[f"the code of {name}"] = source_digest(name)
    return found


def _sentences(dataset: Mapping[str, Any]) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    if dataset.get("root"):
        found[f"the sentences in {dataset['root']}"] = pair_files(str(dataset["root"])).content()
    vocabulary = str(dataset["vocabulary"])
    if vocabulary_content(vocabulary) != vocabulary:
        found[f"the vocabulary {vocabulary}"] = vocabulary_content(vocabulary)
    return found


def _digest_of_task(dataset: Mapping[str, Any]) -> str:
    from wsl_sweep.data.dataset import forget, task_of

    digest = task_of(dataset).digest
    forget()  # the driver trains nothing
    return digest


def _method(config: Mapping[str, Any]) -> str:
    return str(config["distillation"]["method"])


def teacher_notes(spec: Spec) -> list[str]:
    """What a report must say of teachers that were brought in: they may have seen the validation part."""
    return list(dict.fromkeys(note for config in configurations(spec) for note in notes_on_teacher(config)))


def notes_on_teacher(config: Mapping[str, Any]) -> list[str]:
    """As ``teacher_notes``, for one configuration."""
    path = config.get("teacher", {}).get("checkpoint")
    if path is None:
        return []
    from wsl_sweep.training import TeacherStore

    flatters = "validation metrics flatter the students that follow it"
    card = TeacherStore().card_of_file(Path(path))
    if card is None:
        return [f"teacher {path}: what it was trained on is not known; if it has seen the validation part, {flatters}"]
    name = f"teacher {card['teacher_id']} ({card.get('origin', 'trained here')})"
    if card["seen_validation"]:
        return [f"{name} has seen the validation part: {flatters}"]
    if of_another_split(card, config["dataset"]):
        return [f"{name} was trained on another split of the data; if it has seen the validation part, {flatters}"]
    return []


def of_another_split(card: Mapping[str, Any], dataset: Mapping[str, Any]) -> bool:
    """Whether a teacher was trained on other data, or on another split of them, so that it may have seen anything."""
    own, trained = data_identity(dataset), card["identity"].get("dataset", {})
    return any(own.get(key) != trained.get(key) for key in ("name", "content", "validation_fraction"))
