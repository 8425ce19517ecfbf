"""What a teacher's soft labels look like: how right they are by how sure, by rank, by k and by class."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path
from matplotlib.ticker import FixedLocator, NullLocator

from wsl_sweep.analysis.diagnostics.arrays import Floats
from wsl_sweep.analysis.diagnostics.calibration import Calibration
from wsl_sweep.analysis.diagnostics.soft_labels import Softened, TopLabels
from wsl_sweep.analysis.plots.sheet import (
    LABEL,
    LEFT,
    RIGHT,
    TICK,
    WIDTH,
    Entry,
    Legend,
    blank,
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

HEIGHT: Final = 190.0
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
    figure = blank(top + HEIGHT + 22 + COUNTS + 38)
    write(figure, 2, 14, "accuracy", role="muted")
    draw_legend(figure, 20, legend)
    axes = panel(figure, LEFT, top, WIDTH - LEFT - RIGHT, HEIGHT)
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
    _counts(figure, found, top + HEIGHT + 22)
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
    figure, axes = _curves("", [Entry(name, look) for name, look, _ in parts])
    highest = max([1.0, *(value for _, _, values in parts for value in values)])
    scale_y(axes, -0.02 * highest, 1.06 * highest)
    ks = [float(one.k) for one in top_labels]
    _whole(axes, [one.k for one in top_labels])
    axes.axhline(1.0, color=light("baseline"), linewidth=1.2, linestyle=BASELINE.dash, zorder=1)
    for _, look, values in parts:
        _line(axes, ks, values, look)
    _below(figure, "k")
    return figure


def by_rank(softened: Sequence[Softened]) -> Figure:
    """The mean of the highest probability, of the second highest, …, at each temperature, on a logarithmic scale."""
    looks = (Look("series-1", "o"), Look("series-2", "s", (0, (5, 1.6))))
    named = [(f"τ = {short(one.temperature)}", look, one) for look, one in zip(looks, softened, strict=False)]
    figure, axes = _curves("mean probability", [Entry(name, look) for name, look, _ in named])
    values = [max(FLOOR, value) for one in softened for value in one.by_rank]
    _log_scale_y(axes, min(values), 1.0)
    ranks = range(1, len(softened[0].by_rank) + 1)
    _whole(axes, list(ranks))
    for _, look, one in named:
        _line(axes, [float(rank) for rank in ranks], [max(FLOOR, value) for value in one.by_rank], look)
    _below(figure, "rank")
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


def soft_label_map(means: Floats, names: Sequence[str]) -> Figure:
    """Mean soft labels of C ≤ 40 classes: a row for each true class, the stronger the higher; the diagonal is grey.

    Args:
        means: (C, C), in row y the mean soft label of class y; a row of NaN is left empty.
        names: C of them.
    """
    classes = len(means)
    left = min(110.0, 14 + max(width_of(fitted(name, 90, TICK), TICK) for name in names))
    side = WIDTH - left - RIGHT
    cell = side / classes
    figure = blank(24 + side + 34)
    write(figure, 2, 14, "true class", role="muted")
    axes = panel(figure, left, 24, side, side)
    axes.set_xlim(0, classes)
    axes.set_ylim(classes, 0)
    axes.add_patch(Rectangle((0, 0), classes, classes, facecolor=light("shade"), zorder=0, **_BAR))
    highest = highest_beside(means) or 1.0
    beside = {
        (row, column): round(min(1.0, float(means[row, column]) / highest), 2)
        for row in range(classes) for column in range(classes) if row != column and not math.isnan(means[row, column])
    }  # fmt: skip
    _cells(axes, {place: alpha for place, alpha in beside.items() if alpha > 0}, "series-1")
    _cells(axes, {(i, i): 1.0 for i in range(classes)}, "other")
    every = max(1, math.ceil(13 / cell))
    shown = [i for i in range(classes) if i % every == 0]
    axes.yaxis.set_major_locator(FixedLocator([i + 0.5 for i in shown]))
    axes.set_yticks([i + 0.5 for i in shown], [fitted(names[i], 90, TICK) for i in shown], **plain(TICK, "muted"))
    if all(width_of(names[i], TICK) < every * cell for i in shown):
        axes.xaxis.set_major_locator(FixedLocator([i + 0.5 for i in shown]))
        axes.set_xticks([i + 0.5 for i in shown], [names[i] for i in shown], **plain(TICK, "muted"))
    write(figure, WIDTH - RIGHT, 24 + side + 30, "mean soft label, in the same order", role="muted", ha="right")
    return figure


def highest_beside(means: Floats) -> float:
    """The largest entry off the diagonal; 0 where there is none."""
    values = [float(means[i, k]) for i in range(len(means)) for k in range(len(means)) if i != k]
    return max([value for value in values if not math.isnan(value)], default=0.0)


def _cells(axes: Axes, alphas: Mapping[tuple[int, int], float], role: str) -> None:
    """Squares of a map by (row, column), each as strong as its alpha says; those of one strength are one path."""
    for alpha in dict.fromkeys(alphas.values()):
        corners = [
            corner
            for (y, x), strength in alphas.items()
            if strength == alpha
            for corner in ((x, y), (x + 1, y), (x + 1, y + 1), (x, y + 1), (x, y))
        ]
        codes = [Path.MOVETO, *[Path.LINETO] * 3, Path.CLOSEPOLY] * (len(corners) // 5)
        axes.add_patch(PathPatch(Path(corners, codes), facecolor=light(role), alpha=alpha, zorder=1, **_BAR))


def _curves(name: str, entries: Sequence[Entry]) -> tuple[Figure, Axes]:
    legend = Legend(entries)
    top = (24 if name else 8) + legend.height
    figure = blank(top + HEIGHT + 38)
    write(figure, 2, 14, name, role="muted")
    draw_legend(figure, 20 if name else 4, legend)
    return figure, panel(figure, LEFT, top, WIDTH - LEFT - RIGHT, HEIGHT)


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


def _below(figure: Figure, text: str) -> None:
    height = figure.get_figheight() * 72
    write(figure, WIDTH - RIGHT, height - 6, text, role="muted", ha="right")
