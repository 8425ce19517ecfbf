"""A task of pairs of sentences that is learned in seconds: of which words the second one is made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from wsl_sweep.data.inputs import Inputs
from wsl_sweep.data.task import Task

WORDS, PAIRS, LONGEST = 24, 120, 24
START, END, FIRST_WORD, THIRD = 1, 2, 3, 7
BUCKET = 8


class TinyText(Task):
    """Pairs of random words; those of the second sentence are of one third of all words, which is its class."""

    num_classes, in_channels, class_names = 3, WORDS, ("one", "two", "three")

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)

        def number(low: int, high: int) -> int:
            return int(torch.randint(low, high, (), generator=generator))

        def sentence(low: int = FIRST_WORD, high: int = WORDS) -> list[int]:
            return [number(low, high) for _ in range(number(2, 9))]

        self.labels = torch.arange(PAIRS) % 3
        self.tokens = torch.zeros(PAIRS, 2, LONGEST, dtype=torch.int64)
        self.lengths = torch.zeros(PAIRS, dtype=torch.int64)
        for row, label in enumerate(self.labels.tolist()):
            first, second = sentence(), sentence(FIRST_WORD + THIRD * label, FIRST_WORD + THIRD * (label + 1))
            ids = [START, *first, END, *second, END]
            self.lengths[row] = len(ids)
            self.tokens[row, 0, : len(ids)] = torch.tensor(ids)
            self.tokens[row, 1, len(first) + 2 : len(ids)] = 1

    def take(self, rows: Tensor, views: Tensor) -> Tensor:
        """(B, 2, L) as short as these rows allow."""
        return self.tokens[rows, :, : int(self.widths()[rows].max())]

    def widths(self) -> Tensor:
        """(M,) the length to which each pair is padded by itself."""
        return (self.lengths + BUCKET - 1) // BUCKET * BUCKET

    def inputs(
        self, config: Mapping[str, Any], rows: Tensor, device: str, *, training: bool, workers: int = 0
    ) -> Inputs:
        """Of several shapes."""
        return _Padded(self, rows, device)


class _Padded(Inputs):
    def __init__(self, task: TinyText, rows: Tensor, device: str) -> None:
        self.device = torch.device(device)
        self._task, self._rows = task, rows

    def take(self, examples: Tensor, views: Tensor) -> Tensor:
        return self._task.take(self._rows[examples.cpu()], views).clone().to(self.device)

    def shapes(self, examples: Tensor) -> Tensor:
        return self._task.widths()[self._rows[examples]]

    def facts(self) -> dict[str, Any]:
        return {"task": "TinyText"}
