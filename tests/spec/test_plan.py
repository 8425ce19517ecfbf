"""From a specification to its trials: cells, grids, seeds, and the teachers that they share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from wsl_sweep.spec import Spec, make_plan
from wsl_sweep.spec.distributions import Distribution
from wsl_sweep.spec.plan import (
    CONFIRM_SEED,
    Trial,
    ablation_cells,
    grid_points,
    in_dependency_order,
    make_trial,
    merge,
    search_trials,
)

from .helpers import problems_of, spec_of

KIND = "distillation.weighting.kind"
VALUE = "distillation.weighting.value"
TEMPERATURE = "distillation.temperature"
ALPHA = "distillation.alpha"


def trials_of(spec: Spec) -> list[Trial]:
    """The different trials of an ablation."""
    return merge([trial for cell in ablation_cells(spec) for trial in cell.trials])


# --- ablations -------------------------------------------------------------------------------------------------------


def test_variants_are_crossed_with_the_grid_and_with_the_seeds() -> None:
    spec = spec_of(
        """
        run: {recipe: digits}
        space: {distillation.temperature: {grid: [2, 4]}}
        variants: [kd, wsl, ce]
        seeds: 3
        """
    )
    cells = ablation_cells(spec)
    assert [(cell.variant, cell.overrides.get(TEMPERATURE)) for cell in cells] == [
        ("kd", 2),
        ("kd", 4),
        ("wsl", 2),
        ("wsl", 4),
        ("ce", None),
    ]
    assert all([trial.seed for trial in cell.trials] == [0, 1, 2] for cell in cells)
    assert len(trials_of(spec)) == 15
    assert make_plan(spec).stages == {"ablation": 15}


def test_every_trial_of_a_cell_is_the_variant_at_that_point_and_seed() -> None:
    spec = spec_of(
        """
        run: {recipe: digits}
        space: {distillation.temperature: {grid: [2, 4]}}
        variants: {cold: {distillation.alpha: 3}}
        seeds: [5, 9]
        """
    )
    for cell in ablation_cells(spec):
        for seed, trial in zip((5, 9), cell.trials, strict=True):
            assert (trial.stage, trial.arm, trial.variants, trial.part) == ("ablation", None, ("cold",), "train")
            assert (trial.seed, trial.config["seed"]) == (seed, seed)
            assert trial.overrides == cell.overrides == {ALPHA: 3, TEMPERATURE: cell.overrides[TEMPERATURE]}
            assert trial.config["distillation"]["temperature"] == cell.overrides[TEMPERATURE]


def test_a_variant_keeps_what_the_grid_does_not_touch_and_the_grid_wins_over_it() -> None:
    spec = spec_of(
        """
        run: {recipe: digits}
        space: {distillation.temperature: {grid: [2, 4]}}
        variants: {hot: {distillation.temperature: 16, distillation.alpha: 3}}
        seeds: 1
        """
    )
    settings = [trial.config["distillation"] for trial in trials_of(spec)]
    assert [(one["temperature"], one["alpha"]) for one in settings] == [(2, 3), (4, 3)]


def test_identical_variants_share_their_trials_which_name_both() -> None:
    spec = spec_of(
        """
        run: {recipe: digits}
        variants: {wsl: , again: {distillation.alpha: 2.25}, kd: }
        seeds: 2
        """
    )
    assert [cell.variant for cell in ablation_cells(spec)] == ["wsl", "again", "kd"]
    assert [(trial.variants, trial.seed) for trial in trials_of(spec)] == [
        (("wsl", "again"), 0),
        (("wsl", "again"), 1),
        (("kd",), 0),
        (("kd",), 1),
    ]
    assert make_plan(spec).stages == {"ablation": 4}


def test_merging_keeps_the_order_and_names_nobody_twice() -> None:
    spec = spec_of("run: {recipe: digits}\nvariants: [kd, ce]\nseeds: 1\n")
    kd, ce = trials_of(spec)
    assert merge([ce, kd, ce, kd]) == [ce, kd]


# --- grids -----------------------------------------------------------------------------------------------------------


def test_the_first_path_of_a_grid_varies_slowest() -> None:
    spec = spec_of(
        """
        run: {recipe: digits}
        space:
          distillation.temperature: {grid: [2, 4]}
          distillation.alpha: {grid: [1, 2, 3]}
        variants: [kd]
        """
    )
    points = grid_points(spec, spec.variants["kd"])
    assert [(point[TEMPERATURE], point[ALPHA]) for point in points] == [(2, 1), (2, 2), (2, 3), (4, 1), (4, 2), (4, 3)]


def test_without_a_space_there_is_one_point() -> None:
    spec = spec_of("run: {recipe: digits}\nvariants: [kd]\n")
    assert grid_points(spec, spec.variants["kd"]) == [{}]


WHEN = """
run: {recipe: digits}
space:
  distillation.weighting.value:
    grid: [0.2, 0.4]
    when: {distillation.weighting.kind: constant}
  distillation.weighting.kind: {grid: [exp, constant]}
