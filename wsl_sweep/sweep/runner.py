"""Ray Tune as the hands of the conductor: one fit for all stages, so that workers stay warm between them."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import math
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from ray import tune
from ray.tune import Callback, PlacementGroupFactory, RunConfig, TuneConfig, Tuner
from ray.tune.search import Searcher

from wsl_sweep.errors import WslSweepError
from wsl_sweep.storage import Place
from wsl_sweep.sweep.conductor import Conductor, Task
from wsl_sweep.sweep.control import CONTROL, STOP
from wsl_sweep.sweep.flags import lower_flags, raise_flag
from wsl_sweep.sweep.lease import Lease
from wsl_sweep.sweep.ledger import LAST_WORDS
from wsl_sweep.sweep.schedulers import ArmScheduler, build_scheduler, rung_epochs
from wsl_sweep.sweep.trainable import tune_function

RowsListener = Callable[[str, int, list[dict[str, float]]], None]
TeacherListener = Callable[[str, int, int], None]

NO_LIMIT = 10**9

REPORTS_A_SECOND = 40.0
"""Of all trials together, beside the epochs at which a scheduler decides and the ends of trials."""

CONNECT_SECONDS = 10.0

SAVE_SECONDS = 30.0
"""What trials have to save, when a sweep is stopped."""

WATCH_SECONDS = 0.25
ASKED_SECONDS = {True: 1.0, False: 5.0}
"""Between two looks at what ``wsl-sweep stop`` asks: on a file system, in an object store."""

SLOTS_SECONDS = 5.0
"""Between two looks at how many trials fit."""

MEASURING_SECONDS = 600.0
"""How long ``precision: auto`` waits for a place on a cluster."""

ACCELERATOR = "accelerator_type:"
"""How Ray names the kind of a node's cards among its resources."""

AUTOSCALER = b"__autoscaling_status"
"""What an autoscaler keeps in the memory of Ray's head."""

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


@dataclass
class Interrupt:
    """SIGINT and SIGTERM as a flag, on which trials save and the fit ends; a second one ends the process at once."""

    signum: int | None = None
    fitting: bool = False
    _before: dict[int, Any] = field(default_factory=dict)

    def install(self) -> None:
        """Takes both signals; to be called again after ``ray.init``, which takes SIGTERM for itself."""
        for signum in (signal.SIGINT, signal.SIGTERM):
            handler = signal.signal(signum, self._handle)
            self._before.setdefault(signum, handler)
        self._before.setdefault(signal.SIGUSR1, signal.signal(signal.SIGUSR1, signal.SIG_IGN))

    def restore(self) -> None:
        """Gives the signals back."""
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        self._before.clear()

    def _handle(self, signum: int, _: FrameType | None) -> None:
        again = self.signum is not None
        self.signum = signum
        if again or not self.fitting:
            raise KeyboardInterrupt


