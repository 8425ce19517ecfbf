"""The numbers behind each picture, as tables of text."""

from __future__ import annotations

from typing import Final

from wsl_sweep.analysis.plots.sheet import thinned
from wsl_sweep.analysis.plots.style import measured, named, short, shown
from wsl_sweep.analysis.report_data import (
    Coordinates,
    EarlyStopping,
    FanGroup,
    Importance,
    Interval,
    LearningCurve,
    ResponseCurve,
    ResponseGroup,
    Value,
)
from wsl_sweep.analysis.report_tables import Cell, Table, number, span

MOST_ROWS: Final = 200
MOST_EPOCHS: Final = 40
MOST_CELLS: Final = 400
"""A table that would be longer says what it leaves out."""

FITTED: Final = 9
"""Places at which a fitted curve is written down."""


def response_table(curve: ResponseCurve) -> Table:
    """The means of single values, the fitted curve at a few places, and the trials by the parameter's value."""
    columns = ((named(curve.parameter), True), (curve.metric, True), ("what", False), ("arm or variant", False))
    made: list[tuple[Cell, ...]] = []

    def add(group: ResponseGroup, x: Value, y: float, what: str, interval: Interval | None = None) -> None:
        below = span(curve.metric, interval)
        made.append((_value(x), number(curve.metric, y, below=below), Cell(what), Cell(group.label)))

    for group in curve.groups:
        for mean in group.means:
            add(group, mean.x, mean.mean, f"mean of {mean.n}", mean.interval)
        if group.band:
            band = group.band
            for i in thinned(len(band.xs), FITTED):
                add(group, band.xs[i], band.mean[i], "fitted", (band.low[i], band.high[i]))
    points = [(group, point) for group in curve.groups for point in group.points]
    places = {category: float(i) for i, category in enumerate(curve.categories)}
    points.sort(key=lambda one: places.get(one[1].x, len(places)) if places else float(one[1].x))
    some = thinned(len(points), max(0, MOST_ROWS - len(made)))
    for i in some:
        add(points[i][0], points[i][1].x, points[i][1].y, points[i][1].stage)
    note = f"{len(some)} of {len(points):,} trials." if len(some) < len(points) else ""
    return Table(columns, tuple(made), note)


def coordinates_table(coordinates: Coordinates) -> Table:
    """The trials, the best first."""
    ordered = sorted(coordinates.lines, key=lambda line: line.metric, reverse=coordinates.higher_is_better)
    columns = (
        (coordinates.metric, True),
        *((named(axis.name), not axis.categories) for axis in coordinates.axes),
        ("group", False),
    )
    made = tuple(
        (number(coordinates.metric, line.metric), *(_value(value) for value in line.values), Cell(line.group))
        for line in ordered[:MOST_ROWS]
    )
    return Table(columns, made, f"The best {MOST_ROWS} of {len(ordered):,}." if len(ordered) > MOST_ROWS else "")


def importance_table(importance: Importance) -> Table:
    """Every group's importances."""
    paths = dict.fromkeys(path for group in importance.groups for path, _ in group.importances)
    made = []
    for path in paths:
        values = [dict(group.importances).get(path) for group in importance.groups]
        made.append((Cell(named(path)), *(Cell("–" if v is None else f"{v:.3f}", sort=v) for v in values)))
    return Table(
        (
            ("", False),
            *((f"{group.label or 'importance'} ({group.trials} trials)", True) for group in importance.groups),
        ),
        tuple(made),
    )


def learning_table(curve: LearningCurve) -> Table:
    """A column for each group; of long trainings some epochs, evenly."""
    epochs = sorted({epoch for group in curve.groups for epoch in group.epochs})
    shown_epochs = [epochs[i] for i in thinned(len(epochs), min(MOST_EPOCHS, max(10, MOST_CELLS // len(curve.groups))))]
    indices = [{epoch: i for i, epoch in enumerate(group.epochs)} for group in curve.groups]
    made = []
    for epoch in shown_epochs:
        cells = [Cell(str(epoch), sort=epoch)]
        for group, index in zip(curve.groups, indices, strict=True):
            i = index.get(epoch)
            band = (
                (group.low[i], group.high[i])
                if i is not None and group.low is not None and group.high is not None
                else None
            )
            cells.append(
                Cell("–")
                if i is None
                else Cell(measured(curve.metric, group.mean[i]), span(curve.metric, band), group.mean[i])
            )
        made.append(tuple(cells))
    columns = (("epoch", True), *((f"{group.label} (n = {group.n})", True) for group in curve.groups))
    return Table(columns, tuple(made), _left_out(len(shown_epochs), len(epochs)))


def fan_table(group: FanGroup) -> Table:
    """Mean and quantiles by epoch."""
    some = thinned(len(group.epochs), MOST_EPOCHS)
    series = (group.mean, group.q05, group.q25, group.q50, group.q75, group.q95)
    made = tuple(
        (
            Cell(str(group.epochs[i]), sort=group.epochs[i]),
            *(Cell(f"{values[i]:.3f}", sort=values[i]) for values in series),
        )
        for i in some
    )
    columns = tuple((name, True) for name in ("epoch", "mean", "5 %", "25 %", "median", "75 %", "95 %"))
    return Table(columns, made, _left_out(len(some), len(group.epochs)))


def correlation_table(stopping: EarlyStopping) -> Table:
    """The rank correlation by epoch."""
    made = tuple(
        (
            Cell(str(one.epoch), sort=one.epoch),
            Cell(short(round(one.rho, 3)), sort=one.rho),
            Cell(str(one.n), sort=one.n),
        )
        for one in stopping.correlations
    )
    return Table((("epoch", True), ("rank correlation", True), ("trials", True)), made)


def _value(value: float | int | str | bool | None) -> Cell:
    return Cell(shown(value), sort=value if value is None or isinstance(value, str) else float(value))


def _left_out(shown_count: int, count: int) -> str:
    return f"{shown_count} of {count} epochs." if shown_count < count else ""
