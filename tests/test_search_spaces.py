"""Every file of ``search_spaces/`` runs, from the file to its table: all in one process, as a notebook would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import REPO, Workplace

pytestmark = pytest.mark.slow

SPACES = sorted(path.stem for path in (REPO / "search_spaces").glob("*.yaml"))

RUN_ALL = """
import sys, traceback
from pathlib import Path
import yaml
from wsl_sweep.app import RunOptions, run_sweep
from wsl_sweep.spec import CommandLine

short = ("schedule.epochs=2", "schedule.milestones=[]", "teacher.schedule.epochs=2", "teacher.schedule.milestones=[]")
for path in map(Path, sys.argv[1:]):
    trials = 3 if "search" in yaml.safe_load(path.read_text()) else None
    try:
        run_sweep(path, CommandLine(sets=short, trials=trials, seeds=2), RunOptions())
    except Exception:
        traceback.print_exc()
"""
"""With fewer epochs, seeds and trials than a user would take, and otherwise as they stand."""


@pytest.fixture(scope="module")
def ran(new_workplace: Callable[[str], Workplace]) -> tuple[Workplace, str]:
    """Where all have run, and what was printed."""
    workplace = new_workplace("spaces")
    files = [str(REPO / "search_spaces" / f"{name}.yaml") for name in SPACES]
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALL, *files],
        cwd=workplace.folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=1500,
        check=False,
    )
    return workplace, done.stdout


@pytest.mark.parametrize("name", SPACES)
def test_each_search_space_runs_from_its_file_to_its_table(name: str, ran: tuple[Workplace, str]) -> None:
    workplace, printed = ran
    file = workplace.folder / "runs" / name / "summary.json"
    assert file.exists(), printed
    summary: dict[str, Any] = json.loads(file.read_text())
    assert summary["status"] == "finished", printed
    assert {trial["status"] for trial in summary["trials"]} <= {"finished", "pruned"}
    assert summary["confirmed"]
    assert all(row["n"] == 2 and not row["missing"] for row in summary["confirmed"])
    assert summary["compare"]["baseline"] in {row["variant"].removesuffix(" (untuned)") for row in summary["confirmed"]}
    assert "Traceback" not in printed
