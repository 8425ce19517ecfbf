"""The statistics, against scipy, statsmodels and brute force, and against simulated data with known answers.

Simulations have fixed seeds. Their bounds are four standard errors of the simulation wide, and are said beside it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import integrate, stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestIndPower, TTestPower
from statsmodels.stats.weightstats import ttost_ind, ttost_paired

from wsl_sweep.analysis.power import MOST_SEEDS, seeds_needed, smallest_difference
from wsl_sweep.analysis.statistics import (
    Difference,
    describe,
    equivalence_p,
    holm,
    paired_difference,
    probability_of_improvement,
    seeds_and_examples_interval,
    t_interval,
    welch_difference,
)

Floats = NDArray[np.float64]

ACCURACY = st.floats(0, 1)
VALUES = st.lists(ACCURACY, min_size=2, max_size=12)
PAIRS = st.lists(st.tuples(ACCURACY, ACCURACY), min_size=2, max_size=12)
QUICK = settings(max_examples=40, deadline=None)


def varied(values: Floats | list[float]) -> bool:
    """Whether a spread is more than rounding, so that other code makes sense of it."""
    return float(np.std(values)) > 1e-6


def columns(pairs: list[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [one for one, _ in pairs], [other for _, other in pairs]


def difference_of(sd: float, n: int, mean: float = 0.0) -> Difference:
    """A paired difference with exactly this spread and mean."""
    raw = np.arange(n, dtype=float)
    scaled = (raw - raw.mean()) / raw.std(ddof=1) * sd + mean
    return paired_difference(scaled.tolist(), [0.0] * n)


# --- against other code ----------------------------------------------------------------------------------------------


@QUICK
@given(VALUES)
def test_a_description_is_numpys_and_scipys(values: list[float]) -> None:
    found = describe(values)
    assert found.n == len(values)
    assert found.mean == pytest.approx(np.mean(values))
    assert found.sd == pytest.approx(np.std(values, ddof=1), abs=1e-12)
    if varied(values):
        wanted = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
        assert found.interval == pytest.approx(wanted)


def test_one_value_has_neither_spread_nor_interval() -> None:
    found = describe([0.5])
    assert (found.n, found.mean, found.sd, found.interval) == (1, 0.5, None, None)


def test_no_value_has_no_description() -> None:
    with pytest.raises(ValueError, match="no values"):
        describe([])


def test_equal_values_have_no_spread_whatever_rounding_does() -> None:
    found = describe([0.1] * 3)
    assert (found.sd, found.interval) == (0.0, (found.mean, found.mean))


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1.0, 1e160, 1e300])
def test_values_of_any_size_have_a_spread(scale: float) -> None:
    """Losses of a run that went astray are huge: their squares are no numbers."""
    values, other = [1 * scale, 2 * scale, 4 * scale], [3 * scale, 5 * scale, 4.5 * scale]
    assert (describe(values).sd or 0.0) / scale == pytest.approx(np.std([1, 2, 4], ddof=1))
    welch = welch_difference(values, other)
    assert welch.p == pytest.approx(stats.ttest_ind([1, 2, 4], [3, 5, 4.5], equal_var=False).pvalue)
    assert paired_difference(values, other).p == pytest.approx(stats.ttest_rel([1, 2, 4], [3, 5, 4.5]).pvalue)


@QUICK
@given(PAIRS)
def test_a_paired_difference_is_scipys(pairs: list[tuple[float, float]]) -> None:
    one, other = columns(pairs)
    found = paired_difference(one, other)
    assert (found.method, found.n, found.df) == ("paired", len(pairs), len(pairs) - 1)
    assert found.difference == pytest.approx(np.mean(one) - np.mean(other), abs=1e-12)
    if varied(np.subtract(one, other)):
        wanted = stats.ttest_rel(one, other)
        assert found.p == pytest.approx(wanted.pvalue, abs=1e-9)
        assert found.interval == pytest.approx(tuple(wanted.confidence_interval()), abs=1e-9)
        assert found.sd == pytest.approx(np.std(np.subtract(one, other), ddof=1))


@QUICK
@given(VALUES, VALUES)
def test_a_welch_difference_is_scipys(one: list[float], other: list[float]) -> None:
    found = welch_difference(one, other)
    assert (found.method, found.n) == ("welch", min(len(one), len(other)))
    assert found.difference == pytest.approx(np.mean(one) - np.mean(other), abs=1e-12)
    if varied(one) and varied(other):
        wanted = stats.ttest_ind(one, other, equal_var=False)
        assert found.p == pytest.approx(wanted.pvalue, abs=1e-9)
        assert found.df == pytest.approx(wanted.df)
        assert found.interval == pytest.approx(tuple(wanted.confidence_interval()), abs=1e-9)


def test_welch_where_one_group_does_not_vary() -> None:
    found = welch_difference([0.5, 0.5, 0.5], [0.1, 0.2, 0.4])
    sd = float(np.std([0.1, 0.2, 0.4], ddof=1))
    wanted = stats.ttest_ind_from_stats(0.5, 0.0, 3, 0.7 / 3, sd, 3, equal_var=False)
    assert (found.p, found.df) == pytest.approx((wanted.pvalue, 2))


@QUICK
@given(PAIRS, st.floats(0.001, 0.5))
def test_equivalence_of_pairs_is_statsmodels(pairs: list[tuple[float, float]], margin: float) -> None:
    one, other = columns(pairs)
    if varied(np.subtract(one, other)):
        wanted, _, _ = ttost_paired(np.array(one), np.array(other), -margin, margin)
        assert equivalence_p(paired_difference(one, other), margin) == pytest.approx(wanted, abs=1e-9)


@QUICK
@given(VALUES, VALUES, st.floats(0.001, 0.5))
def test_equivalence_of_groups_is_statsmodels(one: list[float], other: list[float], margin: float) -> None:
    if varied(one) and varied(other):
        wanted, _, _ = ttost_ind(np.array(one), np.array(other), -margin, margin, usevar="unequal")
        assert equivalence_p(welch_difference(one, other), margin) == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize("size", [1, 2, 3, 8, 30])
def test_holm_is_statsmodels(size: int) -> None:
    ps = np.random.default_rng(size).beta(0.5, 3, size).round(2).tolist()  # small ones, some of them equal
    assert holm(ps) == pytest.approx(list(multipletests(ps, method="holm")[1]))


def test_holm_by_hand() -> None:
    assert holm([]) == []
    assert holm([0.03, 0.01, 0.04]) == pytest.approx([0.06, 0.03, 0.06])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.randoms())
def test_holm_asks_for_no_order_and_never_lessens_a_p(ps: list[float], chance: random.Random) -> None:
    order = list(range(len(ps)))
    chance.shuffle(order)
    adjusted = holm(ps)
    assert holm([ps[index] for index in order]) == [adjusted[index] for index in order]
    assert all(p <= one <= 1 for p, one in zip(ps, adjusted, strict=True))


# --- where nothing varies, and rounding ------------------------------------------------------------------------------


@pytest.mark.parametrize("n", range(2, 9))
def test_pairs_that_differ_by_exactly_the_same_are_no_surer_than_the_grain_of_the_metric(n: int) -> None:
    values = [0.9 + 0.01 * seed for seed in range(n)]
    found = paired_difference(values, [value - 0.05 for value in values])
    assert found.still
    assert found.sd == pytest.approx(0.005)  # half of the smallest step between any two values
    by_t = 2 * stats.t.sf(0.05 / (0.005 / math.sqrt(n)), n - 1)
    assert found.p == pytest.approx(by_t if n > 2 else 0.5)
    assert (found.p < 0.05) == (n > 2)
    assert equivalence_p(found, 0.005) > 0.95


def test_one_example_more_at_three_seeds_is_no_difference_yet() -> None:
    one = 1 / 359
    found = paired_difference([340 * one, 342 * one, 345 * one], [339 * one, 341 * one, 344 * one])
    assert found.p > 0.05


def test_groups_without_any_spread() -> None:
    found = welch_difference([0.9] * 3, [0.8] * 4)
    assert found.still
    assert found.sd == pytest.approx(0.05)
    expected = stats.ttest_ind_from_stats(0.9, 0.05, 3, 0.8, 0.05, 4, equal_var=False)
    assert found.p == pytest.approx(expected.pvalue)


def test_accuracies_in_coarse_steps_do_not_break_the_error_rate() -> None:
    """20 test examples: three seeds differ by exactly the same now and then, by chance."""
    generator = np.random.default_rng(0)
    wrong = 0
    for _ in range(4000):
        one, other = generator.binomial(20, 0.9, (2, 3)) / 20
        wrong += paired_difference(one.tolist(), other.tolist()).p < 0.05
    assert wrong / 4000 < 0.06


def test_the_same_values_are_equivalent_by_any_margin() -> None:
    for same in (paired_difference([0.1, 0.2], [0.1, 0.2]), welch_difference([0.3] * 3, [0.3] * 5)):
        assert (same.difference, same.error, same.p) == (0.0, 0.0, 1.0)
        assert equivalence_p(same, 1e-6) == 0.0


def test_what_is_the_same_but_for_rounding_is_no_difference() -> None:
    """A mean over configurations and a single value may differ in the last bit."""
    one, other = [0.1 + 0.2, 0.7 + 0.1], [0.3, 0.8]
    assert one != other
    assert paired_difference(one, other).p == 1.0
    assert welch_difference([0.1 + 0.2] * 3, [0.3] * 3).p == 1.0
    found = probability_of_improvement([0.1 + 0.2] * 3, [0.3] * 3)
    assert found is not None
    assert found.probability == 0.5


@pytest.mark.parametrize("method", [paired_difference, welch_difference])
def test_too_few_values_are_an_error(method: Callable[[list[float], list[float]], Difference]) -> None:
    with pytest.raises(ValueError, match="two values"):
        method([0.1], [0.2])


def test_pairs_of_different_lengths_are_an_error() -> None:
    with pytest.raises(ValueError, match="same seeds"):
        paired_difference([0.1, 0.2], [0.2, 0.3, 0.4])


# --- properties ------------------------------------------------------------------------------------------------------


@QUICK
@given(PAIRS, st.floats(-10, 10), st.floats(0.1, 10))
def test_a_difference_knows_neither_zero_nor_unit(pairs: list[tuple[float, float]], shift: float, unit: float) -> None:
    one, other = columns(pairs)
    if not varied(np.subtract(one, other)):
        return
    plain = paired_difference(one, other)
    moved = paired_difference([unit * a + shift for a in one], [unit * b + shift for b in other])
    assert moved.p == pytest.approx(plain.p, rel=1e-4, abs=1e-9)
    assert moved.difference == pytest.approx(unit * plain.difference, abs=1e-9)
    assert moved.interval == pytest.approx([unit * end for end in plain.interval], rel=1e-4, abs=1e-6)


@QUICK
@given(PAIRS)
def test_the_other_way_round_a_difference_is_its_mirror_image(pairs: list[tuple[float, float]]) -> None:
    one, other = columns(pairs)
    for method in (paired_difference, welch_difference):
        there, back = method(one, other), method(other, one)
        assert back.difference == -there.difference
        assert back.p == there.p
        assert back.interval == pytest.approx((-there.interval[1], -there.interval[0]))
        assert (there.p < 0.05) == (there.interval[0] > 0 or there.interval[1] < 0) or there.error == 0


# --- P(A > B) --------------------------------------------------------------------------------------------------------


def brute_improvement(a: Floats, b: Floats) -> tuple[float, float, float]:
    """P(A > B) by counting, and Newcombe's interval (2006, method 5) by trying 200,000 values of it."""
    theta = float((a[:, None] > b[None, :]).mean() + (a[:, None] == b[None, :]).mean() / 2)
    m, n = len(a), len(b)
    at = np.linspace(0, 1, 200_001)
    half = (m + n) / 2 - 1
    variance = at * (1 - at) * (1 + half * ((1 - at) / (2 - at) + at / (1 + at))) / (m * n)
    inside = at[np.abs(at - theta) <= stats.t.ppf(0.975, m + n - 2) * np.sqrt(variance) + 1e-12]
    return theta, float(min(inside[0], theta)), float(max(inside[-1], theta))


