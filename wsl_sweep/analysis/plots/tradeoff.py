"""Bias and variance of students, and what distilling does to both."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from wsl_sweep.analysis.diagnostics.bias_variance import BiasVariance, Estimate
from wsl_sweep.analysis.diagnostics.regimes import Parted, PartedTradeoff, Regime
from wsl_sweep.analysis.plots.rows import AXIS, SIDE, Mark, marked
from wsl_sweep.analysis.plots.sheet import LABEL, WIDTH, Entry, Legend, blank, draw_legend, panel, scale_x, write
from wsl_sweep.analysis.plots.style import Look, fitted, light, measured, width_of

BIAS: Final = Look("series-1", "o")
VARIANCE: Final = Look("series-2", "s")

PITCH = 33.0


def parts_of(parted: Parted) -> Iterator[tuple[str, BiasVariance]]:
    """What there is of all examples, of the regularization samples and of the others, with how it is called."""
    yield "", parted.whole
    if parted.regularization is not None:
        yield "regularization samples", parted.regularization
    if parted.others is not None:
        yield "others", parted.others


def bias_variance_bars(regime: Regime) -> Figure:
    """The bias and the variance of each row's students as one bar, whose length is their mean cross-entropy."""
    bars = [
        (f"{one.name}, {part}" if part else one.name, found)
        for one in regime.students
        for part, found in parts_of(one.terms)
    ]
    legend = Legend([Entry("bias", BIAS, "area"), Entry("variance, as it is", VARIANCE, "area")])
    body = len(bars) * PITCH + 4
    figure = blank(legend.height + 4 + body + AXIS)
    draw_legend(figure, 2, legend)
    above = legend.height + 4
    axes = panel(figure, SIDE, above, WIDTH - 2 * SIDE, body)
    axes.set_ylim(body, 0)
    longest = max(found.bias.value + found.variance.value for _, found in bars)
    scale_x(axes, 0.0, 1.05 * longest if longest > 0 else 1.0, grid=True)
    flat: dict[str, Any] = {"edgecolor": "none", "linewidth": 0, "zorder": 2}
    for place, (name, found) in enumerate(bars):
        right = f"{measured('nats', found.bias.value)} + {measured('nats', found.variance.value)}"
        top = place * PITCH
        room = WIDTH - 2 * SIDE - width_of(right, LABEL) - 12
        write(figure, SIDE, above + top + 15, fitted(name, room, LABEL))
        write(figure, WIDTH - SIDE, above + top + 15, right, ha="right")
        bias, variance = max(0.0, found.bias.value), max(0.0, found.variance.value)
        axes.add_patch(Rectangle((0, top + 20), bias, 9, facecolor=light(BIAS.role), **flat))
        axes.add_patch(Rectangle((bias, top + 20), variance, 9, facecolor=light(VARIANCE.role), **flat))
    write(figure, WIDTH - SIDE, above + body + AXIS - 5, "cross-entropy, in nats", role="muted", ha="right")
    return figure


def tradeoffs_of(parted: PartedTradeoff) -> Iterator[tuple[str, Estimate, Estimate]]:
    """How the bias and the variance change, of all examples, of the regularization samples and of the others."""
    named = (("", parted.whole), ("regularization samples", parted.regularization), ("others", parted.others))
    for part, found in named:
        if found is not None:
            yield part, found.middle, found.change


def bias_variance_changes(regime: Regime) -> Figure:
    """What each row's distillation does to bias and variance, against students trained with labels alone."""
    marks = []
    for one in regime.against:
        for part, middle, change in tradeoffs_of(one.tradeoff):
            for what, look, estimate in (("bias", BIAS, middle), ("variance", VARIANCE, change)):
                name = f"{one.name}, {what}" + (f", {part}" if part else "")
                right = measured("nats", estimate.value, sign=True)
                marks.append(Mark(name, right, look, estimate.value, estimate.over_examples, estimate.over_models))
    entries = [
        Entry("change of the bias", BIAS, "marker"),
        Entry("change of the variance", VARIANCE, "marker"),
        Entry("95 % over examples", Look("ink"), "area", 0.75),
        Entry("95 % over models", Look("ink", "none"), "line"),
    ]
    baselines = dict.fromkeys(one.baseline for one in regime.against)
    against = f" minus {next(iter(baselines))}" if len(baselines) == 1 else ""
    return marked(marks, f"nats{against}", entries, reference=0.0)
