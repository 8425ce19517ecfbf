"""Shares as bars: of each class, and of examples by how often something happened to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from wsl_sweep.analysis.plots.sheet import (
    LABEL,
    WIDTH,
    Entry,
    Legend,
    blank,
    chart,
    draw_legend,
    panel,
    scale_x,
    scale_y,
    stroke,
    write,
)
from wsl_sweep.analysis.plots.style import Look, fitted, light

PITCH: Final = 21.0
NAMES, VALUES = 116.0, 52.0
"""Pixels of a bar's row; for its name; for its number."""


@dataclass(frozen=True)
class Bar:
    """One bar: its name, its length in [0, 1], and whether something is left out right before it."""

    name: str
    share: float
    after_gap: bool = False


@dataclass(frozen=True)
class Bin:
    """Of examples that it happened to ``low`` to ``high`` times: their share, and what chance gives."""

    low: int
    high: int
    share: float
    expected: float


def class_shares(bars: Sequence[Bar], whole: float, look: Look) -> Figure:
    """A bar for each class under each other, and a line at the share of all classes together."""
    legend = Legend([Entry("all classes", Look("baseline", "none"))])
    gaps = sum(bar.after_gap for bar in bars)
    top, body = 6 + legend.height, PITCH * (len(bars) + gaps) + 4
    figure = blank(top + body + 4)
    draw_legend(figure, 2, legend)
    axes = panel(figure, NAMES, top, WIDTH - NAMES - VALUES, body)
    axes.set_xlim(0, max([1e-9, whole, *(bar.share for bar in bars)]))
    axes.set_ylim(body, 0)
    plain: dict[str, Any] = {"edgecolor": "none", "linewidth": 0}
    y = 0.0
    for bar in bars:
        if bar.after_gap:
            write(figure, NAMES - 8, top + y + 14, "⋮", role="muted", ha="right")
            y += PITCH
        write(figure, NAMES - 8, top + y + 14, fitted(bar.name, NAMES - 12, LABEL), ha="right")
        write(figure, WIDTH - 2, top + y + 14, f"{100 * bar.share:.1f} %", ha="right")
        axes.add_patch(Rectangle((0, y + 4), axes.get_xlim()[1], 12, facecolor=light("shade"), zorder=0, **plain))
        axes.add_patch(Rectangle((0, y + 4), bar.share, 12, facecolor=look.colour, zorder=1, **plain))
        y += PITCH
    axes.axvline(whole, color=light("baseline"), linewidth=1.4, linestyle="-", zorder=2)
    return figure


def how_often(bins: Sequence[Bin], name: str, look: Look) -> Figure:
    """The share of examples by how often it happened to them, as bars; what chance gives, as steps."""
    ink = Look("ink", "none")
    entries = [Entry("as it was", look, "area"), Entry("as chance would have it", ink)]
    figure, axes = chart("share of the training examples", entries, name)
    scale_y(axes, 0.0, 1.05 * max([1e-9, *(value for one in bins for value in (one.share, one.expected))]))
    scale_x(axes, bins[0].low - 0.5, bins[-1].high + 0.5)
    steps: list[tuple[float, float]] = []
    for one in bins:
        left, right = one.low - 0.5, one.high + 0.5
        inset = 0.06 * (right - left)
        axes.add_patch(
            Rectangle((left + inset, 0), right - left - 2 * inset, one.share, facecolor=look.colour, edgecolor="none",
                      linewidth=0, zorder=1.5)
        )  # fmt: skip
        steps += [(left, one.expected), (right, one.expected)]
    axes.add_line(stroke([x for x, _ in steps], [y for _, y in steps], ink, 1.6))
    return figure