@QUICK
@given(
    st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4]), min_size=2, max_size=6),
    st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4]), min_size=2, max_size=6),
)
def test_the_probability_of_improvement_is_counted_pair_by_pair(a: list[float], b: list[float]) -> None:
    found = probability_of_improvement(a, b)
    assert found is not None
    theta, low, high = brute_improvement(np.array(a), np.array(b))
    assert found.probability == pytest.approx(theta)
    assert found.interval == pytest.approx((low, high), abs=1e-5)
    back = probability_of_improvement(a, b, more_is_better=False)
    assert back is not None
    assert back.probability == pytest.approx(1 - theta)
    assert back.interval == pytest.approx((1 - high, 1 - low), abs=1e-5)


def test_one_run_gives_no_probability() -> None:
    assert probability_of_improvement([0.5], [0.1, 0.2]) is None
    assert probability_of_improvement([0.5, 0.6], [0.1]) is None


@pytest.mark.parametrize(("n", "shift"), [(3, 0.0), (3, 1.5), (5, 0.7), (10, 2.0)])
def test_the_interval_of_a_probability_covers_it(n: int, shift: float) -> None:
    """600 simulated pairs of groups: of 95 % at most 3.6 points (four standard errors) may be missing."""
    rng = np.random.default_rng(1)
    truth = stats.norm.cdf(shift / math.sqrt(2))
    covered = 0
    for a, b in zip(rng.normal(shift, 1, (600, n)), rng.normal(0, 1, (600, n)), strict=True):
        found = probability_of_improvement(a.tolist(), b.tolist())
        assert found is not None
        covered += found.interval[0] <= truth <= found.interval[1]
    assert covered / 600 >= 0.95 - 0.036


