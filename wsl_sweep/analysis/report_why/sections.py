"""The sections of a sweep, put together from its ledger, its trials' rows and what else they left behind."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from wsl_sweep.analysis.comparison import Compared
from wsl_sweep.analysis.curves import MOST, RowsOf
from wsl_sweep.analysis.grouping import Row
from wsl_sweep.analysis.leftovers import SampleMasks, kept_logits, kept_masks, teacher_logits
from wsl_sweep.analysis.plots.style import Looks
from wsl_sweep.analysis.records import SweepRecords
from wsl_sweep.analysis.report_bias_variance import bias_variance_sections
from wsl_sweep.analysis.report_sections import Section
from wsl_sweep.analysis.report_teacher import teacher_sections
from wsl_sweep.analysis.report_why.early_stopping import full_curves, replay_section, replayed_trials
from wsl_sweep.analysis.report_why.material import FRACTION, Classes, ClassesOf, Columns, every, finite, read_columns
from wsl_sweep.analysis.report_why.regularization_claim import Sampled, claim_section, sampled_trials
from wsl_sweep.analysis.report_why.regularization_who import MOST_ROWS, Who, who_of, who_section
from wsl_sweep.analysis.report_why.resemblances import resemblances_section
from wsl_sweep.analysis.report_why.sensitivity import Searched, sensitivity_section
from wsl_sweep.analysis.tradeoffs import look
from wsl_sweep.errors import StorageError
from wsl_sweep.spec.sections import natural_mode
from wsl_sweep.spec.spec import Spec
from wsl_sweep.storage import Place
from wsl_sweep.sweep.ledger import SweepState, TrialState
from wsl_sweep.tracking.settings import redact
from wsl_sweep.training.files import REGULARIZATION_SAMPLES


def why_sections(
    spec: Spec,
    state: SweepState,
    sweep: SweepRecords,
    compared: Compared | None,
    rows_of: RowsOf,
    folder: Place,
    *,
    best_of: Callable[[], Mapping[str, Any] | None] = lambda: None,
    classes_of: ClassesOf = lambda dataset: Classes(),
    looks: Looks | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> list[Section]:
    """The parts of a report that say why, in the order of the page. One that cannot be made is left out, and told.

    Args:
        spec: the sweep.
        state: its ledger, folded.
        sweep: its trials, as they are compared.
        compared: its final table; None where there is none yet.
        rows_of: the rows of a trial's epochs.
        folder: the sweep's, with what its trials left behind.
        best_of: gives the trial of the best student that learned from a teacher, as in ``summary.json``, if any.
        classes_of: what the data set calls its classes.
        looks: of arms, variants and rows, as in the rest of the page.
        say: hears in words what could not be made.
    """
    known = looks or {}
    trials = sampled_trials(sweep.records)
    replayed = replayed_trials(_judged(state))
    sampled = trials[:: every(len(trials), MOST)]

    @functools.cache
    def columns() -> Columns:
        """Read once, for two sections."""
        ids = [*(one.trial.trial_id for one in replayed), *(one.trial_id for one in sampled)]
        return read_columns(ids, rows_of, (spec.metrics[0], FRACTION))

    makers: dict[str, Callable[[], Section | list[Section] | None]] = {
        "whether early stopping lies": lambda: _replay(spec, state, replayed, columns, known),
        "who the regularization samples are": lambda: _who(compared, folder, classes_of, state, known),
        "regularization samples and accuracy": lambda: claim_section(trials, known, _means(sampled, columns)),
        "the teacher": lambda: teacher_sections(spec, state, folder, lambda dataset: classes_of(dataset).names),
        "bias and variance": lambda: _bias_and_variance(sweep, state, folder),
        "resemblances": lambda: _resemblances(best_of(), folder, classes_of),
        "sensitivity": lambda: _sensitivity(spec, state, known),
    }
    found: list[Section] = []
    for what, make in makers.items():
        try:
            made = make()
        except Exception as error:  # no report fails for it
            first = next((line for line in str(error).splitlines() if line.strip()), "")
            say(redact(f"the report says nothing of {what}: {type(error).__name__}: {first.strip()}"))
            continue
        found += made if isinstance(made, list) else [made] if made is not None else []
    return found


def _bias_and_variance(sweep: SweepRecords, state: SweepState, folder: Place) -> list[Section]:
    """Where there are students of labels alone and of a teacher, two seeds of each or more."""
    found = look(sweep, state, folder)
    kept = [one for one in found.regimes if one.against]
    return bias_variance_sections(replace(found, regimes=tuple(kept)))


def _judged(state: SweepState) -> list[TrialState]:
    """Of a search its trials, else all, as in ``analysis.reporting``."""
    trials = list(state.trials.values())
    return [one for one in trials if one.trial.stage == "search"] or trials


def _replay(
    spec: Spec, state: SweepState, replayed: Sequence[TrialState], columns: Callable[[], Columns], looks: Looks
) -> Section | None:
    metric, mode = spec.metrics[0], spec.modes[0]
    if not replayed:
        return None
    judged = _judged(state)
    return replay_section(
        full_curves(replayed, columns(), metric),
        metric,
        looks,
        grace=spec.scheduler.grace_epochs,
        reduction_factor=spec.scheduler.reduction_factor,
        margin=spec.compare.margin if _of_one_unit(metric, spec.compare.metric) else 0.0,
        more_is_better=mode == "max",
        stopped=sum(one.status == "pruned" for one in judged),
        searched=judged[0].trial.stage == "search",
    )


def _of_one_unit(metric: str, other: str) -> bool:
    """Whether two metrics are the same measure of two parts, such as ``validation/loss`` and ``test/loss``."""
    return metric.rsplit("/", 1)[-1] == other.rsplit("/", 1)[-1]


def _who(
    compared: Compared | None, folder: Place, classes_of: ClassesOf, state: SweepState, looks: Looks
) -> Section | None:
    """A row at a time: masks of a large data set are large."""
    told: list[Who] = []
    left_out, dataset = 0, None
    for row in _in_turns(compared.rows if compared is not None else ()):
        ids = {seed: several[0] for seed, several in row.trial_ids.items() if several}
        if len(told) == MOST_ROWS:
            left_out += any(_has_masks(folder, trial_id) for trial_id in ids.values())
            continue
        by_seed = {seed: one for seed, trial_id in ids.items() if (one := _masks(folder, trial_id)) is not None}
        who = who_of(row.label, by_seed, len(ids))
        if who is not None:
            told.append(who)
            dataset = dataset or _dataset(state, ids.values())
    if not told:
        return None
    return who_section(told, classes_of(dataset or {}), looks, left_out)


def _in_turns(rows: Sequence[Row]) -> list[Row]:
    """One of each variant after the other, so that the first few are of all variants."""
    seen: dict[str, int] = {}
    turns = []
    for place, row in enumerate(rows):
        seen[row.variant] = seen.get(row.variant, 0) + 1
        turns.append((seen[row.variant], place))
    return [rows[place] for _, place in sorted(turns)]


def _masks(folder: Place, trial_id: str) -> SampleMasks | None:
    """Of a store that does not answer none."""
    try:
        return kept_masks(folder, trial_id)
    except StorageError:
        return None


def _has_masks(folder: Place, trial_id: str) -> bool:
    try:
        return (folder / "trials" / trial_id / REGULARIZATION_SAMPLES).exists()
    except StorageError:
        return False


def _dataset(state: SweepState, trial_ids: Iterable[str]) -> Mapping[str, Any] | None:
    """The ``dataset`` section of the first trial that the ledger knows."""
    known = [state.trials[one].trial.config for one in trial_ids if one in state.trials]
    return known[0]["dataset"] if known else None


def _means(sampled: Sequence[Sampled], columns: Callable[[], Columns]) -> dict[str, float]:
    """Trial id → its mean share of regularization samples over epochs, where every epoch has one."""
    found = {}
    for one in sampled:
        line = columns().get(one.trial_id, {}).get(FRACTION, ())
        if line and finite(line):
            found[one.trial_id] = math.fsum(line) / len(line)
    return found


def _resemblances(best: Mapping[str, Any] | None, folder: Place, classes_of: ClassesOf) -> Section | None:
    """Of the best distilled student; nothing where its method has no τ, or its or its teacher's logits are gone."""
    temperature = best["config"]["distillation"].get("temperature") if best is not None else None
    if best is None or temperature is None or best.get("teacher_id") is None:
        return None
    student = kept_logits(folder, best["trial_id"])
    teacher = teacher_logits(folder, best["teacher_id"], student) if student is not None else None
    if student is None or teacher is None:
        return None
    return resemblances_section(
        student,
        teacher,
        float(temperature),
        classes_of(best["config"]["dataset"]),
        whose=f"the best student that learned from a teacher ({'+'.join(best['variants'])}, trial {best['trial_id']})",
        seen=best["part"] != "train",
    )


