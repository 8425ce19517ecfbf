"""Sweeps made by hand, in a folder as a driver leaves it: a ledger that says what a test wants, and students."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.sweep.fakes import spec_of
from wsl_sweep.data import load
from wsl_sweep.models import build
from wsl_sweep.spec.loading import CommandLine
from wsl_sweep.spec.plan import Trial, ablation_cells
from wsl_sweep.storage import place
from wsl_sweep.sweep.ledger import Ledger
from wsl_sweep.training import Job, TeacherStore, TrialTraining, evaluate_on_test
from wsl_sweep.training.weights import build_with_seed, save_tensors

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class MadeSweep:
    """A sweep's folder.

    Args:
        storage: where it comes to lie.
        text: its file, an ablation with a name.
        imports: folders of users' code.
    """

    def __init__(self, storage: Path, text: str, imports: tuple[Path, ...] = ()) -> None:
        self.spec = spec_of(text)
        self.storage, self.name = storage, self.spec.name
        self.folder = storage / self.name
        self.folder.mkdir(parents=True)
        plan = {
            "uuid": "11111111-2222-3333-4444-555555555555",
            "command_line": asdict(CommandLine()),
            "created": "2026-01-02T03:04:05+00:00",
            "folder": str(storage),
            "import_folders": [str(folder) for folder in imports],
            "versions": {"wsl-sweep": "0.1.0", "torch": torch.__version__},
            "git_commit": COMMIT,
        }
        (self.folder / "plan.json").write_text(json.dumps(plan))
        (self.folder / "sweep.yaml").write_text(text)
        self.ledger = Ledger(self.folder / "ledger")
        self.cells = ablation_cells(self.spec)

    @property
    def trials(self) -> list[Trial]:
        """All of them, cell by cell."""
        return [trial for cell in self.cells for trial in cell.trials]

    def trial_folder(self, trial: Trial) -> Path:
        return self.folder / "trials" / trial.trial_id

    def train(self, trial: Trial) -> None:
        """Trains a trial here, and lets the ledger say so."""
        self.begin(trial)
        with TrialTraining(Job(dict(trial.config)), TeacherStore()) as training:
            rows = list(training)
            training.save(self.trial_folder(trial))
            metrics = {name: value for name, value in rows[-1].items() if name not in ("epoch", "timestamp")}
            facts = {"fingerprint": training.fingerprint, "teacher": training.teacher_facts(), "seconds": 1.0}
        self.finish(trial, metrics, **facts)

    def untrained(self, trial: Trial, teacher: str | None = None) -> nn.Module:
        """Gives a trial a student that nobody has trained, its layers' statistics those of some training pictures.

        ``teacher`` is the hash of the weights of the one that it would have had.
        """
        self.begin(trial)
        data = load(trial.config["dataset"])
        name = trial.config["student"]["model"]
        student = build_with_seed(lambda: build(name, data.num_classes, data.in_channels), 0)
        with torch.no_grad():
            student.train()(data.train.views.plain(torch.arange(32)))
        save_tensors(self.trial_folder(trial) / "student.safetensors", student.state_dict())
        self.finish(trial, {"validation/accuracy": 0.5}, fingerprint={"data": data.digest, "teacher": teacher})
        return student.eval()

    def begin(self, trial: Trial) -> None:
        self.trial_folder(trial).mkdir(parents=True)
        self.ledger.append("proposed", trial=trial.to_json())
        self.ledger.append("started", trial_id=trial.trial_id, attempt=1)

    def finish(self, trial: Trial, metrics: Mapping[str, float], **facts: Any) -> None:
        last = {"attempt": 1, "epochs": trial.epochs, "metrics": dict(metrics)}
        self.ledger.append("finished", trial_id=trial.trial_id, **last, **facts)

    def evaluate(self) -> None:
        """The end of a sweep: the table is decided, and its students see the test part."""
        rows = [
            {
                "variant": cell.variant,
                "overrides": dict(cell.overrides),
                "trial_ids": [trial.trial_id for trial in cell.trials],
                "seeds": [trial.seed for trial in cell.trials],
                "tuned": None,
            }
            for cell in self.cells
        ]
        self.ledger.append("decided", rows=rows)
        for trial in self.trials:
            metrics = evaluate_on_test(Job(dict(trial.config)), place(self.trial_folder(trial)))
            self.ledger.append("evaluated", trial_id=trial.trial_id, metrics=metrics)
        self.ledger.append("sweep", status="finished")
