"""Correlations with intervals that hold for few trials."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wsl_sweep.analysis.curves import FEWEST, rank_correlation
from wsl_sweep.analysis.diagnostics.arrays import Floats
from wsl_sweep.analysis.statistics import LEVEL, Interval


@dataclass(frozen=True)
class Correlation:
    """A correlation.

    Attributes:
        kind: ``pearson`` or ``spearman``.
        n: pairs.
        value: in [-1, 1]; None for fewer than two pairs, or where one of the two does not vary.
        interval: 95 %; None for fewer than four pairs (Fisher's z has the standard error 1/√(n - 3)).
        note: why something is missing, or empty.
    """

    kind: str
    n: int
    value: float | None
    interval: Interval | None
    note: str = ""


def pearson(xs: Sequence[float], ys: Sequence[float]) -> Correlation:
    """Pearson's correlation, with Fisher's z for its interval: ``tanh(artanh r ± z / √(n - 3))``.

    Args:
        xs, ys: finite, of one length.

    Raises:
        ValueError: of two lengths, or not finite.
    """
    one, other = _pair(xs, ys)
    varies = len(one) > 1 and np.ptp(one) > 0 and np.ptp(other) > 0
    value = float(np.clip(np.corrcoef(one, other)[0, 1], -1.0, 1.0)) if varies else None
    return _told("pearson", len(one), value, 1.0, value)


def spearman(xs: Sequence[float], ys: Sequence[float]) -> Correlation:
    """Spearman's ρ, ties at their mean rank, with Fisher's z and Bonett and Wright's (2000) standard error
    ``√((1 + ρ²/2) / (n - 3))``.

    A ρ of ±1 is taken as half the least step ``12 / (n (n² - 1))`` inside for the end that faces zero: ranks that agree
    by chance say less than an interval of no width would.

    Args:
        xs, ys: finite, of one length.

    Raises:
        ValueError: of two lengths, or not finite.
    """
    one, other = _pair(xs, ys)
    n = len(one)
    value = rank_correlation(one.tolist(), other.tolist()) if n > 1 else None
    if value is None:
        return _told("spearman", n, None, 1.0, None)
    value = max(-1.0, min(1.0, value))
    most = 1.0 - 6.0 / (n * (n * n - 1)) if n > 2 else 0.0
    taken = max(-most, min(most, value))
    return _told("spearman", n, value, 1.0 + taken**2 / 2, taken)


def _pair(xs: Sequence[float], ys: Sequence[float]) -> tuple[Floats, Floats]:
    one, other = np.asarray(xs, dtype=np.float64), np.asarray(ys, dtype=np.float64)
    if one.ndim != 1 or one.shape != other.shape:
        raise ValueError(f"a correlation takes two lines of one length, not {one.shape} and {other.shape}")
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        raise ValueError("a correlation takes finite values")
    return one, other


def _told(kind: str, n: int, value: float | None, spread: float, taken: float | None) -> Correlation:
    if value is None or taken is None:
        few = n < 2
        return Correlation(kind, n, None, None, "Fewer than two trials." if few else "One of the two does not vary.")
    if n < FEWEST:
        return Correlation(kind, n, value, None, f"No interval follows from fewer than {FEWEST} trials.")
    if abs(taken) == 1.0:  # all points on one line
        return Correlation(kind, n, value, (value, value))
    from scipy.special import ndtri

    half = float(ndtri(0.5 + LEVEL / 2)) * math.sqrt(spread / (n - 3))
    low, high = math.tanh(math.atanh(taken) - half), math.tanh(math.atanh(taken) + half)
    return Correlation(kind, n, value, (min(low, value), max(high, value)))
