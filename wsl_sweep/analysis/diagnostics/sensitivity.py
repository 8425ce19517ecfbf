"""How far a parameter may be from its best without a difference that matters, from a Gaussian process."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wsl_sweep.analysis.diagnostics.arrays import Floats, Mask
from wsl_sweep.analysis.responses import CURVE_POINTS, FEWEST_FOR_A_BAND, MOST_FOR_A_BAND, fitted_process
from wsl_sweep.analysis.statistics import LEVEL, Interval

DRAWS = 2000
"""Curves drawn from the process: a probability of 0.95 is then known to 0.005 (one standard error)."""


@dataclass(frozen=True)
class Sensitivity:
    """How a metric answers to one parameter, the others at their best.

    Attributes:
        parameter: its path.
        log: whether it was looked at by its logarithm.
        trials: from which the process was fitted.
        values: (G,), rising over the range that was tried.
        mean: (G,), the fitted metric.
        difference: (G,), the mean of what is lost against the best value of the parameter, in the metric's unit, >= 0.
        probability: (G,), in [0, 1], that what is lost there is no more than the margin.
        best: the value of the parameter with the best fitted metric.
        others: path → value of the other parameters, at their best.
        margin: the smallest difference that matters.
        level: the probability that is asked for.
        predicted: about ``best``, where the fitted curve loses no more than the margin.
        confirmed: the values about the likeliest one at which, one by one, no more is lost with probability ``level``
            at the least; None where no value is as sure.
        open_low, open_high: whether ``confirmed`` goes to the end of what was tried, so that it may go on beyond.
        sentence: for people.
    """

    parameter: str
    log: bool
    trials: int
    values: tuple[float, ...]
    mean: tuple[float, ...]
    difference: tuple[float, ...]
    probability: tuple[float, ...]
    best: float
    others: Mapping[str, float]
    margin: float
    level: float
    predicted: Interval
    confirmed: Interval | None
    open_low: bool
    open_high: bool
    sentence: str


def sensitivity(
    points: Mapping[str, Sequence[float]],
    metric: Sequence[float],
    margin: float,
    *,
    log: Sequence[str] = (),
    more_is_better: bool = True,
    level: float = LEVEL,
    draws: int = DRAWS,
    seed: int = 0,
) -> tuple[Sensitivity, ...]:
    """The interval of each parameter within which no more than a margin is lost against its best value.

    A Gaussian process over all parameters at once: a level, Matérn 5/2 with a length for each parameter, an amplitude
    and a noise, fitted by maximum likelihood (the kernel of ``analysis.responses.gaussian_process``, which looks at one
    parameter and takes the others for noise). For each parameter curves are drawn from the process along a grid, with
    the others at the point of the best fitted metric among the trials; a value is confirmed where, in a share ``level``
    of the curves, it lies no more than the margin below the curve's own best. So that where the best is is not known
    exactly counts, too. The draws are Student's, with a degree of freedom less for each thing that was fitted, since
    variances are estimates. The probability belongs to each value by itself, and to the curve, not to a single trial
    and its noise. Parameters of fewer than FEWEST_FOR_A_BAND different values are left out, and are noise; what is no
    number is the caller's to hold still.

    Args:
        points: path → its value in each of T trials, finite; above 0 for those of ``log``.
        metric: of each trial, finite.
        margin: the smallest difference that matters, above 0, in the metric's unit.
        log: the paths that are looked at by their logarithm: those drawn from ``loguniform`` or ``logint``.
        more_is_better: whether more of the metric is.
        level: in (0, 1).
        draws: curves.
        seed: of them.

    Returns:
        One for each parameter that is looked at; none where the metric does not vary, or where there are not two trials
        more than what is fitted (a length each, an amplitude and a noise).

    Raises:
        ValueError: lengths that differ, values that are not finite, or a setting that is none.
    """
    columns, told = _columns(points, metric, log)
    if not (margin > 0 and math.isfinite(margin)) or not 0 < level < 1 or draws < 1:
        raise ValueError(
            f"margin must be above 0, level in (0, 1) and draws 1 or more, not {margin}, {level} and {draws}"
        )
    varied = {path: line for path, line in columns.items() if len(np.unique(line)) >= FEWEST_FOR_A_BAND}
    freedom = len(told) - len(varied) - 2  # a length each, an amplitude and a noise
    if not varied or np.ptp(told) == 0 or freedom < 2:
        return ()
    process = _fit(varied, told if more_is_better else -told)
    at_best = process.best_point()
    generator = np.random.default_rng(seed)
    found = []
    for place, path in enumerate(varied):
        mean, curves = process.along(place, at_best, freedom, draws, generator)
        lost = curves.max(axis=1, keepdims=True) - curves
        low, width = process.lows[place], process.widths[place]
        grid = low + width * np.linspace(0.0, 1.0, CURVE_POINTS)
        others = {
            name: _back(process.lows[index] + process.widths[index] * at_best[index], name in log)
            for index, name in enumerate(varied)
            if name != path
        }
        found.append(
            _told(
                parameter=path,
                log=path in log,
                trials=len(told),
                values=np.array([_back(one, path in log) for one in grid]),
                mean=mean,
                lost=lost,
                others=others,
                margin=margin,
                level=level,
                sign=1.0 if more_is_better else -1.0,
            )
        )
    return tuple(found)


def _back(value: float, log: bool) -> float:
    return math.exp(value) if log else float(value)


def _columns(
    points: Mapping[str, Sequence[float]], metric: Sequence[float], log: Sequence[str]
) -> tuple[dict[str, Floats], Floats]:
    told = np.asarray(metric, dtype=np.float64)
    if told.ndim != 1 or not np.isfinite(told).all():
        raise ValueError("the metric must be one finite number for each trial")
    unknown = sorted({*log} - {*points})
    if unknown:
        raise ValueError(f"{', '.join(unknown)} is to be looked at by its logarithm, and is no parameter")
    found = {}
    for path, values in points.items():
        line = np.asarray(values, dtype=np.float64)
        if line.shape != told.shape or not np.isfinite(line).all():
            raise ValueError(f"{path} must have one finite number for each of {len(told)} trials")
        if path in log and (line <= 0).any():
            raise ValueError(f"{path} is looked at by its logarithm, and is not above 0 everywhere")
        found[path] = np.log(line) if path in log else line
    return found, told


@dataclass(frozen=True)
class _Process:
    """A fitted process over places in the unit cube, of a metric of which more is better."""

    process: Any
    noise: float
    places: Floats
    lows: Floats
    widths: Floats
    middle: float
    scale: float

    def best_point(self) -> Floats:
        """The trial with the best fitted metric, the mean of its noise."""
        fitted = self.process.predict(self.places)
        return np.asarray(self.places[int(np.argmax(fitted))])

    def along(
        self, place: int, at: Floats, freedom: int, draws: int, generator: np.random.Generator
    ) -> tuple[Floats, Floats]:
        """(G,) the mean along one parameter, and (draws, G) curves, in the metric's unit."""
        grid = np.tile(at, (CURVE_POINTS, 1))
        grid[:, place] = np.linspace(0.0, 1.0, CURVE_POINTS)
        mean, covariance = self.process.predict(grid, return_cov=True)
        values, vectors = np.linalg.eigh(covariance - self.noise * np.eye(len(grid)))  # the curve's, not a trial's
        root = vectors * np.sqrt(np.maximum(0.0, values))
        apart = generator.standard_normal((draws, len(grid))) @ root.T
        apart *= np.sqrt(freedom / generator.chisquare(freedom, (draws, 1)))
        return self.middle + self.scale * mean, self.middle + self.scale * (mean + apart)


