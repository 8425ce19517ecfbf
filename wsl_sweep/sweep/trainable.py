"""What a worker does: train a teacher, train a student, or evaluate students. A function for Ray Tune."""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from wsl_sweep.errors import TrialError, WslSweepError
from wsl_sweep.spec.plan import Trial
from wsl_sweep.user_code import search_in

Report = Callable[[dict[str, Any]], None]
Facts = dict[str, Callable[[], Any]]
"""What is told of a task however it ends: name → what gives it at the end."""

_SEEN: set[str] = set()
"""Kinds of tasks that this process has done."""


def tune_function(config: dict[str, Any]) -> None:
    """The Ray Tune trainable: one task of the conductor's."""
    from ray import tune

    run_task(json.loads(config["task"]), tune.report)


def run_task(task: Mapping[str, Any], report: Report) -> None:
    """Does a task and reports rows of epochs as they come and, last of all, its outcome.

    What goes wrong inside becomes an outcome with its reason; the worker stays as it is and takes the next task. Only
    an error of the device leaves the function, so that Ray takes the whole process away.

    Args:
        task: a ``Task`` of the conductor as plain data, with what ``runner.fit`` adds: ``storage``, ``import_folders``,
            ``driver_folder``, ``bank``, ``gpu``, ``metrics`` (that a scheduler reads), ``report_seconds`` (epochs are
            reported together, at most this often) and ``rungs`` (epochs that are reported in any case).
        report: ``tune.report``, or what stands for it.
    """
    folder = Path(task["storage"])
    started = time.perf_counter()
    if task.get("driver_folder") not in task.get("import_folders", ()):
        # Ray lets workers look in the driver's folder first; of a resumed sweep that may be any folder.
        sys.path[:] = [entry for entry in sys.path if entry not in ("", task.get("driver_folder"))]
    search_in(task.get("import_folders", ()))
    log = folder / "teachers.log" if task["kind"] != "train" else trial_folder(folder, task) / "log.txt"
    facts: Facts = {}
    with _output_to(log):
        try:
            outcome = _DO[task["kind"]](task, report, facts)
        except WslSweepError as error:
            print(f"failed: {error}", flush=True)
            outcome = {"status": "failed", "error": str(error)}
        except Exception as error:  # not SystemExit, by which Tune stops a trial in ``report``
            traceback.print_exc()
            outcome = {"status": "failed", "error": f"{type(error).__name__}: {_first_line(error)}"}
            if "CUDA" in str(error):
                report({"outcome": json.dumps(outcome | {name: fact() for name, fact in facts.items()})})
                raise
        finally:
            _clean_up(str(task["kind"]))
        outcome |= {name: fact() for name, fact in facts.items()}
        outcome["seconds"] = time.perf_counter() - started
    report(outcome.pop("report", {}) | {"outcome": json.dumps(outcome)})


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


def trial_folder(sweep_folder: Path, task: Mapping[str, Any]) -> Path:
    """``trials/<trial id>`` of a training task."""
    return sweep_folder / "trials" / str(task["trials"][0]["trial_id"])


def _train(task: Mapping[str, Any], report: Report, facts: Facts) -> dict[str, Any]:
    from wsl_sweep.files import write_json
    from wsl_sweep.training import TeacherStore, TrialTraining
    from wsl_sweep.training.fingerprint import fingerprint, own_code

    trial = Trial.from_json(task["trials"][0])
    folder = trial_folder(Path(task["storage"]), task)
    rows_file = folder / f"attempt-{task['attempt']}" / "rows.json"
    write_json(folder / "config.json", trial.to_json())
    print(
        f"trial {trial.trial_id}, attempt {task['attempt']}: {trial.stage} {', '.join(trial.variants)}, "
        f"process {os.getpid()} on {socket.gethostname()}",
        flush=True,
    )
    rows: list[dict[str, float]] = []
    unsent: list[dict[str, float]] = []
    last_report = time.perf_counter()
    with TrialTraining(_job(task, trial), TeacherStore()) as training:
        facts["teacher"] = training.teacher_facts
        for row in training:
            rows.append(row)
            unsent.append(row)
            print(" ".join(f"{name}={value:.6g}" for name, value in row.items()), flush=True)
            if len(rows) == training.epochs:
                training.save(folder)
                break
            now = time.perf_counter()
            if row["epoch"] in task["rungs"] or now - last_report >= task["report_seconds"]:
                write_json(rows_file, rows)
                report(_told(task, row, unsent) | {"teacher": json.dumps(training.teacher_facts())})
                unsent, last_report = [], now
    write_json(rows_file, rows)
    metrics = {name: value for name, value in rows[-1].items() if name not in ("epoch", "timestamp")}
    return {
        "status": "finished",
        "epochs": len(rows),
        "metrics": metrics,
        "device": training.device,
        "fingerprint": fingerprint(
            training.device, training.data.digest, training.teacher_digest, own_code(trial.config)
        ),
        "report": _told(task, rows[-1], unsent),
    }


def _told(task: Mapping[str, Any], row: Mapping[str, float], unsent: list[dict[str, float]]) -> dict[str, Any]:
    """A report: the rows, and apart from them what a scheduler reads. Ray keeps statistics of every number it sees."""
    read = {name: row[name] for name in ("epoch", *task["metrics"]) if name in row}
    return {**read, "rows": json.dumps(unsent)}


def _teacher(task: Mapping[str, Any], report: Report, facts: Facts) -> dict[str, Any]:
    from wsl_sweep.training import TeacherStore, train_teacher

    trial = Trial.from_json(task["trials"][0])
    job = _job(task, trial)
    epochs = int(trial.config["teacher"]["schedule"]["epochs"])
    last_report = [time.perf_counter()]

    def on_epoch(row: dict[str, float]) -> None:
        print(" ".join(f"{name}={value:.6g}" for name, value in row.items()), flush=True)
        if time.perf_counter() - last_report[0] >= task["report_seconds"]:
            report({"teacher_epoch": row["epoch"], "teacher_epochs": epochs})
            last_report[0] = time.perf_counter()

    card = train_teacher(job, TeacherStore(), on_epoch=on_epoch)
    return {"status": "finished", "card": {"metrics": (card or {}).get("metrics")}}


def _evaluate(task: Mapping[str, Any], report: Report, facts: Facts) -> dict[str, Any]:
    from wsl_sweep.training import evaluate_on_test

    evaluated: dict[str, dict[str, float]] = {}
    for data in task["trials"]:
        trial = Trial.from_json(data)
        job = _job(task, trial)
        folder = Path(task["storage"]) / "trials" / trial.trial_id
        evaluated[trial.trial_id] = evaluate_on_test(job, folder)
    return {"status": "finished", "evaluated": evaluated}


_DO: dict[str, Callable[[Mapping[str, Any], Report, Facts], dict[str, Any]]] = {
    "train": _train,
    "teacher": _teacher,
    "evaluate": _evaluate,
}


def _job(task: Mapping[str, Any], trial: Trial) -> Any:
    from wsl_sweep.training import BankSettings, Job

    part: Any = trial.part
    return Job(dict(trial.config), part, trial.threads, BankSettings(**task["bank"]), task["gpu"])


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else "no message"


@contextlib.contextmanager
def _output_to(path: Path) -> Iterator[None]:
    """What this process prints goes to the end of ``path``; the file descriptors stay Ray's."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a", encoding="utf-8")
    except OSError as error:
        raise TrialError(f"cannot write {path}: {error.strerror or error}") from error
    with file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        yield
