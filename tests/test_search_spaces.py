"""Every file of ``search_spaces/`` runs, from the file to its table: all in one process, as a notebook would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPO, Workplace
from tests.data.glue import write_glue
from tests.data.imagenet_folders import fill as write_pictures
from tests.test_sweeps import check_against_mlflow, done

pytestmark = pytest.mark.slow

SPACES = sorted(path.stem for path in (REPO / "search_spaces").glob("*.yaml"))

GRID = "temperature"
"""Run twice."""

ROOTS: dict[str, Callable[[Path], Path]] = {
    "imagenet_alpha": lambda folder: write_pictures(folder, train=16, val=5),
    "mnli_wsl": lambda folder: write_glue(folder, 90, 18, 15),
}
"""File → what makes the data that it needs."""

OF_TWO_SEEDS = ("alpha", "alpha_lr", "bias_variance", "imagenet_alpha", GRID, "weighting")
"""Files of which more than one seed is asked; the best student is logged of a file for each kind of data."""

SHORT = ("schedule.epochs=2", "schedule.milestones=[]", "teacher.schedule.epochs=2", "teacher.schedule.milestones=[]")

RUN_ALL = """
import functools, json, os, sys, traceback
from pathlib import Path
import yaml
from wsl_sweep.app import RunOptions, driving, results, run_sweep
from wsl_sweep.spec import CommandLine
from wsl_sweep.sweep.environment import prepare_environment

prepare_environment(local=True)
import ray

ray.init = functools.partial(ray.init, num_cpus=1)
driving.stop_ray = lambda: None
log_best = results._log_best
roots, short, of_two_seeds = (json.loads(os.environ[name]) for name in ("ROOTS", "SHORT", "OF_TWO_SEEDS"))
for path in map(Path, sys.argv[1:]):
    trials = 3 if "search" in yaml.safe_load(path.read_text()) else None
    root = (f"dataset.root={roots[path.stem]}",) if path.stem in roots else ()
    try:
        results._log_best = log_best if path.stem in ("alpha", *roots) else lambda *_: None
        seeds = 2 if path.stem in of_two_seeds else 1
        run_sweep(path, CommandLine(sets=(*short, *root), trials=trials, seeds=seeds), RunOptions())
    except Exception:
        traceback.print_exc()
"""
"""With fewer epochs, seeds and trials than a user would take, and otherwise as they stand; all on one Ray with room for
one worker, for its start and a second worker's take longer than all trials of a file."""


@pytest.fixture(scope="module")
def ran(new_workplace: Callable[[str], Workplace]) -> tuple[Workplace, str]:
    """Where all have run, and what was printed."""
    workplace = new_workplace("spaces")
    files = [str(REPO / "search_spaces" / f"{name}.yaml") for name in (*SPACES, GRID)]
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    roots = {name: str(make(workplace.folder / f"data_of_{name}")) for name, make in ROOTS.items()}
    asked = {"ROOTS": roots, "SHORT": SHORT, "OF_TWO_SEEDS": OF_TWO_SEEDS}
    environment |= {name: json.dumps(value) for name, value in asked.items()}
    ended = subprocess.run(
        [sys.executable, "-c", RUN_ALL, *files],
        cwd=workplace.folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=1500,
        check=False,
    )
    return workplace, ended.stdout


@pytest.mark.parametrize("name", SPACES)
def test_each_search_space_runs_from_its_file_to_its_table(name: str, ran: tuple[Workplace, str]) -> None:
    workplace, printed = ran
    file = workplace.folder / "runs" / name / "summary.json"
    assert file.exists(), printed
    summary: dict[str, Any] = json.loads(file.read_text())
    assert summary["status"] == "finished", printed
    assert {trial["status"] for trial in summary["trials"]} <= {"finished", "pruned"}
    assert summary["confirmed"]
    seeds = 2 if name in OF_TWO_SEEDS else 1
    assert all(row["n"] == seeds and not row["missing"] for row in summary["confirmed"])
    assert summary["compare"]["baseline"] in {row["variant"].removesuffix(" (untuned)") for row in summary["confirmed"]}
    assert "Traceback" not in printed
    check_against_mlflow(done(workplace, name))


