"""How a metric answers to swept parameters."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from tests.sweep.fakes import conductor_of, play, spec_of
from wsl_sweep.analysis import answered, coordinates, records_of, response_curves, responses
from wsl_sweep.analysis.records import Record
from wsl_sweep.analysis.responses import FEWEST_FOR_A_BAND, gaussian_process, importance
from wsl_sweep.spec.distributions import Distribution

METRIC = "validation/accuracy"
ALPHA = "distillation.alpha"


def record(x: Any, y: float, *, variant: str = "kd", stage: str = "search", status: str = "finished") -> Record:
    overrides = {} if x is None else {ALPHA: x}
    return Record("s", f"{x}{y}", stage, variant, (variant,), 0, status, {}, overrides, {METRIC: y})


def test_a_curve_through_a_known_function() -> None:
    generator = np.random.default_rng(0)
    xs = generator.uniform(0, 2, 40)
    band = gaussian_process([(x, math.sin(3 * x) + generator.normal(0, 0.1)) for x in xs])
    assert band is not None
    truth = np.sin(3 * np.asarray(band.xs))
    assert np.abs(np.asarray(band.mean) - truth).max() < 0.2
    inside = (np.asarray(band.low) <= truth) & (truth <= np.asarray(band.high))
    assert inside.mean() > 0.85
    assert min(band.xs) == pytest.approx(xs.min())
    assert max(band.xs) == pytest.approx(xs.max())


def test_the_band_of_a_flat_line_is_no_narrower_than_the_interval_of_its_mean() -> None:
    ys = np.random.default_rng(1).normal(0.9, 0.02, 9)
    band = gaussian_process(list(zip(np.linspace(1, 4, 9).tolist(), ys.tolist(), strict=True)))
    assert band is not None
    width = np.mean(np.asarray(band.high) - np.asarray(band.low))
    low, high = stats.t.interval(0.95, 8, ys.mean(), stats.sem(ys))
    assert width > 0.8 * (high - low)


def test_a_range_in_the_logarithm() -> None:
    xs = np.geomspace(1e-4, 1, 20)
    band = gaussian_process([(x, math.log10(x)) for x in xs.tolist()], log=True)
    assert band is not None
    assert np.allclose(band.mean, np.log10(band.xs), atol=0.15)
    assert np.allclose(np.diff(np.log(band.xs)), np.diff(np.log(band.xs))[0])


def test_too_few_values_have_no_curve() -> None:
    assert gaussian_process([(float(k), 0.1 * k) for k in range(FEWEST_FOR_A_BAND - 1)]) is None
    assert gaussian_process([(1.0, 0.1 * k) for k in range(9)]) is None
    assert gaussian_process([(float(k), 0.5) for k in range(9)]) is None
    assert gaussian_process([]) is None


def test_a_sweep_of_thousands_has_a_curve_in_seconds() -> None:
    xs = np.random.default_rng(0).uniform(0, 1, 5000)
    band = gaussian_process([(x, x) for x in xs.tolist()])
    assert band is not None
    assert np.allclose(band.mean, band.xs, atol=0.05)


def test_the_curve_of_many_noisy_trials_rests_on_all_of_them_and_is_fitted_on_some() -> None:
    generator = np.random.default_rng(0)
    xs = generator.uniform(0, 1, 1000)
    points = list(zip(xs.tolist(), (np.sin(3 * xs) + generator.normal(0, 0.5, 1000)).tolist(), strict=True))
    begun = time.perf_counter()
    whole = gaussian_process(points)
    assert time.perf_counter() - begun < 30, "the fit takes as long as the third power of their number says"
    some = gaussian_process(points[:100])
    assert whole is not None
    assert some is not None
    assert np.allclose(whole.mean, np.sin(3 * np.array(whole.xs)), atol=0.2)
    width = [np.mean(np.subtract(band.high, band.low)) for band in (whole, some)]
    assert width[0] < 0.6 * width[1]


def test_single_values_have_means_with_intervals_over_their_trials() -> None:
    values = {1.0: [0.5, 0.6, 0.7], 2.0: [0.8]}
    records = [record(x, y, stage="ablation") for x, ys in values.items() for y in ys]
    (curve,) = response_curves({ALPHA: Distribution("grid", (1.0, 2.0))}, records, METRIC)
    one, two = curve.groups[0].means
    assert (one.x, one.n, two.x, two.n, two.interval) == (1.0, 3, 2.0, 1, None)
    assert one.mean == pytest.approx(0.6)
    assert one.interval == pytest.approx(stats.t.interval(0.95, 2, 0.6, 0.1 / math.sqrt(3)))
    assert curve.categories == ()


def test_words_and_lists_are_categories() -> None:
    values = ("exp", [1, 2])
    records = [record("exp", 0.5), record([1, 2], 0.6)]
    (curve,) = response_curves({ALPHA: Distribution("choice", values)}, records, METRIC)
    assert curve.categories == ("exp", "[1, 2]")
    assert [one.x for one in curve.groups[0].means] == ["exp", "[1, 2]"]


def test_one_group_an_arm_and_none_for_who_does_not_read_it() -> None:
    records = [record(1.0, 0.5), record(2.0, 0.6, variant="wsl"), record(None, 0.4, variant="ce")]
    (curve,) = response_curves({ALPHA: Distribution("uniform", low=1, high=4)}, records, METRIC)
    assert [group.label for group in curve.groups] == ["kd", "wsl"]


def test_only_trials_that_ran_to_their_end_answer() -> None:
    records = [record(1.0, 0.5), record(2.0, 0.6, status="pruned"), record(3.0, math.nan)]
    records += [record(4.0, 0.7, stage="confirm"), record(5.0, 0.6, status="failed")]
    assert [one.overrides[ALPHA] for one in answered(records, METRIC)] == [1.0]
    assert [one.overrides[ALPHA] for one in answered(records[3:], METRIC)] == [4.0]


def test_parallel_coordinates_have_an_axis_a_parameter_and_gaps() -> None:
    space = {ALPHA: Distribution("loguniform", low=1, high=8), "x": Distribution("choice", ("a", "b"))}
    found = coordinates(space, [record(2.0, 0.5)], METRIC, more_is_better=True)
    assert found is not None
    assert [(axis.name, axis.log, axis.categories) for axis in found.axes] == [
        (ALPHA, True, ()),
        ("x", False, ("a", "b")),
    ]
    assert found.lines[0].values == (2.0, None)
    assert coordinates({ALPHA: space[ALPHA]}, [record(2.0, 0.5)], METRIC, more_is_better=True) is None


SEARCH = """
name: s
run: {recipe: digits}
space:
  distillation.alpha: {uniform: [1.0, 4.0]}
  distillation.temperature: {uniform: [1.0, 8.0]}
