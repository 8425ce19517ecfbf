"""Made-up trials, rows and whole sweeps, to compare."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from tests.sweep.fakes import spec_of
from wsl_sweep.analysis import Row, SweepRecords, describe, records_of
from wsl_sweep.analysis.records import Record, kept_outcomes
from wsl_sweep.spec import Spec
from wsl_sweep.spec.distributions import Distribution
from wsl_sweep.spec.loading import CommandLine
from wsl_sweep.spec.plan import Trial
from wsl_sweep.spec.sections import CompareSection
from wsl_sweep.storage import place
from wsl_sweep.sweep.conductor import Conductor
from wsl_sweep.sweep.ledger import Ledger, SweepState, fold
from wsl_sweep.sweep.table import Standing

ACCURACY = "test/accuracy"

Value = float | str
"""Of a seed: its test accuracy, or the status of a trial that has none."""


def row(label: str, values: Mapping[int, float] | Sequence[float], **fields: Any) -> Row:
    """A row of a table with these values by seed."""
    by_seed = dict(values) if isinstance(values, Mapping) else dict(enumerate(values))
    known: dict[str, Any] = {
        "label": label, "variant": label, "settings": {}, "sweeps": ("s",),
        "description": describe(list(by_seed.values())) if by_seed else None,
        "seeds": tuple(by_seed), "values": tuple(by_seed.values()), "missing": {}, "tuned": None, "tuning_trials": 0,
        "averaged": 1, "trial_ids": {seed: (f"{label}-{seed}",) for seed in by_seed},
    }  # fmt: skip
    return Row(**{**known, **fields})


def record(variant: str, seed: int, value: Value, *, sweep: str = "s", **fields: Any) -> Record:
    """A trial of a variant; ``settings`` are paths of its configuration, and what sets it apart."""
    settings = fields.pop("settings", {})
    params = {"seed": str(seed), "distillation.method": variant, **{path: str(one) for path, one in settings.items()}}
    params |= {path: str(one) for path, one in fields.pop("params", {}).items()}
    rest = json.dumps({path: one for path, one in params.items() if path != "seed"}, sort_keys=True)
    known: dict[str, Any] = {
        "sweep": sweep, "trial_id": f"{rest}/{seed}", "stage": "ablation", "arm": None, "variants": (variant,),
        "seed": seed, "status": value if isinstance(value, str) else "finished", "params": params,
        "overrides": settings, "metrics": {} if isinstance(value, str) else {ACCURACY: value},
    }  # fmt: skip
    return Record(**{**known, **fields})


def ablation(
    table: Mapping[str | tuple[str, float], Mapping[int, Value]], name: str = "s", **fields: Any
) -> SweepRecords:
    """A finished ablation: variant, or variant and its alpha → seed → value. Seeds that nobody ran are left out."""
    everything = sorted({seed for values in table.values() for seed in values})
    records = []
    for number, (key, values) in enumerate(table.items()):
        variant, settings = (key, {}) if isinstance(key, str) else (key[0], {"distillation.alpha": key[1]})
        standing = Standing(number, variant, settings, None, tuple(everything))
        records += [
            record(variant, seed, value, sweep=name, settings=settings, standings=(standing,))
            for seed, value in values.items()
        ]
    return sweep_of(records, name, swept=("distillation.alpha",), **fields)


def sweep_of(records: Sequence[Record], name: str = "s", **fields: Any) -> SweepRecords:
    """A finished sweep of these trials, whose baseline is ``kd``."""
    names = tuple(dict.fromkeys(variant for one in records for variant in one.variants))
    known: dict[str, Any] = {
        "name": name, "uuid": f"uuid-of-{name}", "status": "finished", "names": names,
        "compare": CompareSection(baseline="kd"),
    }  # fmt: skip
    space = {path: Distribution("choice") for path in fields.pop("swept", ())}
    return SweepRecords(**{"space": space, **known, "records": tuple(records), **fields})


# --- whole sweeps, from a file to a ledger ----------------------------------------------------------------------------

ABLATION = """
name: made-up
description: Which one?
run: {recipe: digits}
variants: {ce: {}, kd: {}, wsl: {}, plain: {distillation.method: kd, distillation.weighting.kind: none}}
seeds: 5
compare: {baseline: kd, margin: 0.02}
"""
"""``plain`` is ``kd`` under another name: their trials are one."""

GRID = """
name: grid
run: {recipe: digits}
variants: [ce, kd, wsl]
space: {distillation.temperature: {grid: [2.0, 4.0]}}
seeds: [7, 3, 4]
compare: {baseline: kd, margin: 0.02}
"""

SEARCH = """
name: search
description: Is it the tuning?
run: {recipe: digits}
space: {distillation.alpha: {uniform: [1.0, 4.0]}}
search: {trials: 6, sampler: random, arms: [wsl, kd]}
confirm: {top: 2, seeds: 3, baselines: [kd, ce]}
compare: {baseline: "kd", margin: 0.02}
"""

EXAMPLES = 200


def luck(*of: object) -> np.random.Generator:
    """Numbers that are the same for the same trial, whoever asks."""
    return np.random.default_rng([ord(letter) for letter in "/".join(map(str, of))])


def trained(trial: Trial) -> dict[str, Any]:
    """What a training ends with."""
    accuracy = 0.8 + 0.1 * float(luck(trial.trial_id).random())
    metrics = {"validation/accuracy": accuracy, "validation/loss": 1 - accuracy, "train/loss": accuracy / 3}
    return {"status": "finished", "epochs": trial.epochs, "metrics": metrics, "seconds": 2.0}


def right(trial: Trial) -> np.ndarray[Any, Any]:
    """(EXAMPLES,) bool: what its student gets right; easy examples are so for all, lucky seeds for all variants."""
    easy = luck("examples").normal(2.0, 2.0, EXAMPLES)
    method = {"none": 0.0, "kd": 0.6}.get(trial.config["distillation"]["method"], 0.3)
    return np.asarray(easy + method + luck(trial.seed).normal(0, 0.1) + luck(trial.trial_id).normal(0, 1, EXAMPLES) > 0)


@dataclass
class MadeUp:
    """A sweep that never trained anything.

    Attributes:
        spec: its specification.
        folder: of the sweep.
        command_line: with which it began.
        text: of its file.
    """

    spec: Spec
    folder: Path
    command_line: CommandLine
    text: str

    @property
    def events(self) -> list[dict[str, Any]]:
        """All of its ledger."""
        return Ledger(self.folder / "ledger").events()

    @property
    def state(self) -> SweepState:
        return fold(self.events)

    def records(self) -> SweepRecords:
        """As they are compared."""
        return records_of(
            self.spec, self.state, uuid=f"uuid-{self.spec.name}", outcomes=kept_outcomes(place(self.folder))
        )

    def write_folder(self) -> None:
        """Makes it one that the command line knows."""
        (self.folder / "sweep.yaml").write_text(self.text)
        saved = {**asdict(self.command_line), "sets": list(self.command_line.sets)}
        plan = {"uuid": f"uuid-{self.spec.name}", "command_line": saved, "created": "now", "stages": {}}
        (self.folder / "plan.json").write_text(json.dumps(plan))


def made_up(
    text: str,
    root: Path,
    train: Callable[[Trial], dict[str, Any]] = trained,
    *,
    end: str | None = "finished",
    most: int | None = None,
    logits: bool = True,
    **options: Any,
) -> MadeUp:
    """Plays a sweep to its end without training, a trial at a time.

    Args:
        text: of its file.
        root: the storage.
        train: what a training ends with.
        end: the sweep's last word; None where its driver dies without one.
        most: tasks after which it is stopped.
        logits: whether test logits are kept.
        options: of the command line.
    """
    spec, command_line = spec_of(text, **options), CommandLine(**options)
    folder = root / spec.name
    conductor = Conductor(spec, Ledger(folder / "ledger"))
    done = 0
    while (most is None or done < most) and (task := conductor.next()) is not None:
        conductor.started(task.key)
        done += 1
        if task.kind == "train":
            conductor.ended(task.key, train(task.trials[0]))
        elif task.kind == "evaluate":
            evaluated = {trial.trial_id: _tested(trial, folder, logits) for trial in task.trials}
            conductor.ended(task.key, {"status": "finished", "evaluated": evaluated})
        else:
            conductor.ended(task.key, {"status": "finished"})
    if end == "stopped":
        conductor.interrupt()
    elif end is not None:
        conductor.close(end)
    return MadeUp(spec, folder, command_line, text)


def _tested(trial: Trial, folder: Path, logits: bool) -> dict[str, float]:
    won = right(trial)
    if logits:
        labels = luck("labels").integers(0, 3, EXAMPLES)
        said = np.where(won, labels, (labels + 1) % 3)
        (folder / "trials" / trial.trial_id).mkdir(parents=True, exist_ok=True)
        kept = {"logits": np.eye(3, dtype=np.float32)[said], "labels": labels, "ids": np.arange(EXAMPLES)}
        save_file(kept, folder / "trials" / trial.trial_id / "test_logits.safetensors")
    accuracy = float(won.mean())
    return {"test/accuracy": accuracy, "test/loss": 2 * (1 - accuracy), "test/ece": 0.05}


def but(*endings: tuple[Callable[[Trial], bool], str]) -> Callable[[Trial], dict[str, Any]]:
    """As ``trained``, but some trials end otherwise: (which, status)."""

    def train(trial: Trial) -> dict[str, Any]:
        ending = next((status for which, status in endings if which(trial)), "finished")
        whole = trained(trial)
        if ending == "finished":
            return whole
        error = {"error": "it diverged"} if ending == "failed" else {}
        return {**whole, "status": ending, "epochs": 1, **error}

    return train
