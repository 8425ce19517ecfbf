"""What the sections are made from: columns of trials' rows, and how numbers are put in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from wsl_sweep.analysis.curves import RowsOf
from wsl_sweep.analysis.plots.style import short
from wsl_sweep.sweep.ledger import READERS

FRACTION = "regularization_samples/fraction"
"""Of the training examples of an epoch, as trials measure it."""

Columns = Mapping[str, Mapping[str, Sequence[float]]]
"""Trial id → metric → its value at each epoch, NaN where a row has none."""


@dataclass(frozen=True)
class Classes:
    """What a data set calls its classes.

    Attributes:
        names: in the order of the labels; empty where nobody knows.
        superclasses: of each class the name of its superclass; empty where there are none.
    """

    names: tuple[str, ...] = ()
    superclasses: tuple[str, ...] = ()

    def named(self, count: int) -> tuple[str, ...]:
        """Names for so many classes, their numbers where there are no names or not as many."""
        return self.names if len(self.names) == count else tuple(map(str, range(count)))


ClassesOf = Callable[[Mapping[str, Any]], Classes]
"""What gives them, of a resolved ``dataset`` section."""


def read_columns(trial_ids: Iterable[str], rows_of: RowsOf, metrics: Sequence[str]) -> Columns:
    """Some columns of the rows of trials, which are read at once: they may lie in an object store."""

    def columns(trial_id: str) -> dict[str, list[float]]:
        rows = rows_of(trial_id)
        return {metric: [float(row.get(metric, math.nan)) for row in rows] for metric in metrics}

    ids = list(dict.fromkeys(trial_ids))
    with ThreadPoolExecutor(READERS) as readers:
        return dict(zip(ids, readers.map(columns, ids), strict=True))


def every(count: int, most: int) -> int:
    """The step at which ``count`` things are at most ``most``."""
    return max(1, -(-count // most))


def spread(values: Sequence[float], form: Callable[[float], str]) -> str:
    """``0.31 to 0.42``, or one number where both ends read the same."""
    low, high = form(min(values)), form(max(values))
    return low if low == high else f"{low} to {high}"


def rounded(value: float, digits: int = 3) -> str:
    """To so many significant digits."""
    return short(float(f"{value:.{digits}g}"))


def percent(share: float) -> str:
    """``12.3 %``."""
    return f"{100 * share:.1f} %"


def listed(words: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def finite(values: Iterable[float]) -> bool:
    """Whether all are."""
    return all(map(math.isfinite, values))
