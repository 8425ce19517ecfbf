"""What a sweep of thousands of trials costs its driver, and what it takes to go on with it.

    python -m benchmarks.scale [--trials 500,1000,2000,5000] [--nodes 8] [--slots-a-node 4] [--sampler tpe]
                               [--scheduler asha] [--no-writer] [--profile FILE] [--keep FOLDER]

Searcher, conductor, study, schedulers, ledger under its lease, display, the MLflow writer on SQLite and the runner are
the real ones; only the workers are made up (``benchmarks.simulated``): they report rows at once, some are pruned by
the scheduler, some die. The nodes are the slots of one Ray with as many CPUs as they would have together: a raylet
with its agents for each of them starts in six seconds and takes more than two cores leave. One sweep of the largest
size is run; its ledger, cut off in the middle of events as ``kill -9`` does at each of the sizes, is then gone on with
in a process of its own, up to the first new proposal. Ray's start and imports are left out there.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import shutil
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.common import Workshop, parser_of, save, show, table, workshop
from benchmarks.resume import cut, resume
from benchmarks.simulated import file_of, simulate
from benchmarks.stalls import Clock, Pulse, clocked

UUID = "scale"
HOOKS = ("TuneSearcher.", "TuneCallback.", "ArmScheduler.")
"""The clocks of what Ray Tune calls; the others are inside of them or in the writer's thread."""


def resident_mb() -> float:
    """This process's resident set in MB (10⁶ bytes)."""
    import psutil  # type: ignore[import-untyped]

    return float(psutil.Process().memory_info().rss) / 1e6


