"""The same trials by ``wsl-sweep run`` and by the Ray Tune script that people write today.

    python -m benchmarks.sweep [--trials 16] [--epochs 40] [--rounds 1] [--recipe digits] [--models TEACHER,STUDENT]

Weighted soft labels over two α and as many seeds as make the trials, one CPU a trial, teacher trained beforehand, both
from command to prompt against an MLflow database of their own that has its schema already. What ``wsl-sweep`` does
beside (test set, summary, the best student as an MLflow model) is in its time. ``benchmarks/naive.py`` is the other
side; with ``--loader-workers 0`` its DataLoader starts no processes. The accuracies must agree: the interval is
Student's, over the seeds' differences.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import Workshop, parser_of, save, show, spread, table, workshop
from wsl_sweep.analysis.statistics import t_interval
from wsl_sweep.spec import CommandLine, Spec, parse_spec
from wsl_sweep.spec.identity import teacher_identity
from wsl_sweep.training import TeacherStore

ALPHAS = (1.0, 2.25)
Cell = tuple[float, int]
"""α and seed."""


def grid(trials: int) -> tuple[list[float], list[int]]:
    """The α and the seeds whose product has ``trials`` cells; one α where their number is odd."""
    alphas = list(ALPHAS) if trials % 2 == 0 else [ALPHAS[-1]]
    return alphas, list(range(trials // len(alphas)))


def search_space(trials: int, epochs: int | None, recipe: str, models: tuple[str, str] | None) -> str:
    """The search-space file of the cells."""
    alphas, seeds = grid(trials)
    run: dict[str, Any] = {"recipe": recipe}
    if epochs is not None:
        run["schedule"] = {"epochs": epochs}
    if models is not None:
        run |= {"teacher": {"model": models[0]}, "student": {"model": models[1]}}
    content = {
        "name": "sweep",
        "run": run,
        "variants": ["wsl"],
        "space": {"distillation.alpha": {"grid": alphas}},
        "seeds": seeds,
        "resources": {"cpu": 1, "gpu": 0},
    }
    return json.dumps(content, indent=2)  # JSON is YAML


def trained_teacher(shop: Workshop, spec: Spec, recipe: str, models: tuple[str, str] | None) -> Path:
    """The weights of the teacher that all trials share, trained now if the cache has none."""
    command = [sys.executable, "-m", "wsl_sweep", "teacher", "train", "--recipe", recipe]
    if models is not None:
        command += ["--set", f"teacher.model={models[0]}"]
    shop.timed(command, shop.folder)
    named = teacher_identity(spec.config(spec.variants["wsl"]), "train", spec.threads)
    assert named is not None
    return TeacherStore().weights(named[0])


def run_ours(shop: Workshop, text: str, name: str) -> tuple[float, dict[Cell, float]]:
    """Seconds and accuracies by cell of ``wsl-sweep run``."""
    folder = shop.sub(name)
    (folder / "sweep.yaml").write_text(text)
    uri = shop.database(folder)
    command = [sys.executable, "-m", "wsl_sweep", "run", "sweep.yaml", "--tracking-uri", uri]
    seconds, _ = shop.timed(command, folder)
    summary = json.loads((folder / "runs" / "sweep" / "summary.json").read_text())
    found = {
        (trial["config"]["distillation"]["alpha"], trial["seed"]): trial["metrics"]["validation/accuracy"]
        for trial in summary["trials"]
    }
    return seconds, found


def run_naive(shop: Workshop, job: Mapping[str, Any], name: str) -> tuple[float, dict[Cell, float]]:
    """Seconds and accuracies by cell of ``benchmarks.naive``."""
    folder = shop.sub(name)
    results = folder / "results.json"
    job = {**job, "tracking_uri": shop.database(folder), "results": str(results)}
    (folder / "job.json").write_text(json.dumps(job))
    seconds, _ = shop.timed([sys.executable, "-m", "benchmarks.naive", str(folder / "job.json")], folder)
    found = json.loads(results.read_text())
    return seconds, {(one["alpha"], one["seed"]): one["accuracy"] for one in found}


def differences(ours: Mapping[Cell, float], naive: Mapping[Cell, float]) -> list[float]:
    """Ours less the script's, a mean over α for each seed: what a seed has in common is one value.

    Raises ValueError where the two do not have the same cells.
    """
    if set(ours) != set(naive):
        raise ValueError(f"other cells: {sorted(set(ours) ^ set(naive))}")
    seeds = sorted({seed for _, seed in ours})
    return [
        statistics.fmean(ours[cell] - naive[cell] for cell in ours if cell[1] == seed) for seed in seeds
    ]  # fmt: skip


def agreement(ours: Mapping[Cell, float], naive: Mapping[Cell, float]) -> dict[str, Any]:
    """Both means, their difference and its 95 % t interval (None for a single seed)."""
    by_seed = differences(ours, naive)
    interval = t_interval(by_seed)
    return {
        "ours": statistics.fmean(ours.values()),
        "naive": statistics.fmean(naive.values()),
        "difference": statistics.fmean(by_seed),
        "ci95": None if interval is None else list(interval),
        "seeds": len(by_seed),
    }


def report(seconds: Mapping[str, Sequence[float]], agreed: Mapping[str, Any]) -> list[Any]:
    """The tables."""
    ratios = [naive / ours for ours, naive in zip(seconds["ours"], seconds["naive"], strict=True)]
    times = table(
        ("", "seconds, median (min … max)", "validation/accuracy (mean)"),
        [
            ("wsl-sweep run", spread(seconds["ours"], 1), f"{agreed['ours']:.4f}"),
            ("Ray Tune script", spread(seconds["naive"], 1), f"{agreed['naive']:.4f}"),
            ("script / wsl-sweep", spread(ratios), ""),
        ],
    )
    low, high = agreed["ci95"] or (float("nan"), float("nan"))
    line = f"difference of the accuracies {agreed['difference']:+.4f}, 95 % t interval {low:+.4f} … {high:+.4f}"
    return [times, f"{line} ({agreed['seeds']} seeds)"]


def main() -> None:
    """Prints the table and writes ``benchmarks/sweep.json``."""
    parser = parser_of(__doc__)
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--epochs", type=int, help="by default the recipe's")
    parser.add_argument("--rounds", type=int, default=1, help="both take turns")
    parser.add_argument("--recipe", default="digits", help="a recipe on digits")
    parser.add_argument("--models", help="TEACHER,STUDENT in place of the recipe's")
    parser.add_argument("--loader-workers", type=int, default=2, help="processes of the script's DataLoader")
    asked = parser.parse_args()
    models = tuple(asked.models.split(",")) if asked.models else None
    text = search_space(asked.trials, asked.epochs, asked.recipe, models)
    spec = parse_spec(text, "benchmark", CommandLine())
    alphas, seeds = grid(asked.trials)
    seconds: dict[str, list[float]] = {"ours": [], "naive": []}
    ours: dict[Cell, float] = {}
    naive: dict[Cell, float] = {}
    with workshop() as shop:
        job = {
            "config": spec.config(spec.variants["wsl"]),
            "alphas": alphas,
            "seeds": seeds,
            "teacher": str(trained_teacher(shop, spec, asked.recipe, models)),
            "loader_workers": asked.loader_workers,
        }
        for number in range(asked.rounds):
            shop.environment["WSL_SWEEP_BANK"] = str(shop.folder / f"bank-{number}")  # cold: the first seed fills it
            taken, ours = run_ours(shop, text, f"ours-{number}")
            seconds["ours"].append(taken)
            taken, naive = run_naive(shop, job, f"naive-{number}")
            seconds["naive"].append(taken)
    agreed = agreement(ours, naive)
    show(f"{asked.trials} trials of {job['config']['schedule']['epochs']} epochs", *report(seconds, agreed))
    result = {
        "trials": asked.trials,
        "epochs": job["config"]["schedule"]["epochs"],
        "recipe": asked.recipe,
        "models": models,
        "loader_workers": asked.loader_workers,
        "seconds": seconds,
        "accuracy": agreed,
    }
    save(__file__, result, asked.output)


if __name__ == "__main__":
    main()
