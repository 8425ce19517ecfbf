"""A comparison from MLflow is the comparison from the ledger, figure for figure."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mlflow
import pytest

from tests.analysis.helpers import ABLATION, GRID, SEARCH, MadeUp, but, made_up
from wsl_sweep.analysis import SweepRecords, compare, records_of
from wsl_sweep.analysis.from_mlflow import OUTCOMES, outcomes_file, read_sweeps
from wsl_sweep.analysis.records import declared
from wsl_sweep.errors import WslSweepError
from wsl_sweep.sweep.ledger import fold
from wsl_sweep.tracking import MlflowWriter, Tracking

Ask = Mapping[str, Any]

ASKED: list[Ask] = [
    {},
    {"metric": "validation/loss"},
    {"metric": "test/loss", "margin": 0.03},
    {"by": ["variant"]},
    {"by": ["distillation.temperature"]},
    {"by": ["variant", "distillation.alpha"]},
    {"where": ["variant=wsl"]},
]
OF_SEARCHES: list[Ask] = [
    {"baseline": "kd (untuned)"},
    {"where": ["stage=search"], "metric": "validation/accuracy"},
    {"where": ["stage=confirm"], "metric": "validation/accuracy"},
]


@pytest.fixture
def store(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an MLflow store of the test's own, artifacts included."""
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


def writer_of(sweep: MadeUp, uri: str, uuid: str | None = None) -> MlflowWriter:
    spec = sweep.spec
    told = {
        "name": spec.name, "uuid": uuid or f"uuid-{spec.name}", "description": spec.description, "git_commit": "abc",
        "device": "cpu", "declared": declared(spec),
    }  # fmt: skip
    return MlflowWriter(Tracking(uri, spec.name), told)


def rows_of(events: list[dict[str, Any]]) -> Callable[[str, int], list[dict[str, float]]]:
    """First and last epoch of each trial: the last one has the metrics of its last word."""
    last = {one["trial_id"]: one for one in events if "epochs" in one}

    def rows(trial_id: str, attempt: int) -> list[dict[str, float]]:
        if trial_id not in last:
            return []
        word = last[trial_id]
        epochs, end = word["epochs"], word["metrics"]
        first = {"epoch": 1, "timestamp": 1001.0, "validation/accuracy": 0.1, "gone": 1.0}
        return [*([first] if epochs > 1 else []), {"epoch": epochs, "timestamp": 1000.0 + epochs, **end}]

    return rows


def write(sweep: MadeUp, uri: str, *, uuid: str | None = None, status: str | None = None, live: bool = False) -> None:
    """Has a sweep in MLflow: brought in line at once, or told event by event as a driver does."""
    writer, events = writer_of(sweep, uri, uuid), sweep.events
    rows = rows_of(events)
    writer.start()
    if live:
        for event in events:
            writer.on_event(event)
            if "epochs" in event:
                writer.on_rows(event["trial_id"], event["attempt"], rows(event["trial_id"], event["attempt"]))
    else:
        writer.bring_in_line(events, rows)
    outcomes = outcomes_file(sweep.records())
    if outcomes is not None:
        writer.artifacts({OUTCOMES: outcomes})
    assert writer.close(status or fold(events).status, 60)


def assert_same(sweeps: list[MadeUp], uri: str, asked: list[Ask] = ASKED) -> None:
    """Asserts that all that can be asked is answered alike, errors included."""
    ledger, server = [one.records() for one in sweeps], read_sweeps(uri, [one.spec.name for one in sweeps])
    for ask in asked:
        assert answer(server, ask) == answer(ledger, ask), ask


def answer(sweeps: list[SweepRecords], ask: Ask) -> dict[str, Any]:
    try:
        return compare(sweeps, **ask).to_json()
    except WslSweepError as error:
        return {"error": str(error)}


# --- all kinds of sweeps ----------------------------------------------------------------------------------------------


def test_an_ablation_with_merged_variants(ablated: MadeUp, store: str) -> None:
    write(ablated, store, live=True)
    found = compare(read_sweeps(store, ["made-up"]))
    assert [row.variant for row in found.rows] == ["ce", "kd", "wsl", "plain"]
    assert all(interval is not None for interval in found.wide_intervals)
    assert all(one.wide_interval is not None for one in found.comparisons)
    assert_same([ablated], store)


@pytest.mark.parametrize("live", [False, True])
def test_a_grid_with_trials_that_came_to_no_end(tmp_path: Path, store: str, live: bool) -> None:
    endings = but(
        (lambda trial: trial.seed == 3 and "wsl" in trial.variants, "failed"),
        (lambda trial: trial.seed == 4 and "ce" in trial.variants, "pruned"),
        (lambda trial: trial.seed == 7 and trial.overrides.get("distillation.temperature") == 4.0, "killed"),
    )
    sweep = made_up(GRID, tmp_path, endings)
    write(sweep, store, live=live)
    missing = {row.label: dict(row.missing) for row in compare(read_sweeps(store, ["grid"])).rows}
    assert missing == {
        "ce": {"pruned": 1}, "kd temperature=2": {}, "kd temperature=4": {"stopped": 1},
        "wsl temperature=2": {"failed": 1}, "wsl temperature=4": {"failed": 1, "stopped": 1},
    }  # fmt: skip
    assert_same([sweep], store)