search: {trials: TRIALS, sampler: random}
"""


@pytest.mark.parametrize(("count", "warned"), [(6, True), (24, False)])
def test_importance_finds_the_parameter_that_matters_and_warns_below_20_trials(
    tmp_path: Path, count: int, warned: bool
) -> None:
    spec = spec_of(SEARCH.replace("TRIALS", str(count)))
    conductor = conductor_of(spec, tmp_path)
    play(conductor)
    found = importance(spec, list(conductor.state.trials.values()))
    assert found is not None
    (group,) = found.groups
    values = dict(group.importances)
    assert group.trials == count
    assert sum(values.values()) == pytest.approx(1.0)
    assert ("guess" in found.warning) == warned
    if not warned:  # the metric goes by α alone
        assert values[ALPHA] > 0.7


def test_importance_of_a_long_search_takes_some_of_its_trials_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(responses, "MOST_FOR_IMPORTANCE", 10)
    spec = spec_of(SEARCH.replace("TRIALS", "24"))
    conductor = conductor_of(spec, tmp_path)
    play(conductor)
    found = importance(spec, list(conductor.state.trials.values()))
    assert found is not None
    assert found.groups[0].trials == 8
    assert "from 8 of 24 finished trials" in found.note


def test_no_importance_of_one_trial(tmp_path: Path) -> None:
    spec = spec_of(SEARCH.replace("TRIALS", "1"))
    conductor = conductor_of(spec, tmp_path)
    play(conductor)
    assert importance(spec, list(conductor.state.trials.values())) is None


def test_the_records_of_a_search_answer(tmp_path: Path) -> None:
    spec = spec_of(SEARCH.replace("TRIALS", "7"))
    conductor = conductor_of(spec, tmp_path)
    play(conductor)
    sweep = records_of(spec, conductor.state, uuid="u")
    curves = response_curves(sweep.space, answered(sweep.records, METRIC), METRIC)
    assert [curve.parameter for curve in curves] == list(spec.space)
    assert all(len(curve.groups[0].points) == 7 and curve.groups[0].band is not None for curve in curves)
