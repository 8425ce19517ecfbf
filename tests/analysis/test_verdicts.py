"""From two rows to a verdict in words."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.analysis.helpers import row
from wsl_sweep.analysis import Comparison, Question, Row, holm, judge, seeds_needed
from wsl_sweep.analysis.statistics import equivalence_p
from wsl_sweep.analysis.verdicts import number, p_text

ACCURACY = Question("test/accuracy", True, 0.005)
LOSS = Question("test/loss", False, 0.05)
BASE = [0.900, 0.902, 0.898, 0.901, 0.899]


def shifted(by: float, noise: float = 0.001) -> list[float]:
    """The baseline's values, better by so much on average, give or take."""
    return [value + by + noise * (-1) ** seed for seed, value in enumerate(BASE)]


def compare(one: Row, baseline: Row, question: Question = ACCURACY) -> Comparison:
    (found,) = judge([(one, baseline)], question)
    return found


# --- the four verdicts, and none --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        (shifted(0.02), "better"),
        (shifted(-0.02), "worse"),
        (shifted(0.0003), "equivalent"),
        (shifted(0.003, 0.0002), "equivalent"),  # there is a difference, and it does not matter
        (shifted(0.004, 0.01), "inconclusive"),
    ],
)
def test_more_of_an_accuracy_is_better(values: list[float], verdict: str) -> None:
    assert compare(row("wsl", values), row("kd", BASE)).verdict == verdict


@pytest.mark.parametrize(("by", "verdict"), [(0.5, "worse"), (-0.5, "better")])
def test_less_of_a_loss_is_better(by: float, verdict: str) -> None:
    found = compare(row("wsl", shifted(by)), row("kd", BASE), LOSS)
    assert found.verdict == verdict
    assert found.improvement is not None
    assert found.improvement.probability == (1.0 if verdict == "better" else 0.0)
    assert f"wsl is {verdict} than kd by {'0.5002' if by > 0 else '0.4998'} test/loss" in found.sentence


@pytest.mark.parametrize(("one", "other"), [([0.9], BASE), (BASE, [0.9]), ([0.9], [0.8]), ([], BASE), (BASE, [])])
def test_fewer_than_two_seeds_give_no_verdict(one: list[float], other: list[float]) -> None:
    found = compare(row("wsl", one), row("kd", other))
    assert found.verdict is found.difference is found.p_holm is found.equivalence_p is found.improvement is None
    few = "wsl" if len(one) <= len(other) else "kd"
    assert f"no verdict ({few} has {'one seed' if 1 in (len(one), len(other)) else 'no seeds'}" in found.sentence


def test_why_seeds_are_too_few_is_said() -> None:
    lost = row("wsl", [0.9], missing={"failed": 3, "pruned": 1})
    assert compare(lost, row("kd", BASE)).sentence == (
        "wsl against kd: no verdict (wsl has one seed (3 failed, 1 pruned))."
    )


def test_a_difference_that_does_not_matter_is_said_to_be_one() -> None:
    sentence = compare(row("wsl", shifted(0.003, 0.0002)), row("kd", BASE)).sentence
    assert sentence.startswith("wsl and kd are equivalent within 0.005 test/accuracy (95 % interval +0.0028 to +0.0033")
    assert sentence.endswith("; there is a difference, and it is smaller than what matters).")
    assert "there is a difference" not in compare(row("wsl", shifted(0.0)), row("kd", BASE)).sentence


def test_the_same_trials_are_equivalent() -> None:
    found = compare(row("plain", BASE), row("kd", BASE))
    assert found.verdict == "equivalent"
    assert found.p_holm == 1.0


@pytest.mark.parametrize(("n", "steps"), [(2, 10), (3, 1), (3, 2)])
def test_a_few_seeds_that_differ_by_exactly_the_same_are_no_proof(n: int, steps: int) -> None:
    pairs = [(row("wsl", [value + 0.001 * steps for value in BASE[:n]]), row("kd", BASE[:n]))] * 3
    for found in judge(pairs, Question("test/accuracy", True, 0.0005)):
        assert found.verdict == "inconclusive"
        assert "differences do not vary: half the smallest step of the metric" in found.sentence


def test_many_seeds_that_differ_by_exactly_the_same_are() -> None:
    base = np.linspace(0.8, 0.9, 8)
    assert compare(row("wsl", (base + 0.01).tolist()), row("kd", base.tolist())).verdict == "better"


# --- pairing ----------------------------------------------------------------------------------------------------------


def test_common_seeds_are_paired_whatever_their_order() -> None:
    one = row("wsl", {3: 0.93, 1: 0.91, 2: 0.92})
    found = compare(one, row("kd", {1: 0.90, 2: 0.91, 3: 0.92}))
    assert found.difference is not None
    assert (found.difference.method, found.common, found.alone) == ("paired", 3, 0)
    assert found.difference.difference == pytest.approx(0.01)
    assert found.difference.still


