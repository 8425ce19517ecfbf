"""What a sweep of many trials costs its driver: seconds and memory a trial, from one trial to thousands.

    python -m benchmarks.scale [--sizes 1,10,100,1000] [--no-mlflow] [--profile FILE] [--trace]

A random search whose trials train nothing: conductor, ledger, display, the runner on a Ray of its own and the MLflow
writer on SQLite are the real ones, only what a worker does is one report with the outcome of a finished trial. Each
size runs in a process of its own. Seconds are those of the fit, from Ray's being there to the last word of the last
trial, and what the writer still has to do then; a trial's share is also given without what one trial alone takes.
Memory is the driver's resident set, after the fit and the writer, less before.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.common import parser_of, save, show, table, workshop

SPACE = """
name: scale
run: {{recipe: digits}}
space:
  distillation.alpha: {{uniform: [0.5, 4.0]}}
  distillation.temperature: {{uniform: [1.0, 8.0]}}
search: {{sampler: random, trials: {trials}}}
resources: {{cpu: 1, gpu: 0}}
"""
METRICS = (
    "train/loss", "train/accuracy", "weight/mean", "regularization_samples/fraction", "validation/accuracy",
    "validation/loss", "validation/ece", "teacher/agreement", "teacher/kl", "train/seconds",
)  # fmt: skip
"""What a row of the digits recipe holds."""

FLAT = 1.5
"""Costs a trial count as flat where no size has more than so many times the least of those from 100 trials on."""


def finished_report(task: Mapping[str, Any]) -> dict[str, Any]:
    """The only report of a trial of one epoch, as ``wsl_sweep.sweep.trainable`` makes the last one."""
    metrics = dict.fromkeys(METRICS, 0.5)
    row = {"epoch": 1.0, **metrics, "timestamp": time.time()}
    outcome = {
        "status": "finished",
        "epochs": 1,
        "metrics": metrics,
        "device": "cpu",
        "fingerprint": "0" * 16,
        "teacher": {"computed": 0, "found": 1000, "notes": []},
        "seconds": 0.0,
    }
    told = {name: row[name] for name in ("epoch", *task["metrics"])}
    return {**told, "rows": json.dumps([row]), "outcome": json.dumps(outcome)}


def train_nothing(config: dict[str, Any]) -> None:
    """In place of ``wsl_sweep.sweep.trainable.tune_function``."""
    from ray import tune

    tune.report(finished_report(json.loads(config["task"])))


def resident_mb() -> float:
    """This process's resident set in MB (10⁶ bytes)."""
    import psutil  # type: ignore[import-untyped]

    return float(psutil.Process().memory_info().rss) / 1e6


@contextlib.contextmanager
def profiling(path: Path | None) -> Iterator[None]:
    """Writes a cProfile of the thread to ``path``, if there is one."""
    if path is None:
        yield
        return
    import cProfile

    with cProfile.Profile() as profile:
        yield
    profile.dump_stats(path)


@contextlib.contextmanager
def tracing(wanted: bool) -> Iterator[list[str]]:
    """A list that gets the lines of code whose memory has grown the most meanwhile."""
    lines: list[str] = []
    if not wanted:
        yield lines
        return
    import tracemalloc

    tracemalloc.start(6)
    before = tracemalloc.take_snapshot()
    yield lines
    grown = tracemalloc.take_snapshot().compare_to(before, "lineno")
    lines += [str(entry) for entry in grown[:25]]
    tracemalloc.stop()


def measure(
    trials: int, folder: Path, uri: str | None, profile: Path | None = None, trace: bool = False
) -> dict[str, Any]:
    """One size, in this process: Ray is started and stopped."""
    from wsl_sweep.sweep.environment import prepare_environment

    prepare_environment(local=True)
    import ray
    from rich.console import Console

    from wsl_sweep.display import SweepDisplay
    from wsl_sweep.spec import CommandLine, parse_spec
    from wsl_sweep.sweep import runner
    from wsl_sweep.sweep.conductor import Conductor
    from wsl_sweep.sweep.ledger import Ledger
    from wsl_sweep.tracking import MlflowWriter, Tracking

    spec = parse_spec(SPACE.format(trials=trials), "benchmark", CommandLine())
    conductor = Conductor(spec, Ledger(folder / "ledger"), has_teacher=lambda _: True)
    ends: list[float] = []
    with (folder / "console.log").open("w") as console:
        display = SweepDisplay(Console(file=console), conductor)
        conductor.listeners += [display.on_event, _at_finish(ends)]
        rows = [display.on_rows]
        writer = None
        if uri is not None:
            sweep = {"name": "scale", "uuid": "u", "description": "", "git_commit": "unknown", "device": "cpu"}
            writer = MlflowWriter(Tracking(uri, "scale"), sweep)
            conductor.listeners.append(writer.on_event)
            rows.append(writer.on_rows)
            writer.start()
            writer.flush(120)
        runner.start_ray(None, log_file=folder / "ray.log")
        interrupt = runner.Interrupt()
        interrupt.install()
        try:
            with tracing(trace) as grown:
                before = resident_mb()
                begun = time.perf_counter()
                with profiling(profile), mock.patch.object(runner, "tune_function", train_nothing):
                    runner.fit(conductor, folder, gpu=0, hands=runner.Hands(rows=rows), interrupt=interrupt)
                fitted = time.perf_counter()
                written = writer is None or writer.flush(3600)
                drained = time.perf_counter()
                after = resident_mb()
        finally:
            ray.shutdown()
            interrupt.restore()
        if writer is not None and not (written and writer.close("finished", 60)):
            raise RuntimeError(f"MLflow did not take everything: {writer.problem}")
    finished = sum(state.status == "finished" for state in conductor.state.trials.values())
    if finished != trials:
        raise RuntimeError(f"{finished} of {trials} trials finished")
    return {
        "trials": trials,
        "fit_seconds": fitted - begun,
        "writer_seconds_after": drained - fitted,
        "quarters": quarters(ends),
        "mb_before": before,
        "mb_after": after,
        "grown": grown,
    }


