"""What a worker does: train a teacher, train a student, or evaluate students. A function for Ray Tune."""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import socket
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from wsl_sweep.errors import DamagedStudentError, ProcessLostError, StorageError, WslSweepError
from wsl_sweep.spec.plan import Trial
from wsl_sweep.storage import Place, place
from wsl_sweep.sweep.elsewhere import OUTCOME, newest_attempt
from wsl_sweep.sweep.helpers import find_users_code, group_of
from wsl_sweep.training.files import REGULARIZATION_SAMPLES, STUDENT, TEACHER_LOGITS, VALIDATION_LOGITS
from wsl_sweep.training.lost import GONE

Report = Callable[[dict[str, Any]], None]
Facts = dict[str, Callable[[], Any]]
"""What is told of a task however it ends: name → what gives it at the end."""

Look = Callable[[], str | None]
"""Why the task should end, or None."""

OUT_OF_MEMORY = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
"""What other parts of CUDA than torch's allocator say where a card is too small."""

_SEEN: set[str] = set()
"""Kinds of tasks that this process has done."""


def tune_function(config: dict[str, Any]) -> None:
    """The Ray Tune trainable: one task of the conductor's."""
    from ray import tune

    from wsl_sweep.sweep.flags import look_of

    task = json.loads(config["task"])
    run_task(task, tune.report, look_of(task["sweep_uuid"], [trial["trial_id"] for trial in task["trials"]]))


def run_task(task: Mapping[str, Any], report: Report, look: Look = lambda: None) -> None:
    """Does a task and reports rows of epochs as they come and, last of all, its outcome.

    What goes wrong inside becomes an outcome with its reason; the worker stays as it is and takes the next task. Only
    an error of the device leaves the function, so that Ray takes the whole process away, and the loss of another
    process of the trial, which ends as if this one had died.

    Args:
        task: a ``Task`` of the conductor as plain data, with what ``runner.fit`` adds: ``storage``, ``import_folders``,
            ``driver_folder``, ``bank``, ``cpu`` and ``gpu`` (of each process), ``workers``, ``metrics`` (that a
            scheduler reads), ``report_seconds`` (epochs are reported together, at most this often), ``rungs`` (epochs
            that are reported in any case), ``scheduled`` (whether any report may be the last), ``sweep_uuid``,
            ``checkpoints`` (the fields of ``CheckpointSettings``) and ``teachers`` (where a cluster keeps them, or
            None).
        report: ``tune.report``, or what stands for it.
        look: asked between steps whether to save and end.
    """
    folder = place(task["storage"])
    started = time.perf_counter()
    find_users_code(task)
    log = folder / "teachers.log" if task["kind"] != "train" else trial_folder(folder, task) / "log.txt"
    facts: Facts = {}
    broken: Exception | None = None
    try:
        with _output_to(log):
            try:
                outcome = _DO[task["kind"]](task, report, facts, look)
            except ProcessLostError as error:
                print(f"cannot go on: {error}", flush=True)
                raise
            except Exception as error:  # not SystemExit, by which Tune stops a trial in ``report``
                outcome = _outcome_of(error)
                if outcome["status"] == "failed" and "CUDA" in str(error):
                    broken = error
            finally:
                _clean_up(str(task["kind"]))
            outcome |= {name: fact() for name, fact in facts.items()}
            outcome["seconds"] = time.perf_counter() - started
            if task["kind"] == "train" and outcome["status"] == "failed":
                _leave_word(trial_folder(folder, task), task, outcome)
    except (OSError, StorageError) as error:  # the log itself cannot be written
        outcome = {"status": "gone", "error": str(error), "seconds": time.perf_counter() - started}
    report(outcome.pop("report", {}) | {"outcome": json.dumps(outcome)})
    if broken is not None:
        raise broken


