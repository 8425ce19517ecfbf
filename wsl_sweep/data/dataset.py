"""Data sets as tensors, and their parts: training, validation, and, on request only, test."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor

from wsl_sweep.data.cifar import cifar_names, cifar_there, load_cifar
from wsl_sweep.data.digits import load_digits
from wsl_sweep.data.raw import Progress, RawData
from wsl_sweep.data.statistics import mean_and_std
from wsl_sweep.data.streams import stream
from wsl_sweep.data.views import Views
from wsl_sweep.errors import WslSweepError
from wsl_sweep.image_listing import folder_stamp
from wsl_sweep.paths import node_folder
from wsl_sweep.spec.catalogue import DATASETS, did_you_mean

Part = Literal["train", "train+validation"]

SPLIT_SEED = 0
"""Splits, label noise and view tables belong to the data, not to a trial: the same for every seed."""

KEPT_SETS = 2
"""Data sets whose pictures a process keeps."""


@dataclass(frozen=True)
class Examples:
    """One part of a data set, resident on a device.

    Attributes:
        views: the pictures, by (example, view).
        labels: (N,) int64; of the training part with its label noise.
        ids: (N,) int64, each example's number in the whole data set.
        fixed_views: (N, k) on the CPU, the only views an example is seen in; None for all of them.
    """

    views: Views
    labels: Tensor
    ids: Tensor
    fixed_views: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def draw_views(self, generator: torch.Generator) -> Tensor:
        """(N,) one view for each example, uniformly drawn, on the CPU."""
        count = self.views.count if self.fixed_views is None else self.fixed_views.shape[1]
        draw = torch.randint(count, (len(self),), generator=generator)
        if self.fixed_views is None:
            return draw
        return self.fixed_views.gather(1, draw.unsqueeze(1)).squeeze(1)


@dataclass(frozen=True)
class VisionData:
    """A data set for classification of pictures, ready for training.

    Attributes:
        train: what a student trains on.
        validation: what settings are chosen on.
        num_classes: number of classes.
        in_channels: channels of a picture.
        digest: SHA-256 (16 hex digits) of the pictures, the labels and how they were split.
        source: SHA-256 of the pictures and labels of the whole data set, whatever the split.
        all_labels: (M,) int64, the labels of the whole data set as a student would train on them, with their noise.
        notes: what the user should know of it: pictures that were left out, …
    """

    train: Examples
    validation: Examples
    num_classes: int
    in_channels: int
    digest: str
    source: str
    all_labels: Tensor
    notes: tuple[str, ...] = ()


def prepare(
    config: Mapping[str, Any],
    progress: Progress = lambda done, of: None,
    *,
    need_test: bool = False,
    split: bool = True,
) -> tuple[str, ...]:
    """Brings a data set to where ``load`` finds it at once: downloads it, or decodes its pictures.

    Args:
        config: the resolved ``dataset`` section.
        progress: hears (done, of) while pictures are decoded.
        need_test: whether an empty test part is an error.
        split: whether its parts are looked at; if not, only ``name``, ``root`` and ``size`` are read.

    Returns:
        What the user should know of it.

    Raises:
        WslSweepError: the data are absent, damaged, or too few for the parts that are asked for.
    """
    if config["name"] == "image_folder":
        _pictures(config.get("root"), config.get("size"), progress)
    raw = _raw_of(config)
    if not split:
        return raw.notes
    pool, test = _split(raw)
    if need_test and len(test) == 0:
        where = config.get("root") or config["name"]
        raise WslSweepError(
            f"{where} has no test part: {len(pool)} pictures are too few to split one off; add pictures, or a folder "
            "test beside train"
        )
    data = load(config)
    missing = sorted(set(range(raw.num_classes)) - set(data.train.labels.tolist()))
    few = (f"{len(missing)} of {raw.num_classes} classes have no example in the training part",) if missing else ()
    return (*data.notes, *few)


def shape(config: Mapping[str, Any]) -> tuple[int, int]:
    """Classes and channels of a data set."""
    raw = _raw_of(config)
    return raw.num_classes, int(raw.images.shape[1])


def class_names(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of a data set's classes, in the order of the labels: of a folder of pictures those of its folders."""
    if config["name"] in ("cifar10", "cifar100"):
        return cifar_names(config["name"], config.get("root"))
    return _raw_of(config).class_names


def forget() -> None:
    """Lets go of the data sets that this process has loaded."""
    _load.cache_clear()
    _raw.cache_clear()
    _DEVICE_IMAGES.clear()


def available(config: Mapping[str, Any]) -> bool:
    """Whether the data of a ``dataset`` section are on this machine, so that ``load`` downloads nothing."""
    if config["name"] in ("cifar10", "cifar100"):
        return cifar_there(config["name"], config.get("root"))
    return config["name"] != "image_folder" or node_folder(str(config.get("root"))).is_dir()


def load(config: Mapping[str, Any], part: Part = "train", device: str = "cpu") -> VisionData:
    """The training and validation parts of a data set.

    Args:
        config: the resolved ``dataset`` section.
        part: whether the student trains on the training part alone or on ``train+validation``.
        device: where the pictures live.

    The split is stratified by class and fixed; a smaller ``train_fraction`` is a subset of a larger one.

    Raises:
        WslSweepError: no such data set, or a part without examples.
    """
    return _load(json.dumps(config, sort_keys=True), part, device, _stamp(config))


def load_test(config: Mapping[str, Any], device: str = "cpu") -> Examples:
    """The test part, for the final evaluation only."""
    raw = _raw_of(config)
    _, test = _split(raw)
    return _examples(raw, test, config, device, training=False)


