"""The names that a search-space file may use for models and methods, known without importing torch."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches

from wsl_sweep.spec.datasets import DATASETS
from wsl_sweep.user_code import is_import_name

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

TEXT_MODELS: dict[str, tuple[int, int]] = {"bert_base": (12, 768), "bert_t3": (3, 768)}
"""Names of their own for shapes of BERT, layers and width: BERT-base (Devlin et al. 2019), and the 3-layer student of
WSL A.6. Any other is ``bert_<layers>x<width>``."""

MOST_LAYERS, MOST_WIDTH = 24, 1024
_BERT = re.compile(r"bert_([1-9]\d*)x([1-9]\d*)")

METHODS: tuple[str, ...] = ("none", "kd", "dkd", "dist", "rkd")
"""What ``distillation.method`` may be, beside a user's own ``package.module:name``."""

LIBRARIES_OF_MODELS: tuple[str, ...] = ("timm", "torchvision", "transformers")


def is_library_model(name: str) -> bool:
    """Whether a name has the form ``timm:name``, ``torchvision:name`` or ``transformers:folder or name``."""
    library, _, inner = name.partition(":")
    return library in LIBRARIES_OF_MODELS and bool(inner)


def library_of_model(name: str) -> str | None:
    """The library whose code a model is; None for our own and users'."""
    if text_shape(name) is not None:
        return "transformers"
    return name.partition(":")[0] if is_library_model(name) else None


def is_text_model(name: str) -> bool:
    """Whether a name is that of a model which reads text: ``bert_<layers>x<width>``, or one of transformers'."""
    return text_shape(name) is not None or (is_library_model(name) and name.startswith("transformers:"))


def text_shape(name: str) -> tuple[int, int] | None:
    """Layers and width of ``bert_<layers>x<width>``, or of a name of TEXT_MODELS; None for any other name.

    At most 24 layers; a width is a multiple of 16 up to 128, and of 64 from there up to 1024: see ``attention_heads``.
    """
    if name in TEXT_MODELS:
        return TEXT_MODELS[name]
    found = _BERT.fullmatch(name)
    if found is None:
        return None
    layers, width = int(found[1]), int(found[2])
    fits = layers <= MOST_LAYERS and width <= MOST_WIDTH and width % (16 if width <= 128 else 64) == 0
    return (layers, width) if fits else None


def attention_heads(width: int) -> int:
    """Heads of a BERT of a width: one for 64 of it, as in all published ones (Turc et al. 2019), but two at least."""
    return max(2, width // 64)


def model_problem(name: str) -> str | None:
    """What is wrong with a model's name as far as it can be told without importing anything."""
    if name in MODELS or text_shape(name) is not None or is_library_model(name) or is_import_name(name):
        return None
    if ":" in name:
        return f'"{name}" must have the form package.module:name, torchvision:name, timm:name or transformers:folder'
    if _BERT.fullmatch(name) is not None:
        return (
            f'"{name}": bert_<layers>x<width> has at most {MOST_LAYERS} layers, and a width that is a multiple of 16 '
            f"up to 128, or of 64 up to {MOST_WIDTH}"
        )
    known = (*MODELS, *TEXT_MODELS)
    return f'no model is called "{name}"; {did_you_mean(name, known)}; your own is package.module:name'


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