# --- coverage and error rates ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 3, 5, 20])
def test_t_intervals_cover(n: int) -> None:
    """4,000 simulated rows: four standard errors are 1.4 points."""
    rng = np.random.default_rng(2)
    intervals = [t_interval(values.tolist()) for values in rng.normal(0.7, 0.01, (4000, n))]
    covered = np.mean([one is not None and one[0] <= 0.7 <= one[1] for one in intervals])
    assert covered == pytest.approx(0.95, abs=0.014)


@pytest.mark.parametrize("n", [3, 5])
def test_intervals_of_differences_cover(n: int) -> None:
    """Seeds that are common to both have a common part, which pairing takes out."""
    rng = np.random.default_rng(3)
    common = rng.normal(0, 0.02, (4000, n))
    one, other = common + rng.normal(0.9, 0.005, (4000, n)), common + rng.normal(0.88, 0.005, (4000, n))
    paired = [paired_difference(a.tolist(), b.tolist()) for a, b in zip(one, other, strict=True)]
    assert np.mean([d.interval[0] <= 0.02 <= d.interval[1] for d in paired]) == pytest.approx(0.95, abs=0.014)
    welch = [welch_difference(a.tolist(), b.tolist()) for a, b in zip(one, other[::-1], strict=True)]
    assert np.mean([d.interval[0] <= 0.02 <= d.interval[1] for d in welch]) >= 0.95 - 0.014
    assert np.mean([d.error for d in paired]) < 0.5 * np.mean([d.error for d in welch])


