"""Texts as a model reads them: tokens that lie in memory, padded to the longest of a batch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from wsl_sweep.data.inputs import Inputs, moved
from wsl_sweep.data.task import Task

BUCKET = 16
"""Lengths are rounded up to a multiple of this."""


@dataclass(frozen=True)
class Tokens:
    """Sequences of tokens, one after another, each of a first and a second segment.

    Attributes:
        ids: (T,) int32, the tokens' numbers; 0 is the padding, which no sequence needs.
        offsets: (M + 1,) int64, where each sequence begins in ``ids``, and where the last one ends.
        firsts: (M,) int32, how many of its tokens belong to the first segment.
    """

    ids: Tensor
    offsets: Tensor
    firsts: Tensor
    _elsewhere: dict[str, Tokens] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, ids: Tensor, lengths: Tensor, firsts: Tensor) -> Tokens:
        """From the ``lengths`` (M,) of the sequences."""
        offsets = torch.zeros(len(lengths) + 1, dtype=torch.int64)
        torch.cumsum(lengths, 0, out=offsets[1:])
        return cls(ids, offsets, firsts)

    @property
    def lengths(self) -> Tensor:
        """(M,) tokens of each sequence."""
        return self.offsets.diff()

    def on(self, device: str) -> Tokens:
        """The same on a device, brought there once."""
        if torch.device(device).type == "cpu":
            return self
        if device not in self._elsewhere:
            self._elsewhere[device] = Tokens(self.ids.to(device), self.offsets.to(device), self.firsts.to(device))
        return self._elsewhere[device]


class TokenInputs(Inputs):
    """Sequences of tokens: (B, 2, L) int64, the tokens' numbers and their segments (0 or 1), padded with zeros.

    L is the longest of a batch, rounded up to a multiple of ``BUCKET``, but at most ``max_length``. Which tokens are
    there is told by numbers above 0, so that a model that looks at no others gives the same logits whatever L is.

    Args:
        tokens: of the whole data set.
        rows: (N,) which of them, on the CPU.
        device: where they are wanted; all of them lie there.
        max_length: of any sequence.
        vocabulary: a hash of the words that the numbers mean.
    """

    def __init__(self, tokens: Tokens, rows: Tensor, device: str, *, max_length: int, vocabulary: str = "") -> None:
        self.device = torch.device(device)
        self._max_length, self._vocabulary = max_length, vocabulary
        self._widths = ((tokens.lengths[rows] + BUCKET - 1) // BUCKET * BUCKET).clamp(max=max_length)
        self._tokens, self._rows = tokens.on(device), rows.to(device)

    def take(self, examples: Tensor, views: Tensor) -> Tensor:
        """See ``Inputs``."""
        here = examples.cpu()
        return self._padded(examples if examples.device == self.device else moved(here, self.device), self._width(here))

    def batches(self, examples: Tensor, views: Tensor, sizes: Sequence[int]) -> Iterator[Tensor]:
        """See ``Inputs``; widths are looked up before anything is on a device, so that nobody waits for it."""
        here, there = (torch.split(one, list(sizes)) for one in (examples, moved(examples, self.device)))
        for some, of_them in zip(here, there, strict=True):
            yield self._padded(of_them, self._width(some))

    def shapes(self, examples: Tensor) -> Tensor:
        """(N,) the length to which each of ``examples`` (N,) is padded by itself."""
        return self._widths[examples]

    def facts(self) -> dict[str, Any]:
        """See ``Inputs``."""
        return {
            "kind": "tokens",
            "count": self.count,
            "max_length": self._max_length,
            "bucket": BUCKET,
            "vocabulary": self._vocabulary,
        }

    def _width(self, examples: Tensor) -> int:
        return int(self._widths[examples].max())

    def _padded(self, examples: Tensor, width: int) -> Tensor:
        rows, columns = self._rows[examples], torch.arange(width, device=self.device)
        starts = self._tokens.offsets[rows].unsqueeze(1)
        there = columns < self._tokens.offsets[rows + 1].unsqueeze(1) - starts
        ids = self._tokens.ids[torch.where(there, starts + columns, 0)] * there
        second = there & (columns >= self._tokens.firsts[rows].unsqueeze(1))
        return torch.stack([ids.to(torch.int64), second.to(torch.int64)], dim=1)


class Texts(Task):
    """A data set of texts whose tokens are all in memory; models are told the number of words as ``in_channels``.

    Args:
        tokens: of every example.
        labels: (M,) int64.
        class_names: in the order of the labels.
        words: of the vocabulary.
        max_length: tokens of a text, at most.
        vocabulary: a hash of the words.
    """

    def __init__(
        self,
        tokens: Tokens,
        labels: Tensor,
        class_names: Sequence[str],
        *,
        words: int,
        max_length: int,
        vocabulary: str = "",
    ) -> None:
        self.tokens, self.labels, self.class_names = tokens, labels, tuple(class_names)
        self.num_classes, self.in_channels = len(self.class_names), words
        self.max_length, self.vocabulary = max_length, vocabulary

    def take(self, rows: Tensor, views: Tensor) -> Tensor:
        """See ``Task``; padded as ``TokenInputs`` says."""
        return self._inputs(rows, "cpu").plain(torch.arange(len(rows)))

    @cached_property
    def digest(self) -> str:
        """See ``Task``."""
        digest = hashlib.sha256(self.labels.numpy().data)
        for tensor in (self.tokens.ids, self.tokens.offsets, self.tokens.firsts):
            digest.update(tensor.numpy().data)
        return digest.hexdigest()

    def inputs(
        self, config: Mapping[str, Any], rows: Tensor, device: str, *, training: bool, workers: int = 0
    ) -> Inputs:
        """See ``Task``."""
        return self._inputs(rows, device)

    def _inputs(self, rows: Tensor, device: str) -> TokenInputs:
        return TokenInputs(self.tokens, rows, device, max_length=self.max_length, vocabulary=self.vocabulary)
