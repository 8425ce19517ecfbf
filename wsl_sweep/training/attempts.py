"""What lies on disk of a trial's attempts: checkpoints, of which a torn one is noticed, and rows. Without torch."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from wsl_sweep.errors import StorageError
from wsl_sweep.storage import Place
from wsl_sweep.training.lost import GONE

FORMAT = 1
"""Of a checkpoint; one of another is passed over."""

TENSORS, STATE, MANIFEST, ROWS = "tensors.safetensors", "state.json", "manifest.json", "rows.json"

KEPT = 2
"""Checkpoints of a trial: the newest, and the one before, should the newest be torn."""

Row = dict[str, float]
"""The metrics of one epoch; ``epoch`` counts from 1, ``timestamp`` is in seconds since 1970."""

_DAMAGED = (OSError, ValueError, TypeError, KeyError, RecursionError)
"""What reading a damaged file of JSON raises."""

_NUMBER = "(0|[1-9][0-9]{0,8})"
_ATTEMPT = re.compile(f"attempt-{_NUMBER}")
_CHECKPOINT = re.compile(f"epoch-{_NUMBER}(?:-step-([1-9][0-9]{{0,8}}))?")


class Stopped(Exception):
    """Somebody asked for the end: a training keeps where it stands before this goes on to who asked."""


@dataclass(frozen=True)
class CheckpointSettings:
    """When a trial's checkpoints are saved, and which stay.

    Attributes:
        epochs: one after each so many; there is always one after the last.
        minutes: within an epoch, one whenever so many have passed since the last; None for none.
        keep_all: whether they stay; else only the newest two do.
    """

    epochs: int = 1
    minutes: float | None = None
    keep_all: bool = False


@dataclass(frozen=True)
class Checkpoint:
    """A training between two steps, and what it has told so far.

    Attributes:
        trial_id: whose it is.
        fingerprint: with what it was made; only where that is the same does a training go on from it.
        epoch: whole epochs done.
        step: steps done of the epoch after them.
        seconds: that the training has taken.
        rows: of all epochs so far, earlier attempts' too.
        teacher: ``teacher_facts`` so far, or None without a teacher.
        training: what ``TrainingState`` says beside its tensors: plain data.
        tensors: its tensors as a safetensors file.
    """

    trial_id: str
    fingerprint: Mapping[str, str | None]
    epoch: int
    step: int
    seconds: float
    rows: Sequence[Row]
    teacher: Mapping[str, Any] | None
    training: Mapping[str, Any]
    tensors: bytes


@dataclass(frozen=True, order=True)
class Position:
    """Which checkpoint; the most advanced is the largest, of equal ones that of the latest attempt."""

    epoch: int
    step: int
    attempt: int

    @property
    def name(self) -> str:
        """Of its folder, in that of its attempt."""
        return f"epoch-{self.epoch}" + (f"-step-{self.step}" if self.step else "")

    def __str__(self) -> str:
        return f"attempt-{self.attempt}/{self.name}"


@dataclass(frozen=True)
class Found:
    """A checkpoint to go on from, and whose it was."""

    attempt: int
    checkpoint: Checkpoint


class Attempts:
    """The attempts at one trial: ``attempt-<n>/`` with checkpoints in ``epoch-<e>/`` or ``epoch-<e>-step-<s>/``.

    A checkpoint's tensors and state are written first and last of all a manifest with their hashes: only with it, and
    only if the hashes are right, does it count. So nothing waits for the disk, and a torn checkpoint costs what was
    done since the one before.

    Args:
        folder: ``trials/<trial id>``.
    """

    def __init__(self, folder: Place) -> None:
        self.folder = folder
        self._order: list[Position] | None = None  # the checkpoints that are there, those to go first

    def save(self, attempt: int, checkpoint: Checkpoint, *, keep_all: bool = False) -> None:
        """Writes a checkpoint and then, unless ``keep_all``, deletes all but the last two of the trial.

        Raises StorageError: it cannot be written. One that cannot be deleted stays.
        """
        at = Position(checkpoint.epoch, checkpoint.step, attempt)
        order = self._all() if self._order is None else self._order
        folder = self._folder(at)
        contents = {TENSORS: checkpoint.tensors, STATE: _state_bytes(checkpoint)}
        for name, content in contents.items():
            (folder / name).write(content, lasting=False)
        manifest = {
            "format": FORMAT,
            "trial_id": checkpoint.trial_id,
            **asdict(at),
            "files": {name: _facts_of(content) for name, content in contents.items()},
        }
        (folder / MANIFEST).write(json.dumps(manifest).encode(), lasting=False)
        self._order = [*(one for one in order if one != at), at]
        if not keep_all:
            self._prune()

    def newest(
        self,
        trial_id: str,
        fingerprint: Mapping[str, str | None],
        fits: Callable[[Checkpoint], None] = lambda checkpoint: None,
    ) -> tuple[Found | None, list[str]]:
        """The most advanced checkpoint of all attempts from which this trial can go on, and why others cannot be used.

        Args:
            trial_id: whose it must be.
            fingerprint: with what it must have been made.
            fits: raises where it does not fit the training.

        Returns:
            The checkpoint, or None; and of each more advanced one which it is and what is wrong with it.

        Raises:
            StorageError: the storage does not answer.
        """
        passed_over: list[str] = []
        positions = self._all()
        for at in reversed(positions):
            try:
                checkpoint = self._read(at, trial_id, fingerprint)
                fits(checkpoint)
            except StorageError:
                raise
            except Exception as error:  # damaged bytes fail in many ways, and none of them may end a trial
                if isinstance(error, OSError) and error.errno in GONE:
                    raise StorageError(f"cannot read {self._folder(at)}: {_line(error)}") from error
                passed_over.append(f"{at}: {_line(error)}")
                continue
            self._order = [*(one for one in positions if one != at), at]
            return Found(at.attempt, checkpoint), passed_over
        return None, passed_over

    def rows(self, attempt: int) -> list[Row]:
        """The rows of an attempt, and of those that it went on from, as far as they are on disk; nothing raises."""
        rows: list[Row] = []
        with contextlib.suppress(*_DAMAGED):
            rows = _checked_rows((self.folder / f"attempt-{attempt}" / ROWS).read_json())
        with contextlib.suppress(OSError):
            for at in reversed(self._checkpoints(attempt)):
                if at.epoch <= len(rows):
                    break
                try:
                    return _checked_rows(self._state(at, self._manifest(at))["rows"], at.epoch)
                except _DAMAGED:
                    continue
        return rows

    # --- inside --------------------------------------------------------------------------------------------------

    def _folder(self, at: Position) -> Place:
        return self.folder / f"attempt-{at.attempt}" / at.name

    def _all(self) -> list[Position]:
        """All checkpoints, whole or not, in ascending order."""
        try:
            attempts = [int(match[1]) for name in self.folder.names() if (match := _ATTEMPT.fullmatch(name))]
            return sorted(at for attempt in attempts for at in self._checkpoints(attempt))
        except OSError as error:
            raise StorageError(f"cannot read {self.folder}: {_line(error)}") from error

    def _checkpoints(self, attempt: int) -> list[Position]:
        names = (self.folder / f"attempt-{attempt}").names()
        found = filter(None, map(_CHECKPOINT.fullmatch, names))
        return sorted(Position(int(match[1]), int(match[2] or 0), attempt) for match in found)

    def _prune(self) -> None:
        assert self._order is not None
        for at in self._order[:-KEPT]:
            with contextlib.suppress(StorageError, OSError):
                self._folder(at).delete()
        del self._order[:-KEPT]

    def _manifest(self, at: Position) -> dict[str, Any]:
        """Of a checkpoint; raises where there is none, or it is not this one's."""
        try:
            manifest = (self._folder(at) / MANIFEST).read_json()
        except FileNotFoundError:
            raise ValueError("half written") from None
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
            raise ValueError("a manifest that this version cannot read")
        if any(type(manifest.get(key)) is not int or manifest[key] != value for key, value in asdict(at).items()):
            raise ValueError("the manifest of another checkpoint")
        return manifest

    def _file(self, at: Position, name: str, manifest: Mapping[str, Any]) -> bytes:
        content = (self._folder(at) / name).read_bytes()
        if manifest["files"][name] != _facts_of(content):
            raise ValueError(f"{name} is not the one that its manifest names")
        return content

    def _state(self, at: Position, manifest: Mapping[str, Any]) -> dict[str, Any]:
        state = json.loads(self._file(at, STATE, manifest))
        if not isinstance(state, dict):
            raise ValueError(f"{STATE} is not an object")
        return state

    def _read(self, at: Position, trial_id: str, fingerprint: Mapping[str, str | None]) -> Checkpoint:
        """A checkpoint, all of it checked; the tensors last, for they are large."""
        manifest = self._manifest(at)
        if manifest.get("trial_id") != trial_id:
            raise ValueError(f"of another trial, {str(manifest.get('trial_id'))[:40]}")
        state = self._state(at, manifest)
        if state["fingerprint"] != dict(fingerprint):
            raise ValueError(f"made with another {_differing(state['fingerprint'], fingerprint)}")
        if not _is_number(state["seconds"]) or not 0 <= state["seconds"] < math.inf:
            raise ValueError("seconds is not a number of seconds")
        if not isinstance(state["training"], dict):
            raise ValueError("training is not an object")
        return Checkpoint(
            trial_id,
            dict(fingerprint),
            at.epoch,
            at.step,
            float(state["seconds"]),
            _checked_rows(state["rows"], at.epoch),
            _checked_facts(state["teacher"]),
            state["training"],
            self._file(at, TENSORS, manifest),
        )


