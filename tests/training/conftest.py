"""Jobs that train in a blink, a cache of their own, and process settings put back after each test."""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from wsl_sweep.spec.loading import CommandLine, parse_spec
from wsl_sweep.training import Job, TeacherStore

MakeJob = Callable[..., Job]

SMALL = (
    "teacher.model=convnet_3",
    "teacher.schedule.epochs=2",
    "teacher.schedule.milestones=[]",
    "student.model=convnet_2",
    "schedule.epochs=2",
    "schedule.milestones=[]",
)
OF_THE_STUDENT = ("student.model=convnet_2", "schedule.epochs=2", "schedule.milestones=[]")


def make_job(*sets: str, seed: int = 0, part: str = "train", threads: int = 1, teacher: bool = True) -> Job:
    """A job of the digits recipe, cut down; ``sets`` as on the command line; without ``teacher`` it reads none."""
    small = SMALL if teacher else OF_THE_STUDENT
    taken = {text.split("=")[0] for text in sets}
    shortened = tuple(text for text in small if text.split("=")[0] not in taken)
    if any(path == "teacher.checkpoint" for path in taken):
        shortened = ("teacher.model=convnet_3", *(text for text in shortened if not text.startswith("teacher.")))
    if not teacher:
        sets = ("distillation.method=none", *sets)
    text = "variants: {x: {}}\nrun: {recipe: digits}"
    spec = parse_spec(text, "x", CommandLine(sets=(*shortened, *sets)))
    return Job(spec.config({}, seed=seed), part, threads)  # type: ignore[arg-type]


HOLDER = """
import fcntl, sys, time
lock = open(sys.argv[1], "a")
fcntl.flock(lock, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(600)
"""


@contextlib.contextmanager
def asleep_with_the_lock(folder: Path) -> Iterator[None]:
    """Meanwhile a stopped process holds the lock of a folder of records."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder / "lock")], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        process.send_signal(signal.SIGSTOP)
        yield
    finally:
        process.kill()
        process.communicate(timeout=60)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Teachers and timings of a test stay in its own folder."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("WSL_SWEEP_CACHE", str(folder))
    return folder


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The promises of bits are of a CPU, also on a machine that has a GPU."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)


@pytest.fixture(autouse=True)
def quiet_process() -> Iterator[None]:
    """One thread, and torch's process-wide settings as they were, whatever a test does to them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.set_default_dtype(torch.float32)
    torch.set_grad_enabled(True)
    torch.use_deterministic_algorithms(False)
    torch.backends.mkldnn.enabled = True  # type: ignore[assignment]
    torch.set_autocast_enabled("cpu", False)
    random.seed()
    np.random.seed()


@pytest.fixture
def store() -> TeacherStore:
    """An empty store in the test's own cache."""
    return TeacherStore()
