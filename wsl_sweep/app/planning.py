"""What would run, and how long it may take, from what this machine has measured."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsl_sweep.app.options import RunOptions, settle_resources, storage_folder
from wsl_sweep.app.reuse import reuse_notes
from wsl_sweep.app.teaching import bank_notes
from wsl_sweep.app.world import LocalWorld, import_folders
from wsl_sweep.image_listing import unchanging
from wsl_sweep.paths import cache_folder
from wsl_sweep.spec.identity import data_identity, short_hash
from wsl_sweep.spec.loading import CommandLine, load_spec
from wsl_sweep.spec.plan import Plan, make_plan
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


def _time_key(config: Mapping[str, Any], threads: int) -> str:
    """Trials that take equally long an epoch: same data, models, method, batch, precision and threads."""
    parts = {
        "dataset": data_identity(config["dataset"]),
        "student": config["student"]["model"],
        "teacher": config.get("teacher", {}).get("model"),
        "method": config["distillation"]["method"],
        "batch": config["schedule"]["batch_size"],
        "precision": config["precision"],
        "threads": threads,
    }
    return short_hash(parts)


def known_times() -> dict[str, float]:
    """Seconds an epoch, by kind of trial, as measured on this machine before."""
    try:
        times = json.loads(_times_file().read_text())
    except (OSError, ValueError):
        return {}
    known = times.items() if isinstance(times, dict) else ()
    return {key: float(value) for key, value in known if isinstance(value, int | float)}


def remember_times(summary: Mapping[str, Any], threads: int) -> None:
    """Keeps the median seconds an epoch of each kind of trial of this sweep, whose trials had ``threads`` threads."""
    from wsl_sweep.files import write_json

    measured: dict[str, list[float]] = {}
    for trial in summary["trials"]:
        if trial["seconds"] and trial["status"] == "finished" and trial["epochs"]:
            measured.setdefault(_time_key(trial["config"], threads), []).append(trial["seconds"] / trial["epochs"])
    write_json(_times_file(), known_times() | {key: statistics.median(times) for key, times in measured.items()})


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
        bank: what to know of the logit bank.
        reuse: what other sweeps of the storage have finished already.
    """

    spec: Spec
    plan: Plan
    teachers_there: Mapping[str, bool]
    done: int | None
    seconds: float | None
    slots: int
    bank: tuple[str, ...] = ()
    reuse: tuple[str, ...] = ()


def teachers_there(plan: Plan) -> dict[str, bool]:
    """Whether each teacher of a plan lies in the cache; that it is whole is looked at when it is used."""
    teachers = cache_folder() / "teachers"
    return {teacher: (teachers / teacher / "card.json").is_file() for teacher in plan.teachers}


@unchanging()
def outlook(path: Path, command_line: CommandLine = CommandLine(), options: RunOptions = RunOptions()) -> Outlook:
    """What ``run`` would do; nothing is started. torch is imported only where something has to be tried or compared."""
    world = LocalWorld(import_folders(path))
    spec = load_spec(path, command_line, world)
    about_bank = tuple(bank_notes(spec, world, options.bank))
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
    slots = max(1, int((os.cpu_count() or 1) / spec.resources.cpu)) if gpu == 0 else 1
    slots = min(slots, spec.resources.concurrent or slots)
    times, seconds = known_times(), 0.0
    for stage, count in plan.stages.items():
        example = plan.examples.get(stage)
        each = times.get(_time_key(example.config, example.threads)) if example else None
        if each is None or example is None:
            return Outlook(spec, plan, there, done, None, slots, about_bank, reuse)
        seconds += each * example.epochs * count / slots
    return Outlook(spec, plan, there, done, STARTUP_SECONDS + seconds, slots, about_bank, reuse)
