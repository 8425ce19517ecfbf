"""What a teacher's soft labels hold, as a part of a page: its figures in tables and pictures, and what to sweep."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from wsl_sweep.analysis.diagnostics.arrays import Floats
from wsl_sweep.analysis.diagnostics.calibration import Calibration
from wsl_sweep.analysis.diagnostics.soft_labels import FEW, Softened, SoftLabels, TopLabels, soft_labels, stability
from wsl_sweep.analysis.found_teacher import FoundTeacher, compared
from wsl_sweep.analysis.leftovers import Logits, kept_logits, teacher_logits
from wsl_sweep.analysis.plots import calibration as plots
from wsl_sweep.analysis.plots.heat import heat_map
from wsl_sweep.analysis.plots.style import short
from wsl_sweep.analysis.report_pictures import Picture, picture
from wsl_sweep.analysis.report_sections import Captioned, Section
from wsl_sweep.analysis.report_tables import Cell, Table
from wsl_sweep.analysis.suggestions import Suggestion
from wsl_sweep.analysis.sweep_teachers import SweepTeacher, less_smoothed, set_apart, teachers_of, temperature_of
from wsl_sweep.spec.spec import Spec
from wsl_sweep.spec.wording import short as value_of
from wsl_sweep.storage import Place
from wsl_sweep.sweep.ledger import SweepState

NamesOf = Callable[[Mapping[str, Any]], Sequence[str]]

TO_SWEEP: Final = "What to sweep"
"""The heading of the table of suggestions."""

BARS: Final = 15
"""Classes, or pairs of classes, that a picture shows; the table beside it has more."""

ROWS: Final = 200
"""Of a table."""

MOST_TEACHERS: Final = 3
"""Of a sweep that its report tells of."""

TRIALS_ASKED: Final = 3
"""Trials of a teacher whose examples are looked for among those that it was asked about."""

LONGEST_LABEL: Final = 60
"""Characters of what sets a teacher apart, for a heading."""


def teacher_section(found: FoundTeacher, *, key: str = "teacher", label: str = "", explained: bool = True) -> Section:
    """A teacher as a part of a page, from its figures alone.

    Args:
        found: its figures.
        key: the anchor of the section.
        label: what tells it from other teachers in the page; for headings.
        explained: whether it says what the figures are; once in a page is enough.
    """
    beside = f", {label}" if label else ""
    soft = found.soft
    tables = [
        Captioned("Soft labels by temperature", _by_temperature(soft)),
        Captioned("Unreliability and ambiguity", _top_table(found)),
        Captioned("Stability within classes", _stability_table(found)),
    ]
    if found.to_sweep:
        tables.append(Captioned(TO_SWEEP, sweep_table(found.to_sweep)))
    return Section(
        key=key,
        title=f"The teacher{beside or f', {found.model}'}",
        answer=_answer(found),
        warnings=tuple(one.sentence for one in soft.warnings),
        tables=tuple(tables),
        pictures=tuple(_titled(one, beside) for one in _pictures(found)),
        notes=(*_notes(found, explained), *found.notes),
    )


def _titled(one: Picture, beside: str) -> Picture:
    return replace(one, title=f"{one.title}{beside}") if beside else one


def _answer(found: FoundTeacher) -> str:
    soft, plain = found.soft, found.soft.plain
    scaled = (
        f"{soft.scaled.error:.4f} at its best temperature, {short(soft.best.temperature)}"
        if not soft.best.at_bound
        else "and there is no best temperature, since its loss falls to the end of the range"
    )
    sentences = [
        f"On the {soft.examples:,} examples of the {found.part} part {found.model} is right in {plain.accuracy:.1%} "
        f"and {plain.confidence:.1%} sure: its calibration error is {plain.error:.4f}, {scaled}.",
        f"At τ = {found.temperature:g} its soft labels put {soft.softened.beside:.3f} beside their highest class.",
    ]
    if soft.top:
        least = min(soft.top, key=lambda one: one.total)
        holds = "so that the condition for learning from them holds" if least.learnable else "which is not below 1"
        sentences.append(f"Δ + γ is lowest at k = {least.k}: {least.total:.3f}, {holds}.")
    sentences.append(f"1 - S is {soft.stability.spread:.4f}.")
    if found.against is not None:
        sentences.append(found.against.sentence)
    return " ".join(sentences)


def _explanations(soft: SoftLabels) -> list[str]:
    """What the figures are."""
    return [
        f"The calibration error is over {len(soft.plain.bins)} bins of equal width; the best temperature has the "
        "lowest cross-entropy on these very examples.",
        "Δ(k) is how often the label is not among the k highest; γ(k), our estimate, is the highest share of a class's "
        'examples in which one wrong label is. Δ + γ < 1 at one k is the condition of "Learning From Biased Soft '
        'Labels"; it is sufficient, not needed. 1 - S (Shen et al. 2021) is at τ = 1.',
    ]


def _notes(found: FoundTeacher, explained: bool) -> list[str]:
    soft, notes = found.soft, []
    if found.temperature_from:
        notes.append(f"τ = {found.temperature:g} is {found.temperature_from}.")
    if explained:
        notes += _explanations(soft)
    if soft.fewest < FEW:
        notes.append(f"The smallest class has {soft.fewest} examples here: γ, a maximum over classes, reads too high.")
    empty = int(np.isnan(soft.stability.by_class).sum())
    if empty:
        notes.append(f"{empty} of {soft.classes} classes have no example here, and are left out of means over classes.")
    return notes


# --- tables ----------------------------------------------------------------------------------------------------------

Figure = tuple[Calibration, Softened | None]


def _by_temperature(soft: SoftLabels) -> Table:
    """A column for each temperature: 1, the best one, that of distillation."""
    columns: dict[str, Figure] = {"τ = 1": (soft.plain, soft.at_one)}
    if not soft.best.at_bound:
        columns[f"τ = {short(soft.best.temperature)}, the best"] = (soft.scaled, None)
    if soft.softened.temperature != 1:
        columns[f"τ = {short(soft.softened.temperature)}, of distillation"] = (soft.distilled, soft.softened)
    of_calibration: list[tuple[str, Callable[[Calibration], float]]] = [
        ("accuracy", lambda one: one.accuracy),
        ("mean confidence", lambda one: one.confidence),
        ("calibration error (ECE)", lambda one: one.error),
        ("cross-entropy, nats", lambda one: one.loss),
    ]
    of_labels: list[tuple[str, Callable[[Softened], float | None]]] = [
        ("entropy, nats", lambda one: one.entropy),
        ("entropy, share of the highest possible", lambda one: one.entropy_share),
        ("mean probability of the label", lambda one: one.label),
        ("… beside the highest class", lambda one: one.beside),
        ("… of the second highest", lambda one: one.by_rank[1]),
        ("… of the third highest", lambda one: one.by_rank[2] if len(one.by_rank) > 2 else None),
    ]
    rows = [(Cell(name), *(_number(of(one)) for one, _ in columns.values())) for name, of in of_calibration]
    rows += [
        (Cell(name), *(_number(None if one is None else of_soft(one)) for _, one in columns.values()))
        for name, of_soft in of_labels
    ]
    return Table((("", False), *((name, True) for name in columns)), tuple(rows))


def _top_table(found: FoundTeacher) -> Table:
    rows = tuple(
        (
            Cell(str(one.k), sort=one.k),
            *(_number(value) for value in (one.unreliability, one.ambiguity, one.total)),
            Cell("yes" if one.learnable else "no"),
            Cell(_attained(found, one)),
        )
        for one in found.soft.top
    )
    columns = (("k", True), ("Δ", True), ("γ", True), ("Δ + γ", True), ("below 1", False), ("γ is attained by", False))
    return Table(columns, rows)


def _attained(found: FoundTeacher, one: TopLabels) -> str:
    return f"{found.named(one.rival)}, where {found.named(one.label)} is true" if one.ambiguity > 0 else "–"


def _stability_table(found: FoundTeacher) -> Table:
    rows = [(Cell("1 - S"), _number(found.soft.stability.spread))]
    if found.against is not None:
        interval = found.against.erased.interval
        below = f"{interval[0]:.4f} to {interval[1]:.4f}" if interval is not None else ""
        value = found.against.erased.value
        rows += [
            (Cell(f"1 - S of {found.against.teacher_id}"), _number(found.against.stability.spread)),
            (Cell("erased information", "95 % interval over classes" if below else ""),
             replace(_number(value), below=below)),
        ]  # fmt: skip
        if found.against.erased.share is not None:
            rows.append((Cell("… as a share"), _number(found.against.erased.share)))
    return Table((("", False), ("value", True)), tuple(rows))


def sweep_table(suggested: Sequence[Suggestion]) -> Table:
    """Lines of ``space`` that answer the warnings."""
    rows = tuple((Cell(one.path), Cell(one.values, one.note)) for one in suggested)
    return Table((("path", False), ("its values", False)), rows)


def _number(value: float | None) -> Cell:
    if value is None or math.isnan(value):
        return Cell("–")
    return Cell(f"{value:.4f}".replace("-", "−"), sort=value)


# --- pictures --------------------------------------------------------------------------------------------------------


def _pictures(found: FoundTeacher) -> list[Picture]:
    soft = found.soft
    made = [_reliability("Reliability at τ = 1", soft.plain)]
    if not soft.best.at_bound:
        made.append(_reliability(f"Reliability at the best temperature, {short(soft.best.temperature)}", soft.scaled))
    if soft.top:
        made.append(picture("Unreliability and ambiguity by k", plots.learnability(soft.top), _top_table(found),
                            "Below 1, the dashed line, the sum says that they can be learned from."))  # fmt: skip
    made += [_ranks(soft), _confusions(found), _classes(found)]
    return made


def _reliability(title: str, one: Calibration) -> Picture:
    rows = tuple(
        (
            Cell(f"{bin_.low:.3f} to {bin_.high:.3f}", sort=bin_.low),
            Cell(f"{bin_.count:,}", sort=bin_.count),
            _number(bin_.confidence),
            _number(bin_.accuracy),
        )
        for bin_ in one.bins
        if bin_.count
    )
    columns = (("confidence", False), ("examples", True), ("mean confidence", True), ("accuracy", True))
    return picture(title, plots.reliability(one), Table(columns, rows), f"Calibration error {one.error:.4f}.")


def _ranks(soft: SoftLabels) -> Picture:
    both = [soft.at_one] + ([soft.softened] if soft.softened.temperature != 1 else [])
    rows = tuple(
        (
            Cell(str(rank + 1), sort=rank + 1),
            *(Cell(f"{one.by_rank[rank]:.3g}", sort=one.by_rank[rank]) for one in both),
        )
        for rank in range(len(soft.at_one.by_rank))
    )
    table = Table((("rank", True), *((f"τ = {short(one.temperature)}", True) for one in both)), rows)
    low = any(value < plots.FLOOR for one in both for value in one.by_rank)
    note = f"What is below {plots.FLOOR:g} is drawn there." if low else ""
    return picture("Mean probability by rank", plots.by_rank(both), table, note)


def _confusions(found: FoundTeacher) -> Picture:
    """The mean soft label by class: a map of few classes, the largest entries off the diagonal of many."""
    means = found.soft.softened.by_class
    pairs = _largest_beside(means, ROWS)
    rows = tuple((Cell(found.named(y)), Cell(found.named(z)), _number(float(means[y, z]))) for y, z in pairs)
    columns = (("true class", False), ("other class", False), ("mean probability", True))
    left_out = found.soft.classes * (found.soft.classes - 1) > len(pairs)
    table = Table(columns, rows, f"The {len(pairs)} largest." if left_out else "")
    at = f"At τ = {short(found.temperature)}"
    if found.soft.classes > plots.MOST_CELLS:
        bars = [(f"{found.named(z)}, where {found.named(y)} is true", float(means[y, z])) for y, z in pairs[:BARS]]
        note = f"{at}: the {len(bars)} largest mean probabilities of another class."
        return picture("What soft labels confuse", plots.classes_by(bars), table, note)
    names = found.class_names or tuple(map(str, range(found.soft.classes)))
    beside = np.where(np.eye(len(means), dtype=bool), np.nan, means)
    drawn = heat_map(beside, names, "true class", "mean soft label", ("", "the highest of another class"))
    return picture("Mean soft label of each class", drawn, table, f"{at}. Grey: the true class itself.")


def _largest_beside(means: Floats, most: int) -> list[tuple[int, int]]:
    """(row, column) of the largest entries off the diagonal, the largest first."""
    beside = np.where(np.eye(len(means), dtype=bool) | np.isnan(means), -1.0, means)
    order = np.argsort(-beside, axis=None, kind="stable")[:most]
    places = [divmod(int(place), len(means)) for place in order]
    return [place for place in places if beside[place] >= 0]


def _classes(found: FoundTeacher) -> Picture:
    values = found.soft.stability.by_class
    order = [int(i) for i in np.argsort(-values, kind="stable") if not math.isnan(values[i])]
    bars = [(found.named(i), float(values[i])) for i in order[:BARS]]
    rows = tuple((Cell(found.named(i)), _number(float(values[i]))) for i in order[:ROWS])
    table = Table((("class", False), ("1 - S", True)), rows, f"The {ROWS} least stable." if len(order) > ROWS else "")
    note = "The mean over classes is the upright line."
    if len(order) > len(bars):
        note = f"The {len(bars)} least stable of {len(order)} classes. {note}"
    return picture("1 - S by class", plots.classes_by(bars, found.soft.stability.spread), table, note)


# --- of a sweep ------------------------------------------------------------------------------------------------------


def teacher_sections(
    spec: Spec, state: SweepState, folder: Place, names_of: NamesOf = lambda dataset: ()
) -> list[Section]:
    """The teachers of a sweep's final table, from what is kept of them: a section each, of three at most.

    Of a sweep without a table yet those of its finished trials. Of teachers that differ in their label smoothing alone,
    the smoothed one is compared with the other.

    Args:
        spec: the sweep's.
        state: its ledger, folded.
        folder: the sweep's.
        names_of: gives the names of the classes of a ``dataset`` section, or nothing.

    Raises StorageError: what is kept cannot be read now.
    """
    ids = [trial_id for row in state.rows for trial_id in row["trial_ids"]]
    known = [state.trials[one] for one in dict.fromkeys(ids) if one in state.trials] or list(state.trials.values())
    teachers = teachers_of(one.trial for one in known if one.status == "finished")
    kept = [(one, _kept(folder, one)) for one in teachers[:MOST_TEACHERS]]
    there = {one.teacher_id: logits for one, logits in kept if logits is not None}
    told = [one for one in teachers[:MOST_TEACHERS] if one.teacher_id in there]
    labels = _labels(told) if len(teachers) > 1 else [""] * len(told)
    sections: list[Section] = []
    for one, label, letter in zip(told, labels, "abc", strict=False):
        found = _found(one, there, told, spec, names_of)
        key = "teacher" if len(teachers) == 1 else f"teacher-{letter}"
        sections.append(teacher_section(found, key=key, label=label, explained=not sections))
    gaps = _gaps(teachers, told)
    if sections and gaps:
        sections[-1] = replace(sections[-1], notes=(*sections[-1].notes, *gaps))
    return sections


def _gaps(teachers: Sequence[SweepTeacher], told: Sequence[SweepTeacher]) -> list[str]:
    """What is said of the teachers that have no section."""
    gaps = []
    absent = [one.teacher_id for one in teachers[:MOST_TEACHERS] if one not in told]
    if absent:
        gaps.append(f"What {', '.join(absent)} says of the validation part was not kept.")
    if len(teachers) > MOST_TEACHERS:
        gaps.append(
            f"The table has {len(teachers)} teachers; {MOST_TEACHERS} at most are told of here. "
            "Any other: wsl-sweep diagnose teacher ID."
        )
    return gaps


def _kept(folder: Place, teacher: SweepTeacher) -> Logits | None:
    """What a teacher says of the validation part of its trials, from the first of a few that has it."""
    for trial in teacher.trials[:TRIALS_ASKED]:
        like = kept_logits(folder, trial.trial_id)
        found = None if like is None else teacher_logits(folder, teacher.teacher_id, like)
        if found is not None:
            return found
    return None


def _labels(teachers: Sequence[SweepTeacher]) -> list[str]:
    """Of each what sets it apart, or its id."""
    apart = [
        ", ".join(
            f"{path.removeprefix('teacher.')} = {value_of(value)}" for path, value in own.items() if value is not None
        )
        for own in set_apart(teachers)
    ]
    if len(set(apart)) < len(apart) or not all(apart) or any(len(one) > LONGEST_LABEL for one in apart):
        return [one.teacher_id for one in teachers]
    return apart


def _found(
    one: SweepTeacher,
    kept: Mapping[str, Logits],
    others: Sequence[SweepTeacher],
    spec: Spec,
    names_of: NamesOf,
) -> FoundTeacher:
    own, names = kept[one.teacher_id], tuple(names_of(one.dataset))
    names = names if len(names) == own.logits.shape[1] else ()
    temperature, where = temperature_of(one, spec)
    same = [other for other in others if np.array_equal(kept[other.teacher_id].ids, own.ids)]
    other = less_smoothed(one, same)
    against = None
    if other is not None:
        theirs = kept[other.teacher_id]
        against = compared(
            other.teacher_id,
            stability(own.logits, own.labels),
            stability(theirs.logits, theirs.labels),
            (one.settings["label_smoothing"], other.settings["label_smoothing"]),
        )
    notes = []
    if one.brought_in:
        notes.append("The teacher was brought in: published ones are taken to have seen the validation part, too.")
    elif one.part != "train":
        notes.append("The teacher was trained on the validation part, too, where it is surer and more often right.")
    return FoundTeacher(
        teacher_id=one.teacher_id,
        model=one.model,
        part="validation",
        data=str(one.trials[0].config["dataset"]["name"]),
        soft=soft_labels(
            own.logits,
            own.labels,
            temperature,
            erased=None if against is None else against.erased,
            class_names=names or None,
        ),
        temperature_from=where,
        class_names=names,
        settings=one.settings,
        against=against,
        notes=tuple(notes),
    )
