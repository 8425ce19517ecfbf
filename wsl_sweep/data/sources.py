"""Where data sets come from: by the name of a ``dataset`` section, how it is looked for, prepared and read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from wsl_sweep.data.cifar import cifar_there, load_cifar
from wsl_sweep.data.digits import load_digits
from wsl_sweep.data.own_task import make_task
from wsl_sweep.data.pictures import Pictures
from wsl_sweep.data.raw import Progress
from wsl_sweep.data.task import Task
from wsl_sweep.errors import WslSweepError
from wsl_sweep.image_listing import folder_stamp
from wsl_sweep.imagenet_listing import imagenet_there
from wsl_sweep.paths import node_folder
from wsl_sweep.spec.catalogue import did_you_mean
from wsl_sweep.spec.datasets import DATASETS
from wsl_sweep.user_code import is_import_name

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Source:
    """How a data set is had.

    Attributes:
        read: reads it; quick after ``prepare``.
        prepare: brings it to where it is read quickly, saying how far it is.
        available: whether it is on this machine.
        stamp: what changes where its files change.
    """

    read: Callable[[Config], Task]
    prepare: Callable[[Config, Progress], None] = lambda config, progress: None
    available: Callable[[Config], bool] = lambda config: True
    stamp: Callable[[Config], Any] = lambda config: None


def source_of(name: str) -> Source:
    """How the data set of a name is had. Raises WslSweepError: there is none of that name."""
    if name in SOURCES:
        return SOURCES[name]
    if is_import_name(name):
        return Source(_users)
    raise WslSweepError(f'no data set is called "{name}"; {did_you_mean(name, DATASETS)}')


def read_task(config: Config) -> Task:
    """The data set of a ``dataset`` section, of which ``dataset.OF_THE_TASK`` is read."""
    return source_of(str(config["name"])).read(config)


def _folder_there(config: Config) -> bool:
    return node_folder(str(config.get("root"))).is_dir()


def _stamp(config: Config) -> Any:
    return folder_stamp(str(config["root"])) if config.get("root") else None


def _image_folder(config: Config, progress: Progress = lambda done, of: None) -> Task:
    from wsl_sweep.data.image_folder import load_image_folder  # needs Pillow, which nothing else here does

    root, size = config.get("root"), config.get("size")
    if root is None or size is None:
        raise WslSweepError("image_folder needs dataset.root, a folder of class folders, and dataset.size")
    return Pictures(load_image_folder(root, size, progress))


def _prepare_image_folder(config: Config, progress: Progress) -> None:
    _image_folder(config, progress)


def _imagenet(config: Config, progress: Progress = lambda done, of: None, *, again: bool = False) -> Task:
    from wsl_sweep.data.imagenet import read_imagenet  # needs Pillow, and torchvision's transforms

    return read_imagenet(config, progress, again=again)


def _prepare_imagenet(config: Config, progress: Progress) -> None:
    _imagenet(config, progress, again=True)


def _imagenet_there(config: Config) -> bool:
    return imagenet_there(config.get("root"))


def _cifar(config: Config) -> Task:
    return Pictures(load_cifar(config["name"], config.get("root")))


def _cifar_there(config: Config) -> bool:
    return cifar_there(config["name"], config.get("root"))


def _mnli(config: Config, progress: Progress = lambda done, of: None) -> Task:
    from wsl_sweep.data.mnli import load_mnli

    return load_mnli(config, progress)


def _prepare_mnli(config: Config, progress: Progress) -> None:
    _mnli(config, progress)


def _mnli_there(config: Config) -> bool:
    from wsl_sweep.data.mnli import mnli_there

    return mnli_there(config)


def _mnli_stamp(config: Config) -> Any:
    from wsl_sweep.data.mnli import mnli_stamp

    return mnli_stamp(config)


def _users(config: Config) -> Task:
    return make_task(str(config["name"]), config.get("root"))


SOURCES: dict[str, Source] = {
    "digits": Source(lambda config: Pictures(load_digits())),
    "cifar10": Source(_cifar, available=_cifar_there),
    "cifar100": Source(_cifar, available=_cifar_there),
    "image_folder": Source(_image_folder, _prepare_image_folder, _folder_there, _stamp),
    "imagenet": Source(_imagenet, _prepare_imagenet, _imagenet_there, _stamp),
    "mnli": Source(_mnli, _prepare_mnli, _mnli_there, _mnli_stamp),
}
"""By name; a user's own is ``package.module:YourTask``."""
