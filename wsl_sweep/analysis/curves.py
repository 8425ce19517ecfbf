"""Metrics by epoch, over the seeds of a row; and whether early values foretell the last."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from wsl_sweep.analysis.grouping import Row
from wsl_sweep.analysis.report_data import (
    CurveGroup,
    EarlyCorrelation,
    EarlyStopping,
    FanGroup,
    LearningCurve,
    WeightFan,
)
from wsl_sweep.analysis.statistics import t_interval
from wsl_sweep.sweep.ledger import READERS, TrialState

Rows = Sequence[Mapping[str, float]]
"""The rows of epochs of a trial: metrics by name, ``epoch`` from 1."""

RowsOf = Callable[[str], Rows]
"""What gives them, by trial id."""

QUANTILES = ("q05", "q25", "q50", "q75", "q95")
"""Of the soft label weights of an epoch, as metrics ``weight/q05`` and so on; ``weight/mean`` beside them."""

SAFE, DOUBTFUL = 0.8, 0.5
"""Rank correlations of an early metric with the last one: above the first stopping early is taken as safe."""

FEWEST = 4
"""Trials from which a rank correlation is told."""

MOST = 500
"""Of more trials every n-th is read for it: their rows may lie in an object store."""


def learning_curve(rows: Iterable[Row], rows_of: RowsOf, metric: str) -> LearningCurve | None:
    """The mean of a metric by epoch for each row of the table, with the 95 % t interval over its seeds."""
    groups = []
    for row in rows:
        by_epoch = _by_epoch([rows_of(one) for trials in row.trial_ids.values() for one in trials], metric)
        if by_epoch:
            groups.append(curve_group(row.label, by_epoch))
    if not groups:
        return None
    banded = any(group.low is not None for group in groups)
    note = "Mean over seeds; the band is its 95 % t interval." if banded else "One seed each, so no band."
    return LearningCurve(metric, tuple(groups), note)


def _by_epoch(trials: Iterable[Rows], metric: str) -> dict[int, list[float]]:
    """Epoch → the values of the trials, for the epochs that all of them have."""
    found: dict[int, list[float]] = {}
    count = 0
    for rows in trials:
        count += bool(rows)
        for row in rows:
            value = row.get(metric)
            if value is not None and math.isfinite(value):
                found.setdefault(int(row["epoch"]), []).append(value)
    return {epoch: values for epoch, values in sorted(found.items()) if len(values) == count}


def curve_group(label: str, by_epoch: Mapping[int, Sequence[float]]) -> CurveGroup:
    """The mean by epoch, with the 95 % t interval where every epoch has two values or more."""
    means = tuple(math.fsum(values) / len(values) for values in by_epoch.values())
    intervals = [t_interval(values) for values in by_epoch.values()]
    there = [interval for interval in intervals if interval is not None]
    whole = len(there) == len(intervals)
    return CurveGroup(
        label,
        tuple(by_epoch),
        means,
        tuple(low for low, _ in there) if whole else None,
        tuple(high for _, high in there) if whole else None,
        min(map(len, by_epoch.values())),
    )


def weight_fan(rows: Iterable[Row], rows_of: RowsOf) -> WeightFan | None:
    """The quantiles of the soft label weights by epoch for each row that has weights, each a mean over its seeds."""
    groups = []
    for row in rows:
        trials = [rows_of(one) for found in row.trial_ids.values() for one in found]
        lines = {name: _by_epoch(trials, f"weight/{name}") for name in (*QUANTILES, "mean")}
        epochs = [epoch for epoch in lines["mean"] if all(epoch in line for line in lines.values())]
        if epochs:
            means = [tuple(math.fsum(line[epoch]) / len(line[epoch]) for epoch in epochs) for line in lines.values()]
            groups.append(FanGroup(row.label, tuple(epochs), *means))
    if not groups:
        return None
    return WeightFan(tuple(groups), "Quantiles of w over the training examples of an epoch, averaged over seeds.")


def early_stopping(
    trials: Sequence[TrialState], rows_of: RowsOf, metric: str, kind: str, first_rung: int
) -> EarlyStopping:
    """What a scheduler stopped and saved, and how far early values foretell the last ones.

    Args:
        trials: of the search; of an ablation, where nothing is stopped, all of them.
        rows_of: their rows.
        metric: by which the scheduler judged.
        kind: asha, hyperband, median or none.
        first_rung: the epoch at which it could stop first.
    """
    pruned = [one for one in trials if one.status == "pruned"]
    saved = sum(max(0, one.trial.epochs - one.epochs) for one in pruned)
    planned = sum(one.trial.epochs for one in trials if one.status in ("finished", "pruned"))
    correlations = _correlations([one for one in trials if one.status == "finished"], rows_of, metric)
    return EarlyStopping(
        kind=kind,
        pruned=len(pruned),
        trials=len(trials),
        epochs_saved=saved,
        epochs_planned=planned,
        correlations=correlations,
        sentence=_safety(kind, len(pruned), len(trials), saved, planned, correlations, first_rung),
    )


def _correlations(finished: Sequence[TrialState], rows_of: RowsOf, metric: str) -> tuple[EarlyCorrelation, ...]:
    """Spearman's, of each epoch's value with the last, over the trials with the most common number of epochs."""
    lengths = [one.trial.epochs for one in finished]
    usual = max(set(lengths), key=lengths.count) if lengths else 0
    read = [one.trial.trial_id for one in finished if one.trial.epochs == usual]
    read = read[:: -(-len(read) // MOST) or 1]
    with ThreadPoolExecutor(READERS) as readers:
        told = list(readers.map(lambda trial_id: [row.get(metric, math.nan) for row in rows_of(trial_id)], read))
    curves = [values for values in told if len(values) == usual and all(map(math.isfinite, values))]
    if len(curves) < FEWEST or usual < 2:
        return ()
    last = [curve[-1] for curve in curves]
    found = []
    for epoch in range(1, usual):
        rho = rank_correlation([curve[epoch - 1] for curve in curves], last)
        if rho is not None:
            found.append(EarlyCorrelation(epoch, rho, len(curves)))
    return tuple(found)


def rank_correlation(xs: Sequence[float], ys: Sequence[float]) -> float | None:
    """Spearman's ρ, ties at their mean rank; None where one of the two does not vary."""
    import numpy as np
    from scipy.stats import rankdata

    ranks = [rankdata(values) for values in (xs, ys)]
    if any(np.ptp(one) == 0 for one in ranks):
        return None
    return float(np.corrcoef(*ranks)[0, 1])


