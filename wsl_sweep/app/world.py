"""What lies outside of a search-space file: users' modules, other libraries' models, folders of pictures."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from wsl_sweep.app.pretrained import classes_known, pretrained_problem
from wsl_sweep.errors import WslSweepError
from wsl_sweep.image_listing import list_pictures
from wsl_sweep.model_folders import is_hub_name, local_folder, weight_files
from wsl_sweep.pair_files import pair_files
from wsl_sweep.spec.catalogue import (
    METHODS,
    MODELS,
    is_text_model,
    model_problem,
    text_shape,
)
from wsl_sweep.spec.datasets import DATASETS, data_set
from wsl_sweep.spec.pretrained import is_pretrained
from wsl_sweep.user_code import is_import_name, search_in, told

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

_T = TypeVar("_T")

WORDS, CLASSES = ".embeddings.word_embeddings.weight", "classifier.weight"
"""How the entry of a text model ends that has a row for each word, and the one that has a row for each class."""

COLOURS = 3
"""Channels of ImageNet's pictures, and of a folder of pictures that cannot be read."""


SOME_FEATURES = 6
"""Of models that have none: what is wrong with them is told by itself."""


def import_folders(file: Path) -> list[str]:
    """Where users' modules are looked for, beside what Python finds anyway: the working folder, the file's own."""
    return list(dict.fromkeys([str(Path.cwd()), str(file.absolute().parent)]))


class OwnShape(NamedTuple):
    """Classes and channels of what has no pictures, and its ``dataset`` section as JSON."""

    classes: int
    channels: int
    section: str


Shape = tuple[int, int, int] | OwnShape
"""Classes, channels and pixels of a side; or what texts and users' own tasks have in their place."""


class LocalWorld:
    """Answers of this machine, each asked once. torch is imported only where something has to be tried.

    Args:
        folders: where users' modules are looked for.
    """

    def __init__(self, folders: list[str]) -> None:
        search_in(folders)
        self._known: dict[tuple[Any, ...], Any] = {}
        self._methods: dict[str, tuple[str | None, bool, bool]] = {}

    def data_problem(self, dataset: Mapping[str, Any]) -> str | None:
        """What is wrong with a folder of pictures or sentences, or with a user's own task, or None."""
        name, root = str(dataset.get("dataset.name")), dataset.get("dataset.root")
        if is_import_name(name):
            return self._task(name, root)[0]
        if root is None:
            return None
        try:
            if data_set(name).of == "sentences":
                pair_files(str(root))
            elif data_set(name).folder_of_pictures:
                _classes(dataset)
        except WslSweepError as error:
            return str(error)
        return None

    def own_metrics(self, dataset: Mapping[str, Any]) -> tuple[str, ...]:
        """The metrics that a user's own task that is right adds: ``validation/f1``, …; none of any other data set."""
        name = str(dataset.get("dataset.name"))
        return self._task(name, dataset.get("dataset.root"))[1] if is_import_name(name) else ()

    def _task(self, name: str, root: Any) -> tuple[str | None, tuple[str, ...]]:
        return self._once(("task", name, root), lambda: _try_task(name, None if root is None else str(root)))

    def model_problem(self, name: str, dataset: Mapping[str, Any]) -> str | None:
        """What is wrong with a model on a data set, or None; tried on two blank pictures, or two of its examples."""
        data = str(dataset.get("dataset.name"))
        is_text = data_set(data).of == "sentences"
        if is_text_model(name) and data in DATASETS:
            if not is_text:
                return f'"{name}" reads text, and {data} has pictures'
            return self._once(("model", name, data), lambda: _try_text_model(name))
        if name in MODELS and data in DATASETS:
            return f'"{name}" reads pictures, and {data} has text' if is_text else None
        shape = _shape(dataset)
        return self._once(("model", name, shape), lambda: _try_model(name, shape))

    def features_problem(self, name: str, dataset: Mapping[str, Any]) -> str | None:
        """Why a model has no features, or None where it has."""
        if name in MODELS or is_text_model(name):
            return None
        return self._once(("features", name, _shape(dataset)), lambda: _try_features(name, _shape(dataset)))

    def checkpoint_problem(self, path: str, model: str, dataset: Mapping[str, Any]) -> str | None:
        """What is wrong with a teacher's weights file for a model that is right, or None."""
        if is_pretrained(path):
            classes = _shape(dataset)[0] if classes_known(dataset) else None
            return self._once(("checkpoint", path, model, classes), lambda: pretrained_problem(model, path, classes))
        if is_text_model(model):
            return self._once(("checkpoint", path, model), lambda: _try_text_checkpoint(path, model))
        shape = _shape(dataset)
        return self._once(("checkpoint", path, model, shape), lambda: _try_checkpoint(path, model, shape))

    def beginning_problem(self, init: str) -> str | None:
        """What is wrong with a folder of pretrained weights, or None; what is on the hub is asked for later."""
        if is_hub_name(init):
            return None
        try:
            weight_files(local_folder(init))
        except WslSweepError as error:
            return str(error)
        return None

    def method_problem(self, name: str, flat: Mapping[str, Any]) -> str | None:
        """What is wrong with a user's own method, or None; tried on a small batch of the right widths."""
        classes = _shape(flat)[0]
        wants = self._once(("wants", name), lambda: _wants_features(name))
        student = self._width(flat.get("student.model"), flat) if wants else None
        teacher = self._width(flat.get("teacher.model"), flat) if wants else None
        widths = (student or teacher or SOME_FEATURES, teacher or student or SOME_FEATURES)
        asked = ("method", name, classes, widths)
        self._methods[name] = self._once(asked, lambda: _try_method(name, classes, *widths))
        return self._methods[name][0]

    def needs_features(self, name: str) -> bool:
        """Whether a method that is right takes features."""
        return name == "rkd" if name in METHODS else self._methods[name][1]

    def by_example(self, name: str) -> bool:
        """Whether a user's own method that is right gives each example a loss."""
        return self._methods[name][2]

    def _width(self, model: Any, flat: Mapping[str, Any]) -> int | None:
        """How many features a model has; None where it has none."""
        if model is None or model_problem(str(model)) is not None:
            return None
        of_text = text_shape(str(model))
        if of_text is not None:
            return of_text[1]
        shape = _shape(flat)
        return self._once(("width", model, shape), lambda: _features_width(str(model), shape))

    def _once(self, key: tuple[Any, ...], ask: Callable[[], _T]) -> _T:
        if key not in self._known:
            self._known[key] = ask()
        found: _T = self._known[key]
        return found