def _state_bytes(checkpoint: Checkpoint) -> bytes:
    state = {
        "fingerprint": dict(checkpoint.fingerprint),
        "seconds": checkpoint.seconds,
        "teacher": checkpoint.teacher,
        "training": checkpoint.training,
        "rows": list(checkpoint.rows),
    }
    return json.dumps(state).encode()  # a metric may be NaN: Python's JSON has it


def _facts_of(content: bytes) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


def _checked_rows(rows: Any, epochs: int | None = None) -> list[Row]:
    """Rows as they were written, one an epoch from the first. Raises ValueError."""
    if not isinstance(rows, list) or (epochs is not None and len(rows) != epochs):
        raise ValueError("rows are not those of the epochs so far")
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict) or not all(map(_is_number, row.values())):
            raise ValueError(f"row {number} does not hold metrics")
        if row.get("epoch") != number or not math.isfinite(row.get("timestamp", math.nan)):
            raise ValueError(f"row {number} is not that of epoch {number}")
    return rows


def _checked_facts(facts: Any) -> dict[str, Any] | None:
    """``teacher_facts`` as they were written. Raises ValueError."""
    if facts is None:
        return None
    counts, notes = (facts["computed"], facts["found"]), facts["notes"]
    if not all(type(count) is int and count >= 0 for count in counts) or not isinstance(notes, list):
        raise ValueError("what it says of the teacher is not that")
    return {"computed": counts[0], "found": counts[1], "notes": [str(note) for note in notes]}


def _is_number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < 2**63)


def _differing(theirs: Any, ours: Mapping[str, str | None]) -> str:
    if not isinstance(theirs, dict):
        return "fingerprint"
    return ", ".join(sorted(str(key) for key in {*theirs, *ours} if theirs.get(key) != ours.get(key))) or "fingerprint"


def _line(error: Exception) -> str:
    """The first line of an error, cut short: it may quote damaged bytes."""
    if isinstance(error, KeyError):
        return f"has no entry {error}"[:200]
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
