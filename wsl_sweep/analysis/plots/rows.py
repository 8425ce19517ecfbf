"""Pictures with a row for each thing: its name above, its mark below, so that long names have room on a phone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from wsl_sweep.analysis.plots.sheet import (
    LABEL,
    WIDTH,
    Entry,
    Legend,
    blank,
    draw_legend,
    fence,
    padded,
    panel,
    scale_x,
    write,
)
from wsl_sweep.analysis.plots.style import (
    BASELINE,
    KIND_MARKERS,
    Look,
    Looks,
    clean,
    fitted,
    light,
    measured,
    named,
    width_of,
)
from wsl_sweep.analysis.report_data import Comparison, ImportanceGroup, Interval, Row

SIDE: Final = 14.0
AXIS: Final = 36.0
"""Pixels left and right of the marks; pixels for the axis below them."""


@dataclass(frozen=True)
class Mark:
    """One row: its name, what stands at its right end, a point with its intervals, single values."""

    name: str
    right: str
    look: Look
    point: float | None = None
    interval: Interval | None = None
    wide: Interval | None = None
    dots: Sequence[float] = ()
    hollow: bool = False


def forest(rows: Sequence[Row], looks: Looks | None = None, level: float = 0.95) -> Figure:
    """The mean of each row with its interval (thick), the one over seeds and examples (thin), and each seed's value.

    The baseline's mean is a dashed line through all rows.
    """
    marks = []
    for row in rows:
        look = BASELINE if row.is_baseline else (looks or {}).get(row.label, Look("ink"))
        right = measured(row.metric, row.mean) if row.mean is not None else row.missing or "no result"
        dots = [value for _, value in row.values]
        marks.append(
            Mark(row.label, right, look, row.mean, row.interval, row.wide_interval, dots, hollow=row.is_baseline)
        )
    baseline = next((row.mean for row in rows if row.is_baseline and row.mean is not None), None)
    entries = [Entry("mean", Look("ink"), "marker")]
    if baseline is not None:
        entries.append(Entry("baseline", BASELINE, "hollow"))
    if any(row.interval for row in rows):
        entries.append(Entry(f"{100 * level:g} % over seeds", Look("ink"), "area", 0.75))
    if any(row.wide_interval for row in rows):
        entries.append(Entry("over seeds and examples", Look("ink", "none"), "line"))
    if any(row.values for row in rows):
        entries.append(Entry("one seed", Look("muted", "|"), "marker"))
    return marked(marks, rows[0].metric if rows else "", entries, reference=baseline)


def differences(comparisons: Sequence[Comparison], metric: str, margin: float | None = None) -> Figure:
    """Each row's difference to the baseline with its interval; what is within ±margin is shaded."""
    marks = [
        Mark(
            one.label,
            measured(metric, one.difference, sign=True),
            Look("inconclusive" if one.kind == "none" else one.kind, KIND_MARKERS[one.kind]),
            one.difference,
            one.interval,
        )
        for one in comparisons
    ]
    there = {one.kind for one in comparisons}
    entries = [
        Entry(kind, Look(kind, marker), "marker")
        for kind, marker in KIND_MARKERS.items()
        if kind in there and kind != "none"
    ]
    if margin:
        entries.append(Entry(f"within the margin, ±{measured(metric, margin)}", Look("shade"), "area"))
    baselines = dict.fromkeys(one.baseline for one in comparisons)
    against = f" minus {clean(next(iter(baselines)))}" if len(baselines) == 1 else " minus the baseline"
    return marked(marks, f"{metric}{against}", entries, reference=0.0, shade=margin or None)


def importance(group: ImportanceGroup) -> Figure:
    """A bar for each parameter, the longest first."""
    ordered = sorted(group.importances, key=lambda pair: -pair[1])
    figure = blank(len(ordered) * 31 + 14 if ordered else 40)
    axes = panel(figure, SIDE, 4, WIDTH - 2 * SIDE, len(ordered) * 31.0 or 30.0)
    axes.set_xlim(0, max([1.0, *(value for _, value in ordered)]))
    axes.set_ylim(len(ordered) * 31.0 or 30.0, 0)
    if not ordered:
        write(figure, SIDE, 24, "no parameter", role="muted")
    for i, (path, value) in enumerate(ordered):
        write(figure, WIDTH - SIDE, 17 + i * 31, f"{value:.2f}", ha="right")
        write(figure, SIDE, 17 + i * 31, fitted(named(path), WIDTH - 2 * SIDE - 44, LABEL))
        bar: dict[str, Any] = {"edgecolor": "none", "linewidth": 0}
        axes.add_patch(Rectangle((0, i * 31 + 18), axes.get_xlim()[1], 7, facecolor=light("grid"), **bar))
        axes.add_patch(Rectangle((0, i * 31 + 18), value, 7, facecolor=light("series-1"), **bar))
    return figure


