"""Does early stopping lie? What early epochs foretell, and what ASHA would have lost, replayed on full curves."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from wsl_sweep.analysis.curves import DOUBTFUL, FEWEST, SAFE
from wsl_sweep.analysis.diagnostics.arrays import Floats, Labels
from wsl_sweep.analysis.diagnostics.correlation import spearman
from wsl_sweep.analysis.statistics import Interval

ORDERS = 500
"""Random orders of arrival: so that a share of them is known to 0.02 (one standard error)."""


@dataclass(frozen=True)
class EpochCorrelation:
    """Spearman's rank correlation of a metric at an epoch with its last value.

    Attributes:
        epoch: from 1.
        n: trials.
        rho: in [-1, 1]; None where the metric does not vary.
        interval: 95 % (Bonett and Wright 2000), or None.
    """

    epoch: int
    n: int
    rho: float | None
    interval: Interval | None


@dataclass(frozen=True)
class Rung:
    """What ASHA's decisions up to and at a rung come to.

    Attributes:
        epoch: at which it decides.
        entered, kept: trials that reached it and that went on, in the order in which they came.
        best_kept: the best last value among those kept.
        regret: the best of all last values less ``best_kept``, in the metric's unit, >= 0.
        mean_entered, mean_kept: over random orders.
        mean_regret: over random orders.
        high_regret: the regret that one random order in twenty exceeds.
        lost: the share of random orders in which no trial with the best last value is left.
    """

    epoch: int
    entered: int
    kept: int
    best_kept: float
    regret: float
    mean_entered: float
    mean_kept: float
    mean_regret: float
    high_regret: float
    lost: float


@dataclass(frozen=True)
class EarlyStoppingReplay:
    """Whether early stopping would have lied.

    Attributes:
        trials, epochs: how many of each.
        best: the best last value.
        correlations: of each epoch but the last with the last.
        rungs: ASHA's, the first on; those of the last are the whole replay. Empty where it has none.
        saved: the share of all epochs that ASHA would not have run, in the order in which the trials came.
        lies: whether the mean regret over random orders is above the margin; None where there is no rung, or fewer than
            four trials.
        sentence: the answer.
    """

    trials: int
    epochs: int
    best: float
    correlations: tuple[EpochCorrelation, ...]
    rungs: tuple[Rung, ...]
    saved: float
    lies: bool | None
    sentence: str


def early_correlations(curves: ArrayLike) -> tuple[EpochCorrelation, ...]:
    """Spearman's rank correlation of the metric at each epoch but the last with the last, over trials.

    Args:
        curves: (T, E), finite: the metric of T trials at each of E epochs.

    Raises:
        ValueError: another shape, or not finite.
    """
    given = _curves(curves)
    last = given[:, -1].tolist()
    found = []
    for epoch in range(1, given.shape[1]):
        one = spearman(given[:, epoch - 1].tolist(), last)
        found.append(EpochCorrelation(epoch, one.n, one.value, one.interval))
    return tuple(found)


def _curves(curves: ArrayLike) -> Floats:
    given = np.asarray(curves, dtype=np.float64)
    if given.ndim != 2 or 0 in given.shape:
        raise ValueError(f"curves must have the shape (trials >= 1, epochs >= 1), not {given.shape}")
    if not np.isfinite(given).all():
        raise ValueError("curves must be finite at every epoch: only trials that ran through have full ones")
    return given


def asha_rungs(epochs: int, grace: int, reduction_factor: int) -> list[int]:
    """The epochs at which ASHA decides: ``grace · reduction_factor^k`` below the last.

    Args:
        epochs: of a trial that runs through.
        grace: no trial is stopped before, at least 1.
        reduction_factor: one in this many goes on, at least 2.

    Raises:
        ValueError: one of them is too small.
    """
    if epochs < 1 or grace < 1 or reduction_factor < 2:
        raise ValueError(
            f"ASHA takes epochs and grace of 1 or more and a factor of 2 or more, not {epochs}, {grace}, "
            f"{reduction_factor}"
        )
    found, rung = [], grace
    while rung < epochs:
        found.append(rung)
        rung *= reduction_factor
    return found


def asha_kept(values: Sequence[float], reduction_factor: int) -> list[bool]:
    """Which trials ASHA lets go on at one rung, as Ray Tune's decides, one after the other.

    A trial is stopped where its value lies below the ``1 - 1/reduction_factor`` quantile of those that came before it,
    with linear interpolation; the first always goes on. Stopped ones count for the quantile, too.

    Args:
        values: in order of arrival; more is better.
        reduction_factor: at least 2.
    """
    level = (1 - 1 / reduction_factor) * 100 / 100  # as Ray and numpy come to it, to the last bit
    found: list[bool] = []
    before: list[float] = []
    for value in values:
        found.append(not before or value >= _quantile(before, level))
        bisect.insort(before, value)
    return found


def _quantile(ordered: Sequence[float], level: float) -> float:
    """As ``numpy.quantile``, of values that are in order already, without its overhead."""
    place = level * (len(ordered) - 1)
    below = math.floor(place)
    low, high = ordered[below], ordered[min(below + 1, len(ordered) - 1)]
    along = place - below
    return high - (high - low) * (1 - along) if along >= 0.5 else low + (high - low) * along


def replay_asha(
    curves: ArrayLike,
    *,
    grace: int = 1,
    reduction_factor: int = 3,
    more_is_better: bool = True,
    margin: float = 0.0,
    orders: int = ORDERS,
    seed: int = 0,
    label: str = "",
) -> EarlyStoppingReplay:
    """What ASHA (Li et al. 2020), in Ray Tune's asynchronous form, would have lost on trials that all ran to their end.

    The curves are those of a sweep without a scheduler; where one stopped trials, what those would have come to nobody
    knows. At each rung the trials decide one after the other; the order of arrival matters, so beside the order of the
    trials as they are, random ones are replayed. No trial overtakes another between two rungs.

    Args:
        curves: (T, E), finite, in the order in which the trials came.
        grace: epochs before which none is stopped.
        reduction_factor: one in this many goes on.
        more_is_better: whether more of the metric is.
        margin: the smallest difference that matters, in the metric's unit.
        orders: how many random orders, at least 1.
        seed: of them.
        label: of whom the sentence speaks, or empty.

    Raises:
        ValueError: another shape, not finite, or a setting that is none.
    """
    given = _curves(curves)
    trials, epochs = given.shape
    rungs = asha_rungs(epochs, grace, reduction_factor)
    if orders < 1 or margin < 0:
        raise ValueError(f"a replay takes one random order or more and a margin of 0 or more, not {orders}, {margin}")
    upward = given if more_is_better else -given
    last = upward[:, -1]
    own = _replay(upward, rungs, np.arange(trials), reduction_factor)
    generator = np.random.default_rng(seed)
    drawn = [_replay(upward, rungs, generator.permutation(trials), reduction_factor) for _ in range(orders)]
    found = []
    for index, epoch in enumerate(rungs):
        regrets = np.array([last.max() - last[one[index][1]].max() for one in drawn])
        entered, kept = own[index]
        best_kept = float(last[kept].max())
        found.append(
            Rung(
                epoch=epoch,
                entered=len(entered),
                kept=len(kept),
                best_kept=best_kept if more_is_better else -best_kept,
                regret=float(last.max()) - best_kept,
                mean_entered=float(np.mean([len(one[index][0]) for one in drawn])),
                mean_kept=float(np.mean([len(one[index][1]) for one in drawn])),
                mean_regret=float(regrets.mean()),
                high_regret=float(np.quantile(regrets, 0.95)),
                lost=float((regrets > 0).mean()),
            )
        )
    stopped = sum((one.entered - one.kept) * (epochs - one.epoch) for one in found)
    correlations = early_correlations(given)
    lies = found[-1].mean_regret > margin if found and trials >= FEWEST else None
    best = float(given[:, -1].max() if more_is_better else given[:, -1].min())
    return EarlyStoppingReplay(
        trials=trials,
        epochs=epochs,
        best=best,
        correlations=correlations,
        rungs=tuple(found),
        saved=stopped / (trials * epochs),
        lies=lies,
        sentence=_answer(label, trials, found, correlations, stopped / (trials * epochs), lies, margin),
    )


def _replay(curves: Floats, rungs: Sequence[int], order: Labels, reduction_factor: int) -> list[tuple[Labels, Labels]]:
    """Of each rung the trials that reach it and those that go on, in order of arrival."""
    found, left = [], order
    for rung in rungs:
        goes_on = asha_kept(curves[left, rung - 1].tolist(), reduction_factor)
        found.append((left, left[goes_on]))
        left = left[goes_on]
    return found


def _answer(
    label: str,
    trials: int,
    rungs: Sequence[Rung],
    correlations: Sequence[EpochCorrelation],
    saved: float,
    lies: bool | None,
    margin: float,
) -> str:
    whom = f" for {label}" if label else ""
    if lies is None:
        why = "no epoch at which it would decide" if not rungs else f"{trials} full curves, fewer than {FEWEST}"
        return f"Whether early stopping lies{whom} cannot be told: there are {why}."
    first, end = rungs[0], rungs[-1]
    rho = correlations[first.epoch - 1].rho
    told = f"ASHA saves {saved:.0%} of the epochs and loses {end.mean_regret:.4f} of the best on average over orders "
    told += f"({end.regret:.4f} in the order that was), the best trial itself in {end.lost:.0%} of them"
    if rho is not None:
        strength = "well" if rho >= SAFE else "doubtfully" if rho >= DOUBTFUL else "badly"
        told += f"; epoch {first.epoch} foretells the end {strength} (rank correlation {rho:.2f} over {trials} trials)"
    beyond = f" beyond the margin of {margin:g}" if margin > 0 else ""
    verdict = f"Early stopping lies{whom}" if lies else f"Early stopping does not lie{whom}"
    return f"{verdict}{beyond}: {told}."
