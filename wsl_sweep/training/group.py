"""The processes of one training: each computes its share of every batch, and all come to the same model.

What is computed over a batch sees the whole of it on every process: logits and features are gathered, and only the
gradient is a process's own until it is summed.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import TCPStore

from wsl_sweep.errors import ProcessLostError, StorageError, TrialError, WslSweepError

LEAST_SHARE = 2
"""Examples of a process in a batch: one alone has no batch statistics."""

LOOPBACK = "127.0.0.1"

MEETING = datetime.timedelta(minutes=1)
"""How long the place where processes meet may take to answer."""

PATIENCE = datetime.timedelta(hours=2)
"""How long a process waits for the others at most; that one has died is noticed at once."""

LOOK_SECONDS = 0.05
"""Between two looks for what another process says."""

WATCH_SECONDS = 1.0

GRACE_SECONDS = 10.0
"""Of a leader on a GPU whose helper has died, before its process ends: a collective there waits for ever."""

END_SECONDS = 10.0
"""How long helpers that are told to end may take."""

_INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")

_Failure = Mapping[str, str]


class Group:
    """One process alone: everything is its own, and nothing is sent. See ``leading`` and ``joining`` for several.

    Attributes:
        rank: of this process; 0 leads: it alone writes, reports and is asked to stop.
        size: how many processes there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the process that is the trial."""
        return self.rank == 0

    def splits(self, n: int) -> bool:
        """Whether a batch of ``n`` is split; one of too few examples is computed whole by every process."""
        return self.size > 1 and n >= LEAST_SHARE * self.size

    def sizes(self, n: int) -> list[int]:
        """How many of a batch of ``n`` each process computes."""
        if not self.splits(n):
            return [n] * self.size
        least, more = divmod(n, self.size)
        return [least + (rank < more) for rank in range(self.size)]

    def share(self, n: int) -> slice:
        """Those of a batch of ``n`` that this process computes."""
        if not self.splits(n):
            return slice(0, n)
        sizes = self.sizes(n)
        start = sum(sizes[: self.rank])
        return slice(start, start + sizes[self.rank])

    def gather(self, own: Tensor, sizes: Sequence[int]) -> Tensor:
        """(sum of ``sizes``, …) the rows of all processes, in the order of their ranks; without gradient."""
        return own

    def gather_with_gradient(self, own: Tensor, n: int) -> Tensor:
        """(n, …) of a batch of ``n``, of which ``own`` is this process's share; the gradient flows to that only."""
        return own

    def sum_gradients(self, parameters: Iterable[Tensor], n: int) -> None:
        """Makes each gradient that of a whole batch of ``n``, on every process the same."""

    def follow(self, tensors: Iterable[Tensor]) -> None:
        """Puts into the tensors what they are on the leader."""

    def say(self, value: Any) -> None:
        """The leader tells the helpers plain data."""

    def hear(self) -> Any:
        """What the leader says next."""
        raise RuntimeError("nobody leads a process that is alone")

    def hand(self, content: bytes | None, size: int) -> bytes:
        """The leader's ``content``, of ``size`` bytes, on every process."""
        assert content is not None
        return content

    def occupied(self, yes: bool) -> None:
        """Whether helpers are in the middle of something, where they hear nothing; they are, until they are ready."""

    def ready(self) -> None:
        """Waits until all have prepared themselves.

        Raises what has gone wrong on another process, as the kind of error that it was there.
        """

    def note(self, name: str, number: int) -> None:
        """Leaves a number where the leader can read it at any time."""

    def noted(self, name: str) -> int:
        """The sum of what the helpers have noted."""
        return 0


ALONE = Group()


@dataclass(frozen=True)
class Invitation:
    """Where the processes of a training meet: plain data for those who start helpers."""

    host: str
    port: int
    size: int
    device: str


class Helpers(Protocol):
    """The helpers of a leader, as whoever started them sees them."""

    def lost(self) -> str | None:
        """Why one of them is not there any more, or None."""

    def end(self, seconds: float) -> None:
        """Waits so long for them to come to their end, and then ends them."""


