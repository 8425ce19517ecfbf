"""``bank.top_k`` in a file: what it goes with, what it is part of, and for which temperatures a bank keeps sums."""

from __future__ import annotations

from typing import Any

import pytest

from wsl_sweep.spec.identity import teacher_identity
from wsl_sweep.spec.largest import MOST_TEMPERATURES, kept_temperatures

from .helpers import problems_of, spec_of
from .test_bank import OWN_TEACHER, ids_of, trials_of

TOP = "bank: {top_k: 5}\n"


def search(space: str, more: str = "") -> str:
    return f"run: {{recipe: digits}}\nspace:\n  {space}\nsearch: {{trials: 4}}\n{more}{TOP}"


def variants(named: str, run: str = "recipe: digits") -> str:
    return f"run: {{{run}}}\nvariants:\n  plain:\n  {named}\n{TOP}"


@pytest.mark.parametrize("value", ["0", "-1", "2.5", "true", "many"])
def test_how_many_are_kept_is_a_number_of_one_or_more(value: str) -> None:
    (problem,) = problems_of(variants("kd:").replace("5", value))
    assert (problem.line, problem.path) == (5, "bank.top_k")


OWN = "is your own, and may read any logit"
DKD = "weighs how a teacher ranks the wrong classes"
DIST = "correlates all classes of an example"


@pytest.mark.parametrize(
    ("text", "line", "path", "why"),
    [
        (variants("a: {distillation.method: dkd}"), 4, "variants.a.distillation.method", DKD),
        (variants("a: {distillation.method: dist}"), 4, "variants.a.distillation.method", DIST),
        (variants("a: {distillation: {method: 'my.losses:f'}}"), 4, "variants.a.distillation.method", OWN),
        (variants("a: {alpha: }", "recipe: digits, distillation.method: dkd").replace("{alpha: }", ""), 1,
         "run.distillation.method", DKD),
        (variants("dkd:"), 4, "variants.dkd.distillation.method", DKD),
        (search("distillation.method: {choice: [kd, dist]}"), 3, "space.distillation.method", DIST),
        (search("distillation.method: {choice: [kd, 'my.losses:f']}"), 3, "space.distillation.method", OWN),
        (search("distillation.alpha: {uniform: [1, 2]}", "confirm: {baselines: {old: {distillation.method: dkd}}}\n"),
         5, "confirm.baselines.old.distillation.method", DKD),
    ],
)  # fmt: skip
def test_a_method_that_reads_all_logits_is_refused_where_it_is_named(text: str, line: int, path: str, why: str) -> None:
    (problem,) = problems_of(text)
    assert (problem.line, problem.path) == (line, path)
    assert why in problem.what
    assert problem.what.endswith("remove bank.top_k")
    assert problems_of(text.replace(TOP, "")) == []


def test_arms_are_refused_each_in_its_line_and_the_command_line_too() -> None:
    arms = "run: {recipe: digits}\nspace: {distillation.alpha: {uniform: [1, 2]}}\nsearch:\n  trials: 2\n  arms:\n"
    text = f"{arms}    a: {{distillation.method: dkd}}\n    b: {{distillation.method: dkd, optimizer.lr: 0.2}}\n{TOP}"
    found = [(problem.line, problem.path) for problem in problems_of(text)]
    assert found == [(6, "search.arms.a.distillation.method"), (7, "search.arms.b.distillation.method")]
    (problem,) = problems_of(variants("a: {optimizer.lr: 0.2}"), sets=("distillation.method=dist",))
    assert (problem.line, problem.path) == (None, "--set distillation.method")


@pytest.mark.parametrize(
    "text",
    [
        variants("a: {distillation.method: rkd}"),
        variants("a: {distillation.method: rkd, distillation.kd_weight: 1}"),
        variants("a: {distillation.method: none}"),
        variants("a: {distillation.method: dkd, teacher.mode: train}"),
        variants("a: {distillation.mask: renormalised, distillation.keep.regularization: 0.5}"),
        variants("a: {distillation.weighting.kind: sigmoid, distillation.weighting.of: ratio}"),
        variants("a: {distillation.temperature: 3}"),
        search("distillation.temperature: {choice: [1, 2, 4]}"),
        search("distillation.temperature: {int: [1, 8]}"),
        search("distillation.temperature: {quniform: [1, 4, 0.5]}"),
        search("distillation.alpha: {uniform: [1, 2]}"),
    ],
)
def test_what_reads_soft_labels_at_temperatures_that_can_be_named_goes_with_it(text: str) -> None:
    assert problems_of(text) == []


