"""What a sweep will ask of its teachers' logit banks, and the banks of this machine."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from wsl_sweep.errors import WslSweepError
from wsl_sweep.image_listing import list_pictures
from wsl_sweep.spec.catalogue import METHODS
from wsl_sweep.spec.datasets import data_set
from wsl_sweep.spec.largest import kept_temperatures
from wsl_sweep.spec.spec import Spec, settle_precision
from wsl_sweep.spec.world import ASKED, World, assignments

MANY_CLASSES = 2**16
"""Taken where it is not known how many there are: a row of the largest logits is as long."""

AT_EVERY_STEP = "the teacher runs at every step"


def bank_settings(spec: Spec, world: World, use: bool = True) -> dict[str, Any]:
    """The fields of ``training.BankSettings`` for a sweep.

    Args:
        spec: what is asked for; where it does not say whether features are kept, they are if a method reads them.
        world: which methods do.
        use: False for ``--no-bank``.

    With ``top_k`` also every temperature that the file names.
    """
    section = spec.bank
    wanted = bool(_readers(spec, world)["features"]) if section.features is None else section.features
    settings = {"use": section.use and use, "features": wanted, "limit_gb": section.limit_gb}
    return settings if section.top_k is None else {**settings, "temperatures": list(kept_temperatures(spec))}


def bank_notes(spec: Spec, world: World, use: bool = True) -> list[str]:
    """What a user should know of the bank before a sweep starts: who cannot use it, and why."""
    readers = _readers(spec, world)
    if not any(readers.values()):
        return []
    notes = _approximation_notes(spec) if readers["features"] or readers["logits"] else []
    if not (spec.bank.use and use):
        return [*notes, f"the logit bank is off: {AT_EVERY_STEP}"]
    if readers["by batch"]:
        notes.append(
            f"teacher.mode train makes a teacher's outputs depend on the whole batch, so the logit bank cannot keep "
            f"them: {AT_EVERY_STEP} of {', '.join(readers['by batch'])}"
        )
    if readers["endless"]:
        notes.append(
            f"dataset.views epoch shows new views in every epoch, which the logit bank has no use for: {AT_EVERY_STEP} "
            f"of {', '.join(readers['endless'])}"
            + ("" if spec.bank.top_k is None else ", which reads all its logits whatever bank.top_k is")
        )
    if readers["features"]:
        named = ", ".join(readers["features"])
        if spec.bank.features is False:
            notes.append(f"bank.features is false, and {named} read the teacher's features: {AT_EVERY_STEP} of these")
        else:
            notes.append(f"the logit bank keeps the teacher's features too, which {named} read")
    return notes


def _approximation_notes(spec: Spec) -> list[str]:
    """What ``bank.top_k`` changes, and what it saves."""
    top_k = spec.bank.top_k
    if top_k is None:
        return []
    from wsl_sweep.training.bank import Layout

    temperatures, notes = kept_temperatures(spec), []
    counts = dict.fromkeys(
        _classes(spec.flat_config(overrides, params)) for _, overrides, params in assignments(spec, ASKED)
    )
    for classes in counts:
        if classes is not None and top_k >= classes - 1:
            notes.append(f"bank.top_k {top_k} leaves nothing out of {classes} classes: all their logits are kept")
            continue
        small = Layout(classes or MANY_CLASSES, 0, spec.bank.precision, top_k, temperatures)
        room = f"a row takes {4 * small.words:,} bytes"
        if classes is not None:
            dense = Layout(classes, 0, spec.bank.precision)
            room += f" in place of {4 * dense.words:,} for {classes:,} classes"
        notes.append(
            f"bank.top_k {top_k} is an approximation: of a teacher's logits a student reads the {top_k} largest and "
            f"the label's, and the other classes share evenly what probability is left them at τ "
            f"{', '.join(f'{one:g}' for one in temperatures)}; {room}"
        )
    return notes


def _classes(flat: Mapping[str, Any]) -> int | None:
    """How many classes a data set has, as far as it is known without reading it."""
    name = str(flat.get("dataset.name"))
    if name == "image_folder" and flat.get("dataset.root"):
        try:
            return len(list_pictures(str(flat["dataset.root"])).classes)
        except WslSweepError:  # told where the data are prepared
            return None
    return data_set(name).classes


def _readers(spec: Spec, world: World) -> dict[str, list[str]]:
    """Names of arms, variants and baselines by how they use their teacher: logits, features, batch by batch, or in
    views without end.
    """
    found: dict[str, dict[str, None]] = {"logits": {}, "features": {}, "by batch": {}, "endless": {}}
    for owner, overrides, params in assignments(spec, (*ASKED, "teacher.mode", "dataset.views")):
        flat = spec.flat_config(overrides, params)
        method = str(flat["distillation.method"])
        if method == "none" or (method not in METHODS and world.method_problem(method, flat) is not None):
            continue
        name = owner[1] if owner else method
        if flat.get("teacher.mode") == "train":
            found["by batch"][name] = None
        elif flat.get("dataset.views") == "epoch":
            found["endless"][name] = None
        elif world.needs_features(method):
            found["features"][name] = None
        else:
            found["logits"][name] = None
    return {use: list(names) for use, names in found.items()}


def banks() -> list[dict[str, Any]]:
    """The logit banks of this machine as plain data, the one used last first."""
    from wsl_sweep.training.bank import list_banks

    return [entry.to_json() for entry in list_banks()]


def prune(keys: Sequence[str], everything: bool, unused_days: float | None) -> tuple[int, int, list[str]]:
    """Deletes banks; returns how many, the bytes that this frees, and the keys of those that are in use.

    Raises WslSweepError: nothing says which ones, or there is none of a name.
    """
    from wsl_sweep.training.bank import list_banks, prune_banks

    if not keys and not everything and unused_days is None:
        raise WslSweepError("say which: keys of wsl-sweep bank list, --unused-days N, or --all")
    if keys and everything:
        raise WslSweepError("either keys or --all")
    known = [entry.key for entry in list_banks()]
    for key in keys:
        if not key or not any(one.startswith(key) for one in known):
            raise WslSweepError(f'there is no bank "{key}"; see wsl-sweep bank list')
    return prune_banks(set(keys) or None, unused_days or 0.0)


def auto_precision(spec: Spec, device_kind: str) -> dict[str, Mapping[str, Any]]:
    """Student's model → a resolved configuration to measure ``precision: auto`` with, of those that ask for it."""
    asked: dict[str, Mapping[str, Any]] = {}
    paths = (*ASKED, "precision", "schedule.batch_size")
    for _, overrides, params in assignments(spec, paths):
        if spec.asks_for_auto(overrides, params, device_kind):
            config = spec.config(overrides, params, device_kind=device_kind)
            asked.setdefault(config["student"]["model"], config)
    return asked


