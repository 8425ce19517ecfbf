"""What changes from epoch to epoch: learning curves, regularization samples, weights, the rank correlation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Polygon
from matplotlib.ticker import FixedLocator

from wsl_sweep.analysis.plots.sheet import (
    TICK,
    Entry,
    chart,
    fence,
    padded,
    plain,
    scale_x,
    scale_y,
    stroke,
    thinned,
)
from wsl_sweep.analysis.plots.style import OTHER, Look, Looks, light, looks_of
from wsl_sweep.analysis.report_data import CurveGroup, EarlyStopping, FanGroup, Interval, LearningCurve

STEPS, GREY_STEPS = 160, 60
"""At most so many epochs of a line, and of a grey one, are drawn, evenly."""


LEVEL: Final = Look("muted", "none", (0, (1.4, 1.6)))
"""Of a line that the others are held against."""


def learning_curve(curve: LearningCurve, looks: Looks | None = None, level: tuple[float, str] | None = None) -> Figure:
    """The mean of each group by epoch, with its band. Groups that have no colour left are grey.

    ``level`` is a value that they are held against, drawn as a dotted line, and what it is.
    """
    known = looks or looks_of(group.label for group in curve.groups)
    coloured = [group for group in curve.groups if known.get(group.label, OTHER).role != "other"]
    grey = [group for group in curve.groups if known.get(group.label, OTHER).role == "other"]
    entries = [Entry(group.label, _unmarked(known[group.label])) for group in coloured]
    if grey:
        entries.append(Entry(f"{len(grey)} others", _unmarked(OTHER)))
    epochs = [epoch for group in curve.groups for epoch in group.epochs]
    span = _curve_range(curve.groups)
    if level is not None:
        entries.append(Entry(level[1], LEVEL))
        room = 0.04 * (max(span[1], level[0]) - min(span[0], level[0]))
        span = min(span[0], level[0] - room), max(span[1], level[0] + room)
    figure, axes = _panel(curve.metric, entries, span, epochs)
    if level is not None:
        axes.axhline(level[0], color=LEVEL.colour, linewidth=1.4, linestyle=LEVEL.dash, zorder=1)
    for group in (*grey, *reversed(coloured)):
        look = known.get(group.label, OTHER)
        some = thinned(len(group.epochs), GREY_STEPS if look.role == "other" else STEPS)
        xs = [float(group.epochs[i]) for i in some]
        ys = [group.mean[i] for i in some]
        if group.low is not None and group.high is not None and look.role != "other":
            _band(axes, xs, [group.low[i] for i in some], [group.high[i] for i in some], look.colour, 0.16)
        axes.add_line(stroke(xs, ys, look, 1.0 if look.role == "other" else 1.9))
        if len(xs) == 1:
            axes.add_line(Line2D(xs, ys, linestyle="none", marker="o", markersize=5, color=look.colour))
    return figure


def weight_fan(group: FanGroup) -> Figure:
    """The distribution of one group's soft label weights by epoch: two bands, the median and the mean."""
    colour, ink = Look("series-1", "none"), Look("ink", "none", (0, (3, 2)))
    entries = [
        Entry("median", colour),
        Entry("middle half", colour, "area", 0.42),
        Entry("5–95 %", colour, "area", 0.18),
    ]
    entries.append(Entry("mean", ink))
    top = max([1.0, *group.q95, *group.mean])
    figure, axes = _panel("soft label weight", entries, (-0.02 * top, 1.02 * top), group.epochs)
    some = thinned(len(group.epochs), STEPS)
    xs = [float(group.epochs[i]) for i in some]

    def at(values: Sequence[float]) -> list[float]:
        return [values[i] for i in some]

    _band(axes, xs, at(group.q05), at(group.q95), colour.colour, 0.18)
    _band(axes, xs, at(group.q25), at(group.q75), colour.colour, 0.3)
    axes.add_line(stroke(xs, at(group.q50), colour, 2.0))
    axes.add_line(stroke(xs, at(group.mean), ink, 1.3))
    return figure


def rank_correlation(stopping: EarlyStopping) -> Figure:
    """Spearman's rank correlation of the metric at each epoch with its last value; at 1 it is safe to stop."""
    points = stopping.correlations
    low = min([0.0, *(point.rho for point in points)])
    epochs = [point.epoch for point in points]
    figure, axes = _panel("rank correlation with the last epoch", [], (low - 0.04, 1.05), epochs)
    look = Look("series-1")
    axes.add_line(stroke([float(epoch) for epoch in epochs], [point.rho for point in points], look))
    some = thinned(len(points), 40)
    axes.add_line(Line2D([epochs[i] for i in some], [points[i].rho for i in some], linestyle="none", marker="o",
                         markersize=5, color=look.colour, markeredgewidth=0, clip_on=False))  # fmt: skip
    axes.axhline(1.0, color=light("baseline"), linewidth=1.2, linestyle=(0, (3.5, 1.8)), zorder=1)
    return figure


def _unmarked(look: Look) -> Look:
    return Look(look.role, "none", look.dash)


def _panel(name: str, entries: list[Entry], y_range: Interval, epochs: Sequence[int]) -> tuple[Figure, Axes]:
    figure, axes = chart(name, entries, "epoch")
    scale_y(axes, *y_range)
    first, last = min(epochs, default=1), max(epochs, default=1)
    scale_x(axes, *padded(first, last, 0.015))
    ticks = [tick for tick in axes.get_xticks() if abs(tick - round(tick)) < 1e-6 and tick >= 1]
    if last - first < 8 or not ticks:
        ticks = list(range(first, last + 1)) if last - first < 8 else [first, last]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.set_xticks(ticks, [str(round(tick)) for tick in ticks], **plain(TICK, "muted"))
    return figure, axes


def _band(axes: Axes, xs: list[float], low: list[float], high: list[float], colour: str, alpha: float) -> None:
    if not xs:
        return
    edge = [*zip(xs, low, strict=True), *reversed([*zip(xs, high, strict=True)])]
    axes.add_patch(Polygon(edge, facecolor=colour, alpha=alpha, edgecolor="none", linewidth=0, zorder=1.2))


def _curve_range(groups: Sequence[CurveGroup]) -> Interval:
    """All means, without what is far off (the loss of a first epoch), and what fits of the bands."""
    low, high = fence([value for group in groups for value in group.mean], reach=4.0)
    ends = [value for group in groups for values in (group.low, group.high) if values is not None for value in values]
    room = 0.15 * (high - low)
    return padded(max(min([low, *ends]), low - room), min(max([high, *ends]), high + room))
