"""How far a parameter may be from its best: functions whose intervals are known."""

from __future__ import annotations

import re

import numpy as np
import pytest

from wsl_sweep.analysis.plots.style import Look
from wsl_sweep.analysis.report import render_diagnosis
from wsl_sweep.analysis.report_sections import Section
from wsl_sweep.analysis.report_why import Searched, sensitivity_section
from wsl_sweep.spec.distributions import Distribution

LR, ALPHA, KIND = "optimizer.lr", "distillation.alpha", "distillation.weighting.kind"
SPACE = {ALPHA: Distribution("uniform", low=0.0, high=4.0)}
METRIC = "validation/accuracy"


def searched(count: int = 30, arm: str = "wsl", sign: float = 1.0, **more: object) -> Searched:
    """Accuracy ``0.9 - 0.02 (α - 2)²``: at a margin of 0.02 α may lie in 1 … 3."""
    values = np.linspace(0.0, 4.0, count)
    noise = 0.0002 * np.random.default_rng(0).standard_normal(count)
    metric = sign * (0.9 - 0.02 * (values - 2) ** 2 + noise)
    points = tuple({ALPHA: float(value), **more} for value in values)
    return Searched(arm, points, tuple(metric.tolist()), points[count // 2])


def section_of(*arms: Searched, space: dict[str, Distribution] = SPACE, **more: bool) -> Section:
    found = sensitivity_section(space, arms or (searched(),), METRIC, 0.02, {"wsl": Look("series-1")}, **more)
    assert found is not None
    return found


def numbers(text: str) -> list[float]:
    return [float(one) for one in re.findall(r"\d+\.?\d*", text)]


def test_a_parabola_has_the_interval_that_its_margin_gives() -> None:
    found = section_of()
    assert found.key == "sensitivity"
    ((_, best, confirmed, predicted, lost),) = found.tables[0].table.rows
    assert numbers(best.text) == pytest.approx([2.0], abs=0.1)
    assert numbers(confirmed.text) == pytest.approx([1.0, 3.0], abs=0.1)
    assert numbers(predicted.text) == pytest.approx([1.0, 3.0], abs=0.1)
    assert numbers(lost.text) == pytest.approx([0.08], abs=0.01)
    assert found.answer.startswith("distillation.alpha is best at about 2")
    (picture,) = found.pictures
    assert picture.title == "What α loses"
    assert "confirmed within it" in picture.svg
    assert "margin, 0.0200" in picture.svg


def test_less_may_be_better() -> None:
    found = section_of(searched(sign=-1.0), more_is_better=False)
    assert numbers(found.tables[0].table.rows[0][2].text) == pytest.approx([1.0, 3.0], abs=0.1)


def test_categories_are_held_at_the_winners_value() -> None:
    good, bad = searched(20, **{KIND: "exp"}), searched(20, **{KIND: "none"})
    # Those of the other kind are worst where these are best: together they would say nothing.
    both = Searched("wsl", (*good.points, *bad.points), (*good.metric, *(1.7 - one for one in bad.metric)), good.winner)
    space = {**SPACE, KIND: Distribution("choice", values=("exp", "none"))}
    found = section_of(both, space=space)
    assert numbers(found.tables[0].table.rows[0][2].text) == pytest.approx([1.0, 3.0], abs=0.15)
    assert any("20 of 40 trials, those with the winner's weighting.kind = exp" in note for note in found.notes)


def test_where_the_winners_category_has_too_few_trials_all_are_used() -> None:
    other, lone = searched(20, **{KIND: "none"}), searched(30, **{KIND: "exp"})
    both = Searched("wsl", (*other.points, *lone.points[:3]), (*other.metric, *lone.metric[:3]), lone.winner)
    space = {**SPACE, KIND: Distribution("choice", values=("exp", "none"))}
    found = section_of(both, space=space)
    assert any("of all 23 trials" in note and "weighting.kind = exp are too few" in note for note in found.notes)


def test_a_parameter_that_not_all_trials_have_is_noise() -> None:
    base = searched(20)
    points = tuple({**point, **({LR: 0.1 + 0.01 * i} if i % 2 else {})} for i, point in enumerate(base.points))
    some = Searched("wsl", points, base.metric, base.winner)
    space = {**SPACE, LR: Distribution("loguniform", low=0.01, high=1.0)}
    assert [row[0].text for row in section_of(some, space=space).tables[0].table.rows] == ["α"]


def test_numbers_of_a_choice_count_and_truths_do_not() -> None:
    base = searched(30)
    values = (0.0, 1.0, 2.0, 3.0, 4.0)
    chosen = Searched(
        "wsl",
        tuple({ALPHA: values[i % 5], "dataset.flip": bool(i % 2)} for i in range(30)),
        tuple(0.9 - 0.02 * (values[i % 5] - 2) ** 2 + 1e-5 * i for i in range(30)),
        {ALPHA: 2.0, "dataset.flip": True},
    )
    space = {ALPHA: Distribution("choice", values=values), "dataset.flip": Distribution("choice", values=(True, False))}
    found = section_of(chosen, space=space)
    assert [row[0].text for row in found.tables[0].table.rows] == ["α"]
    assert any("flip = true" in note for note in found.notes)
    assert len(base.points) == 30


def test_nothing_where_there_is_no_curve() -> None:
    equal = Searched("wsl", searched().points, (0.9,) * 30, {})
    few = searched(4)
    words = {KIND: Distribution("choice", values=("exp", "none"))}
    for arms, space in (((equal,), SPACE), ((few,), SPACE), ((), SPACE), ((searched(),), {}), ((searched(),), words)):
        assert sensitivity_section(space, arms, METRIC, 0.02, {}) is None


def test_of_several_arms_they_are_counted_up() -> None:
    flat = Searched("kd", searched().points, tuple(0.9 + 1e-4 * (i % 3) for i in range(30)), {})
    rough = np.random.default_rng(1).normal(0.5, 0.4, 30)
    noisy = Searched("dkd", searched().points, tuple(rough.tolist()), {})
    found = section_of(searched(), flat, noisy)
    assert re.search(r"α of wsl \([\d.]+ to [\d.]+\) must stay near the best", found.answer)
    assert "α of kd may be anywhere in what was tried" in found.answer
    assert "of α of dkd the trials do not tell yet" in found.answer
    assert len(found.pictures) == 3
    unsure = section_of(*(Searched(arm, noisy.points, noisy.metric, {}) for arm in ("a", "b", "c")))
    assert unsure.answer.startswith("The trials do not tell yet how far α of a, α of b and α of c may be")


def test_names_are_text() -> None:
    page = render_diagnosis("why", [section_of(searched(arm="<b>wsl</b>"), searched())]).html
    assert "<b>wsl" not in page
    assert "&lt;b&gt;wsl" in page
