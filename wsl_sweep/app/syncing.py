"""Bringing MLflow, the summary and the copy of the Optuna study in line with what is on disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from wsl_sweep.analysis.records import declared
from wsl_sweep.app.folders import as_stopped, find_sweep, open_sweep, rows_of
from wsl_sweep.app.options import Finished, RunOptions, settle_resources
from wsl_sweep.app.results import finish
from wsl_sweep.errors import SweepError, WslSweepError
from wsl_sweep.spec.spec import Spec
from wsl_sweep.storage import Place
from wsl_sweep.sweep.elsewhere import newest_attempt, outcome_in
from wsl_sweep.sweep.lease import Lease
from wsl_sweep.sweep.ledger import Ledger, TrialState, fold
from wsl_sweep.training.files import STUDENT
from wsl_sweep.user_code import search_in


def sync_sweep(name: str, options: RunOptions = RunOptions(), say: Callable[[str], None] = print) -> Finished:
    """Brings MLflow in line with a sweep on disk, as often as wanted: runs are found by trial id, points by timestamp.

    Raises:
        WslSweepError: there is no such sweep, or it is being run.
        SweepError: the server did not take everything.
    """
    folder = find_sweep(options.storage, name)
    spec, plan = open_sweep(folder)
    search_in(plan.get("import_folders", ()))  # the best student may be a user's own model
    lease = Lease.take(folder, say)
    try:
        return bring_in_line(replace(spec, name=name), folder, plan, options, say)
    finally:
        lease.release()


def bring_in_line(
    spec: Spec, folder: Place, plan: Mapping[str, Any], options: RunOptions, say: Callable[[str], None] = print
) -> Finished:
    """As ``sync_sweep``, for a sweep whose lease the caller holds."""
    events = Ledger(folder / "ledger").events()
    state = fold(events)
    if state.status == "running":
        as_stopped(state)  # its driver died without a word
    device_kind = plan.get("device_kind") or settle_resources(spec, options.address)[1]
    writer, tracking = make_writer(spec, plan, options, device_kind)
    writer.warm_up()
    writer.start()
    writer.bring_in_line(events, rows_of(folder))
    summary = finish(spec, folder, plan, state, writer, tracking, say, patient=True)
    if writer.problem is not None or writer.missing() is not None:
        raise SweepError(f"MLflow did not take everything: {writer.missing() or writer.problem}")
    return Finished(folder, summary)


def left_by_workers(folder: Place) -> Callable[[TrialState], tuple[int, Mapping[str, Any] | None]]:
    """What gives a trial's newest attempt on disk, and the outcome that its worker left, if it is whole."""

    def left(state: TrialState) -> tuple[int, Mapping[str, Any] | None]:
        trial = folder / "trials" / state.trial.trial_id
        attempt = newest_attempt(trial)
        outcome = outcome_in(trial, attempt) if attempt else None
        if outcome is not None and outcome["status"] == "finished":
            there = (trial / STUDENT).exists() or outcome.get("taken_over")
            whole = there and outcome.get("epochs") == state.trial.epochs
            outcome = outcome if whole else None
        return attempt, outcome

    return left


def storable_uri(spec: Spec, options: RunOptions) -> str | None:
    """The tracking address for plan.json, a SQLite file by its absolute path; None where it holds credentials."""
    from wsl_sweep.tracking import redact, resolve_tracking

    uri = resolve_tracking(options.tracking_uri, spec.tracking.uri, "").uri
    if redact(uri) != uri:
        return None
    scheme, file = "sqlite:///", uri.removeprefix("sqlite:///")
    return f"{scheme}{Path(file).absolute()}" if uri.startswith(scheme) else uri


def make_writer(spec: Spec, plan: Mapping[str, Any], options: RunOptions, device_kind: str) -> tuple[Any, Any]:
    """The sweep's MLflow writer, not started yet, and where it writes to."""
    from wsl_sweep.tracking import MlflowWriter, redact, resolve_tracking
    from wsl_sweep.tracking.settings import git_commit

    option = options.tracking_uri or plan["tracking_uri"]
    if option is None and not (spec.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI")):
        raise WslSweepError("the tracking server's address has credentials and is not kept: give --tracking-uri again")
    tracking = resolve_tracking(option, spec.tracking.uri, spec.tracking.experiment or spec.name)
    sweep = {
        "name": spec.name,
        "uuid": plan["uuid"],
        "description": redact(spec.description),
        "git_commit": plan.get("git_commit") or git_commit(Path.cwd()),
        "device": device_kind,
        "declared": declared(spec),
    }
    return MlflowWriter(tracking, sweep), tracking
