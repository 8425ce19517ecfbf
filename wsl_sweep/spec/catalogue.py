"""The names that a search-space file may use for data sets and models, known without importing torch."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches

DATASETS: tuple[str, ...] = ("digits",)

CONVNET_WIDTHS: tuple[int, ...] = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
MODELS: tuple[str, ...] = tuple(f"convnet_{width}" for width in CONVNET_WIDTHS)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that ``name`` was most likely meant to be, or None.

    A dotted path is compared by its last part too, so that ``alhpa`` finds ``distillation.alpha``.
    """
    names = list(known)
    lowered = {candidate.lower(): candidate for candidate in reversed(names)}
    close = get_close_matches(name.lower(), list(lowered), n=1, cutoff=0.6)
    if close:
        return lowered[close[0]]
    tails = {candidate.rsplit(".", 1)[-1].lower(): candidate for candidate in reversed(names)}
    tail = get_close_matches(re.split(r"\.", name.lower())[-1], list(tails), n=1, cutoff=0.7)
    return tails[tail[0]] if tail else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``did you mean "…"?``, or the list of what there is where nothing is near."""
    names = list(known)
    close = nearest(name, names)
    if close is not None:
        return f'did you mean "{close}"?'
    shown = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
    return f"there is: {shown}"
