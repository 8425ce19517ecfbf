"""What the card of an exported student is made of: plain data, gathered from a sweep's folder."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsl_sweep.app.driving import TEACHERS
from wsl_sweep.app.preparing import of_another_split
from wsl_sweep.spec.catalogue import is_library_model
from wsl_sweep.spec.identity import teacher_identity
from wsl_sweep.storage import Place
from wsl_sweep.sweep.ledger import TrialState
from wsl_sweep.user_code import is_import_name

if TYPE_CHECKING:
    from wsl_sweep.data import TaskData


LENGTH = "length"
"""In a shape: any number of tokens up to the longest."""

SHORT_TEXT = 16
"""Tokens of an example of a text."""


@dataclass(frozen=True)
class Normalised:
    """How pictures become what a model reads.

    Attributes:
        scale: what a picture's largest value is; it is divided by that first.
        mean: by channel, subtracted then.
        std: by channel, what it is divided by at last.
    """

    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Seen:
    """What a student reads, and was trained on.

    Attributes:
        shape: of one input; LENGTH where a text may have any, up to ``longest``.
        dtype: of an input's values, in torch's words.
        channels: what the model is told beside the number of classes.
        normalised: of pictures; None: the inputs of a text, or of a user's own task.
        longest: tokens of a text; None: it is none.
        classes: number of them.
        names: of the classes, or nothing.
        train: how many examples the student was trained on.
        validation: how many there are in the validation part.
        views: forms of each example that may be seen in training; None: they have no end.
    """

    shape: tuple[int | str, ...]
    dtype: str
    channels: int
    normalised: Normalised | None
    longest: int | None
    classes: int
    names: tuple[str, ...]
    train: int
    validation: int
    views: int | None

    @property
    def name(self) -> str:
        """Of the model's input."""
        return "images" if self.normalised else "inputs" if self.longest is None else "tokens"

    @property
    def examples(self) -> str:
        """What examples are called."""
        return "pictures" if self.normalised else "examples"

    @property
    def batch(self) -> str:
        """The shape of a batch, in words."""
        return f"(N{''.join(f', {size}' for size in self.shape)}{',' if not self.shape else ''})"

    @property
    def single(self) -> tuple[int, ...]:
        """The shape of a batch of one, of a short text."""
        short = min(SHORT_TEXT, self.longest or SHORT_TEXT)
        return (1, *(short if isinstance(size, str) else size for size in self.shape))


@dataclass(frozen=True)
class Teacher:
    """Whom a student learned from.

    Attributes:
        teacher_id: of the store.
        model: its name.
        accuracy: on the validation part; None: not known here.
        seen_validation: whether it was trained on the validation part; None: not known.
        origin: ``trained here``, or where it came from.
    """

    teacher_id: str
    model: str
    accuracy: float | None
    seen_validation: bool | None
    origin: str


@dataclass(frozen=True)
class Compared:
    """How near what was written is to the student.

    Attributes:
        examples: how many were looked at.
        difference: the largest of a logit.
        scale: the largest logit.
    """

    examples: int
    difference: float
    scale: float


@dataclass(frozen=True)
class Card:
    """All that a card says.

    Attributes:
        sweep: its name.
        plan: as in ``plan.json``.
        status: of the sweep.
        description: the question that it answers.
        trial: as in the summary's ``trials``.
        threads: torch's, of the trial.
        rows: of the summary's ``confirmed``, those that the trial stands in.
        chosen_by: the metric by which it is the sweep's best student, or None.
        seen: see there.
        teacher: see there; None: it was trained without.
        parameters: how many it has.
        own_module: the module of a user's own model, or None.
        format: one of ``export_formats.FORMATS``.
        compared: see there.
        versions: of the libraries that wrote the files.
        remarks: what else the reader should know.
    """

    sweep: str
    plan: Mapping[str, Any]
    status: str
    description: str
    trial: Mapping[str, Any]
    threads: int
    rows: Sequence[Mapping[str, Any]]
    chosen_by: str | None
    seen: Seen
    teacher: Teacher | None
    parameters: int
    own_module: str | None
    format: str
    compared: Compared
    versions: Mapping[str, str]
    remarks: Sequence[str] = ()

    @property
    def model(self) -> str:
        """The student's name."""
        return str(self.trial["config"]["student"]["model"])

    @property
    def dataset(self) -> Mapping[str, Any]:
        """The resolved ``dataset`` section."""
        found: Mapping[str, Any] = self.trial["config"]["dataset"]
        return found

    @property
    def metrics(self) -> Mapping[str, float]:
        """Of this very student: the test part's first, then the validation part's."""
        order = {"test": 0, "validation": 1}
        found: Mapping[str, float] = self.trial["metrics"]
        return {name: found[name] for name in sorted(found, key=lambda name: order.get(name.partition("/")[0], 2))}

    @property
    def title(self) -> str:
        """In a line."""
        how = "trained without a teacher"
        if self.teacher is not None:
            distilled = self.trial["config"]["distillation"]["method"] != "none"
            how = f"{'distilled' if distilled else 'begun'} from {self.teacher.model}"
        return f"{self.model} on {self.dataset['name']}, {how}"