def _outcome_of(error: Exception) -> dict[str, Any]:
    """What an error means for the task: stopped, the storage gone, a GPU too small, or failed."""
    from wsl_sweep.training.attempts import Stopped

    if isinstance(error, Stopped):
        print(f"stopped: {error}", flush=True)
        return {"status": "killed", "error": str(error)}
    if isinstance(error, StorageError):
        print(f"cannot go on: {error}", flush=True)
        return {"status": "gone", "error": str(error)}
    if isinstance(error, WslSweepError):
        print(f"failed: {error}", flush=True)
        return {"status": "failed", "error": str(error)}
    traceback.print_exc()
    told = f"{type(error).__name__}: {_first_line(error)}"
    if isinstance(error, OSError) and error.errno in GONE:
        return {"status": "gone", "error": told}
    if type(error).__name__ == "OutOfMemoryError" or any(words in str(error) for words in OUT_OF_MEMORY):
        return {"status": "out_of_memory", "error": told}
    return {"status": "failed", "error": told}


def _leave_word(folder: Place, task: Mapping[str, Any], outcome: Mapping[str, Any]) -> None:
    """The worker's last word, on the storage: its driver may not be there to hear it."""
    kept = {key: value for key, value in outcome.items() if key != "report"}
    (folder / f"attempt-{task['attempt']}" / OUTCOME).write_json({**kept, "attempt": task["attempt"]})


def _clean_up(kind: str) -> None:
    """Frees what the task has left in cycles.

    What is there after the first task of a kind is torch's, Ray's and ours, and stays: looking through it again after
    every trial took nine tenths of a short one's time.
    """
    gc.collect()
    if kind not in _SEEN:
        if not _SEEN:
            atexit.register(gc.unfreeze)  # libraries look at the end for what was not freed
        _SEEN.add(kind)
        gc.freeze()


def trial_folder(sweep_folder: Place, task: Mapping[str, Any]) -> Place:
    """``trials/<trial id>`` of a training task."""
    return sweep_folder / "trials" / str(task["trials"][0]["trial_id"])


def _train(task: Mapping[str, Any], report: Report, facts: Facts, look: Look) -> dict[str, Any]:
    from wsl_sweep.training import TrialTraining
    from wsl_sweep.training.attempts import Attempts, CheckpointSettings

    trial = Trial.from_json(task["trials"][0])
    folder = trial_folder(place(task["storage"]), task)
    (folder / "config.json").write_json(trial.to_json())
    print(
        f"trial {trial.trial_id}, attempt {task['attempt']}: {trial.stage} {', '.join(trial.variants)}, "
        f"process {os.getpid()} on {socket.gethostname()}",
        flush=True,
    )
    rows_file = folder / f"attempt-{task['attempt']}" / "rows.json"
    check = _check_of(look)
    check()
    job, store = _job(task, trial), _teachers(task)
    with (
        group_of(task, job, store, "trial") as group,
        TrialTraining(
            job,
            store,
            check=check,
            attempts=Attempts(folder),
            attempt=task["attempt"],
            trial_id=trial.trial_id,
            checkpoints=CheckpointSettings(**task["checkpoints"]),
            group=group,
        ) as training,
    ):
        facts["teacher"] = training.teacher_facts
        facts["fingerprint"] = lambda: training.fingerprint
        facts["device"] = lambda: training.device
        facts["examples"] = lambda: training.examples
        outcome = _taken_over(task, trial, folder, training)
        if outcome is None:
            unsent = _train_on(task, training, report, facts, rows_file)
            outcome = _publish(task, trial, folder, training, unsent)
        else:
            facts["examples"] = lambda: training.examples_after(trial.epochs)  # what it took there
    outcome |= {name: fact() for name, fact in facts.items()}
    _leave_word(folder, task, outcome)
    if not task["checkpoints"]["keep_all"]:
        _delete_checkpoints(folder, task["attempt"])
    return outcome


