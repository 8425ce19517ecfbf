"""What must hold between the parts of a file, beyond each part's own form."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

from wsl_sweep.spec.catalogue import did_you_mean, is_text_model, text_shape
from wsl_sweep.spec.datasets import DATASETS, data_set
from wsl_sweep.spec.distributions import Distribution
from wsl_sweep.spec.identity import canonical_json
from wsl_sweep.spec.largest import check_top_k
from wsl_sweep.spec.reads import OWN_SETTINGS, STEERING, reads
from wsl_sweep.spec.sections import TEACHER_METRICS, metrics_of, nameable
from wsl_sweep.spec.spec import Spec
from wsl_sweep.spec.world import assignments, teller

Say = Callable[[tuple[str | int, ...], str], None]
SayOption = Callable[[str, str], None]
Place = Callable[..., tuple[str | int, ...]]
"""(section, name of an arm, variant or baseline if it is of one, dotted path) -> where that stands in the file."""

MOST_POINTS = 100_000

LEAST_SHARE = 2
"""Examples of a process in a batch, as training.group has it: one alone has no batch statistics."""

SHARED = ("schedule.batch_size", "teacher.schedule.batch_size", "student.batchnorm")
"""What the number of processes has a say in."""

MADE_FROM = {
    "weight/mean": "distillation.weighting.kind",
    "regularization_samples/fraction": "distillation.temperature",
}
"""Metrics that exist only where a path is read."""

READ_WHERE: dict[str, str] = {
    "distillation.weighting.of": "distillation.weighting.kind is sigmoid",
    "distillation.weighting.value": "distillation.weighting.kind is constant",
    "distillation.weighting.kind": "distillation.method weighs examples: not under none and dist",
    "distillation.keep.regularization": "distillation.method gives each example a loss: kd, dkd, your own",
    "distillation.keep.other": "distillation.method gives each example a loss: kd, dkd, your own",
    "distillation.temperature": "distillation.method is not none (rkd: and distillation.kd_weight is above 0)",
    **{
        f"distillation.{leaf}": f"distillation.method is {method}"
        for method, leaves in OWN_SETTINGS.items()
        for leaf in leaves
    },
    "dataset.size": "dataset.name is image_folder or imagenet",
    "dataset.padding": "dataset.name is one whose pictures lie in memory: not imagenet, mnli, your own",
    "dataset.flip": "dataset.name is one of pictures: not mnli, your own",
    "dataset.views": "dataset.name is not mnli",
    "dataset.damaged": "dataset.name is imagenet or mnli",
    "dataset.max_length": "dataset.name is mnli",
    "dataset.vocabulary": "dataset.name is mnli",
    "dataset.padding_mode": "dataset.padding is above 0",
    "dataset.split": "dataset.splits is above 1",
    "teacher.split": "dataset.splits is above 1, and the teacher is trained",
    "teacher.smoothing": "teacher.label_smoothing is above 0",
    "optimizer.momentum": "optimizer.name is sgd",
    "optimizer.nesterov": "optimizer.name is sgd, with momentum",
    "schedule.decay": "schedule.milestones has any, and schedule.shape is steps",
    "schedule.milestones": "schedule.shape is steps",
    "dataset.root": "the data set lies on disk",
}

NEUTRAL: dict[str, Any] = {
    "distillation.weighting.kind": "none",
    "distillation.mask": "none",
    "distillation.keep.regularization": 1,
    "distillation.keep.other": 1,
    "distillation.kd_weight": 0,
    "dataset.damaged": "refuse",
    "dataset.splits": 1,
    "teacher.split": "all",
    "teacher.init": "random",
    "student.init": "random",
    "student.batchnorm": "process",
    "optimizer.decay_on": "all",
    "teacher.optimizer.decay_on": "all",
    "schedule.shape": "steps",
    "schedule.milestones": [],
    "teacher.schedule.shape": "steps",
    "teacher.schedule.milestones": [],
}
"""Values that ask for nothing, and so may stand where nothing reads them."""


def _where_read(path: str) -> str:
    if path in READ_WHERE:
        return f"; it is read where {READ_WHERE[path]}"
    if path.startswith("teacher.") and path != "teacher.checkpoint":
        return (
            "; it is read where distillation.method is not none or student.init is teacher, and no teacher.checkpoint "
            "is given"
        )
    if path.startswith("distillation."):
        return "; it is read where distillation.method is not none"
    return ""


def check_rules(
    spec: Spec, top: Mapping[str, Any], say: Say, say_option: SayOption, place: Place, *, clean: bool
) -> None:
    """Notes everything that the parts of a file get wrong together.

    Args:
        spec: from the parts that are right by themselves.
        top: the file's top level.
        say: notes a problem at a path of the file.
        say_option: notes a problem of the command line.
        place: where in the file an override stands.
        clean: whether the parts are right by themselves; what would only be an echo of another mistake is
            checked only then.
    """
    _check_kind(spec, top, say)
    _check_metrics(spec, say)
    _check_sampler(spec, say)
    _check_when(spec, say)
    if clean or not _broken(top):
        _check_read(spec, say, say_option, place)
        _check_views(spec, say, say_option, place)
        _check_splits(spec, say, say_option, place)
        check_top_k(spec, say, say_option, place)
    if clean:
        _check_beginnings(spec, teller(spec, say, say_option, place))
        _check_complete(spec, say)
        _check_distinct_arms(spec, say)
    _check_compare(spec, say)
    if clean:
        _check_processes(spec, say, say_option, place)


def _broken(top: Mapping[str, Any]) -> bool:
    """Whether ``run`` and the named parts are too damaged to tell what is read."""
    parts = (top.get("run"), top.get("space"), top.get("search"))
    return any(part is not None and not isinstance(part, dict) for part in parts)


def _check_kind(spec: Spec, top: Mapping[str, Any], say: Say) -> None:
    ablation = "variants" in top
    if ablation and "search" in top:
        say(("variants",), "a file is a search or an ablation: remove search or variants")
    if not ablation and "search" not in top:
        say((), "says nothing to do: add search: {trials: 20} for a search, or variants: for an ablation")
    if ablation:
        for section in ("confirm", "scheduler"):
            if section in top and "search" not in top:
                why = "an ablation has seeds: instead" if section == "confirm" else "an ablation runs whole"
                say((section,), f"belongs to a search; {why}")
    elif "seeds" in top:
        say(("seeds",), "belongs to an ablation (variants:); a search has confirm.seeds")
    if "confirm" in top and not ablation and "search" not in top:
        say(("confirm",), "confirms a search, and there is none")
    if "search" in top and not ablation and spec.search is not None:
        if not top.get("space"):
            say(("search",), "there is nothing to search: add a space section")
        asked = isinstance(top["search"], dict) and top["search"].get("trials") is not None
        if spec.search.sampler != "grid" and spec.search.trials is None and not asked:
            say(("search",), "needs trials: how many for each arm")


def _check_metrics(spec: Spec, say: Say) -> None:
    if spec.search is None:
        return
    datasets = spec.datasets(spec.arms)
    known = [metric for metric in metrics_of(datasets) if not metric.startswith("test/")]
    for index, metric in enumerate(spec.metrics):
        where = ("search", "metric") if isinstance(spec.search.metric, str) else ("search", "metric", index)
        if metric.startswith("test/"):
            instead = f"validation/{metric[5:]}"
            instead = instead if instead in known or nameable(instead, datasets) else "validation/accuracy"
            say(where, f"nothing is chosen on the test set: not {metric}, take {instead}")
        elif metric in TEACHER_METRICS and any(
            spec.flat_config(arm)["distillation.method"] == "none" for arm in spec.arms.values()
        ):
            say(where, f"{metric} needs a teacher, and an arm has none")
        elif metric in MADE_FROM and any(MADE_FROM[metric] not in spec.read_by(arm) for arm in spec.arms.values()):
            say(where, f"{metric} is not measured under the method of an arm: it does not read {MADE_FROM[metric]}")
        elif metric not in known and not nameable(metric, datasets):
            say(where, f'no metric is called "{metric}"; {did_you_mean(metric, known)}')
    if not spec.metrics:
        say(("search", "metric"), "is empty")
    if len(set(spec.metrics)) != len(spec.metrics):
        say(("search", "metric"), "a metric stands here twice")
    if len(spec.modes) != len(spec.metrics):
        say(("search", "mode"), f"needs one of max and min for each of the {len(spec.metrics)} metrics")
    if len(spec.metrics) > 1:
        if spec.search.sampler == "cmaes":
            say(("search", "sampler"), "cmaes takes one metric; nsga2, tpe, gp and random take several")
        if spec.scheduler.name != "none":
            say(("scheduler",), "early stopping needs one metric; this search has several")


def _check_sampler(spec: Spec, say: Say) -> None:
    if spec.search is None and not spec.variants:
        return
    sampler = spec.search.sampler if spec.search else "an ablation"
    for path, distribution in spec.space.items():
        where = ("space", path)
        if spec.search is None or sampler == "grid":
            if distribution.finite() is None:
                who = "an ablation tries" if spec.search is None else "sampler: grid tries"
                say(where, f"{who} every value; {distribution.kind} has no end of them: use grid: [value, …]")
            elif spec.search is None and distribution.kind != "grid":
                say(where, f"an ablation tries every value: use grid: in place of {distribution.kind}:")
        elif distribution.kind == "grid":
            say(
                (*where, "grid"),
                f"grid needs sampler: grid, or an ablation; under sampler: {sampler} use choice",
            )

    counts = [len(distribution.finite() or ()) for distribution in spec.space.values()]
    if (spec.search is None or sampler == "grid") and math.prod(counts) > MOST_POINTS:
        points = f"{math.prod(counts):,}"
        say(("space",), f"the grid has {points} points; more than {MOST_POINTS:,} are not tried one by one")


def _check_when(spec: Spec, say: Say) -> None:
    for path, distribution in spec.space.items():
        for other, allowed in distribution.when.items():
            where = ("space", path, "when", other)
            if other == path:
                say(where, "a parameter cannot depend on itself")
            elif other in spec.space:
                if _depends(spec.space, other, path):
                    say(where, f"{path} and {other} depend on each other")
                values = spec.space[other].finite()
                if values is not None and not any(value in values for value in allowed):
                    say(where, f"never holds: {other} takes {', '.join(map(str, values))}")
            else:
                values = _fixed_values(spec, other)
                if not values:
                    say(where, f"{other} is neither swept nor fixed")
                elif not any(value in values for value in allowed):
                    say(where, f"never holds: {other} is {' or '.join(map(str, values))}")


def _depends(space: Mapping[str, Distribution], path: str, on: str, depth: int = 0) -> bool:
    return depth <= len(space) and any(
        other == on or (other in space and _depends(space, other, on, depth + 1)) for other in space[path].when
    )


def _everyone(spec: Spec) -> dict[str, Mapping[str, Any]]:
    return {**spec.baselines, **spec.arms, **spec.variants} or {"": {}}


def _fixed_values(spec: Spec, path: str) -> list[Any]:
    owners = {**spec.arms, **spec.variants} or {"": {}}
    values = [spec.flat_config(overrides).get(path) for overrides in owners.values()]
    return list({repr(value): value for value in values if value is not None}.values())


def _check_read(spec: Spec, say: Say, say_option: SayOption, place: Place) -> None:
    sweeping: set[str] = set()
    for overrides in ({**spec.arms, **spec.variants} or {"": {}}).values():
        sweeping |= spec.read_by(overrides)
    for path in spec.space:
        if path == "seed":
            say(place("space", path), "a seed is not searched for: see confirm.seeds, or seeds: of an ablation")
        elif path not in sweeping:
            say(place("space", path), f"nothing in this file reads {path}{_where_read(path)}")
    anyone = sweeping.union(*(spec.read_by(overrides) for overrides in spec.baselines.values()))
    for path in sorted(set(spec.given) - anyone - set(spec.pins)):
        if not _asks_nothing(path, spec.given[path]):
            say(place("run", path), f"nothing in this file reads {path}{_where_read(path)}")
    for path in sorted(set(spec.pins) - anyone):
        if _asks_nothing(path, spec.pins[path]):
            continue
        say_option(f"--set {path}", f"nothing in this file reads it{_where_read(path)}")
    for section, named in (("variants", spec.variants), ("arms", spec.arms), ("baselines", spec.baselines)):
        for name, overrides in named.items():
            own = spec.read_by(overrides)
            for path in sorted(set(overrides) - own - set(spec.pins)):
                if _asks_nothing(path, overrides[path]):
                    continue
                if path not in anyone:
                    say(place(section, name, path), f"no arm or variant reads {path}{_where_read(path)}")
                elif path in NEUTRAL:
                    method = spec.flat_config(overrides)["distillation.method"]
                    say(place(section, name, path), f"makes no sense under method {method}{_where_read(path)}")
            if "seed" in overrides:
                say(place(section, name, "seed"), "all have the same seeds: see seeds:, confirm.seeds, run.seed")


def _check_splits(spec: Spec, say: Say, say_option: SayOption, place: Place) -> None:
    """A split is one of those that there are."""
    tell = teller(spec, say, say_option, place)
    for owner, overrides, params in assignments(spec, ("recipe", "dataset.splits", "dataset.split")):
        flat = spec.flat_config(overrides, params)
        splits, split = flat.get("dataset.splits"), flat.get("dataset.split")
        if isinstance(splits, int) and isinstance(split, int) and 1 < splits <= split:
            tell(owner, "dataset.split", f"must be below dataset.splits, {splits}: they are counted from 0")


def _check_views(spec: Spec, say: Say, say_option: SayOption, place: Place) -> None:
    """ImageNet's crops have no end, all other data sets' views have one."""
    tell = teller(spec, say, say_option, place)
    named = {"arms": spec.arms, "variants": spec.variants, "baselines": spec.baselines}
    owners: list[tuple[tuple[str, ...], Mapping[str, Any]]] = [
        ((section, name), overrides) for section, group in named.items() for name, overrides in group.items()
    ] or [((), {})]
    swept = [path for path in ("recipe", "dataset.name", "dataset.views") if path in spec.space]
    points = [*itertools.product(*(spec.space[path].representatives() for path in swept))]
    for (owner, overrides), values in itertools.product(owners, points):
        params = {} if owner[:1] == ("baselines",) else dict(zip(swept, values, strict=True))
        flat = spec.flat_config(overrides, params)
        if not all(spec.space[path].holds(flat) for path in params):
            continue
        name, views = flat.get("dataset.name"), flat.get("dataset.views")
        endless = data_set(str(name)).endless
        if endless and views == "all":
            tell(
                owner, "dataset.views", f"{name}'s crops have no end: epoch (a new one each time), or a number of them"
            )
        elif not endless and views == "epoch" and "dataset.views" in reads(flat):
            some = ", ".join(one for one in DATASETS if DATASETS[one].endless)
            tell(owner, "dataset.views", f"epoch is for {some}; {name} has all, or a number of them")


def _check_beginnings(spec: Spec, tell: Callable[[tuple[str, ...], str, str], None]) -> None:
    """Where weights begin: what can be told from the names of models."""
    asked = ("recipe", "student.model", "student.init", "teacher.model", "teacher.init", "distillation.method")
    for owner, overrides, params in assignments(spec, asked):
        flat = spec.flat_config(overrides, params)
        read = reads(flat)
        for section in ("student", "teacher"):
            path, model = f"{section}.init", flat.get(f"{section}.model")
            if path not in read or model is None:
                continue
            if not is_text_model(str(model)):
                tell(owner, path, f"{model} is no text model, and only those begin from anything but random weights")
            elif section == "teacher" and flat[path] == "teacher":
                tell(owner, path, "a teacher cannot begin from itself: random, a folder, or a name on the hub")
            elif flat[path] == "teacher" and flat.get("teacher.model") is not None:
                wrong = _cannot_begin(str(model), str(flat["teacher.model"]))
                if wrong is not None:
                    tell(owner, path, wrong)


def _cannot_begin(student: str, teacher: str) -> str | None:
    """Why a student cannot begin from its teacher's first layers, as far as names tell, or None."""
    if not is_text_model(teacher):
        return f"{student} cannot begin from {teacher}, which is no text model"
    own, its = text_shape(student), text_shape(teacher)
    if own is None or its is None or (own[0] <= its[0] and own[1] == its[1]):
        return None
    what = "more layers" if own[0] > its[0] else "another width"
    return f"{student} has {what} than its teacher {teacher}, and cannot begin from its first layers"


