"""A trial: one training of one student, with its teacher, from plain data to metrics and weights."""

from __future__ import annotations

import contextlib
import functools
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from wsl_sweep.data import Examples, TaskData, load
from wsl_sweep.data.dataset import Part, available, load_test
from wsl_sweep.data.streams import stream_seed
from wsl_sweep.distill import Objective, Step, StepTerms, smoothed_cross_entropy
from wsl_sweep.errors import DamagedStudentError, DivergedError, StorageError, TrialError, WslSweepError
from wsl_sweep.files import file_digest
from wsl_sweep.models import build
from wsl_sweep.spec.catalogue import is_library_model
from wsl_sweep.spec.identity import teacher_identity, teachers_dataset
from wsl_sweep.storage import Place, place
from wsl_sweep.training.attempts import Attempts, Checkpoint, CheckpointSettings, Found, Row
from wsl_sweep.training.bank import BankSettings
from wsl_sweep.training.beginning import RANDOM, TEACHER, begin, check_teacher
from wsl_sweep.training.device import as_computed, pick_device, prepare_process
from wsl_sweep.training.feed import examples_of, steps_an_epoch
from wsl_sweep.training.files import (
    REGULARIZATION_SAMPLES,
    STUDENT,
    TEST_LOGITS,
    VALIDATION_LOGITS,
    teacher_logits_name,
)
from wsl_sweep.training.fingerprint import fingerprint, library_versions, own_code, source_of
from wsl_sweep.training.group import ALONE, Group
from wsl_sweep.training.helping import local_group
from wsl_sweep.training.keeper import CheckpointKeeper, Keeper, checkpoint_of
from wsl_sweep.training.loop import predict, train_epochs
from wsl_sweep.training.lost import resting_on
from wsl_sweep.training.metrics import part_metrics
from wsl_sweep.training.samples import RegularizationSamples
from wsl_sweep.training.state import TrainingState
from wsl_sweep.training.supply import TeacherSupply, supply_for
from wsl_sweep.training.teacher_store import TeacherStore
from wsl_sweep.training.teachers import FrozenTeacher
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
        workers: processes that bring data which do not lie in memory.
        processes: that train together, each with its own ``threads`` and ``gpu`` and a share of every batch.
    """

    config: dict[str, Any]
    part: Part = "train"
    threads: int = 1
    bank: BankSettings = field(default_factory=BankSettings)
    gpu: float = 1.0
    workers: int = 0
    processes: int = 1

    @property
    def seed(self) -> int:
        """The student's seed."""
        return int(self.config["seed"])

    def teacher(self) -> tuple[str, dict[str, Any]] | None:
        """Id and identity of the teacher that this job reads, or None."""
        return teacher_identity(self.config, self.part, self.threads, self.processes)


