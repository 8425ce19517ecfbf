"""``wsl-sweep compare``: the table of one or several sweeps, with a baseline and verdicts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wsl_sweep.analysis.grouping import ABSENT, Row, named, rows_of
from wsl_sweep.analysis.notes import about_margin, about_pairs, about_rows, about_sweeps, about_variance
from wsl_sweep.analysis.records import Outcomes, SweepRecords
from wsl_sweep.analysis.statistics import Interval, seeds_and_examples_interval
from wsl_sweep.analysis.verdicts import Comparison, Question, judge, paired_seeds, unit
from wsl_sweep.errors import WslSweepError
from wsl_sweep.spec.catalogue import did_you_mean
from wsl_sweep.spec.sections import METRICS, TEST_METRICS, mode_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WIDE_METRIC = "test/accuracy"
"""The metric of which outcomes by test example are kept."""


@dataclass(frozen=True)
class Compared:
    """A table with its verdicts.

    Attributes:
        sweeps: names.
        metric: whose values.
        mode: ``max`` or ``min``: which is better.
        margin: the smallest difference that matters.
        baseline: the name that was asked for, or None.
        rows: of the table, in its order.
        wide_intervals: of each row the interval of its mean over seeds and test examples, or None.
        comparisons: rows with the baseline.
        notes: what to know of it, for people.
    """

    sweeps: tuple[str, ...]
    metric: str
    mode: str
    margin: float
    baseline: str | None
    rows: tuple[Row, ...]
    wide_intervals: tuple[Interval | None, ...]
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...]

    def is_baseline(self, row: Row) -> bool:
        """Whether others are compared with a row."""
        return any(one.baseline == row.label for one in self.comparisons) or row.label == self.baseline

    def to_json(self) -> dict[str, Any]:
        """As plain data; README.md says what is in it."""
        wide = zip(self.rows, self.wide_intervals, strict=True)
        return {
            "sweeps": list(self.sweeps),
            "metric": self.metric,
            "mode": self.mode,
            "margin": self.margin,
            "baseline": self.baseline,
            "rows": [_row_json(row, interval, self.is_baseline(row)) for row, interval in wide],
            "comparisons": [_comparison_json(one) for one in self.comparisons],
            "notes": list(self.notes),
        }


def compare(
    sweeps: Sequence[SweepRecords],
    *,
    metric: str | None = None,
    baseline: str | None = None,
    by: Sequence[str] = (),
    where: Sequence[str] = (),
    margin: float | None = None,
) -> Compared:
    """Compares the rows of one or several sweeps.

    Args:
        sweeps: whose trials; at least one.
        metric: whose values; by default what the (first) sweep's file declares, as for ``baseline`` and ``margin``.
        baseline: name of a variant, or a row's whole label.
        by: what makes the rows; see ``rows_of``.
        where: conditions ``path=value``.
        margin: the smallest difference that matters, in the metric's unit.

    Raises:
        WslSweepError: a path, a metric or the baseline is not there, or nothing is left to compare.
    """
    declared = sweeps[0].compare
    metric = metric or declared.metric
    check_metric(metric, sweeps)
    mode = mode_of(metric, declared)
    others_margin = margin is None and unit(metric) != unit(declared.metric)
    if margin is None:
        margin = declared.margin
    elif not 0 < margin < math.inf:
        raise WslSweepError(f"--margin {margin:g}: the smallest difference that matters is above 0")
    rows = rows_of(sweeps, metric, by=by, where=where)
    name = baseline if baseline is not None else _declared_baseline(declared.baseline, rows)
    family = declared.family if baseline is None and not by else None
    pairs = _pairs(rows, name, family, sweeps) if name is not None else []
    outcomes = _Outcomes(sweeps) if metric == WIDE_METRIC else None
    wide = [outcomes.of_difference(row, other) for row, other in pairs] if outcomes else None
    return Compared(
        sweeps=tuple(sweep.name for sweep in sweeps),
        metric=metric,
        mode=mode,
        margin=margin,
        baseline=name,
        rows=tuple(rows),
        wide_intervals=tuple(outcomes.of_row(row) if outcomes else None for row in rows),
        comparisons=tuple(judge(pairs, Question(metric, mode == "max", margin), wide)),
        notes=(
            *about_sweeps(sweeps, rows),
            *about_pairs(rows, pairs, name, declared.baseline),
            *about_rows(rows),
            *([about_margin(declared, metric)] if others_margin else []),
            *about_variance(sweeps, rows),
        ),
    )


def check_metric(metric: str, sweeps: Sequence[SweepRecords]) -> None:
    """Raises WslSweepError: no trial of the sweeps, nor any other, has such a metric."""
    known = {*METRICS, *TEST_METRICS, *(name for sweep in sweeps for one in sweep.records for name in one.metrics)}
    if metric not in known:
        raise WslSweepError(f'no metric is called "{metric}"; {did_you_mean(metric, sorted(known))}')


def _declared_baseline(name: str | None, rows: Sequence[Row]) -> str | None:
    """The file's baseline, where the rows have it."""
    return name if any(name in (row.variant, row.label) for row in rows) else None


