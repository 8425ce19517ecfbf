"""What a teacher's soft labels hold: unreliability, ambiguity, stability, entropy; and what they warn of."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from wsl_sweep.analysis.diagnostics.arrays import (
    Floats,
    Labels,
    Numbers,
    add_by_label,
    as_labels,
    as_logits,
    check_temperature,
    log_softmax,
    pieces,
    softmax,
    wide,
)
from wsl_sweep.analysis.diagnostics.calibration import BestTemperature, Calibration, best_temperature, calibration
from wsl_sweep.analysis.statistics import Interval, t_interval

KS = (1, 2, 3, 4, 5)
"""The sizes of Ω that are looked at, as far as there are classes."""

RANKS = 10
"""So many of the highest probabilities are told, by rank."""

GAP = 0.05
"""Confidence above accuracy by more than this is too sure. Our choice: half of what a label smoothing of 0.1, a common
setting, takes from the label; temperatures of distillation move confidence by far more."""

HARD = 0.01
"""A softened label with less than this beside its highest is as good as a hard one. Our choice: a tenth of what a label
smoothing of 0.1 puts there."""

FEW = 30
"""Examples of a class below which a share of them is known to no better than about 0.1 (its standard error is up to
0.5/√30 = 0.09), so that γ, the largest of C (C - 1) shares, reads too high."""


@dataclass(frozen=True)
class TopLabels:
    """Ω_k, the k labels that a soft label ranks highest ("Learning From Biased Soft Labels").

    Attributes:
        k: how many.
        unreliability: Δ(k), in [0, 1].
        ambiguity: γ(k), in [0, 1], our estimate.
        label, rival: the true class and the wrong one at which γ is attained, the first of equals.
    """

    k: int
    unreliability: float
    ambiguity: float
    label: int
    rival: int

    @property
    def total(self) -> float:
        """Δ + γ."""
        return self.unreliability + self.ambiguity

    @property
    def learnable(self) -> bool:
        """Whether Δ + γ < 1, the paper's sufficient condition for learnability; 1 up to rounding is not below 1."""
        return self.total < 1.0 - 1e-12


@dataclass(frozen=True, eq=False)
class Stability:
    """The stability of soft labels within their classes (Shen et al. 2021, "Is Label Smoothing Truly Incompatible …").

    Attributes:
        value: S, at most 1.
        by_class: (C,), ``(1/n_c) Σ_i ‖p_i - p̄_c‖²`` of each class, each in [0, 1); NaN where it has no example.
    """

    value: float
    by_class: Floats

    @property
    def spread(self) -> float:
        """1 - S, which the paper tabulates."""
        return float(np.nanmean(self.by_class))


@dataclass(frozen=True)
class ErasedInformation:
    """How much of the spread within classes label smoothing has taken away.

    Attributes:
        value: (1 - S without) - (1 - S with); above 0 it has erased some.
        share: of the spread without; None where there was none.
        interval: 95 % t interval over classes, or None for fewer than two. It takes the classes as drawn at random, so
            of these classes alone it is wider than need be.
    """

    value: float
    share: float | None
    interval: Interval | None


@dataclass(frozen=True, eq=False)
class Softened:
    """Mean soft labels ``softmax(z/τ)``.

    Attributes:
        temperature: τ.
        entropy: mean over examples, in nats.
        entropy_share: of log C, which the uniform soft label has; in [0, 1].
        label: mean probability of the true class.
        wrong: mean probability on all other classes together, ``1 - label`` without its rounding.
        beside: mean probability on all classes but the one with the highest, the true one or not.
        by_rank: mean of the highest probability, of the second highest, …; at most 10.
        by_class: (C, C), in row y the mean soft label of the examples of class y; NaN where it has none.
    """

    temperature: float
    entropy: float
    entropy_share: float
    label: float
    wrong: float
    beside: float
    by_rank: tuple[float, ...]
    by_class: Floats


@dataclass(frozen=True)
class Warned:
    """What in the figures speaks against distilling as it is.

    Attributes:
        kind: what it is about.
        sentence: for people.
        sweep: dotted paths of a search-space file that are worth a sweep for it, the most promising first.
    """

    kind: Literal["over-certain", "hard", "erased", "unlearnable"]
    sentence: str
    sweep: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class SoftLabels:
    """All of it, of one teacher on one part of a data set.

    Attributes:
        examples, classes: N and C.
        fewest: examples of the smallest class that has any.
        plain: calibration at τ = 1.
        best: the temperature with the lowest cross-entropy, on these examples.
        scaled: calibration at that temperature.
        distilled: calibration at the τ of distillation.
        at_one, softened: mean soft labels at τ = 1 and at the τ of distillation.
        top: Δ and γ by k.
        stability: S, at τ = 1.
        warnings: in words.
    """

    examples: int
    classes: int
    fewest: int
    plain: Calibration
    best: BestTemperature
    scaled: Calibration
    distilled: Calibration
    at_one: Softened
    softened: Softened
    top: tuple[TopLabels, ...]
    stability: Stability
    warnings: tuple[Warned, ...]