def test_a_search_with_untuned_baselines_and_pruned_trials(tmp_path: Path, store: str) -> None:
    unlucky = but((lambda trial: trial.stage == "search" and trial.overrides["distillation.alpha"] > 3, "pruned"))
    sweep = made_up(SEARCH, tmp_path, unlucky)
    write(sweep, store, live=True)
    found = compare(read_sweeps(store, ["search"]))
    assert [(row.variant, row.tuning_trials) for row in found.rows] == [
        ("wsl", 6),
        ("kd", 6),
        ("kd (untuned)", 0),
        ("ce", 0),
    ]
    assert [one.row_smaller_budget for one in found.comparisons] == [False, True, True]
    assert_same([sweep], store, [*ASKED, *OF_SEARCHES])


def test_an_arm_without_a_winner(tmp_path: Path, store: str) -> None:
    sweep = made_up(SEARCH, tmp_path, but((lambda trial: trial.stage == "search" and trial.arm == "wsl", "failed")))
    write(sweep, store)
    assert any("arm wsl has no winner" in note for note in compare(read_sweeps(store, ["search"])).notes)
    assert_same([sweep], store, [*ASKED, *OF_SEARCHES])


def test_winners_that_were_trained_on_everything(tmp_path: Path, store: str) -> None:
    sweep = made_up(SEARCH.replace("top: 2", "top: 2, train_on: train+validation"), tmp_path)
    write(sweep, store)
    assert_same([sweep], store, [*ASKED, *OF_SEARCHES])


@pytest.mark.parametrize(("text", "most"), [(GRID, 5), (SEARCH, 16)])
def test_a_sweep_that_was_stopped_on_its_way(text: str, most: int, tmp_path: Path, store: str) -> None:
    sweep = made_up(text, tmp_path, most=most, end="stopped")
    write(sweep, store)
    assert_same([sweep], store, [*ASKED[:4], *OF_SEARCHES])


def test_rows_that_a_budget_left_out_and_that_a_later_driver_ran(tmp_path: Path, store: str) -> None:
    """The table is decided before their trials are proposed; MLflow has to know of them all the same."""
    sweep = made_up(GRID + "budget: {trials: 7}\n", tmp_path)
    write(sweep, store)
    assert any("no trial has begun of wsl" in note for note in compare(read_sweeps(store, ["grid"])).notes)
    assert_same([sweep], store)
    more = made_up(GRID, tmp_path)  # goes on where the first came to its end
    assert more.folder == sweep.folder
    events = more.events
    decided = [number for number, event in enumerate(events) if event["event"] == "decided"]
    assert len(decided) == 1
    assert any(event["event"] == "proposed" for event in events[decided[0] :])
    write(more, store)
    found = compare(read_sweeps(store, ["grid"]))
    assert all(not row.missing for row in found.rows)
    assert not any("no trial has begun" in note for note in found.notes)
    assert_same([more], store)


def test_what_was_not_a_number_at_the_end_is_not_taken_from_an_epoch_before(ablated: MadeUp, store: str) -> None:
    """``gone`` is logged before the last epoch and not at it, as a metric is that became infinite there."""
    write(ablated, store)
    client = mlflow.MlflowClient(tracking_uri=store)
    (experiment,) = (one for one in client.search_experiments() if one.name == "made-up")
    runs = client.search_runs([experiment.experiment_id], "tags.trial_id != ''")
    assert all("gone" in run.data.metrics for run in runs)
    (sweep,) = read_sweeps(store, ["made-up"])
    assert not any("gone" in record.metrics for record in sweep.records)
    assert {record.trial_id: dict(record.metrics) for record in sweep.records} == {
        record.trial_id: dict(record.metrics) for record in ablated.records().records
    }


def test_a_row_of_thousands_of_seeds_is_known_to_mlflow(store: str, tmp_path: Path) -> None:
    """MLflow cuts a tag at 8,000 characters."""
    sweep = made_up(ABLATION, tmp_path, logits=False)
    events = sweep.events
    for event in events:
        if event["event"] == "decided":
            for row in event["rows"]:
                row["seeds"] = [*row["seeds"], *range(100, 5000)]
    writer = writer_of(sweep, store)
    writer.start()
    writer.bring_in_line(events, rows_of(events))
    assert writer.close("finished", 60)
    state = fold(events)
    ledger = compare([records_of(sweep.spec, state, uuid="uuid-made-up")]).to_json()
    assert ledger["rows"][0]["missing"] == {"not run": 4900}
    assert compare(read_sweeps(store, ["made-up"])).to_json() == ledger