def marked(
    marks: Sequence[Mark],
    axis_name: str,
    entries: Sequence[Entry],
    reference: float | None = None,
    shade: float | None = None,
) -> Figure:
    """All marks under each other, on one scale."""
    legend = Legend(entries)
    pitch = 35.0 if len(marks) <= 12 else 32.0
    above = legend.height + (22.0 if len(marks) > 12 else 4.0)
    body = max(1, len(marks)) * pitch + 4
    figure = blank(above + body + AXIS)
    draw_legend(figure, 2, legend)
    axes = panel(figure, SIDE, above, WIDTH - 2 * SIDE, body)
    axes.set_ylim(body, 0)
    low, high = _span(marks, reference, shade)
    scale_x(axes, low, high, grid=True)
    if len(marks) > 12:
        axes.tick_params(top=True, labeltop=True, pad=3)
    if shade:
        box = Rectangle(
            (-shade, 0), 2 * shade, body, facecolor=light("shade"), edgecolor="none", linewidth=0, zorder=-1
        )
        axes.add_patch(box)
    for i, mark in enumerate(marks):
        if i:
            axes.axhline(i * pitch, color=light("grid"), linewidth=0.8, linestyle="-", zorder=0)
        if reference is not None:  # beside the marks only: it would run through the names
            ends = [i * pitch + pitch - 18, i * pitch + pitch]
            axes.add_line(
                Line2D([reference] * 2, ends, color=light("baseline"), linewidth=1.2, linestyle="-", zorder=1.5)
            )
        _row(figure, axes, mark, above + i * pitch, i * pitch + pitch - 9, (low, high))
    write(
        figure,
        WIDTH - SIDE,
        above + body + AXIS - 5,
        fitted(axis_name, WIDTH - 2 * SIDE, LABEL),
        role="muted",
        ha="right",
    )
    return figure


def _row(figure: Figure, axes: Axes, mark: Mark, top: float, y: float, span: Interval) -> None:
    right = fitted(mark.right, WIDTH * 0.45, LABEL)
    room = WIDTH - 2 * SIDE - width_of(right, LABEL) - 12
    name = fitted(mark.name, room, LABEL)
    write(figure, SIDE, top + 15, name)
    write(figure, WIDTH - SIDE, top + 15, right, ha="right", role="ink" if mark.point is not None else "muted")
    colour = mark.look.colour
    for ends, width, alpha in ((mark.wide, 1.3, 1.0), (mark.interval, 4.5, 0.55)):
        if ends is not None:
            low, high = max(ends[0], span[0]), min(ends[1], span[1])
            if low < high:
                line = Line2D(
                    [low, high], [y, y], color=colour, linewidth=width, alpha=alpha, solid_capstyle="butt", zorder=2
                )
                axes.add_line(line)
            _beyond(axes, ends, span, y, colour)
    dots = [dot for dot in mark.dots if span[0] <= dot <= span[1]]
    if dots:
        axes.add_line(
            Line2D(dots, [y] * len(dots), linestyle="none", marker="|", markersize=9, markeredgewidth=1.0,
                   color=light("muted"), zorder=2.5)
        )  # fmt: skip
    if mark.point is not None:
        at = min(max(mark.point, span[0]), span[1])
        marker = mark.look.marker if at == mark.point else "<" if mark.point < at else ">"
        fill = light("paper") if mark.hollow else colour
        axes.add_line(
            Line2D([at], [y], linestyle="none", marker=marker, markersize=7, markerfacecolor=fill,
                   markeredgecolor=colour, markeredgewidth=1.6, zorder=3, clip_on=False)
        )  # fmt: skip


def _beyond(axes: Axes, ends: Interval, span: Interval, y: float, colour: str) -> None:
    """An arrow head where an interval goes on beyond the picture."""
    for end, edge, marker, out in (
        (ends[0], span[0], "<", ends[0] < span[0]),
        (ends[1], span[1], ">", ends[1] > span[1]),
    ):
        if out and end != edge:
            axes.add_line(
                Line2D([edge], [y], linestyle="none", marker=marker, markersize=6, color=colour, markeredgewidth=0,
                       clip_on=False, zorder=2)
            )  # fmt: skip


def _span(marks: Sequence[Mark], reference: float | None, shade: float | None) -> Interval:
    """From the lowest to the highest of what is shown; the interval of two seeds, which may be huge, is cut off."""
    points = [mark.point for mark in marks if mark.point is not None]
    low, high = fence([*points, *([reference] if reference is not None else [])], reach=6.0)
    inside = [dot for mark in marks for dot in mark.dots if mark.point is not None and low <= mark.point <= high]
    if shade:
        inside += [-shade, shade]
    low, high = min([low, *inside]), max([high, *inside])
    ends = [end for mark in marks for ends in (mark.interval, mark.wide) if ends is not None for end in ends]
    halves = sorted((i[1] - i[0]) / 2 for mark in marks for i in (mark.interval, mark.wide) if i is not None)
    room = max(1.2 * (high - low), 3 * halves[len(halves) // 2]) if halves else 0.0
    return padded(max(min([low, *ends]), low - room), min(max([high, *ends]), high + room), 0.05)
