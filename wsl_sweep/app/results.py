"""The end of a sweep: summary, best student, MLflow's last words, tidy folders."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

from wsl_sweep.analysis.comparison import Compared
from wsl_sweep.analysis.formats import json_text, markdown_tables
from wsl_sweep.analysis.from_mlflow import OUTCOMES, outcomes_file
from wsl_sweep.analysis.records import SweepRecords, kept_outcomes, records_of
from wsl_sweep.analysis.summary import build_summary
from wsl_sweep.app.options import with_storage
from wsl_sweep.app.planning import remember_spread, remember_times
from wsl_sweep.app.reporting import REPORT, final_comparison, report_page
from wsl_sweep.app.upkeep import clean_trials
from wsl_sweep.errors import StorageError
from wsl_sweep.spec.spec import Spec
from wsl_sweep.spec.wording import short
from wsl_sweep.storage import Place
from wsl_sweep.training.files import REGULARIZATION_SAMPLES, STUDENT

WAIT_SECONDS = 30.0
"""What the end of a sweep waits for MLflow at most."""

PATIENT_SECONDS = 24 * 3600.0
"""What ``sync`` does, as long as MLflow is not silent for WAIT_SECONDS."""

STUDY = "optuna.log"
"""A copy of the search's studies, for optuna-dashboard; nothing reads it."""


def finish(
    spec: Spec,
    folder: Place,
    plan: Mapping[str, Any],
    state: Any,
    writer: Any,
    tracking: Any,
    say: Callable[[str], None],
    *,
    patient: bool = False,
) -> dict[str, Any]:
    """Summary, best student, tidy folders, MLflow's end. The order is that of what may be lost.

    ``patient`` waits for a server for as long as it takes what it is told; otherwise for WAIT_SECONDS in all.
    """
    from wsl_sweep.tracking import redact

    wait = PATIENT_SECONDS if patient else WAIT_SECONDS
    (folder / "summary.json").write_json(build_summary(spec, state, uuid=plan["uuid"]))
    sweep = records_of(spec, state, uuid=plan["uuid"], outcomes=kept_outcomes(folder))
    compared = _compared(sweep, say)
    summarised = functools.partial(build_summary, spec, state, uuid=plan["uuid"], compared=compared)
    files = _report(spec, state, folder, plan, sweep, compared, say)
    say("writing the results to MLflow")
    writer.begin_end(wait, patience=WAIT_SECONDS if patient else None)
    reached = writer.flush(wait)
    summary = summarised(run_ids=writer.run_ids)
    best = best_student(summary)
    if reached and best is not None and state.status == "finished" and spec.tracking.best_student:
        try:
            _log_best(best, folder, writer, tracking)
        except Exception as error:
            say(f"the best student could not be logged as an MLflow model: {_first_line(error)}")
    if reached:
        writer.describe(describe(summary, compared), _parent_metrics(summary))
        writer.artifacts(files)
    if not writer.close(state.status, wait):
        why = writer.problem or f"no answer in {WAIT_SECONDS:g} s"
        say(
            f"MLflow at {redact(tracking.uri)} did not take everything ({why}; "
            f"{writer.missing() or 'the end is missing'}). "
            f"Nothing is lost, {folder} has it all. When the server is back: "
            f"wsl-sweep sync {with_storage(folder.name, folder)}"
        )
    summary = summarised(run_ids=writer.run_ids)
    (folder / "summary.json").write_json(summary)
    if state.status == "finished":
        with contextlib.suppress(StorageError):
            _tidy(spec, folder, summary, best, state)
        with contextlib.suppress(OSError, StorageError):  # the cache's disk may be full
            remember_times(summary, spec.threads, spec.processes)
            remember_spread(spec, compared)
    with contextlib.suppress(OSError, StorageError):
        _export_studies(spec, state, folder)
    return summary


def _compared(sweep: SweepRecords, say: Callable[[str], None]) -> Compared | None:
    """The final table compared. No sweep fails for that: its results are kept without it."""
    try:
        return final_comparison(sweep)
    except Exception as error:
        say(f"the final table could not be compared: {_first_line(error)}; see wsl-sweep compare {sweep.name}")
    return None


