"""A checked search-space file: plain data, and how its parts become a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from wsl_sweep.spec.distributions import Distribution
from wsl_sweep.spec.pretrained import with_weights
from wsl_sweep.spec.reads import is_split, keeps_outputs, possible_reads, reads
from wsl_sweep.spec.recipes import DEFAULTS, RECIPES, method_defaults
from wsl_sweep.spec.run import nest
from wsl_sweep.spec.sections import (
    BankSection,
    BudgetSection,
    CompareSection,
    ConfirmSection,
    Mode,
    ResourcesSection,
    SchedulerSection,
    SearchSection,
    TrackingSection,
    natural_mode,
)


def settle_precision(precision: str, device_kind: str) -> str:
    """What ``auto`` means where it was not measured: float32 on a CPU, bfloat16 on a GPU; others as they are."""
    if precision != "auto":
        return precision
    return "bfloat16" if device_kind == "cuda" else "float32"


@dataclass(frozen=True)
class Spec:
    """What a file and its command line ask for.

    Attributes:
        name: of the sweep.
        description: the question that it answers.
        text: the file as it was.
        recipe: name of the recipe, or None; arms, variants, the space and pins may name another.
        given: what ``run`` itself sets, flat, without the recipe.
        pins: of ``--set``; they win over everything.
        space: swept path → distribution, without the pinned ones.
        search, confirm: their sections, or None.
        arms, baselines, variants: name → overrides by dotted path.
        seeds: of an ablation.
        compare, scheduler, resources, budget, tracking, bank, keep: their sections, defaults filled in.
        notes: what the user should be told before it starts.
        precisions: student's model → what ``precision: auto`` was measured to be best at.
    """

    name: str
    description: str
    text: str
    recipe: str | None
    given: Mapping[str, Any]
    pins: Mapping[str, Any]
    space: Mapping[str, Distribution]
    search: SearchSection | None
    confirm: ConfirmSection | None
    arms: Mapping[str, Mapping[str, Any]]
    baselines: Mapping[str, Mapping[str, Any]]
    variants: Mapping[str, Mapping[str, Any]]
    seeds: tuple[int, ...]
    compare: CompareSection = field(default_factory=CompareSection)
    scheduler: SchedulerSection = field(default_factory=SchedulerSection)
    resources: ResourcesSection = field(default_factory=ResourcesSection)
    budget: BudgetSection = field(default_factory=BudgetSection)
    tracking: TrackingSection = field(default_factory=TrackingSection)
    bank: BankSection = field(default_factory=BankSection)
    keep: str = "best"
    notes: tuple[str, ...] = ()
    precisions: Mapping[str, str] = field(default_factory=dict)

    @property
    def metrics(self) -> tuple[str, ...]:
        """What is searched for; an ablation's best trial is told by validation accuracy."""
        metric = self.search.metric if self.search else "validation/accuracy"
        return (metric,) if isinstance(metric, str) else tuple(metric)

    @property
    def modes(self) -> tuple[Mode, ...]:
        """max or min, for each metric."""
        mode = self.search.mode if self.search else None
        if mode is None:
            return tuple(natural_mode(metric) for metric in self.metrics)
        return (mode,) * len(self.metrics) if isinstance(mode, str) else tuple(mode)

    def datasets(self, owners: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """The names of the data sets of some arms, variants or baselines, under any values of the space."""
        swept = self.space.get("dataset.name")
        if swept is not None:
            return [str(name) for name in swept.representatives()]
        recipes = (
            [{"recipe": name} for name in self.space["recipe"].representatives()] if "recipe" in self.space else [{}]
        )
        flats = [self.written(own, recipe) for own in list(owners.values()) or [{}] for recipe in recipes]
        return list(dict.fromkeys(str(flat["dataset.name"]) for flat in flats if "dataset.name" in flat))

    @property
    def threads(self) -> int:
        """Torch's threads of a trial's process: the whole part of its CPUs, at least 1."""
        return max(1, int(self.resources.cpu))

    @property
    def workers(self) -> int:
        """Processes of a trial that bring data which do not lie in memory: ``resources.workers``, else its CPUs."""
        return self.threads if self.resources.workers is None else self.resources.workers

    @property
    def processes(self) -> int:
        """That train a trial together: as many as are said, else one for each whole GPU."""
        said, gpu = self.resources.processes, self.resources.gpu or 0.0
        if said is not None:
            return said
        return int(gpu) if gpu >= 2 and float(gpu).is_integer() else 1

    def written(self, overrides: Mapping[str, Any], params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Flat: defaults < recipe < run < overrides of an arm or variant < params of the space < pins.

        Without the defaults that belong to a method.
        """
        over = {**overrides, **(params or {}), **self.pins}
        recipe = over.get("recipe", self.recipe)
        flat = {**DEFAULTS, **(RECIPES[recipe].values if recipe in RECIPES else {}), **self.given, **over}
        return flat if recipe is None else {**flat, "recipe": recipe}

    def flat_config(self, overrides: Mapping[str, Any], params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """As ``written``, complete: with the defaults of its method."""
        flat = self.written(overrides, params)
        for leaf, value in method_defaults(flat).items():
            flat.setdefault(f"distillation.{leaf}", value)
        return flat

    def config(
        self,
        overrides: Mapping[str, Any],
        params: Mapping[str, Any] | None = None,
        *,
        seed: int | None = None,
        device_kind: str = "cpu",
    ) -> dict[str, Any]:
        """The resolved configuration, nested, as far as a training reads it; ``precision: auto`` is settled.

        Args:
            overrides: of an arm, a variant or a baseline.
            params: values of swept paths.
            seed: in place of ``run.seed``.
            device_kind: ``cpu`` or ``cuda``.
        """
        flat = self.flat_config(overrides, params)
        if seed is not None:
            flat["seed"] = seed
        if is_split(flat):
            flat.setdefault("dataset.split", int(flat["seed"]) % int(flat["dataset.splits"]))
        flat["precision"] = (
            self.precisions.get(str(flat.get("student.model")), settle_precision("auto", device_kind))
            if self.asks_for_auto(overrides, params, device_kind)
            else settle_precision(flat["precision"], device_kind)
        )
        read = reads(flat)
        config = nest({path: flat[path] for path in sorted(read - {"recipe"}) if path in flat})
        if "teacher" in config:
            config["teacher"] = with_weights(config["teacher"])
        if keeps_outputs(flat):  # how outputs are kept makes the result, so it is part of it
            if self.bank.precision != "float32":
                config["teacher"]["stored_precision"] = self.bank.precision
            if self.bank.top_k is not None:
                config["teacher"]["stored_top_k"] = self.bank.top_k
        return config

    def asks_for_auto(self, overrides: Mapping[str, Any], params: Mapping[str, Any] | None, device_kind: str) -> bool:
        """Whether the precision is to be measured: ``auto`` on a GPU; on a CPU only where somebody has written it."""
        flat = self.written(overrides, params)
        if flat["precision"] != "auto":
            return False
        said = {**self.given, **overrides, **(params or {}), **self.pins}
        return device_kind == "cuda" or "precision" in said

    def read_by(self, overrides: Mapping[str, Any], params: Mapping[str, Any] | None = None) -> set[str]:
        """The paths that an arm, variant or baseline reads under some values of the space, ``params`` being set."""
        chosen = params or {}
        possible = {
            path: distribution.representatives() for path, distribution in self.space.items() if path not in chosen
        }
        return possible_reads(lambda params: self.flat_config(overrides, {**chosen, **params}), possible)

    def values_of(self, path: str) -> set[Any]:
        """The values that a path may have in a trial; of a range some of them."""
        owners = [*self.arms.values(), *self.variants.values(), *self.baselines.values()] or [{}]
        swept = self.space[path].representatives() if path in self.space else ()
        return {self.flat_config(overrides).get(path) for overrides in owners}.union(swept)

    def most_epochs(self) -> int:
        """The longest training of the search, in epochs."""
        swept = self.space.get("schedule.epochs")
        if swept is not None:
            return int(max(swept.representatives()))
        recipes = [{"recipe": name} for name in self.space["recipe"].values] if "recipe" in self.space else [{}]
        owners = list(self.arms.values()) or [{}]
        return max(int(self.flat_config(o, recipe)["schedule.epochs"]) for o in owners for recipe in recipes)

    def space_of(self, overrides: Mapping[str, Any]) -> dict[str, Distribution]:
        """The space less what an arm or variant does not read."""
        read = self.read_by(overrides)
        return {path: distribution for path, distribution in self.space.items() if path in read}
