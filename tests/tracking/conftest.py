"""Servers that tests may kill, freeze and start again; a proxy that refuses; PostgreSQL."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from wsl_sweep.tracking import Tracking


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """An ``mlflow server`` of one port and one store, however often it is started."""

    def __init__(self, folder: Path, store: str) -> None:
        self.folder, self.store, self.port = folder, store, free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--backend-store-uri", self.store, "--workers", "1"]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        with (self.folder / "server.log").open("a") as log:
            environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
            self.process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, cwd=self.folder, env=environment, start_new_session=True
            )
        for _ in range(480):
            try:
                urllib.request.urlopen(f"{self.address}/health", timeout=1).close()
                return
            except OSError:
                time.sleep(0.25)
        pytest.fail(f"the MLflow server did not start:\n{(self.folder / 'server.log').read_text()}")

    def signal(self, number: int) -> None:
        assert self.process is not None
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.signal(signal.SIGKILL)
            self.process.wait()
            self.process = None


@pytest.fixture
def server(tmp_path: Path, empty_database: Path) -> Iterator[Server]:
    """An MLflow server for one test, on SQLite, not started yet."""
    folder = tmp_path / "server"
    folder.mkdir()
    shutil.copy(empty_database, folder / "server.db")
    one = Server(folder, f"sqlite:///{folder / 'server.db'}")
    try:
        yield one
    finally:
        one.kill()


@pytest.fixture
def new_store(tmp_path: Path, empty_database: Path) -> Callable[[str], Tracking]:
    """Makes an empty SQLite store of that name."""

    def make(name: str) -> Tracking:
        shutil.copy(empty_database, tmp_path / f"{name}.db")
        return Tracking(f"sqlite:///{tmp_path / f'{name}.db'}", "exp")

    return make


@pytest.fixture
def tracking(new_store: Callable[[str], Tracking]) -> Tracking:
    """An empty SQLite store."""
    return new_store("mlflow")


class Proxy:
    """Hands everything on to a server, or, while ``status`` is set, answers with that and a page that is no JSON."""

    def __init__(self, upstream: str) -> None:
        self.status: int | None = None
        self.refused: list[str] = []
        self.passed: list[str] = []
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or None
                if proxy.status is not None:
                    proxy.refused.append(self.path)
                    self._answer(proxy.status, b"<html>not now</html>")
                    return
                proxy.passed.append(self.path)
                headers = {"Content-Type": "application/json"}
                asked = urllib.request.Request(upstream + self.path, content, headers, method=self.command)
                try:
                    with urllib.request.urlopen(asked, timeout=60) as answer:
                        self._answer(answer.status, answer.read())
                except urllib.error.HTTPError as error:
                    self._answer(error.code, error.read())

            do_GET = do_PATCH = do_DELETE = do_POST

            def _answer(self, status: int, content: bytes) -> None:
                self.send_response(status)
                if status in (429, 503):
                    self.send_header("Retry-After", "600")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def proxy(mlflow_server: str) -> Iterator[Proxy]:
    """A proxy before the module's MLflow server."""
    one = Proxy(mlflow_server)
    yield one
    one.server.shutdown()
    one.server.server_close()


PASSWORD = "s3cret@/x"


class Postgres:
    """A PostgreSQL server of one folder and one port, run by a user that is not root."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self.folder, self.programs, self.port = folder, programs, free_port()

    def _command(self, program: str, *arguments: str) -> list[str]:
        change = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.getuid() == 0 else []
        return [*change, str(self.programs / program), *arguments]

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            self._command(program, *arguments), capture_output=True, text=True, check=False, cwd=self.folder
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def make(self) -> None:
        (self.folder / "password").write_text(PASSWORD)
        (self.folder / "password").chmod(0o644)
        data, password = str(self.folder / "data"), str(self.folder / "password")
        self._run("initdb", "-D", data, "-U", "sweeper", "-A", "scram-sha-256", "--pwfile", password, "--no-sync")

    def start(self) -> None:
        options = f"-c listen_addresses=127.0.0.1 -c port={self.port} -c fsync=off -c unix_socket_directories="
        log = str(self.folder / "log")
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-l", log, "-o", options, "-w", "-t", "60", "start")

    def stop(self) -> None:
        """At once, without a word to those that are connected."""
        with contextlib.suppress(AssertionError):
            self._run("pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "-w", "stop")

    def uri(self, database: str = "postgres") -> str:
        return f"postgresql://sweeper:s3cret%40%2Fx@127.0.0.1:{self.port}/{database}"

    def database(self, name: str) -> str:
        """Makes a database; returns its address."""
        import sqlalchemy

        engine = sqlalchemy.create_engine(self.uri(), isolation_level="AUTOCOMMIT", poolclass=sqlalchemy.NullPool)
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text(f'CREATE DATABASE "{name}"'))
        return self.uri(name)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """Debian's PostgreSQL, started for the tests."""
    import sqlalchemy

    try:
        sqlalchemy.create_engine("postgresql://")  # psycopg2 or psycopg, as SQLAlchemy's version would have it
    except ImportError as error:
        pytest.skip(f"{error.name} is not installed: pip install -e '.[test]'")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="wsl-sweep-postgres-"))  # pytest's own folders are for its user alone
    if os.getuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
    one = Postgres(folder, found[-1].parent)
    try:
        one.make()
        one.start()
        yield one
    finally:
        one.stop()
        shutil.rmtree(folder, ignore_errors=True)
