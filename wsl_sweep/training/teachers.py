"""Teachers as students see them: frozen, and run in batches of one size."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from wsl_sweep.data import Examples
from wsl_sweep.models import with_features
from wsl_sweep.training.device import as_computed
from wsl_sweep.training.weights import load_into

TEACHER_BATCH = {"cpu": 64, "cuda": 512}
"""Teacher outputs are defined as computed in batches of this size, the last one padded; by kind of device."""


def teacher_batch(device: torch.device | str) -> int:
    """The size of a teacher's batches on a device."""
    return TEACHER_BATCH.get(torch.device(device).type, TEACHER_BATCH["cpu"])


class FrozenTeacher:
    """A teacher as a student sees it: float32, channels_last, no gradient, one batch size.

    Args:
        model: the teacher, on its device.
        validation: whose logits ``validation_logits`` returns.
        mode: ``eval`` (running statistics), or ``train`` (each batch's own statistics, as the paper's released
            code does; the running ones drift).
    """

    def __init__(self, model: nn.Module, validation: Examples, mode: str = "eval") -> None:
        self.model = as_computed(model.requires_grad_(False))
        self.mode = mode
        self.forwards = 0
        self.batch = teacher_batch(validation.labels.device)
        self._validation = validation
        self._validation_logits: Tensor | None = None

    @classmethod
    def load(
        cls, model: nn.Module, weights: Path, name: str, validation: Examples, mode: str = "eval"
    ) -> FrozenTeacher:
        """The teacher whose weights lie in ``weights``; ``model`` is a fresh one of the same shape."""
        load_into(model, weights, name)
        return cls(model.to(validation.labels.device), validation, mode)

    @torch.no_grad()
    def training_outputs(self, images: Tensor, features: bool = False) -> tuple[Tensor, Tensor | None]:
        """(B, C) logits of a batch and, where wanted, its (B, D) features; counts each example in ``forwards``."""
        if self.mode == "train":
            self.forwards += len(images)
            self.model.train()
            return self._outputs(images, features)
        return self.outputs(images, features)

    @torch.no_grad()
    def outputs(self, images: Tensor, features: bool = False) -> tuple[Tensor, Tensor | None]:
        """As ``training_outputs``, with running statistics whatever the mode, in batches of one size.

        Always from a fresh buffer of one layout, the last batch padded with zeros, so that neither the number of
        examples nor their places nor how they lie in memory changes a bit.
        """
        self.forwards += len(images)
        self.model.eval()
        logits, seen = [], []
        for part in torch.split(images, self.batch):
            shape = (self.batch, *part.shape[1:])
            laid_out = torch.channels_last if part.ndim == 4 else torch.contiguous_format
            padded = torch.empty(shape, dtype=part.dtype, device=part.device, memory_format=laid_out)
            padded[: len(part)] = part
            padded[len(part) :] = 0
            of_part, features_of_part = self._outputs(padded, features)
            logits.append(of_part[: len(part)])
            if features_of_part is not None:
                seen.append(features_of_part[: len(part)])
        return torch.cat(logits), torch.cat(seen) if seen else None

    @torch.no_grad()
    def validation_logits(self) -> Tensor:
        """(N, C) logits of the plain validation examples, in eval mode, computed once."""
        if self._validation_logits is None:
            rows = torch.arange(len(self._validation), device=self._validation.labels.device)
            batches = [self.outputs(self._validation.views.plain(b))[0] for b in torch.split(rows, self.batch)]
            self._validation_logits = torch.cat(batches)
        return self._validation_logits

    def _outputs(self, images: Tensor, features: bool) -> tuple[Tensor, Tensor | None]:
        if not features:
            return self.model(images).float(), None
        logits, seen = with_features(self.model, images)
        return logits.float(), seen.float()