def top_labels(logits: ArrayLike, labels: ArrayLike, ks: Iterable[int] = KS) -> tuple[TopLabels, ...]:
    """Unreliability Δ and ambiguity γ of soft labels ("Learning From Biased Soft Labels", Yuan et al.).

    Ω_k are the k labels that a soft label ranks highest. ``Δ(k) = Pr(y ∉ Ω_k)``, the mean over examples. γ is there the
    largest probability, over wrong labels z, that z stands in Ω_k together with the true label's example; we estimate
    it class by class, ``γ(k) = max_y max_{z≠y} mean(1[z ∈ Ω_k] | y)``, over the classes that have examples. This is our
    estimate: being a maximum of means it reads too high where classes have few examples.

    Ties: labels of equal logits at the edge of Ω_k share the places that are left: each is in by
    ``places / how many tie``, which is what choosing among them at random comes to on average. So the order of the
    classes does not matter, and a teacher that says nothing has Δ = 1 - k/C, γ = k/C and Δ + γ = 1 at every k.

    The ranks are the same at every temperature.

    Args:
        logits: (N, C), finite.
        labels: (N,), in [0, C).
        ks: each in 1 … C.

    Raises:
        ValueError: shapes, labels or a k are none, or a logit is not finite.
    """
    given = as_logits(logits)
    true = as_labels(labels, *given.shape)
    sizes, classes = tuple(ks), given.shape[1]
    for k in sizes:
        if not 1 <= k <= classes:
            raise ValueError(f"k must lie in 1 … {classes}, the number of classes, not {k}")
    counts = np.bincount(true, minlength=classes)
    inside = np.zeros((len(sizes), classes, classes))  # k, y, z → how often z ∈ Ω_k
    for part in pieces(len(true), 4 * classes):
        piece = wide(given[part])
        ordered = np.sort(piece, axis=1)
        for index, k in enumerate(sizes):
            edge = ordered[:, classes - k, None]
            above, tied = piece > edge, piece == edge
            share = (k - above.sum(axis=1)) / tied.sum(axis=1)
            add_by_label(inside[index], above + tied * share[:, None], true[part])
    return tuple(_top(k, sums, counts) for k, sums in zip(sizes, inside, strict=True))


def _top(k: int, sums: Floats, counts: Labels) -> TopLabels:
    hits = float(np.diagonal(sums).sum())
    rates = sums / np.maximum(counts, 1)[:, None]
    np.fill_diagonal(rates, -1.0)
    rates[counts == 0] = -1.0
    label, rival = (int(place) for place in np.unravel_index(int(rates.argmax()), rates.shape))
    return TopLabels(k, max(0.0, 1.0 - hits / float(counts.sum())), float(rates[label, rival]), label, rival)


def stability(logits: ArrayLike, labels: ArrayLike, temperature: float = 1.0) -> Stability:
    """``S = 1 - (1/C) Σ_c (1/n_c) Σ_i ‖p_i - p̄_c‖²`` (Shen et al. 2021, eq. 2), over the teacher's probabilities.

    i runs over the n_c examples of the true class c, p̄_c is their mean soft label. Classes without examples are left
    out of the mean over classes.

    Args:
        logits: (N, C), finite.
        labels: (N,), in [0, C).
        temperature: of the soft labels; the paper's figures are at 1.

    Raises:
        ValueError: shapes, labels or temperature are none, or a logit is not finite.
    """
    given = as_logits(logits)
    true = as_labels(labels, *given.shape)
    check_temperature(temperature)
    means = _mean_by_class(given, true, temperature)
    squares = np.zeros(given.shape[1])
    for part in pieces(*given.shape):
        apart = softmax(wide(given[part]) / temperature) - means[true[part]]
        squares += np.bincount(true[part], weights=(apart**2).sum(axis=1), minlength=len(squares))
    by_class = _per_class(squares, true)
    return Stability(1.0 - float(np.nanmean(by_class)), by_class)


def _mean_by_class(logits: Numbers, labels: Labels, temperature: float) -> Floats:
    classes = logits.shape[1]
    total = np.zeros((classes, classes))
    for part in pieces(*logits.shape):
        add_by_label(total, softmax(wide(logits[part]) / temperature), labels[part])
    return _per_class(total, labels)


