"""From a sweep's ledger to what its report says."""

from __future__ import annotations

import datetime
import hashlib
import itertools
import json
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from wsl_sweep.analysis import curves, report_data, responses
from wsl_sweep.analysis.comparison import Compared
from wsl_sweep.analysis.curves import RowsOf
from wsl_sweep.analysis.grouping import Row
from wsl_sweep.analysis.records import Record
from wsl_sweep.analysis.report_data import Failure, Named, Report, Verdict
from wsl_sweep.analysis.verdicts import Comparison, budget_note, missing_text
from wsl_sweep.spec.identity import teacher_identity
from wsl_sweep.spec.sections import TEST_METRICS, mode_of
from wsl_sweep.spec.spec import Spec
from wsl_sweep.spec.wording import duration, titled
from wsl_sweep.sweep.ledger import SweepState, TrialState
from wsl_sweep.tracking.settings import redact

MOST_HASHES = 6


def build_report(
    spec: Spec,
    state: SweepState,
    plan: Mapping[str, Any],
    records: Sequence[Record],
    compared: Compared | None,
    rows_of: RowsOf,
) -> Report:
    """What the report of a sweep says; every number comes from its ledger and its trials' rows.

    Args:
        spec: the sweep.
        state: its ledger, folded.
        plan: ``plan.json``.
        records: its trials.
        compared: its final table; None where there is none yet.
        rows_of: the rows of a trial's epochs.
    """
    trials = list(state.trials.values())
    searched = [one for one in trials if one.trial.stage == "search"]
    searching = spec.search is not None
    metric = spec.metrics[0] if searching else spec.compare.metric
    mode = spec.modes[0] if searching else mode_of(metric, spec.compare)
    answered = responses.answered(records, metric)
    table = compared.rows if compared is not None else ()
    first = spec.metrics[0]
    stopping = curves.early_stopping(
        searched or trials, rows_of, first, spec.scheduler.name, spec.scheduler.grace_epochs
    )
    report = Report(
        title=spec.name,
        question=redact(spec.description),
        status=state.status,
        created=f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
        metric=compared.metric if compared else metric,
        higher_is_better=(compared.mode if compared else mode) == "max",
        margin=spec.compare.margin,
        verdicts=_verdicts(compared),
        cautions=compared.notes if compared else (),
        rows=_rows(compared, {one.trial_id: one.metrics for one in records}),
        comparisons=_comparisons(compared),
        curves=responses.response_curves(spec.space, answered, metric),
        coordinates=responses.coordinates(spec.space, answered, metric, more_is_better=mode == "max"),
        importance=responses.importance(spec, searched) if searched else None,
        learning_curves=tuple(_learning(table, rows_of, first)),
        regularization_samples=curves.learning_curve(table, rows_of, "regularization_samples/fraction"),
        weights=curves.weight_fan(table, rows_of),
        early_stopping=stopping,
        failures=tuple(_failures(trials)),
        costs=tuple(_costs(state)),
        command=redact(_command(plan)),
        file=redact(spec.text),
        reproduction=tuple(_reproduction(spec, state, plan)),
        notes=tuple(dict.fromkeys(map(redact, [*spec.notes, *state.notes]))),
    )
    return replace(report, gaps=tuple(_gaps(report, spec)))


def report_rows(compared: Compared) -> tuple[tuple[report_data.Row, ...], tuple[report_data.Comparison, ...]]:
    """The rows and comparisons of a table as ``wsl_sweep.analysis.plots`` draws them."""
    return _rows(compared), _comparisons(compared)


def _verdicts(compared: Compared | None) -> tuple[Verdict, ...]:
    if compared is None:
        return ()
    return tuple(Verdict(one.verdict or "none", f"{one.headline}.", f"{one.grounds}.") for one in compared.comparisons)


