"""A square of numbers as colours: blue below zero, orange above, the stronger the further from it.

Of numbers that are never below zero there is one colour.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path
from numpy.typing import NDArray

from wsl_sweep.analysis.plots.sheet import RIGHT, TICK, WIDTH, blank, panel, plain, write
from wsl_sweep.analysis.plots.style import clean, fitted, light, short, width_of

STEPS: Final = tuple(step / 8 for step in range(1, 8))
"""Of the largest number: where one colour ends and the next begins. What is below the first is left empty."""

OPACITY: Final = (0.14, 0.26, 0.39, 0.53, 0.68, 0.84, 1.0)
SIDES: Final = ("series-1", "series-2")
"""Below and above zero."""

NAMED: Final = 24
"""Classes whose names have room beside the square."""

NAMES: Final = 84.0
"""Pixels for them at most."""


def heat_map(
    values: NDArray[np.float64], names: Sequence[str], rows: str, columns: str, ends: tuple[str, str]
) -> Figure:
    """Each number as a colour, by its size against the largest, in steps of an eighth of it.

    The names stand beside up to NAMED rows and columns. What is no number is grey.

    Args:
        values: (n, n), n >= 1.
        names: of rows and columns, n of them.
        rows: what a row is.
        columns: what a column is.
        ends: what far below and far above zero means.
    """
    count = len(values)
    label = min(NAMES, 12 + max(width_of(clean(name), TICK) for name in names)) if count <= NAMED else 8.0
    side = WIDTH - label - RIGHT
    figure = blank(side + label + 62)
    axes = panel(figure, label, 20, side, side)
    axes.set_xlim(0, count)
    axes.set_ylim(count, 0)
    axes.add_patch(Rectangle((0, 0), count, count, facecolor="none", edgecolor=light("frame"), linewidth=0.8))
    _boxes(axes, ~np.isfinite(values), light("shade"), 1.0)
    largest = float(np.nanmax(np.abs(values), initial=0.0))
    for sign, role in zip((-1, 1), SIDES, strict=True) if largest > 0 else ():
        for low, high, opacity in zip(STEPS, (*STEPS[1:], 2.0), OPACITY, strict=True):
            size = np.nan_to_num(sign * values)
            _boxes(axes, (size >= low * largest) & (size < high * largest) & (size > 0), light(role), opacity)
    write(figure, WIDTH - RIGHT, 13, f"columns: {columns}", role="muted", ha="right", size=TICK + 0.5)
    write(figure, 2, 13, f"rows: {rows}", role="muted", size=TICK + 0.5)
    if count <= NAMED:
        _names(figure, names, label, side)
    _key(figure, 20 + side + label + 2, largest, ends, below=bool((np.nan_to_num(values) < 0).any()))
    return figure


def _boxes(axes: Axes, chosen: NDArray[np.bool_], colour: str, opacity: float) -> None:
    """One path for all chosen cells; those beside each other in a row are one box."""
    corners: list[tuple[float, float]] = []
    for y, line in enumerate(chosen):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], line.astype(np.int8), [0]])))
        for left, right in edges.reshape(-1, 2).tolist():
            corners += [(left, y), (right, y), (right, y + 1), (left, y + 1), (left, y)]
    if corners:
        codes = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY] * (len(corners) // 5)
        axes.add_patch(PathPatch(Path(corners, codes), facecolor=colour, alpha=opacity, edgecolor="none", linewidth=0))


def _names(figure: Figure, names: Sequence[str], label: float, side: float) -> None:
    pitch = side / len(names)
    total = figure.get_figheight() * 72
    size = min(TICK, pitch - 0.5)
    for index, name in enumerate(names):
        text, middle = fitted(name, label - 8, size), pitch * (index + 0.5)
        write(figure, label - 5, 20 + middle + 0.36 * size, text, size=size, role="muted", ha="right")
        figure.text(
            (label + middle) / WIDTH, 1 - (20 + side + 5) / total, text, rotation=90, ha="center", va="top",
            **plain(size, "muted"),
        )  # fmt: skip


def _key(figure: Figure, top: float, largest: float, ends: tuple[str, str], *, below: bool) -> None:
    """What the colours are: a strip from far below zero, if anything is below it, to far above."""
    shown = [(SIDES[0], opacity) for opacity in reversed(OPACITY)] if below else []
    shown += [("paper", 1.0), *((SIDES[1], opacity) for opacity in OPACITY)]
    axes = panel(figure, 2, top, WIDTH - 4, 10)
    axes.set_xlim(0, len(shown))
    axes.set_ylim(1, 0)
    style: dict[str, Any] = {"edgecolor": "none", "linewidth": 0}
    for index, (role, opacity) in enumerate(shown):
        axes.add_patch(Rectangle((index, 0), 1, 1, facecolor=light(role), alpha=opacity, **style))
    axes.add_patch(Rectangle((0, 0), len(shown), 1, facecolor="none", edgecolor=light("frame"), linewidth=0.8))
    if below:
        write(figure, 2, top + 23, f"−{short(float(f'{largest:.2g}'))}: {ends[0]}", size=TICK, role="muted")
    write(figure, WIDTH / 2 if below else 2, top + 23, "0", size=TICK, role="muted", ha="center" if below else "left")
    write(
        figure, WIDTH - 2, top + 23, f"{short(float(f'{largest:.2g}'))}: {ends[1]}", size=TICK, role="muted", ha="right"
    )
