"""The writer: one run a trial, truthful statuses, one point a step however often it is sent."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import mlflow
import pytest

from tests.sweep.fakes import spec_of
from wsl_sweep.spec.plan import Trial, ablation_cells
from wsl_sweep.sweep.table import Standing
from wsl_sweep.tracking import MlflowWriter, Tracking, redact, resolve_tracking

SWEEP = {"name": "s", "uuid": "u-1", "description": "Why?", "git_commit": "abc", "device": "cpu"}


@pytest.fixture
def tracking(tmp_path: Path, empty_database: Path) -> Tracking:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return Tracking(f"sqlite:///{tmp_path / 'mlflow.db'}", "exp")


def trials() -> list[Trial]:
    cells = ablation_cells(spec_of("run: {recipe: digits}\nvariants: [ce, kd, wsl]\nseeds: 2"))
    return [trial for cell in cells for trial in cell.trials]


def rows(last: int) -> list[dict[str, float]]:
    return [{"epoch": e, "timestamp": 1000.0 + e, "validation/accuracy": 0.1 * e} for e in range(1, last + 1)]


def tell(writer: MlflowWriter, trial: Trial, word: str, **fields: Any) -> None:
    writer.on_event({"event": "proposed", "time": 1.0, "trial": trial.to_json()})
    writer.on_event({"event": "started", "time": 1000.0, "trial_id": trial.trial_id, "attempt": 1})
    writer.on_rows(trial.trial_id, 1, rows(3))
    writer.on_event({"event": word, "time": 2000.0, "trial_id": trial.trial_id, "attempt": 1, **fields})


def write(tracking: Tracking, stories: list[tuple[Trial, str, dict[str, Any]]]) -> MlflowWriter:
    writer = MlflowWriter(tracking, SWEEP)
    writer.start()
    for trial, word, fields in stories:
        tell(writer, trial, word, **fields)
    assert writer.close("finished", 60)
    return writer


def runs_of(tracking: Tracking) -> list[Any]:
    client = mlflow.MlflowClient(tracking_uri=tracking.uri)
    experiment = client.get_experiment_by_name(tracking.experiment)
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], max_results=1000))


def test_a_parent_and_a_child_for_each_trial_with_truthful_statuses(tracking: Tracking) -> None:
    one, two, three, four = trials()[:4]
    stories: list[tuple[Trial, str, dict[str, Any]]] = [
        (one, "finished", {}),
        (two, "pruned", {}),
        (three, "failed", {"error": "diverged"}),
        (four, "killed", {}),
    ]
    writer = write(tracking, stories)
    found = {run.data.tags.get("trial_id"): run for run in runs_of(tracking)}
    assert len(found) == 5
    parent = found.pop(None)
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["mlflow.note.content"] == "Why?"
    expected = {"finished": "FINISHED", "pruned": "KILLED", "failed": "FAILED", "killed": "KILLED"}
    for trial, status in ((trial, expected[word]) for trial, word, _ in stories):
        run = found[trial.trial_id]
        assert run.info.status == status
        assert run.info.run_id == writer.run_ids[trial.trial_id]
        assert run.info.end_time == 2000_000
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        tags = {"sweep": "s", "sweep_uuid": "u-1", "stage": "ablation", "seed": str(trial.seed), "git_commit": "abc"}
        assert {key: run.data.tags[key] for key in tags} == tags
        assert run.data.tags["variants"] == ",".join(trial.variants)
        assert run.data.params["distillation.method"] == trial.config["distillation"]["method"]
    assert found[two.trial_id].data.tags["pruned"] == "true"
    assert "pruned" not in found[one.trial_id].data.tags
    assert found[three.trial_id].data.tags["error"] == "diverged"


def test_how_often_a_teacher_ran_is_in_the_tags_of_the_trials_that_had_one(tracking: Tracking) -> None:
    one, two, three = trials()[:3]
    ran = {"computed": 0, "found": 17, "notes": ["the logit bank is full"]}
    stories: list[tuple[Trial, str, dict[str, Any]]] = [
        (one, "finished", {"teacher": ran}),
        (two, "pruned", {"teacher": {**ran, "computed": 5}}),
        (three, "finished", {"teacher": None}),
    ]
    write(tracking, stories)
    said = {
        run.data.tags.get("trial_id"): {name: value for name, value in run.data.tags.items() if "teacher" in name}
        for run in runs_of(tracking)
    }
    assert [said[trial.trial_id] for trial in (one, two, three)] == [
        {"teacher_forwards": "0", "teacher_outputs_found": "17"},
        {"teacher_forwards": "5", "teacher_outputs_found": "17"},
        {},
    ]


def test_metrics_by_epoch_with_their_own_timestamps(tracking: Tracking) -> None:
    trial = trials()[0]
    writer = write(tracking, [(trial, "finished", {})])
    client = mlflow.MlflowClient(tracking_uri=tracking.uri)
    history = client.get_metric_history(writer.run_ids[trial.trial_id], "validation/accuracy")
    assert [(point.step, point.timestamp) for point in history] == [(1, 1001_000), (2, 1002_000), (3, 1003_000)]


def test_the_same_again_changes_nothing(tracking: Tracking) -> None:
    stories: list[tuple[Trial, str, dict[str, Any]]] = [(trial, "finished", {}) for trial in trials()[:2]]
    first = write(tracking, stories)
    second = write(tracking, stories)
    assert second.run_ids == first.run_ids
    assert second.parent_id == first.parent_id
    found = runs_of(tracking)
    assert len(found) == 3
    assert {run.info.status for run in found} == {"FINISHED"}
    client = mlflow.MlflowClient(tracking_uri=tracking.uri)
    for run_id in first.run_ids.values():
        assert len(client.get_metric_history(run_id, "validation/accuracy")) == 3


def test_test_metrics_come_after_the_end_at_the_last_epoch(tracking: Tracking) -> None:
    trial = trials()[0]
    writer = MlflowWriter(tracking, SWEEP)
    writer.start()
    tell(writer, trial, "finished")
    metrics = {"test/accuracy": 0.75}
    writer.on_event({"event": "evaluated", "time": 3000.0, "trial_id": trial.trial_id, "metrics": metrics})
    assert writer.close("finished", 60)
    client = mlflow.MlflowClient(tracking_uri=tracking.uri)
    (point,) = client.get_metric_history(writer.run_ids[trial.trial_id], "test/accuracy")
    assert (point.value, point.step) == (0.75, trial.epochs)
    assert client.get_run(writer.run_ids[trial.trial_id]).info.status == "FINISHED"


def test_a_deleted_experiment_is_brought_back(tracking: Tracking) -> None:
    client = mlflow.MlflowClient(tracking_uri=tracking.uri)
    client.delete_experiment(client.create_experiment("exp"))
    write(tracking, [(trials()[0], "finished", {})])
    assert len(runs_of(tracking)) == 2


def test_a_server_that_is_away_holds_nobody_and_is_said() -> None:
    writer = MlflowWriter(Tracking("http://127.0.0.1:9", "exp"), SWEEP)
    writer.start()
    begun = time.perf_counter()
    tell(writer, trials()[0], "finished")
    assert time.perf_counter() - begun < 0.5
    assert not writer.close("finished", 2)
    assert writer.problem is not None
    assert "127.0.0.1" in writer.problem


def test_where_artifacts_cannot_be_kept_the_sweep_has_its_end_all_the_same(tracking: Tracking, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    client = mlflow.MlflowClient(tracking_uri=tracking.uri)
    client.create_experiment("exp", artifact_location=str(tmp_path / "file" / "store"))
    writer = MlflowWriter(tracking, SWEEP)
    writer.start()
    tell(writer, trials()[0], "finished")
    begun = time.perf_counter()
    writer.begin_end(30)
    writer.artifacts({f"plots/{number}.svg": b"x" for number in range(20)})
    writer.describe("said", {"mean/x": 1.0})
    assert not writer.close("finished", 30)
    assert time.perf_counter() - begun < 25, "each file was tried as often as the first"
    assert writer.missing() == "20 files of the report"
    (parent,) = [run for run in runs_of(tracking) if "trial_id" not in run.data.tags]
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["mlflow.note.content"] == "said"


def test_an_upload_without_an_answer_does_not_hold_the_process() -> None:
    script = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
from wsl_sweep import cli
from wsl_sweep.tracking.outbox import Operation, Outbox
outbox = Outbox(lambda: None, time.monotonic)
outbox.put(Operation(lambda: ThreadPoolExecutor(1).submit(time.sleep, 60).result(), "artifacts"))
outbox.start()
assert not outbox.flush(0.5)
outbox.stop(at_once=True)
cli.app = lambda: print("said") or sys.exit(3)
cli.main()
"""
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (3, "said\n")
    assert time.perf_counter() - begun < 45


