"""One driver at a time: who holds a lease, who is refused, and when it is taken over."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from wsl_sweep import storage
from wsl_sweep.errors import WslSweepError
from wsl_sweep.storage import Place, place
from wsl_sweep.sweep import lease as lease_module
from wsl_sweep.sweep.lease import Lease, LeaseLostError, holder

pytest_plugins = ["tests.object_store"]

SHORT = 2.5
RENEW = 0.25

BOTH = pytest.mark.parametrize("kind", ["disk", "s3"])
GARBAGE = [
    b"",
    b"not json",
    b"[1, 2]",
    b"{}",
    b"null",
    b'{"host": 3, "pid": "x", "taken": "y", "renewed": [], "expires": "soon"}',
    b'{"expires": null, "pid": null, "taken": {}}',
]

HOLD = """
import sys
from wsl_sweep.storage import place
from wsl_sweep.sweep.lease import Lease
lease = Lease.take(place(sys.argv[1]))
print("held", flush=True)
sys.stdin.readline()
lease.release()
"""

TRY = """
import sys, time
from wsl_sweep.errors import WslSweepError
from wsl_sweep.storage import place
from wsl_sweep.sweep.lease import Lease
where, start = sys.argv[1:]
sweep = place(where)
sweep.exists()
time.sleep(max(0.0, float(start) - time.time()))
try:
    lease = Lease.take(sweep)
except WslSweepError as error:
    print("refused")
else:
    print("taken", flush=True)
    time.sleep(5)
