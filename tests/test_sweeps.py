"""Whole sweeps through the command line: what a user types, and what there is afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from tests.conftest import REPO, Workplace, end_session
from wsl_sweep.app.results import best_student
from wsl_sweep.data import load
from wsl_sweep.sweep.ledger import Ledger

SPACES = REPO / "search_spaces"
TRIALS, EPOCHS = 6, 12
QUICK = """
run: {recipe: digits, schedule: {epochs: 3}, teacher: {model: convnet_8, schedule: {epochs: 4}}}
tracking: {best_student: false}
"""


@dataclass
class Done:
    """A sweep that ran: where, what it printed, its summary, its runs in MLflow by trial id (parent: None)."""

    workplace: Workplace
    output: str
    summary: dict[str, Any]
    runs: dict[str | None, Any]
    uri: str

    def trials(self, **wanted: Any) -> list[dict[str, Any]]:
        """The summary's trials with these entries."""
        return [t for t in self.summary["trials"] if all(t[key] == value for key, value in wanted.items())]


def runs_of(uri: str, experiment: str) -> list[Any]:
    client = mlflow.MlflowClient(tracking_uri=uri)
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    return list(client.search_runs([found.experiment_id], max_results=1000))


def run(workplace: Workplace, *arguments: str, name: str, uri: str | None = None) -> Done:
    output = workplace.run("run", *arguments, "--name", name, *(["--tracking-uri", uri] if uri else []))
    return done(workplace, name, output, uri)


def done(workplace: Workplace, name: str, output: str = "", uri: str | None = None) -> Done:
    runs = {run.data.tags.get("trial_id"): run for run in runs_of(uri or workplace.uri, name)}
    return Done(workplace, output, workplace.summary(name), runs, uri or workplace.uri)


def check_against_mlflow(sweep: Done) -> None:
    """The summary and MLflow say the same: one run a trial, its status, its parameters, its last metrics."""
    assert len(runs_of(sweep.uri, sweep.summary["sweep"])) == len(sweep.summary["trials"]) + 1
    parent = sweep.runs[None]
    status = {"finished": "FINISHED", "failed": "FAILED", "killed": "KILLED", "pruned": "KILLED"}
    for trial in sweep.summary["trials"]:
        found = sweep.runs[trial["trial_id"]]
        assert found.info.run_id == trial["mlflow_run_id"]
        assert found.info.status == status[trial["status"]]
        assert ("pruned" in found.data.tags) == (trial["status"] == "pruned")
        assert found.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert found.data.tags["stage"] == trial["stage"]
        assert found.data.tags["seed"] == str(trial["seed"])
        for metric, value in trial["metrics"].items():
            assert found.data.metrics[metric] == pytest.approx(value, abs=1e-12)
        for path, value in trial["overrides"].items():
            if path != "recipe":  # the name of many other settings, which are there
                assert found.data.params[path] == str(value)


@contextlib.contextmanager
def killed_at_last(process: subprocess.Popen[str]) -> Iterator[None]:
    """Whatever happens inside, the process does not outlive it."""
    try:
        yield
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def alpha(new_workplace: Callable[[str], Workplace]) -> Done:
    """``search_spaces/alpha.yaml`` with fewer trials and epochs."""
    arguments = ["--trials", str(TRIALS), "--set", f"schedule.epochs={EPOCHS}"]
    return run(new_workplace("alpha"), str(SPACES / "alpha.yaml"), *arguments, name="alpha")