def _fit(columns: Mapping[str, Floats], metric: Floats) -> _Process:
    table = np.stack([*columns.values()], axis=1)
    step = -(-len(table) // MOST_FOR_A_BAND)
    table, used = table[::step], metric[::step]
    lows, widths = table.min(axis=0), np.ptp(table, axis=0)
    middle, scale = float(used.mean()), float(used.std())
    places, values = (table - lows) / widths, (used - middle) / scale
    process, noise = fitted_process(places, values)
    return _Process(process, noise, places, lows, widths, middle, scale)


def _told(
    *,
    parameter: str,
    log: bool,
    trials: int,
    values: Floats,
    mean: Floats,
    lost: Floats,
    others: Mapping[str, float],
    margin: float,
    level: float,
    sign: float,
) -> Sensitivity:
    best = int(np.argmax(mean))
    probability = (lost <= margin).mean(axis=0)
    near = _around(mean.max() - mean <= margin, best)
    likeliest = int(np.argmax(probability))
    sure = _around(probability >= level, likeliest) if probability[likeliest] >= level else None
    confirmed = (float(values[sure[0]]), float(values[sure[1]])) if sure else None
    predicted = (float(values[near[0]]), float(values[near[1]]))
    open_low, open_high = bool(sure and sure[0] == 0), bool(sure and sure[1] == len(values) - 1)
    return Sensitivity(
        parameter=parameter,
        log=log,
        trials=trials,
        values=tuple(values.tolist()),
        mean=tuple((sign * mean).tolist()),
        difference=tuple(lost.mean(axis=0).tolist()),
        probability=tuple(probability.tolist()),
        best=float(values[best]),
        others=others,
        margin=margin,
        level=level,
        predicted=predicted,
        confirmed=confirmed,
        open_low=open_low,
        open_high=open_high,
        sentence=_sentence(parameter, float(values[best]), margin, level, predicted, confirmed, open_low, open_high),
    )


def _around(inside: Mask, at: int) -> tuple[int, int]:
    """The first and last place of the run of True that holds ``at``."""
    low = high = at
    while low > 0 and inside[low - 1]:
        low -= 1
    while high < len(inside) - 1 and inside[high + 1]:
        high += 1
    return low, high


def _sentence(
    parameter: str,
    best: float,
    margin: float,
    level: float,
    predicted: Interval,
    confirmed: Interval | None,
    open_low: bool,
    open_high: bool,
) -> str:
    told = f"{parameter} is best at about {best:.3g}"
    if confirmed is None:
        return (
            f"{told}; by the fitted curve it may lie in {predicted[0]:.3g} … {predicted[1]:.3g} at a loss of no more "
            f"than {margin:g}, but no value is as sure as {level:.0%}: there are too few trials, or they are too noisy."
        )
    if open_low and open_high:
        return f"{told}, and anywhere in what was tried no more than {margin:g} is lost ({level:.0%} for each value)."
    beyond = ""
    if open_low or open_high:
        beyond = f", and perhaps {'below' if open_low else 'above'}, where nothing was tried"
    return (
        f"{told} and may lie in {confirmed[0]:.3g} … {confirmed[1]:.3g} at a loss of no more than {margin:g} "
        f"({level:.0%} for each value){beyond}."
    )
