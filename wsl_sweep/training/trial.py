"""A trial: one training of one student, with its teacher, from plain data to metrics and weights."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from wsl_sweep.data import VisionData, load
from wsl_sweep.data.dataset import Part, load_test
from wsl_sweep.data.streams import stream_seed
from wsl_sweep.distill import Objective, Step, StepTerms, smoothed_cross_entropy
from wsl_sweep.errors import TrialError, WslSweepError
from wsl_sweep.files import file_digest
from wsl_sweep.models import build
from wsl_sweep.spec.catalogue import is_library_model
from wsl_sweep.spec.identity import teacher_identity
from wsl_sweep.training.bank import BankSettings
from wsl_sweep.training.device import as_computed, pick_device, prepare_process
from wsl_sweep.training.fingerprint import library_versions, source_of
from wsl_sweep.training.loop import Row, predict, train_epochs
from wsl_sweep.training.metrics import classification_metrics
from wsl_sweep.training.supply import TeacherSupply, supply_for
from wsl_sweep.training.teachers import FrozenTeacher, TeacherStore
from wsl_sweep.training.weights import build_with_seed, load_into, save_tensors
from wsl_sweep.user_code import is_import_name

Check = Callable[[], None]
Progress = Callable[[Row], None]


def _nothing(*_: Any) -> None:
    pass


@dataclass(frozen=True)
class Job:
    """What one training needs to know: plain data that travels to any process.

    Attributes:
        config: the resolved configuration, nested, as far as it is read; ``precision`` is settled.
        part: what the student, and its teacher, train on.
        threads: torch's threads, the trial's CPUs.
        bank: what the sweep says of the logit bank.
        gpu: the part of a GPU's memory that it may take.
    """

    config: dict[str, Any]
    part: Part = "train"
    threads: int = 1
    bank: BankSettings = field(default_factory=BankSettings)
    gpu: float = 1.0

    @property
    def seed(self) -> int:
        """The student's seed."""
        return int(self.config["seed"])

    def teacher(self) -> tuple[str, dict[str, Any]] | None:
        """Id and identity of the teacher that this job reads, or None."""
        return teacher_identity(self.config, self.part, self.threads)


def train_teacher(
    job: Job, store: TeacherStore, *, on_epoch: Progress = _nothing, check: Check = _nothing
) -> dict[str, Any] | None:
    """Makes sure that the job's teacher is in the store, and returns its card (None: it reads none).

    A teacher is a classifier trained with (label-smoothed) cross-entropy on the same part of the same data, always
    in float32. ``on_epoch`` hears each epoch's row if it is trained now.
    """
    named = job.teacher()
    if named is None or job.config["teacher"].get("checkpoint"):
        return None
    teacher_id, identity = named

    def train() -> tuple[nn.Module, dict[str, Any]]:
        prepare_process(job.threads, job.gpu)
        device = pick_device()
        config, dataset = identity["teacher"], job.config["dataset"]
        data = load(dataset, job.part, device)
        model = as_computed(_fresh(config["model"], data, config["seed"], "teacher").to(device))

        def step_loss(step: Step) -> StepTerms:
            loss = smoothed_cross_entropy(
                step.logits, step.labels, config["label_smoothing"], config.get("smoothing", "all")
            )
            return StepTerms(loss.mean(), loss.detach())

        row: Row = {}
        for row in train_epochs(
            model,
            data,
            step_loss,
            optimizer=config["optimizer"],
            schedule=config["schedule"],
            seed=stream_seed(config["seed"], "teacher"),
            graphs=lambda epoch: not _own(config["model"]),
            say=_on_stderr,
            check=check,
            section="teacher.",
        ):
            on_epoch(row)
        metrics = {name: value for name, value in row.items() if name != "timestamp"}
        facts = {
            "identity": identity,
            "model": config["model"],
            "origin": "trained here",
            "num_classes": data.num_classes,
            "in_channels": data.in_channels,
            "metrics": metrics,
            "seen_validation": job.part != "train",
            "data": data.digest,
            "device": torch.device(device).type,
            "versions": library_versions(),
            "trained_at": time.time(),
        }
        return model, facts

    return store.ensure(teacher_id, train)


