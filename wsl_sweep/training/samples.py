"""Which training examples are regularization samples, epoch by epoch (WSL §3.2, Tab. 1, Fig. 2)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from wsl_sweep.training.files import packed


class RegularizationSamples:
    """The masks of a training: by step of the epoch that has begun, by example of those before.

    Each example is asked for once an epoch, by the weights that the student has in that step.

    Attributes:
        steps: of the epoch so far, bool, a tensor (B,) for each step or one for several, in the order of the steps;
            none where the loss tells none.
        epochs: of each whole epoch, (ceil(N / 8),) uint8 on the CPU, a bit an example in the order of the training
            part; see ``files.packed``.
    """

    def __init__(self) -> None:
        self.steps: list[Tensor] = []
        self.epochs: list[Tensor] = []

    def begin_epoch(self) -> None:
        """Forgets the steps."""
        self.steps = []

    def end_epoch(self, order: Tensor) -> None:
        """Puts the steps' masks together, the only time that they are copied to the host.

        Args:
            order: (N,) in which the epoch has shown the examples; those that it has left out, at the end, are no
                regularization samples.
        """
        if self.steps:
            shown = torch.cat(self.steps).cpu().numpy()
            mask = np.zeros(len(order), dtype=np.bool_)
            mask[order[: len(shown)].numpy()] = shown
            self.epochs.append(torch.from_numpy(packed(mask)))
        self.steps = []