def _train_on(
    task: Mapping[str, Any], training: Any, report: Report, facts: Facts, rows_file: Place
) -> list[dict[str, float]]:
    """Trains to the last epoch, reporting on the way; returns the rows that were not reported yet.

    A scheduler may end the trial in any report: each has the facts so far, and the rows are kept before.
    """
    unsent = list(training.rows)  # of an earlier attempt: its driver may not have heard of all of them
    if unsent:
        print(f"goes on after epoch {len(unsent)}, from attempt {training.resumed[0]}", flush=True)
    last_report = time.perf_counter()
    for row in training:
        unsent.append(row)
        print(" ".join(f"{name}={value:.6g}" for name, value in row.items()), flush=True)
        now = time.perf_counter()
        due = row["epoch"] in task["rungs"] or now - last_report >= task["report_seconds"]
        if due and row["epoch"] < training.epochs:
            if task["scheduled"]:
                rows_file.write(json.dumps(training.rows).encode(), lasting=False)
            report(_told(task, row, unsent) | {"facts": json.dumps({name: fact() for name, fact in facts.items()})})
            unsent, last_report = [], now
    return unsent


def _publish(
    task: Mapping[str, Any], trial: Trial, folder: Place, training: Any, unsent: list[dict[str, float]]
) -> dict[str, Any]:
    """What a finished trial leaves, and its outcome. A worker that was given up for lost leaves nothing."""
    if newest_attempt(folder) > task["attempt"]:
        raise WslSweepError(f"attempt {task['attempt']} was given up, and another one has begun")
    training.save(folder)
    training.save_teacher_logits(place(task["storage"]) / TEACHER_LOGITS)
    rows = training.rows
    (folder / f"attempt-{task['attempt']}" / "rows.json").write_json(rows)
    return {
        "status": "finished",
        "epochs": len(rows),
        "metrics": _metrics_of(rows[-1]),
        "report": _told(task, rows[-1], unsent),
    }


def _metrics_of(row: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in row.items() if name not in ("epoch", "timestamp")}


def _taken_over(task: Mapping[str, Any], trial: Trial, folder: Place, training: Any) -> dict[str, Any] | None:
    """The outcome of the same trial in another sweep, its files brought here; None where there is none."""
    from wsl_sweep.training.attempts import Attempts

    for one in task["elsewhere"]:
        outcome, other = one["outcome"], place(one["folder"])
        if outcome.get("fingerprint") != training.fingerprint or (not one["student"] and trial.stage != "search"):
            continue
        rows = Attempts(other).rows(one["attempt"])
        if len(rows) != trial.epochs or _metrics_of(rows[-1]) != outcome["metrics"]:
            continue
        try:
            for name in (STUDENT, VALIDATION_LOGITS) if one["student"] else ():
                (folder / name).write((other / name).read_bytes())
        except FileNotFoundError:
            continue  # tidied away at this moment
        if one["student"]:
            _bring(other, folder, REGULARIZATION_SAMPLES)
        own, of_teacher = folder.parent.parent / TEACHER_LOGITS, training.teacher_logits_name()
        if of_teacher is not None and not (own / of_teacher).exists():
            _bring(other.parent.parent / TEACHER_LOGITS, own, of_teacher)
        (folder / f"attempt-{task['attempt']}" / "rows.json").write_json(rows)
        print(f"taken over from the sweep {one['sweep']}", flush=True)
        return {
            "status": "finished",
            "epochs": len(rows),
            "metrics": dict(outcome["metrics"]),
            "taken_over": {"sweep": one["sweep"], "attempt": one["attempt"]},
            "report": _told(task, rows[-1], list(rows)),
        }
    return None


def _bring(there: Place, here: Place, name: str) -> None:
    """Brings a file of another sweep here, if it is there: older sweeps have none."""
    with contextlib.suppress(FileNotFoundError):
        (here / name).write((there / name).read_bytes())


def _check_of(look: Look) -> Callable[[], None]:
    from wsl_sweep.training.attempts import Stopped

    def check() -> None:
        reason = look()
        if reason is not None:
            raise Stopped(reason)

    return check