def test_seeds_without_a_partner_are_left_aside_and_counted() -> None:
    one, other = row("wsl", {0: 0.91, 1: 0.93, 2: 0.92, 9: 0.1}), row("kd", {0: 0.90, 1: 0.91, 2: 0.92, 7: 0.9, 8: 0.1})
    found = compare(one, other)
    assert found.difference is not None
    assert (found.difference.method, found.difference.n, found.common, found.alone) == ("paired", 3, 3, 3)
    assert found.difference.difference == pytest.approx(0.01)
    assert "3 paired seeds, 3 without a partner left aside" in found.sentence


@pytest.mark.parametrize(
    ("one", "other", "method"),
    [
        ([0, 1, 2], [3, 4, 5], "welch"),
        ([0, 1, 2], [2, 3, 4], "welch"),  # one in common
        ([0, 1, 2, 3], [2, 3, 4, 5], "welch"),  # half of them
        ([0, 1, 2], [1, 2, 3], "paired"),  # most of them
        ([0, 1], list(range(30)), "paired"),  # all of the smaller
        ([0, 1], [1, 2], "welch"),
    ],
)
def test_where_most_seeds_do_not_match_the_test_is_welchs(one: list[int], other: list[int], method: str) -> None:
    found = compare(
        row("wsl", {seed: 0.9 + 0.001 * (seed % 3) for seed in one}),
        row("kd", {seed: 0.8 + 0.001 * (seed % 2) for seed in other}),
    )
    assert found.difference is not None
    assert found.difference.method == method
    assert ("seeds do not match, so unpaired: Welch's test on" in found.sentence) == (method == "welch")


# --- families ---------------------------------------------------------------------------------------------------------


def test_p_is_adjusted_over_the_family_and_only_over_what_was_tested() -> None:
    rng = np.random.default_rng(0)
    rows = [row(f"v{index}", (0.9 + rng.normal(0.002 * index, 0.002, 5)).tolist()) for index in range(4)]
    few, baseline = row("few", [0.9]), row("kd", BASE)
    found = judge([(one, baseline) for one in [*rows[:2], few, *rows[2:]]], ACCURACY)
    tested = [one for one in found if one.difference is not None]
    assert [one.row for one in tested] == ["v0", "v1", "v2", "v3"]
    differences = [one.difference for one in tested if one.difference]
    assert [one.p_holm for one in tested] == pytest.approx(holm([one.p for one in differences]))
    assert [one.equivalence_p for one in tested] == pytest.approx(holm([equivalence_p(d, 0.005) for d in differences]))
    assert all("Holm over 4" in one.sentence for one in tested)
    assert found[2].verdict is None


def test_what_is_shown_alone_may_not_be_shown_in_a_family() -> None:
    rng = np.random.default_rng(1)
    close = row("close", shifted(0.0028, 0.0022))
    question = Question("test/accuracy", True, 0.0005)
    assert compare(close, row("kd", BASE), question).verdict == "better"
    others = [row(f"v{index}", (0.9 + rng.normal(0, 0.004, 5)).tolist()) for index in range(7)]
    (found, *_) = judge([(one, row("kd", BASE)) for one in [close, *others]], question)
    assert found.verdict == "inconclusive"
    assert found.difference is not None
    assert found.seeds_needed == seeds_needed(found.difference, 0.0005, 0.05 / 8)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(330, 350), min_size=4, max_size=4), min_size=2, max_size=6))
def test_verdicts_are_what_their_p_values_say(counts: list[list[int]]) -> None:
    rows = [row(f"v{index}", [count / 359 for count in values]) for index, values in enumerate(counts)]
    for one in judge([(other, rows[0]) for other in rows[1:]], ACCURACY):
        assert one.difference is not None
        assert one.p_holm is not None
        assert one.equivalence_p is not None
        if one.equivalence_p < 0.05:
            assert one.verdict == "equivalent"
            assert abs(one.difference.difference) < 0.005
        elif one.p_holm < 0.05:
            assert one.verdict == ("better" if one.difference.difference > 0 else "worse")
        else:
            assert one.verdict == "inconclusive"
        assert (one.verdict == "inconclusive") or one.seeds_needed is None


def test_under_no_difference_few_families_have_a_better_or_a_worse() -> None:
    """As in test_statistics.py, by the verdicts themselves: 200 families of 3; four standard errors are 6 points."""
    rng, wrong = np.random.default_rng(2), 0
    for _ in range(200):
        common = rng.normal(340, 3, 4)
        rows = [row(f"v{index}", (np.rint(common + rng.normal(0, 1, 4)) / 359).tolist()) for index in range(4)]
        found = judge([(one, rows[0]) for one in rows[1:]], Question("test/accuracy", True, 1e-6))
        wrong += any(one.verdict in ("better", "worse") for one in found)
    assert wrong / 200 <= 0.05 + 0.062


