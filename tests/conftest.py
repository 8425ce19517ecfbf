"""What the tests share: a cache of their own, prepared MLflow databases, the command line as a subprocess."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

REPO = Path(__file__).resolve().parent.parent

for variable in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
    os.environ.pop(variable, None)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for the whole session, never the user's: a teacher is trained once."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["WSL_SWEEP_CACHE"] = str(folder)
    return folder


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with its schema, which takes seconds to make: copied, never used."""
    import mlflow

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    mlflow.MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """With ``-n 2`` a file's tests stay in one process: they share sweeps and servers that are dear to start."""
    if getattr(config.option, "numprocesses", None) and config.option.dist == "no":
        config.option.dist, config.option.loadscopereorder = "loadfile", False


LONGEST = (
    "test_sweeps.py",
    "test_survival.py",
    "cluster/test_sweeps.py",
    "test_bank_sweeps.py",
    "test_search_spaces.py",
    "test_method_sweeps.py",
    "benchmarks/test_programs.py",
    "cluster/test_doctor.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files come first: else one process would wait at the end for the other."""
    order = {Path(__file__).parent / name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path, len(order)))


@dataclass
class Workplace:
    """A folder of its own in which the command line runs, with MLflow's default store."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """``wsl-sweep ARGUMENTS`` in the background, in a session of its own; its output goes to one pipe."""
        return subprocess.Popen(
            [sys.executable, "-m", "wsl_sweep", *arguments],
            cwd=self.folder,
            env={name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"} | self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str, expect: int = 0, timeout: float = 300) -> str:
        """``wsl-sweep ARGUMENTS`` to its end; returns what it printed, and checks its exit code."""
        process = self.start(*arguments)
        try:
            output, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            output, _ = process.communicate()
            pytest.fail(f"wsl-sweep {' '.join(arguments)} did not end in {timeout} s:\n{output}")
        assert process.returncode == expect, output
        return output

    def write(self, name: str, text: str) -> str:
        """A search-space file in the folder."""
        (self.folder / name).write_text(text)
        return name

    def summary(self, sweep: str) -> dict[str, Any]:
        """``summary.json`` of a sweep."""
        summary: dict[str, Any] = json.loads((self.folder / "runs" / sweep / "summary.json").read_text())
        return summary

    @property
    def uri(self) -> str:
        """Of the folder's own MLflow store."""
        return f"sqlite:///{self.folder / 'mlflow.db'}"


@pytest.fixture(scope="session")
def new_workplace(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Callable[[str], Workplace]:
    """Makes workplaces."""

    def make(name: str) -> Workplace:
        folder = tmp_path_factory.mktemp(name)
        shutil.copy(empty_database, folder / "mlflow.db")
        return Workplace(folder)

    return make


@pytest.fixture
def workplace(new_workplace: Callable[[str], Workplace]) -> Workplace:
    """A workplace for one test."""
    return new_workplace("work")


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[str]:
    """The address of a real MLflow server on 127.0.0.1."""
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(empty_database, folder / "server.db")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'server.db'}", "--workers", "1"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            start_new_session=True,
        )
        address = f"http://127.0.0.1:{port}"
        try:
            for _ in range(240):
                try:
                    urllib.request.urlopen(f"{address}/health", timeout=1).close()
                    break
                except OSError:
                    time.sleep(0.25)
            else:
                pytest.fail(f"the MLflow server did not start:\n{(folder / 'log').read_text()}")
            yield address
        finally:
            end_session(process)


def end_session(process: subprocess.Popen[Any]) -> None:
    """Ends a process that leads a session, with its children."""
    import signal

    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@dataclass
class Answer:
    """What a command ended with, and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """All of standard output, which must be one JSON value without NaN."""
        return json.loads(self.out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))

    @property
    def flat(self) -> str:
        """Standard output in one line, without the blanks of tables."""
        return re.sub(r"\s+", " ", self.out)


Command = Callable[..., Answer]


@pytest.fixture
def wsl(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """``wsl-sweep ARGUMENTS`` in this process; checks its exit code."""

    def command(*arguments: str, expect: int = 0) -> Answer:
        monkeypatch.setattr(sys, "argv", ["wsl-sweep", *arguments])
        capsys.readouterr()
        from wsl_sweep.cli import main

        with pytest.raises(SystemExit) as ended:
            main()
        output = capsys.readouterr()
        answer = Answer(int(ended.value.code or 0), output.out, output.err)
        assert answer.code == expect, answer.out + answer.err
        assert "Traceback" not in answer.err
        assert "unexpected" not in answer.err
        return answer

    return command
