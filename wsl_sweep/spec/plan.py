"""Expanding a specification: the trials of an ablation, the proposals of a search, the teachers they need."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from wsl_sweep.spec.distributions import Distribution
from wsl_sweep.spec.identity import teacher_identity, trial_id
from wsl_sweep.spec.reads import reads
from wsl_sweep.spec.spec import Spec

CONFIRM_SEED = 1000
"""The first of the fresh seeds of ``confirm``."""


@dataclass(frozen=True)
class Trial:
    """One training of one student: one resolved configuration, one seed.

    Attributes:
        trial_id: see ``wsl_sweep.spec.identity.trial_id``.
        stage: ``search``, ``confirm`` or ``ablation``.
        arm: of the search that it belongs to; None for baselines and ablations.
        variants: the names that this trial stands for.
        seed: of the student.
        overrides: dotted path → value, what sets it apart from the file's ``run``.
        config: resolved, nested, as far as it is read.
        part: ``train`` or ``train+validation``.
        threads: torch's, of each process.
        teacher_id: of the teacher that it reads, see ``wsl_sweep.spec.identity.teacher_identity``; None where it reads
            none.
        processes: that train it together.
    """

    trial_id: str
    stage: str
    arm: str | None
    variants: tuple[str, ...]
    seed: int
    overrides: Mapping[str, Any]
    config: Mapping[str, Any]
    part: str = "train"
    threads: int = 1
    teacher_id: str | None = None
    processes: int = 1

    @property
    def epochs(self) -> int:
        """Epochs planned."""
        return int(self.config["schedule"]["epochs"])

    def to_json(self) -> dict[str, Any]:
        """As plain data; ``Trial.from_json`` takes it back."""
        return {**asdict(self), "variants": list(self.variants)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Trial:
        """From ``to_json``'s data."""
        return cls(**{**data, "variants": tuple(data["variants"])})


def make_trial(
    spec: Spec,
    *,
    stage: str,
    variant: str,
    overrides: Mapping[str, Any],
    params: Mapping[str, Any],
    seed: int,
    arm: str | None = None,
    part: str = "train",
    device_kind: str = "cpu",
) -> Trial:
    """The trial of one arm, variant or baseline with the values ``params`` of the space.

    ``overrides`` of the result are the params that are read, and, outside of a search's arms, the variant's own.
    """
    config = spec.config(overrides, params, seed=seed, device_kind=device_kind)
    shown = dict(params) if arm is not None else {**overrides, **params}
    shown = {path: value for path, value in shown.items() if path not in spec.pins}
    read = reads(spec.flat_config(overrides, params))
    named = teacher_identity(config, part, spec.threads, spec.processes)
    return Trial(
        trial_id=trial_id(config, part, spec.threads, spec.processes),
        stage=stage,
        arm=arm,
        variants=(variant,),
        seed=seed,
        overrides={path: value for path, value in shown.items() if path in read},
        config=config,
        part=part,
        threads=spec.threads,
        teacher_id=named[0] if named is not None else None,
        processes=spec.processes,
    )


def merge(trials: Iterator[Trial] | Sequence[Trial]) -> list[Trial]:
    """The trials without repetition; one that stands for several variants names them all."""
    merged: dict[str, Trial] = {}
    for trial in trials:
        known = merged.get(trial.trial_id)
        if known is None:
            merged[trial.trial_id] = trial
        else:
            names = dict.fromkeys((*known.variants, *trial.variants))
            merged[trial.trial_id] = replace(known, variants=tuple(names))
    return list(merged.values())


@dataclass(frozen=True)
class Cell:
    """A variant crossed with one point of the grid: a row of an ablation's table.

    Attributes:
        variant: its name.
        overrides: of the variant, with the grid's values that it reads.
        trials: one for each seed.
    """

    variant: str
    overrides: Mapping[str, Any]
    trials: tuple[Trial, ...]


def ablation_cells(spec: Spec, device_kind: str = "cpu") -> list[Cell]:
    """Variants × grid × seeds, cell by cell; where a variant does not read a path of the grid, its cells are one."""
    cells: list[Cell] = []
    for name, overrides in spec.variants.items():
        for params in grid_points(spec, overrides):
            trials = tuple(
                make_trial(
                    spec,
                    stage="ablation",
                    variant=name,
                    overrides=overrides,
                    params=params,
                    seed=seed,
                    device_kind=device_kind,
                )
                for seed in spec.seeds
            )
            cells.append(Cell(name, trials[0].overrides, trials))
    return cells


def in_dependency_order(space: Mapping[str, Distribution]) -> list[str]:
    """The paths so that each comes after those that its ``when`` names; in some order where they go in a circle."""
    order: dict[str, None] = {}
    begun: set[str] = set()

    def add(path: str) -> None:
        if path in begun:
            return
        begun.add(path)
        for other in space[path].when:
            if other in space:
                add(other)
        order[path] = None

    for path in space:
        add(path)
    return list(order)


