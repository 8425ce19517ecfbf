"""One arm's search: Optuna by ask and tell, with the ledger as its memory."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import optuna
from optuna.storages.journal import BaseJournalBackend
from optuna.trial import TrialState as OptunaState

from wsl_sweep.spec.distributions import Distribution, tidy
from wsl_sweep.spec.plan import Trial, grid_points, in_dependency_order, make_trial, search_trials
from wsl_sweep.spec.reads import STEERING
from wsl_sweep.spec.spec import Spec
from wsl_sweep.sweep.ledger import TrialState

MAX_REPEATS = 200
"""Proposals in a row that are known already before a space counts as exhausted."""


def build_sampler(name: str, seed: int, trials: int) -> optuna.samplers.BaseSampler:
    """Optuna's sampler of a name, every argument that matters given explicitly.

    Args:
        name: tpe, random, grid, cmaes, gp or nsga2 (grid: the points are handed in, none is sampled).
        seed: of its own random state.
        trials: how many the arm has; TPE spends a third of them at random, ten at the most.
    """
    startup = max(3, min(10, trials // 3))
    match name:
        case "tpe":
            return optuna.samplers.TPESampler(
                seed=seed, n_startup_trials=startup, multivariate=True, group=True, constant_liar=True
            )
        case "cmaes":
            return optuna.samplers.CmaEsSampler(seed=seed, n_startup_trials=1)
        case "gp":
            return optuna.samplers.GPSampler(seed=seed, n_startup_trials=startup, deterministic_objective=False)
        case "nsga2":
            return optuna.samplers.NSGAIISampler(seed=seed, population_size=max(4, min(50, trials // 4)))
        case _:
            return optuna.samplers.RandomSampler(seed=seed)


class ArmStudy:
    """The study of one arm, in memory only; told again from the ledger at every start.

    Args:
        spec: the sweep.
        arm: the arm's name.
        device_kind: ``cpu`` or ``cuda``.
        told: the arm's trials in the ledger, in their order.
    """

    def __init__(self, spec: Spec, arm: str, device_kind: str, told: Sequence[TrialState]) -> None:
        assert spec.search is not None
        self.spec, self.arm, self.device_kind = spec, arm, device_kind
        self.overrides = spec.arms[arm]
        self.space = spec.space_of(self.overrides)
        # What decides whether other leaves are read is asked for first, so that only what is read is asked for.
        steering_first = sorted(self.space, key=lambda path: path not in STEERING)
        self.order = in_dependency_order({path: self.space[path] for path in steering_first})
        self.wanted = search_trials(spec, self.overrides)
        self.seed = int(spec.flat_config(self.overrides)["seed"])
        self.exhausted = False
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sampler = build_sampler(spec.search.sampler, spec.search.seed + len(told), self.wanted)
            self.study = optuna.create_study(
                directions=["maximize" if mode == "max" else "minimize" for mode in spec.modes],
                sampler=sampler,
            )
        self._asked: dict[str, list[optuna.Trial]] = {}
        self.known: dict[str, TrialState | None] = {}
        for state in told:
            self._tell_again(state)
        self._points = iter(grid_points(spec, self.overrides) if spec.search.sampler == "grid" else ())

    @property
    def proposed(self) -> int:
        """Different trials proposed so far."""
        return len(self.known)

    def propose(self) -> Trial | None:
        """The next trial that is not known yet; None where the arm has all its trials, or no new one is left."""
        for _ in range(MAX_REPEATS):
            if self.proposed >= self.wanted or self.exhausted:
                return None
            if self.spec.search is not None and self.spec.search.sampler == "grid":
                point = next((p for p in self._points if self._trial(p).trial_id not in self.known), None)
                if point is None:
                    break
                self.study.enqueue_trial(self._encoded(point))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                asked = self.study.ask()
                params = self._suggest(asked)
            trial = self._trial(params)
            if trial.trial_id not in self.known:
                self.known[trial.trial_id] = None
                self._asked[trial.trial_id] = [asked]
                return trial
            self._repeat(asked, trial.trial_id)
        self.exhausted = True
        return None

    def tell(self, state: TrialState) -> None:
        """Tells Optuna the last word of a trial: COMPLETE, PRUNED or FAIL, whichever is true. Never raises."""
        self.known[state.trial.trial_id] = state
        for asked in self._asked.pop(state.trial.trial_id, []):
            self._tell(asked, state)

    def reopen(self, state: TrialState) -> None:
        """An unfinished trial of the ledger is asked for again, as it was."""
        self.known[state.trial.trial_id] = None
        self.study.enqueue_trial(self._encoded(state.trial.overrides))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            asked = self.study.ask()
            self._suggest(asked)
        self._asked[state.trial.trial_id] = [asked]

    # -----------------------------------------------------------------------------------------------------------

    def _trial(self, params: Mapping[str, Any]) -> Trial:
        return make_trial(
            self.spec,
            stage="search",
            variant=self.arm,
            overrides=self.overrides,
            params=params,
            seed=self.seed,
            arm=self.arm,
            device_kind=self.device_kind,
        )

    def _suggest(self, asked: optuna.Trial) -> dict[str, Any]:
        params: dict[str, Any] = {}
        for path in self.order:
            distribution = self.space[path]
            flat = self.spec.flat_config(self.overrides, params)
            if distribution.holds(flat) and path in self.spec.read_by(self.overrides, params):
                params[path] = _suggest_one(asked, path, distribution)
        return params

    def _encoded(self, params: Mapping[str, Any]) -> dict[str, Any]:
        return {
            path: _encode(value) if self.space[path].kind in ("choice", "grid") else value
            for path, value in params.items()
            if path in self.space
        }

    def _repeat(self, asked: optuna.Trial, trial_id: str) -> None:
        """A proposal that is known already hears what is known, now or when it is."""
        state = self.known[trial_id]
        if state is not None:
            self._tell(asked, state)
        elif trial_id in self._asked:
            self._asked[trial_id].append(asked)

    def _values(self, state: TrialState) -> list[float] | None:
        values = [state.metrics.get(metric, math.nan) for metric in self.spec.metrics]
        return values if all(map(math.isfinite, values)) else None

    def _tell(self, asked: optuna.Trial, state: TrialState) -> None:
        values = self._values(state)
        if state.status == "finished" and values is not None:
            self.study.tell(asked, values)
        elif state.status == "pruned":
            if values is not None and len(values) == 1:
                asked.report(values[0], state.epochs)
            self.study.tell(asked, state=OptunaState.PRUNED)
        else:
            self.study.tell(asked, state=OptunaState.FAIL)

    def _tell_again(self, state: TrialState) -> None:
        if not state.settled:
            self.reopen(state)
            return
        self.known[state.trial.trial_id] = state
        params = {path: value for path, value in state.trial.overrides.items() if path in self.space}
        values = self._values(state)
        kind = {"finished": OptunaState.COMPLETE, "pruned": OptunaState.PRUNED}.get(state.status, OptunaState.FAIL)
        if kind == OptunaState.COMPLETE and values is None:
            kind = OptunaState.FAIL
        steps = {state.epochs: values[0]} if kind == OptunaState.PRUNED and values else None
        self.study.add_trial(
            optuna.trial.create_trial(
                state=kind,
                params=self._encoded(params),
                distributions={path: _optuna_distribution(self.space[path]) for path in params},
                values=values if kind == OptunaState.COMPLETE else None,
                intermediate_values=steps,
            )
        )


def export_studies(spec: Spec, states: Sequence[TrialState]) -> str:
    """A copy of each arm's study as the content of a file of Optuna's journal, which optuna-dashboard shows."""
    lines = _Lines()
    storage = optuna.storages.JournalStorage(lines)
    for arm in spec.arms:
        told = [one for one in states if one.trial.arm == arm and one.trial.stage == "search" and one.settled]
        own = ArmStudy(spec, arm, "cpu", told).study
        copy = optuna.create_study(study_name=f"{spec.name}: {arm}", storage=storage, directions=own.directions)
        copy.add_trials(own.get_trials(deepcopy=False))
    return "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in lines.logs)


class _Lines(BaseJournalBackend):
    """A journal in memory: a file of it is written through to the disk at every line."""

    def __init__(self) -> None:
        self.logs: list[dict[str, Any]] = []

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Those from a number on."""
        return iter(self.logs[log_number_from:])

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Adds some."""
        self.logs += logs


def _encode(value: Any) -> Any:
    """Optuna's categories are scalars; a list stands as its JSON."""
    return json.dumps(value) if isinstance(value, list | dict) else value


