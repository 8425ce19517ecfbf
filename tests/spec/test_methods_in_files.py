"""Methods, swept recipes, folders and teachers in a search-space file: what is read, and what makes no sense."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from wsl_sweep.spec import Spec
from wsl_sweep.spec.identity import teacher_identity, trial_id
from wsl_sweep.spec.plan import ablation_cells, grid_points, make_plan, make_trial
from wsl_sweep.spec.recipes import RECIPES
from wsl_sweep.spec.yaml_lines import Problem

from .helpers import problems_of, spec_of, text_of

MARK = "# <-"

OTHER = "digits/convnet_24-convnet_3"


def marked(text: str) -> int:
    """The number of the line with the mark."""
    return next(number for number, line in enumerate(text_of(text).splitlines(), 1) if MARK in line)


def places(problems: list[Problem]) -> list[tuple[int | None, str]]:
    return [(problem.line, problem.path) for problem in problems]


def variants(*lines: str, run: str = "") -> str:
    """An ablation, a line a variant."""
    return "\n".join([f"run: {{recipe: digits, {run}}}", "variants:", *(f"  {line}" for line in lines), ""])


def config_of(spec: Spec, name: str) -> Mapping[str, Any]:
    """The resolved configuration of an arm, a variant or a baseline."""
    return spec.config({**spec.arms, **spec.baselines, **spec.variants}[name])


def distillation_of(text: str, name: str = "mine") -> Mapping[str, Any]:
    section: Mapping[str, Any] = config_of(spec_of(text), name)["distillation"]
    return section


# --- names of methods ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["none", "kd", "dkd", "dist", "rkd", "my.losses:margin", "losses:größe"])
def test_a_method_may_be_ours_or_the_users_own(method: str) -> None:
    assert distillation_of(variants(f"mine: {{distillation.method: '{method}'}}"))["method"] == method


@pytest.mark.parametrize(
    ("method", "what"),
    [
        ("kdd", 'did you mean "kd"?'),
        ("DKD", 'did you mean "dkd"?'),
        ("dists", 'did you mean "dist"?'),
        ("rdk", 'did you mean "rkd"?'),
        ("attention", "must be one of none, kd, dkd, dist, rkd, or your own package.module:name, not 'attention'"),
        ("my.losses", "or your own package.module:name, not 'my.losses'"),
        ("my.losses:", '"my.losses:" must have the form package.module:name'),
        (":margin", '":margin" must have the form package.module:name'),
        ("my/losses.py:margin", "must have the form package.module:name"),
        ("my.losses:margin:twice", "must have the form package.module:name"),
        ("wsl", "must be one of none, kd, dkd, dist, rkd"),
    ],
)
@pytest.mark.parametrize("place", ["run", "variant", "space", "--set"])
def test_a_method_of_another_name_is_a_mistake_with_the_nearest_one(place: str, method: str, what: str) -> None:
    texts = {
        "run": f"run:\n  recipe: digits\n  distillation.method: '{method}'  # <-\nvariants: {{mine: }}\n",
        "variant": variants(f"mine: {{distillation.method: '{method}'}}  # <-"),
        "space": f"run: {{recipe: digits}}\nspace:\n  distillation.method:\n    choice:\n    - kd\n"
        f"    - '{method}'  # <-\nsearch: {{trials: 2}}\n",
        "--set": variants("mine: "),
    }
    pins = (f'distillation.method="{method}"',) if place == "--set" else ()
    (problem,) = problems_of(texts[place], sets=pins)
    assert problem.line == (None if place == "--set" else marked(texts[place]))
    assert "distillation.method" in problem.path
    assert what in problem.what


# --- defaults by the method ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "kind", "ce_weight", "alpha"),
    [
        ("method: kd", "exp", 1.0, 2.25),
        ("method: kd, distillation.weighting.kind: none", "none", 1.0, 1.0),
        ("method: kd, distillation.weighting.kind: permuted", "permuted", 1.0, 2.25),
        ("method: dkd", "none", 1.0, 1.0),
        ("method: dkd, distillation.weighting.kind: exp", "exp", 1.0, 1.0),
        ("method: rkd", "none", 1.0, 1.0),
        ("method: rkd, distillation.weighting.kind: exp", "exp", 1.0, 1.0),
        ("method: 'my:loss'", "none", 1.0, 1.0),
        ("method: 'my:loss', distillation.weighting.kind: exp", "exp", 1.0, 1.0),
    ],
)
def test_weighting_and_weights_go_by_the_method(setting: str, kind: str, ce_weight: float, alpha: float) -> None:
    found = distillation_of(variants(f"mine: {{distillation.{setting}}}"))
    assert found["weighting"] == {"kind": kind}
    assert (found["ce_weight"], found["alpha"]) == (ce_weight, alpha)


def test_dist_has_the_weights_of_its_authors_and_no_weighting() -> None:
    found = distillation_of(variants("mine: {distillation.method: dist}"))
    assert found == {
        "method": "dist",
        "ce_weight": 1.0,
        "alpha": 2.0,
        "temperature": 4.0,
        "inter_weight": 1.0,
        "intra_weight": 1.0,
    }


def test_a_method_reads_its_own_settings_and_not_those_of_others() -> None:
    keep = {"regularization": 1.0, "other": 1.0}
    common = {"ce_weight": 1.0, "alpha": 1.0, "weighting": {"kind": "none"}}
    assert distillation_of(variants("dkd:"), "dkd") == {
        **common,
        "method": "dkd",
        "temperature": 4.0,
        "target_weight": 1.0,
        "non_target_weight": 8.0,
        "warmup_epochs": 20,
        "keep": keep,
    }
    assert distillation_of(variants("rkd:"), "rkd") == {
        **common,
        "method": "rkd",
        "distance_weight": 25.0,
        "angle_weight": 50.0,
        "kd_weight": 0.0,
    }
    assert distillation_of(variants("mine: {distillation.method: 'my:loss'}")) == {
        **common,
        "method": "my:loss",
        "temperature": 4.0,
        "keep": keep,
    }


def test_defaults_follow_a_method_that_is_swept() -> None:
    spec = spec_of(
        """
        run: {recipe: digits}
        space: {distillation.method: {grid: [none, kd, dkd, dist, rkd, "my:loss"]}}
        variants: {mine: }
        """
    )
    found = {
        cell.trials[0].config["distillation"]["method"]: cell.trials[0].config["distillation"].get("alpha")
        for cell in ablation_cells(spec)
    }
    assert found == {"none": None, "kd": 2.25, "dkd": 1.0, "dist": 2.0, "rkd": 1.0, "my:loss": 1.0}


def test_defaults_follow_a_method_that_is_pinned() -> None:
    spec = spec_of(variants("mine: "), sets=("distillation.method=dist",))
    assert config_of(spec, "mine")["distillation"]["alpha"] == 2.0


def test_a_weight_that_run_gives_holds_for_every_method() -> None:
    spec = spec_of(variants("kd:", "dkd:", "dist:", "rkd:", run="distillation.alpha: 3"))
    assert {config_of(spec, name)["distillation"]["alpha"] for name in spec.variants} == {3}


# --- named arms ------------------------------------------------------------------------------------------------------

NAMED = {
    "dkd": ("dkd", "none", None, 1.0),
    "dist": ("dist", None, None, 2.0),
    "rkd": ("rkd", "none", 0.0, 1.0),
    "rkd_wsl": ("rkd", "exp", 0.0, 1.0),
    "rkd_kd": ("rkd", "none", 1.0, 1.0),
    "rkd_kd_wsl": ("rkd", "exp", 2.25, 1.0),
}


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("place", ["variants", "arms", "baselines"])
def test_a_name_stands_for_a_method_with_its_settings(place: str, name: str) -> None:
    search = "run: {recipe: digits}\nspace: {optimizer.lr: {uniform: [0.1, 1]}}\n"
    texts = {
        "variants": variants(f"{name}:"),
        "arms": f"{search}search: {{trials: 2, arms: [{name}]}}\n",
        "baselines": f"{search}search: {{trials: 2}}\nconfirm: {{baselines: [{name}]}}\n",
    }
    found = config_of(spec_of(texts[place]), name)["distillation"]
    kind = found.get("weighting", {}).get("kind")
    assert (found["method"], kind, found.get("kd_weight"), found["alpha"]) == NAMED[name]
    assert found["ce_weight"] == 1.0


def test_names_are_not_changed_by_what_run_says_of_weighting() -> None:
    """A name stands for the same in every file, so that a table's row is what it says."""
    spec = spec_of(
        variants("kd:", "dkd:", "rkd:", "rkd_wsl:", "wsl:", "mine: ", run="distillation.weighting.kind: exp")
    )
    kinds = {name: config_of(spec, name)["distillation"]["weighting"]["kind"] for name in spec.variants}
    assert kinds == {"kd": "none", "dkd": "none", "rkd": "none", "rkd_wsl": "exp", "wsl": "exp", "mine": "exp"}


