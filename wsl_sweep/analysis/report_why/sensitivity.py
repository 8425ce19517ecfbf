"""How far may a parameter be from its best before it matters?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wsl_sweep.analysis import plots
from wsl_sweep.analysis.diagnostics.sensitivity import Sensitivity, sensitivity
from wsl_sweep.analysis.plots.losses import Tolerance
from wsl_sweep.analysis.plots.sheet import thinned
from wsl_sweep.analysis.plots.style import Look, Looks, measured, named, shown
from wsl_sweep.analysis.report_pictures import Picture, picture
from wsl_sweep.analysis.report_sections import Captioned, Section
from wsl_sweep.analysis.report_tables import Cell, Table
from wsl_sweep.analysis.report_why.material import listed, rounded
from wsl_sweep.spec.distributions import Distribution

MOST_PICTURES = 12

SAID = 2
"""Sentences that are the answer themselves; of more they are counted up."""


@dataclass(frozen=True)
class Searched:
    """The trials of one arm that answered: what was swept in each, and its metric.

    Attributes:
        arm: its name.
        points: of each trial its overrides by dotted path.
        metric: of each trial.
        winner: the overrides of the arm's winner, by which categorical parameters are held still.
    """

    arm: str
    points: tuple[Mapping[str, Any], ...]
    metric: tuple[float, ...]
    winner: Mapping[str, Any]


@dataclass(frozen=True)
class _Answered:
    arm: str
    found: tuple[Sensitivity, ...]
    note: str


def sensitivity_section(
    space: Mapping[str, Distribution],
    searched: Sequence[Searched],
    metric: str,
    margin: float,
    looks: Looks,
    *,
    more_is_better: bool = True,
) -> Section | None:
    """What is lost away from the best value of each number that was swept, arm by arm.

    Categorical parameters are held at the winner's values; where that leaves too few trials for a curve, all trials
    are used, and they are noise.

    Args:
        space: swept path → where its values come from.
        searched: the arms.
        metric: what was measured.
        margin: the smallest difference that matters, in its unit.
        looks: of the arms.
        more_is_better: whether more of the metric is.

    Returns:
        None where no arm has a curve.
    """
    answered = [one for arm in searched if (one := _answered(space, arm, margin, more_is_better)) is not None]
    if not answered:
        return None
    lines = [(one.arm, found) for one in answered for found in one.found]
    alone = len(answered) == 1
    notes = [
        "A Gaussian process over the swept numbers of an arm's finished trials (Matérn 5/2, a length for each), looked "
        "at along one parameter with the others at the best trial's. Confirmed: value by value, no more than the "
        f"margin is lost against the curve's own best with a probability of {lines[0][1].level:.0%}.",
        *(one.note for one in answered if one.note),
    ]
    if len(lines) > MOST_PICTURES:
        notes.append(f"{MOST_PICTURES} of {len(lines)} are drawn.")
    return Section(
        key="sensitivity",
        title="How far may a parameter be from its best?",
        answer=_answer(lines, metric, margin, alone),
        tables=(Captioned("", _table(lines, metric)),),
        pictures=tuple(
            _picture(arm, one, metric, looks.get(arm, Look("series-1")), more_is_better, alone)
            for arm, one in lines[:MOST_PICTURES]
        ),
        notes=tuple(notes),
    )


def _answered(
    space: Mapping[str, Distribution], searched: Searched, margin: float, more_is_better: bool
) -> _Answered | None:
    """The curves of one arm; None where it has none."""
    numeric = [path for path, one in space.items() if _is_numeric(one)]
    held = {path: searched.winner[path] for path in space if path not in numeric and path in searched.winner}
    alike = [i for i, point in enumerate(searched.points) if all(point.get(path) == held[path] for path in held)]
    note = ""
    if held:
        said = listed([f"{named(path)} = {shown(value)}" for path, value in held.items()])
        note = f"{searched.arm}: of {len(alike)} of {len(searched.points)} trials, those with the winner's {said}."
    found = _curves(space, numeric, searched, alike, margin, more_is_better)
    if not found and held:
        everyone = list(range(len(searched.points)))
        found = _curves(space, numeric, searched, everyone, margin, more_is_better)
        note = (
            f"{searched.arm}: of all {len(everyone)} trials, since those with the winner's {said} are too few; what "
            "differs in it is noise here."
        )
    return _Answered(searched.arm, found, note) if found else None


def _is_numeric(distribution: Distribution) -> bool:
    if distribution.kind not in ("choice", "grid"):
        return True
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in distribution.values)


def _curves(
    space: Mapping[str, Distribution],
    numeric: Sequence[str],
    searched: Searched,
    chosen: Sequence[int],
    margin: float,
    more_is_better: bool,
) -> tuple[Sensitivity, ...]:
    points = [searched.points[i] for i in chosen]
    paths = [path for path in numeric if points and all(path in point for point in points)]
    columns = {path: [float(point[path]) for point in points] for path in paths}
    log = [path for path in paths if space[path].kind in ("loguniform", "logint")]
    if not columns:
        return ()
    metric = [searched.metric[i] for i in chosen]
    return sensitivity(columns, metric, margin, log=log, more_is_better=more_is_better)


def _answer(lines: Sequence[tuple[str, Sensitivity]], metric: str, margin: float, alone: bool) -> str:
    if len(lines) <= SAID:
        return " ".join(one.sentence if alone else f"{arm}: {one.sentence}" for arm, one in lines)

    def of(chosen: Sequence[tuple[str, Sensitivity]]) -> str:
        return listed([named(one.parameter) + ("" if alone else f" of {arm}") for arm, one in chosen])

    free = [line for line in lines if line[1].confirmed is not None and line[1].open_low and line[1].open_high]
    open_ = [line for line in lines if line[1].confirmed is None]
    bound = [line for line in lines if line not in free and line not in open_]
    if len(open_) == len(lines):
        most = max(one.trials for _, one in lines)
        return (
            f"The trials do not tell yet how far {of(open_)} may be from the best: of no value it is as sure as "
            f"{lines[0][1].level:.0%} that it loses no more than {measured(metric, margin)} of {metric}, with up to "
            f"{most} trials an arm."
        )
    parts = []
    if bound:
        spans = [f"{of([line])} ({_interval(line[1])})" for line in bound]
        parts.append(f"{listed(spans)} must stay near the best")
    if free:
        parts.append(f"{of(free)} may be anywhere in what was tried")
    if open_:
        parts.append(f"of {of(open_)} the trials do not tell yet")
    return f"At a loss of no more than {measured(metric, margin)} of {metric}, {'; '.join(parts)}."


def _interval(one: Sensitivity) -> str:
    if one.confirmed is None:
        return "–"
    low, high = (rounded(end) for end in one.confirmed)
    return f"{low} to {high}"


def _table(lines: Sequence[tuple[str, Sensitivity]], metric: str) -> Table:
    columns = (("parameter", False), ("best", True), ("confirmed", True), ("by the curve alone", True))
    made = []
    for arm, one in lines:
        ends = [name for name, is_open in (("lowest", one.open_low), ("highest", one.open_high)) if is_open]
        beyond = f"up to the {' and '.join(ends)} tried" if ends else ""
        predicted = " to ".join(rounded(end) for end in one.predicted)
        largest = max(one.difference)
        made.append(
            (
                Cell(named(one.parameter), f"{arm}, {one.trials} trials", named(one.parameter)),
                Cell(rounded(one.best), sort=one.best),
                Cell(_interval(one), beyond, one.confirmed[0] if one.confirmed else math.inf),
                Cell(predicted, sort=one.predicted[0]),
                Cell(measured(metric, largest), sort=largest),
            )
        )
    return Table((*columns, ("lost at most", True)), tuple(made))


def _fitted(one: Sensitivity, more_is_better: bool) -> tuple[float, ...]:
    """What the fitted curve loses against its own best."""
    best = max(one.mean) if more_is_better else min(one.mean)
    return tuple(abs(value - best) for value in one.mean)


def _picture(arm: str, one: Sensitivity, metric: str, look: Look, more_is_better: bool, alone: bool) -> Picture:
    drawn = Tolerance(
        parameter=one.parameter,
        metric=metric,
        values=one.values,
        lost=one.difference,
        fitted=_fitted(one, more_is_better),
        margin=one.margin,
        best=one.best,
        confirmed=one.confirmed,
        log=one.log,
    )
    made = tuple(
        (
            Cell(rounded(one.values[i]), sort=one.values[i]),
            Cell(measured(metric, one.difference[i]), sort=one.difference[i]),
            Cell(f"{one.probability[i]:.3f}", sort=one.probability[i]),
        )
        for i in thinned(len(one.values), 13)
    )
    columns = (
        (named(one.parameter), True),
        ("lost on average", True),
        ("probability of no more", True),
    )
    others = listed([f"{named(path)} = {rounded(value)}" for path, value in one.others.items()])
    note = f"The others at {others}." if others else ""
    title = f"What {named(one.parameter)} loses" + ("" if alone else f", {arm}")
    return picture(title, plots.tolerance(drawn, look), Table(columns, made), note)