def _per_class(sums: Floats, labels: Labels) -> Floats:
    """Sums by class → means; NaN for a class without examples."""
    counts = np.bincount(labels, minlength=len(sums)).astype(np.float64)
    counts[counts == 0] = np.nan
    return np.asarray(sums / counts.reshape(-1, *[1] * (sums.ndim - 1)))


def erased_information(without: Stability, smoothed: Stability) -> ErasedInformation:
    """``(1 - S without label smoothing) - (1 - S with it)`` (Shen et al. 2021), of two teachers on the same examples.

    Args:
        without: of the teacher trained without label smoothing, or of any one that is compared with.
        smoothed: of the one trained with it.

    Raises:
        ValueError: the two are not of the same classes.
    """
    seen = np.isfinite(without.by_class)
    if without.by_class.shape != smoothed.by_class.shape or (seen != np.isfinite(smoothed.by_class)).any():
        raise ValueError("erased information takes two teachers on the same examples: their classes differ")
    differences = (without.by_class - smoothed.by_class)[seen]
    spread = without.spread
    return ErasedInformation(
        value=float(differences.mean()),
        share=float(differences.mean() / spread) if spread > 0 else None,
        interval=t_interval(differences.tolist()),
    )


def mean_soft_labels(logits: ArrayLike, labels: ArrayLike, temperature: float = 1.0) -> Softened:
    """Entropy and mean probabilities of ``softmax(z/τ)``, the soft labels of Hinton et al. (2015).

    Args:
        logits: (N, C), finite.
        labels: (N,), in [0, C).
        temperature: τ > 0.

    Raises:
        ValueError: shapes, labels or temperature are none, or a logit is not finite.
    """
    given = as_logits(logits)
    true = as_labels(labels, *given.shape)
    check_temperature(temperature)
    n, classes = given.shape
    entropy = label = wrong = beside = 0.0
    total, ranked = np.zeros((classes, classes)), np.zeros(min(RANKS, classes))
    for part in pieces(n, 2 * classes):
        scaled = wide(given[part]) / temperature
        log_soft = log_softmax(scaled)
        soft = np.exp(log_soft)
        entropy -= float((soft * log_soft).sum())
        rows = np.arange(len(soft))
        add_by_label(total, soft, true[part])
        label += float(soft[rows, true[part]].sum())
        wrong += _all_but(soft, true[part])
        beside += _all_but(soft, soft.argmax(axis=1))
        ranked += np.sort(soft, axis=1)[:, ::-1][:, : len(ranked)].sum(axis=0)
    return Softened(
        temperature=temperature,
        entropy=entropy / n,
        entropy_share=min(1.0, entropy / n / math.log(classes)),
        label=label / n,
        wrong=wrong / n,
        beside=beside / n,
        by_rank=tuple((ranked / n).tolist()),
        by_class=_per_class(total, true),
    )


def _all_but(soft: Floats, columns: Labels) -> float:
    """The sum of soft labels without one column of each row."""
    others = soft.copy()
    others[np.arange(len(soft)), columns] = 0.0
    return float(others.sum())


def soft_labels(
    logits: ArrayLike,
    labels: ArrayLike,
    temperature: float,
    *,
    ks: Iterable[int] = KS,
    erased: ErasedInformation | None = None,
    class_names: Sequence[str] | None = None,
) -> SoftLabels:
    """Everything that is told of a teacher, with warnings.

    Args:
        logits: (N, C), finite: the teacher's.
        labels: (N,), in [0, C).
        temperature: τ of distillation, above 0.
        ks: sizes of Ω; those above C are left out.
        erased: beside a second teacher, where there is one; this teacher is the smoothed one.
        class_names: C names for the warnings, or None for their numbers.

    Raises:
        ValueError: shapes, labels, temperature or a k are none, or a logit is not finite.
    """
    given = as_logits(logits)
    true = as_labels(labels, *given.shape)
    best = best_temperature(given, true)
    plain = calibration(given, true)
    counts = np.bincount(true, minlength=given.shape[1])
    softened = mean_soft_labels(given, true, temperature)
    top = top_labels(given, true, [k for k in ks if k <= given.shape[1]])
    fewest = int(counts[counts > 0].min())
    return SoftLabels(
        examples=len(true),
        classes=given.shape[1],
        fewest=fewest,
        plain=plain,
        best=best,
        scaled=calibration(given, true, best.temperature),
        distilled=calibration(given, true, temperature),
        at_one=mean_soft_labels(given, true),
        softened=softened,
        top=top,
        stability=stability(given, true),
        warnings=soft_label_warnings(plain, best, softened, top, fewest, erased=erased, class_names=class_names),
    )


