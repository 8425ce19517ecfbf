"""From the trials of sweeps to the rows of a table: who is selected, who belongs together, who is missing."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from wsl_sweep.analysis.records import SEED, Record, SweepRecords
from wsl_sweep.analysis.statistics import Description, describe
from wsl_sweep.errors import WslSweepError
from wsl_sweep.spec.catalogue import did_you_mean
from wsl_sweep.spec.wording import settings
from wsl_sweep.sweep.table import Standing

OWN: dict[str, Callable[[Record, Standing], str]] = {
    "sweep": lambda record, standing: record.sweep,
    "stage": lambda record, standing: record.stage,
    "arm": lambda record, standing: record.arm or "",
    "variant": lambda record, standing: standing.variant,
    "trial_id": lambda record, standing: record.trial_id,
}
"""What trials can be told apart by beside the paths of their configuration."""

ABSENT = "-"
"""Of a path that a trial does not read."""

Entry = tuple[Record, Standing]


@dataclass(frozen=True)
class Row:
    """A row of the table: the trials of one variant and its settings, a value for each seed.

    Attributes:
        label: what people call it; different for each row.
        variant: the name, or "" where variants are not told apart.
        settings: dotted path → value, what sets it apart from the others of its name.
        sweeps: names of those that its trials are of.
        description: mean, spread and interval; None without a value.
        seeds: those that have a value, ascending.
        values: of the metric, one for each seed.
        missing: status → how many seeds have no value for that reason.
        tuned: whether a search chose its settings; None in an ablation.
        tuning_trials: how many search trials were spent on that.
        averaged: over how many configurations each seed's value is a mean; 1 for none.
        trial_ids: seed → the trials behind its value.
    """

    label: str
    variant: str
    settings: Mapping[str, Any]
    sweeps: tuple[str, ...]
    description: Description | None
    seeds: tuple[int, ...]
    values: tuple[float, ...]
    missing: Mapping[str, int]
    tuned: bool | None
    tuning_trials: int
    averaged: int
    trial_ids: Mapping[int, tuple[str, ...]]

    @functools.cached_property
    def by_seed(self) -> dict[int, float]:
        """Seed → value."""
        return dict(zip(self.seeds, self.values, strict=True))


def rows_of(
    sweeps: Sequence[SweepRecords], metric: str, *, by: Sequence[str] = (), where: Sequence[str] = ()
) -> list[Row]:
    """The rows of a table over one or several sweeps.

    Args:
        sweeps: whose trials.
        metric: whose values.
        by: ``variant``, ``sweep``, ``stage``, ``arm`` or dotted paths, whose values make the rows; by default a row is
            a variant with its settings, as in the sweeps' own tables. What is not named is averaged over, within each
            seed.
        where: conditions ``path=value`` that trials must meet. Without one on ``stage`` only the trials of the final
            tables count: no search trial beside confirmed ones.

    Raises:
        WslSweepError: a path or a condition that no trial knows, or nothing is left.
    """
    entries = _selected(sweeps, where)
    _check_paths(by, entries)
    groups: dict[Any, list[Entry]] = {}
    for record, standing in entries:
        groups.setdefault(_key(record, standing, by), []).append((record, standing))
    parts = [part for group in groups.values() for part in _apart(group, bool(by))]
    rows = [row_of(part, sweeps, metric, by) for part in parts]
    if not by:
        rows = _by_what_differs(rows)
    paths = [path for path in by if path != "variant"]  # variants stay in the order of the file
    rows.sort(key=lambda row: [natural(str(row.settings[path])) for path in paths])
    return _labelled_apart(rows)


def _selected(sweeps: Sequence[SweepRecords], where: Sequence[str]) -> list[Entry]:
    conditions = [_condition(text) for text in where]
    staged = any(path == "stage" for path, _ in conditions)
    entries = [entry for sweep in sweeps for entry in (_all_entries(sweep) if staged else final_entries(sweep))]
    _check_paths([path for path, _ in conditions], entries)
    found = [entry for entry in entries if all(_same(_value(*entry, path), value, path) for path, value in conditions)]
    if not found:
        raise WslSweepError(_nothing(sweeps, where, conditions, entries))
    return found


def _nothing(
    sweeps: Sequence[SweepRecords], where: Sequence[str], conditions: Sequence[tuple[str, str]], entries: list[Entry]
) -> str:
    names = ", ".join(sweep.name for sweep in sweeps)
    if not entries:
        return (
            f"{names}: no final table yet; look at the search by --where stage=search --metric validation/accuracy, or "
            "let the sweep come to its end"
        )
    known = []
    for path, _ in conditions:
        values = sorted({_value(record, standing, path) for record, standing in entries}, key=natural)
        known.append(f"{path} is one of {', '.join(values[:12])}{', …' if len(values) > 12 else ''}")
    return f"{names}: no trial with {' and '.join(where)}; {'; '.join(known)}"


def final_entries(sweep: SweepRecords) -> list[Entry]:
    """The trials of a sweep's final table with their places in it, in its order; empty before a search has one."""
    entries = [(record, standing) for record in sweep.records for standing in record.standings]
    if not entries and all(record.stage == "ablation" for record in sweep.records):
        return _all_entries(sweep)  # not at its end yet: its rows are known all the same
    return sorted(entries, key=lambda entry: (entry[1].row, entry[0].seed))


