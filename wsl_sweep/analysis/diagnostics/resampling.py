"""Intervals of a mean over examples (bootstrap) and of a statistic over models (jackknife)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from wsl_sweep.analysis.diagnostics.arrays import Floats
from wsl_sweep.analysis.statistics import LEVEL, Interval, t_quantile

RESAMPLES = 2000
"""Enough for the ends of a 95 % interval to be known to a tenth of its width."""

DRAWS = 2**22
"""Examples drawn at a time."""

Method = Literal["bca", "percentile"]


def bootstrap_means(values: ArrayLike, resamples: int = RESAMPLES, seed: int = 0) -> Floats:
    """Means over examples drawn with replacement, as many as there are (Efron 1979).

    Args:
        values: (N,) or (N, V): V statistics of the same examples, which are drawn together. N >= 1, finite.
        resamples: R >= 1.
        seed: of the draws; the same draws for the same N, so that results of one seed are paired.

    Returns:
        (R,) or (R, V).

    Raises:
        ValueError: no examples, no resamples, or values that are not finite.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim not in (1, 2) or 0 in array.shape or resamples < 1:
        raise ValueError(f"a bootstrap takes one example and one resample or more, not {array.shape} and {resamples}")
    if not np.isfinite(array).all():
        raise ValueError("a bootstrap takes finite values")
    n = len(array)
    generator = np.random.default_rng(seed)
    found = np.empty((resamples, *array.shape[1:]))
    for part in _rounds(resamples, n):
        chosen = generator.integers(0, n, (part.stop - part.start, n))
        chosen += n * np.arange(len(chosen))[:, None]
        times = np.bincount(chosen.ravel(), minlength=n * len(chosen)).reshape(len(chosen), n)
        found[part] = times @ array / n
    return found


def _rounds(resamples: int, n: int) -> Iterator[slice]:
    step = max(1, DRAWS // n)
    for first in range(0, resamples, step):
        yield slice(first, min(resamples, first + step))


def bootstrap_interval(
    values: ArrayLike,
    *,
    method: Method = "bca",
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """The interval of a mean over examples by bootstrap.

    ``percentile`` takes the quantiles of the resampled means; ``bca`` (Efron 1987) moves them by the bias ``z0`` of the
    resampled means and the acceleration ``a = Σ d³ / (6 (Σ d²)^{3/2})``, d the values' distances from their mean, so
    that skewed values are missed on both sides more evenly.

    Args:
        values: (N,), finite, N >= 1; of one example the interval has no width and says nothing.
        method: ``bca`` or ``percentile``.
        level: coverage, in (0, 1).
        resamples: how many.
        seed: of the draws.

    Raises:
        ValueError: as ``bootstrap_means``, or not one line of values.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"an interval is that of one line of values, not of {array.shape}")
    return interval_of_means(array, bootstrap_means(array, resamples, seed), method=method, level=level)


def interval_of_means(values: Floats, means: Floats, *, method: Method = "bca", level: float = LEVEL) -> Interval:
    """As ``bootstrap_interval``, of means that are drawn already.

    Args:
        values: (N,): the examples.
        means: (R,): of their resamples.
        method: ``bca`` or ``percentile``.
        level: coverage, in (0, 1).
    """
    from scipy.special import ndtr, ndtri

    ends = np.array([0.5 - level / 2, 0.5 + level / 2])
    apart = values - values.mean()
    squares = float((apart**2).sum())
    if method == "bca" and squares > 0:
        below = float(((means < values.mean()) + 0.5 * (means == values.mean())).mean())
        below = min(max(below, 0.5 / len(means)), 1 - 0.5 / len(means))
        bias, acceleration = float(ndtri(below)), float((apart**3).sum()) / (6 * squares**1.5)
        shifted = bias + ndtri(ends)
        ends = ndtr(bias + shifted / (1 - acceleration * shifted))
    low, high = np.quantile(means, ends)
    return float(low), float(high)


def jackknife_interval(value: float, without: ArrayLike, level: float = LEVEL) -> Interval | None:
    """The interval of a statistic of K models, from what it is without each of them (Tukey 1958).

    ``value ± t_{K-1} · √((K-1)/K · Σ_k (θ_(k) - mean θ)²)``. A bootstrap over so few models covers too little.

    Args:
        value: of all K models.
        without: (K,): without the first, without the second, ….
        level: coverage, in (0, 1).

    Returns:
        None for fewer than two models, or where it cannot be told without one of them (not finite).
    """
    left = np.asarray(without, dtype=np.float64)
    count = len(left)
    if count < 2 or not np.isfinite(left).all() or not math.isfinite(value):
        return None
    error = math.sqrt((count - 1) / count * float(((left - left.mean()) ** 2).sum()))
    half = t_quantile(0.5 + level / 2, count - 1) * error
    return value - half, value + half