def test_all_names_are_different_trainings() -> None:
    spec = spec_of(variants(*(f"{name}:" for name in [*NAMED, "ce", "kd", "wsl", "kd_repdistiller"])))
    assert make_plan(spec).stages == {"ablation": 10 * 3}


def test_a_name_that_is_misspelt_brings_the_nearest_to_mind() -> None:
    (problem,) = problems_of("run: {recipe: digits}\nvariants: [rkd_kdwsl]\n")
    assert 'did you mean "rkd_kd_wsl"?' in problem.what


# --- combinations that make no sense ---------------------------------------------------------------------------------

SENSELESS = [
    *((method, "mask", "detach") for method in ("none", "dkd", "dist", "rkd")),
    *((method, "keep.regularization", "0.5") for method in ("none", "dist", "rkd")),
    *((method, "keep.other", "0") for method in ("none", "dist", "rkd")),
    *((method, "weighting.kind", "exp") for method in ("none", "dist")),
    *((method, "weighting.kind", "permuted") for method in ("none", "dist")),
]


@pytest.mark.parametrize(("method", "leaf", "value"), SENSELESS)
def test_a_setting_in_run_that_the_only_method_does_not_read_is_a_mistake(method: str, leaf: str, value: str) -> None:
    text = f"""
        run:
          recipe: digits
          distillation:
            method: {method}
            {leaf}: {value}  # <-
        variants: {{mine: , other: {{optimizer.lr: 0.2}}}}
        """
    (problem,) = problems_of(text)
    assert (problem.line, problem.path) == (marked(text), f"run.distillation.{leaf}")
    assert problem.what.startswith(f"nothing in this file reads distillation.{leaf}; it is read where ")


