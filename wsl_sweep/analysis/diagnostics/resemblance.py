"""Resemblances between classes that soft labels teach (WSL Fig. 4 and its appendix A.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from wsl_sweep.analysis.diagnostics.arrays import (
    Floats,
    Labels,
    add_by_label,
    as_pair,
    pieces,
    softmax,
    wide,
)

PERMUTATIONS = 10_000
"""So that a p value of 0.05 is known to 0.002."""

OPTIMAL = 300
"""Classes up to which the leaves have the best order of their tree: it takes more than the square of their number."""


@dataclass(frozen=True)
class Pair:
    """Two classes.

    Attributes:
        one, other: their numbers, ``one < other``.
        names: their names.
        strength: ``-(M[one, other] + M[other, one]) / 2``; of the strongest pairs the largest.
        there, back: ``M[other, one]``, what examples of ``one`` do to the logit of ``other``, and ``M[one, other]``.
    """

    one: int
    other: int
    names: tuple[str, str]
    strength: float
    there: float
    back: float


@dataclass(frozen=True)
class WithinSuperclasses:
    """Whether the strongest pairs lie within superclasses more often than chance.

    Attributes:
        pairs: how many of the strongest were looked at.
        within: how many of them lie within one superclass.
        share: ``within / pairs``.
        chance: the share of all pairs that lies within one.
        p: one-sided, by permutation: the share of random assignments of classes to superclasses of the same sizes, the
            true one among them, in which as many or more lie within; at least ``1 / (permutations + 1)``.
        permutations: how many were drawn.
        sentence: for people.
    """

    pairs: int
    within: int
    share: float
    chance: float
    p: float
    permutations: int
    sentence: str


def resemblances(student_logits: ArrayLike, teacher_logits: ArrayLike, labels: ArrayLike, temperature: float) -> Floats:
    """The matrix M of WSL's Fig. 4: M_ij is the mean over class j's examples of ``∂(L_kd - L_ce)/∂z_i``.

    With WSL §3.1 that is ``τ (p_s^τ[i] - p_t^τ[i]) - (p_s[i] - 1[i = y])``. Columns would sum to 0 with the diagonal,
    which is left out. A negative entry raises the logit of i for examples of j: the teacher tells the student that j
    looks like i. At τ = 1, -M_ij is the mean probability that the teacher gives i for examples of j.

    Args:
        student_logits: (N, C), finite.
        teacher_logits: (N, C), finite.
        labels: (N,), in [0, C).
        temperature: τ > 0.

    Returns:
        (C, C), NaN on the diagonal and in the columns of classes that have no example.

    Raises:
        ValueError: shapes, labels or temperature are none, or a logit is not finite.
    """
    student, teacher, true = as_pair(student_logits, teacher_logits, labels, temperature)
    classes = student.shape[1]
    total = np.zeros((classes, classes))  # class of the example, logit
    for part in pieces(len(true), 2 * classes):
        ours, theirs = wide(student[part], "student logits"), wide(teacher[part], "teacher logits")
        # Without the label's 1, which lies on the diagonal.
        gradient = temperature * (softmax(ours / temperature) - softmax(theirs / temperature)) - softmax(ours)
        add_by_label(total, gradient, true[part])
    counts = np.bincount(true, minlength=classes).astype(np.float64)
    counts[counts == 0] = np.nan
    matrix = (total / counts[:, None]).T.copy()
    np.fill_diagonal(matrix, np.nan)
    return matrix


def _strengths(matrix: ArrayLike) -> Floats:
    """``-(M + Mᵀ)/2``; NaN where one of the two classes has no example."""
    array = np.asarray(matrix, dtype=np.float64)
    if array.ndim != 2 or array.shape[0] != array.shape[1] or len(array) < 2:
        raise ValueError(f"resemblances must have the shape (classes, classes), not {array.shape}")
    strengths = -(array + array.T) / 2
    np.fill_diagonal(strengths, np.nan)
    return strengths


def class_order(matrix: ArrayLike) -> list[int]:
    """The classes in an order in which those that resemble each other are neighbours, for a heat map.

    Hierarchical clustering by average linkage (scipy) of the distances ``max S - S``, ``S = -(M + Mᵀ)/2``, with the
    leaves in their best order (Bar-Joseph et al. 2001) for up to OPTIMAL classes.

    Args:
        matrix: (C, C), of ``resemblances``.

    Returns:
        All C numbers; classes without examples last.

    Raises:
        ValueError: another shape.
    """
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    strengths = _strengths(matrix)
    seen = _seen(strengths)
    rest = sorted({*range(len(strengths))} - {*seen.tolist()})
    if len(seen) < 3:
        return [*seen.tolist(), *rest]
    between = strengths[np.ix_(seen, seen)]
    distances = np.nanmax(between) - between
    np.fill_diagonal(distances, 0.0)
    tree = linkage(squareform(distances, checks=False), "average", optimal_ordering=len(seen) <= OPTIMAL)
    return [*seen[leaves_list(tree)].tolist(), *rest]


def _seen(strengths: Floats) -> Labels:
    """The classes that have examples: they have a strength with another."""
    return np.flatnonzero(np.isfinite(strengths).any(axis=1)).astype(np.int64)


def strongest_pairs(matrix: ArrayLike, count: int = 20, class_names: Sequence[str] | None = None) -> tuple[Pair, ...]:
    """The pairs of classes that resemble each other most, by ``-(M_ij + M_ji)/2``, the strongest first.

    Args:
        matrix: (C, C), of ``resemblances``.
        count: how many at most; of equals the ones of lower numbers.
        class_names: C names, or None for their numbers.

    Raises:
        ValueError: another shape, or names that are not C.
    """
    array, strengths = np.asarray(matrix, dtype=np.float64), _strengths(matrix)
    if class_names is not None and len(class_names) != len(array):
        raise ValueError(f"{len(array)} classes have {len(array)} names, not {len(class_names)}")
    ones, others = _ranked(strengths)
    found = []
    for one, other in zip(ones[:count].tolist(), others[:count].tolist(), strict=True):
        names = (class_names[one], class_names[other]) if class_names else (str(one), str(other))
        there, back = float(array[other, one]), float(array[one, other])
        found.append(Pair(one, other, names, float(strengths[one, other]), there, back))
    return tuple(found)


def _ranked(strengths: Floats) -> tuple[Labels, Labels]:
    """All pairs of classes that have examples, the strongest first."""
    ones, others = np.triu_indices(len(strengths), 1)
    values = strengths[ones, others]
    order = np.argsort(-values, kind="stable")
    order = order[np.isfinite(values[order])]
    return ones[order], others[order]


def within_superclasses(
    matrix: ArrayLike,
    superclasses: Sequence[int] | Sequence[str],
    count: int | None = None,
    *,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> WithinSuperclasses:
    """The share of the strongest pairs that lies within superclasses, against chance, by a permutation test.

    Classes without examples, and their superclasses' places for them, are left out.

    Args:
        matrix: (C, C), of ``resemblances``.
        superclasses: of each class its superclass, C of them.
        count: how many of the strongest pairs; by default as many as there are classes.
        permutations: how many assignments of classes to superclasses are drawn.
        seed: of the draws.

    Raises:
        ValueError: shapes that do not fit, fewer than three classes with examples, no pair within a superclass or all
            of them, or a count that is none.
    """
    strengths = _strengths(matrix)
    if len(superclasses) != len(strengths):
        raise ValueError(f"{len(strengths)} classes have {len(strengths)} superclasses, not {len(superclasses)}")
    seen = _seen(strengths)
    if len(seen) < 3:
        raise ValueError(f"superclasses take three classes with examples or more, not {len(seen)}")
    groups = np.unique(np.asarray(superclasses)[seen], return_inverse=True)[1]
    ones, others = _ranked(strengths[np.ix_(seen, seen)])
    chance = float((groups[ones] == groups[others]).mean())
    if chance in (0.0, 1.0):
        raise ValueError("no two classes share a superclass, or all do: there is nothing to compare")
    top = len(seen) if count is None else count
    if top < 1:
        raise ValueError(f"the strongest pairs must be one or more, not {top}")
    ones, others = ones[:top], others[:top]
    within = int((groups[ones] == groups[others]).sum())
    generator = np.random.default_rng(seed)
    as_many = 0
    for _ in range(permutations):
        shuffled = generator.permutation(groups)
        as_many += int((shuffled[ones] == shuffled[others]).sum() >= within)
    share, p = within / len(ones), (as_many + 1) / (permutations + 1)
    sentence = (
        f"{within} of the {len(ones)} strongest pairs ({share:.0%}) lie within a superclass, where chance gives "
        f"{chance:.1%} (permutation p = {p:.2g})."
    )
    return WithinSuperclasses(len(ones), within, share, chance, p, permutations, sentence)