def families(count: int, size: int, n: int, sd: float, step: float) -> Floats:
    """(count, size + 1, n): baselines and others over seeds, without a difference, in steps of one test example."""
    rng = np.random.default_rng([size, n, round(100 * sd)])
    seeds = rng.normal(340, 3, (count, 1, n))
    values = seeds + rng.normal(0, sd / math.sqrt(2), (count, size + 1, n))
    return np.asarray(np.rint(values) if step else values) / 359


@pytest.mark.parametrize("size", [1, 3, 8])
@pytest.mark.parametrize(
    ("n", "sd", "step"), [(3, 3.0, 0.0), (5, 3.0, 0.0), (3, 1.0, 1.0), (3, 2.0, 1.0), (5, 1.5, 1.0)]
)
def test_where_there_is_no_difference_a_family_seldom_shows_one(size: int, n: int, sd: float, step: float) -> None:
    """At most 5 %, whatever the size of the family and the grain of the metric; four standard errors are 3.1 points."""
    wrong = 0
    for baseline, *others in families(800, size, n, sd, step).tolist():
        wrong += min(holm([paired_difference(other, baseline).p for other in others])) < 0.05
    assert wrong / 800 <= 0.05 + 0.031


@pytest.mark.parametrize("size", [1, 8])
def test_where_the_difference_is_the_margin_a_family_seldom_is_equivalent(size: int) -> None:
    """5 % at most; four standard errors are 3.1 points. Steps of one example of 359, a margin of two of them."""
    margin, wrong = 2 / 359, 0
    for baseline, *others in families(800, size, 4, 1.0, 1.0).tolist():
        shifted = [[value + margin for value in other] for other in others]
        wrong += min(holm([equivalence_p(paired_difference(one, baseline), margin) for one in shifted])) < 0.05
    assert wrong / 800 <= 0.05 + 0.031


