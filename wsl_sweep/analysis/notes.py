"""What to know of a comparison beside its figures, for people: what is missing, what stands still."""

from __future__ import annotations

from collections.abc import Sequence

from wsl_sweep.analysis.grouping import Row, without_table
from wsl_sweep.analysis.records import SweepRecords
from wsl_sweep.analysis.verdicts import missing_text
from wsl_sweep.spec.sections import CompareSection


def about_sweeps(sweeps: Sequence[SweepRecords], rows: Sequence[Row]) -> list[str]:
    """Which sweeps are not at their end, and what of them is in no row."""
    notes = []
    for sweep in sweeps:
        if sweep.status != "finished":
            notes.append(f"{sweep.name} is not at its end ({sweep.status}): this is what it has so far")
        if without_table(sweep) and not any(sweep.name in row.sweeps for row in rows):
            notes.append(
                f"{sweep.name} has no final table, so nothing of it is here; see its search by --where stage=search"
            )
        if sweep.unrun:
            notes.append(f"{sweep.name}: no trial has begun of {sweep.unrun}")
        notes += _arms_without_winner(sweep)
    return notes


def _arms_without_winner(sweep: SweepRecords) -> list[str]:
    """What became of the arms that have no row in the final table."""
    if without_table(sweep):
        return []
    there = {standing.variant for record in sweep.records for standing in record.standings}
    notes = []
    for arm in sorted(sweep.arms - there):
        counts: dict[str, int] = {}
        for record in sweep.records:
            if arm in record.variants:
                counts[record.status] = counts.get(record.status, 0) + 1
        trials = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
        notes.append(f"{sweep.name}: arm {arm} has no winner (trials: {trials})")
    return notes


def about_pairs(
    rows: Sequence[Row], pairs: Sequence[tuple[Row, Row]], name: str | None, declared: str | None
) -> list[str]:
    """Why nothing is compared, or which rows are not."""
    if name is None:
        why = f"The file's baseline, {declared}, has no row here" if declared else "No baseline is declared"
        return [f"{why}, so nothing is compared; name a row by --baseline"]
    if not pairs:
        return [f"There is nothing to compare {name} with; name another row by --baseline"]
    met = {row.label for pair in pairs for row in pair}
    alone = [row.label for row in rows if row.label not in met]
    return [f"Not compared: {', '.join(alone)}"] if alone else []


def about_rows(rows: Sequence[Row]) -> list[str]:
    """Seeds without a value, means over configurations, intervals without a width."""
    notes = []
    lost = [f"{row.label} ({missing_text(row)})" for row in rows if row.missing]
    if lost:
        notes.append(f"Seeds without a value, counted and left out of the means: {'; '.join(lost)}")
    notes += [
        f"{row.label}: each seed's value is a mean over {row.averaged} configurations"
        for row in rows
        if row.averaged > 1
    ]
    still = [row.label for row in rows if row.description is not None and row.description.sd == 0]
    if still:
        notes.append(
            f"All seeds have the same value: {', '.join(still)}; an interval of no width is the grain of the metric, "
            "no certainty"
        )
    return notes


def about_margin(declared: CompareSection, metric: str) -> str:
    """Where a margin is taken for a metric for which it was not declared."""
    return (
        f"The margin of {declared.margin:g} was declared for {declared.metric}; give --margin in the unit of {metric}"
    )


def about_variance(sweeps: Sequence[SweepRecords], rows: Sequence[Row]) -> list[str]:
    """Which sources of variance the intervals over seeds do not have in them."""
    records = {record.trial_id: record for sweep in sweeps for record in sweep.records}
    teachers_by_row = []
    for row in rows:
        ids = {one for trials in row.trial_ids.values() for one in trials}
        teachers = {
            tuple(sorted((path, value) for path, value in records[one].params.items() if path.startswith("teacher.")))
            for one in ids
        }
        teachers_by_row.append(teachers - {()})
    if not any(row.trial_ids for row in rows):
        return []
    still = ["the split into training, validation and test part"]
    if any(teachers_by_row) and all(len(teachers) <= 1 for teachers in teachers_by_row):
        still.insert(0, "the teacher (one training of it for all seeds)")
    return [
        "The intervals are over the student's seeds: initialisation, order, views and draws. "
        f"{' and '.join(still).capitalize()} {'stand' if len(still) > 1 else 'stands'} still in them"
    ]
