"""What a report says: every number from the ledger."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.sweep.fakes import conductor_of, good, play, spec_of
from wsl_sweep.analysis import compare, records_of
from wsl_sweep.analysis.records import Record
from wsl_sweep.analysis.report import render_report
from wsl_sweep.analysis.report_data import Report
from wsl_sweep.analysis.reporting import build_report
from wsl_sweep.spec.plan import Trial

SEARCH = """
name: asked
description: Which one?
run: {recipe: digits, schedule: {epochs: 4}}
space: {distillation.alpha: {uniform: [1.0, 4.0]}}
search: {trials: 8, sampler: random}
confirm: {top: 1, seeds: 3, baselines: [kd, ce]}
compare: {baseline: kd, metric: test/accuracy, margin: 0.005}
"""
ABLATION = """
name: ablated
run: {recipe: digits, schedule: {epochs: 4}}
variants: [kd, wsl]
space: {distillation.temperature: {grid: [1.0, 4.0]}}
seeds: 2
compare: {baseline: kd}
"""
PLAN: dict[str, Any] = {
    "uuid": "u-1",
    "created": "2026-01-02T03:04:05",
    "source": "/somewhere/my file.yaml",
    "command_line": {
        "sets": ["distillation.temperature=2 3"],
        "recipe": "digits",
        "trials": 8,
        "seeds": None,
        "name": None,
    },
    "git_commit": "abc",
    "device_kind": "cpu",
    "versions": {"torch": "2"},
}


def told(trial: Trial) -> dict[str, Any]:
    """As a worker tells it."""
    fingerprint = {"code": "c0de", "torch": "2", "device": "cpu", "data": "da7a", "teacher": "7eac4e5", "own": None}
    facts = {"examples": 100, "teacher": {"computed": 3, "found": 7, "notes": []}, "fingerprint": fingerprint}
    return {**good(trial), **facts}


def rows_of(trial_id: str) -> list[dict[str, float]]:
    number = int(trial_id[:6], 16) / 16**6
    return [
        {
            "epoch": float(epoch),
            "validation/accuracy": 0.1 * epoch + 0.01 * number,
            "train/loss": 1 / epoch,
            "regularization_samples/fraction": 0.2 * epoch,
            **{f"weight/{name}": 0.5 for name in ("mean", "q05", "q25", "q50", "q75", "q95")},
        }
        for epoch in range(1, 5)
    ]


def report_of(text: str, folder: Path, result: Any = told) -> tuple[Report, Any]:
    spec = spec_of(text)
    conductor = conductor_of(spec, folder)
    play(conductor, result)
    conductor.close("finished")
    sweep = records_of(spec, conductor.state, uuid="u-1")
    compared = compare([sweep]) if conductor.state.rows else None
    return build_report(spec, conductor.state, PLAN, sweep.records, compared, rows_of), conductor.state


def named(report: Report) -> dict[str, str]:
    return {one.name: one.value for one in (*report.costs, *report.reproduction)}


def test_the_report_of_a_search(tmp_path: Path) -> None:
    report, state = report_of(SEARCH, tmp_path)
    assert (report.title, report.question, report.status, report.metric) == (
        "asked",
        "Which one?",
        "finished",
        "test/accuracy",
    )
    assert [row.label for row in report.rows] == ["tuned", "kd", "ce"]
    assert [row.is_baseline for row in report.rows] == [False, True, False]
    assert [row.tuning_trials for row in report.rows] == [8, None, None]
    assert [one.label for one in report.comparisons] == ["tuned", "ce"]
    assert report.comparisons[0].smaller_budget
    assert len(report.verdicts) == 2
    (curve,) = report.curves
    searched = [one for one in state.trials.values() if one.trial.stage == "search"]
    points = {(p.x, p.y) for p in curve.groups[0].points}
    assert points == {(s.trial.overrides["distillation.alpha"], s.metrics["validation/accuracy"]) for s in searched}
    assert report.coordinates is None
    assert dict(report.gaps)["coordinates"].startswith("One parameter")
    assert [one.metric for one in report.learning_curves] == ["validation/accuracy", "train/loss"]
    assert report.regularization_samples is not None
    assert report.weights is not None
    assert report.importance is not None
    assert report.early_stopping is not None
    assert report.early_stopping.kind == "none"
    assert "failures" in dict(report.gaps)


def test_what_it_cost(tmp_path: Path) -> None:
    report, state = report_of(SEARCH, tmp_path)
    trials, costs = state.trials.values(), named(report)
    assert costs["trials, search"] == "8 in 16 s of training"
    assert costs["trials, confirm"] == "9 in 18 s of training"
    assert costs["epochs trained"] == str(4 * len(trials))
    assert costs["examples trained on"] == f"{100 * len(trials):,}"
    assert costs["teacher forwards"] == f"{3 * len(trials)} examples"
    assert costs["teacher forwards saved"].startswith(f"{7 * len(trials)} (70.0% of what trials asked for)")


def test_what_other_sweeps_trained_cost_nothing_here(tmp_path: Path) -> None:
    def taken(trial: Trial) -> dict[str, Any]:
        there = {"taken_over": {"sweep": "other", "attempt": 1}} if trial.stage == "search" else {}
        return {**told(trial), **there}

    report, state = report_of(SEARCH, tmp_path, taken)
    costs = named(report)
    assert len(state.trials) == 8 + 9
    assert costs["epochs trained"] == str(4 * 9)
    assert costs["examples trained on"] == "900"
    assert costs["trials taken over"].startswith("8 from other sweeps")


def test_how_to_reproduce_it(tmp_path: Path) -> None:
    report, _ = report_of(SEARCH, tmp_path)
    facts = named(report)
    expected = "wsl-sweep run 'my file.yaml' --set 'distillation.temperature=2 3' --recipe digits --trials 8"
    assert report.command == expected
    assert facts["file (SHA-256 of sweep.yaml)"] == hashlib.sha256(SEARCH.encode()).hexdigest()
    assert (facts["training code"], facts["examples and labels"]) == ("c0de", "da7a")
    assert facts["weights of teachers (SHA-256)"] == "7eac4e5"
    assert facts["commit of the working folder"] == "abc"
    assert facts["torch"] == "2"
    assert "your own code" not in facts


def test_the_report_of_an_ablation(tmp_path: Path) -> None:
    report, _ = report_of(ABLATION, tmp_path)
    assert [row.label for row in report.rows] == [
        f"{variant} temperature={value}" for variant in ("kd", "wsl") for value in (1, 4)
    ]
    assert {(one.label, one.baseline) for one in report.comparisons} == {
        ("wsl temperature=1", "kd temperature=1"),
        ("wsl temperature=4", "kd temperature=4"),
    }
    assert report.importance is None
    (curve,) = report.curves
    assert [[mean.n for mean in group.means] for group in curve.groups] == [[2, 2], [2, 2]]


def test_failures_are_told_without_secrets(tmp_path: Path) -> None:
    def failing(trial: Trial) -> dict[str, Any]:
        if trial.stage == "confirm" and trial.seed == 1001:
            return {"status": "failed", "epochs": 1, "error": "no answer from http://me:secret@host/x", "seconds": 1.0}
        return told(trial)

    report, _ = report_of(SEARCH, tmp_path, failing)
    assert len(report.failures) == 3
    assert all("secret" not in one.error and "host" in one.error for one in report.failures)
    assert [row.missing for row in report.rows] == ["1 failed"] * 3
    assert all(part != "failures" for part, _ in report.gaps)


def test_what_was_asked_is_shown_without_secrets(tmp_path: Path) -> None:
    address = "postgresql://anna:hunter2@host/mlflow"
    text = SEARCH.replace("Which one?", f"Which one of {address}?") + f"tracking: {{uri: '{address}'}}\n"
    spec = spec_of(text)
    plan = {**PLAN, "command_line": {"sets": [f"dataset.root={address}"]}}
    report = build_report(spec, conductor_of(spec, tmp_path).state, plan, (), None, lambda trial_id: ())
    page = render_report(report)
    assert "hunter2" not in page
    assert "postgresql://host/mlflow" in report.file
    assert named(report)["file (SHA-256 of sweep.yaml)"] == hashlib.sha256(text.encode()).hexdigest()


def test_a_sweep_that_has_just_begun_has_a_report(tmp_path: Path) -> None:
    spec = spec_of(SEARCH)
    conductor = conductor_of(spec, tmp_path)
    report = build_report(spec, conductor.state, {}, (), None, lambda trial_id: ())
    assert report.rows == ()
    assert {"verdict", "table", "curves", "importance"} <= set(dict(report.gaps))
    assert "<html" in render_report(report)


@pytest.mark.parametrize("text", [SEARCH, ABLATION])
def test_the_page_holds_every_number_of_the_table(tmp_path: Path, text: str) -> None:
    report, _ = report_of(text, tmp_path)
    page = render_report(report)
    for row in report.rows:
        assert row.mean is not None
        assert f"{row.mean:.4f}" in page
    for one in report.comparisons:
        assert one.sentence.split(" (")[0] in page
    json.dumps(page)


def with_groups(record: Record) -> Record:
    """The same with what a data set measures besides."""
    found = record.metrics.get("test/accuracy")
    if found is None:
        return record
    more = {"test/accuracy_matched": found + 0.01 * record.seed, "test/f1": found}
    return replace(record, metrics={**record.metrics, **more})


def test_a_report_has_the_other_test_metrics_of_data_that_have_their_own(tmp_path: Path) -> None:
    spec = spec_of(SEARCH)
    conductor = conductor_of(spec, tmp_path)
    play(conductor, told)
    conductor.close("finished")
    sweep = records_of(spec, conductor.state, uuid="u-1")
    plain = build_report(spec, conductor.state, PLAN, sweep.records, compare([sweep]), rows_of)
    assert all(row.also == () for row in plain.rows)
    assert "Other metrics of the test part" not in render_report(plain)
    records = tuple(with_groups(record) for record in sweep.records)
    sweep = replace(sweep, records=records)
    report = build_report(spec, conductor.state, PLAN, records, compare([sweep]), rows_of)
    for row in report.rows:
        seeds = [seed for seed, _ in row.values]
        assert row.mean is not None
        assert dict(row.also) == {
            "test/accuracy_matched": pytest.approx(row.mean + 0.01 * sum(seeds) / len(seeds)),
            "test/f1": pytest.approx(row.mean),
        }
    page = render_report(report)
    assert "Other metrics of the test part" in page
    assert "test/<wbr>accuracy_<wbr>matched" in page
    groups = compare([sweep], metric="test/accuracy_matched")
    assert groups.mode == "max"
    assert all(interval is None for interval in groups.wide_intervals)


def test_a_file_says_which_of_its_metric_is_better(tmp_path: Path) -> None:
    text = SEARCH.replace("metric: test/accuracy", "metric: validation/accuracy")
    report, _ = report_of(text.replace("compare: {", "compare: {mode: min, "), tmp_path / "min")
    usual, _ = report_of(text, tmp_path / "max")
    assert "worse" in {one.kind for one in usual.comparisons}
    assert (report.higher_is_better, usual.higher_is_better) == (False, True)
    turned = {"better": "worse", "worse": "better"}
    assert [one.kind for one in report.comparisons] == [turned.get(one.kind, one.kind) for one in usual.comparisons]