class TrialTraining:
    """One trial, epoch by epoch.

    Iterate over it for the rows of metrics; after the last row, and before it is handed out to anybody who may end
    the process, ``save`` writes the student and its validation logits. ``close`` gives the logit bank back.

    Args:
        job: what to train.
        store: where its teacher is found, or trained now.
        check: called before each step; what it raises ends the training.
        on_teacher_epoch: hears the rows of a teacher that has to be trained first.
    """

    def __init__(
        self,
        job: Job,
        store: TeacherStore,
        *,
        check: Check = _nothing,
        on_teacher_epoch: Progress = _nothing,
    ) -> None:
        self.job = job
        card = train_teacher(job, store, on_epoch=on_teacher_epoch, check=check)
        prepare_process(job.threads, job.gpu)
        self.device = pick_device()
        self.data = load(job.config["dataset"], job.part, self.device)
        self._objective = Objective(job.config["distillation"])
        self._check = check
        self.teacher, self.teacher_digest = self._supply(store, card)
        try:
            student = _fresh(job.config["student"]["model"], self.data, job.seed, "initialisation")
            self.student = as_computed(student.to(self.device))
        except BaseException:
            self.close()
            raise

    @property
    def epochs(self) -> int:
        """How many epochs are planned."""
        return int(self.job.config["schedule"]["epochs"])

    def __iter__(self) -> Iterator[Row]:
        return train_epochs(
            self.student,
            self.data,
            self._objective.step,
            optimizer=self.job.config["optimizer"],
            schedule=self.job.config["schedule"],
            seed=self.job.seed,
            precision=self.job.config["precision"],
            teacher=self.teacher,
            features=self._objective.needs_features,
            draws=self._objective.draws,
            graphs=lambda epoch: not _own(self.job.config["student"]["model"]) and self._objective.settled(epoch),
            say=_on_stderr,
            check=self._check,
        )

    def __enter__(self) -> TrialTraining:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Gives the logit bank back; ``teacher_facts`` stay."""
        if self.teacher is not None:
            self.teacher.close()

    def teacher_facts(self) -> dict[str, Any] | None:
        """How often the teacher ran for this trial: ``computed`` and ``found`` pictures, ``notes``; or None."""
        if self.teacher is None:
            return None
        return {"computed": self.teacher.computed, "found": self.teacher.found, "notes": list(self.teacher.notes)}

    def save(self, folder: Path) -> None:
        """Writes ``student.safetensors`` and ``validation_logits.safetensors`` (logits, labels, ids)."""
        save_tensors(folder / "student.safetensors", self.student.state_dict())
        validation = self.data.validation
        logits = predict(self.student, validation)
        save_tensors(
            folder / "validation_logits.safetensors",
            {"logits": logits, "labels": validation.labels, "ids": validation.ids},
        )

    def _supply(self, store: TeacherStore, card: dict[str, Any] | None) -> tuple[TeacherSupply | None, str | None]:
        named = self.job.teacher()
        if named is None:
            return None, None
        config = self.job.config["teacher"]
        path = Path(config["checkpoint"]) if config.get("checkpoint") else store.weights(named[0])
        digest = card["sha256"] if card else _digest(path)

        def make_teacher() -> FrozenTeacher:
            model = build(config["model"], self.data.num_classes, self.data.in_channels)
            teacher = FrozenTeacher.load(model, path, config["model"], self.data.validation, config["mode"])
            if _digest(path) != digest:  # what it says would be kept under another's name
                raise TrialError(f"{path} changed while a trial that rests on it was running")
            return teacher

        return supply_for(
            self.data,
            make_teacher,
            {"model": config["model"], "weights": digest, "own_code": source_of(config["model"])},
            label_noise=float(self.job.config["dataset"]["label_noise"]),
            features=self._objective.needs_features,
            by_batch=config["mode"] == "train",
            precision=config.get("stored_precision", "float32"),
            threads=self.job.threads,
            settings=self.job.bank,
            about={"teacher": named[0], "model": config["model"], "dataset": self.job.config["dataset"]["name"]},
            check=self._check,
        ), digest


def _on_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _own(model: str) -> bool:
    """Whether a model is a user's own, of which nobody knows what it does from step to step."""
    return is_import_name(model) and not is_library_model(model)


def _digest(path: Path) -> str:
    try:
        return file_digest(path)
    except OSError as error:
        raise WslSweepError(f"{path}: {error.strerror or error}") from error


def _fresh(name: str, data: VisionData, seed: int, purpose: str) -> nn.Module:
    return build_with_seed(lambda: build(name, data.num_classes, data.in_channels), stream_seed(seed, purpose))


def load_student(job: Job, folder: Path, num_classes: int, in_channels: int) -> nn.Module:
    """The trained student that ``TrialTraining.save`` left in ``folder``, in eval mode, on the CPU."""
    name = job.config["student"]["model"]
    student = build(name, num_classes, in_channels)
    load_into(student, folder / "student.safetensors", name)
    return student.eval()


def evaluate_on_test(job: Job, folder: Path) -> dict[str, float]:
    """The final evaluation: ``test/accuracy``, ``test/loss``, ``test/ece`` of a saved student.

    Writes ``test_logits.safetensors`` beside the student. Nothing else in this package reads the test part.
    """
    prepare_process(job.threads, job.gpu)
    device = pick_device()
    test = load_test(job.config["dataset"], device)
    if len(test) == 0:
        raise WslSweepError("the data set has no test part")
    data = load(job.config["dataset"], job.part, device)
    student = as_computed(load_student(job, folder, data.num_classes, data.in_channels).to(device))
    logits = predict(student, test)
    save_tensors(folder / "test_logits.safetensors", {"logits": logits, "labels": test.labels, "ids": test.ids})
    return classification_metrics(logits, test.labels, "test")