def _pairs(
    rows: Sequence[Row],
    name: str,
    family: Sequence[str] | None,
    sweeps: Sequence[SweepRecords],
) -> list[tuple[Row, Row]]:
    """Each row with the baseline of its own sweep, where that has one, at the same point of a grid.

    One that is at no point of it is compared with all of them.
    """
    own = [row for row in rows if name and row.variant == name]
    own = own or [row for row in rows if row.label == name] or [row for row in rows if named(row, name)]
    if not own:
        known = list(dict.fromkeys([*(row.variant for row in rows if row.variant), *(row.label for row in rows)]))
        raise WslSweepError(f'no row is called "{name}"; {did_you_mean(name, known)}')
    grids = {sweep.name: set(sweep.space) for sweep in sweeps}
    others = [row for row in rows if row not in own]
    if family is not None:
        others = [row for row in others if row.variant in family]
    pairs = []
    for row in others:
        near = [other for other in own if set(row.sweeps) & set(other.sweeps)] or own
        pairs += [(row, other) for other in near if len(near) == 1 or _meet(row, other, grids)]
    return pairs


def _meet(row: Row, other: Row, grids: Mapping[str, set[str]]) -> bool:
    """Whether two rows stand at one point of the grid, as far as both are on it. What was searched for is no grid."""
    if row.tuned is not None or other.tuned is not None:
        return True
    paths = [set[str]().union(*(grids[sweep] for sweep in one.sweeps)) & one.settings.keys() for one in (row, other)]
    values = [(row.settings[path], other.settings[path]) for path in paths[0] & paths[1]]
    return all(one == two or ABSENT in (one, two) for one, two in values)


class _Outcomes:
    """Which test examples the trials behind rows got right."""

    def __init__(self, sweeps: Sequence[SweepRecords]) -> None:
        self._sources: dict[str, list[SweepRecords]] = {}
        for sweep in sweeps:
            for record in sweep.records:
                self._sources.setdefault(record.trial_id, []).append(sweep)

    def of_row(self, row: Row) -> Interval | None:
        """The interval of a row's mean over seeds and examples."""
        found = self._matrix(row, row.seeds)
        return None if found is None else seeds_and_examples_interval(found[0])

    def of_difference(self, row: Row, other: Row) -> Interval | None:
        """That of a paired difference; None where the two were not tested on the same examples, or not paired."""
        common = paired_seeds(row, other)
        one, two = self._matrix(row, common), self._matrix(other, common)
        if one is None or two is None or one[1] != two[1]:
            return None
        return seeds_and_examples_interval(one[0] - two[0])

    def _matrix(self, row: Row, seeds: Sequence[int]) -> tuple[NDArray[np.float64], str] | None:
        """(S, N) of a row's outcomes, and of which examples they are."""
        import numpy as np

        if len(seeds) < 2:
            return None
        lines, examples = [], set()
        for seed in seeds:
            found = [self._of_trial(one) for one in row.trial_ids[seed]]
            there: list[Outcomes] = [one for one in found if one is not None]
            if len(there) < len(found):
                return None
            examples |= {one.examples for one in there}
            if len(examples) > 1:
                return None
            lines.append(np.mean([one.right for one in there], axis=0, dtype=np.float64))
        return np.stack(lines), examples.pop()

    def _of_trial(self, trial_id: str) -> Outcomes | None:
        """From the first sweep that kept them; one that took a trial over has none of its own."""
        kept = (sweep.outcomes(trial_id) for sweep in self._sources[trial_id])
        return next((one for one in kept if one is not None), None)


def _row_json(row: Row, wide: Interval | None, is_baseline: bool) -> dict[str, Any]:
    described = row.description
    return {
        "label": row.label,
        "variant": row.variant,
        "settings": dict(row.settings),
        "sweeps": list(row.sweeps),
        "mean": described.mean if described else None,
        "sd": described.sd if described else None,
        "ci95": _list(described.interval if described else None),
        "ci95_seeds_and_examples": _list(wide),
        "n": len(row.values),
        "seeds": list(row.seeds),
        "values": list(row.values),
        "missing": dict(row.missing),
        "tuned": row.tuned,
        "tuning_trials": row.tuning_trials,
        "averaged_over": row.averaged,
        "baseline": is_baseline,
    }


def _comparison_json(one: Comparison) -> dict[str, Any]:
    difference, improvement = one.difference, one.improvement
    return {
        "row": one.row,
        "baseline": one.baseline,
        "method": difference.method if difference else None,
        "n": difference.n if difference else None,
        "common_seeds": one.common,
        "seeds_without_partner": one.alone,
        "difference": difference.difference if difference else None,
        "sd": difference.sd if difference else None,
        "ci95": _list(difference.interval if difference else None),
        "ci95_seeds_and_examples": _list(one.wide_interval),
        "df": difference.df if difference else None,
        "p": difference.p if difference else None,
        "p_holm": one.p_holm,
        "p_equivalence": one.equivalence_p,
        "probability_of_improvement": improvement.probability if improvement else None,
        "probability_of_improvement_ci95": _list(improvement.interval if improvement else None),
        "verdict": one.verdict,
        "seeds_needed": one.seeds_needed,
        "baseline_smaller_budget": one.smaller_budget,
        "row_smaller_budget": one.row_smaller_budget,
        "headline": one.headline,
        "sentence": one.sentence,
    }


def _list(interval: Interval | None) -> list[float] | None:
    return None if interval is None else list(interval)
