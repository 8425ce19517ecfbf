"""From a model's name to a model."""

from __future__ import annotations

import re

from torch import nn

from wsl_sweep.errors import WslSweepError
from wsl_sweep.models.convnet import ConvNet
from wsl_sweep.spec.catalogue import MODELS, did_you_mean


def build(name: str, num_classes: int, in_channels: int = 3) -> nn.Module:
    """A freshly initialised model; its weights come from torch's global random state.

    Args:
        name: one of ``wsl_sweep.spec.catalogue.MODELS``: ``convnet_<width>``.
        num_classes: number of logits, >= 2.
        in_channels: channels of a picture (digits: 1).

    Returns:
        A module from (B, in_channels, H, W) pictures to (B, num_classes) logits.

    Raises:
        WslSweepError: no model of that name; the message has the nearest one.
    """
    if name not in MODELS:
        raise WslSweepError(f'no model is called "{name}"; {did_you_mean(name, MODELS)}')
    if num_classes < 2:
        raise WslSweepError(f"a classifier needs two classes or more, not {num_classes}")
    match = re.fullmatch(r"convnet_(\d+)", name)
    assert match is not None
    return ConvNet(int(match.group(1)), num_classes, in_channels)
