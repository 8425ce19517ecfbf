"""The data sets that a search-space file may name, and what is known of each without reading it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

VIEWS = ("padding", "flip", "views")
"""What is read of pictures whose views are crops of a padded picture."""


@dataclass(frozen=True)
class DataSet:
    """What is known of a data set by its name.

    Attributes:
        reads: leaves of ``dataset`` that it reads beside those that all read; ``padding_mode`` belongs to ``padding``.
        root: whether it lies in ``dataset.root``: never, where that is given (else in the cache or on the hub), always.
        of: what its examples are called.
        classes: how many it has, where that is no matter of what lies in ``root``.
        channels, side: of its pictures, where they are always the same; ``side`` in pixels.
        small: whether it is read in a moment.
        may_be_damaged: whether ``dataset.damaged`` says what is done with examples that cannot be read.
        endless: whether its views have no end, so that ``views`` is ``epoch`` or a number, and never ``all``.
        metrics: what is measured of it beside what is measured of all.
    """

    reads: tuple[str, ...]
    root: Literal["none", "may", "must"]
    of: Literal["pictures", "sentences", "examples"] = "pictures"
    classes: int | None = None
    channels: int | None = None
    side: int | None = None
    small: bool = False
    may_be_damaged: bool = False
    endless: bool = False
    metrics: tuple[str, ...] = ()

    @property
    def folder_of_pictures(self) -> bool:
        """Whether it is a folder of the user's, with a folder for each class."""
        return self.of == "pictures" and self.root == "must"

    @property
    def shape(self) -> tuple[int, int, int] | None:
        """Classes, channels and pixels of a side, where they are always the same."""
        if self.classes is None or self.channels is None or self.side is None:
            return None
        return self.classes, self.channels, self.side


DATASETS: dict[str, DataSet] = {
    "digits": DataSet(VIEWS, "none", classes=10, channels=1, side=8, small=True),
    "cifar10": DataSet(VIEWS, "may", classes=10, channels=3, side=32, small=True),
    "cifar100": DataSet(VIEWS, "may", classes=100, channels=3, side=32, small=True),
    "image_folder": DataSet((*VIEWS, "root", "size"), "must"),
    "imagenet": DataSet(
        ("root", "size", "flip", "views"),
        "must",
        classes=1000,
        may_be_damaged=True,
        endless=True,
        metrics=("validation/top5_accuracy", "test/top5_accuracy"),
    ),
    "mnli": DataSet(
        ("max_length", "vocabulary"),
        "may",
        of="sentences",
        classes=3,
        may_be_damaged=True,
        metrics=("test/accuracy_matched", "test/accuracy_mismatched"),
    ),
}
"""By name."""

OWN = DataSet(("views",), "may", of="examples")
"""What is known of a user's own task, ``package.module:YourTask``; all else its class says."""


def data_set(name: str) -> DataSet:
    """What is known of the data set of a name; of any name that is none of DATASETS what is known of a user's own."""
    return DATASETS.get(name, OWN)