"""


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "LEASE_SECONDS", SHORT)
    monkeypatch.setattr(lease_module, "RENEW_SECONDS", RENEW)


@pytest.fixture
def sweep(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """The folder of a sweep."""
    return (place(tmp_path) if kind == "disk" else place(request.getfixturevalue("s3"))) / "alpha"


@pytest.fixture
def on_disk(tmp_path: Path) -> Place:
    """The same, on a disk."""
    return place(tmp_path) / "alpha"


@pytest.fixture
def take() -> Iterator[Callable[..., Lease]]:
    """``Lease.take``, given back after the test."""
    taken: list[Lease] = []

    def act(*arguments: Any) -> Lease:
        taken.append(Lease.take(*arguments))
        return taken[-1]

    yield act
    for one in taken:
        one.release()


def start(program: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


@pytest.fixture
def elsewhere() -> Iterator[Callable[[Place], subprocess.Popen[str]]]:
    """Has another process take the lease of a sweep."""
    started: list[subprocess.Popen[str]] = []

    def act(sweep: Place) -> subprocess.Popen[str]:
        process = start(HOLD, str(sweep))
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    yield act
    for process in started:
        process.kill()
        process.communicate()


def foreign(**changed: Any) -> bytes:
    """The lease of a driver on another machine, renewed a moment ago."""
    now = time.time()
    content = {
        "owner": uuid.uuid4().hex,
        "host": "elsewhere",
        "pid": 4711,
        "process": {"boot": "b", "namespace": "n", "start": "1"},
        "taken": now - 60,
        "renewed": now,
        "expires": now + SHORT,
        "released": False,
    }
    return json.dumps(content | changed).encode()


@BOTH
def test_a_second_driver_in_the_same_process_is_refused_and_told_who_holds_it(
    sweep: Place, take: Callable[..., Lease]
) -> None:
    first = take(sweep)
    with pytest.raises(WslSweepError, match="is being run by") as refused:
        Lease.take(sweep)
    assert f"process {os.getpid()} on {socket.gethostname()}" in str(refused.value)
    assert "wsl-sweep stop alpha" in str(refused.value)
    assert refused.value.exit_code == 2
    assert first.held
    found = holder(sweep)
    assert found is not None
    assert (found.host, found.pid, found.alive) == (socket.gethostname(), os.getpid(), True)


def test_a_driver_in_another_process_holds_until_it_gives_back(
    on_disk: Place, take: Callable[..., Lease], elsewhere: Callable[[Place], subprocess.Popen[str]]
) -> None:
    other = elsewhere(on_disk)
    with pytest.raises(WslSweepError, match=f"process {other.pid} on {socket.gethostname()}"):
        Lease.take(on_disk)
    other.communicate("\n", timeout=30)
    assert holder(on_disk) is None
    begun = time.monotonic()
    assert take(on_disk).stale is None
    assert time.monotonic() - begun < 1


@BOTH
def test_of_a_driver_that_was_killed_the_lease_is_taken_at_once(
    sweep: Place, take: Callable[..., Lease], elsewhere: Callable[[Place], subprocess.Popen[str]]
) -> None:
    other = elsewhere(sweep)
    os.kill(other.pid, signal.SIGKILL)
    other.wait()
    assert holder(sweep) is None
    begun = time.monotonic()
    lease = take(sweep)
    assert time.monotonic() - begun < 2
    assert lease.stale is not None
    assert (lease.stale.pid, lease.stale.alive) == (other.pid, False)
    assert lease.takeover


def test_a_driver_that_is_stopped_but_there_still_holds(
    on_disk: Place, elsewhere: Callable[[Place], subprocess.Popen[str]]
) -> None:
    other = elsewhere(on_disk)
    os.kill(other.pid, signal.SIGSTOP)
    with pytest.raises(WslSweepError, match="is being run by"):
        Lease.take(on_disk)


@BOTH
def test_given_back_it_is_taken_at_once_and_one_file_stays(sweep: Place, take: Callable[..., Lease]) -> None:
    for _ in range(3):
        lease = take(sweep)
        assert lease.stale is None
        lease.release()
        lease.release()
        assert holder(sweep) is None
    assert len((sweep / "lease").names()) == 1


@BOTH
def test_a_lease_is_renewed(sweep: Place, take: Callable[..., Lease]) -> None:
    lease = take(sweep)
    time.sleep(1.6 * SHORT)
    assert lease.held
    with pytest.raises(WslSweepError):
        Lease.take(sweep)


@BOTH
def test_of_another_machines_driver_that_renews_nothing_is_taken(sweep: Place) -> None:
    file, end, said = sweep / "lease" / "000001.json", threading.Event(), list[str]()
    file.write(foreign())

    def renew() -> None:
        while not end.wait(0.3):
            file.write(foreign(), lasting=False)

    renewing = threading.Thread(target=renew)
    renewing.start()
    try:
        with pytest.raises(WslSweepError, match="process 4711 on elsewhere"):
            Lease.take(sweep, said.append)
        found = holder(sweep)
    finally:
        end.set()
        renewing.join()
    assert "process 4711 on elsewhere" in said[0]
    assert found is not None
    assert found.alive is None


@BOTH
def test_of_another_machines_driver_that_is_silent_it_is_taken_over_in_time_and_said(
    sweep: Place, take: Callable[..., Lease]
) -> None:
    (sweep / "lease" / "000007.json").write(foreign())
    said: list[str] = []
    begun = time.monotonic()
    lease = take(sweep, said.append)
    assert SHORT <= time.monotonic() - begun < SHORT + 3
    assert len(said) == 1
    assert lease.stale is not None
    assert str(lease.stale) == "process 4711 on elsewhere"
    assert (sweep / "lease").names() == ["000008.json"]


def test_a_driver_elsewhere_that_gives_back_meanwhile_leaves_it_to_the_next(
    on_disk: Place, take: Callable[..., Lease]
) -> None:
    file = on_disk / "lease" / "000001.json"
    file.write(foreign())
    back = threading.Timer(0.5, lambda: file.write(foreign(released=True)))
    back.start()
    assert take(on_disk).held
    back.join()


def test_what_expired_long_ago_is_taken_without_waiting(on_disk: Place, take: Callable[..., Lease]) -> None:
    (on_disk / "lease" / "000001.json").write(foreign(expires=time.time() - 3600, renewed=time.time() - 3660))
    said: list[str] = []
    begun = time.monotonic()
    assert take(on_disk, said.append).held
    assert time.monotonic() - begun < 0.5
    assert said == []
    assert holder(on_disk) is not None


def test_a_process_with_the_same_number_after_a_restart_is_another(on_disk: Place, take: Callable[..., Lease]) -> None:
    process = lease_module._process(os.getpid()) | {"start": "1"}
    (on_disk / "lease" / "000001.json").write(foreign(host=socket.gethostname(), pid=os.getpid(), process=process))
    lease = take(on_disk)
    assert lease.stale is not None
    assert lease.stale.alive is False


def test_a_lease_that_cannot_be_read_is_somebodys_until_its_time_is_over(
    tmp_path: Path, take: Callable[..., Lease]
) -> None:
    """Waited for side by side."""

    def wait(number: int) -> tuple[bool, float, int]:
        sweep = place(tmp_path / str(number))
        (sweep / "lease" / "000001.json").write(GARBAGE[number])
        (sweep / "lease" / "notes.json").write(b"not one of ours")
        said: list[str] = []
        holder(sweep)
        begun = time.monotonic()
        held = take(sweep, said.append).held
        return held, time.monotonic() - begun, len(said)

    with ThreadPoolExecutor(len(GARBAGE)) as takers:
        for content, (held, seconds, said) in zip(GARBAGE, takers.map(wait, range(len(GARBAGE))), strict=True):
            assert held, content
            assert seconds >= SHORT, content
            assert said == 1, content


def test_a_lease_that_is_just_being_read_while_it_is_renewed_is_not_taken(on_disk: Place) -> None:
    """A reader of an object store may see half a file: it must wait for what comes next."""
    file = on_disk / "lease" / "000001.json"
    file.write(foreign()[:50])
    renew = threading.Timer(0.5, lambda: file.write(foreign()))
    renew.start()
    with pytest.raises(WslSweepError, match="is being run by"):
        Lease.take(on_disk)
    renew.join()


def eventually_lost(lease: Lease, seconds: float) -> str:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            lease.check()
        except LeaseLostError as error:
            return str(error)
        time.sleep(0.05)
    raise AssertionError("the lease is not lost")


def test_who_cannot_renew_stops_after_the_leases_time_and_not_before(on_disk: Place) -> None:
    lease = Lease.take(on_disk)
    folder = (on_disk / "lease").local
    assert folder is not None
    shutil.rmtree(folder)
    folder.write_text("in the way")
    begun = time.monotonic()
    assert "could not be renewed" in eventually_lost(lease, 2 * SHORT)
    assert time.monotonic() - begun > SHORT / 2
    assert not lease.held
    lease.release()
    assert folder.read_text() == "in the way"


def test_who_was_taken_over_stops_and_does_not_write_again(on_disk: Place) -> None:
    lease = Lease.take(on_disk)
    theirs = on_disk / "lease" / "000002.json"
    theirs.write(foreign())
    assert "another driver has taken it over" in eventually_lost(lease, SHORT)
    lease.release()
    assert theirs.read_json()["host"] == "elsewhere"
    assert (on_disk / "lease" / "000001.json").read_json()["released"] is False


def test_a_lease_with_the_same_number_and_another_owner_is_anothers(on_disk: Place) -> None:
    """A sweep's folder was deleted and begun anew elsewhere, under a driver that still ran."""
    lease = Lease.take(on_disk)
    on_disk.delete()
    file = on_disk / "lease" / "000001.json"
    file.write(foreign())
    assert "another driver has taken it over" in eventually_lost(lease, SHORT)
    lease.release()
    assert file.read_json()["host"] == "elsewhere"


