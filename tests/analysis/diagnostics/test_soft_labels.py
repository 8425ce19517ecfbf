"""Unreliability, ambiguity, stability and entropy: by hand, by brute force, and of teachers built to a known amount."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import special, stats

from wsl_sweep.analysis.diagnostics import arrays
from wsl_sweep.analysis.diagnostics.soft_labels import (
    GAP,
    HARD,
    ErasedInformation,
    erased_information,
    mean_soft_labels,
    soft_labels,
    stability,
    top_labels,
)
from wsl_sweep.spec.run import leaves


def brute_top(logits: np.ndarray, labels: np.ndarray, k: int) -> tuple[float, float]:
    """Δ and γ, where nothing ties, by the definition."""
    omega = [set(np.argsort(-row)[:k].tolist()) for row in logits]
    unreliability = float(np.mean([y not in chosen for y, chosen in zip(labels, omega, strict=True)]))
    ambiguity = 0.0
    for y, z in itertools.permutations(range(logits.shape[1]), 2):
        of_class = [z in chosen for label, chosen in zip(labels, omega, strict=True) if label == y]
        if of_class:
            ambiguity = max(ambiguity, float(np.mean(of_class)))
    return unreliability, ambiguity


def test_unreliability_and_ambiguity_by_hand() -> None:
    logits = np.array(
        [
            [5.0, 4.0, 1.0, 0.0],  # class 0: Ω_1 = {0}, Ω_2 = {0, 1}
            [2.0, 4.0, 3.0, 0.0],  # class 0: Ω_1 = {1}, Ω_2 = {1, 2}
            [0.0, 9.0, 1.0, 2.0],  # class 1: Ω_1 = {1}, Ω_2 = {1, 3}
            [0.0, 9.0, 2.0, 1.0],  # class 1: Ω_1 = {1}, Ω_2 = {1, 2}
        ]
    )
    one, two = top_labels(logits, [0, 0, 1, 1], [1, 2])
    assert (one.unreliability, one.ambiguity, one.label, one.rival) == (0.25, 0.5, 0, 1)
    assert one.learnable
    assert (two.unreliability, two.ambiguity, two.label, two.rival) == (0.25, 1.0, 0, 1)
    assert two.total == 1.25
    assert not two.learnable


def test_they_are_those_of_the_definition() -> None:
    generator = np.random.default_rng(0)
    logits, labels = generator.normal(size=(90, 6)), generator.integers(0, 5, 90)  # class 5 has no example
    for found in top_labels(logits, labels, range(1, 7)):
        expected = brute_top(logits, labels, found.k)
        assert (found.unreliability, found.ambiguity) == pytest.approx(expected)


def test_a_teacher_built_unreliable_and_ambiguous_by_a_known_amount() -> None:
    classes, each = 10, 200
    labels = np.repeat(np.arange(classes), each)
    logits = np.random.default_rng(1).uniform(0, 1, (len(labels), classes))
    logits[np.arange(len(labels)), labels] += 10.0
    for y in range(classes):
        rows = np.flatnonzero(labels == y)
        logits[rows[:30], y] -= 20.0  # 15 % of each class do not name it at all
    rows = np.flatnonzero(labels == 3)
    logits[rows[30:90], 7] += 30.0  # 30 % of class 3 name 7 before it
    one, two = top_labels(logits, labels, [1, 2])
    assert one.unreliability == pytest.approx(0.15 + 0.3 / classes)
    assert one.ambiguity == pytest.approx(0.3 + np.mean(logits[rows[:30]].argmax(axis=1) == 7) * 0.15)
    assert (one.label, one.rival) == (3, 7)
    assert two.unreliability == pytest.approx(0.15)


def test_ties_share_the_places_that_are_left() -> None:
    logits = np.array([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    one, two = top_labels(logits, [0, 0], [1, 2])
    assert one.unreliability == pytest.approx(0.25)  # half of the first
    assert one.ambiguity == pytest.approx(0.25)
    assert (two.unreliability, two.ambiguity) == pytest.approx((0.0, 0.75))  # 1 of the first, a half of the second
    turned = top_labels(logits[:, ::-1], [2, 2], [1, 2])
    assert [one.total for one in turned] == pytest.approx([one.total, two.total])


def test_ties_are_what_choosing_at_random_comes_to() -> None:
    generator = np.random.default_rng(2)
    logits = generator.integers(0, 3, (40, 5)).astype(float)
    labels = generator.integers(0, 2, 40)
    found = top_labels(logits, labels, [2])[0]
    draws = [brute_top(logits + generator.uniform(0, 0.5, logits.shape), labels, 2)[0] for _ in range(2000)]
    assert found.unreliability == pytest.approx(np.mean(draws), abs=float(4 * np.std(draws) / math.sqrt(2000)))


def test_a_teacher_that_says_nothing_is_not_learnable_at_any_k() -> None:
    for one in top_labels(np.zeros((12, 4)), np.arange(12) % 4, range(1, 5)):
        assert (one.unreliability, one.ambiguity) == pytest.approx((1 - one.k / 4, one.k / 4))
        assert not one.learnable


def test_stability_by_hand() -> None:
    probabilities = np.array([[0.8, 0.2], [0.6, 0.4], [0.5, 0.5], [0.1, 0.9]])
    found = stability(np.log(probabilities), [0, 0, 0, 1])
    mean = (0.8 + 0.6 + 0.5) / 3
    first = 2 * ((0.8 - mean) ** 2 + (0.6 - mean) ** 2 + (0.5 - mean) ** 2) / 3
    np.testing.assert_allclose(found.by_class, [first, 0.0], atol=1e-12)
    assert found.value == pytest.approx(1 - first / 2)
    assert found.spread == pytest.approx(first / 2)


def test_the_spread_of_a_simulated_teacher_is_the_one_that_was_put_in() -> None:
    generator = np.random.default_rng(3)
    labels = np.repeat(np.arange(3), 20_000)
    weights = np.array([[6.0, 2.0, 2.0], [1.0, 5.0, 1.0], [2.0, 3.0, 9.0]])
    probabilities = np.concatenate([generator.dirichlet(line, 20_000) for line in weights])
    found = stability(np.log(probabilities), labels)
    variances = [stats.dirichlet.var(line).sum() for line in weights]
    np.testing.assert_allclose(found.by_class, variances, rtol=0.03)
    assert found.spread == pytest.approx(np.mean(variances), rel=0.02)


def test_a_class_without_examples_is_left_out() -> None:
    generator = np.random.default_rng(4)
    logits, labels = generator.normal(size=(20, 4)), np.arange(20) % 3
    found = stability(logits, labels)
    assert math.isnan(found.by_class[3])
    assert found.spread == pytest.approx(found.by_class[:3].mean())
    assert np.isnan(mean_soft_labels(logits, labels).by_class[3]).all()


def test_erased_information_is_a_difference_of_spreads() -> None:
    generator = np.random.default_rng(5)
    labels = np.repeat(np.arange(8), 50)
    logits = generator.normal(0, 1, (400, 8)) + 3.0 * np.eye(8)[labels]
    plain, smoothed = stability(logits, labels), stability(0.5 * logits, labels)
    found = erased_information(plain, smoothed)
    assert found.value == pytest.approx(plain.spread - smoothed.spread)
    assert found.value == pytest.approx(smoothed.value - plain.value)
    assert found.share == pytest.approx(found.value / plain.spread)
    differences = plain.by_class - smoothed.by_class
    assert found.interval == pytest.approx(stats.t.interval(0.95, 7, differences.mean(), stats.sem(differences)))
    assert erased_information(smoothed, plain).value == pytest.approx(-found.value)
    with pytest.raises(ValueError, match="classes differ"):
        erased_information(plain, stability(logits[:, :5], labels % 5))


def test_one_class_and_no_spread_have_no_interval_and_no_share() -> None:
    still = stability(np.ones((3, 2)), [0, 0, 0])
    assert erased_information(still, still) == ErasedInformation(0.0, None, None)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_mean_soft_labels_are_scipys(temperature: float) -> None:
    generator = np.random.default_rng(6)
    logits, labels = generator.normal(0, 3, (60, 12)), generator.integers(0, 12, 60)
    labels[:12] = np.arange(12)
    found = mean_soft_labels(logits, labels, temperature)
    soft = special.softmax(logits / temperature, axis=1)
    assert found.entropy == pytest.approx(stats.entropy(soft, axis=1).mean())
    assert found.entropy_share == pytest.approx(found.entropy / math.log(12))
    assert found.label == pytest.approx(soft[np.arange(60), labels].mean())
    assert found.wrong == pytest.approx(1 - found.label)
    assert found.beside == pytest.approx(1 - soft.max(axis=1).mean())
    np.testing.assert_allclose(found.by_rank, np.sort(soft, axis=1)[:, ::-1][:, :10].mean(axis=0))
    for y in range(12):
        np.testing.assert_allclose(found.by_class[y], soft[labels == y].mean(axis=0))


def test_a_certain_teacher_has_little_on_wrong_labels_and_that_is_not_rounded_away() -> None:
    found = mean_soft_labels(np.array([[60.0, 0.0, 0.0]]), [0])
    assert found.wrong == pytest.approx(2 * math.exp(-60.0))
    assert found.entropy == pytest.approx(120 * math.exp(-60.0), rel=1e-2)
    uniform = mean_soft_labels(np.zeros((2, 5)), [0, 1])
    assert uniform.entropy_share == pytest.approx(1.0)


def test_pieces_give_what_the_whole_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(7)
    logits, labels = generator.normal(size=(53, 6)), generator.integers(0, 6, 53)
    whole = soft_labels(logits, labels, 4.0)
    monkeypatch.setattr(arrays, "CELLS", 50)
    again = soft_labels(logits, labels, 4.0)
    assert again.top == whole.top
    assert again.stability.value == pytest.approx(whole.stability.value, rel=1e-12)
    np.testing.assert_allclose(again.softened.by_class, whole.softened.by_class)
    assert again.softened.entropy == pytest.approx(whole.softened.entropy)


def good(n: int = 4000, classes: int = 6, sharpness: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """A calibrated teacher, times a sharpness."""
    generator = np.random.default_rng(8)
    logits = 2.5 * generator.normal(size=(n, classes))
    chosen = (special.softmax(logits, axis=1).cumsum(axis=1) < generator.uniform(size=(n, 1))).sum(axis=1)
    return sharpness * logits, np.minimum(chosen, classes - 1)


def test_a_calibrated_teacher_warns_of_nothing() -> None:
    found = soft_labels(*good(), 4.0)
    assert found.warnings == ()
    assert [one.k for one in found.top] == [1, 2, 3, 4, 5]
    assert found.distilled.temperature == found.softened.temperature == 4.0
    assert found.scaled.temperature == found.best.temperature
    assert (found.examples, found.classes) == (4000, 6)


def test_an_over_certain_teacher_is_warned_of_with_what_to_sweep() -> None:
    found = soft_labels(*good(sharpness=4.0), 4.0)
    assert found.plain.gap > GAP
    (warned,) = found.warnings
    assert warned.kind == "over-certain"
    assert "temperature of 4" in warned.sentence
    assert warned.sweep[0] == "distillation.temperature"


def test_a_gap_within_its_noise_is_not_warned_of() -> None:
    logits = np.log(np.array([[0.9, 0.1]] * 4))
    found = soft_labels(logits, [0, 0, 0, 1], 4.0)
    assert found.plain.gap == pytest.approx(0.15)
    assert "over-certain" not in [one.kind for one in found.warnings]


def test_soft_labels_as_hard_as_the_labels_are_warned_of() -> None:
    labels = np.arange(60) % 3
    found = soft_labels(40.0 * np.eye(3)[labels], labels, 4.0)
    assert found.softened.beside < HARD
    assert [one.kind for one in found.warnings] == ["hard"]
    assert soft_labels(4.0 * np.eye(3)[labels], labels, 4.0).warnings == ()


def test_erased_information_is_warned_of_where_it_is_more_than_the_spread_over_classes() -> None:
    logits, labels = good()
    plain = stability(logits, labels)
    erased = erased_information(plain, stability(logits * 0.6, labels))
    (warned,) = soft_labels(logits * 0.6, labels, 4.0, erased=erased).warnings
    assert warned.kind == "erased"
    assert f"{erased.value:.4f}" in warned.sentence
    assert warned.sweep[0] == "teacher.label_smoothing"
    none = erased_information(plain, plain)
    assert soft_labels(logits, labels, 4.0, erased=none).warnings == ()


def test_an_unlearnable_teacher_is_warned_of_by_the_names_of_its_classes() -> None:
    labels = np.repeat([0, 1, 2], 40)
    logits = 3.0 * np.eye(3)[labels]
    logits[labels == 0] = [0.0, 3.0, 1.0]  # every cat is a dog, then a bird
    found = soft_labels(logits, labels, 4.0, class_names=["cat", "dog", "bird"])
    warned = {one.kind: one for one in found.warnings}["unlearnable"]
    assert "dog" in warned.sentence
    assert "for cat" in warned.sentence
    assert "hint" not in warned.sentence
    few = soft_labels(logits[30:], labels[30:], 4.0)
    assert "The smallest class has 10 examples" in {one.kind: one for one in few.warnings}["unlearnable"].sentence


def test_what_is_told_to_be_swept_can_be() -> None:
    logits, labels = good(sharpness=4.0)
    erased = ErasedInformation(0.1, 0.2, (0.05, 0.15))
    bad = soft_labels(logits, labels, 4.0, erased=erased).warnings
    hard = soft_labels(40.0 * np.eye(3), [1, 2, 0], 1.0).warnings
    kinds = {one.kind for one in (*bad, *hard)}
    assert kinds == {"over-certain", "hard", "erased", "unlearnable"}
    assert {path for one in (*bad, *hard) for path in one.sweep} <= set(leaves())


def test_a_k_that_is_none_is_said() -> None:
    with pytest.raises(ValueError, match=r"1 … 3"):
        top_labels(np.zeros((2, 3)), [0, 1], [4])
