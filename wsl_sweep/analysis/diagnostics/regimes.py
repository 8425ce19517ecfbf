"""Bias and variance of the students of a sweep, in the regimes of the paper: seeds only, disjoint data, teachers too.

What one trains on apart is what the variance is over: the seed alone, or the training data with it, or the teacher's
training data, too. So the regimes are told apart, and never averaged (WSL §3.1; method of Heskes 1998).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from wsl_sweep.analysis.diagnostics.arrays import Labels, Mask
from wsl_sweep.analysis.diagnostics.bias_variance import (
    BiasVariance,
    Decomposition,
    Tradeoff,
    bias_variance,
    decompose,
    split,
    tradeoff,
)
from wsl_sweep.analysis.diagnostics.regularization import regularization_samples
from wsl_sweep.analysis.diagnostics.resampling import RESAMPLES

Over = Literal["seeds", "data", "data and teachers"]
"""What the variance of a regime is over."""

TITLES: dict[Over, str] = {
    "seeds": "Seeds only",
    "data": "Disjoint training data, one teacher",
    "data and teachers": "Disjoint training data, a teacher each",
}


@dataclass(frozen=True, eq=False)
class Students:
    """The students of one row of a sweep's table.

    Attributes:
        name: the row's.
        distilled: whether they had a teacher.
        weighted: whether their soft labels were weighted.
        splits: into how many disjoint parts the training data were dealt out; 1 for none.
        own_teachers: whether each had a teacher trained on its own part.
        temperature: τ of their distillation, at which regularization samples are told; 1 where they had none.
        setting: what else they were trained with; only students of one setting are compared.
        logits: seed → (N, C), all on the same examples.
        teachers: seed → (N, C), what its teacher says of them, as far as that is kept.
    """

    name: str
    distilled: bool
    weighted: bool
    splits: int
    own_teachers: bool
    temperature: float
    setting: str
    logits: Mapping[int, ArrayLike]
    teachers: Mapping[int, ArrayLike] = field(default_factory=dict)

    @property
    def over(self) -> Over:
        """What their variance is over."""
        if self.splits <= 1:
            return "seeds"
        return "data and teachers" if self.own_teachers else "data"


@dataclass(frozen=True, eq=False)
class Parted:
    """Something over all examples, over the regularization samples, and over the others; None where there is none.

    The split is the same for what is compared: an example counts as a regularization sample where it is one for more
    than half of the distilled students.
    """

    whole: BiasVariance
    regularization: BiasVariance | None = None
    others: BiasVariance | None = None


@dataclass(frozen=True, eq=False)
class PartedTradeoff:
    """As ``Parted``, of two kinds of students."""

    whole: Tradeoff
    regularization: Tradeoff | None = None
    others: Tradeoff | None = None


@dataclass(frozen=True, eq=False)
class OfStudents:
    """Bias and variance of one row's students.

    Attributes:
        name: the row's.
        distilled, weighted: see ``Students``.
        terms: its bias, variance and cross-entropy.
        share: of the examples that are regularization samples; None where that cannot be told.
        gap: the largest that ``-log p̄[y] + mean KL`` lies from the mean cross-entropy, of an example: rounding.
    """

    name: str
    distilled: bool
    weighted: bool
    terms: Parted
    share: float | None
    gap: float


@dataclass(frozen=True, eq=False)
class Against:
    """One row's distilled students against those of labels alone.

    Attributes:
        name: the row's.
        baseline: of the students trained with labels alone.
        tradeoff: the middle term of eq. 3 and Assumption 1.
    """

    name: str
    baseline: str
    tradeoff: PartedTradeoff


@dataclass(frozen=True, eq=False)
class Regime:
    """What was found in one regime.

    Attributes:
        over: what its variance is over.
        title: for people.
        seeds: of its students, the same for each row: K of them.
        splits: into how many disjoint parts the training data were dealt out.
        examples: N.
        students: row by row.
        against: of each distilled row; none where no students were trained with labels alone.
        notes: what has to be known: what was left out, parts that were seen twice, …
    """

    over: Over
    title: str
    seeds: tuple[int, ...]
    splits: int
    examples: int
    students: tuple[OfStudents, ...]
    against: tuple[Against, ...]
    notes: tuple[str, ...]


def regimes(
    students: Sequence[Students], labels: ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[Regime, ...]:
    """Bias, variance, the middle term of WSL's eq. 3 and its Assumption 1, regime by regime and setting by setting.

    Students of labels alone that were trained on disjoint data stand in both regimes of such data. Within a regime all
    rows are of the same seeds, those that all of them have; a row with fewer than two is left out, and that is said.

    Args:
        students: row by row.
        labels: (N,), of the examples of all of them.
        resamples: of the bootstrap over examples.
        seed: of its draws.

    Returns:
        Those with a row of two students or more; in the order of ``Over``, then of the rows.

    Raises:
        ValueError: logits or labels that do not fit.
    """
    true = np.asarray(labels)
    found = []
    for over in TITLES:
        for setting in dict.fromkeys(one.setting for one in students):
            own = [one for one in students if one.setting == setting and _stands_in(one, over)]
            if any(one.over == over for one in own):
                regime = _regime(over, own, true, resamples, seed)
                if regime is not None:
                    found.append(regime)
    return tuple(found)


def _stands_in(one: Students, over: Over) -> bool:
    """Whether students stand in a regime: those of labels alone, without a teacher, in each of disjoint data."""
    return one.over == over or (not one.distilled and one.over == "data" and over == "data and teachers")


def _regime(over: Over, rows: Sequence[Students], labels: Labels, resamples: int, seed: int) -> Regime | None:
    enough = [one for one in rows if len(one.logits) >= 2]
    if not any(one.over == over for one in enough):
        return None
    seeds = sorted(set.intersection(*(set(one.logits) for one in enough)))
    if len(seeds) < 2:
        return None
    masks = {one.name: _mask(one, seeds, labels) for one in enough if one.distilled}
    by_plain = _reference(enough, masks)
    parts = {one.name: decompose([one.logits[number] for number in seeds], labels) for one in enough}
    kinds = []
    for one in enough:
        mask = masks[one.name] if one.distilled else by_plain
        kinds.append(
            OfStudents(
                name=one.name,
                distilled=one.distilled,
                weighted=one.weighted,
                terms=_parted(parts[one.name], mask, resamples, seed),
                share=float(mask.mean()) if mask is not None else None,
                gap=parts[one.name].gap,
            )
        )
    alone = [one.name for one in enough if not one.distilled]
    against = [
        Against(
            one.name,
            alone[0],
            _trade((parts[alone[0]], parts[one.name]), masks[one.name], one.name, resamples, seed),
        )
        for one in enough
        if one.distilled and len(alone) == 1
    ]
    return Regime(
        over=over,
        title=TITLES[over],
        seeds=tuple(seeds),
        splits=enough[0].splits,
        examples=len(labels),
        students=tuple(kinds),
        against=tuple(against),
        notes=tuple(_notes(rows, enough, seeds, alone, all(mask is not None for mask in masks.values()))),
    )


def _notes(
    rows: Sequence[Students], enough: Sequence[Students], seeds: Sequence[int], alone: Sequence[str], split_up: bool
) -> Iterator[str]:
    """What has to be known of a regime."""
    few = [f"{one.name} has {len(one.logits)}" for one in rows if one not in enough]
    if few:
        yield f"Bias and variance take two students: {', '.join(few)}."
    more = sorted({number for one in enough for number in one.logits} - {*seeds})
    if more:
        yield f"Not every row has a student of the seeds {', '.join(map(str, more))}: they are left out."
    splits = enough[0].splits
    if splits > 1 and len({number % splits for number in seeds}) < len(seeds):
        yield f"{len(seeds)} students share {splits} parts: some were trained on the same one."
    if len(seeds) == 2:
        yield "Two students: of what is corrected no interval over models follows; take three or more."
    if not alone:
        yield (
            "No students were trained with labels alone, against which distilled ones could be held: eq. 3 and "
            "Assumption 1 are not looked at."
        )
    elif len(alone) > 1:
        yield (
            f"Several rows were trained with labels alone ({', '.join(alone)}): which of them eq. 3 and Assumption 1 "
            "are about cannot be told."
        )
    if not split_up:
        yield "What their teachers say of these examples is not kept: nothing is split by regularization sample."


def _mask(one: Students, seeds: Sequence[int], labels: Labels) -> Mask | None:
    """Regularization samples of more than half of the students; None where a teacher's logits are not there."""
    if any(number not in one.teachers for number in seeds):
        return None
    masks = [
        regularization_samples(one.logits[number], one.teachers[number], labels, one.temperature) for number in seeds
    ]
    return np.asarray(np.sum(masks, axis=0) * 2 > len(seeds))