def _safety(
    kind: str,
    pruned: int,
    trials: int,
    saved: int,
    planned: int,
    correlations: Sequence[EarlyCorrelation],
    first_rung: int,
) -> str:
    said = "No scheduler: every trial ran to its end."
    if kind != "none":
        share = f" of {planned} ({saved / planned:.0%})" if planned else ""
        said = f"{kind} stopped {pruned} of {trials} trials and saved {saved} epochs{share}."
    at = next((one for one in correlations if one.epoch >= first_rung), None)
    if at is None:
        return f"{said} Too few trials ran through, or too few epochs, to say whether early values foretell the last."
    told = f"The rank correlation of epoch {at.epoch} with the last is {at.rho:.2f} over {at.n} trials that ran through"
    if at.rho >= SAFE:
        meaning = "stopping there is safe"
    elif at.rho >= DOUBTFUL:
        meaning = "stopping there may lose a good trial now and then"
    else:
        meaning = "what is stopped there may well be among the best"
    only = ", and of those that were stopped nobody knows" if pruned else ""
    since = _safe_since(correlations)
    later = f"; from epoch {since} on it stays at {SAFE} or above" if since is not None and since > at.epoch else ""
    return f"{said} {told}{only}: {meaning}{later}."


def _safe_since(correlations: Sequence[EarlyCorrelation]) -> int | None:
    """The epoch from which on stopping is safe."""
    since = None
    for one in reversed(correlations):
        if one.rho < SAFE:
            break
        since = one.epoch
    return since
