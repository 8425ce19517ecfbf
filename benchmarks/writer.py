"""How fast the MLflow writer is, and what it costs who gives it rows, against an MLflow server on this machine.

    python -m benchmarks.writer [--epochs 4000] [--trials 100] [--rounds 3]

Twelve metrics an epoch, into a server of its own on 127.0.0.1 with SQLite behind it: one trial with many epochs in
calls of many; one trial with an epoch a call; many trials that take turns with an epoch a call; and Ray's way, a call
for each metric. Metrics a second are counted until everything is on the server.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field

from benchmarks.common import parser_of, save, show, spread, table, workshop
from wsl_sweep.spec import CommandLine, parse_spec
from wsl_sweep.spec.plan import Trial, ablation_cells
from wsl_sweep.tracking import MlflowWriter, Tracking

METRICS = 12
GOAL_METRICS, GOAL_MILLISECONDS = 4_000, 1.0
SINGLE_EPOCHS = 10
Call = tuple[str, list[dict[str, float]]]
"""A trial's id and the rows of an ``on_rows`` call."""


@dataclass
class Measured:
    """One way of writing.

    Attributes:
        metrics_a_second: one value a round.
        milliseconds_a_call: of ``on_rows``, of all rounds.
        epochs_a_call: rows in each of them.
    """

    metrics_a_second: list[float] = field(default_factory=list)
    milliseconds_a_call: list[float] = field(default_factory=list)
    epochs_a_call: int = 1


def trials_of(count: int) -> list[Trial]:
    """That many trials of the digits recipe."""
    text = f"{{run: {{recipe: digits}}, variants: [wsl], seeds: {count}}}"
    (cell,) = ablation_cells(parse_spec(text, "benchmark", CommandLine()))
    return list(cell.trials)


def row(epoch: int) -> dict[str, float]:
    """The metrics of an epoch."""
    metrics = {f"part-{index % 3}/metric-{index}": epoch + index / 10 for index in range(METRICS)}
    return {"epoch": float(epoch), "timestamp": 1_700_000_000.0 + epoch, **metrics}


def calls(trial_ids: list[str], epochs: int, epochs_a_call: int) -> Iterator[Call]:
    """The trials take turns until each has its epochs."""
    for start in range(1, epochs + 1, epochs_a_call):
        rows = [row(epoch) for epoch in range(start, min(start + epochs_a_call, epochs + 1))]
        for trial_id in trial_ids:
            yield trial_id, rows


def begin(writer: MlflowWriter, trials: list[Trial]) -> None:
    """Connects and makes the trials' runs, which is not measured here."""
    writer.start()
    for trial in trials:
        writer.on_event({"event": "proposed", "time": 1.0, "trial": trial.to_json()})
        writer.on_event({"event": "started", "time": 1000.0, "trial_id": trial.trial_id, "attempt": 1})
    if not writer.flush(300):
        raise RuntimeError(f"the runs could not be made: {writer.problem}")


def through_writer(tracking: Tracking, trials: list[Trial], epochs: int, epochs_a_call: int, into: Measured) -> None:
    """Gives all rows to a writer at once and waits for the server to have them."""
    sweep = {"name": "w", "uuid": tracking.experiment, "description": "", "git_commit": "unknown", "device": "cpu"}
    writer = MlflowWriter(tracking, sweep)
    begin(writer, trials)
    given = list(calls([trial.trial_id for trial in trials], epochs, epochs_a_call))
    milliseconds = []
    begun = time.perf_counter()
    for trial_id, rows in given:
        before = time.perf_counter()
        writer.on_rows(trial_id, 1, rows)
        milliseconds.append(1000 * (time.perf_counter() - before))
    if not writer.flush(600):
        raise RuntimeError(f"not all rows were written: {writer.problem}")
    seconds = time.perf_counter() - begun
    check(tracking, writer, trials, epochs)
    if not writer.close("finished", 60):
        raise RuntimeError(f"the writer had a problem: {writer.problem}")
    into.metrics_a_second.append(METRICS * epochs * len(trials) / seconds)
    into.milliseconds_a_call += milliseconds
    into.epochs_a_call = epochs_a_call


def check(tracking: Tracking, writer: MlflowWriter, trials: list[Trial], epochs: int) -> None:
    """The first and the last trial have each epoch once on the server."""
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=tracking.uri)
    for trial in (trials[0], trials[-1]):
        history = client.get_metric_history(writer.run_ids[trial.trial_id], "part-0/metric-0")
        if sorted(point.step for point in history) != list(range(1, epochs + 1)):
            raise RuntimeError(f"{len(history)} points of {epochs} epochs are on the server")


def one_by_one(tracking: Tracking, epochs: int, into: Measured) -> None:
    """Ray's way: ``log_metric`` for every metric of every epoch, in the caller's own time."""
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=tracking.uri)
    run_id = client.create_run(client.create_experiment(tracking.experiment)).info.run_id
    begun = time.perf_counter()
    for epoch in range(1, epochs + 1):
        before = time.perf_counter()
        for name, value in row(epoch).items():
            if name not in ("epoch", "timestamp"):
                client.log_metric(run_id, name, value, step=epoch)
        into.milliseconds_a_call.append(1000 * (time.perf_counter() - before))
    into.metrics_a_second.append(METRICS * epochs / (time.perf_counter() - begun))


def main() -> None:
    """Prints the table and writes ``benchmarks/writer.json``."""
    parser = parser_of(__doc__)
    parser.add_argument("--epochs", type=int, default=4_000, help="of the one trial, and of the many together")
    parser.add_argument("--trials", type=int, default=100, help="that take turns")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    many = trials_of(asked.trials)
    each = max(1, asked.epochs // asked.trials)
    ways: dict[str, Callable[[Tracking, Measured], None]] = {
        f"1 trial, {asked.epochs} epochs, 100 a call": lambda t, m: through_writer(t, many[:1], asked.epochs, 100, m),
        f"1 trial, {asked.epochs} epochs, 1 a call": lambda t, m: through_writer(t, many[:1], asked.epochs, 1, m),
        f"{asked.trials} trials, {each} epochs, 1 a call": lambda t, m: through_writer(t, many, each, 1, m),
        "one log_metric a metric (Ray)": lambda t, m: one_by_one(t, SINGLE_EPOCHS, m),
    }
    measured = {name: Measured() for name in ways}
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    with workshop() as shop, shop.mlflow_server() as address:
        for number in range(asked.rounds):
            for index, (name, way) in enumerate(ways.items()):
                way(Tracking(address, f"writer-{number}-{index}"), measured[name])
    rows = [
        (
            name,
            spread(one.metrics_a_second, 0),
            f"{statistics.median(one.milliseconds_a_call):,.4f} … {max(one.milliseconds_a_call):,.2f}",
        )
        for name, one in measured.items()
    ]
    columns = ("", "metrics a second, median (min … max)", "ms a call, median … max")
    goals = f"goals: {GOAL_METRICS:,} metrics a second, below {GOAL_MILLISECONDS:g} ms an epoch for the caller"
    show(table(columns, rows), goals)
    summary = {}
    for name, one in measured.items():
        whole = asdict(one)
        milliseconds = whole.pop("milliseconds_a_call")
        whole["milliseconds_a_call"] = {"median": statistics.median(milliseconds), "max": max(milliseconds)}
        summary[name] = whole
    result = {"metrics_a_row": METRICS, "rounds": asked.rounds, "epochs": asked.epochs, "ways": summary}
    save(__file__, {**result, "goals": {"metrics_a_second": GOAL_METRICS, "ms": GOAL_MILLISECONDS}}, asked.output)


if __name__ == "__main__":
    main()
