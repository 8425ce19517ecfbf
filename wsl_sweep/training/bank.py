"""The logit bank: what teachers said of (example, view), kept on this machine for every later trial.

Raw teacher logits do not depend on temperature, alpha, weighting or dropping, and views are finitely many: so a teacher
needs to look at each picture once.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wsl_sweep.data import TaskData
from wsl_sweep.errors import TrialError, WslSweepError
from wsl_sweep.files import write_json
from wsl_sweep.paths import bank_folder
from wsl_sweep.spec.identity import short_hash
from wsl_sweep.training.device import device_facts
from wsl_sweep.training.fingerprint import library_of, teacher_code_digest
from wsl_sweep.training.records import Cells, RecordFile, Usage, Words, owned, set_aside

FORMAT = 1
GIGABYTE = 10**9
FREE_BYTES = GIGABYTE
"""The bank leaves this much of a disk to others."""

WITH_FEATURES = "-features"
"""How the names of banks end that hold features too."""

PUTS_A_LOOK = 256
"""Calls of ``put`` between two looks at the room that is left."""

_SMALLEST_HALF = -65504.0


@dataclass(frozen=True)
class BankSettings:
    """What a sweep's file says of the bank.

    Attributes:
        use: whether there is one.
        features: whether the teacher's features are kept beside its logits.
        limit_gb: how much all banks of this machine may take together, in 10⁹ bytes.
    """

    use: bool = True
    features: bool = False
    limit_gb: float = 50.0


@dataclass(frozen=True)
class TeacherOutputs:
    """What a teacher says of some examples.

    Attributes:
        logits: (N, C) float32.
        cross_entropy: (N,) float32 with the training labels, in nats; None where it is not kept.
        features: (N, D) float32, or None where they were not asked for.
    """

    logits: Tensor
    cross_entropy: Tensor | None = None
    features: Tensor | None = None

    def part(self, start: int, stop: int) -> TeacherOutputs:
        """Those of the examples from ``start`` to before ``stop``."""
        return TeacherOutputs(*(None if one is None else one[start:stop] for one in vars(self).values()))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Layout:
    """How outputs lie in a row: the largest logit, the cross-entropy, the logits, the features; 32-bit words.

    In float16 a logit is kept by its distance from the largest one, which itself stays in float32: near the largest
    logit, where probabilities are, float16 has its finest steps.

    Attributes:
        classes: C.
        features: D, or 0.
        precision: ``float32``, in which logits are kept bit by bit, or ``float16``. Features are float32.
    """

    classes: int
    features: int = 0
    precision: str = "float32"

    @property
    def logit_words(self) -> int:
        """32-bit words of the logits."""
        return self.classes if self.precision == "float32" else (self.classes + 1) // 2

    @property
    def words(self) -> int:
        """32-bit words of a row."""
        return 2 + self.logit_words + self.features

    def encode(self, outputs: TeacherOutputs) -> Tensor:
        """(N, words) int32 rows of N outputs, on their device."""
        logits = outputs.logits.contiguous()
        largest = logits.amax(dim=1, keepdim=True)
        if self.precision == "float16":
            below = (logits - largest).clamp(min=_SMALLEST_HALF).to(torch.float16)
            logits = torch.nn.functional.pad(below, (0, 2 * self.logit_words - self.classes))
        assert outputs.cross_entropy is not None
        parts = [largest, outputs.cross_entropy.unsqueeze(1), logits]
        if self.features:
            assert outputs.features is not None
            parts.append(outputs.features)
        return torch.cat([part.contiguous().view(torch.int32) for part in parts], dim=1)

    def decode(self, rows: Tensor) -> TeacherOutputs:
        """Outputs from (N, words) int32 rows, on their device."""
        largest, cross_entropy = rows[:, :2].contiguous().view(torch.float32).unbind(dim=1)
        words = rows[:, 2 : 2 + self.logit_words].contiguous()
        if self.precision == "float16":
            logits = words.view(torch.float16)[:, : self.classes].float() + largest.unsqueeze(1)
        else:
            logits = words.view(torch.float32)
        features = rows[:, 2 + self.logit_words :].contiguous().view(torch.float32) if self.features else None
        return TeacherOutputs(logits, cross_entropy.contiguous(), features)


def bank_identity(
    data: TaskData,
    label_noise: float,
    teacher: Mapping[str, Any],
    device: str,
    threads: int,
    batch: int,
    precision: str = "float32",
) -> dict[str, Any]:
    """Everything that a stored output's bits depend on; a bank is named by the hash of it.

    Args:
        data: whose examples and views.
        label_noise: of its training labels, to which the stored cross-entropy belongs.
        teacher: ``model``, ``weights`` (their SHA-256) and ``own_code`` (of a user's own model).
        device: that the teacher runs on.
        threads: torch's.
        batch: the size of the teacher's batches.
        precision: of the kept logits.
    """
    return {
        "format": FORMAT,
        "teacher": dict(teacher),
        "library": library_of(str(teacher.get("model"))),
        "data": data.source,
        "label_noise": label_noise,
        "views": data.train.views.facts(),
        "torch": torch.__version__,
        "device": device_facts(device),
        "threads": threads,
        "memory_format": "channels_last",
        "batch": batch,
        "precision": precision,
        "code": teacher_code_digest(),
    }


def has_features(identity: Mapping[str, Any]) -> bool:
    """Whether there is a bank of this identity that keeps features too."""
    try:
        return _read_card(bank_folder() / (short_hash(identity) + WITH_FEATURES)) is not None
    except WslSweepError:
        return False


class LogitBank:
    """The outputs of one teacher on one data set's views.

    Where there is a bank of the same identity with features, it serves also those who do not ask for any.

    Args:
        identity: see ``bank_identity``.
        cells: examples of the data set times views.
        layout: of the rows; with features only where they are to be kept.
        settings: of the sweep.
        about: what people should read of it: names of model and data set.

    Raises:
        TrialError: the bank's folder cannot be written, its disk is full, or its index alone is over the limit.
        WslSweepError: there is no place for banks.
    """

    def __init__(
        self,
        identity: Mapping[str, Any],
        cells: int,
        layout: Layout,
        *,
        settings: BankSettings = BankSettings(),
        about: Mapping[str, Any] | None = None,
    ) -> None:
        root, key = bank_folder(), short_hash(identity)
        other = None if layout.features else _read_card(root / (key + WITH_FEATURES))
        self.layout = layout if other is None else replace(layout, features=int(other["layout"]["features"]))
        self.key = key + (WITH_FEATURES if self.layout.features else "")
        self.folder = root / self.key
        self.settings = settings
        self._puts = 0
        card = {
            "identity": dict(identity), "about": dict(about or {}), "layout": vars(self.layout), "cells": cells
        }  # fmt: skip
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o755)
            room = self._room() - 4 * cells
            if room < 0:
                raise TrialError(f"{self.folder}: its index of {cells:,} views alone does not fit; {self._limits()}")
            self.records = self._open_records(cells, room)
            try:
                self._write_card(card)
            except BaseException:
                self.records.close()
                raise
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else None
            raise TrialError(f"{self.folder}: {reason or error}") from error

    def _open_records(self, cells: int, room: int) -> RecordFile:
        try:
            return RecordFile(self.folder, cells, self.layout.words, room)
        except OSError as error:
            if error.errno not in (errno.ESTALE, errno.ENOENT):
                raise
            return RecordFile(self.folder, cells, self.layout.words, room)  # it was pruned in this very moment

    def _write_card(self, card: Mapping[str, Any]) -> None:
        """Says what this bank is, where nobody has yet, and that it was used now."""
        path = self.folder / "card.json"
        if _read_card(self.folder) is None:
            write_json(path, dict(card))
        os.utime(path)

    def put(self, cells: Cells, rows: Words) -> bool:
        """As ``RecordFile.put``; looks now and then at how much room other banks and the disk have left."""
        self._puts += 1
        if self._puts % PUTS_A_LOOK == 0:
            self.records.allow(self._room() - 4 * self.records.cells)
        return self.records.put(cells, rows)

    def why_full(self) -> str:
        """What to tell a user whose bank takes no more."""
        return (
            "the logit bank takes no more rows: the teacher computes what it does not hold, at every epoch; "
            + self._limits()
        )

    def _limits(self) -> str:
        return (
            f"bank.limit_gb is {self.settings.limit_gb:g}, and {FREE_BYTES / GIGABYTE:g} GB of the disk stay free; "
            f"raise the limit, or make room: wsl-sweep bank prune ({self.folder.parent})"
        )

    def close(self) -> None:
        """Lets go of the files."""
        self.records.close()

    def _room(self) -> int:
        """Bytes that the rows may take: what the other banks and the disk leave."""
        root = self.folder.parent
        others = sum(_bytes(folder) for folder in root.iterdir() if folder.is_dir() and folder != self.folder)
        free = shutil.disk_usage(root).free + _bytes(self.folder) - FREE_BYTES
        return max(0, int(min(self.settings.limit_gb * GIGABYTE - others, free)))


def _read_card(folder: Path) -> dict[str, Any] | None:
    """What a bank's card says; None where it is absent or damaged."""
    try:
        card = json.loads((folder / "card.json").read_text())
        parts = card["identity"], card["about"], card["layout"]
        whole = isinstance(card["cells"], int) and all(isinstance(part, dict) for part in parts)
        return card if whole and isinstance(card["layout"]["features"], int) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _bytes(folder: Path) -> int:
    total = 0
    with contextlib.suppress(OSError):
        total = sum(entry.stat().st_blocks * 512 for entry in folder.iterdir())
    return total


@dataclass(frozen=True)
class BankEntry:
    """One bank of this machine, as ``wsl-sweep bank`` shows it.

    Attributes:
        key: its folder's name.
        about: model, teacher and data set.
        identity: what it is named by.
        usage: rows, bytes, and how often it was of use.
        last_used: seconds since 1970.
        in_use: whether a living process has it open.
    """

    key: str
    about: Mapping[str, Any]
    identity: Mapping[str, Any]
    usage: Usage
    last_used: float
    in_use: bool

    @property
    def hit_rate(self) -> float | None:
        """Outputs that were found, of those that were asked for; None before anybody has asked."""
        asked = self.usage.found + self.usage.computed
        return self.usage.found / asked if asked else None

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "key": self.key,
            **self.about,
            "rows": self.usage.rows,
            "cells": self.usage.cells,
            "bytes": self.usage.bytes,
            "found": self.usage.found,
            "computed": self.usage.computed,
            "hit_rate": self.hit_rate,
            "last_used": self.last_used,
            "in_use": self.in_use,
            "identity": dict(self.identity),
        }