def test_an_ablation_runs_every_variant_on_the_same_seeds(ran: tuple[Workplace, str]) -> None:
    confirmed = ran[0].summary("weighting")["confirmed"]
    assert [row["variant"] for row in confirmed] == [
        "ce", "kd", "exp", "sigmoid_log_ratio", "sigmoid_difference", "sigmoid_ratio",
    ]  # fmt: skip
    assert {tuple(row["seeds"]) for row in confirmed} == {(0, 1)}


def test_a_grid_crosses_variants_and_a_finished_name_gets_a_number(ran: tuple[Workplace, str]) -> None:
    summary, again = ran[0].summary(GRID), ran[0].summary(f"{GRID}-2")
    cells = [(row["variant"], row["overrides"].get("distillation.temperature")) for row in summary["confirmed"]]
    assert cells == [("ce", None), *((name, t) for name in ("kd", "wsl") for t in (1.0, 2.0, 4.0, 8.0))]
    assert again["sweep"] == f"{GRID}-2"
    assert _comparable(summary) == _comparable(again)


def test_students_of_disjoint_parts_stand_in_regimes_of_their_own(ran: tuple[Workplace, str]) -> None:
    """The protocol that has run is looked at, and not run again."""
    workplace = ran[0]
    summary = workplace.summary("bias_variance")
    seen = {trial["variants"][0]: set[str]() for trial in summary["trials"]}
    for trial in summary["trials"]:
        seen[trial["variants"][0]].add(trial["teacher_id"])
    assert {name: len(ids) for name, ids in seen.items() if name.endswith(("parts", "each"))} == {
        "ce_parts": 1, "kd_parts": 1, "wsl_parts": 1, "kd_each": 2, "wsl_each": 2,
    }  # fmt: skip
    file = str(REPO / "search_spaces" / "bias_variance.yaml")
    asked = [part for path in SHORT for part in ("--set", path)]
    output = workplace.run("diagnose", "bias-variance", file, *asked, "--seeds", "2", "--json")
    told = json.loads(output[output.index("{") :])
    assert told["sweep"] == "bias_variance"
    assert [[one["name"] for one in regime["students"]] for regime in told["regimes"]] == [
        ["ce", "kd", "wsl"], ["ce_parts", "kd_parts", "wsl_parts"], ["ce_parts", "kd_each", "wsl_each"],
    ]  # fmt: skip
    assert not (workplace.folder / "runs" / "bias_variance-2").exists()


def test_sentences_are_measured_on_both_dev_sets(ran: tuple[Workplace, str]) -> None:
    summary = ran[0].summary("mnli_wsl")
    assert [row["variant"] for row in summary["confirmed"]] == ["ce", "kd", "wsl"]
    for trial in summary["trials"]:
        assert {"test/accuracy_matched", "test/accuracy_mismatched"} < set(trial["metrics"])
    computed = sum(trial["teacher"]["computed"] for trial in summary["trials"] if trial["teacher"])
    assert computed == 90  # once over training and validation part together


def _comparable(summary: dict[str, Any]) -> list[Any]:
    trials = sorted(summary["trials"], key=lambda trial: trial["trial_id"])
    return [
        (t["trial_id"], {name: value for name, value in t["metrics"].items() if name != "train/seconds"})
        for t in trials
    ]


def test_pictures_are_measured_by_top_5_and_a_teacher_sees_each_crop_once(ran: tuple[Workplace, str]) -> None:
    summary = ran[0].summary("imagenet_alpha")
    assert [row["variant"] for row in summary["confirmed"]] == ["ce", "kd", "wsl", "wsl_1.5", "wsl_3.5"]
    for trial in summary["trials"]:
        assert {"test/accuracy", "test/top5_accuracy", "validation/top5_accuracy"} <= set(trial["metrics"])
    seen = [trial["teacher"] for trial in summary["trials"] if trial["teacher"]]
    assert 0 < sum(one["computed"] for one in seen) <= 3 * 16 * 4  # four crops a picture, for eight students
    assert sum(one["found"] for one in seen) > sum(one["computed"] for one in seen)
