"""What a comparison can show, told before it is run."""

from __future__ import annotations

from pathlib import Path

import pytest
from statsmodels.stats.power import TTestPower

from tests.sweep.fakes import conductor_of, play, spec_of
from wsl_sweep.analysis import compare, records_of
from wsl_sweep.app.planning import remember_spread, smallest_shown

SEARCH = """
name: s
run: {recipe: digits}
space: {distillation.alpha: {uniform: [1.0, 4.0]}}
search: {trials: 4, sampler: random}
confirm: {seeds: 5, baselines: [kd, ce]}
compare: {baseline: kd, metric: test/accuracy, margin: 0.005}
"""


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSL_SWEEP_CACHE", str(tmp_path / "cache"))


def test_in_standard_deviations_where_nothing_is_known() -> None:
    effect = TTestPower().solve_power(nobs=5, alpha=0.025, power=0.8)  # two comparisons: Holm's first step
    told = smallest_shown(spec_of(SEARCH))
    assert f"5 paired seeds show a difference of {effect:.3g} standard deviations (80 % power, Holm over 2)" in told
    assert f"scatter by no more than {0.005 / effect:.4f}" in told


def test_in_the_metrics_unit_after_a_sweep_of_its_kind(tmp_path: Path) -> None:
    spec = spec_of(SEARCH)
    conductor = conductor_of(spec, tmp_path / "sweep")
    play(conductor)
    for number, state in enumerate(conductor.state.trials.values()):
        state.metrics["test/accuracy"] = 0.9 + 0.003 * (number * number % 7)
    compared = compare([records_of(spec, conductor.state, uuid="u")])
    remember_spread(spec, compared)
    spreads = sorted(one.difference.sd for one in compared.comparisons if one.difference)
    spread = (spreads[0] + spreads[1]) / 2
    effect = TTestPower().solve_power(nobs=5, alpha=0.025, power=0.8)
    told = smallest_shown(spec)
    assert f": {effect * spread:.4f} test/accuracy, as differences scattered by {spread:.4f}" in told
    assert "for the margin of 0.0050 it takes about" in told
    assert "scattered" not in smallest_shown(spec_of(SEARCH.replace("test/accuracy", "test/loss")))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (SEARCH.replace("seeds: 5", "seeds: 1"), "one seed: no interval and no verdict will follow"),
        (SEARCH.replace("baseline: kd, ", ""), "compare.baseline names nobody"),
        ("run: {recipe: digits}\nvariants: [kd]\nseeds: 3\ncompare: {baseline: kd}", "nothing beside the baseline"),
        (
            "run: {recipe: digits}\nvariants: [kd, ce]\nseeds: 3\ncompare: {baseline: kd}",
            "3 paired seeds show a difference of 3.26",
        ),
        (
            "run: {recipe: digits}\nvariants: [kd, ce, wsl]\nseeds: 3\ncompare: {baseline: kd, family: [wsl]}",
            "3 paired seeds show a difference of 3.26",
        ),
    ],
)
def test_what_will_not_be_shown_is_said(text: str, told: str) -> None:
    assert told in smallest_shown(spec_of(text))