def _shape(dataset: Mapping[str, Any]) -> Shape:
    """The shape of a data set, from its ``dataset.`` paths; what lies in a folder is read for it."""
    name = str(dataset.get("dataset.name"))
    if is_import_name(name):
        from wsl_sweep.data import shape

        section = _section(name, dataset.get("dataset.root"))
        return OwnShape(*shape(section), json.dumps(section))
    name = str(dataset.get("dataset.name"))
    known = data_set(name)
    if known.shape is not None:
        return known.shape
    if known.of == "sentences":
        leaves = ("name", "root", "damaged", "max_length", "vocabulary")
        config = {leaf: dataset[f"dataset.{leaf}"] for leaf in leaves if dataset.get(f"dataset.{leaf}") is not None}
        return _shape_of_texts(json.dumps(config))
    root, size = dataset.get("dataset.root"), int(dataset.get("dataset.size") or 32)
    if root is None:
        return 10, COLOURS, size
    if name == "imagenet":
        return _classes(dataset), COLOURS, size
    return _shape_of_pictures(str(root), size, list_pictures(str(root)).state())


def _classes(dataset: Mapping[str, Any]) -> int:
    """Of a folder of pictures, by the names in it. Raises WslSweepError: it is not as it must be."""
    root = str(dataset["dataset.root"])
    if dataset["dataset.name"] == "image_folder":
        return len(list_pictures(root).classes)
    from wsl_sweep.imagenet_listing import list_imagenet  # with numpy

    return len(list_imagenet(root).classes)


@lru_cache(maxsize=16)
def _shape_of_texts(config: str) -> Shape:
    from wsl_sweep.app.preparing import prepare_one
    from wsl_sweep.data import shape

    prepare_one(json.loads(config), split=False)
    return OwnShape(*shape(json.loads(config)), config)


@lru_cache(maxsize=16)
def _shape_of_pictures(root: str, size: int, _: str) -> Shape:
    from wsl_sweep.app.preparing import prepare_one
    from wsl_sweep.data import shape

    config = {"name": "image_folder", "root": root, "size": size}
    try:
        prepare_one(config, split=False)
        return (*shape(config), size)
    except WslSweepError:  # told where the data are prepared
        return len(list_pictures(root).classes), COLOURS, size


@lru_cache(maxsize=16)
def _built(name: str, classes: int, channels: int) -> nn.Module:
    from wsl_sweep.models import build
    from wsl_sweep.training.weights import build_with_seed

    return build_with_seed(lambda: build(name, classes, channels), 0).eval()


def _section(name: str, root: Any) -> dict[str, Any]:
    return {"name": name} if root is None else {"name": name, "root": str(root)}


def _try_task(name: str, root: str | None) -> tuple[str | None, tuple[str, ...]]:
    """(what is wrong, the metrics that it adds)."""
    from wsl_sweep.data.own_task import try_task

    try:
        return None, try_task(name, root)
    except WslSweepError as error:
        return str(error), ()