def _at_finish(ends: list[float]) -> Callable[[dict[str, Any]], None]:
    def listen(event: dict[str, Any]) -> None:
        if event["event"] == "finished":
            ends.append(event["time"])

    return listen


def quarters(ends: Sequence[float]) -> list[float]:
    """Milliseconds from one trial's end to the next one's, a mean over each quarter of them; none below 40 trials."""
    if len(ends) < 40:
        return []
    edges = [round(index * (len(ends) - 1) / 4) for index in range(5)]
    return [1000 * (ends[b] - ends[a]) / (b - a) for a, b in itertools.pairwise(edges)]


def costs(found: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """Of each size: seconds and MB a trial, and both without what the smallest size takes (None for that one)."""
    least = min(found, key=lambda one: one["trials"])
    made: list[dict[str, Any]] = []
    for one in found:
        more = one["trials"] - least["trials"]
        seconds, grown = _whole(one), one["mb_after"] - one["mb_before"]
        made.append(
            {
                "trials": one["trials"],
                "seconds_a_trial": seconds / one["trials"],
                "mb_a_trial": grown / one["trials"],
                "seconds_more": (seconds - _whole(least)) / more if more else None,
                "mb_more": (grown - (least["mb_after"] - least["mb_before"])) / more if more else None,
            }
        )
    return made


def _whole(one: Mapping[str, Any]) -> float:
    return float(one["fit_seconds"] + one["writer_seconds_after"])


def is_flat(values: Sequence[float]) -> bool | None:
    """Whether the largest is at most FLAT times the least; None where there is nothing to compare."""
    if len(values) < 2:
        return None
    return max(values) <= FLAT * max(min(values), 1e-9)


def verdicts(made: Sequence[Mapping[str, Any]]) -> dict[str, bool | None]:
    """Whether the costs of one trial more stay flat from 100 trials on."""
    large = [one for one in made if one["trials"] >= 100 and one["seconds_more"] is not None]
    return {
        "seconds": is_flat([one["seconds_more"] for one in large]),
        "memory": is_flat([one["mb_more"] for one in large]),
    }


def main() -> None:
    """Prints the table and writes ``benchmarks/scale.json``."""
    parser = parser_of(__doc__)
    parser.add_argument("--sizes", default="1,10,100,1000,5000", help="numbers of trials")
    parser.add_argument("--no-mlflow", action="store_true", help="without the MLflow writer")
    parser.add_argument("--profile", type=Path, help="write the cProfile of the largest size's driver there")
    parser.add_argument("--trace", action="store_true", help="which lines' memory grows, by tracemalloc (slow)")
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.alone:
        job = json.loads(asked.alone)
        profile = Path(job["profile"]) if job["profile"] else None
        done = measure(job["trials"], Path(job["folder"]), job["uri"], profile, job["trace"])
        (Path(job["folder"]) / "measured.json").write_text(json.dumps(done))
        return
    sizes = [int(size) for size in asked.sizes.split(",")]
    found: list[dict[str, Any]] = []
    with workshop() as shop:
        for size in sizes:
            folder = shop.sub(str(size))
            job = {
                "trials": size,
                "folder": str(folder),
                "uri": None if asked.no_mlflow else shop.database(folder),
                "profile": str(asked.profile.absolute()) if asked.profile and size == max(sizes) else None,
                "trace": asked.trace,
            }
            shop.timed([sys.executable, "-m", "benchmarks.scale", "--alone", json.dumps(job)], folder)
            found.append(json.loads((folder / "measured.json").read_text()))
    made = costs(found)
    rows = [
        (
            f"{one['trials']:,}",
            f"{one['fit_seconds']:.1f}",
            f"{one['writer_seconds_after']:.1f}",
            f"{cost['seconds_a_trial']:.3f}",
            _or_dash(cost["seconds_more"], 3),
            " ".join(f"{value:.0f}" for value in one["quarters"]),
            f"{one['mb_before']:.0f} → {one['mb_after']:.0f}",
            f"{cost['mb_a_trial']:.3f}",
            _or_dash(cost["mb_more"], 3),
        )
        for one, cost in zip(found, made, strict=True)
    ]
    columns = ("trials", "fit, s", "writer after, s", "s a trial", "s one more", "ms a trial by quarter", "RSS, MB",
               "MB a trial", "MB one more")  # fmt: skip
    words = {True: "flat", False: "not flat", None: "not told by these sizes"}
    said = {name: words[flat] for name, flat in verdicts(made).items()}
    show(
        table(columns, rows),
        f"one trial more, from 100 on: seconds {said['seconds']}, memory {said['memory']} (within {FLAT} times)",
        *(line for one in found for line in one["grown"]),
    )
    result = {"mlflow": not asked.no_mlflow, "sizes": found, "costs": made, "flat": verdicts(made)}
    save(__file__, result, asked.output)


def _or_dash(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


if __name__ == "__main__":
    main()
