"""From a folder with a plan to a summary: one driver's run of a sweep."""

from __future__ import annotations

import contextlib
import shutil
import threading
import traceback
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from wsl_sweep.app.options import Finished, RunOptions, settle_resources, with_storage
from wsl_sweep.app.planning import teachers_there
from wsl_sweep.app.results import finish
from wsl_sweep.app.syncing import left_by_workers, make_writer, rows_of
from wsl_sweep.errors import StorageError, SweepError, WslSweepError
from wsl_sweep.paths import cache_folder
from wsl_sweep.spec.plan import Plan, Trial
from wsl_sweep.spec.spec import Spec
from wsl_sweep.storage import Place
from wsl_sweep.sweep.control import forget_requests
from wsl_sweep.sweep.lease import Lease
from wsl_sweep.sweep.ledger import READERS, Ledger

TEACHERS = ".teachers"
"""Where a cluster's nodes find teachers, in the storage."""


@contextlib.contextmanager
def leased(folder: Place) -> Iterator[Lease]:
    """The lease of a sweep for as long as this lasts. Raises WslSweepError: another driver holds it."""
    lease = Lease.take(folder, lambda text: print(text, flush=True))
    try:
        if lease.stale is not None:
            print(f"the driver before, {lease.stale}, is gone: its lease is taken over", flush=True)
        yield lease
    finally:
        lease.release()


def drive(
    spec: Spec, folder: Place, plan: Mapping[str, Any], options: RunOptions, address: str | None, lease: Lease
) -> Finished:
    """Runs a sweep, or what is left of it, and writes what it found.

    Raises:
        SweepError: no trial finished, or the driver could not go on.
        WslSweepError: it could not begin; then nothing of a new sweep stays.
    """
    from wsl_sweep.sweep.environment import prepare_environment

    prepare_environment(local=address is None)
    from wsl_sweep.display import SweepDisplay, only_ours
    from wsl_sweep.sweep.conductor import Conductor
    from wsl_sweep.sweep.elsewhere import Elsewhere
    from wsl_sweep.sweep.runner import Interrupt

    gpu, device_kind = settle_resources(spec, address)
    writer, tracking = make_writer(spec, plan, options, device_kind)
    teachers = folder.parent / TEACHERS if address is not None else None
    elsewhere = Elsewhere(folder.parent, folder.name)
    ledger = Ledger(folder / "ledger", lease)
    conductor = Conductor(
        spec,
        ledger,
        device_kind=device_kind,
        gpu=gpu,
        has_teacher=lambda teacher_id: _has_teacher(teacher_id, teachers),
        elsewhere=lambda trial_id: [] if options.rerun else [one.to_json() for one in elsewhere.find(trial_id)],
    )
    forget_requests(folder)
    fresh = not conductor.state.trials
    if not fresh:
        _recover(conductor, folder)
    interrupt = Interrupt()
    interrupt.install()
    logs = _logs(folder)
    failure: BaseException | None = None
    try:
        with only_ours(logs / "driver.log") as console:
            display = SweepDisplay(console, conductor)
            conductor.listeners += [writer.on_event, display.on_event, _Ahead()]
            _announce(display, spec, conductor.plan, folder)
            writer.warm_up()
            threading.Thread(target=_import_training, daemon=True).start()  # while Ray's own processes start
            try:
                _fit(
                    conductor,
                    folder,
                    plan,
                    options,
                    address,
                    lease,
                    gpu,
                    teachers,
                    interrupt,
                    writer,
                    tracking,
                    display,
                    logs,
                )
            except BaseException as error:
                failure = error
                with contextlib.suppress(OSError):  # its disk may be full
                    traceback.print_exc()  # to driver.log
            if failure is not None and fresh and not conductor.state.trials:
                writer.close("stopped", 5.0)
                raise _told(failure, folder, _kept_log(logs, folder))  # nothing has begun: nothing else stays
            if isinstance(failure, KeyboardInterrupt) and interrupt.signum is not None:
                failure = None
            stop_ray()
            try:
                lease.check()
                _last_word(conductor, failure)
                summary = finish(spec, folder, plan, conductor.state, writer, tracking, display.say)
            except WslSweepError:
                if failure is None and conductor.halted is None:
                    raise  # else the first reason is told: the disk is full, say
    finally:
        stop_ray()
        interrupt.restore()
        if failure is not None and fresh and not conductor.state.trials:
            with contextlib.suppress(WslSweepError, OSError):
                lease.release()
                folder.delete()
        elif folder.local is None:
            _keep_logs(logs, folder)
    if failure is not None:
        raise _told(failure, folder, logs / "driver.log", resumable=True)
    if conductor.halted is not None:
        raise SweepError(_mended(f"the sweep {folder.name} has stopped: {conductor.halted}", folder))
    if summary["status"] == "failed":
        reasons = sorted({str(trial["error"]) for trial in summary["trials"] if trial["error"]})
        raise SweepError(
            f"no trial of {spec.name} finished: {'; '.join(reasons[:3]) or 'none was run'}\n"
            f"  their logs: wsl-sweep logs TRIAL; all of them: {folder / 'summary.json'}"
        )
    return Finished(folder, summary, interrupt.signum, conductor.stopping)


