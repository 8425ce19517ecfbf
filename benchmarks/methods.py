"""What each distillation method costs a step, beside plain distillation.

    python -m benchmarks.methods [--rounds 15]

Forward and backward of the objective alone, on random logits and features of a CIFAR-100 batch (64 examples, 100
classes, 256 features), one thread. The methods take turns, so that a slow moment of the machine meets all of them;
medians, and their ratio to plain distillation's.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from wsl_sweep.distill import Objective, Step
from wsl_sweep.spec.identity import canonical_json
from wsl_sweep.spec.loading import CommandLine, parse_spec
from wsl_sweep.spec.recipes import NAMED

EXAMPLES, CLASSES, FEATURES, STEPS = 64, 100, 256, 20

CASES = {**{name: overrides for name, overrides in NAMED.items() if name != "ce"}}
CASES["wsl, half of the samples dropped"] = {**NAMED["wsl"], "distillation.keep.regularization": 0.5}
CASES["kd, masked (renormalised)"] = {**NAMED["kd"], "distillation.mask": "renormalised"}


def stepping(objective: Objective) -> Callable[[], float]:
    """Seconds of a step, a mean over STEPS of them."""
    generator = torch.Generator().manual_seed(0)

    def random(width: int) -> torch.Tensor:
        return torch.randn(EXAMPLES, width, generator=generator)

    logits, features = random(CLASSES).requires_grad_(), random(FEATURES).requires_grad_()
    labels = torch.arange(EXAMPLES) % CLASSES
    step = Step(logits, labels, random(CLASSES), features, random(FEATURES), keeping=generator, permuting=generator)

    def measure() -> float:
        begun = time.perf_counter()
        for _ in range(STEPS):
            objective.step(step).loss.backward()  # type: ignore[no-untyped-call]
            logits.grad = features.grad = None
        return (time.perf_counter() - begun) / STEPS

    return measure


def main() -> None:
    """Prints the table and writes ``benchmarks/methods.json``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    spec = parse_spec("run: {recipe: digits}\nvariants: [kd]", "benchmark", CommandLine())
    measures = {name: stepping(Objective(spec.config(over)["distillation"])) for name, over in CASES.items()}
    for measure in measures.values():
        measure()
    seconds: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            seconds[name].append(measure())
    table = Table("method", "milliseconds a step (median)", "÷ kd", box=None)
    plain = statistics.median(seconds["kd"])
    for name, values in seconds.items():
        median = statistics.median(values)
        table.add_row(name, f"{1000 * median:.2f}", f"{median / plain:.2f}")
    Console(width=100).print(table)
    Path(__file__).with_suffix(".json").write_text(canonical_json(seconds) + "\n")


if __name__ == "__main__":
    main()
