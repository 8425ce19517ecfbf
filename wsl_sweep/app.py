"""What the commands do, as functions that a notebook can call too."""

from __future__ import annotations

import datetime
import json
import os
import platform
import shutil
import socket
import statistics
import uuid as uuid_module
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console

from wsl_sweep.errors import SweepError, WslSweepError
from wsl_sweep.paths import cache_folder
from wsl_sweep.spec.identity import short_hash, trial_id
from wsl_sweep.spec.loading import CommandLine, load_spec, parse_spec
from wsl_sweep.spec.plan import Plan, make_plan
from wsl_sweep.spec.spec import Spec

DEFAULT_STORAGE = Path("runs")
LIBRARIES = ("wsl-sweep", "torch", "torchvision", "ray", "optuna", "mlflow", "numpy", "scikit-learn")


@dataclass(frozen=True)
class RunOptions:
    """Where a sweep runs and what it leaves where.

    Attributes:
        storage: folder of sweeps; None for ``runs`` in the working folder.
        tracking_uri: of ``--tracking-uri``.
        address: of a Ray cluster; None for this machine alone.
        insecure: join a cluster without a token.
    """

    storage: str | None = None
    tracking_uri: str | None = None
    address: str | None = None
    insecure: bool = False


@dataclass(frozen=True)
class Finished:
    """A sweep that has come to an end.

    Attributes:
        folder: ``<storage>/<name>``.
        summary: as in ``summary.json``.
        interrupted: the signal that stopped it, or None.
    """

    folder: Path
    summary: dict[str, Any]
    interrupted: int | None = None


def storage_folder(storage: str | None) -> Path:
    """The folder of sweeps. Raises WslSweepError for what is no folder that can be written."""
    if storage is not None and "://" in storage:
        raise WslSweepError(f"--storage {storage}: must be a folder that every node sees")
    return Path(storage).expanduser() if storage is not None else DEFAULT_STORAGE


def local_device_kind() -> str:
    """``cuda`` where this machine has an NVIDIA GPU that torch can use, else ``cpu``."""
    if not Path("/proc/driver/nvidia").exists():
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def settle_resources(spec: Spec, address: str | None) -> tuple[float, str]:
    """GPUs of a trial and the kind of device it computes on: one GPU where this machine has one, unless said."""
    gpu = spec.resources.gpu
    if gpu is None:
        gpu = 1.0 if address is None and local_device_kind() == "cuda" else 0.0
    return gpu, "cuda" if gpu > 0 else "cpu"


# --- running ---------------------------------------------------------------------------------------------------------


