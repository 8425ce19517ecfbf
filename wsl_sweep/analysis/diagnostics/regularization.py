"""Regularization samples over training (WSL §3.2): how many, who they are, how stable, and what they do to accuracy."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from wsl_sweep.analysis.diagnostics.arrays import (
    Floats,
    Labels,
    Mask,
    as_labels,
    as_masks,
    as_pair,
    label_margin,
    pieces,
    wide,
)
from wsl_sweep.analysis.diagnostics.correlation import Correlation, pearson, spearman


@dataclass(frozen=True, eq=False)
class Counts:
    """Who is a regularization sample, and when.

    Attributes:
        by_epoch: (E,), how many there are at each epoch (WSL Tab. 1, Fig. 2).
        by_example: (N,), at how many epochs each example is one, 0 … E.
        by_class: (E, C), how many of each class at each epoch.
        share_of_class: (C,), in [0, 1], the share of the class's examples and epochs; NaN for a class without examples.
        times: (E + 1,), how many examples are one at 0, 1, …, E epochs.
        expected_times: (E + 1,), how many were if each epoch drew its number afresh: the wider ``times`` lies about it,
            the more it is always the same examples.
    """

    by_epoch: Labels
    by_example: Labels
    by_class: Labels
    share_of_class: Floats
    times: Labels
    expected_times: Floats


@dataclass(frozen=True)
class Overlap:
    """How far two sets of examples are the same.

    Attributes:
        examples: N, from which both are.
        first, second: their sizes.
        jaccard: ``|A ∩ B| / |A ∪ B|``, in [0, 1]; None where both are empty.
        chance: its mean over all sets of these sizes.
        most: the most that these sizes allow, the smaller by the larger.
        stability: ``(jaccard - chance) / (most - chance)``: 0 at chance, 1 where one holds the other; None where both
            are the same.
        p: one-sided, of so many in common or more by chance (hypergeometric).
    """

    examples: int
    first: int
    second: int
    jaccard: float | None
    chance: float | None
    most: float | None
    stability: float | None
    p: float


@dataclass(frozen=True)
class SeedOverlap:
    """The overlaps of all pairs of seeds at an epoch, and their means.

    Attributes:
        epoch: from 1.
        pairs: of seeds, in order.
        jaccard, chance, stability: means over the pairs that have one; None where none has.
    """

    epoch: int
    pairs: tuple[Overlap, ...]
    jaccard: float | None
    chance: float | None
    stability: float | None


@dataclass(frozen=True)
class Claim:
    """WSL's claim that at a fixed temperature more regularization samples go with lower accuracy.

    Attributes:
        pearson, spearman: of their number with the final accuracy over trials; the claim says below 0.
        verdict: ``supported`` where both intervals lie below 0, ``contradicted`` where both lie above, else
            ``not settled``.
        sentence: for people.
    """

    pearson: Correlation
    spearman: Correlation
    verdict: Literal["supported", "contradicted", "not settled"]
    sentence: str


def regularization_samples(
    student_logits: ArrayLike, teacher_logits: ArrayLike, labels: ArrayLike, temperature: float
) -> Mask:
    """Which examples are regularization samples: ``|b| > |a|`` (WSL §3.2), in float64.

    ``a = p_s[y] - 1`` and ``b = τ (p_s^τ[y] - p_t^τ[y]) - (p_s[y] - 1)``, as in
    ``wsl_sweep.distill.regularization_sample_mask``, which is told of a step in training.

    Args:
        student_logits: (N, C), finite.
        teacher_logits: (N, C), finite.
        labels: (N,), in [0, C).
        temperature: τ > 0.

    Returns:
        (N,) bool.

    Raises:
        ValueError: shapes, labels or temperature are none, or a logit is not finite.
    """
    from scipy.special import expit

    student, teacher, true = as_pair(student_logits, teacher_logits, labels, temperature)
    found = np.empty(len(true), dtype=np.bool_)
    for part in pieces(*student.shape):
        ours, theirs, of_part = wide(student[part]), wide(teacher[part]), true[part]
        wrong = expit(label_margin(ours, of_part))
        softened = [expit(label_margin(one / temperature, of_part)) for one in (theirs, ours)]
        found[part] = np.abs(temperature * (softened[0] - softened[1]) + wrong) > wrong
    return found


def counts(masks: ArrayLike, labels: ArrayLike, classes: int) -> Counts:
    """Counts of regularization samples by epoch, example and class.

    Args:
        masks: (E, N) bool: at each epoch, whether each example is one (``|b| > |a|``, WSL §3.2). Epochs of several
            seeds may follow one another.
        labels: (N,), in [0, classes).
        classes: C >= 1.

    Raises:
        ValueError: shapes, types or labels that do not fit.
    """
    given = as_masks(masks, 2)
    epochs, examples = given.shape
    true = as_labels(labels, examples, classes)
    by_example = given.sum(axis=0)
    by_class = np.stack([np.bincount(true[line], minlength=classes) for line in given])
    sizes = np.bincount(true, minlength=classes).astype(np.float64)
    sizes[sizes == 0] = np.nan
    by_epoch = given.sum(axis=1)
    return Counts(
        by_epoch=by_epoch,
        by_example=by_example,
        by_class=by_class,
        share_of_class=by_class.sum(axis=0) / (sizes * epochs),
        times=np.bincount(by_example, minlength=epochs + 1),
        expected_times=examples * _poisson_binomial(by_epoch / examples),
    )


def _poisson_binomial(chances: Floats) -> Floats:
    """How likely 0, 1, … of independent events of these chances happen."""
    found = np.ones(1)
    for chance in chances:
        found = np.convolve(found, [1 - chance, chance])
    return found


def overlap(first: ArrayLike, second: ArrayLike) -> Overlap:
    """Jaccard's index of two sets against what chance gives sets of the same sizes.

    The number in common of random sets is hypergeometric; its Jaccard index is averaged exactly.

    Args:
        first, second: (N,) bool, over the same examples.

    Raises:
        ValueError: other shapes or types.
    """
    one, other = as_masks(first, 1), as_masks(second, 1)
    if one.shape != other.shape:
        raise ValueError(f"an overlap takes two masks of the same examples, not {one.shape} and {other.shape}")
    return _overlap(len(one), int(one.sum()), int(other.sum()), int((one & other).sum()))


def _overlap(examples: int, first: int, second: int, common: int) -> Overlap:
    together = first + second
    if together == 0:
        return Overlap(examples, first, second, None, None, None, None, 1.0)
    from scipy.special import gammaln

    def log_choose(n: int, k: Floats) -> Floats:
        return np.asarray(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1))

    possible = np.arange(max(0, together - examples), min(first, second) + 1, dtype=np.float64)
    logs = log_choose(first, possible) + log_choose(examples - first, second - possible)
    likely = np.exp(logs - logs.max())
    likely /= likely.sum()
    jaccard = common / (together - common)
    chance = float((likely * possible / (together - possible)).sum())
    most = min(first, second) / max(first, second)
    stability = (jaccard - chance) / (most - chance) if most - chance > 1e-12 else None
    p = min(1.0, float(likely[possible >= common].sum()))
    return Overlap(examples, first, second, jaccard, chance, most, stability, p)


def between_epochs(masks: ArrayLike, apart: int = 1) -> tuple[Overlap, ...]:
    """The overlap of each epoch's set with that of an earlier epoch.

    Args:
        masks: (E, N) bool, E > apart.
        apart: how many epochs earlier, at least 1.

    Returns:
        E - apart of them: of epochs 1 and 1 + apart, 2 and 2 + apart, ….

    Raises:
        ValueError: another shape or type, or too few epochs.
    """
    given = as_masks(masks, 2)
    if not 1 <= apart < len(given):
        raise ValueError(f"epochs lie 1 … {len(given) - 1} apart where there are {len(given)}, not {apart}")
    return tuple(overlap(earlier, later) for earlier, later in zip(given, given[apart:], strict=False))


def between_seeds(masks: ArrayLike) -> tuple[SeedOverlap, ...]:
    """The overlap of the sets of each two seeds, epoch by epoch.

    Args:
        masks: (S, E, N) bool, S >= 2, of the same examples in the same order.

    Raises:
        ValueError: another shape or type, or one seed.
    """
    given = as_masks(masks, 3)
    if len(given) < 2:
        raise ValueError("an overlap between seeds takes two seeds or more")
    found = []
    for epoch in range(given.shape[1]):
        pairs = tuple(overlap(one[epoch], other[epoch]) for one, other in itertools.combinations(given, 2))
        means = (_mean([one.jaccard for one in pairs]), _mean([one.chance for one in pairs]))
        found.append(SeedOverlap(epoch + 1, pairs, *means, _mean([one.stability for one in pairs])))
    return tuple(found)


def _mean(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return math.fsum(there) / len(there) if there else None


def jaccard_matrix(masks: ArrayLike) -> Floats:
    """(E, E) Jaccard indices of all epochs (or seeds) with each other; NaN where both sets are empty.

    Args:
        masks: (E, N) bool.

    Raises:
        ValueError: another shape or type.
    """
    numbers = as_masks(masks, 2).astype(np.float32)  # whole numbers below 2^24 are exact
    common = (numbers @ numbers.T).astype(np.float64)
    sizes = np.diagonal(common)
    union = sizes[:, None] + sizes[None, :] - common
    return np.where(union > 0, common / np.where(union > 0, union, 1.0), np.nan)


def correlation_with_accuracy(numbers: Sequence[float], accuracies: Sequence[float]) -> Claim:
    """WSL's claim (§3.2): at a fixed temperature the final performance falls with the number of regularization samples.

    A correlation over trials, whatever else differs between them: it is the claim's own evidence (Tab. 1), and no proof
    of a cause. Hand over trials of one temperature at a time: b, and so what counts as one, depends on it.

    Args:
        numbers: of each trial, how many regularization samples it had, or what share; finite.
        accuracies: of each trial, at its end; finite.

    Raises:
        ValueError: not as many of one as of the other, or not finite.
    """
    line, rank = pearson(numbers, accuracies), spearman(numbers, accuracies)
    intervals = [one.interval for one in (line, rank) if one.interval is not None]
    if line.value is None:
        said = f"{line.note} Nothing can be said of regularization samples and accuracy."
        return Claim(line, rank, "not settled", said)
    told = f"Over {line.n} trials the number of regularization samples correlates with the final accuracy by r = "
    told += f"{line.value:.2f}"
    if not intervals:
        return Claim(line, rank, "not settled", f"{told}. {line.note}")
    (low, high), rho = intervals[0], rank.value or 0.0
    told += f" (95 % interval {low:.2f} to {high:.2f}; of ranks {rho:.2f})"
    if len(intervals) == 2 and all(end < 0 for _, end in intervals):
        return Claim(line, rank, "supported", f"{told}: more go with lower accuracy, as WSL says.")
    if len(intervals) == 2 and all(end > 0 for end, _ in intervals):
        return Claim(line, rank, "contradicted", f"{told}: more go with higher accuracy, against what WSL says.")
    return Claim(
        line, rank, "not settled", f"{told}: WSL's claim that more go with lower accuracy is not settled here."
    )
