"""How far teacher and student are apart on the ``digits`` recipe, and how long a trial takes.

    python -m benchmarks.digits [--seeds 5]

Validation accuracy over seeds for the teacher, for the student alone and for the student with plain and weighted soft
labels, with 95 % t intervals. The recipe's sizes were chosen by this table, on the validation part.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from wsl_sweep.analysis.statistics import t_interval
from wsl_sweep.spec import CommandLine, parse_spec
from wsl_sweep.training import Job, TeacherStore, TrialTraining, train_teacher


def main() -> None:
    """Runs the table and writes ``benchmarks/digits.json``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=5)
    seeds = range(parser.parse_args().seeds)
    store = TeacherStore()
    accuracies: dict[str, list[float]] = {}
    seconds: dict[str, list[float]] = {}
    for name in ("ce", "kd", "wsl"):
        spec = parse_spec(f"run: {{recipe: digits}}\nvariants: [{name}]", "benchmark", CommandLine())
        for seed in seeds:
            job = Job(spec.config(spec.variants[name], seed=seed))
            train_teacher(job, store)
            begun = time.perf_counter()
            *_, last = TrialTraining(job, store)
            accuracies.setdefault(f"student, {name}", []).append(last["validation/accuracy"])
            seconds.setdefault(f"student, {name}", []).append(time.perf_counter() - begun)
    for seed in seeds:
        sets = (f"teacher.seed={seed}",)
        spec = parse_spec("run: {recipe: digits}\nvariants: [kd]", "benchmark", CommandLine(sets=sets))
        card = train_teacher(Job(spec.config(spec.variants["kd"])), store)
        assert card is not None
        accuracies.setdefault("teacher", []).append(card["metrics"]["validation/accuracy"])
        seconds.setdefault("teacher", []).append(card["metrics"]["train/seconds"])
    table = Table("model", "validation/accuracy", "95 % t interval", "seconds (median)", box=None)
    for name, values in accuracies.items():
        low, high = t_interval(values) or (float("nan"), float("nan"))
        mean = statistics.fmean(values)
        table.add_row(name, f"{mean:.4f}", f"{low:.4f} … {high:.4f}", f"{statistics.median(seconds[name]):.2f}")
    Console(width=100).print(table)
    result = {"seeds": len(seeds), "validation/accuracy": accuracies, "seconds": seconds}
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
