"""What a report says, as plain data: made from a sweep by one side, drawn and written by the other.

Nothing here computes. Numbers are finite (what is not there is None or left out), in the metric's own unit: accuracies
are fractions in [0, 1]. Every part may be empty; the page then leaves it out, or says what ``gaps`` says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["better", "worse", "equivalent", "inconclusive", "none"]
"""What a comparison came to; ``none``: it could not be made, or nothing was asked."""

Interval = tuple[float, float]
"""(low, high)."""

Value = float | int | str | bool
"""The value of a parameter."""


@dataclass(frozen=True)
class Verdict:
    """A sentence that answers the question, what it comes to, and what it rests on."""

    kind: Kind
    sentence: str
    grounds: str = ""


@dataclass(frozen=True)
class Named:
    """A name and what stands beside it, both as they are read: a cost, a version, a hash."""

    name: str
    value: str


@dataclass(frozen=True)
class Row:
    """A row of the table: an arm's winner, a baseline, or a cell of an ablation.

    ``settings`` are (dotted path, value) of what makes the row. ``interval`` is the mean's over seeds;
    ``wide_interval`` the one over seeds and examples. ``values`` are (seed, value) of the seeds that finished, ``n`` of
    them; ``missing`` says what became of the others ("1 failed, 1 pruned"). ``tuning_trials`` is how many trials its
    settings were chosen from; None for what was not tuned. ``also`` are (metric, mean over seeds) of what else was
    measured on the test part, of data that have metrics or groups of their own.
    """

    label: str
    metric: str
    settings: tuple[tuple[str, Value], ...] = ()
    mean: float | None = None
    sd: float | None = None
    interval: Interval | None = None
    wide_interval: Interval | None = None
    n: int = 0
    missing: str = ""
    values: tuple[tuple[int, float], ...] = ()
    tuning_trials: int | None = None
    is_baseline: bool = False
    also: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Comparison:
    """A row against the baseline. ``difference`` is label minus baseline, ``interval`` its own.

    ``n``: pairs of seeds for ``paired``, values of the smaller side for ``welch``. ``p`` and ``p_holm`` test a
    difference of zero; ``p_equivalence`` tests that it lies outside the margin. ``probability`` is that of improvement,
    with its own interval. ``smaller_budget``: the baseline was tuned with fewer trials than the row, or not at all.
    """

    label: str
    baseline: str
    method: Literal["paired", "welch"]
    n: int
    kind: Kind
    sentence: str
    difference: float | None = None
    interval: Interval | None = None
    p: float | None = None
    p_holm: float | None = None
    probability: float | None = None
    probability_interval: Interval | None = None
    p_equivalence: float | None = None
    smaller_budget: bool = False
    note: str = ""


@dataclass(frozen=True)
class ResponsePoint:
    """One trial: the parameter's value, the metric, the stage that it is of (``search``, ``confirm``, ``ablation``)."""

    x: Value
    y: float
    stage: str = "search"


@dataclass(frozen=True)
class Band:
    """A fitted curve with its uncertainty; four sequences of one length, ``xs`` rising."""

    xs: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True)
class ValueMean:
    """All trials of one value of a parameter: their mean, its interval, how many."""

    x: Value
    mean: float
    interval: Interval | None
    n: int


@dataclass(frozen=True)
class ResponseGroup:
    """The response of one arm or variant: points, and a fitted ``band`` or the ``means`` of single values."""

    label: str
    points: tuple[ResponsePoint, ...]
    band: Band | None = None
    means: tuple[ValueMean, ...] = ()