def _asks_nothing(path: str, value: Any) -> bool:
    return value is None or (path in NEUTRAL and not isinstance(value, bool) and value == NEUTRAL[path])


def _check_complete(spec: Spec, say: Say) -> None:
    missing: set[str] = set()
    for overrides in spec.baselines.values():
        missing |= _missing(spec, overrides, {})
    named = {other for d in spec.space.values() for other in d.when if other in spec.space}
    steering = sorted(named | (set(STEERING) & set(spec.space)))
    choices = [spec.space[path].representatives() for path in steering]
    for overrides in ({**spec.arms, **spec.variants} or {"": {}}).values():
        for values in itertools.islice(itertools.product(*choices), 1_000):
            params = dict(zip(steering, values, strict=True))
            for path, distribution in spec.space.items():
                if path not in params and distribution.holds(spec.flat_config(overrides, params)):
                    params[path] = distribution.representatives()[0]
            missing |= _missing(spec, overrides, params)
    for path in sorted(missing):
        if path == "dataset.root":
            say(("run",), "dataset.root has no value; give your folder of class folders: --set dataset.root=FOLDER")
        else:
            say(("run",), f"{path} has no value; name a recipe (run.recipe: digits) or set it")


def _missing(spec: Spec, overrides: Mapping[str, Any], params: Mapping[str, Any]) -> set[str]:
    flat = spec.flat_config(overrides, params)
    return {path for path in reads(flat) if path not in flat} - {"dataset.split"}  # which follows from the seed