class _TuneSearcher(Searcher):  # type: ignore[misc]
    """Ray Tune asks, the conductor answers. Nothing here may raise: Tune would run finished trials again."""

    def __init__(
        self,
        conductor: Conductor,
        hands: Hands,
        to_json: Callable[[Task], str],
        slots: Callable[[], int],
        problems: list[BaseException],
    ) -> None:
        super().__init__()
        self.conductor, self.hands, self.to_json = conductor, hands, to_json
        self.slots, self.problems = slots, problems
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
            "accelerator": self.conductor.accelerator_of(task),
        }

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Rows, progress of a teacher, and the outcome."""
        self._guarded(self._hear, trial_id, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A task without an outcome has been stopped early, or its worker has died."""
        self._guarded(self._complete, trial_id, error)

    def lost(self, trial_id: str, reason: str) -> None:
        """The worker of a task died."""
        self._guarded(self.conductor.lost, self.keys.get(trial_id, ""), reason)

    def stop_early(self, trial_id: str, result: dict[str, Any]) -> None:
        """A scheduler is about to stop a trial: the ledger hears it first."""
        self._guarded(self._stop, trial_id, result)
        self.stopped.add(trial_id)

    def _stop(self, trial_id: str, result: dict[str, Any]) -> None:
        row = json.loads(result["rows"])[-1]
        outcome = {
            "status": "pruned",
            "epochs": int(row["epoch"]),
            "metrics": {name: value for name, value in row.items() if name not in ("epoch", "timestamp")},
            "seconds": float(row["train/seconds"]),
            "teacher": json.loads(result.get("teacher") or "null"),
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

    def __init__(self, slots: int, cpu: float, gpu: float, accelerator: str | None) -> None:
        self._slots, self._asked = slots, (cpu, gpu, accelerator)
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


def start_ray(address: str | None, *, log_file: Path, insecure: bool = False) -> None:
    """Starts Ray on this machine, or joins the cluster at ``address``; see ``prepare_environment`` for its token.

    Raises:
        WslSweepError: a cluster without a token (and not ``insecure``), or one that cannot be reached.
    """
    import ray

    common: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "configure_logging": True,
        "ignore_reinit_error": True,
    }
    if address is None:
        ray.init(address="local", include_dashboard=False, **common)
    else:
        has_token = (
            os.environ.get("RAY_AUTH_TOKEN")
            or os.environ.get("RAY_AUTH_TOKEN_PATH")
            or (Path.home() / ".ray" / "auth_token").is_file()
        )
        if not insecure and not (os.environ.get("RAY_AUTH_MODE") == "token" and has_token):
            raise WslSweepError(
                f"the cluster at {address} would be joined without a token, and Ray listens on every address: set "
                "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH (the same token on every node), or say --insecure"
            )
        _check_answers(address)
        variables = {"TUNE_FUNCTION_THREAD_TIMEOUT_S": "600", "RAY_CHDIR_TO_TRIAL_DIR": "0"}
        try:
            ray.init(address=address, runtime_env={"env_vars": variables}, **common)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise WslSweepError(f"no Ray cluster answers at {address}: {str(error).splitlines()[0]}") from error
    _log_to(log_file)


def _check_answers(address: str) -> None:
    """Raises WslSweepError where nothing listens: Ray itself would try for a quarter of an hour."""
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdigit():
        return
    os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "1")  # for what listens and is no Ray
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise WslSweepError(f"no Ray cluster answers at {address}: {error.strerror or error}") from error


def _log_to(path: Path) -> None:
    """Ray's loggers write to a file of the sweep's, not to the terminal."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    for name in ("ray", "ray.tune", "ray.train", "ray.data"):
        logger = logging.getLogger(name)
        for old in logger.handlers[:]:
            logger.removeHandler(old)
        logger.setLevel(logging.INFO)
        logger.propagate = False
    logging.getLogger("ray").addHandler(handler)
    for name in ("ray.tune", "ray.train", "ray.data"):
        logging.getLogger(name).addHandler(handler)


def measure_on_cluster(
    asked: Mapping[str, Mapping[str, Any]], cpu: float, gpu: float, threads: int, folders: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Measures ``precision: auto`` where a trial would run; student's model → seconds of a step and what to choose.

    Raises WslSweepError where that cannot be done.
    """
    import ray

    from wsl_sweep.training.precision import measured_precision

    check_resources(cpu, gpu)
    measure = ray.remote(measured_precision).options(num_cpus=cpu, num_gpus=gpu, max_retries=0)
    found: dict[str, dict[str, Any]] = {}
    for model, config in asked.items():
        try:
            found[model] = ray.get(measure.remote(config, threads, gpu, list(folders)), timeout=MEASURING_SECONDS)
        except ray.exceptions.GetTimeoutError as error:
            raise WslSweepError(
                f"precision: auto could not be measured for {model}: the cluster had no room for it in "
                f"{MEASURING_SECONDS:g} s; set precision to float32 or bfloat16"
            ) from error
        except ray.exceptions.RayError as error:
            last = str(error).strip().splitlines()[-1]
            raise WslSweepError(
                f"precision: auto could not be measured for {model} on the cluster: {last}; "
                "set precision to float32 or bfloat16"
            ) from error
    return found