def train_teacher(
    job: Job,
    store: TeacherStore,
    *,
    on_epoch: Progress = _nothing,
    check: Check = _nothing,
    checkpoints: CheckpointSettings = CheckpointSettings(),  # noqa: B008 - frozen
    group: Group | None = None,
) -> dict[str, Any] | None:
    """Makes sure that the job's teacher is in the store, and returns its card (None: it reads none).

    A teacher is a classifier trained with (label-smoothed) cross-entropy on the same part of the same data, always
    in float32. Where somebody began to train it and was interrupted, it goes on from the last checkpoint, which lies
    in the store.

    Args:
        job: whose teacher.
        store: where it is found, or comes to.
        on_epoch: hears each epoch's row if it is trained now.
        check: called before each step; what it raises ends the training, ``Stopped`` with a checkpoint of the place.
        checkpoints: when they are saved.
        group: the processes that train it; by default those of the job on this machine.
    """
    named = job.teacher()
    if named is None or job.config["teacher"].get("checkpoint"):
        return None
    if group is None and job.processes > 1:
        card = store.card(named[0])
        if card is not None and store.has(named[0]):
            return card
        with local_group(job, store, "teacher") as together:
            return train_teacher(job, store, on_epoch=on_epoch, check=check, checkpoints=checkpoints, group=together)
    group = ALONE if group is None else group
    teacher_id, identity = named

    def train() -> tuple[nn.Module, dict[str, Any]]:
        group.say("train")
        prepare_process(job.threads, job.gpu)
        device = pick_device()
        config, dataset = job.config["teacher"], teachers_dataset(job.config)
        data = _load(dataset, job.part, device, job.workers)
        network = _fresh(config["model"], data, config["seed"], "teacher")
        _begin(network, config)
        model = as_computed(network.to(device))

        def step_loss(step: Step) -> StepTerms:
            loss = smoothed_cross_entropy(
                step.logits, step.labels, config["label_smoothing"], config.get("smoothing", "all")
            )
            return StepTerms(loss.mean(), loss.detach())

        begun = Attempts(store.begun(teacher_id))
        made_with = fingerprint(device, data.digest, None, source_of(config["model"]))
        found = None
        if group.leads:
            found = _newest(begun, teacher_id, made_with, data, config["schedule"], model)
        found = _handed(group, found, made_with)
        start = TrainingState.read(found.checkpoint, model, len(data.train)) if found is not None else None
        if start is not None:
            start.restore_model(model)
        if start is not None and group.leads:
            print(f"the teacher goes on after epoch {start.epoch}", flush=True)
        if found is not None:
            found = replace(found, checkpoint=replace(found.checkpoint, tensors=b""))

        def checkpoint(rows: Sequence[Row], state: TrainingState) -> Checkpoint:
            return checkpoint_of(state, rows, trial_id=teacher_id, fingerprint=made_with, teacher=None)

        attempt = found.attempt + 1 if found is not None else 1
        settings = replace(checkpoints, keep_all=False)
        keeper: Keeper = Keeper()
        if group.leads:
            keeper = _keeper(begun, attempt, settings, config["schedule"], checkpoint, found, needed=False)
        group.ready()
        rows = train_epochs(
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
            start=start,
            keeper=keeper,
            group=group,
        )
        try:
            for row in _busy(rows, group):
                on_epoch(row)
        except DivergedError:
            with contextlib.suppress(StorageError):
                begun.folder.delete()  # it would come to the same
            raise
        if not group.leads:
            return model, {}
        metrics = {name: value for name, value in keeper.rows[-1].items() if name != "timestamp"}
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

    if group.leads:
        card = store.ensure(teacher_id, train)
        group.say("there")
        return card
    while group.hear() == "train":
        train()
    return store.ensure(teacher_id, _no_teacher)


def _no_teacher() -> tuple[nn.Module, dict[str, Any]]:
    raise TrialError("the teacher that another process of the trial has is not to be found here")


def _busy(rows: Iterator[Row], group: Group) -> Iterator[Row]:
    """The rows, the group being busy until after the last."""
    group.occupied(True)
    yield from rows
    group.occupied(False)


def _handed(group: Group, found: Found | None, made_with: Mapping[str, str | None]) -> Found | None:
    """The checkpoint that the leader has found, on every process; its rows stay with the leader.

    Raises TrialError: another process would make the training with something else.
    """
    if group.size == 1:
        return found
    if group.leads:
        group.say(dict(made_with))
        one = None if found is None else found.checkpoint
        group.say(
            None
            if found is None or one is None
            else [found.attempt, one.epoch, one.step, one.seconds, dict(one.training), len(one.tensors)]
        )
        if one is not None:
            group.hand(one.tensors, len(one.tensors))
        return found
    leaders = group.hear()
    differ = [name for name, value in made_with.items() if leaders.get(name) != value]
    if differ:
        raise TrialError(f"it would train with another {', '.join(differ)} than the first process")
    told = group.hear()
    if told is None:
        return None
    attempt, epoch, step, seconds, training, size = told
    tensors = group.hand(None, size)
    return Found(attempt, Checkpoint("", dict(made_with), epoch, step, seconds, (), None, training, tensors))


def teacher_weights(job: Job, store: TeacherStore) -> Path:
    """Where the weights of the job's teacher lie, or will when it is trained: its checkpoint, or in the store.

    Raises ValueError: it reads no teacher.
    """
    named = job.teacher()
    if named is None:
        raise ValueError("a job without a teacher has no teacher's weights")
    checkpoint = job.config["teacher"].get("checkpoint")
    return Path(checkpoint) if checkpoint else store.weights(named[0])