def test_the_first_sweep_ends_with_a_confirmed_table(alpha: Done) -> None:
    assert alpha.summary["status"] == "finished"
    assert len(alpha.trials(stage="search", status="finished")) == TRIALS
    assert len(alpha.trials(stage="confirm", status="finished")) == (2 + 2) * 3
    rows = {row["variant"]: row for row in alpha.summary["confirmed"]}
    assert list(rows) == ["tuned", "kd", "ce"]
    for row in rows.values():
        assert row["n"] == len(row["values"]) == 3
        assert row["mean"] == pytest.approx(sum(row["values"]) / 3)
        assert row["ci95"][0] < row["mean"] < row["ci95"][1]
    assert "Best by validation/accuracy" in alpha.output
    assert "wsl-sweep ui" in alpha.output
    assert "Traceback" not in alpha.output
    assert "raylet" not in alpha.output


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one trial at a time on one CPU")
def test_trials_run_side_by_side_though_the_teacher_was_alone(alpha: Done) -> None:
    """A trial takes less time than a worker's start; the second worker must come to life all the same."""
    together = 0
    under_way: set[str] = set()
    for event in Ledger(alpha.workplace.folder / "runs" / "alpha" / "ledger").events():
        if event["event"] == "started":
            under_way.add(event["trial_id"])
            together += len(under_way) > 1
        elif event["event"] == "finished":
            under_way.discard(event["trial_id"])
    assert together >= 3  # of 18; without a second worker none


def test_the_summary_and_mlflow_agree(alpha: Done) -> None:
    check_against_mlflow(alpha)
    description = alpha.runs[None].data.tags["mlflow.note.content"]
    assert "How sensitive are weighted soft labels" in description
    assert "| tuned |" in description


def test_metrics_are_in_mlflow_by_epoch(alpha: Done) -> None:
    client = mlflow.MlflowClient(tracking_uri=alpha.uri)
    trial = alpha.trials(stage="search")[-1]
    for metric in ("train/loss", "validation/loss", "validation/ece", "teacher/agreement", "teacher/kl",
                   "regularization_samples/fraction", "weight/mean", "weight/q05", "weight/q95"):  # fmt: skip
        history = client.get_metric_history(trial["mlflow_run_id"], metric)
        assert sorted(point.step for point in history) == list(range(1, trial["epochs"] + 1))


def test_nothing_was_chosen_on_the_test_set(alpha: Done) -> None:
    """Promise 4: test metrics and test logits exist for the final trials only, and came after everything else."""
    final = {trial_id for row in alpha.summary["confirmed"] for trial_id in row["trial_ids"]}
    assert len(final) == 9
    for trial in alpha.summary["trials"]:
        has_metric = any(name.startswith("test/") for name in trial["metrics"])
        folder = alpha.workplace.folder / "runs" / "alpha" / "trials" / trial["trial_id"]
        assert has_metric == (folder / "test_logits.safetensors").exists() == (trial["trial_id"] in final)
    events = [
        event["event"]
        for segment in sorted((alpha.workplace.folder / "runs" / "alpha" / "ledger").glob("*.json"))
        for event in json.loads(segment.read_text())
    ]
    assert set(events[events.index("evaluated") :]) <= {"evaluated", "sweep"}


def test_the_teacher_was_trained_once(alpha: Done, cache: Path) -> None:
    """Promise 3: one card for all trials, and every distilled trial was made with its weights."""
    used = {
        t["fingerprint"]["teacher"] for t in alpha.summary["trials"] if t["config"]["distillation"]["method"] == "kd"
    }
    assert len(used) == 1
    cards = [json.loads(path.read_text()) for path in cache.glob("teachers/*/card.json")]
    (card,) = [card for card in cards if card["sha256"] in used]
    assert card["metrics"]["validation/accuracy"] > 0.9
    log = (alpha.workplace.folder / "runs" / "alpha" / "teachers.log").read_text()
    assert log.count("epoch=60 ") <= 1


def test_a_trial_alone_is_the_trial_of_the_sweep_bit_for_bit(alpha: Done) -> None:
    """Promise 1: the last trial, on a worker that had done others before."""
    trial = alpha.trials(stage="confirm", variants=["tuned"])[-1]
    value = trial["overrides"]["distillation.alpha"]
    arguments = ["--set", f"distillation.alpha={value!r}", "--set", f"schedule.epochs={EPOCHS}"]
    arguments += ["--seed", str(trial["seed"]), "--json"]
    alone = json.loads(alpha.workplace.run("train", "--recipe", "digits", *arguments))
    assert alone["trial_id"] == trial["trial_id"]
    for metric, there in trial["metrics"].items():
        if metric != "train/seconds" and not metric.startswith("test/"):
            assert alone["metrics"][metric] == there, metric


