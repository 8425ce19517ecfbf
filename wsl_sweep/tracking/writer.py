"""The one writer of a sweep: a thread that brings what the ledger and the trials say into MLflow.

Training never waits for it. Calls that fail because the server is away are tried again until the sweep ends; the
same batch twice leaves one point, since timestamps are the trial's own.
"""

from __future__ import annotations

import logging
import math
import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from wsl_sweep.spec.plan import Trial
from wsl_sweep.spec.recipes import NAMED
from wsl_sweep.spec.run import flatten
from wsl_sweep.sweep.ledger import Event
from wsl_sweep.tracking.settings import Tracking, redact

TEACHER_TAGS = {"computed": "teacher_forwards", "found": "teacher_outputs_found"}
METRICS_A_BATCH = 1000
PARAMS_A_BATCH = 100
STATUS = {"finished": "FINISHED", "pruned": "KILLED", "failed": "FAILED", "killed": "KILLED"}
SWEEP_STATUS = {"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}

Row = Mapping[str, float]
log = logging.getLogger("wsl_sweep.tracking")


class MlflowWriter:
    """Writes one sweep's parent run and its trials' child runs.

    Give ``on_event`` and ``on_rows`` to the sweep as listeners; call ``close`` at its end.

    Args:
        tracking: server and experiment.
        sweep: name, ``uuid``, ``description``, ``git_commit``, ``device`` of the sweep.
    """

    def __init__(self, tracking: Tracking, sweep: Mapping[str, str]) -> None:
        self.tracking, self.sweep = tracking, dict(sweep)
        self.run_ids: dict[str, str] = {}
        self.parent_id: str | None = None
        self.problem: str | None = None
        self._queue: queue.Queue[Callable[[], None]] = queue.Queue()
        self._creating: set[str] = set()
        self._waiting: dict[str, list[Row]] = {}
        self._waiting_lock = threading.Lock()
        self._trials: dict[str, Trial] = {}
        self._refused = False
        self._deadline = math.inf
        self._client: Any = None
        self._experiment_id: str | None = None
        self._thread = threading.Thread(target=self._work, name="mlflow-writer", daemon=True)

    def start(self) -> None:
        """Has the thread find or make experiment and parent run, before anything else is written."""
        # A server that is away must not hold the writer for MLflow's default of minutes a call.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
        self._queue.put(self._connect)
        if not self._thread.is_alive():
            self._thread.start()

    def warm_up(self) -> None:
        """Starts the thread with the import alone, beside whatever else is starting; nothing is written yet."""
        self._queue.put(_import_mlflow)
        self._thread.start()

    def on_event(self, event: Event) -> None:
        """A listener of the conductor's."""
        self._queue.put(lambda: self._event(event))

    def on_rows(self, trial_id: str, attempt: int, rows: list[dict[str, float]]) -> None:
        """Rows of epochs of a trial. What comes while the writer is busy goes to the server in one call."""
        with self._waiting_lock:
            waiting = self._waiting.setdefault(trial_id, [])
            waiting += rows
            first = len(waiting) == len(rows)
        if first:
            self._queue.put(lambda: self._waiting_rows(trial_id))

    def describe(self, text: str, metrics: Mapping[str, float]) -> None:
        """Sets the parent run's description (Markdown) and metrics."""
        self._queue.put(lambda: self._describe(text, metrics))

    def flush(self, seconds: float = 30.0) -> bool:
        """Waits until everything so far is written; False where it was not in time."""
        done = threading.Event()
        self._queue.put(done.set)
        return done.wait(seconds)

    def close(self, status: str, seconds: float = 30.0) -> bool:
        """Ends the parent run and the thread. False where something could not be written in time.

        Args:
            status: of the sweep: finished, failed or stopped.
            seconds: how long to wait for the server at most.
        """
        self._queue.put(lambda: self._terminate(self.parent_id, SWEEP_STATUS[status], time.time()))
        in_time = self.flush(seconds)
        self._deadline = 0.0
        self._queue.put(_stop)
        self._thread.join(timeout=5.0)
        return in_time and self.problem is None

    # --- the thread ----------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while (operation := self._queue.get()) is not _stop:
            if not self._until_done(operation):
                return

    def _until_done(self, operation: Callable[[], None]) -> bool:
        """Tries again while the server is away; what it refuses is noted and left out.

        False where the server did not come back before the sweep's end: what is left in the queue stays there.
        """
        pause = 0.5
        while True:
            try:
                operation()
            except Exception as error:
                first = str(error).splitlines()[0] if str(error) else ""
                self.problem = redact(f"{type(error).__name__}: {first}")[:200]
                log.warning("%s", self.problem)
                # Without experiment and parent run nothing can be written; and two sweeps that make the schema of a
                # new database at the same moment are in each other's way only once.
                if not (_temporary(error) or operation == self._connect):
                    self._refused = True
                    return True
                if time.time() > self._deadline:
                    return False
                time.sleep(pause)
                pause = min(pause * 2, 10.0)
                continue
            if not self._refused:
                self.problem = None  # the server was away, and is back
            return True

    def _connect(self) -> None:
        import mlflow
        from mlflow.exceptions import MlflowException

        logging.getLogger("mlflow").setLevel(logging.ERROR)
        logging.getLogger("alembic").setLevel(logging.ERROR)
        self._client = client = mlflow.MlflowClient(tracking_uri=self.tracking.uri)
        experiment = client.get_experiment_by_name(self.tracking.experiment)
        if experiment is None:
            try:
                self._experiment_id = client.create_experiment(self.tracking.experiment)
            except MlflowException:  # made by somebody else since
                experiment = client.get_experiment_by_name(self.tracking.experiment)
                if experiment is None:
                    raise
        if experiment is not None:
            if experiment.lifecycle_stage == "deleted":
                client.restore_experiment(experiment.experiment_id)
            self._experiment_id = experiment.experiment_id
        self._find_runs()
        if self.parent_id is None:
            tags = {**self._common_tags(), "mlflow.note.content": self.sweep["description"]}
            run = client.create_run(self._experiment_id, run_name=self.sweep["name"], tags=tags)
            self.parent_id = run.info.run_id
        else:
            client.update_run(self.parent_id, status="RUNNING")

    def _find_runs(self) -> None:
        """The runs of this sweep that exist already, by trial id."""
        token = None
        while True:
            page = self._client.search_runs(
                [self._experiment_id],
                filter_string=f"tags.sweep_uuid = '{self.sweep['uuid']}'",
                max_results=1000,
                page_token=token,
            )
            for run in page:
                if "mlflow.parentRunId" in run.data.tags:
                    self.run_ids.setdefault(run.data.tags.get("trial_id", ""), run.info.run_id)
                else:
                    self.parent_id = run.info.run_id
            token = page.token
            if not token:
                return

    def _common_tags(self) -> dict[str, str]:
        return {
            "sweep": self.sweep["name"],
            "sweep_uuid": self.sweep["uuid"],
            "git_commit": self.sweep["git_commit"],
            "device": self.sweep["device"],
            "mlflow.source.name": "wsl-sweep",
            "mlflow.source.type": "JOB",
        }

    def _event(self, event: Event) -> None:
        kind, trial_id = event["event"], event.get("trial_id", "")
        if kind == "proposed":
            trial = Trial.from_json(event["trial"])
            known = self._trials.get(trial.trial_id)
            self._trials[trial.trial_id] = trial
            if known is not None and trial.trial_id in self.run_ids:
                self._client.set_tag(self.run_ids[trial.trial_id], "variants", ",".join(trial.variants))
        elif kind == "started":
            self._start_run(trial_id, event["time"])
        elif kind == "evaluated":
            row = {**event["metrics"], "epoch": self._epochs(trial_id), "timestamp": event["time"]}
            self._rows(trial_id, [row])
        elif kind in STATUS:
            self._end_run(trial_id, event)

    def _epochs(self, trial_id: str) -> float:
        return float(self._trials[trial_id].epochs)

    def _start_run(self, trial_id: str, when: float) -> None:
        from mlflow.entities import Param

        trial = self._trials[trial_id]
        run_id = self.run_ids.get(trial_id)
        if run_id is None and trial_id in self._creating:
            self._find_runs()  # a call that seemed to fail may have made it
            run_id = self.run_ids.get(trial_id)
        self._creating.add(trial_id)
        if run_id is not None:
            self._client.update_run(run_id, status="RUNNING")
            return
        tags = {
            **self._common_tags(),
            "mlflow.parentRunId": str(self.parent_id),
            "stage": trial.stage,
            "arm": trial.arm or "",
            "variants": ",".join(trial.variants),
            "seed": str(trial.seed),
            "trial_id": trial_id,
        }
        run = self._client.create_run(
            self._experiment_id, start_time=int(when * 1000), run_name=run_name(trial), tags=tags
        )
        self.run_ids[trial_id] = run.info.run_id
        self._creating.discard(trial_id)
        params = {**flatten(trial.config), "part": trial.part, "threads": trial.threads}
        entities = [Param(key, str(value)[:6000]) for key, value in params.items()]
        for start in range(0, len(entities), PARAMS_A_BATCH):
            self._client.log_batch(run.info.run_id, params=entities[start : start + PARAMS_A_BATCH])

    def _waiting_rows(self, trial_id: str) -> None:
        """Writes what waits of a trial, and what comes meanwhile; what is refused waits no longer."""
        refused: Exception | None = None
        while rows := self._peek(trial_id):
            try:
                self._rows(trial_id, rows)
            except Exception as error:
                if _temporary(error):
                    raise
                refused = error
            self._drop(trial_id, len(rows))
        if refused is not None:
            raise refused

    def _peek(self, trial_id: str) -> list[Row]:
        with self._waiting_lock:
            return list(self._waiting.get(trial_id, ()))

    def _drop(self, trial_id: str, count: int) -> None:
        with self._waiting_lock:
            left = self._waiting.pop(trial_id)[count:]
            if left:
                self._waiting[trial_id] = left

    def _rows(self, trial_id: str, rows: Iterable[Row]) -> None:
        from mlflow.entities import Metric

        run_id = self.run_ids.get(trial_id)
        if run_id is None:
            return
        metrics = [
            Metric(name, value, int(row["timestamp"] * 1000), int(row["epoch"]))
            for row in rows
            for name, value in row.items()
            if name not in ("epoch", "timestamp") and math.isfinite(value)
        ]
        for start in range(0, len(metrics), METRICS_A_BATCH):
            self._client.log_batch(run_id, metrics=metrics[start : start + METRICS_A_BATCH])

    def _end_run(self, trial_id: str, event: Event) -> None:
        from mlflow.entities import RunTag

        run_id = self.run_ids.get(trial_id)
        if run_id is None:
            if event["event"] == "killed":
                return  # it never began
            self._start_run(trial_id, event["time"])
            run_id = self.run_ids[trial_id]
        tags = {
            TEACHER_TAGS[name]: str(count)
            for name, count in (event.get("teacher") or {}).items()
            if name in TEACHER_TAGS
        }
        if event["event"] == "pruned":
            tags["pruned"] = "true"
        if event.get("error"):
            tags["error"] = redact(str(event["error"]))[:5000]
        if event.get("device") not in (None, self.sweep["device"]):
            tags["device"] = str(event["device"])
        if tags:
            self._client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])
        self._terminate(run_id, STATUS[event["event"]], event["time"])

    def _terminate(self, run_id: str | None, status: str, when: float) -> None:
        if run_id is not None:
            self._client.set_terminated(run_id, status, end_time=int(when * 1000))

    def _describe(self, text: str, metrics: Mapping[str, float]) -> None:
        self._client.set_tag(self.parent_id, "mlflow.note.content", text)
        now = int(time.time() * 1000)
        for name, value in metrics.items():
            if math.isfinite(value):
                self._client.log_metric(self.parent_id, name, value, timestamp=now, step=0)


