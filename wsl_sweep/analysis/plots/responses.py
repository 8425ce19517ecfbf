"""How a metric answers to one parameter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Polygon
from matplotlib.transforms import ScaledTranslation

from wsl_sweep.analysis.plots.sheet import (
    LABEL,
    LEFT,
    RIGHT,
    WIDTH,
    Entry,
    Legend,
    blank,
    draw_legend,
    fence,
    padded,
    panel,
    scale_x,
    scale_y,
    stroke,
    thinned,
    write,
)
from wsl_sweep.analysis.plots.style import Look, Looks, fitted, light, looks_of, named, shown
from wsl_sweep.analysis.report_data import Interval, ResponseCurve, ResponseGroup, ResponsePoint, Value, ValueMean

POINTS = 600
"""At most so many points are drawn of one curve: a picture is looked at, the table has the numbers."""

HOLLOW = ("confirm",)
"""Stages whose points are drawn hollow."""


def response(curve: ResponseCurve, looks: Looks | None = None) -> Figure:
    """Every trial's value over the parameter's, and a fitted curve or the means of single values with intervals.

    Categories are rows under each other. Trials far outside are arrow heads at the edge.
    """
    known = looks or looks_of(group.label for group in curve.groups)
    return _rows_of_categories(curve, known) if curve.categories else _over_numbers(curve, known)


def _entries(curve: ResponseCurve, looks: Looks) -> list[Entry]:
    kind = "line" if any(group.band or group.means for group in curve.groups) and not curve.categories else "marker"
    entries = [Entry(group.label, _look(looks, group), kind) for group in curve.groups]
    stages = {point.stage in HOLLOW for group in curve.groups for point in group.points}
    if True in stages:
        entries.append(Entry("confirmed on fresh seeds", Look("ink"), "hollow"))
    span = _y_range(curve)
    outside = sum(not span[0] <= point.y <= span[1] for group in curve.groups for point in group.points)
    if outside:
        entries.append(
            Entry(f"{outside} outside the picture", Look("muted", "<" if curve.categories else "v"), "marker")
        )
    return entries


def _look(looks: Looks, group: ResponseGroup) -> Look:
    return looks.get(group.label, Look("series-1"))


def _over_numbers(curve: ResponseCurve, looks: Looks) -> Figure:
    legend = Legend(_entries(curve, looks))
    top = 24 + legend.height
    figure = blank(top + 200 + 40)
    write(figure, 2, 14, fitted(curve.metric, WIDTH - 4, LABEL), role="muted")
    draw_legend(figure, 20, legend)
    axes = panel(figure, LEFT, top, WIDTH - LEFT - RIGHT, 200)
    low, high = _y_range(curve)
    scale_y(axes, low, high)
    scale_x(axes, *_x_range(curve), log=curve.log)
    share = POINTS // max(1, len(curve.groups))
    for i, group in enumerate(curve.groups):
        look, shift = _look(looks, group), 4.0 * (i - (len(curve.groups) - 1) / 2)
        if group.band:
            edge = [*zip(group.band.xs, group.band.low, strict=True)]
            edge += reversed([*zip(group.band.xs, group.band.high, strict=True)])
            axes.add_patch(Polygon(edge, facecolor=look.colour, alpha=0.16, edgecolor="none", linewidth=0, zorder=1.2))
            axes.add_line(stroke(group.band.xs, group.band.mean, look, 2.0))
        _points(axes, [group.points[k] for k in thinned(len(group.points), share)], look, (low, high))
        _means(figure, axes, group.means, look, shift if group.means else 0.0)
    write(
        figure,
        WIDTH - RIGHT,
        top + 200 + 33,
        fitted(named(curve.parameter), WIDTH - 60, LABEL),
        role="muted",
        ha="right",
    )
    return figure


def _points(axes: Axes, points: Sequence[ResponsePoint], look: Look, span: Interval) -> None:
    for hollow in (False, True):
        chosen = [p for p in points if (p.stage in HOLLOW) == hollow and span[0] <= p.y <= span[1]]
        if chosen:
            style: dict[str, Any] = {"marker": look.marker, "markeredgecolor": look.colour, "linestyle": "none"}
            style |= (
                {"markersize": 6, "markerfacecolor": light("paper"), "markeredgewidth": 1.4, "zorder": 3}
                if hollow
                else {
                    "markersize": 4,
                    "markerfacecolor": look.colour,
                    "markeredgewidth": 0,
                    "alpha": 0.6,
                    "zorder": 2.5,
                }
            )
            axes.add_line(Line2D([float(p.x) for p in chosen], [p.y for p in chosen], **style))
    for outside, edge, marker in (
        ([p for p in points if p.y < span[0]], span[0], "v"),
        ([p for p in points if p.y > span[1]], span[1], "^"),
    ):
        if outside:
            axes.add_line(
                Line2D([float(p.x) for p in outside], [edge] * len(outside), linestyle="none", marker=marker,
                       markersize=5.5, color=look.colour, markeredgewidth=0, clip_on=False, zorder=3)
            )  # fmt: skip


def _means(figure: Figure, axes: Axes, means: Sequence[ValueMean], look: Look, shift: float) -> None:
    """Means joined by a line, each with its interval; groups stand a few pixels beside each other."""
    if not means:
        return
    aside = axes.transData + ScaledTranslation(shift / 72, 0, figure.dpi_scale_trans)
    xs, ys = [float(mean.x) for mean in means], [mean.mean for mean in means]
    line = stroke(xs, ys, look, 1.8)
    whiskers = [Line2D([x, x], list(mean.interval), color=look.colour, linewidth=1.4, linestyle="-", zorder=2.2)
                for x, mean in zip(xs, means, strict=True) if mean.interval]  # fmt: skip
    dots = Line2D(xs, ys, linestyle="none", marker=look.marker, markersize=6, markerfacecolor=look.colour,
                  markeredgecolor=light("paper"), markeredgewidth=0.8, zorder=3)  # fmt: skip
    for artist in (line, *whiskers, dots):
        artist.set_transform(aside)
        axes.add_artist(artist)


def _y_range(curve: ResponseCurve) -> Interval:
    low, high = fence([point.y for group in curve.groups for point in group.points])
    if not any(group.points for group in curve.groups):
        low, high = math.inf, -math.inf
    drawn = [y for group in curve.groups if group.band for y in (*group.band.mean,)]
    drawn += [mean.mean for group in curve.groups for mean in group.means]
    ends = [y for group in curve.groups if group.band for y in (*group.band.low, *group.band.high)]
    ends += [end for group in curve.groups for mean in group.means if mean.interval for end in mean.interval]
    low, high = min([low, *drawn]), max([high, *drawn])
    if low > high:
        return 0.0, 1.0
    room = 0.6 * (high - low)
    return padded(max(min([low, *ends]), low - room), min(max([high, *ends]), high + room))


def _x_range(curve: ResponseCurve) -> Interval:
    xs = [float(point.x) for group in curve.groups for point in group.points]
    xs += [float(mean.x) for group in curve.groups for mean in group.means]
    xs += [x for group in curve.groups if group.band for x in group.band.xs]
    if not xs:
        return (1.0, 10.0) if curve.log else (0.0, 1.0)
    if curve.log:
        low, high = padded(math.log(min(xs)), math.log(max(xs)), 0.04)
        return math.exp(low), math.exp(high)
    return padded(min(xs), max(xs), 0.04)


def _rows_of_categories(curve: ResponseCurve, looks: Looks) -> Figure:
    legend = Legend(_entries(curve, looks) if len(curve.groups) > 1 else _entries(curve, looks)[1:])
    lane, groups = 15.0, max(1, len(curve.groups))
    pitch = 24 + lane * groups
    top, body = 4 + legend.height, pitch * len(curve.categories) + 4
    figure = blank(top + body + 36)
    draw_legend(figure, 2, legend)
    axes = panel(figure, RIGHT, top, WIDTH - 2 * RIGHT, body)
    axes.set_ylim(body, 0)
    span = _y_range(curve)
    scale_x(axes, *span, grid=True)
    for i, category in enumerate(curve.categories):
        write(figure, RIGHT, top + i * pitch + 15, fitted(shown(category), WIDTH - 2 * RIGHT, LABEL))
        for k, group in enumerate(curve.groups):
            _lane(axes, group, category, i * pitch + 24 + lane * (k + 0.5), _look(looks, group), span)
    write(
        figure, WIDTH - RIGHT, top + body + 31, fitted(curve.metric, WIDTH - 2 * RIGHT, LABEL), role="muted", ha="right"
    )
    return figure


def _lane(axes: Axes, group: ResponseGroup, category: Value, y: float, look: Look, span: Interval) -> None:
    """The trials of one group and category, and their mean with its interval."""
    points = [point for point in group.points if point.x == category]
    alike: dict[tuple[bool, str], list[tuple[float, float]]] = {}
    for i in thinned(len(points), 120):
        value = points[i].y
        marker = "<" if value < span[0] else ">" if value > span[1] else look.marker
        place = (min(max(value, span[0]), span[1]), y + 4 * math.sin(2.4 * i))
        alike.setdefault((points[i].stage in HOLLOW, marker), []).append(place)
    for (hollow, marker), places in alike.items():
        xs, ys = zip(*places, strict=True)
        large = hollow or marker != look.marker
        axes.add_line(
            Line2D(xs, ys, linestyle="none", marker=marker, markersize=6 if large else 4, clip_on=False,
                   markerfacecolor=light("paper") if hollow else look.colour, markeredgecolor=look.colour,
                   markeredgewidth=1.4 if hollow else 0, alpha=1 if large else 0.55, zorder=2.5)
        )  # fmt: skip
    for mean in (mean for mean in group.means if mean.x == category):
        if mean.interval:
            ends = [min(max(end, span[0]), span[1]) for end in mean.interval]
            axes.add_line(Line2D(ends, [y, y], color=look.colour, linewidth=2.2, solid_capstyle="butt", zorder=3))
        axes.add_line(
            Line2D([mean.mean], [y], linestyle="none", marker=look.marker, markersize=7.5, markerfacecolor=look.colour,
                   markeredgecolor=light("paper"), markeredgewidth=1, zorder=4)
        )  # fmt: skip