@pytest.mark.slow
def test_against_a_real_server(mlflow_server: str) -> None:
    tracking = Tracking(mlflow_server, "over-http")
    writer = write(tracking, [(trial, "finished", {}) for trial in trials()])
    assert len(runs_of(tracking)) == 7
    assert writer.problem is None


def test_credentials_are_never_shown() -> None:
    text = redact("could not reach https://me:secret@host:5000/path?token=abc and postgresql://u:p@db/x")
    assert text == "could not reach https://host:5000/path and postgresql://db/x"


def test_the_command_line_wins_over_the_file_and_that_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert resolve_tracking(None, None, "e").uri == "sqlite:///mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://environment")
    assert resolve_tracking(None, None, "e").uri == "http://environment"
    assert resolve_tracking(None, "http://file", "e").uri == "http://file"
    assert resolve_tracking("http://option", "http://file", "e").uri == "http://option"


def table_row(variant: str, *members: Trial) -> dict[str, Any]:
    ids, seeds = [one.trial_id for one in members], [one.seed for one in members]
    return {"variant": variant, "overrides": {}, "trial_ids": ids, "seeds": seeds, "tuned": True}


def places(tag: str | None) -> list[Standing]:
    return [Standing.from_json(place) for place in json.loads(tag or "[]")]