@pytest.mark.parametrize(
    ("distribution", "count"),
    [
        ("uniform: [1, 8]", "uniform has no end of them"),
        ("loguniform: [1, 8]", "loguniform has no end of them"),
        ("int: [1, 33]", "int has 33 of them"),
        ("logint: [1, 50000]", "logint has no end of them"),
        ("quniform: [1, 2, 0.01]", "quniform has 101 of them"),
    ],
)
def test_no_end_of_temperatures_is_refused(distribution: str, count: str) -> None:
    assert MOST_TEMPERATURES == 32
    text = search(f"distillation.temperature: {{{distribution}}}")
    (problem,) = problems_of(text)
    assert (problem.line, problem.path) == (3, "space.distillation.temperature")
    assert count in problem.what
    assert "use choice: [value, …]" in problem.what
    assert problems_of(text.replace(TOP, "")) == []
    assert problems_of(text, sets=("distillation.temperature=4",)) == []


@pytest.mark.parametrize(
    ("text", "temperatures"),
    [
        (variants("a: {distillation.alpha: 2}"), (1, 4)),
        (variants("a: {distillation.temperature: 3}"), (1, 3, 4)),
        (variants("a: {distillation.temperature: 3}", "recipe: digits, distillation.temperature: 2"), (1, 2, 3)),
        (variants("a: {distillation.temperature: 3, teacher.mode: train}"), (1, 4)),
        (variants("a: {distillation.method: none}", "recipe: digits, distillation.temperature: 1"), (1,)),
        (variants("a: {distillation.method: rkd}", "recipe: digits, distillation.temperature: 1"), (1,)),
        (search("distillation.temperature: {choice: [8, 2.5]}"), (1, 2.5, 8)),
        (search("distillation.temperature: {int: [2, 6]}"), (1, 2, 3, 4, 5, 6)),
        (search("distillation.temperature: {quniform: [2, 3, 0.5]}"), (1, 2, 2.5, 3)),
        (search("distillation.alpha: {uniform: [1, 2]}",
                "confirm: {baselines: {old: {distillation.temperature: 7}}}\n"), (1, 4, 7)),
        ("run: {recipe: digits}\nspace: {distillation.temperature: {grid: [2, 9]}}\nvariants: [kd]\n" + TOP,
         (1, 2, 9)),
    ],
)  # fmt: skip
def test_sums_are_kept_for_every_temperature_that_a_file_names(text: str, temperatures: tuple[float, ...]) -> None:
    assert kept_temperatures(spec_of(text)) == temperatures


def test_a_pinned_temperature_is_the_only_one() -> None:
    text = search("distillation.temperature: {choice: [2, 8]}")
    assert kept_temperatures(spec_of(text, sets=("distillation.temperature=5",))) == (1, 5)


def test_how_many_are_kept_is_part_of_the_trials_that_read_them_and_the_temperatures_are_not() -> None:
    plain, small, smaller = ids_of(), ids_of("bank: {top_k: 5}\n"), ids_of("bank: {top_k: 4}\n")
    for name, seed in plain:
        same = name not in OWN_TEACHER
        assert (plain[name, seed] == small[name, seed]) == same
        assert (small[name, seed] == smaller[name, seed]) == same
    assert ids_of("bank: {top_k: 5, use: false}\n") == small
    for (name, _), trial in trials_of(TOP).items():
        kept: Any = trial.config.get("teacher", {}).get("stored_top_k")
        assert kept == (5 if name in OWN_TEACHER else None)


def test_a_teacher_is_the_same_however_little_of_it_is_kept() -> None:
    small = trials_of("bank: {top_k: 5, precision: float16}\n")
    for name, trial in trials_of().items():
        assert teacher_identity(small[name].config, trial.part, 1) == teacher_identity(trial.config, trial.part, 1)


def test_where_each_epoch_has_new_views_nothing_is_kept_and_nothing_approximated() -> None:
    text = "run: {recipe: digits, dataset.name: imagenet, dataset.root: here, dataset.size: 32, dataset.views: %s}\n"
    text += "variants: [kd, wsl]\nbank: {top_k: 5, precision: float16}\n"
    of_teacher = [spec_of(text % views).config({"distillation.method": "kd"})["teacher"] for views in ("epoch", "3")]
    assert {"stored_top_k", "stored_precision"} & set(of_teacher[0]) == set()
    assert (of_teacher[1]["stored_top_k"], of_teacher[1]["stored_precision"]) == (5, "float16")