@lru_cache(maxsize=KEPT_SETS)
def _load(config_json: str, part: Part, device: str, stamp: Any) -> VisionData:
    config: dict[str, Any] = json.loads(config_json)
    raw = _raw_of(config)
    pool, _ = _split(raw)
    train, validation = _stratified(raw.labels, pool, config["validation_fraction"], "validation")
    if part == "train+validation":
        train = pool
    if config["train_fraction"] < 1.0:
        _, train = _stratified(raw.labels, train, config["train_fraction"], "train_fraction")
    for name, rows in (("training", train), ("validation", validation)):
        if len(rows) < 2:
            raise WslSweepError(
                f"the {name} part of {config['name']} has {len(rows)} examples; "
                "change dataset.validation_fraction or dataset.train_fraction"
            )
    fractions = [float(config["validation_fraction"]), float(config["train_fraction"])]
    text = json.dumps([raw.digest, *fractions, part])
    return VisionData(
        train=_examples(raw, train, config, device, training=True),
        validation=_examples(raw, validation, config, device, training=False),
        num_classes=raw.num_classes,
        in_channels=raw.images.shape[1],
        digest=hashlib.sha256(text.encode()).hexdigest()[:16],
        source=raw.digest,
        all_labels=_noisy(raw, config["label_noise"]).to(device),
        notes=raw.notes,
    )


def _raw_of(config: Mapping[str, Any]) -> RawData:
    return _raw(config["name"], config.get("root"), config.get("size"), _stamp(config))


def _stamp(config: Mapping[str, Any]) -> Any:
    """Changes where a folder of pictures has changed under a process."""
    return folder_stamp(config["root"]) if config["name"] == "image_folder" and config.get("root") else None


@lru_cache(maxsize=KEPT_SETS)
def _raw(name: str, root: str | None, size: int | None, stamp: Any) -> RawData:
    if name == "digits":
        return load_digits()
    if name in ("cifar10", "cifar100"):
        return load_cifar(name, root)
    if name == "image_folder":
        return _pictures(root, size)
    raise WslSweepError(f'no data set is called "{name}"; {did_you_mean(name, DATASETS)}')


def _pictures(root: str | None, size: int | None, progress: Progress = lambda done, of: None) -> RawData:
    from wsl_sweep.data.image_folder import load_image_folder  # needs Pillow, which nothing else here does

    if root is None or size is None:
        raise WslSweepError("image_folder needs dataset.root, a folder of class folders, and dataset.size")
    return load_image_folder(root, size, progress)


def _split(raw: RawData) -> tuple[Tensor, Tensor]:
    """Rows of the pool (training and validation) and of the test part."""
    everything = torch.arange(len(raw.labels))
    if raw.test is None:
        return _stratified(raw.labels, everything, raw.test_fraction, "test")
    in_test = torch.zeros(len(raw.labels), dtype=torch.bool)
    in_test[raw.test] = True
    return everything[~in_test], everything[in_test]


def _stratified(labels: Tensor, rows: Tensor, fraction: float, purpose: str) -> tuple[Tensor, Tensor]:
    """``rows`` without and with a ``fraction`` of each class, in ascending order.

    The same fixed permutation of each class serves every fraction, so the taken part only grows with it.
    """
    rest, taken = [rows[:0]], [rows[:0]]
    for label in sorted(set(labels[rows].tolist())):
        members = rows[labels[rows] == label]
        members = members[torch.randperm(len(members), generator=stream(SPLIT_SEED, purpose, step=label))]
        count = round(len(members) * fraction)
        taken.append(members[:count])
        rest.append(members[count:])
    return torch.cat(rest).sort().values, torch.cat(taken).sort().values


def _examples(raw: RawData, rows: Tensor, config: Mapping[str, Any], device: str, *, training: bool) -> Examples:
    smallest = min(raw.images.shape[2:])
    if training and config.get("padding_mode") == "reflect" and config["padding"] >= smallest:
        raise WslSweepError(
            f"dataset.padding: pictures of {smallest} pixels can be reflected by {smallest - 1} at most, "
            f"not by {config['padding']}; lower it, or take padding_mode: zeros"
        )
    mean, std = _normalisation(raw)
    views = Views(
        _images(raw, device),
        padding=config["padding"] if training else 0,
        padding_mode=config.get("padding_mode", "zeros"),
        flip=config["flip"] if training else False,
        mean=mean.to(device),
        std=std.to(device),
        scale=raw.scale,
        rows=rows.to(device),
    )
    labels, fixed = raw.labels[rows].clone(), None
    if training:
        labels = _noisy(raw, config["label_noise"])[rows]
    if training and config["views"] != "all" and config["views"] < views.count:
        # Drawn for the whole data set, so that a part of it is seen in the same views.
        scores = torch.rand(len(raw.labels), views.count, generator=stream(SPLIT_SEED, "views"), dtype=torch.float32)
        fixed = scores.argsort(dim=1)[rows, : config["views"]]
    return Examples(views, labels.to(device), rows.to(device), fixed)


_DEVICE_IMAGES: dict[tuple[str, str], Tensor] = {}


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


def _normalisation(raw: RawData) -> tuple[Tensor, Tensor]:
    """Given, or computed over everything but the test part."""
    if raw.mean is not None and raw.std is not None:
        return raw.mean, raw.std
    return mean_and_std(raw, _split(raw)[0])


def _noisy(raw: RawData, fraction: float) -> Tensor:
    """The labels with each one replaced, with probability ``fraction``, by another class."""
    if not fraction:
        return raw.labels
    generator = stream(SPLIT_SEED, "label noise")
    chosen = torch.rand(len(raw.labels), generator=generator, dtype=torch.float32) < fraction
    shift = torch.randint(1, raw.num_classes, (len(raw.labels),), generator=generator)
    return torch.where(chosen, (raw.labels + shift) % raw.num_classes, raw.labels)
