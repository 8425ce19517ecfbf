"""Bias and variance of students (WSL §3, after Heskes 1998), the middle term of WSL eq. 3, and Assumption 1.

From K models with log-probabilities ``log p_k``: ``m = mean_k log p_k``, ``Z = Σ_c exp m_c``, ``p̄ = exp(m) / Z``. The
bias is ``-log p̄[y]``, the variance ``mean_k KL(p̄ ‖ p_k) = -log Z``, and their sum the mean cross-entropy, all exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wsl_sweep.analysis.diagnostics.arrays import (
    Floats,
    Labels,
    Mask,
    as_labels,
    as_logits,
    as_masks,
    label_cross_entropy,
    log_softmax,
    pieces,
    wide,
)
from wsl_sweep.analysis.diagnostics.resampling import (
    RESAMPLES,
    Method,
    bootstrap_means,
    interval_of_means,
    jackknife_interval,
)
from wsl_sweep.analysis.statistics import Interval

CORRECTION = (
    "The plug-in variance of K models is too low. K/(K-1) mends most of it where it is small, less where it is large."
)

Settled = Literal["holds", "fails", "not settled"]


@dataclass(frozen=True, eq=False)
class Decomposition:
    """Bias and variance by example, plain (plug-in), in nats at τ = 1.

    Attributes:
        models: K.
        bias: (N,), ``-log p̄[y]``.
        variance: (N,), ``-log Z``, >= 0 up to rounding.
        divergence: (N,), ``mean_k KL(p̄ ‖ p_k)``, computed by itself.
        cross_entropy: (N,), ``mean_k -log p_k[y]``, computed by itself.
        bias_without, variance_without: (K, N): of the K - 1 models without each of them.
    """

    models: int
    bias: Floats
    variance: Floats
    divergence: Floats
    cross_entropy: Floats
    bias_without: Floats
    variance_without: Floats

    @property
    def examples(self) -> int:
        """N."""
        return len(self.bias)

    @property
    def gap(self) -> float:
        """The largest ``|bias + mean KL - mean cross-entropy|`` or ``|variance - mean KL|`` of an example: rounding."""
        sums = np.abs(self.bias + self.divergence - self.cross_entropy).max()
        return float(max(sums, np.abs(self.variance - self.divergence).max()))

    @property
    def corrected_variance(self) -> Floats:
        """(N,), ``K/(K-1) · variance``."""
        return self.variance * (self.models / (self.models - 1))

    @property
    def corrected_bias(self) -> Floats:
        """(N,), what of the cross-entropy the corrected variance leaves."""
        return self.cross_entropy - self.corrected_variance

    def of(self, mask: ArrayLike) -> Decomposition:
        """Of some of the examples, at least one.

        Args:
            mask: (N,) bool.

        Raises:
            ValueError: another shape or type, or no example.
        """
        chosen = as_masks(mask, 1, "the mask")
        if chosen.shape != self.bias.shape or not chosen.any():
            raise ValueError(f"the mask must have the shape {self.bias.shape} and hold an example")
        return Decomposition(
            models=self.models,
            bias=self.bias[chosen],
            variance=self.variance[chosen],
            divergence=self.divergence[chosen],
            cross_entropy=self.cross_entropy[chosen],
            bias_without=self.bias_without[:, chosen],
            variance_without=self.variance_without[:, chosen],
        )


@dataclass(frozen=True)
class Estimate:
    """A mean over examples, in nats.

    Attributes:
        value: the mean.
        over_examples: 95 % interval by bootstrap: how far other examples could move it, with these models.
        over_models: 95 % interval by jackknife: how far other models could, on these examples. None where it cannot be
            told: for fewer than two models, and for what is corrected fewer than three.
    """

    value: float
    over_examples: Interval
    over_models: Interval | None

    def settled(self) -> int:
        """1 or -1 where both intervals lie above or below 0, else 0; where there is no interval over models, 0."""
        if self.over_models is None:
            return 0
        low = min(self.over_examples[0], self.over_models[0])
        high = max(self.over_examples[1], self.over_models[1])
        return 1 if low > 0 else -1 if high < 0 else 0


@dataclass(frozen=True)
class BiasVariance:
    """Of one kind of student, over all its examples or some.

    Attributes:
        models, examples: K and N.
        cross_entropy: mean over models and examples; bias + variance, plain or corrected.
        bias, variance: plain.
        corrected_bias, corrected_variance: with K/(K-1).
        note: of the correction.
    """

    models: int
    examples: int
    cross_entropy: Estimate
    bias: Estimate
    variance: Estimate
    corrected_bias: Estimate
    corrected_variance: Estimate
    note: str = CORRECTION


@dataclass(frozen=True)
class Tradeoff:
    """Distilled students against those trained with labels alone (WSL eq. 3), paired by example and by model.

    Attributes:
        examples: N.
        middle: ``mean log(p̄_ce[y] / p̄_kd[y])``, the rise of the bias, which the paper takes as >= 0.
        corrected_middle: the difference of the corrected biases.
        middle_sign: whether it is ``positive``, ``negative`` or ``not settled`` by both intervals.
        change: of the plain variance, ``mean(variance_kd - variance_ce)``; Assumption 1 says <= 0.
        corrected_change: of the corrected.
        assumption: whether Assumption 1 ``holds``, ``fails`` or is ``not settled``, by both intervals of ``change``.
        p: one-sided, of "the variance is not smaller", over examples with these models: small where it is smaller.
        share: of the examples in which the variance is not larger.
        sentence: for people.
    """

    examples: int
    middle: Estimate
    corrected_middle: Estimate
    middle_sign: Literal["positive", "negative", "not settled"]
    change: Estimate
    corrected_change: Estimate
    assumption: Settled
    p: float
    share: float
    sentence: str


def decompose(models: Sequence[ArrayLike] | NDArray[np.floating], labels: ArrayLike) -> Decomposition:
    """Bias and variance of each example over K models (Heskes 1998; WSL eq. 2), in float64.

    Log-probabilities or logits serve alike: they are normalised here. The models are read in pieces over examples, so
    that memory maps stay on disk; what is kept is (2K + 4) numbers an example.

    Args:
        models: K arrays (N, C), K >= 2, or one of (K, N, C); finite.
        labels: (N,), in [0, C).

    Raises:
        ValueError: fewer than two models, shapes or labels that do not fit, or a value that is not finite.
    """
    given = [as_logits(one, "log-probabilities") for one in models]
    if len(given) < 2:
        raise ValueError(f"bias and variance take two models or more, not {len(given)}")
    if len({one.shape for one in given}) > 1:
        raise ValueError(f"the models' outputs differ in shape: {sorted({one.shape for one in given})}")
    true = as_labels(labels, *given[0].shape)
    (n, classes), count = given[0].shape, len(given)
    plain, without = np.empty((4, n)), np.empty((2, count, n))
    for part in pieces(n, 2 * count * classes):
        stacked = np.stack([wide(one[part], "log-probabilities") for one in given])
        plain[:, part], without[:, :, part] = _piece(stacked, true[part])
    bias, variance, divergence, cross_entropy = plain
    return Decomposition(count, bias, variance, divergence, cross_entropy, *without)


def _piece(outputs: Floats, labels: Labels) -> tuple[Floats, Floats]:
    """Of (K, B, C): (4, B) bias, variance, divergence and cross-entropy; (2, K, B) the first two without each model."""
    count = len(outputs)
    logs = log_softmax(outputs)
    mean = logs.mean(axis=0)
    bias, variance = _of_mean(mean, labels)
    average = log_softmax(mean)
    weights = np.exp(average)
    divergence = np.mean([(weights * (average - one)).sum(axis=1) for one in logs], axis=0)
    cross_entropy = np.mean([label_cross_entropy(one, labels) for one in outputs], axis=0)
    left = [_of_mean((count * mean - one) / (count - 1), labels) for one in logs]
    return np.stack([bias, variance, divergence, cross_entropy]), np.stack(left, axis=1)


def _of_mean(mean: Floats, labels: Labels) -> Floats:
    """(2, B): ``log Z - m[y]`` and ``-log Z`` of (B, C) mean log-probabilities."""
    highest = mean.max(axis=1)
    log_z = highest + np.log(np.exp(mean - highest[:, None]).sum(axis=1))
    return np.stack([log_z - mean[np.arange(len(labels)), labels], -log_z])


def bias_variance(
    decomposition: Decomposition, *, method: Method = "bca", resamples: int = RESAMPLES, seed: int = 0
) -> BiasVariance:
    """Means over examples, with intervals: by bootstrap over examples and by jackknife over models.

    The plain variance of K models is biased low. The corrected one is ``K/(K-1)`` times it, true to 1 % where it is
    small; where it is large, 0.87 to 0.93 of it is there with 3 to 5 models.

    Args:
        decomposition: of all examples or, by ``Decomposition.of``, of some.
        method: of the bootstrap, ``bca`` or ``percentile``.
        resamples: of it.
        seed: of its draws.
    """
    lines, without = _lines(decomposition)
    found = _estimates(lines, without, method, resamples, seed)
    return BiasVariance(
        models=decomposition.models,
        examples=decomposition.examples,
        cross_entropy=found[0],
        bias=found[1],
        variance=found[2],
        corrected_bias=found[3],
        corrected_variance=found[4],
    )


def _lines(one: Decomposition) -> tuple[Floats, Floats]:
    """(N, 5) cross-entropy, bias, variance, both corrected; (K, 5) their means without each model.

    With two models nothing corrected is left without one of them: NaN.
    """
    lines = np.stack([one.cross_entropy, one.bias, one.variance, one.corrected_bias, one.corrected_variance], axis=1)
    bias, variance = one.bias_without.mean(axis=1), one.variance_without.mean(axis=1)
    rest = one.models - 1
    corrected = variance * rest / (rest - 1) if rest > 1 else np.full_like(variance, np.nan)
    total = bias + variance
    return lines, np.stack([total, bias, variance, total - corrected, corrected], axis=1)


def _estimates(lines: Floats, without: Floats, method: Method, resamples: int, seed: int) -> list[Estimate]:
    means = bootstrap_means(lines, resamples, seed)
    found = []
    for line, drawn, left in zip(lines.T, means.T, without.T, strict=True):
        value = float(line.mean())
        examples = interval_of_means(line, drawn, method=method)
        found.append(Estimate(value, examples, jackknife_interval(value, left)))
    return found


def tradeoff(
    labels_alone: Decomposition,
    distilled: Decomposition,
    *,
    name: str = "KD",
    method: Method = "bca",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Tradeoff:
    """The middle term of WSL eq. 3 and a test of its Assumption 1, "the variance brought by KD is smaller".

    ``CE_kd = -log p̄_ce[y] + log(p̄_ce/p̄_kd)[y] + (-log Z_kd)``: the middle term is the difference of the two biases.
    Both are paired: by example in the bootstrap, and in the jackknife by model, the k-th of both sharing seed and
    split. A sign is settled where the interval over examples and the one over models lie on one side of 0: the one over
    examples alone speaks of these K students only.

    Args:
        labels_alone: of the students trained with cross-entropy.
        distilled: of as many distilled ones, on the same examples.
        name: of the distilled ones, for the sentence.
        method: of the bootstrap, ``bca`` or ``percentile``.
        resamples: of it.
        seed: of its draws.

    Raises:
        ValueError: the two are not of as many models and examples.
    """
    if (labels_alone.models, labels_alone.examples) != (distilled.models, distilled.examples):
        raise ValueError(
            f"a trade-off takes as many models and examples on both sides, not {labels_alone.models} on "
            f"{labels_alone.examples} and {distilled.models} on {distilled.examples}"
        )
    ours, ours_without = _lines(distilled)
    theirs, theirs_without = _lines(labels_alone)
    differences = ours - theirs
    estimates = _estimates(differences, ours_without - theirs_without, method, resamples, seed)
    _, middle, change, corrected_middle, corrected_change = estimates
    sign: Literal["positive", "negative", "not settled"] = (
        "positive" if middle.settled() > 0 else "negative" if middle.settled() < 0 else "not settled"
    )
    assumption: Settled = "holds" if change.settled() < 0 else "fails" if change.settled() > 0 else "not settled"
    return Tradeoff(
        examples=distilled.examples,
        middle=middle,
        corrected_middle=corrected_middle,
        middle_sign=sign,
        change=change,
        corrected_change=corrected_change,
        assumption=assumption,
        p=_smaller_p(differences[:, 2]),
        share=float((differences[:, 2] <= 0).mean()),
        sentence=_sentence(name, middle, sign, change, assumption),
    )


def _smaller_p(differences: Floats) -> float:
    """One-sided t test of a mean below 0: the p of "it is 0 or more"."""
    from scipy.special import stdtr

    n, mean = len(differences), float(differences.mean())
    deviation = float(differences.std(ddof=1)) if n > 1 else 0.0
    if deviation == 0:
        return 0.5 if mean == 0 or n < 2 else float(mean > 0)
    return float(stdtr(n - 1, mean / (deviation / n**0.5)))


def _sentence(name: str, middle: Estimate, sign: str, change: Estimate, assumption: Settled) -> str:
    bias = {
        "positive": f"{name} raises the bias by {middle.value:.4f} nats, as the paper takes for granted",
        "negative": f"{name} lowers the bias by {-middle.value:.4f} nats, where the paper takes it to rise",
        "not settled": f"whether {name} raises the bias is not settled ({middle.value:+.4f} nats)",
    }[sign]
    variance = {
        "holds": f"its variance is smaller by {-change.value:.4f}: Assumption 1 holds here",
        "fails": f"its variance is larger by {change.value:.4f}: Assumption 1 fails here",
        "not settled": f"whether its variance is smaller (Assumption 1) is not settled ({change.value:+.4f})",
    }[assumption]
    begun = f"W{bias[1:]}" if sign == "not settled" else bias  # a variant's name is written as it is
    return f"{begun}; {variance}."


def split(decomposition: Decomposition, regularization: ArrayLike) -> tuple[Decomposition | None, Decomposition | None]:
    """The regularization samples and the others, each None where there is none.

    Args:
        decomposition: of all examples.
        regularization: (N,) bool, whether each is a regularization sample (WSL §3.2).

    Raises:
        ValueError: another shape or type.
    """
    mask: Mask = as_masks(regularization, 1, "the mask")
    if len(mask) != decomposition.examples:
        raise ValueError(f"the mask must have the shape ({decomposition.examples},), not {mask.shape}")
    return (
        decomposition.of(mask) if mask.any() else None,
        decomposition.of(~mask) if not mask.all() else None,
    )
