"""What to sweep next: from the paths that a warning names to the lines of a search-space file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from wsl_sweep.analysis.diagnostics.soft_labels import Warned
from wsl_sweep.analysis.plots.style import short
from wsl_sweep.spec.catalogue import MODELS

NEIGHBOURS = 2
"""Models on each side of the teacher's in the catalogue that are suggested beside it."""

SMOOTHING = 0.1
"""The common ε of label smoothing."""


@dataclass(frozen=True)
class Suggestion:
    """A line of ``space``.

    Attributes:
        path: that is swept.
        values: where its values come from, as YAML.
        note: what has to be known of it.
    """

    path: str
    values: str
    note: str = ""


def suggestions(
    warnings: Iterable[Warned], *, temperature: float, model: str, settings: Mapping[str, Any]
) -> tuple[Suggestion, ...]:
    """A distribution for each path that the warnings name, in their order; none twice.

    What makes a teacher is left out of one that was brought in: its training is over.

    Args:
        warnings: of a teacher's soft labels.
        temperature: τ of distillation, from which others are tried.
        model: the teacher's.
        settings: the teacher's own by dotted path below ``teacher``; empty for one that was brought in.
    """
    told = list(warnings)
    higher = any(one.kind in ("over-certain", "hard") for one in told)
    less = any(one.kind == "erased" for one in told)
    known = {
        "distillation.temperature": _between("loguniform", temperature / (1 if higher else 2),
                                             temperature * (4 if higher else 2)),
        "distillation.weighting.kind": ("{choice: [none, exp, sigmoid]}", ""),
        "distillation.alpha": _between("loguniform", 0.1, 2.25),
        "distillation.ce_weight": _between("loguniform", 1.0, 4.0),
        "teacher.model": _models(model),
        "teacher.label_smoothing": _smoothing(settings, less),
        "teacher.schedule.epochs": _epochs(settings),
    }  # fmt: skip
    paths = dict.fromkeys(path for one in told for path in one.sweep)
    return tuple(Suggestion(path, *known[path]) for path in paths if known.get(path, ("", ""))[0])


def space_text(suggested: Iterable[Suggestion]) -> str:
    """``space:`` of a search-space file; nothing for no suggestion. It stands beside ``run`` and ``search``."""
    lines = [f"  {one.path}: {one.values}" + (f"  # {one.note}" if one.note else "") for one in suggested]
    return "\n".join(["space:", *lines]) + "\n" if lines else ""


def _between(kind: str, low: float, high: float) -> tuple[str, str]:
    return f"{{{kind}: [{short(low)}, {short(high)}]}}", ""


def _choice(values: Iterable[Any], note: str = "") -> tuple[str, str]:
    shown = list(dict.fromkeys(str(value) for value in values))
    return (f"{{choice: [{', '.join(shown)}]}}", note) if len(shown) > 1 else ("", "")


def _models(model: str) -> tuple[str, str]:
    """Models of the same family, the teacher's in the middle; a library's or a user's own has no family here."""
    family = [one for one in MODELS if _family(one) == _family(model)] if model in MODELS else []
    place = family.index(model) if family else 0
    near = family[max(0, place - NEIGHBOURS) : place + NEIGHBOURS + 1]
    return _choice(near, "each is trained once")


def _family(model: str) -> str:
    return re.split(r"[\d_]", model, maxsplit=1)[0]


def _smoothing(settings: Mapping[str, Any], less: bool) -> tuple[str, str]:
    if not settings:
        return "", ""
    own = float(settings.get("label_smoothing", 0.0))
    most = own if less and own > 0 else max(own, SMOOTHING)
    return _choice((short(value) for value in (0.0, most / 2, most)), "a teacher for each")


def _epochs(settings: Mapping[str, Any]) -> tuple[str, str]:
    own = settings.get("schedule.epochs")
    if own is None:
        return "", ""
    note = "a teacher for each; teacher.schedule.milestones stay" if settings.get("schedule.milestones") else ""
    return _choice((max(1, int(own) // 4), max(1, int(own) // 2), int(own)), note or "a teacher for each")