def room(cpu: float, gpu: float, accelerator: str | None, address: str | None) -> int:
    """How many trials fit at once now; 1 where none does on a cluster that can grow.

    Raises WslSweepError where a trial fits nowhere, and no node will come.
    """
    try:
        return check_resources(cpu, gpu, accelerator)
    except WslSweepError:
        if address is None or not _can_grow():
            raise
        return 1


def _can_grow() -> bool:
    """Whether an autoscaler starts nodes; Ray's head keeps a status of those that joined by hand, too."""
    import ray
    from ray.autoscaler.v2.utils import is_autoscaler_v2
    from ray.experimental.internal_kv import _internal_kv_get

    if is_autoscaler_v2(fetch_from_server=True):
        return True
    try:
        kinds = json.loads(_internal_kv_get(AUTOSCALER) or b"{}")["autoscaler_report"]["active_nodes"]
    except (ValueError, KeyError, TypeError):
        return False
    return not set(kinds) <= {f"node_{node['NodeID']}" for node in ray.nodes()}


def card_kinds() -> dict[str, float]:
    """The kinds of cards in the cluster, as Ray names them, and how many there are of each."""
    import ray

    kinds: dict[str, float] = {}
    for node in ray.nodes():
        for name in node["Resources"] if node["Alive"] else ():
            if name.startswith(ACCELERATOR):
                kind = name.removeprefix(ACCELERATOR)
                kinds[kind] = kinds.get(kind, 0.0) + node["Resources"].get("GPU", 0.0)
    return kinds


def check_resources(cpu: float, gpu: float, accelerator: str | None = None) -> int:
    """How many trials fit at once. Raises WslSweepError where one does not fit anywhere."""
    import ray

    if accelerator is not None and accelerator not in card_kinds():
        known = ", ".join(sorted(card_kinds())) or "none"
        raise WslSweepError(f"resources.accelerator is {accelerator}, and no node has one; there are: {known}")
    slots = 0
    largest = (0.0, 0.0)
    for node in ray.nodes():
        if not node["Alive"] or (accelerator is not None and f"{ACCELERATOR}{accelerator}" not in node["Resources"]):
            continue
        has = (node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0))
        largest = max(largest, has)
        by_gpu = has[1] / gpu if gpu else float("inf")
        slots += int(min(has[0] / cpu, by_gpu) + 1e-9)
    if slots == 0:
        raise WslSweepError(
            f"a trial asks for {cpu:g} CPUs and {gpu:g} GPUs, and no node has that (the largest: {largest[0]:g} CPUs, "
            f"{largest[1]:g} GPUs); change resources in the file"
        )
    return slots


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

    Raises:
        Exception: what went wrong in the driver itself (a full disk, say), after the workers have stopped.
    """
    spec, resources = conductor.spec, conductor.spec.resources
    problems: list[BaseException] = []
    epochs = spec.most_epochs()
    slots = _Slots(setting.slots, resources.cpu, setting.gpu, resources.accelerator)
    searcher = _TuneSearcher(conductor, hands, _task_writer(conductor, setting, epochs), slots, problems)
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
            tune.with_resources(tune_function, functools.partial(_resources_of, cpu=resources.cpu, gpu=setting.gpu)),
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
        with _fitting(interrupt), _Watch(conductor, setting, interrupt, problems):
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
        "storage": str(setting.folder if setting.folder.local is None else setting.folder.local.absolute()),
        "sweep_uuid": setting.uuid,
        "report_seconds": report_seconds(spec.scheduler.name != "none", slots),
        "rungs": rung_epochs(spec.scheduler, epochs),
        "metrics": list(spec.metrics),
        "scheduled": spec.scheduler.name != "none",
        "bank": dict(setting.bank),
        "import_folders": list(setting.import_folders),
        "driver_folder": _working_folder(),
        "teachers": None if setting.teachers is None else str(setting.teachers),
        "checkpoints": {
            "epochs": spec.resources.checkpoint_epochs,
            "minutes": spec.resources.checkpoint_minutes,
            "keep_all": spec.keep == "all",
        },
    }
    return lambda task: json.dumps({**task.to_json(), **common, "gpu": _gpus(setting.gpu, task.whole_card)})


def _working_folder() -> str | None:
    try:
        return os.getcwd()
    except FileNotFoundError:  # deleted meanwhile
        return None


def _gpus(gpu: float, whole_card: bool) -> float:
    """GPUs of a task: the trial's, or as many whole ones as that touches."""
    return float(math.ceil(gpu)) if whole_card else gpu