def test_the_best_student_is_a_model_that_loads_and_predicts(alpha: Done) -> None:
    (output,) = alpha.runs[None].outputs.model_outputs
    mlflow.set_tracking_uri(alpha.uri)
    model = mlflow.pyfunc.load_model(f"models:/{output.model_id}")
    assert model.metadata.signature.inputs.inputs[0].shape == (-1, 1, 8, 8)
    metric = "validation/accuracy"
    finals = [t for t in alpha.trials(stage="confirm") if t["variants"] == ["tuned"] and "test/loss" in t["metrics"]]
    winner = max(finals, key=lambda t: t["metrics"][metric])
    folder = alpha.workplace.folder / "runs" / "alpha" / "trials" / winner["trial_id"]
    kept = load_file(folder / "validation_logits.safetensors")
    validation = load(winner["config"]["dataset"]).validation
    pictures = validation.views.plain(torch.arange(len(validation))).numpy()
    assert np.allclose(model.predict(pictures), kept["logits"], atol=1e-4)


def test_the_best_student_is_taken_away_with_a_card(alpha: Done) -> None:
    output = alpha.workplace.run("export", "alpha", "--best", "--to", "taken")
    assert "model.safetensors" in output
    best = best_student(alpha.summary)
    assert best is not None
    student = alpha.workplace.folder / "runs" / "alpha" / "trials" / best["trial_id"] / "student.safetensors"
    ours, theirs = load_file(student), load_file(alpha.workplace.folder / "taken" / "model.safetensors")
    assert ours.keys() == theirs.keys()
    assert all((ours[name] == theirs[name]).all() for name in ours)
    card = (alpha.workplace.folder / "taken" / "README.md").read_text()
    plan = json.loads((alpha.workplace.folder / "runs" / "alpha" / "plan.json").read_text())
    row = next(row for row in alpha.summary["confirmed"] if row["variant"] == "tuned")
    assert f"`{best['trial_id']}`" in card
    assert f"`{plan['git_commit']}`" in card
    assert f"test/accuracy {row['mean']:.4f} in the mean over n = 3 seeds" in card


def test_only_students_worth_keeping_stay(alpha: Done) -> None:
    final = {trial_id for row in alpha.summary["confirmed"] for trial_id in row["trial_ids"]}
    kept = {path.parent.name for path in (alpha.workplace.folder / "runs/alpha/trials").glob("*/student.safetensors")}
    assert kept == final | {alpha.summary["best"]["trial_id"]}


def test_status_logs_and_plan_know_the_sweep(alpha: Done) -> None:
    assert re.search(r"alpha +finished +18 finished", alpha.workplace.run("status"))
    (listed,) = json.loads(alpha.workplace.run("status", "--json"))
    assert listed["trials"] == {"finished": 18}
    trial = alpha.summary["trials"][0]["trial_id"]
    assert f"epoch={EPOCHS}" in alpha.workplace.run("logs", trial[:8])
    plan = alpha.workplace.run("plan", str(SPACES / "alpha.yaml"))
    assert re.search(r"teachers +1 +1", plan)
    assert "from what earlier trials took on this machine" in plan


@pytest.mark.slow
def test_joint_search_with_early_stopping_on_a_real_server(workplace: Workplace, mlflow_server: str) -> None:
    arguments = ["--trials", "6", "--seeds", "1", "--set", "schedule.epochs=20"]
    sweep = run(workplace, str(SPACES / "joint.yaml"), *arguments, name="joint", uri=mlflow_server)
    check_against_mlflow(sweep)
    pruned = sweep.trials(status="pruned")
    assert pruned
    for trial in pruned:
        assert trial["stage"] == "search"
        assert trial["epochs"] == 10
    assert all(trial["epochs"] == 20 for trial in sweep.trials(status="finished"))
    assert not sweep.trials(stage="confirm", status="pruned")
    for trial in sweep.trials(stage="search"):
        kind = trial["overrides"]["distillation.weighting.kind"]
        assert ("distillation.weighting.of" in trial["overrides"]) == (kind == "sigmoid")
    assert all(row["ci95"] is None for row in sweep.summary["confirmed"])


