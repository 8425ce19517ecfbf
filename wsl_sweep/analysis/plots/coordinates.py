"""Parallel coordinates, with the axes lying under each other: names and categories have room on a phone."""

from __future__ import annotations

import math
from typing import Final

from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from wsl_sweep.analysis.plots.sheet import (
    LABEL,
    TICK,
    WIDTH,
    Entry,
    Legend,
    blank,
    clear,
    draw_legend,
    fence,
    log_ticks,
    padded,
    panel,
    thinned,
    tick_labels,
    ticks_between,
    write,
)
from wsl_sweep.analysis.plots.style import Look, Looks, fitted, light, looks_of, named, short, shown, width_of
from wsl_sweep.analysis.report_data import Axis, CoordinateLine, Coordinates, Value

FAINT: Final = 300
"""At most so many trials are drawn besides the best tenth, of which there are at most ``BEST``."""

BEST: Final = 60
PITCH: Final = 60.0
SIDE: Final = 26.0
ABSENT: Final = 16.0
"""Where a trial crosses an axis of a parameter that it does not have; the axis itself then begins further right."""


def best_tenth(coordinates: Coordinates) -> list[CoordinateLine]:
    """The tenth of all trials, at least one, with the best metric; the best first."""
    ordered = sorted(coordinates.lines, key=lambda line: line.metric, reverse=coordinates.higher_is_better)
    return ordered[: min(BEST, max(1, round(len(ordered) / 10)))] if ordered else []


def parallel_coordinates(coordinates: Coordinates, looks: Looks | None = None) -> Figure:
    """Each trial is a line from its parameters, axis by axis, to its metric; the best tenth is coloured."""
    known = looks or looks_of(line.group for line in coordinates.lines)
    best = best_tenth(coordinates)
    chosen = set(map(id, best))
    rest = [line for line in coordinates.lines if id(line) not in chosen]
    groups = list(dict.fromkeys(line.group for line in best))
    entries = [Entry(f"best tenth: {group}" if group else "best tenth", _look(known, group)) for group in groups]
    legend = Legend([*entries, Entry("all others", Look("other", "none"))] if rest else entries)
    scales = [*(_Scale(axis, coordinates, i) for i, axis in enumerate(coordinates.axes)), _metric_scale(coordinates)]
    top, body = legend.height + 6, PITCH * len(scales)
    figure = blank(top + body + 8)
    draw_legend(figure, 2, legend)
    axes = panel(figure, 0, top, WIDTH, body)
    axes.set_xlim(0, WIDTH)
    axes.set_ylim(body, 0)
    for i, scale in enumerate(scales):
        scale.draw(figure, axes, top, PITCH * i + 24)
    faint = [_path(rest[i], scales) for i in thinned(len(rest), FAINT)]
    axes.add_collection(LineCollection(faint, colors=light("other"), linewidths=0.9, alpha=0.55, zorder=1))
    for line in reversed(best):
        xs, ys = zip(*_path(line, scales), strict=True)
        look = _look(known, line.group)
        axes.add_line(Line2D(xs, ys, color=look.colour, linewidth=1.7, linestyle=look.dash, alpha=0.9, zorder=2))
        axes.add_line(Line2D(xs, ys, linestyle="none", marker=look.marker, markersize=4, color=look.colour,
                             markeredgewidth=0, zorder=2.1))  # fmt: skip
    return figure


def _look(looks: Looks, group: str) -> Look:
    return looks.get(group, Look("series-1"))


def _path(line: CoordinateLine, scales: list[_Scale]) -> list[tuple[float, float]]:
    return [
        (scale.place(value), PITCH * i + 24)
        for i, (scale, value) in enumerate(zip(scales, (*line.values, line.metric), strict=True))
    ]


def _metric_scale(coordinates: Coordinates) -> _Scale:
    return _Scale(Axis(coordinates.metric), coordinates, None)


class _Scale:
    """One axis: from a value to pixels."""

    def __init__(self, axis: Axis, coordinates: Coordinates, index: int | None) -> None:
        values = [line.metric if index is None else line.values[index] for line in coordinates.lines]
        self.axis = axis
        self.left = SIDE + 24 if None in values else SIDE
        self.right = WIDTH - SIDE
        self.has_absent = None in values
        numbers = [float(v) for v in values if v is not None] if not axis.categories else []
        low, high = fence(numbers) if index is None else (min(numbers, default=0.0), max(numbers, default=1.0))
        self.log = axis.log and low > 0
        self.low, self.high = padded(low, high, 0.0) if not self.log or low == high else (low, high)
        self.log = self.log and self.low > 0

    def place(self, value: Value | None) -> float:
        if value is None:
            return ABSENT
        if self.axis.categories:
            known = value in self.axis.categories
            i = self.axis.categories.index(value) if known else 0
            return self.left + (self.right - self.left) * (i + 0.5) / len(self.axis.categories)
        number = min(max(float(value), self.low), self.high)
        share = (
            math.log(number / self.low) / math.log(self.high / self.low)
            if self.log
            else (number - self.low) / (self.high - self.low)
        )
        return self.left + (self.right - self.left) * share

    def draw(self, figure: Figure, axes: Axes, top: float, y: float) -> None:
        """The name above the line, the values below it."""
        name = fitted(named(self.axis.name), WIDTH - 2 * SIDE, LABEL)
        write(figure, SIDE - 12, top + y - 9, name)
        clear(axes, SIDE - 14, y - 20, width_of(name, LABEL) + 4)
        axes.add_line(Line2D([self.left, self.right], [y, y], color=light("frame"), linewidth=1.4, zorder=0.5))
        if self.has_absent:
            write(figure, ABSENT, top + y + 15, shown(None), size=TICK, role="muted", ha="center")
        room = (self.right - self.left) / max(1, len(self.axis.categories)) - 6
        for value, label in self.ticks():
            x = self.place(value)
            axes.add_line(Line2D([x, x], [y - 3, y + 3], color=light("frame"), linewidth=1.2, zorder=0.6))
            text = fitted(label, room, TICK) if self.axis.categories else label
            write(figure, x, top + y + 15, text, size=TICK, role="muted", ha="center")
            clear(axes, x - width_of(text, TICK) / 2, y + 5, width_of(text, TICK))

    def ticks(self) -> list[tuple[Value, str]]:
        if self.axis.categories:
            return [(category, shown(category)) for category in self.axis.categories]
        found = log_ticks(self.low, self.high, 6) if self.log else ticks_between(self.low, self.high, 5)
        labels = [short(tick) for tick in found] if self.log else tick_labels(found)
        return list(zip(found, labels, strict=True))