def _first_line(error: Exception) -> str:
    first = next((line for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {first.strip()}"


def _report(
    spec: Spec,
    state: Any,
    folder: Place,
    plan: Mapping[str, Any],
    sweep: SweepRecords,
    compared: Compared | None,
    say: Callable[[str], None],
) -> dict[str, bytes]:
    """Writes the report, and gives what MLflow shall have: path → content. No sweep fails for its report."""
    files: dict[str, bytes] = {}
    try:
        page = report_page(spec, state, folder, plan, sweep, compared, say)
        files = {REPORT: page.html.encode()}
        (folder / REPORT).write(files[REPORT])
        files |= {f"plots/{name}": drawn.encode() for name, drawn in page.pictures.items()}
        if compared is not None:
            files["comparison.json"] = json_text(compared).encode()
        outcomes = outcomes_file(sweep)
        if outcomes is not None:
            files[OUTCOMES] = outcomes
    except Exception as error:
        say(
            f"the report could not be made: {_first_line(error)}; to make it again: "
            f"wsl-sweep report {with_storage(folder.name, folder)}"
        )
    return files


def _export_studies(spec: Spec, state: Any, folder: Place) -> None:
    from wsl_sweep.sweep.study import export_studies

    if spec.search is None or not any(trial.settled for trial in state.trials.values()):
        return
    (folder / STUDY).write(export_studies(spec, list(state.trials.values())).encode())


def best_student(summary: Mapping[str, Any], *, distilled: bool = False) -> dict[str, Any] | None:
    """The trial whose student is "the best": of the tuned winners' (or all variants') seeds the best by validation.

    Without a confirmed table it is the best trial of the search.

    Args:
        summary: as in ``summary.json``.
        distilled: whether only trials that learned from a teacher count.
    """
    metric = summary["metric"] if isinstance(summary["metric"], str) else summary["metric"][0]
    mode = summary["mode"] if isinstance(summary["mode"], str) else summary["mode"][0]
    rows = [row for row in summary["confirmed"] if row["tuned"] is not False]
    ids = {trial_id for row in rows for trial_id in row["trial_ids"]}
    if not ids and summary["best"]:
        ids = {summary["best"]["trial_id"]}
    pool = [
        trial
        for trial in summary["trials"]
        if trial["trial_id"] in ids
        and metric in trial["metrics"]
        and (not distilled or trial["config"]["distillation"]["method"] != "none")
    ]
    pick = max if mode == "max" else min
    return pick(pool, key=lambda trial: trial["metrics"][metric]) if pool else None


def _log_best(best: Mapping[str, Any], folder: Place, writer: Any, tracking: Any) -> None:
    import torch

    from wsl_sweep.data import load
    from wsl_sweep.tracking.writer import log_student
    from wsl_sweep.training.trial import Job, load_student

    job = Job(best["config"], best["part"], 1)
    data = load(job.config["dataset"], job.part)
    student = load_student(job, folder / "trials" / best["trial_id"], data.num_classes, data.in_channels)
    inputs = data.validation.views
    any_length = inputs.facts().get("kind") == "tokens"
    log_student(tracking, writer.parent_id, student, inputs.plain(torch.arange(2)).numpy(), any_length=any_length)


def _parent_metrics(summary: Mapping[str, Any]) -> dict[str, float]:
    metrics: dict[str, float] = {}
    if summary["best"] and isinstance(summary["best"]["value"], float):
        metrics[f"best/{summary['metric']}"] = summary["best"]["value"]
    comparison = summary["comparison"] or {"rows": [], "metric": ""}
    for row in comparison["rows"]:
        name, number = _metric_name(row["label"], comparison["metric"]), 1
        while f"mean/{name}/{comparison['metric']}" in metrics:  # of labels that MLflow could not tell apart
            number += 1
            name = f"{_metric_name(row['label'], comparison['metric'])} {number}"
        for what in ("mean", "sd"):
            if row[what] is not None:
                metrics[f"{what}/{name}/{comparison['metric']}"] = row[what]
    return metrics


LONGEST_METRIC = 250
"""Characters that MLflow takes of a metric's name."""


def _metric_name(label: str, metric: str) -> str:
    """A row's label as a part of a metric's name: MLflow takes letters, digits and a few signs, and not too many."""
    name = re.sub(r"[^\w.\- :]", "_", label.replace(" (untuned)", "_untuned").replace("=", ":"))
    return name[: LONGEST_METRIC - len(f"mean//{metric} 999")]


def describe(summary: Mapping[str, Any], compared: Compared | None) -> str:
    """The parent run's description in Markdown: question, verdict, table, the best trial, notes."""
    from wsl_sweep.tracking import redact
    from wsl_sweep.tracking.runs import TAG_LENGTH

    lines = [summary["description"], ""] if summary["description"] else []
    if compared is not None:
        lines += [f"**{one.verdict or 'no verdict'}**: {one.sentence}\n" for one in compared.comparisons]
        lines += [markdown_tables(compared), *(f"- {note}" for note in compared.notes), ""]
    best = summary["best"]
    if best:
        settings = ", ".join(f"`{path}` = {short(value)}" for path, value in best["overrides"].items())
        value = ", ".join(map(short, best["value"] if isinstance(best["value"], list) else [best["value"]]))
        lines += [f"Best by {summary['metric']}: {value} at {settings or 'the run as it is'}", ""]
    lines += [f"- {note}" for note in summary["notes"]]
    text = redact("\n".join(lines) + "\n")
    if len(text) <= TAG_LENGTH:
        return text
    more = f"\n\n… all of it is in `{REPORT}` among the artifacts.\n"
    return text[: TAG_LENGTH - len(more)].rsplit("\n", 1)[0] + more


def _tidy(spec: Spec, folder: Place, summary: Mapping[str, Any], best: Mapping[str, Any] | None, state: Any) -> None:
    """``keep: best`` leaves the students of the final table and of the best trial, and no checkpoints.

    And of the same trials who were their regularization samples.
    """
    if spec.keep == "all":
        return
    keep = {trial_id for row in state.rows for trial_id in row["trial_ids"]}
    keep |= {summary["best"]["trial_id"]} if summary["best"] else set()
    keep |= {best["trial_id"]} if best else set()
    for trial in summary["trials"]:
        if trial["trial_id"] not in keep:
            for name in (STUDENT, REGULARIZATION_SAMPLES):
                (folder / "trials" / trial["trial_id"] / name).delete()
    clean_trials(folder, [one for one in state.trials.values() if one.status != "finished"])