def test_runs_say_in_which_row_of_the_final_table_they_stand_and_lose_that_with_it(tracking: Tracking) -> None:
    one, two, three = trials()[:3]
    writer = MlflowWriter(tracking, SWEEP)
    writer.start()
    for trial in (one, two, three):
        tell(writer, trial, "finished")
    writer.on_event({"event": "decided", "time": 3000.0, "rows": [table_row("a", one, two), table_row("b", two)]})
    assert writer.flush(60)
    said = {run.data.tags.get("trial_id"): run.data.tags.get("confirmed") for run in runs_of(tracking)}
    first = Standing(0, "a", {}, True, (one.seed, two.seed))
    assert places(said[one.trial_id]) == [first]
    assert places(said[two.trial_id]) == [first, Standing(1, "b", {}, True, (two.seed,))]
    assert said[three.trial_id] is None
    # the sweep was extended, and another won
    writer.on_event({"event": "decided", "time": 4000.0, "rows": [table_row("a", three)]})
    assert writer.close("finished", 60)
    said = {run.data.tags.get("trial_id"): run.data.tags.get("confirmed") for run in runs_of(tracking)}
    assert said[one.trial_id] is said[two.trial_id] is None
    assert places(said[three.trial_id]) == [Standing(0, "a", {}, True, (three.seed,))]


def test_a_file_of_the_parent_run_is_replaced_by_one_of_its_name(
    tracking: Tracking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where MLflow keeps what belongs to a database
    writer = MlflowWriter(tracking, SWEEP)
    writer.start()
    tell(writer, trials()[0], "finished")
    writer.artifacts({"report.html": b"one", "plots/01.svg": b"<svg/>"})
    writer.artifacts({"report.html": b"two"})
    assert writer.close("finished", 60)
    client = mlflow.MlflowClient(tracking_uri=tracking.uri)
    for path, content in (("report.html", b"two"), ("plots/01.svg", b"<svg/>")):
        found = client.download_artifacts(writer.parent_id, path, str(tmp_path))
        assert Path(found).read_bytes() == content
