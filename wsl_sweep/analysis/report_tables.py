"""The numbers of a report as tables of text, and how they are written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wsl_sweep.analysis.plots.style import measured, named, shown
from wsl_sweep.analysis.report_data import Comparison, Failure, Interval, Kind, Row


@dataclass(frozen=True)
class Cell:
    """What a cell says: ``text``, smaller text below it, what it is sorted by, a badge, a mark for the baseline."""

    text: str
    below: str = ""
    sort: float | str | None = None
    badge: Kind | None = None
    mark: str = ""

    @property
    def key(self) -> str:
        """``sort`` for the page; nothing where the text says the same."""
        key = f"{self.sort:.6g}" if isinstance(self.sort, int | float) else self.sort or ""
        return "" if key == self.text and not (self.below or self.badge or self.mark) else key


@dataclass(frozen=True)
class Table:
    """Columns (name, whether it holds numbers) and rows of as many cells; the first cell of a row is its heading."""

    columns: tuple[tuple[str, bool], ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""


def settings_text(row: Row) -> str:
    """``α = 2.31, weighting.kind = exp``."""
    return ", ".join(f"{named(path)} = {shown(value)}" for path, value in row.settings)


def span(metric: str, interval: Interval | None, sign: bool = False) -> str:
    """``0.9312 to 0.9412``; nothing without an interval."""
    return "" if interval is None else " to ".join(measured(metric, end, sign) for end in interval)


def chance(p: float | None) -> str:
    """A p-value or a probability: three decimals, and never 0."""
    return "" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def number(metric: str, value: float | None, sign: bool = False, below: str = "") -> Cell:
    """A metric's value in a cell."""
    return Cell(measured(metric, value, sign), below, value)


def rows_table(rows: Sequence[Row], level: float) -> Table:
    """The comparison table: settings stand below names, intervals below means."""
    wide, gone = any(row.wide_interval for row in rows), any(row.missing for row in rows)
    tuned = any(row.tuning_trials is not None for row in rows)
    metrics = dict.fromkeys(row.metric for row in rows)
    name = next(iter(metrics)) if len(metrics) == 1 else "mean"
    name += f", {100 * level:g} % interval" if any(row.interval for row in rows) else ""
    columns = [("arm or variant", False), (name, True)]
    columns += [("over seeds and examples", True)] if wide else []
    columns += [("standard deviation", True), ("seeds", True)]
    columns += [("did not finish", False)] if gone else []
    columns += [("tuned with", True)] if tuned else []
    made = []
    for row in rows:
        below = " · ".join(text for text in (row.metric if len(metrics) > 1 else "", settings_text(row)) if text)
        cells = [Cell(row.label, below, row.label, mark="baseline" if row.is_baseline else "")]
        cells += [number(row.metric, row.mean, below=span(row.metric, row.interval))]
        cells += [Cell(span(row.metric, row.wide_interval) or "–", sort=_low(row.wide_interval))] if wide else []
        cells += [number(row.metric, row.sd), Cell(str(row.n), sort=row.n)]
        cells += [Cell(row.missing, sort=row.missing)] if gone else []
        trials = "not tuned" if row.tuning_trials is None else f"{row.tuning_trials} trials"
        cells += [Cell(trials, sort=row.tuning_trials or 0)] if tuned else []
        made.append(tuple(cells))
    return Table(tuple(columns), tuple(made))


def seeds_table(rows: Sequence[Row]) -> Table:
    """Each row's value by seed."""
    seeds = sorted({seed for row in rows for seed, _ in row.values})
    made = []
    for row in rows:
        values = dict(row.values)
        made.append((Cell(row.label, sort=row.label), *(number(row.metric, values.get(seed)) for seed in seeds)))
    return Table((("arm or variant", False), *((f"seed {seed}", True) for seed in seeds)), tuple(made))


def also_table(rows: Sequence[Row]) -> Table:
    """Each row's means of what else was measured on the test part; of no columns beside its name where nothing was."""
    metrics = list(dict.fromkeys(metric for row in rows for metric, _ in row.also))
    made = []
    for row in rows:
        means = dict(row.also)
        made.append((Cell(row.label, sort=row.label), *(number(metric, means.get(metric)) for metric in metrics)))
    return Table((("arm or variant", False), *((metric, True) for metric in metrics)), tuple(made))


def comparisons_table(comparisons: Sequence[Comparison], metric: str, level: float) -> Table:
    """Every comparison with all its numbers."""
    names = (
        f"difference, {100 * level:g} % interval",
        "p",
        "p (Holm)",
        "probability of improvement",
        "p (equivalence)",
    )
    against = dict.fromkeys(one.baseline for one in comparisons)
    alone = len(against) == 1
    heading = f"against {next(iter(against))}" if alone else "comparison"
    columns = ((heading, False), *((name, True) for name in (*names, "n")))
    return Table(columns, tuple(_compared(one, metric, alone) for one in comparisons))


def _compared(one: Comparison, metric: str, alone: bool) -> tuple[Cell, ...]:
    budget = "the baseline was tuned with fewer trials" if one.smaller_budget else ""
    note = "; ".join(text for text in (budget, one.note) if text)
    probable = " to ".join(chance(end) for end in one.probability_interval) if one.probability_interval else ""
    return (
        Cell(one.label if alone else f"{one.label} − {one.baseline}", note, one.label, badge=one.kind),
        number(metric, one.difference, sign=True, below=span(metric, one.interval, sign=True)),
        *(Cell(chance(p) or "–", sort=p) for p in (one.p, one.p_holm)),
        Cell(chance(one.probability) or "–", probable, one.probability),
        Cell(chance(one.p_equivalence) or "–", sort=one.p_equivalence),
        Cell(str(one.n), one.method, one.n),
    )


def failures_table(failures: Sequence[Failure]) -> Table:
    """What has no result, and why."""
    made = tuple(
        (
            Cell(one.what or one.trial_id, one.trial_id if one.what else "", one.what),
            Cell(one.status, sort=one.status),
            Cell(one.error or "–"),
        )
        for one in failures
    )
    return Table((("trial", False), ("status", False), ("reason", False)), made)


def _low(interval: Interval | None) -> float | None:
    return None if interval is None else interval[0]
