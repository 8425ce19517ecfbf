"""A right file becomes a specification: its defaults, its spellings, and what later wins over what."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from wsl_sweep.errors import WslSweepError
from wsl_sweep.spec import CommandLine, Spec, load_spec, make_plan
from wsl_sweep.spec.plan import ablation_cells, grid_points
from wsl_sweep.spec.recipes import DEFAULTS, RECIPES
from wsl_sweep.spec.run import leaves

from .helpers import ABLATION, SEARCH, problems_of, spec_of

DIGITS = RECIPES["digits"].values
SEARCH_SPACES = sorted((Path(__file__).parents[2] / "search_spaces").glob("*.yaml"))


def distillation_of(spec: Spec, variant: str) -> Mapping[str, Any]:
    """The resolved ``distillation`` of a variant or an arm."""
    named = {**spec.arms, **spec.variants}
    section: Mapping[str, Any] = spec.config(named[variant])["distillation"]
    return section


def test_there_are_files_to_start_with() -> None:
    assert "alpha" in [path.stem for path in SEARCH_SPACES]


OF_A_FOLDER = ("imagenet_alpha",)
"""Files whose data a user has to give."""


@pytest.mark.parametrize("path", SEARCH_SPACES, ids=lambda path: path.stem)
def test_every_file_in_search_spaces_is_right_named_after_itself_and_asks_a_question(path: Path) -> None:
    sets = ("dataset.root=pictures",) if path.stem in OF_A_FOLDER else ()
    spec = load_spec(path, CommandLine(sets=sets))
    assert spec.name == path.stem
    assert spec.description.split(" (")[0].endswith("?")
    assert sum(make_plan(spec).stages.values()) > 0


# --- defaults and spellings ------------------------------------------------------------------------------------------


def test_a_search_has_defaults_for_what_it_does_not_say() -> None:
    spec = spec_of(SEARCH)
    assert spec.search is not None
    assert (spec.search.sampler, spec.search.trials, spec.search.seed) == ("tpe", 4, 0)
    assert (spec.metrics, spec.modes) == (("validation/accuracy",), ("max",))
    assert spec.arms == {"tuned": {}}
    assert (spec.confirm, spec.baselines, spec.variants, spec.seeds) == (None, {}, {}, ())
    assert (spec.compare.baseline, spec.compare.metric, spec.compare.margin) == (None, "test/accuracy", 0.005)
    assert (spec.scheduler.name, spec.keep, spec.threads) == ("none", "best", 1)
    assert (spec.budget.trials, spec.budget.hours, spec.budget.gpu_hours) == (None, None, None)


def test_an_ablation_has_three_seeds_unless_it_says_how_many_or_which() -> None:
    assert spec_of(ABLATION).seeds == (0, 1, 2)
    assert spec_of(ABLATION + "seeds: 5\n").seeds == (0, 1, 2, 3, 4)
    assert spec_of(ABLATION + "seeds: [7, 3]\n").seeds == (7, 3)


@pytest.mark.parametrize(
    ("metric", "mode"),
    [
        ("validation/accuracy", "max"),
        ("validation/loss", "min"),
        ("validation/ece", "min"),
        ("teacher/kl", "min"),
        ("teacher/agreement", "max"),
        ("train/seconds", "min"),
    ],
)
def test_whether_more_is_better_goes_by_the_metric(metric: str, mode: str) -> None:
    assert spec_of(SEARCH.replace("4}", f"4, metric: {metric}}}")).modes == (mode,)


def test_several_metrics_have_a_mode_each() -> None:
    two = "4, metric: [validation/accuracy, validation/loss]"
    assert spec_of(SEARCH.replace("4}", f"{two}}}")).modes == ("max", "min")
    assert spec_of(SEARCH.replace("4}", f"{two}, mode: [min, max]}}")).modes == ("min", "max")
    assert spec_of(SEARCH.replace("4}", f"{two}, mode: min}}")).modes == ("min", "min")


@pytest.mark.parametrize(
    "spelling",
    [
        "{distillation: {weighting: {kind: sigmoid, of: ratio}, temperature: 3}}",
        "{distillation: {weighting.kind: sigmoid, weighting.of: ratio, temperature: 3}}",
        "{distillation.weighting: {kind: sigmoid, of: ratio}, distillation.temperature: 3}",
        "{distillation.weighting.kind: sigmoid, distillation.weighting.of: ratio, distillation.temperature: 3}",
    ],
)
def test_sections_and_dotted_paths_say_the_same(spelling: str) -> None:
    in_variant = spec_of(f"run: {{recipe: digits}}\nvariants: {{mine: {spelling}}}\n")
    in_run = spec_of(f"run: {{recipe: digits, {spelling[1:-1]}}}\nvariants: {{mine: {{}}}}\n")
    for spec in (in_variant, in_run):
        distillation = distillation_of(spec, "mine")
        assert distillation["weighting"] == {"kind": "sigmoid", "of": "ratio"}
        assert distillation["temperature"] == 3


def test_a_list_of_names_a_section_and_both_mixed_say_the_same() -> None:
    variants = [
        "[kd, ce, {hot: {distillation.temperature: 8}}]",
        "{kd: , ce: {}, hot: {distillation.temperature: 8}}",
        "[kd, {ce: {}, hot: {distillation.temperature: 8}}]",
    ]
    specs = [spec_of(f"run: {{recipe: digits}}\nvariants: {spelling}\n") for spelling in variants]
    assert list(specs[0].variants) == ["kd", "ce", "hot"]
    assert all(spec.variants == specs[0].variants for spec in specs)


def test_the_word_run_before_a_path_changes_nothing() -> None:
    spec = spec_of(
        """
        run: {recipe: digits}
        space:
          run.distillation.alpha: {grid: [1, 2]}
        variants: {mine: {run.distillation.temperature: 3}}
        """
    )
    assert list(spec.space) == ["distillation.alpha"]
    assert spec.variants == {"mine": {"distillation.temperature": 3}}


def test_a_scheduler_may_be_one_word() -> None:
    assert spec_of(SEARCH + "scheduler: asha\n").scheduler == spec_of(SEARCH + "scheduler: {name: asha}\n").scheduler


def test_threads_are_the_whole_part_of_the_cpus_and_one_at_least() -> None:
    for cpu, threads in ((0.5, 1), (1, 1), (2.9, 2), (4, 4)):
        assert spec_of(ABLATION + f"resources: {{cpu: {cpu}}}\n").threads == threads


def test_everything_but_run_and_space_may_be_left_empty() -> None:
    empty = "confirm:\ncompare:\nscheduler:\nresources:\nbudget:\ntracking:\ndescription:\nname:\n"
    spec = spec_of(SEARCH + empty)
    assert (spec.confirm, spec.scheduler.name, spec.description) == (None, "none", "")


def test_the_description_and_the_text_are_kept() -> None:
    text = "description: |\n  Does it\n  matter?\n" + ABLATION.lstrip()
    spec = spec_of(text)
    assert spec.description == "Does it\nmatter?"
    assert spec.text == text


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stem", "name"), [("alpha", "alpha"), ("my sweep (2)", "my-sweep-2"), ("größe", "gr-e")])
def test_a_sweep_is_named_after_its_file_unless_it_says_otherwise(stem: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{stem}.yaml"
    path.write_text(ABLATION, encoding="utf-8")
    assert load_spec(path).name == name
    path.write_text("name: other" + ABLATION, encoding="utf-8")
    assert load_spec(path).name == "other"
    assert load_spec(path, CommandLine(name="third")).name == "third"


def test_a_file_that_is_not_there_brings_the_nearest_one_to_mind(tmp_path: Path) -> None:
    (tmp_path / "temperature.yaml").write_text(ABLATION, encoding="utf-8")
    with pytest.raises(WslSweepError, match=r"temprature\.yaml: no such file; did you mean .*temperature\.yaml"):
        load_spec(tmp_path / "temprature.yaml")
    with pytest.raises(WslSweepError, match=r"no such file$"):
        load_spec(tmp_path / "nowhere" / "temperature.yaml")


def test_a_folder_or_a_picture_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "picture.yaml").write_bytes(b"\x89PNG\xff\xfe")
    for path in (tmp_path, tmp_path / "picture.yaml"):
        with pytest.raises(WslSweepError, match="cannot be read as UTF-8 text"):
            load_spec(path)


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "alpha.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + SEARCH.lstrip().replace("\n", "\r\n").encode())
    assert list(load_spec(path).space) == ["distillation.alpha"]


# --- later wins ------------------------------------------------------------------------------------------------------

LAYERS = ("recipe", "run", "variant", "space", "--set")
LEARNING_RATES = {"recipe": DIGITS["optimizer.lr"], "run": 0.11, "variant": 0.12, "space": 0.13, "--set": 0.14}


@pytest.mark.parametrize("task", ["ablation", "search"])
@pytest.mark.parametrize(("lower", "upper"), list(itertools.combinations(LAYERS, 2)))
def test_of_two_places_the_later_one_wins(task: str, lower: str, upper: str) -> None:
    def lr(place: str) -> str:
        return f"optimizer.lr: {LEARNING_RATES[place]}" if place in (lower, upper) else ""

    path, value = ("optimizer.lr", LEARNING_RATES["space"]) if "space" in (lower, upper) else ("optimizer.momentum", 0)
    lines = [
        f"run: {{recipe: digits, {lr('run')}}}",
        f"space: {{{path}: {{grid: [{value}]}}}}",
        "variants:" if task == "ablation" else "search:\n  sampler: grid\n  arms:",
        f"    mine: {{{lr('variant')}}}",
    ]
    pins = (f"optimizer.lr={LEARNING_RATES['--set']}",) if upper == "--set" else ()
    spec = spec_of("\n".join(lines), sets=pins)
    overrides = {**spec.arms, **spec.variants}["mine"]
    (params,) = grid_points(spec, overrides)
    assert spec.config(overrides, params)["optimizer"]["lr"] == LEARNING_RATES[upper]


def test_a_recipe_wins_over_the_defaults_and_another_recipe_may_take_its_place() -> None:
    spec = spec_of("run: {recipe: digits}\nvariants: [ce]\n")
    config = spec.config({"distillation.method": "none"})
    assert config["dataset"]["validation_fraction"] == DIGITS["dataset.validation_fraction"]
    assert DIGITS["dataset.validation_fraction"] != DEFAULTS["dataset.validation_fraction"]
    assert config["dataset"]["label_noise"] == 0.0
    assert spec_of("run: {recipe: nonesuch}\nvariants: [ce]\n", recipe="digits").recipe == "digits"


def test_null_means_not_given() -> None:
    spec = spec_of(
        """
        run:
          recipe: digits
          optimizer: {lr: null, weight_decay: 0.001}
          distillation:
        variants:
          kd: {distillation.temperature: null, optimizer.weight_decay: }
        """
    )
    config = spec.config(spec.variants["kd"])
    assert config["optimizer"]["lr"] == DIGITS["optimizer.lr"]
    assert config["optimizer"]["weight_decay"] == 0.001
    assert config["distillation"]["temperature"] == 4.0
    assert "optimizer.lr" not in spec.given


# --- what belongs to the method --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "ce_weight", "alpha"), [("kd", 1.0, 1.0), ("wsl", 1.0, 2.25), ("kd_repdistiller", 0.1, 0.9)]
)
@pytest.mark.parametrize("place", ["variants", "arms", "baselines"])
def test_the_weights_of_the_losses_belong_to_the_named_method(
    place: str, name: str, ce_weight: float, alpha: float
) -> None:
    texts = {
        "variants": f"run: {{recipe: digits}}\nvariants: [{name}]\n",
        "arms": "run: {recipe: digits}\nspace: {optimizer.lr: {uniform: [0.1, 1]}}\n"
        f"search: {{trials: 2, arms: [{name}]}}\n",
        "baselines": SEARCH + f"confirm: {{baselines: [{name}]}}\n",
    }
    spec = spec_of(texts[place])
    found = {"variants": spec.variants, "arms": spec.arms, "baselines": spec.baselines}[place][name]
    distillation = spec.config(found)["distillation"]
    assert (distillation["ce_weight"], distillation["alpha"]) == (ce_weight, alpha)


@pytest.mark.parametrize(
    ("kind", "alpha"), [("none", 1.0), ("exp", 2.25), ("sigmoid", 2.25), ("constant", 2.25), ("permuted", 2.25)]
)
def test_only_weighted_distillation_inherits_the_papers_weight(kind: str, alpha: float) -> None:
    spec = spec_of(f"run: {{recipe: digits, distillation.weighting.kind: {kind}}}\nvariants: {{mine: }}\n")
    assert (distillation_of(spec, "mine")["ce_weight"], distillation_of(spec, "mine")["alpha"]) == (1.0, alpha)


def test_the_weight_follows_a_method_that_is_swept_or_set() -> None:
    swept = spec_of(
        """
        run: {recipe: digits}
        space: {distillation.weighting.kind: {choice: [none, exp]}}
        search: {trials: 2}
        """
    )
    for kind, alpha in (("none", 1.0), ("exp", 2.25)):
        config = swept.config({}, {"distillation.weighting.kind": kind})
        assert config["distillation"]["alpha"] == alpha
    pinned = spec_of("run: {recipe: digits}\nvariants: {mine: }\n", sets=("distillation.weighting.kind=none",))
    assert distillation_of(pinned, "mine")["alpha"] == 1.0


def test_a_weight_that_is_given_holds_for_every_method() -> None:
    spec = spec_of("run: {recipe: digits, distillation.alpha: 3}\nvariants: [kd, wsl, kd_repdistiller]\n")
    alphas = {name: distillation_of(spec, name)["alpha"] for name in spec.variants}
    assert alphas == {"kd": 3, "wsl": 3, "kd_repdistiller": 0.9}


def test_cross_entropy_alone_has_no_weights_no_temperature_and_no_teacher() -> None:
    config = spec_of("run: {recipe: digits}\nvariants: [ce]\n").config({"distillation.method": "none"})
    assert config["distillation"] == {"method": "none"}
    assert "teacher" not in config


def test_a_named_variant_may_be_changed() -> None:
    spec = spec_of("run: {recipe: digits}\nvariants: {kd_repdistiller: {distillation.alpha: 0.8}}\n")
    distillation = distillation_of(spec, "kd_repdistiller")
    assert (distillation["weighting"]["kind"], distillation["ce_weight"], distillation["alpha"]) == ("none", 0.1, 0.8)


def test_precision_is_settled_by_the_kind_of_device() -> None:
    spec = spec_of(ABLATION)
    assert spec.config({}, device_kind="cpu")["precision"] == "float32"
    assert spec.config({}, device_kind="cuda")["precision"] == "bfloat16"
    fixed = spec_of("run: {recipe: digits, precision: float32}\nvariants: [kd]\n")
    assert fixed.config({}, device_kind="cuda")["precision"] == "float32"


def test_a_configuration_is_complete_and_holds_leaves_of_run_only() -> None:
    spec = spec_of("run: {recipe: digits}\nvariants: [wsl]\n")
    flat = dict(spec.flat_config(spec.variants["wsl"]))
    assert set(flat) <= set(leaves())
    assert None not in flat.values()
    config = spec.config(spec.variants["wsl"], seed=3)
    assert config["seed"] == 3
    assert set(config) == {
        "dataset",
        "distillation",
        "optimizer",
        "precision",
        "schedule",
        "seed",
        "student",
        "teacher",
    }


# --- the seed of an ablation -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "command_line"),
    [
        ("run: {recipe: digits, seed: 9}\nvariants: [kd]\n", {}),
        ("run: {recipe: digits}\nvariants: [kd]\n", {"sets": ("seed=9",)}),
    ],
    ids=["run", "--set"],
)
def test_seeds_are_counted_from_the_one_that_is_set(text: str, command_line: dict[str, Any]) -> None:
    cells = ablation_cells(spec_of(text, **command_line))
    assert {trial.config["seed"] for cell in cells for trial in cell.trials} == {9, 10, 11}


def test_a_variant_has_no_seed_of_its_own() -> None:
    (problem,) = problems_of("run: {recipe: digits}\nvariants: {kd: {seed: 9}}\n")
    assert "the same seeds" in problem.what


def test_a_listed_seed_has_the_bounds_of_any_seed() -> None:
    assert [problem.path for problem in problems_of(ABLATION + f"seeds: [{2**63}]\n")] == ["seeds"]