def _rows(
    compared: Compared | None, metrics: Mapping[str, Mapping[str, float]] = MappingProxyType({})
) -> tuple[report_data.Row, ...]:
    """The rows of a table; with the other ``metrics`` of its trials, by their ids."""
    if compared is None:
        return ()
    found = []
    for row, wide in zip(compared.rows, compared.wide_intervals, strict=True):
        described = row.description
        found.append(
            report_data.Row(
                label=row.label,
                metric=compared.metric,
                settings=tuple((path, _plain(value)) for path, value in row.settings.items()),
                mean=described.mean if described else None,
                sd=described.sd if described else None,
                interval=described.interval if described else None,
                wide_interval=wide,
                n=len(row.values),
                missing=missing_text(row),
                values=tuple(row.by_seed.items()),
                tuning_trials=row.tuning_trials if row.tuned else None,
                is_baseline=compared.is_baseline(row),
                also=tuple(_also(row, compared.metric, metrics)),
            )
        )
    return tuple(found)


def _also(row: Row, metric: str, metrics: Mapping[str, Mapping[str, float]]) -> Iterator[tuple[str, float]]:
    """Means over a row's seeds of the other metrics of the test part, where its data have metrics of their own."""
    seeds = [[metrics.get(trial_id, {}) for trial_id in row.trial_ids[seed]] for seed in row.seeds]
    trials = [one for several in seeds for one in several]
    names = [name for name in dict.fromkeys(itertools.chain(*trials)) if name.startswith("test/")]
    if {*names} <= {*TEST_METRICS}:
        return
    for name in names:
        if name != metric and all(math.isfinite(one.get(name, math.nan)) for one in trials):
            yield name, math.fsum(math.fsum(one[name] for one in each) / len(each) for each in seeds) / len(seeds)


def _comparisons(compared: Compared | None) -> tuple[report_data.Comparison, ...]:
    if compared is None:
        return ()
    rows = {row.label: row for row in compared.rows}
    found = []
    for one in compared.comparisons:
        difference, improvement = one.difference, one.improvement
        found.append(
            report_data.Comparison(
                label=one.row,
                baseline=one.baseline,
                method=difference.method if difference else "paired",
                n=difference.n if difference else one.common,
                kind=one.verdict or "none",
                sentence=one.sentence,
                difference=difference.difference if difference else None,
                interval=difference.interval if difference else None,
                p=difference.p if difference else None,
                p_holm=one.p_holm,
                probability=improvement.probability if improvement else None,
                probability_interval=improvement.interval if improvement else None,
                p_equivalence=one.equivalence_p,
                smaller_budget=one.smaller_budget,
                note=_budget(one, rows),
            )
        )
    return tuple(found)


def _budget(one: Comparison, rows: Mapping[str, Row]) -> str:
    """Where one of the two was tuned less: that, in words."""
    uneven = one.smaller_budget or one.row_smaller_budget
    return budget_note(rows[one.row], rows[one.baseline]) if uneven else ""


def _learning(table: Sequence[Any], rows_of: RowsOf, first: str) -> Iterator[report_data.LearningCurve]:
    for metric in dict.fromkeys([first, "validation/accuracy", "validation/loss", "train/loss"]):
        found = curves.learning_curve(table, rows_of, metric)
        if found is not None:
            yield found


def _failures(trials: Sequence[TrialState]) -> Iterator[Failure]:
    for one in trials:
        ended = one.status in ("failed", "killed") and (one.attempt > 0 or one.status == "failed")
        if ended or one.losses:
            reason = redact(one.error or ("stopped" if one.status == "killed" else "its worker died, and it went on"))
            yield Failure(one.trial.trial_id, titled(one.trial), one.status, reason)