@dataclass(frozen=True)
class ResponseCurve:
    """How a metric answers to a swept parameter. ``note`` says how the curve was fitted.

    ``categories``: the values in their order where the parameter is categorical, else empty (x is then a number).
    """

    parameter: str
    metric: str
    groups: tuple[ResponseGroup, ...]
    log: bool = False
    categories: tuple[Value, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Axis:
    """An axis of the parallel coordinates: a swept parameter; ``categories`` in their order where it is categorical."""

    name: str
    log: bool = False
    categories: tuple[Value, ...] = ()


@dataclass(frozen=True)
class CoordinateLine:
    """One trial: a value for each axis (None: it has no such parameter), the metric, the arm or variant."""

    values: tuple[Value | None, ...]
    metric: float
    group: str = ""


@dataclass(frozen=True)
class Coordinates:
    """Parallel coordinates; ``higher_is_better`` of the metric."""

    metric: str
    axes: tuple[Axis, ...]
    lines: tuple[CoordinateLine, ...]
    higher_is_better: bool = True


@dataclass(frozen=True)
class ImportanceGroup:
    """The importances within one arm, each in [0, 1], from ``trials`` finished trials."""

    label: str
    importances: tuple[tuple[str, float], ...]
    trials: int


@dataclass(frozen=True)
class Importance:
    """Optuna's parameter importance; ``warning`` where it rests on too few trials."""

    groups: tuple[ImportanceGroup, ...]
    warning: str = ""
    note: str = ""


@dataclass(frozen=True)
class CurveGroup:
    """The mean of ``n`` trials by epoch, with a band where there is one; sequences of one length, epochs from 1."""

    label: str
    epochs: tuple[int, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None
    n: int = 1


@dataclass(frozen=True)
class LearningCurve:
    """A metric by epoch; ``note`` says what the bands are. The groups of most interest first: they get the colours."""

    metric: str
    groups: tuple[CurveGroup, ...]
    note: str = ""


@dataclass(frozen=True)
class FanGroup:
    """Quantiles of the soft label weights by epoch, of one arm or variant; sequences of one length."""

    label: str
    epochs: tuple[int, ...]
    q05: tuple[float, ...]
    q25: tuple[float, ...]
    q50: tuple[float, ...]
    q75: tuple[float, ...]
    q95: tuple[float, ...]
    mean: tuple[float, ...]


@dataclass(frozen=True)
class WeightFan:
    """The distribution of soft label weights by epoch."""

    groups: tuple[FanGroup, ...]
    note: str = ""


@dataclass(frozen=True)
class EarlyCorrelation:
    """Spearman's rank correlation of the metric at an epoch with its last value, over ``n`` trials that ran through."""

    epoch: int
    rho: float
    n: int


@dataclass(frozen=True)
class EarlyStopping:
    """What a scheduler (``kind``: asha, hyperband, median; ``none`` where there was none) stopped and saved.

    ``sentence`` says whether stopping early was safe.
    """

    kind: str
    pruned: int = 0
    trials: int = 0
    epochs_saved: int = 0
    epochs_planned: int = 0
    correlations: tuple[EarlyCorrelation, ...] = ()
    sentence: str = ""


@dataclass(frozen=True)
class Failure:
    """A trial without a result: its id, what it is (arm or variant, seed), its status, the reason."""

    trial_id: str
    what: str
    status: str
    error: str


Part = Literal[
    "verdict",
    "table",
    "comparisons",
    "curves",
    "coordinates",
    "importance",
    "learning",
    "regularization",
    "weights",
    "stopping",
    "failures",
    "costs",
]
"""A part of the page that may have nothing to show."""


@dataclass(frozen=True)
class Report:
    """All that ``report.html`` says.

    ``question`` is the file's description; ``status`` the sweep's (``finished``, ``stopped``, …); ``created`` when the
    report was made, as it is read. ``margin`` is the smallest difference that matters, in the metric's unit; ``level``
    the coverage of all intervals.
    ``cautions`` are sentences that stand right under the verdict. ``command`` is the shell command that runs it again,
    ``file`` the file that it runs, as it was but for passwords, ``reproduction`` the versions, commit and hashes.
    ``gaps``: (part, sentence why it has nothing to show).
    """

    title: str
    question: str = ""
    status: str = ""
    created: str = ""
    metric: str = ""
    higher_is_better: bool = True
    margin: float | None = None
    level: float = 0.95
    verdicts: tuple[Verdict, ...] = ()
    cautions: tuple[str, ...] = ()
    rows: tuple[Row, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    curves: tuple[ResponseCurve, ...] = ()
    coordinates: Coordinates | None = None
    importance: Importance | None = None
    learning_curves: tuple[LearningCurve, ...] = ()
    regularization_samples: LearningCurve | None = None
    weights: WeightFan | None = None
    early_stopping: EarlyStopping | None = None
    failures: tuple[Failure, ...] = ()
    costs: tuple[Named, ...] = ()
    command: str = ""
    file: str = ""
    reproduction: tuple[Named, ...] = ()
    notes: tuple[str, ...] = ()
    gaps: tuple[tuple[Part, str], ...] = ()