"""


def test_a_parameter_has_values_only_where_its_condition_holds() -> None:
    spec = spec_of(WHEN + "variants: {mine: }\nseeds: 1\n")
    assert grid_points(spec, {}) == [{KIND: "exp"}, {KIND: "constant", VALUE: 0.2}, {KIND: "constant", VALUE: 0.4}]


def test_what_is_not_read_makes_no_point_even_without_a_condition() -> None:
    spec = spec_of(WHEN.replace("    when: {distillation.weighting.kind: constant}\n", "") + "variants: [wsl, ce]\n")
    points = grid_points(spec, spec.variants["wsl"])
    assert sorted(map(str, points)) == sorted(
        map(str, [{KIND: "exp"}, {VALUE: 0.2, KIND: "constant"}, {VALUE: 0.4, KIND: "constant"}])
    )
    assert grid_points(spec, spec.variants["ce"]) == [{}]


def test_a_condition_may_be_on_what_a_variant_sets() -> None:
    spec = spec_of(
        """
        run: {recipe: digits}
        space:
          distillation.weighting.value:
            grid: [0.2, 0.4]
            when: {distillation.weighting.kind: constant}
        variants: {wsl: , constant: {distillation.weighting.kind: constant}}
        seeds: 1
        """
    )
    assert grid_points(spec, spec.variants["wsl"]) == [{}]
    assert grid_points(spec, spec.variants["constant"]) == [{VALUE: 0.2}, {VALUE: 0.4}]


def test_a_condition_on_a_condition() -> None:
    spec = spec_of(
        """
        run: {recipe: digits}
        space:
          distillation.temperature: {grid: [2, 3], when: {distillation.weighting.value: 0.4}}
          distillation.weighting.value: {grid: [0.2, 0.4], when: {distillation.weighting.kind: constant}}
          distillation.weighting.kind: {grid: [exp, constant]}
        variants: {mine: }
        """
    )
    assert [(point[KIND], point.get(VALUE), point.get(TEMPERATURE)) for point in grid_points(spec, {})] == [
        ("exp", None, None),
        ("constant", 0.2, None),
        ("constant", 0.4, 2),
        ("constant", 0.4, 3),
    ]


@pytest.mark.parametrize(
    ("space", "points"),
    [
        ("{distillation.alpha: {grid: [1, 2], when: {distillation.temperature: 4}}}", 2),
        (
            "{distillation.temperature: {grid: [4.0, 2.0]}, "
            "distillation.alpha: {grid: [1, 2], when: {distillation.temperature: 4}}}",
            3,
        ),
    ],
    ids=["fixed", "swept"],
)
def test_a_condition_on_4_holds_at_4_0(space: str, points: int) -> None:
    text = f"run: {{recipe: digits}}\nspace: {space}\nvariants: [kd]\n"
    assert problems_of(text) == []
    assert len(grid_points(spec_of(text), {KIND: "none"})) == points


def test_each_path_comes_after_those_its_condition_names() -> None:
    space = {
        "a": Distribution("choice", (1, 2), when={"b": (1,)}),
        "b": Distribution("choice", (1, 2), when={"d": (1,), "fixed": (3,)}),
        "c": Distribution("choice", (1, 2)),
        "d": Distribution("choice", (1, 2), when={"c": (1,)}),
    }
    assert in_dependency_order(space) == ["c", "d", "b", "a"]


def test_without_conditions_the_order_is_the_files() -> None:
    space = {name: Distribution("choice", (1, 2)) for name in ("z", "a", "m")}
    assert in_dependency_order(space) == ["z", "a", "m"]


# --- searches --------------------------------------------------------------------------------------------------------


def searching(search: str, rest: str = "") -> Spec:
    return spec_of(
        "run: {recipe: digits}\n"
        "space: {distillation.temperature: {grid: [2, 4, 6]}, optimizer.lr: {grid: [0.1, 0.2]}}\n".replace(
            "grid", "grid" if "grid" in search else "choice"
        )
        + f"search: {search}\n{rest}"
    )


def test_every_arm_has_the_same_number_of_trials() -> None:
    spec = searching("{trials: 5, arms: [wsl, kd]}")
    assert [search_trials(spec, arm) for arm in spec.arms.values()] == [5, 5]
    assert make_plan(spec).stages == {"search": 10}


def test_a_grid_is_searched_point_by_point_as_far_as_an_arm_reads_it() -> None:
    spec = searching("{sampler: grid, arms: [wsl, ce]}")
    assert [search_trials(spec, arm) for arm in spec.arms.values()] == [6, 2]
    spec = searching("{sampler: grid, arms: [wsl, ce], trials: 4}")
    assert [search_trials(spec, arm) for arm in spec.arms.values()] == [4, 2]


def test_a_trial_of_an_arm_names_what_was_searched_and_not_the_arms_own_settings() -> None:
    spec = searching("{trials: 5, arms: [wsl, ce]}")
    params = {TEMPERATURE: 2, "optimizer.lr": 0.1}
    trials = {
        arm: make_trial(
            spec, stage="search", variant=arm, overrides=spec.arms[arm], params=params, seed=0, arm=arm, part="train"
        )
        for arm in spec.arms
    }
    assert trials["wsl"].overrides == params
    assert trials["ce"].overrides == {"optimizer.lr": 0.1}


@pytest.mark.parametrize(
    ("search", "confirm", "trials"),
    [
        ("{trials: 5}", "{}", 1 * 3),
        ("{trials: 5}", "{top: 2, seeds: 4}", 2 * 4),
        ("{trials: 2}", "{top: 9, seeds: 4}", 2 * 4),
        ("{trials: 5, arms: [wsl, kd]}", "{top: 2, seeds: 3}", 2 * 2 * 3),
        ("{trials: 5, arms: [wsl, kd]}", "{top: 2, seeds: 3, baselines: [kd, ce]}", (2 * 2 + 2) * 3),
        ("{sampler: grid, arms: [wsl, ce]}", "{top: 4, seeds: 2}", (4 + 2) * 2),
        (
            "{trials: 5, arms: [wsl, kd]}",
            "{top: 2, seeds: 3, baselines: [ce], train_on: train+validation}",
            (2 * 2 + 1) * 3 + 2 * 3,
        ),
    ],
)
def test_confirm_takes_the_best_of_each_arm_and_the_baselines_on_every_seed(
    search: str, confirm: str, trials: int
) -> None:
    plan = make_plan(searching(search, f"confirm: {confirm}\n"))
    assert list(plan.stages) == ["search", "confirm"]
    assert plan.stages["confirm"] == trials


def test_the_seeds_of_confirm_are_none_that_a_search_or_an_ablation_has_by_default() -> None:
    assert CONFIRM_SEED == 1000


# --- teachers --------------------------------------------------------------------------------------------------------


def teachers(text: str, **command_line: Any) -> int:
    return len(make_plan(spec_of(text, **command_line)).teachers)


ONE_TEACHER = "run: {recipe: digits}\nvariants: %s\nseeds: 2\n"


@pytest.mark.parametrize(
    ("variants", "count"),
    [
        ("[ce]", 0),
        ("[ce, kd]", 1),
        ("[kd, wsl, kd_repdistiller]", 1),
        ("{kd: , hot: {distillation.temperature: 8}, small: {student.model: convnet_2}}", 1),
        ("{kd: , by_batch: {teacher.mode: train}}", 1),
        ("{kd: , smooth: {teacher.label_smoothing: 0.1}}", 2),
        ("{a: {teacher.label_smoothing: 0.1}, b: {teacher.label_smoothing: 0.1, teacher.smoothing: others}}", 2),
        ("{kd: , noisy: {dataset.label_noise: 0.2}}", 2),
        ("{ce: , ce_noisy: {distillation.method: none, dataset.label_noise: 0.2}}", 0),
        ("{kd: , other_seed: {teacher.seed: 1}, long: {teacher.schedule.epochs: 90}}", 3),
    ],
)
def test_a_teacher_is_counted_once_for_all_that_share_it(variants: str, count: int) -> None:
    assert teachers(ONE_TEACHER % variants) == count


def test_a_grid_over_the_teacher_makes_a_teacher_for_each_value() -> None:
    text = ONE_TEACHER % "[kd, wsl, ce]" + "space: {teacher.model: {grid: [convnet_16, convnet_32]}}\n"
    assert teachers(text) == 2


def test_a_teacher_that_is_brought_in_need_not_be_trained(tmp_path: Path) -> None:
    checkpoint = tmp_path / "teacher.safetensors"
    checkpoint.write_bytes(b"weights")
    assert teachers(ONE_TEACHER % f"{{kd: {{teacher.checkpoint: {checkpoint}}}}}") == 0


def test_more_threads_do_not_make_more_teachers() -> None:
    assert teachers(ONE_TEACHER % "[kd, wsl]" + "resources: {cpu: 2}\n") == 1


TEACHER_SEARCH = "run: {recipe: digits}\nspace: {teacher.label_smoothing: %s}\nsearch: {trials: 4}\n"


def test_a_search_over_a_choice_of_teachers_counts_them_and_over_a_range_says_there_may_be_more() -> None:
    chosen = make_plan(spec_of(TEACHER_SEARCH % "{choice: [0, 0.1]}"))
    assert (len(chosen.teachers), chosen.open_teachers) == (2, False)
    drawn = make_plan(spec_of(TEACHER_SEARCH % "{uniform: [0, 0.1]}"))
    assert drawn.open_teachers
    assert len(drawn.teachers) >= 2


def test_a_search_over_the_student_needs_one_teacher_and_training_on_all_needs_another() -> None:
    search = "run: {recipe: digits}\nspace: {optimizer.lr: {uniform: [0.1, 1]}}\nsearch: {trials: 4}\n"
    assert teachers(search) == 1
    assert teachers(search + "confirm: {baselines: [kd, ce]}\n") == 1
    assert teachers(search + "confirm: {baselines: [kd, ce], train_on: train+validation}\n") == 2


def test_an_example_stands_for_each_stage_and_for_each_teacher() -> None:
    spec = searching("{trials: 5, arms: [wsl, kd]}", "confirm: {}\n")
    plan = make_plan(spec)
    assert list(plan.examples) == list(plan.stages)
    assert all(trial.stage == stage for stage, trial in plan.examples.items())
    for identity, trial in plan.teachers.values():
        assert identity["teacher"]["model"] == trial.config["teacher"]["model"]


def test_a_plan_is_the_same_every_time() -> None:
    spec = searching("{trials: 5, arms: [wsl, kd]}", "confirm: {}\n")
    assert make_plan(spec) == make_plan(spec)
