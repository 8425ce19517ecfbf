"""The teachers of a sweep, as its trials name them: which there are, and what sets them apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wsl_sweep.spec.identity import OF_ITS_USE, teachers_dataset
from wsl_sweep.spec.plan import Trial
from wsl_sweep.spec.recipes import DEFAULTS
from wsl_sweep.spec.run import flatten
from wsl_sweep.spec.spec import Spec

TEMPERATURE = "distillation.temperature"

NOT_SET_APART = ("checkpoint", "split", *OF_ITS_USE)
"""Of a ``teacher`` section: what leads to a teacher, and what does not make it another."""

LABELS = ("label_smoothing", "smoothing")
"""Of a ``teacher`` section: how labels are smoothed."""


@dataclass(frozen=True)
class SweepTeacher:
    """A teacher and the trials that read it.

    Attributes:
        teacher_id: its id.
        trials: of the sweep, one or more.
    """

    teacher_id: str
    trials: tuple[Trial, ...]

    @property
    def section(self) -> Mapping[str, Any]:
        """The ``teacher`` section of its trials."""
        found: Mapping[str, Any] = self.trials[0].config["teacher"]
        return found

    @property
    def model(self) -> str:
        """Its model's name."""
        return str(self.section["model"])

    @property
    def brought_in(self) -> bool:
        """Whether it was not trained by the sweep."""
        return bool(self.section.get("checkpoint"))

    @property
    def part(self) -> str:
        """What it was trained on, where the sweep trained it: ``train`` or ``train+validation``."""
        return self.trials[0].part

    @property
    def settings(self) -> dict[str, Any]:
        """How it was trained, by dotted path below ``teacher``; empty where it was brought in."""
        own = {} if self.brought_in else flatten(self.section)
        return {path: value for path, value in own.items() if path not in (*NOT_SET_APART, "model")}

    @property
    def dataset(self) -> dict[str, Any]:
        """The ``dataset`` section of its own data: where its students see a part of them each, of all of them."""
        return teachers_dataset(self.trials[0].config)

    @property
    def facts(self) -> dict[str, Any]:
        """What may set it apart from others: dotted path → value."""
        trial, facts = self.trials[0], {"teacher.model": self.model}
        facts |= {f"teacher.{path}": value for path, value in self.settings.items()}
        if self.brought_in:
            return facts | {"teacher.checkpoint": self.section["checkpoint"]}
        dataset = {path: value for path, value in flatten(self.dataset).items() if path != "root"}
        facts |= {f"dataset.{path}": value for path, value in dataset.items()}
        return facts | {"trained on": trial.part, "threads": trial.threads, "processes": trial.processes}


def teachers_of(trials: Iterable[Trial]) -> list[SweepTeacher]:
    """The teachers that trials read, in their order."""
    found: dict[str, list[Trial]] = {}
    for trial in trials:
        if trial.teacher_id is not None and "teacher" in trial.config:
            found.setdefault(trial.teacher_id, []).append(trial)
    return [SweepTeacher(teacher_id, tuple(theirs)) for teacher_id, theirs in found.items()]


def set_apart(teachers: Sequence[SweepTeacher]) -> list[dict[str, Any]]:
    """Of each teacher what sets it apart from the others: dotted path → value, None where it has none."""
    facts = [one.facts for one in teachers]
    paths = dict.fromkeys(path for own in facts for path in own)
    differ = [path for path in paths if any(own.get(path) != facts[0].get(path) for own in facts)]
    return [{path: own.get(path) for path in differ} for own in facts]


def less_smoothed(one: SweepTeacher, others: Iterable[SweepTeacher]) -> SweepTeacher | None:
    """The teacher that differs from ``one`` in nothing but having no or less label smoothing: the least smoothed."""
    own = one.settings.get("label_smoothing", 0.0)
    known = [other for other in others if _but_labels(other) == _but_labels(one) and not other.brought_in]
    least = min(known, key=lambda other: other.settings.get("label_smoothing", 0.0), default=None)
    return least if least is not None and least.settings.get("label_smoothing", 0.0) < own else None


def _but_labels(one: SweepTeacher) -> dict[str, Any]:
    smoothing = [f"teacher.{name}" for name in LABELS]
    return {path: value for path, value in one.facts.items() if path not in smoothing}


def temperature_of(teacher: SweepTeacher, spec: Spec) -> tuple[float, str]:
    """τ of distillation, and where it comes from in words: that of the trials where they agree, else that of the file.

    Args:
        teacher: whose trials.
        spec: the sweep's.
    """
    distillation = [trial.config["distillation"] for trial in teacher.trials]
    used = sorted({float(one["temperature"]) for one in distillation if "temperature" in one})
    if len(used) == 1:
        return used[0], "that of the sweep's trials"
    base = spec.flat_config({}).get(TEMPERATURE, DEFAULTS[TEMPERATURE])
    if not used:
        return float(base), "that of the sweep's file or recipe; its trials read none"
    return float(base), f"that of the sweep's file or recipe; its trials take {used[0]:g} to {used[-1]:g}"
