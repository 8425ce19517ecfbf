"""Spreads, files with their circumstances, servers of one's own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.common import save, spread, workshop
from tests.conftest import REPO


def test_a_spread_is_median_and_range() -> None:
    assert spread([3.0, 1.0, 2.0]) == "2.00 (1.00 … 3.00)"
    assert spread([0.0015], 1, scale=1000) == "1.5"
    assert spread([]) == "–"
    assert spread([4000.0, 6000.0], 0) == "5,000 (4,000 … 6,000)"


def test_a_file_says_when_and_on_what_but_not_where(tmp_path: Path) -> None:
    path = save("program.py", {"seconds": [1.0]}, tmp_path / "out.json")
    text = path.read_text()
    found = json.loads(text)
    assert found["seconds"] == [1.0]
    assert {"date", "cpu", "cores", "python", "versions"} < set(found)
    assert found["versions"]["torch"]
    assert socket.gethostname() not in text
    assert str(Path.home()) not in text


def test_a_file_lies_beside_its_program(tmp_path: Path) -> None:
    assert save(str(tmp_path / "speed.py"), {}) == tmp_path / "speed.json"


def test_nan_is_no_result(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        save("program.py", {"seconds": float("nan")}, tmp_path / "out.json")


def test_programs_run_as_if_no_server_and_no_cluster_were_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere")
    monkeypatch.setenv("RAY_ADDRESS", "elsewhere:6379")
    code = "import os; print(os.environ.get('MLFLOW_TRACKING_URI'), os.environ.get('RAY_ADDRESS'))"
    with workshop() as shop:
        seconds, output = shop.timed([sys.executable, "-c", code], shop.folder)
        folder = shop.folder
    assert output == "None None\n"
    assert seconds > 0
    assert not folder.exists()
    assert os.environ["RAY_ADDRESS"] == "elsewhere:6379"


def test_nothing_goes_on_in_the_background_after_sigterm(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    child = f"import os, time, pathlib; pathlib.Path({str(pid_file)!r}).write_text(str(os.getpid())); time.sleep(60)"
    code = (
        "import sys; from benchmarks.common import workshop\n"
        f"with workshop() as shop: shop.timed([sys.executable, '-c', {child!r}], shop.folder)"
    )
    program = subprocess.Popen([sys.executable, "-c", code], cwd=REPO)
    deadline = time.monotonic() + 20
    while not (pid_file.exists() and pid_file.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    program.terminate()
    assert program.wait(timeout=20) == 143
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)


def test_a_program_that_fails_is_not_measured() -> None:
    with workshop() as shop, pytest.raises(RuntimeError, match="ended with 3:\nno"):
        shop.timed([sys.executable, "-c", "print('no'); raise SystemExit(3)"], shop.folder)
