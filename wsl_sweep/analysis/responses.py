"""How a metric answers to each swept parameter: curves, parallel coordinates, importance."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from wsl_sweep.analysis.records import Record
from wsl_sweep.analysis.report_data import (
    Axis,
    Band,
    CoordinateLine,
    Coordinates,
    Importance,
    ImportanceGroup,
    ResponseCurve,
    ResponseGroup,
    ResponsePoint,
    Value,
    ValueMean,
)
from wsl_sweep.analysis.statistics import t_interval
from wsl_sweep.spec.distributions import Distribution
from wsl_sweep.spec.spec import Spec
from wsl_sweep.sweep.ledger import TrialState

FEWEST_FOR_A_BAND = 5
"""Different values from which a curve is fitted."""

MOST_FOR_A_BAND = 1000
"""Of more points every n-th is used for a curve."""

MOST_TO_FIT = 100
"""Of more points every n-th is used to fit how long, how high and how noisy the curve is: that takes their number's
third power, a few hundred times."""

FEWEST_FOR_IMPORTANCE = 20
"""Trials below which importances are a guess."""

MOST_FOR_IMPORTANCE = 300
"""Of more trials every n-th is used: fANOVA takes the square of their number, minutes of a thousand."""

CURVE_POINTS = 60


Space = Mapping[str, Distribution]
"""Swept path → where its values come from."""


def answered(records: Iterable[Record], metric: str) -> list[Record]:
    """The trials that ran to their end with a finite value of a metric: of a search, or else all."""
    found = [one for one in records if one.status == "finished" and math.isfinite(one.metrics.get(metric, math.nan))]
    searched = [one for one in found if one.stage == "search"]
    return searched or found


def response_curves(space: Space, records: Sequence[Record], metric: str) -> tuple[ResponseCurve, ...]:
    """A curve for each swept parameter, one group an arm or variant.

    A range has a Gaussian process with its 95 % band fitted through its trials, single values have means with the
    95 % t interval over their trials. The other parameters vary along, and are noise here.

    Args:
        space: what was swept.
        records: trials that answered.
        metric: what they answered.
    """
    found = []
    for path, distribution in space.items():
        points: dict[str, list[ResponsePoint]] = {}
        for one in records:
            if path in one.overrides:
                for variant in one.variants:
                    point = ResponsePoint(_value(one.overrides[path]), one.metrics[metric], one.stage)
                    points.setdefault(variant, []).append(point)
        if points:
            found.append(_curve(path, distribution, points, metric, alone=len(space) == 1))
    return tuple(found)


def _curve(
    path: str, distribution: Distribution, points: dict[str, list[ResponsePoint]], metric: str, *, alone: bool
) -> ResponseCurve:
    numbers = all(_is_number(point.x) for group in points.values() for point in group)
    fitted = numbers and distribution.kind not in ("choice", "grid")
    log = distribution.kind in ("loguniform", "logint")
    groups = []
    for label, group in points.items():
        band = gaussian_process([(float(point.x), point.y) for point in group], log=log) if fitted else None
        means = () if fitted else _means(group)
        groups.append(ResponseGroup(label, tuple(group), band, means))
    what = "Means over the trials of a value, with 95 % t intervals"
    if fitted:
        what = "A Gaussian process through the trials, with its 95 % band"
        if not any(group.band for group in groups):
            what = f"The trials; a curve is fitted from {FEWEST_FOR_A_BAND} different values on"
    return ResponseCurve(
        parameter=path,
        metric=metric,
        groups=tuple(groups),
        log=log,
        categories=() if numbers else tuple(_value(value) for value in distribution.values),
        note=f"{what}{'.' if alone else '; the other parameters vary along.'}",
    )


def _means(points: Sequence[ResponsePoint]) -> tuple[ValueMean, ...]:
    by_value: dict[str, list[ResponsePoint]] = {}
    for point in points:
        by_value.setdefault(str(point.x), []).append(point)
    found = []
    for group in by_value.values():
        values = [point.y for point in group]
        found.append(ValueMean(group[0].x, math.fsum(values) / len(values), t_interval(values), len(values)))
    if all(_is_number(one.x) for one in found):
        found.sort(key=lambda one: float(one.x))
    return tuple(found)


def gaussian_process(points: Sequence[tuple[float, float]], *, log: bool = False) -> Band | None:
    """A smooth curve through noisy points, with the 95 % band of its mean.

    A level, and Matérn 5/2 with a length, an amplitude and a noise that are fitted by maximum likelihood
    (scikit-learn's); the band is that of the curve, without the noise of a single trial.

    Args:
        points: (x, y).
        log: whether x is looked at by its logarithm.

    Returns:
        None for fewer than FEWEST_FOR_A_BAND different x, or if all y are the same.
    """
    import numpy as np
    from scipy.special import stdtrit

    step = -(-len(points) // MOST_FOR_A_BAND)
    used = np.asarray(sorted(points)[::step] if step else [], dtype=np.float64).reshape(-1, 2)
    if len(np.unique(used[:, 0])) < FEWEST_FOR_A_BAND or np.ptp(used[:, 1]) == 0:
        return None
    shown = np.log(used[:, 0]) if log else used[:, 0]
    low, width = shown.min(), np.ptp(shown)
    mean, scale = used[:, 1].mean(), used[:, 1].std()
    process, noise = fitted_process(((shown - low) / width)[:, None], (used[:, 1] - mean) / scale)
    grid = np.linspace(0.0, 1.0, CURVE_POINTS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a variance that rounding makes negative is set to 0 by scikit-learn
        fitted, deviation = process.predict(grid[:, None], return_std=True)
    quantile = stdtrit(max(2, len(used) - 3), 0.975)  # a length, an amplitude and a noise were fitted, too
    half = quantile * np.sqrt(np.maximum(0.0, deviation**2 - noise)) * scale
    centre = mean + scale * fitted
    xs = low + width * grid
    xs = np.exp(xs) if log else xs
    return Band(*(tuple(map(float, line)) for line in (xs, centre, centre - half, centre + half)))


def fitted_process(places: Any, values: Any) -> tuple[Any, float]:
    """A Gaussian process through noisy values, and the variance of their noise.

    A level, and Matérn 5/2 with a length for each parameter, an amplitude and a noise, fitted by maximum likelihood to
    at most MOST_TO_FIT of them.

    Args:
        places: (N, P) in [0, 1].
        values: (N,) with a mean of 0 and a variance of 1.

    Returns:
        scikit-learn's regressor, fitted to all of them, and the noise of a value.
    """
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    level = ConstantKernel(1.0, "fixed")  # nobody knows the mean either
    shape = ConstantKernel(1.0, (1e-2, 1e2)) * Matern([0.5] * places.shape[1], (0.15, 5.0), nu=2.5)
    kernel = level + shape + WhiteKernel(0.3, (1e-2, 1e1))
    process = GaussianProcessRegressor(kernel, n_restarts_optimizer=1, random_state=0)
    every = -(-len(values) // MOST_TO_FIT)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a length at its bound is an answer, too
        process.fit(places[::every], values[::every])
        if every > 1:
            process = GaussianProcessRegressor(process.kernel_, optimizer=None).fit(places, values)
    return process, float(process.kernel_.k2.noise_level)


def coordinates(space: Space, records: Sequence[Record], metric: str, *, more_is_better: bool) -> Coordinates | None:
    """Parallel coordinates of the trials that answered; None with fewer than two swept parameters."""
    if len(space) < 2 or not records:
        return None
    axes = []
    for path, distribution in space.items():
        numbers = distribution.kind not in ("choice", "grid") or all(map(_is_number, distribution.values))
        log = distribution.kind in ("loguniform", "logint")
        axes.append(Axis(path, log, () if numbers else tuple(map(_value, distribution.values))))
    lines = [
        CoordinateLine(
            tuple(_value(one.overrides[path]) if path in one.overrides else None for path in space),
            one.metrics[metric],
            "+".join(one.variants),
        )
        for one in records
    ]
    return Coordinates(metric, tuple(axes), tuple(lines), more_is_better)


def importance(spec: Spec, trials: Sequence[TrialState]) -> Importance | None:
    """Optuna's parameter importance (fANOVA, Hutter et al. 2014) within each arm of a search, by its first metric.

    Args:
        spec: the sweep.
        trials: of its search, settled ones.

    Returns:
        None where no arm has two finished trials and a parameter that all of them have.
    """
    from wsl_sweep.sweep.study import ArmStudy

    groups = []
    note = "Optuna's fANOVA: the share of the metric's variance, within each arm."
    for arm in spec.arms:
        finished = [one for one in trials if one.trial.arm == arm and one.status == "finished"]
        own = finished[:: -(-len(finished) // MOST_FOR_IMPORTANCE) or 1]
        if len(own) < len(finished):
            note += f" Of {arm} from {len(own)} of {len(finished)} finished trials, evenly taken."
        if len(own) > 1:
            study = ArmStudy(spec, arm, "cpu", own).study
            found = _importances(study)
            if found:
                groups.append(ImportanceGroup(arm, tuple(found.items()), len(own)))
    if not groups:
        return None
    few = [f"{group.label} has {group.trials}" for group in groups if group.trials < FEWEST_FOR_IMPORTANCE]
    warning = ""
    if few:
        warning = f"Fewer than {FEWEST_FOR_IMPORTANCE} finished trials ({', '.join(few)}): take this as a guess."
    return Importance(tuple(groups), warning, note)


def _importances(study: Any) -> dict[str, float]:
    import optuna

    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    target = (lambda trial: trial.values[0]) if len(study.directions) > 1 else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = optuna.importance.get_param_importances(study, evaluator=evaluator, target=target)
        except (ValueError, RuntimeError):  # one trial, or all values the same
            return {}
    return {path: float(value) for path, value in found.items() if math.isfinite(value)}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _value(value: Any) -> Value:
    return value if isinstance(value, int | float | str | bool) else json.dumps(value)
