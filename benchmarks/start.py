"""What a trial costs beside its training: empty trials by ``wsl-sweep run`` and by a Ray Tune script.

    python -m benchmarks.start [--trials 20] [--rounds 1]

One epoch of cross-entropy on a handful of pictures, two trials at once. From the sweep's ledger: the seconds from the
end of a trial to the end of the next one on the same worker, which is what a trial takes there; the trial's own seconds
in the worker; and the rest between two trials, a warm start. A worker's first trial counts for none of them. The script
(``benchmarks/naive.py``, without DataLoader processes) has Ray's defaults, a new process for each trial: its trials
follow each other in two slots.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.common import Workshop, parser_of, save, show, spread, table, workshop
from wsl_sweep.spec import CommandLine, parse_spec
from wsl_sweep.sweep.ledger import Event, Ledger

SLOTS = 2
GOAL = 0.3


@dataclass(frozen=True)
class Ended:
    """A trial that has ended.

    Attributes:
        worker: the process, or the slot, that it ran in.
        time: of its end, in seconds since 1970.
        seconds: that the trial itself took in the worker.
    """

    worker: str
    time: float
    seconds: float


@dataclass(frozen=True)
class Cycle:
    """From the end of a trial to the end of the next one on the same worker.

    Attributes:
        wall: seconds of it.
        inside: seconds of the trial itself.
        between: the rest, what a warm start costs.
    """

    wall: float
    inside: float
    between: float


def cycles(ended: Iterable[Ended]) -> list[Cycle]:
    """The cycles of all workers, each worker's first trial left out."""
    last: dict[str, float] = {}
    found: list[Cycle] = []
    for one in sorted(ended, key=lambda one: one.time):
        if one.worker in last:
            wall = one.time - last[one.worker]
            found.append(Cycle(wall, one.seconds, wall - one.seconds))
        last[one.worker] = one.time
    return found


def from_ledger(events: Iterable[Event], workers: Mapping[str, str]) -> list[Ended]:
    """The finished trials of a ledger; ``workers`` has the process of each by trial id."""
    return [
        Ended(workers[event["trial_id"]], event["time"], event["seconds"])
        for event in events
        if event["event"] == "finished"
    ]


def proposed_before(events: Sequence[Event]) -> list[float]:
    """Seconds from a trial's proposal to its start, of those that were not proposed at the beginning."""
    proposed = {event["trial"]["trial_id"]: event["time"] for event in events if event["event"] == "proposed"}
    first_end = min((event["time"] for event in events if event["event"] == "finished"), default=float("inf"))
    return [
        event["time"] - proposed[event["trial_id"]]
        for event in events
        if event["event"] == "started" and proposed[event["trial_id"]] > first_end
    ]


def in_slots(found: Iterable[Mapping[str, Any]], slots: int = SLOTS) -> list[Ended]:
    """The script's trials; each takes the slot of the one that ended longest ago."""
    trials = sorted(found, key=lambda one: one["ended"])
    return [Ended(str(number % slots), one["ended"], one["seconds"]) for number, one in enumerate(trials)]


def workers_of(folder: Path) -> dict[str, str]:
    """Trial id → process, as the trials' logs have it."""
    found = {}
    for log in folder.glob("trials/*/log.txt"):
        named = re.search(r"process (\d+) on", log.read_text())
        if named is not None:
            found[log.parent.name] = named.group(1)
    return found


def search_space(trials: int) -> str:
    """The search-space file of the empty trials."""
    content = {
        "name": "start",
        "run": {"recipe": "digits", "schedule": {"epochs": 1}, "dataset": {"train_fraction": 0.05}},
        "variants": ["ce"],
        "seeds": list(range(trials)),
        "resources": {"cpu": 1, "gpu": 0, "concurrent": SLOTS},
    }
    return json.dumps(content, indent=2)


def run_ours(shop: Workshop, trials: int, name: str) -> tuple[list[Cycle], list[float], float]:
    """Cycles, seconds from proposal to start, and seconds from command to prompt of ``wsl-sweep run``."""
    folder = shop.sub(name)
    (folder / "start.yaml").write_text(search_space(trials))
    command = [sys.executable, "-m", "wsl_sweep", "run", "start.yaml", "--tracking-uri", shop.database(folder)]
    seconds, _ = shop.timed(command, folder)
    sweep = folder / "runs" / "start"
    events = Ledger(sweep / "ledger").events()
    return cycles(from_ledger(events, workers_of(sweep))), proposed_before(events), seconds


def run_naive(shop: Workshop, trials: int, name: str) -> tuple[list[Cycle], float]:
    """Cycles and seconds from command to prompt of ``benchmarks.naive``."""
    folder = shop.sub(name)
    spec = parse_spec(search_space(trials), "benchmark", CommandLine())
    job = {
        "config": spec.config(spec.variants["ce"]),
        "alphas": [0.0],
        "seeds": list(range(trials)),
        "teacher": None,
        "loader_workers": 0,
        "tracking_uri": shop.database(folder),
        "results": str(folder / "results.json"),
    }
    (folder / "job.json").write_text(json.dumps(job))
    seconds, _ = shop.timed([sys.executable, "-m", "benchmarks.naive", str(folder / "job.json")], folder)
    return cycles(in_slots(json.loads((folder / "results.json").read_text()))), seconds


def main() -> None:
    """Prints the table and writes ``benchmarks/start.json``."""
    parser = parser_of(__doc__)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=1, help="both take turns")
    asked = parser.parse_args()
    found: dict[str, list[Cycle]] = {"ours": [], "naive": []}
    whole: dict[str, list[float]] = {"ours": [], "naive": []}
    waited: list[float] = []
    with workshop() as shop:
        for number in range(asked.rounds):
            made, started, seconds = run_ours(shop, asked.trials, f"ours-{number}")
            found["ours"] += made
            waited += started
            whole["ours"].append(seconds)
            made, seconds = run_naive(shop, asked.trials, f"naive-{number}")
            found["naive"] += made
            whole["naive"].append(seconds)
    rows = [
        (
            title,
            spread([one.wall for one in found[key]]),
            spread([one.inside for one in found[key]]),
            spread([one.between for one in found[key]]),
            spread(whole[key], 1),
        )
        for key, title in (("ours", "wsl-sweep run"), ("naive", "Ray Tune script"))
    ]
    columns = ("seconds, median (min … max)", "a trial on its slot", "of these inside", "between two", "whole run")
    show(
        f"{asked.trials} empty trials, {SLOTS} at once; a warm start is to cost at most {GOAL} s",
        table(columns, rows),
        f"wsl-sweep, from a trial's proposal to its start: {spread(waited, 3)} s",
    )
    result = {
        "trials": asked.trials,
        "rounds": asked.rounds,
        "goal_seconds": GOAL,
        "cycles": {key: [asdict(one) for one in values] for key, values in found.items()},
        "proposal_to_start": waited,
        "whole_seconds": whole,
    }
    save(__file__, result, asked.output)


if __name__ == "__main__":
    main()
