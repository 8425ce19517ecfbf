"""Ray Tune as the hands of the conductor: one fit for all stages, so that workers stay warm between them."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ray import tune
from ray.tune import Callback, PlacementGroupFactory, RunConfig, TuneConfig, Tuner
from ray.tune.search import Searcher

from wsl_sweep.errors import Terminated, WslSweepError
from wsl_sweep.spec.spec import Spec
from wsl_sweep.storage import Place
from wsl_sweep.sweep.cluster import ACCELERATOR, check_resources
from wsl_sweep.sweep.conductor import Conductor, Task, sane
from wsl_sweep.sweep.lease import Lease
from wsl_sweep.sweep.ledger import LAST_WORDS, TrialState
from wsl_sweep.sweep.patience import patient
from wsl_sweep.sweep.schedulers import ArmScheduler, build_scheduler, rung_epochs
from wsl_sweep.sweep.trainable import tune_function
from wsl_sweep.sweep.watch import Interrupt, Watch

RowsListener = Callable[[str, int, list[dict[str, float]]], None]
TeacherListener = Callable[[str, int, int], None]
Left = Callable[[TrialState], tuple[int, Mapping[str, Any] | None]]
RowsOf = Callable[[str, int], list[dict[str, float]]]

NO_LIMIT = 10**9

REPORTS_A_SECOND = 40.0
"""Of all trials together, beside the epochs at which a scheduler decides and the ends of trials."""

SLOTS_SECONDS = 5.0
"""Between two looks at how many trials fit."""

UNHURRIED = 0.5
"""Seconds between a trial's reports where nobody but the screen and MLflow waits for them."""


@dataclass
class Hands:
    """What the runner tells apart from events: rows of epochs, and how far a teacher is.

    Attributes:
        rows: called with trial id, attempt and the new rows.
        teacher: called with the teacher's id, its epoch and its epochs.
    """

    rows: Sequence[RowsListener] = ()
    teacher: Sequence[TeacherListener] = ()


