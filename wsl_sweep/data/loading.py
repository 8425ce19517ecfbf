"""Work that processes do ahead of the training: a torch DataLoader whose results come in the order of the work."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import multiprocessing
import os
import signal
import stat
import sys
import weakref
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from wsl_sweep.errors import TrialError

AHEAD = 4
"""Pieces of work that each process may be ahead."""


class Loading:
    """Processes that do work and stay for the next: they are started once for all epochs.

    What is asked for while they are busy gets processes of its own. One that ends early ends them.

    Args:
        do: what is done with a piece of work; in a process of its own it may not raise but for a bug.
        workers: processes; 0 does the work here.
        pin: whether tensors come in memory that a GPU copies from by itself.
    """

    def __init__(self, do: Callable[[Any], Any], workers: int, pin: bool = False) -> None:
        self._do, self._workers, self._pin = do, workers, pin
        self._idle: list[DataLoader[Any]] = []
        self._busy: dict[object, DataLoader[Any]] = {}
        # By hand, and not by the garbage collector: it takes a loader's queues away before it ends the processes, which
        # then wait for seconds.
        weakref.finalize(self, _end, self._idle, self._busy)

    def results(self, work: Sequence[Any]) -> Generator[Any]:
        """What comes of each piece, in order. Raises TrialError: a process died."""
        if not self._workers or not work:
            yield from map(self._do, work)
            return
        mine = object()
        loader = self._busy[mine] = self._idle.pop() if self._idle else self._started()
        loader.sampler.work = work  # type: ignore[attr-defined]
        try:
            with _garbage_left():
                results = iter(loader)
            for _ in work[1:]:
                yield next(results)
            last = next(results)
            # Before the last one is handed out: who has it may never ask again.
            del loader, results
            freed = self._busy.pop(mine)
            if not self._idle:
                self._idle.append(freed)
            del freed
            yield last
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise TrialError(
                f"a process that reads pictures died ({str(error).splitlines()[0]}): is memory, or shared memory "
                "(/dev/shm), full? Lower resources.workers"
            ) from error
        finally:
            self._busy.pop(mine, None)

    def _started(self) -> DataLoader[Any]:
        return DataLoader(
            _Work(self._do),
            batch_size=None,
            sampler=_Order(),
            num_workers=self._workers,
            collate_fn=_as_it_is,
            pin_memory=self._pin,
            prefetch_factor=AHEAD,
            persistent_workers=True,
            worker_init_fn=_begin,
            # A fork shares what the work reads; elsewhere it is not to be had, or not safe.
            multiprocessing_context=multiprocessing.get_context("fork") if sys.platform == "linux" else None,
            generator=torch.Generator(),  # else it would draw from the students' random numbers
        )


class _Work(Dataset[Any]):
    def __init__(self, do: Callable[[Any], Any]) -> None:
        self._do = do

    def __getitem__(self, piece: Any) -> Any:
        return self._do(piece)


class _Order(Sampler[Any]):
    """Gives the pieces of work where a DataLoader looks for numbers."""

    def __init__(self) -> None:
        self.work: Sequence[Any] = ()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.work)

    def __len__(self) -> int:
        return len(self.work)


def _end(idle: list[DataLoader[Any]], busy: dict[object, DataLoader[Any]]) -> None:
    idle.clear()
    busy.clear()


def _as_it_is(result: Any) -> Any:
    return result


@contextlib.contextmanager
def _garbage_left() -> Iterator[None]:
    """Meanwhile no garbage is collected, nor in a process that is forked meanwhile before it says so itself."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _begin(_: int) -> None:
    """Leaves to the training what is the training's: Ctrl-C, the locks of files that it has open, and its garbage.

    Of that some, such as a store of torch.distributed's, which has a thread, would end a process that collects it here.
    """
    gc.freeze()
    gc.enable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform != "linux":
        return
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        with contextlib.suppress(OSError):
            writes = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
            if descriptor > 2 and writes and stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.dup2(nothing, descriptor)
    os.close(nothing)