def _check_distinct_arms(spec: Spec, say: Say) -> None:
    """Two arms that the space makes the same are no comparison."""
    free = dict.fromkeys(spec.space, "swept")
    for (one, first), (other, second) in itertools.combinations(spec.arms.items(), 2):
        # Defaults that go by the method are left out: where the method is swept, they are the trial's.
        configs = [
            {path: value for path, value in spec.written(overrides, free).items() if path in read}
            for overrides, read in ((first, spec.read_by(first)), (second, spec.read_by(second)))
        ]
        if canonical_json(configs[0]) == canonical_json(configs[1]):
            say(("search", "arms"), f'the arms "{one}" and "{other}" are the same once the space is applied')


def _check_processes(spec: Spec, say: Say, say_option: SayOption, place: Place) -> None:
    """What several processes of a trial, or one alone, make of batches, GPUs and batch normalisation."""
    processes, gpu = spec.processes, spec.resources.gpu
    if processes > 1 and gpu is not None and gpu % processes:
        say(
            ("resources", "gpu"),
            f"each of the {processes} processes of a trial needs whole GPUs of its own: {processes}, a multiple of it, "
            f"or 0 for the CPU, not {gpu:g}",
        )
    told: set[tuple[tuple[str | int, ...], str]] = set()
    for owner, overrides in _owners(spec):
        for path in sorted(spec.read_by(overrides).intersection(SHARED)):
            swept = path in spec.space and owner[0] != "baselines"
            values = spec.space[path].representatives() if swept else [spec.flat_config(overrides).get(path)]
            problems = [what for value in values if (what := _unfit(path, value, processes, gpu)) is not None]
            if problems and path in spec.pins:
                say_option(f"--set {path}", problems[0])
            elif problems:
                where: tuple[str | int, ...] = ("resources",)
                if swept:
                    where = place("space", path)
                elif path in overrides:
                    where = place(*owner, path)
                elif path in spec.given:
                    where = place("run", path)
                if (where, problems[0]) not in told:
                    told.add((where, problems[0]))
                    say(where, problems[0])


