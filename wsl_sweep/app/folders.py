"""The folders of sweeps: making a new one, opening one that is there."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from wsl_sweep.app.options import DEFAULT_STORAGE, storage_folder
from wsl_sweep.errors import WslSweepError
from wsl_sweep.spec.distributions import Reading, reading
from wsl_sweep.spec.loading import CommandLine, parse_spec
from wsl_sweep.spec.spec import Spec
from wsl_sweep.spec.world import World
from wsl_sweep.sweep.ledger import Ledger, fold


def read_plan(folder: Path) -> dict[str, Any]:
    """``plan.json`` of a sweep. Raises WslSweepError: there is no sweep in the folder."""
    try:
        plan: dict[str, Any] = json.loads((folder / "plan.json").read_text())
    except (OSError, ValueError) as error:
        known = ", ".join(sorted(path.parent.name for path in folder.parent.glob("*/plan.json"))) or "none"
        raise WslSweepError(f"no sweep in {folder}; sweeps in {folder.parent}: {known}") from error
    return plan


def open_sweep(folder: Path, world: World | None = None) -> tuple[Spec, dict[str, Any]]:
    """The specification and the plan of a sweep on disk.

    Relative places in it start from the folder in which it was begun. Without a ``world`` nothing that it names has to
    be there any more.
    """
    plan = read_plan(folder)
    try:
        text = (folder / "sweep.yaml").read_text(encoding="utf-8")
    except OSError as error:
        raise WslSweepError(f"{folder / 'sweep.yaml'}: cannot be read ({error.strerror or error})") from error
    saved = plan["command_line"]
    command_line = CommandLine(**{**saved, "sets": tuple(saved["sets"])})
    source = str(folder / "sweep.yaml")
    with reading(Reading(plan.get("folder"), look=world is not None)):
        spec = parse_spec(text, source, command_line, default_name=folder.name, world=world)
    return replace(spec, notes=(*spec.notes, *plan.get("notes", ()))), plan


def sweep_status(folder: Path) -> str:
    """``finished``, ``failed``, ``stopped``, or ``running`` where it has no last word (yet)."""
    return fold(Ledger(folder / "ledger").events()).status


def new_folder(storage: Path, name: str) -> Path:
    """A folder for a new sweep: ``name``, or ``name-2``, … behind finished ones."""
    number = 1
    while True:
        folder = storage / (name if number == 1 else f"{name}-{number}")
        if not folder.exists():
            return folder
        if not (folder / "plan.json").is_file():
            raise WslSweepError(f"{folder} exists and is no sweep; choose another --name or --storage")
        if sweep_status(folder) in ("running", "stopped"):
            where = "" if storage == DEFAULT_STORAGE else f" --storage {storage}"
            raise WslSweepError(
                f"the sweep {folder.name} in {storage} is not finished; go on with it by\n"
                f"    wsl-sweep resume {folder.name}{where}\n"
                "or choose another --name for a new one"
            )
        number += 1


def list_sweeps(storage: str | None) -> list[dict[str, Any]]:
    """Name, status, counts of trials by status and the question of every sweep in a storage."""
    found = []
    for path in sorted(storage_folder(storage).glob("*/plan.json")):
        state = fold(Ledger(path.parent / "ledger").events())
        counts: dict[str, int] = {}
        for trial in state.trials.values():
            counts[trial.status] = counts.get(trial.status, 0) + 1
        entry: dict[str, Any] = {
            "sweep": path.parent.name,
            "status": state.status,
            "trials": counts,
            "planned": None,
        }
        try:
            plan = read_plan(path.parent)
            entry |= {
                "created": plan["created"],
                "description": str(plan.get("description", "")),
                "planned": sum(plan["stages"].values()),
            }
        except (WslSweepError, KeyError, TypeError, AttributeError) as error:
            entry["description"] = f"cannot be read: {str(error).splitlines()[0]}"
        found.append(entry)
    return found


def find_logs(trial: str, storage: str | None) -> list[Path]:
    """The logs of the trials whose id starts with ``trial``, over all sweeps of a storage."""
    root = storage_folder(storage)
    found = sorted(root.glob(f"*/trials/{trial}*/log.txt")) if trial.isalnum() else []
    if not found:
        raise WslSweepError(f"no trial in {root} has an id that starts with {trial!r}; see summary.json of its sweep")
    return found