def grid_points(spec: Spec, overrides: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every point of the (finite) space of an arm or variant, without what does not exist or is not read there.

    The first path varies slowest. Without a space there is one point, the empty one.
    """
    space = spec.space_of(overrides)
    order = in_dependency_order(space)
    points: dict[str, dict[str, Any]] = {}
    for values in itertools.product(*(space[path].finite() or [] for path in order)):
        params: dict[str, Any] = {}
        for path, value in zip(order, values, strict=True):
            if space[path].holds({**spec.flat_config(overrides), **params}):
                params[path] = value
        read = reads(spec.flat_config(overrides, params))
        params = {path: value for path, value in params.items() if path in read}
        points.setdefault(repr(sorted(params.items())), params)
    return list(points.values())


@dataclass(frozen=True)
class Plan:
    """What would run, as far as it is known beforehand.

    Attributes:
        stages: stage → number of trials, in the order in which they run.
        teachers: id → (identity, an example of a trial that needs it), of the teachers to be had.
        open_teachers: True where a swept continuum makes more of them.
        examples: stage → one of its trials, for the estimate of time.
    """

    stages: Mapping[str, int]
    teachers: Mapping[str, tuple[Mapping[str, Any], Trial]]
    open_teachers: bool
    examples: Mapping[str, Trial]


def search_trials(spec: Spec, overrides: Mapping[str, Any]) -> int:
    """Trials of one arm: as asked, at most the points of a grid."""
    assert spec.search is not None
    if spec.search.sampler == "grid":
        points = len(grid_points(spec, overrides))
        return points if spec.search.trials is None else min(points, spec.search.trials)
    return spec.search.trials or 0


def make_plan(spec: Spec, device_kind: str = "cpu") -> Plan:
    """The plan of a specification: plain arithmetic, nothing is run; what is read from disk is hashed."""
    trials: list[Trial]
    if spec.search is None:
        trials = merge([trial for cell in ablation_cells(spec, device_kind) for trial in cell.trials])
        return Plan({"ablation": len(trials)}, _teachers(trials), False, {"ablation": trials[0]})
    stages = {"search": sum(search_trials(spec, arm) for arm in spec.arms.values())}
    trials = [trial for arm in spec.arms for trial in _samples(spec, arm, device_kind)]
    open_ended = any(
        distribution.finite() is None and path.startswith(("teacher.", "dataset."))
        for path, distribution in spec.space.items()
    )
    examples = {"search": trials[0]}
    if spec.confirm is not None:
        confirm = spec.confirm
        candidates = sum(min(confirm.top, search_trials(spec, arm)) for arm in spec.arms.values())
        stages["confirm"] = (candidates + len(spec.baselines)) * confirm.seeds
        if confirm.train_on != "train":
            stages["confirm"] += len(spec.arms) * confirm.seeds
        examples["confirm"] = replace(trials[0], stage="confirm")
        final = [
            make_trial(
                spec,
                stage="confirm",
                variant=name,
                overrides=overrides,
                params={},
                seed=CONFIRM_SEED,
                part=confirm.train_on,
                device_kind=device_kind,
            )
            for name, overrides in spec.baselines.items()
        ]
        if confirm.train_on != "train":
            final += [
                make_trial(spec, stage="confirm", variant=trial.variants[0], overrides=spec.arms[trial.variants[0]],
                           params=trial.overrides, seed=CONFIRM_SEED, part=confirm.train_on,
                           device_kind=device_kind)
                for trial in trials
            ]  # fmt: skip
        trials = trials + final
    return Plan(stages, _teachers(trials), open_ended, examples)


def _samples(spec: Spec, arm: str, device_kind: str) -> list[Trial]:
    """Trials of an arm at representative values of what makes a teacher, for counting teachers."""
    space = spec.space_of(spec.arms[arm])
    order = in_dependency_order(space)
    choices = [
        space[path].representatives() if path.startswith(("teacher.", "dataset.")) or _steers(path)
        else space[path].representatives()[:1]
        for path in order
    ]  # fmt: skip
    found: dict[str, Trial] = {}
    for values in itertools.islice(itertools.product(*choices), 2_000):
        params: dict[str, Any] = {}
        for path, value in zip(order, values, strict=True):
            if space[path].holds({**spec.flat_config(spec.arms[arm]), **params}):
                params[path] = value
        trial = make_trial(
            spec,
            stage="search",
            variant=arm,
            overrides=spec.arms[arm],
            params=params,
            seed=int(spec.flat_config(spec.arms[arm])["seed"]),
            arm=arm,
            device_kind=device_kind,
        )
        found.setdefault(trial.trial_id, trial)
    return list(found.values())


def _steers(path: str) -> bool:
    return path in ("distillation.method", "recipe")


def _teachers(trials: Sequence[Trial]) -> dict[str, tuple[Mapping[str, Any], Trial]]:
    found: dict[str, tuple[Mapping[str, Any], Trial]] = {}
    for trial in trials:
        named = teacher_identity(trial.config, trial.part, trial.threads, trial.processes)
        if named is not None and not trial.config["teacher"].get("checkpoint"):
            found.setdefault(named[0], (named[1], trial))
    return found