def without_table(sweep: SweepRecords) -> bool:
    """Whether a sweep has no final table, so that no trial of it is in one."""
    return not final_entries(sweep)


def _all_entries(sweep: SweepRecords) -> list[Entry]:
    """Those of the final table, and all other trials, in an order that a ledger and a tracking server share."""
    entries = [(record, standing) for record in sweep.records for standing in record.standings]
    for record in sweep.records:
        placed = {standing.variant for standing in record.standings}
        entries += [
            (record, Standing(0, variant, record.overrides, _tuned(sweep, record, variant)))
            for variant in record.variants
            if variant not in placed
        ]
    order = {name: number for number, name in enumerate(sweep.names)}

    def place(entry: Entry) -> tuple[Any, ...]:
        record, standing = entry
        swept = [natural(str(standing.overrides.get(path, ""))) for path in sweep.space]
        name = standing.variant.removesuffix(" (untuned)")
        return (order.get(name, len(order)), standing.variant, swept, record.configuration, record.seed)

    return sorted(entries, key=place)


def _tuned(sweep: SweepRecords, record: Record, variant: str) -> bool | None:
    """Of a trial of ``confirm`` whether a search chose its settings; of others None."""
    return variant in sweep.arms if record.stage == "confirm" else None


def _condition(text: str) -> tuple[str, str]:
    path, equals, value = text.partition("=")
    if not equals or not path.strip():
        raise WslSweepError(
            f"--where {text}: a condition is path=value, such as distillation.alpha=2.25 or stage=search"
        )
    return path.strip(), value.strip()


def _check_paths(paths: Iterable[str], entries: Sequence[Entry]) -> None:
    known = {*OWN, SEED, *(path for record, _ in entries for path in record.params)}
    for path in paths:
        if entries and path not in known:
            raise WslSweepError(f'no trial has a "{path}"; {did_you_mean(path, sorted(known))}')


def _value(record: Record, standing: Standing, path: str) -> str:
    own = OWN.get(path)
    return own(record, standing) if own is not None else record.params.get(path, ABSENT)


def _same(one: str, other: str, path: str = "") -> bool:
    """Whether two values at a path are one, as text or, of a configuration's, as numbers too."""
    if one == other:
        return True
    if path in OWN:
        return False  # 12e456789012 is a trial's id and no number
    try:
        return float(one) == float(other) and math.isfinite(float(one))
    except ValueError:
        words = {one.lower(), other.lower()}
        return words in ({"true"}, {"false"}, {"none", "null"})


def _key(record: Record, standing: Standing, by: Sequence[str]) -> tuple[str, ...]:
    if by:
        return tuple(_value(record, standing, path) for path in by)
    overrides = json.dumps(dict(sorted(standing.overrides.items())), default=str)
    return (standing.variant, overrides, record.configuration)


def _apart(group: list[Entry], mixes: bool) -> list[list[Entry]]:
    """Trials of several sweeps make one row only where they are of the same configurations."""
    by_sweep: dict[str, list[Entry]] = {}
    for entry in group:
        by_sweep.setdefault(entry[0].sweep, []).append(entry)
    found = [{record.configuration for record, _ in part} for part in by_sweep.values()]
    if not mixes or all(one == found[0] for one in found):
        return [group]
    return list(by_sweep.values())


