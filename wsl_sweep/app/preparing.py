"""What has to be there before a sweep starts: its data, decoded or downloaded, and what is known of its teachers."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from wsl_sweep.spec.spec import Spec

LIES_ON_DISK = ("cifar10", "cifar100", "image_folder")


def configurations(spec: Spec) -> Iterator[dict[str, Any]]:
    """Configurations of every arm, variant and baseline at the swept values of data set and teacher's checkpoint."""
    swept = [path for path in ("recipe", "dataset.name", "dataset.root", "dataset.size") if path in spec.space]
    swept += [path for path in ("teacher.checkpoint",) if path in spec.space]
    for overrides in [*spec.arms.values(), *spec.variants.values(), *spec.baselines.values()]:
        for values in itertools.product(*(spec.space[path].representatives() for path in swept)):
            yield spec.config(overrides, dict(zip(swept, values, strict=True)))


def prepare_data(spec: Spec) -> list[str]:
    """Brings a sweep's data to where its trials find them at once, with progress; returns what the user should know.

    Raises WslSweepError: data are absent, or too few.
    """
    wanted: dict[str, Mapping[str, Any]] = {}
    for config in configurations(spec):
        dataset = config["dataset"]
        if dataset["name"] in LIES_ON_DISK:
            wanted.setdefault(repr([dataset.get(key) for key in ("name", "root", "size")]), dataset)
    notes: list[str] = []
    for dataset in wanted.values():
        notes += prepare_one(dataset)
    return list(dict.fromkeys(notes))


def prepare_one(dataset: Mapping[str, Any]) -> tuple[str, ...]:
    """As ``prepare_data``, for one resolved ``dataset`` section."""
    from wsl_sweep.data import prepare

    with _decoding(Path(str(dataset.get("root") or dataset["name"])).name) as progress:
        return prepare(dataset, progress)


@contextlib.contextmanager
def _decoding(name: str) -> Iterator[Callable[[int, int], None]]:
    """Progress on standard error, shown once there is some."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(f"reading the pictures of {name}", total=None, visible=False)

        def show(done: int, of: int) -> None:
            progress.update(task, completed=done, total=of, visible=True)

        yield show


def teacher_notes(spec: Spec) -> list[str]:
    """What a report must say of teachers that were brought in: they may have seen the validation part."""
    paths = dict.fromkeys(
        config["teacher"]["checkpoint"] for config in configurations(spec) if "checkpoint" in config.get("teacher", {})
    )
    if not paths:
        return []
    from wsl_sweep.training import TeacherStore

    store = TeacherStore()
    notes = []
    for path in paths:
        card = store.card_of_file(Path(path))
        if card is None:
            notes.append(
                f"teacher {path}: what it was trained on is not known; if it has seen the validation part, "
                "validation metrics flatter the students that follow it"
            )
        elif card["seen_validation"]:
            notes.append(
                f"teacher {card['teacher_id']} ({card.get('origin', 'trained here')}) has seen the validation part: "
                "validation metrics flatter the students that follow it"
            )
    return notes
