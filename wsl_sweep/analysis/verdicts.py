"""From two rows of a table to a verdict in words."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from wsl_sweep.analysis.grouping import Row
from wsl_sweep.analysis.power import seeds_needed
from wsl_sweep.analysis.statistics import (
    ALPHA,
    Difference,
    Improvement,
    Interval,
    equivalence_p,
    holm,
    paired_difference,
    probability_of_improvement,
    welch_difference,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

Verdict = Literal["better", "worse", "equivalent", "inconclusive"]

FRACTIONS = frozenset({"accuracy", "ece", "fraction", "agreement"})


def unit(metric: str) -> str:
    """What a metric counts: ``accuracy`` of ``test/accuracy``, and of ``test/accuracy_matched``."""
    name = metric.rsplit("/", 1)[-1]
    return next((word for word in name.split("_") if word in FRACTIONS), name)


def number(value: float, metric: str, *, signed: bool = False) -> str:
    """A value of a metric, or a difference of two, as a person wants to read it: fractions to four places."""
    plain = f"{value:.4f}" if unit(metric) in FRACTIONS else f"{value:.4g}"
    if not signed:
        return plain
    return f"+{plain.removeprefix('-')}" if value >= 0 else plain.replace("-", "−", 1)


@dataclass(frozen=True)
class Comparison:
    """A row against the baseline.

    Attributes:
        row: its label.
        baseline: the baseline's.
        difference: of the means, with interval and test; None where one of the two has too few seeds.
        wide_interval: of the difference, over seeds and test examples; None where test logits were not kept.
        common: seeds that both have.
        alone: seeds that only one of the two has.
        p_holm: the test's p, adjusted for the family.
        equivalence_p: of two one-sided tests within the margin, adjusted for the family.
        improvement: P(row > baseline).
        verdict: None with one seed: no verdict follows from it.
        seeds_needed: where it is inconclusive, how many would show a difference of the margin with 80 % power.
        smaller_budget: whether the baseline's settings were tuned with fewer trials than the row's, or not at all.
        row_smaller_budget: whether the row's were, as those of an untuned row beside a tuned baseline.
        headline: the verdict in a few words.
        grounds: what it rests on, in words.
    """

    row: str
    baseline: str
    difference: Difference | None
    wide_interval: Interval | None
    common: int
    alone: int
    p_holm: float | None
    equivalence_p: float | None
    improvement: Improvement | None
    verdict: Verdict | None
    seeds_needed: int | None
    smaller_budget: bool
    row_smaller_budget: bool
    headline: str = ""
    grounds: str = ""

    @property
    def sentence(self) -> str:
        """The verdict in words, with what it rests on."""
        return f"{self.headline} ({self.grounds})."


@dataclass(frozen=True)
class Question:
    """What is asked of every pair.

    Attributes:
        metric: whose values.
        more_is_better: whether more of it is.
        margin: the smallest difference that matters, in its unit.
    """

    metric: str
    more_is_better: bool
    margin: float


def judge(
    pairs: Sequence[tuple[Row, Row]], question: Question, wide: Sequence[Interval | None] | None = None
) -> list[Comparison]:
    """The comparisons of one family: each row with its baseline.

    A difference is shown, or an equivalence, where its p, adjusted by Holm's method over the family, is below 0.05.
    What is both is *equivalent*: there is a difference, and it is smaller than what matters.

    Args:
        pairs: (row, baseline).
        question: what is asked of each.
        wide: of each pair the interval over seeds and examples.
    """
    differences = [_difference(row, baseline) for row, baseline in pairs]
    adjusted = _adjusted([one.p if one else None for one in differences])
    equivalences = _adjusted([equivalence_p(one, question.margin) if one else None for one in differences])
    tested = sum(one is not None for one in differences)
    found = []
    for index, (row, baseline) in enumerate(pairs):
        difference = differences[index]
        verdict = _verdict(difference, adjusted[index], equivalences[index], question)
        needed = None
        if verdict == "inconclusive" and difference is not None:
            needed = seeds_needed(difference, question.margin, ALPHA / max(1, tested))
        comparison = Comparison(
            row=row.label,
            baseline=baseline.label,
            difference=difference,
            wide_interval=wide[index] if wide else None,
            common=len(row.by_seed.keys() & baseline.by_seed.keys()),
            alone=len(row.by_seed.keys() ^ baseline.by_seed.keys()),
            p_holm=adjusted[index],
            equivalence_p=equivalences[index],
            improvement=probability_of_improvement(row.values, baseline.values, more_is_better=question.more_is_better),
            verdict=verdict,
            seeds_needed=needed,
            smaller_budget=baseline.tuning_trials < row.tuning_trials,
            row_smaller_budget=row.tuning_trials < baseline.tuning_trials,
        )
        headline, grounds = _headline(comparison, question), _grounds(comparison, row, baseline, question, tested)
        found.append(replace(comparison, headline=headline, grounds=grounds))
    return found


def _difference(row: Row, baseline: Row) -> Difference | None:
    """Paired where most seeds are common, else Welch's; None with fewer than two values."""
    common = paired_seeds(row, baseline)
    if common:
        return paired_difference([row.by_seed[seed] for seed in common], [baseline.by_seed[seed] for seed in common])
    if min(len(row.seeds), len(baseline.seeds)) >= 2:
        return welch_difference(row.values, baseline.values)
    return None