# --- how many seeds ---------------------------------------------------------------------------------------------------


def test_an_inconclusive_verdict_says_how_many_seeds_would_show_the_margin() -> None:
    found = compare(row("wsl", shifted(0.001, 0.01)), row("kd", BASE))
    assert found.difference is not None
    needed = seeds_needed(found.difference, 0.005)
    assert found.seeds_needed == needed
    assert needed is not None
    assert needed > 5
    assert f"about {needed} seeds would show a difference of 0.005 with 80 % power, there are 5)." in found.sentence


def test_it_asks_for_the_margin_whatever_was_observed() -> None:
    found = {compare(row("wsl", shifted(by, 0.01)), row("kd", BASE)).seeds_needed for by in (0.0, 0.002, -0.004)}
    assert len(found) == 1


def test_where_the_seeds_suffice_and_nothing_is_seen_that_is_said() -> None:
    base = [0.90, 0.91, 0.92, 0.93, 0.94, 0.95]
    half_way = [value + 0.005 + 0.006 * (-1) ** seed for seed, value in enumerate(base)]
    found = compare(row("wsl", half_way), row("kd", base), Question("test/accuracy", True, 0.01))
    assert found.verdict == "inconclusive"
    assert found.seeds_needed is not None
    assert found.seeds_needed <= 6
    assert "6 seeds show a difference of 0.01 test/accuracy with 80 % power, and neither that nor its" in found.sentence


def test_where_no_number_of_seeds_would_do_that_is_said() -> None:
    found = compare(row("wsl", shifted(0.001, 0.01)), row("kd", BASE), Question("test/accuracy", True, 1e-6))
    assert found.seeds_needed is None
    assert "no reasonable number of seeds would show a difference of 1e-06" in found.sentence


def test_unpaired_seeds_are_counted_in_each_group() -> None:
    found = compare(row("wsl", {10: 0.9, 11: 0.95, 12: 0.85}), row("kd", BASE))
    assert re.search(r"about \d+ seeds each would show .* there are 3\)\.$", found.sentence)


# --- tuning budgets ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row_trials", "baseline_trials", "said"),
    [
        (12, 0, "kd was not tuned, wsl by 12 trials: part of the difference may be the tuning"),
        (12, 1, "kd was tuned by 1 trial, wsl by 12 trials: part of the difference may be the tuning"),
        (0, 12, "wsl was not tuned, kd by 12 trials: part of the difference may be the tuning"),
        (12, 12, None),
        (0, 0, None),
    ],
)
@pytest.mark.parametrize("seeds", [1, 5])
def test_a_smaller_tuning_budget_is_said_with_a_verdict_and_without_one(
    row_trials: int, baseline_trials: int, said: str | None, seeds: int
) -> None:
    one = row("wsl", shifted(0.02)[:seeds], tuning_trials=row_trials)
    found = compare(one, row("kd", BASE, tuning_trials=baseline_trials))
    assert found.smaller_budget == (baseline_trials < row_trials)
    assert found.row_smaller_budget == (row_trials < baseline_trials)
    assert ("part of the difference may be the tuning" in found.sentence) == (said is not None)
    assert said is None or said in found.sentence


# --- figures in words -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "metric", "signed", "text"),
    [
        (0.91234567, "test/accuracy", False, "0.9123"),
        (0.91234567, "test/accuracy", True, "+0.9123"),
        (-0.00512, "test/ece", True, "−0.0051"),
        (0.0, "test/accuracy", True, "+0.0000"),
        (-0.0, "test/accuracy", True, "+0.0000"),
        (-0.00001, "test/accuracy", True, "−0.0000"),
        (1234567.8, "test/loss", False, "1.235e+06"),
        (-1e-7, "test/loss", True, "−1e-07"),
        (12.5, "train/seconds", False, "12.5"),
    ],
)
def test_numbers_as_people_read_them(value: float, metric: str, signed: bool, text: str) -> None:
    assert number(value, metric, signed=signed) == text


@pytest.mark.parametrize(
    ("p", "text"),
    [
        (0.0, "<0.0001"),
        (0.00012, "0.00012"),
        (0.034, "0.034"),
        (0.049996, "0.049996"),
        (0.05, "0.05"),
        (0.3111, "0.31"),
    ],
)
def test_a_p_below_five_percent_never_reads_as_five_percent(p: float, text: str) -> None:
    assert p_text(p) == text


def test_a_very_small_p_and_a_small_margin_keep_their_meaning() -> None:
    better = compare(row("wsl", shifted(0.05, 0.0001)), row("kd", BASE))
    assert "p < 0.0001" in better.sentence
    tight = compare(row("wsl", shifted(0.0, 1e-7)), row("kd", BASE), Question("test/accuracy", True, 0.00001))
    assert "equivalent within 1e-05 test/accuracy" in tight.sentence
