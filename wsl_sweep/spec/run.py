"""The ``run`` section: one complete training. Every leaf has a dotted path and can be swept."""

from __future__ import annotations

import types
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from wsl_sweep.spec.catalogue import METHODS, did_you_mean


class Section(BaseModel):
    """A section of the file: no unknown keys, no silent conversions, no infinities."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


class DatasetSection(Section):
    """What is learned, and how its parts are made."""

    name: str | None = Field(
        None,
        description="digits, cifar10, cifar100, image_folder (a folder of class folders), imagenet, mnli, "
        "or your own: package.module:YourTask",
    )
    root: str | None = Field(None, description="folder of the data; cifar10 and cifar100 are downloaded to it")
    size: Annotated[int, Field(ge=8, le=512)] | None = Field(
        None, description="pixels of a side: image_folder resizes its pictures to it once, imagenet crops to it"
    )
    damaged: Literal["refuse", "skip"] | None = Field(
        None, description="imagenet, mnli: what becomes of files or lines that cannot be read"
    )
    max_length: Annotated[int, Field(ge=8, le=512)] | None = Field(
        None, description="mnli: tokens of a pair of sentences, the longer of the two being cut first"
    )
    vocabulary: str | None = Field(
        None, description="mnli: a folder or vocab.txt, a name on the hub, or learned: from the training sentences"
    )
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="how much of what is not the test part is for validation"
    )
    train_fraction: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="how much of the training part is used"
    )
    splits: Count | None = Field(
        None, description="into how many disjoint parts the training part is dealt out; a student sees one of them"
    )
    split: Annotated[int, Field(ge=0)] | None = Field(
        None, description="which of the splits, from 0; without it the remainder of the seed"
    )
    label_noise: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        None, description="probability with which a training label is replaced by another class"
    )
    padding: Annotated[int, Field(ge=0, le=64)] | None = Field(
        None, description="pixels on each side for the random crop"
    )
    padding_mode: Literal["zeros", "reflect"] | None = Field(None, description="what the padding holds")
    flip: bool | None = Field(None, description="whether each crop is seen mirrored too")
    views: Literal["all", "epoch"] | Count | None = Field(
        None, description="all views of an example, or k of them, fixed for each; epoch (imagenet): a new one each time"
    )


class OptimizerSection(Section):
    """How weights are updated."""

    name: Literal["sgd", "adamw"] | None = Field(None, description="the update rule")
    lr: Positive | None = Field(None, description="learning rate before warm-up and decay")
    momentum: Annotated[float, Field(ge=0, lt=1)] | None = Field(None, description="sgd only")
    nesterov: bool | None = Field(None, description="sgd with momentum only")
    weight_decay: NonNegative | None = Field(None, description="on what decay_on says")
    decay_on: Literal["all", "weights"] | None = Field(
        None, description="every parameter, or all but biases and the parameters of normalisation"
    )


class ScheduleSection(Section):
    """How long and with what learning rate."""

    epochs: Count | None = Field(None, description="passes over the training part")
    batch_size: Count | None = Field(None, description="examples a step")
    milestones: list[Count] | None = Field(None, description="epochs after which lr is multiplied by decay")
    decay: Positive | None = Field(None, description="factor at each milestone")
    warmup_epochs: NonNegative | None = Field(None, description="linear warm-up of lr; may be a part of an epoch")
    shape: Literal["steps", "linear"] | None = Field(
        None, description="lr after the warm-up: by milestones, or falling linearly to 0 at the end"
    )


class TeacherSection(Section):
    """The teacher: trained once for all trials that share it, or brought in."""

    model: str | None = Field(None, description="name of a model")
    checkpoint: str | None = Field(
        None,
        description="a safetensors file, a teacher's id, torchvision:WEIGHTS (torchvision:IMAGENET1K_V1), or none",
    )
    init: str | None = Field(
        None, description="text models: random, or pretrained weights: a folder or a name on the hub"
    )
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] | None = Field(None, description="ε of its labels")
    smoothing: Literal["all", "others"] | None = Field(
        None, description="ε over all classes (PyTorch) or over the wrong ones only"
    )
    mode: Literal["eval", "train"] | None = Field(
        None, description="batch normalisation while distilling: running statistics or each batch's own"
    )
    seed: Seed | None = Field(None, description="seed of its training")
    split: Literal["all", "same"] | None = Field(
        None, description="with dataset.splits: one teacher trained on all of them, or one on each student's own"
    )
    schedule: ScheduleSection | None = None
    optimizer: OptimizerSection | None = None


class StudentSection(Section):
    """The student."""

    model: str | None = Field(None, description="name of a model")
    init: str | None = Field(
        None,
        description="text models: random, teacher (its first layers), or pretrained weights: a folder or a hub's name",
    )
    batchnorm: Literal["process", "sync"] | None = Field(
        None, description="several processes: batch normalisation over each one's share, or (GPUs) the whole batch"
    )


class WeightingSection(Section):
    """The weight w of each example's soft label."""

    kind: Literal["none", "exp", "sigmoid", "constant", "permuted"] | None = Field(
        None, description="none is plain distillation, exp is WSL eq. 6; constant and permuted are controls"
    )
    of: Literal["log_ratio", "difference", "ratio"] | None = Field(None, description="argument of sigmoid")
    value: Literal["batch_mean"] | NonNegative | None = Field(None, description="the weight, for constant")


