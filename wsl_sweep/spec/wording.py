"""Values, settings and durations as a person wants to read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wsl_sweep.spec.plan import Trial
from wsl_sweep.spec.recipes import NAMED


def short(value: Any) -> str:
    """A value as a person wants to read it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def settings(overrides: Mapping[str, Any], name: str = "") -> str:
    """``alpha=2.31 weighting.kind=exp``: overrides in one line, without the section's name.

    What ``name`` stands for anyway (``kd``, ``ce``, …) is left out.
    """
    known = NAMED.get(name.removesuffix(" (untuned)"), {})
    return " ".join(
        f"{path.removeprefix('distillation.')}={short(value)}"
        for path, value in overrides.items()
        if known.get(path) != value
    )


def titled(trial: Trial) -> str:
    """What a person calls a trial: its variants, what sets it apart, its seed."""
    shown = settings(trial.overrides, trial.variants[0])
    return " ".join(part for part in ("+".join(trial.variants), shown, f"seed={trial.seed}") if part)


def duration(seconds: float) -> str:
    """``42 s``, ``3 min 10 s``, ``2 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
