"""Published figures that may stand beside ours, each with its source; what is not verified is not here.

Nothing is known of WSL's Tables 1, 2 and 5 to 11: the text of the paper that could be read has lost their numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

REPDISTILLER = "RepDistiller's README, last epoch"
AUTHORS = "WSL's authors, quoted in issue 6 of the official repository"
USERS = "reached by users who report it in issue 6 of the official repository"
OFFICIAL = "official README of WSL's repository"
MMRAZOR = "mmrazor's re-run"
TORCHDISTILL = "torchdistill"


@dataclass(frozen=True)
class Figure:
    """A published accuracy.

    Attributes:
        dataset: name of the data set, as in ``dataset.name``.
        teacher: model; of the student alone (``S``) the one in whose pair it is listed.
        student: model; of the teacher (``T``) likewise.
        method: T (the teacher), S (the student alone), KD, AT, SP, VID, RKD, PKT, CRD or WSL.
        value: top-1 accuracy on the test (ImageNet: validation) set, in percent.
        source: where it was read.
    """

    dataset: str
    teacher: str
    student: str
    method: str
    value: float
    source: str


_COLUMNS = ("T", "S", "KD", "AT", "SP", "VID", "RKD", "PKT", "CRD")

_REPDISTILLER = {
    ("wrn_40_2", "wrn_16_2"): (75.61, 73.26, 74.92, 74.08, 73.83, 74.11, 73.35, 74.54, 75.48),
    ("wrn_40_2", "wrn_40_1"): (75.61, 71.98, 73.54, 72.77, 72.43, 73.30, 72.22, 73.45, 74.14),
    ("resnet56", "resnet20"): (72.34, 69.06, 70.66, 70.55, 69.67, 70.38, 69.61, 70.34, 71.16),
    ("resnet110", "resnet20"): (74.31, 69.06, 70.67, 70.22, 70.04, 70.16, 69.25, 70.25, 71.46),
    ("resnet110", "resnet32"): (74.31, 71.14, 73.08, 72.31, 72.69, 72.61, 71.82, 72.61, 73.48),
    ("resnet32x4", "resnet8x4"): (79.42, 72.50, 73.33, 73.44, 72.94, 73.09, 71.90, 73.64, 75.51),
    ("vgg13", "vgg8"): (74.64, 70.36, 72.98, 71.43, 72.68, 71.23, 71.48, 72.88, 73.94),
    ("vgg13", "mobilenetv2"): (74.64, 64.60, 67.37, 59.40, 66.30, 65.56, 64.52, 67.13, 69.73),
    ("resnet50", "mobilenetv2"): (79.34, 64.60, 67.35, 58.58, 68.08, 67.57, 64.43, 66.52, 69.11),
    ("resnet50", "vgg8"): (79.34, 70.36, 73.81, 71.84, 73.34, 70.30, 71.50, 73.01, 74.30),
    ("resnet32x4", "shufflenetv1"): (79.42, 70.50, 74.07, 71.73, 73.48, 73.38, 72.28, 74.10, 75.11),
    ("resnet32x4", "shufflenetv2"): (79.42, 71.82, 74.45, 72.73, 74.56, 73.40, 73.21, 74.69, 75.65),
    ("wrn_40_2", "shufflenetv1"): (75.61, 70.50, 74.83, 73.32, 74.52, 73.61, 72.21, 73.89, 76.05),
}

FIGURES: tuple[Figure, ...] = (
    *(
        Figure("cifar100", teacher, student, method, value, REPDISTILLER)
        for (teacher, student), values in _REPDISTILLER.items()
        for method, value in zip(_COLUMNS, values, strict=True)
    ),
    Figure("cifar100", "resnet56", "resnet20", "WSL", 72.15, AUTHORS),
    Figure("cifar100", "resnet110", "resnet32", "WSL", 74.12, AUTHORS),
    Figure("cifar100", "resnet32x4", "resnet8x4", "WSL", 76.05, AUTHORS),
    Figure("cifar100", "resnet56", "resnet20", "WSL", 72.01, USERS),
    Figure("cifar100", "resnet110", "resnet32", "WSL", 72.91, USERS),
    Figure("cifar100", "resnet32x4", "resnet8x4", "WSL", 75.07, USERS),
    Figure("imagenet", "torchvision:resnet34", "torchvision:resnet18", "T", 73.31, OFFICIAL),
    Figure("imagenet", "torchvision:resnet34", "torchvision:resnet18", "S", 69.75, OFFICIAL),
    Figure("imagenet", "torchvision:resnet34", "torchvision:resnet18", "WSL", 72.04, OFFICIAL),
    Figure("imagenet", "torchvision:resnet50", "mobilenetv1", "T", 76.16, OFFICIAL),
    Figure("imagenet", "torchvision:resnet50", "mobilenetv1", "S", 68.87, OFFICIAL),
    Figure("imagenet", "torchvision:resnet50", "mobilenetv1", "WSL", 71.52, OFFICIAL),
    Figure("imagenet", "torchvision:resnet34", "torchvision:resnet18", "WSL", 71.54, MMRAZOR),
    Figure("imagenet", "torchvision:resnet34", "torchvision:resnet18", "KD", 71.81, MMRAZOR),
    Figure("imagenet", "torchvision:resnet34", "torchvision:resnet18", "KD", 71.37, TORCHDISTILL),
)
"""All of them; of several for one thing the original's stands first."""


def figures(dataset: str, teacher: str | None, student: str, method: str) -> Iterator[Figure]:
    """The figures of a method for a pair on a data set, the original's first.

    Args:
        dataset: as in ``dataset.name``.
        teacher: model; None for whichever, of ``S`` alone, which does not depend on it.
        student: model.
        method: as in ``Figure``.
    """
    for one in FIGURES:
        of_pair = one.teacher == teacher or (teacher is None and method == "S")
        if of_pair and (one.dataset, one.student, one.method) == (dataset, student, method):
            yield one


def figure(dataset: str, teacher: str | None, student: str, method: str, source: str | None = None) -> Figure | None:
    """The first of ``figures``, of one source where it is given; None where nothing is verified."""
    found = figures(dataset, teacher, student, method)
    return next((one for one in found if source in (None, one.source)), None)
