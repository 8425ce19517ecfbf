"""Pretrained teachers of torchvision before a sweep starts: fetched once, and then kept as every teacher is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wsl_sweep.errors import WslSweepError
from wsl_sweep.files import write_whole
from wsl_sweep.spec.datasets import data_set
from wsl_sweep.spec.pretrained import is_pretrained, kept_weights, note_of
from wsl_sweep.spec.reads import reads
from wsl_sweep.spec.spec import Spec
from wsl_sweep.spec.world import ASKED, assignments


def pretrained_problem(model: str, checkpoint: str, classes: int | None) -> str | None:
    """What is wrong with weights of torchvision as the teacher of data of so many classes, or None.

    Args:
        model: ``teacher.model``.
        checkpoint: ``teacher.checkpoint``.
        classes: of the data; None where they are not known.
    """
    from wsl_sweep.models.torchvision_weights import published_weights

    try:
        published = published_weights(model, checkpoint)
    except WslSweepError as error:
        return str(error)
    if classes is not None and published.classes != classes:
        return (
            f"{checkpoint} does not hold the weights of {model} for these data: it tells {published.classes} classes "
            f"apart, and the data have {classes}; take data of ImageNet's classes, or train a teacher on yours "
            "(teacher.checkpoint: none)"
        )
    return None


def classes_known(dataset: Mapping[str, Any]) -> bool:
    """Whether the classes of a data set can be told, from its ``dataset.`` paths."""
    return data_set(str(dataset.get("dataset.name"))).shape is not None or dataset.get("dataset.root") is not None


def _wanted(spec: Spec) -> list[tuple[str, str]]:
    """(model, weights) of every pretrained teacher that a sweep may use."""
    found: dict[tuple[str, str], None] = {}
    for _, overrides, params in assignments(spec, ASKED):
        flat = spec.flat_config(overrides, params)
        if is_pretrained(flat.get("teacher.checkpoint")) and "teacher.checkpoint" in reads(flat):
            found[str(flat["teacher.model"]), str(flat["teacher.checkpoint"])] = None
    return list(found)


def pretrained_notes(spec: Spec) -> list[str]:
    """What ``plan`` says of pretrained teachers that are not kept yet; nothing is downloaded."""
    notes = []
    for model, checkpoint in _wanted(spec):
        if kept_weights(model, checkpoint) is None:
            from wsl_sweep.models.torchvision_weights import published_weights

            published = published_weights(model, checkpoint)
            what = "a run takes it from" if published.file.is_file() else "a run downloads it to"
            size = f"{published.megabytes:.0f} MB"
            notes.append(f"the teacher {model}, {checkpoint} ({size}), is not kept yet: {what} {published.file}")
    return notes


def prepare_teachers(spec: Spec) -> None:
    """Brings every pretrained teacher of a sweep into the store of teachers, so that trials find its file.

    Raises WslSweepError: weights cannot be had, are damaged, or do not fit.
    """
    for model, checkpoint in _wanted(spec):
        fetch_teacher(model, checkpoint)


def fetch_teacher(model: str, checkpoint: str) -> dict[str, Any]:
    """The card of a pretrained teacher, which is fetched where it is not kept yet.

    Args:
        model: ``torchvision:`` and the model's name.
        checkpoint: ``torchvision:`` and the weights' name.

    Raises:
        WslSweepError: as ``prepare_teachers``.
    """
    from wsl_sweep.training import TeacherStore

    store, kept = TeacherStore(), kept_weights(model, checkpoint)
    card = store.card(kept.parent.name) if kept is not None else None
    if card is not None:
        return card
    from wsl_sweep.app.teachers import keep_teacher
    from wsl_sweep.models import build
    from wsl_sweep.models.torchvision_weights import published_weights
    from wsl_sweep.training.checkpoints import fill, read_state_dict

    published = published_weights(model, checkpoint)
    file = published.fetch()
    network = build(model, published.classes)
    fill(network, read_state_dict(file), str(file), model)
    facts = {
        "origin": f"torchvision {published.model} {published.name}",
        "recipe": None,
        "dataset": {"name": "imagenet"},
        "num_classes": published.classes,
        "in_channels": 3,
        "metrics": {},
        "data": None,
    }
    card = keep_teacher(network, model, file, facts)
    write_whole(note_of(model, checkpoint), f"{card['teacher_id']}\n".encode())
    return card