def _delete_checkpoints(folder: Place, last: int) -> None:
    """Those of a finished trial are of no more use; that they could not be deleted is no harm.

    Not those after attempt ``last``: a worker that was given up for lost may still come to its end.
    """
    with contextlib.suppress(StorageError, OSError):
        for attempt in folder.names():
            number = attempt.removeprefix("attempt-")
            if attempt.startswith("attempt-") and number.isdigit() and int(number) <= last:
                for name in (folder / attempt).names():
                    if name.startswith("epoch-"):
                        (folder / attempt / name).delete()


def _told(task: Mapping[str, Any], row: Mapping[str, float], unsent: list[dict[str, float]]) -> dict[str, Any]:
    """A report: the rows, and apart from them what a scheduler reads. Ray keeps statistics of every number it sees."""
    read = {name: row[name] for name in ("epoch", *task["metrics"]) if name in row}
    return {**read, "rows": json.dumps(unsent)}


def _teacher(task: Mapping[str, Any], report: Report, facts: Facts, look: Look) -> dict[str, Any]:
    from wsl_sweep.training import train_teacher
    from wsl_sweep.training.attempts import CheckpointSettings

    trial = Trial.from_json(task["trials"][0])
    job = _job(task, trial)
    epochs = int(trial.config["teacher"]["schedule"]["epochs"])
    last_report = [time.perf_counter()]

    def on_epoch(row: dict[str, float]) -> None:
        print(" ".join(f"{name}={value:.6g}" for name, value in row.items()), flush=True)
        if time.perf_counter() - last_report[0] >= task["report_seconds"]:
            report({"teacher_epoch": row["epoch"], "teacher_epochs": epochs})
            last_report[0] = time.perf_counter()

    store = _teachers(task)
    with group_of(task, job, store, "teacher") as group:
        card = train_teacher(
            job,
            store,
            on_epoch=on_epoch,
            check=_check_of(look),
            checkpoints=CheckpointSettings(**task["checkpoints"]),
            group=group,
        )
    return {"status": "finished", "card": {"metrics": (card or {}).get("metrics")}}


def _teachers(task: Mapping[str, Any]) -> Any:
    from wsl_sweep.training import TeacherStore

    return TeacherStore(shared=place(task["teachers"]) if task.get("teachers") else None)


def _evaluate(task: Mapping[str, Any], report: Report, facts: Facts, look: Look) -> dict[str, Any]:
    from wsl_sweep.training import evaluate_on_test

    evaluated: dict[str, dict[str, float]] = {}
    unreadable: dict[str, str] = {}
    check = _check_of(look)
    for data in task["trials"]:
        check()
        trial = Trial.from_json(data)
        job = _job(task, trial)
        folder = place(task["storage"]) / "trials" / trial.trial_id
        try:
            evaluated[trial.trial_id] = evaluate_on_test(job, folder)
        except DamagedStudentError as error:
            print(f"{trial.trial_id}: {error}", flush=True)
            unreadable[trial.trial_id] = str(error)
    return {"status": "finished", "evaluated": evaluated, "unreadable": unreadable}


_DO: dict[str, Callable[[Mapping[str, Any], Report, Facts, Look], dict[str, Any]]] = {
    "train": _train,
    "teacher": _teacher,
    "evaluate": _evaluate,
}


def _job(task: Mapping[str, Any], trial: Trial) -> Any:
    from wsl_sweep.training import BankSettings, Job

    part: Any = trial.part
    bank = BankSettings(**task["bank"])
    config = dict(trial.config)
    return Job(config, part, trial.threads, bank, task["gpu"], task["workers"], processes=trial.processes)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else "no message"


@contextlib.contextmanager
def _output_to(log: Place) -> Iterator[None]:
    """What this process prints goes to the end of ``log``; the file descriptors stay Ray's.

    In an object store nothing can be added to a file: there it is written anew when the task ends.
    """
    path = log.local
    if path is None:
        with tempfile.TemporaryDirectory(prefix="wsl-sweep-log-") as folder:
            near = Path(folder) / log.name
            with contextlib.suppress(OSError):
                near.write_bytes(log.read_bytes())
            try:
                with _output_to(place(near)):
                    yield
            finally:
                log.write(near.read_bytes())
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a", encoding="utf-8")
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error
    with file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        yield