class _Joined(Group):
    """One of several processes, once they have met."""

    def __init__(self, rank: int, invitation: Invitation, store: TCPStore) -> None:
        self.rank, self.size = rank, invitation.size
        self._device = torch.device(invitation.device)
        self._store = store
        self._told = self._times = 0
        self._notes: dict[str, list[int]] = {}
        self.busy = True
        self.lost: Callable[[], str | None] = lambda: None

    # --- tensors -------------------------------------------------------------------------------------------------

    def gather(self, own: Tensor, sizes: Sequence[int]) -> Tensor:
        return torch.cat(self._parts(own, sizes))

    def gather_with_gradient(self, own: Tensor, n: int) -> Tensor:
        if not self.splits(n):
            return own
        parts = self._parts(own.detach(), self.sizes(n))
        parts[self.rank] = own
        return torch.cat(parts)

    def _parts(self, own: Tensor, sizes: Sequence[int]) -> list[Tensor]:
        """The rows of each process, sent in one shape."""
        sent = own.new_zeros((max(sizes), *own.shape[1:]))
        sent[: len(own)] = own
        parts = [torch.empty_like(sent) for _ in sizes]
        with self._together():
            dist.all_gather(parts, sent)
        return [part[:size] for part, size in zip(parts, sizes, strict=True)]

    def sum_gradients(self, parameters: Iterable[Tensor], n: int) -> None:
        by_kind: dict[torch.dtype, list[Tensor]] = {}
        for parameter in parameters:
            if parameter.requires_grad:
                by_kind.setdefault(parameter.dtype, []).append(parameter)
        for some in by_kind.values():
            has = [parameter.grad is not None for parameter in some]
            pieces = [torch.zeros_like(one) if one.grad is None else one.grad for one in some]
            flags = pieces[0].new_ones(len(some))
            if not all(has):
                flags *= torch.tensor(has).to(flags.device)
            flat = torch.cat([*(piece.reshape(-1) for piece in pieces), flags])
            with self._together():
                dist.all_reduce(flat)
            if not self.splits(n):  # each had all of it
                flat /= self.size
            *sums, anyone = torch.split(flat, [*(one.numel() for one in some), len(some)])
            for number, (parameter, piece, total) in enumerate(zip(some, pieces, sums, strict=True)):
                if has[number] or bool(anyone[number] > 0):
                    piece.copy_(total.view(parameter.shape))
                    parameter.grad = piece

    @torch.no_grad()
    def follow(self, tensors: Iterable[Tensor]) -> None:
        places = [tensor for tensor in tensors if tensor.numel()]
        if not places:
            return
        flat = torch.cat([place.detach().reshape(-1).view(torch.uint8) for place in places])
        with self._together():
            dist.broadcast(flat, 0)
        if self.leads:
            return
        pieces = torch.split(flat, [place.numel() * place.element_size() for place in places])
        for place, piece in zip(places, pieces, strict=True):
            place.copy_(piece.clone().view(place.dtype).view(place.shape))

    def hand(self, content: bytes | None, size: int) -> bytes:
        if content is not None:
            sent = torch.frombuffer(bytearray(content), dtype=torch.uint8).to(self._device)
        else:
            sent = torch.empty(size, dtype=torch.uint8, device=self._device)
        with self._together():
            dist.broadcast(sent, 0)
        return content if content is not None else sent.cpu().numpy().tobytes()

    # --- plain data ----------------------------------------------------------------------------------------------

    def say(self, value: Any) -> None:
        if not self.leads:
            return
        with self._together():
            self._store.set(f"said/{self._told}", json.dumps(value))
        self._told += 1

    def hear(self) -> Any:
        value = json.loads(self._wait_for(f"said/{self._told}"))
        self._told += 1
        return value

    def occupied(self, yes: bool) -> None:
        self.busy = yes

    def ready(self) -> None:
        self._times += 1
        if not self.leads:
            with self._together():
                self._store.set(f"ready/{self._times}/{self.rank}", "")
            return
        for rank in range(1, self.size):
            self._wait_for(f"ready/{self._times}/{rank}")
        self.busy = False

    def note(self, name: str, number: int) -> None:
        if not self.leads:
            with self._together():
                self._store.set(f"note/{name}/{self.rank}", str(number))
                self._store.check([f"note/{name}/{self.rank}"])  # so that it is there when this returns

    def noted(self, name: str) -> int:
        known = self._notes.setdefault(name, [0] * self.size)
        with contextlib.suppress(RuntimeError):  # those who noted may be gone: what is known stays
            for rank in range(1, self.size):
                if self._store.check([f"note/{name}/{rank}"]):
                    known[rank] = int(self._store.get(f"note/{name}/{rank}"))
        return sum(known)

    def arrive(self) -> None:
        """Waits until all are there, and joins them."""
        if not self.leads:
            with self._together():
                self._store.set(f"here/{self.rank}", "")
        for rank in range(1, self.size):
            self._wait_for(f"here/{rank}")
        backend = "nccl" if self._device.type == "cuda" else "gloo"
        with self._together():
            dist.init_process_group(backend, store=self._store, rank=self.rank, world_size=self.size, timeout=PATIENCE)

    def leave(self) -> None:
        """Lets the others go; those who wait for this process hear of it."""
        if dist.is_initialized():
            with contextlib.suppress(RuntimeError):
                dist.destroy_process_group()

    def fail(self, error: Exception) -> None:
        """A helper says why it cannot go on."""
        kind = next((name for name in _RAISED if name in {one.__name__ for one in type(error).__mro__}), "")
        lines = str(error).strip().splitlines()
        told = str(error) if isinstance(error, WslSweepError) else f"{type(error).__name__}: {(lines or [''])[0]}"
        with contextlib.suppress(RuntimeError):
            self._store.set(f"failed/{self.rank}", json.dumps({"kind": kind, "error": told}))

    def failure(self) -> Exception | None:
        """What has gone wrong on another process, as far as that has said it."""
        with contextlib.suppress(RuntimeError):
            for rank in range(1, self.size):
                if rank != self.rank and self._store.check([f"failed/{rank}"]):
                    told = json.loads(self._store.get(f"failed/{rank}"))
                    return _RAISED.get(told["kind"], RuntimeError)(f"process {rank + 1} of the trial: {told['error']}")
        return None

    def _wait_for(self, key: str) -> bytes:
        while True:
            with self._together():
                if self._store.check([key]):
                    return bytes(self._store.get(key))
            failure, lost = self.failure(), self.lost()
            if failure is not None:
                raise failure
            if lost is not None:
                raise ProcessLostError(lost)
            time.sleep(LOOK_SECONDS)

    @contextlib.contextmanager
    def _together(self) -> Iterator[None]:
        """Inside, what torch says of a process that is gone becomes an error that says so."""
        try:
            yield
        except RuntimeError as error:
            failure = self.failure()
            if failure is not None:
                raise failure from error
            lines = str(error).strip().splitlines()
            why = self.lost() or f"a process of the trial died ({lines[0][:200] if lines else type(error).__name__})"
            raise ProcessLostError(why) from error


