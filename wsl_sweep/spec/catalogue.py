"""The names that a search-space file may use for data sets and models, known without importing torch."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches

from wsl_sweep.user_code import is_import_name

DATASETS: tuple[str, ...] = ("digits", "cifar10", "cifar100", "image_folder", "imagenet", "mnli")

KNOWN_SHAPES: dict[str, tuple[int, int, int]] = {
    "digits": (10, 1, 8),
    "cifar10": (10, 3, 32),
    "cifar100": (100, 3, 32),
}
"""Classes, channels and pixels of a side, of the data sets where they are always the same."""

CONVNET_WIDTHS: tuple[int, ...] = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)

CIFAR_MODELS: tuple[str, ...] = (
    "resnet8", "resnet14", "resnet20", "resnet32", "resnet44", "resnet56", "resnet110", "resnet8x4", "resnet32x4",
    "resnet50", "wrn_16_1", "wrn_16_2", "wrn_40_1", "wrn_40_2", "vgg8", "vgg11", "vgg13", "vgg16", "vgg19",
    "mobilenetv2", "shufflenetv1", "shufflenetv2",
)  # fmt: skip
"""The models of the CIFAR experiments, as in RepDistiller's public zoo of CIFAR-100 teachers."""

MOBILENETV1_WIDTHS: dict[str, float] = {
    "mobilenetv1": 1.0,
    "mobilenetv1_x075": 0.75,
    "mobilenetv1_x050": 0.5,
    "mobilenetv1_x025": 0.25,
}
"""The student of WSL's second ImageNet pair, and its narrower kin (Howard et al. 2017): width multipliers."""

MODELS: tuple[str, ...] = (*(f"convnet_{width}" for width in CONVNET_WIDTHS), *CIFAR_MODELS, *MOBILENETV1_WIDTHS)

METHODS: tuple[str, ...] = ("none", "kd", "dkd", "dist", "rkd")
"""What ``distillation.method`` may be, beside a user's own ``package.module:name``."""

LIBRARIES_OF_MODELS: tuple[str, ...] = ("timm", "torchvision")


def is_library_model(name: str) -> bool:
    """Whether a name has the form ``timm:name`` or ``torchvision:name``."""
    library, _, inner = name.partition(":")
    return library in LIBRARIES_OF_MODELS and bool(inner)


def model_problem(name: str) -> str | None:
    """What is wrong with a model's name as far as it can be told without importing anything."""
    if name in MODELS or is_library_model(name) or is_import_name(name):
        return None
    if ":" in name:
        return f'"{name}" must have the form package.module:name, torchvision:name or timm:name'
    return f'no model is called "{name}"; {did_you_mean(name, MODELS)}; your own is package.module:name'


def dataset_problem(name: str) -> str | None:
    """What is wrong with a data set's name as far as it can be told without importing anything."""
    if name in DATASETS or is_import_name(name):
        return None
    if ":" in name:
        return f'"{name}" must have the form package.module:YourTask'
    return f'no data set is called "{name}"; {did_you_mean(name, DATASETS)}; your own is package.module:YourTask'


def method_problem(name: str) -> str | None:
    """What is wrong with a distillation method's name as far as it can be told without importing anything."""
    if name in METHODS or is_import_name(name):
        return None
    if ":" in name:
        return f'"{name}" must have the form package.module:name'
    hint = did_you_mean(name, METHODS)
    return f"must be one of {', '.join(METHODS)}, or your own package.module:name, not {name!r}" + (
        f"; {hint}" if hint.startswith("did") else ""
    )


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that ``name`` was most likely meant to be, or None.

    A dotted path is compared by its last part too, so that ``alhpa`` finds ``distillation.alpha``.
    """
    names = list(known)
    lowered = {candidate.lower(): candidate for candidate in reversed(names)}
    close = get_close_matches(name.lower(), list(lowered), n=1, cutoff=0.6)
    if close:
        return lowered[close[0]]
    tails = {candidate.rsplit(".", 1)[-1].lower(): candidate for candidate in reversed(names)}
    tail = get_close_matches(re.split(r"\.", name.lower())[-1], list(tails), n=1, cutoff=0.7)
    return tails[tail[0]] if tail else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``did you mean "…"?``, or the list of what there is where nothing is near."""
    names = list(known)
    close = nearest(name, names)
    if close is not None:
        return f'did you mean "{close}"?'
    shown = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
    return f"there is: {shown}"
