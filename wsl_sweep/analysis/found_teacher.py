"""What was found of a teacher: figures, where they come from, and what they say to do; for a page or as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from wsl_sweep.analysis.diagnostics.soft_labels import (
    ErasedInformation,
    SoftLabels,
    Stability,
    erased_information,
)
from wsl_sweep.analysis.plain import plain
from wsl_sweep.analysis.suggestions import Suggestion, suggestions


@dataclass(frozen=True, eq=False)
class Against:
    """A second teacher, with which the first is compared on the same examples.

    Attributes:
        teacher_id: its id.
        stability: its S.
        erased: ``(1 - S of the second) - (1 - S of the first)``.
        smoothing: ε of the first and of the second; None where it is not known.
    """

    teacher_id: str
    stability: Stability
    erased: ErasedInformation
    smoothing: tuple[float | None, float | None] = (None, None)

    @property
    def reversed(self) -> bool:
        """Whether the first has less label smoothing than the second, so that the second's is erased."""
        own, other = self.smoothing
        return own is not None and other is not None and own < other

    @property
    def sentence(self) -> str:
        """What the value means, in words."""
        value, name = self.erased.value, self.teacher_id
        low, high = self.erased.interval or (math.nan, math.nan)
        told = f" (95 % interval over classes {low:.4f} to {high:.4f})" if self.erased.interval else ""
        sentence = (
            f"Beside teacher {name} the erased information, (1 - S of it) - (1 - S of this one), is {value:.4f}{told}."
        )
        own, other = self.smoothing
        if self.reversed:
            sentence += (
                f" This teacher has less label smoothing ({own:g}) than that one ({other:g}), so it is the other way "
                f"round: of {name}, {-value:.4f} is erased."
            )
        elif value < 0:
            sentence += " Below 0: the soft labels of this teacher vary more within classes."
        if own is None or other is None:
            sentence += " How much label smoothing one of them had is not known."
        elif own == other:
            sentence += f" Both have the same label smoothing ({own:g}): what differs is not its doing."
        return sentence


@dataclass(frozen=True, eq=False)
class FoundTeacher:
    """What was found of one teacher on one part of a data set.

    Attributes:
        teacher_id: of the store.
        model: its name.
        part: ``train``, ``validation`` or ``test``.
        data: the data set's name.
        soft: all figures.
        temperature_from: where τ of distillation comes from, in words.
        class_names: of the classes in their order, or nothing.
        settings: with which it was trained, by dotted path below ``teacher``; empty for one that was brought in.
        against: the second teacher, or None.
        notes: what has to be known of it.
    """

    teacher_id: str
    model: str
    part: str
    data: str
    soft: SoftLabels
    temperature_from: str = ""
    class_names: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    against: Against | None = None
    notes: tuple[str, ...] = ()

    @property
    def temperature(self) -> float:
        """τ of distillation."""
        return self.soft.softened.temperature

    @property
    def to_sweep(self) -> tuple[Suggestion, ...]:
        """What its warnings say to sweep; nothing by figures of the test part, on which nothing is chosen."""
        if self.part == "test":
            return ()
        return suggestions(self.soft.warnings, temperature=self.temperature, model=self.model, settings=self.settings)

    def named(self, label: int) -> str:
        """A class's name, or its number."""
        return self.class_names[label] if self.class_names else f"class {label}"


def compared(
    teacher_id: str, own: Stability, theirs: Stability, smoothing: tuple[float | None, float | None]
) -> Against:
    """The first teacher's stability beside a second one's, on the same examples.

    Args:
        teacher_id: of the second.
        own: of the first.
        theirs: of the second.
        smoothing: ε of the first and of the second; None: not known.

    Raises ValueError: the two are not of the same classes.
    """
    return Against(teacher_id, theirs, erased_information(theirs, own), smoothing)


def teacher_json(found: FoundTeacher) -> dict[str, Any]:
    """All figures as plain data for JSON: floats in full, None for what is no number.

    ``teacher``, ``model``, ``data``, ``part``, ``examples``, ``classes``, ``class_names`` (or None),
    ``smallest_class`` (its examples), ``temperature`` (τ of distillation) and ``temperature_from`` (in words);
    ``accuracy``; ``calibration`` at τ = 1, ``scaled`` at the best temperature and ``distilled`` at τ: ``temperature``,
    ``examples``, ``error`` (ECE), ``accuracy``, ``confidence``, ``gap``, ``gap_error``, ``loss`` (nats) and ``bins``
    (``low``, ``high``, ``count``, ``confidence``, ``accuracy``); ``best_temperature``: ``temperature``, ``loss``,
    ``loss_before``, ``at_bound``; ``entropy`` (nats, at τ = 1); ``at_one`` and ``softened``, the mean soft labels at
    τ = 1 and at τ: ``temperature``, ``entropy``, ``entropy_share``, ``label``, ``wrong``, ``beside``, ``by_rank``,
    ``by_class`` (a row for each true class); ``top``, by k: ``k``, ``unreliability``, ``ambiguity``, ``sum``,
    ``learnable``, ``label``, ``rival``; ``stability``: ``s``, ``one_minus_s``, ``by_class``; ``erased``, None without
    a second teacher: ``against``, ``value``, ``share``, ``interval``, ``one_minus_s`` (the second's), ``smoothing``
    (of both), ``reversed``, ``sentence``; ``warnings``: ``kind``, ``sentence``, ``sweep`` (paths); ``space``: ``path``,
    ``values`` (YAML), ``note``; ``notes``.
    """
    soft = found.soft
    figures: dict[str, Any] = plain(
        {
            "teacher": found.teacher_id,
            "model": found.model,
            "data": found.data,
            "part": found.part,
            "examples": soft.examples,
            "classes": soft.classes,
            "class_names": list(found.class_names) or None,
            "smallest_class": soft.fewest,
            "temperature": found.temperature,
            "temperature_from": found.temperature_from,
            "accuracy": soft.plain.accuracy,
            "calibration": soft.plain,
            "best_temperature": soft.best,
            "scaled": soft.scaled,
            "distilled": soft.distilled,
            "entropy": soft.at_one.entropy,
            "at_one": soft.at_one,
            "softened": soft.softened,
            "top": [{**plain(one), "sum": one.total, "learnable": one.learnable} for one in soft.top],
            "stability": {
                "s": soft.stability.value,
                "one_minus_s": soft.stability.spread,
                "by_class": soft.stability.by_class,
            },
            "erased": None if found.against is None else _erased(found.against),
            "warnings": soft.warnings,
            "space": found.to_sweep,
            "notes": found.notes,
        }
    )
    return figures


def _erased(against: Against) -> dict[str, Any]:
    return {
        "against": against.teacher_id,
        "value": against.erased.value,
        "share": against.erased.share,
        "interval": against.erased.interval,
        "one_minus_s": against.stability.spread,
        "smoothing": against.smoothing,
        "reversed": against.reversed,
        "sentence": against.sentence,
    }