# --- power -----------------------------------------------------------------------------------------------------------


def brute_power(effect: float, n: int, alpha: float, groups: int) -> float:
    """Of the two-sided t test, by integrating over the observed spread."""
    df = groups * (n - 1)
    shift, critical = effect * math.sqrt(n / groups), stats.t.ppf(1 - alpha / 2, df)

    def at(spread: float) -> float:
        edge = critical * spread / math.sqrt(df)
        return float(stats.chi.pdf(spread, df) * (stats.norm.sf(edge - shift) + stats.norm.cdf(-edge - shift)))

    around = shift * math.sqrt(df) / critical
    points = sorted({max(0.0, around - 4), around, around + 4})
    low, high = 0.0, float(stats.chi.ppf(1 - 1e-13, df))
    return float(integrate.quad(at, low, high, limit=400, points=[p for p in points if low < p < high])[0])


CASES = [(margin, alpha) for margin in (0.2, 0.5, 1.0, 3.0, 10.0) for alpha in (0.05, 0.05 / 8)]


@pytest.mark.parametrize(("margin", "alpha"), CASES)
def test_so_many_seeds_are_needed_and_no_fewer(margin: float, alpha: float) -> None:
    paired = difference_of(1.0, 5)
    found = seeds_needed(paired, margin, alpha)
    assert found is not None
    assert brute_power(margin, found, alpha, 1) >= 0.8 - 1e-6
    assert found == 2 or brute_power(margin, found - 1, alpha, 1) < 0.8 + 1e-6
    groups = welch_difference([0.0, 1.0, 2.0], [1.0, 2.0, 3.0])
    assert groups.sd == pytest.approx(1.0)
    found = seeds_needed(groups, margin, alpha)
    assert found is not None
    assert brute_power(margin, found, alpha, 2) >= 0.8 - 1e-6
    assert found == 2 or brute_power(margin, found - 1, alpha, 2) < 0.8 + 1e-6


def test_the_power_of_few_seeds_in_a_large_family_is_no_certainty() -> None:
    """0.38 for three seeds, an effect of 5 and a family of 8, where scipy's noncentral t has no number."""
    assert brute_power(5, 3, 0.05 / 8, 1) == pytest.approx(0.377, abs=0.001)
    assert seeds_needed(difference_of(1.0, 3), 5.0, 0.05 / 8) == 4


@pytest.mark.parametrize(("effect", "n"), [(0.8, 10), (0.5, 30), (1.5, 6)])
def test_seeds_needed_agrees_with_statsmodels(effect: float, n: int) -> None:
    wanted = math.ceil(TTestPower().solve_power(effect, None, 0.05, 0.8))
    assert seeds_needed(difference_of(1.0, n), effect) == wanted
    groups = welch_difference([0.0, 1.0, 2.0], [1.0, 2.0, 3.0])
    assert seeds_needed(groups, effect) == math.ceil(TTestIndPower().solve_power(effect, None, 0.05, 0.8))


