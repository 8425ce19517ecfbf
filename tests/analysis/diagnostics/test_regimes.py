"""The regimes of bias and variance: who stands in which, what is compared, and the figures by an independent way."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import special

from wsl_sweep.analysis.diagnostics.regimes import Regime, Students, answer, regimes
from wsl_sweep.analysis.diagnostics.regularization import regularization_samples
from wsl_sweep.distill import regularization_sample_mask

N, C, K = 60, 5, 4
LABELS = np.random.default_rng(1).integers(0, C, N)


def students(name: str, spread: float = 1.0, seed: int = 0, seeds: int = K, **changes: Any) -> Students:
    """K students that scatter about common logits, without a teacher where nothing else is said."""
    generator = np.random.default_rng(seed)
    common = generator.normal(0, 2, (N, C))
    logits = {number: common + generator.normal(0, spread, (N, C)) for number in range(seeds)}
    plain: dict[str, Any] = {
        "distilled": False, "weighted": False, "splits": 1, "own_teachers": False, "temperature": 1.0, "setting": "",
    }  # fmt: skip
    return Students(name, logits=logits, **(plain | changes))


def protocol() -> list[Students]:
    """The three regimes, as search_spaces/bias_variance.yaml has them."""
    return [
        students("ce", 2.0, 0),
        students("kd", 1.0, 1, distilled=True),
        students("wsl", 1.5, 2, distilled=True, weighted=True),
        students("ce_parts", 3.0, 3, splits=K, setting="parts"),
        students("kd_parts", 1.0, 4, splits=K, distilled=True, setting="parts"),
        students("kd_each", 2.0, 5, splits=K, distilled=True, own_teachers=True, setting="parts"),
    ]


def of(found: tuple[Regime, ...]) -> dict[str, list[str]]:
    return {one.over: [each.name for each in one.students] for one in found}


def test_students_of_labels_alone_on_disjoint_data_stand_in_both_regimes_of_such() -> None:
    found = regimes(protocol(), LABELS, resamples=50)
    assert of(found) == {
        "seeds": ["ce", "kd", "wsl"],
        "data": ["ce_parts", "kd_parts"],
        "data and teachers": ["ce_parts", "kd_each"],
    }
    assert [[(one.name, one.baseline) for one in regime.against] for regime in found] == [
        [("kd", "ce"), ("wsl", "ce")],
        [("kd_parts", "ce_parts")],
        [("kd_each", "ce_parts")],
    ]
    assert [one.splits for one in found] == [1, K, K]
    assert all(one.seeds == tuple(range(K)) and one.examples == N for one in found)
    assert all("split by regularization sample" in " ".join(one.notes) for one in found)


def direct(one: Students, rows: NDArray[np.bool_]) -> tuple[float, float, float]:
    """Bias, variance and cross-entropy of some examples, each by its own definition."""
    logs = special.log_softmax(np.stack([*one.logits.values()]), axis=2)[:, rows]
    labels = LABELS[rows]
    average = special.log_softmax(logs.mean(axis=0), axis=1)
    bias = -average[np.arange(len(labels)), labels].mean()
    variance = (np.exp(average) * (average - logs)).sum(axis=2).mean()
    return bias, variance, -logs[:, np.arange(len(labels)), labels].mean()


def test_the_figures_are_those_of_their_definitions_and_add_up() -> None:
    given = protocol()
    for regime in regimes(given, LABELS, resamples=50):
        for one in regime.students:
            assert one.gap < 1e-10
            own = next(each for each in given if each.name == one.name)
            terms = one.terms.whole
            expected = direct(own, np.ones(N, dtype=bool))
            assert (terms.bias.value, terms.variance.value, terms.cross_entropy.value) == pytest.approx(expected)
            assert terms.corrected_variance.value == pytest.approx(expected[1] * K / (K - 1))
        for pair in regime.against:
            alone, distilled = (next(o for o in given if o.name == name) for name in (pair.baseline, pair.name))
            ours, theirs = direct(distilled, np.ones(N, dtype=bool)), direct(alone, np.ones(N, dtype=bool))
            assert pair.tradeoff.whole.middle.value == pytest.approx(ours[0] - theirs[0])
            assert pair.tradeoff.whole.change.value == pytest.approx(ours[1] - theirs[1])
            assert pair.tradeoff.whole.sentence in answer(regime)


def test_all_is_split_by_whether_an_example_is_a_regularization_sample_of_most_students() -> None:
    """At τ = 1 an example is one where the student gives the label more than its teacher does."""
    kd, ce = students("kd", distilled=True), students("ce", 2.0, 3)
    inside = np.arange(N) < 20
    teachers = {}
    for number, logits in kd.logits.items():
        raised = np.array(logits)
        few = number != 0  # of the first student, all examples are
        raised[np.arange(N), LABELS] += np.where(inside | (not few), -3.0, 3.0)
        teachers[number] = raised
    (found,) = regimes([ce, replace(kd, teachers=teachers)], LABELS, resamples=50)
    for name, given in (("kd", kd), ("ce", ce)):
        one = next(each for each in found.students if each.name == name)
        assert one.share == pytest.approx(20 / N)
        assert one.terms.regularization is not None
        assert one.terms.others is not None
        for terms, rows in ((one.terms.regularization, inside), (one.terms.others, ~inside)):
            assert (terms.bias.value, terms.variance.value, terms.cross_entropy.value) == pytest.approx(
                direct(given, rows)
            )
            assert terms.examples == rows.sum()
    trade = found.against[0].tradeoff
    assert trade.regularization is not None
    assert trade.others is not None
    whole = (20 * trade.regularization.change.value + 40 * trade.others.change.value) / N
    assert whole == pytest.approx(trade.whole.change.value)
    assert not any("regularization" in note for note in found.notes)


def test_labels_alone_are_split_by_the_plain_distillation_and_not_by_the_weighted_one() -> None:
    def teachers_of(one: Students, share: int) -> dict[int, NDArray[np.float64]]:
        raised = {number: np.array(logits) for number, logits in one.logits.items()}
        for logits in raised.values():
            logits[np.arange(N), LABELS] += np.where(np.arange(N) < share, -3.0, 3.0)
        return raised

    wsl = students("wsl", 1.0, 1, distilled=True, weighted=True)
    kd = students("kd", 1.0, 2, distilled=True)
    rows = [students("ce"), replace(wsl, teachers=teachers_of(wsl, 10)), replace(kd, teachers=teachers_of(kd, 25))]
    (found,) = regimes(rows, LABELS, resamples=50)
    assert {one.name: round((one.share or 0) * N) for one in found.students} == {"ce": 25, "wsl": 10, "kd": 25}


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("scale", [0.01, 3.0, 60.0])
def test_a_regularization_sample_is_what_it_is_in_training(temperature: float, scale: float) -> None:
    generator = np.random.default_rng(4)
    student, teacher = (scale * generator.normal(size=(400, 7)) for _ in range(2))
    labels = generator.integers(0, 7, 400)
    expected = regularization_sample_mask(
        torch.from_numpy(student), torch.from_numpy(teacher), torch.from_numpy(labels), temperature
    )
    found = regularization_samples(student, teacher, labels, temperature)
    assert found.tolist() == expected.tolist()
    assert 0 < found.sum() < 400


def test_logits_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        regularization_samples(np.zeros((2, 3)), np.zeros((2, 4)), [0, 0], 1.0)
    with pytest.raises(ValueError, match="temperature"):
        regularization_samples(np.zeros((2, 3)), np.zeros((2, 3)), [0, 0], 0.0)


def test_rows_are_of_the_seeds_that_all_have_and_what_is_left_out_is_said() -> None:
    ce, kd = students("ce", seeds=5), students("kd", seeds=3, distilled=True)
    alone = students("one", seeds=1, distilled=True)
    (found,) = regimes([ce, kd, alone], LABELS, resamples=50)
    assert found.seeds == (0, 1, 2)
    assert [one.name for one in found.students] == ["ce", "kd"]
    said = " ".join(found.notes)
    assert "one has 1" in said
    assert "3, 4" in said
    same = [replace(one, logits={k: v for k, v in one.logits.items() if k < 3}) for one in (ce, kd)]
    (expected,) = regimes(same, LABELS, resamples=50)
    assert found.against[0].tradeoff.whole.change == expected.against[0].tradeoff.whole.change


def test_nothing_is_compared_over_settings_and_nothing_follows_from_no_pair() -> None:
    found = regimes([students("ce", setting="a"), students("kd", distilled=True, setting="b")], LABELS, resamples=50)
    assert [[one.name for one in regime.students] for regime in found] == [["ce"], ["kd"]]
    assert [len(regime.against) for regime in found] == [0, 0]
    assert any("labels alone" in note for note in found[1].notes)
    assert regimes([students("ce", seeds=1)], LABELS) == ()
    assert regimes([], LABELS) == ()
    disjoint = [students("a", seeds=2), replace(students("b", distilled=True), logits={7: np.zeros((N, C))})]
    assert of(regimes(disjoint, LABELS, resamples=50)) == {"seeds": ["a"]}


def test_two_rows_of_labels_alone_are_not_chosen_between() -> None:
    rows = [students("ce"), students("ce too", seed=2), students("kd", distilled=True)]
    (found,) = regimes(rows, LABELS, resamples=50)
    assert found.against == ()
    assert any("ce, ce too" in note for note in found.notes)
    assert "smallest variance" in answer(found)


def test_parts_that_are_shared_and_two_students_are_said() -> None:
    (shared,) = regimes([students("kd", splits=2, distilled=True)], LABELS, resamples=50)
    assert any("some were trained on the same one" in note for note in shared.notes)
    (two,) = regimes([students("ce", seeds=2)], LABELS, resamples=50)
    assert any("three or more" in note for note in two.notes)
    assert two.students[0].terms.whole.corrected_variance.over_models is None