def _fit(
    conductor: Any,
    folder: Place,
    plan: Mapping[str, Any],
    options: RunOptions,
    address: str | None,
    lease: Lease,
    gpu: float,
    teachers: Place | None,
    interrupt: Any,
    writer: Any,
    tracking: Any,
    display: Any,
    logs: Path,
) -> None:
    """Starts Ray and runs the sweep's script on it."""
    from wsl_sweep.sweep.runner import Hands, Setting, card_kinds, fit, room, start_ray

    spec = conductor.spec
    start_ray(address, log_file=logs / "ray.log", insecure=options.insecure)
    interrupt.install()
    if address is not None:
        _examine(spec, folder, plan, options, address, tracking, display)
    slots = room(spec.resources.cpu, gpu, spec.resources.accelerator, address)
    if gpu > 0:
        conductor.settle_accelerator(card_kinds())
    writer.start()
    writer.bring_in_line(conductor.forget_events(), rows_of(folder))
    setting = Setting(
        folder=folder,
        uuid=plan["uuid"],
        gpu=gpu,
        slots=slots,
        import_folders=plan.get("import_folders", ()),
        bank={**plan.get("bank", {}), **({} if options.bank else {"use": False})},
        teachers=teachers,
        lease=lease,
    )
    hands = Hands(rows=[writer.on_rows, display.on_rows], teacher=[display.on_teacher])
    with display.running():
        fit(
            conductor,
            setting,
            hands=hands,
            interrupt=interrupt,
            recall=lambda scheduler: _recall(scheduler, conductor, folder),
        )


def _examine(
    spec: Spec,
    folder: Place,
    plan: Mapping[str, Any],
    options: RunOptions,
    address: str,
    tracking: Any,
    display: Any,
) -> None:
    """Asks every node of the cluster whether the sweep can run there. Raises WslSweepError: it cannot."""
    from wsl_sweep.app.doctor import examine_running

    display.say("asking every node of the cluster whether it can run this")
    report = examine_running(
        spec,
        folder.parent,
        address,
        tracking,
        folders=plan.get("import_folders", ()),
        insecure=options.insecure,
    )
    for check in report.checks:
        if check.status == "warning":
            display.say(f"warning: {check.node}: {check.what}: {check.found}; {check.todo}")
    if not report.ok:
        told = "".join(f"\n  {one.node}: {one.what}: {one.found}; {one.todo}" for one in report.problems)
        raise WslSweepError(f"the cluster at {address} cannot run this sweep:{told}")