@pytest.mark.parametrize(("method", "leaf", "value"), SENSELESS)
def test_a_setting_that_a_variant_beside_reads_is_a_mistake_where_its_own_method_does_not(
    method: str, leaf: str, value: str
) -> None:
    reading = f"reader: {{distillation.method: kd, distillation.{leaf}: {value}}}"
    text = variants(reading, f"mine: {{distillation.method: {method}, distillation.{leaf}: {value}}}  # <-")
    (problem,) = problems_of(text)
    assert (problem.line, problem.path) == (marked(text), f"variants.mine.distillation.{leaf}")
    assert problem.what.startswith(f"makes no sense under method {method}; it is read where ")


@pytest.mark.parametrize(("method", "leaf", "value"), SENSELESS)
def test_a_setting_of_an_arm_that_its_method_does_not_read_is_a_mistake(method: str, leaf: str, value: str) -> None:
    text = f"""
        run: {{recipe: digits}}
        space: {{optimizer.lr: {{uniform: [0.1, 1]}}}}
        search:
          trials: 2
          arms:
            kd:
            mine:
              distillation.method: {method}
              distillation.{leaf}: {value}  # <-
        """
    (problem,) = problems_of(text)
    assert places([problem]) == [(marked(text), f"search.arms.mine.distillation.{leaf}")]
    assert f"makes no sense under method {method}" in problem.what or "no arm or variant reads" in problem.what


@pytest.mark.parametrize(("method", "leaf", "value"), SENSELESS)
def test_a_setting_of_a_baseline_that_its_method_does_not_read_is_a_mistake(method: str, leaf: str, value: str) -> None:
    text = f"""
        run: {{recipe: digits}}
        space: {{optimizer.lr: {{uniform: [0.1, 1]}}}}
        search: {{trials: 2, arms: [wsl]}}
        confirm:
          baselines:
            mine: {{distillation.method: {method}, distillation.{leaf}: {value}}}  # <-
        """
    assert places(problems_of(text)) == [(marked(text), f"confirm.baselines.mine.distillation.{leaf}")]


@pytest.mark.parametrize("place", ["variants", "arms", "baselines"])
def test_a_name_that_is_given_another_method_is_a_mistake_at_the_name(place: str) -> None:
    """The weighting of ``rkd_wsl`` has no place under dist."""
    search = "run: {recipe: digits}\nspace: {optimizer.lr: {uniform: [0.1, 1]}}\nsearch:\n  trials: 2\n"
    line = "rkd_wsl: {distillation: {method: dist, kd_weight: 0}}  # <-\n"
    texts = {
        "variants": f"run: {{recipe: digits}}\nvariants:\n  wsl:\n  {line}",
        "arms": f"{search}  arms:\n    wsl:\n    {line}",
        "baselines": f"{search}confirm:\n  baselines:\n    wsl:\n    {line}",
    }
    (problem,) = problems_of(texts[place])
    assert problem.line == marked(texts[place])
    assert "weighting.kind" in problem.path


NEUTRAL = [("mask", "none"), ("keep.regularization", "1"), ("keep.other", "1.0"), ("weighting.kind", "none")]


@pytest.mark.parametrize("method", ["none", "dkd", "dist", "rkd", "kd"])
@pytest.mark.parametrize(("leaf", "value"), NEUTRAL)
@pytest.mark.parametrize("place", ["run", "variant", "arm"])
def test_a_value_that_asks_for_nothing_may_stand_anywhere(place: str, leaf: str, value: str, method: str) -> None:
    setting = f"distillation.{leaf}: {value}"
    texts = {
        "run": variants(f"mine: {{distillation.method: {method}}}", run=setting),
        "variant": variants("kd: ", f"mine: {{distillation.method: {method}, {setting}}}"),
        "arm": "run: {recipe: digits}\nspace: {optimizer.lr: {uniform: [0.1, 1]}}\nsearch:\n  trials: 2\n"
        f"  arms: {{mine: {{distillation.method: {method}, {setting}}}}}\n",
    }
    assert problems_of(texts[place]) == []