class _TuneSearcher(Searcher):  # type: ignore[misc]
    """Ray Tune asks, the conductor answers. Nothing here may raise: Tune would run finished trials again."""

    def __init__(
        self,
        conductor: Conductor,
        hands: Hands,
        to_json: Callable[[Task], str],
        slots: Callable[[], int],
        problems: list[BaseException],
        left: Left = lambda state: (0, None),
        rows_of: RowsOf = lambda trial_id, attempt: [],
    ) -> None:
        super().__init__()
        self.conductor, self.hands, self.to_json = conductor, hands, to_json
        self.slots, self.problems = slots, problems
        self.left, self.rows_of = left, rows_of
        self.keys: dict[str, str] = {}
        self.stopped: set[str] = set()

    def set_search_properties(self, *_: Any, **__: Any) -> bool:
        """Nothing of Tune's to take over."""
        return True

    def suggest(self, trial_id: str) -> Any:
        """The next task, None to wait, FINISHED at the end."""
        try:
            tasks, resources = len(self.conductor.tasks), self.conductor.spec.resources
            if self.problems or self.conductor.stopping is not None:
                return None if tasks else Searcher.FINISHED
            # A few more than can run, so that no worker waits; each is proposed without knowing how the others end.
            if tasks >= min(self.slots() + resources.pending, resources.concurrent or NO_LIMIT):
                return None
            task = self.conductor.next()
        except BaseException as error:
            self.problems.append(error)
            return Searcher.FINISHED
        if task is None:
            return Searcher.FINISHED if self.conductor.finished or self.problems else None
        self.keys[trial_id] = task.key
        return {
            "task": self.to_json(task),
            "key": task.key,
            "arm": _arm_of_task(task),
            "whole_card": task.whole_card,
            "processes": task.processes,
            "accelerator": self.conductor.accelerator_of(task),
        }

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Rows, progress of a teacher, and the outcome."""
        self._guarded(self._hear, trial_id, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A task without an outcome has been stopped early, or its worker has died."""
        self._guarded(self._complete, trial_id, error)

    def lost(self, trial_id: str, reason: str) -> None:
        """The worker of a task died; what it did is not lost where it had left its last word on the storage."""
        self._guarded(self._lost, self.keys.get(trial_id, ""), reason)

    def stop_early(self, trial_id: str, result: dict[str, Any]) -> None:
        """A scheduler is about to stop a trial: the ledger hears it first."""
        self._guarded(self._stop, trial_id, result)
        self.stopped.add(trial_id)

    def _lost(self, key: str, reason: str) -> None:
        task = self.conductor.tasks.get(key)
        if task is not None and task.kind == "train":
            attempt, outcome = self.left(self.conductor.state.trials[key])
            if outcome is not None and attempt == task.attempt:
                if rows := self.rows_of(key, attempt):
                    for listener in self.hands.rows:
                        listener(key, attempt, rows)
                self.conductor.ended(key, sane(outcome))
                return
        self.conductor.lost(key, reason)

    def _stop(self, trial_id: str, result: dict[str, Any]) -> None:
        row = json.loads(result["rows"])[-1]
        outcome = {
            **json.loads(result.get("facts") or "{}"),
            "status": "pruned",
            "epochs": int(row["epoch"]),
            "metrics": {name: value for name, value in row.items() if name not in ("epoch", "timestamp")},
            "seconds": float(row["train/seconds"]),
        }
        self._hear(trial_id, result)
        self.conductor.ended(self.keys.get(trial_id, ""), outcome)

    def save_to_dir(self, *_: Any, **__: Any) -> None:
        """The ledger is the memory; Ray keeps nothing."""

    def save(self, checkpoint_path: str) -> None:
        """See ``save_to_dir``."""

    def restore(self, checkpoint_path: str) -> None:
        """See ``save_to_dir``."""

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def _guarded(self, function: Callable[..., None], *arguments: Any) -> None:
        try:
            function(*arguments)
        except BaseException as error:
            self.problems.append(error)

    def _hear(self, trial_id: str, result: dict[str, Any]) -> None:
        if trial_id in self.stopped:
            return
        key = self.keys.get(trial_id, "")
        task = self.conductor.tasks.get(key)
        if task is None:
            return
        if result.get("rows"):
            rows = json.loads(result["rows"])
            for listener in self.hands.rows:
                listener(key, task.attempt, rows)
        if "teacher_epoch" in result:
            for tell in self.hands.teacher:
                tell(key, int(result["teacher_epoch"]), int(result["teacher_epochs"]))
        if "outcome" in result:
            self.conductor.ended(key, json.loads(result["outcome"]))

    def _complete(self, trial_id: str, error: bool) -> None:
        key = self.keys.get(trial_id, "")
        if key in self.conductor.tasks and not error:
            self.conductor.ended(key, {"status": "failed", "error": "ended without a result"})


class _Slots:
    """How many trials fit at once, looked up again now and then: a cluster may grow."""

    def __init__(self, slots: int, cpu: float, gpu: float, accelerator: str | None, processes: int) -> None:
        self._slots, self._asked = slots, (cpu, gpu, accelerator, processes)
        self._looked = time.monotonic()

    def __call__(self) -> int:
        if time.monotonic() - self._looked > SLOTS_SECONDS:
            self._looked = time.monotonic()
            with contextlib.suppress(WslSweepError):
                self._slots = check_resources(*self._asked)
        return self._slots


