"""Counts, overlaps and the paper's claim: by hand, by enumeration, and by simulation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from wsl_sweep.analysis.diagnostics.regularization import (
    between_epochs,
    between_seeds,
    correlation_with_accuracy,
    counts,
    jaccard_matrix,
    overlap,
)

MASKS = np.array([[True, True, False, False], [True, False, True, False], [True, False, False, False]])


def test_counts_by_hand() -> None:
    found = counts(MASKS, [0, 0, 1, 1], 3)
    assert found.by_epoch.tolist() == [2, 2, 1]
    assert found.by_example.tolist() == [3, 1, 1, 0]
    assert found.by_class.tolist() == [[2, 0, 0], [1, 1, 0], [1, 0, 0]]
    np.testing.assert_allclose(found.share_of_class, [4 / 6, 1 / 6, np.nan])
    assert found.times.tolist() == [1, 2, 0, 1]
    assert found.expected_times.sum() == pytest.approx(4)
    none = 0.5 * 0.5 * 0.75
    assert found.expected_times[0] == pytest.approx(4 * none)
    assert found.expected_times[3] == pytest.approx(4 * 0.5 * 0.5 * 0.25)


def test_times_are_as_expected_where_each_epoch_draws_afresh() -> None:
    generator = np.random.default_rng(0)
    masks = generator.uniform(size=(6, 20_000)) < np.linspace(0.1, 0.6, 6)[:, None]
    found = counts(masks, np.zeros(20_000, dtype=int), 1)
    np.testing.assert_allclose(found.times, found.expected_times, atol=4 * np.sqrt(20_000) / 2)


def test_an_overlap_by_hand_and_by_enumeration() -> None:
    first = np.array([True, True, True, False, False, False, False])
    second = np.array([False, True, True, True, True, False, False])
    found = overlap(first, second)
    assert (found.examples, found.first, found.second) == (7, 3, 4)
    assert found.jaccard == pytest.approx(2 / 5)
    assert found.most == pytest.approx(3 / 4)
    indices, as_many = [], 0
    for chosen in itertools.combinations(range(7), 4):
        common = len({0, 1, 2} & set(chosen))
        indices.append(common / (7 - common))
        as_many += common >= 2
    assert found.chance == pytest.approx(np.mean(indices))
    assert found.p == pytest.approx(as_many / 35)
    assert found.stability == pytest.approx((2 / 5 - np.mean(indices)) / (3 / 4 - np.mean(indices)))


def test_the_p_is_the_hypergeometric_one_of_scipy_for_many_examples() -> None:
    generator = np.random.default_rng(1)
    first, second = generator.uniform(size=(2, 50_000)) < 0.3
    found = overlap(first, second)
    common = int((first & second).sum())
    assert found.p == pytest.approx(stats.hypergeom.sf(common - 1, 50_000, first.sum(), second.sum()), rel=1e-6)
    assert found.stability == pytest.approx(0, abs=0.02)
    assert found.chance == pytest.approx(0.09 / 0.51, abs=0.01)


def test_sets_that_are_all_or_nothing() -> None:
    none, all_of_them = np.zeros(5, dtype=bool), np.ones(5, dtype=bool)
    empty = overlap(none, none)
    assert (empty.jaccard, empty.chance, empty.stability, empty.p) == (None, None, None, 1.0)
    full = overlap(all_of_them, all_of_them)
    assert (full.jaccard, full.stability) == (1.0, None)
    assert full.chance == pytest.approx(1.0)
    apart = overlap(none, all_of_them)
    assert (apart.jaccard, apart.chance, apart.stability) == (0.0, 0.0, None)
    same = overlap(MASKS[0], MASKS[0])
    assert same.jaccard == 1.0
    assert same.stability == pytest.approx(1.0)


def test_between_epochs_are_neighbours_or_further_apart() -> None:
    assert [one.jaccard for one in between_epochs(MASKS)] == [pytest.approx(1 / 3), pytest.approx(1 / 2)]
    assert [one.jaccard for one in between_epochs(MASKS, 2)] == [pytest.approx(1 / 2)]
    with pytest.raises(ValueError, match="apart"):
        between_epochs(MASKS, 3)


def test_between_seeds_are_means_over_pairs() -> None:
    masks = np.stack([MASKS, MASKS[::-1], ~MASKS])
    found = between_seeds(masks)
    assert [one.epoch for one in found] == [1, 2, 3]
    assert len(found[0].pairs) == 3
    expected = [overlap(masks[a, 0], masks[b, 0]) for a, b in ((0, 1), (0, 2), (1, 2))]
    assert found[0].pairs == tuple(expected)
    assert found[0].jaccard == pytest.approx(np.mean([one.jaccard for one in expected]))
    with pytest.raises(ValueError, match="two seeds"):
        between_seeds(masks[:1])
    nobody = between_seeds(np.zeros((2, 1, 4), dtype=bool))[0]
    assert (nobody.jaccard, nobody.chance, nobody.stability) == (None, None, None)


def test_seeds_that_agree_by_a_known_amount() -> None:
    generator = np.random.default_rng(2)
    core = np.arange(20_000) < 4000  # always; of the others one in eight
    masks = np.stack([core | (generator.uniform(size=20_000) < 0.125) for _ in range(3)])[:, None, :]
    (found,) = between_seeds(masks)
    assert found.jaccard == pytest.approx((4000 + 16_000 / 64) / (4000 + 16_000 * 15 / 64), rel=0.03)
    assert found.stability is not None
    assert found.stability > 0.4


def test_the_matrix_holds_all_overlaps() -> None:
    matrix = jaccard_matrix(MASKS)
    for one, other in itertools.product(range(3), repeat=2):
        assert matrix[one, other] == pytest.approx(overlap(MASKS[one], MASKS[other]).jaccard)
    assert np.isnan(jaccard_matrix(np.zeros((1, 3), dtype=bool))[0, 0])


def test_the_claim_where_it_is_true_and_where_it_is_not() -> None:
    generator = np.random.default_rng(3)
    numbers = generator.uniform(1000, 5000, 30)
    falling = 0.8 - 1e-5 * numbers + generator.normal(0, 0.005, 30)
    found = correlation_with_accuracy(numbers.tolist(), falling.tolist())
    assert found.verdict == "supported"
    assert found.pearson.value == pytest.approx(stats.pearsonr(numbers, falling).statistic)
    assert found.spearman.value == pytest.approx(stats.spearmanr(numbers, falling).statistic)
    assert "as WSL says" in found.sentence
    against = correlation_with_accuracy(numbers.tolist(), (-falling).tolist())
    assert against.verdict == "contradicted"
    unrelated = correlation_with_accuracy(numbers.tolist(), generator.normal(0.8, 0.005, 30).tolist())
    assert unrelated.verdict == "not settled"


def test_the_claim_is_rarely_settled_where_nothing_goes_with_anything() -> None:
    generator = np.random.default_rng(4)
    verdicts = [
        correlation_with_accuracy(generator.normal(size=8).tolist(), generator.normal(size=8).tolist()).verdict
        for _ in range(400)
    ]
    assert np.mean([one != "not settled" for one in verdicts]) < 0.05 + 4 * np.sqrt(0.05 * 0.95 / 400)


def test_fewer_than_four_trials_and_numbers_that_do_not_vary_are_said() -> None:
    few = correlation_with_accuracy([1, 2, 3], [0.9, 0.8, 0.7])
    assert few.verdict == "not settled"
    assert "fewer than 4 trials" in few.sentence
    still = correlation_with_accuracy([5, 5, 5, 5], [0.9, 0.8, 0.7, 0.6])
    assert (still.verdict, still.pearson.value) == ("not settled", None)
    assert "does not vary" in still.sentence


def test_masks_that_do_not_fit_are_said() -> None:
    with pytest.raises(ValueError, match="bool"):
        counts(MASKS.astype(int), [0, 0, 1, 1], 2)
    with pytest.raises(ValueError, match=r"\(4,\)"):
        counts(MASKS, [0, 0], 2)
    with pytest.raises(ValueError, match="same examples"):
        overlap(MASKS[0], MASKS[0, :2])
