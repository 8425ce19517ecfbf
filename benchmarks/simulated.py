"""What stands for training in the scale benchmark: trials that report made-up rows, and leave the files of real ones.

No torch: a worker writes what resume reads (``config.json``, ``rows.json``, ``outcome.json``), reports at the rungs of
the scheduler, and now and then dies in the middle, as a machine does. Conductor, searcher, ledger, lease, schedulers,
runner and writer cannot tell it from a worker of ``wsl_sweep.sweep.trainable``.
"""

from __future__ import annotations

import json
import math
import os
import signal
import time
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

EPOCHS = 5
SPACE = """
name: scale
run: {{recipe: digits, schedule: {{epochs: {epochs}}}}}
space:
  distillation.alpha: {{uniform: [0.5, 4.0]}}
  distillation.temperature: {{uniform: [1.0, 8.0]}}
  optimizer.lr: {{loguniform: [0.001, 0.5]}}
search: {{sampler: {sampler}, trials: {trials}}}
scheduler: {{name: {scheduler}, grace_epochs: 2, reduction_factor: 2}}
resources: {{cpu: 1, gpu: 0}}
"""
METRICS = (
    "train/loss", "train/accuracy", "weight/mean", "regularization_samples/fraction", "validation/accuracy",
    "validation/loss", "validation/ece", "teacher/agreement", "teacher/kl", "train/seconds",
)  # fmt: skip
"""What a row of the digits recipe holds, but for the quantiles of its weights."""

DEATHS_A_TRIAL = 1 / 500
"""How many of the trials lose the worker of their first attempt."""


def file_of(trials: int, sampler: str = "tpe", scheduler: str = "none") -> str:
    """The search-space file of a simulated sweep."""
    return SPACE.format(trials=trials, sampler=sampler, scheduler=scheduler, epochs=EPOCHS)


def luck(trial_id: str, what: str) -> float:
    """A number in [0, 1) that is always the same for a trial."""
    return zlib.crc32(f"{trial_id} {what}".encode()) / 2**32


def dies(trial_id: str, attempt: int) -> bool:
    """Whether the worker of this attempt is killed after its first epoch."""
    return attempt == 1 and luck(trial_id, "death") < DEATHS_A_TRIAL


def row(trial: Mapping[str, Any], epoch: int, now: float) -> dict[str, float]:
    """An epoch's metrics: the nearer α is to 2 and the learning rate to 0.05, the better, with some noise."""
    chosen = trial["overrides"]
    far = abs(chosen.get("distillation.alpha", 2.0) - 2.0) / 2
    far += abs(math.log(chosen.get("optimizer.lr", 0.05) / 0.05)) / 4
    learned = 1 - math.exp(-epoch / 2)
    accuracy = max(0.1, 0.9 - 0.2 * far) * learned + 0.02 * (luck(trial["trial_id"], f"epoch {epoch}") - 0.5)
    made = {name: 0.5 + 0.01 * luck(trial["trial_id"], name) for name in METRICS}
    made |= {"validation/accuracy": accuracy, "validation/loss": 1 - accuracy, "train/seconds": 0.001 * epoch}
    return {"epoch": float(epoch), **made, "timestamp": now}


def outcome_of(rows: list[dict[str, float]]) -> dict[str, Any]:
    """The last word of a trial that has finished."""
    return {
        "status": "finished",
        "epochs": len(rows),
        "metrics": {name: rows[-1][name] for name in METRICS},
        "device": "cpu",
        "fingerprint": {"code": "0" * 16, "torch": "2.15.0", "device": "cpu", "data": "0" * 16, "teacher": "0" * 16},
        "teacher": {"computed": 0, "found": 1000, "notes": []},
        "seconds": 0.01,
    }


def reports(task: Mapping[str, Any], now: float) -> Iterator[dict[str, Any]]:
    """What a worker reports of a training: rows at the scheduler's rungs, and at last the rest with the outcome."""
    (trial,) = task["trials"]
    rows: list[dict[str, float]] = []
    unsent: list[dict[str, float]] = []
    for epoch in range(1, EPOCHS + 1):
        rows.append(row(trial, epoch, now + epoch / 1000))
        unsent.append(rows[-1])
        told = {name: rows[-1][name] for name in ("epoch", *task["metrics"])}
        if epoch == EPOCHS:
            yield {**told, "rows": json.dumps(unsent), "outcome": json.dumps(outcome_of(rows))}
        elif epoch in task["rungs"]:
            yield {**told, "rows": json.dumps(unsent), "facts": json.dumps({"teacher": None})}
            unsent = []


def simulate(config: dict[str, Any]) -> None:
    """In place of ``wsl_sweep.sweep.trainable.tune_function``."""
    from ray import tune

    task = json.loads(config["task"])
    (trial,) = task["trials"]
    folder = Path(task["storage"]) / "trials" / trial["trial_id"]
    attempt = folder / f"attempt-{task['attempt']}"
    attempt.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(trial, indent=2))
    known: list[dict[str, float]] = []
    for report in reports(task, time.time()):
        known += json.loads(report["rows"])
        (attempt / "rows.json").write_text(json.dumps(known))
        if "outcome" in report:
            (folder / "student.safetensors").touch()
            (attempt / "outcome.json").write_text(
                json.dumps({**json.loads(report["outcome"]), "attempt": task["attempt"]})
            )
        elif dies(trial["trial_id"], task["attempt"]):
            os.kill(os.getpid(), signal.SIGKILL)
        tune.report(report)
