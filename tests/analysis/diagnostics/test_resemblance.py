"""Resemblances: against autograd, by hand, and of teachers with known superclasses."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy import special

from wsl_sweep.analysis.diagnostics import arrays
from wsl_sweep.analysis.diagnostics.resemblance import (
    class_order,
    resemblances,
    strongest_pairs,
    within_superclasses,
)
from wsl_sweep.distill import distillation_loss, label_cross_entropy


def drawn(seed: int, n: int = 60, classes: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, n)
    labels[:classes] = np.arange(classes)
    return generator.normal(0, 2, (n, classes)), generator.normal(0, 2, (n, classes)), labels


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_matrix_is_the_gradient_that_autograd_finds(temperature: float) -> None:
    student, teacher, labels = drawn(0)
    logits = torch.tensor(student, requires_grad=True)
    loss = distillation_loss(logits, torch.tensor(teacher), temperature) - label_cross_entropy(
        logits, torch.tensor(labels)
    )
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    found = resemblances(student, teacher, labels, temperature)
    assert np.isnan(np.diagonal(found)).all()
    for i, j in itertools.permutations(range(5), 2):
        assert found[i, j] == pytest.approx(gradient[torch.tensor(labels) == j, i].mean().item(), abs=1e-12)


def test_at_temperature_one_it_is_what_the_teacher_gives_the_wrong_classes() -> None:
    student, teacher, labels = drawn(1)
    found = resemblances(student, teacher, labels, 1.0)
    soft = special.softmax(teacher, axis=1)
    for i, j in itertools.permutations(range(5), 2):
        assert -found[i, j] == pytest.approx(soft[labels == j, i].mean())


def test_pieces_give_what_the_whole_gives_and_classes_without_examples_are_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    student, teacher, labels = drawn(2)
    labels[labels == 3] = 1
    whole = resemblances(student, teacher, labels, 4.0)
    assert np.isnan(whole[:, 3]).all()
    assert np.isfinite(whole[3, [0, 1, 2, 4]]).all()
    monkeypatch.setattr(arrays, "CELLS", 70)
    np.testing.assert_allclose(resemblances(student, teacher, labels, 4.0), whole)
    assert class_order(whole)[-1] == 3
    assert sorted(class_order(whole)) == [0, 1, 2, 3, 4]
    assert all(3 not in (pair.one, pair.other) for pair in strongest_pairs(whole, 100))


def alike(groups: list[int], seed: int, strength: float = 3.0) -> np.ndarray:
    """The matrix of a teacher for whom classes of one group look alike."""
    generator = np.random.default_rng(seed)
    together = np.equal.outer(groups, groups).astype(float)
    labels = np.repeat(np.arange(len(groups)), 30)
    teacher = strength * together[labels] + 6.0 * np.eye(len(groups))[labels]
    teacher += generator.normal(0, 0.5, teacher.shape)
    student = 4.0 * np.eye(len(groups))[labels] + generator.normal(0, 0.5, teacher.shape)
    return resemblances(student, teacher, labels, 4.0)


GROUPS = [0, 1, 2, 3, 0, 1, 2, 3, 3, 2, 1, 0]


def test_the_order_brings_those_that_are_alike_together() -> None:
    order = class_order(alike(GROUPS, 3))
    assert sorted(order) == list(range(12))
    assert len([1 for _ in itertools.groupby(GROUPS[one] for one in order)]) == 4


def test_the_strongest_pairs_by_name() -> None:
    matrix = np.array([[np.nan, -0.5, 0.1], [-0.3, np.nan, -0.1], [0.2, -0.7, np.nan]])
    first, second, third = strongest_pairs(matrix, 5, ["cat", "dog", "car"])
    assert first.names == ("cat", "dog")
    assert first.strength == pytest.approx(0.4)
    assert (first.there, first.back) == (-0.3, -0.5)  # of the cats on the dog's logit, of the dogs on the cat's
    assert second.names == ("dog", "car")
    assert second.strength == pytest.approx(0.4)
    assert third.strength == pytest.approx(-0.15)
    assert [pair.names for pair in strongest_pairs(matrix, 1)] == [("0", "1")]


def test_pairs_of_a_teacher_who_knows_the_superclasses_lie_within_them() -> None:
    matrix = alike(GROUPS, 4)
    found = within_superclasses(matrix, GROUPS, permutations=999)
    assert (found.pairs, found.within, found.share) == (12, 12, 1.0)
    assert found.chance == pytest.approx(12 / 66)
    assert found.p == pytest.approx(1 / 1000)
    assert "12 of the 12 strongest pairs (100%)" in found.sentence
    named = within_superclasses(matrix, ["abcd"[one] for one in GROUPS], 5, permutations=99)
    assert (named.pairs, named.within) == (5, 5)
    assert within_superclasses(matrix, GROUPS, 66, permutations=99).share == pytest.approx(found.chance)


def test_the_permutation_p_is_the_share_of_all_assignments() -> None:
    matrix = alike([0, 0, 1, 1, 2, 2], 5, strength=0.0)
    groups = [0, 1, 0, 1, 0, 1]
    found = within_superclasses(matrix, groups, 4, permutations=20_000)
    pairs = [(pair.one, pair.other) for pair in strongest_pairs(matrix, 4)]
    counts = [sum(one[a] == one[b] for a, b in pairs) for one in itertools.permutations(groups)]
    exact = np.mean([count >= found.within for count in counts])
    assert found.within == sum(groups[a] == groups[b] for a, b in pairs)
    assert found.p == pytest.approx(exact, abs=4 * 0.5 / np.sqrt(20_000))


def test_where_nothing_is_alike_chance_is_rarely_beaten() -> None:
    ps = [within_superclasses(alike(GROUPS, seed, 0.0), GROUPS, permutations=199).p for seed in range(60)]
    assert np.mean([p <= 0.1 for p in ps]) < 0.1 + 4 * np.sqrt(0.09 / 60)


def test_what_has_no_resemblances_is_said() -> None:
    student, teacher, labels = drawn(6)
    with pytest.raises(ValueError, match="differ in shape"):
        resemblances(student, teacher[:, :4], labels, 4.0)
    with pytest.raises(ValueError, match="temperature"):
        resemblances(student, teacher, labels, -1.0)
    matrix = resemblances(student, teacher, labels, 4.0)
    with pytest.raises(ValueError, match="5 names, not 2"):
        strongest_pairs(matrix, class_names=["a", "b"])
    with pytest.raises(ValueError, match="5 superclasses, not 2"):
        within_superclasses(matrix, [0, 1])
    with pytest.raises(ValueError, match="nothing to compare"):
        within_superclasses(matrix, [0, 0, 0, 0, 0])
    with pytest.raises(ValueError, match="one or more"):
        within_superclasses(matrix, [0, 0, 1, 1, 1], 0)
    with pytest.raises(ValueError, match="classes, classes"):
        class_order(matrix[:3])
