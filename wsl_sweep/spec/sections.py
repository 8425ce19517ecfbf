"""The sections beside ``run`` and ``space``, and the JSON Schema of the whole file."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import chain
from typing import Any, Literal

from pydantic import Field

from wsl_sweep.spec.datasets import data_set
from wsl_sweep.spec.distributions import KINDS
from wsl_sweep.spec.recipes import NAMED, RECIPES
from wsl_sweep.spec.run import Count, Positive, RunSection, Section, leaves
from wsl_sweep.user_code import is_import_name

METRICS: tuple[str, ...] = (
    "validation/accuracy",
    "validation/loss",
    "validation/ece",
    "train/loss",
    "train/accuracy",
    "train/seconds",
    "teacher/agreement",
    "teacher/kl",
    "regularization_samples/fraction",
    "weight/mean",
)
TEACHER_METRICS = frozenset({"teacher/agreement", "teacher/kl", "regularization_samples/fraction", "weight/mean"})
TEST_METRICS: tuple[str, ...] = ("test/accuracy", "test/loss", "test/ece")
LOWER_IS_BETTER = frozenset(
    {"loss", "ece", "kl", "seconds", "error", "errors", "nll", "brier", "mae", "mse", "rmse", "perplexity"}
)
"""Words in a metric's name by which less of it is better."""

Mode = Literal["max", "min"]