def test_what_asks_for_nothing_changes_no_trial() -> None:
    plain = spec_of(variants("dist:", "rkd:", "ce:"))
    said = spec_of(
        variants(
            "dist: {distillation.mask: none}",
            "rkd: {distillation.keep.other: 1}",
            "ce:",
            run="distillation.kd_weight: 0",
        )
    )
    assert [cell.trials[0].trial_id for cell in ablation_cells(plain)] == [
        cell.trials[0].trial_id for cell in ablation_cells(said)
    ]


def test_a_setting_in_run_that_only_some_variants_read_is_right() -> None:
    spec = spec_of(variants("wsl:", "dist:", "rkd:", "ce:", run="distillation: {mask: detach, keep.other: 0.5}"))
    assert config_of(spec, "wsl")["distillation"]["mask"] == "detach"
    assert config_of(spec, "wsl")["distillation"]["keep"] == {"regularization": 1.0, "other": 0.5}
    for name in ("dist", "rkd", "ce"):
        assert not {"mask", "keep"} & set(config_of(spec, name)["distillation"])


@pytest.mark.parametrize("method", ["none", "dkd", "dist", "rkd"])
def test_a_swept_mask_is_a_mistake_where_no_method_reads_it(method: str) -> None:
    text = f"""
        run: {{recipe: digits, distillation.method: {method}}}
        space:
          distillation.mask: {{grid: [none, detach]}}  # <-
        variants: {{mine: }}
        """
    assert places(problems_of(text)) == [(marked(text), "space.distillation.mask")]


def test_a_swept_mask_is_swept_only_where_it_is_read() -> None:
    spec = spec_of(
        """
        run: {recipe: digits}
        space: {distillation.mask: {grid: [none, drop_term, detach]}}
        variants: [kd, dkd, dist, rkd, ce]
        """
    )
    assert {name: len(grid_points(spec, spec.variants[name])) for name in spec.variants} == {
        "kd": 3,
        "dkd": 1,
        "dist": 1,
        "rkd": 1,
        "ce": 1,
    }


@pytest.mark.parametrize(
    ("method", "leaf"),
    [("kd", "target_weight"), ("dist", "non_target_weight"), ("kd", "inter_weight"), ("dkd", "angle_weight")],
)
def test_a_setting_of_another_method_is_a_mistake_that_names_that_method(method: str, leaf: str) -> None:
    owner = {"target_weight": "dkd", "non_target_weight": "dkd", "inter_weight": "dist", "angle_weight": "rkd"}[leaf]
    (problem,) = problems_of(variants(f"mine: {{distillation.method: {method}, distillation.{leaf}: 3}}"))
    assert problem.what.endswith(f"it is read where distillation.method is {owner}")


@pytest.mark.parametrize("metric", ["weight/mean", "regularization_samples/fraction"])
@pytest.mark.parametrize("method", ["dist", "rkd"])
def test_a_metric_that_a_method_never_has_is_not_searched_for(metric: str, method: str) -> None:
    """dist takes no weights; rkd without kd_weight has no temperature to tell regularization samples by."""
    text = f"""
        run: {{recipe: digits, distillation.method: {method}}}
        space: {{optimizer.lr: {{uniform: [0.1, 1]}}}}
        search: {{trials: 2, metric: {metric}}}
        """
    has_it = (method, metric) in {("dist", "regularization_samples/fraction"), ("rkd", "weight/mean")}
    assert [problem.path for problem in problems_of(text)] == ([] if has_it else ["search.metric"])


# --- rkd and its temperature -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kd_weight", "reads"), [("0", False), ("0.0", False), ("0.5", True), ("2", True)])
def test_rkd_reads_a_temperature_only_with_distillation_beside_it(kd_weight: str, reads: bool) -> None:
    text = f"""
        run:
          recipe: digits
          distillation.temperature: 2  # <-
        variants:
          rkd: {{distillation.kd_weight: {kd_weight}}}
        """
    problems = problems_of(text)
    assert places(problems) == ([] if reads else [(marked(text), "run.distillation.temperature")])
    if reads:
        assert distillation_of(text, "rkd")["temperature"] == 2
    else:
        assert "rkd: and distillation.kd_weight is above 0" in problems[0].what


