"""In what our trials are another experiment than the published ones, from their own configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from wsl_sweep.analysis.paper.settings import Setting
from wsl_sweep.analysis.published import MMRAZOR, TORCHDISTILL, USERS, Figure
from wsl_sweep.spec.recipes import CIFAR100_PAIRS, DEFAULTS, IMAGENET_PAIRS, RECIPES

PATHS = (
    "dataset.size",
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
"""What of the student's training has to be the recipe's for published figures to be of the same experiment."""

WSLS_OWN: dict[str, dict[str, str]] = {
    "cifar100": {"dataset.padding_mode": "reflect", "optimizer.nesterov": "True"},
    "imagenet": {"schedule.epochs": "101", "teacher.mode": "train"},
}
"""Of WSL's own runs, what is not the recipe's, by data set: those on CIFAR-100 were made in a fork of
overhaul-distillation, those on ImageNet by the released code."""

NAMES = {"cifar100": "CIFAR-100", "imagenet": "ImageNet", "mnli": "MultiNLI"}
VIEWS = {"imagenet": "epoch"}
"""Of what the published runs saw, where it was not all views of a picture."""


def differences_from(figure: Figure, settings: Sequence[Setting]) -> list[str]:
    """In what the settings beside a published figure are another experiment, as texts for footnotes.

    Args:
        figure: the published one.
        settings: of its student, on its data.
    """
    if figure.source in (USERS, MMRAZOR, TORCHDISTILL):
        return ["how they trained is not known"]
    wsls = figure.method == "WSL"
    differ = differences(settings, (figure.dataset,), WSLS_OWN[figure.dataset] if wsls else {})
    found = [f"ours differs: {'; '.join(differ)}"] if differ else []
    if wsls and figure.dataset == "imagenet":
        found.append("theirs is the best epoch's on the test set, ours the last one's")
    return [*found, *_weights_of_kd(settings)] if figure.method == "KD" else found


def differences(
    settings: Sequence[Setting],
    datasets: Sequence[str] = ("cifar100",),
    theirs: Mapping[str, str] = MappingProxyType({}),
) -> list[str]:
    """In what settings are another experiment than the published ones, a phrase each.

    Args:
        settings: ours.
        datasets: of the published experiment.
        theirs: dotted path → value, where it is not the recipe's.
    """
    found: dict[str, None] = {}
    for setting in settings:
        found |= dict.fromkeys([*_data(setting, datasets), *_teacher(setting, theirs), *_training(setting, theirs)])
    return list(found)


def _weights_of_kd(settings: Sequence[Setting]) -> list[str]:
    found: dict[str, None] = {}
    for setting in settings:
        ce_weight, alpha = setting.number("distillation.ce_weight"), setting.alpha
        if setting.is_kd("none") and ce_weight is not None and alpha is not None:
            found[f"{ce_weight:g} CE + {alpha:g} KD"] = None
    found.pop("0.1 CE + 0.9 KD", None)
    return [f"0.1 CE + 0.9 KD; ours is {' or '.join(found)}"] if found else []


def _data(setting: Setting, datasets: Sequence[str]) -> list[str]:
    published = " and ".join(NAMES[name] for name in datasets)
    found = [] if setting.dataset in datasets else [f"{setting.dataset} in place of {published}"]
    if setting.text("part") == "train":
        held = setting.number("dataset.validation_fraction") or 0.0
        what = "pairs of sentences" if setting.dataset == "mnli" else "pictures"
        found.append(f"{_percent(held)} % of the {what} that are not for the test held out for validation")
    used = setting.number("dataset.train_fraction")
    if used is not None and used < 1:
        found.append(f"{_percent(used)} % of the training part used")
    splits = setting.number("dataset.splits")
    if splits is not None and splits > 1:
        found.append(f"one of {splits:g} disjoint parts of the training part used")
    noise = setting.number("dataset.label_noise")
    if noise:
        found.append(f"{_percent(noise)} % of the training labels replaced")
    if setting.text("dataset.views") not in (None, VIEWS.get(setting.dataset, "all")):
        found.append(f"{setting.text('dataset.views')} views of a picture")
    return found


def _teacher(setting: Setting, theirs: Mapping[str, str]) -> list[str]:
    if setting.teacher is None:
        return []
    found = []
    if not setting.text("teacher.checkpoint"):
        found.append("a teacher trained here")
    elif setting.dataset != "imagenet":  # where theirs was brought in too
        found.append("a teacher that was brought in")
    mode = setting.text("teacher.mode")
    if mode not in (None, theirs.get("teacher.mode", "eval")):
        found.append(f"the teacher in {mode} mode")
    top_k = setting.text("teacher.stored_top_k")
    return found if top_k is None else [*found, f"the {top_k} largest of a teacher's logits, the rest spread evenly"]


def _training(setting: Setting, theirs: Mapping[str, str]) -> list[str]:
    """Against the published recipe for the student, whoever its teacher is, and what ``theirs`` has other than it."""
    recipe = _recipe(setting.dataset, setting.student)
    if recipe is None:
        return []
    found = []
    for path in PATHS:
        ours, wanted = setting.text(path), theirs.get(path, str(recipe[path]))
        if ours is not None and not _same(ours, wanted):
            found.append(f"{path} {ours} in place of {wanted}")
    precision = setting.text("precision")
    return found if precision in (None, "float32") else [*found, f"precision {precision}"]


def _recipe(dataset: str, student: str) -> Mapping[str, Any] | None:
    """Values of a recipe of published experiments with a student on a data set; None where there is none."""
    pairs = {"cifar100": CIFAR100_PAIRS, "imagenet": IMAGENET_PAIRS}.get(dataset, {})
    for recipe in RECIPES.values():
        own = tuple(recipe.values[path] for path in ("teacher.model", "student.model"))
        if recipe.values["dataset.name"] == dataset and own in pairs and own[1] == student:
            return {**DEFAULTS, **recipe.values}
    return None


def _same(one: str, other: str) -> bool:
    try:
        return float(one) == float(other)
    except ValueError:
        return one == other


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.4g}"
