"""Running a sweep, going on with one, and bringing MLflow in line with one."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import shutil
import socket
import threading
import traceback
import uuid as uuid_module
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from wsl_sweep.app.folders import new_folder, open_sweep, read_plan, sweep_status
from wsl_sweep.app.options import Finished, RunOptions, settle_resources, storage_folder
from wsl_sweep.app.planning import teachers_there, versions
from wsl_sweep.app.preparing import prepare_data, surroundings, teacher_notes
from wsl_sweep.app.results import finish
from wsl_sweep.app.teaching import auto_precision, bank_notes, bank_settings, measure_here, precision_notes
from wsl_sweep.app.world import LocalWorld, import_folders
from wsl_sweep.errors import SweepError, WslSweepError
from wsl_sweep.image_listing import unchanging
from wsl_sweep.spec.loading import CommandLine, load_spec
from wsl_sweep.spec.plan import Plan, make_plan
from wsl_sweep.spec.spec import Spec
from wsl_sweep.sweep.ledger import Ledger, fold
from wsl_sweep.user_code import search_in


@unchanging()
def run_sweep(path: Path, command_line: CommandLine = CommandLine(), options: RunOptions = RunOptions()) -> Finished:
    """Runs a search-space file as a new sweep.

    Raises:
        WslSweepError: the file or the options are wrong, or the name belongs to a sweep that is not finished; nothing
            has been started then.
        SweepError: no trial finished.
    """
    address = options.address or os.environ.get("RAY_ADDRESS")
    tracked = options.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
    if address and (options.storage is None or not tracked):
        raise WslSweepError(
            "on a cluster --storage (a folder that every node sees) and --tracking-uri (or MLFLOW_TRACKING_URI) "
            "must be given: the working folder of a job vanishes with it"
        )
    imports = import_folders(path)
    world = LocalWorld(imports)
    spec = load_spec(path, command_line, world)
    storage = storage_folder(options.storage)
    folder = new_folder(storage, spec.name)
    notes = [*prepare_data(spec), *teacher_notes(spec), *bank_notes(spec, world, options.bank)]
    measured = _measure(spec, address, options, imports)
    notes += precision_notes(measured)
    spec = _with_precisions(spec, measured)
    plan = {
        "uuid": str(uuid_module.uuid4()),
        "name": folder.name,
        "source": str(path),
        "command_line": asdict(command_line),
        "created": datetime.datetime.now(datetime.UTC).isoformat(),
        "recipe": spec.recipe,
        "base": spec.flat_config({}),
        "stages": dict(make_plan(spec).stages),
        "tracking_uri": _storable_uri(spec, options),
        "description": spec.description,
        "folder": str(Path.cwd()),
        "import_folders": imports,
        "surroundings": surroundings(spec),
        "notes": notes,
        "precision": measured,
        "bank": bank_settings(spec, world, options.bank),
        "versions": versions(),
        "host": socket.gethostname(),
    }
    try:
        folder.mkdir(parents=True)
        (folder / "sweep.yaml").write_text(spec.text, encoding="utf-8")
        (folder / "plan.json").write_text(json.dumps(plan, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise WslSweepError(f"cannot write to {folder}: {error.strerror or error}; choose another --storage") from error
    spec = replace(spec, name=folder.name, notes=(*spec.notes, *notes))
    return _drive(spec, folder, plan, options, address)


@unchanging()
def resume_sweep(name: str, options: RunOptions = RunOptions()) -> Finished:
    """Goes on with a sweep that was stopped: finished trials stay, all others run (again).

    Raises WslSweepError where there is no such sweep, or where it is finished.
    """
    folder = storage_folder(options.storage) / name
    plan = read_plan(folder)
    status = sweep_status(folder)
    if status == "finished":
        raise WslSweepError(f"{folder} is finished: there is nothing to resume; look at {folder / 'summary.json'}")
    spec, plan = open_sweep(folder, LocalWorld(plan.get("import_folders", [str(Path.cwd())])))
    prepare_data(spec)
    _check_surroundings(spec, plan)
    address = options.address or os.environ.get("RAY_ADDRESS")
    spec = _with_precisions(spec, plan.get("precision", {}))
    return _drive(replace(spec, name=name), folder, plan, options, address)


def _with_precisions(spec: Spec, measured: Mapping[str, Mapping[str, Any]]) -> Spec:
    return replace(spec, precisions={model: str(found["chosen"]) for model, found in measured.items()})


def _measure(spec: Spec, address: str | None, options: RunOptions, folders: Sequence[str]) -> dict[str, dict[str, Any]]:
    """``precision: auto``, settled once for the sweep, before any trial has an id."""
    gpu, device_kind = settle_resources(spec, address)
    asked = auto_precision(spec, device_kind)
    if address is None or not asked:
        return measure_here(asked, spec.threads, gpu, folders)
    from wsl_sweep.sweep.environment import prepare_environment

    prepare_environment(local=False)
    from wsl_sweep.sweep.runner import measure_on_cluster, start_ray

    start_ray(address, log_file=Path(os.devnull), insecure=options.insecure)
    try:
        return measure_on_cluster(asked, spec.resources.cpu, gpu, spec.threads, folders)
    finally:
        _stop_ray()


def _check_surroundings(spec: Spec, plan: Mapping[str, Any]) -> None:
    """A sweep goes on only with the pictures and the code that it began with: otherwise its table would mix two."""
    before, now = plan.get("surroundings", {}), surroundings(spec)
    changed = [name for name, digest in now.items() if name in before and before[name] != digest]
    if changed:
        raise WslSweepError(
            f"{', '.join(changed)} changed since the sweep {spec.name} began, and its trials would not be comparable; "
            "put it back as it was, or start a new sweep"
        )


def sync_sweep(name: str, options: RunOptions = RunOptions(), say: Callable[[str], None] = print) -> Finished:
    """Brings MLflow in line with a sweep on disk, as often as wanted: runs are found by trial id, points by timestamp.

    Raises:
        WslSweepError: there is no such sweep, or it is running.
        SweepError: the server did not take everything.
    """
    folder = storage_folder(options.storage) / name
    spec, plan = open_sweep(folder)
    search_in(plan.get("import_folders", ()))  # the best student may be a user's own model
    spec = replace(spec, name=name)
    events = Ledger(folder / "ledger").events()
    state = fold(events)
    if state.status == "running":
        raise WslSweepError(f"{folder} is running, or its driver was killed: wsl-sweep resume {name}")
    _, device_kind = settle_resources(spec, options.address)
    writer, tracking = _writer(spec, plan, options, device_kind)
    writer.warm_up()
    writer.start()
    for event in events:
        if event["event"] in ("finished", "pruned", "failed", "killed"):
            rows = folder / "trials" / event["trial_id"] / f"attempt-{event.get('attempt', 1)}" / "rows.json"
            with contextlib.suppress(OSError, ValueError):
                writer.on_rows(event["trial_id"], event.get("attempt", 1), json.loads(rows.read_text()))
        writer.on_event(event)
    summary = finish(spec, folder, plan, state, writer, tracking, say)
    if writer.problem is not None:
        raise SweepError(f"MLflow did not take everything: {writer.problem}")
    return Finished(folder, summary)


def _drive(spec: Spec, folder: Path, plan: Mapping[str, Any], options: RunOptions, address: str | None) -> Finished:
    """From a folder with a plan to a summary: wires the parts together."""
    from wsl_sweep.sweep.environment import prepare_environment

    prepare_environment(local=address is None)
    from wsl_sweep.display import SweepDisplay, only_ours
    from wsl_sweep.sweep.conductor import Conductor
    from wsl_sweep.sweep.runner import Hands, Interrupt, check_resources, fit, start_ray

    gpu, device_kind = settle_resources(spec, address)
    writer, tracking = _writer(spec, plan, options, device_kind)
    conductor = Conductor(
        spec,
        Ledger(folder / "ledger"),
        device_kind=device_kind,
        has_teacher=_has_teacher,
    )
    fresh = not conductor.state.trials
    interrupt = Interrupt()
    interrupt.install()
    failure: BaseException | None = None
    try:
        with only_ours(folder / "driver.log") as console:
            display = SweepDisplay(console, conductor)
            conductor.listeners += [writer.on_event, display.on_event, _Ahead()]
            _announce(display, spec, conductor.plan, folder)
            writer.warm_up()
            threading.Thread(target=_import_training, daemon=True).start()  # while Ray's own processes start
            try:
                start_ray(address, log_file=folder / "ray.log", insecure=options.insecure)
                interrupt.install()
                slots = check_resources(spec.resources.cpu, gpu)
                writer.start()
                for state in conductor.state.trials.values():  # of a resumed sweep
                    writer.on_event({"event": "proposed", "time": 0.0, "trial": state.trial.to_json()})
                hands = Hands(rows=[writer.on_rows, display.on_rows], teacher=[display.on_teacher])
                with display.running():
                    fit(
                        conductor,
                        folder,
                        gpu=gpu,
                        hands=hands,
                        interrupt=interrupt,
                        import_folders=plan.get("import_folders", ()),
                        bank={**plan.get("bank", {}), **({} if options.bank else {"use": False})},
                        slots=slots,
                    )
            except BaseException as error:
                failure = error
                traceback.print_exc()  # to driver.log
            if failure is not None and fresh and not conductor.state.trials:
                writer.close("stopped", 5.0)
                raise _told(failure, folder)  # nothing has begun: nothing stays
            if interrupt.signum is not None or failure is not None:
                conductor.interrupt()
                if isinstance(failure, KeyboardInterrupt) and interrupt.signum is not None:
                    failure = None
            else:
                done = any(state.status == "finished" for state in conductor.state.trials.values())
                conductor.close("finished" if done else "failed")
            _stop_ray()
            summary = finish(spec, folder, plan, conductor.state, writer, tracking, display.say)
    finally:
        _stop_ray()
        interrupt.restore()
        if failure is not None and fresh and not conductor.state.trials:
            shutil.rmtree(folder, ignore_errors=True)
    if failure is not None:
        raise _told(failure, folder)
    if summary["status"] == "failed":
        reasons = sorted({str(trial["error"]) for trial in summary["trials"] if trial["error"]})
        raise SweepError(
            f"no trial of {spec.name} finished: {'; '.join(reasons[:3]) or 'none was run'}\n"
            f"  their logs: wsl-sweep logs TRIAL; all of them: {folder / 'summary.json'}"
        )
    return Finished(folder, summary, interrupt.signum)


def _told(failure: BaseException, folder: Path) -> BaseException:
    """What the user is told of an error in the driver: what is known as it is, anything else in a line."""
    if isinstance(failure, WslSweepError | KeyboardInterrupt):
        return failure
    first = next((line for line in str(failure).splitlines() if line.strip()), "no message")
    return SweepError(
        f"the sweep's driver failed: {type(failure).__name__}: {first}\n"
        f"  more of it: {folder / 'driver.log'}; what was done is kept: wsl-sweep resume {folder.name}"
    )


def _has_teacher(teacher_id: str) -> bool:
    from wsl_sweep.training import TeacherStore

    return TeacherStore().card(teacher_id) is not None


def _import_training() -> None:
    import wsl_sweep.training  # noqa: F401


def _import_export() -> None:
    with contextlib.suppress(ImportError):
        import torch.export._trace  # noqa: F401


class _Ahead:
    """A listener that imports, once trials run and the driver is idle, what logging the best student will need."""

    def __init__(self) -> None:
        self._begun = False

    def __call__(self, event: Mapping[str, Any]) -> None:
        if event["event"] == "finished" and not self._begun:
            self._begun = True
            threading.Thread(target=_import_export, daemon=True).start()


def _announce(display: Any, spec: Spec, plan: Plan, folder: Path) -> None:
    stages = ", ".join(f"{count} trials {stage}" for stage, count in plan.stages.items())
    missing = [teacher for teacher, there in teachers_there(plan).items() if not there]
    teachers = f", {len(missing)} teacher{'s' if len(missing) != 1 else ''} to train first" if missing else ""
    display.say(f"{spec.name}: {stages}{teachers}; everything goes to {folder}")
    for note in spec.notes:
        display.say(f"note: {note}")


def _storable_uri(spec: Spec, options: RunOptions) -> str | None:
    """The tracking address for plan.json, a SQLite file by its absolute path; None where it holds credentials."""
    from wsl_sweep.tracking import redact, resolve_tracking

    uri = resolve_tracking(options.tracking_uri, spec.tracking.uri, "").uri
    if redact(uri) != uri:
        return None
    scheme, file = "sqlite:///", uri.removeprefix("sqlite:///")
    return f"{scheme}{Path(file).absolute()}" if uri.startswith(scheme) else uri


def _writer(spec: Spec, plan: Mapping[str, Any], options: RunOptions, device_kind: str) -> tuple[Any, Any]:
    """The sweep's MLflow writer, not started yet, and where it writes to."""
    from wsl_sweep.tracking import MlflowWriter, resolve_tracking
    from wsl_sweep.tracking.settings import git_commit

    option = options.tracking_uri or plan["tracking_uri"]
    if option is None and not (spec.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI")):
        raise WslSweepError("the tracking server's address has credentials and is not kept: give --tracking-uri again")
    tracking = resolve_tracking(option, spec.tracking.uri, spec.tracking.experiment or spec.name)
    sweep = {
        "name": spec.name,
        "uuid": plan["uuid"],
        "description": spec.description,
        "git_commit": git_commit(Path.cwd()),
        "device": device_kind,
    }
    return MlflowWriter(tracking, sweep), tracking


def _stop_ray() -> None:
    import ray

    ray.shutdown()
