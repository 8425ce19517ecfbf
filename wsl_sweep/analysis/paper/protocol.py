"""In what our trials are another experiment than the published ones, from their own configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from wsl_sweep.analysis.paper.settings import Setting
from wsl_sweep.analysis.published import USERS, Figure
from wsl_sweep.spec.recipes import CIFAR100_PAIRS, RECIPES

PATHS = (
    "dataset.padding",
    "dataset.padding_mode",
    "dataset.flip",
    "optimizer.name",
    "optimizer.lr",
    "optimizer.momentum",
    "optimizer.nesterov",
    "optimizer.weight_decay",
    "schedule.epochs",
    "schedule.batch_size",
    "schedule.milestones",
    "schedule.decay",
    "schedule.warmup_epochs",
)
"""What of the student's training has to be RepDistiller's for its figures to be of the same experiment."""

WSLS_OWN = {"dataset.padding_mode": "reflect", "optimizer.nesterov": "True"}
"""WSL's CIFAR runs were made in a fork of overhaul-distillation: what in it is not RepDistiller's."""


def differences_from(figure: Figure, settings: Sequence[Setting]) -> list[str]:
    """In what the settings beside a published figure are another experiment, as texts for footnotes.

    Args:
        figure: the published one.
        settings: of its student, on its data.
    """
    if figure.source == USERS:
        return ["how they trained is not known"]
    differ = differences(settings, WSLS_OWN if figure.method == "WSL" else {})
    found = [f"ours differs: {'; '.join(differ)}"] if differ else []
    return [*found, *_weights_of_kd(settings)] if figure.method == "KD" else found


def differences(settings: Sequence[Setting], theirs: Mapping[str, str] = MappingProxyType({})) -> list[str]:
    """In what settings are another experiment than the published ones, a phrase each.

    Args:
        settings: ours.
        theirs: dotted path → value, where it is not RepDistiller's.
    """
    found: dict[str, None] = {}
    for setting in settings:
        found |= dict.fromkeys([*_data(setting), *_teacher(setting), *_training(setting, theirs)])
    return list(found)


def _weights_of_kd(settings: Sequence[Setting]) -> list[str]:
    found: dict[str, None] = {}
    for setting in settings:
        ce_weight, alpha = setting.number("distillation.ce_weight"), setting.alpha
        if setting.is_kd("none") and ce_weight is not None and alpha is not None:
            found[f"{ce_weight:g} CE + {alpha:g} KD"] = None
    found.pop("0.1 CE + 0.9 KD", None)
    return [f"0.1 CE + 0.9 KD; ours is {' or '.join(found)}"] if found else []


def _data(setting: Setting) -> list[str]:
    found = [] if setting.dataset == "cifar100" else [f"{setting.dataset} in place of CIFAR-100"]
    if setting.text("part") == "train":
        held = setting.number("dataset.validation_fraction") or 0.0
        found.append(f"{_percent(held)} % of the pictures that are not for the test held out for validation")
    used = setting.number("dataset.train_fraction")
    if used is not None and used < 1:
        found.append(f"{_percent(used)} % of the training part used")
    noise = setting.number("dataset.label_noise")
    if noise:
        found.append(f"{_percent(noise)} % of the training labels replaced")
    if setting.text("dataset.views") not in (None, "all"):
        found.append(f"{setting.text('dataset.views')} views of a picture")
    return found


def _teacher(setting: Setting) -> list[str]:
    if setting.teacher is None:
        return []
    found = ["a teacher that was brought in" if setting.text("teacher.checkpoint") else "a teacher trained here"]
    if setting.text("teacher.mode") == "train":
        found.append("the teacher in train mode")
    top_k = setting.text("teacher.stored_top_k")
    return found if top_k is None else [*found, f"the {top_k} largest of a teacher's logits, the rest spread evenly"]


def _training(setting: Setting, theirs: Mapping[str, str]) -> list[str]:
    """Against RepDistiller's recipe for the student, whoever its teacher is, and what ``theirs`` has other than it."""
    students = {student: RECIPES[f"cifar100/{teacher}-{student}"].values for teacher, student in CIFAR100_PAIRS}
    recipe = students.get(setting.student)
    if setting.dataset != "cifar100" or recipe is None:
        return []
    found = []
    for path in PATHS:
        ours, wanted = setting.text(path), theirs.get(path, str(recipe[path]))
        if ours is not None and not _same(ours, wanted):
            found.append(f"{path} {ours} in place of {wanted}")
    precision = setting.text("precision")
    return found if precision in (None, "float32") else [*found, f"precision {precision}"]


def _same(one: str, other: str) -> bool:
    try:
        return float(one) == float(other)
    except ValueError:
        return one == other


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.4g}"