def _owners(spec: Spec) -> list[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """Where arms, variants and baselines stand, and what they override."""
    named = (("arms", spec.arms), ("variants", spec.variants), ("baselines", spec.baselines))
    return [((section, name), overrides) for section, owners in named for name, overrides in owners.items()]


def _unfit(path: str, value: Any, processes: int, gpu: float | None) -> str | None:
    """What is wrong with a value of a path under so many processes, or None."""
    if path != "student.batchnorm":
        if processes > 1 and isinstance(value, int) and value < LEAST_SHARE * processes:
            return (
                f"{path} {value} is too small for {processes} processes: each needs {LEAST_SHARE} examples of a batch"
            )
    elif value == "sync" and processes == 1:
        return "sync is over several processes, and a trial has one: set resources.processes, or leave it out"
    elif value == "sync" and gpu == 0:
        return "sync needs a GPU for each process, and resources.gpu is 0; on CPUs batch normalisation is by process"
    return None


def _check_compare(spec: Spec, say: Say) -> None:
    names = [*spec.arms, *spec.baselines, *spec.variants]
    baseline = spec.compare.baseline
    if baseline is not None and baseline not in names:
        where = ("compare", "baseline")
        say(
            where,
            f'"{baseline}" is no arm, variant or baseline here; {did_you_mean(baseline, names)}',
        )
    for index, name in enumerate(spec.compare.family or []):
        if name not in names:
            say(
                ("compare", "family", index),
                f'"{name}" is no arm, variant or baseline here; {did_you_mean(name, names)}',
            )
    datasets = spec.datasets({**spec.arms, **spec.baselines, **spec.variants})
    known = sorted(metrics_of(datasets), key=lambda metric: not metric.startswith("test/"))
    if spec.compare.metric not in known and not nameable(spec.compare.metric, datasets):
        say(
            ("compare", "metric"),
            f'no metric is called "{spec.compare.metric}"; {did_you_mean(spec.compare.metric, known)}',
        )