def run_sweep(
    path: Path, command_line: CommandLine = CommandLine(), options: RunOptions = RunOptions()
) -> Finished:
    """Runs a search-space file as a new sweep.

    Raises:
        WslSweepError: the file or the options are wrong, or the name belongs to a sweep that is not finished; nothing
            has been started then.
        SweepError: no trial finished.
    """
    address = options.address or os.environ.get("RAY_ADDRESS")
    if address and (options.storage is None or not (options.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI"))):
        raise WslSweepError(
            "on a cluster --storage (a folder that every node sees) and --tracking-uri (or MLFLOW_TRACKING_URI) must be "
            "given: the working folder of a job vanishes with it"
        )
    spec = load_spec(path, command_line)
    storage = storage_folder(options.storage)
    folder = _new_folder(storage, spec.name)
    plan = {
        "uuid": str(uuid_module.uuid4()),
        "name": folder.name,
        "source": str(path),
        "command_line": asdict(command_line),
        "created": datetime.datetime.now(datetime.UTC).isoformat(),
        "recipe": spec.recipe,
        "base": {**spec.base, **spec.pins},
        "versions": versions(),
        "host": socket.gethostname(),
    }
    try:
        folder.mkdir(parents=True)
        (folder / "sweep.yaml").write_text(spec.text, encoding="utf-8")
        (folder / "plan.json").write_text(json.dumps(plan, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise WslSweepError(
            f"cannot write to {folder}: {error.strerror or error}; choose another --storage"
        ) from error
    return _drive(replace(spec, name=folder.name), folder, plan, options, address)


def resume_sweep(name: str, options: RunOptions = RunOptions()) -> Finished:
    """Goes on with a sweep that was stopped: finished trials stay, all others run (again).

    Raises WslSweepError where there is no such sweep, or where it is finished.
    """
    folder = storage_folder(options.storage) / name
    spec, plan = open_sweep(folder)
    status = sweep_status(folder)
    if status == "finished":
        raise WslSweepError(f"{folder} is finished: there is nothing to resume; look at {folder / 'summary.json'}")
    address = options.address or os.environ.get("RAY_ADDRESS")
    return _drive(replace(spec, name=name), folder, plan, options, address)


def open_sweep(folder: Path) -> tuple[Spec, dict[str, Any]]:
    """The specification and the plan of a sweep on disk."""
    try:
        plan: dict[str, Any] = json.loads((folder / "plan.json").read_text())
        text = (folder / "sweep.yaml").read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        known = ", ".join(sorted(path.parent.name for path in folder.parent.glob("*/plan.json"))) or "none"
        raise WslSweepError(f"no sweep in {folder}; sweeps in {folder.parent}: {known}") from error
    saved = plan["command_line"]
    command_line = CommandLine(**{**saved, "sets": tuple(saved["sets"])})
    return parse_spec(text, str(folder / "sweep.yaml"), command_line, default_name=folder.name), plan


def sweep_status(folder: Path) -> str:
    """``finished``, ``failed``, ``stopped``, or ``running`` where it has no last word (yet)."""
    from wsl_sweep.sweep.ledger import Ledger, fold

    return fold(Ledger(folder / "ledger").events()).status


def _new_folder(storage: Path, name: str) -> Path:
    """A folder for a new sweep: ``name``, or ``name-2``, … behind finished ones."""
    number = 1
    while True:
        folder = storage / (name if number == 1 else f"{name}-{number}")
        if not folder.exists():
            return folder
        if not (folder / "plan.json").is_file():
            raise WslSweepError(f"{folder} exists and is no sweep; choose another --name or --storage")
        if sweep_status(folder) in ("running", "stopped"):
            where = "" if storage == DEFAULT_STORAGE else f" --storage {storage}"
            raise WslSweepError(
                f"the sweep {folder.name} in {storage} is not finished; go on with it by\n"
                f"    wsl-sweep resume {folder.name}{where}\n"
                "or choose another --name for a new one"
            )
        number += 1


def _drive(
    spec: Spec, folder: Path, plan: Mapping[str, Any], options: RunOptions, address: str | None
) -> Finished:
    """From a folder with a plan to a summary: wires the parts together."""
    from wsl_sweep.sweep.environment import prepare_environment

    prepare_environment(local=address is None)
    from wsl_sweep.display import SweepDisplay, only_ours
    from wsl_sweep.sweep.conductor import Conductor
    from wsl_sweep.sweep.ledger import Ledger
    from wsl_sweep.sweep.runner import Hands, Interrupt, check_resources, fit, start_ray
    from wsl_sweep.tracking import MlflowWriter, resolve_tracking
    from wsl_sweep.tracking.settings import git_commit
    from wsl_sweep.training.teachers import TeacherStore

    gpu, device_kind = settle_resources(spec, address)
    store = TeacherStore()
    conductor = Conductor(
        spec,
        Ledger(folder / "ledger"),
        device_kind=device_kind,
        has_teacher=lambda teacher_id: store.card(teacher_id) is not None,
    )
    tracking = resolve_tracking(options.tracking_uri, spec.tracking.uri, spec.tracking.experiment or spec.name)
    writer = MlflowWriter(
        tracking,
        {
            "name": spec.name,
            "uuid": plan["uuid"],
            "description": spec.description,
            "git_commit": git_commit(Path.cwd()),
            "device": device_kind,
        },
    )
    fresh = not conductor.state.trials
    interrupt = Interrupt()
    interrupt.install()
    failure: BaseException | None = None
    try:
        with only_ours(folder / "driver.log") as console:
            display = SweepDisplay(console, conductor)
            conductor.listeners += [writer.on_event, display.on_event]
            _announce(display, spec, conductor.plan, store, folder)
            writer.warm_up()
            try:
                start_ray(address, log_file=folder / "ray.log", insecure=options.insecure)
                interrupt.install()
                check_resources(spec.resources.cpu, gpu)
                writer.start()
                for state in conductor.state.trials.values():  # of a resumed sweep
                    writer.on_event({"event": "proposed", "time": 0.0, "trial": state.trial.to_json()})
                hands = Hands(rows=[writer.on_rows, display.on_rows], teacher=[display.on_teacher])
                with display.running():
                    fit(conductor, folder, gpu=gpu, hands=hands, interrupt=interrupt)
            except BaseException as error:
                failure = error
            if fresh and isinstance(failure, WslSweepError) and not conductor.state.trials:
                raise failure  # nothing has begun: nothing stays
            if interrupt.signum is not None or failure is not None:
                conductor.interrupt()
                if isinstance(failure, KeyboardInterrupt) and interrupt.signum is not None:
                    failure = None
            else:
                done = any(state.status == "finished" for state in conductor.state.trials.values())
                conductor.close("finished" if done else "failed")
            summary = _finish(spec, folder, plan, conductor.state, writer, tracking, display)
    finally:
        _stop_ray()
        interrupt.restore()
        if fresh and not conductor.state.trials and isinstance(failure, WslSweepError):
            shutil.rmtree(folder, ignore_errors=True)
    if failure is not None:
        raise failure
    if summary["status"] == "failed":
        reasons = sorted({str(trial["error"]) for trial in summary["trials"] if trial["error"]})
        raise SweepError(
            f"no trial of {spec.name} finished: {'; '.join(reasons[:3]) or 'none was run'}\n"
            f"  their logs: wsl-sweep logs TRIAL; all of them: {folder / 'summary.json'}"
        )
    return Finished(folder, summary, interrupt.signum)


def _stop_ray() -> None:
    import ray

    ray.shutdown()


def _announce(display: Any, spec: Spec, plan: Plan, store: Any, folder: Path) -> None:
    stages = ", ".join(f"{count} trials {stage}" for stage, count in plan.stages.items())
    missing = [teacher for teacher in plan.teachers if store.card(teacher) is None]
    teachers = f", {len(missing)} teacher{'s' if len(missing) != 1 else ''} to train first" if missing else ""
    display.say(f"{spec.name}: {stages}{teachers}; everything goes to {folder}")
    for note in spec.notes:
        display.say(f"note: {note}")


def _finish(
    spec: Spec,
    folder: Path,
    plan: Mapping[str, Any],
    state: Any,
    writer: Any,
    tracking: Any,
    display: Any,
) -> dict[str, Any]:
    """Summary, best student, tidy folders, MLflow's end. The order is that of what may be lost."""
    from wsl_sweep.analysis.summary import build_summary
    from wsl_sweep.training.weights import write_json

    write_json(folder / "summary.json", build_summary(spec, state, uuid=plan["uuid"]))
    display.say("writing the results to MLflow")
    reached = writer.flush(30.0)
    summary = build_summary(spec, state, uuid=plan["uuid"], run_ids=writer.run_ids)
    best = best_student(summary)
    if reached and best is not None and state.status == "finished":
        try:
            _log_best(best, folder, writer, tracking)
        except Exception as error:
            first = str(error).strip().splitlines()[0] if str(error).strip() else ""
            display.say(f"the best student could not be logged as an MLflow model: {type(error).__name__}: {first}")
    if reached:
        writer.describe(describe(summary), _parent_metrics(summary))
    if not writer.close(state.status, 30.0 if reached else 1.0):
        display.say(
            f"MLflow did not take everything ({writer.problem or 'no answer in 30 s'}); the ledger and the trials in "
            f"{folder} have it all"
        )
    summary = build_summary(spec, state, uuid=plan["uuid"], run_ids=writer.run_ids)
    write_json(folder / "summary.json", summary)
    if state.status == "finished":
        _tidy(spec, folder, summary, best)
        remember_times(summary)
    return summary


def best_student(summary: Mapping[str, Any]) -> dict[str, Any] | None:
    """The trial whose student is "the best": of the tuned winners' (or all variants') seeds the best by validation.

    Without a confirmed table it is the best trial of the search.
    """
    metric = summary["metric"] if isinstance(summary["metric"], str) else summary["metric"][0]
    mode = summary["mode"] if isinstance(summary["mode"], str) else summary["mode"][0]
    rows = [row for row in summary["confirmed"] if row["tuned"] is not False]
    ids = {trial_id for row in rows for trial_id in row["trial_ids"]}
    if not ids and summary["best"]:
        ids = {summary["best"]["trial_id"]}
    pool = [trial for trial in summary["trials"] if trial["trial_id"] in ids and metric in trial["metrics"]]
    pick = max if mode == "max" else min
    return pick(pool, key=lambda trial: trial["metrics"][metric]) if pool else None


def _log_best(best: Mapping[str, Any], folder: Path, writer: Any, tracking: Any) -> None:
    import torch

    from wsl_sweep.data import load
    from wsl_sweep.tracking.writer import log_student
    from wsl_sweep.training.trial import Job, load_student

    job = Job(best["config"], best["part"], 1)
    data = load(job.config["dataset"], job.part)
    student = load_student(job, folder / "trials" / best["trial_id"], data.num_classes, data.in_channels)
    example = data.validation.views.plain(torch.arange(2)).numpy()
    log_student(tracking, writer.parent_id, student, example)


def _parent_metrics(summary: Mapping[str, Any]) -> dict[str, float]:
    metrics: dict[str, float] = {}
    if summary["best"] and isinstance(summary["best"]["value"], float):
        metrics[f"best/{summary['metric']}"] = summary["best"]["value"]
    for row in summary["confirmed"]:
        if row["mean"] is not None and not (row["tuned"] is None and row["overrides"] and _crossed(summary)):
            metrics[f"mean/{row['variant'].replace(' (untuned)', '_untuned')}/{row['metric']}"] = row["mean"]
    return metrics


def _crossed(summary: Mapping[str, Any]) -> bool:
    """Whether several rows of the table share a variant's name: a grid."""
    names = [row["variant"] for row in summary["confirmed"]]
    return len(set(names)) < len(names)


def describe(summary: Mapping[str, Any]) -> str:
    """The parent run's description: question and table in Markdown."""
    lines = [summary["description"], ""] if summary["description"] else []
    if summary["best"]:
        settings = ", ".join(f"`{path}` = {value}" for path, value in summary["best"]["overrides"].items())
        lines += [f"Best by {summary['metric']}: {summary['best']['value']} at {settings or 'the run as it is'}", ""]
    if summary["confirmed"]:
        metric = summary["confirmed"][0]["metric"]
        lines += [f"| variant | settings | {metric} | 95 % t interval | n |", "| --- | --- | --- | --- | --- |"]
        for row in summary["confirmed"]:
            mean = "" if row["mean"] is None else f"{row['mean']:.4f}"
            interval = "" if row["ci95"] is None else f"{row['ci95'][0]:.4f} to {row['ci95'][1]:.4f}"
            settings = ", ".join(f"{path}={value}" for path, value in row["overrides"].items())
            lines.append(f"| {row['variant']} | {settings} | {mean} | {interval} | {row['n']} |")
    return "\n".join(lines) + "\n"


def _tidy(spec: Spec, folder: Path, summary: Mapping[str, Any], best: Mapping[str, Any] | None) -> None:
    """``keep: best`` leaves the students of the final table and of the best trial."""
    if spec.keep == "all":
        return
    keep = {trial_id for row in summary["confirmed"] for trial_id in row["trial_ids"]}
    keep |= {summary["best"]["trial_id"]} if summary["best"] else set()
    keep |= {best["trial_id"]} if best else set()
    for trial in summary["trials"]:
        if trial["trial_id"] not in keep:
            (folder / "trials" / trial["trial_id"] / "student.safetensors").unlink(missing_ok=True)


# --- planning --------------------------------------------------------------------------------------------------------


def versions() -> dict[str, str]:
    """Versions of what a sweep rests on."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def _times_file() -> Path:
    return cache_folder() / "times.json"


def _time_key(config: Mapping[str, Any], threads: int) -> str:
    """Trials that take equally long an epoch: same data, models, method, batch, precision and threads."""
    parts = {
        "dataset": {key: value for key, value in config["dataset"].items() if key != "root"},
        "student": config["student"]["model"],
        "teacher": config.get("teacher", {}).get("model"),
        "method": config["distillation"]["method"],
        "batch": config["schedule"]["batch_size"],
        "precision": config["precision"],
        "threads": threads,
    }
    return short_hash(parts)


def known_times() -> dict[str, float]:
    """Seconds an epoch, by kind of trial, as measured on this machine before."""
    try:
        times: dict[str, float] = json.loads(_times_file().read_text())
    except (OSError, ValueError):
        return {}
    return times


def remember_times(summary: Mapping[str, Any]) -> None:
    """Keeps the median seconds an epoch of each kind of trial of this sweep."""
    from wsl_sweep.training.weights import write_json

    measured: dict[str, list[float]] = {}
    for trial in summary["trials"]:
        if trial["seconds"] and trial["status"] == "finished" and trial["epochs"]:
            measured.setdefault(_time_key(trial["config"], 1), []).append(trial["seconds"] / trial["epochs"])
    write_json(_times_file(), known_times() | {key: statistics.median(times) for key, times in measured.items()})


@dataclass(frozen=True)
class Outlook:
    """What would run, for ``plan``.

    Attributes:
        spec: what is asked for.
        plan: its trials and teachers.
        teachers_there: id → whether it is in the store.
        done: trials of the unfinished sweep of this name that have their last word, or None.
        seconds: estimate for all trials, or None where nothing like them ran on this machine.
        slots: trials at once that the estimate supposes.
    """

    spec: Spec
    plan: Plan
    teachers_there: Mapping[str, bool]
    done: int | None
    seconds: float | None
    slots: int


STARTUP_SECONDS = 15.0


def outlook(path: Path, command_line: CommandLine = CommandLine(), options: RunOptions = RunOptions()) -> Outlook:
    """What ``run`` would do; nothing is started, torch is not imported."""
    from wsl_sweep.sweep.ledger import Ledger, fold

    spec = load_spec(path, command_line)
    gpu, device_kind = settle_resources(spec, options.address)
    plan = make_plan(spec, device_kind)
    teachers = cache_folder() / "teachers"
    there = {teacher: (teachers / teacher / "card.json").is_file() for teacher in plan.teachers}
    folder = storage_folder(options.storage) / spec.name
    done = None
    if (folder / "plan.json").is_file():
        state = fold(Ledger(folder / "ledger").events())
        if state.status != "finished":
            done = sum(trial.settled for trial in state.trials.values())
    slots = max(1, int((os.cpu_count() or 1) / spec.resources.cpu)) if gpu == 0 else 1
    slots = min(slots, spec.resources.concurrent or slots)
    times, seconds = known_times(), 0.0
    for stage, count in plan.stages.items():
        example = plan.examples.get(stage)
        each = times.get(_time_key(example.config, example.threads)) if example else None
        if each is None or example is None:
            return Outlook(spec, plan, there, done, None, slots)
        seconds += each * example.epochs * count / slots
    return Outlook(spec, plan, there, done, STARTUP_SECONDS + seconds, slots)


# --- single things ---------------------------------------------------------------------------------------------------


def train_once(
    recipe: str, sets: tuple[str, ...], seed: int | None, threads: int = 1, console: Console | None = None
) -> dict[str, Any]:
    """One training, without Ray, Optuna and MLflow; the same metrics as the same trial in a sweep.

    Returns ``trial_id``, ``seed``, ``config``, ``metrics`` (of the last epoch), ``epochs``. Nothing is evaluated on the
    test set.
    """
    command_line = CommandLine(sets=sets, recipe=recipe)
    text = f"variants: {{train: {{}}}}\nresources: {{cpu: {threads}}}\n"
    spec = parse_spec(text, "train", command_line)
    device_kind = local_device_kind()
    config = spec.config({}, seed=seed if seed is not None else int(spec.flat_config({})["seed"]), device_kind=device_kind)
    from wsl_sweep.training import Job, TeacherStore, TrialTraining

    def on_teacher_epoch(row: Mapping[str, float]) -> None:
        if console is not None and (int(row["epoch"]) % 10 == 0 or row["epoch"] == 1):
            accuracy = row["validation/accuracy"]
            console.print(f"teacher, epoch {int(row['epoch'])}: validation/accuracy {accuracy:.4f}", highlight=False)

    training = TrialTraining(Job(config, "train", spec.threads), TeacherStore(), on_teacher_epoch=on_teacher_epoch)
    row: Mapping[str, float] = {}
    for row in training:
        if console is not None:
            left = row["train/seconds"] / row["epoch"] * (training.epochs - row["epoch"])
            console.print(
                f"epoch {int(row['epoch'])}/{training.epochs}: train/loss {row['train/loss']:.4f}, "
                f"validation/accuracy {row['validation/accuracy']:.4f}; {left:.0f} s left",
                highlight=False,
            )
    return {
        "trial_id": trial_id(config, "train", spec.threads),
        "seed": config["seed"],
        "epochs": training.epochs,
        "metrics": {name: value for name, value in row.items() if name not in ("epoch", "timestamp")},
        "config": config,
    }


def list_sweeps(storage: str | None) -> list[dict[str, Any]]:
    """Name, status, counts of trials by status and the question of every sweep in a storage."""
    from wsl_sweep.sweep.ledger import Ledger, fold

    found = []
    for path in sorted(storage_folder(storage).glob("*/plan.json")):
        state = fold(Ledger(path.parent / "ledger").events())
        counts: dict[str, int] = {}
        for trial in state.trials.values():
            counts[trial.status] = counts.get(trial.status, 0) + 1
        entry: dict[str, Any] = {"sweep": path.parent.name, "status": state.status, "trials": counts, "planned": None}
        try:
            spec, plan = open_sweep(path.parent)
            entry |= {
                "created": plan["created"],
                "description": spec.description,
                "planned": sum(make_plan(spec).stages.values()),
            }
        except WslSweepError as error:
            entry["description"] = f"cannot be read: {str(error).splitlines()[0]}"
        found.append(entry)
    return found


def find_logs(trial: str, storage: str | None) -> list[Path]:
    """The logs of the trials whose id starts with ``trial``, over all sweeps of a storage."""
    root = storage_folder(storage)
    found = sorted(root.glob(f"*/trials/{trial}*/log.txt")) if trial.isalnum() else []
    if not found:
        raise WslSweepError(f"no trial in {root} has an id that starts with {trial!r}; see summary.json of its sweep")
    return found

