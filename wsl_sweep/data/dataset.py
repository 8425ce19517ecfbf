"""Data sets and their parts: training, validation, and, on request only, test."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor

from wsl_sweep.data.cifar import cifar_names, cifar_superclasses
from wsl_sweep.data.pictures import forget_pictures
from wsl_sweep.data.raw import Progress
from wsl_sweep.data.sources import read_task, source_of
from wsl_sweep.data.splits import SPLIT_SEED, dealt, noisy_labels, split_off_test, stratified
from wsl_sweep.data.streams import stream
from wsl_sweep.data.task import Examples, Task, TaskData
from wsl_sweep.errors import WslSweepError

Part = Literal["train", "train+validation"]

KEPT_SETS = 2
"""Data sets that a process keeps."""

OF_THE_TASK = ("name", "root", "size", "damaged", "max_length", "vocabulary")
"""What of a ``dataset`` section decides what a data set holds, whatever its parts."""


def prepare(
    config: Mapping[str, Any],
    progress: Progress = lambda done, of: None,
    *,
    need_test: bool = False,
    split: bool = True,
) -> tuple[str, ...]:
    """Brings a data set to where ``load`` finds it at once: downloads it, decodes its pictures, tokenises its texts.

    Args:
        config: the resolved ``dataset`` section.
        progress: hears (done, of) meanwhile.
        need_test: whether an empty test part is an error.
        split: whether its parts are looked at; if not, only OF_THE_TASK is read.

    Returns:
        What the user should know of it.

    Raises:
        WslSweepError: the data are absent, damaged, or too few for the parts that are asked for.
    """
    source_of(str(config["name"])).prepare(config, progress)
    task = task_of(config)
    if not split:
        return task.notes
    pool, test = split_off_test(task)
    if need_test and len(test) == 0:
        where = config.get("root") or config["name"]
        raise WslSweepError(
            f"{where} has no test part: {len(pool)} examples are too few to split one off; add some, or give it a test "
            "part of its own"
        )
    data = load(config)
    missing = sorted(set(range(task.num_classes)) - set(data.train.labels.tolist()))
    few = (f"{len(missing)} of {task.num_classes} classes have no example in the training part",) if missing else ()
    return (*data.notes, *few)


def shape(config: Mapping[str, Any]) -> tuple[int, int]:
    """Classes and channels of a data set."""
    task = task_of(config)
    return task.num_classes, task.in_channels


def some_inputs(config: Mapping[str, Any], count: int = 2) -> Tensor:
    """(count, …) inputs of a data set's first examples as they are, on the CPU: what a model of it has to take."""
    task = task_of(config)
    rows = torch.arange(count) % len(task.labels)
    return task.inputs(config, rows, "cpu", training=False).plain(torch.arange(count))


