"""Rows: who belongs together, who is counted as missing, which trials are chosen."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.analysis.helpers import ABLATION, ACCURACY, GRID, SEARCH, MadeUp, ablation, but, made_up, record, sweep_of
from wsl_sweep.analysis import Row, SweepRecords, rows_of
from wsl_sweep.errors import WslSweepError
from wsl_sweep.sweep.table import Standing

GRID_TABLE = {
    "ce": {0: 0.80, 1: 0.81},
    ("kd", 1.0): {0: 0.90, 1: 0.91},
    ("kd", 2.0): {0: 0.92, 1: 0.93},
    ("wsl", 1.0): {0: 0.94, 1: 0.95},
    ("wsl", 2.0): {0: 0.96, 1: 0.97},
}


def rows(*sweeps: SweepRecords, by: tuple[str, ...] = (), where: tuple[str, ...] = ()) -> list[Row]:
    return rows_of(sweeps, ACCURACY, by=by, where=where)


def values(found: list[Row]) -> dict[str, dict[int, float]]:
    return {one.label: {seed: pytest.approx(value) for seed, value in one.by_seed.items()} for one in found}


# --- missing seeds ----------------------------------------------------------------------------------------------------


def test_every_seed_without_a_value_is_counted_with_its_reason() -> None:
    (row,) = rows(ablation({"kd": {0: 0.9, 1: "failed", 2: "pruned", 3: "killed", 4: "running", 5: 0.7, 6: "failed"}}))
    assert row.by_seed == {0: 0.9, 5: 0.7}
    assert row.missing == {"failed": 2, "pruned": 1, "stopped": 1, "not finished": 1}
    assert row.description is not None
    assert (row.description.n, row.description.mean) == (2, pytest.approx(0.8))


def test_a_pruned_trial_never_counts_though_it_has_the_metric() -> None:
    pruned = record("kd", 1, 0.99, status="pruned")
    (row,) = rows(sweep_of([record("kd", 0, 0.9), pruned]))
    assert row.by_seed == {0: 0.9}
    assert row.missing == {"pruned": 1}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None])
def test_a_finished_trial_whose_metric_is_no_number_is_missing(value: float | None) -> None:
    odd = record("kd", 1, 0.0, metrics={} if value is None else {ACCURACY: value})
    (row,) = rows(sweep_of([record("kd", 0, 0.9), odd]))
    assert row.by_seed == {0: 0.9}
    assert row.missing == {f"without {ACCURACY}": 1}


def test_a_seed_of_the_table_without_a_trial_is_missing() -> None:
    """A damaged ledger has lost its trial, or a budget was used up before it."""
    (kd, ce) = rows(ablation({"kd": {0: 0.9, 1: 0.8}, "ce": {1: 0.7}}))
    assert kd.missing == {}
    assert ce.missing == {"not run": 1}


def test_a_row_without_any_value_is_still_a_row() -> None:
    (row,) = rows(ablation({"kd": {0: "failed", 1: "pruned"}}))
    assert row.description is None
    assert row.values == ()
    assert row.missing == {"failed": 1, "pruned": 1}


def test_a_mean_over_configurations_needs_all_of_them_at_a_seed() -> None:
    table = {("kd", 1.0): {0: 0.9, 1: 0.8}, ("kd", 2.0): {0: 0.7, 1: "failed"}}
    (row,) = rows(ablation(table), by=("variant",))
    assert row.by_seed == {0: pytest.approx(0.8)}
    assert row.missing == {"failed": 1}
    assert row.averaged == 2


# --- what makes rows --------------------------------------------------------------------------------------------------


def test_by_default_a_row_is_a_variant_with_its_settings() -> None:
    found = rows(ablation(GRID_TABLE))
    assert [one.label for one in found] == ["ce", "kd alpha=1", "kd alpha=2", "wsl alpha=1", "wsl alpha=2"]
    assert found[2].by_seed == {0: 0.92, 1: 0.93}
    assert found[2].settings == {"distillation.alpha": 2.0}


def test_by_variant_averages_within_each_seed() -> None:
    found = rows(ablation(GRID_TABLE), by=("variant",))
    assert values(found) == {"ce": {0: 0.8, 1: 0.81}, "kd": {0: 0.91, 1: 0.92}, "wsl": {0: 0.95, 1: 0.96}}
    assert [one.averaged for one in found] == [1, 2, 2]


def test_by_a_path_those_that_do_not_read_it_are_a_row_of_their_own() -> None:
    found = rows(ablation(GRID_TABLE), by=("distillation.alpha",))
    assert values(found) == {
        "alpha=1.0": {0: 0.92, 1: 0.93},
        "alpha=2.0": {0: 0.94, 1: 0.95},
        "alpha=-": {0: 0.8, 1: 0.81},
    }


def test_by_several_paths() -> None:
    found = rows(ablation(GRID_TABLE), by=("variant", "distillation.alpha"))
    assert [one.label for one in found] == [
        "kd alpha=1.0",
        "wsl alpha=1.0",
        "kd alpha=2.0",
        "wsl alpha=2.0",
        "ce alpha=-",
    ]


def test_rows_by_a_path_stand_in_the_order_of_numbers() -> None:
    table = {("kd", alpha): {0: 0.9} for alpha in (10.0, 9.0, 1e-3, 100.0)}
    found = rows(ablation(table), by=("distillation.alpha",))
    assert [one.settings["distillation.alpha"] for one in found] == ["0.001", "9.0", "10.0", "100.0"]


def test_by_seed_there_is_one_value_a_row_and_no_interval() -> None:
    found = rows(ablation({"kd": {0: 0.9, 1: 0.8}}), by=("seed",))
    assert [one.label for one in found] == ["seed=0", "seed=1"]
    assert all(one.description is not None and one.description.interval is None for one in found)


def test_settings_that_look_the_same_are_told_apart() -> None:
    found = rows(ablation({("kd", 1.00001): {0: 0.9}, ("kd", 1.00002): {0: 0.8}}))
    assert [one.label for one in found] == ["kd alpha=1 [s]", "kd alpha=1 [s] (2)"]


def test_a_merged_trial_counts_for_each_of_its_variants() -> None:
    standings = (Standing(0, "kd", {}, None, (0,)), Standing(1, "plain", {}, None, (0,)))
    found = rows(sweep_of([record("kd", 0, 0.9, variants=("kd", "plain"), standings=standings)]))
    assert values(found) == {"kd": {0: 0.9}, "plain": {0: 0.9}}
    (one,) = rows(sweep_of([record("kd", 0, 0.9, variants=("kd", "plain"), standings=standings)]), by=("seed",))
    assert one.averaged == 1


# --- conditions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["distillation.alpha=2", "distillation.alpha=2.0", " distillation.alpha = 2e0 "])
def test_numbers_are_compared_as_numbers(text: str) -> None:
    assert [one.label for one in rows(ablation(GRID_TABLE), where=(text,))] == ["kd", "wsl"]


@pytest.mark.parametrize(
    ("value", "text", "same"),
    [
        (True, "true", True), (True, "True", True), (True, "false", False), (False, "false", True), (True, "1", False),
        (None, "null", True), (None, "None", True), (None, "0", False), ("sgd", "sgd", True), ("sgd", "SGD", False),
        (1e-3, "0.001", True), ("nan", "nan", True), (1, "1.0", True), ([1, 2], "[1, 2]", True),
    ],
)  # fmt: skip
def test_what_a_condition_takes_as_the_same(value: object, text: str, same: bool) -> None:
    sweep = sweep_of([record("kd", 0, 0.9, params={"a.path": value}), record("kd", 1, 0.9, params={"a.path": "other"})])
    if same:
        (row,) = rows(sweep, where=(f"a.path={text}",))
        assert row.seeds == (0,)
    else:
        with pytest.raises(WslSweepError, match="no trial with"):
            rows(sweep, where=(f"a.path={text}",))


def test_ids_of_trials_are_no_numbers() -> None:
    """As numbers both were infinite."""
    sweep = sweep_of([record("kd", 0, 0.9, trial_id="12e456789012"), record("kd", 1, 0.8, trial_id="34e567890123")])
    (row,) = rows(sweep, where=("trial_id=12e456789012",))
    assert row.by_seed == {0: 0.9}


def test_names_are_no_numbers() -> None:
    found = rows(ablation({"1": {0: 0.9}, "1.0": {0: 0.8}}), where=("variant=1",))
    assert values(found) == {"1": {0: 0.9}}


def test_conditions_hold_together() -> None:
    (row,) = rows(ablation(GRID_TABLE), where=("variant=wsl", "distillation.alpha=1", "seed=1"))
    assert row.by_seed == {1: 0.95}


def test_absent_paths_can_be_asked_for() -> None:
    assert [one.label for one in rows(ablation(GRID_TABLE), where=("distillation.alpha=-",))] == ["ce"]


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("distillation.alfa=1", 'no trial has a "distillation.alfa"; did you mean "distillation.alpha"'),
        ("distillation.alpha", "a condition is path=value"),
        ("=1", "a condition is path=value"),
        ("distillation.alpha=7", "distillation.alpha is one of 1.0, 2.0, -"),
    ],
)
def test_a_wrong_condition_is_said_with_what_there_is(where: str, said: str) -> None:
    with pytest.raises(WslSweepError) as error:
        rows(ablation(GRID_TABLE), where=(where,))
    assert said in str(error.value)


def test_a_wrong_path_of_rows_is_said_with_the_nearest() -> None:
    with pytest.raises(WslSweepError, match='did you mean "variant"'):
        rows(ablation(GRID_TABLE), by=("varient",))


# --- several sweeps ---------------------------------------------------------------------------------------------------


def test_seeds_of_one_configuration_in_two_sweeps_make_one_row() -> None:
    (row,) = rows(ablation({"kd": {0: 0.9}}, "a"), ablation({"kd": {1: 0.8}}, "b"))
    assert row.by_seed == {0: 0.9, 1: 0.8}
    assert row.sweeps == ("a", "b")


def test_a_trial_that_a_second_sweep_took_over_counts_once_in_a_row_and_in_both_sweeps() -> None:
    sweeps = ablation({"kd": {0: 0.9, 1: 0.8}}, "a"), ablation({"kd": {0: 0.9, 1: 0.8}}, "b")
    (row,) = rows(*sweeps)
    assert row.by_seed == {0: 0.9, 1: 0.8}
    assert row.averaged == 1
    by_sweep = rows(*sweeps, by=("sweep",))
    assert values(by_sweep) == {"sweep=a": {0: 0.9, 1: 0.8}, "sweep=b": {0: 0.9, 1: 0.8}}


def test_a_trial_that_failed_in_one_sweep_and_finished_in_another_has_a_value() -> None:
    for order in ((0, 1), (1, 0)):
        sweeps = ablation({"kd": {0: "failed", 1: 0.8}}, "a"), ablation({"kd": {0: 0.9, 1: 0.8}}, "b")
        (row,) = rows(*(sweeps[index] for index in order))
        assert row.by_seed == {0: 0.9, 1: 0.8}
        assert row.missing == {}


def test_one_name_for_different_configurations_is_told_apart_by_sweep() -> None:
    other = sweep_of([record("kd", 0, 0.5, sweep="b", params={"dataset.name": "cifar100"})], "b")
    found = rows(ablation({"kd": {0: 0.9}}, "a"), other)
    assert values(found) == {"kd [a]": {0: 0.9}, "kd [b]": {0: 0.5}}
    by_variant = rows(ablation({"kd": {0: 0.9}}, "a"), other, by=("variant",))
    assert values(by_variant) == {"kd [a]": {0: 0.9}, "kd [b]": {0: 0.5}}


def test_a_mean_over_a_grid_keeps_what_another_sweep_has_too() -> None:
    one = ablation({("kd", 1.0): {0: 0.9}}, "a")
    two = ablation({("kd", 1.0): {0: 0.9}, ("kd", 2.0): {0: 0.7}}, "b")
    found = rows(one, two, by=("variant",))
    assert values(found) == {"kd [a]": {0: 0.9}, "kd [b]": {0: 0.8}}


# --- whole sweeps -----------------------------------------------------------------------------------------------------


def test_the_table_of_a_search_has_winners_and_baselines_and_their_budgets(searched: MadeUp) -> None:
    found = rows(searched.records())
    assert [(one.variant, one.tuned, one.tuning_trials) for one in found] == [
        ("wsl", True, 6), ("kd", True, 6), ("kd (untuned)", False, 0), ("ce", False, 0),
    ]  # fmt: skip
    assert all(one.seeds == (1000, 1001, 1002) for one in found)
    assert [one.label.split(" alpha")[0] for one in found] == ["wsl", "kd", "kd (untuned)", "ce"]


def test_pruned_search_trials_are_part_of_a_budget(tmp_path: Path) -> None:
    unlucky = but((lambda trial: trial.stage == "search" and trial.overrides["distillation.alpha"] > 3, "pruned"))
    sweep = made_up(SEARCH, tmp_path, unlucky)
    assert {record.status for record in sweep.records().records} == {"finished", "pruned"}
    assert [one.tuning_trials for one in rows(sweep.records())] == [6, 6, 0, 0]


def test_the_search_itself_can_be_looked_at(searched: MadeUp) -> None:
    sweep = searched.records()
    found = rows_of([sweep], "validation/accuracy", where=("stage=search",))
    assert len(found) == 12
    assert {one.variant for one in found} == {"wsl", "kd"}
    assert all(one.seeds == (0,) for one in found)
    alphas = [one.settings["distillation.alpha"] for one in found if one.variant == "kd"]
    assert alphas == sorted(alphas)


def test_all_that_was_confirmed_keeps_its_budget(searched: MadeUp) -> None:
    """Two candidates of each arm, of which one won; what is compared with an untuned baseline is marked so."""
    sweep = searched.records()
    found = rows_of([sweep], "validation/accuracy", where=("stage=confirm",))
    assert [(one.variant, one.tuning_trials) for one in found] == [
        ("wsl", 6), ("wsl", 6), ("kd", 6), ("kd", 6), ("kd (untuned)", 0), ("ce", 0),
    ]  # fmt: skip


@pytest.mark.parametrize("part", ["train", "train+validation"])
def test_winners_that_were_trained_on_everything_are_not_mixed_with_their_candidates(part: str, tmp_path: Path) -> None:
    text = SEARCH.replace("top: 2", f"top: 2, train_on: {part}")
    found = rows(made_up(text, tmp_path).records())
    assert [one.variant for one in found] == ["wsl", "kd", "kd (untuned)", "ce"]
    assert all(len(one.values) == 3 and one.averaged == 1 for one in found)
    every = rows_of([made_up(text, tmp_path / "b").records()], "validation/accuracy", where=("stage=confirm",))
    assert len(every) == (6 if part == "train" else 8)


def test_variants_that_are_one_training_have_a_row_each(ablated: MadeUp) -> None:
    found = {one.variant: one for one in rows(ablated.records())}
    assert list(found) == ["ce", "kd", "wsl", "plain"]
    assert found["kd"].trial_ids == found["plain"].trial_ids
    assert found["kd"].values == found["plain"].values


def test_where_a_variant_does_not_read_the_grid_it_has_one_row(gridded: MadeUp) -> None:
    found = rows(gridded.records())
    assert [one.label for one in found] == [
        "ce", "kd temperature=2", "kd temperature=4", "wsl temperature=2", "wsl temperature=4",
    ]  # fmt: skip
    assert all(one.seeds == (3, 4, 7) for one in found)


def test_an_ablation_that_is_not_at_its_end_has_the_rows_that_it_has(tmp_path: Path) -> None:
    sweep = made_up(GRID, tmp_path, end="stopped", most=8).records()
    found = rows(sweep)  # a teacher, and seven trainings; no evaluation
    assert [(one.label, one.missing) for one in found] == [
        ("ce", {f"without {ACCURACY}": 3}),
        ("kd temperature=2", {f"without {ACCURACY}": 3}),
        ("kd temperature=4", {f"without {ACCURACY}": 1}),
    ]
    (ce, *_) = rows_of([sweep], "validation/accuracy")
    assert ce.seeds == (3, 4, 7)


def test_a_search_that_is_not_at_its_end_has_no_table_and_says_where_to_look(tmp_path: Path) -> None:
    sweep = made_up(SEARCH, tmp_path, end="stopped", most=5).records()
    with pytest.raises(WslSweepError, match="no final table yet; look at the search by --where stage=search"):
        rows(sweep)


def test_a_table_that_a_damaged_ledger_lost_is_made_again_from_the_trials(tmp_path: Path) -> None:
    sweep = made_up(GRID, tmp_path)
    before = rows(sweep.records())
    for segment in (sweep.folder / "ledger").iterdir():
        if '"event": "decided"' in segment.read_text():
            segment.unlink()
    assert sweep.state.rows == []
    after = rows(sweep.records())
    assert [(one.label, one.by_seed) for one in after] == [(one.label, one.by_seed) for one in before]


def test_a_trial_that_a_damaged_ledger_lost_is_missing(tmp_path: Path) -> None:
    sweep = made_up(ABLATION, tmp_path)
    trial_id = sweep.state.rows[0]["trial_ids"][2]
    for segment in (sweep.folder / "ledger").iterdir():
        if trial_id in segment.read_text() and '"decided"' not in segment.read_text():
            segment.unlink()
    (ce, *_) = rows(sweep.records())
    assert ce.missing == {"not run": 1}
    assert len(ce.values) == 4