class KeepSection(Section):
    """With what probability an example's distillation term is kept (WSL Tab. 7)."""

    regularization: Probability | None = Field(None, description="for regularization samples")
    other: Probability | None = Field(None, description="for all other examples")


class DistillationSection(Section):
    """What is minimised: ``ce_weight · L_ce + alpha · w · L_method``."""

    method: str | None = Field(
        None,
        description="none (cross-entropy alone), kd, dkd, dist, rkd, or your own: package.module:name",
        json_schema_extra={"anyOf": [{"enum": [*METHODS, None]}, {"pattern": "^.+:.+$"}]},
    )
    ce_weight: NonNegative | None = Field(None, description="weight of the cross-entropy")
    alpha: NonNegative | None = Field(None, description="weight of the distillation loss")
    temperature: Positive | None = Field(None, description="τ; rkd reads it where kd_weight is above 0")
    mask: Literal["none", "drop_term", "detach", "renormalised"] | None = Field(
        None, description="kd: leaves the true class out of the distillation loss (WSL §3.3)"
    )
    target_weight: NonNegative | None = Field(None, description="dkd: of the divergence of label or not")
    non_target_weight: NonNegative | None = Field(None, description="dkd: of the divergence over the wrong classes")
    warmup_epochs: Annotated[int, Field(ge=0)] | None = Field(
        None, description="dkd: epochs over which its loss grows linearly to its full weight"
    )
    inter_weight: NonNegative | None = Field(None, description="dist: of the correlation of an example's classes")
    intra_weight: NonNegative | None = Field(None, description="dist: of the correlation of a class's examples")
    distance_weight: NonNegative | None = Field(None, description="rkd: of the distances between examples")
    angle_weight: NonNegative | None = Field(None, description="rkd: of the angles between examples")
    kd_weight: NonNegative | None = Field(None, description="rkd: of plain distillation beside it; 0 is without")
    weighting: WeightingSection | None = None
    keep: KeepSection | None = None


class RunSection(Section):
    """One complete training."""

    recipe: str | None = Field(None, description="named defaults for everything else: wsl-sweep recipes")
    dataset: DatasetSection | None = None
    teacher: TeacherSection | None = None
    student: StudentSection | None = None
    distillation: DistillationSection | None = None
    optimizer: OptimizerSection | None = None
    schedule: ScheduleSection | None = None
    precision: Literal["float32", "bfloat16", "auto"] | None = Field(
        None, description="of the student's forward pass; the teacher is always float32"
    )
    seed: Seed | None = Field(None, description="of the student: initialisation, order, views, …")