def test_a_swept_weight_of_distillation_beside_rkd_reads_a_temperature_where_it_is_above_0() -> None:
    spec = spec_of(
        """
        run: {recipe: digits, distillation.temperature: 2}
        space: {distillation.kd_weight: {grid: [0, 1]}}
        variants: [{mine: {distillation.method: rkd}}]
        """
    )
    without, beside = (cell.trials[0].config["distillation"] for cell in ablation_cells(spec))
    assert "temperature" not in without
    assert beside["temperature"] == 2


def test_a_kd_weight_is_a_mistake_under_another_method() -> None:
    text = variants("rkd_kd:", "kd: {distillation.kd_weight: 1}  # <-")
    assert places(problems_of(text)) == [(marked(text), "variants.kd.distillation.kd_weight")]


# --- recipes that change ---------------------------------------------------------------------------------------------


def students(spec: Spec) -> list[str]:
    return [cell.trials[0].config["student"]["model"] for cell in ablation_cells(spec)]


def test_recipes_may_be_swept_and_their_values_reach_the_configuration() -> None:
    spec = spec_of(
        f"""
        space: {{recipe: {{grid: [digits, {OTHER}]}}}}
        variants: {{mine: }}
        seeds: 1
        """
    )
    cells = ablation_cells(spec)
    assert [cell.overrides for cell in cells] == [{"recipe": "digits"}, {"recipe": OTHER}]
    for cell in cells:
        values = RECIPES[cell.overrides["recipe"]].values
        config = cell.trials[0].config
        assert config["student"]["model"] == values["student.model"]
        assert config["teacher"]["model"] == values["teacher.model"]
        assert "recipe" not in config
    assert make_plan(spec).stages == {"ablation": 2}
    assert len(make_plan(spec).teachers) == 2


def test_recipes_may_be_searched_by_each_arm() -> None:
    spec = spec_of(
        f"""
        space:
          recipe: {{choice: [digits, {OTHER}]}}
          distillation.temperature: {{uniform: [1, 8]}}
        search: {{trials: 2, arms: [kd, wsl]}}
        """
    )
    params = {"recipe": OTHER, "distillation.temperature": 3.0}
    config = spec.config(spec.arms["wsl"], params)
    assert config["student"]["model"] == "convnet_3"
    assert config["distillation"]["temperature"] == 3.0
    assert spec.most_epochs() == 40


def test_variants_may_have_recipes_of_their_own() -> None:
    spec = spec_of(variants("plain: ", f"other: {{recipe: {OTHER}}}", "own: {student.model: convnet_8}"))
    assert students(spec) == ["convnet_4", "convnet_3", "convnet_8"]


def test_what_run_says_wins_over_every_recipe() -> None:
    spec = spec_of(variants("plain: ", f"other: {{recipe: {OTHER}}}", run="student.model: convnet_6"))
    assert students(spec) == ["convnet_6", "convnet_6"]
    assert [cell.trials[0].config["teacher"]["model"] for cell in ablation_cells(spec)] == ["convnet_32", "convnet_24"]


def test_a_variant_wins_over_its_own_recipe() -> None:
    assert students(spec_of(variants(f"mine: {{recipe: {OTHER}, student.model: convnet_6}}"))) == ["convnet_6"]


def test_the_recipe_of_the_command_line_wins_over_one_that_is_swept_and_says_so() -> None:
    text = f"space: {{recipe: {{grid: [digits, {OTHER}]}}}}\nvariants: {{mine: }}\n"
    spec = spec_of(text, recipe=OTHER)
    assert students(spec) == ["convnet_3"]
    assert spec.notes == (f"--recipe pins recipe at '{OTHER}'; the file sweeps it",)
    by_set = spec_of(text, sets=(f"recipe={OTHER}",))
    assert students(by_set) == ["convnet_3"]
    assert by_set.notes == (f"--set pins recipe at '{OTHER}'; the file sweeps it",)


def test_the_recipe_of_the_command_line_wins_over_a_variants_and_says_so() -> None:
    spec = spec_of(variants("plain: ", "other: {recipe: digits, optimizer.lr: 0.3}"), recipe=OTHER)
    assert students(spec) == ["convnet_3", "convnet_3"]
    assert spec.notes == (f"--recipe pins recipe at '{OTHER}'; other sets it to 'digits'",)


def test_the_recipe_of_the_command_line_takes_the_place_of_runs_without_a_word() -> None:
    spec = spec_of(variants("mine: "), recipe=OTHER)
    assert (students(spec), spec.notes) == (["convnet_3"], ())


@pytest.mark.parametrize("recipe", ["nonesuch", "3", "[digits]", "null"])
def test_a_wrong_recipe_in_run_does_not_matter_where_another_takes_its_place(recipe: str) -> None:
    text = f"run: {{recipe: {recipe}}}\nvariants: {{mine: }}\n"
    assert students(spec_of(text, recipe=OTHER)) == ["convnet_3"]
    assert problems_of(text)