def _costs(state: SweepState) -> Iterator[Named]:
    trials = list(state.trials.values())
    by_clock = state.seconds_before + state.last_session_seconds
    yield Named("by the clock", duration(by_clock))
    for stage in dict.fromkeys(one.trial.stage for one in trials):
        own = [one for one in trials if one.trial.stage == stage]
        spent = math.fsum(one.seconds for one in own)
        yield Named(f"trials, {stage}", f"{len(own)} in {duration(spent)} of training")
    here = [one for one in trials if not one.facts.get("taken_over")]  # the others' were trained by other sweeps
    yield Named("epochs trained", f"{sum(one.epochs for one in here):,}")
    examples = [one.facts["examples"] for one in here if one.facts.get("examples") is not None]
    if examples:
        yield Named("examples trained on", f"{sum(examples):,}")
    teachers = [one.facts["teacher"] for one in trials if one.facts.get("teacher")]
    if teachers:
        computed, found = (sum(one[name] for one in teachers) for name in ("computed", "found"))
        share = f" ({found / (computed + found):.1%} of what trials asked for)" if computed + found else ""
        yield Named("teacher forwards", f"{computed:,} examples")
        yield Named("teacher forwards saved", f"{found:,}{share}: found in the logit bank")
    taken = len(trials) - len(here)
    if taken:
        yield Named("trials taken over", f"{taken} from other sweeps of the storage, trained there")


def _command(plan: Mapping[str, Any]) -> str:
    """The command that began the sweep, on its file as it lies in the sweep's folder."""
    said = plan.get("command_line") or {}
    words = ["wsl-sweep", "run", Path(str(plan.get("source", "sweep.yaml"))).name]
    for value in said.get("sets") or ():
        words += ["--set", value]
    for option in ("recipe", "trials", "seeds", "name"):
        if said.get(option) is not None:
            words += [f"--{option}", str(said[option])]
    return shlex.join(words)


def _reproduction(spec: Spec, state: SweepState, plan: Mapping[str, Any]) -> Iterator[Named]:
    yield Named("sweep", f"{spec.name}, {plan.get('uuid', '')}")
    yield Named("begun", str(plan.get("created", ""))[:16].replace("T", " "))
    if plan.get("git_commit"):
        yield Named("commit of the working folder", str(plan["git_commit"]))
    yield Named("file (SHA-256 of sweep.yaml)", hashlib.sha256(spec.text.encode()).hexdigest())
    yield Named("device", str(plan.get("device_kind") or "unknown"))
    for name, version in (plan.get("versions") or {}).items():
        yield Named(name, str(version))
    prints = [one.facts["fingerprint"] for one in state.trials.values() if one.facts.get("fingerprint")]
    for key, name in {
        "code": "training code",
        "own": "your own code",
        "data": "examples and labels",
        "teacher": "weights of teachers (SHA-256)",
        "device": "processor or card",
    }.items():
        found = list(dict.fromkeys(str(one[key]) for one in prints if one.get(key)))
        if found:
            yield Named(name, _some(found))
    trials = [one.trial for one in state.trials.values()]
    teachers = [teacher_identity(one.config, one.part, one.threads, one.processes) for one in trials]
    ids = list(dict.fromkeys(named[0] for named in teachers if named is not None))
    if ids:
        yield Named("teachers", _some(ids))


def _some(values: Sequence[str]) -> str:
    more = f", and {len(values) - MOST_HASHES} more" if len(values) > MOST_HASHES else ""
    return ", ".join(values[:MOST_HASHES]) + more


def _gaps(report: Report, spec: Spec) -> Iterator[tuple[report_data.Part, str]]:
    """Why a part of the report has nothing to show."""
    if not report.rows:
        yield "verdict", "The sweep has no final table yet."
        yield "table", "The final table comes when everything has been trained."
    elif not report.verdicts:
        yield "verdict", "Nothing was compared: no row of the table is a baseline for another."
    if not report.curves:
        yield "curves", "No trial of a swept parameter has finished." if spec.space else "Nothing is swept."
    if report.coordinates is None:
        alone = "One parameter is swept: its response curve says it all."
        yield "coordinates", alone if len(spec.space) == 1 else "There is nothing to lay side by side."
    if report.importance is None:
        few = "Too few trials have finished."
        yield "importance", few if spec.search is not None else "An ablation: its table says what each factor does."
    if report.regularization_samples is None:
        yield "regularization", "No row of the table has a teacher, so there are no regularization samples."
    if report.weights is None:
        yield "weights", "No row of the table weights its soft labels by example."
    if not report.failures:
        yield "failures", "No trial failed, and none was lost."


def _plain(value: Any) -> report_data.Value:
    return value if isinstance(value, int | float | str | bool) else json.dumps(value)