def row_of(entries: Sequence[Entry], sweeps: Sequence[SweepRecords], metric: str, by: Sequence[str] = ()) -> Row:
    """The row that trials make together; see ``rows_of``.

    Args:
        entries: of the row; at least one.
        sweeps: that they are of.
        metric: whose values.
        by: what tells rows apart; by default variant and settings.
    """
    by_seed: dict[int, dict[str, Record]] = {}
    for record, _ in entries:
        known = by_seed.setdefault(record.seed, {})
        if record.configuration not in known or known[record.configuration].status != "finished":
            known[record.configuration] = record  # two sweeps may have the same trial, taken over or tried again
    tables = {id(standing.seeds): standing.seeds for _, standing in entries}  # few, of thousands of seeds maybe
    wanted = sorted({*by_seed, *(seed for seeds in tables.values() for seed in seeds)})
    configurations = {record.configuration for record, _ in entries}
    missing: dict[str, int] = {}
    values: dict[int, float] = {}
    for seed in wanted:
        found = by_seed.get(seed, {})
        reason = _reason(found, configurations, metric)
        if reason is None:
            values[seed] = math.fsum(one.metrics[metric] for one in found.values()) / len(found)
        else:
            missing[reason] = missing.get(reason, 0) + 1
    standing = entries[0][1]
    names = {standing.variant for _, standing in entries}
    variant = standing.variant if len(names) == 1 else ""
    shown = {path: _value(*entries[0], path) for path in by if path != "variant"} if by else dict(standing.overrides)
    tuned = {standing.tuned for _, standing in entries}
    tuning = {
        sweep.tuning_trials(standing.variant)
        for record, standing in entries
        for sweep in sweeps
        if sweep.name == record.sweep and standing.tuned
    }
    return Row(
        label=_label(variant if not by or "variant" in by else "", shown),
        variant=variant,
        settings=shown,
        sweeps=tuple(dict.fromkeys(record.sweep for record, _ in entries)),
        description=describe(list(values.values())) if values else None,
        seeds=tuple(values),
        values=tuple(values.values()),
        missing=missing,
        tuned=standing.tuned if len(tuned) == 1 else None,
        tuning_trials=max(tuning, default=0),
        averaged=len(configurations),
        trial_ids={seed: tuple(sorted(one.trial_id for one in by_seed[seed].values())) for seed in values},
    )


def _reason(found: Mapping[str, Record], configurations: set[str], metric: str) -> str | None:
    """Why a seed has no value; None where it has. A pruned trial is never taken as if finished."""
    for status in ("failed", "pruned", "killed", "running"):
        if any(record.status == status for record in found.values()):
            return {"killed": "stopped", "running": "not finished"}.get(status, status)
    if set(found) != configurations:
        return "not run"
    if not all(math.isfinite(record.metrics.get(metric, math.nan)) for record in found.values()):
        return f"without {metric}"
    return None


def named(row: Row, name: str) -> bool:
    """Whether ``name`` is the value of a row that is told apart by one path: ``--by distillation.alpha``."""
    return len(row.settings) == 1 and any(_same(str(value), name, path) for path, value in row.settings.items())


def _label(variant: str, shown: Mapping[str, Any]) -> str:
    return " ".join(part for part in (variant, settings(shown, variant)) if part) or "all"


def _by_what_differs(rows: Sequence[Row]) -> list[Row]:
    """Rows are called by their variant, and by those of its settings in which a sweep has several rows of it."""
    found = []
    for row in rows:
        own = [other.settings for other in rows if other.variant == row.variant and other.sweeps == row.sweeps]
        paths = [path for path in row.settings if any(one.get(path) != row.settings[path] for one in own)]
        found.append(replace(row, label=_label(row.variant, {path: row.settings[path] for path in paths})))
    return found


def _labelled_apart(rows: list[Row]) -> list[Row]:
    """Rows of one label get their sweep's name, or a number, behind it."""
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.label] = counts.get(row.label, 0) + 1
    named = [
        replace(row, label=f"{row.label} [{', '.join(row.sweeps)}]") if counts[row.label] > 1 else row for row in rows
    ]
    seen: dict[str, int] = {}
    apart = []
    for row in named:
        seen[row.label] = seen.get(row.label, 0) + 1
        apart.append(row if seen[row.label] == 1 else replace(row, label=f"{row.label} ({seen[row.label]})"))
    return apart


def natural(text: str) -> tuple[int, float, str]:
    """Sorts numbers as numbers, before words."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    return (0, number, text) if math.isfinite(number) else (1, 0.0, text)
