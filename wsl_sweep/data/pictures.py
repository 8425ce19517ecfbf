"""Pictures that lie in memory, as a task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from wsl_sweep.data.inputs import Inputs
from wsl_sweep.data.raw import RawData
from wsl_sweep.data.splits import split_off_test
from wsl_sweep.data.statistics import mean_and_std
from wsl_sweep.data.task import Task
from wsl_sweep.data.views import Views
from wsl_sweep.errors import WslSweepError

KEPT_SETS = 2
"""Data sets whose pictures stay on a GPU."""

_DEVICE_IMAGES: dict[tuple[str, str], Tensor] = {}


class Pictures(Task):
    """A data set whose pictures are all in memory.

    Args:
        raw: the pictures.
    """

    def __init__(self, raw: RawData) -> None:
        self.raw = raw
        self.num_classes, self.labels, self.in_channels = raw.num_classes, raw.labels, int(raw.images.shape[1])
        self.test, self.test_fraction = raw.test, raw.test_fraction
        self.class_names, self.notes = raw.class_names, raw.notes
        self.digest = raw.digest

    def inputs(
        self, config: Mapping[str, Any], rows: Tensor, device: str, *, training: bool, workers: int = 0
    ) -> Inputs:
        """See ``Task``."""
        smallest = min(self.raw.images.shape[2:])
        if training and config.get("padding_mode") == "reflect" and config["padding"] >= smallest:
            raise WslSweepError(
                f"dataset.padding: pictures of {smallest} pixels can be reflected by {smallest - 1} at most, "
                f"not by {config['padding']}; lower it, or take padding_mode: zeros"
            )
        mean, std = self.raw.mean, self.raw.std
        if mean is None or std is None:
            mean, std = mean_and_std(self.raw, split_off_test(self)[0])
        return Views(
            _images(self.raw, device),
            padding=config["padding"] if training else 0,
            padding_mode=config.get("padding_mode", "zeros"),
            flip=config["flip"] if training else False,
            mean=mean.to(device),
            std=std.to(device),
            scale=self.raw.scale,
            rows=rows.to(device),
        )


def forget_pictures() -> None:
    """Lets go of the pictures on GPUs."""
    _DEVICE_IMAGES.clear()


def _images(raw: RawData, device: str) -> Tensor:
    """All pictures on a device: on the CPU as they lie, shared with whoever maps the same file; on a GPU once."""
    if torch.device(device).type == "cpu":
        return raw.images
    key = (raw.digest, device)
    if key not in _DEVICE_IMAGES:
        while len(_DEVICE_IMAGES) >= KEPT_SETS:
            _DEVICE_IMAGES.pop(next(iter(_DEVICE_IMAGES)))
        _DEVICE_IMAGES[key] = raw.images.to(device)
    return _DEVICE_IMAGES[key]
