"""What is lost: away from the best value of a parameter, and at the rungs of early stopping."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator

from wsl_sweep.analysis.plots.sheet import (
    TICK,
    Entry,
    chart,
    padded,
    plain,
    scale_x,
    scale_y,
    stroke,
)
from wsl_sweep.analysis.plots.style import Look, light, measured, named
from wsl_sweep.analysis.report_data import Interval

MARGIN: Final = Look("ink", "none", (0, (4, 2.5)))
FITTED: Final = Look("muted", "none", (0, (1.4, 1.6)))
CONFIRMED: Final = 0.16
"""Opacity of what is confirmed."""

MOST_MARGINS, MOST_OF_THE_LEAST = 12.0, 4.0
"""Losses beyond so many margins, and so many times the least, are outside the picture: it is about the margin."""


@dataclass(frozen=True)
class Tolerance:
    """What is lost along a parameter against its best value: on average, and by the fitted curve alone.

    ``values`` are rising, as many of them as of both.
    """

    parameter: str
    metric: str
    values: tuple[float, ...]
    lost: tuple[float, ...]
    fitted: tuple[float, ...]
    margin: float
    best: float
    confirmed: Interval | None
    log: bool = False


@dataclass(frozen=True)
class Step:
    """A rung: its epoch, what is lost there on average, what one order in twenty exceeds, and in the order that was."""

    epoch: int
    mean: float
    high: float
    own: float


def tolerance(one: Tolerance, look: Look) -> Figure:
    """The mean loss over a parameter's values, the margin as a line, the values that are confirmed shaded."""
    entries = [Entry("lost on average", _unmarked(look)), Entry("by the fitted curve alone", FITTED)]
    entries.append(Entry(f"margin, {measured(one.metric, one.margin)}", MARGIN))
    if one.confirmed is not None:
        entries.append(Entry("confirmed within it", look, "area", CONFIRMED))
    largest = max([one.margin, *one.lost])
    top = min(largest, max(MOST_MARGINS * one.margin, MOST_OF_THE_LEAST * min(one.lost)))
    if largest > top:
        entries.append(Entry("more is lost than is drawn", Look("muted", "^"), "marker"))
    low, high = one.values[0], one.values[-1]
    figure, axes = chart(f"lost of {one.metric}", entries, named(one.parameter))
    scale_y(axes, 0.0, 1.06 * top)
    scale_x(axes, *_room(low, high, one.log), log=one.log)
    if one.confirmed is not None:
        left, right = one.confirmed
        axes.add_patch(
            Rectangle((left, 0), right - left, 1.06 * top, facecolor=look.colour, alpha=CONFIRMED, edgecolor="none",
                      linewidth=0, zorder=0.5)
        )  # fmt: skip
    axes.axhline(one.margin, color=MARGIN.colour, linewidth=1.2, linestyle=MARGIN.dash, zorder=2)
    for line, drawn, width in ((one.fitted, FITTED, 1.2), (one.lost, look, 2.0)):
        axes.add_line(stroke(one.values, [min(value, 1.2 * top) for value in line], drawn, width))
    nearest = min(range(len(one.values)), key=lambda i: abs(one.values[i] - one.best))
    _dots(axes, [(one.values[nearest], one.lost[nearest])], look, hollow=False)
    beyond = [(x, 1.03 * top) for x, lost in zip(one.values, one.lost, strict=True) if lost > 1.06 * top]
    _dots(axes, [beyond[0], beyond[-1]] if beyond else [], Look("muted", "^"), hollow=False)
    return figure


def rungs(steps: Sequence[Step], metric: str, margin: float, look: Look) -> Figure:
    """What is lost at each rung, the margin as a line; whiskers go up to what one random order in twenty exceeds."""
    entries = [Entry("mean over random orders", Look(look.role, look.marker), "marker")]
    entries.append(Entry("up to one order in twenty", Look(look.role, "none")))
    entries.append(Entry("in the order that was", look, "hollow"))
    if margin:
        entries.append(Entry(f"margin, {measured(metric, margin)}", MARGIN))
    values = [value for step in steps for value in (step.mean, step.high, step.own)]
    _, top = padded(0.0, max([margin, *values]))
    figure, axes = chart(f"lost of the best {metric}", entries, "decided after so many epochs")
    scale_y(axes, -0.04 * top, top)
    axes.set_xlim(-0.5, len(steps) - 0.5)
    axes.axhline(axes.get_ylim()[0], color=light("frame"), linewidth=1.4, linestyle="-", zorder=1)
    axes.xaxis.set_major_locator(FixedLocator(range(len(steps))))
    axes.set_xticks(range(len(steps)), [str(step.epoch) for step in steps], **plain(TICK, "muted"))
    if margin:
        axes.axhline(margin, color=MARGIN.colour, linewidth=1.2, linestyle=MARGIN.dash, zorder=1.5)
    for place, step in enumerate(steps):
        axes.add_line(Line2D([place] * 2, [step.mean, step.high], color=look.colour, linewidth=1.6, zorder=2))
    places = range(len(steps))
    _dots(axes, [(place, step.mean) for place, step in zip(places, steps, strict=True)], look, hollow=False)
    _dots(axes, [(place + 0.16, step.own) for place, step in zip(places, steps, strict=True)], look, hollow=True)
    return figure


def _dots(axes: Axes, points: Sequence[tuple[float, float]], look: Look, *, hollow: bool) -> None:
    fill = light("paper") if hollow else look.colour
    if points:
        axes.add_line(
            Line2D([x for x, _ in points], [y for _, y in points], linestyle="none", marker=look.marker, markersize=6.5,
                   markerfacecolor=fill, markeredgecolor=look.colour, markeredgewidth=1.4, zorder=3, clip_on=False)
        )  # fmt: skip


def _room(low: float, high: float, log: bool) -> Interval:
    if log:
        left, right = padded(math.log(low), math.log(high), 0.02)
        return math.exp(left), math.exp(right)
    return padded(low, high, 0.02)


def _unmarked(look: Look) -> Look:
    return Look(look.role, "none", look.dash)