def class_names(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of a data set's classes, in the order of the labels: of a folder of pictures those of its folders.

    All can be written as UTF-8; what cannot in a folder's name is told by its number.
    """
    if config["name"] in ("cifar10", "cifar100"):
        return cifar_names(config["name"], config.get("root"))
    return tuple(name.encode("utf-8", "backslashreplace").decode() for name in task_of(config).class_names)


def superclasses(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Of each class, in the order of the labels, the name of its superclass; None where the data set has none.

    Raises:
        WslSweepError: the data are absent or damaged.
    """
    return cifar_superclasses(config.get("root")) if config["name"] == "cifar100" else None


def forget() -> None:
    """Lets go of the data sets that this process has loaded."""
    _load.cache_clear()
    _task.cache_clear()
    forget_pictures()


def available(config: Mapping[str, Any]) -> bool:
    """Whether the data of a ``dataset`` section are on this machine, so that ``load`` downloads nothing."""
    return source_of(str(config["name"])).available(config)


def load(config: Mapping[str, Any], part: Part = "train", device: str = "cpu", workers: int = 0) -> TaskData:
    """The training and validation parts of a data set.

    Args:
        config: the resolved ``dataset`` section.
        part: whether the student trains on the training part alone or on ``train+validation``.
        device: where a model reads them.
        workers: processes that bring inputs which do not lie in memory.

    The split is stratified by class and fixed; a smaller ``train_fraction`` is a subset of a larger one. With
    ``splits`` above 1 the training part is the ``split``-th (from 0) of so many disjoint ones.

    Raises:
        WslSweepError: no such data set, or a part without examples.
    """
    return _load(json.dumps(config, sort_keys=True), part, device, workers, _stamp(config))


def load_test(config: Mapping[str, Any], device: str = "cpu", workers: int = 0) -> Examples:
    """The test part, for the final evaluation only."""
    task = task_of(config)
    _, test = split_off_test(task)
    return _examples(task, test, config, device, workers, training=False)


def task_of(config: Mapping[str, Any]) -> Task:
    """The data set of a ``dataset`` section as a whole."""
    own = {key: config[key] for key in OF_THE_TASK if config.get(key) is not None}
    return _task(json.dumps(own, sort_keys=True), _stamp(config))


@lru_cache(maxsize=KEPT_SETS)
def _load(config_json: str, part: Part, device: str, workers: int, stamp: Any) -> TaskData:
    config: dict[str, Any] = json.loads(config_json)
    task = task_of(config)
    pool, _ = split_off_test(task)
    train, validation = stratified(task.labels, pool, config["validation_fraction"], "validation")
    if part == "train+validation":
        train = pool
    if config["train_fraction"] < 1.0:
        _, train = stratified(task.labels, train, config["train_fraction"], "train_fraction")
    of_several = [config["splits"], config["split"]] if config.get("splits", 1) > 1 else []
    if of_several:
        train = dealt(task.labels, train, *of_several)
    for name, rows in (("training", train), ("validation", validation)):
        if len(rows) < 2:
            raise WslSweepError(
                f"the {name} part of {config['name']} has {len(rows)} examples; "
                "change dataset.validation_fraction, dataset.train_fraction or dataset.splits"
            )
    fractions = [float(config["validation_fraction"]), float(config["train_fraction"])]
    text = json.dumps([task.digest, *fractions, part, *of_several])
    return TaskData(
        train=_examples(task, train, config, device, workers, training=True),
        validation=_examples(task, validation, config, device, workers, training=False),
        num_classes=task.num_classes,
        in_channels=task.in_channels,
        digest=hashlib.sha256(text.encode()).hexdigest()[:16],
        source=task.digest,
        all_labels=noisy_labels(task, config["label_noise"]).to(device),
        notes=task.notes,
    )


def _stamp(config: Mapping[str, Any]) -> Any:
    """Changes where the files of a data set have changed under a process."""
    return source_of(str(config["name"])).stamp(config)


@lru_cache(maxsize=KEPT_SETS)
def _task(config_json: str, stamp: Any) -> Task:
    return read_task(json.loads(config_json))


def _examples(
    task: Task, rows: Tensor, config: Mapping[str, Any], device: str, workers: int, *, training: bool
) -> Examples:
    inputs = task.inputs(config, rows, device, training=training, workers=workers)
    labels, fixed = task.labels[rows].clone(), None
    if training:
        labels = noisy_labels(task, config["label_noise"])[rows]
    views = config.get("views", "all")
    if training and isinstance(views, int) and not inputs.streamed and views < (inputs.count or 0):
        # Drawn for the whole data set, so that a part of it is seen in the same views.
        scores = torch.rand(
            len(task.labels), inputs.count or 0, generator=stream(SPLIT_SEED, "views"), dtype=torch.float32
        )
        fixed = scores.argsort(dim=1)[rows, :views]
    places = {int(row): place for place, row in enumerate(rows.tolist())} if task.test_groups and not training else {}
    groups = {
        name: torch.tensor([places[row] for row in of_group.tolist() if row in places], dtype=torch.int64)
        for name, of_group in task.test_groups.items()
        if places
    }
    groups = {name: found for name, found in groups.items() if len(found)}
    return Examples(inputs, labels.to(device), rows.to(device), fixed, task, groups)
