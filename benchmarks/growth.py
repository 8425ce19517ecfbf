"""What one step of a sweep costs after so many trials: the parts that know all of them, each alone, without Ray.

    python -m benchmarks.growth [--trials 500,1000,2000,5000] [--calls 20]

Milliseconds a call, the median: a proposal by ``tpe`` and by ``random`` (Optuna's ask and ours around it), what
``asha`` and ``median`` take over a trial's rows, the budget, a Pareto front of two metrics (whole, in ms), and what
is done once at an end: the summary and the export of the studies. The slope is that of log time over log trials:
0 does not grow, 1 means that a whole sweep is quadratic.
"""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.common import parser_of, save, show, table
from benchmarks.simulated import EPOCHS, file_of, outcome_of, row
from wsl_sweep.analysis.summary import build_summary
from wsl_sweep.spec import CommandLine, Spec, parse_spec
from wsl_sweep.spec.plan import make_trial
from wsl_sweep.sweep.ledger import SweepState, TrialState
from wsl_sweep.sweep.schedulers import ArmScheduler, build_scheduler
from wsl_sweep.sweep.selection import pareto_front
from wsl_sweep.sweep.study import ArmStudy, export_studies

Rows = list[dict[str, float]]
BOTH = (("validation/accuracy", "validation/loss"), ("max", "min"))


def spec_of(trials: int, sampler: str, scheduler: str = "none") -> Spec:
    """The simulated sweep."""
    return parse_spec(file_of(trials, sampler, scheduler), "benchmark", CommandLine())


def finished(spec: Spec, count: int) -> list[tuple[TrialState, Rows]]:
    """That many finished trials, their values drawn evenly, and their rows."""
    (arm,) = spec.arms
    made = []
    for number in range(count):
        share = (number * 0.6180339887) % 1.0
        params = {
            "distillation.alpha": 0.5 + 3.5 * share,
            "distillation.temperature": 1 + 7 * ((number * 0.7548776662) % 1.0),
            "optimizer.lr": 0.001 * 500 ** ((number * 0.5698402910) % 1.0),
        }
        trial = make_trial(spec, stage="search", variant=arm, overrides=spec.arms[arm], params=params, seed=0, arm=arm)
        rows = [row(trial.to_json(), epoch, float(number)) for epoch in range(1, EPOCHS + 1)]
        made.append((TrialState(trial, "finished", 1, EPOCHS, outcome_of(rows)["metrics"]), rows))
    return made


def milliseconds(call: Callable[[int], Any], calls: int) -> float:
    """The median of so many calls; each gets its number."""
    taken = []
    for number in range(calls):
        begun = time.perf_counter()
        call(number)
        taken.append(1000 * (time.perf_counter() - begun))
    return statistics.median(taken)


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Of log y over log x, by least squares."""
    logs = [(math.log(x), math.log(max(y, 1e-9))) for x, y in points]
    x, y = (statistics.fmean(values) for values in zip(*logs, strict=True))
    return sum((a - x) * (b - y) for a, b in logs) / sum((a - x) ** 2 for a, _ in logs)


def scheduler_ms(spec: Spec, known: Sequence[tuple[TrialState, Rows]], calls: int) -> float:
    """What the rows of one trial more take, a whole trial."""
    scheduler = ArmScheduler(
        make=lambda: build_scheduler(spec.scheduler, spec.metrics[0], spec.modes[0], EPOCHS),
        arm_of=lambda trial: None,
        key_of=str,
        on_stop=lambda *_: None,
    )
    (arm,) = spec.arms
    if spec.scheduler.name == "asha":
        scheduler.recall(arm, {state.trial.trial_id: rows for state, rows in known})
    else:  # as fast: it keeps the rows by trial, and thinks only when it hears one
        rule: Any = scheduler._of_arm(arm)
        for state, rows in known:
            scheduler._add(rule, state.trial.trial_id)
            rule._results[_known(state)] += [{**one, "training_iteration": one["epoch"]} for one in rows]
    return milliseconds(lambda number: _heard(scheduler, arm, f"{number:012x}", known[number][1]), calls)


def _heard(scheduler: ArmScheduler, arm: str, trial_id: str, rows: Rows) -> None:
    """A trial's rows until the scheduler stops it."""
    rule = scheduler._of_arm(arm)
    assert rule is not None
    scheduler._add(rule, trial_id)
    for one in rows:
        if scheduler._hear(rule, None, trial_id, one) == "STOP":
            return


def _known(state: TrialState) -> Any:
    from wsl_sweep.sweep.schedulers import _Known

    return _Known(state.trial.trial_id)


def grown(trials: int, calls: int) -> dict[str, float]:
    """Milliseconds by name after so many trials."""
    found: dict[str, float] = {}
    wanted = trials + 10 * calls
    for sampler in ("tpe", "random"):
        spec = spec_of(wanted, sampler)
        known = finished(spec, trials)
        (arm,) = spec.arms
        begun = time.perf_counter()
        study = ArmStudy(spec, arm, "cpu", [state for state, _ in known])
        found[f"{sampler}: study told again"] = 1000 * (time.perf_counter() - begun)
        found[f"{sampler}: a proposal"] = milliseconds(lambda _, study=study: study.propose(), calls)
    for name in ("asha", "median"):
        found[f"{name}: a trial's rows"] = scheduler_ms(spec_of(wanted, "random", name), known, calls)
    states = [state for state, _ in known]
    found["pareto front"] = milliseconds(lambda _: pareto_front(states, *BOTH), 1)
    state = SweepState(trials={one.trial.trial_id: one for one in states})
    found["summary"] = milliseconds(lambda _: build_summary(spec, state, uuid="u"), 3)
    with tempfile.TemporaryDirectory() as folder:
        named = replace(spec, name="scale")
        found["export of studies"] = milliseconds(lambda _: export_studies(named, states, Path(folder) / "log"), 1)
    return found


def main() -> None:
    """Prints the table and writes ``benchmarks/growth.json``."""
    parser = parser_of(__doc__)
    parser.add_argument("--trials", default="500,1000,2000,5000")
    parser.add_argument("--calls", type=int, default=20)
    asked = parser.parse_args()
    sizes = [int(size) for size in asked.trials.split(",")]
    found = {size: grown(size, asked.calls) for size in sizes}
    names = list(found[sizes[0]])
    slopes = {name: slope([(size, found[size][name]) for size in sizes]) if len(sizes) > 1 else None for name in names}
    rows = [
        (name, *(f"{found[size][name]:,.2f}" for size in sizes), "–" if slopes[name] is None else f"{slopes[name]:.2f}")
        for name in names
    ]
    show(table(("ms after … trials", *(f"{size:,}" for size in sizes), "slope"), rows))
    save(__file__, {"milliseconds": found, "slopes": slopes}, asked.output)


if __name__ == "__main__":
    main()
