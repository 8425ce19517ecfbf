"""Beginning a sweep, going on with one, and adding to one."""

from __future__ import annotations

import contextlib
import datetime
import os
import socket
import uuid as uuid_module
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from wsl_sweep.app.changes import changes
from wsl_sweep.app.driving import drive, leased, stop_ray
from wsl_sweep.app.folders import find_sweep, new_folder, open_sweep, read_plan, write_plan, write_text
from wsl_sweep.app.options import Finished, RunOptions, settle_resources, storage_folder, with_storage
from wsl_sweep.app.planning import versions
from wsl_sweep.app.preparing import prepare_data, surroundings, teacher_notes
from wsl_sweep.app.pretrained import prepare_teachers
from wsl_sweep.app.syncing import bring_in_line, storable_uri
from wsl_sweep.app.teaching import auto_precision, bank_notes, bank_settings, measure_here, precision_notes
from wsl_sweep.app.world import LocalWorld, import_folders
from wsl_sweep.errors import StorageError, WslSweepError
from wsl_sweep.image_listing import unchanging
from wsl_sweep.spec.loading import CommandLine, load_spec
from wsl_sweep.spec.plan import make_plan
from wsl_sweep.spec.spec import Spec
from wsl_sweep.storage import Place
from wsl_sweep.sweep.lease import Lease
from wsl_sweep.sweep.ledger import Ledger, fold, unevaluated


@unchanging()
def run_sweep(path: Path, command_line: CommandLine = CommandLine(), options: RunOptions = RunOptions()) -> Finished:
    """Runs a search-space file as a new sweep.

    Raises:
        WslSweepError: the file or the options are wrong, or the name belongs to a sweep that is not finished; nothing
            has been started then.
        SweepError: no trial finished.
    """
    from wsl_sweep.tracking.settings import git_commit

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
    prepare_teachers(spec)
    notes = [*prepare_data(spec), *teacher_notes(spec), *bank_notes(spec, world, options.bank)]
    with _begun(folder) as lease:
        measured = _measure(spec, address, options, imports)
        notes += precision_notes(measured)
        spec = _with_precisions(spec, measured)
        plan = {
            "uuid": str(uuid_module.uuid4()),
            "name": folder.name,
            "source": str(path.absolute()),
            "command_line": asdict(command_line),
            "created": datetime.datetime.now(datetime.UTC).isoformat(),
            "recipe": spec.recipe,
            "base": spec.flat_config({}),
            "stages": dict(make_plan(spec).stages),
            "tracking_uri": storable_uri(spec, options),
            "description": spec.description,
            "folder": str(Path.cwd()),
            "import_folders": imports,
            "surroundings": surroundings(spec),
            "notes": notes,
            "device_kind": settle_resources(spec, address)[1],
            "precision": measured,
            "bank": bank_settings(spec, world, options.bank),
            "versions": versions(),
            "git_commit": git_commit(Path.cwd()),
            "host": socket.gethostname(),
        }
        try:
            write_text(folder / "sweep.yaml", spec.text)
            write_plan(folder, plan)
        except StorageError as error:
            raise WslSweepError(f"{error}; choose another --storage") from error
        spec = replace(spec, name=folder.name, notes=(*spec.notes, *notes))
        ledger = Ledger(folder / "ledger", lease)
        return drive(spec, folder, plan, options, address, ledger=ledger, events=[], fresh=True)


@contextlib.contextmanager
def _begun(folder: Place) -> Iterator[Lease]:
    """The lease of a new sweep; of one that did not get as far as its plan nothing stays."""
    try:
        holding = contextlib.ExitStack()
        lease = holding.enter_context(leased(folder))
    except StorageError as error:
        raise WslSweepError(f"{error}; choose another --storage") from error
    with holding:
        try:
            yield lease
        except BaseException:
            with contextlib.suppress(OSError, WslSweepError):
                if not (folder / "plan.json").exists():
                    lease.release()
                    folder.delete()
            raise


@unchanging()
def resume_sweep(name: str, options: RunOptions = RunOptions()) -> Finished:
    """Goes on with a sweep that was stopped, or whose driver died: finished trials stay, the others go on.

    Where its file has changed since and only adds to it, what was added is run too.

    Raises WslSweepError: there is no such sweep, it is finished or being run by another driver, or its file, its data
    or its code have changed so that old and new trials could not be compared.
    """
    return _go_on(name, options, {})


@unchanging()
def extend_sweep(
    name: str, *, trials: int | None = None, seeds: int | None = None, options: RunOptions = RunOptions()
) -> Finished:
    """Adds to a sweep, finished or not.

    Args:
        name: of the sweep.
        trials: how many search trials each arm shall have in all.
        seeds: how many seeds an ablation, or confirm, shall have in all.
        options: where it is, and where it runs.

    Raises WslSweepError: as ``resume_sweep``, or it has as many already.
    """
    if trials is None and seeds is None:
        raise WslSweepError("say what to add: --trials, --seeds, or both (how many there shall be in all)")
    asked = {"trials": trials, "seeds": seeds}
    return _go_on(name, options, {key: value for key, value in asked.items() if value is not None})