@pytest.mark.slow
def test_a_trial_that_diverges_and_one_whose_worker_dies_fail_alone(workplace: Workplace) -> None:
    """Promise 5. The killed trial is one that would take minutes; it dies as soon as its log names its process."""
    file = workplace.write(
        "file.yaml",
        QUICK + "variants: {kd: , nan: {optimizer.lr: 1e20}, victim: {schedule.epochs: 20000}, wsl: }\nseeds: 1\n"
        "resources: {max_failures: 0}\n",
    )
    process = workplace.start("run", file, "--name", "broken")
    with killed_at_last(process):
        victim = _wait_for_process(workplace.folder / "runs" / "broken", "victim")
        os.kill(victim, signal.SIGKILL)
        output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    sweep = done(workplace, "broken", output)
    by_variant = {trial["variants"][0]: trial for trial in sweep.summary["trials"]}
    assert {name: trial["status"] for name, trial in by_variant.items()} == {
        "kd": "finished", "nan": "failed", "victim": "failed", "wsl": "finished",
    }  # fmt: skip
    assert "in epoch 1" in by_variant["nan"]["error"]
    assert "worker process died" in by_variant["victim"]["error"]
    assert "Traceback" not in output
    check_against_mlflow(sweep)


def _wait_for_process(sweep: Path, variant: str, seconds: float = 120) -> int:
    """The process that trains a variant's trial, from the first line of its log."""
    pattern = re.compile(rf"attempt 1: \w+ {variant}, process (\d+) ")
    end = time.time() + seconds
    while time.time() < end:
        for log in sweep.glob("trials/*/log.txt"):
            match = pattern.search(log.read_text())
            if match and "epoch=2 " in log.read_text():
                return int(match.group(1))
        time.sleep(0.1)
    raise AssertionError(f"no trial of {variant} began")


@pytest.mark.slow
def test_a_sweep_in_which_nothing_finishes_has_failed(workplace: Workplace) -> None:
    file = workplace.write("file.yaml", QUICK + "variants: {nan: {optimizer.lr: 1e20}}\nseeds: 1\n")
    output = workplace.run("run", file, "--name", "hopeless", expect=1)
    assert "no trial of hopeless finished" in output
    assert "became nan in epoch 1" in output
    assert "Traceback" not in output
    assert workplace.summary("hopeless")["status"] == "failed"
    assert runs_of(workplace.uri, "hopeless")


@pytest.mark.slow
def test_what_no_node_has_is_said_and_leaves_nothing(workplace: Workplace) -> None:
    file = workplace.write("file.yaml", QUICK + "variants: [kd]\nresources: {cpu: 4000}\n")
    output = workplace.run("run", file, expect=2)
    assert "4000 CPUs" in output
    assert not list((workplace.folder / "runs").glob("*"))


def _listening(port: int) -> set[str]:
    """The addresses on which this machine listens at a port, from the kernel's tables."""
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            local, state = line.split()[1], line.split()[3]
            address, _, number = local.partition(":")
            if state == "0A" and int(number, 16) == port:
                found.add(socket.inet_ntoa(bytes.fromhex(address)[::-1]) if table == "tcp" else address)
    return found


@pytest.mark.slow
def test_the_ui_listens_on_this_machine_only(workplace: Workplace) -> None:
    workplace.environment["MLFLOW_WORKERS"] = "1"  # of four each would import all of MLflow
    process = workplace.start("ui", "--port", "59871")
    try:
        for _ in range(240):
            if addresses := _listening(59871):
                break
            time.sleep(0.25)
        assert addresses == {"127.0.0.1"}
    finally:
        end_session(process)
