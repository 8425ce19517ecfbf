"""Choosing: the best of an arm, its winner on fresh seeds, the Pareto front. By validation only."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from wsl_sweep.sweep.ledger import TrialState


def signed(state: TrialState, metrics: Sequence[str], modes: Sequence[str]) -> tuple[float, ...] | None:
    """The trial's metrics, each so that more is better; None where it did not finish or one is not finite."""
    if state.status != "finished":
        return None
    values = [state.metrics.get(metric, math.nan) for metric in metrics]
    if not all(map(math.isfinite, values)):
        return None
    return tuple(value if mode == "max" else -value for value, mode in zip(values, modes, strict=True))


def pareto_front(states: Iterable[TrialState], metrics: Sequence[str], modes: Sequence[str]) -> list[TrialState]:
    """The finished trials that no other one beats in every metric, best first by the first metric.

    With one metric: all finished trials, best first; ties by lower validation loss.
    """
    scored = [(score, state) for state in states if (score := signed(state, metrics, modes)) is not None]
    if len(metrics) > 1:
        scored = [
            (score, state)
            for score, state in scored
            if not any(other != score and all(a >= b for a, b in zip(other, score, strict=True)) for other, _ in scored)
        ]
    scored.sort(key=lambda pair: (*(-value for value in pair[0]), validation_loss([pair[1]])))
    return [state for _, state in scored]


def validation_loss(states: Sequence[TrialState]) -> float:
    """Mean validation loss, infinite where a trial has none."""
    losses = [state.metrics.get("validation/loss", math.inf) for state in states]
    return sum(losses) / len(losses) if losses else math.inf


def rank_candidates(candidates: Sequence[Sequence[TrialState]], metric: str, mode: str) -> list[tuple[int, float]]:
    """(index, mean) of the candidates of ``confirm``, best first.

    Each candidate is its trials over the seeds. Those of which every seed finished come first; then the mean of the
    validation metric over the finished seeds decides, then the lower validation loss.
    """
    ranked = []
    for index, states in enumerate(candidates):
        done = [state for state in states if signed(state, [metric], [mode]) is not None]
        if done:
            mean = sum(state.metrics[metric] for state in done) / len(done)
            score = mean if mode == "max" else -mean
            ranked.append((len(done) < len(states), -score, validation_loss(done), index, mean))
    return [(index, mean) for _, _, _, index, mean in sorted(ranked)]
