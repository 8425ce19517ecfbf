"""One training, without Ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from wsl_sweep.app.options import settle_resources
from wsl_sweep.app.preparing import has_to_be_read, notes_on_teacher, prepare_one, prepare_text_models
from wsl_sweep.app.pretrained import prepare_teachers
from wsl_sweep.app.teaching import auto_precision, bank_notes, bank_settings, measure_here, precision_notes
from wsl_sweep.app.world import LocalWorld
from wsl_sweep.spec.identity import trial_id
from wsl_sweep.spec.loading import CommandLine, parse_spec


def train_once(
    recipe: str,
    sets: tuple[str, ...],
    seed: int | None,
    threads: int = 1,
    console: Console | None = None,
    bank: bool = True,
    processes: int = 1,
) -> dict[str, Any]:
    """One training, without Ray, Optuna and MLflow; the same metrics as the same trial in a sweep.

    Returns ``trial_id``, ``seed``, ``config``, ``metrics`` (of the last epoch), ``epochs``, ``teacher`` (how often it
    ran). Nothing is evaluated on the test set. Without ``bank`` the teacher runs at every step. Several ``processes``
    of this machine share every batch, each with ``threads`` threads and, where there are any, a GPU of its own.
    """
    command_line = CommandLine(sets=sets, recipe=recipe)
    text = f"variants: {{train: {{}}}}\nresources: {{cpu: {threads}, processes: {processes}}}\n"
    world = LocalWorld([str(Path.cwd())])
    spec = parse_spec(text, "train", command_line, world=world)
    prepare_teachers(spec)
    gpu, device_kind = settle_resources(spec, None)
    measured = measure_here(auto_precision(spec, device_kind), spec.threads, gpu / processes, [str(Path.cwd())])
    spec = replace(spec, precisions={model: str(found["chosen"]) for model, found in measured.items()})
    config = spec.config(
        {}, seed=seed if seed is not None else int(spec.flat_config({})["seed"]), device_kind=device_kind
    )
    from wsl_sweep.training import BankSettings, Job, TeacherStore, TrialTraining

    on_disk = has_to_be_read(config["dataset"])
    notes = [*(prepare_one(config["dataset"]) if on_disk else ()), *notes_on_teacher(config)]
    prepare_text_models([config])
    for note in [*notes, *bank_notes(spec, world, bank), *precision_notes(measured)]:
        if console is not None:
            console.print(f"note: {note}", markup=False, highlight=False)

    def on_teacher_epoch(row: Mapping[str, float]) -> None:
        if console is not None and (int(row["epoch"]) % 10 == 0 or row["epoch"] == 1):
            accuracy = row["validation/accuracy"]
            console.print(f"teacher, epoch {int(row['epoch'])}: validation/accuracy {accuracy:.4f}", highlight=False)

    settings = BankSettings(**bank_settings(spec, world, bank))
    job = Job(config, "train", spec.threads, settings, workers=spec.workers, processes=processes)
    row: Mapping[str, float] = {}
    with TrialTraining(job, TeacherStore(), on_teacher_epoch=on_teacher_epoch) as training:
        for row in training:
            if console is not None:
                left = row["train/seconds"] / row["epoch"] * (training.epochs - row["epoch"])
                console.print(
                    f"epoch {int(row['epoch'])}/{training.epochs}: train/loss {row['train/loss']:.4f}, "
                    f"validation/accuracy {row['validation/accuracy']:.4f}; {left:.0f} s left",
                    highlight=False,
                )
    for note in (training.teacher_facts() or {"notes": []})["notes"]:
        if console is not None:
            console.print(f"note: {note}", markup=False, highlight=False)
    return {
        "trial_id": trial_id(config, "train", spec.threads, processes),
        "seed": config["seed"],
        "epochs": training.epochs,
        "metrics": {name: value for name, value in row.items() if name not in ("epoch", "timestamp")},
        "config": config,
        "teacher": training.teacher_facts(),
    }
