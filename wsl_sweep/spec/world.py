"""What only importing, or looking at the disk, can tell of a file; asked before anything is started."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

from wsl_sweep.spec.catalogue import METHODS, did_you_mean, model_problem
from wsl_sweep.spec.plan import in_dependency_order
from wsl_sweep.spec.reads import NO_EXAMPLE_WEIGHTS, NO_KEEPING
from wsl_sweep.spec.recipes import weighting_kind
from wsl_sweep.spec.sections import metrics_of, nameable
from wsl_sweep.spec.spec import Spec
from wsl_sweep.user_code import is_import_name

Say = Callable[[tuple[str | int, ...], str], None]
SayOption = Callable[[str, str], None]
Place = Callable[..., tuple[str | int, ...]]

ASKED = (
    "recipe", "dataset.name", "dataset.root", "dataset.size", "dataset.damaged", "dataset.max_length",
    "dataset.vocabulary", "student.model", "student.init", "teacher.model", "teacher.checkpoint", "teacher.init",
    "distillation.method", "distillation.weighting.kind", "distillation.keep.regularization", "distillation.keep.other",
)  # fmt: skip
"""What the world is asked about, and what decides whether it is."""

MOST_ASSIGNMENTS = 2_000


class World(Protocol):
    """What the rules ask of what lies outside of the file. Answers are kept: each is asked once."""

    def model_problem(self, name: str, dataset: Mapping[str, Any]) -> str | None:
        """What is wrong with a model on a data set (flat ``dataset`` paths), or None."""

    def features_problem(self, name: str, dataset: Mapping[str, Any]) -> str | None:
        """Why a model that is right has no penultimate features, or None where it has."""

    def checkpoint_problem(self, path: str, model: str, dataset: Mapping[str, Any]) -> str | None:
        """What is wrong with a teacher's weights file for a model that is right, or None."""

    def beginning_problem(self, init: str) -> str | None:
        """What is wrong with a folder of pretrained weights, or None; of a name on the hub as far as it is here."""

    def method_problem(self, name: str, flat: Mapping[str, Any]) -> str | None:
        """What is wrong with a user's own method in a (flat) configuration, or None."""

    def needs_features(self, name: str) -> bool:
        """Whether a method that is right takes features; a user's own after ``method_problem``."""

    def by_example(self, name: str) -> bool:
        """Whether a user's own method that is right gives each example a loss; after ``method_problem``."""

    def data_problem(self, dataset: Mapping[str, Any]) -> str | None:
        """What is wrong with a folder of pictures or sentences, or with a user's own task, or None."""

    def own_metrics(self, dataset: Mapping[str, Any]) -> tuple[str, ...]:
        """The metrics that a user's own task that is right adds: ``validation/f1``, …; none of any other data set."""


def check_world(spec: Spec, world: World, say: Say, say_option: SayOption, place: Place) -> None:
    """Notes what is wrong with users' own tasks, models, methods and folders, at the places that name them."""
    tell, told = teller(spec, say, say_option, place), set[tuple[str, str]]()
    for owner, overrides, params in assignments(spec, ASKED):
        flat = spec.flat_config(overrides, params)
        for path, what in _problems(flat, world):
            if (path, what) not in told:
                told.add((path, what))
                tell(owner, path, what)
    _check_own_metrics(spec, world, say)


def teller(spec: Spec, say: Say, say_option: SayOption, place: Place) -> Callable[[tuple[str, ...], str, str], None]:
    """Notes what is wrong with the value of a path where it is said, once: (section and name of whose, path, what)."""
    told: set[tuple[object, str]] = set()

    def tell(owner: tuple[str, ...], path: str, what: str) -> None:
        if path in spec.pins:
            where: str | tuple[str | int, ...] = f"--set {path}"
        elif path in spec.space and owner[:1] != ("baselines",):
            where = place("space", path)
        elif owner and path in _overrides(spec, owner):
            where = place(*owner, path)
        elif path in spec.given:
            where = place("run", path)
        else:
            where, what = ("run", "recipe"), f"{path}: {what}"
        if (where, what) in told:
            return
        told.add((where, what))
        if isinstance(where, str):
            say_option(where, what)
        else:
            say(where, what)

    return tell


