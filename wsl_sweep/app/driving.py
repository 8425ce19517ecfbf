"""From a folder with a plan to a summary: one driver's run of a sweep."""

from __future__ import annotations

import contextlib
import gc
import shutil
import traceback
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from wsl_sweep.analysis.summary import build_summary
from wsl_sweep.app.ahead import Ahead
from wsl_sweep.app.folders import rows_of
from wsl_sweep.app.options import Finished, RunOptions, settle_resources, with_storage
from wsl_sweep.app.planning import teachers_there
from wsl_sweep.app.results import finish
from wsl_sweep.app.syncing import left_by_workers, make_writer
from wsl_sweep.errors import StorageError, SweepError, WslSweepError
from wsl_sweep.paths import cache_folder
from wsl_sweep.spec.plan import Plan, Trial
from wsl_sweep.spec.spec import Spec
from wsl_sweep.storage import Place
from wsl_sweep.sweep.control import forget_requests
from wsl_sweep.sweep.lease import Lease
from wsl_sweep.sweep.ledger import READERS, Event, Ledger

TEACHERS = ".teachers"
"""Where a cluster's nodes find teachers, in the storage."""


@contextlib.contextmanager
def leased(folder: Place) -> Iterator[Lease]:
    """The lease of a sweep for as long as this lasts. Raises WslSweepError: another driver holds it."""
    lease = Lease.take(folder, lambda text: print(text, flush=True))
    try:
        if lease.stale is not None:
            print(f"the driver before, {lease.stale}, is gone: its lease is taken over", flush=True)
        forget_requests(folder)  # what comes from now on is meant for this driver
        yield lease
    finally:
        lease.release()


def drive(
    spec: Spec,
    folder: Place,
    plan: Mapping[str, Any],
    options: RunOptions,
    address: str | None,
    *,
    ledger: Ledger,
    events: list[Event],
    fresh: bool,
) -> Finished:
    """Runs a sweep, or what is left of it, and writes what it found.

    Args:
        spec: what is asked for.
        folder: of the sweep, with its plan.
        plan: of the sweep.
        options: of this driver.
        address: of the cluster, or None.
        ledger: of the sweep, with the lease that the caller holds.
        events: all that are in it.
        fresh: whether the sweep is begun now; of one that goes on nothing is ever deleted.

    Raises:
        SweepError: no trial finished, or the driver could not go on.
        WslSweepError: it could not begin; then nothing of a new sweep stays.
    """
    from wsl_sweep.sweep.environment import prepare_environment

    prepare_environment(local=address is None)
    return _Driver(spec, folder, plan, options, address, ledger, events, fresh).run()