def seen_by(one: TrialState, data: TaskData) -> Seen:
    """What the student of a trial reads."""
    import torch

    from wsl_sweep.data import class_names

    inputs, train = data.validation.views, data.train
    facts, example = inputs.facts(), inputs.plain(torch.zeros(1, dtype=torch.int64))
    shape: tuple[int | str, ...] = tuple(example.shape[1:])
    normalised = None
    if {"scale", "mean", "std"} <= facts.keys():
        normalised = Normalised(float(facts["scale"]), _short(facts["mean"]), _short(facts["std"]))
    longest = int(facts["max_length"]) if facts.get("kind") == "tokens" else None
    return Seen(
        shape=shape if longest is None else (*shape[:-1], LENGTH),
        dtype=str(example.dtype).removeprefix("torch."),
        channels=data.in_channels,
        normalised=normalised,
        longest=longest,
        classes=data.num_classes,
        names=class_names(one.trial.config["dataset"]),
        train=len(train),
        validation=len(data.validation),
        views=train.views.count if train.fixed_views is None else int(train.fixed_views.shape[1]),
    )


def _short(values: Sequence[float]) -> tuple[float, ...]:
    """As few digits as give the same float32."""
    import numpy as np

    return tuple(float(str(np.float32(value))) for value in values)


def teacher_of(one: TrialState, folder: Place) -> Teacher | None:
    """Whom a student of the sweep in ``folder`` learned from; told only of the very weights that it learned from."""
    trial = one.trial
    named = teacher_identity(trial.config, trial.part, trial.threads, trial.processes)
    if named is None:
        return None
    config = trial.config["teacher"]
    brought = config.get("checkpoint") is not None
    seen = None if brought else trial.part != "train"
    card = _teacher_card(named[0], config.get("checkpoint"), folder)
    if card.get("sha256") != (one.facts.get("fingerprint") or {}).get("teacher"):
        card = {}
    if brought and card:
        unknown = not card["seen_validation"] and of_another_split(card, trial.config["dataset"])
        seen = None if unknown else bool(card["seen_validation"])
    return Teacher(
        teacher_id=str(card.get("teacher_id", named[0])),
        model=str(config["model"]),
        accuracy=card.get("metrics", {}).get("validation/accuracy"),
        seen_validation=seen,
        origin=str(card.get("origin", "brought in from a file" if brought else "trained by wsl-sweep")),
    )


def _teacher_card(teacher_id: str, checkpoint: str | None, folder: Place) -> Mapping[str, Any]:
    """Of this machine's store, or of what the nodes of a cluster share; empty where there is none."""
    from wsl_sweep.training import TeacherStore

    if checkpoint is not None:
        return TeacherStore().card_of_file(Path(checkpoint)) or {}
    card: Any = TeacherStore().card(teacher_id)
    if card is None:
        with contextlib.suppress(OSError, ValueError):
            card = (folder.parent / TEACHERS / teacher_id / "card.json").read_json()
    return card if isinstance(card, dict) else {}


def own_module(model: str) -> str | None:
    """The module of a user's own model; None for ours and the libraries'."""
    return model.partition(":")[0] if is_import_name(model) and not is_library_model(model) else None


def remarks_on(one: TrialState, confirmed: bool) -> list[str]:
    """What the reader of a card should know besides.

    Args:
        one: the trial.
        confirmed: whether its student was seen to say what it said when its training ended.
    """
    from wsl_sweep.training.fingerprint import own_code

    made = one.facts.get("fingerprint") or {}
    remarks = []
    if not made:
        remarks.append("With which code, data and device it was trained was not recorded.")
    if made.get("own") is not None and made["own"] != own_code(one.trial.config):
        remarks.append("The user's own code that it was trained with is not the one that it was exported with.")
    if not confirmed:
        remarks.append("Whether it says what it said when its training ended could not be seen: that was not kept.")
    return remarks