def line(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """(a, b) of the least squares line a + b·x."""
    count = len(points)
    if count < 2:
        raise ValueError("a line needs two points")
    x, y = (sum(values) / count for values in zip(*points, strict=True))
    slope = sum((a - x) * (b - y) for a, b in points) / sum((a - x) ** 2 for a, _ in points)
    return y - slope * x, slope


def by_trials(quarters: Sequence[float], trials: int) -> tuple[float, float] | None:
    """(at the first trial, more for each trial) of milliseconds by quarter, as a line; None without quarters."""
    return line([((index + 0.5) * trials / 4, one) for index, one in enumerate(quarters)]) if quarters else None


def size_of(folder: Path) -> dict[str, float]:
    """Segments of a ledger, their bytes, and the bytes of disk that they take."""
    found = [path.stat() for path in folder.glob("*.json")]
    return {
        "segments": len(found),
        "bytes": sum(one.st_size for one in found),
        "on_disk": sum(one.st_blocks * 512 for one in found),
    }


def run(job: Mapping[str, Any]) -> dict[str, Any]:
    """One sweep, in this process: Ray is started and stopped."""
    from wsl_sweep.sweep.environment import prepare_environment

    prepare_environment(local=True)
    import ray
    from rich.console import Console

    from wsl_sweep.display import SweepDisplay
    from wsl_sweep.spec import CommandLine, parse_spec
    from wsl_sweep.storage import place
    from wsl_sweep.sweep import runner
    from wsl_sweep.sweep.conductor import Conductor
    from wsl_sweep.sweep.lease import Lease
    from wsl_sweep.sweep.ledger import Ledger
    from wsl_sweep.sweep.schedulers import ArmScheduler
    from wsl_sweep.sweep.study import ArmStudy
    from wsl_sweep.sweep.watch import Interrupt
    from wsl_sweep.tracking import MlflowWriter, Tracking
    from wsl_sweep.tracking.runs import SweepRuns

    trials, slots = job["trials"], job["slots"]
    spec = parse_spec(file_of(trials, job["sampler"], job["scheduler"]), "benchmark", CommandLine())
    folder = place(job["sweep"])
    lease = Lease.take(folder)
    conductor = Conductor(spec, Ledger(folder / "ledger", lease), has_teacher=lambda _: True)
    ends: list[float] = []
    conductor.listeners.append(lambda event: ends.append(event["time"]) if event["event"] in WORDS else None)
    methods = [(runner._TuneSearcher, name) for name in ("suggest", "on_trial_result", "on_trial_complete")]
    methods += [(runner._TuneCallback, name) for name in ("on_trial_start", "on_trial_complete", "on_trial_error")]
    methods += [(ArmScheduler, "on_trial_result")]
    inner = [(Ledger, "append"), (ArmStudy, "propose"), (ArmStudy, "tell"), (Conductor, "_budget_spent")]
    inner += [(SweepDisplay, "on_event"), (SweepRuns, "ensure"), (SweepRuns, "log_rows"), (SweepRuns, "set_tags")]
    pulse = Pulse(threading.main_thread().ident or 0)
    with ExitStack() as stack:
        clocks = stack.enter_context(clocked(inner))
        console = stack.enter_context((Path(job["folder"]) / "console.log").open("w"))
        display = SweepDisplay(Console(file=console), conductor)
        conductor.listeners.append(display.on_event)
        rows = [display.on_rows]
        writer = None
        if job["uri"] is not None:
            sweep = {"name": "scale", "uuid": UUID, "description": "", "git_commit": "unknown", "device": "cpu"}
            writer = MlflowWriter(Tracking(job["uri"], "scale"), sweep)
            conductor.listeners.append(writer.on_event)
            rows.append(writer.on_rows)
            writer.start()
            writer.flush(120)
        ray.init(address="local", num_cpus=slots, include_dashboard=False, log_to_driver=False)
        stack.callback(ray.shutdown)
        interrupt = Interrupt()
        interrupt.install()
        stack.callback(interrupt.restore)
        clocks |= stack.enter_context(clocked(methods, lambda: pulse.beat(not conductor.finished)))
        stack.enter_context(mock.patch.object(runner, "tune_function", simulate))
        before, cpu, main_cpu, begun = resident_mb(), time.process_time(), time.thread_time(), time.perf_counter()
        with pulse:
            setting = runner.Setting(folder=folder, uuid=UUID, slots=slots, lease=lease)
            with _profiled(job["profile"]):
                runner.fit(conductor, setting, hands=runner.Hands(rows=rows), interrupt=interrupt)
        fitted, main_cpu = time.perf_counter(), time.thread_time() - main_cpu
        written = writer is None or writer.flush(3600)
        drained, cpu, after = time.perf_counter(), time.process_time() - cpu, resident_mb()
        if writer is not None and not (written and writer.close("stopped", 60)):
            raise RuntimeError(f"MLflow did not take everything: {writer.problem}")
    lease.release()
    words = [state.status for state in conductor.state.trials.values()]
    if len(words) != trials or set(words) - {"finished", "pruned"}:
        raise RuntimeError(f"{len(words)} of {trials} trials, with {sorted(set(words))}")
    return {
        "trials": trials,
        "slots": slots,
        "finished": words.count("finished"),
        "pruned": words.count("pruned"),
        "lost_workers": sum(state.losses for state in conductor.state.trials.values()),
        "fit_seconds": fitted - begun,
        "first_end_seconds": ends[0] - (time.time() - (time.perf_counter() - begun)),
        "writer_seconds_after": drained - fitted,
        "main_thread_cpu_seconds": main_cpu,
        "driver_cpu_seconds": cpu,
        "quarters": quarters(ends),
        "mb_before": before,
        "mb_after": after,
        "mb_peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
        "stalls": [asdict(stall) for stall in pulse.stalls],
        "watcher_late_seconds": pulse.late,
        "clocks": {name: clock.summary() for name, clock in clocks.items()},
        "hooks_seconds": hooks_seconds(clocks),
        "ledger": size_of(Path(job["sweep"]) / "ledger"),
    }


WORDS = frozenset({"finished", "pruned"})


def hooks_seconds(clocks: Mapping[str, Clock]) -> float:
    """Seconds of all that Ray Tune called of ours."""
    return sum(sum(clock.seconds) for name, clock in clocks.items() if name.startswith(HOOKS))


def _profiled(path: str | None) -> Any:
    from contextlib import contextmanager

    @contextmanager
    def profiling() -> Any:
        import cProfile

        with cProfile.Profile() as profile:
            yield
        profile.dump_stats(str(path))

    return profiling() if path else ExitStack()


def quarters(ends: Sequence[float]) -> list[float]:
    """Milliseconds from one trial's end to the next one's, a mean over each quarter of them; none below 40 trials."""
    if len(ends) < 40:
        return []
    edges = [round(index * (len(ends) - 1) / 4) for index in range(5)]
    return [1000 * (ends[b] - ends[a]) / (b - a) for a, b in itertools.pairwise(edges)]


def report(found: Mapping[str, Any], resumed: Sequence[Mapping[str, Any]]) -> list[Any]:
    """What is printed."""
    trials = found["trials"]
    grown, ledger = found["mb_after"] - found["mb_before"], found["ledger"]
    per = [
        f"{trials:,} trials in {found['slots']} slots: {found['finished']:,} finished, {found['pruned']:,} pruned, "
        f"{found['lost_workers']} workers died",
        f"seconds a trial: {found['fit_seconds'] / trials:.4f}; of the driver's loop thread "
        f"{found['main_thread_cpu_seconds'] / trials:.4f} (processor), in our hooks "
        f"{found['hooks_seconds'] / trials:.4f} (clock)",
        f"the writer then took {found['writer_seconds_after']:.1f} s more",
        "ms from end to end by quarter: " + " ".join(f"{one:.1f}" for one in found["quarters"]),
        f"memory: {found['mb_before']:.0f} → {found['mb_after']:.0f} MB, {1000 * grown / trials:.1f} KB a trial",
        f"ledger: {ledger['segments']:,} segments, {ledger['bytes'] / 1e6:.1f} MB "
        f"({ledger['on_disk'] / 1e6:.1f} on disk)",
        f"watcher late by {found['watcher_late_seconds']:.2f} s at the most; longest stalls:",
        *(f"  {one['seconds']:.2f} s after {one['calls']:,} beats: {one['where']}" for one in found["stalls"]),
    ]
    clocks = table(
        ("call", "calls", "s", "longest, s", "ms a call by quarter"),
        [
            (name, f"{one['calls']:,}", f"{one['seconds']:.1f}", f"{one['longest']:.3f}",
             " ".join(f"{value:.2f}" for value in one["quarters"]))
            for name, one in found["clocks"].items()
        ],
    )  # fmt: skip
    phases = list(dict.fromkeys(name for one in resumed for name in one["phases"]))
    rows = [
        (f"{one['trials']:,}", f"{one['seconds']:.2f}", *(f"{one['phases'].get(name, 0.0):.2f}" for name in phases))
        for one in resumed
    ]
    return [*per, clocks, table(("resume at", "s in all", *phases), rows)] if rows else [*per, clocks]


def main() -> None:
    """Prints the tables and writes ``benchmarks/scale.json``."""
    parser = parser_of(__doc__)
    parser.add_argument("--trials", default="500,1000,2000,5000", help="the largest is run, all are resumed")
    parser.add_argument("--nodes", type=int, default=8)
    parser.add_argument("--slots-a-node", type=int, default=4)
    parser.add_argument("--sampler", choices=("tpe", "random"), default="tpe")
    parser.add_argument("--scheduler", choices=("none", "asha", "median"), default="asha")
    parser.add_argument("--no-writer", action="store_true", help="without the MLflow writer")
    parser.add_argument("--profile", type=Path, help="write the cProfile of the driver there")
    parser.add_argument("--keep", type=Path, help="copy the sweep's folder there")
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.alone:
        job = json.loads(asked.alone)
        done = (resume if "wanted" in job else run)(job)
        (Path(job["folder"]) / "measured.json").write_text(json.dumps(done))
        return
    sizes = sorted(int(size) for size in asked.trials.split(","))
    with workshop() as shop:
        folder = shop.sub("run")
        job = {
            "trials": sizes[-1],
            "slots": asked.nodes * asked.slots_a_node,
            "sampler": asked.sampler,
            "scheduler": asked.scheduler,
            "folder": str(folder),
            "sweep": str(folder / "runs" / "scale"),
            "uri": None if asked.no_writer else shop.database(folder),
            "profile": str(asked.profile.absolute()) if asked.profile else None,
        }
        found = _alone(shop, job)
        show(*report(found, []))
        if asked.keep:
            shutil.copytree(folder, asked.keep, dirs_exist_ok=True)
        resumed = []
        for size in sizes:
            part = shop.sub(f"resume-{size}")
            cut(folder / "runs" / "scale", part / "runs" / "scale", size, job["slots"])
            more = {**job, "trials": size, "wanted": size + job["slots"], "folder": str(part)}
            resumed.append(_alone(shop, {**more, "sweep": str(part / "runs" / "scale")}))
    show(*report(found, resumed))
    asked_for = {name: job[name] for name in ("slots", "sampler", "scheduler")}
    save(__file__, {**asked_for, "writer": not asked.no_writer, "sweep": found, "resume": resumed}, asked.output)


def _alone(shop: Workshop, job: Mapping[str, Any]) -> dict[str, Any]:
    folder = Path(job["folder"])
    shop.timed([sys.executable, "-m", "benchmarks.scale", "--alone", json.dumps(job)], folder)
    measured: dict[str, Any] = json.loads((folder / "measured.json").read_text())
    return measured


if __name__ == "__main__":
    main()
