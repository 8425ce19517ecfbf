"""The other processes of a training: what they do, and how they are started on this machine."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from wsl_sweep.errors import WslSweepError
from wsl_sweep.storage import place
from wsl_sweep.training.group import ALONE, Group, Invitation, joining, leading
from wsl_sweep.user_code import search_in

if TYPE_CHECKING:
    from wsl_sweep.training.teacher_store import TeacherStore
    from wsl_sweep.training.trial import Job

What = Literal["trial", "teacher"]
"""What is trained: a student and, where it is missing, its teacher; or a teacher alone."""

_INPUT = 0
"""The file descriptor of a process's input."""


def request_of(job: Job, store: TeacherStore, what: What) -> dict[str, Any]:
    """What a helper needs to know, as plain data."""
    shared = None if store.shared is None else str(store.shared)
    return {"job": asdict(job), "root": str(store.root), "shared": shared, "what": what}


def help_with(request: Mapping[str, Any], invitation: Invitation, rank: int) -> None:
    """One of the other processes of a training, from its beginning to its end."""
    from wsl_sweep.training import BankSettings, Job, TeacherStore, TrialTraining, train_teacher

    job = Job(**{**request["job"], "bank": BankSettings(**request["job"]["bank"])})
    shared = None if request["shared"] is None else place(request["shared"])
    store = TeacherStore(None if request["root"] is None else Path(request["root"]), shared)
    with joining(invitation, rank) as group:
        if request["what"] == "teacher":
            train_teacher(job, store, group=group)
            return
        with TrialTraining(job, store, group=group) as training:
            if group.hear() == "train":
                for _ in training:
                    pass


@contextlib.contextmanager
def local_group(job: Job, store: TeacherStore, what: What) -> Iterator[Group]:
    """The processes of a job on this machine, this one leading; alone where the job has one.

    Each has a GPU of its own where there are any.

    Raises WslSweepError: there are fewer GPUs than processes.
    """
    if job.processes == 1:
        yield ALONE
        return
    from wsl_sweep.training.device import pick_device

    device = pick_device()
    cards = _cards(job.processes) if device == "cuda" else None
    request = request_of(job, store, what)
    with leading(job.processes, device, lambda invitation: _Children(invitation, request, cards)) as group:
        yield group


def _cards(processes: int) -> list[str]:
    """What each process is to see of this machine's GPUs."""
    import torch

    there = torch.cuda.device_count()
    if there < processes:
        raise WslSweepError(
            f"a trial of {processes} processes needs as many GPUs, and {there} {'is' if there == 1 else 'are'} here: "
            "set fewer processes, or hide the GPUs (CUDA_VISIBLE_DEVICES=) to compute on the CPU"
        )
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",") if visible else [str(number) for number in range(there)]


class _Children:
    """Helpers as child processes, which end with this one."""

    def __init__(self, invitation: Invitation, request: Mapping[str, Any], cards: list[str] | None) -> None:
        self._children: list[subprocess.Popen[str]] = []
        folders = [str(Path(entry).absolute()) for entry in sys.path]
        for rank in range(1, invitation.size):
            child = subprocess.Popen(
                [sys.executable, "-m", "wsl_sweep.training.helping"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                env=os.environ | ({} if cards is None else {"CUDA_VISIBLE_DEVICES": cards[rank]}),
                text=True,
                start_new_session=True,  # Ctrl-C is the leader's to hear
            )
            self._children.append(child)
            asked = {"request": request, "invitation": asdict(invitation), "rank": rank, "folders": folders}
            assert child.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # it is gone: ``lost`` says so
                child.stdin.write(json.dumps(asked) + "\n")
                child.stdin.flush()

    def lost(self) -> str | None:
        """See ``Helpers``."""
        for rank, child in enumerate(self._children, start=1):
            if child.poll() not in (None, 0):
                return f"process {rank + 1} of the trial died (exit code {child.returncode})"
        return None

    def end(self, seconds: float) -> None:
        """See ``Helpers``."""
        until = time.monotonic() + seconds
        for child in self._children:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(max(0.0, until - time.monotonic()))
        for child in self._children:
            child.kill()
            child.wait()
            assert child.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                child.stdin.close()


def _end_with_the_leader() -> None:
    """Ends this process when the other end of its input is closed, as it is when whoever started it dies.

    Past ``sys.stdin``, whose lock a process that is forked from this one would wait for.
    """
    while os.read(_INPUT, 1):
        pass
    os._exit(1)


def main() -> None:
    """A child of ``local_group``: one request comes on its input."""
    asked = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_the_leader, daemon=True).start()
    search_in(asked["folders"])
    with contextlib.suppress(Exception):  # the leader has been told
        help_with(asked["request"], Invitation(**asked["invitation"]), asked["rank"])
        os._exit(0)
    os._exit(1)


if __name__ == "__main__":
    main()
