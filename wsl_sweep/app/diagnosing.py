"""Why distillation works, or does not: what a teacher's soft labels hold, computed on its own data."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast, get_args

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from wsl_sweep.app.named_teachers import NamedTeacher, name_teacher, teacher_by_id
from wsl_sweep.app.preparing import has_to_be_read, of_another_split, prepare_one
from wsl_sweep.errors import WslSweepError
from wsl_sweep.spec.identity import data_identity
from wsl_sweep.spec.wording import duration
from wsl_sweep.storage import place

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from wsl_sweep.analysis.found_teacher import FoundTeacher
    from wsl_sweep.analysis.report import Page
    from wsl_sweep.data import Examples, TaskData
    from wsl_sweep.training import FrozenTeacher

Say = Callable[[str], None]
PartOfData = Literal["train", "validation", "test"]

OF_THE_EXAMPLES = ("name", "content", "size", "max_length", "vocabulary")
"""What of a data set decides what a teacher is shown of an example."""

SAID_EVERY = 10.0
"""Seconds from one line to the next on how far a teacher is, where no bar can be shown."""


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
    logits = _logits(first, examples, data, say)
    other = None
    if second is not None:
        spread = stability(_logits(second, examples, data, say), labels)
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


# --- what the teacher says -------------------------------------------------------------------------------------------


def _logits(teacher: NamedTeacher, examples: Examples, data: _Data, say: Say) -> NDArray[np.float32]:
    """(N, C) logits of examples as they are, computed as students get them.

    Raises WslSweepError: its weights are not its model's, or it says what is no number.
    """
    import numpy as np
    import torch

    from wsl_sweep.models import build
    from wsl_sweep.training import FrozenTeacher
    from wsl_sweep.training.device import prepare_process, undisturbed

    count, classes = len(examples), data.loaded.num_classes
    say(f"teacher {teacher.teacher_id} looks at {count:,} examples on {_device_name(data.device)}")
    found = np.empty((count, classes), dtype=np.float32)
    with undisturbed(), _watching(f"teacher {teacher.teacher_id}", count, say) as watch:
        prepare_process(torch.get_num_threads())
        model = build(teacher.model, classes, data.loaded.in_channels)
        frozen = FrozenTeacher.load(model, teacher.weights, teacher.model, examples)
        done = 0
        for rows, logits in _by_batches(frozen, examples):
            if logits.shape != (len(rows), classes):
                raise WslSweepError(
                    f"{teacher.model} gives {tuple(logits.shape)} for {len(rows)} examples of {classes} classes"
                )
            found[rows.numpy()] = logits.cpu().numpy()
            done += len(rows)
            watch(done)
    wrong = int((~np.isfinite(found).all(axis=1)).sum())
    if wrong:
        raise WslSweepError(f"teacher {teacher.teacher_id} says NaN or infinity of {wrong:,} of {count:,} examples")
    return found


def _by_batches(teacher: FrozenTeacher, examples: Examples) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows and their logits, batch by batch; in a batch only examples of one shape, as for students."""
    import numpy as np
    import torch

    from wsl_sweep.user_code import told

    views, rows = examples.views, torch.arange(len(examples))
    shapes, alike = views.shapes(rows), [rows]
    if shapes is not None:
        rows = shapes.argsort(stable=True)
        alike = list(torch.split(rows, np.unique(shapes.numpy(), return_counts=True)[1].tolist()))
    batches = [batch for some in alike for batch in torch.split(some, teacher.batch)]
    brought = views.batches(rows, torch.full_like(rows, views.identity), [len(batch) for batch in batches])
    for batch, inputs in zip(batches, brought, strict=True):
        try:
            logits, _ = teacher.outputs(inputs)
        except (WslSweepError, OSError):
            raise
        except Exception as error:  # of a user's own model, or a GPU that is too small
            raise WslSweepError(f"the teacher fails on {tuple(inputs.shape)} inputs: {told(error)}") from error
        yield batch, logits


def _device_name(device: str) -> str:
    import torch

    return torch.cuda.get_device_name() if device == "cuda" else "the CPU"


@contextmanager
def _watching(what: str, of: int, say: Say) -> Iterator[Callable[[int], None]]:
    """How far it is and how long it may take: a bar on a terminal, else a line now and then."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(what, of, say)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("left:"))
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as progress:
        task = progress.add_task(what, total=of, visible=False)
        yield lambda done: progress.update(task, completed=done, visible=True)


def _lines(what: str, of: int, say: Say) -> Callable[[int], None]:
    """Says how far it is; how long it may take is reckoned without the first batch, before which models are loaded."""
    begun: tuple[float, int] | None = None
    last = 0.0

    def watch(done: int) -> None:
        nonlocal begun, last
        now = time.monotonic()
        if begun is None:
            begun, last = (now, done), now
        elif now - last >= SAID_EVERY and done < of:
            left = (now - begun[0]) / (done - begun[1]) * (of - done)
            say(f"{what}: {done:,} of {of:,} examples, about {duration(left)} left")
            last = now

    return watch


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
