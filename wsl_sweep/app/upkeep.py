"""Looking after sweeps from another terminal: ending one, following it, and taking away what is of no more use."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from wsl_sweep.app.folders import find_sweep, read_plan, state_of
from wsl_sweep.app.options import with_storage
from wsl_sweep.errors import WslSweepError
from wsl_sweep.storage import Place
from wsl_sweep.sweep.control import ask_to_stop
from wsl_sweep.sweep.lease import Lease, holder
from wsl_sweep.sweep.ledger import SweepState, TrialState

STOP_SECONDS = 90.0
"""How long ``stop`` waits to see a sweep's end: trials have 30 s to save, MLflow another 30 s."""

AT_ONCE = 16
"""Folders that are tidied at the same time."""


def stop_sweep(name: str, trial: str | None = None, storage: str | None = None, *, wait: float = STOP_SECONDS) -> str:
    """Asks the driver of a running sweep to save and end it, or one trial of it, and waits for that.

    Args:
        name: of the sweep.
        trial: an id, or how one begins; None for the whole sweep.
        storage: where the sweep is.
        wait: seconds to wait at most.

    Returns:
        What came of it, for people.

    Raises WslSweepError: there is no such sweep or trial, or it is not running.
    """
    folder = find_sweep(storage, name)
    read_plan(folder)
    driver = holder(folder)
    if driver is None:
        raise WslSweepError(
            f"the sweep {name} is not running ({state_of(folder).status}); wsl-sweep status shows what is"
        )
    trial_id = None if trial is None else _one_trial(state_of(folder), trial, name)
    ask_to_stop(folder, trial_id)
    until = time.monotonic() + wait
    while time.monotonic() < until:
        if trial_id is None and holder(folder) is None:
            return f"{name} is stopped; go on with it: wsl-sweep resume {with_storage(name, folder)}"
        if trial_id is not None and (status := state_of(folder).trials[trial_id].status) not in UNDER_WAY:
            return f"trial {trial_id} of {name}: {status}"
        time.sleep(0.5)
    return f"{driver} has been asked to stop {'it' if trial_id is None else trial_id}, and has not done so yet"


UNDER_WAY = ("proposed", "running", "lost")


def _one_trial(state: SweepState, trial: str, name: str) -> str:
    found = [trial_id for trial_id in state.trials if trial and trial_id.startswith(trial)]
    if len(found) != 1:
        what = "several trials have ids that begin" if found else "no trial has an id that begins"
        raise WslSweepError(
            f"{what} with {trial!r} in the sweep {name}; its trials are listed by wsl-sweep status {name}"
        )
    status = state.trials[found[0]].status
    if status not in UNDER_WAY:
        raise WslSweepError(f"trial {found[0]} of {name} has ended: {status}")
    return found[0]


@dataclass(frozen=True)
class Cleaned:
    """What ``clean`` took away.

    Attributes:
        attempts: how many folders of attempts that count no more.
        checkpoints: how many checkpoints of trials that need none any more.
    """

    attempts: int
    checkpoints: int


def clean_sweep(name: str, storage: str | None = None, say: Callable[[str], None] = print) -> Cleaned:
    """Deletes attempts that count no more, and checkpoints of trials that have ended.

    Raises WslSweepError: there is no such sweep, or it is being run.
    """
    folder = find_sweep(storage, name)
    read_plan(folder)
    lease = Lease.take(folder, say)
    try:
        return clean_trials(folder, list(state_of(folder).trials.values()))
    finally:
        lease.release()


def clean_trials(folder: Place, states: list[TrialState]) -> Cleaned:
    """As ``clean_sweep``, for these trials of the sweep in ``folder``, whose driver is the caller."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        each = list(pool.map(lambda state: _clean_trial(folder / "trials" / state.trial.trial_id, state), states))
    return Cleaned(sum(one.attempts for one in each), sum(one.checkpoints for one in each))


def _clean_trial(folder: Place, state: TrialState) -> Cleaned:
    """Old attempts go where the newest one has ended: before that it may rest on their checkpoints."""
    from wsl_sweep.training.attempts import Attempts

    if not state.settled:
        return Cleaned(0, 0)
    attempts = checkpoints = 0
    counting = _with_rows(folder, state.attempt)
    for name in folder.names():
        number = name.removeprefix("attempt-")
        if not name.startswith("attempt-") or not number.isdigit():
            continue
        if int(number) not in (state.attempt, counting) and state.attempt:
            kept = Attempts(folder).rows(counting)
            rows_file = folder / f"attempt-{counting}" / "rows.json"
            if kept and not rows_file.exists():
                rows_file.write_json(kept)  # they may rest on the attempt that goes
            (folder / name).delete()
            attempts += 1
            continue
        found = [inner for inner in (folder / name).names() if inner.startswith("epoch-")]
        if found and not (folder / name / "rows.json").exists():
            (folder / name / "rows.json").write_json(Attempts(folder).rows(int(number)))
        for inner in found:
            (folder / name / inner).delete()
        checkpoints += len(found)
    return Cleaned(attempts, checkpoints)


def _with_rows(folder: Place, attempt: int) -> int:
    """The newest attempt up to one that has rows of epochs: of a trial that failed at once, that of its rows before."""
    from wsl_sweep.training.attempts import Attempts

    return next((one for one in range(attempt, 0, -1) if Attempts(folder).rows(one)), attempt)
