"""What the benchmarks share: spreads, tables, where and when it was measured, subprocesses, MLflow servers."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

REPOSITORY = Path(__file__).resolve().parent.parent
LOAD_BEFORE = os.getloadavg()[0]
"""Of the last minute before a benchmark starts: above a few tenths, something else is running."""

LIBRARIES = ("torch", "ray", "mlflow", "optuna", "wsl-sweep")


def cpu_name() -> str:
    """What the processor calls itself."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return " ".join(line.partition(":")[2].split())
    return platform.processor() or platform.machine()


def circumstances() -> dict[str, Any]:
    """When, on what and with which versions; nothing that names the machine itself."""
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load_before": LOAD_BEFORE,
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in LIBRARIES},
    }


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:  # a machine with a GPU needs no ray
        return "absent"


def spread(values: Sequence[float], digits: int = 2, scale: float = 1.0) -> str:
    """``median (min … max)``; the value alone where there is only one."""
    if not values:
        return "–"
    median, low, high = (scale * pick(values) for pick in (statistics.median, min, max))
    text = f"{median:,.{digits}f}"
    return text if len(values) == 1 else f"{text} ({low:,.{digits}f} … {high:,.{digits}f})"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A plain table."""
    made = Table(*columns, box=None)
    for row in rows:
        made.add_row(*row)
    return made


def show(*parts: Any) -> None:
    """Prints tables and lines, 110 columns wide."""
    console = Console(width=110, highlight=False)
    for part in parts:
        console.print(part, markup=False) if isinstance(part, str) else console.print(part)


def parser_of(doc: str | None) -> argparse.ArgumentParser:
    """A parser described by the first line of a module's docstring, with ``--output``."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0] if doc else None)
    parser.add_argument("--output", type=Path, help="the JSON file (default: benchmarks/NAME.json)")
    return parser


def save(program: str, result: Mapping[str, Any], output: Path | None = None) -> Path:
    """Writes ``result`` and the circumstances beside the program (``__file__``), or to ``output``."""
    path = output if output is not None else Path(program).with_suffix(".json")
    path.write_text(json.dumps({**circumstances(), **result}, indent=2, allow_nan=False) + "\n")
    return path


@dataclass
class Workshop:
    """A temporary folder in which programs run as if nothing else were set: no tracking server, no cluster.

    Attributes:
        folder: of its own.
        environment: of the programs.
    """

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def sub(self, name: str) -> Path:
        """A fresh folder inside."""
        path = self.folder / name
        path.mkdir(parents=True)
        return path

    def timed(self, command: Sequence[str], folder: Path) -> tuple[float, str]:
        """Seconds from command to prompt, and what was printed.

        Raises RuntimeError with the output where the command fails.
        """
        begun = time.perf_counter()
        process = subprocess.Popen(
            list(command),
            cwd=folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate()
        except BaseException:  # Ctrl-C, SIGTERM: nothing goes on in the background
            _end(process)
            raise
        seconds = time.perf_counter() - begun
        if process.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}:\n{output}")
        return seconds, output

    def database(self, folder: Path) -> str:
        """A new SQLite store of MLflow's with its schema there already, which takes seconds to make; its URI."""
        template = self.folder / "template.db"
        if not template.exists():
            code = "import sys, mlflow; mlflow.MlflowClient(tracking_uri=sys.argv[1]).search_experiments()"
            self.timed([sys.executable, "-c", code, f"sqlite:///{template}"], self.folder)
        shutil.copy(template, folder / "mlflow.db")
        return f"sqlite:///{folder / 'mlflow.db'}"

    @contextlib.contextmanager
    def mlflow_server(self) -> Iterator[str]:
        """The address of an MLflow server of this folder's own, on 127.0.0.1, SQLite behind it."""
        folder = self.sub("server")
        uri = self.database(folder)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
        command += ["--backend-store-uri", uri, "--workers", "1"]
        command += ["--artifacts-destination", str(folder / "artifacts")]
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env={**self.environment, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
                start_new_session=True,
            )
        try:
            yield _answering(f"http://127.0.0.1:{port}", process, folder / "log")
        finally:
            _end(process)


def _answering(address: str, process: subprocess.Popen[bytes], log: Path, seconds: float = 60.0) -> str:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(f"{address}/health", timeout=1).close()
        except OSError:
            time.sleep(0.25)
        else:
            return address
    raise RuntimeError(f"the MLflow server did not start:\n{log.read_text()}")


def _end(process: subprocess.Popen[Any]) -> None:
    """Ends a process that leads a session, with its children."""
    for signum in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signum)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=10)
            return


@contextlib.contextmanager
def workshop() -> Iterator[Workshop]:
    """A workshop that is gone afterwards, also after SIGTERM; says where the machine is busy already."""
    if LOAD_BEFORE > 0.5:
        show(f"note: this machine was busy before (load {LOAD_BEFORE:.1f}); these figures are no good for a record")
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    away = ("MLFLOW_TRACKING_URI", "RAY_ADDRESS")
    environment = {name: value for name, value in os.environ.items() if name not in away}
    environment |= {"RAY_USAGE_STATS_ENABLED": "0", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}
    paths = [str(REPOSITORY), *filter(None, [environment.get("PYTHONPATH")])]
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    try:
        with tempfile.TemporaryDirectory(prefix="wsl-sweep-benchmark-", ignore_cleanup_errors=True) as folder:
            yield Workshop(Path(folder), environment)
    finally:
        signal.signal(signal.SIGTERM, before)
