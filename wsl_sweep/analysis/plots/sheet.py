"""The paper that pictures are drawn on: figures of a phone's width, laid out in pixels.

All is set here or by the caller, so that neither a user's matplotlibrc nor a notebook's style shows in a report.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from wsl_sweep.analysis.plots.style import Look, fitted, light, short, width_of

WIDTH: Final = 360.0
"""Of every figure, in pixels: the page of a phone. Wider pages put two beside each other."""

LABEL: Final = 12.0
TICK: Final = 10.5
"""Sizes of text, in pixels."""

LEFT, RIGHT = 46.0, 14.0
CHART: Final = 190.0
"""The height of the axes of a chart, in pixels."""
FAMILY = "DejaVu Sans"


@dataclass(frozen=True)
class Entry:
    """A line of a legend: how it looks, and what it is. ``kind``: line, marker, hollow or area."""

    text: str
    look: Look
    kind: str = "line"
    alpha: float = 1.0


@dataclass
class Legend:
    """Entries laid out in rows of the figure's width."""

    entries: Sequence[Entry]
    places: list[tuple[float, float, str]] = field(default_factory=list)
    height: float = 0.0

    def __post_init__(self) -> None:
        x, y, room = 2.0, 0.0, WIDTH - 4
        for entry in self.entries:
            text = fitted(entry.text, room - 28, LABEL - 0.5)
            needed = 28 + width_of(text, LABEL - 0.5) + 12
            if x > 2 and x + needed - 12 > WIDTH - 2:
                x, y = 2.0, y + 17
            self.places.append((x, y, text))
            x += needed
        self.height = y + 19 if self.entries else 0.0


def blank(height: float) -> Figure:
    """An empty figure of ``height`` pixels."""
    figure = Figure(
        figsize=(WIDTH / 72, height / 72),
        dpi=72,
        facecolor=light("paper"),
        edgecolor="none",
        linewidth=0,
        frameon=True,
    )
    figure.set_layout_engine("none")
    return figure


def write(
    figure: Figure, x: float, top: float, text: str, *, size: float = LABEL, role: str = "ink", ha: str = "left"
) -> None:
    """A line of text whose baseline is ``top`` pixels below the figure's upper edge."""
    height = figure.get_figheight() * 72
    figure.text(x / WIDTH, 1 - top / height, text, ha=ha, va="baseline", **plain(size, role))


def plain(size: float, role: str) -> dict[str, Any]:
    """How a text is set: never as mathematics, whatever a user's names hold."""
    return {
        "fontsize": size,
        "color": light(role),
        "fontfamily": FAMILY,
        "fontweight": "normal",
        "fontstyle": "normal",
        "parse_math": False,
        "usetex": False,
    }


