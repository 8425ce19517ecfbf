"""The final table of a sweep: which trial stands in which of its rows."""

from __future__ import annotations

import functools
import json
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wsl_sweep.spec.wording import settings

NAMED_ROWS = 8
"""Of rows without a trial, how many are named."""


@dataclass(frozen=True)
class Standing:
    """A trial's place in the final table: one row of it, which is a variant with its settings.

    Attributes:
        row: number of the row, from 0.
        variant: its name.
        overrides: dotted path → value, what sets the row apart.
        tuned: whether a search chose it; None in an ablation.
        seeds: all that the row was to have.
    """

    row: int
    variant: str
    overrides: Mapping[str, Any]
    tuned: bool | None = None
    seeds: tuple[int, ...] = ()

    def to_json(self) -> list[Any]:
        """As plain data, thousands of seeds in a few characters; ``from_json`` takes it back."""
        return [self.row, self.variant, dict(self.overrides), self.tuned, _ranges(self.seeds)]

    @classmethod
    def from_json(cls, data: Sequence[Any]) -> Standing:
        """From ``to_json``'s data. Raises TypeError or ValueError where it is something else."""
        row, variant, overrides, tuned, seeds = data
        return cls(int(row), str(variant), dict(overrides), tuned, _from_ranges(tuple(map(tuple, seeds))))


def _ranges(seeds: Iterable[int]) -> list[list[int]]:
    """``[first, how many]`` of each run of consecutive seeds, in their order."""
    found: list[list[int]] = []
    for seed in seeds:
        if found and seed == sum(found[-1]):
            found[-1][1] += 1
        else:
            found.append([seed, 1])
    return found


@functools.lru_cache(maxsize=64)  # each of a row's thousands of trials names all of them
def _from_ranges(ranges: tuple[tuple[int, ...], ...]) -> tuple[int, ...]:
    return tuple(seed for first, count in ranges for seed in range(first, first + count))


def standings(rows: Iterable[Mapping[str, Any]]) -> dict[str, tuple[Standing, ...]]:
    """Trial id → its places in the decided rows of a ledger."""
    found: dict[str, list[Standing]] = {}
    for number, row in enumerate(rows):
        place = Standing(number, row["variant"], dict(row["overrides"]), row.get("tuned"), tuple(row["seeds"]))
        for trial_id in row["trial_ids"]:
            found.setdefault(trial_id, []).append(place)
    return {trial_id: tuple(places) for trial_id, places in found.items()}


def unrun_text(rows: Iterable[Mapping[str, Any]], begun: Container[str]) -> str:
    """Which rows have no trial that has begun, as where a budget was used up; "" where there is none.

    Args:
        rows: decided ones of a ledger.
        begun: ids of the trials that have.
    """
    unrun = [row for row in rows if not any(trial_id in begun for trial_id in row["trial_ids"])]
    named = [
        f"{row['variant']} {settings(row['overrides'], row['variant'])}".strip() + f" ({len(row['seeds'])} seeds)"
        for row in unrun[:NAMED_ROWS]
    ]
    more = f", and {len(unrun) - NAMED_ROWS} rows more" if len(unrun) > NAMED_ROWS else ""
    return f"{', '.join(named)}{more}"


def standings_text(places: Iterable[Standing]) -> str:
    """A trial's places as MLflow keeps them."""
    return json.dumps([place.to_json() for place in places], separators=(",", ":"))