def test_with_the_seeds_needed_the_margin_is_shown_four_times_of_five() -> None:
    """4,000 simulated sweeps: four standard errors are 2.5 points."""
    found = seeds_needed(difference_of(0.01, 5), 0.008)
    assert found is not None
    rng = np.random.default_rng(4)
    shown = [
        paired_difference(values.tolist(), [0.0] * found).p < 0.05 for values in rng.normal(0.008, 0.01, (4000, found))
    ]
    assert 0.8 - 0.025 <= np.mean(shown) <= brute_power(0.8, found, 0.05, 1) + 0.025


def test_seeds_are_counted_for_the_margin_never_for_the_effect_that_was_observed() -> None:
    assert len({seeds_needed(difference_of(0.01, 5, mean), 0.005) for mean in (0.0, 0.001, 0.05)}) == 1


def test_beyond_reason_nobody_counts_seeds() -> None:
    assert seeds_needed(difference_of(1.0, 5), 1e-4) is None
    edge = seeds_needed(difference_of(1.0, 5), 0.0095)
    assert edge is not None
    assert MOST_SEEDS / 2 < edge <= MOST_SEEDS


def test_without_a_spread_the_grain_of_the_metric_says_how_many_seeds_are_needed() -> None:
    same = paired_difference([0.82, 0.83, 0.84], [0.81, 0.82, 0.83])
    assert seeds_needed(same, 0.005) == seeds_needed(difference_of(0.005, 3), 0.005)


@pytest.mark.parametrize("alpha", [0.05, 0.05 / 8, 0.001])
@pytest.mark.parametrize("n", [2, 3, 5, 10, 100])
def test_the_smallest_difference_is_shown_four_times_of_five(n: int, alpha: float) -> None:
    found = smallest_difference(n, alpha)
    assert found is not None
    if n > 2:
        assert brute_power(found, n, alpha, 1) == pytest.approx(0.8, abs=1e-6)
    else:  # by t² = F: with one degree of freedom the integral above is hard
        edge = stats.t.ppf(1 - alpha / 2, 1)
        assert stats.ncf.sf(edge**2, 1, 1, 2 * found**2) == pytest.approx(0.8, abs=1e-4)


def test_one_seed_shows_nothing() -> None:
    assert smallest_difference(1) is None


def test_more_seeds_show_smaller_differences() -> None:
    found = [smallest_difference(n) or math.inf for n in (2, 3, 5, 10, 30, 100)]
    assert found == sorted(found, reverse=True)
    assert found[2] == pytest.approx(1.682, abs=0.001)  # five seeds: 1.7 standard deviations


# --- seeds and examples ----------------------------------------------------------------------------------------------


def brute_two_way(outcomes: Floats) -> tuple[float, float]:
    """The interval from sums of squares that are written out."""
    seeds, examples = outcomes.shape
    mean = sum(outcomes[s, e] for s in range(seeds) for e in range(examples)) / outcomes.size
    rows = [sum(outcomes[s, e] for e in range(examples)) / examples for s in range(seeds)]
    columns = [sum(outcomes[s, e] for s in range(seeds)) / seeds for e in range(examples)]
    ms_seeds = examples * sum((row - mean) ** 2 for row in rows) / (seeds - 1)
    ms_examples = seeds * sum((column - mean) ** 2 for column in columns) / (examples - 1)
    rest = sum((outcomes[s, e] - rows[s] - columns[e] + mean) ** 2 for s in range(seeds) for e in range(examples)) / (
        (seeds - 1) * (examples - 1)
    )
    over_seeds = stats.t.ppf(0.975, seeds - 1) ** 2 * ms_seeds / outcomes.size
    over_examples = stats.t.ppf(0.975, examples - 1) ** 2 * max(0.0, ms_examples - rest) / outcomes.size
    half = math.sqrt(over_seeds + over_examples)
    return mean - half, mean + half