def paired_seeds(row: Row, baseline: Row) -> tuple[int, ...]:
    """The seeds by which two rows are paired; none where fewer than two, or only the lesser part, are common."""
    common = tuple(seed for seed in row.seeds if seed in baseline.by_seed)
    most = 2 * len(common) > min(len(row.seeds), len(baseline.seeds))
    return common if len(common) >= 2 and most else ()


def _adjusted(ps: Sequence[float | None]) -> list[float | None]:
    there = iter(holm([p for p in ps if p is not None]))
    return [None if p is None else next(there) for p in ps]


def _verdict(
    difference: Difference | None, p: float | None, equivalence: float | None, question: Question
) -> Verdict | None:
    if difference is None or p is None or equivalence is None:
        return None
    if equivalence < ALPHA:
        return "equivalent"
    if p < ALPHA:
        return "better" if (difference.difference > 0) == question.more_is_better else "worse"
    return "inconclusive"


def _headline(comparison: Comparison, question: Question) -> str:
    row, baseline, difference = comparison.row, comparison.baseline, comparison.difference
    if difference is None:
        return f"{row} against {baseline}: no verdict"
    metric = question.metric
    match comparison.verdict:
        case "better" | "worse" as word:
            return f"{row} is {word} than {baseline} by {number(abs(difference.difference), metric)} {metric}"
        case "equivalent":
            return f"{row} and {baseline} are equivalent within {question.margin:g} {metric}"
        case _:
            signed = number(difference.difference, metric, signed=True)
            return f"{row} against {baseline} is inconclusive: {signed} {metric}"


def _grounds(comparison: Comparison, row: Row, baseline: Row, question: Question, tested: int) -> str:
    difference, metric = comparison.difference, question.metric
    budget = [budget_note(row, baseline)] if row.tuning_trials != baseline.tuning_trials else []
    if difference is None:
        few = min((row, baseline), key=lambda one: len(one.seeds))
        return "; ".join([f"{few.label} has {_seeds(len(few.seeds))}{_lost(few)}", *budget])
    low, high = (number(end, metric, signed=True) for end in difference.interval)
    family = f", Holm over {tested}" if tested > 1 else ""
    tests = _p(comparison.p_holm)
    if comparison.verdict == "equivalent":
        tests = f"two one-sided tests: {_p(comparison.equivalence_p)}"
    said = [f"95 % interval {low} to {high}, {tests}{family}, {_how(comparison, row, baseline)}"]
    if comparison.verdict == "inconclusive":
        said.append(_more(comparison, f"{question.margin:g}", metric))
    elif comparison.verdict == "equivalent" and comparison.p_holm is not None and comparison.p_holm < ALPHA:
        said.append("there is a difference, and it is smaller than what matters")
    return "; ".join([*said, *budget])


def budget_note(row: Row, baseline: Row) -> str:
    """What to know where one of two was tuned less than the other."""
    less, more = sorted((row, baseline), key=lambda one: one.tuning_trials)
    spent = f"was tuned by {_trials(less.tuning_trials)}" if less.tuning_trials else "was not tuned"
    return (
        f"{less.label} {spent}, {more.label} by {_trials(more.tuning_trials)}: part of the difference may be the tuning"
    )


def _how(comparison: Comparison, row: Row, baseline: Row) -> str:
    difference = comparison.difference
    assert difference is not None
    still = (
        ", whose differences do not vary: half the smallest step of the metric is taken as their spread"
        if difference.still
        else ""
    )
    if difference.method == "welch":
        counts = f"{len(row.seeds)} and {len(baseline.seeds)} seeds"
        return f"seeds do not match, so unpaired: Welch's test on {counts}{still}"
    alone = f", {comparison.alone} without a partner left aside" if comparison.alone else ""
    return f"{difference.n} paired seeds{alone}{still}"


def _more(comparison: Comparison, margin: str, metric: str) -> str:
    difference = comparison.difference
    assert difference is not None
    if comparison.seeds_needed is None:
        return f"no reasonable number of seeds would show a difference of {margin}"
    if comparison.seeds_needed <= difference.n:
        return (
            f"{difference.n} seeds show a difference of {margin} {metric} with 80 % power, and neither that nor its "
            "absence is seen"
        )
    each = " each" if difference.method == "welch" else ""
    return (
        f"about {comparison.seeds_needed} seeds{each} would show a difference of {margin} with 80 % power, there are "
        f"{difference.n}"
    )


def _seeds(count: int) -> str:
    return "one seed" if count == 1 else f"{count or 'no'} seeds"


def _trials(count: int) -> str:
    return "1 trial" if count == 1 else f"{count} trials"


def _lost(row: Row) -> str:
    return f" ({missing_text(row)})" if row.missing else ""


def missing_text(row: Row) -> str:
    """``1 failed, 2 pruned``: the seeds without a value."""
    return ", ".join(f"{count} {reason}" for reason, count in row.missing.items())


def _p(value: float | None) -> str:
    assert value is not None
    return "p < 0.0001" if value < 0.0001 else f"p = {p_text(value)}"


def p_text(value: float) -> str:
    """A p as a person wants to read it; one below 0.05 never reads as 0.05."""
    if value < 0.0001:
        return "<0.0001"
    shown = f"{value:.2g}" if value < 0.1 else f"{value:.2f}"
    return f"{value:.6g}" if (value < ALPHA) != (float(shown) < ALPHA) else shown
