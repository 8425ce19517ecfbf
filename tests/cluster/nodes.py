"""A Ray cluster on this machine: a head and nodes, each a raylet of its own that can be killed, frozen and joined late.

No privileges are needed. Each node has an address of its own among the loopback's, so that a driver takes the head
for its own node and never one that a test freezes.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

MARK = "WSL_SWEEP_TEST_NODE"
"""The variable by which every process of a node is found: the raylet, its agents, its workers."""

START_SECONDS = 90.0
HEAD = "head"

QUICK = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}
"""A frozen node is found out in some five seconds, in place of a minute."""


@dataclass(frozen=True)
class Node:
    """A node to be started.

    Attributes:
        name: in the tests, and, as the resource ``name``, for Ray.
        cpus: that it says it has.
        gpus: that it says it has; none need be there.
        resources: others of it.
        environment: variables of its own, for the raylet and its workers.
        cwd: where its processes run; a folder of its own where None.
    """

    name: str
    cpus: float = 1
    gpus: float = 0
    resources: Mapping[str, float] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None


class RayCluster:
    """Use ``ray_cluster``.

    Attributes:
        folder: logs (``<node>.log``), the token, the nodes' folders.
        address: to join, for ``--address``.
        addresses: node's name → the IP address by which Ray knows it.
        dashboard: the address of the head's dashboard, for ``ray job submit``; None where none was asked for.
    """

    def __init__(self, folder: Path, *, quick: bool = True, environment: Mapping[str, str] | None = None) -> None:
        self.folder, self.quick = folder, quick
        self.addresses: dict[str, str] = {}
        self.dashboard: str | None = None
        self._common = dict(environment or {})
        self._id = uuid.uuid4().hex[:12]
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._temporary = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # sockets' paths must be short
        folder.mkdir(parents=True, exist_ok=True)
        self.token = _new_token(folder / "token")
        self.address = f"127.0.0.1:{free_port()}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which a driver joins, to be added to its own."""
        return {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token),
            "RAY_USAGE_STATS_ENABLED": "0",
            "SPT_NOENV": "1",  # else the agents' titles overwrite the variable by which they are found
            **self._common,
        }

    def start_head(self, environment: Mapping[str, str] | None = None, *, dashboard: bool = False) -> None:
        """The head, on which no trials run: it has no CPUs."""
        node = Node(HEAD, cpus=0, environment={**(QUICK if self.quick else {}), **(environment or {})})
        port = self.address.rpartition(":")[2]
        arguments = ["--head", f"--port={port}", f"--temp-dir={self._temporary}"]
        arguments.append(f"--ray-client-server-port={free_port()}")  # else all clusters of this machine want the same
        if dashboard:
            own = free_port()
            self.dashboard = f"http://127.0.0.1:{own}"
            arguments += ["--include-dashboard=true", "--dashboard-host=127.0.0.1", f"--dashboard-port={own}"]
        else:
            arguments.append("--include-dashboard=false")
        self._start(node, "127.0.0.1", arguments)

    def add(self, node: Node) -> None:
        """Starts a node and waits until it has joined."""
        if node.name in self._processes:
            raise ValueError(f"there has been a node {node.name} already")
        own = self._temporary / str(
            len(self._processes)
        )  # in a folder that they share, nodes unpack jobs over each other
        self._start(node, f"127.0.0.{len(self._processes) + 1}", [f"--address={self.address}", f"--temp-dir={own}"])

    def kill(self, name: str) -> None:
        """``kill -9`` of the raylet and all its workers, all at once, as when a machine loses its power."""
        self._signal(name, signal.SIGKILL)
        wait_for(lambda: not self.processes(name), 20, f"the end of {name}")
        self._processes[name].wait(timeout=20)

    def freeze(self, name: str) -> None:
        """Stops every process of a node where it stands, as when a machine hangs or its cable is pulled."""
        self._signal(name, signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        """Lets a frozen node go on."""
        self._signal(name, signal.SIGCONT)

    def processes(self, name: str | None = None) -> list[int]:
        """The ids of a node's processes; None for all nodes."""
        mark = f"{MARK}={self._id}-{name or ''}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                with contextlib.suppress(OSError):
                    variables = (entry / "environ").read_bytes().split(b"\0")
                    if any(one == mark or (name is None and one.startswith(mark)) for one in variables):
                        found.append(int(entry.name))
        return found

    def workers(self, name: str) -> list[int]:
        """The ids of a node's worker processes, those that run tasks or wait for some."""
        return [pid for pid in self.processes(name) if b"ray::" in _command(pid)]

    def node_of(self, pid: int) -> str | None:
        """The node that a living process belongs to; None of others."""
        with contextlib.suppress(OSError):
            for variable in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                name, _, value = variable.decode(errors="replace").partition("=")
                if name == MARK and value.startswith(f"{self._id}-"):
                    return value.removeprefix(f"{self._id}-")
        return None

    def log(self, name: str) -> str:
        """What a node's starter printed."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def stop(self) -> None:
        """Ends every process of every node, frozen ones too, and deletes Ray's temporary files."""
        for _ in range(50):
            left = self.processes()
            if not left:
                break
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.1)
        for process in self._processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=10)
        shutil.rmtree(self._temporary, ignore_errors=True)

    def _start(self, node: Node, ip: str, arguments: Sequence[str]) -> None:
        cwd = node.cwd or self.folder / node.name
        cwd.mkdir(parents=True, exist_ok=True)
        resources = {node.name: 1.0, **node.resources}
        command = [
            sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats", *arguments,
            f"--node-ip-address={ip}", f"--num-cpus={node.cpus:g}", f"--num-gpus={node.gpus:g}",
            f"--resources={json.dumps(resources)}", "--object-store-memory=100000000",
            "--min-worker-port=0", "--max-worker-port=0", f"--dashboard-agent-listen-port={free_port()}",
        ]  # fmt: skip
        with (self.folder / f"{node.name}.log").open("wb") as log:
            self._processes[node.name] = subprocess.Popen(
                command,
                cwd=cwd,
                env={**_own_environment(), **self.environment, **node.environment, MARK: f"{self._id}-{node.name}"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        wait_for(lambda: self._started(node.name), START_SECONDS, f"node {node.name}", lambda: self.log(node.name))
        told = re.search(r"Local node IP: ([\d.]+)", re.sub(r"\x1b\[\d+m", "", self.log(node.name)))
        self.addresses[node.name] = told[1] if told else ip  # the head is known by the machine's own address

    def _started(self, name: str) -> bool:
        if self._processes[name].poll() is not None:
            raise AssertionError(f"node {name} did not start:\n{self.log(name)}")
        return re.search("Ray runtime started", self.log(name)) is not None

    def _signal(self, name: str, signum: signal.Signals) -> None:
        # Twice: a process that was starting another at the first look has done so by the second, or never will.
        for _ in range(2):
            for pid in self.processes(name):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signum)


@contextlib.contextmanager
def ray_cluster(
    folder: Path,
    nodes: Sequence[Node] = (Node("one"), Node("two")),
    *,
    quick: bool = True,
    environment: Mapping[str, str] | None = None,
    dashboard: bool = False,
) -> Iterator[RayCluster]:
    """A head and some nodes; every process is ended at the end, whatever happens.

    Args:
        folder: for logs and the token.
        nodes: beside the head.
        quick: whether a frozen node is found out in seconds.
        environment: variables of every node and every driver.
        dashboard: whether the head has one, for ``ray job submit``.
    """
    cluster = RayCluster(folder / "cluster", quick=quick, environment=environment)
    try:
        cluster.start_head(dashboard=dashboard)
        for node in nodes:
            cluster.add(node)
        yield cluster
    finally:
        cluster.stop()


def wait_for(
    holds: Callable[[], bool], seconds: float, what: str, more: Callable[[], str] = lambda: "", pause: float = 0.1
) -> None:
    """Waits until something holds. Raises AssertionError if it does not in time."""
    until = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > until:
            raise AssertionError(f"{what}: not within {seconds:g} s\n{more()}")
        time.sleep(pause)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _new_token(path: Path) -> Path:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(32))
    return path


def _own_environment() -> dict[str, str]:
    """This process's variables without what would lead a node elsewhere."""
    left_out = ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "MLFLOW_TRACKING_URI", MARK)
    return {name: value for name, value in os.environ.items() if name not in left_out}


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