def _import_mlflow() -> None:
    import mlflow  # noqa: F401


def _stop() -> None:
    """The last operation of the thread."""


def _temporary(error: Exception) -> bool:
    """Whether the server, or the way to it, may be better later."""
    from mlflow.exceptions import MlflowException, RestException

    if isinstance(error, RestException):
        return error.error_code in ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED")
    if isinstance(error, MlflowException):
        return error.error_code in ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE")
    return isinstance(error, OSError)


def run_name(trial: Trial) -> str:
    """What a person reads in MLflow's list: variants, what sets the trial apart, seed."""
    known = NAMED.get(trial.variants[0], {})
    shown = [
        f"{path.rsplit('.', 1)[-1]}={_short(value)}"
        for path, value in trial.overrides.items()
        if known.get(path) != value
    ]
    return " ".join(["+".join(trial.variants), *shown[:4], f"seed={trial.seed}"])[:250]


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def log_student(
    tracking: Tracking, parent_id: str, student: Any, example: Any, *, artifact: str = "best_student"
) -> str:
    """Logs a student to the parent run as an MLflow model that loads back and predicts; returns its URI.

    Args:
        tracking: the server.
        parent_id: the sweep's run.
        student: a torch module in eval mode, on the CPU.
        example: (N >= 2, C, H, W) float32 numpy pictures: two rows leave the batch size free.
        artifact: the model's name.
    """
    import mlflow
    import numpy as np
    import torch
    from mlflow.models import infer_signature

    client = mlflow.MlflowClient(tracking_uri=tracking.uri)
    logged = client.get_run(parent_id).outputs
    if logged is not None and logged.model_outputs:
        return f"models:/{logged.model_outputs[0].model_id}"
    with torch.no_grad():
        prediction = student(torch.from_numpy(example)).numpy()
    signature = infer_signature(example.astype(np.float32), prediction)
    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(tracking.uri)  # which sets the environment variable too
    try:
        with mlflow.start_run(run_id=parent_id):
            info = mlflow.pytorch.log_model(
                student,
                name=artifact,
                signature=signature,
                input_example=example,
                pip_requirements=[f"torch=={torch.__version__.split('+')[0]}"],
                serialization_format="pt2",
            )
        return str(info.model_uri)
    finally:
        mlflow.set_tracking_uri(before)
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        if before is not None:
            os.environ["MLFLOW_TRACKING_URI"] = before
