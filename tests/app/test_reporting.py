"""The report of a sweep on disk, and what a sweep's end leaves of it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.sweep.fakes import conductor_of, outcome_of, play, spec_of
from wsl_sweep.analysis.from_mlflow import OUTCOMES
from wsl_sweep.analysis.records import SweepRecords, kept_outcomes, records_of
from wsl_sweep.app import report_sweep, reporting, results
from wsl_sweep.app.reporting import REPORT, final_comparison
from wsl_sweep.app.results import describe, finish
from wsl_sweep.errors import StorageError, WslSweepError
from wsl_sweep.spec import Spec
from wsl_sweep.storage import DiskPlace, Place, place
from wsl_sweep.sweep.ledger import SweepState

TEXT = """
name: s
description: Which one?
run: {recipe: digits, schedule: {epochs: 2}}
variants: [kd, wsl]
seeds: 2
compare: {baseline: kd}
"""
PLAN = {
    "uuid": "u-1",
    "created": "2026",
    "command_line": {"sets": [], "recipe": None, "trials": None, "seeds": None, "name": None},
    "stages": {"ablation": 4},
}


class Writer:
    """Remembers what MLflow is told."""

    def __init__(self) -> None:
        self.told: dict[str, Any] = {}
        self.parent_id, self.run_ids, self.problem = "p", {}, None

    def begin_end(self, *_: Any, **__: Any) -> None: ...

    def flush(self, *_: Any) -> bool:
        return True

    def describe(self, text: str, metrics: dict[str, float]) -> None:
        self.told |= {"text": text, "metrics": metrics}

    def artifacts(self, files: dict[str, bytes]) -> None:
        self.told["files"] = files

    def close(self, *_: Any) -> bool:
        return True


@pytest.fixture
def swept(tmp_path: Path) -> tuple[Any, Any, Path]:
    """A sweep of four trials on disk, with their test logits."""
    spec = spec_of(TEXT)
    folder = tmp_path / "runs" / "s"
    folder.mkdir(parents=True)
    (folder / "plan.json").write_text(json.dumps(PLAN))
    (folder / "sweep.yaml").write_text(TEXT)
    conductor = conductor_of(spec, folder)
    play(conductor)
    conductor.close("finished")
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 50)
    for trial_id in conductor.state.trials:
        (folder / "trials" / trial_id).mkdir(parents=True)
        logits = generator.normal(size=(50, 3)).astype(np.float32)
        tensors = {"logits": logits, "labels": labels, "ids": np.arange(50)}
        save_file(tensors, folder / "trials" / trial_id / "test_logits.safetensors")
    return spec, conductor.state, folder


def evidence(spec: Spec, state: SweepState, folder: Place) -> SweepRecords:
    """What is compared and reported of a sweep."""
    return records_of(spec, state, uuid="u-1", outcomes=kept_outcomes(folder))


def test_a_report_is_made_again_at_any_time(swept: tuple[Any, Any, Path], tmp_path: Path) -> None:
    *_, folder = swept
    where = report_sweep("s", storage=str(folder.parent))
    assert Path(where) == folder / REPORT
    page = Path(where).read_text()
    assert "Which one?" in page
    assert report_sweep("s", storage=str(folder.parent), to=tmp_path / "other.html") == str(tmp_path / "other.html")
    assert (tmp_path / "other.html").is_file()


def test_what_has_no_report_is_said(swept: tuple[Any, Any, Path], tmp_path: Path) -> None:
    *_, folder = swept
    with pytest.raises(WslSweepError, match=r"no sweep in .*; sweeps in .*: s"):
        report_sweep("other", storage=str(folder.parent))
    with pytest.raises(WslSweepError, match="is a folder; name a file"):
        report_sweep("s", storage=str(folder.parent), to=tmp_path)


def test_the_end_of_a_sweep_leaves_report_comparison_and_outcomes(
    swept: tuple[Any, Any, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, state, folder = swept
    monkeypatch.setattr(results, "_log_best", lambda *_: None)
    writer = Writer()
    summary = finish(spec, place(folder), PLAN, state, writer, None, print)
    files = writer.told["files"]
    assert {REPORT, "comparison.json", OUTCOMES} <= set(files)
    assert any(name.startswith("plots/") and name.endswith(".svg") for name in files)
    assert files[REPORT] == (folder / REPORT).read_bytes()
    assert json.loads(files["comparison.json"]) == summary["comparison"]
    assert set(json.loads(files[OUTCOMES])) == set(state.trials)
    assert json.loads((folder / "summary.json").read_text())["comparison"] == summary["comparison"]
    text = writer.told["text"]
    assert text.startswith("Which one?")
    assert summary["comparison"]["comparisons"][0]["sentence"] in text
    assert "| wsl |" in text
    for row in summary["comparison"]["rows"]:
        assert writer.told["metrics"][f"mean/{row['label']}/test/accuracy"] == row["mean"]


@pytest.mark.parametrize("wanted", [True, False])
def test_the_best_student_is_logged_where_the_file_wants_it(
    swept: tuple[Any, Any, Path], monkeypatch: pytest.MonkeyPatch, wanted: bool
) -> None:
    _, state, folder = swept
    logged: list[Any] = []
    monkeypatch.setattr(results, "_log_best", lambda best, *_: logged.append(best["trial_id"]))
    spec = spec_of(f"{TEXT}\ntracking: {{best_student: {str(wanted).lower()}}}\n")
    summary = finish(spec, place(folder), PLAN, state, Writer(), None, print)
    best = results.best_student(summary)
    assert best is not None
    assert logged == ([best["trial_id"]] if wanted else [])


def test_no_sweep_fails_for_its_report(swept: tuple[Any, Any, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    spec, state, folder = swept

    def broken(*_: Any) -> None:
        raise RuntimeError("cannot draw")

    monkeypatch.setattr(results, "report_page", broken)
    monkeypatch.setattr(results, "_log_best", lambda *_: None)
    said: list[str] = []
    summary = finish(spec, place(folder), PLAN, state, Writer(), None, said.append)
    assert summary["status"] == "finished"
    assert any("the report could not be made: RuntimeError: cannot draw" in line for line in said)
    assert any("wsl-sweep report s" in line for line in said)


def test_no_sweep_fails_for_its_comparison(swept: tuple[Any, Any, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    spec, state, folder = swept

    def broken(*_: Any) -> None:
        raise OverflowError("too large")

    monkeypatch.setattr(results, "final_comparison", broken)
    monkeypatch.setattr(results, "_log_best", lambda *_: None)
    said: list[str] = []
    summary = finish(spec, place(folder), PLAN, state, Writer(), None, said.append)
    assert summary["status"] == "finished"
    assert json.loads((folder / "summary.json").read_text())["confirmed"][0]["n"] == 2
    assert any("could not be compared: OverflowError: too large" in line for line in said)


def test_logits_in_a_store_that_does_not_answer_take_no_verdict_away(swept: tuple[Any, Any, Path]) -> None:
    spec, state, folder = swept

    class Away(DiskPlace):
        def __truediv__(self, name: str) -> DiskPlace:
            return Away(self.path / name)

        def read_bytes(self) -> bytes:
            raise StorageError("no answer")

    compared = final_comparison(evidence(spec, state, Away(folder)))
    assert compared is not None
    assert compared.comparisons
    assert set(compared.wide_intervals) == {None}


def test_the_report_of_a_sweep_whose_driver_died_says_that_it_has_stopped(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    folder.mkdir()
    conductor = conductor_of(spec_of(TEXT), folder)
    (folder / "plan.json").write_text(json.dumps(PLAN))
    (folder / "sweep.yaml").write_text(TEXT)
    task = conductor.next()
    assert task is not None
    conductor.started(task.key)
    page = Path(report_sweep("s", storage=str(tmp_path))).read_text()
    assert "stopped" in page
    assert ">running<" not in page


def test_the_rows_of_the_table_are_read_once(swept: tuple[Any, Any, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    spec, state, folder = swept
    read: list[str] = []

    def rows(trial_id: str, attempt: int) -> list[dict[str, float]]:
        read.append(trial_id)
        return [{"epoch": 1.0, "validation/accuracy": 0.5}, {"epoch": 2.0, "validation/accuracy": 0.6}]

    monkeypatch.setattr(reporting, "rows_of", lambda folder: rows)
    sweep = evidence(spec, state, place(folder))
    page = reporting.report_page(spec, state, place(folder), PLAN, sweep, final_comparison(sweep))
    assert sorted(read) == sorted(state.trials)
    assert any("by-epoch" in name or "learning" in name or "epoch" in name for name in page.pictures)


def test_the_parents_metrics_have_names_that_mlflow_takes() -> None:
    labels = ["wsl " + "x" * 300 + "1", "wsl " + "x" * 300 + "2", "a=1", "a:1"]
    rows = [{"label": label, "mean": float(k), "sd": None} for k, label in enumerate(labels)]
    metrics = results._parent_metrics({"best": None, "comparison": {"rows": rows, "metric": "test/accuracy"}})
    assert sorted(metrics.values()) == [0.0, 1.0, 2.0, 3.0]
    assert max(map(len, metrics)) <= 250
    assert {"mean/a:1/test/accuracy", "mean/a:1 2/test/accuracy"} <= set(metrics)


def test_a_long_description_is_cut_to_what_mlflow_takes(swept: tuple[Any, Any, Path]) -> None:
    spec, state, folder = swept
    compared = final_comparison(evidence(spec, state, place(folder)))
    assert compared is not None
    summary = {"description": "Why?", "best": None, "notes": [f"note {k} " + "x" * 200 for k in range(60)]}
    text = describe(summary, compared)
    assert 7_500 < len(text) <= 8_000
    assert text.startswith("Why?")
    assert text.rstrip().endswith("`report.html` among the artifacts.")


def test_the_description_is_without_secrets() -> None:
    summary = {"description": "Why http://me:hunter2@host/x?", "best": None, "notes": ["at http://me:hunter2@host/x"]}
    text = describe(summary, None)
    assert "hunter2" not in text
    assert text.count("http://host/x") == 2


def test_a_sweep_without_a_table_has_no_comparison(tmp_path: Path) -> None:
    spec = spec_of(
        "name: s\nrun: {recipe: digits}\nspace: {distillation.alpha: {uniform: [1, 4]}}\nsearch: {trials: 2}\n"
    )
    conductor = conductor_of(spec, tmp_path)
    task = conductor.next()
    assert task is not None
    conductor.started(task.key)
    conductor.ended(task.key, outcome_of(task))
    assert final_comparison(evidence(spec, conductor.state, place(tmp_path))) is None


@pytest.mark.parametrize("keep", ["best", "all"])
def test_of_trials_that_are_not_kept_the_student_goes_and_who_were_its_regularization_samples(
    keep: str, tmp_path: Path
) -> None:
    left = ("student.safetensors", "regularization_samples.safetensors", "validation_logits.safetensors")
    for trial_id in ("final", "found", "third", "other"):
        for name in left:
            (place(tmp_path) / "trials" / trial_id / name).write(b"")
    (tmp_path / "trials" / "other" / "regularization_samples.safetensors").unlink()  # as a loss without them leaves it
    summary = {"trials": [{"trial_id": one} for one in ("final", "found", "third", "other", "pruned")]}
    state = SimpleNamespace(rows=[{"trial_ids": ["final"]}], trials={})
    results._tidy(
        SimpleNamespace(keep=keep),  # type: ignore[arg-type]
        place(tmp_path),
        summary | {"best": {"trial_id": "found"}},
        {"trial_id": "final"},
        state,
    )
    kept = {"final", "found"} if keep == "best" else {"final", "found", "third", "other"}
    assert {path.parent.name for path in tmp_path.glob("trials/*/student.safetensors")} == kept
    masks = {path.parent.name for path in tmp_path.glob("trials/*/regularization_samples.safetensors")}
    assert masks == kept - {"other"}
    assert len(list(tmp_path.glob("trials/*/validation_logits.safetensors"))) == 4


def test_the_logits_of_a_sweep_are_read_once_at_its_end(
    swept: tuple[Any, Any, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, state, folder = swept
    read: list[str] = []

    class Counting(DiskPlace):
        def __truediv__(self, name: str) -> DiskPlace:
            return Counting(self.path / name)

        def read_bytes(self) -> bytes:
            read.append(self.name)
            return super().read_bytes()

    monkeypatch.setattr(results, "_log_best", lambda *_: None)
    finish(spec, Counting(folder), PLAN, state, Writer(), None, print)
    assert read.count("test_logits.safetensors") == len(state.trials)
