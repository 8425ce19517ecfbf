"""Published figures: each as it was read in its source, and none beside them."""

from __future__ import annotations

import pytest

from wsl_sweep.analysis.published import FIGURES, figure, figures

REPDISTILLER = """
pair                     T     S     KD    AT    SP    VID   RKD   PKT   CRD
wrn_40_2 wrn_16_2        75.61 73.26 74.92 74.08 73.83 74.11 73.35 74.54 75.48
wrn_40_2 wrn_40_1        75.61 71.98 73.54 72.77 72.43 73.30 72.22 73.45 74.14
resnet56 resnet20        72.34 69.06 70.66 70.55 69.67 70.38 69.61 70.34 71.16
resnet110 resnet20       74.31 69.06 70.67 70.22 70.04 70.16 69.25 70.25 71.46
resnet110 resnet32       74.31 71.14 73.08 72.31 72.69 72.61 71.82 72.61 73.48
resnet32x4 resnet8x4     79.42 72.50 73.33 73.44 72.94 73.09 71.90 73.64 75.51
vgg13 vgg8               74.64 70.36 72.98 71.43 72.68 71.23 71.48 72.88 73.94
vgg13 mobilenetv2        74.64 64.60 67.37 59.40 66.30 65.56 64.52 67.13 69.73
resnet50 mobilenetv2     79.34 64.60 67.35 58.58 68.08 67.57 64.43 66.52 69.11
resnet50 vgg8            79.34 70.36 73.81 71.84 73.34 70.30 71.50 73.01 74.30
resnet32x4 shufflenetv1  79.42 70.50 74.07 71.73 73.48 73.38 72.28 74.10 75.11
resnet32x4 shufflenetv2  79.42 71.82 74.45 72.73 74.56 73.40 73.21 74.69 75.65
wrn_40_2 shufflenetv1    75.61 70.50 74.83 73.32 74.52 73.61 72.21 73.89 76.05
"""
OTHERS = """
cifar100 resnet56 resnet20       WSL 72.15 authors
cifar100 resnet56 resnet20       WSL 72.01 users
cifar100 resnet110 resnet32      WSL 74.12 authors
cifar100 resnet110 resnet32      WSL 72.91 users
cifar100 resnet32x4 resnet8x4    WSL 76.05 authors
cifar100 resnet32x4 resnet8x4    WSL 75.07 users
imagenet torchvision:resnet34 torchvision:resnet18       T   73.31 README
imagenet torchvision:resnet34 torchvision:resnet18       S   69.75 README
imagenet torchvision:resnet34 torchvision:resnet18       WSL 72.04 README
imagenet torchvision:resnet34 torchvision:resnet18       WSL 71.54 mmrazor
imagenet torchvision:resnet34 torchvision:resnet18       KD  71.81 mmrazor
imagenet torchvision:resnet34 torchvision:resnet18       KD  71.37 torchdistill
imagenet torchvision:resnet50 mobilenetv1   T   76.16 README
imagenet torchvision:resnet50 mobilenetv1   S   68.87 README
imagenet torchvision:resnet50 mobilenetv1   WSL 71.52 README
"""


def as_read() -> list[tuple[str, str, str, str, float, str]]:
    """Data set, teacher, student, method, value and a word of the source."""
    head, *lines = REPDISTILLER.strip().splitlines()
    found = []
    for line in lines:
        teacher, student, *numbers = line.split()
        for method, value in zip(head.split()[1:], numbers, strict=True):
            found.append(("cifar100", teacher, student, method, float(value), "RepDistiller"))
    for line in OTHERS.strip().splitlines():
        dataset, teacher, student, method, value, source = line.split()
        found.append((dataset, teacher, student, method, float(value), source))
    return found


def test_every_figure_is_as_it_was_read_and_there_is_no_other() -> None:
    wanted = as_read()
    assert len(wanted) == 13 * 9 + 15
    unmatched = list(FIGURES)
    for dataset, teacher, student, method, value, source in wanted:
        (one,) = [
            one
            for one in unmatched
            if (one.dataset, one.teacher, one.student, one.method) == (dataset, teacher, student, method)
            and one.value == value
            and source in one.source
        ]
        unmatched.remove(one)
    assert unmatched == []


@pytest.mark.parametrize("method", ["T", "S", "KD", "AT", "SP", "VID", "RKD", "PKT", "CRD", "WSL"])
def test_a_figure_is_of_its_data_set_pair_and_method(method: str) -> None:
    found = figure("cifar100", "resnet56", "resnet20", method)
    assert found is not None
    assert (found.dataset, found.teacher, found.student, found.method) == ("cifar100", "resnet56", "resnet20", method)
    assert figure("cifar10", "resnet56", "resnet20", method) is None
    assert figure("cifar100", "resnet56", "resnet8", method) is None
    assert figure("cifar100", "wrn_40_2", "resnet20", method) is None


def test_of_several_the_original_stands_first() -> None:
    assert [one.value for one in figures("cifar100", "resnet110", "resnet32", "WSL")] == [74.12, 72.91]
    assert [one.value for one in figures("imagenet", "torchvision:resnet34", "torchvision:resnet18", "WSL")] == [
        72.04,
        71.54,
    ]


def test_only_the_student_alone_is_found_without_a_teacher() -> None:
    alone = figure("cifar100", None, "shufflenetv1", "S")
    assert alone is not None
    assert alone.value == 70.50
    assert figure("cifar100", None, "shufflenetv1", "KD") is None


def test_the_papers_own_result_is_known_for_three_pairs_of_cifar100() -> None:
    pairs = {(one.teacher, one.student) for one in FIGURES if (one.dataset, one.method) == ("cifar100", "WSL")}
    assert pairs == {("resnet56", "resnet20"), ("resnet110", "resnet32"), ("resnet32x4", "resnet8x4")}
