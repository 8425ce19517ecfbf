"""What a teacher's soft labels look like: how right they are by how sure, by rank, by k and by class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, NullLocator

from wsl_sweep.analysis.diagnostics.calibration import Calibration
from wsl_sweep.analysis.diagnostics.soft_labels import Softened, TopLabels
from wsl_sweep.analysis.plots.sheet import (
    CHART,
    LABEL,
    LEFT,
    RIGHT,
    TICK,
    WIDTH,
    Entry,
    Legend,
    blank,
    chart,
    draw_legend,
    padded,
    panel,
    plain,
    scale_x,
    scale_y,
    stroke,
    write,
)
from wsl_sweep.analysis.plots.style import BASELINE, Look, fitted, light, short, width_of

COUNTS: Final = 44.0
"""Of the small panel that says how many examples each bin has."""

MOST_CELLS: Final = 40
"""Classes of which a heat map is drawn."""

FLOOR: Final = 1e-6
"""A mean probability below is drawn here: a student's loss hardly knows it from none."""

MOST_TICKS: Final = 7

_BAR: Final[dict[str, Any]] = {"edgecolor": "none", "linewidth": 0}


def reliability(found: Calibration) -> Figure:
    """Accuracy against confidence, bin by bin, and how many examples each bin has."""
    line, bars = Look("baseline", "none", BASELINE.dash), Look("series-1")
    legend = Legend([Entry("accuracy", bars, "area", 0.42), Entry("by mean confidence", bars, "marker"),
                     Entry("as right as sure", line)])  # fmt: skip
    top = 24 + legend.height
    figure = blank(top + CHART + 22 + COUNTS + 38)
    write(figure, 2, 14, "accuracy", role="muted")
    draw_legend(figure, 20, legend)
    axes = panel(figure, LEFT, top, WIDTH - LEFT - RIGHT, CHART)
    scale_y(axes, 0.0, 1.02)
    axes.set_xlim(0.0, 1.0)
    for one in found.bins:
        if one.accuracy is not None and one.confidence is not None:
            box = Rectangle((one.low, 0), one.high - one.low, one.accuracy, facecolor=bars.colour, alpha=0.42, **_BAR)
            axes.add_patch(box)
            gap = stroke([one.confidence] * 2, [one.accuracy, one.confidence], bars, 1.2)
            axes.add_line(gap)
    points = [(one.confidence, one.accuracy) for one in found.bins if one.confidence is not None]
    xs, ys = zip(*points, strict=True)
    axes.add_line(Line2D(xs, ys, linestyle="none", marker="o", markersize=4.5, color=bars.colour, markeredgewidth=0,
                         clip_on=False, zorder=3))  # fmt: skip
    axes.add_line(stroke([0.0, 1.0], [0.0, 1.0], line, 1.2))
    _counts(figure, found, top + CHART + 22)
    return figure


def _counts(figure: Figure, found: Calibration, top: float) -> None:
    axes = panel(figure, LEFT, top, WIDTH - LEFT - RIGHT, COUNTS)
    most = max(one.count for one in found.bins)
    axes.set_ylim(0, most)
    axes.yaxis.set_major_locator(FixedLocator([0, most]))
    axes.set_yticks([0, most], ["0", _few(most)], **plain(TICK, "muted"))
    scale_x(axes, 0.0, 1.0)
    for one in found.bins:
        box = Rectangle((one.low, 0), one.high - one.low, one.count, facecolor=light("other"), **_BAR)
        axes.add_patch(box)
    write(figure, LEFT, top - 4, "examples", role="muted", size=TICK)
    write(figure, WIDTH - RIGHT, top + COUNTS + 32, "confidence", role="muted", ha="right")


def _few(count: int) -> str:
    """A number of examples that fits beside an axis."""
    for size, unit in ((10**6, " M"), (10**4, " k")):
        if count >= size:
            return f"{count / (size if unit == ' M' else 1000):.3g}{unit}"
    return f"{count:,}"