def panel(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes without frame or ticks; the place in pixels from the figure's upper left corner."""
    total = figure.get_figheight() * 72
    axes = figure.add_axes((left / WIDTH, 1 - (top + height) / total, width / WIDTH, height / total), facecolor="none")
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_axisbelow(True)
    axes.grid(False)
    axes.tick_params(which="both", length=0, width=0, pad=5, bottom=True, left=True, top=False, right=False)
    axes.set_title("")
    axes.margins(0)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(NullLocator())
        axis.set_minor_locator(NullLocator())
    return axes


def clear(axes: Axes, x: float, y: float, width: float) -> None:
    """Room for a line of text, over what is drawn there; in data coordinates of axes that run downwards in pixels."""
    box = Rectangle((x, y), width, 14, facecolor=light("paper"), alpha=0.8, edgecolor="none", linewidth=0, zorder=4)
    axes.add_patch(box)


def draw_legend(figure: Figure, top: float, legend: Legend) -> None:
    """The legend, ``top`` pixels below the figure's upper edge."""
    if not legend.entries:
        return
    axes = panel(figure, 0, top, WIDTH, legend.height)
    axes.set_xlim(0, WIDTH)
    axes.set_ylim(legend.height, 0)
    for entry, (x, y, text) in zip(legend.entries, legend.places, strict=True):
        _swatch(axes, entry, x, y + 9)
        write(figure, x + 28, top + y + 13, text, size=LABEL - 0.5)


def _swatch(axes: Axes, entry: Entry, x: float, y: float) -> None:
    colour, look = entry.look.colour, entry.look
    if entry.kind == "area":
        box = Rectangle((x + 1, y - 5), 20, 10, facecolor=colour, alpha=entry.alpha, edgecolor="none", linewidth=0)
        axes.add_patch(box)
        return
    marker: dict[str, Any] = {"marker": look.marker, "markersize": 5.5, "markeredgewidth": 1.3}
    if entry.kind == "hollow":
        marker |= {"markerfacecolor": light("paper"), "markeredgecolor": colour}
    else:
        marker |= {"markerfacecolor": colour, "markeredgecolor": colour}
    if entry.kind == "line":
        xs: list[float] = [x + 1, x + 11, x + 21]
        axes.add_line(stroke(xs, [y, y, y], look, 1.8))
        marker["markersize"] = 4.5
    axes.add_line(Line2D([x + 11], [y], linestyle="none", **marker))


def chart(name: str, entries: Sequence[Entry], below: str) -> tuple[Figure, Axes]:
    """A figure with a legend and axes of CHART pixels: ``name`` is the vertical one, ``below`` the horizontal one."""
    legend = Legend(entries)
    top = 24 + legend.height
    figure = blank(top + CHART + 38)
    write(figure, 2, 14, fitted(name, WIDTH - 4, LABEL), role="muted")
    draw_legend(figure, 20, legend)
    axes = panel(figure, LEFT, top, WIDTH - LEFT - RIGHT, CHART)
    write(figure, WIDTH - RIGHT, top + CHART + 32, fitted(below, WIDTH - 60, LABEL), role="muted", ha="right")
    return figure, axes


def stroke(xs: Sequence[float], ys: Sequence[float], look: Look, width: float = 1.8, alpha: float = 1.0) -> Line2D:
    """A line of a group."""
    return Line2D(
        list(xs),
        list(ys),
        color=look.colour,
        linestyle=look.dash,
        linewidth=width,
        alpha=alpha,
        marker="none",
        solid_capstyle="round",
        dash_capstyle="butt",
        solid_joinstyle="round",
    )


def ticks_between(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers within [low, high]."""
    found = MaxNLocator(nbins=most, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    slack = (high - low) * 1e-6
    return [0.0 if abs(tick) < slack else float(tick) for tick in found if low - slack <= tick <= high + slack]


def log_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers within [low, high], both above 0, for a logarithmic scale."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    if math.log2(high / low) <= most and high / low >= 4:
        powers = range(math.ceil(math.log2(low) - 1e-9), math.floor(math.log2(high) + 1e-9) + 1)
        return [2.0**power for power in powers]
    for steps in ((1, 2, 5), (1, 3), (1,)):
        found = [step * 10.0**d for d in decades for step in steps if low * 0.999 <= step * 10.0**d <= high * 1.001]
        if len(found) <= most:
            break
    while len(found) > most:
        found = found[::2]
    return found if len(found) > 1 else ticks_between(low, high, most)


def tick_labels(ticks: Sequence[float]) -> list[str]:
    """All with as many decimals as their steps need."""
    if len(ticks) < 2:
        return [short(tick) for tick in ticks]
    step = min(abs(b - a) for a, b in itertools.pairwise(ticks))
    largest = max(abs(tick) for tick in ticks)
    if step < 1e-5 or largest >= 1e6:
        return [short(tick) for tick in ticks]
    decimals = next((d for d in range(7) if all(abs(tick - round(tick, d)) < step * 1e-3 for tick in ticks)), 6)
    return [f"{tick:.{decimals}f}".replace("-", "−") for tick in ticks]


def scale_y(axes: Axes, low: float, high: float, most: int = 5) -> None:
    """A linear vertical axis with thin grid lines and their numbers."""
    axes.set_ylim(low, high)
    ticks = ticks_between(low, high, most)
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.set_yticks(ticks, tick_labels(ticks), **plain(TICK, "muted"))
    for tick in ticks:
        axes.axhline(tick, color=light("grid"), linewidth=0.8, linestyle="-", zorder=0)


def scale_x(axes: Axes, low: float, high: float, *, log: bool = False, most: int = 6, grid: bool = False) -> None:
    """A horizontal axis with its numbers and a line at the bottom."""
    if log:
        axes.set_xscale("log")
    axes.set_xlim(low, high)
    ticks = log_ticks(low, high, most) if log else ticks_between(low, high, most)
    labels = [short(tick) for tick in ticks] if log else tick_labels(ticks)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.set_xticks(ticks, labels, **plain(TICK, "muted"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.axhline(axes.get_ylim()[0], color=light("frame"), linewidth=1.4, linestyle="-", zorder=1)
    if grid:
        for tick in ticks:
            axes.axvline(tick, color=light("grid"), linewidth=0.8, linestyle="-", zorder=0)


def fence(values: Sequence[float], reach: float = 4.0) -> tuple[float, float]:
    """The range that a picture shows: all values, or, of eight and more, those within ``reach`` box lengths of the box.

    (0, 1) for none.
    """
    if not values:
        return 0.0, 1.0
    ordered = sorted(values)
    low, high = ordered[0], ordered[-1]
    if len(ordered) >= 8:
        lower, upper = ordered[len(ordered) // 4], ordered[-1 - len(ordered) // 4]
        box = upper - lower
        if box > 0:
            low = min(value for value in ordered if value >= lower - reach * box)
            high = max(value for value in ordered if value <= upper + reach * box)
    return low, high


def padded(low: float, high: float, share: float = 0.06) -> tuple[float, float]:
    """A range with room on both sides; never empty."""
    if high - low <= max(abs(low), abs(high)) * 1e-9:
        room = abs(low) * 0.05 or 0.5
        return low - room, high + room
    return low - share * (high - low), high + share * (high - low)


def thinned(count: int, most: int) -> list[int]:
    """At most ``most`` indices of ``count``, evenly, with the first and the last."""
    if count <= most or most < 2:
        return list(range(min(count, most)))
    return sorted({round(i * (count - 1) / (most - 1)) for i in range(most)})
