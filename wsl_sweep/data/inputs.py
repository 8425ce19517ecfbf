"""What a model reads of examples, by (example, view): in memory, or brought from a disk while it is trained."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor


class Inputs(ABC):
    """The inputs of some examples.

    What is asked for is a function of (example, view) alone: the same bits whoever asks, and beside whomever.

    Attributes:
        count: how many views an example has for training, 0 to count - 1; None: any number is a view, and each epoch
            has a new one, so that nobody keeps what a teacher said of it.
        cells: views that an example has altogether, the plain one among them; what a bank has room for.
        identity: the number of the plain view.
        device: where inputs are wanted.
        streamed: whether they lie outside of memory, so that each is brought once for student and teacher.
    """

    count: int | None = 1
    identity: int = 0
    device: torch.device = torch.device("cpu")
    streamed: bool = False

    @property
    def cells(self) -> int:
        """See the class; the plain view is one of the others where nothing else is said."""
        return self.count or 0

    @abstractmethod
    def take(self, examples: Tensor, views: Tensor) -> Tensor:
        """(B, …) inputs of ``examples`` (B,) in ``views`` (B,), both integers, on any device; always a fresh tensor."""

    def plain(self, examples: Tensor) -> Tensor:
        """(B, …) inputs of ``examples`` (B,) as they are."""
        return self.take(examples, torch.full_like(examples, self.identity))

    def batches(self, examples: Tensor, views: Tensor, sizes: Sequence[int]) -> Iterator[Tensor]:
        """The inputs of ``examples`` (N,) in ``views`` (N,), both on the CPU, in batches of ``sizes`` (sum N)."""
        there = moved(examples, self.device), moved(views, self.device)
        for some, of_them in zip(*(torch.split(one, list(sizes)) for one in there), strict=True):
            yield self.take(some, of_them)

    def shapes(self, examples: Tensor) -> Tensor | None:
        """(N,) a number for each of ``examples`` (N,) on the CPU, the same where their inputs have one shape.

        None where all have. A teacher computes examples of one shape together: so what it says of one does
        not depend on the others.
        """
        return None

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What an input depends on beside its example's content and its view's number, as plain data."""


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU's on a device; nobody waits for the copy."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