def _recover(conductor: Any, folder: Place) -> None:
    """What the ledger does not say, of a sweep whose driver died: trials it lost, and what workers still did."""
    trials = folder / "trials"
    for trial_id in trials.names():
        if trial_id not in conductor.state.trials:
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                trial = Trial.from_json((trials / trial_id / "config.json").read_json())
                if trial.trial_id == trial_id:
                    conductor.take_up(trial)
    conductor.take_in(left_by_workers(folder))


def _recall(scheduler: Any, conductor: Any, folder: Place) -> None:
    """The scheduler of each arm hears again what its trials reported in earlier drivers' times."""
    if conductor.spec.scheduler.name == "none":
        return
    rows = rows_of(folder)
    for arm in conductor.spec.arms:
        own = [one for one in conductor.state.trials.values() if one.trial.arm == arm and one.trial.stage == "search"]
        begun = [one for one in own if one.attempt]
        with ThreadPoolExecutor(1 if folder.local is not None else READERS) as readers:
            found = readers.map(lambda one: rows(one.trial.trial_id, one.attempt), begun)
            scheduler.recall(arm, {one.trial.trial_id: told for one, told in zip(begun, found, strict=True)})


def _last_word(conductor: Any, failure: BaseException | None) -> None:
    """The ledger's last events of this driver."""
    if failure is None and conductor.stopping is None:
        done = any(state.status == "finished" for state in conductor.state.trials.values())
        conductor.close("finished" if done else "failed")
    else:
        conductor.interrupt()


def _logs(folder: Place) -> Path:
    """Where this driver's own output goes: the sweep's folder, or, for an object store, the cache."""
    return folder.local if folder.local is not None else cache_folder() / "logs" / folder.name


def _keep_logs(logs: Path, folder: Place) -> None:
    with contextlib.suppress(WslSweepError, OSError):
        for path in logs.glob("*.log"):
            (folder / path.name).write(path.read_bytes())


def _told(failure: BaseException, folder: Place, log: Path, *, resumable: bool = False) -> BaseException:
    """What the user is told of an error in the driver: what is known as it is, anything else in a line."""
    if isinstance(failure, StorageError) and resumable:
        return SweepError(_mended(f"the sweep {folder.name} has stopped: {failure}", folder))
    if isinstance(failure, WslSweepError | KeyboardInterrupt):
        return failure
    first = next((line for line in str(failure).splitlines() if line.strip()), "no message")
    kept = f"; what was done is kept: wsl-sweep resume {with_storage(folder.name, folder)}" if resumable else ""
    return SweepError(f"the sweep's driver failed: {type(failure).__name__}: {first}\n  more of it: {log}{kept}")


def _mended(told: str, folder: Place) -> str:
    return f"{told}\n  when that is mended: wsl-sweep resume {with_storage(folder.name, folder)}"


def _kept_log(logs: Path, folder: Place) -> Path:
    """The driver's output, out of a folder that is about to go."""
    kept = cache_folder() / "logs" / f"{folder.name}.driver.log"
    with contextlib.suppress(OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(logs / "driver.log", kept)
    return kept


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


def _announce(display: Any, spec: Spec, plan: Plan, folder: Place) -> None:
    stages = ", ".join(f"{count} trials {stage}" for stage, count in plan.stages.items())
    missing = [teacher for teacher, there in teachers_there(plan).items() if not there]
    teachers = f", {len(missing)} teacher{'s' if len(missing) != 1 else ''} to train first" if missing else ""
    display.say(f"{spec.name}: {stages}{teachers}; everything goes to {folder}")
    for note in spec.notes:
        display.say(f"note: {note}")


def _has_teacher(teacher_id: str, shared: Place | None) -> bool:
    from wsl_sweep.training import TeacherStore

    return TeacherStore(shared=shared).has(teacher_id)


def stop_ray() -> None:
    """Ends Ray in this process, whatever was started."""
    import ray

    ray.shutdown()
