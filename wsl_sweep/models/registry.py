"""From a model's name to a model."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from wsl_sweep.errors import WslSweepError
from wsl_sweep.models.adapted import build_timm, build_torchvision
from wsl_sweep.models.bert import build_bert, build_transformers
from wsl_sweep.models.convnet import ConvNet
from wsl_sweep.models.mobilenet import MobileNetV2
from wsl_sweep.models.mobilenetv1 import MobileNetV1
from wsl_sweep.models.resnet import CifarResNet, CifarResNet50
from wsl_sweep.models.shufflenet import ShuffleNetV1, ShuffleNetV2
from wsl_sweep.models.vgg import VGG, VGG_BLOCKS
from wsl_sweep.models.wide_resnet import WideResNet
from wsl_sweep.spec.catalogue import CONVNET_WIDTHS, MOBILENETV1_WIDTHS, MODELS, model_problem, text_shape
from wsl_sweep.user_code import arguments_for, find, pick

Build = Callable[[int, int], nn.Module]
"""(num_classes, in_channels) -> a fresh model."""

_NARROW, _WIDE = (16, 16, 32, 64), (32, 64, 128, 256)

BUILDERS: dict[str, Build] = {
    **{f"convnet_{width}": partial(ConvNet, width) for width in CONVNET_WIDTHS},
    **{f"resnet{depth}": partial(CifarResNet, depth, _NARROW) for depth in (8, 14, 20, 32, 44, 56, 110)},
    **{f"resnet{depth}x4": partial(CifarResNet, depth, _WIDE) for depth in (8, 32)},
    "resnet50": CifarResNet50,
    **{f"wrn_{depth}_{widen}": partial(WideResNet, depth, widen) for depth in (16, 40) for widen in (1, 2)},
    **{f"vgg{depth}": partial(VGG, blocks) for depth, blocks in VGG_BLOCKS.items()},
    **{name: partial(MobileNetV1, width) for name, width in MOBILENETV1_WIDTHS.items()},
    "mobilenetv2": MobileNetV2,
    "shufflenetv1": ShuffleNetV1,
    "shufflenetv2": ShuffleNetV2,
}
"""Our own models, by the names of ``wsl_sweep.spec.catalogue.MODELS``."""

assert set(BUILDERS) == set(MODELS)

USER_MODEL_ARGUMENTS = ("num_classes", "in_channels")
"""What a user's own ``package.module:name`` is called with, by name or in this order."""


def build(name: str, num_classes: int, in_channels: int = 3) -> nn.Module:
    """A freshly initialised model; its weights come from torch's global random state.

    Args:
        name: one of ``wsl_sweep.spec.catalogue.MODELS``; ``torchvision:<name>``; ``timm:<name>`` (the extra ``timm``);
            of text (the extra ``nlp``) ``bert_<layers>x<width>`` or ``transformers:<folder or name on the hub>``;
            or a user's own ``package.module:name``, a function or class called with ``num_classes`` and
            ``in_channels`` as far as it takes them.
        num_classes: number of logits, >= 2.
        in_channels: channels of a picture (digits: 1); of text the words of the vocabulary.

    Returns:
        A module from (B, in_channels, H, W) pictures, or (B, 2, L) tokens, to (B, num_classes) logits. Our own take any
        H, W >= 8.

    Raises:
        WslSweepError: no model of that name; the message has the nearest one.
    """
    wrong = model_problem(name)
    if wrong is not None:
        raise WslSweepError(wrong)
    if num_classes < 2:
        raise WslSweepError(f"a classifier needs two classes or more, not {num_classes}")
    if name in BUILDERS:
        return BUILDERS[name](num_classes, in_channels)
    if text_shape(name) is not None:
        return build_bert(name, num_classes, in_channels)
    source, _, inner = name.partition(":")
    if source == "transformers":
        return build_transformers(inner, num_classes, in_channels)
    if source == "torchvision":
        return build_torchvision(inner, num_classes)
    if source == "timm":
        return build_timm(inner, num_classes, in_channels)
    return _build_users(name, num_classes, in_channels)


def _build_users(name: str, num_classes: int, in_channels: int) -> nn.Module:
    make = find(name)
    if not callable(make):
        raise WslSweepError(f'"{name}" is no function or class that makes a model')
    try:
        taken = arguments_for(make, USER_MODEL_ARGUMENTS)
    except WslSweepError as error:
        raise WslSweepError(f'"{name}": {error}') from error
    try:
        model = make(**pick(taken, {"num_classes": num_classes, "in_channels": in_channels}))
    except SystemExit as error:
        raise WslSweepError(f'"{name}" calls sys.exit') from error
    if not isinstance(model, nn.Module):
        raise WslSweepError(f'"{name}" must make a torch.nn.Module, not {type(model).__name__}')
    return model
