"""Where swept values come from: what an entry of ``space`` means, and where it exists."""

from __future__ import annotations

from typing import Any

import pytest

from wsl_sweep.spec.catalogue import did_you_mean, nearest
from wsl_sweep.spec.distributions import KINDS, Distribution, check_leaf, parse_distribution
from wsl_sweep.spec.run import leaves


def made(path: str, entry: dict[str, Any]) -> Distribution:
    distribution, findings = parse_distribution(path, entry)
    assert findings == []
    assert distribution is not None
    return distribution


@pytest.mark.parametrize(
    ("path", "entry", "values"),
    [
        ("distillation.alpha", {"choice": [2, 1.5]}, [2, 1.5]),
        ("distillation.weighting.kind", {"grid": ["exp", "none"]}, ["exp", "none"]),
        ("schedule.milestones", {"choice": [[], [30], [30, 40]]}, [[], [30], [30, 40]]),
        ("dataset.flip", {"choice": [True, False]}, [True, False]),
        ("schedule.epochs", {"int": [2, 5]}, [2, 3, 4, 5]),
        ("schedule.epochs", {"logint": [1, 3]}, [1, 2, 3]),
        ("distillation.alpha", {"quniform": [1, 2, 0.25]}, [1.0, 1.25, 1.5, 1.75, 2.0]),
        ("distillation.alpha", {"quniform": [0, 1, 0.4]}, [0.0, 0.4, 0.8]),
    ],
)
def test_all_values_of_a_finite_distribution_are_known_in_order(
    path: str, entry: dict[str, Any], values: list[Any]
) -> None:
    distribution = made(path, entry)
    assert distribution.finite() == values
    assert [type(value) for value in distribution.finite() or []] == [type(value) for value in values]


@pytest.mark.parametrize(("high", "tenths"), [(0.3, 3), (0.7, 7), (1.0, 10)])
def test_a_fine_step_loses_no_value_to_rounding(high: float, tenths: int) -> None:
    values = made("distillation.alpha", {"quniform": [0.0, high, 0.1]}).finite()
    assert values == pytest.approx([tenth / 10 for tenth in range(tenths + 1)])


@pytest.mark.parametrize("kind", ["uniform", "loguniform"])
def test_a_continuum_has_no_list_of_values(kind: str) -> None:
    assert made("distillation.alpha", {kind: [0.5, 2]}).finite() is None


@pytest.mark.parametrize(
    ("path", "entry", "values"),
    [
        ("distillation.alpha", {"uniform": [1, 4]}, [1, 2.5, 4]),
        ("schedule.epochs", {"int": [2, 5]}, [2, 3, 5]),
        ("distillation.alpha", {"choice": [7, 8]}, [7, 8]),
    ],
)
def test_the_ends_stand_for_a_range_and_all_of_its_values_for_a_choice(
    path: str, entry: dict[str, Any], values: list[Any]
) -> None:
    assert made(path, entry).representatives() == values


def test_every_kind_is_described_and_may_be_used() -> None:
    arguments: dict[str, list[Any]] = {kind: [1, 4] for kind in KINDS} | {"quniform": [1, 4, 1]}
    for kind, values in arguments.items():
        assert made("distillation.alpha", {kind: values}).kind == kind


def test_one_value_and_a_list_of_values_are_both_a_condition() -> None:
    condition = {"distillation.weighting.kind": ["exp", "sigmoid"], "optimizer.name": "sgd"}
    distribution = made("distillation.alpha", {"uniform": [1, 2], "when": condition})
    assert distribution.when == {"distillation.weighting.kind": ("exp", "sigmoid"), "optimizer.name": ("sgd",)}


@pytest.mark.parametrize(
    ("kind", "optimizer", "holds"),
    [("exp", "sgd", True), ("sigmoid", "sgd", True), ("none", "sgd", False), ("exp", "adamw", False)],
)
def test_a_parameter_exists_only_where_all_of_its_conditions_hold(kind: str, optimizer: str, holds: bool) -> None:
    condition = {"distillation.weighting.kind": ["exp", "sigmoid"], "optimizer.name": "sgd"}
    distribution = made("distillation.alpha", {"uniform": [1, 2], "when": condition})
    config = {"distillation.weighting.kind": kind, "optimizer.name": optimizer}
    assert distribution.holds(config) is holds


def test_a_condition_on_what_has_no_value_does_not_hold() -> None:
    distribution = made("distillation.alpha", {"uniform": [1, 2], "when": {"optimizer.name": "sgd"}})
    assert not distribution.holds({})


def test_a_parameter_without_a_condition_always_exists() -> None:
    assert made("distillation.alpha", {"uniform": [1, 2]}).holds({})


def test_all_that_is_wrong_with_one_entry_is_found_at_once() -> None:
    entry = {"uniform": [2, 1], "wen": {}, "when": {"optimizer.nam": "sgd", "optimizer.name": "sdg"}}
    distribution, findings = parse_distribution("distillation.alpha", entry)
    assert distribution is None
    assert {place for place, _ in findings} == {
        ("uniform",),
        ("wen",),
        ("when", "optimizer.nam"),
        ("when", "optimizer.name"),
    }


@pytest.mark.parametrize("value", ["convnet_4", "convnet_64"])
def test_a_model_is_known_by_its_name(value: str) -> None:
    for path in ("student.model", "teacher.model"):
        assert check_leaf(path, value) is None
        assert "no model is called" in str(check_leaf(path, value + "x"))


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("distillation.alhpa", "distillation.alpha"),
        ("alhpa", "distillation.alpha"),
        ("Distillation.Alpha", "distillation.alpha"),
        ("temperature", "distillation.temperature"),
        ("optimiser.lr", "optimizer.lr"),
        ("xyzzy", None),
    ],
)
def test_the_nearest_name_is_the_one_that_was_most_likely_meant(name: str, meant: str | None) -> None:
    assert nearest(name, leaves()) == meant


def test_where_no_name_is_near_there_is_a_list_and_not_an_endless_one() -> None:
    assert did_you_mean("xyzzy", ["kd", "ce"]) == "there is: kd, ce"
    assert did_you_mean("xyzzy", [f"convnet_{width}" for width in range(30)]).endswith("convnet_11, …")
