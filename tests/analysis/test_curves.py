"""Metrics by epoch over seeds, and how far early values foretell the last."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from scipy import stats

from tests.sweep.fakes import spec_of
from wsl_sweep.analysis import curves
from wsl_sweep.analysis.curves import QUANTILES, early_stopping, learning_curve, rank_correlation, weight_fan
from wsl_sweep.analysis.grouping import Row
from wsl_sweep.spec.plan import ablation_cells
from wsl_sweep.sweep.ledger import TrialState

RowsByTrial = Mapping[str, Sequence[Mapping[str, float]]]


def row_of(label: str, *trials: str) -> Row:
    """A row of the table whose seeds are these trials."""
    return Row(
        label=label,
        variant=label,
        settings={},
        sweeps=("s",),
        description=None,
        seeds=tuple(range(len(trials))),
        values=(0.5,) * len(trials),
        missing={},
        tuned=None,
        tuning_trials=0,
        averaged=1,
        trial_ids={seed: (trial,) for seed, trial in enumerate(trials)},
    )


def told(values: Sequence[float], metric: str = "m") -> list[dict[str, float]]:
    return [{"epoch": float(epoch), metric: value} for epoch, value in enumerate(values, start=1)]


def test_a_band_is_the_t_interval_over_seeds_at_each_epoch() -> None:
    values = np.random.default_rng(0).normal(size=(4, 5))
    rows = {f"t{seed}": told(list(line)) for seed, line in enumerate(values)}
    curve = learning_curve([row_of("kd", *rows)], rows.__getitem__, "m")
    assert curve is not None
    (group,) = curve.groups
    assert group.epochs == (1, 2, 3, 4, 5)
    assert group.n == 4
    np.testing.assert_allclose(group.mean, values.mean(axis=0))
    low, high = stats.t.interval(0.95, 3, values.mean(axis=0), stats.sem(values, axis=0))
    np.testing.assert_allclose(group.low or (), low)
    np.testing.assert_allclose(group.high or (), high)


def test_one_seed_has_no_band_and_a_metric_that_nobody_has_no_curve() -> None:
    rows = {"t": told([0.1, 0.2])}
    curve = learning_curve([row_of("kd", "t")], rows.__getitem__, "m")
    assert curve is not None
    assert curve.groups[0].low is None
    assert "no band" in curve.note
    assert learning_curve([row_of("kd", "t")], rows.__getitem__, "weight/mean") is None


def test_an_epoch_counts_where_all_seeds_have_it() -> None:
    rows = {"a": told([0.1, 0.2, 0.3]), "b": told([0.1, math.nan]), "c": []}
    curve = learning_curve([row_of("kd", *rows)], rows.__getitem__, "m")
    assert curve is not None
    assert curve.groups[0].epochs == (1,)
    assert curve.groups[0].n == 2


def test_a_fan_is_the_mean_of_the_seeds_quantiles() -> None:
    def weights(shift: float) -> list[dict[str, float]]:
        return [
            {"epoch": float(epoch), "weight/mean": shift, **{f"weight/{q}": shift + k for k, q in enumerate(QUANTILES)}}
            for epoch in (1, 2)
        ]

    rows = {"a": weights(0.0), "b": weights(1.0), "plain": told([0.1])}
    fan = weight_fan([row_of("wsl", "a", "b"), row_of("kd", "plain")], rows.__getitem__)
    assert fan is not None
    (group,) = fan.groups
    assert group.label == "wsl"
    assert (group.q05, group.q50, group.q95, group.mean) == ((0.5, 0.5), (2.5, 2.5), (4.5, 4.5), (0.5, 0.5))
    assert weight_fan([row_of("kd", "plain")], rows.__getitem__) is None


@pytest.mark.parametrize("seed", range(5))
def test_rank_correlation_is_spearmans(seed: int) -> None:
    generator = np.random.default_rng(seed)
    xs, ys = generator.integers(0, 5, 12).tolist(), generator.integers(0, 5, 12).tolist()
    assert rank_correlation(xs, ys) == pytest.approx(stats.spearmanr(xs, ys).statistic)


def test_no_correlation_where_nothing_varies() -> None:
    assert rank_correlation([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]) is None


def trials(epochs: int, count: int) -> list[TrialState]:
    text = f"run: {{recipe: digits, schedule: {{epochs: {epochs}}}}}\nvariants: [kd]\nseeds: {count}"
    return [TrialState(trial, status="finished", epochs=epochs) for trial in ablation_cells(spec_of(text))[0].trials]


def curves_of(states: Sequence[TrialState], curves: Sequence[Sequence[float]]) -> RowsByTrial:
    return {state.trial.trial_id: told(curve) for state, curve in zip(states, curves, strict=True)}


def test_what_was_stopped_and_saved_and_whether_that_was_safe() -> None:
    states = trials(4, 8)
    for state in states[6:]:
        state.status, state.epochs = "pruned", 1
    order = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    rows = curves_of(states, [[v, v, v + 0.1, v + 0.2] for v in order] + [[0.01], [0.02]])
    found = early_stopping(states, rows.__getitem__, "m", "asha", 1)
    assert (found.pruned, found.trials, found.epochs_saved, found.epochs_planned) == (2, 8, 6, 32)
    assert [(one.epoch, one.rho, one.n) for one in found.correlations] == [
        (e, pytest.approx(1.0), 6) for e in (1, 2, 3)
    ]
    assert "asha stopped 2 of 8 trials and saved 6 epochs of 32 (19%)" in found.sentence
    assert "stopping there is safe" in found.sentence
    assert "of those that were stopped nobody knows" in found.sentence


@pytest.mark.parametrize(("early", "word"), [([6, 5, 4, 3, 2, 1], "among the best"), ([2, 1, 4, 3, 6, 5], "is safe")])
def test_the_sentence_goes_by_the_first_epoch_at_which_a_trial_could_be_stopped(early: list[int], word: str) -> None:
    states = trials(3, 6)
    rows = curves_of(states, [[float(7 - e), float(e), float(k)] for k, e in enumerate(early)])
    found = early_stopping(states, rows.__getitem__, "m", "median", 2)
    assert "epoch 2" in found.sentence
    assert word in found.sentence


def test_from_which_epoch_on_it_would_be_safe_is_said() -> None:
    states = trials(4, 6)
    rows = curves_of(states, [[float(-k), float(-k), float(k), float(k)] for k in range(6)])
    found = early_stopping(states, rows.__getitem__, "m", "none", 1)
    assert (
        "what is stopped there may well be among the best; from epoch 3 on it stays at 0.8 or above." in found.sentence
    )


def test_too_few_trials_say_nothing() -> None:
    states = trials(3, 3)
    rows = curves_of(states, [[0.1, 0.2, 0.3]] * 3)
    found = early_stopping(states, rows.__getitem__, "m", "none", 1)
    assert found.correlations == ()
    assert "Too few trials" in found.sentence
    assert "No scheduler" in found.sentence


def test_of_a_long_search_some_trials_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curves, "MOST", 5)
    states = trials(2, 12)
    rows = curves_of(states, [[float(k), float(k)] for k in range(12)])
    read: list[str] = []

    def counted(trial_id: str) -> Any:
        read.append(trial_id)
        return rows[trial_id]

    found = early_stopping(states, counted, "m", "none", 1)
    assert len(read) == 4
    assert [(one.epoch, one.n) for one in found.correlations] == [(1, 4)]