class TrialTraining:
    """One trial, epoch by epoch.

    Iterate over it for the rows of metrics; after the last row, and before it is handed out to anybody who may end
    the process, ``save`` writes the student, its validation logits and who were regularization samples, and
    ``save_teacher_logits`` what its teacher says. ``close`` gives the logit bank back.

    With ``attempts`` it goes on from the newest checkpoint that is its own, to the same bits as if it had never ended
    (on a CPU with one thread): iterating gives the rows of the epochs that are still to be trained, and a row is
    handed out only when its checkpoint is saved.

    Args:
        job: what to train.
        store: where its teacher is found, or trained now.
        check: called before each step; what it raises ends the training, ``Stopped`` with a checkpoint of the place.
        on_teacher_epoch: hears the rows of a teacher that has to be trained first.
        attempts: where its checkpoints lie; None: nothing is read or written.
        attempt: which attempt at the trial this is.
        trial_id: whose checkpoints count; by default that of the folder of ``attempts``.
        checkpoints: when they are saved.
        group: the processes that train it, of which this is one; by default those of the job on this machine, which
            ``close`` ends.

    Raises:
        ProcessLostError: one of the processes died.
        StorageError: its data, its teacher or its storage are gone or full.
    """

    def __init__(
        self,
        job: Job,
        store: TeacherStore,
        *,
        check: Check = _nothing,
        on_teacher_epoch: Progress = _nothing,
        attempts: Attempts | None = None,
        attempt: int = 1,
        trial_id: str | None = None,
        checkpoints: CheckpointSettings = CheckpointSettings(),  # noqa: B008 - frozen
        group: Group | None = None,
    ) -> None:
        self.job = job
        self.teacher: TeacherSupply | None = None
        self._together = contextlib.ExitStack()
        if group is None:
            group = self._together.enter_context(local_group(job, store, "trial"))
        self._group = group
        try:
            card = train_teacher(
                job, store, on_epoch=on_teacher_epoch, check=check, checkpoints=checkpoints, group=group
            )
            prepare_process(job.threads, job.gpu)
            self.device = pick_device()
            self.data = _load(job.config["dataset"], job.part, self.device, job.workers)
            self._objective = Objective(job.config["distillation"])
            self._check = check
            self._of_these_data(store, card)
            self.teacher_digest = self._teacher_digest(store, card)
            self.teacher = self._supply(store)
            student = _fresh(job.config["student"]["model"], self.data, job.seed, "initialisation")
            self._begin(student, store)
            self.student = self._in_groups(as_computed(student.to(self.device)))
            self._found = self._go_on(attempts, trial_id) if attempts is not None else None
            self._found = _handed(group, self._found, self.fingerprint if group.size > 1 else {})
            self._start = self._state(self._found.checkpoint) if self._found is not None else None
            self.samples = RegularizationSamples()
            if self._found is not None and self._start is not None:
                self._start.restore_model(self.student)
                self._start.restore_samples(self.samples, self.device)
                self._found = replace(self._found, checkpoint=replace(self._found.checkpoint, tensors=b""))
            self._keeper = self._keeper_of(attempts, attempt, trial_id, checkpoints)
            group.ready()
        except BaseException:
            group.occupied(True)
            self.close()
            raise

    @property
    def epochs(self) -> int:
        """How many epochs are planned."""
        return int(self.job.config["schedule"]["epochs"])

    @functools.cached_property
    def fingerprint(self) -> dict[str, str | None]:
        """With what this training is made; see there."""
        return fingerprint(self.device, self.data.digest, self.teacher_digest, own_code(self.job.config))

    @property
    def rows(self) -> list[Row]:
        """Of all epochs so far, those of earlier attempts too."""
        return self._keeper.rows

    @property
    def examples(self) -> int:
        """How many training examples the student has been shown so far, one as often as it was: of whole epochs, those
        of earlier attempts too, and of the steps of one that has begun."""
        return self.examples_after(len(self.rows), self._keeper.steps)

    def examples_after(self, epochs: int, steps: int = 0) -> int:
        """How many that is after so many whole epochs and steps of the next."""
        size, batch_size = len(self.data.train), self.job.config["schedule"]["batch_size"]
        whole = examples_of(size, batch_size, steps_an_epoch(size, batch_size))
        return epochs * whole + examples_of(size, batch_size, steps)

    @property
    def resumed(self) -> tuple[int, int, int] | None:
        """Where it went on: attempt, whole epochs done, steps done of the next; None: from the beginning."""
        if self._found is None:
            return None
        return self._found.attempt, self._found.checkpoint.epoch, self._found.checkpoint.step

    def __iter__(self) -> Iterator[Row]:
        self._group.say("train")
        rows = train_epochs(
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
            weighs=self._objective.weighs,
            graphs=lambda epoch: not _own(self.job.config["student"]["model"]) and self._objective.settled(epoch),
            say=_on_stderr,
            check=self._check,
            start=self._start,
            keeper=self._keeper,
            group=self._group,
            samples=self.samples,
        )
        return _busy(rows, self._group)

    def _in_groups(self, student: nn.Module) -> nn.Module:
        """The student, its batch normalisation over the whole batch where that is asked for."""
        if self._group.size == 1 or self.job.config["student"].get("batchnorm") != "sync":
            return student
        if torch.device(self.device).type != "cuda":
            raise TrialError("student.batchnorm: sync needs a GPU for each process; on CPUs it is by process")
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(student)  # type: ignore[no-untyped-call]
        return converted

    def __enter__(self) -> TrialTraining:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Gives the logit bank back, and ends the other processes; ``teacher_facts`` stay."""
        try:
            if self.teacher is not None:
                self.teacher.close()
        finally:
            self._together.close()

    def teacher_facts(self) -> dict[str, Any] | None:
        """How often the teacher ran for this trial: ``computed`` and ``found`` examples, ``notes``; or None.

        With what earlier attempts counted, up to the checkpoint from which this one went on.
        """
        if self.teacher is None:
            return None
        before: Mapping[str, Any] = (self._found.checkpoint.teacher if self._found else None) or {}
        computed, found = self.teacher.counts()
        return {
            "computed": before.get("computed", 0) + computed,
            "found": before.get("found", 0) + found,
            "notes": list(dict.fromkeys([*before.get("notes", ()), *self.teacher.notes])),
        }

    def save(self, folder: Path | Place) -> None:
        """Writes ``student.safetensors`` and ``validation_logits.safetensors`` (logits, labels, ids).

        And, where its loss tells them, ``regularization_samples.safetensors``: ``masks`` (epochs, ceil(N / 8)) uint8,
        a bit a training example, see ``files.packed``; its ``labels`` (N,), as it was trained on, and ``ids`` (N,).
        """
        where, train = place(folder), self.data.train
        save_tensors(where / STUDENT, self.student.state_dict())
        save_tensors(
            where / VALIDATION_LOGITS, _said(predict(self.student, self.data.validation), self.data.validation)
        )
        if self.samples.epochs:
            masks = torch.stack(self.samples.epochs)
            save_tensors(where / REGULARIZATION_SAMPLES, {"masks": masks, "labels": train.labels, "ids": train.ids})

    def teacher_logits_name(self) -> str | None:
        """The name of the file of what its teacher says of the validation part; None where it asks no teacher."""
        named, validation = self.job.teacher(), self.data.validation
        if self.teacher is None or named is None:
            return None
        return teacher_logits_name(named[0], validation.ids.cpu().numpy(), validation.labels.cpu().numpy())

    def save_teacher_logits(self, folder: Path | Place) -> None:
        """Writes what its teacher says of the validation part (logits, labels, ids), unless ``folder`` has it already.

        Each epoch has asked for it, so that the teacher need not run.
        """
        name = self.teacher_logits_name()
        if name is None or self.teacher is None or (place(folder) / name).exists():
            return
        save_tensors(place(folder) / name, _said(self.teacher.validation_logits(), self.data.validation))

    def _go_on(self, attempts: Attempts, trial_id: str | None) -> Found | None:
        """The checkpoint from which this training goes on."""
        own, schedule = trial_id or attempts.folder.name, self.job.config["schedule"]
        return _newest(attempts, own, self.fingerprint, self.data, schedule, self.student, self._drifting())

    def _state(self, checkpoint: Checkpoint) -> TrainingState:
        return TrainingState.read(checkpoint, self.student, len(self.data.train), self._drifting())

    def _drifting(self) -> Mapping[str, torch.Tensor]:
        return self.teacher.drifting() if self.teacher is not None else {}

    def _keeper_of(
        self, attempts: Attempts | None, attempt: int, trial_id: str | None, settings: CheckpointSettings
    ) -> Keeper:
        if attempts is None:
            return Keeper()
        own = trial_id or attempts.folder.name

        def checkpoint(rows: Sequence[Row], state: TrainingState) -> Checkpoint:
            return checkpoint_of(state, rows, trial_id=own, fingerprint=self.fingerprint, teacher=self.teacher_facts())

        return _keeper(attempts, attempt, settings, self.job.config["schedule"], checkpoint, self._found)

    def _of_these_data(self, store: TeacherStore, card: dict[str, Any] | None) -> None:
        """Raises TrialError: the teacher was trained when a user's own task, whose id is that of its code, held other
        data; it may have seen what is the validation or test part now.
        """
        name = str(self.job.config["dataset"]["name"])
        if card is None or not is_import_name(name) or card.get("data") is None:
            return
        trained_on = teachers_dataset(self.job.config)
        if card["data"] == _load(trained_on, self.job.part, self.device, self.job.workers).digest:
            return
        folder = store.weights(str(card["teacher_id"])).parent
        raise TrialError(
            f"the teacher {card['teacher_id']} was trained on other data than {name} holds now: take another "
            f"teacher.seed, or delete {folder} to have it trained again"
        )

    def _teacher_digest(self, store: TeacherStore, card: dict[str, Any] | None) -> str | None:
        """SHA-256 of the teacher's weights; None where the job reads none."""
        if self.job.teacher() is None:
            return None
        with resting_on("the teacher's weights"):
            return str(card["sha256"]) if card else _digest(teacher_weights(self.job, store))

    def _unchanged(self, weights: Path) -> None:
        """Raises TrialError: the teacher's weights are not any more what they were."""
        if _digest(weights) != self.teacher_digest:  # what it says would be kept under another's name
            raise TrialError(f"{weights} changed while a trial that rests on it was running")

    def _begin(self, student: nn.Module, store: TeacherStore) -> None:
        """Puts the weights from which it begins into a fresh student."""
        if self.job.config["student"].get("init") != TEACHER:
            _begin(student, self.job.config["student"])
            return
        name, weights = self.job.config["student"]["model"], teacher_weights(self.job, store)
        check_teacher(student, name, self.job.config["teacher"]["model"], self.data.num_classes, self.data.in_channels)
        with resting_on("the teacher's weights"):
            begin(student, name, TEACHER, weights)
            self._unchanged(weights)

    def _supply(self, store: TeacherStore) -> TeacherSupply | None:
        named = self.job.teacher()
        if named is None or not self._objective.distils:
            return None
        config, digest = self.job.config["teacher"], self.teacher_digest
        path = teacher_weights(self.job, store)

        def make_teacher() -> FrozenTeacher:
            model = build(config["model"], self.data.num_classes, self.data.in_channels)
            with resting_on("the teacher's weights"):
                teacher = FrozenTeacher.load(model, path, config["model"], self.data.validation, config["mode"])
                self._unchanged(path)
            return teacher

        return supply_for(
            self.data,
            make_teacher,
            {"model": config["model"], "weights": digest, "own_code": source_of(config["model"])},
            label_noise=float(self.job.config["dataset"]["label_noise"]),
            features=self._objective.needs_features,
            by_batch=config["mode"] == "train",
            precision=config.get("stored_precision", "float32"),
            top_k=config.get("stored_top_k"),
            temperature=float(self.job.config["distillation"].get("temperature", 1.0)),
            threads=self.job.threads,
            settings=self.job.bank,
            about={"teacher": named[0], "model": config["model"], "dataset": self.job.config["dataset"]["name"]},
            check=self._check,
            group=self._group,
        )