def test_a_wrong_recipe_on_the_command_line_is_the_only_mistake() -> None:
    for arguments in ({"recipe": "digit"}, {"sets": ("recipe=digit",)}):
        (problem,) = problems_of(variants("mine: "), **arguments)
        assert problem.line is None
        assert problem.path.startswith("--recipe" if "recipe" in arguments else "--set recipe")
        assert 'did you mean "digits"?' in problem.what


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (variants("mine: {recipe: digit}  # <-"), "variants.mine.recipe"),
        ("space:\n  recipe: {grid: [digits, digit]}  # <-\nvariants: {mine: }\n", "space.recipe.grid.1"),
        ("run:\n  seed: 1\n  recipe: digit  # <-\nvariants: {mine: }\n", "run.recipe"),
    ],
)
def test_a_recipe_of_another_name_is_a_mistake_where_it_stands(text: str, path: str) -> None:
    (problem,) = problems_of(text)
    assert (problem.line, problem.path) == (marked(text), path)
    assert 'did you mean "digits"?' in problem.what


def test_a_baseline_has_no_recipe_where_it_is_only_swept() -> None:
    text = f"""
        space: {{recipe: {{choice: [digits, {OTHER}]}}}}
        search: {{trials: 2}}
        confirm: {{baselines: [ce]}}
        """
    assert any("student.model has no value" in problem.what for problem in problems_of(text))
    assert problems_of(text.replace("[ce]", "{ce: {recipe: digits}}")) == []


def test_a_trial_is_the_same_by_whatever_way_its_settings_came() -> None:
    ways = [
        spec_of(f"run: {{recipe: {OTHER}}}\nvariants: {{mine: }}\nseeds: 1\n"),
        spec_of(f"variants: {{mine: {{recipe: {OTHER}}}}}\nseeds: 1\n"),
        spec_of(f"space: {{recipe: {{grid: [{OTHER}]}}}}\nvariants: {{mine: }}\nseeds: 1\n"),
        spec_of("run: {recipe: digits}\nvariants: {mine: }\nseeds: 1\n", recipe=OTHER),
        spec_of("run: {recipe: digits}\nvariants: {mine: }\nseeds: 1\n", sets=(f"recipe={OTHER}",)),
        spec_of(
            "run: {recipe: digits, student.model: convnet_3, teacher.model: convnet_24}\nvariants: {mine: }\nseeds: 1\n"
        ),
    ]
    trials = [ablation_cells(spec)[0].trials[0] for spec in ways]
    assert len({trial.trial_id for trial in trials}) == 1
    assert all("recipe" not in trial.config for trial in trials)


def test_a_recipe_may_decide_whether_another_path_exists() -> None:
    spec = spec_of(
        f"""
        space:
          recipe: {{grid: [digits, {OTHER}]}}
          distillation.alpha: {{grid: [1, 2, 3], when: {{recipe: digits}}}}
        variants: {{mine: }}
        """
    )
    assert len(grid_points(spec, {})) == 4


def test_arms_that_differ_in_their_recipe_alone_are_two_arms_unless_it_is_swept() -> None:
    arms = f"search: {{trials: 2, arms: {{one: {{recipe: digits}}, two: {{recipe: {OTHER}}}}}}}\n"
    assert problems_of(f"space: {{optimizer.lr: {{uniform: [0.1, 1]}}}}\n{arms}") == []
    problems = problems_of(f"space: {{recipe: {{choice: [digits, {OTHER}]}}}}\n{arms}")
    assert ["are the same once the space is applied" in problem.what for problem in problems] == [True]


# --- folders of pictures ---------------------------------------------------------------------------------------------


def pictures(root: Path, count: int = 2) -> Path:
    """A folder of pictures, of which only names and sizes are looked at."""
    for label in "ab":
        (root / label).mkdir(parents=True)
        for index in range(count):
            (root / label / f"{index}.png").write_bytes(b"x" * (index + 1))
    return root


def test_a_folder_and_its_size_are_read_for_a_folder_of_pictures(tmp_path: Path) -> None:
    spec = spec_of(f"run: {{recipe: image_folder, dataset: {{root: {tmp_path}, size: 48}}}}\nvariants: [kd]\n")
    dataset = config_of(spec, "kd")["dataset"]
    assert (dataset["root"], dataset["size"]) == (str(tmp_path), 48)
    assert "size" not in config_of(spec_of(variants("kd:")), "kd")["dataset"]


