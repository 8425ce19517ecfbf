"""Programs at their smallest size; of those that are left out the parts are tested beside this."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPO


def run(name: str, output: Path, *arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", "--output", str(output), *arguments],
        cwd=REPO,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip()
    found: dict[str, Any] = json.loads(output.read_text())
    assert {"date", "cpu", "cores", "versions"} < set(found)
    return found


@pytest.mark.slow
def test_programs_at_their_smallest_size(tmp_path: Path) -> None:
    sweep = run("sweep", tmp_path / "sweep.json", "--trials", "1", "--epochs", "1", "--loader-workers", "0")
    assert len(sweep["seconds"]["ours"]) == len(sweep["seconds"]["naive"]) == 1
    assert sweep["accuracy"]["seeds"] == 1
    writer = run("writer", tmp_path / "writer.json", "--epochs", "10", "--trials", "2", "--rounds", "1")
    assert len(writer["ways"]) == 4
    scale = run("scale", tmp_path / "scale.json", "--trials", "3,6", "--nodes", "1", "--slots-a-node", "2")
    assert [one["trials"] for one in scale["resume"]] == [3, 6]
    assert scale["sweep"]["finished"] + scale["sweep"]["pruned"] == 6
