"""The logit bank: what teachers said of (example, view), kept on this machine for every later trial.

Raw teacher logits do not depend on temperature, alpha, weighting or dropping, and views are finitely many: so a teacher
needs to look at each picture once.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
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

SHORT_NUMBERS = 2**16
"""Up to so many classes a class takes 16 bits."""

_SMALLEST_HALF = -65504.0


@dataclass(frozen=True)
class BankSettings:
    """What a sweep's file says of the bank.

    Attributes:
        use: whether there is one.
        features: whether the teacher's features are kept beside its logits.
        limit_gb: how much all banks of this machine may take together, in 10⁹ bytes.
        temperatures: for which a bank of the largest logits alone keeps the others' sum; a trial's own is always
            among them.
    """

    use: bool = True
    features: bool = False
    limit_gb: float = 50.0
    temperatures: Sequence[float] = ()


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
        return self.each(lambda rows: rows[start:stop])

    def each(self, change: Callable[[Tensor], Tensor]) -> TeacherOutputs:
        """The outputs with each of their tensors, whose rows are examples, changed alike."""
        cross_entropy, features = (None if one is None else change(one) for one in (self.cross_entropy, self.features))
        return TeacherOutputs(change(self.logits), cross_entropy, features)


@dataclass(frozen=True)
class Layout:
    """How outputs lie in a row of 32-bit words.

    All logits: the largest one, the cross-entropy, the logits, the features. With ``top_k``: the largest one, the
    cross-entropy, the label's logit, for each temperature τ ``log Σ exp(z/τ)`` over the classes that are left out, the
    K largest logits, their classes and the label, the features.

    In float16 a logit is kept by its distance from the largest one, which itself stays in float32: near the largest
    logit, where probabilities are, float16 has its finest steps. The label's logit and the sums are float32.

    Attributes:
        classes: C.
        features: D, or 0.
        precision: ``float32``, in which logits are kept bit by bit, or ``float16``. Features are float32.
        top_k: K, how many of the largest logits are kept, below C - 1; None for all. The label's is kept beside them.
        temperatures: each τ for which the sum of the others is kept; with ``top_k`` only.

    Raises:
        ValueError: a K for which nothing would be left out, or no temperature beside it.
    """

    classes: int
    features: int = 0
    precision: str = "float32"
    top_k: int | None = None
    temperatures: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.top_k is not None and not 0 < self.top_k < self.classes - 1:
            raise ValueError(f"top_k must lie in [1, {self.classes - 2}] for {self.classes} classes, not {self.top_k}")
        if (self.top_k is None) != (not self.temperatures):
            raise ValueError("temperatures belong to top_k")

    @property
    def logit_words(self) -> int:
        """32-bit words of the logits that are kept."""
        count = self.top_k or self.classes
        return count if self.precision == "float32" else (count + 1) // 2

    @property
    def number_words(self) -> int:
        """32-bit words of the classes they belong to, and of the label; of 16 bits where they fit."""
        if self.top_k is None:
            return 0
        return self.top_k // 2 + 1 if self.classes <= SHORT_NUMBERS else self.top_k + 1

    @property
    def words(self) -> int:
        """32-bit words of a row."""
        return sum(self._widths())

    def encode(self, outputs: TeacherOutputs, labels: Tensor | None = None) -> Tensor:
        """(N, words) int32 rows of N outputs, on their device.

        Args:
            outputs: with the cross-entropy, and the features where they are kept.
            labels: (N,) int64; read with ``top_k`` alone.
        """
        logits = outputs.logits.contiguous()
        largest = logits.amax(dim=1, keepdim=True)
        assert outputs.cross_entropy is not None
        parts = [largest, outputs.cross_entropy.unsqueeze(1)]
        if self.top_k is None:
            parts.append(self._packed(logits, largest))
        else:
            assert labels is not None
            of_label = labels.unsqueeze(1)
            # Sorted stably: of equal logits those of the first classes are kept, on any device.
            values, order = logits.sort(dim=1, descending=True, stable=True)
            numbers = torch.cat([order[:, : self.top_k], of_label], dim=1)
            others = logits.scatter(1, numbers, -math.inf)
            sums = [(others / temperature).logsumexp(dim=1, keepdim=True) for temperature in self.temperatures]
            kept = self._packed(values[:, : self.top_k], largest)
            parts += [logits.gather(1, of_label), *sums, kept, self._packed_numbers(numbers)]
        if self.features:
            assert outputs.features is not None
            parts.append(outputs.features)
        return torch.cat([part.contiguous().view(torch.int32) for part in parts], dim=1)

    def decode(self, rows: Tensor, temperature: float = 1.0) -> TeacherOutputs:
        """Outputs from (N, words) int32 rows, on their device.

        With ``top_k`` the logits are an approximation, for one temperature τ: those that were kept, and for every other
        class the same value, with which the softmax at τ gives the others together the mass they had. So at τ the
        probabilities of the kept classes and of the label are the teacher's; how the rest is spread is not.

        Raises ValueError: a temperature for which nothing is kept.
        """
        if self.top_k is not None and temperature not in self.temperatures:
            raise ValueError(f"the bank keeps sums for {self.temperatures}, not for a temperature of {temperature}")
        head, sums, logit_words, numbers, features = torch.split(rows, self._widths(), dim=1)
        values = head.contiguous().view(torch.float32)
        largest, cross_entropy = values[:, :1], values[:, 1].contiguous()
        logits = self._unpacked(logit_words.contiguous(), largest)
        if self.top_k is not None:
            of_others = sums.contiguous().view(torch.float32)[:, self.temperatures.index(temperature)]
            logits = self._spread(logits, values[:, 2:], self._unpacked_numbers(numbers), of_others, temperature)
        return TeacherOutputs(
            logits, cross_entropy, features.contiguous().view(torch.float32) if self.features else None
        )

    def _widths(self) -> list[int]:
        """32-bit words of a row's parts: single numbers, sums, logits, classes, features."""
        singles = 2 if self.top_k is None else 3
        return [singles, len(self.temperatures), self.logit_words, self.number_words, self.features]

    def _packed(self, logits: Tensor, largest: Tensor) -> Tensor:
        if self.precision == "float32":
            return logits
        below = (logits - largest).clamp(min=_SMALLEST_HALF).to(torch.float16)
        return torch.nn.functional.pad(below, (0, 2 * self.logit_words - logits.shape[1]))

    def _unpacked(self, words: Tensor, largest: Tensor) -> Tensor:
        if self.precision == "float32":
            return words.view(torch.float32)
        return words.view(torch.float16)[:, : self.top_k or self.classes].float() + largest

    def _packed_numbers(self, numbers: Tensor) -> Tensor:
        if self.classes > SHORT_NUMBERS:
            return numbers.to(torch.int32)
        # From 2¹⁵ on they are negative as 16 bits with a sign.
        short = torch.where(numbers < SHORT_NUMBERS // 2, numbers, numbers - SHORT_NUMBERS).to(torch.int16)
        return torch.nn.functional.pad(short, (0, 2 * self.number_words - numbers.shape[1]))

    def _unpacked_numbers(self, words: Tensor) -> Tensor:
        if self.classes > SHORT_NUMBERS:
            return words.long()
        assert self.top_k is not None
        return words.contiguous().view(torch.int16)[:, : self.top_k + 1].long() % SHORT_NUMBERS

    def _spread(
        self, largest: Tensor, of_label: Tensor, numbers: Tensor, of_others: Tensor, temperature: float
    ) -> Tensor:
        """(N, C) logits from the K largest (N, K), the label's (N, 1), their classes (N, K + 1) and the others' sum."""
        classes, labels = numbers[:, :-1], numbers[:, -1:]
        kept = classes.shape[1] + (classes != labels).all(dim=1)
        others = temperature * (of_others - (self.classes - kept).log())
        logits = others.unsqueeze(1).repeat(1, self.classes)
        # The label last: where it is among the largest too it is not rounded.
        return logits.scatter_(1, classes, largest).scatter_(1, labels, of_label)


def bank_identity(
    data: TaskData,
    label_noise: float,
    teacher: Mapping[str, Any],
    device: str,
    threads: int,
    batch: int,
    precision: str = "float32",
    top_k: int | None = None,
    temperatures: Sequence[float] = (),
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
        top_k: how many of them are kept; None for all, and
        temperatures: those for which the sum of the others is kept.
    """
    largest = {} if top_k is None else {"top_k": top_k, "temperatures": list(temperatures)}
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
        **largest,
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