def _section_of(annotation: Any) -> type[Section] | None:
    for candidate in get_args(annotation) or (annotation,):
        if isinstance(candidate, type) and issubclass(candidate, Section):
            return candidate
    return None


def _without_none(field: FieldInfo) -> Any:
    annotation: Any = field.annotation
    if get_origin(annotation) in (types.UnionType, Union):
        kept = tuple(part for part in get_args(annotation) if part is not type(None))
        annotation = Union[kept]  # noqa: UP007 - built at run time
    return Annotated[annotation, *field.metadata] if field.metadata else annotation


@lru_cache(maxsize=1)
def leaves() -> dict[str, TypeAdapter[Any]]:
    """Every dotted path into ``run`` with the check of its values."""
    found: dict[str, TypeAdapter[Any]] = {}

    def walk(section: type[Section], prefix: str) -> None:
        for name, field in section.model_fields.items():
            inner = _section_of(field.annotation)
            if inner is not None:
                walk(inner, f"{prefix}{name}.")
            else:
                found[prefix + name] = TypeAdapter(
                    _without_none(field), config=ConfigDict(strict=True, allow_inf_nan=False)
                )

    walk(RunSection, "")
    return found


@lru_cache(maxsize=1)
def section_paths() -> frozenset[str]:
    """Dotted paths of the sections between ``run`` and its leaves: ``distillation.weighting``, …"""
    return frozenset(path[:at] for path in leaves() for at, letter in enumerate(path) if letter == ".")


def explain(error: ErrorDetails) -> str:
    """One of pydantic's findings in the words of a user of the file."""
    kind, value, context = error["type"], error.get("input"), error.get("ctx") or {}
    shown = "nothing" if value is None else repr(value)
    words = {
        "int_type": "must be a whole number",
        "int_from_float": "must be a whole number",
        "float_type": "must be a number",
        "bool_type": "must be true or false",
        "string_type": "must be a name or text",
        "list_type": "must be a list, like [1, 2]",
        "model_type": "must be a section of keys and values",
        "dict_type": "must be a section of keys and values",
        "model_attributes_type": "must be a section of keys and values",
        "finite_number": "must be a finite number",
        "missing": "is missing",
    }
    if kind == "literal_error":
        expected = [part.strip().strip("'") for part in str(context["expected"]).replace(" or ", ", ").split(",")]
        hint = did_you_mean(value, expected) if isinstance(value, str) else ""
        return f"must be one of {', '.join(expected)}, not {shown}" + (f"; {hint}" if hint.startswith("did") else "")
    if kind == "missing":
        return words[kind]
    bounds = {
        "greater_than": ("above", "gt"),
        "greater_than_equal": ("at least", "ge"),
        "less_than": ("below", "lt"),
        "less_than_equal": ("at most", "le"),
    }
    if kind in bounds:
        word, key = bounds[kind]
        return f"must be {word} {context[key]}, not {shown}"
    if kind in words:
        return f"{words[kind]}, not {shown}"
    if kind == "value_error":
        return str(context.get("error", error["msg"]))
    return error["msg"][0].lower() + error["msg"][1:]


def check_value(path: str, value: Any) -> str | None:
    """What is wrong with ``value`` at the leaf ``path``, or None."""
    try:
        leaves()[path].validate_python(value)
    except ValidationError as error:
        found = error.errors()
        if len(found) > 1:  # the branches of a union
            return " or ".join(dict.fromkeys(explain(one).split(", not ")[0] for one in found)) + f", not {value!r}"
        return explain(found[0])
    return None


def flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as dotted paths. Keys may be dotted themselves; null means "not given"."""
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        path = f"{prefix}{key}"
        if isinstance(inner, Mapping):
            flat.update(flatten(inner, f"{path}."))
        elif inner is not None:
            flat[path] = inner
    return flat


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted paths as nested sections, in the order of the paths."""
    nested: dict[str, Any] = {}
    for path, value in flat.items():
        *sections, leaf = path.split(".")
        inner = nested
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[leaf] = value
    return nested