# --- several sweeps ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_several_sweeps_together(ablated: MadeUp, gridded: MadeUp, searched: MadeUp, store: str) -> None:
    for sweep in (ablated, gridded, searched):
        write(sweep, store)
    assert_same(
        [ablated, gridded, searched], store, [*ASKED, *OF_SEARCHES, {"by": ["sweep"]}, {"by": ["sweep", "variant"]}]
    )
    assert_same([searched, gridded], store)


def test_of_one_name_the_one_that_began_last_is_meant(gridded: MadeUp, tmp_path: Path, store: str) -> None:
    later = made_up(GRID, tmp_path, but((lambda trial: trial.seed == 3, "failed")))
    write(later, store, uuid="u-later")
    write(gridded, store, uuid="u-before")
    client = mlflow.MlflowClient(tracking_uri=store)
    ids = [one.experiment_id for one in client.search_experiments()]
    begun = {
        run.data.tags["sweep_uuid"]: run.info.start_time for run in client.search_runs(ids, "tags.trial_id IS NULL")
    }
    assert begun["u-before"] < begun["u-later"]
    (found,) = read_sweeps(store, ["grid"])
    assert found.uuid == "u-later"
    (found,) = read_sweeps(store, ["u-before"])
    assert found.uuid == "u-before"


def test_two_of_one_name_are_told_apart_and_one_asked_for_twice_is_one(
    gridded: MadeUp, tmp_path: Path, store: str
) -> None:
    other = made_up(GRID.replace("temperature: {grid: [2.0, 4.0]}", "temperature: {grid: [3.0]}"), tmp_path)
    write(gridded, store, uuid="11111111-one")
    write(other, store, uuid="22222222-two")
    found = compare(read_sweeps(store, ["11111111-one", "22222222-two"]), by=["variant"])
    assert found.sweeps == ("grid@11111111", "grid@22222222")
    assert [row.label for row in found.rows if row.variant == "wsl"] == ["wsl [grid@11111111]", "wsl [grid@22222222]"]
    (once,) = read_sweeps(store, ["grid", "22222222-two", "grid"])
    assert once.name == "grid"


# --- what is not there ------------------------------------------------------------------------------------------------


def test_without_the_outcomes_there_is_no_wide_interval(tmp_path: Path, store: str) -> None:
    sweep = made_up(ABLATION, tmp_path, logits=False)
    assert outcomes_file(sweep.records()) is None
    write(sweep, store)
    found = compare(read_sweeps(store, ["made-up"]))
    assert all(interval is None for interval in found.wide_intervals)
    assert_same([sweep], store)


def test_only_trials_of_the_table_leave_their_outcomes(searched: MadeUp) -> None:
    kept = json.loads(outcomes_file(searched.records()) or b"")
    assert set(kept) == {one for row in searched.state.rows for one in row["trial_ids"]}


def test_a_sweep_that_is_not_there_is_said_with_those_that_are(ablated: MadeUp, store: str) -> None:
    with pytest.raises(WslSweepError, match="MLflow has no sweep other; it has: none"):
        read_sweeps(store, ["other"])
    write(ablated, store)
    with pytest.raises(WslSweepError, match="MLflow has no sweep other; it has: made-up"):
        read_sweeps(store, ["made-up", "other"])


@pytest.mark.parametrize("name", ["a'b", "' OR '1'='1"])
def test_a_name_is_no_part_of_a_query(name: str, store: str) -> None:
    with pytest.raises(WslSweepError, match="is no name of a sweep"):
        read_sweeps(store, [name])


def test_a_database_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(WslSweepError, match=r"there is no .*typo\.db"):
        read_sweeps(f"sqlite:///{tmp_path / 'typo.db'}", ["made-up"])
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_does_not_answer_is_said_without_its_password() -> None:
    with pytest.raises(WslSweepError, match="MLflow at") as error:
        read_sweeps("http://user:hunter2@127.0.0.1:9", ["made-up"])
    assert "hunter2" not in str(error.value)
    with pytest.raises(WslSweepError, match="MLflow at") as error:
        read_sweeps("postgresql://user:hunter2@127.0.0.1:9/mlflow", ["made-up"])
    assert "hunter2" not in str(error.value)


# --- a real server ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_over_a_server(searched: MadeUp, ablated: MadeUp, mlflow_server: str) -> None:
    for sweep in (searched, ablated):
        write(sweep, mlflow_server)
    assert all(one is not None for one in compare(read_sweeps(mlflow_server, ["made-up"])).wide_intervals)
    assert_same([searched, ablated], mlflow_server, [{}, {"by": ["variant"]}, *OF_SEARCHES])
