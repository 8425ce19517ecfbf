"""Which metrics a file may name: those that are measured of its data, with the nearest of them where it is none."""

from __future__ import annotations

from typing import Any

import pytest

from wsl_sweep.analysis.verdicts import number, unit
from wsl_sweep.spec.sections import CompareSection, mode_of, natural_mode

from .test_world import FakeWorld, problems_in

OWN = """
run:
  recipe: digits
  dataset: {name: "my.tasks:Own"}
space: {distillation.alpha: {uniform: [1, 3]}}
search: {trials: 2, metric: METRIC}
confirm: {seeds: 2}
compare: {metric: COMPARED}
"""


def told(text: str, world: FakeWorld | None, **command_line: Any) -> list[tuple[str, str]]:
    return [(problem.path, problem.what) for problem in problems_in(world or NoWorld(), text, **command_line)]


class NoWorld(FakeWorld):
    """Measures whatever anybody asks for."""

    def own_metrics(self, dataset: Any) -> tuple[str, ...]:
        return tuple(f"{part}/{name}" for part in ("validation", "test") for name in ("f1", "auc", "macro_f1"))


def own(metric: str, compared: str = "test/accuracy") -> str:
    return OWN.replace("METRIC", metric).replace("COMPARED", compared)


@pytest.mark.parametrize("metric", ["validation/f1", "validation/accuracy", "[validation/auc, validation/loss]"])
def test_what_a_users_task_measures_may_be_searched_for(metric: str) -> None:
    assert told(own(metric), None) == []
    assert told(own("validation/accuracy", "test/macro_f1"), FakeWorld()) == []


def test_what_it_does_not_measure_is_told_with_the_nearest() -> None:
    problems = told(own("validation/macro_fi", "test/r_squared"), FakeWorld())
    assert problems == [
        (
            "search.metric",
            'my.tasks:Own does not measure "validation/macro_fi"; did you mean "validation/macro_f1"?',
        ),
        (
            "compare.metric",
            'my.tasks:Own does not measure "test/r_squared"; '
            "there is: test/accuracy, test/loss, test/ece, test/macro_f1",
        ),
    ]
    (problem,) = told(own("[validation/loss, validation/f0]"), FakeWorld())
    assert problem[0] == "search.metric.1"


@pytest.mark.parametrize("metric", ["f1", "validation/f 1", "train/f1", "validation/"])
def test_names_of_another_form_are_told_without_asking(metric: str) -> None:
    (problem,) = told(own(f'"{metric}"'), None)
    assert problem[0] == "search.metric"
    assert f'no metric is called "{metric}"' in problem[1]


def test_nothing_is_chosen_on_a_users_test_metric() -> None:
    (problem,) = told(own("test/f1"), None)
    assert problem == ("search.metric", "nothing is chosen on the test set: not test/f1, take validation/f1")


def test_a_metric_of_users_tasks_only_is_unknown_for_other_data() -> None:
    text = own("validation/f1").replace("my.tasks:Own", "digits")
    (problem,) = told(text, FakeWorld())
    assert 'no metric is called "validation/f1"' in problem[1]


IMAGENET = """
run: {recipe: digits, dataset: {name: imagenet, root: /nowhere, size: 32, views: 2}}
variants: [kd, ce]
compare: {metric: COMPARED}
"""


@pytest.mark.parametrize(
    ("name", "compared", "wrong"),
    [
        ("imagenet", "test/top5_accuracy", None),
        ("imagenet", "validation/top5_accuracy", None),
        ("imagenet", "test/top5", 'did you mean "test/top5_accuracy"?'),
        ("imagenet", "test/accuracy_matched", 'did you mean "test/'),
        ("mnli", "test/accuracy_matched", None),
        ("mnli", "test/accuracy_mismatched", None),
        ("mnli", "test/accuracy_matchd", 'did you mean "test/accuracy_matched"?'),
        ("mnli", "validation/accuracy_matched", "no metric is called"),
        ("digits", "test/top5_accuracy", "no metric is called"),
    ],
)
def test_data_sets_have_metrics_of_their_own(name: str, compared: str, wrong: str | None) -> None:
    text = IMAGENET.replace("imagenet", name).replace("COMPARED", compared)
    found = [what for path, what in told(text, FakeWorld()) if path == "compare.metric"]
    assert (found == []) if wrong is None else (wrong in found[0])


def test_several_data_sets_share_only_what_all_measure() -> None:
    text = """
    run: {recipe: digits}
    space: {distillation.alpha: {uniform: [1, 3]}}
    search: {trials: 2, metric: validation/f1, arms: {one: {dataset.name: "my.tasks:Own"}, two: {dataset.name: digits}}}
    """
    assert told(text, FakeWorld())[-1][0] == "search.metric"


@pytest.mark.parametrize(
    ("metric", "mode"),
    [
        ("validation/accuracy", "max"), ("validation/loss", "min"), ("test/macro_f1", "max"),
        ("test/top5_error", "min"), ("test/ece_15", "min"), ("validation/glossary", "max"),
        ("train/seconds", "min"), ("test/rank_loss", "min"),
        ("test/accuracy_matched", "max"), ("teacher/kl", "min"), ("regularization_samples/fraction", "max"),
    ],
)  # fmt: skip
def test_the_words_of_a_name_say_which_is_better(metric: str, mode: str) -> None:
    assert natural_mode(metric) == mode


def test_a_file_may_say_which_of_its_own_metric_is_better() -> None:
    declared = CompareSection(metric="test/cost", mode="min")
    assert mode_of("test/cost", declared) == "min"
    assert mode_of("test/accuracy", declared) == "max"
    assert mode_of("test/cost", CompareSection(metric="test/cost")) == "max"


def test_accuracies_of_groups_are_written_as_accuracies() -> None:
    assert number(0.123456, "test/accuracy_matched") == number(0.123456, "test/top5_accuracy") == "0.1235"
    assert (unit("test/accuracy_matched"), unit("test/macro_f1"), unit("test/loss")) == ("accuracy", "macro_f1", "loss")