def _check_own_metrics(spec: Spec, world: World, say: Say) -> None:
    """Notes where a metric is named that a user's own task does not measure; its form is looked at by the rules."""
    asked: dict[tuple[str | int, ...], str] = {}
    if spec.search is not None:
        single = isinstance(spec.search.metric, str)
        asked = {("search", "metric", *(() if single else (index,))): one for index, one in enumerate(spec.metrics)}
    told: set[str] = set()
    for owner, overrides, params in assignments(spec, ("recipe", "dataset.name", "dataset.root")):
        flat = spec.flat_config(overrides, params)
        name = str(flat.get("dataset.name"))
        if not is_import_name(name) or world.data_problem(flat) is not None:
            continue
        known = [*metrics_of([name]), *world.own_metrics(flat)]
        of_owner = {("compare", "metric"): spec.compare.metric} | (asked if owner[:1] in ((), ("arms",)) else {})
        for where, metric in of_owner.items():
            if nameable(metric, [name]) and metric not in known and metric not in told:
                told.add(metric)
                part = metric.partition("/")[0]
                near = [one for one in known if one.startswith(f"{part}/")]
                say(where, f'{name} does not measure "{metric}"; {did_you_mean(metric, near)}')


def _overrides(spec: Spec, owner: tuple[str, ...]) -> Mapping[str, Any]:
    section, name = owner
    found: Mapping[str, Any] = getattr(spec, section)[name]
    return found


def assignments(
    spec: Spec, asked: Iterable[str]
) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any], dict[str, Any]]]:
    """(section and name, overrides, params) of every arm, variant and baseline at some values of the ``asked`` paths.

    Baselines, and all where nothing of it is swept, have no params; a parameter that does not exist beside the others
    (``when``) is not among them.
    """
    steering = {other for path in set(asked) & set(spec.space) for other in spec.space[path].when}
    swept = [path for path in in_dependency_order(spec.space) if path in {*asked, *steering}]
    named = {"arms": spec.arms, "variants": spec.variants, "baselines": spec.baselines}
    owners: list[tuple[tuple[str, ...], Mapping[str, Any]]] = [
        ((section, name), overrides) for section, group in named.items() for name, overrides in group.items()
    ] or [((), {})]
    for owner, overrides in owners:
        values = [spec.space[path].representatives() for path in swept] if owner[:1] != ("baselines",) else []
        for chosen in itertools.islice(itertools.product(*values), MOST_ASSIGNMENTS):
            params: dict[str, Any] = {}
            for path, value in zip(swept, chosen, strict=False):
                if spec.space[path].holds({**spec.flat_config(overrides), **params}):
                    params[path] = value
            yield owner, overrides, params


def _problems(flat: Mapping[str, Any], world: World) -> Iterator[tuple[str, str]]:
    dataset = {path: value for path, value in flat.items() if path.startswith("dataset.")}
    method = flat["distillation.method"]
    if "dataset.name" not in dataset:
        return
    wrong = world.data_problem(dataset)
    if wrong is not None:
        yield "dataset.name" if is_import_name(str(dataset["dataset.name"])) else "dataset.root", wrong
        return
    with_teacher = method != "none" or flat.get("student.init") == "teacher"
    models = ["student.model"] + (["teacher.model"] if with_teacher else [])
    right = []
    for path in models:
        name = flat.get(path)
        if name is None or model_problem(name) is not None:
            continue
        wrong = world.model_problem(name, dataset)
        if wrong is not None:
            yield path, wrong
        else:
            right.append(path)
    inits = ["student.init"] + (["teacher.init"] if with_teacher and not flat.get("teacher.checkpoint") else [])
    for path in inits:
        wrong = None if flat[path] in ("random", "teacher") else world.beginning_problem(str(flat[path]))
        if wrong is not None:
            yield path, wrong
    checkpoint = flat.get("teacher.checkpoint")
    if checkpoint is not None and "teacher.model" in right:
        wrong = world.checkpoint_problem(checkpoint, flat["teacher.model"], dataset)
        if wrong is not None:
            yield "teacher.checkpoint", wrong
    if method not in METHODS:
        wrong = world.method_problem(method, flat)
        if wrong is not None:
            yield "distillation.method", wrong
            return
        if not world.by_example(method):
            yield from _not_by_example(flat, method)
    if world.needs_features(method):
        for path in right:
            why = world.features_problem(flat[path], dataset)
            if why is not None:
                yield "distillation.method", f"{method} needs features, and {path} {flat[path]} has none: {why}"


def _not_by_example(flat: Mapping[str, Any], method: str) -> Iterator[tuple[str, str]]:
    what = f"{method} gives one loss for a batch, so that no example's part of it can be"
    if weighting_kind(flat) != "none" and method not in NO_EXAMPLE_WEIGHTS:
        yield "distillation.weighting.kind", f"{what} weighted"
    for leaf in ("regularization", "other"):
        if flat.get(f"distillation.keep.{leaf}", 1) != 1 and method not in NO_KEEPING:
            yield f"distillation.keep.{leaf}", f"{what} left out"
