"""Choosing by validation: best, ties, Pareto front, candidates on fresh seeds."""

from __future__ import annotations

from dataclasses import replace

from tests.sweep.fakes import spec_of
from wsl_sweep.spec.plan import ablation_cells
from wsl_sweep.sweep.ledger import TrialState
from wsl_sweep.sweep.selection import pareto_front, rank_candidates

TRIAL = ablation_cells(spec_of("run: {recipe: digits}\nvariants: [kd]\nseeds: 1"))[0].trials[0]


def state(name: str, status: str = "finished", **metrics: float) -> TrialState:
    named = {key.replace("_", "/", 1): value for key, value in metrics.items()}
    return TrialState(replace(TRIAL, trial_id=name), status=status, metrics=named)


def names(states: list[TrialState]) -> list[str]:
    return [one.trial.trial_id for one in states]


def test_best_first_ties_by_lower_validation_loss() -> None:
    states = [
        state("a", validation_accuracy=0.9, validation_loss=0.5),
        state("b", validation_accuracy=0.9, validation_loss=0.4),
        state("c", validation_accuracy=0.95, validation_loss=0.9),
    ]
    assert names(pareto_front(states, ["validation/accuracy"], ["max"])) == ["c", "b", "a"]
    assert names(pareto_front(states, ["validation/loss"], ["min"])) == ["b", "a", "c"]


def test_what_did_not_finish_is_never_best() -> None:
    states = [
        state("pruned", "pruned", validation_accuracy=0.99),
        state("nan", validation_accuracy=float("nan")),
        state("whole", validation_accuracy=0.1),
    ]
    assert names(pareto_front(states, ["validation/accuracy"], ["max"])) == ["whole"]


def test_pareto_front_has_what_no_other_beats_in_every_metric() -> None:
    states = [
        state("slow and good", validation_accuracy=0.9, train_seconds=9.0),
        state("fast and bad", validation_accuracy=0.5, train_seconds=1.0),
        state("beaten", validation_accuracy=0.5, train_seconds=2.0),
        state("same", validation_accuracy=0.9, train_seconds=9.0),
        state("between", validation_accuracy=0.7, train_seconds=3.0),
    ]
    front = pareto_front(states, ["validation/accuracy", "train/seconds"], ["max", "min"])
    assert names(front) == ["slow and good", "same", "between", "fast and bad"]


def test_candidates_are_ranked_by_their_mean_over_seeds() -> None:
    lucky = [state("a", validation_accuracy=0.99), state("b", validation_accuracy=0.5)]
    steady = [state("c", validation_accuracy=0.8), state("d", validation_accuracy=0.8)]
    assert rank_candidates([lucky, steady], "validation/accuracy", "max") == [(1, 0.8), (0, 0.745)]


def test_a_candidate_with_a_failed_seed_comes_last_and_one_without_any_not_at_all() -> None:
    broken = [state("a", validation_accuracy=0.99), state("b", "failed")]
    whole = [state("c", validation_accuracy=0.5), state("d", validation_accuracy=0.5)]
    dead = [state("e", "failed"), state("f", "killed")]
    assert [index for index, _ in rank_candidates([broken, whole, dead], "validation/accuracy", "max")] == [1, 0]
