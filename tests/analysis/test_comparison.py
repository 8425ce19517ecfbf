"""Whole comparisons: who meets which baseline, what is declared, what is noted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.analysis.helpers import ABLATION, ACCURACY, GRID, SEARCH, MadeUp, ablation, but, made_up, record, sweep_of
from wsl_sweep.analysis import Compared, SweepRecords, compare, describe, seeds_and_examples_interval, t_interval
from wsl_sweep.analysis.records import Outcomes
from wsl_sweep.errors import WslSweepError
from wsl_sweep.spec.sections import CompareSection
from wsl_sweep.sweep.table import Standing

TABLE = {"ce": {0: 0.80, 1: 0.81, 2: 0.83}, "kd": {0: 0.90, 1: 0.91, 2: 0.92}, "wsl": {0: 0.94, 1: 0.95, 2: 0.98}}
GRID_TABLE = {
    "ce": {0: 0.80, 1: 0.82},
    ("kd", 1.0): {0: 0.90, 1: 0.91},
    ("kd", 2.0): {0: 0.92, 1: 0.93},
    ("wsl", 1.0): {0: 0.94, 1: 0.97},
    ("wsl", 3.0): {0: 0.96, 1: 0.97},
}


def pairs(compared: Compared) -> list[tuple[str, str]]:
    return [(one.row, one.baseline) for one in compared.comparisons]


def noted(compared: Compared, text: str) -> bool:
    return any(text.lower() in note.lower() for note in compared.notes)


# --- what is declared -------------------------------------------------------------------------------------------------


def test_metric_margin_and_baseline_are_the_files() -> None:
    declared = CompareSection(baseline="ce", metric="validation/accuracy", margin=0.01)
    records = [
        record(v, s, 0, metrics={"validation/accuracy": 0.1 * s, ACCURACY: 0.5}) for v in ("ce", "kd") for s in (1, 2)
    ]
    found = compare([sweep_of(records, compare=declared)])
    assert (found.metric, found.mode, found.margin, found.baseline) == ("validation/accuracy", "max", 0.01, "ce")
    assert found.rows[0].values == (0.1, 0.2)
    assert pairs(found) == [("kd", "ce")]


def test_what_is_asked_wins() -> None:
    found = compare([ablation(TABLE)], baseline="wsl", margin=0.5)
    assert (found.margin, found.baseline) == (0.5, "wsl")
    assert pairs(found) == [("ce", "wsl"), ("kd", "wsl")]
    assert {one.verdict for one in found.comparisons} == {"equivalent"}


@pytest.mark.parametrize(
    ("metric", "mode"), [("test/accuracy", "max"), ("test/loss", "min"), ("test/ece", "min"), ("train/seconds", "min")]
)
def test_which_is_better_belongs_to_the_metric(metric: str, mode: str) -> None:
    values = {"kd": (0.5, 0.51, 0.52), "wsl": (0.3, 0.31, 0.33)}
    records = [record(v, s, 0, metrics={metric: one}) for v, by_seed in values.items() for s, one in enumerate(by_seed)]
    found = compare([sweep_of(records)], metric=metric)
    assert found.mode == mode
    assert [one.verdict for one in found.comparisons] == ["better" if mode == "min" else "worse"]


@pytest.mark.parametrize("margin", [0.0, -0.1, float("nan"), float("inf")])
def test_a_margin_that_is_none_is_refused(margin: float) -> None:
    with pytest.raises(WslSweepError, match="the smallest difference that matters is above 0"):
        compare([ablation(TABLE)], margin=margin)


def test_where_the_files_margin_is_of_another_unit_that_is_said() -> None:
    records = [
        record(v, s, 0, metrics={"test/loss": 0.1 * s, "validation/accuracy": 0.5})
        for v in ("ce", "kd")
        for s in (1, 2)
    ]
    sweep = sweep_of(records)
    assert noted(
        compare([sweep], metric="test/loss"), "the margin of 0.005 was declared for test/accuracy; give --margin"
    )
    assert not noted(compare([sweep], metric="test/loss", margin=0.1), "was declared for")
    assert not noted(compare([sweep], metric="validation/accuracy"), "was declared for")


def test_an_unknown_metric_is_said_with_the_nearest() -> None:
    with pytest.raises(WslSweepError, match='did you mean "test/accuracy"'):
        compare([ablation(TABLE)], metric="test/acuracy")


def test_the_declared_family_is_who_is_compared() -> None:
    sweep = ablation(TABLE, compare=CompareSection(baseline="kd", family=["wsl"]))
    found = compare([sweep])
    assert pairs(found) == [("wsl", "kd")]
    assert noted(found, "not compared: ce")
    assert "Holm" not in found.comparisons[0].sentence
    assert pairs(compare([sweep], baseline="kd")) == [("ce", "kd"), ("wsl", "kd")]  # asked for, so everybody


# --- who meets whom ---------------------------------------------------------------------------------------------------


def test_rows_of_a_grid_meet_the_baseline_at_their_own_point() -> None:
    found = compare([ablation(GRID_TABLE)])
    assert pairs(found) == [("ce", "kd alpha=1"), ("ce", "kd alpha=2"), ("wsl alpha=1", "kd alpha=1")]
    assert noted(found, "not compared: wsl alpha=3")


def test_one_row_may_be_the_baseline_of_all() -> None:
    found = compare([ablation(GRID_TABLE)], baseline="kd alpha=2")
    assert {baseline for _, baseline in pairs(found)} == {"kd alpha=2"}
    assert [one for one, _ in pairs(found)] == ["ce", "kd alpha=1", "wsl alpha=1", "wsl alpha=3"]


@pytest.mark.parametrize("name", ["1", "1.0", "alpha=1.0"])
def test_by_a_path_its_value_is_the_baselines_name(name: str) -> None:
    found = compare([ablation(GRID_TABLE)], by=["distillation.alpha"], baseline=name)
    assert {baseline for _, baseline in pairs(found)} == {"alpha=1.0"}


def test_by_variant_and_path_rows_meet_at_their_point_too() -> None:
    found = compare([ablation(GRID_TABLE)], by=["variant", "distillation.alpha"], baseline="kd")
    assert pairs(found) == [
        ("wsl alpha=1.0", "kd alpha=1.0"), ("ce alpha=-", "kd alpha=1.0"), ("ce alpha=-", "kd alpha=2.0"),
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["dk", "", "wsl alpha=9"])
def test_a_baseline_that_is_not_there_is_said_with_what_is(name: str) -> None:
    with pytest.raises(WslSweepError, match=r"no row is called .*; (did you mean|there is)"):
        compare([ablation(GRID_TABLE)], baseline=name)


def test_without_a_baseline_nothing_is_compared_and_that_is_said() -> None:
    found = compare([ablation(TABLE, compare=CompareSection())])
    assert found.comparisons == ()
    assert noted(found, "no baseline is declared, so nothing is compared; name a row by --baseline")
    found = compare([ablation(TABLE)], where=["variant=wsl"])
    assert noted(found, "the file's baseline, kd, has no row here, so nothing is compared")
    found = compare([ablation(TABLE)], where=["variant=kd"])
    assert noted(found, "there is nothing to compare kd with")


def test_a_row_meets_the_baseline_of_its_own_sweep() -> None:
    """Two data sets: one's students against the other's would say nothing, and make the family larger."""
    sweeps = []
    for name, level in (("digits", 0.9), ("cifar", 0.7)):
        data = {"dataset.name": name}
        values = [(v, s, level + 0.01 * s + 0.02 * (v == "wsl")) for v in ("kd", "wsl") for s in (0, 1, 2)]
        sweeps.append(sweep_of([record(v, s, one, sweep=name, params=data) for v, s, one in values], name))
    found = compare(sweeps)
    assert pairs(found) == [("wsl [digits]", "kd [digits]"), ("wsl [cifar]", "kd [cifar]")]
    assert all("Holm over 2" in one.sentence for one in found.comparisons)


def test_a_sweep_without_a_baseline_of_its_own_meets_the_others() -> None:
    found = compare([ablation({"kd": {0: 0.9, 1: 0.8}}, "a"), ablation({"wsl": {0: 0.95, 1: 0.86}}, "b")])
    assert pairs(found) == [("wsl", "kd")]
    assert found.comparisons[0].common == 2


def test_a_path_that_another_sweep_searched_is_no_grid(tmp_path: Path, gridded: MadeUp) -> None:
    """The search sweeps the kind of weighting, which is what tells kd from wsl in the ablation."""
    text = SEARCH.replace("arms: [wsl, kd]", "trials: 4").replace("trials: 6, ", "")
    text = text.replace(
        "uniform: [1.0, 4.0]}", "uniform: [1.0, 4.0]}, distillation.weighting.kind: {choice: [none, exp]}"
    )
    found = compare([gridded.records(), made_up(text, tmp_path).records()])
    assert {("wsl temperature=2", "kd temperature=2"), ("wsl temperature=4", "kd temperature=4")} <= set(pairs(found))
    (tuned,) = (one for one in found.comparisons if one.row.startswith("tuned"))
    assert tuned.baseline.startswith("kd")
    assert tuned.smaller_budget


# --- what is noted ----------------------------------------------------------------------------------------------------


def test_lost_seeds_are_noted_with_their_reasons() -> None:
    found = compare([ablation({"kd": {0: 0.9, 1: 0.8, 2: "failed"}, "wsl": {0: 0.9, 1: "pruned", 2: 0.7}})])
    assert noted(found, "seeds without a value, counted and left out of the means: kd (1 failed); wsl (1 pruned)")


@pytest.mark.parametrize("status", ["running", "stopped", "failed"])
def test_a_sweep_that_is_not_at_its_end_is_noted(status: str) -> None:
    assert noted(
        compare([ablation(TABLE, status=status)]), f"s is not at its end ({status}): this is what it has so far"
    )
    assert not noted(compare([ablation(TABLE)]), "not at its end")


def test_an_arm_without_a_winner_is_noted(tmp_path: Path) -> None:
    """It has no row: it would be gone in silence."""
    sweep = made_up(SEARCH, tmp_path, but((lambda trial: trial.stage == "search" and trial.arm == "wsl", "failed")))
    found = compare([sweep.records()])
    assert [one.variant for one in found.rows] == ["kd", "kd (untuned)", "ce"]
    assert noted(found, "search: arm wsl has no winner (trials: 6 failed)")


def test_rows_that_a_budget_left_out_are_noted(tmp_path: Path) -> None:
    text = GRID + "budget: {trials: 7}\n"
    found = compare([made_up(text, tmp_path).records()])
    assert [(one.label, len(one.values), one.missing) for one in found.rows] == [
        ("ce", 3, {}), ("kd temperature=2", 3, {}), ("kd temperature=4", 1, {"not run": 2}),
    ]  # fmt: skip
    assert noted(found, "grid: no trial has begun of wsl temperature=2 (3 seeds), wsl temperature=4 (3 seeds)")


def test_many_rows_that_were_left_out_are_counted(tmp_path: Path) -> None:
    text = GRID.replace("[2.0, 4.0]", f"{[1.0 + i for i in range(12)]}") + "budget: {trials: 5}\n"
    found = compare([made_up(text, tmp_path).records()])
    (note,) = (note for note in found.notes if "no trial has begun" in note)
    assert note.endswith(", and 15 rows more")  # of 23


def test_a_sweep_that_has_no_table_is_noted_beside_one_that_has(tmp_path: Path, ablated: MadeUp) -> None:
    search = made_up(SEARCH, tmp_path, end="stopped", most=5).records()
    found = compare([ablated.records(), search])
    assert noted(found, "search has no final table, so nothing of it is here; see its search by --where stage=search")
    assert noted(found, "search is not at its end (stopped)")


def test_means_over_configurations_are_noted() -> None:
    found = compare([ablation(GRID_TABLE)], by=["variant"])
    assert noted(found, "kd: each seed's value is a mean over 2 configurations")
    assert not noted(found, "ce: each seed's")


def test_an_interval_without_width_is_noted() -> None:
    found = compare([ablation({"kd": {0: 0.9, 1: 0.9, 2: 0.9}, "wsl": {0: 0.9, 1: 0.91, 2: 0.92}})])
    assert noted(found, "all seeds have the same value: kd;")


def test_what_stands_still_is_noted(tmp_path: Path, ablated: MadeUp) -> None:
    found = compare([ablated.records()])
    assert noted(
        found, "The teacher (one training of it for all seeds) and the split into training, validation and test"
    )
    several = GRID.replace("distillation.temperature: {grid: [2.0, 4.0]}", "teacher.seed: {grid: [0, 1]}")
    found = compare([made_up(several, tmp_path).records()], by=["variant"])
    assert noted(found, "The split into training, validation and test part stands still in them")


def test_a_tuned_arm_against_an_untuned_baseline_is_marked_wherever_they_meet(searched: MadeUp) -> None:
    found = compare([searched.records()], baseline="kd (untuned)")
    marks = {one.row.split(" ")[0]: one.smaller_budget for one in found.comparisons}
    assert marks == {"wsl": True, "kd": True, "ce": False}
    assert all(
        ("part of the difference may be the tuning" in one.sentence) == one.smaller_budget for one in found.comparisons
    )
    staged = compare([searched.records()], baseline="kd (untuned)", where=["stage=confirm"])
    assert [one.smaller_budget for one in staged.comparisons] == [True, True, True, True, False]


# --- seeds and examples -----------------------------------------------------------------------------------------------


def outcomes_of(sweep: MadeUp, variant: str) -> np.ndarray[Any, Any]:
    """(seeds, examples) of a row, from its logits."""
    records = sweep.records()
    (row,) = (row for row in sweep.state.rows if row["variant"] == variant)
    return np.stack([_right(records, trial_id) for trial_id in row["trial_ids"]]).astype(float)


def _right(records: SweepRecords, trial_id: str) -> np.ndarray[Any, Any]:
    kept = records.outcomes(trial_id)
    assert kept is not None
    return kept.right


def test_the_wide_intervals_are_of_the_kept_logits(ablated: MadeUp) -> None:
    sweep = ablated
    found = compare([sweep.records()])
    for row, interval in zip(found.rows, found.wide_intervals, strict=True):
        outcomes = outcomes_of(sweep, row.variant)
        assert outcomes.mean(axis=1) == pytest.approx(row.values)
        assert interval == pytest.approx(seeds_and_examples_interval(outcomes))
    for one in found.comparisons:
        difference = outcomes_of(sweep, one.row.split(" ")[0]) - outcomes_of(sweep, "kd")
        assert one.wide_interval == pytest.approx(seeds_and_examples_interval(difference))


def test_without_logits_there_is_no_wide_interval(tmp_path: Path) -> None:
    sweep = made_up(ABLATION, tmp_path)
    trial_id = sweep.state.rows[2]["trial_ids"][0]  # of wsl
    (sweep.folder / "trials" / trial_id / "test_logits.safetensors").write_bytes(b"not whole")
    found = compare([sweep.records()])
    there = {row.label: interval is not None for row, interval in zip(found.rows, found.wide_intervals, strict=True)}
    assert there == {"ce": True, "kd": True, "wsl": False, "plain": True}
    assert [one.wide_interval is not None for one in found.comparisons] == [True, False, True]
    assert all(interval is None for interval in compare([sweep.records()], metric="test/loss").wide_intervals)


def kept(values: dict[str, list[list[int]]], examples: dict[str, str] | None = None) -> SweepRecords:
    """A sweep of variants with outcomes by seed and example."""
    tables, records = {}, []
    for variant, rows in values.items():
        for seed, right in enumerate(rows):
            one = record(variant, seed, float(np.mean(right)))
            records.append(one)
            tables[one.trial_id] = Outcomes(np.array(right, bool), (examples or {}).get(variant, "same"))
    return sweep_of(records, outcomes=tables.get)


def test_students_that_were_tested_on_different_examples_have_no_paired_wide_interval() -> None:
    values = {"kd": [[1, 0, 1], [1, 1, 0]], "wsl": [[1, 1, 1], [0, 1, 0]]}
    found = compare([kept(values, {"kd": "others"})])
    assert all(interval is not None for interval in found.wide_intervals)
    assert found.comparisons[0].wide_interval is None
    assert compare([kept(values)]).comparisons[0].wide_interval is not None


def test_a_mean_over_configurations_has_the_mean_outcomes(gridded: MadeUp) -> None:
    sweep = gridded
    found = compare([sweep.records()], by=["variant"])
    records = sweep.records()
    for row, interval in zip(found.rows, found.wide_intervals, strict=True):
        each = [np.mean([_right(records, one) for one in row.trial_ids[seed]], axis=0) for seed in row.seeds]
        assert interval == pytest.approx(seeds_and_examples_interval(np.stack(each)))
        assert [float(one.mean()) for one in each] == pytest.approx(row.values)


def test_where_seeds_are_not_paired_the_difference_has_no_wide_interval() -> None:
    """Else it would be of the common seeds alone, beside a difference of all of them."""
    rng = np.random.default_rng(0)
    records, tables = [], {}
    for variant, seeds in (("kd", range(5)), ("wsl", range(3, 8))):
        for seed in seeds:
            right = rng.random(30) < 0.8
            one = record(variant, seed, float(right.mean()))
            records.append(one)
            tables[one.trial_id] = Outcomes(right, "same")
    found = compare([sweep_of(records, outcomes=tables.get)]).comparisons[0]
    assert found.difference is not None
    assert (found.difference.method, found.common, found.wide_interval) == ("welch", 2, None)


def test_a_trial_that_was_taken_over_has_the_outcomes_of_where_it_ran() -> None:
    first = kept({"kd": [[1, 0, 1], [1, 1, 0]]})
    second = sweep_of(first.records)
    for order in ([first, second], [second, first]):
        assert compare(order).wide_intervals[0] is not None


# --- as data ----------------------------------------------------------------------------------------------------------


def test_the_json_has_every_figure(searched: MadeUp) -> None:
    found = compare([searched.records()])
    data = json.loads(json.dumps(found.to_json(), allow_nan=False))
    for row, one in zip(data["rows"], found.rows, strict=True):
        described = describe(one.values)
        assert (row["mean"], row["sd"], row["n"]) == (described.mean, described.sd, 3)
        assert row["ci95"] == list(t_interval(one.values) or ())
        assert dict(zip(row["seeds"], row["values"], strict=True)) == one.by_seed
        assert row["tuning_trials"] == one.tuning_trials
    assert [row["baseline"] for row in data["rows"]] == [False, True, False, False]
    for one_json, pair in zip(data["comparisons"], found.comparisons, strict=True):
        assert pair.difference is not None
        assert pair.improvement is not None
        assert one_json["difference"] == pair.difference.difference
        assert one_json["ci95"] == list(pair.difference.interval)
        assert (one_json["p"], one_json["p_holm"], one_json["p_equivalence"]) == (
            pair.difference.p, pair.p_holm, pair.equivalence_p,
        )  # fmt: skip
        assert one_json["probability_of_improvement"] == pair.improvement.probability
        assert one_json["probability_of_improvement_ci95"] == list(pair.improvement.interval)
        assert one_json["verdict"] in ("better", "worse", "equivalent", "inconclusive")
    assert [one["row_smaller_budget"] for one in data["comparisons"]] == [False, True, True]


def test_one_seed_has_neither_interval_nor_verdict() -> None:
    data = compare([ablation({"kd": {0: 0.9}, "wsl": {0: 0.95}})]).to_json()
    for row in data["rows"]:
        assert (row["n"], row["sd"], row["ci95"], row["ci95_seeds_and_examples"]) == (1, None, None, None)
    (one,) = data["comparisons"]
    assert {
        name: one[name] for name in ("verdict", "p", "p_holm", "ci95", "difference", "probability_of_improvement")
    } == (dict.fromkeys(("verdict", "p", "p_holm", "ci95", "difference", "probability_of_improvement")))


@pytest.mark.parametrize("seeds", [3000])
def test_thousands_of_seeds(seeds: int) -> None:
    rng = np.random.default_rng(1)
    table = {v: dict(enumerate((0.9 + rng.normal(0, 0.01, seeds)).tolist())) for v in ("kd", "wsl")}
    found = compare([ablation(table)])
    assert found.comparisons[0].verdict == "equivalent"
    assert found.rows[0].description is not None
    assert found.rows[0].description.n == seeds
    standing = Standing(0, "kd", {}, None, tuple(range(seeds)))
    assert Standing.from_json(json.loads(json.dumps(standing.to_json()))) == standing
    assert len(json.dumps(standing.to_json())) < 100


@pytest.mark.parametrize("seeds", [(), (5,), (0, 1, 2), (7, 3, 4), (1000, 1001, 5, 4, 3, 10**9)])
def test_seeds_of_a_table_are_kept_in_their_order(seeds: tuple[int, ...]) -> None:
    standing = Standing(3, "wsl", {"distillation.alpha": 2.5}, True, seeds)
    assert Standing.from_json(json.loads(json.dumps(standing.to_json()))) == standing
