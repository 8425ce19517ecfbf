"""Checkpoints on disk: the newest whole one is found, whatever else lies there, and nothing that lies there raises."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wsl_sweep.errors import StorageError
from wsl_sweep.storage import DiskPlace, Place, place
from wsl_sweep.training.attempts import MANIFEST, ROWS, STATE, TENSORS, Attempts, Checkpoint, Row

TRIAL = "0123456789ab"
MADE_WITH = {"code": "c", "torch": "2", "device": "cpu", "data": "d", "teacher": None, "own": None}


def rows(epochs: int) -> list[Row]:
    return [{"epoch": epoch, "train/loss": 1 / epoch, "timestamp": 1e9 + epoch} for epoch in range(1, epochs + 1)]


def checkpoint(epoch: int, step: int = 0, **changes: Any) -> Checkpoint:
    facts = {"computed": 3, "found": 4, "notes": ["full"]}
    one = Checkpoint(TRIAL, MADE_WITH, epoch, step, 1.5, rows(epoch), facts, {"a": [1, None]}, b"tensors %d" % epoch)
    return replace(one, **changes)


def newest(attempts: Attempts, **changes: Any) -> tuple[int, int, int] | None:
    """Attempt, epoch and step of what is found."""
    found, _ = attempts.newest(**({"trial_id": TRIAL, "fingerprint": MADE_WITH} | changes))
    return (found.attempt, found.checkpoint.epoch, found.checkpoint.step) if found else None


def folders(attempts: Attempts) -> list[str]:
    return [f"{one}/{name}" for one in attempts.folder.names() for name in (attempts.folder / one).names()]


@pytest.fixture(params=["disk", "object store"])
def attempts(request: pytest.FixtureRequest, tmp_path: Path) -> Attempts:
    where = tmp_path / "trials" if request.param == "disk" else f"memory://{uuid.uuid4().hex}"
    return Attempts(place(where) / TRIAL)


# --- what is saved is found ------------------------------------------------------------------------


def test_nothing_is_found_where_nothing_is(attempts: Attempts) -> None:
    assert attempts.newest(TRIAL, MADE_WITH) == (None, [])
    assert attempts.rows(1) == []


def test_a_checkpoint_comes_back_as_it_was(attempts: Attempts) -> None:
    attempts.save(2, checkpoint(3, 7))
    found, passed_over = Attempts(attempts.folder).newest(TRIAL, MADE_WITH)
    assert found is not None
    assert (found.attempt, found.checkpoint, passed_over) == (2, checkpoint(3, 7), [])
    assert folders(attempts) == ["attempt-2/epoch-3-step-7"]


def test_a_metric_may_be_no_number(attempts: Attempts) -> None:
    odd = [{**rows(1)[0], "teacher/kl": float("inf")}]
    attempts.save(1, checkpoint(1, rows=odd))
    assert newest(attempts) == (1, 1, 0)
    assert attempts.rows(1) == odd


@pytest.mark.parametrize(
    ("saved", "wanted"),
    [
        ([(1, 1, 0), (1, 2, 0)], (1, 2, 0)),
        ([(1, 2, 0), (2, 1, 5)], (1, 2, 0)),
        ([(1, 2, 0), (2, 2, 1)], (2, 2, 1)),
        ([(1, 9, 0), (1, 10, 0)], (1, 10, 0)),
        ([(1, 2, 9), (1, 2, 10)], (1, 2, 10)),
        ([(9, 2, 0), (10, 2, 0)], (10, 2, 0)),
    ],
)
def test_the_most_advanced_is_found(
    saved: list[tuple[int, int, int]], wanted: tuple[int, int, int], tmp_path: Path
) -> None:
    attempts = Attempts(place(tmp_path))
    for attempt, epoch, step in saved:
        attempts.save(attempt, checkpoint(epoch, step), keep_all=True)
    assert newest(attempts) == wanted


def test_the_last_two_stay(attempts: Attempts) -> None:
    for epoch in range(1, 5):
        attempts.save(1, checkpoint(epoch))
    assert folders(attempts) == ["attempt-1/epoch-3", "attempt-1/epoch-4"]
    later = Attempts(attempts.folder)
    assert newest(later) == (1, 4, 0)
    later.save(2, checkpoint(4, 2))
    assert folders(attempts) == ["attempt-1/epoch-4", "attempt-2/epoch-4-step-2"]


def test_all_stay_where_they_are_wanted(attempts: Attempts) -> None:
    for epoch in range(1, 5):
        attempts.save(1, checkpoint(epoch), keep_all=True)
    assert len(folders(attempts)) == 4


def test_a_training_that_begins_anew_keeps_its_own_and_not_the_more_advanced(attempts: Attempts) -> None:
    attempts.save(1, checkpoint(8, fingerprint={**MADE_WITH, "code": "older"}))
    attempts.save(1, checkpoint(9, fingerprint={**MADE_WITH, "code": "older"}))
    later = Attempts(attempts.folder)
    assert newest(later) is None
    later.save(2, checkpoint(1))
    later.save(2, checkpoint(2))
    assert folders(attempts) == ["attempt-2/epoch-1", "attempt-2/epoch-2"]


def test_a_damaged_one_goes_before_the_one_that_was_used(tmp_path: Path) -> None:
    attempts = Attempts(place(tmp_path))
    attempts.save(1, checkpoint(1))
    attempts.save(1, checkpoint(2))
    (tmp_path / "attempt-1/epoch-2" / TENSORS).write_bytes(b"torn")
    later = Attempts(place(tmp_path))
    assert newest(later) == (1, 1, 0)
    later.save(2, checkpoint(1, 3))
    assert folders(attempts) == ["attempt-1/epoch-1", "attempt-2/epoch-1-step-3"]


def test_one_that_cannot_be_deleted_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Place) -> None:
        raise StorageError("cannot delete")

    monkeypatch.setattr(DiskPlace, "delete", refuse)
    attempts = Attempts(place(tmp_path))
    for epoch in range(1, 5):
        attempts.save(1, checkpoint(epoch))
    assert len(folders(attempts)) == 4


def test_one_that_cannot_be_written_is(tmp_path: Path) -> None:
    (tmp_path / "attempt-1").write_text("in the way")
    with pytest.raises(StorageError, match="cannot write"):
        Attempts(place(tmp_path)).save(1, checkpoint(1))


def test_a_storage_that_does_not_answer_is_not_taken_for_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dead(self: Place) -> list[str]:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(DiskPlace, "names", dead)
    with pytest.raises(StorageError, match="Input/output error"):
        newest(Attempts(place(tmp_path)))


# --- what is passed over ---------------------------------------------------------------------------


def reasons(attempts: Attempts, **changes: Any) -> str:
    found, passed_over = attempts.newest(**({"trial_id": TRIAL, "fingerprint": MADE_WITH} | changes))
    assert found is None or found.checkpoint == checkpoint(1)
    return "\n".join(passed_over)


@pytest.fixture
def two(tmp_path: Path) -> Attempts:
    """Epoch 1, whole, and epoch 2, for a test to damage."""
    attempts = Attempts(place(tmp_path))
    attempts.save(1, checkpoint(1))
    attempts.save(1, checkpoint(2))
    return Attempts(place(tmp_path))


def test_one_of_another_trial_or_made_with_something_else_says_so(two: Attempts) -> None:
    assert "of another trial, 0123456789ab" in reasons(two, trial_id="fff")
    text = reasons(two, fingerprint={**MADE_WITH, "device": "H100", "own": "x"})
    assert text.count("made with another device, own") == 2


def test_one_that_does_not_fit_says_so(two: Attempts) -> None:
    def fits(one: Checkpoint) -> None:
        if one.epoch == 2:
            raise RuntimeError("body.0.weight is too wide\nand more")

    found, passed_over = two.newest(TRIAL, MADE_WITH, fits)
    assert found is not None
    assert passed_over == ["attempt-1/epoch-2: body.0.weight is too wide"]


def hashed_again(folder: Path) -> None:
    """Makes the manifest say what the files are."""
    manifest = json.loads((folder / MANIFEST).read_text())
    for name in (TENSORS, STATE):
        content = (folder / name).read_bytes()
        manifest["files"][name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    (folder / MANIFEST).write_text(json.dumps(manifest))


def deep(folder: Path) -> None:
    for name in (STATE, MANIFEST):
        (folder / name).write_text("[" * 100_000)


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "no manifest": lambda folder: (folder / MANIFEST).unlink(),
    "no state": lambda folder: (folder / STATE).unlink(),
    "no tensors": lambda folder: (folder / TENSORS).unlink(),
    "half": lambda folder: (folder / TENSORS).write_bytes(b"tens"),
    "empty": lambda folder: [path.write_bytes(b"") for path in folder.iterdir()],
    "a file": lambda folder: (shutil.rmtree(folder), folder.write_text("x")),
    "folders": lambda folder: [(path.unlink(), path.mkdir()) for path in list(folder.iterdir())],
    "nested": deep,
    "another's": lambda folder: (shutil.rmtree(folder), shutil.copytree(folder.parent / "epoch-1", folder)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_one_is_passed_over_with_a_reason(damage: str, two: Attempts, tmp_path: Path) -> None:
    DAMAGES[damage](tmp_path / "attempt-1" / "epoch-2")
    assert newest(two) == (1, 1, 0)
    assert reasons(two).startswith("attempt-1/epoch-2: ")
    assert len(two.rows(1)) in (1, 2)


ODD: list[Any] = [
    None,
    True,
    -1,
    1e400,
    float("nan"),
    10**400,
    "1",
    [],
    {},
    [[]],
    {"epoch": 1},
    [{"epoch": "1"}],
    [None],
]


@pytest.mark.parametrize("name", [STATE, MANIFEST])
@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_entries_of_an_odd_kind_raise_nothing(odd: Any, name: str, two: Attempts, tmp_path: Path) -> None:
    """With hashes that are right."""
    folder = tmp_path / "attempt-1" / "epoch-2"
    good = json.loads((folder / name).read_text())
    for key in (*good, None):
        (folder / name).write_text(json.dumps(odd if key is None else {**good, key: odd}))
        with contextlib.suppress(ValueError, TypeError, KeyError):
            hashed_again(folder)
        assert newest(two) in ((1, 1, 0), (1, 2, 0))
        assert two.rows(1) in (rows(1), rows(2))
    if name == STATE:
        for key in ("seconds", "rows", "fingerprint"):
            (folder / name).write_text(json.dumps({**good, key: odd}))
            hashed_again(folder)
            assert newest(two) == (1, 1, 0)


@pytest.mark.parametrize(
    "name", ["attempt-x", "attempt-01", "attempt-1/epoch-03", "attempt-1/epoch-3-step-0", "attempt-1/epoch-", "epoch-9"]
)
def test_what_is_no_checkpoint_is_not_looked_at(name: str, two: Attempts, tmp_path: Path) -> None:
    shutil.copytree(tmp_path / "attempt-1" / "epoch-1", tmp_path / name, dirs_exist_ok=True)
    assert two.newest(TRIAL, MADE_WITH)[1] == []


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_becomes_of_a_file_the_older_one_is_used(data: st.DataObject, tmp_path: Path) -> None:
    """Cut short, or overwritten anywhere; only where the bytes stay what they were is the newest one used."""
    shutil.rmtree(tmp_path / "t", ignore_errors=True)
    attempts = Attempts(place(tmp_path / "t"))
    attempts.save(1, checkpoint(1))
    attempts.save(1, checkpoint(2))
    path = tmp_path / "t" / "attempt-1" / "epoch-2" / data.draw(st.sampled_from([TENSORS, STATE, MANIFEST]))
    whole = path.read_bytes()
    if data.draw(st.booleans()):
        path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    else:
        start, new = data.draw(st.integers(0, len(whole))), data.draw(st.binary(min_size=1, max_size=40))
        path.write_bytes(whole[:start] + new + whole[start + len(new) :])
    found, passed_over = Attempts(place(tmp_path / "t")).newest(TRIAL, MADE_WITH)
    assert found is not None
    if found.checkpoint.epoch == 2:
        assert found.checkpoint == checkpoint(2)  # the same bytes, or a blank in the manifest
    else:
        assert found.checkpoint == checkpoint(1)
        assert len(passed_over) == 1
    assert Attempts(place(tmp_path / "t")).rows(1) in (rows(1), rows(2))


# --- rows ------------------------------------------------------------------------------------------


def test_rows_are_those_of_the_newest_whole_checkpoint(attempts: Attempts) -> None:
    attempts.save(1, checkpoint(1))
    attempts.save(1, checkpoint(2))
    attempts.save(2, checkpoint(3))
    assert [len(attempts.rows(attempt)) for attempt in (1, 2, 3)] == [2, 3, 0]
    (attempts.folder / "attempt-1" / "epoch-2" / STATE).write(b"torn")
    assert attempts.rows(1) == []  # epoch 1 went when epoch 3 came
    (attempts.folder / "attempt-2" / "epoch-3" / TENSORS).write(b"torn")
    assert attempts.rows(2) == rows(3)  # the tensors are not looked at


def test_rows_of_their_own_file_and_of_a_later_checkpoint(attempts: Attempts) -> None:
    (attempts.folder / "attempt-1" / ROWS).write_json(rows(4))
    assert attempts.rows(1) == rows(4)
    attempts.save(1, checkpoint(6))
    assert attempts.rows(1) == rows(6)
    (attempts.folder / "attempt-1" / "epoch-6" / MANIFEST).delete()
    assert attempts.rows(1) == rows(4)


@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_rows_that_are_none_are_not_returned(odd: Any, tmp_path: Path) -> None:
    (tmp_path / "attempt-1").mkdir()
    (tmp_path / "attempt-1" / ROWS).write_text(json.dumps(odd))
    assert Attempts(place(tmp_path)).rows(1) == []


def test_reading_a_trials_files_needs_no_torch(tmp_path: Path) -> None:
    Attempts(place(tmp_path)).save(1, checkpoint(2))
    program = (
        "import sys; from wsl_sweep.training.attempts import Attempts; from wsl_sweep.storage import place\n"
        f"print(len(Attempts(place({str(tmp_path)!r})).rows(1)), 'torch' in sys.modules, 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["2", "False", "False"]


@pytest.mark.parametrize("error", [StorageError("it does not answer"), OSError(errno.EIO, "Input/output error")])
def test_a_storage_that_does_not_answer_costs_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """It would be begun anew, and the good ones deleted: the trial stops instead."""
    attempts = Attempts(place(tmp_path / TRIAL))
    attempts.save(1, checkpoint(1))

    def fails(self: Place) -> bytes:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(DiskPlace, "read_bytes", fails)
        with pytest.raises(StorageError):
            Attempts(attempts.folder).newest(TRIAL, MADE_WITH)
    assert newest(Attempts(attempts.folder)) == (1, 1, 0)
