"""Going on with a sweep of thousands of trials whose driver was killed: what it takes up to the first new proposal."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.simulated import file_of


def cut(sweep: Path, to: Path, trials: int, tail: int) -> None:
    """Copies what a driver leaves that is killed when so many trials were proposed, its last ``tail`` events unwritten.

    The folders of those trials are copied too, so that the last ones have got further than the ledger knows.
    """
    (to / "ledger").mkdir(parents=True)
    kept: list[Path] = []
    proposed: list[str] = []
    for segment in sorted((sweep / "ledger").glob("*.json")):
        events = json.loads(segment.read_text())
        proposed += [event["trial"]["trial_id"] for event in events if event["event"] == "proposed"]
        if len(proposed) > trials:
            proposed.pop()
            break
        kept.append(segment)
    for segment in kept[: max(0, len(kept) - tail)]:
        shutil.copy(segment, to / "ledger")
    for trial_id in proposed:
        if (sweep / "trials" / trial_id).exists():
            shutil.copytree(sweep / "trials" / trial_id, to / "trials" / trial_id, dirs_exist_ok=True)


def resume(job: Mapping[str, Any]) -> dict[str, Any]:
    """Does what ``wsl-sweep resume`` does up to the first new proposal, without Ray's start and imports, in turn.

    The summary is made too, which a driver does at the end; ``seconds`` has it.
    """
    from rich.console import Console

    from benchmarks.scale import resident_mb
    from wsl_sweep.analysis.summary import build_summary
    from wsl_sweep.app import driving
    from wsl_sweep.display import SweepDisplay
    from wsl_sweep.spec import CommandLine, parse_spec
    from wsl_sweep.storage import place
    from wsl_sweep.sweep.conductor import Conductor
    from wsl_sweep.sweep.elsewhere import Elsewhere
    from wsl_sweep.sweep.lease import Lease
    from wsl_sweep.sweep.ledger import Ledger, fold
    from wsl_sweep.sweep.schedulers import ArmScheduler, build_scheduler
    from wsl_sweep.tracking.story import stories
    from wsl_sweep.training.attempts import Attempts

    assert Attempts  # imported before anything is timed
    phases: dict[str, float] = {}

    def timed(name: str, call: Callable[[], Any]) -> Any:
        begun = time.perf_counter()
        value = call()
        phases[name] = phases.get(name, 0.0) + time.perf_counter() - begun
        return value

    cpu = time.process_time()
    folder = place(job["sweep"])
    spec = parse_spec(file_of(job["wanted"], job["sampler"], job["scheduler"]), "benchmark", CommandLine())
    lease = timed("lease", lambda: Lease.take(folder))
    before = resident_mb()
    ledger = timed("read", lambda: Ledger(folder / "ledger", lease))
    events = timed("read", ledger.events)
    timed("fold", lambda: fold(events))  # to see whether it is finished
    elsewhere = Elsewhere(folder.parent, folder.name)
    conductor = timed(
        "conductor",
        lambda: Conductor(
            spec,
            ledger,
            events=events,
            has_teacher=lambda _: True,
            elsewhere=lambda trial_id: [one.to_json() for one in elsewhere.find(trial_id)],
        ),
    )
    state_mb = resident_mb() - before
    known = set(conductor.state.trials)
    timed("recover", lambda: driving._recover(conductor, folder))
    timed("display", lambda: SweepDisplay(Console(quiet=True), conductor))
    told = conductor.forget_events()
    timed("stories", lambda: stories(told))
    scheduler = ArmScheduler(
        make=lambda: build_scheduler(spec.scheduler, spec.metrics[0], spec.modes[0], spec.most_epochs()),
        arm_of=lambda trial: None,
        key_of=str,
        on_stop=lambda *_: None,
    )
    timed("recall", lambda: driving._recall(scheduler, conductor, folder))
    known |= set(conductor.state.trials)
    first = timed("study", conductor.next)
    again = 0
    while first is not None and first.key in known:
        again += 1
        first = timed("proposal", conductor.next)
    summary = timed("summary", lambda: build_summary(spec, conductor.state, uuid="scale", run_ids={}))
    lease.release()
    if first is None:
        raise RuntimeError("no new trial was proposed")
    return {
        "trials": job["trials"],
        "known": len(known),
        "again": again,
        "phases": phases,
        "seconds": sum(phases.values()),
        "cpu_seconds": time.process_time() - cpu,
        "state_mb": state_mb,
        "summary_bytes": len(json.dumps(summary)),
    }