_OF_A_TASK = re.compile(r"(validation|test)/[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


def natural_mode(metric: str) -> Mode:
    """Whether more or less of a metric is better, by the words of its name: less of ``test/macro_error``."""
    words = re.split(r"[^a-z]+", metric.rsplit("/", 1)[-1].lower())
    return "min" if LOWER_IS_BETTER & set(words) else "max"


def nameable(metric: str, datasets: Iterable[str]) -> bool:
    """Whether a metric has the form of one that a user's own task may measure, and ``datasets`` has such a task."""
    return any(is_import_name(name) for name in datasets) and _OF_A_TASK.fullmatch(metric) is not None


def metrics_of(datasets: Iterable[str]) -> list[str]:
    """The metrics that are measured of every one of some data sets, whatever users' own tasks add."""
    own = [data_set(name).metrics for name in datasets]
    common = [metric for metric in dict.fromkeys(chain(*own)) if all(metric in each for each in own)]
    return [*METRICS, *TEST_METRICS, *common]


class SearchSection(Section):
    """A search: Optuna proposes, each arm has a study of its own and the same number of trials."""

    sampler: Literal["tpe", "random", "grid", "cmaes", "gp", "nsga2"] = Field(
        "tpe", description="who proposes; nsga2, tpe, gp and random take several metrics"
    )
    trials: Count | None = Field(None, description="for each arm; grid: all points if not given")
    arms: Any = Field(None, description="names (wsl, kd, …) or name: {path: value}; by default the run as it is")
    metric: str | list[str] = Field(
        "validation/accuracy", description="what is searched for; several make a Pareto front"
    )
    mode: Mode | list[Mode] | None = Field(None, description="max or min, by metric")
    seed: int = Field(0, description="of the sampler", ge=0, lt=2**32)


class ConfirmSection(Section):
    """The best of a search again, on fresh seeds (1000, 1001, …); only then the test set."""

    top: Count = Field(1, description="how many of each arm")
    seeds: Count = Field(3, description="how many seeds each")
    baselines: Any = Field(None, description="untuned, for comparison: names (kd, ce, …) or name: {path: value}")
    train_on: Literal["train", "train+validation"] = Field(
        "train", description="what is trained on before the test set is looked at"
    )


class CompareSection(Section):
    """What is compared, declared before it is seen."""

    baseline: str | None = Field(None, description="name of an arm, a variant or a baseline")
    metric: str = Field("test/accuracy", description="of the final evaluation")
    mode: Mode | None = Field(None, description="max or min: which of the metric is better; by its name if not given")
    margin: Positive = Field(0.005, description="the smallest difference that matters, in the metric's unit")
    family: list[str] | None = Field(None, description="who is compared with the baseline; all by default")


def mode_of(metric: str, declared: CompareSection) -> Mode:
    """Which of a metric is better in a comparison: as the file declares of its own, else by the metric's name."""
    return declared.mode if declared.mode is not None and metric == declared.metric else natural_mode(metric)


class SchedulerSection(Section):
    """Early stopping within one arm of a search; never on confirm or an ablation."""

    name: Literal["none", "asha", "hyperband", "median"] = Field("none", description="the rule")
    grace_epochs: Count = Field(1, description="no trial is stopped before")
    reduction_factor: int = Field(3, description="of asha and hyperband: one in this many goes on", ge=2)


class ResourcesSection(Section):
    """What one trial takes, and how many run at once."""

    cpu: Positive = Field(1, description="CPUs of each process of a trial; its torch threads are the whole part of it")
    gpu: float | None = Field(
        None, description="GPUs of a trial, a fraction to share one; where there is a GPU, one a process", ge=0
    )
    processes: Count | None = Field(
        None, description="of one trial, each with its cpu, its part of gpu and a share of every batch; one a GPU"
    )
    workers: int | None = Field(
        None, description="processes of a trial that bring data which do not lie in memory; as many as cpu", ge=0
    )
    concurrent: Count | None = Field(None, description="trials at once; as many as fit by default")
    accelerator: str | None = Field(
        None, description="the kind of card that every trial runs on, as Ray names it: A100"
    )
    pending: int = Field(
        1,
        description="proposals that may wait for a place; many wake an autoscaler, but tpe proposes them blindly",
        ge=0,
    )
    max_failures: int = Field(3, description="how often a trial goes on after its worker died", ge=0)
    checkpoint_epochs: Count = Field(1, description="epochs from one checkpoint of a trial to the next")
    checkpoint_minutes: Positive | None = Field(None, description="minutes after which one is made within an epoch")


class BudgetSection(Section):
    """When a sweep stops proposing trials."""

    trials: Count | None = Field(None, description="of all stages together")
    hours: Positive | None = Field(None, description="by the clock")
    gpu_hours: Positive | None = Field(None, description="summed over trials")


class BankSection(Section):
    """The logit bank: what a teacher said of each view, kept on the machine for all later trials."""

    use: bool = Field(True, description="false has the teacher compute at every step")
    precision: Literal["float32", "float16"] = Field(
        "float32", description="of the kept logits; float16 takes half the room and changes results a little"
    )
    top_k: Count | None = Field(
        None, description="how many of the largest logits are kept, an approximation; all where it is not given"
    )
    features: bool | None = Field(
        None, description="whether the teacher's features are kept too; by default where a method reads them"
    )
    limit_gb: Positive = Field(50.0, description="what all banks of a machine may take together, in 10⁹ bytes")


class TrackingSection(Section):
    """Where MLflow keeps the runs."""

    uri: str | None = Field(None, description="MLFLOW_TRACKING_URI, else sqlite:///mlflow.db in the working folder")
    experiment: str | None = Field(None, description="by default the sweep's name")
    best_student: bool = Field(True, description="whether the best student is logged as an MLflow model")


SECTIONS: dict[str, type[Section]] = {
    "search": SearchSection,
    "confirm": ConfirmSection,
    "compare": CompareSection,
    "scheduler": SchedulerSection,
    "resources": ResourcesSection,
    "budget": BudgetSection,
    "tracking": TrackingSection,
    "bank": BankSection,
}

TOP_LEVEL: tuple[str, ...] = (
    "name", "description", "run", "space", "search", "confirm", "variants", "seeds", "compare", "scheduler",
    "resources", "budget", "keep", "tracking", "bank",
)  # fmt: skip


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a search-space file, for editors."""
    definitions: dict[str, Any] = {}

    def section(model: type[Section]) -> dict[str, Any]:
        schema = model.model_json_schema(ref_template="#/$defs/{model}")
        definitions.update(schema.pop("$defs", {}))
        definitions[model.__name__] = schema
        return {"$ref": f"#/$defs/{model.__name__}"}

    overrides = {
        "type": ["object", "null"],
        "description": "dotted path: value",
        "properties": {path: _leaf_schema(path) for path in leaves()},
    }
    named = {
        "anyOf": [
            {"type": "array", "items": {"anyOf": [{"enum": list(NAMED)}, {"type": "object"}]}},
            {"type": "object", "additionalProperties": overrides},
        ]
    }
    properties: dict[str, Any] = {
        "name": {"type": "string", "description": "of the sweep; by default the file's"},
        "description": {"type": "string", "description": "the question that the sweep answers"},
        "run": section(RunSection),
        "space": {
            "type": "object",
            "description": "dotted path into run: where its values come from",
            "properties": {path: {"$ref": "#/$defs/Distribution"} for path in leaves()},
            "additionalProperties": False,
        },
        "variants": {**named, "description": "an ablation: name → overrides by dotted path"},
        "seeds": {
            "anyOf": [{"type": "integer", "minimum": 1}, {"type": "array", "items": {"type": "integer"}}],
            "description": "of an ablation: how many, or which",
        },
        "keep": {"enum": ["best", "all"], "description": "students that stay on disk after the sweep"},
    }
    properties |= {name: section(model) for name, model in SECTIONS.items()}
    properties["scheduler"] = {"anyOf": [{"enum": ["none", "asha", "hyperband", "median"]}, properties["scheduler"]]}
    definitions["RunSection"]["properties"]["recipe"]["examples"] = list(RECIPES)
    definitions["SearchSection"]["properties"]["arms"] |= named
    definitions["ConfirmSection"]["properties"]["baselines"] |= named
    definitions["Distribution"] = _distribution_schema()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A search-space file of wsl-sweep",
        "type": "object",
        "properties": {name: properties[name] for name in TOP_LEVEL},
        "additionalProperties": False,
        "$defs": definitions,
    }


def _leaf_schema(path: str) -> dict[str, Any]:
    return leaves()[path].json_schema()


def _distribution_schema() -> dict[str, Any]:
    values = {"type": "array", "minItems": 1}
    properties: dict[str, Any] = {}
    for kind, description in KINDS.items():
        if kind in ("choice", "grid"):
            properties[kind] = {**values, "description": description}
        else:
            size = 3 if kind == "quniform" else 2
            properties[kind] = {
                "type": "array",
                "items": {"type": "integer" if kind in ("int", "logint") else "number"},
                "minItems": size,
                "maxItems": size,
                "description": description,
            }
    properties["when"] = {"type": "object", "description": "path: value; this parameter exists only there"}
    return {
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "oneOf": [{"required": [kind]} for kind in KINDS],
    }