def _sensitivity(spec: Spec, state: SweepState, looks: Looks) -> Section | None:
    """Of a search, by the metric that the margin is of, on the validation part."""
    measure = spec.compare.metric.rsplit("/", 1)[-1]
    metric = next((one for one in spec.metrics if _of_one_unit(one, measure)), f"validation/{measure}")
    modes = dict(zip(spec.metrics, spec.modes, strict=True))
    more_is_better = modes.get(metric, spec.compare.mode or natural_mode(metric)) == "max"
    searched = []
    for arm in spec.arms:
        own = [
            one
            for one in state.trials.values()
            if one.trial.stage == "search"
            and one.trial.arm == arm
            and one.status == "finished"
            and math.isfinite(one.metrics.get(metric, math.nan))
        ]
        if own:
            values = [one.metrics[metric] for one in own]
            searched.append(
                Searched(
                    arm=arm,
                    points=tuple(one.trial.overrides for one in own),
                    metric=tuple(values),
                    winner=_winner(state, arm, own, values, more_is_better),
                )
            )
    return sensitivity_section(spec.space, searched, metric, spec.compare.margin, looks, more_is_better=more_is_better)


def _winner(
    state: SweepState, arm: str, own: Sequence[TrialState], values: Sequence[float], more_is_better: bool
) -> Mapping[str, Any]:
    """The overrides of an arm's winner on fresh seeds; before there is one, of its best trial."""
    for row in state.rows:
        if row["variant"] == arm and row.get("tuned"):
            return dict(row["overrides"])
    pick = max if more_is_better else min
    return own[values.index(pick(values))].trial.overrides