@pytest.mark.parametrize(("seeds", "examples"), [(2, 2), (3, 7), (5, 20)])
def test_the_interval_over_seeds_and_examples_by_hand(seeds: int, examples: int) -> None:
    outcomes = np.random.default_rng([seeds, examples]).integers(0, 2, (seeds, examples)).astype(float)
    assert seeds_and_examples_interval(outcomes) == pytest.approx(brute_two_way(outcomes))


@pytest.mark.parametrize("shape", [(1, 50), (5, 1), (1, 1)])
def test_one_seed_or_one_example_gives_no_such_interval(shape: tuple[int, int]) -> None:
    assert seeds_and_examples_interval(np.zeros(shape)) is None


@QUICK
@given(st.integers(2, 6), st.integers(2, 30), st.integers(0, 2**32 - 1))
def test_it_is_never_narrower_than_that_over_seeds(seeds: int, examples: int, stream: int) -> None:
    outcomes = np.random.default_rng(stream).integers(0, 2, (seeds, examples)).astype(float)
    wide, narrow = seeds_and_examples_interval(outcomes), t_interval(outcomes.mean(axis=1).tolist())
    assert wide is not None
    assert narrow is not None
    assert wide[0] <= narrow[0] + 1e-12
    assert wide[1] >= narrow[1] - 1e-12


def normal_outcomes(rng: np.random.Generator, seeds: int, examples: int, spreads: tuple[float, float, float]) -> Floats:
    by_seed, by_example, rest = (
        rng.normal(0, spread, shape)
        for spread, shape in zip(spreads, ((seeds, 1), (1, examples), (seeds, examples)), strict=True)
    )
    return by_seed + by_example + rest


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
@pytest.mark.parametrize("spreads", [(0.1, 1.0, 1.0), (0.01, 1.0, 0.5), (0.1, 0.0, 1.0)])
def test_it_covers_the_mean_of_normal_outcomes(seeds: int, spreads: tuple[float, float, float]) -> None:
    """1,000 simulated tables: of 95 % at most 2.8 points (four standard errors) may be missing."""
    rng, covered = np.random.default_rng([5, seeds]), 0
    for _ in range(1000):
        found = seeds_and_examples_interval(normal_outcomes(rng, seeds, 150, spreads))
        assert found is not None
        covered += found[0] <= 0 <= found[1]
    assert covered / 1000 >= 0.95 - 0.028


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize(("level", "by_seed", "by_example"), [(4.0, 0.1, 3.0), (1.0, 0.3, 2.0)])
def test_it_covers_an_accuracy_and_a_difference(seeds: int, level: float, by_seed: float, by_example: float) -> None:
    """Right or wrong by a logit of seed, example and rest, 360 examples; bounds as above, 800 tables."""
    rng = np.random.default_rng([6, seeds])
    logits = level + math.hypot(by_seed, by_example) * rng.normal(size=500_000)
    truth = float((1 / (1 + np.exp(-logits))).mean())
    mean_covered = difference_covered = 0
    for _ in range(800):
        examples = rng.normal(0, by_example, 360)
        one, other = (
            (rng.random((seeds, 360)) < 1 / (1 + np.exp(-(level + rng.normal(0, by_seed, (seeds, 1)) + examples))))
            for _ in range(2)
        )
        mean, difference = (seeds_and_examples_interval(x) for x in (one * 1.0, one * 1.0 - other))
        assert mean is not None
        assert difference is not None
        mean_covered += mean[0] <= truth <= mean[1]
        difference_covered += difference[0] <= 0 <= difference[1]
    assert mean_covered / 800 >= 0.95 - 0.031
    assert difference_covered / 800 >= 0.95 - 0.031


def test_the_interval_over_seeds_alone_does_not_cover_another_test_set() -> None:
    """Why there is a second one: four students that agree on most examples say little of other examples."""
    rng, covered = np.random.default_rng(7), 0
    for _ in range(400):
        narrow = t_interval(normal_outcomes(rng, 5, 150, (0.01, 1.0, 0.3)).mean(axis=1).tolist())
        assert narrow is not None
        covered += narrow[0] <= 0 <= narrow[1]
    assert covered / 400 < 0.7