def _newest(
    attempts: Attempts,
    own: str,
    made_with: Mapping[str, str | None],
    data: TaskData,
    schedule: Mapping[str, Any],
    model: nn.Module,
    drifting: Mapping[str, torch.Tensor] = MappingProxyType({}),
) -> Found | None:
    """The checkpoint from which a training of ``model`` goes on, or None; says what is passed over."""
    steps, epochs = steps_an_epoch(len(data.train), schedule["batch_size"]), schedule["epochs"]

    def fits(checkpoint: Checkpoint) -> None:
        if checkpoint.epoch > epochs or checkpoint.step > (steps if checkpoint.epoch < epochs else 0):
            raise ValueError("is beyond the end of the training")
        TrainingState.read(checkpoint, model, len(data.train), drifting)

    found, passed_over = attempts.newest(own, made_with, fits)
    for text in passed_over:
        _on_stderr(f"checkpoint passed over: {text}")
    return found


def _keeper(
    attempts: Attempts,
    attempt: int,
    settings: CheckpointSettings,
    schedule: Mapping[str, Any],
    checkpoint: Callable[[Sequence[Row], TrainingState], Checkpoint],
    found: Found | None,
    needed: bool = True,
) -> CheckpointKeeper:
    """Saves what ``checkpoint`` makes of a training that goes on from ``found``; see ``CheckpointKeeper``."""
    before = found.checkpoint if found is not None else None
    saved, rows = ((before.epoch, before.step), before.rows) if before is not None else ((0, 0), ())
    return CheckpointKeeper(attempts, attempt, settings, schedule["epochs"], checkpoint, saved, rows, needed=needed)