def _optuna_distribution(distribution: Distribution) -> optuna.distributions.BaseDistribution:
    low, high = distribution.low, distribution.high
    match distribution.kind:
        case "uniform":
            return optuna.distributions.FloatDistribution(low, high)
        case "loguniform":
            return optuna.distributions.FloatDistribution(low, high, log=True)
        case "quniform":
            step = distribution.step or 1.0
            return optuna.distributions.FloatDistribution(low, low + distribution.steps() * step, step=step)
        case "int":
            return optuna.distributions.IntDistribution(int(low), int(high))
        case "logint":
            return optuna.distributions.IntDistribution(int(low), int(high), log=True)
        case _:
            return optuna.distributions.CategoricalDistribution([_encode(value) for value in distribution.values])


def _suggest_one(asked: optuna.Trial, path: str, distribution: Distribution) -> Any:
    made = _optuna_distribution(distribution)
    if isinstance(made, optuna.distributions.CategoricalDistribution):
        chosen = asked.suggest_categorical(path, made.choices)
        return next(
            value
            for value in distribution.values
            if _encode(value) == chosen and isinstance(_encode(value), type(chosen))
        )
    if isinstance(made, optuna.distributions.IntDistribution):
        return asked.suggest_int(path, made.low, made.high, log=made.log)
    assert isinstance(made, optuna.distributions.FloatDistribution)
    value = asked.suggest_float(path, made.low, made.high, step=made.step, log=made.log)
    return value if made.step is None else tidy(value)
