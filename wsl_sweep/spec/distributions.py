"""Where a swept value comes from: ``choice``, ``grid``, ``uniform``, … with an optional ``when``."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from wsl_sweep.pair_files import LEARNED
from wsl_sweep.paths import cache_folder
from wsl_sweep.spec.catalogue import dataset_problem, did_you_mean, method_problem, model_problem
from wsl_sweep.spec.pretrained import is_pretrained
from wsl_sweep.spec.recipes import RECIPES
from wsl_sweep.spec.run import check_value, leaves

KINDS: dict[str, str] = {
    "choice": "[value, …]: one of these",
    "grid": "[value, …]: each of these, in an ablation or under sampler: grid",
    "uniform": "[low, high]",
    "loguniform": "[low, high], uniform in the logarithm",
    "quniform": "[low, high, step]: low, low + step, …",
    "int": "[low, high]: whole numbers, both ends included",
    "logint": "[low, high]: whole numbers, uniform in the logarithm",
}


_TEACHER_ID = re.compile(r"[0-9a-f]{12}")

NO_CHECKPOINT = "none"
"""A ``teacher.checkpoint`` that takes away a recipe's: the teacher is trained here."""

MOST_VALUES = 10_000
"""A range of more values than this is not tried value by value."""


@dataclass(frozen=True)
class Distribution:
    """Where the values of one swept path come from.

    Attributes:
        kind: a key of KINDS.
        values: of ``choice`` and ``grid``.
        low, high: of the others; both ends included.
        step: of ``quniform``.
        when: path → values under which this parameter exists; all must hold.
    """

    kind: str
    values: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def finite(self) -> list[Any] | None:
        """All values in order, or None where there is a continuum, or more than MOST_VALUES of them."""
        if self.kind in ("choice", "grid"):
            return list(self.values)
        if self.kind in ("int", "logint") and self.high - self.low < MOST_VALUES:
            return list(range(int(self.low), int(self.high) + 1))
        if self.kind == "quniform" and self.steps() < MOST_VALUES:
            return [tidy(self.low + index * (self.step or 0.0)) for index in range(self.steps() + 1)]
        return None

    def steps(self) -> int:
        """Of ``quniform``: how many steps lie between its lowest and its highest value."""
        return math.floor((self.high - self.low) / self.step + 1e-9) if self.step else 0

    def representatives(self) -> list[Any]:
        """Some values: all of a choice, the ends and the middle of a range."""
        if self.kind in ("choice", "grid"):
            return list(self.values)
        middle = (self.low + self.high) / 2
        ends = [self.low, middle, self.high]
        return [int(value) for value in ends] if self.kind in ("int", "logint") else ends

    def holds(self, config: Mapping[str, Any]) -> bool:
        """Whether this parameter exists beside the values in ``config`` (flat)."""
        return all(config.get(path) in allowed for path, allowed in self.when.items())


def tidy(value: float) -> float:
    """0.3 for 0.30000000000000004: what steps add up to is a setting that a person can write, and has its id."""
    return float(f"{value:.12g}")


@dataclass(frozen=True)
class Reading:
    """How places in a file are understood.

    Attributes:
        folder: that relative places start from; None for the working folder.
        look: whether what is named must be there.
    """

    folder: str | None = None
    look: bool = True


_AS_WRITTEN = Reading()
_reading: ContextVar[Reading] = ContextVar("reading", default=_AS_WRITTEN)


@contextlib.contextmanager
def reading(how: Reading) -> Iterator[None]:
    """Within this, files are read in another way: of a sweep that began in another folder, at another time."""
    token = _reading.set(how)
    try:
        yield
    finally:
        _reading.reset(token)


def settled(path: str, value: Any) -> Any:
    """The value as it is kept: a file or folder by its absolute path, everything else as it is."""
    if path == "teacher.checkpoint" and value == NO_CHECKPOINT:
        return None
    if path == "teacher.checkpoint" and not is_pretrained(value):
        return str(_checkpoint(value))
    if path == "dataset.root" and "$" in value:
        return value  # each machine fills it in
    if path == "dataset.vocabulary":
        local = value != LEARNED and "$" not in value and _place(value).exists()
        return str(_place(value)) if local else value  # else a name on the hub
    return str(_place(value)) if path == "dataset.root" else value


def _place(value: str) -> Path:
    return Path(_reading.get().folder or Path.cwd(), Path(value).expanduser())


def _checkpoint(value: str) -> Path:
    """A safetensors file, or, by its id, a teacher of the store."""
    if _TEACHER_ID.fullmatch(value):
        return cache_folder() / "teachers" / value / "weights.safetensors"
    return _place(value)


def check_leaf(path: str, value: Any) -> str | None:
    """What is wrong with a value at a leaf of ``run``, names of models and data sets included, or None."""
    wrong = check_value(path, value)
    if wrong is not None:
        if path == "teacher.checkpoint" and isinstance(value, int | float):
            return f"{wrong}; an id that looks like a number needs quotation marks"
        return wrong
    if path in ("student.model", "teacher.model"):
        return model_problem(value)
    if path == "dataset.name":
        return dataset_problem(str(value))
    if path == "distillation.method":
        return method_problem(value)
    if path == "recipe" and value not in RECIPES:
        return f'no recipe is called "{value}"; {did_you_mean(value, RECIPES)}'
    if path == "teacher.checkpoint" and value != NO_CHECKPOINT and not is_pretrained(value):
        if _TEACHER_ID.fullmatch(value):
            there = _checkpoint(value).is_file() or not _reading.get().look
            return None if there else f"no teacher has the id {value}; see wsl-sweep teacher list"
        if not value.endswith(".safetensors"):
            return (
                "must be a .safetensors file, which holds nothing but tensors, the id of a teacher, "
                f"torchvision:WEIGHTS, or none, not {value!r}; "
                "wsl-sweep teacher import brings in a .pth file and prints its id"
            )
        if _reading.get().look and not _checkpoint(value).is_file():
            return f"there is no file {value}"
    return None