def learnability(top_labels: Sequence[TopLabels]) -> Figure:
    """Δ, γ and their sum by k; below the line at 1 the paper's condition holds."""
    parts = (
        ("Δ, unreliability", Look("series-1", "o"), [one.unreliability for one in top_labels]),
        ("γ, ambiguity", Look("series-2", "s", (0, (5, 1.6))), [one.ambiguity for one in top_labels]),
        ("Δ + γ", Look("ink", "D"), [one.total for one in top_labels]),
    )
    figure, axes = chart("probability", [Entry(name, look) for name, look, _ in parts], "k")
    highest = max([1.0, *(value for _, _, values in parts for value in values)])
    scale_y(axes, -0.02 * highest, 1.06 * highest)
    ks = [float(one.k) for one in top_labels]
    _whole(axes, [one.k for one in top_labels])
    axes.axhline(1.0, color=light("baseline"), linewidth=1.2, linestyle=BASELINE.dash, zorder=1)
    for _, look, values in parts:
        _line(axes, ks, values, look)
    return figure


def by_rank(softened: Sequence[Softened]) -> Figure:
    """The mean of the highest probability, of the second highest, …, at each temperature, on a logarithmic scale."""
    looks = (Look("series-1", "o"), Look("series-2", "s", (0, (5, 1.6))))
    named = [(f"τ = {short(one.temperature)}", look, one) for look, one in zip(looks, softened, strict=False)]
    figure, axes = chart("mean probability", [Entry(name, look) for name, look, _ in named], "rank")
    values = [max(FLOOR, value) for one in softened for value in one.by_rank]
    _log_scale_y(axes, min(values), 1.0)
    ranks = range(1, len(softened[0].by_rank) + 1)
    _whole(axes, list(ranks))
    for _, look, one in named:
        _line(axes, [float(rank) for rank in ranks], [max(FLOOR, value) for value in one.by_rank], look)
    return figure


def classes_by(values: Sequence[tuple[str, float]], mean: float | None = None) -> Figure:
    """A bar for each class or pair of classes, in the order given; a dashed line at ``mean``."""
    pitch, side = 31.0, 14.0
    body = pitch * len(values)
    figure = blank(body + 14)
    axes = panel(figure, side, 4, WIDTH - 2 * side, body)
    axes.set_xlim(0, max([value for _, value in values if value > 0], default=1.0))
    axes.set_ylim(body, 0)
    for i, (name, value) in enumerate(values):
        right = short(float(f"{value:.3g}"))
        write(figure, WIDTH - side, 17 + i * pitch, right, ha="right")
        write(figure, side, 17 + i * pitch, fitted(name, WIDTH - 2 * side - width_of(right, LABEL) - 12, LABEL))
        axes.add_patch(Rectangle((0, i * pitch + 18), axes.get_xlim()[1], 7, facecolor=light("grid"), **_BAR))
        axes.add_patch(Rectangle((0, i * pitch + 18), value, 7, facecolor=light("series-1"), **_BAR))
        if mean is not None:
            ends = [i * pitch + 15, i * pitch + 28]
            axes.add_line(Line2D([mean] * 2, ends, color=light("ink"), linewidth=1.4, linestyle="-", zorder=2))
    return figure


def _line(axes: Axes, xs: Sequence[float], ys: Sequence[float], look: Look) -> None:
    axes.add_line(stroke(xs, ys, look))
    axes.add_line(Line2D(xs, ys, linestyle="none", marker=look.marker, markersize=5, color=look.colour,
                         markeredgewidth=0, clip_on=False, zorder=3))  # fmt: skip


def _whole(axes: Axes, numbers: Sequence[int]) -> None:
    """A horizontal axis of few whole numbers."""
    scale_x(axes, *padded(min(numbers), max(numbers), 0.05))
    axes.xaxis.set_major_locator(FixedLocator(list(numbers)))
    axes.set_xticks(list(numbers), [str(one) for one in numbers], **plain(TICK, "muted"))


def _log_scale_y(axes: Axes, low: float, high: float) -> None:
    """A logarithmic vertical axis up to ``high`` ≤ 1 with thin grid lines and their numbers."""
    axes.set_yscale("log")
    axes.set_ylim(low * 0.8, high * 1.25)
    decades = range(math.floor(math.log10(low)), 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        ticks = [step * 10.0**ten for ten in decades for step in steps if low * 0.8 <= step * 10.0**ten <= high * 1.001]
        if len(ticks) <= MOST_TICKS:
            break
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.set_yticks(ticks, [short(tick) for tick in ticks], **plain(TICK, "muted"))
    axes.yaxis.set_minor_locator(NullLocator())
    for tick in ticks:
        axes.axhline(tick, color=light("grid"), linewidth=0.8, linestyle="-", zorder=0)
