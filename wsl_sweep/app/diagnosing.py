"""Why distillation works, or does not: what a teacher's soft labels hold, computed on its own data."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast, get_args

from wsl_sweep.app.named_teachers import NamedTeacher, name_teacher, teacher_by_id
from wsl_sweep.app.preparing import has_to_be_read, of_another_split, prepare_one
from wsl_sweep.app.teacher_pass import Say, teacher_says
from wsl_sweep.errors import WslSweepError
from wsl_sweep.spec.identity import data_identity
from wsl_sweep.storage import place

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from wsl_sweep.analysis.found_teacher import FoundTeacher
    from wsl_sweep.analysis.report import Page
    from wsl_sweep.data import Examples, TaskData

PartOfData = Literal["train", "validation", "test"]

OF_THE_EXAMPLES = ("name", "content", "size", "max_length", "vocabulary")
"""What of a data set decides what a teacher is shown of an example."""


def _nothing(_: str) -> None:
    pass


def diagnose_teacher(
    which: str,
    *,
    part: str = "validation",
    temperature: float | None = None,
    against: str | None = None,
    root: str | None = None,
    storage: str | None = None,
    say: Say = _nothing,
) -> FoundTeacher:
    """What a teacher's soft labels hold: calibration, entropy, unreliability, ambiguity, stability; and warnings.

    The teacher looks at the examples as they are, in eval mode, as students see it. Nothing is kept of what it says.

    Args:
        which: a teacher's id, or how it begins; or the name of a sweep, whose teacher is meant. A sweep's name wins
            over the beginning of an id, and a whole id over a name.
        part: ``train`` (what the teacher was trained on, with those labels), ``validation`` or ``test``.
        temperature: τ of distillation; None for that of the sweep's trials, or of the recipe.
        against: id of a second teacher, without or with less label smoothing, on the same examples.
        root: where the data lie, in place of what a sweep says; of a teacher alone that is not known.
        storage: folder of sweeps.
        say: hears what is done.

    Raises:
        WslSweepError: no such teacher or sweep, or a sweep with several teachers; the data are not here, or others; the
            second teacher knows other classes or data; or what it says is no number.
    """
    from wsl_sweep.analysis.diagnostics.soft_labels import soft_labels, stability
    from wsl_sweep.analysis.found_teacher import FoundTeacher, compared

    _check(part, temperature)
    first = name_teacher(which, root=root, storage=storage)
    second = None if against is None else _second(first, against)
    data = _data_of(first)
    examples = _examples(first, data, cast("PartOfData", part))
    labels = examples.labels.cpu().numpy()
    notes = [*first.notes, *data.notes, *_on_part(first, part)]
    if second is not None and part == "validation":
        notes += _second_on_validation(second, first)
    logits = _says(first, examples, data, say)
    other = None
    if second is not None:
        spread = stability(_says(second, examples, data, say), labels)
        other = compared(second.teacher_id, stability(logits, labels), spread, (first.smoothing, second.smoothing))
    tau, where = (first.temperature, first.temperature_from) if temperature is None else (temperature, "as asked for")
    names = data.class_names
    return FoundTeacher(
        teacher_id=first.teacher_id,
        model=first.model,
        part=part,
        data=str(first.dataset["name"]),
        soft=soft_labels(
            logits, labels, tau, class_names=names or None,
            erased=None if other is None or other.reversed else other.erased,
        ),
        temperature_from=where,
        class_names=names,
        settings=first.settings,
        against=other,
        notes=tuple(dict.fromkeys(notes)),
    )  # fmt: skip


def _check(part: str, temperature: float | None) -> None:
    if part not in get_args(PartOfData):
        raise WslSweepError(f"--part must be train, validation or test, not {part!r}")
    if temperature is not None and not 0 < temperature < float("inf"):
        raise WslSweepError(f"--temperature must be a number above 0, not {temperature:g}")


# --- the second teacher ----------------------------------------------------------------------------------------------


def _second(first: NamedTeacher, against: str) -> NamedTeacher:
    """The teacher that is compared with. Raises WslSweepError: it is the same one, or of other data or classes."""
    second = teacher_by_id(against)
    pair = f"teacher {second.teacher_id} cannot be compared with {first.teacher_id}"
    if second.teacher_id == first.teacher_id:
        raise WslSweepError(f"--against: {second.teacher_id} is the same teacher")
    if None not in (first.classes, second.classes) and first.classes != second.classes:
        raise WslSweepError(f"--against: {pair}: it knows {second.classes} classes, the other {first.classes}")
    here = {key: value for key, value in data_identity(first.dataset).items() if value is not None}
    own, theirs = {**first.known_data, **here}, second.known_data
    for key in OF_THE_EXAMPLES:
        if key in own and key in theirs and own[key] != theirs[key]:
            what = f"dataset.{key} {theirs[key]}, not {own[key]}" if key != "content" else "data of other content"
            raise WslSweepError(f"--against: {pair}: it belongs to {what}")
    return second


def _second_on_validation(second: NamedTeacher, first: NamedTeacher) -> list[str]:
    """What has to be known where the second teacher may have seen the validation part."""
    if second.seen_validation or of_another_split(second.card, first.dataset):
        return [f"Teacher {second.teacher_id} has seen the validation part, or may have: the comparison is not even."]
    return []


# --- data ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Data:
    """The data of a teacher.

    Attributes:
        loaded: its training part as the teacher had it, and its validation part.
        class_names: of its classes, or nothing.
        notes: what has to be known of it.
        device: where the teacher computes.
        workers: processes that bring what does not lie in memory.
    """

    loaded: TaskData
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()
    device: str = "cpu"
    workers: int = 1


def _data_of(teacher: NamedTeacher) -> _Data:
    """Raises WslSweepError: the data are not here, or others than those of the teacher."""
    from wsl_sweep.data import available, class_names, load
    from wsl_sweep.data.dataset import Part
    from wsl_sweep.training.device import pick_device

    dataset = teacher.dataset
    if str(dataset.get("vocabulary", "")).startswith("sha256:"):
        raise WslSweepError(
            f"the vocabulary of teacher {teacher.teacher_id} is a file whose place its card does not say: name a sweep "
            "that has this teacher in its place"
        )
    name, root = str(dataset["name"]), dataset.get("root")
    if not available(dataset):
        where = f"not in {root}" if root else "not on this machine, or in a folder that its card does not name"
        raise WslSweepError(f"the data of teacher {teacher.teacher_id}, {name}, are {where}; --root PATH says where")
    notes = prepare_one(dataset) if has_to_be_read(dataset) else ()
    device, workers = pick_device(), os.cpu_count() or 1
    loaded = load(dataset, cast("Part", teacher.trained_on or "train"), device, workers)
    if teacher.classes is not None and teacher.classes != loaded.num_classes:
        raise WslSweepError(
            f"teacher {teacher.teacher_id} knows {teacher.classes} classes, and the data in {root or name} have "
            f"{loaded.num_classes}"
        )
    return _Data(loaded, class_names(dataset), (*notes, *_of_other_data(teacher, loaded.digest)), device, workers)


def _of_other_data(teacher: NamedTeacher, digest: str) -> list[str]:
    """Raises WslSweepError: a teacher that was trained here was trained on other data."""
    where = teacher.dataset.get("root") or teacher.dataset["name"]
    if teacher.trained_on is not None:
        if teacher.data_digest not in (None, digest):
            raise WslSweepError(
                f"the data in {where} are not those that teacher {teacher.teacher_id} was trained on, so that it may "
                "have seen any part of them: put them back as they were, or name their folder by --root"
            )
        return []
    content = teacher.known_data.get("content")
    if content is not None and content != data_identity(teacher.dataset).get("content"):
        return [f"The data in {where} are not those on which the teacher was measured when it was brought in."]
    return []


def _examples(teacher: NamedTeacher, data: _Data, part: PartOfData) -> Examples:
    from wsl_sweep.data.dataset import load_test

    if part == "train":
        return data.loaded.train
    if part == "validation":
        return data.loaded.validation
    test = load_test(teacher.dataset, data.device, data.workers)
    if len(test) == 0:
        raise WslSweepError(f"the data of teacher {teacher.teacher_id} have no test part")
    return test


def _on_part(teacher: NamedTeacher, part: str) -> list[str]:
    """What has to be known of figures on a part of the data, for this teacher."""
    if part == "test":
        return ["These are figures of the test part: nothing should be chosen by them. Nothing of it was kept."]
    if part == "train":
        if teacher.trained_on is None:
            return ["The teacher was brought in: this is the training part of its students, whatever it has seen."]
        what = "the training part" if teacher.trained_on == "train" else "the training and the validation part"
        return [
            f"The teacher was trained on these examples ({what}), here without augmentation: it is surer and more "
            "often right than on new ones, and so are the soft labels that students learn from."
        ]
    flatters = "here it is surer and more often right than on new examples"
    if teacher.seen_validation is None:
        return [f"What the teacher was trained on is not known; if it has seen the validation part, {flatters}."]
    if teacher.seen_validation:
        brought = " (it was brought in: published ones are taken to have)" if teacher.trained_on is None else ""
        return [f"The teacher has seen the validation part{brought}: {flatters}."]
    return []


def _says(teacher: NamedTeacher, examples: Examples, data: _Data, say: Say) -> NDArray[np.float32]:
    return teacher_says(teacher.teacher_id, teacher.model, teacher.weights, examples, data.loaded, say)


# --- what is made of it ----------------------------------------------------------------------------------------------


def check_page_file(to: Path | None) -> None:
    """Raises WslSweepError: a page cannot be written there, since it is a folder."""
    if to is not None and to.is_dir():
        raise WslSweepError(f"--to: {to} is a folder; name a file, such as {to / 'teacher.html'}")


def teacher_page(found: FoundTeacher) -> Page:
    """A page of its own, of what was found of a teacher."""
    from wsl_sweep.analysis.report import render_diagnosis
    from wsl_sweep.analysis.report_data import Named
    from wsl_sweep.analysis.report_teacher import teacher_section

    facts = [
        Named("teacher", f"{found.teacher_id}, {found.model}"),
        Named("examples", f"{found.soft.examples:,} of the {found.part} part of {found.data}"),
        Named("classes", f"{found.soft.classes:,}"),
        Named("τ of distillation", f"{found.temperature:g}"),
    ]
    if found.against is not None:
        facts.append(Named("compared with", found.against.teacher_id))
    return render_diagnosis(
        f"Teacher {found.teacher_id}",
        [teacher_section(found)],
        question=f"Is {found.model} a good teacher of {found.data}?",
        facts=facts,
    )


def write_teacher_page(found: FoundTeacher, to: Path | None = None) -> str:
    """Writes the page of a teacher; returns where it lies.

    Args:
        found: its figures.
        to: the file; None for ``teacher-<id>-<part>.html`` in the working folder.

    Raises:
        WslSweepError: it cannot be written.
    """
    check_page_file(to)
    target = to if to is not None else Path(f"teacher-{found.teacher_id}-{found.part}.html")
    place(target).write(teacher_page(found).html.encode())
    return str(target)
