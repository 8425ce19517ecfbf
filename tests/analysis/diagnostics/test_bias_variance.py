"""Bias and variance: the identities, by brute force, and of models drawn from a known distribution."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import special, stats

from wsl_sweep.analysis.diagnostics import arrays
from wsl_sweep.analysis.diagnostics.bias_variance import (
    Decomposition,
    bias_variance,
    decompose,
    split,
    tradeoff,
)
from wsl_sweep.analysis.diagnostics.resampling import bootstrap_interval, jackknife_interval


def drawn(count: int, n: int, classes: int, spread: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities of K models that scatter about common logits, and labels."""
    generator = np.random.default_rng(seed)
    common = generator.normal(0, 2, (n, classes))
    outputs = common + generator.normal(0, spread, (count, n, classes))
    return special.log_softmax(outputs, axis=2), generator.integers(0, classes, n)


def brute(logs: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Each from its own definition, example by example, with probabilities."""
    found: dict[str, list[float]] = {"bias": [], "variance": [], "divergence": [], "cross_entropy": []}
    for n, y in enumerate(labels):
        models = [np.exp(logs[k, n]) for k in range(len(logs))]
        geometric = stats.gmean(models, axis=0)
        average = geometric / geometric.sum()
        found["bias"].append(-math.log(average[y]))
        found["variance"].append(-math.log(geometric.sum()))
        found["divergence"].append(float(np.mean([stats.entropy(average, one) for one in models])))
        found["cross_entropy"].append(float(np.mean([-math.log(one[y]) for one in models])))
    return {name: np.array(values) for name, values in found.items()}


@pytest.mark.parametrize("count", [2, 5])
@pytest.mark.parametrize("spread", [0.01, 1.0, 6.0])
def test_bias_and_mean_divergence_each_computed_by_itself_are_the_mean_cross_entropy(count: int, spread: float) -> None:
    logs, labels = drawn(count, 80, 7, spread, 0)
    found, expected = decompose(logs, labels), brute(logs, labels)
    np.testing.assert_allclose(expected["bias"] + expected["divergence"], expected["cross_entropy"], atol=1e-10)
    np.testing.assert_allclose(found.bias, expected["bias"], atol=1e-10)
    np.testing.assert_allclose(found.variance, expected["variance"], atol=1e-10)
    np.testing.assert_allclose(found.divergence, expected["divergence"], atol=1e-10)
    np.testing.assert_allclose(found.cross_entropy, expected["cross_entropy"], atol=1e-10)
    assert found.gap < 1e-10
    assert abs((found.bias.mean() + found.divergence.mean()) - found.cross_entropy.mean()) < 1e-10


def test_by_hand() -> None:
    logs = np.log(np.array([[[0.8, 0.2]], [[0.2, 0.8]]]))
    found = decompose(logs, [0])
    assert found.bias[0] == pytest.approx(math.log(2))  # the average is even
    assert found.variance[0] == pytest.approx(-math.log(2 * math.sqrt(0.8 * 0.2)))
    assert found.corrected_variance[0] == pytest.approx(2 * found.variance[0])
    assert found.corrected_bias[0] + found.corrected_variance[0] == pytest.approx(found.cross_entropy[0])


def test_without_each_model_is_of_the_others() -> None:
    logs, labels = drawn(4, 20, 5, 1.0, 1)
    found = decompose(logs, labels)
    for k in range(4):
        others = decompose(np.delete(logs, k, axis=0), labels)
        np.testing.assert_allclose(found.bias_without[k], others.bias, atol=1e-10)
        np.testing.assert_allclose(found.variance_without[k], others.variance, atol=1e-10)


def test_logits_and_certain_models_serve_as_well() -> None:
    logits = np.array([[[900.0, 0.0, 0.0]], [[0.0, 900.0, 0.0]]])
    found = decompose(logits, [0])
    assert found.cross_entropy[0] == pytest.approx(450.0)
    assert found.bias[0] == pytest.approx(math.log(2))
    assert found.gap < 1e-9
    logs, labels = drawn(3, 10, 4, 1.0, 2)
    np.testing.assert_allclose(decompose(logs + 17.0, labels).bias, decompose(logs, labels).bias)


def test_pieces_and_memory_maps_give_what_the_whole_gives(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    logs, labels = drawn(3, 41, 6, 1.0, 3)
    whole = decompose(logs, labels)
    for k in range(3):
        np.save(tmp_path / f"{k}.npy", logs[k])
    monkeypatch.setattr(arrays, "CELLS", 150)
    again = decompose([np.load(tmp_path / f"{k}.npy", mmap_mode="r") for k in range(3)], labels)
    np.testing.assert_array_equal(again.bias, whole.bias)
    np.testing.assert_array_equal(again.variance_without, whole.variance_without)


def true_variance(spread: float) -> float:
    """``-log Z`` of two classes whose logits differ by N(1, 2 spread²), by quadrature."""
    points, weights = np.polynomial.hermite_e.hermegauss(120)
    apart = 1.0 + math.sqrt(2) * spread * points
    weights = weights / weights.sum()
    mean = [float(-(weights * np.logaddexp(0, sign * apart)).sum()) for sign in (-1, 1)]
    return -float(special.logsumexp(mean))


@pytest.mark.parametrize("count", [3, 5])
def test_the_correction_mends_a_small_variance(count: int) -> None:
    spread, n = 0.2, 200_000
    generator = np.random.default_rng(4)
    outputs = np.array([1.0, 0.0]) + generator.normal(0, spread, (count, n, 2))
    found = decompose(outputs, np.zeros(n, dtype=int))
    error = 4 * found.corrected_variance.std() / math.sqrt(n)
    assert error < 0.01 * true_variance(spread)
    assert found.corrected_variance.mean() == pytest.approx(true_variance(spread), rel=0.02)
    assert found.variance.mean() < 0.9 * true_variance(spread)


def test_the_correction_leaves_some_of_a_large_variance_out() -> None:
    spread, n = 4.0, 50_000
    generator = np.random.default_rng(5)
    outputs = np.array([1.0, 0.0]) + generator.normal(0, spread, (4, n, 2))
    ratio = decompose(outputs, np.zeros(n, dtype=int)).corrected_variance.mean() / true_variance(spread)
    assert 0.8 < ratio < 0.98


def test_the_estimates_are_means_with_both_intervals() -> None:
    logs, labels = drawn(5, 120, 6, 1.0, 6)
    found = decompose(logs, labels)
    told = bias_variance(found, resamples=400, seed=3)
    assert (told.models, told.examples) == (5, 120)
    assert told.variance.value == pytest.approx(found.variance.mean())
    assert told.variance.over_examples == pytest.approx(bootstrap_interval(found.variance, resamples=400, seed=3))
    assert told.corrected_variance.over_examples == pytest.approx(
        tuple(1.25 * one for one in told.variance.over_examples)
    )
    assert told.bias.value + told.variance.value == pytest.approx(told.cross_entropy.value, abs=1e-10)
    assert told.corrected_bias.value + told.corrected_variance.value == pytest.approx(told.cross_entropy.value)
    without = [decompose(np.delete(logs, k, axis=0), labels).corrected_variance.mean() for k in range(5)]
    assert told.corrected_variance.over_models == pytest.approx(
        jackknife_interval(float(found.corrected_variance.mean()), without)
    )
    losses = [-logs[k, np.arange(120), labels].mean() for k in range(5)]
    assert told.cross_entropy.over_models == pytest.approx(
        stats.t.interval(0.95, 4, np.mean(losses), stats.sem(losses))
    )
    percentile = bias_variance(found, method="percentile", resamples=400, seed=3)
    assert percentile.variance.over_examples != told.variance.over_examples


def test_two_models_have_no_corrected_jackknife() -> None:
    told = bias_variance(decompose(*drawn(2, 30, 4, 1.0, 7)), resamples=50)
    assert told.corrected_variance.over_models is None
    assert told.corrected_bias.over_models is None
    assert told.variance.over_models is not None
    assert told.corrected_variance.settled() == 0


def test_the_jackknife_over_models_covers_the_true_variance() -> None:
    generator = np.random.default_rng(8)
    covered, runs, n, spread = 0, 200, 200, 0.4
    truth = true_variance(spread)
    for _ in range(runs):
        common = generator.normal(0, 0.25, (5, 1, 2))  # what all examples of a model share
        outputs = np.array([1.0, 0.0]) + common + generator.normal(0, math.sqrt(spread**2 - 0.0625), (5, n, 2))
        found = decompose(outputs, np.zeros(n, dtype=int))
        without = found.variance_without.mean(axis=1) * 4 / 3
        interval = jackknife_interval(float(found.corrected_variance.mean()), without)
        assert interval is not None
        covered += interval[0] <= truth <= interval[1]
    assert covered / runs > 0.82


def test_the_middle_term_is_that_of_equation_three() -> None:
    ce, labels = drawn(4, 60, 5, 1.5, 9)
    kd, _ = drawn(4, 60, 5, 0.5, 10)
    one, other = decompose(ce, labels), decompose(kd, labels)
    found = tradeoff(one, other, resamples=100)
    rows = np.arange(60)
    average = [special.log_softmax(logs.mean(axis=0), axis=1)[rows, labels] for logs in (ce, kd)]
    middle = average[0] - average[1]
    assert found.middle.value == pytest.approx(middle.mean())
    variance = -special.logsumexp(kd.mean(axis=0), axis=1)
    loss = -kd[:, rows, labels].mean()
    assert loss == pytest.approx((-average[0] + middle + variance).mean(), abs=1e-10)
    assert found.change.value == pytest.approx(other.variance.mean() - one.variance.mean())
    assert found.corrected_change.value == pytest.approx(found.change.value * 4 / 3)
    assert found.share == pytest.approx(np.mean(other.variance <= one.variance))
    expected = stats.ttest_rel(other.variance, one.variance, alternative="less").pvalue
    assert found.p == pytest.approx(expected)


def test_assumption_one_holds_where_the_distilled_scatter_less_and_fails_where_they_scatter_more() -> None:
    generator = np.random.default_rng(11)
    common, labels = generator.normal(0, 2, (400, 5)), generator.integers(0, 5, 400)
    wide, narrow = (decompose(common + generator.normal(0, one, (5, 400, 5)), labels) for one in (1.0, 0.4))
    found = tradeoff(wide, narrow, resamples=200)
    assert found.assumption == "holds"
    assert found.p < 1e-6
    assert "Assumption 1 holds here" in found.sentence
    turned = tradeoff(narrow, wide, name="WSL", resamples=200)
    assert turned.assumption == "fails"
    assert turned.p > 1 - 1e-6
    assert turned.change.value == pytest.approx(-found.change.value)
    assert "larger" in turned.sentence
    same = tradeoff(wide, wide, resamples=50)
    assert (same.assumption, same.middle_sign, same.p, same.share) == ("not settled", "not settled", 0.5, 1.0)


def test_the_sign_of_the_middle_term_is_that_of_a_pull_towards_or_from_the_label() -> None:
    generator = np.random.default_rng(12)
    common, labels = generator.normal(0, 2, (300, 5)), generator.integers(0, 5, 300)
    outputs = common + generator.normal(0, 0.3, (5, 300, 5))
    ce = decompose(outputs + 2.0 * np.eye(5)[labels], labels)
    kd = decompose(outputs, labels)
    raised = tradeoff(ce, kd, resamples=200)
    assert raised.middle_sign == "positive"
    assert raised.sentence.startswith("KD raises the bias")
    lowered = tradeoff(kd, ce, resamples=200)
    assert lowered.middle_sign == "negative"
    assert "where the paper takes it to rise" in lowered.sentence


def test_one_odd_model_leaves_it_unsettled_however_many_examples_agree() -> None:
    generator = np.random.default_rng(13)
    common, labels = generator.normal(0, 2, (2000, 4)), generator.integers(0, 4, 2000)
    noise = generator.normal(0, 0.5, (3, 2000, 4))
    odd = noise.copy()
    odd[2] *= 6.0
    found = tradeoff(decompose(common + noise, labels), decompose(common + odd, labels), resamples=200)
    assert found.change.over_examples[0] > 0
    assert found.assumption == "not settled"


def test_regularization_samples_and_the_others_make_up_the_whole() -> None:
    logs, labels = drawn(3, 50, 4, 1.0, 14)
    mask = np.random.default_rng(15).uniform(size=50) < 0.3
    found = decompose(logs, labels)
    inside, outside = split(found, mask)
    assert isinstance(inside, Decomposition)
    assert isinstance(outside, Decomposition)
    assert (inside.examples, outside.examples) == (mask.sum(), (~mask).sum())
    again = decompose(logs[:, mask], labels[mask])
    np.testing.assert_allclose(inside.bias, again.bias)
    np.testing.assert_allclose(inside.variance_without, again.variance_without)
    whole = (inside.variance.sum() + outside.variance.sum()) / 50
    assert whole == pytest.approx(found.variance.mean())
    assert split(found, np.zeros(50, dtype=bool))[0] is None
    assert split(found, np.ones(50, dtype=bool))[1] is None


def test_what_cannot_be_decomposed_is_said() -> None:
    logs, labels = drawn(3, 8, 4, 1.0, 16)
    with pytest.raises(ValueError, match="two models"):
        decompose(logs[:1], labels)
    with pytest.raises(ValueError, match="differ in shape"):
        decompose([logs[0], logs[1][:5]], labels)
    with pytest.raises(ValueError, match="finite"):
        decompose([logs[0], np.full((8, 4), -np.inf)], labels)
    found = decompose(logs, labels)
    with pytest.raises(ValueError, match="as many models"):
        tradeoff(found, decompose(logs[:2], labels))
    with pytest.raises(ValueError, match="the mask"):
        split(found, np.ones(7, dtype=bool))
    with pytest.raises(ValueError, match="hold an example"):
        found.of(np.zeros(8, dtype=bool))
