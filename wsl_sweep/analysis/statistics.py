"""Statistics over seeds: pure functions of numbers.

Few seeds are the rule, so nothing here is a bootstrap or a rank test: with five seeds a percentile bootstrap's "95 %"
interval covers 83 %, and the smallest two-sided p of Wilcoxon's test is 0.0625. Student's t on differences of common
seeds is exact for normal values at any n.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LEVEL = 0.95
"""Coverage of all intervals."""

ALPHA = 0.05
"""The error rate of a family of comparisons under no difference."""

_SAME = 1e-12
"""Relative to the values: a spread below it is rounding."""

Method = Literal["paired", "welch"]
Interval = tuple[float, float]


@dataclass(frozen=True)
class Description:
    """A metric over seeds.

    Attributes:
        n: how many values.
        mean: their mean.
        sd: sample standard deviation (n - 1); None for one value.
        interval: 95 % t interval of the mean; None for one value.
    """

    n: int
    mean: float
    sd: float | None
    interval: Interval | None


@dataclass(frozen=True)
class Difference:
    """A mean less a baseline's.

    Attributes:
        method: ``paired`` on common seeds, or Welch's for two independent groups.
        n: pairs; of Welch's the size of the smaller group.
        difference: of the means, in the metric's unit.
        sd: of the paired differences; of Welch's the root of the mean of both variances. Where nothing varies but there
            is a difference, half the smallest step between two values.
        error: standard error of ``difference``; 0 where there is no difference at all.
        df: degrees of freedom of the t distribution.
        interval: 95 % t interval of ``difference``.
        p: two-sided, of no difference.
        still: whether nothing varied, so that ``sd`` is no estimate.
    """

    method: Method
    n: int
    difference: float
    sd: float
    error: float
    df: float
    interval: Interval
    p: float
    still: bool = False


@dataclass(frozen=True)
class Improvement:
    """P(A > B): that a run of A, picked at random, is better than one of B, ties counting half (Agarwal et al. 2021).

    Attributes:
        probability: the fraction of all pairs of runs.
        interval: 95 %, in [0, 1].
    """

    probability: float
    interval: Interval


def describe(values: Sequence[float]) -> Description:
    """Mean, spread and interval of a metric over seeds.

    Args:
        values: one for each seed; finite, at least one.

    Raises:
        ValueError: there is no value.
    """
    if not values:
        raise ValueError("no values to describe")
    mean = _mean(values)
    return Description(len(values), mean, _sd(values), t_interval(values))


def t_interval(values: Sequence[float], level: float = LEVEL) -> Interval | None:
    """Student's t interval of the mean.

    Args:
        values: one for each seed; finite.
        level: coverage, in (0, 1).

    Returns:
        (low, high); None for fewer than two values, from which no interval follows.
    """
    deviation = _sd(values)
    if deviation is None:
        return None
    mean = _mean(values)
    half = t_quantile(0.5 + level / 2, len(values) - 1) * deviation / math.sqrt(len(values))
    return mean - half, mean + half


def paired_difference(values: Sequence[float], baseline: Sequence[float]) -> Difference:
    """The mean of differences of common seeds, with Student's t on them.

    Args:
        values: one for each seed.
        baseline: the baseline's at the same seeds, in the same order.

    Raises:
        ValueError: the two are not of one length, or of fewer than two values.
    """
    if len(values) != len(baseline) or len(values) < 2:
        raise ValueError("paired differences take two values or more, at the same seeds")
    differences = [one - other for one, other in zip(values, baseline, strict=True)]
    n, grain = len(differences), _SAME * max(map(abs, (*values, *baseline)))
    mean, sd = _unless_rounding(_mean(differences), grain), _unless_rounding(_sd(differences) or 0.0, grain)
    still = sd == 0 and mean != 0
    sd = _least_spread(values, baseline) if still else sd
    return _tested("paired", n, mean, sd, sd / math.sqrt(n), n - 1.0, still=still)


def welch_difference(values: Sequence[float], baseline: Sequence[float]) -> Difference:
    """The difference of two means of independent groups, with Welch's t (Welch 1947).

    Args:
        values: one for each seed.
        baseline: the baseline's, at other seeds.

    Raises:
        ValueError: one of the two has fewer than two values.
    """
    if min(len(values), len(baseline)) < 2:
        raise ValueError("Welch's test takes two values or more in each group")
    m, n, grain = len(values), len(baseline), _SAME * max(map(abs, (*values, *baseline)))
    sds = [_unless_rounding(_sd(group) or 0.0, grain) for group in (values, baseline)]
    mean = _unless_rounding(_mean(values) - _mean(baseline), grain)
    still = not any(sds) and mean != 0
    if still:
        sds = [_least_spread(values, baseline)] * 2
    errors = sds[0] / math.sqrt(m), sds[1] / math.sqrt(n)
    error = math.hypot(*errors)
    shares = [(one / error) ** 2 if error > 0 else 0.5 for one in errors]
    df = 1 / (shares[0] ** 2 / (m - 1) + shares[1] ** 2 / (n - 1))
    sd = math.hypot(*sds) / math.sqrt(2)
    return _tested("welch", min(m, n), mean, sd, error, df, still=still)


def _least_spread(values: Sequence[float], baseline: Sequence[float]) -> float:
    """A spread for values that differ by exactly the same at every seed: half the smallest step between any two.

    Accuracies in steps of one test example do so now and then, by chance. A spread of 0 would make a t test as sure
    as can be, and a family of comparisons would find what is not there; to steps of that size nothing smaller is seen.
    """
    steps = sorted({*values, *baseline})
    grain = _SAME * max(map(abs, steps))
    return min(high - low for low, high in itertools.pairwise(steps) if high - low > grain) / 2


def _tested(
    method: Method, n: int, mean: float, sd: float, error: float, df: float, *, still: bool = False
) -> Difference:
    half = t_quantile(0.5 + LEVEL / 2, df) * error
    p = min(1.0, 2 * _t_tail(abs(mean) / error, df)) if error > 0 else 1.0
    if still and n == 2:
        p = max(p, 0.5)  # two of anything are the same often enough
    return Difference(method, n, mean, sd, error, df, (mean - half, mean + half), p, still)


def equivalence_p(difference: Difference, margin: float) -> float:
    """The p of two one-sided t tests (Schuirmann 1987): small where the difference lies within ``margin`` of zero.

    Args:
        difference: of a mean and a baseline's.
        margin: in the metric's unit, positive.
    """
    inside = margin - abs(difference.difference)  # the nearer of the two bounds has the larger p
    if difference.error > 0:
        return _t_tail(inside / difference.error, difference.df)
    return 0.0  # no difference at any seed


def holm(ps: Sequence[float]) -> list[float]:
    """p values of one family, adjusted so that its error rate is kept (Holm 1979); in the order given."""
    order = sorted(range(len(ps)), key=lambda index: ps[index])
    adjusted, least = [0.0] * len(ps), 0.0
    for before, index in enumerate(order):
        least = max(least, min(1.0, (len(ps) - before) * ps[index]))
        adjusted[index] = least
    return adjusted


def probability_of_improvement(
    values: Sequence[float], baseline: Sequence[float], *, more_is_better: bool = True
) -> Improvement | None:
    """P(A > B) over all pairs of runs, with Newcombe's interval for it (2006, method 5).

    With Student's quantile at ``m + n - 2`` degrees of freedom in place of the normal one, so that it holds with three
    runs of each. It takes the two groups as independent, so with common seeds it is a little wide.

    Args:
        values: of A, one for each seed.
        baseline: of B.
        more_is_better: whether more of the metric is.

    Returns:
        None where one of the two has fewer than two values.
    """
    if min(len(values), len(baseline)) < 2:
        return None
    ordered, wins = sorted(baseline), 0.0
    for a in values:
        grain = _SAME * abs(a)
        less, not_more = bisect.bisect_left(ordered, a - grain), bisect.bisect_right(ordered, a + grain)
        wins += (less if more_is_better else len(ordered) - not_more) + (not_more - less) / 2
    theta = wins / (len(values) * len(ordered))
    return Improvement(theta, _newcombe(theta, len(values), len(baseline)))


def _newcombe(theta: float, m: int, n: int) -> Interval:
    """The values of P(A > B) that ``theta`` of m and n runs is no more than z standard errors from."""
    z = t_quantile(0.5 + LEVEL / 2, m + n - 2)
    star = (m + n) / 2 - 1

    def excess(at: float) -> float:
        variance = at * (1 - at) * (1 + star * ((1 - at) / (2 - at) + at / (1 + at))) / (m * n)
        return abs(at - theta) - z * math.sqrt(max(0.0, variance))

    def bound(outer: float) -> float:
        inside, outside = theta, outer  # excess is negative inside and positive outside
        for _ in range(60):
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if excess(middle) <= 0 else (inside, middle)
        return inside

    return (0.0 if theta == 0 else bound(0.0)), (1.0 if theta == 1 else bound(1.0))


def seeds_and_examples_interval(outcomes: NDArray[np.float64]) -> Interval | None:
    """A 95 % interval of a mean over seeds *and* test examples, both taken as drawn at random.

    Seeds and examples are crossed, so the variance is that of the two-way random-effects analysis of variance without
    replication, ``(MS_seeds + MS_examples - MS_rest) / (S N)``, and never below ``MS_seeds / (S N)``. Each of the two
    parts has its own t quantile, and their half widths are added in squares, which holds with three seeds too, where
    Satterthwaite's degrees of freedom do not. Beside the interval over seeds it says how far another test set of this
    size could move the mean.

    Args:
        outcomes: (S, N): of each seed and example 1 or 0 (right or wrong), or a difference of two of these.

    Returns:
        None for fewer than two seeds or two examples.
    """
    seeds, examples = outcomes.shape
    if seeds < 2 or examples < 2:
        return None
    mean = float(outcomes.mean())
    by_seed, by_example = outcomes.mean(axis=1), outcomes.mean(axis=0)
    rest = outcomes - by_seed[:, None] - by_example[None, :] + mean
    frees = (seeds - 1, examples - 1, (seeds - 1) * (examples - 1))
    squares = (
        examples * float(((by_seed - mean) ** 2).sum()) / frees[0],
        seeds * float(((by_example - mean) ** 2).sum()) / frees[1],
        float((rest**2).sum()) / frees[2],
    )
    count = seeds * examples
    over_seeds = t_quantile(0.5 + LEVEL / 2, frees[0]) * math.sqrt(squares[0] / count)
    over_examples = t_quantile(0.5 + LEVEL / 2, frees[1]) * math.sqrt(max(0.0, squares[1] - squares[2]) / count)
    half = math.hypot(over_seeds, over_examples)
    return mean - half, mean + half


# scipy.special, not scipy.stats: all of that takes a second to import.


def t_quantile(level: float, df: float) -> float:
    """The value below which Student's t lies with probability ``level``, in (0, 1), at ``df`` > 0 degrees."""
    from scipy.special import stdtrit

    return float(stdtrit(df, level))


def _t_tail(t: float, df: float) -> float:
    """P(T > t)."""
    from scipy.special import stdtr

    return float(stdtr(df, -t))


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _sd(values: Sequence[float]) -> float | None:
    if len(values) < 2:
        return None
    mean = _mean(values)
    sd = math.hypot(*(value - mean for value in values)) / math.sqrt(len(values) - 1)
    return _unless_rounding(sd, _SAME * max(map(abs, values)))


def _unless_rounding(value: float, grain: float) -> float:
    return value if abs(value) > grain else 0.0
