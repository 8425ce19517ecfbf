"""Rows by cell: each filled once by many processes, and never believed half."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wsl_sweep.training import records
from wsl_sweep.training.records import HEADER_WORDS, Cells, LockedOutError, RecordFile, Waiting, Words, set_aside

from .conftest import asleep_with_the_lock

WORDS = 5
ROW_BYTES = 4 * (WORDS + 2)
PLENTY = 10**8

ALONE = f"""
import importlib.util, os, sys, time
from pathlib import Path
import numpy as np
spec = importlib.util.spec_from_file_location("records", {records.__file__!r})
records = sys.modules["records"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(records)
RecordFile, Waiting = records.RecordFile, records.Waiting
"""
"""The module by itself: its package would bring torch, which takes seconds."""

FILLER = """
folder, signs, name, cells = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
records = RecordFile(folder, cells, 5, 10**8)
(signs / f"{name}-ready").touch()
while not (signs / "go").exists():
    time.sleep(0.005)
wanted = np.random.default_rng(int(name)).permutation(cells)
there = np.zeros(cells, dtype=bool)
waiting = Waiting()
while not there.all():
    missing = wanted[~there[wanted]]
    claimed = records.claim(missing, 64)
    if len(claimed):
        with (signs / "log").open("a") as file:
            file.write("".join(f"{cell}\\n" for cell in claimed))
        rows = (claimed[:, None] * 7 + np.arange(5)).astype(np.uint32)
        assert records.put(claimed, rows)
        waiting.progress()
    else:
        records.wait(missing, waiting)
    rows, there = records.find(np.arange(cells))
    assert (rows[there] == (np.flatnonzero(there)[:, None] * 7 + np.arange(5))).all()
records.close()
"""

CLAIMER = """
file, how = RecordFile(Path(sys.argv[1]), 100, 5, 10**8), sys.argv[3]
mine = file.claim(np.arange(100), 40)

def stop(*_):
    Path(sys.argv[2]).touch()
    time.sleep(600)

def half(handle, content, offset):
    written(handle, bytes(content)[: len(content) // 2], offset)
    stop()

written = os.pwrite
if how == "while it writes":
    os.pwrite = half
if how != "before it writes":
    if how == "before it tells":
        real = records._write
        records._write = lambda *of: (real(*of), stop())
    file.put(mine, (mine[:, None] * 7 + np.arange(5)).astype(np.uint32))
stop()
"""


def content(cells: Cells) -> Words:
    """What belongs to a cell."""
    return (cells[:, None] * 7 + np.arange(WORDS)).astype(np.uint32)


def numbers(*cells: int) -> Cells:
    return np.array(cells, dtype=np.int64)


Open = Callable[..., RecordFile]


@pytest.fixture
def open_file(tmp_path: Path) -> Iterator[Open]:
    """Opens the test's file, as another process would; closed at the end."""
    opened: list[RecordFile] = []

    def make(cells: int = 100, words: int = WORDS, most_bytes: int = PLENTY) -> RecordFile:
        opened.append(RecordFile(tmp_path / "bank", cells, words, most_bytes))
        return opened[-1]

    yield make
    for one in opened:
        one._closing.close()


def fill(file: RecordFile, cells: Cells) -> None:
    assert len(file.claim(cells, len(cells))) == len(cells)
    assert file.put(cells, content(cells))


def holds(file: RecordFile, cells: Cells) -> list[bool]:
    """Which of the cells are there; what is there must be right."""
    rows, there = file.find(cells)
    assert (rows[there] == content(cells)[there]).all()
    return [bool(one) for one in there]


# --- one process -----------------------------------------------------------------------------------


def test_what_was_put_is_found_by_whoever_looks(open_file: Open) -> None:
    one, other = open_file(), open_file()
    assert holds(one, numbers(3, 1)) == [False, False]
    fill(one, numbers(3, 1))
    assert holds(one, numbers(1, 2, 3)) == holds(other, numbers(1, 2, 3)) == [True, False, True]
    one.close()
    assert holds(open_file(), numbers(3, 3, 99, 1, 3)) == [True, True, False, True, True]


def test_rows_come_in_the_order_of_the_question(open_file: Open) -> None:
    file = open_file()
    for cells in (numbers(50, 2), numbers(7), numbers(0, 99)):
        fill(file, cells)
    wanted = numbers(99, 2, 50, 7, 0, 2)
    assert (file.find(wanted)[0] == content(wanted)).all()


def test_a_claimed_cell_is_given_to_nobody_else(open_file: Open) -> None:
    one, other = open_file(), open_file()
    assert one.claim(numbers(5, 6, 7), 2).tolist() == [5, 6]
    assert other.claim(numbers(5, 6, 7), 9).tolist() == [7]
    assert one.claim(numbers(5, 6, 7), 9).tolist() == other.claim(numbers(5, 6, 7), 9).tolist() == []


def test_what_is_released_or_closed_can_be_claimed_again(open_file: Open) -> None:
    one, other = open_file(), open_file()
    one.claim(numbers(5, 6, 7), 9)
    other.release(numbers(5, 6, 7))  # not its own
    assert other.claim(numbers(5, 6, 7), 9).tolist() == []
    one.release(numbers(6))
    assert other.claim(numbers(5, 6, 7), 9).tolist() == [6]
    one.close()
    assert other.claim(numbers(5, 6, 7), 9).tolist() == [5, 7]


def test_releasing_takes_no_row_away(open_file: Open) -> None:
    file = open_file()
    fill(file, numbers(1, 2))
    file.release(numbers(1, 2))
    assert holds(file, numbers(1, 2)) == [True, True]
    assert file.claim(numbers(1, 2), 9).tolist() == []


def test_owners_alive_have_numbers_of_their_own_and_the_dead_ones_are_used_again(open_file: Open) -> None:
    one, other = open_file(), open_file()
    assert one.owner != other.owner
    number = one.owner
    one.close()
    assert open_file().owner == number


def test_usage_says_what_there_is_and_what_it_was_good_for(open_file: Open, tmp_path: Path) -> None:
    file = open_file()
    fill(file, numbers(1, 2, 3))
    file.claim(numbers(8), 1)
    file.count(found=5, computed=2)
    file.count(found=1, computed=1)
    usage = RecordFile.peek(tmp_path / "bank", 100)
    assert usage == file.usage()
    assert (usage.rows, usage.cells, usage.found, usage.computed) == (3, 100, 6, 3)
    assert usage.bytes >= 8 * HEADER_WORDS + 4 * 100


def test_a_look_from_outside_writes_nothing_and_tells_what_is_no_file(open_file: Open, tmp_path: Path) -> None:
    open_file()
    with pytest.raises(ValueError, match="100 cells, not 99"):
        RecordFile.peek(tmp_path / "bank", 99)
    with pytest.raises(OSError):
        RecordFile.peek(tmp_path / "nowhere", 100)
    assert not (tmp_path / "nowhere").exists()
    (tmp_path / "bank" / "index").write_bytes(b"")
    with pytest.raises(ValueError):
        RecordFile.peek(tmp_path / "bank", 100)


@pytest.mark.parametrize("cells", [0, -1, 2**31])
def test_cells_that_cannot_be_numbered_are_refused(cells: int, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cells"):
        RecordFile(tmp_path / "bank", cells, WORDS, PLENTY)
    assert not (tmp_path / "bank").exists()


def test_an_index_of_another_length_is_refused_and_left_while_somebody_uses_it(open_file: Open) -> None:
    fill(open_file(), numbers(1))
    with pytest.raises(ValueError, match="another length, and is in use"):
        open_file(cells=101)
    assert holds(open_file(), numbers(1)) == [True]


def test_an_index_that_was_cut_is_begun_anew(tmp_path: Path) -> None:
    first = RecordFile(tmp_path / "bank", 100, WORDS, PLENTY)
    fill(first, numbers(1))
    first.close()
    os.truncate(tmp_path / "bank" / "index", 200)
    again = RecordFile(tmp_path / "bank", 100, WORDS, PLENTY)
    assert holds(again, numbers(1)) == [False]
    fill(again, numbers(1, 2))
    assert holds(again, numbers(1, 2)) == [True, True]
    again.close()


def files_open() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_file_that_cannot_be_opened_or_is_closed_leaves_nothing_open(open_file: Open, tmp_path: Path) -> None:
    fill(open_file(), numbers(1))
    before = files_open()
    for _ in range(3):
        with pytest.raises(ValueError):
            RecordFile(tmp_path / "bank", 7, WORDS, PLENTY)
        RecordFile(tmp_path / "bank", 100, WORDS, PLENTY).close()
    assert files_open() <= before + 3  # a map keeps its own handle until it is collected


# --- no room ---------------------------------------------------------------------------------------


def test_at_its_limit_a_file_takes_no_more_and_keeps_what_it_has(open_file: Open) -> None:
    file, other = open_file(most_bytes=5 * ROW_BYTES + 1), open_file()
    fill(file, numbers(1, 2, 3))
    assert not file.full
    mine = file.claim(numbers(4, 5, 6), 3)
    assert not file.put(mine, content(mine))
    assert file.full
    assert other.claim(numbers(4, 5, 6), 3).tolist() == [4, 5, 6]
    assert holds(file, numbers(1, 2, 3, 4)) == [True, True, True, False]


def test_the_last_row_that_fits_is_taken(open_file: Open) -> None:
    file = open_file(most_bytes=3 * ROW_BYTES)
    fill(file, numbers(1, 2, 3))
    assert not file.full
    assert os.path.getsize(file.folder / "rows") == 3 * ROW_BYTES


def no_space(*_: Any) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_on_a_full_disk_claims_are_given_back(open_file: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    file, other = open_file(), open_file()
    fill(file, numbers(1))
    mine = file.claim(numbers(2, 3), 2)
    monkeypatch.setattr(os, "pwrite", no_space)
    assert not file.put(mine, content(mine))
    assert file.full
    monkeypatch.undo()
    assert holds(other, numbers(1, 2, 3)) == [True, False, False]
    fill(other, numbers(2, 3))
    assert holds(file, numbers(1, 2, 3)) == [True] * 3


def test_a_disk_that_fills_in_the_middle_of_a_row_leaves_no_row(
    open_file: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, other, real = open_file(), open_file(), os.pwrite
    calls = iter(range(99))

    def half(handle: int, data: Any, offset: int) -> int:
        return real(handle, bytes(data)[: ROW_BYTES + 9], offset) if next(calls) == 0 else no_space()

    mine = file.claim(numbers(2, 3), 2)
    monkeypatch.setattr(os, "pwrite", half)
    assert not file.put(mine, content(mine))
    monkeypatch.undo()
    assert holds(other, numbers(2, 3)) == [False, False]
    fill(other, numbers(2, 3))
    assert holds(open_file(), numbers(2, 3)) == [True, True]


def test_short_writes_are_carried_on(open_file: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    file, real = open_file(), os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda handle, data, offset: real(handle, bytes(data)[:11], offset))
    fill(file, np.arange(20))
    assert all(holds(open_file(), np.arange(20)))


# --- damage ----------------------------------------------------------------------------------------


def test_no_changed_byte_of_a_row_is_believed(open_file: Open, tmp_path: Path) -> None:
    fill(open_file(), numbers(10, 20, 30))
    whole = (tmp_path / "bank" / "rows").read_bytes()
    for place in range(ROW_BYTES, 2 * ROW_BYTES):
        for change in (0x01, 0x80, 0xFF):
            damaged = bytearray(whole)
            damaged[place] ^= change
            (tmp_path / "bank" / "rows").write_bytes(damaged)
            file = RecordFile(tmp_path / "bank", 100, WORDS, PLENTY)
            assert holds(file, numbers(10, 20, 30)) == [True, False, True], place
            file._index[20] = 2
            file.close()


def test_a_damaged_row_is_filled_again(open_file: Open, tmp_path: Path) -> None:
    fill(open_file(), numbers(10, 20))
    rows = tmp_path / "bank" / "rows"
    rows.write_bytes(bytes(ROW_BYTES) + rows.read_bytes()[ROW_BYTES:])
    file = open_file()
    assert file.claim(numbers(10), 1).tolist() == []  # nobody has noticed
    assert holds(file, numbers(10, 20)) == [False, True]
    fill(file, numbers(10))
    assert holds(open_file(), numbers(10, 20)) == [True, True]


@pytest.mark.parametrize("left", [0, 1, ROW_BYTES - 1, ROW_BYTES, 2 * ROW_BYTES + 5])
def test_rows_that_were_cut_off_are_filled_again(left: int, open_file: Open, tmp_path: Path) -> None:
    fill(open_file(), numbers(0, 20, 30))
    os.truncate(tmp_path / "bank" / "rows", left)
    file, whole = open_file(), left // ROW_BYTES
    assert holds(file, numbers(0, 20, 30)) == [number < whole for number in range(3)]
    fill(file, numbers(0, 20, 30)[whole:])
    assert holds(open_file(), numbers(0, 20, 30)) == [True] * 3


@pytest.mark.parametrize("size", ["empty", "zeros"])
def test_a_lost_index_costs_the_rows_and_no_more(size: str, open_file: Open, tmp_path: Path) -> None:
    fill(open_file(), numbers(0, 20, 30))
    index = tmp_path / "bank" / "index"
    index.write_bytes(b"" if size == "empty" else bytes(index.stat().st_size))
    file = open_file()
    assert holds(file, numbers(0, 20, 30)) == [False] * 3
    fill(file, numbers(30, 0))
    assert holds(open_file(), numbers(0, 20, 30)) == [True, False, True]


@pytest.mark.parametrize("entry", [1, 3, 4, 1000, 2**31 - 1])
def test_an_entry_that_names_another_cells_row_or_none_is_not_believed(entry: int, open_file: Open) -> None:
    file = open_file()
    fill(file, numbers(10, 20, 30))
    file._index[20] = entry
    assert holds(file, numbers(10, 20, 30)) == [True, False, True]
    fill(file, numbers(20))
    assert holds(open_file(), numbers(10, 20, 30)) == [True] * 3


def test_a_claim_of_nobody_is_given_up(open_file: Open) -> None:
    file, waiting = open_file(), Waiting()
    file._index[20] = -12345
    begun = time.monotonic()
    while not len(file.claim(numbers(20), 1)):
        file.wait(numbers(20), waiting)
        assert time.monotonic() - begun < 20


def test_a_next_place_that_was_lost_costs_rows_that_are_noticed(open_file: Open) -> None:
    """The index's first page is of an earlier time than its others."""
    file = open_file()
    fill(file, numbers(10, 20, 30))
    file._header[0] = 1
    fill(file, numbers(40))
    assert holds(open_file(), numbers(10, 20, 30, 40)) == [True, False, True, True]


# --- locks -----------------------------------------------------------------------------------------


def test_behind_a_process_that_sleeps_with_the_lock_nobody_waits_for_ever(
    open_file: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "LOCK_PATIENCE", 0.3)
    file = open_file()
    fill(file, numbers(1, 2))
    file.claim(numbers(3), 1)
    with asleep_with_the_lock(tmp_path / "bank"):
        assert holds(file, numbers(1, 2, 3)) == [True, True, False]
        for call in (
            lambda: file.claim(numbers(4), 1),
            lambda: file.release(numbers(3)),
            lambda: file.put(numbers(3), content(numbers(3))),
            lambda: file.count(1, 1),
            open_file,
            lambda: set_aside(tmp_path / "bank"),
        ):
            begun = time.monotonic()
            with pytest.raises(LockedOutError, match=r"sleeps holds the lock of .*bank"):
                call()
            assert 0.3 <= time.monotonic() - begun < 5
        begun = time.monotonic()
        file.close()
        assert time.monotonic() - begun < 5
    after = open_file()
    assert holds(after, numbers(1, 2, 3)) == [True, True, False]
    assert after.claim(numbers(3, 4), 2).tolist() == [3, 4]  # also what was claimed by who could not say that it goes


def test_a_lock_that_comes_back_in_time_is_waited_for(open_file: Open, tmp_path: Path) -> None:
    file = open_file()
    with contextlib.ExitStack() as stack:
        stack.enter_context(asleep_with_the_lock(tmp_path / "bank"))
        timer = threading.Timer(0.3, stack.close)
        timer.start()
        assert file.claim(numbers(1), 1).tolist() == [1]
        timer.join()


def test_a_folder_in_use_is_not_set_aside_and_an_idle_one_is_renamed(open_file: Open, tmp_path: Path) -> None:
    file, folder = open_file(), tmp_path / "bank"
    fill(file, numbers(1))
    assert set_aside(folder) is None
    assert holds(file, numbers(1)) == [True]
    file.close()
    gone = set_aside(folder)
    assert gone is not None
    assert gone.parent == tmp_path
    assert not folder.exists()
    assert RecordFile.peek(gone, 100).rows == 1
    assert holds(open_file(), numbers(1)) == [False]
    assert folder.is_dir()


def test_a_folder_that_was_replaced_while_it_was_opened_is_told(
    open_file: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files_open()
    with monkeypatch.context() as patch:
        patch.setattr(records, "_is", lambda *_: False)
        with pytest.raises(OSError, match="deleted just now") as told:
            open_file()
    assert told.value.errno == errno.ESTALE
    assert files_open() == before
    fill(open_file(), numbers(1))


def test_an_open_file_is_told_from_another_at_its_place(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with path.open("w") as file:
        assert records._is(file.fileno(), path)
        path.rename(tmp_path / "aside")
        assert not records._is(file.fileno(), path)
        path.touch()
        assert not records._is(file.fileno(), path)
        assert records._is(file.fileno(), tmp_path / "aside")


# --- slow and dead owners --------------------------------------------------------------------------


def test_an_owner_that_sleeps_too_long_loses_its_claims_and_cannot_overwrite(
    open_file: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, other = open_file(), open_file()
    mine = slow.claim(numbers(1, 2, 3), 3)
    waiting = Waiting()
    monkeypatch.setattr(records, "PATIENCE", 0.6)
    begun = time.monotonic()
    while not len(other.claim(numbers(1, 2), 2)):
        other.wait(numbers(1, 2), waiting)
        assert time.monotonic() - begun < 20
    assert time.monotonic() - begun >= 0.6
    assert other.put(numbers(1, 2), content(numbers(1, 2)))
    assert slow.put(mine, np.zeros((3, WORDS), dtype=np.uint32))
    assert holds(other, numbers(1, 2, 3)) == holds(slow, numbers(1, 2, 3)) == [True, True, False]
    fill(other, numbers(3))


def test_as_long_as_something_moves_the_living_are_waited_for(open_file: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    slow, other, waiting = open_file(), open_file(), Waiting()
    monkeypatch.setattr(records, "PATIENCE", 0.6)
    slow.claim(numbers(1), 1)
    begun = time.monotonic()
    while time.monotonic() - begun < 1.3:
        other.wait(numbers(1), waiting)
        waiting.progress()
    assert other.claim(numbers(1), 1).tolist() == []


def wait_for(*paths: Path) -> None:
    deadline = time.monotonic() + 60
    while not all(path.exists() for path in paths):
        assert time.monotonic() < deadline, f"waited in vain for {paths}"
        time.sleep(0.005)


@pytest.mark.parametrize("moment", ["before it writes", "while it writes", "before it tells"])
def test_what_a_killed_process_had_claimed_is_taken_over(moment: str, open_file: Open, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", ALONE + CLAIMER, str(tmp_path / "bank"), str(tmp_path / "sign"), moment]
    )
    try:
        wait_for(tmp_path / "sign")
        file, waiting, cells = open_file(), Waiting(), np.arange(100)
        assert len(file.claim(cells, 100)) == 60
        assert not any(holds(file, cells))
        file.wait(cells, waiting)
        assert len(file.claim(cells, 100)) == 0
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=60)
    begun, taken = time.monotonic(), numbers()
    while len(taken) < 40:
        file.wait(cells, waiting)
        assert not any(holds(file, cells))
        taken = np.concatenate([taken, file.claim(cells, 100)])
        assert time.monotonic() - begun < 20
    assert file.put(taken, content(taken))
    assert holds(open_file(), cells) == [cell < 40 for cell in range(100)]


def test_who_comes_after_a_killed_process_finds_its_claims_empty(open_file: Open, tmp_path: Path) -> None:
    arguments = [str(tmp_path / "bank"), str(tmp_path / "sign"), "before it writes"]
    process = subprocess.Popen([sys.executable, "-c", ALONE + CLAIMER, *arguments])
    try:
        wait_for(tmp_path / "sign")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=60)
    assert len(open_file().claim(np.arange(100), 100)) == 100


def test_four_processes_fill_each_cell_once(open_file: Open, tmp_path: Path) -> None:
    names, cells = ("1", "2", "3", "4"), 2000
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", ALONE + FILLER, str(tmp_path / "bank"), str(tmp_path), name, str(cells)]
        )
        for name in names
    ]
    try:
        wait_for(*(tmp_path / f"{name}-ready" for name in names))
        (tmp_path / "go").touch()
        assert [process.wait(timeout=60) for process in processes] == [0] * 4
    finally:
        for process in processes:
            process.kill()
    computed = Counter(int(line) for line in (tmp_path / "log").read_text().split())
    assert computed == Counter(range(cells))
    assert all(holds(open_file(cells=cells), np.arange(cells)))
    assert (tmp_path / "bank" / "rows").stat().st_size == cells * ROW_BYTES


# --- any order -------------------------------------------------------------------------------------

ACTIONS = st.tuples(
    st.sampled_from(["claim", "put", "release", "find", "close", "damage"]),
    st.integers(0, 1),
    st.lists(st.integers(0, 7), min_size=1, max_size=6, unique=True),
)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions=st.lists(ACTIONS, max_size=25))
def test_two_handles_in_any_order_are_as_a_dictionary(
    actions: list[tuple[str, int, list[int]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("any") / "bank"
    handles = [RecordFile(folder, 8, WORDS, PLENTY) for _ in range(2)]
    model: dict[int, int | None] = {}
    """A cell's claimer, or None where its row is there."""
    for action, who, chosen in actions:
        file, cells = handles[who], np.array(chosen, dtype=np.int64)
        own = np.array([cell for cell in chosen if model.get(cell, -1) == who], dtype=np.int64)
        if action == "claim":
            wanted = [cell for cell in chosen if cell not in model][:3]
            assert file.claim(cells, 3).tolist() == wanted
            model |= dict.fromkeys(wanted, who)
        elif action == "put" and len(own):
            assert file.put(own, content(own))
            model |= dict.fromkeys(own.tolist(), None)
        elif action == "release":
            file.release(cells)
            model = {cell: of for cell, of in model.items() if not (cell in chosen and of == who)}
        elif action == "close":
            file.close()
            handles[who] = RecordFile(folder, 8, WORDS, PLENTY)
            model = {cell: of for cell, of in model.items() if of != who}
        elif action == "damage" and model.get(chosen[0], -1) is None:
            file._index[chosen[0]] += 1
            assert holds(file, cells[:1]) == [False]
            model.pop(chosen[0])
        assert holds(handles[who], cells) == [model.get(cell, -1) is None for cell in chosen]
    for file in handles:
        file.close()