class _Driver:
    """One driver's run of a sweep. Its arguments are those of ``drive``; the lease is the ledger's."""

    def __init__(
        self,
        spec: Spec,
        folder: Place,
        plan: Mapping[str, Any],
        options: RunOptions,
        address: str | None,
        ledger: Ledger,
        events: list[Event],
        fresh: bool,
    ) -> None:
        from wsl_sweep.sweep.conductor import Conductor
        from wsl_sweep.sweep.elsewhere import Elsewhere
        from wsl_sweep.sweep.watch import Interrupt

        self.spec, self.folder, self.plan, self.options = spec, folder, plan, options
        assert ledger.lease is not None
        self.address, self.lease = address, ledger.lease
        self.gpu, device_kind = settle_resources(spec, address)
        self.writer, self.tracking = make_writer(spec, plan, options, device_kind)
        storage = folder.parent.absolute()  # workers may look from another folder
        self.teachers = storage / TEACHERS if address is not None else None
        elsewhere = Elsewhere(storage, folder.name)
        self.conductor = Conductor(
            spec,
            ledger,
            events=events,
            device_kind=device_kind,
            gpu=self.gpu,
            has_teacher=lambda teacher_id: _has_teacher(teacher_id, self.teachers),
            elsewhere=lambda trial_id: [] if options.rerun else [one.to_json() for one in elsewhere.find(trial_id)],
        )
        self.fresh, self.fit_began = fresh, False
        self.interrupt = Interrupt()
        self.ahead = Ahead(spec.tracking.best_student)
        self.logs = _logs(folder, str(plan["uuid"]))

    def run(self) -> Finished:
        """See ``drive``."""
        from wsl_sweep.display import SweepDisplay, only_ours

        if not self.fresh:
            _recover(self.conductor, self.folder)
        self.interrupt.install()
        failure: BaseException | None = None
        summary: Mapping[str, Any] | None = None
        try:
            with only_ours(self.logs / "driver.log") as console:
                display = SweepDisplay(console, self.conductor)
                self.conductor.listeners += [self.writer.on_event, display.on_event, self.ahead.on_event]
                failure = self._try(display)
                with self.interrupt.noted():  # a first signal from here on cuts nothing short
                    stop_ray()
                    if self._nothing_began(failure) or not self.fit_began:
                        self.writer.close("stopped", 5.0)
                    else:
                        summary = self._finish(failure, display)
        finally:
            stop_ray()
            self.ahead.close()
            self.interrupt.restore()
            log = self.logs / "driver.log"
            if self._nothing_began(failure):
                log = _kept_log(self.logs, self.folder)
                with contextlib.suppress(WslSweepError, OSError):
                    self.lease.release()
                    self.folder.delete()  # nothing has begun: nothing stays
            elif self.folder.local is None:
                _keep_logs(self.logs, self.folder)
        return self._outcome(failure, summary, log)

    def _nothing_began(self, failure: BaseException | None) -> bool:
        return failure is not None and self.fresh and not self.conductor.state.trials

    def _try(self, display: Any) -> BaseException | None:
        """Runs the script; returns why it could not be run to its end, or None, also where it was told to stop."""
        try:
            self.writer.warm_up()
            _announce(display, self.spec, self.conductor.plan, self.folder)
            self._fit(display)
        except BaseException as error:
            with contextlib.suppress(OSError):  # its disk may be full
                traceback.print_exc()  # to driver.log
            stopped = isinstance(error, KeyboardInterrupt) and self.interrupt.signum is not None
            began = not self.fresh or bool(self.conductor.state.trials)
            return None if stopped and began else error
        return None

    def _fit(self, display: Any) -> None:
        """Starts Ray and runs the sweep's script on it."""
        from wsl_sweep.sweep.cluster import card_kinds, room, start_ray

        resources = self.spec.resources
        start_ray(self.address, log_file=self.logs / "ray.log", insecure=self.options.insecure)
        from wsl_sweep.sweep.runner import Hands, Setting, fit  # Tune, of which much is MLflow's too: see warm_up

        self.interrupt.install()
        if self.address is not None:
            self._examine(self.address, display)
        processes = self.spec.processes
        slots = room(resources.cpu, self.gpu, resources.accelerator, self.address, processes)
        if self.gpu > 0:
            self.conductor.settle_accelerator(card_kinds())
        settled = self.conductor.state.accelerator
        if settled is not None:
            try:
                room(resources.cpu, self.gpu, settled, self.address, processes)
            except WslSweepError as error:
                raise WslSweepError(
                    f"paired seeds of this sweep run on {settled} alone, as it was settled when it began, and no node "
                    f"has one that a trial fits on: bring one, or start another sweep ({error})"
                ) from error
        self.writer.start()
        events = self.conductor.forget_events()
        self.writer.bring_in_line(events, rows_of(self.folder))
        events.clear()  # of thousands of trials, and others hold them too
        setting = Setting(
            folder=self.folder,
            uuid=self.plan["uuid"],
            gpu=self.gpu,
            slots=slots,
            import_folders=self.plan.get("import_folders", ()),
            bank={**self.plan.get("bank", {}), **({} if self.options.bank else {"use": False})},
            teachers=self.teachers,
            lease=self.lease,
        )
        hands = Hands(rows=[self.writer.on_rows, display.on_rows], teacher=[display.on_teacher, self.ahead.on_teacher])
        self.fit_began = True
        with display.running():
            fit(
                self.conductor,
                setting,
                hands=hands,
                interrupt=self.interrupt,
                recall=lambda scheduler: _recall(scheduler, self.conductor, self.folder),
                left=left_by_workers(self.folder),
                rows_of=rows_of(self.folder),
            )

    def _examine(self, address: str, display: Any) -> None:
        """Asks every node of the cluster whether the sweep can run there. Raises WslSweepError: it cannot."""
        from wsl_sweep.app.doctor import examine_running

        display.say("asking every node of the cluster whether it can run this")
        report = examine_running(
            self.spec,
            self.folder.parent,
            address,
            self.tracking,
            folders=self.plan.get("import_folders", ()),
            insecure=self.options.insecure,
        )
        for check in report.checks:
            if check.status == "warning":
                display.say(f"warning: {check.node}: {check.what}: {check.found}; {check.todo}")
        if not report.ok:
            told = "".join(f"\n  {one.node}: {one.what}: {one.found}; {one.todo}" for one in report.problems)
            raise WslSweepError(f"the cluster at {address} cannot run this sweep:{told}")

    def _finish(self, failure: BaseException | None, display: Any) -> Mapping[str, Any] | None:
        """The ledger's last events of this driver, and what is made of them; None where the disk is full, say."""
        conductor = self.conductor
        try:
            self.lease.check()
            if failure is None and conductor.stopping is None and self.interrupt.signum is None:
                done = any(state.status == "finished" for state in conductor.state.trials.values())
                conductor.close("finished" if done else "failed")
            else:
                conductor.interrupt()
            return finish(self.spec, self.folder, self.plan, conductor.state, self.writer, self.tracking, display.say)
        except WslSweepError:
            if failure is None and conductor.halted is None:
                raise
            return None  # the first reason is told

    def _outcome(self, failure: BaseException | None, summary: Mapping[str, Any] | None, log: Path) -> Finished:
        """What the caller gets. Raises what ``drive`` does."""
        if failure is not None:
            raise _told(failure, self.folder, log, resumable=not self._nothing_began(failure))
        if not self.fit_began:  # stopped by a signal before anything went on
            there = build_summary(self.spec, self.conductor.state, uuid=str(self.plan["uuid"]))
            return Finished(self.folder, there | {"status": "stopped"}, self.interrupt.signum, self.conductor.stopping)
        if self.conductor.halted is not None or summary is None:
            raise SweepError(_mended(f"the sweep {self.folder.name} has stopped: {self.conductor.halted}", self.folder))
        if summary["status"] == "failed":
            reasons = sorted({str(trial["error"]) for trial in summary["trials"] if trial["error"]})
            raise SweepError(
                f"no trial of {self.spec.name} finished: {'; '.join(reasons[:3]) or 'none was run'}\n"
                f"  their logs: wsl-sweep logs TRIAL; all of them: {self.folder / 'summary.json'}"
            )
        signum = None if summary["status"] == "finished" else self.interrupt.signum
        return Finished(self.folder, dict(summary), signum, self.conductor.stopping)


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


def _logs(folder: Place, uuid: str) -> Path:
    """Where this driver's own output goes: the sweep's folder, or, for an object store, the cache."""
    return folder.local if folder.local is not None else cache_folder() / "logs" / f"{folder.name}-{uuid[:8]}"


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
    """Ends Ray in this process, whatever was started.

    Meanwhile no garbage is collected: of what Tune leaves in cycles another thread may free a reference to something
    of Ray's while its core is being taken down, and Ray then ends the whole process.
    """
    import ray

    collecting = gc.isenabled()
    gc.disable()
    try:
        ray.shutdown()
    finally:
        if collecting:
            gc.enable()