def _go_on(name: str, options: RunOptions, more: Mapping[str, int]) -> Finished:
    folder = find_sweep(options.storage, name)
    plan = read_plan(folder)
    with leased(folder) as lease:
        world = LocalWorld(_moved(plan)["import_folders"])
        spec, plan = open_sweep(folder, world)
        plan = _moved(plan)
        added = changes(spec, plan, world, more, as_begun=options.as_begun)
        ledger = Ledger(folder / "ledger", lease)
        events = ledger.events()
        state = fold(events)
        if added is None and state.status == "finished" and not unevaluated(state, state.rows):
            if lease.stale is not None or not _ended_whole(folder):
                return bring_in_line(replace(spec, name=name), folder, plan, options)  # its driver died at the end
            raise WslSweepError(
                f"{folder} is finished: there is nothing to resume; look at {folder / 'summary.json'}, or add to it: "
                f"wsl-sweep extend {with_storage(name, folder)} --trials N, or --seeds N"
            )
        before = spec
        if added is not None:
            spec = replace(added.spec, notes=(*added.spec.notes, *plan.get("notes", ())))
        prepare_teachers(spec)
        prepare_data(spec)
        _check_surroundings(spec, plan)
        address = options.address or os.environ.get("RAY_ADDRESS")
        spec = replace(_with_precisions(spec, plan.get("precision", {})), name=name)
        spec = _on_its_device(spec, plan, address)
        for note in _other_versions(plan):
            if note not in state.notes:
                events.append(ledger.append("note", text=note))
        if added is not None:
            print("added: " + "; ".join(added.what), flush=True)
            if spec.tracking.uri != before.tracking.uri:
                plan["tracking_uri"] = storable_uri(spec, options)
            plan |= {"command_line": asdict(added.command_line), "stages": dict(make_plan(spec).stages)}
            events.append(ledger.append("sweep", status="running"))  # not finished, whatever happens now
            write_text(folder / "sweep.yaml", spec.text)
            write_plan(folder, plan)
        return drive(spec, folder, plan, options, address, ledger=ledger, events=events, fresh=False)


def _moved(plan: dict[str, Any]) -> dict[str, Any]:
    """The plan of a sweep that goes on here: where none of its folders of users' code is, this folder is looked in."""
    folders = [one for one in plan.get("import_folders", ()) if Path(one).is_dir()] or [str(Path.cwd())]
    return {**plan, "import_folders": folders}


def _ended_whole(folder: Place) -> bool:
    """Whether the end of a finished sweep got as far as its last word to MLflow."""
    try:
        trials = (folder / "summary.json").read_json()["trials"]
        return all(trial["mlflow_run_id"] for trial in trials if trial["status"] != "killed")
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _on_its_device(spec: Spec, plan: Mapping[str, Any], address: str | None) -> Spec:
    """On the kind of device on which the sweep began: that is a part of what its trials are.

    Raises WslSweepError: it is not to be had here.
    """
    begun, now = plan.get("device_kind"), settle_resources(spec, address)[1]
    if begun is None or begun == now:
        return spec
    if begun == "cpu" and spec.resources.gpu is None:
        return replace(spec, resources=spec.resources.model_copy(update={"gpu": 0.0}))
    raise WslSweepError(
        f"the sweep {spec.name} began on {begun}, and would go on on {now} here, where its trials would be others: go "
        f"on where there is a {'GPU' if begun == 'cuda' else 'CPU'} for it (resources.gpu), or start a new sweep"
    )


def _other_versions(plan: Mapping[str, Any]) -> list[str]:
    """What to know where what computes is not what the sweep began with."""
    before, now = plan.get("versions") or {}, versions()
    changed = [
        f"{name} {before[name]} → {now[name]}"
        for name in ("wsl-sweep", "torch")
        if name in before and before[name] != now.get(name)
    ]
    if not changed:
        return []
    return [f"{', '.join(changed)} since the sweep began: what runs from now on is not bit for bit comparable"]


def _with_precisions(spec: Spec, measured: Mapping[str, Mapping[str, Any]]) -> Spec:
    return replace(spec, precisions={model: str(found["chosen"]) for model, found in measured.items()})


def _measure(spec: Spec, address: str | None, options: RunOptions, folders: Sequence[str]) -> dict[str, dict[str, Any]]:
    """``precision: auto``, settled once for the sweep, before any trial has an id."""
    gpu, device_kind = settle_resources(spec, address)
    asked = auto_precision(spec, device_kind)
    if address is None or not asked:
        return measure_here(asked, spec.threads, gpu / spec.processes, folders)
    from wsl_sweep.sweep.environment import prepare_environment

    prepare_environment(local=False)
    from wsl_sweep.sweep.cluster import measure_on_cluster, start_ray

    start_ray(address, log_file=Path(os.devnull), insecure=options.insecure)
    try:
        return measure_on_cluster(asked, spec.resources.cpu, gpu / spec.processes, spec.threads, folders)
    finally:
        stop_ray()


def _check_surroundings(spec: Spec, plan: Mapping[str, Any]) -> None:
    """A sweep goes on only with the data and the code that it began with: otherwise its table would mix two."""
    before, now = plan.get("surroundings", {}), surroundings(spec)
    changed = [name for name, digest in now.items() if name in before and before[name] != digest]
    if changed:
        raise WslSweepError(
            f"{', '.join(changed)} changed since the sweep {spec.name} began, and its trials would not be comparable; "
            "put it back as it was, or start a new sweep"
        )
