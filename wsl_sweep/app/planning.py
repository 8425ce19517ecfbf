"""What would run, and how long it may take, from what this machine has measured."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsl_sweep.analysis.comparison import Compared
from wsl_sweep.analysis.power import seeds_for, smallest_difference
from wsl_sweep.analysis.statistics import ALPHA
from wsl_sweep.analysis.verdicts import number
from wsl_sweep.app.options import RunOptions, settle_resources, storage_folder
from wsl_sweep.app.pretrained import pretrained_notes
from wsl_sweep.app.reuse import reuse_notes
from wsl_sweep.app.teaching import bank_notes
from wsl_sweep.app.world import LocalWorld, import_folders
from wsl_sweep.image_listing import unchanging
from wsl_sweep.paths import cache_folder
from wsl_sweep.spec.identity import data_identity, of_any_split, short_hash
from wsl_sweep.spec.loading import CommandLine, load_spec
from wsl_sweep.spec.plan import Plan, ablation_cells, make_plan
from wsl_sweep.spec.spec import Spec
from wsl_sweep.sweep.ledger import Ledger, fold
from wsl_sweep.sweep.nodes import versions_of

LIBRARIES = ("wsl-sweep", "torch", "torchvision", "ray", "optuna", "mlflow", "numpy", "scikit-learn")

STARTUP_SECONDS = 15.0
"""Ray, its workers and the end of a sweep, beside the trials."""


def versions() -> dict[str, str]:
    """Versions of what a sweep rests on."""
    return versions_of(LIBRARIES)


def _times_file() -> Path:
    return cache_folder() / "times.json"


def _spreads_file() -> Path:
    return cache_folder() / "spreads.json"


def _time_key(config: Mapping[str, Any], threads: int, processes: int = 1) -> str:
    """Trials that take equally long an epoch: same data, models, method, batch, precision, threads and processes."""
    parts = {
        "dataset": data_identity(of_any_split(config["dataset"])),
        "student": config["student"]["model"],
        "teacher": config.get("teacher", {}).get("model"),
        "method": config["distillation"]["method"],
        "batch": config["schedule"]["batch_size"],
        "precision": config["precision"],
        "threads": threads,
        **({"processes": processes} if processes > 1 else {}),
    }
    return short_hash(parts)


def known_times() -> dict[str, float]:
    """Seconds an epoch, by kind of trial, as measured on this machine before."""
    return _known_numbers(_times_file())


def _known_numbers(file: Path) -> dict[str, float]:
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    known = found.items() if isinstance(found, dict) else ()
    return {key: float(value) for key, value in known if isinstance(value, int | float)}


def remember_times(summary: Mapping[str, Any], threads: int, processes: int = 1) -> None:
    """Keeps the median seconds an epoch of each kind of trial of this sweep.

    Its trials had ``processes`` processes of ``threads`` threads.
    """
    from wsl_sweep.files import write_json

    measured: dict[str, list[float]] = {}
    for trial in summary["trials"]:
        if trial["seconds"] and trial["status"] == "finished" and trial["epochs"]:
            key = _time_key(trial["config"], threads, processes)
            measured.setdefault(key, []).append(trial["seconds"] / trial["epochs"])
    write_json(_times_file(), known_times() | {key: statistics.median(times) for key, times in measured.items()})


def _spread_key(config: Mapping[str, Any], metric: str) -> str:
    """Trials whose differences between variants scatter alike over seeds."""
    parts = {
        "dataset": data_identity(of_any_split(config["dataset"])),
        "student": config["student"]["model"],
        "epochs": config["schedule"]["epochs"],
        "metric": metric,
    }
    return short_hash(parts)


def remember_spread(spec: Spec, compared: Compared | None) -> None:
    """Keeps how far paired differences of a finished sweep scattered over seeds, for the next plan of its kind."""
    from wsl_sweep.files import write_json

    if compared is None:
        return
    found = [one.difference for one in compared.comparisons if one.difference is not None]
    spreads = [one.sd for one in found if one.method == "paired" and one.sd > 0]
    if spreads:
        key = _spread_key(spec.config({}), compared.metric)
        write_json(_spreads_file(), _known_numbers(_spreads_file()) | {key: statistics.median(spreads)})


@dataclass(frozen=True)
class Outlook:
    """What would run, for ``plan``.

    Attributes:
        spec: what is asked for.
        plan: its trials and teachers.
        teachers_there: id → whether it is in the store.
        done: trials of the unfinished sweep of this name that have their last word, or None.
        seconds: estimate for all trials, or None where nothing like them ran on this machine.
        slots: trials at once that the estimate supposes.
        bank: what to know of pretrained teachers and the logit bank.
        reuse: what other sweeps of the storage have finished already.
        shows: the smallest difference that the comparison can show, in words.
    """

    spec: Spec
    plan: Plan
    teachers_there: Mapping[str, bool]
    done: int | None
    seconds: float | None
    slots: int
    bank: tuple[str, ...] = ()
    reuse: tuple[str, ...] = ()
    shows: str = ""


def teachers_there(plan: Plan) -> dict[str, bool]:
    """Whether each teacher of a plan lies in the cache; that it is whole is looked at when it is used."""
    teachers = cache_folder() / "teachers"
    return {teacher: (teachers / teacher / "card.json").is_file() for teacher in plan.teachers}


@unchanging()
def outlook(path: Path, command_line: CommandLine = CommandLine(), options: RunOptions = RunOptions()) -> Outlook:
    """What ``run`` would do; nothing is started. torch is imported only where something has to be tried or compared."""
    world = LocalWorld(import_folders(path))
    spec = load_spec(path, command_line, world)
    about_bank = (*pretrained_notes(spec), *bank_notes(spec, world, options.bank))
    gpu, device_kind = settle_resources(spec, options.address)
    plan = make_plan(spec, device_kind)
    there = teachers_there(plan)
    folder = storage_folder(options.storage) / spec.name
    reuse = () if options.rerun else tuple(reuse_notes(spec, storage_folder(options.storage), device_kind))
    done = None
    if (folder / "plan.json").exists():
        state = fold(Ledger(folder / "ledger").events())
        if state.status != "finished":
            done = sum(trial.settled for trial in state.trials.values())
    slots = max(1, int((os.cpu_count() or 1) / (spec.resources.cpu * spec.processes))) if gpu == 0 else 1
    slots = min(slots, spec.resources.concurrent or slots)
    shows = smallest_shown(spec)
    times, seconds = known_times(), 0.0
    for stage, count in plan.stages.items():
        example = plan.examples.get(stage)
        each = times.get(_time_key(example.config, example.threads, example.processes)) if example else None
        if each is None or example is None:
            return Outlook(spec, plan, there, done, None, slots, about_bank, reuse, shows)
        seconds += each * example.epochs * count / slots
    return Outlook(spec, plan, there, done, STARTUP_SECONDS + seconds, slots, about_bank, reuse, shows)


def smallest_shown(spec: Spec) -> str:
    """What the comparison that a file declares can show, before it is run: in standard deviations of the paired
    differences and, where sweeps of this kind ended on this machine before, in the metric's own unit.
    """
    compare, pairs = spec.compare, _pairs(spec)
    seeds = spec.confirm.seeds if spec.confirm is not None else len(spec.seeds)
    if compare.baseline is None:
        return "nothing will be compared: compare.baseline names nobody"
    if not pairs or (spec.search is not None and spec.confirm is None):
        return "nothing will be compared: there is nothing beside the baseline in the final table"
    alpha = ALPHA / pairs
    effect = smallest_difference(seeds, alpha)
    if effect is None:
        return "one seed: no interval and no verdict will follow"
    margin = number(compare.margin, compare.metric)
    family = f", Holm over {pairs}" if pairs > 1 else ""
    said = f"{seeds} paired seeds show a difference of {effect:.3g} standard deviations (80 % power{family})"
    spread = _known_numbers(_spreads_file()).get(_spread_key(spec.config({}), compare.metric))
    if spread is None:
        limit = number(compare.margin / effect, compare.metric)
        return f"{said}: the margin of {margin} if differences over seeds scatter by no more than {limit}"
    shown = number(effect * spread, compare.metric)
    said += (
        f": {shown} {compare.metric}, as differences scattered by {number(spread, compare.metric)} in a sweep like it"
    )
    if effect * spread <= compare.margin:
        return f"{said}; the margin is {margin}"
    needed = seeds_for(compare.margin / spread, alpha)
    wanted = f"about {needed} seeds" if needed is not None else "more seeds than anybody has"
    return f"{said}; for the margin of {margin} it takes {wanted}"


def _pairs(spec: Spec) -> int:
    """How many comparisons with the baseline the final table will hold, at most."""
    family, baseline = spec.compare.family, spec.compare.baseline
    if spec.search is None:
        names = [cell.variant for cell in ablation_cells(spec)]
    else:
        names = [*spec.arms, *(f"{name} (untuned)" if name in spec.arms else name for name in spec.baselines)]
    return sum(name != baseline and (family is None or name in family) for name in names)