def _said(logits: torch.Tensor, examples: Examples) -> dict[str, torch.Tensor]:
    """Logits of a part as they are kept: with the examples' labels and ids."""
    return {"logits": logits, "labels": examples.labels, "ids": examples.ids}


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


def _load(dataset: Mapping[str, Any], part: Part, device: str, workers: int) -> TaskData:
    """``load``, where what was there when the sweep began is missed as a StorageError."""
    with resting_on("the data set", lambda: available(dataset)):
        return load(dataset, part, device, workers)


def _load_test(dataset: Mapping[str, Any], device: str, workers: int) -> Examples:
    with resting_on("the data set", lambda: available(dataset)):
        return load_test(dataset, device, workers)


def _fresh(name: str, data: TaskData, seed: int, purpose: str) -> nn.Module:
    return build_with_seed(lambda: build(name, data.num_classes, data.in_channels), stream_seed(seed, purpose))


def _begin(model: nn.Module, section: Mapping[str, Any]) -> None:
    """Puts the weights from which it begins into the fresh model of a ``teacher`` or ``student`` section."""
    with resting_on("pretrained weights"):
        begin(model, section["model"], section.get("init", RANDOM))


def load_student(job: Job, folder: Path | Place, num_classes: int, in_channels: int) -> nn.Module:
    """The trained student that ``TrialTraining.save`` left in ``folder``, in eval mode, on the CPU.

    Raises:
        DamagedStudentError: it is gone, or not what was saved.
        StorageError: that cannot be told.
    """
    name, path = job.config["student"]["model"], place(folder) / STUDENT
    student = build(name, num_classes, in_channels)
    try:
        path.read_bytes()  # says of an error what it is, which safetensors does not
    except FileNotFoundError as error:
        if not place(folder).parent.names():
            raise StorageError(f"{place(folder).parent} is gone") from error
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        load_into(student, path, name)
    except StorageError:
        raise
    except WslSweepError as error:
        raise DamagedStudentError(str(error)) from error
    return student.eval()


def evaluate_on_test(job: Job, folder: Path | Place) -> dict[str, float]:
    """The final evaluation: ``test/accuracy``, ``test/loss``, ``test/ece`` of a saved student, and its task's own.

    Writes ``test_logits.safetensors`` beside the student. Nothing else in a sweep reads the test part.
    """
    prepare_process(job.threads, job.gpu)
    device = pick_device()
    test = _load_test(job.config["dataset"], device, job.workers)
    if len(test) == 0:
        raise WslSweepError("the data set has no test part")
    data = _load(job.config["dataset"], job.part, device, job.workers)
    student = as_computed(load_student(job, folder, data.num_classes, data.in_channels).to(device))
    logits = predict(student, test)
    save_tensors(place(folder) / TEST_LOGITS, _said(logits, test))
    return part_metrics(logits, test, "test")
