"""The folders of sweeps: making a new one, opening one that is there."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from wsl_sweep.app.options import storage_folder, with_storage
from wsl_sweep.errors import WslSweepError
from wsl_sweep.spec.distributions import Reading, reading
from wsl_sweep.spec.loading import CommandLine, parse_spec
from wsl_sweep.spec.spec import Spec
from wsl_sweep.spec.world import World
from wsl_sweep.storage import Place, place
from wsl_sweep.sweep.lease import holder
from wsl_sweep.sweep.ledger import Ledger, SweepState, fold


def find_sweep(storage: str | None, name: str) -> Place:
    """The folder of a sweep by its name. Raises WslSweepError: what was given is no name."""
    if not name or "/" in name or name.startswith("."):
        raise WslSweepError(f"{name!r} is no name of a sweep; see wsl-sweep status")
    return storage_folder(storage) / name


def read_plan(folder: Place) -> dict[str, Any]:
    """``plan.json`` of a sweep. Raises WslSweepError: there is no sweep in the folder."""
    try:
        plan = (folder / "plan.json").read_json()
        if not isinstance(plan, dict):
            raise ValueError("no plan")
    except (OSError, ValueError) as error:
        known = ", ".join(sweep_names(folder.parent)) or "none"
        raise WslSweepError(f"no sweep in {folder}; sweeps in {folder.parent}: {known}") from error
    return plan


def command_line_of(plan: dict[str, Any]) -> CommandLine:
    """The command line with which a sweep was begun."""
    saved = plan["command_line"]
    return CommandLine(**{**saved, "sets": tuple(saved["sets"])})


def open_sweep(folder: Place | Path, world: World | None = None) -> tuple[Spec, dict[str, Any]]:
    """The specification and the plan of a sweep on disk.

    Relative places in it start from the folder in which it was begun. Without a ``world`` nothing that it names has to
    be there any more.
    """
    folder = place(folder)
    plan = {"tracking_uri": None, **read_plan(folder)}
    if not isinstance(plan.get("command_line"), dict):
        raise WslSweepError(f"{folder / 'plan.json'} is not whole: it does not say with which command the sweep began")
    try:
        text = (folder / "sweep.yaml").read_text()
    except (OSError, ValueError) as error:
        raise WslSweepError(f"{folder / 'sweep.yaml'}: cannot be read ({error})") from error
    with reading(Reading(plan.get("folder"), look=world is not None)):
        spec = parse_spec(
            text, str(folder / "sweep.yaml"), command_line_of(plan), default_name=folder.name, world=world
        )
    return replace(spec, notes=(*spec.notes, *plan.get("notes", ()))), plan


def state_of(folder: Place) -> SweepState:
    """What the ledger of a sweep says."""
    return fold(Ledger(folder / "ledger").events())


def state_as_it_stands(folder: Place) -> SweepState:
    """As ``state_of``; a sweep whose driver died without a word has stopped."""
    state = state_of(folder)
    if state.status == "running" and holder(folder) is None:
        as_stopped(state)
    return state


def as_stopped(state: SweepState) -> None:
    """Of a sweep that nobody runs any more: it has stopped, and trials without a last word were killed."""
    state.status = "stopped"
    for trial in state.trials.values():
        trial.status = "killed" if trial.status in ("running", "lost") else trial.status


def sweep_status(folder: Place) -> str:
    """``finished``, ``failed``, ``stopped``, or ``running`` where it has no last word (yet)."""
    return state_of(folder).status


def new_folder(storage: Place, name: str) -> Place:
    """A folder for a new sweep: ``name``, or ``name-2``, … behind finished ones."""
    number = 1
    while True:
        folder = storage / (name if number == 1 else f"{name}-{number}")
        if not folder.exists():
            return folder
        if set(folder.names()) <= {"lease", "control", "sweep.yaml"} and holder(folder) is None:
            return folder  # whoever began here did not get far
        if not (folder / "plan.json").exists():
            raise WslSweepError(f"{folder} exists and is no sweep; choose another --name or --storage")
        if sweep_status(folder) in ("running", "stopped"):
            driver = holder(folder)
            if driver is not None:
                raise WslSweepError(
                    f"the sweep {folder.name} in {storage} is being run by {driver}; choose another --name, or follow "
                    "it by wsl-sweep status --watch"
                )
            raise WslSweepError(
                f"the sweep {folder.name} in {storage} is not finished; go on with it by\n"
                f"    wsl-sweep resume {with_storage(folder.name, folder)}\n"
                "or choose another --name for a new one"
            )
        number += 1


def sweep_names(storage: Place) -> list[str]:
    """The names of what may be sweeps."""
    return [name for name in storage.names() if (storage / name / "plan.json").exists()]


def list_sweeps(storage: str | None) -> list[dict[str, Any]]:
    """Of every sweep in a storage: name, status, who drives it, counts of trials by status, the question."""
    root = storage_folder(storage)
    return [_entry(root / name, state_of(root / name)) for name in sweep_names(root)]


def _entry(folder: Place, state: SweepState) -> dict[str, Any]:
    driver = holder(folder)
    counts: dict[str, int] = {}
    for trial in state.trials.values():
        counts[trial.status] = counts.get(trial.status, 0) + 1
    entry: dict[str, Any] = {
        "sweep": folder.name,
        "status": state.status,
        "driver": None if driver is None else {"host": driver.host, "pid": driver.pid, "since": driver.taken},
        "trials": counts,
        "planned": None,
    }
    try:
        plan = read_plan(folder)
        entry |= {
            "created": plan["created"],
            "description": str(plan.get("description", "")),
            "planned": sum(plan["stages"].values()),
        }
    except (WslSweepError, KeyError, TypeError, AttributeError) as error:
        entry["description"] = f"cannot be read: {str(error).splitlines()[0]}"
    return entry


def sweep_trials(name: str, storage: str | None) -> dict[str, Any]:
    """One sweep: as in ``list_sweeps``, and its trials: id, stage, variants, seed, status, attempt, epochs, error.

    Raises WslSweepError: there is no such sweep.
    """
    folder = find_sweep(storage, name)
    read_plan(folder)
    state = state_of(folder)
    trials = [
        {
            "trial_id": one.trial.trial_id,
            "stage": one.trial.stage,
            "variants": list(one.trial.variants),
            "seed": one.trial.seed,
            "overrides": dict(one.trial.overrides),
            "status": one.status,
            "attempt": one.attempt,
            "epochs": one.epochs,
            "of": one.trial.epochs,
            "metrics": dict(one.metrics),
            "error": one.error,
        }
        for one in state.trials.values()
    ]
    return {**_entry(folder, state), "of_each": trials}


def rows_of(folder: Place) -> Callable[[str, int], list[dict[str, float]]]:
    """What gives the rows of epochs of a trial's attempt, as far as they are on disk."""

    def rows(trial_id: str, attempt: int) -> list[dict[str, float]]:
        from wsl_sweep.training.attempts import Attempts

        return list(Attempts(folder / "trials" / trial_id).rows(attempt))

    return rows


def find_logs(trial: str, storage: str | None) -> list[Place]:
    """The logs of the trials whose id starts with ``trial``, over all sweeps of a storage."""
    root = storage_folder(storage)
    found = []
    for sweep in root.names() if trial.isalnum() else ():
        trials = root / sweep / "trials"
        found += [trials / name / "log.txt" for name in trials.names() if name.startswith(trial)]
    found = [log for log in found if log.exists()]
    if not found:
        raise WslSweepError(f"no trial in {root} has an id that starts with {trial!r}; see summary.json of its sweep")
    return found


def write_text(path: Place, text: str) -> None:
    """Writes a text file, whole. Raises WslSweepError where that cannot be done."""
    path.write(text.encode("utf-8"))


def write_plan(folder: Place, plan: dict[str, Any]) -> None:
    """Writes ``plan.json``, whole."""
    write_text(folder / "plan.json", json.dumps(plan, indent=2) + "\n")