def list_banks() -> list[BankEntry]:
    """The banks of this machine, the one used last first."""
    root = bank_folder()
    found = [_entry(folder) for folder in root.iterdir()] if root.is_dir() else []
    return sorted((one for one in found if one is not None), key=lambda one: -one.last_used)


def _entry(folder: Path) -> BankEntry | None:
    """A folder as a bank, also a damaged one; None for what is none of ours."""
    if not (folder / "index").is_file() or not (folder / "rows").is_file():
        return None
    card = _read_card(folder) or {"about": {"model": "damaged"}, "identity": {}, "cells": 0}
    try:
        usage = RecordFile.peek(folder, card["cells"])
    except (OSError, ValueError):
        usage = Usage(rows=0, cells=card["cells"], bytes=_bytes(folder), found=0, computed=0)
    try:
        dated = folder / "card.json"
        used = (dated if dated.exists() else folder / "rows").stat().st_mtime
    except OSError:  # deleted just now
        return None
    return BankEntry(folder.name, card["about"], card["identity"], usage, used, owned(folder))


def prune_banks(keys: set[str] | None = None, unused_days: float = 0.0) -> tuple[int, int, list[str]]:
    """Deletes banks that no process has open.

    Args:
        keys: which ones (how their names begin); None for all.
        unused_days: only those that were not opened for so long.

    Returns:
        How many were deleted, the bytes that this frees, and the keys of those left because they are in use.

    Raises TrialError where one cannot be deleted.
    """
    deleted, freed, left = 0, 0, []
    root = bank_folder()
    for entry in list_banks():
        named = keys is None or any(entry.key.startswith(key) for key in keys)
        if not named or time.time() - entry.last_used < unused_days * 86400:
            continue
        try:
            gone = None if entry.in_use else set_aside(root / entry.key)
            if gone is None:
                left.append(entry.key)
                continue
            shutil.rmtree(gone)
        except OSError as error:
            raise TrialError(f"cannot delete {root / entry.key}: {error.strerror or error}") from error
        deleted, freed = deleted + 1, freed + entry.usage.bytes
    return deleted, freed, left
