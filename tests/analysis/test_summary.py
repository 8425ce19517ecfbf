"""The summary: what the ledger says, in the form that the README and other programs rely on."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sweep.fakes import conductor_of, play, spec_of
from wsl_sweep.analysis import build_summary, t_interval
from wsl_sweep.spec.identity import imported_identity
from wsl_sweep.sweep.ledger import fold

SEARCH = """
name: asked
description: Which one?
run: {recipe: digits}
space: {distillation.alpha: {uniform: [1.0, 4.0]}}
search: {trials: 4, sampler: random}
confirm: {top: 2, seeds: 3, baselines: [kd, ce]}
"""


def test_a_t_interval_worked_out_by_hand() -> None:
    # mean 3, s = sqrt(2.5), t(0.975, 4) = 2.776445, half = 2.776445 * sqrt(2.5 / 5) = 1.963243
    low, high = t_interval([1.0, 2.0, 3.0, 4.0, 5.0]) or (math.nan, math.nan)
    assert low == pytest.approx(3 - 1.963243, abs=1e-6)
    assert high == pytest.approx(3 + 1.963243, abs=1e-6)


def test_one_value_has_no_interval() -> None:
    assert t_interval([0.5]) is None
    assert t_interval([]) is None


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=20), st.floats(-100, 100), st.floats(0.1, 10))
def test_an_interval_moves_and_scales_with_its_values(values: list[float], shift: float, scale: float) -> None:
    interval = t_interval(values)
    moved = t_interval([scale * value + shift for value in values])
    assert interval is not None
    assert moved is not None
    assert moved == pytest.approx([scale * end + shift for end in interval], abs=1e-6)


def test_the_summary_of_a_search(tmp_path: Path) -> None:
    spec = spec_of(SEARCH)
    conductor = conductor_of(spec, tmp_path)
    play(conductor)
    conductor.close("finished")
    summary = build_summary(spec, conductor.state, uuid="u", run_ids={})
    json.dumps(summary, allow_nan=False)
    assert (summary["sweep"], summary["status"], summary["metric"], summary["mode"]) == (
        "asked", "finished", "validation/accuracy", "max",
    )  # fmt: skip
    keys = {"trial_id", "stage", "arm", "variants", "seed", "overrides", "config", "status", "epochs", "metrics"}
    for trial in summary["trials"]:
        assert keys | {"error", "mlflow_run_id"} <= set(trial)
        assert trial["status"] == "finished"
    searched = [trial for trial in summary["trials"] if trial["stage"] == "search"]
    best = max(searched, key=lambda trial: trial["metrics"]["validation/accuracy"])
    assert summary["best"] == {
        "trial_id": best["trial_id"],
        "overrides": best["overrides"],
        "value": best["metrics"]["validation/accuracy"],
    }
    assert [row["variant"] for row in summary["confirmed"]] == ["tuned", "kd", "ce"]
    for row in summary["confirmed"]:
        assert row["values"] == [0.8] * 3
        assert row["mean"] == pytest.approx(0.8)
        assert row["ci95"] == pytest.approx([0.8, 0.8])
        assert (row["n"], row["missing"], row["seeds"]) == (3, 0, [1000, 1001, 1002])


def test_seeds_that_failed_are_counted_never_dropped_in_silence(tmp_path: Path) -> None:
    spec = spec_of("run: {recipe: digits}\nvariants: [kd]\nseeds: 3")
    conductor = conductor_of(spec, tmp_path)
    play(conductor, lambda trial: {"status": "failed", "error": "why"} if trial.seed == 1 else _fine(trial.epochs))
    (row,) = build_summary(spec, conductor.state, uuid="u")["confirmed"]
    assert (row["n"], row["missing"], row["seeds"]) == (2, 1, [0, 2])


def test_a_trial_says_which_teacher_it_read(tmp_path: Path) -> None:
    spec = spec_of("run: {recipe: digits}\nvariants: {wsl: {}, ce: {distillation.method: none}}\nseeds: 2")
    conductor = conductor_of(spec, tmp_path)
    play(conductor)
    (wanted,) = conductor.plan.teachers
    said = {t["variants"][0]: t["teacher_id"] for t in build_summary(spec, conductor.state, uuid="u")["trials"]}
    assert said == {"wsl": wanted, "ce": None}


def test_a_teacher_is_the_one_of_then_though_its_checkpoint_is_gone_now(tmp_path: Path) -> None:
    path = tmp_path / "teacher.safetensors"
    path.write_bytes(b"its weights")
    spec = spec_of(
        f"run: {{recipe: digits, teacher: {{model: convnet_4, checkpoint: {path}}}}}\nvariants: [wsl]\nseeds: 1"
    )
    conductor = conductor_of(spec, tmp_path)
    play(conductor)
    wanted, _ = imported_identity("convnet_4", f"sha256:{hashlib.sha256(b'its weights').hexdigest()}")
    path.unlink()
    state = fold(conductor.ledger.events())
    assert build_summary(spec, state, uuid="u")["trials"][0]["teacher_id"] == wanted


def test_a_ledger_from_before_has_no_examples_and_its_teacher_is_found(tmp_path: Path) -> None:
    spec = spec_of("run: {recipe: digits}\nvariants: {wsl: {}, ce: {distillation.method: none}}\nseeds: 1")
    conductor = conductor_of(spec, tmp_path)
    play(conductor)
    events = conductor.ledger.events()
    for event in events:
        event.get("trial", {}).pop("teacher_id", None)
    assert not any("teacher_id" in json.dumps(event) for event in events)
    trials = build_summary(spec, fold(events), uuid="u")["trials"]
    (wanted,) = conductor.plan.teachers
    assert [(trial["teacher_id"], trial["examples"]) for trial in trials] == [(wanted, None), (None, None)]


def _fine(epochs: int) -> dict[str, object]:
    return {"status": "finished", "epochs": epochs, "metrics": {"validation/accuracy": 0.5}, "seconds": 1.0}


def test_several_metrics_have_a_pareto_front(tmp_path: Path) -> None:
    spec = spec_of(SEARCH.replace("trials: 4", "trials: 4, metric: [validation/accuracy, train/seconds]"))
    conductor = conductor_of(spec, tmp_path)
    play(conductor)
    summary = build_summary(spec, conductor.state, uuid="u")
    assert summary["metric"] == ["validation/accuracy", "train/seconds"]
    assert summary["mode"] == ["max", "min"]
    values = [one["value"] for one in summary["pareto_front"]]
    assert values
    for value in values:
        assert not any(other[0] >= value[0] and other[1] <= value[1] and other != value for other in values)