def soft_label_warnings(
    plain: Calibration,
    best: BestTemperature,
    softened: Softened,
    top: Sequence[TopLabels],
    fewest: int,
    *,
    erased: ErasedInformation | None = None,
    class_names: Sequence[str] | None = None,
) -> tuple[Warned, ...]:
    """What in a teacher's figures speaks against distilling from it as it is, and what to sweep.

    - ``over-certain``: confidence lies above accuracy by more than GAP, and by more than two of its standard errors.
    - ``hard``: at the τ of distillation less than HARD lies beside the highest label: distillation then repeats the
      teacher's decisions, and as L_t → 0 every weight w of WSL (eq. 6) goes to 1.
    - ``erased``: the interval of the erased information lies above 0. No source says how much of it matters; for
      scale, label smoothing took 0.0001 (ResNet-18) to 0.0115 (ResNet-101) of the ImageNet teachers of its paper.
    - ``unlearnable``: Δ + γ >= 1 at every k that was looked at. One k below 1 is enough for the paper's condition,
      which is a sufficient one: what fails it may be learnable yet.

    Args:
        plain: calibration at τ = 1.
        best: temperature.
        softened: mean soft labels at the τ of distillation.
        top: Δ and γ by k; may be empty.
        fewest: examples of the smallest class.
        erased: with the teacher that is compared with, or None.
        class_names: C names, or None.
    """
    told = []
    if plain.gap > max(GAP, 2 * plain.gap_error):
        told.append(_over_certain(plain, best))
    if softened.beside < HARD:
        sentence = (
            f"At τ = {softened.temperature:g} the soft labels put {softened.beside:.2g} beside their highest class, "
            f"less than {HARD:g}: they say hardly more than hard labels do, and weighting changes little. Sweep a "
            "higher temperature, or a teacher that is trained shorter or with label smoothing."
        )
        paths = ("distillation.temperature", "teacher.schedule.epochs", "teacher.label_smoothing")
        told.append(Warned("hard", sentence, paths))
    if erased is not None and erased.interval is not None and erased.interval[0] > 0:
        told.append(_erased(erased))
    if top and not any(one.learnable for one in top):
        told.append(_unlearnable(min(top, key=lambda one: one.total), top, fewest, class_names))
    return tuple(told)


def _over_certain(plain: Calibration, best: BestTemperature) -> Warned:
    scaled = f" (its cross-entropy is lowest at a temperature of {best.temperature:.2g})" if not best.at_bound else ""
    sentence = (
        f"The teacher is over-certain: its confidence is {plain.confidence:.1%} and its accuracy {plain.accuracy:.1%}"
        f"{scaled}. Sweep a higher temperature, a teacher that is trained shorter or with label smoothing, and the "
        "weighting."
    )
    paths = ("distillation.temperature", "teacher.schedule.epochs", "teacher.label_smoothing")
    return Warned("over-certain", sentence, (*paths, "distillation.weighting.kind"))


def _erased(erased: ErasedInformation) -> Warned:
    low, high = erased.interval or (math.nan, math.nan)
    share = f", {erased.share:.0%} of it" if erased.share is not None else ""
    sentence = (
        f"The soft labels vary less within classes than the other teacher's: {erased.value:.4f} of 1 - S is "
        f"erased{share} (95 % interval over classes {low:.4f} to {high:.4f}). Sweep less label smoothing, the "
        "temperature, and the weighting, which in WSL (Tab. 6) helped most with a smoothed teacher."
    )
    return Warned(
        "erased", sentence, ("teacher.label_smoothing", "distillation.temperature", "distillation.weighting.kind")
    )


def _unlearnable(least: TopLabels, top: Sequence[TopLabels], fewest: int, class_names: Sequence[str] | None) -> Warned:
    names = [class_names[one] if class_names else f"class {one}" for one in (least.label, least.rival)]
    few = ""
    if fewest < FEW:
        few = f" The smallest class has {fewest} examples, so that γ reads too high: take it as a hint."
    sizes = ", ".join(str(one.k) for one in top)
    sentence = (
        f"Δ + γ is 1 or more at every k looked at ({sizes}); lowest at k = {least.k}: Δ = {least.unreliability:.3f}, "
        f"γ = {least.ambiguity:.3f} ({names[1]} among the highest {least.k} for {names[0]}), "
        "so the condition for learning from these soft labels alone does not hold."
        f"{few} Sweep another teacher, a lower weight of distillation, and a higher one of the labels."
    )
    paths = ("teacher.model", "distillation.alpha", "distillation.ce_weight", "distillation.weighting.kind")
    return Warned("unlearnable", sentence, paths)
