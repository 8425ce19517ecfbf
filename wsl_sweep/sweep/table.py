"""The final table of a sweep: which trial stands in which of its rows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


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
        return cls(int(row), str(variant), dict(overrides), tuned, _from_ranges(seeds))


def _ranges(seeds: Iterable[int]) -> list[list[int]]:
    """``[first, how many]`` of each run of consecutive seeds, in their order."""
    found: list[list[int]] = []
    for seed in seeds:
        if found and seed == sum(found[-1]):
            found[-1][1] += 1
        else:
            found.append([seed, 1])
    return found


def _from_ranges(ranges: Iterable[Sequence[int]]) -> tuple[int, ...]:
    return tuple(seed for first, count in ranges for seed in range(first, first + count))


def standings(rows: Iterable[Mapping[str, Any]]) -> dict[str, tuple[Standing, ...]]:
    """Trial id → its places in the decided rows of a ledger."""
    found: dict[str, list[Standing]] = {}
    for number, row in enumerate(rows):
        place = Standing(number, row["variant"], dict(row["overrides"]), row.get("tuned"), tuple(row["seeds"]))
        for trial_id in row["trial_ids"]:
            found.setdefault(trial_id, []).append(place)
    return {trial_id: tuple(places) for trial_id, places in found.items()}


def standings_text(places: Iterable[Standing]) -> str:
    """A trial's places as MLflow keeps them."""
    return json.dumps([place.to_json() for place in places], separators=(",", ":"))
