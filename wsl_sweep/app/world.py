"""What lies outside of a search-space file: users' modules, other libraries' models, folders of pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from wsl_sweep.errors import WslSweepError
from wsl_sweep.image_listing import list_pictures
from wsl_sweep.spec.catalogue import KNOWN_SHAPES, METHODS, MODELS
from wsl_sweep.user_code import search_in, told

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

_T = TypeVar("_T")

COLOURS = 3
"""Channels of a folder of pictures, as long as none has been opened."""


def import_folders(file: Path) -> list[str]:
    """Where users' modules are looked for, beside what Python finds anyway: the working folder, the file's own."""
    return list(dict.fromkeys([str(Path.cwd()), str(file.absolute().parent)]))


class LocalWorld:
    """Answers of this machine, each asked once. torch is imported only where something has to be tried.

    Args:
        folders: where users' modules are looked for.
    """

    def __init__(self, folders: list[str]) -> None:
        search_in(folders)
        self._known: dict[tuple[Any, ...], Any] = {}

    def data_problem(self, dataset: Mapping[str, Any]) -> str | None:
        """What is wrong with a folder of pictures, or None."""
        root = dataset.get("dataset.root")
        if dataset.get("dataset.name") != "image_folder" or root is None:
            return None
        try:
            list_pictures(str(root))
        except WslSweepError as error:
            return str(error)
        return None

    def model_problem(self, name: str, dataset: Mapping[str, Any]) -> str | None:
        """What is wrong with a model on pictures of a data set, or None; tried on two blank pictures."""
        if name in MODELS:
            return None
        return self._once(("model", name, _shape(dataset)), lambda: _try_model(name, *_shape(dataset)))

    def features_problem(self, name: str, dataset: Mapping[str, Any]) -> str | None:
        """Why a model has no features, or None where it has."""
        if name in MODELS:
            return None
        return self._once(("features", name, _shape(dataset)), lambda: _try_features(name, *_shape(dataset)))

    def checkpoint_problem(self, path: str, model: str, dataset: Mapping[str, Any]) -> str | None:
        """What is wrong with a teacher's weights file for a model that is right, or None."""
        if dataset.get("dataset.name") not in KNOWN_SHAPES:  # how many classes is known when pictures are read
            return None
        shape = _shape(dataset)
        return self._once(("checkpoint", path, model, shape), lambda: _try_checkpoint(path, model, *shape))

    def method_problem(self, name: str) -> str | None:
        """What is wrong with a user's own method, or None; tried on a small batch."""
        return self._method(name)[0]

    def needs_features(self, name: str) -> bool:
        """Whether a method that is right takes features."""
        return name == "rkd" if name in METHODS else self._method(name)[1]

    def by_example(self, name: str) -> bool:
        """Whether a user's own method that is right gives each example a loss."""
        return self._method(name)[2]

    def _method(self, name: str) -> tuple[str | None, bool, bool]:
        return self._once(("method", name), lambda: _try_method(name))

    def _once(self, key: tuple[Any, ...], ask: Callable[[], _T]) -> _T:
        if key not in self._known:
            self._known[key] = ask()
        found: _T = self._known[key]
        return found


def _shape(dataset: Mapping[str, Any]) -> tuple[int, int, int]:
    """Classes, channels and pixels of a data set, from its ``dataset.`` paths."""
    known = KNOWN_SHAPES.get(str(dataset.get("dataset.name")))
    if known is not None:
        return known
    classes = 10
    if dataset.get("dataset.root"):
        classes = len(list_pictures(str(dataset["dataset.root"])).classes)
    return classes, COLOURS, int(dataset.get("dataset.size") or 32)


@lru_cache(maxsize=16)
def _built(name: str, classes: int, channels: int) -> nn.Module:
    from wsl_sweep.models import build

    return build(name, classes, channels).eval()


def _try_model(name: str, classes: int, channels: int, size: int) -> str | None:
    import torch

    try:
        with torch.no_grad():
            logits = _built(name, classes, channels)(torch.zeros(2, channels, size, size))
    except WslSweepError as error:
        return str(error)
    except Exception as error:
        return f'"{name}" fails on pictures of {channels}x{size}x{size}: {told(error)}'
    if not isinstance(logits, torch.Tensor) or tuple(logits.shape) != (2, classes):
        shape = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        return f'"{name}" gives {shape} for two pictures of {classes} classes; it must give logits (2, {classes})'
    return None


def _try_checkpoint(path: str, model: str, classes: int, channels: int, _: int) -> str | None:
    from wsl_sweep.training.weights import entry_problems, file_shapes, shortened

    try:
        shapes = file_shapes(Path(path))
    except WslSweepError as error:
        return str(error)
    problems = entry_problems(shapes, _built(model, classes, channels).state_dict(), model)
    return f"{path} does not hold the weights of {model}: {shortened(problems, 3)}" if problems else None


def _try_features(name: str, classes: int, channels: int, size: int) -> str | None:
    import torch

    from wsl_sweep.models import with_features

    try:
        with torch.no_grad():
            with_features(_built(name, classes, channels), torch.zeros(2, channels, size, size))
    except WslSweepError as error:
        return str(error)
    except Exception as error:
        return told(error)
    return None


def _try_method(name: str) -> tuple[str | None, bool, bool]:
    """(what is wrong, whether it needs features, whether it gives a loss an example)."""
    import torch

    from wsl_sweep.distill.methods import Batch, make_method

    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    try:
        made = make_method({"method": name, "temperature": 4.0})
        logits = random(4, 5).requires_grad_()
        batch = Batch(
            student_logits=logits,
            teacher_logits=random(4, 5),
            labels=torch.tensor([0, 1, 2, 3]),
            student_features=random(4, 6).requires_grad_(),
            teacher_features=random(4, 7),
            epochs=10,
        )
        loss = made.loss(batch)
    except WslSweepError as error:
        return str(error), False, True
    except Exception as error:
        return f'"{name}" fails on a batch of 4 examples and 5 classes: {told(error)}', False, True
    return _loss_problem(name, loss), made.needs_features, loss.ndim == 1


def _loss_problem(name: str, loss: torch.Tensor) -> str | None:
    if not loss.requires_grad:
        return f'"{name}" returns a loss without a gradient: it must be computed from the student\'s outputs'
    if not bool(loss.detach().isfinite().all()):
        return f'"{name}" returns {loss.detach().tolist()} on random logits; a loss must be finite'
    return None