def precision_notes(measured: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What ``precision: auto`` came to, in words."""
    notes = []
    for model, found in measured.items():
        if "error" in found:
            notes.append(f"precision auto: {found['chosen']} for {model}, unmeasured ({found['error']})")
        else:
            steps = f"{1e3 * found['float32']:.3g} ms in float32, {1e3 * found['bfloat16']:.3g} ms in bfloat16"
            notes.append(f"precision auto: {found['chosen']} for {model} (a step takes {steps})")
    return notes


def measure_here(
    asked: Mapping[str, Mapping[str, Any]], threads: int, gpu: float, folders: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Measures on this machine, in a process of its own: the driver takes no GPU's memory and keeps its threads.

    Student's model → seconds of a step and what is ``chosen``, or ``error`` and what ``auto`` means unmeasured.
    """
    found: dict[str, dict[str, Any]] = {}
    for model, config in asked.items():
        request = {"config": config, "threads": threads, "gpu": gpu, "folders": list(folders)}
        done = subprocess.run(
            [sys.executable, "-m", "wsl_sweep.training.precision"],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            check=False,
        )
        try:
            found[model] = json.loads(done.stdout.splitlines()[-1])
        except (ValueError, IndexError):
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            error = lines[-1].strip()[:200] if lines else f"its process ended with {done.returncode}"
            found[model] = {"chosen": settle_precision("auto", "cuda" if gpu > 0 else "cpu"), "error": error}
    return found
