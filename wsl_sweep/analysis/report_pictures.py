"""A report's pictures, each with its heading, a note and its numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from wsl_sweep.analysis import plots
from wsl_sweep.analysis import report_picture_tables as behind
from wsl_sweep.analysis import report_tables as tables
from wsl_sweep.analysis.plots.coordinates import FAINT
from wsl_sweep.analysis.plots.responses import POINTS
from wsl_sweep.analysis.plots.style import Look, Looks, clean, measured, named
from wsl_sweep.analysis.report_data import Report, ResponseCurve

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FANS: Final = 8
"""At most so many groups have a picture of their weights."""


@dataclass(frozen=True)
class Picture:
    """A picture as SVG, its heading, what has to be known of it, and its numbers."""

    title: str
    svg: str
    table: tables.Table
    note: str = ""

    @property
    def file_name(self) -> str:
        """For saving, without an ending: letters, digits and hyphens of the title."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower().replace("α", "alpha").replace("τ", "tau")).strip("-")[:60]


def looks_of_report(report: Report) -> dict[str, Look]:
    """One look for each arm or variant, the same in all pictures. Rows, which may be many, come last."""
    labels = [group.label for curve in report.curves for group in curve.groups]
    labels += [line.group for line in report.coordinates.lines] if report.coordinates else []
    curves = [*report.learning_curves, *([report.regularization_samples] if report.regularization_samples else [])]
    labels += [group.label for curve in curves for group in curve.groups]
    labels += [row.label for row in report.rows]
    return plots.looks_of(labels, next((row.label for row in report.rows if row.is_baseline), None))


def row_pictures(report: Report, looks: Looks) -> list[Picture]:
    """The rows of each metric, and their differences to the baseline."""
    made = []
    for metric in dict.fromkeys(row.metric for row in report.rows):
        rows = [row for row in report.rows if row.metric == metric]
        if any(row.mean is not None for row in rows):
            few = all(looks[row.label].role != "other" for row in rows)
            figure = plots.forest(rows, looks if few else None, report.level)
            made.append(picture(f"{metric} of each row", figure, tables.rows_table(rows, report.level)))
    if any(one.difference is not None for one in report.comparisons):
        figure = plots.differences(report.comparisons, report.metric, report.margin)
        table = tables.comparisons_table(report.comparisons, report.metric, report.level)
        note = f"Bars: {100 * report.level:g} % intervals."
        note += f" The margin is {measured(report.metric, report.margin)}." if report.margin else ""
        made.append(picture("Differences to the baseline", figure, table, note))
    return made


def curve_pictures(report: Report, looks: Looks) -> list[Picture]:
    """The response curve of each swept parameter."""
    return [_curve_picture(curve, looks) for curve in report.curves]


def _curve_picture(curve: ResponseCurve, looks: Looks) -> Picture:
    count = sum(len(group.points) for group in curve.groups)
    note = f"{curve.note} {_drawn(POINTS, count)}".strip()
    title = f"{curve.metric} by {named(curve.parameter)}"
    return picture(title, plots.response(curve, looks), behind.response_table(curve), note)


def search_pictures(report: Report, looks: Looks) -> list[Picture]:
    """Parallel coordinates."""
    coordinates = report.coordinates
    if coordinates is None or not coordinates.lines:
        return []
    best = len(plots.best_tenth(coordinates))
    absent = any(value is None for line in coordinates.lines for value in line.values)
    note = "–: a trial that has no such parameter. " if absent else ""
    note = (note + _drawn(FAINT + best, len(coordinates.lines))).strip()
    figure = plots.parallel_coordinates(coordinates, looks)
    return [picture("Parallel coordinates", figure, behind.coordinates_table(coordinates), note)]


def importance_pictures(report: Report) -> list[Picture]:
    """Bars for each arm."""
    importance = report.importance
    if importance is None:
        return []
    return [
        picture(
            f"Importance for {group.label}" if group.label else "Importance",
            plots.importance(group),
            behind.importance_table(importance),
            f"From {group.trials} trials. {importance.note}".strip(),
        )
        for group in importance.groups
    ]


def learning_pictures(report: Report, looks: Looks) -> list[Picture]:
    """The learning curves."""
    return [
        picture(
            f"{curve.metric} by epoch", plots.learning_curve(curve, looks), behind.learning_table(curve), curve.note
        )
        for curve in report.learning_curves
        if curve.groups
    ]


def regularization_pictures(report: Report, looks: Looks) -> list[Picture]:
    """Regularization samples by epoch."""
    curve = report.regularization_samples
    if curve is None or not curve.groups:
        return []
    return [
        picture("Regularization samples", plots.learning_curve(curve, looks), behind.learning_table(curve), curve.note)
    ]


def weight_pictures(report: Report) -> list[Picture]:
    """The distribution of weights, group by group."""
    groups = report.weights.groups if report.weights else ()
    return [
        picture(f"Weights of {group.label}", plots.weight_fan(group), behind.fan_table(group))
        for group in groups[:FANS]
    ]


def stopping_pictures(report: Report) -> list[Picture]:
    """The rank correlation of early with final metrics."""
    stopping = report.early_stopping
    if stopping is None or not stopping.correlations:
        return []
    return [
        picture("Early against final metrics", plots.rank_correlation(stopping), behind.correlation_table(stopping))
    ]


def picture(title: str, figure: Figure, table: tables.Table, note: str = "") -> Picture:
    """A figure as it stands in a page."""
    return Picture(clean(title), plots.to_svg(figure, title), table, note)


def _drawn(most: int, count: int) -> str:
    return f"{most} of {count:,} trials are drawn." if count > most else ""