def _example(shape: Shape) -> tuple[Tensor, str]:
    """Two inputs of a data set as a model gets them, and what to call them."""
    import torch

    from wsl_sweep.data import some_inputs

    if not isinstance(shape, OwnShape):
        _, channels, size = shape
        return torch.zeros(2, channels, size, size), f"pictures of {channels}x{size}x{size}"
    section = json.loads(shape.section)
    inputs = some_inputs(section)
    sides = "x".join(map(str, inputs.shape[1:])) or "one number"
    return inputs, f"{section['name']}'s inputs of {sides} ({str(inputs.dtype).removeprefix('torch.')})"


def _try_model(name: str, shape: Shape) -> str | None:
    import torch

    classes, channels = shape[:2]
    inputs, what = _example(shape)
    try:
        with torch.no_grad():
            logits = _built(name, classes, channels)(inputs)
    except WslSweepError as error:
        return str(error)
    except (Exception, SystemExit) as error:
        return f'"{name}" fails on {what}: {told(error)}'
    if not isinstance(logits, torch.Tensor) or tuple(logits.shape) != (2, classes):
        given = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        of = "inputs" if isinstance(shape, OwnShape) else "pictures"
        return f'"{name}" gives {given} for two {of} of {classes} classes; it must give logits (2, {classes})'
    return None


def _try_text_model(name: str) -> str | None:
    """Whatever the data's vocabulary: whether it is large enough is told where the data are prepared."""
    import torch

    from wsl_sweep.models import build

    try:
        with torch.device("meta"):
            build(name, 2, 1)
    except WslSweepError as error:
        return str(error)
    return None


def _try_text_checkpoint(path: str, model: str) -> str | None:
    """Whatever the classes and the vocabulary: the file says how many of them there are."""
    import torch

    from wsl_sweep.models import build
    from wsl_sweep.training.weights import entry_problems, file_shapes, shortened

    try:
        shapes = file_shapes(Path(path))
        words = next((shape[0] for key, shape in shapes.items() if key.endswith(WORDS) and shape), 1)
        classes = max((2, *shapes.get(CLASSES, ())[:1]))
        with torch.device("meta"):
            own = build(model, classes, words).state_dict()
    except WslSweepError as error:
        return str(error)
    problems = entry_problems(shapes, own, model)
    return f"{path} does not hold the weights of {model}: {shortened(problems, 3)}" if problems else None


def _try_checkpoint(path: str, model: str, shape: Shape) -> str | None:
    from wsl_sweep.training.weights import entry_problems, file_shapes, shortened

    try:
        shapes = file_shapes(Path(path))
    except WslSweepError as error:
        return str(error)
    problems = entry_problems(shapes, _built(model, *shape[:2]).state_dict(), model)
    return f"{path} does not hold the weights of {model}: {shortened(problems, 3)}" if problems else None


def _try_features(name: str, shape: Shape) -> str | None:
    import torch

    from wsl_sweep.models import with_features

    try:
        with torch.no_grad():
            with_features(_built(name, *shape[:2]), _example(shape)[0])
    except WslSweepError as error:
        return str(error)
    except (Exception, SystemExit) as error:
        return told(error)
    return None


def _features_width(name: str, shape: Shape) -> int | None:
    import torch

    from wsl_sweep.models import with_features

    try:
        with torch.no_grad():
            return int(with_features(_built(name, *shape[:2]), _example(shape)[0])[1].shape[1])
    except (Exception, SystemExit):  # what is wrong is told where the model is asked about
        return None


def _wants_features(name: str) -> bool:
    from wsl_sweep.distill.methods import make_method

    try:
        return make_method({"method": name, "temperature": 4.0}).needs_features
    except (Exception, SystemExit):  # told by ``_try_method``
        return False


def _try_method(name: str, classes: int, student_width: int, teacher_width: int) -> tuple[str | None, bool, bool]:
    """(what is wrong, whether it needs features, whether it gives a loss an example)."""
    import torch

    from wsl_sweep.distill.methods import Batch, make_method

    generator = torch.Generator().manual_seed(0)

    def random(width: int) -> Tensor:
        return torch.randn(4, width, generator=generator)

    try:
        made = make_method({"method": name, "temperature": 4.0})
        logits = random(classes).requires_grad_()
        batch = Batch(
            student_logits=logits,
            teacher_logits=random(classes),
            labels=torch.arange(4) % classes,
            student_features=random(student_width).requires_grad_(),
            teacher_features=random(teacher_width),
            epochs=10,
        )
        loss = made.loss(batch)
    except WslSweepError as error:
        return str(error), False, True
    except (Exception, SystemExit) as error:
        return f'"{name}" fails on a batch of 4 examples and {classes} classes: {told(error)}', False, True
    return _loss_problem(name, loss), made.needs_features, loss.ndim == 1


def _loss_problem(name: str, loss: torch.Tensor) -> str | None:
    if not loss.requires_grad:
        return f'"{name}" returns a loss without a gradient: it must be computed from the student\'s outputs'
    if not bool(loss.detach().isfinite().all()):
        return f'"{name}" returns {loss.detach().tolist()} on random logits; a loss must be finite'
    return None