@pytest.mark.parametrize(
    ("leaf", "value", "where"),
    [("root", "/pictures", "the data set lies on disk"), ("size", "48", "dataset.name is image_folder or imagenet")],
)
@pytest.mark.parametrize("place", ["run", "variant"])
def test_a_folder_and_its_size_are_mistakes_for_digits(place: str, leaf: str, value: str, where: str) -> None:
    setting = f"dataset.{leaf}: {value}"
    text = (
        f"run:\n  recipe: digits\n  {setting}  # <-\nvariants: [kd]\n"
        if place == "run"
        else variants("kd:", f"mine: {{{setting}}}  # <-")
    )
    (problem,) = problems_of(text)
    assert (problem.line, problem.path.rsplit(".", 1)[1]) == (marked(text), leaf)
    assert problem.what.endswith(where)


def test_cifar_reads_a_folder_and_no_size(tmp_path: Path) -> None:
    text = f"run: {{recipe: cifar100/wrn_40_2-wrn_16_2, dataset.root: {tmp_path}}}\nvariants: [kd]\n"
    dataset = config_of(spec_of(text), "kd")["dataset"]
    assert dataset["root"] == str(tmp_path)
    assert "size" not in dataset
    assert [
        problem.path for problem in problems_of(text.replace("dataset.root", "dataset.size: 32, dataset.root"))
    ] == ["run.dataset.size"]


@pytest.mark.parametrize("size", ["7", "513", "32.5", "large"])
def test_a_size_has_bounds(size: str) -> None:
    text = f"run: {{recipe: image_folder, dataset: {{root: x, size: {size}}}}}\nvariants: [kd]\n"
    assert [problem.path for problem in problems_of(text)] == ["run.dataset.size"]


def test_a_folder_is_kept_by_its_whole_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")
    for root, whole in (("mine", str(tmp_path / "mine")), ("~/mine", "/home/someone/mine"), ("/a/b", "/a/b")):
        spec = spec_of(f"run: {{recipe: image_folder, dataset.root: {root}}}\nvariants: [kd]\n")
        assert config_of(spec, "kd")["dataset"]["root"] == whole


def ids(root: Path, size: int = 32) -> tuple[str, str]:
    """(trial id, teacher's id) of one training on a folder."""
    spec = spec_of(f"run: {{recipe: image_folder, dataset: {{root: {root}, size: {size}}}}}\nvariants: [kd]\n")
    config = config_of(spec, "kd")
    named = teacher_identity(config, "train", 1)
    assert named is not None
    assert str(root) not in str(named[1])
    return trial_id(config, "train", 1), named[0]


