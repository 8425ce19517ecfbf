"""Optuna hears the truth, is told again from the ledger, and known proposals are not run twice."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from optuna.trial import TrialState as OptunaState

from tests.sweep.fakes import good, spec_of
from wsl_sweep.spec.plan import Trial
from wsl_sweep.sweep.ledger import TrialState
from wsl_sweep.sweep.study import ArmStudy

SEARCH = """
run: {recipe: digits}
space:
  distillation.alpha: {uniform: [1.0, 4.0]}
  distillation.weighting.kind: {choice: [exp, sigmoid]}
  distillation.weighting.of:
    choice: [ratio, difference]
    when: {distillation.weighting.kind: sigmoid}
search: {trials: 12, sampler: SAMPLER}
"""


def study_of(
    sampler: str = "tpe", told: list[TrialState] | None = None, text: str = SEARCH, **options: Any
) -> ArmStudy:
    return ArmStudy(spec_of(text.replace("SAMPLER", sampler), **options), "tuned", "cpu", told or [])


def ended(trial: Trial, status: str = "finished", **metrics: float) -> TrialState:
    outcome = good(trial)
    return TrialState(trial, status, 1, int(outcome["epochs"]), {**outcome["metrics"], **metrics})


def everything(study: ArmStudy) -> list[TrialState]:
    states = []
    while (trial := study.propose()) is not None:
        states.append(ended(trial))
        study.tell(states[-1])
    return states


@pytest.mark.parametrize("sampler", ["tpe", "random", "cmaes", "gp", "nsga2"])
def test_every_sampler_proposes_the_asked_number_of_different_valid_trials(sampler: str) -> None:
    states = everything(study_of(sampler))
    assert len({state.trial.trial_id for state in states}) == 12
    for state in states:
        overrides = state.trial.overrides
        assert 1.0 <= overrides["distillation.alpha"] <= 4.0
        assert ("distillation.weighting.of" in overrides) == (overrides["distillation.weighting.kind"] == "sigmoid")


def test_tpe_learns() -> None:
    text = SEARCH.replace("trials: 12", "trials: 40")
    states = everything(study_of("tpe", text=text))
    late = [abs(state.trial.overrides["distillation.alpha"] - 2.0) for state in states[-15:]]
    assert sum(late) / len(late) < 0.5  # at random it would be 0.83


def test_grid_runs_every_point_once_without_what_does_not_exist() -> None:
    text = """
run: {recipe: digits}
space:
  distillation.temperature: {grid: [1.0, 4.0]}
  distillation.weighting.kind: {grid: [exp, sigmoid]}
  distillation.weighting.of: {grid: [ratio, difference], when: {distillation.weighting.kind: sigmoid}}
search: {sampler: grid}
"""
    study = study_of(text=text)
    points = [state.trial.overrides for state in everything(study)]
    assert len(points) == 2 * (1 + 2)
    assert len({str(sorted(point.items())) for point in points}) == 6


def test_optuna_hears_complete_pruned_and_fail() -> None:
    study = study_of()
    trials = [study.propose() for _ in range(4)]
    for trial, status in zip(trials, ("finished", "pruned", "failed", "finished"), strict=True):
        assert trial is not None
        metrics = {"validation/accuracy": float("nan")} if trial is trials[3] else {}
        study.tell(ended(trial, status, **metrics))
    states = [trial.state for trial in study.study.trials]
    assert states == [OptunaState.COMPLETE, OptunaState.PRUNED, OptunaState.FAIL, OptunaState.FAIL]
    assert study.study.trials[1].intermediate_values == {
        40: pytest.approx(good(trials[1])["metrics"]["validation/accuracy"])
    }  # type: ignore[arg-type]


def test_the_study_is_told_again_from_the_ledger() -> None:
    first = study_of()
    told = [ended(trial, status) for status in ("finished", "pruned", "failed") if (trial := first.propose())]
    for state in told:
        first.tell(state)
    again = study_of(told=told)
    assert [trial.state for trial in again.study.trials] == [trial.state for trial in first.study.trials]
    assert [trial.params for trial in again.study.trials] == [trial.params for trial in first.study.trials]
    assert again.study.trials[0].values == first.study.trials[0].values
    assert again.proposed == 3
    assert len(everything(again)) == 9


def test_an_unfinished_trial_is_asked_again_as_it_was() -> None:
    first = study_of()
    trial = first.propose()
    assert trial is not None
    again = study_of(told=[TrialState(trial, "killed", 1)])
    (asked,) = again.study.trials
    assert asked.state == OptunaState.RUNNING
    assert asked.params == dict(trial.overrides)
    again.tell(ended(trial))
    assert again.study.trials[0].state == OptunaState.COMPLETE


def test_a_small_space_ends_the_search_and_repeats_hear_what_is_known() -> None:
    text = """
