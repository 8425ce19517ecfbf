"""Recipes: named defaults for everything in ``run``; and what an arm's short name stands for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from wsl_sweep.spec.run import flatten

DEFAULTS: dict[str, Any] = flatten(
    {
        "dataset": {
            "size": 32,
            "validation_fraction": 0.2,
            "train_fraction": 1.0,
            "splits": 1,
            "label_noise": 0.0,
            "padding": 0,
            "padding_mode": "zeros",
            "flip": False,
            "views": "all",
            "damaged": "refuse",
            "max_length": 128,
            "vocabulary": "bert-base-cased",
        },
        "teacher": {
            "label_smoothing": 0.0,
            "smoothing": "all",
            "mode": "eval",
            "seed": 0,
            "split": "all",
            "init": "random",
            "schedule": {"shape": "steps", "milestones": [], "decay": 0.1, "warmup_epochs": 0},
            "optimizer": {
                "name": "sgd",
                "momentum": 0.9,
                "nesterov": False,
                "weight_decay": 5e-4,
                "decay_on": "all",
            },
        },
        "student": {"init": "random", "batchnorm": "process"},
        "distillation": {
            "method": "kd",
            "temperature": 4.0,
            "mask": "none",
            "target_weight": 1.0,
            "non_target_weight": 8.0,
            "warmup_epochs": 20,
            "inter_weight": 1.0,
            "intra_weight": 1.0,
            "distance_weight": 25.0,
            "angle_weight": 50.0,
            "kd_weight": 0.0,
            "weighting": {"of": "log_ratio", "value": "batch_mean"},
            "keep": {"regularization": 1.0, "other": 1.0},
        },
        "optimizer": {"name": "sgd", "momentum": 0.9, "nesterov": False, "weight_decay": 5e-4, "decay_on": "all"},
        "schedule": {"shape": "steps", "milestones": [], "decay": 0.1, "warmup_epochs": 0},
        "precision": "auto",
        "seed": 0,
    }
)
"""What holds where neither the recipe nor the file says otherwise."""


def weighting_kind(flat: Mapping[str, Any]) -> str:
    """``distillation.weighting.kind``; where it is not given, ``exp`` (WSL) for ``kd``, ``none`` for others."""
    given = flat.get("distillation.weighting.kind")
    return str(given) if given is not None else ("exp" if flat.get("distillation.method") == "kd" else "none")


def method_defaults(flat: Mapping[str, Any]) -> dict[str, Any]:
    """``weighting.kind``, ``ce_weight`` and ``alpha`` of a flat configuration's method, by their leaves' names.

    They belong to the method, never to the data. Weighted soft labels: 1 and 2.25 (WSL §5.2, CIFAR-100); the paper's
    2.25 multiplies a weight below 1 and would be another method without it, so unweighted distillation has 1 and 1.
    DIST: 1 and 2 (its authors' code). All else: 1 and 1.
    """
    method = flat.get("distillation.method")
    if method == "none":
        return {}
    kind = weighting_kind(flat)
    alpha = 2.0 if method == "dist" else 2.25 if method == "kd" and kind != "none" else 1.0
    return {"weighting.kind": kind, "ce_weight": 1.0, "alpha": alpha}


def _method(method: str, **settings: Any) -> dict[str, Any]:
    return {"distillation.method": method} | {f"distillation.{leaf}": value for leaf, value in settings.items()}


_PLAIN: dict[str, Any] = {"weighting.kind": "none"}
_WEIGHTED: dict[str, Any] = {"weighting.kind": "exp"}

NAMED: dict[str, dict[str, Any]] = {
    "ce": _method("none"),
    "kd": _method("kd", **_PLAIN),
    "wsl": _method("kd", **_WEIGHTED),
    "kd_repdistiller": _method("kd", **_PLAIN, ce_weight=0.1, alpha=0.9),
    "dkd": _method("dkd", **_PLAIN),
    "dist": _method("dist"),
    "rkd": _method("rkd", **_PLAIN, kd_weight=0.0),
    "rkd_wsl": _method("rkd", **_WEIGHTED, kd_weight=0.0),
    "rkd_kd": _method("rkd", **_PLAIN, kd_weight=1.0),
    "rkd_kd_wsl": _method("rkd", **_WEIGHTED, kd_weight=2.25),
}
"""The names that may stand wherever an arm, a variant or a baseline is named.

``rkd`` is cross-entropy and relational distillation, as in RepDistiller; ``rkd_kd`` has plain distillation beside it,
and ``_wsl`` weighs pairs, triples and examples by soft label weights (WSL Tab. 8 does not say which it means).
"""


@dataclass(frozen=True)
class Recipe:
    """Named defaults.

    Attributes:
        name: as in ``run.recipe``.
        description: one line for ``wsl-sweep recipes``.
        values: by dotted path.
        sources: dotted path, or the beginning of one up to a dot → where the value comes from.
    """

    name: str
    description: str
    values: Mapping[str, Any]
    sources: Mapping[str, str] = field(default_factory=dict)

    def source(self, path: str) -> str:
        """Where a path's value comes from; the longest beginning of the path that is named counts."""
        sources = self.sources if path in self.values else DEFAULT_SOURCES
        parts = path.split(".")
        named = (".".join(parts[:end]) for end in range(len(parts), 0, -1))
        return next((sources[name] for name in named if name in sources), "our default")


DEFAULT_SOURCES: dict[str, str] = {
    "distillation.temperature": "WSL §5.2, CIFAR-100",
    "distillation.target_weight": "DKD's released code",
    "distillation.non_target_weight": "DKD's released code, most CIFAR pairs",
    "distillation.warmup_epochs": "DKD's released code",
    "distillation.inter_weight": "DIST's released code",
    "distillation.intra_weight": "DIST's released code",
    "distillation.distance_weight": "RepDistiller",
    "distillation.angle_weight": "RepDistiller",
    "distillation.weighting.kind": "WSL eq. 6",
    "distillation.alpha": "WSL §5.2, CIFAR-100; by method: 1 for unweighted kd, dkd and rkd, 2 for dist (its code)",
    "distillation.ce_weight": "WSL §5.2",
    "teacher.mode": "RepDistiller; WSL's released code has train",
}
"""Where DEFAULTS and ``method_defaults`` come from, where they are not our own."""


def _stand_in(name: str, description: str, teacher: str, student: str) -> Recipe:
    """A pair of small models on scikit-learn's digits."""
    values = {
        "dataset": {"name": "digits", "validation_fraction": 0.3, "train_fraction": 0.4, "padding": 1},
        "teacher": {
            "model": teacher,
            "schedule": {"epochs": 60, "batch_size": 64, "milestones": [36, 48]},
            "optimizer": {"lr": 0.05},
        },
        "student": {"model": student},
        "schedule": {"epochs": 40, "batch_size": 64, "milestones": [24, 32]},
        "optimizer": {"lr": 0.1},
    }
    ours = "chosen by us for seconds a trial and room between student and teacher; benchmarks/RESULTS.md"
    return Recipe(name, description, flatten(values), dict.fromkeys(values, ours))


_SLOW_LEARNERS = ("mobilenetv2", "shufflenetv1", "shufflenetv2")
"""Students whose learning rate is 0.01 in RepDistiller, where all others' is 0.05."""

CIFAR100_PAIRS: dict[tuple[str, str], float] = {
    ("wrn_40_2", "wrn_16_2"): 6.0,
    ("wrn_40_2", "wrn_40_1"): 6.0,
    ("resnet56", "resnet20"): 2.0,
    ("resnet110", "resnet20"): 8.0,
    ("resnet110", "resnet32"): 2.0,
    ("resnet32x4", "resnet8x4"): 8.0,
    ("vgg13", "vgg8"): 6.0,
    ("vgg13", "mobilenetv2"): 6.0,
    ("resnet50", "mobilenetv2"): 8.0,
    ("resnet50", "vgg8"): 8.0,
    ("resnet32x4", "shufflenetv1"): 8.0,
    ("resnet32x4", "shufflenetv2"): 8.0,
    ("wrn_40_2", "shufflenetv1"): 8.0,
}
"""(teacher, student) → DKD's non-target weight for the pair."""

_REPDISTILLER = "RepDistiller's CIFAR-100 recipe"


def _cifar100(teacher: str, student: str, non_target_weight: float) -> Recipe:
    schedule = {"epochs": 240, "batch_size": 64, "milestones": [150, 180, 210], "decay": 0.1, "warmup_epochs": 0}
    optimizer = {"name": "sgd", "momentum": 0.9, "nesterov": False, "weight_decay": 5e-4}
    values = {
        "dataset": {
            "name": "cifar100",
            "validation_fraction": 0.1,
            "padding": 4,
            "padding_mode": "zeros",
            "flip": True,
        },
        "teacher": {"model": teacher, "schedule": schedule, "optimizer": {**optimizer, "lr": 0.05}},
        "student": {"model": student},
        "distillation": {"temperature": 4.0, "non_target_weight": non_target_weight},
        "optimizer": {**optimizer, "lr": 0.01 if student in _SLOW_LEARNERS else 0.05},
        "schedule": schedule,
    }
    pair = "CRD (RepDistiller)" if "vgg" in teacher + student or "mobilenet" in student else "WSL §5.2"
    sources = {
        "dataset": _REPDISTILLER,
        "dataset.padding_mode": f"{_REPDISTILLER}; WSL's fork of overhaul-distillation has reflect",
        "dataset.validation_fraction": "ours: nothing is chosen on the test set; the published runs had none",
        "teacher.model": f"pair of {pair}",
        "student.model": f"pair of {pair}",
        "teacher.schedule": _REPDISTILLER,
        "teacher.optimizer": _REPDISTILLER,
        "distillation.temperature": "WSL §5.2, CIFAR-100",
        "distillation.non_target_weight": "DKD's released code, for this pair",
        "optimizer": _REPDISTILLER,
        "optimizer.nesterov": f"{_REPDISTILLER}; WSL's fork of overhaul-distillation has true",
        "schedule": _REPDISTILLER,
    }
    return Recipe(
        f"cifar100/{teacher}-{student}",
        "CIFAR-100, 240 epochs, the paper's settings",
        flatten(values),
        sources,
    )


def _image_folder() -> Recipe:
    values = {
        "dataset": {
            "name": "image_folder",
            "size": 32,
            "validation_fraction": 0.2,
            "padding": 4,
            "padding_mode": "reflect",
            "flip": True,
        },
        "teacher": {
            "model": "resnet20",
            "schedule": {"epochs": 60, "batch_size": 64, "milestones": [36, 48]},
            "optimizer": {"lr": 0.05, "nesterov": True},
        },
        "student": {"model": "resnet8"},
        "schedule": {"epochs": 60, "batch_size": 64, "milestones": [36, 48]},
        "optimizer": {"lr": 0.05, "nesterov": True},
    }
    ours = "chosen by us: small enough for two cores on some thousand pictures; name larger models with --set"
    return Recipe(
        "image_folder",
        "your own folder of class folders: --set dataset.root=FOLDER; small models, 32x32",
        flatten(values),
        dict.fromkeys(values, ours),
    )


IMAGENET_PAIRS: dict[tuple[str, str], float] = {
    ("torchvision:resnet34", "torchvision:resnet18"): 0.5,
    ("torchvision:resnet50", "mobilenetv1"): 2.0,
}
"""(teacher, student) of WSL's Tab. 4 → DKD's non-target weight for the pair."""

_OVERHAUL = "Heo et al. (2019, Overhaul), which WSL follows"
_TORCHVISION = "torchvision's pretrained weights, as WSL's released code"


def _imagenet(teacher: str, student: str, non_target_weight: float) -> Recipe:
    """A pair of WSL's Tab. 4, under its settings."""
    optimizer = {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-4}
    schedule = {"epochs": 100, "batch_size": 256, "milestones": [30, 60, 90], "decay": 0.1}
    values = {
        "dataset": {"name": "imagenet", "size": 224, "flip": True, "views": "epoch", "validation_fraction": 0.02},
        "teacher": {
            "model": teacher,
            "checkpoint": "torchvision:IMAGENET1K_V1",
            "mode": "eval",
            "schedule": schedule,
            "optimizer": optimizer,
        },
        "student": {"model": student},
        "distillation": {"temperature": 2.0, "non_target_weight": non_target_weight, "warmup_epochs": 1},
        "optimizer": optimizer,
        "schedule": schedule,
    }
    trained_here = "the student's; read where teacher.checkpoint is none"
    sources = {
        "dataset": "pair of WSL Tab. 4; crops of 224 pixels and flips, as torchvision's weights were trained",
        "dataset.views": "a new crop in every epoch; a number of them lets the logit bank serve all trials",
        "dataset.validation_fraction": "ours: carved from the training pictures, for val is the test set",
        "teacher.model": "pair of WSL Tab. 4",
        "teacher.checkpoint": _TORCHVISION,
        "teacher.mode": "eval as in RepDistiller; WSL's released code has train",
        "teacher.schedule": trained_here,
        "teacher.optimizer": trained_here,
        "student.model": "pair of WSL Tab. 4",
        "distillation.temperature": (
            "WSL, ImageNet, where its α is 2.5 (as in search_spaces/imagenet_alpha.yaml); DKD's and DIST's code: 1"
        ),
        "distillation.non_target_weight": "DKD's released code, for this pair",
        "distillation.warmup_epochs": "DKD's released code, ImageNet",
        "optimizer": _OVERHAUL,
        "schedule": _OVERHAUL,
        "schedule.epochs": f"{_OVERHAUL}; WSL's released code runs 101 and reports the best",
    }
    name = "-".join(model.removeprefix("torchvision:") for model in (teacher, student))
    description = "ImageNet, 100 epochs, the paper's settings: --set dataset.root=FOLDER"
    return Recipe(f"imagenet/{name}", description, flatten(values), sources)


def _small_imagenet() -> Recipe:
    values = {
        "dataset": {"name": "imagenet", "size": 64, "flip": True, "views": 4, "validation_fraction": 0.2},
        "teacher": {
            "model": "mobilenetv1_x050",
            "schedule": {"epochs": 6, "batch_size": 32, "milestones": [5]},
            "optimizer": {"lr": 0.05, "nesterov": True, "weight_decay": 1e-4},
        },
        "student": {"model": "mobilenetv1_x025"},
        "distillation": {"temperature": 2.0, "warmup_epochs": 1},
        "schedule": {"epochs": 4, "batch_size": 32, "milestones": [3]},
        "optimizer": {"lr": 0.05, "nesterov": True, "weight_decay": 1e-4},
    }
    ours = "chosen by us: the classes and the data of the ImageNet recipes, small enough for two cores"
    return Recipe(
        "imagenet/tiny",
        "any folder in ImageNet's layout: --set dataset.root=FOLDER; small models, 64x64, 4 crops a picture",
        flatten(values),
        {**dict.fromkeys(values, ours), "distillation.temperature": "WSL, ImageNet"},
    )


_SUN = "Sun et al. (2019), released code"


def _mnli() -> Recipe:
    """MultiNLI as WSL A.6 has it: BERT-base-cased, a student of three layers, the training setting of Sun et al."""
    schedule = {"epochs": 4, "batch_size": 32, "shape": "linear", "warmup_epochs": 0.4}
    optimizer = {"name": "adamw", "lr": 5e-5, "weight_decay": 0.01, "decay_on": "weights"}
    values = {
        "dataset": {
            "name": "mnli",
            "max_length": 128,
            "vocabulary": "bert-base-cased",
            "validation_fraction": 0.025,
        },
        "teacher": {
            "model": "bert_base",
            "init": "bert-base-cased",
            "schedule": schedule,
            "optimizer": {**optimizer, "lr": 2e-5},
        },
        "student": {"model": "bert_t3", "init": "bert-base-cased"},
        "distillation": {"temperature": 10.0},
        "optimizer": optimizer,
        "schedule": schedule,
    }
    adam = f"{_SUN}; its Adam does not correct the bias of its means, and clips gradients to a norm of 1"
    warmup = f"{_SUN}: a tenth of the steps"
    sources = {
        "dataset.name": "WSL A.6",
        "dataset.max_length": _SUN,
        "dataset.vocabulary": "WSL A.6: BERT-base-cased",
        "dataset.validation_fraction": "ours: about as many pairs as a dev set has; the dev sets are the test part",
        "teacher.model": "WSL A.6: 12 layers of 768, 108M parameters",
        "teacher.init": "WSL A.6: BERT-base-cased",
        "teacher.schedule": _SUN,
        "teacher.schedule.warmup_epochs": warmup,
        "teacher.optimizer": adam,
        "teacher.optimizer.lr": f"ours, one of those tried in {_SUN}",
        "student.model": "WSL A.6: 3 layers of 768, 44M parameters",
        "student.init": f"{_SUN}: the first layers of the pretrained BERT",
        "distillation.temperature": f"ours, of 5, 10 and 20 ({_SUN})",
        "optimizer": adam,
        "optimizer.lr": f"ours, of 5e-5, 2e-5 and 1e-5 ({_SUN})",
        "schedule": _SUN,
        "schedule.warmup_epochs": warmup,
    }
    return Recipe(
        "mnli/bert-t3",
        "MultiNLI, BERT-base-cased and a student of 3 layers, the paper's setting",
        flatten(values),
        sources,
    )


def _mnli_stand_in() -> Recipe:
    """The same classes of models, small enough for two cores and any file of MultiNLI's form."""
    schedule = {"epochs": 6, "batch_size": 16, "shape": "linear", "warmup_epochs": 0.6}
    optimizer = {"name": "adamw", "lr": 1e-3, "weight_decay": 0.01, "decay_on": "weights"}
    values = {
        "dataset": {"name": "mnli", "max_length": 64, "vocabulary": "learned", "validation_fraction": 0.2},
        "teacher": {"model": "bert_4x64", "schedule": schedule, "optimizer": optimizer},
        "student": {"model": "bert_2x64"},
        "schedule": schedule,
        "optimizer": optimizer,
    }
    ours = "chosen by us: small enough for two cores, from random weights; any TSV of MultiNLI's form"
    return Recipe(
        "mnli/tiny",
        "any TSV of MultiNLI's form, small BERTs from random weights: --set dataset.root=FOLDER",
        flatten(values),
        dict.fromkeys(values, ours),
    )


_ALL = (
    _stand_in("digits", "scikit-learn's 1,797 handwritten digits, 8x8; seconds a trial", "convnet_32", "convnet_4"),
    _stand_in("digits/convnet_24-convnet_3", "digits, a smaller teacher and student", "convnet_24", "convnet_3"),
    _stand_in("digits/convnet_48-convnet_6", "digits, a larger teacher and student", "convnet_48", "convnet_6"),
    _image_folder(),
    *(_cifar100(teacher, student, weight) for (teacher, student), weight in CIFAR100_PAIRS.items()),
    *(_imagenet(teacher, student, weight) for (teacher, student), weight in IMAGENET_PAIRS.items()),
    _small_imagenet(),
    _mnli(),
    _mnli_stand_in(),
)

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in _ALL}