@lru_cache(maxsize=1)
def _json_types() -> dict[str, str]:
    found = {}
    for path, leaf in leaves().items():
        schema = leaf.json_schema()
        types = {part.get("type") for part in schema.get("anyOf", [schema])}
        found[path] = next((kind for kind in ("number", "integer") if kind in types), str(schema.get("type")))
    return found


def takes_text(path: str) -> bool:
    """Whether the values of a leaf are text."""
    return _json_types().get(path) == "string"


Finding = tuple[tuple[str | int, ...], str]
"""(path below the entry, what is wrong)."""


def parse_distribution(path: str, raw: Any) -> tuple[Distribution | None, list[Finding]]:
    """One entry of ``space``: the distribution, or everything that is wrong with it."""
    if not isinstance(raw, Mapping):
        example = "{choice: " + (f"{raw}" if isinstance(raw, list) else f"[{raw}]") + "}"
        return None, [((), f"must say where its values come from, like {example}")]
    findings: list[Finding] = []
    kinds = [key for key in raw if key in KINDS]
    findings += [
        ((key,), f'unknown distribution "{key}"; {did_you_mean(key, [*KINDS, "when"])}')
        for key in raw
        if key not in KINDS and key != "when"
    ]
    if len(kinds) != 1:
        if kinds or not findings:
            findings.append(((), f"needs exactly one of {', '.join(KINDS)}"))
        return None, findings
    kind = kinds[0]
    when, wrong = _when(raw.get("when"))
    findings += wrong
    arguments = raw[kind]
    if kind in ("choice", "grid"):
        wrong = _check_values(path, kind, arguments)
        made = None
        if not wrong:
            made = Distribution(kind, values=tuple(settled(path, value) for value in arguments), when=when)
    else:
        wrong = _check_range(path, kind, arguments)
        made = None
        if not wrong:
            step = float(arguments[2]) if kind == "quniform" else None
            made = Distribution(kind, low=arguments[0], high=arguments[1], step=step, when=when)
    findings += wrong
    return (made if not findings else None), findings


def _check_values(path: str, kind: str, values: Any) -> list[Finding]:
    if not isinstance(values, list) or not values:
        return [((kind,), f"must be a list of at least one value, not {values!r}")]
    findings: list[Finding] = []
    seen: list[Any] = []
    for index, value in enumerate(values):
        wrong = check_leaf(path, value)
        if wrong:
            findings.append(((kind, index), wrong))
        elif any(value == other and isinstance(value, bool) == isinstance(other, bool) for other in seen):
            findings.append(((kind, index), f"{value!r} stands here twice"))
        seen.append(value)
    return findings


def _check_range(path: str, kind: str, arguments: Any) -> list[Finding]:
    at = (kind,)
    expected = 3 if kind == "quniform" else 2
    if not isinstance(arguments, list) or len(arguments) != expected:
        return [(at, f"must be {KINDS[kind].split(':')[0].split(',  ')[0]}, not {arguments!r}")]
    for value in arguments:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return [(at, f"bounds must be numbers, not {value!r}")]
        if not math.isfinite(value):
            return [(at, f"bounds must be finite, not {value}")]
    low, high = arguments[0], arguments[1]
    findings: list[Finding] = []
    json_type = _json_types()[path]
    whole = kind in ("int", "logint")
    if json_type not in ("integer", "number"):
        return [(at, f"{path} does not take numbers; use choice")]
    if whole and any(not isinstance(value, int) for value in (low, high)):
        return [(at, f"bounds must be whole numbers, not {arguments}")]
    if json_type == "integer" and not whole:
        return [(at, f"{path} takes whole numbers: use int or logint")]
    if low > high:
        findings.append((at, f"the bounds are reversed: {low} is above {high}"))
    elif low == high:
        findings.append((at, f"both bounds are {low}; set the value in run instead"))
    if kind in ("loguniform", "logint") and low <= 0:
        findings.append((at, f"the lower bound must be above 0 for a logarithm, not {low}"))
    if kind == "quniform" and not 0 < arguments[2] <= max(high - low, 0):
        findings.append((at, f"the step must lie in (0, high - low], not {arguments[2]}"))
    if not findings:
        for value in (low, high):
            wrong = check_leaf(path, value)
            if wrong:
                findings.append((at, wrong))
                break
    return findings


def _when(raw: Any) -> tuple[dict[str, tuple[Any, ...]], list[Finding]]:
    if raw is None:
        return {}, []
    if not isinstance(raw, Mapping) or not raw:
        return {}, [(("when",), "must be a section like {distillation.weighting.kind: sigmoid}")]
    when: dict[str, tuple[Any, ...]] = {}
    findings: list[Finding] = []
    for path, value in raw.items():
        if path not in leaves():
            findings.append((("when", path), f'no such path "{path}"; {did_you_mean(path, leaves())}'))
            continue
        values: Sequence[Any] = value if isinstance(value, list) else [value]
        for one in values:
            wrong = check_leaf(path, one)
            if wrong:
                findings.append((("when", path), wrong))
        when[path] = tuple(values)
    return when, findings
