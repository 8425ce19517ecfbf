"""Statistics over seeds: pure functions of numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence


def t_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float] | None:
    """Student's t interval of the mean.

    Args:
        values: one for each seed; finite.
        level: coverage, in (0, 1).

    Returns:
        (low, high); None for fewer than two values, from which no interval follows.
    """
    from scipy.special import stdtrit  # all of scipy.stats takes a second to import

    if len(values) < 2:
        return None
    mean = math.fsum(values) / len(values)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
    half = float(stdtrit(len(values) - 1, 0.5 + level / 2)) * deviation / math.sqrt(len(values))
    return mean - half, mean + half