def test_a_copy_of_a_folder_elsewhere_makes_the_same_trial_and_teacher(tmp_path: Path) -> None:
    pictures(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two", copy_function=shutil.copyfile)
    assert ids(tmp_path / "one") == ids(tmp_path / "two")


def test_other_pictures_make_another_trial_and_another_teacher(tmp_path: Path) -> None:
    one, other = ids(pictures(tmp_path / "one")), ids(pictures(tmp_path / "two", 3))
    assert one[0] != other[0]
    assert one[1] != other[1]


def test_another_size_makes_another_trial_and_another_teacher(tmp_path: Path) -> None:
    root = pictures(tmp_path / "one")
    small, large = ids(root), ids(root, 64)
    assert small[0] != large[0]
    assert small[1] != large[1]


def test_a_folder_that_is_not_there_yet_has_an_id_that_changes_when_it_is(tmp_path: Path) -> None:
    before = ids(tmp_path / "later")
    pictures(tmp_path / "later")
    after = ids(tmp_path / "later")
    assert before[0] != after[0]
    assert before[1] != after[1]


# --- teachers that are brought in ------------------------------------------------------------------------------------

TEACHER = "0123456789ab"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of teachers of its own."""
    monkeypatch.setenv("WSL_SWEEP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "teachers"


def stored(store: Path, teacher: str, weights: bytes = b"weights") -> Path:
    path = store / teacher / "weights.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(weights)
    return path


@pytest.mark.parametrize("place", ["run", "variant", "space", "--set"])
def test_a_teacher_of_the_store_is_named_by_its_id(place: str, store: Path) -> None:
    path = stored(store, TEACHER)
    texts = {
        "run": variants("kd:", run=f"teacher.checkpoint: {TEACHER}"),
        "variant": variants(f"kd: {{teacher.checkpoint: {TEACHER}}}"),
        "space": f"run: {{recipe: digits}}\nspace: {{teacher.checkpoint: {{grid: [{TEACHER}]}}}}\nvariants: [kd]\n",
        "--set": variants("kd:"),
    }
    pins = (f"teacher.checkpoint={TEACHER}",) if place == "--set" else ()
    (trial, *_) = ablation_cells(spec_of(texts[place], sets=pins))[0].trials
    assert trial.config["teacher"] == {"model": "convnet_32", "mode": "eval", "checkpoint": str(path)}


def test_a_teacher_by_its_id_and_by_its_file_are_one(store: Path, tmp_path: Path) -> None:
    path = stored(store, TEACHER)
    shutil.copy(path, tmp_path / "copy.safetensors")
    spec = spec_of(
        variants(
            f"one: {{teacher.checkpoint: {TEACHER}}}",
            f"two: {{teacher.checkpoint: {path}}}",
            f"three: {{teacher.checkpoint: {tmp_path / 'copy.safetensors'}}}",
        )
    )
    assert make_plan(spec).stages == {"ablation": 3}
    assert make_plan(spec).teachers == {}


def test_an_id_that_no_teacher_has_is_a_mistake(store: Path) -> None:
    stored(store, TEACHER)
    text = variants("kd:", "mine: {teacher.checkpoint: fedcba987654}  # <-")
    (problem,) = problems_of(text)
    assert places([problem]) == [(marked(text), "variants.mine.teacher.checkpoint")]
    assert problem.what == "no teacher has the id fedcba987654; see wsl-sweep teacher list"


@pytest.mark.parametrize("name", ["0123456789a", "0123456789AB", "teacher.pth", "0123456789abc"])
def test_what_is_neither_an_id_nor_safetensors_is_a_mistake(name: str, store: Path) -> None:
    (problem,) = problems_of(variants("kd:", run=f"teacher.checkpoint: {name}"))
    assert "must be a .safetensors file" in problem.what
    assert "wsl-sweep teacher import" in problem.what


@pytest.mark.parametrize("teacher", ["423242506231", "012345678901", "12e345678901"])
@pytest.mark.parametrize("place", ["run", "--set"])
def test_an_id_that_looks_like_a_number_is_an_id_too(place: str, teacher: str, store: Path) -> None:
    """Or the mistake says that quotation marks are needed: one id in a hundred and forty is a number in YAML."""
    path = stored(store, teacher)
    text = variants("kd:", run=f"teacher.checkpoint: {teacher}" if place == "run" else "")
    pins = (f"teacher.checkpoint={teacher}",) if place == "--set" else ()
    problems = problems_of(text, sets=pins)
    if problems:
        assert "quot" in problems[0].what
    else:
        assert config_of(spec_of(text, sets=pins), "kd")["teacher"]["checkpoint"] == str(path)


# --- a user's own teacher --------------------------------------------------------------------------------------------


def teacher_of(model: str, **changes: Any) -> tuple[str, dict[str, Any]]:
    text = variants("kd:", run=", ".join([f"teacher.model: '{model}'", *(f"{k}: {v}" for k, v in changes.items())]))
    named = teacher_identity(config_of(spec_of(text), "kd"), "train", 1)
    assert named is not None
    return named


def test_the_source_of_a_users_teacher_is_part_of_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    name = f"nets_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text("def large(num_classes): ...\n")
    before = teacher_of(f"{name}:large")
    assert teacher_of(f"{name}:large") == before
    (tmp_path / f"{name}.py").write_text("def large(num_classes, depth=3): ...\n")
    after = teacher_of(f"{name}:large")
    assert before[0] != after[0]
    assert before[1]["teacher"]["code"] != after[1]["teacher"]["code"]
    assert name not in sys.modules


def test_the_source_of_a_users_teacher_changes_the_trials_that_follow_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    name = f"nets_{tmp_path.name}"
    spec = spec_of(variants("kd:", "ce:", run=f"teacher.model: '{name}:large'"))
    ids: list[list[str]] = []
    for code in ("one = 1\n", "two = 2\n"):
        (tmp_path / f"{name}.py").write_text(code)
        ids.append(
            [
                make_trial(
                    spec, stage="ablation", variant=variant, overrides=spec.variants[variant], params={}, seed=0
                ).trial_id
                for variant in spec.variants
            ]
        )
    assert ids[0][0] != ids[1][0]
    assert ids[0][1] == ids[1][1]


def test_the_source_of_a_users_teacher_counts_beside_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    name = f"nets_{tmp_path.name}"
    weights = tmp_path / "t.safetensors"
    weights.write_bytes(b"weights")
    found = []
    for code in ("one = 1\n", "two = 2\n"):
        (tmp_path / f"{name}.py").write_text(code)
        found.append(teacher_of(f"{name}:large", **{"teacher.checkpoint": weights}))
    assert found[0][0] != found[1][0]
    assert set(found[0][1]) == {"model", "code", "checkpoint"}


@pytest.mark.parametrize("model", ["convnet_16", "torchvision:resnet18", "timm:resnet10t"])
def test_a_teacher_of_ours_or_of_a_library_has_no_source_in_its_identity(model: str) -> None:
    assert "code" not in teacher_of(model)[1]["teacher"]


def test_a_users_teacher_that_is_not_there_has_an_identity_all_the_same() -> None:
    assert teacher_of("nosuch.module:net")[1]["teacher"]["code"] is None
