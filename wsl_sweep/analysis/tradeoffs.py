"""From the trials of a sweep to the regimes of bias and variance: whose students, with what logits."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from wsl_sweep.analysis.diagnostics.arrays import Labels, Numbers
from wsl_sweep.analysis.diagnostics.regimes import Regime, Students, regimes
from wsl_sweep.analysis.grouping import Row, rows_of
from wsl_sweep.analysis.leftovers import Logits, kept_logits, teacher_logits
from wsl_sweep.analysis.records import SweepRecords
from wsl_sweep.errors import WslSweepError
from wsl_sweep.spec.identity import canonical_json, of_any_split
from wsl_sweep.spec.plan import Trial
from wsl_sweep.storage import Place
from wsl_sweep.sweep.ledger import SweepState

Part = Literal["validation", "test"]

LogitsOf = Callable[[str], Logits | None]
"""What a trial's student says of the part that is looked at, by the trial's id."""

TeacherOf = Callable[[Trial, Logits], Numbers | None]
"""(N, C) of what a trial's teacher says of the same examples, or None."""

Otherwise = Callable[[Trial, Logits, Part], Numbers | None]

MOST = 24
"""Rows that are looked at: each takes a few seconds of tens of thousands of examples."""


@dataclass(frozen=True, eq=False)
class BiasAndVariance:
    """What a sweep says of bias and variance.

    Attributes:
        part: of the data, ``validation`` or ``test``.
        regimes: those that the sweep has.
        notes: why rows were left out.
    """

    part: Part
    regimes: tuple[Regime, ...]
    notes: tuple[str, ...]


def unseen_part(trials: Sequence[Trial]) -> Part:
    """The part that no student was trained on, and on which nothing is chosen where that can be."""
    return "validation" if all(one.part == "train" for one in trials) else "test"


def bias_and_variance(
    rows: Sequence[Row],
    trials: Mapping[str, Trial],
    part: Part,
    logits_of: LogitsOf,
    teacher_of: TeacherOf,
) -> BiasAndVariance:
    """Bias and variance of a sweep's students; see ``regimes``.

    Args:
        rows: of its table.
        trials: by id.
        part: of the data. Trials that were trained on it are left out.
        logits_of: read once for each trial that counts.
        teacher_of: asked once for each teacher.
    """
    notes: list[str] = []
    found: list[Students] = []
    labels: Labels | None = None
    examples, seen = "", set[tuple[str, ...]]()
    said: dict[str, Numbers | None] = {}
    if len(rows) > MOST:
        notes.append(f"{MOST} of {len(rows)} rows are looked at.")
    for row in rows[:MOST]:
        own = {seed: trials[ids[0]] for seed, ids in row.trial_ids.items() if len(ids) == 1 and ids[0] in trials}
        ids = tuple(one.trial_id for one in own.values())
        if len(own) < 2 or ids in seen:
            continue  # one student, or the students of another row under another name
        seen.add(ids)
        if part == "validation" and any(one.part != "train" for one in own.values()):
            notes.append(f"{row.label}: the validation part was trained on.")
            continue
        kept = {seed: logits for seed, one in own.items() if (logits := logits_of(one.trial_id)) is not None}
        if len(kept) < 2:
            notes.append(f"{row.label}: the logits of fewer than two students are kept.")
            continue
        which = {_examples(one) for one in kept.values()}
        examples = examples or next(iter(which))
        if which != {examples}:
            notes.append(f"{row.label}: its examples are others than those of the rows before.")
            continue
        labels = next(iter(kept.values())).labels if labels is None else labels
        found.append(_students(row, own, kept, teacher_of, said))
    if labels is None:
        return BiasAndVariance(part, (), tuple(notes))
    return BiasAndVariance(part, regimes(found, labels), tuple(notes))


def _examples(logits: Logits) -> str:
    return hashlib.sha256(logits.ids.tobytes() + logits.labels.tobytes()).hexdigest()


def _students(
    row: Row,
    trials: Mapping[int, Trial],
    kept: Mapping[int, Logits],
    teacher_of: TeacherOf,
    said: dict[str, Numbers | None],
) -> Students:
    config = next(iter(trials.values())).config
    distillation = config["distillation"]
    distilled = distillation["method"] != "none"
    teachers: dict[int, Numbers] = {}
    for seed, logits in kept.items() if distilled else ():
        key = str(trials[seed].teacher_id)
        if key not in said:
            said[key] = teacher_of(trials[seed], logits)
        of_teacher = said[key]
        if of_teacher is not None and np.shape(of_teacher) == np.shape(logits.logits):
            teachers[seed] = of_teacher
    splits = int(config["dataset"].get("splits", 1))
    return Students(
        name=row.label,
        distilled=distilled,
        weighted=distillation.get("weighting", {}).get("kind", "none") != "none",
        splits=splits,
        own_teachers=distilled and splits > 1 and config["teacher"].get("split") == "same",
        temperature=float(distillation.get("temperature", 1.0)) if distilled else 1.0,
        setting=canonical_json(_setting(config)),
        logits={seed: logits.logits for seed, logits in kept.items()},
        teachers=teachers,
    )


def _setting(config: Mapping[str, Any]) -> dict[str, Any]:
    """What students are trained with beside seed, split and what they are told of."""
    own = {key: value for key, value in config.items() if key not in ("distillation", "teacher", "seed")}
    return {**own, "dataset": of_any_split(own["dataset"])}


def look(
    sweep: SweepRecords,
    state: SweepState,
    folder: Place,
    part: Part | None = None,
    otherwise: Otherwise = lambda trial, logits, part: None,
) -> BiasAndVariance:
    """Bias and variance of a sweep from what its trials have left.

    Args:
        sweep: its records.
        state: its ledger, folded.
        folder: its folder.
        part: of the data; None for the one that no student was trained on.
        otherwise: what a teacher says where that is not kept: (trial, logits of the same examples, part) → (N, C).

    Raises StorageError: it cannot be read now.
    """
    trials = {one.trial.trial_id: one.trial for one in state.trials.values() if one.status == "finished"}
    rows = _rows(sweep)
    own = [trials[trial_id] for row in rows for ids in row.trial_ids.values() for trial_id in ids if trial_id in trials]
    chosen = part if part is not None else unseen_part(own)

    def teacher_of(trial: Trial, logits: Logits) -> Numbers | None:
        kept = None
        if chosen == "validation" and trial.teacher_id is not None:
            kept = teacher_logits(folder, trial.teacher_id, logits)
        return kept.logits if kept is not None else otherwise(trial, logits, chosen)

    return bias_and_variance(rows, trials, chosen, lambda trial_id: kept_logits(folder, trial_id, chosen), teacher_of)


def _rows(sweep: SweepRecords) -> list[Row]:
    try:
        return rows_of([sweep], "validation/accuracy")
    except WslSweepError:  # no final table yet
        return []