def _reference(rows: Sequence[Students], masks: Mapping[str, Mask | None]) -> Mask | None:
    """By which students without a teacher are split: by those of plain distillation, else by any."""
    ordered = sorted((one for one in rows if one.distilled), key=lambda one: one.weighted)
    return next((masks[one.name] for one in ordered if masks[one.name] is not None), None)


def _parted(whole: Decomposition, mask: Mask | None, resamples: int, seed: int) -> Parted:
    inside, outside = split(whole, mask) if mask is not None else (None, None)
    found = [bias_variance(one, resamples=resamples, seed=seed) if one else None for one in (inside, outside)]
    return Parted(bias_variance(whole, resamples=resamples, seed=seed), *found)


def _trade(
    pair: tuple[Decomposition, Decomposition], mask: Mask | None, name: str, resamples: int, seed: int
) -> PartedTradeoff:
    halves = [split(one, mask) if mask is not None else (None, None) for one in pair]
    found = [
        tradeoff(alone, distilled, name=name, resamples=resamples, seed=seed) if alone and distilled else None
        for alone, distilled in zip(*halves, strict=True)
    ]
    return PartedTradeoff(tradeoff(*pair, name=name, resamples=resamples, seed=seed), *found)


def answer(regime: Regime) -> str:
    """What was found in a regime, in a sentence or two for people."""
    said = [one.tradeoff.whole.sentence for one in regime.against]
    if said:
        return " ".join(said)
    ordered = sorted(regime.students, key=lambda one: one.terms.whole.variance.value)
    if len(ordered) < 2 or not all(math.isfinite(one.terms.whole.variance.value) for one in ordered):
        return ""
    low, high = ordered[0], ordered[-1]
    return (
        f"{low.name} has the smallest variance ({low.terms.whole.variance.value:.4f} nats), {high.name} the largest "
        f"({high.terms.whole.variance.value:.4f})."
    )
