"""How many seeds show what: the power of the t tests of ``wsl_sweep.analysis.statistics``."""

from __future__ import annotations

import math

from wsl_sweep.analysis.statistics import ALPHA, Difference, t_quantile

POWER = 0.8
"""With which a difference shall be shown, where seeds are counted."""

MOST_SEEDS = 100_000
"""Beyond which nobody counts."""


def smallest_difference(n: int, alpha: float = ALPHA, power: float = POWER) -> float | None:
    """The paired difference that n seeds show with a power, in standard deviations of the paired differences.

    Args:
        n: seeds.
        alpha: of the two-sided test.
        power: in (alpha, 1).

    Returns:
        None for fewer than two seeds, which show nothing.
    """
    if n < 2:
        return None
    from scipy.optimize import brentq

    high = 1.0
    while _power(high, n, alpha) < power:
        high *= 2
    return float(brentq(lambda effect: _power(effect, n, alpha) - power, 0.0, high, xtol=1e-10))


def seeds_needed(difference: Difference, margin: float, alpha: float = ALPHA, power: float = POWER) -> int | None:
    """How many seeds would show a difference of ``margin``, with the spread that was observed.

    It asks for the margin, never for the effect that was observed, whose "observed power" says no more than its p.

    Args:
        difference: whose spread counts; paired seeds, or seeds in each of two groups.
        margin: in the metric's unit, positive.
        alpha: of the two-sided test.
        power: in (alpha, 1).

    Returns:
        At least 2; None where it would be more than MOST_SEEDS.
    """
    if difference.sd == 0:
        return 2
    return seeds_for(margin / difference.sd, alpha, power, 1 if difference.method == "paired" else 2)


def seeds_for(effect: float, alpha: float = ALPHA, power: float = POWER, groups: int = 1) -> int | None:
    """How many seeds show an effect with a power.

    Args:
        effect: in standard deviations, of the paired differences or of each of two groups; positive.
        alpha: of the two-sided test.
        power: in (alpha, 1).
        groups: 1 for paired seeds, 2 for seeds of two independent groups, each of so many.

    Returns:
        At least 2; None where it would be more than MOST_SEEDS.
    """

    def enough(n: int) -> bool:
        return _power(effect, n, alpha, groups) >= power

    if not enough(MOST_SEEDS):
        return None
    low, high = 1, MOST_SEEDS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _power(effect: float, n: int, alpha: float, groups: int = 1) -> float:
    """Of the two-sided t test, paired or of two groups of n each; ``effect`` in standard deviations."""
    from scipy.special import nctdtr

    df = groups * (n - 1)
    critical, shift = t_quantile(1 - alpha / 2, df), effect * math.sqrt(n / groups)
    below = [float(nctdtr(df, shift, edge)) for edge in (-critical, critical)]
    lower, upper = (0.0 if math.isnan(one) else one for one in below)  # no number where it is below 1e-190
    return 1.0 - upper + lower