run: {recipe: digits}
space: {distillation.temperature: {choice: [1.0, 2.0, 4.0]}}
search: {trials: 12, sampler: random}
"""
    study = study_of(text=text)
    states = everything(study)
    assert len(states) == 3
    assert study.exhausted
    complete = [trial for trial in study.study.trials if trial.state == OptunaState.COMPLETE]
    assert len(complete) > 3  # the repeats were told, not left running
    assert not [trial for trial in study.study.trials if trial.state == OptunaState.RUNNING]


def test_a_repeat_of_a_running_trial_hears_its_end() -> None:
    text = "run: {recipe: digits}\nspace: {distillation.temperature: {choice: [1.0, 2.0]}}\n"
    study = study_of(text=text + "search: {trials: 9, sampler: random}")
    first, second = study.propose(), study.propose()
    assert first is not None
    assert second is not None
    assert study.propose() is None
    study.tell(ended(first))
    study.tell(ended(second))
    assert {trial.state for trial in study.study.trials} == {OptunaState.COMPLETE}


def test_several_metrics_make_a_study_of_several_directions() -> None:
    text = SEARCH.replace("trials: 12", "trials: 4, metric: [validation/accuracy, train/seconds]")
    study = study_of("nsga2", text=text)
    everything(study)
    assert study.study.directions == [optuna.study.StudyDirection.MAXIMIZE, optuna.study.StudyDirection.MINIMIZE]
    assert all(len(trial.values) == 2 for trial in study.study.trials)


@pytest.mark.parametrize(
    ("entry", "check"),
    [
        ("{loguniform: [0.1, 10.0]}", lambda value: 0.1 <= value <= 10.0),
        ("{quniform: [1.0, 2.1, 0.5]}", lambda value: value in (1.0, 1.5, 2.0)),
        ("{uniform: [1, 3]}", lambda value: 1.0 <= value <= 3.0),
    ],
)
def test_continuous_distributions_stay_in_their_bounds(entry: str, check: Any) -> None:
    text = f"run: {{recipe: digits}}\nspace: {{distillation.alpha: {entry}}}\nsearch: {{trials: 10, sampler: random}}"
    for state in everything(study_of(text=text)):
        assert check(state.trial.overrides["distillation.alpha"])


@pytest.mark.parametrize("kind", ["int", "logint"])
def test_whole_numbers_stay_whole(kind: str) -> None:
    text = f"run: {{recipe: digits}}\nspace: {{schedule.epochs: {{{kind}: [2, 9]}}}}\n"
    states = everything(study_of(text=text + "search: {trials: 8, sampler: random}"))
    values = {state.trial.overrides["schedule.epochs"] for state in states}
    assert all(isinstance(value, int) and 2 <= value <= 9 for value in values)


def test_lists_can_be_chosen() -> None:
    text = "run: {recipe: digits}\nspace: {schedule.milestones: {choice: [[10, 20], [30]]}}\n"
    states = everything(study_of(text=text + "search: {trials: 2, sampler: random}"))
    values = [state.trial.config["schedule"]["milestones"] for state in states]
    assert sorted(values) == [[10, 20], [30]]
