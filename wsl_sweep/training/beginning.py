"""Where the weights of text models begin: pretrained ones, or a teacher's first layers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wsl_sweep.errors import WslSweepError
from wsl_sweep.model_folders import read_config, weight_files
from wsl_sweep.models import build
from wsl_sweep.models.bert import TextClassifier, by_todays_names
from wsl_sweep.models.pretrained import model_folder
from wsl_sweep.training.checkpoints import read_state_dict
from wsl_sweep.training.weights import entry_problems, shortened

RANDOM, TEACHER = "random", "teacher"

POOLER = ".pooler."
"""A part that files of language models lack; it stays as it began there."""

_LAYER = re.compile(r"\.layer\.(\d+)\.")


def begin(model: nn.Module, name: str, init: str, teacher: Path | None = None) -> None:
    """Puts the weights from which a training begins into a fresh model.

    Those of its backbone: embeddings, as many of the first layers as it has, and the pooler. Not the classifier's, so
    that classes may be others. Sun et al. (2019) begin a student so, from pretrained weights.

    Args:
        model: of the name ``name``, fresh; changed in place.
        name: for messages.
        init: ``random`` (nothing is done), ``teacher``, a folder of pretrained weights, or their name on the hub.
        teacher: the teacher's safetensors file, where ``init`` is ``teacher``.

    Raises:
        WslSweepError: the model reads no text, or the weights are not there, or not such as it has.
    """
    if init == RANDOM:
        return
    if not isinstance(model, TextClassifier):
        raise WslSweepError(f"{name} reads no text: only text models begin from {init}")
    if init != TEACHER:
        model.load_state_dict(_pretrained(model, name, init), strict=False)
    elif teacher is None:
        raise ValueError("a student that begins from its teacher needs the teacher's weights")
    else:
        own = _fitting(model, name, read_state_dict(teacher), f"its teacher ({teacher})")
        model.load_state_dict(own, strict=False)


def check_beginning(name: str, init: str, num_classes: int, words: int, longest: int = 0) -> None:
    """Whether a text model can be made for some data, and begin from pretrained weights, which are downloaded for it.

    Nothing is asked of a teacher's: it may not be trained yet. The data's examples have ``longest`` tokens at most.

    Raises WslSweepError: as ``begin``, or as ``wsl_sweep.models.build``.
    """
    with torch.device("meta"):
        model = build(name, num_classes, words)
    assert isinstance(model, TextClassifier)
    if longest > model.positions:
        raise WslSweepError(
            f"{name} reads {model.positions} tokens at most: lower dataset.max_length, which is {longest}"
        )
    if init not in (RANDOM, TEACHER):
        _pretrained(model, name, init)


def check_teacher(student: nn.Module, name: str, teacher: str, num_classes: int, words: int) -> None:
    """Whether a student can begin from its teacher's layers, as far as shapes of weights do not tell.

    Raises WslSweepError: their heads of attention are not as many.
    """
    with torch.device("meta"):
        model = build(teacher, num_classes, words)
    if isinstance(student, TextClassifier) and isinstance(model, TextClassifier):
        _check_heads(student, name, model.heads, f"its teacher {teacher}")


def _check_heads(model: TextClassifier, name: str, heads: Any, what: str) -> None:
    if heads != model.heads:
        raise WslSweepError(f"{name} cannot begin from {what}: that has {heads} heads of attention, not {model.heads}")


def _pretrained(model: TextClassifier, name: str, init: str) -> dict[str, Tensor]:
    """The weights that a folder, or a name on the hub, has for a model's backbone."""
    folder = model_folder(init, weights=True)
    said = read_config(folder)
    _check_heads(model, name, said.get("num_attention_heads", said.get("n_heads", model.heads)), init)
    tensors: dict[str, Tensor] = {}
    for file in weight_files(folder):
        tensors |= read_state_dict(file)
    return _fitting(model, name, tensors, init)


def backbone_of(tensors: Mapping[str, Tensor], backbone: str) -> dict[str, Tensor]:
    """Those of some published tensors that belong to a backbone, by the names that they have within a classifier."""
    prefix = f"{backbone}."
    if not any(key.startswith(prefix) for key in tensors):  # of a backbone saved by itself
        tensors = {prefix + key: tensor for key, tensor in tensors.items()}
    return {key: tensor for key, tensor in by_todays_names(tensors).items() if key.startswith(prefix)}


def _fitting(model: TextClassifier, name: str, tensors: Mapping[str, Tensor], what: str) -> dict[str, Tensor]:
    """Those that a model's backbone takes of some published tensors or a teacher's, every entry and shape checked."""
    prefix = f"{model.backbone}."
    own = {key: value for key, value in model.state_dict().items() if key.startswith(prefix)}
    found = backbone_of(tensors, model.backbone)
    if not set(found) & set(own):
        raise WslSweepError(f"{what} does not hold the weights of a {model.backbone}, as {name} is one")
    layers, wanted = _layers(found), _layers(own)
    if layers < wanted:
        raise WslSweepError(f"{what} has {layers} layers, and {name} begins from its first {wanted}")
    taken = {key: found[key] for key in own if key in found}
    needed = {key: value for key, value in own.items() if key in found or POOLER not in key}
    problems = entry_problems({key: tuple(value.shape) for key, value in taken.items()}, needed, name)
    problems = problems or [
        f"{key} has values that are not finite" for key, tensor in taken.items() if not bool(tensor.isfinite().all())
    ]
    if problems:
        raise WslSweepError(f"{name} cannot begin from {what}: {shortened(problems)}")
    return taken


def _layers(tensors: Mapping[str, Tensor]) -> int:
    found = [_LAYER.search(key) for key in tensors]
    return 1 + max((int(one[1]) for one in found if one is not None), default=-1)