def test_a_lease_whose_folder_cannot_be_written_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WslSweepError, match="cannot write"):
        Lease.take(place(tmp_path / "file"))


@BOTH
@pytest.mark.parametrize("before", ["nobody", "a dead driver", "one that gave back"])
def test_of_many_takers_at_once_exactly_one_gets_it(sweep: Place, before: str, kind: str) -> None:
    if before != "nobody":
        old = foreign(expires=time.time() - 3600, released=before == "one that gave back")
        (sweep / "lease" / "000003.json").write(old)
    together = threading.Barrier(8)

    def attempt(_: int) -> Lease | None:
        together.wait()
        try:
            return Lease.take(sweep)
        except WslSweepError:
            return None

    with ThreadPoolExecutor(8) as takers:
        taken = [lease for lease in takers.map(attempt, range(8)) if lease is not None]
    assert len(taken) == 1
    time.sleep(3 * RENEW)
    assert taken[0].held
    taken[0].release()


def test_a_taker_that_comes_too_late_for_its_number_is_refused(on_disk: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its look and its file others have come and gone, and the number that it makes is free again."""
    newest, seen = lease_module._newest, [(3, {"released": True})]
    monkeypatch.setattr(lease_module, "_newest", lambda folder: seen.pop() if seen else newest(folder))
    (on_disk / "lease" / "000005.json").write(foreign())
    with pytest.raises(WslSweepError, match="just taken"):
        Lease.take(on_disk)


def test_of_several_processes_at_once_exactly_one_gets_it(on_disk: Place) -> None:
    when = str(time.time() + 2.5)
    takers = [start(TRY, str(on_disk), when) for _ in range(4)]
    said = sorted(taker.communicate(timeout=60)[0].strip() for taker in takers)
    assert said == ["refused", "refused", "refused", "taken"]


def test_a_taker_that_died_at_that_very_moment_is_outlived(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an object store it leaves a claim, which counts for a while."""
    monkeypatch.setattr(storage, "CLAIM_SECONDS", 2.0)
    sweep = place(s3) / "alpha"
    (sweep / "lease" / ".000001.json.claim-0").write(b"")
    Lease.take(sweep).release()
