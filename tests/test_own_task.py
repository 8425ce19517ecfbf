"""README's task of one's own, taken from README word by word: trained, and searched, compared and taken away."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPO

SECTION = "### Your own task\n"


def blocks() -> dict[str, str]:
    """The files and commands of the section: a file by its name in its first line, the commands by ``bash``."""
    section = (REPO / "README.md").read_text().split(SECTION)[1].split("\n### ")[0]
    found = {}
    for language, text in re.findall(r"^```(\w+)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL):
        name = language if language == "bash" else text.splitlines()[0].removeprefix("# ")
        found[name] = text
    return found


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A folder with README's files."""
    for name, text in blocks().items():
        if name != "bash":
            (tmp_path / name).write_text(text)
    return tmp_path


def command(folder: Path, line: str, *more: str) -> subprocess.CompletedProcess[str]:
    """Runs a line of README's as it stands, with ``more`` behind it; the module in ``folder`` is found by itself."""
    program, *arguments = line.split()
    assert program == "wsl-sweep"
    ours = {
        name: value for name, value in os.environ.items() if name not in ("MLFLOW_TRACKING_URI", "WSL_SWEEP_STORAGE")
    }
    python_path = os.pathsep.join(filter(None, [str(REPO), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, "-m", "wsl_sweep", *arguments, *more],
        cwd=folder,
        env={**ours, "PYTHONPATH": python_path, "WSL_SWEEP_CACHE": str(folder / "cache")},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )


def test_the_class_and_its_models_are_short() -> None:
    found = blocks()
    assert set(found) == {"spirals.py", "spirals.yaml", "bash"}
    code = [line for line in found["spirals.py"].splitlines() if line.strip()]
    assert len(code) <= 32
    assert max(map(len, found["spirals.py"].splitlines())) <= 120


@pytest.mark.slow
def test_readmes_task_is_trained_by_readmes_command(written: Path) -> None:
    train, run = blocks()["bash"].splitlines()
    assert run == "wsl-sweep run spirals.yaml"
    result = json.loads(command(written, train, "--json").stdout)
    metrics = result["metrics"]
    assert result["config"]["dataset"]["name"] == "spirals:Spirals"
    assert metrics["validation/macro_f1"] > 0.6
    assert metrics["validation/accuracy"] > 0.6
    assert metrics["teacher/agreement"] > 0.6
    assert result["teacher"]["computed"] > 0


@pytest.mark.slow
def test_readmes_sweep_ends_with_a_table_of_its_own_metric_and_a_student_to_take_away(written: Path) -> None:
    _, run = blocks()["bash"].splitlines()
    few = ("--trials", "2", "--seeds", "2", "--set", "schedule.epochs=4", "--set", "schedule.milestones=[]")
    done = command(written, run, *few)
    summary = json.loads((written / "runs" / "spirals" / "summary.json").read_text())
    assert summary["status"] == "finished", done.stdout + done.stderr
    assert (summary["metric"], summary["mode"]) == ("validation/macro_f1", "max")
    searched = [trial for trial in summary["trials"] if trial["stage"] == "search"]
    best = max(searched, key=lambda trial: trial["metrics"]["validation/macro_f1"])
    assert summary["best"]["trial_id"] == best["trial_id"]
    assert [row["tuned"] for row in summary["confirmed"]] == [True, False]
    for row in summary["confirmed"]:
        assert (row["metric"], row["n"]) == ("test/macro_f1", 2)
    comparison = summary["comparison"]
    assert (comparison["metric"], comparison["mode"], len(comparison["comparisons"])) == ("test/macro_f1", "max", 1)
    assert all(row["ci95_seeds_and_examples"] is None for row in comparison["rows"])
    assert "test/macro_f1" in (written / "runs" / "spirals" / "report.html").read_text()
    again = command(written, "wsl-sweep compare spirals --metric test/accuracy --format json").stdout
    assert json.loads(again)["metric"] == "test/accuracy"
    command(written, "wsl-sweep export spirals --best --format onnx --to student")
    card = (written / "student" / "README.md").read_text()
    assert "| input | `inputs`: (N, 2) float32, any N |" in card
    assert "| test/macro_f1 |" in card