def _too_small(told: str) -> Exception:
    return torch.cuda.OutOfMemoryError(told)


_RAISED: dict[str, Callable[[str], Exception]] = {
    "StorageError": StorageError,
    "ProcessLostError": ProcessLostError,
    "WslSweepError": TrialError,
    "OutOfMemoryError": _too_small,
}
"""What the leader raises for an error of a helper's, by the name of its class, the most special first."""


@contextlib.contextmanager
def leading(size: int, device: str, start: Callable[[Invitation], Helpers], host: str = LOOPBACK) -> Iterator[Group]:
    """The group of ``size`` processes that this one leads.

    Args:
        size: two or more.
        device: ``cpu`` or ``cuda``, each process's own.
        start: starts the helpers, which come by ``joining``.
        host: the address under which they find this process; nobody else can.

    Raises:
        ProcessLostError: a helper is gone.
    """
    listener = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    port = listener.getsockname()[1]
    store = TCPStore(
        host, port, is_master=True, wait_for_workers=False, timeout=MEETING, master_listen_fd=listener.detach()
    )
    invitation = Invitation(host, port, size, device)
    group = _Joined(0, invitation, store)
    helpers = start(invitation)
    group.lost = helpers.lost
    seconds = 0.0
    try:
        with _interfaces(host), _watched(group, device):
            group.arrive()
            yield group
            if not group.busy:
                group.say("end")
                seconds = END_SECONDS
    finally:
        helpers.end(seconds)
        group.leave()


@contextlib.contextmanager
def joining(invitation: Invitation, rank: int) -> Iterator[Group]:
    """The group that a helper, from 1 on, was invited to; what goes wrong inside is told to the leader."""
    store = TCPStore(invitation.host, invitation.port, is_master=False, timeout=MEETING)
    group = _Joined(rank, invitation, store)
    try:
        with _interfaces(invitation.host):
            group.arrive()
            yield group
    except Exception as error:
        group.fail(error)
        raise
    finally:
        group.leave()


@contextlib.contextmanager
def _interfaces(host: str) -> Iterator[None]:
    """Inside, processes of one machine talk on its loopback alone; the user's own choice wins."""
    own = [name for _, name in socket.if_nameindex() if name.startswith("lo")] if host == LOOPBACK else []
    put = [name for name in _INTERFACES if own and name not in os.environ]
    os.environ.update(dict.fromkeys(put, own[0] if own else ""))
    try:
        yield
    finally:
        for name in put:
            os.environ.pop(name, None)


@contextlib.contextmanager
def _watched(group: _Joined, device: str, end: Callable[[int], Any] = os._exit) -> Iterator[None]:
    """Inside, a leader on a GPU ends with its helpers: where one is gone, a collective waits for ever.

    On a CPU the others hear of it by themselves.
    """
    if torch.device(device).type != "cuda":
        yield
        return
    done = threading.Event()

    def watch() -> None:
        while not done.wait(WATCH_SECONDS):
            lost = group.lost()
            if lost is not None and not done.wait(GRACE_SECONDS):
                print(f"this process ends: {group.failure() or lost}", flush=True)
                end(1)
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