def _resources_of(config: Mapping[str, Any], cpu: float, gpu: float) -> PlacementGroupFactory:
    bundle = {"CPU": cpu, "GPU": _gpus(gpu, bool(config.get("whole_card")))}
    if config.get("accelerator"):
        bundle[f"{ACCELERATOR}{config['accelerator']}"] = 0.001
    return PlacementGroupFactory([bundle])


class _Watch:
    """A thread that sees why a fit should end, asks the trials to save, and ends it once they have.

    It only raises flags; the ledger is written where the sweep's script runs.
    """

    def __init__(
        self, conductor: Conductor, setting: Setting, interrupt: Interrupt, problems: list[BaseException]
    ) -> None:
        self._conductor, self._setting = conductor, setting
        self._interrupt, self._problems = interrupt, problems
        self._control = setting.folder / CONTROL
        self._pause = ASKED_SECONDS[setting.folder.local is not None]
        self._looked = 0.0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)

    def __enter__(self) -> _Watch:
        lower_flags(self._setting.uuid)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(timeout=10.0)
        lower_flags(self._setting.uuid)

    def _watch(self) -> None:
        while not self._end.wait(WATCH_SECONDS):
            reason = self._why_end()
            if reason is None:
                continue
            self._conductor.stop(reason)
            with contextlib.suppress(Exception):  # without Ray's head there is nobody to ask
                raise_flag(self._setting.uuid, reason)
            until = time.monotonic() + SAVE_SECONDS
            while time.monotonic() < until and self._conductor.training and self._lease_held():
                if self._end.wait(WATCH_SECONDS):
                    return
            if not self._end.wait(1.0):  # Tune ends by itself once it is told that nothing comes any more
                os.kill(os.getpid(), signal.SIGUSR1)  # its own way to end at once
            return

    def _why_end(self) -> str | None:
        if self._interrupt.signum is not None:
            return f"the sweep was stopped by {signal.Signals(self._interrupt.signum).name}"
        if not self._lease_held() or self._problems:
            return "the driver of the sweep cannot go on"
        if time.monotonic() - self._looked >= self._pause:
            self._looked = time.monotonic()
            self._heed()
        return self._conductor.stopping

    def _heed(self) -> None:
        """What other terminals ask for."""
        with contextlib.suppress(OSError, WslSweepError):
            for name in self._control.names():
                if name == STOP:
                    self._conductor.stop("the sweep was stopped by wsl-sweep stop")
                elif name.startswith(f"{STOP}-") and (trial_id := name.removeprefix(f"{STOP}-")):
                    self._conductor.unwanted.add(trial_id)
                    raise_flag(self._setting.uuid, "the trial was stopped by wsl-sweep stop", trial_id)

    def _lease_held(self) -> bool:
        lease = self._setting.lease
        if lease is None or lease.held:
            return True
        if not self._problems:
            try:
                lease.check()
            except WslSweepError as error:
                self._problems.append(error)
        return False


def report_seconds(scheduled: bool, slots: int) -> float:
    """Seconds between the reports of a trial: at most REPORTS_A_SECOND from all together."""
    return max(0.0 if scheduled else UNHURRIED, slots / REPORTS_A_SECOND)


@contextlib.contextmanager
def _fitting(interrupt: Interrupt) -> Iterator[None]:
    if interrupt.signum is not None:
        raise KeyboardInterrupt
    interrupt.fitting = True
    try:
        yield
    finally:
        interrupt.fitting = False


def _settle(conductor: Conductor) -> None:
    """Trials without a last word get one: a callback may have been missed."""
    for key, task in list(conductor.tasks.items()):
        state = conductor.state.trials.get(key)
        if task.kind != "train" or state is None or state.status not in LAST_WORDS:
            conductor.ended(key, {"status": "failed", "error": "its worker was lost"})