class _TuneCallback(Callback):  # type: ignore[misc]
    """What the searcher is not told: that a task has started, and why a worker died."""

    def __init__(self, searcher: _TuneSearcher) -> None:
        self.searcher = searcher

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """Ray's hook."""
        key = self.searcher.keys.get(trial.trial_id, "")
        self.searcher._guarded(self.searcher.conductor.started, key)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """Ray's hook. Ray keeps every trial to the end of a fit; what it will not need again is let go."""
        _lighten(trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """Ray's hook."""
        self.searcher.lost(trial.trial_id, _why(trial))
        _lighten(trial)

    def __getstate__(self) -> dict[str, Any]:
        return {}


def _lighten(trial: Any) -> None:
    """Drops a finished trial's task, its copies in the last result, and Ray's statistics: 60 KB each."""
    with contextlib.suppress(AttributeError, TypeError):
        for config in (trial.config, trial.evaluated_params, trial.run_metadata.last_result.get("config", {})):
            config.pop("task", None)
        trial.run_metadata.last_result.pop("rows", None)
        trial.run_metadata.last_result.pop("outcome", None)
        trial.run_metadata.last_result.pop("facts", None)
        trial.run_metadata.metric_analysis.clear()
        trial.run_metadata.metric_n_steps.clear()


def _why(trial: Any) -> str:
    """One line on why Ray ended a trial with an error."""
    error = None
    with contextlib.suppress(Exception):
        error = trial.get_error()
    if error is None:
        return "its worker process died"
    name = type(error).__name__
    cause = getattr(error, "cause", None) or error
    if "ActorDied" in name or "WorkerCrashed" in name or "ActorUnavailable" in name:
        return f"its worker process died ({name})"
    lines = [line for line in str(cause).splitlines() if line.strip()]
    return f"{type(cause).__name__}: {lines[-1].strip()[:300] if lines else 'no message'}"


def _arm_of_task(task: Task) -> str | None:
    if task.kind != "train" or task.trials[0].stage != "search":
        return None
    return task.trials[0].arm


@dataclass(frozen=True)
class Setting:
    """What a fit needs to know beside the sweep's script.

    Attributes:
        folder: of the sweep.
        uuid: of the sweep.
        gpu: GPUs of a trial.
        slots: how many trials run at once; the more, the rarer each one reports.
        import_folders: where users' modules are looked for.
        bank: the fields of ``BankSettings``.
        teachers: where a cluster's nodes find teachers, or None.
        lease: of this driver, or None.
    """

    folder: Place
    uuid: str
    gpu: float = 0.0
    slots: int = 1
    import_folders: Sequence[str] = ()
    bank: Mapping[str, Any] = field(default_factory=dict)
    teachers: Place | None = None
    lease: Lease | None = None


def fit(
    conductor: Conductor,
    setting: Setting,
    *,
    hands: Hands,
    interrupt: Interrupt,
    recall: Callable[[ArmScheduler], None] = lambda scheduler: None,
    left: Left = lambda state: (0, None),
    rows_of: RowsOf = lambda trial_id, attempt: [],
) -> None:
    """Runs the conductor's script to its end, or until it is stopped. Ray is up.

    After its end every trial has its last word in the ledger; after a stop, or an error, the caller writes it
    (``Conductor.interrupt``).

    Args:
        conductor: with the script.
        setting: of the fit.
        hands: who hears of rows and teachers.
        interrupt: the signals' flag.
        recall: tells the scheduler what it heard in earlier drivers' times.
        left: gives the newest attempt of a trial on the storage, and what its worker left there as its outcome.
        rows_of: gives the rows of epochs of a trial's attempt on the storage.

    Raises:
        Exception: what went wrong in the driver itself (a full disk, say), after the workers have stopped.
    """
    spec, resources = conductor.spec, conductor.spec.resources
    problems: list[BaseException] = []
    epochs = spec.most_epochs()
    slots = _Slots(setting.slots, resources.cpu, setting.gpu, resources.accelerator, spec.processes)
    searcher = _TuneSearcher(conductor, hands, _task_writer(conductor, setting, epochs), slots, problems, left, rows_of)
    scheduler = ArmScheduler(
        make=lambda: build_scheduler(spec.scheduler, spec.metrics[0], spec.modes[0], epochs),
        arm_of=lambda trial: trial.config.get("arm"),
        key_of=lambda trial: str(trial.config["key"]),
        on_stop=lambda trial, result: searcher.stop_early(trial.trial_id, result),
    )
    recall(scheduler)
    scratch = tempfile.mkdtemp(prefix="wsl-sweep-ray-")
    try:
        tuner = Tuner(
            tune.with_resources(tune_function, _resources(spec, setting.gpu)),
            param_space={},
            tune_config=TuneConfig(
                search_alg=searcher,
                scheduler=scheduler,
                num_samples=NO_LIMIT,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: str(trial.trial_id),
                trial_name_creator=lambda trial: str(trial.trial_id),
            ),
            run_config=RunConfig(storage_path=scratch, name="ray", verbose=0, callbacks=[_TuneCallback(searcher)]),
        )
        watch = Watch(
            conductor,
            setting.folder,
            setting.uuid,
            lease=setting.lease,
            interrupt=interrupt,
            problems=problems,
        )
        with _fitting(interrupt), watch, patient():
            tuner.fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if problems:
        raise problems[0]
    if conductor.stopping is None:
        _settle(conductor)


def _task_writer(conductor: Conductor, setting: Setting, epochs: int) -> Callable[[Task], str]:
    """What makes of a task the text that a worker gets."""
    spec = conductor.spec
    slots = min(setting.slots, spec.resources.concurrent or setting.slots)
    common = {
        "storage": str(setting.folder.absolute()),
        "sweep_uuid": setting.uuid,
        "report_seconds": report_seconds(spec.scheduler.name != "none", slots),
        "rungs": rung_epochs(spec.scheduler, epochs),
        "metrics": list(spec.metrics),
        "scheduled": spec.scheduler.name != "none",
        "bank": dict(setting.bank),
        "workers": spec.workers,
        "import_folders": list(setting.import_folders),
        "driver_folder": _working_folder(),
        "teachers": None if setting.teachers is None else str(setting.teachers),
        "checkpoints": {
            "epochs": spec.resources.checkpoint_epochs,
            "minutes": spec.resources.checkpoint_minutes,
            "keep_all": spec.keep == "all",
        },
    }
    gpu, cpu = setting.gpu / spec.processes, spec.resources.cpu
    return lambda task: json.dumps({**task.to_json(), **common, "cpu": cpu, "gpu": _gpus(gpu, task.whole_card)})


def _working_folder() -> str | None:
    try:
        return os.getcwd()
    except FileNotFoundError:  # deleted meanwhile
        return None


def _gpus(gpu: float, whole_card: bool) -> float:
    """GPUs of a task's process: the trial's, or as many whole ones as that touches."""
    return float(math.ceil(gpu)) if whole_card else gpu


def _resources(spec: Spec, gpu: float) -> Callable[[Mapping[str, Any]], PlacementGroupFactory]:
    """What the tasks of a sweep take whose trials have ``gpu`` GPUs."""
    return functools.partial(_resources_of, cpu=spec.resources.cpu, gpu=gpu / spec.processes)


def _resources_of(config: Mapping[str, Any], cpu: float, gpu: float) -> PlacementGroupFactory:
    """What a task takes: a bundle for each of its processes, close together."""
    bundle = {"CPU": cpu, "GPU": _gpus(gpu, bool(config.get("whole_card")))}
    if config.get("accelerator"):
        bundle[f"{ACCELERATOR}{config['accelerator']}"] = 0.001
    return PlacementGroupFactory([bundle] * config.get("processes", 1), strategy="PACK")


def report_seconds(scheduled: bool, slots: int) -> float:
    """Seconds between the reports of a trial: at most REPORTS_A_SECOND from all together."""
    return max(0.0 if scheduled else UNHURRIED, slots / REPORTS_A_SECOND)


@contextlib.contextmanager
def _fitting(interrupt: Interrupt) -> Iterator[None]:
    if interrupt.signum is not None:
        raise Terminated if interrupt.signum == signal.SIGTERM else KeyboardInterrupt
    with interrupt.noted():
        yield


def _settle(conductor: Conductor) -> None:
    """Trials without a last word get one: a callback may have been missed."""
    for key, task in list(conductor.tasks.items()):
        state = conductor.state.trials.get(key)
        if task.kind != "train" or state is None or state.status not in LAST_WORDS:
            conductor.ended(key, {"status": "failed", "error": "its worker was lost"})
