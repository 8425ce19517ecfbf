"""Made-up reports that look like real ones: a search, an ablation over a grid, one seed, nothing, hostile names."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

from wsl_sweep.analysis.report import render_report
from wsl_sweep.analysis.report_data import (
    Axis,
    Band,
    Comparison,
    CoordinateLine,
    Coordinates,
    CurveGroup,
    EarlyCorrelation,
    EarlyStopping,
    Failure,
    FanGroup,
    Importance,
    ImportanceGroup,
    Kind,
    LearningCurve,
    Named,
    Report,
    ResponseCurve,
    ResponseGroup,
    ResponsePoint,
    Row,
    Value,
    ValueMean,
    Verdict,
    WeightFan,
)

METRIC = "test/accuracy"
ARMS = ("wsl", "dist with the released temperature and its own weights", "kd")
SETTINGS = (("distillation.alpha", 2.3125), ("distillation.temperature", 4.2))
IMPORTANCES = (
    ("distillation.temperature", 0.11),
    ("distillation.alpha", 0.62),
    ("distillation.weighting.kind", 0.2),
    ("optimizer.lr", 0.07),
)
KINDS = ("none", "exp", "sigmoid")


def row(
    label: str, mean: float, *, seeds: int = 3, baseline: bool = False, tuned: int | None = None, **more: Any
) -> Row:
    """A row whose values lie around ``mean``."""
    values = tuple((1000 + i, round(mean + 0.004 * math.sin(3 * i + 10 * mean), 6)) for i in range(seeds))
    centre = sum(value for _, value in values) / seeds
    deviation = math.sqrt(sum((v - centre) ** 2 for _, v in values) / (seeds - 1)) if seeds > 1 else None
    half = 4.3 * deviation / math.sqrt(seeds) if deviation else None
    made = Row(
        label=label,
        metric=METRIC,
        mean=centre,
        sd=deviation,
        interval=(centre - half, centre + half) if half else None,
        wide_interval=(centre - 1.6 * half, centre + 1.6 * half) if half else None,
        n=seeds,
        values=values,
        tuning_trials=tuned,
        is_baseline=baseline,
    )
    return replace(made, **more)


def comparison(label: str, difference: float, kind: Kind, **more: Any) -> Comparison:
    """A comparison with plain kd."""
    words = {"better": "is better than", "worse": "is worse than", "equivalent": "is as good as"}
    made = Comparison(
        label=label,
        baseline="kd",
        method="paired",
        n=3,
        kind=kind,
        sentence=f"{label} {words.get(kind, 'is not told apart from')} kd.",
        difference=difference,
        interval=(difference - 0.006, difference + 0.006),
        p=0.0123,
        p_holm=0.0246,
        probability=0.91,
        probability_interval=(0.62, 0.98),
        p_equivalence=0.31,
    )
    return replace(made, **more)


def search(trials: int = 60, epochs: int = 40) -> Report:
    """Three arms, one with a very long name; a scheduler; a failure; a trial far outside."""
    chance = random.Random(7)
    lines: list[CoordinateLine] = []
    points: dict[str, list[tuple[float, float, str, float]]] = {arm: [] for arm in ARMS}
    for i in range(trials):
        arm = ARMS[i % 3]
        alpha, tau = 0.25 * 32 ** chance.random(), 1 + 7 * chance.random()
        kind = KINDS[i // 3 % 3]
        of = "log_ratio" if kind == "sigmoid" else None
        accuracy = 0.93 - 0.01 * math.log2(alpha / 2.2) ** 2 - 0.002 * abs(tau - 4) + 0.006 * chance.random()
        accuracy = 0.31 if i == 11 else accuracy - 0.004 * ARMS.index(arm)
        lines.append(CoordinateLine((alpha, tau, kind, of, 10 ** chance.uniform(-3, -1)), accuracy, arm))
        points[arm].append((alpha, tau, kind, accuracy))
    return Report(
        title="joint",
        question="Which α, τ, weighting and keep-probabilities, chosen together?",
        status="finished",
        created="2026-11-27 06:12 UTC",
        metric=METRIC,
        margin=0.005,
        verdicts=(
            Verdict("better", "wsl is better than kd by 0.0124 (95 % interval 0.0064 to 0.0184; 3 pairs of seeds)."),
            Verdict("inconclusive", f"{ARMS[1]} is not told apart from kd with 3 seeds."),
        ),
        cautions=("The baseline kd was not tuned, the other rows were tuned with 20 trials each.",),
        rows=(
            row(ARMS[0], 0.9412, tuned=20, settings=SETTINGS),
            row(ARMS[1], 0.9331, tuned=20, settings=(("distillation.method", "dist"),), missing="1 failed"),
            row(ARMS[2], 0.9288, baseline=True, settings=(("distillation.weighting.kind", "none"),)),
            row("ce (untuned)", 0.9125, settings=(("distillation.method", "none"),)),
        ),
        comparisons=(
            comparison(ARMS[0], 0.0124, "better", smaller_budget=True),
            comparison(ARMS[1], 0.0043, "inconclusive", method="welch", note="one seed failed"),
            comparison("ce (untuned)", -0.0163, "worse"),
        ),
        curves=_curves(points),
        coordinates=Coordinates(
            "validation/accuracy",
            (
                Axis("distillation.alpha", log=True),
                Axis("distillation.temperature"),
                Axis("distillation.weighting.kind", categories=KINDS),
                Axis("distillation.weighting.of", categories=("log_ratio", "difference", "ratio")),
                Axis("optimizer.lr", log=True),
            ),
            tuple(lines),
        ),
        importance=Importance(
            tuple(ImportanceGroup(arm, IMPORTANCES, 18) for arm in ARMS[:2]),
            warning="18 trials are few: below 20 an importance is mostly chance.",
            note="fANOVA",
        ),
        learning_curves=(
            learning("validation/accuracy", ARMS, epochs, lambda k, e: 0.93 - 0.004 * k - 0.6 * math.exp(-e / 4)),
            learning("train/loss", ARMS, epochs, lambda k, e: 0.2 + 0.05 * k + 4 * math.exp(-e / 3)),
            learning("teacher/agreement", ARMS, epochs, lambda k, e: 0.95 - 0.01 * k - 0.5 * math.exp(-e / 5)),
        ),
        regularization_samples=learning(
            "regularization_samples/fraction", ARMS, epochs, lambda k, e: (0.1 + 0.1 * k) * (1 - math.exp(-e / 15))
        ),
        weights=WeightFan(tuple(fan(arm, epochs, 0.1 * k) for k, arm in enumerate(ARMS[:2]))),
        early_stopping=EarlyStopping(
            kind="asha", pruned=31, trials=60, epochs_saved=930, epochs_planned=2400,
            correlations=tuple(EarlyCorrelation(e, 1 - 0.9 * math.exp(-e / 6), 29) for e in range(2, epochs + 1, 2)),
            sentence="At epoch 10, where it stopped first, the order of 29 trials was almost the last (ρ = 0.83).",
        ),
        failures=(
            Failure("3f2a90b1c44e", f"{ARMS[1]} seed=1002", "failed", "the loss is NaN at epoch 3"),
            Failure("9bb1e2240aa1", "wsl alpha=7.9 seed=0", "pruned", ""),
        ),
        costs=(
            Named("time", "2 h 05 min on 2 workers"), Named("training examples", "68,284,800"),
            Named("teacher forwards saved", "66,012,160 of 68,284,800 (96.7 %)"),
        ),
        command="wsl-sweep run search_spaces/joint.yaml --recipe digits \\\n    --trials 60 --seeds 3",
        reproduction=(
            Named("wsl-sweep", "0.1.0"), Named("git commit", "98096f4c4b8d1e6c1f0a6d6b1f9c1c1c86f0a1b2"),
            Named("data", "digits, sha256 5d1c3f0b8a7e9c2d4f6a1b3c5d7e9f0a1b2c3d4e5f60718293a4b5c6d7e8f901"),
        ),
        notes=("The teacher of this sweep was trained here.", "Trial 3f2a90b1c44e was tried three times."),
    )  # fmt: skip


def _curves(points: dict[str, list[tuple[float, float, str, float]]]) -> tuple[ResponseCurve, ...]:
    def band(arm: str) -> Band:
        xs = tuple(0.25 * 32 ** (i / 24) for i in range(25))
        mean = tuple(0.932 - 0.01 * math.log2(x / 2.2) ** 2 - 0.004 * ARMS.index(arm) for x in xs)
        return Band(xs, mean, tuple(m - 0.006 for m in mean), tuple(m + 0.006 for m in mean))

    def confirmed(arm: str, x: Value) -> tuple[ResponsePoint, ...]:
        return tuple(ResponsePoint(x, 0.931 - 0.003 * ARMS.index(arm) + 0.002 * i, "confirm") for i in range(3))

    alpha = tuple(
        ResponseGroup(arm, (*(ResponsePoint(a, y) for a, _, _, y in points[arm]), *confirmed(arm, 2.3)), band(arm))
        for arm in ARMS
    )
    tau = tuple(
        ResponseGroup(
            arm,
            tuple(ResponsePoint(round(t), y) for _, t, _, y in points[arm] if y > 0.5),
            means=tuple(
                ValueMean(t, 0.92 - 0.003 * abs(t - 4) - 0.004 * k, (0.905 - 0.003 * k, 0.93), 3) for t in range(1, 9)
            ),
        )
        for k, arm in enumerate(ARMS)
    )
    kinds = tuple(
        ResponseGroup(
            arm,
            tuple(ResponsePoint(kind, y) for _, _, kind, y in points[arm]),
            means=tuple(
                ValueMean(kind, 0.905 + 0.008 * i - 0.003 * k, (0.89 + 0.008 * i, 0.92), 6)
                for i, kind in enumerate(KINDS)
            ),
        )
        for k, arm in enumerate(ARMS)
    )
    metric = "validation/accuracy"
    return (
        ResponseCurve("distillation.alpha", metric, alpha, log=True, note="Gaussian process in log α; 95 % band."),
        ResponseCurve("distillation.temperature", metric, tau),
        ResponseCurve("distillation.weighting.kind", metric, kinds, categories=KINDS),
    )


def learning(metric: str, labels: tuple[str, ...], epochs: int, value: Callable[[int, int], float]) -> LearningCurve:
    """A curve for each label, ``value(its number, epoch)``, with a band."""
    steps = tuple(range(1, epochs + 1))
    groups = []
    for k, label in enumerate(labels):
        mean = tuple(float(value(k, e)) for e in steps)
        low, high = (
            tuple(m - 0.01 - 0.1 / e for m, e in zip(mean, steps, strict=True)),
            tuple(m + 0.01 + 0.05 / e for m, e in zip(mean, steps, strict=True)),
        )
        groups.append(CurveGroup(label, steps, mean, low, high, 3))
    return LearningCurve(metric, tuple(groups), "Bands: the lowest and the highest of the seeds.")


def fan(label: str, epochs: int, shift: float = 0.0) -> FanGroup:
    """Weights that fall as the student learns."""
    steps = tuple(range(1, epochs + 1))
    middle = tuple(0.35 + shift + 0.55 * math.exp(-e / 12) for e in steps)
    spread = tuple(0.05 + 0.25 * (1 - math.exp(-e / 10)) for e in steps)

    def at(share: float) -> tuple[float, ...]:
        return tuple(min(1.0, max(0.0, m + share * s)) for m, s in zip(middle, spread, strict=True))

    return FanGroup(label, steps, at(-1.3), at(-0.5), at(0), at(0.5), at(1.3), at(0.08))


def ablation(cells: int = 30) -> Report:
    """A grid crossed with variants: 30 rows, most of them compared, two without a result."""
    labels = [f"{'b_wsl' if i % 2 else 'a_kd'} keep.regularization={1 - i / 40:.3g} keep.other=1" for i in range(cells)]
    rows = [row(label, 0.905 + 0.03 * math.sin(i / 5), seeds=5, baseline=i == 0) for i, label in enumerate(labels)]
    rows[7] = replace(
        rows[7], mean=None, sd=None, interval=None, wide_interval=None, n=0, values=(), missing="4 failed, 1 pruned"
    )
    rows[9] = replace(rows[9], mean=0.13, interval=(0.1, 0.16), wide_interval=None, values=())
    rows[12] = replace(rows[12], interval=(0.2, 1.6), wide_interval=None, n=2)
    kinds: tuple[Kind, ...] = ("better", "equivalent", "inconclusive", "worse")
    compared = [
        comparison(label, 0.03 * math.sin(i / 5), kinds[i % 4], baseline=labels[0], n=5, method="paired")
        for i, label in enumerate(labels)
        if i not in (0, 7)
    ]
    return Report(
        title="tab7_rs_dropping",
        question="What if regularization samples, or all others, are dropped with a probability? (WSL Tab. 7 a, b)",
        status="finished",
        created="2026-11-27 06:12 UTC",
        metric=METRIC,
        margin=0.005,
        verdicts=(Verdict("equivalent", "Dropping regularization samples changes nothing that matters (±0.005)."),),
        rows=tuple(rows),
        comparisons=tuple(compared),
        learning_curves=(
            learning("validation/accuracy", tuple(labels), 240, lambda k, e: 0.9 - 0.003 * k - 0.5 * math.exp(-e / 20)),
        ),
        weights=WeightFan(tuple(fan(label, 240) for label in labels[1::2])),
        curves=(
            ResponseCurve("distillation.keep.regularization", METRIC, (_kept("a_kd", 0.0), _kept("b_wsl", 0.005))),
        ),
        command="wsl-sweep run search_spaces/tab7_rs_dropping.yaml",
    )  # fmt: skip


def _kept(label: str, slope: float) -> ResponseGroup:
    means = {p / 4: 0.91 + slope * p - 0.002 * p * p for p in range(5)}
    return ResponseGroup(label, (), means=tuple(ValueMean(p, y, (y - 0.01, y + 0.01), 5) for p, y in means.items()))


def one_seed() -> Report:
    """A search that confirmed nothing twice: no interval, no verdict, and the page says why."""
    return Report(
        title="alpha",
        question="How sensitive are weighted soft labels to their weight?",
        status="stopped",
        created="2026-11-27 06:12 UTC",
        metric=METRIC,
        verdicts=(Verdict("none", "No verdict: one seed has no interval."),),
        rows=(row("tuned", 0.9, seeds=1, tuned=4), row("kd", 0.89, seeds=1, baseline=True)),
        learning_curves=(LearningCurve("validation/accuracy", (CurveGroup("tuned", (1,), (0.9,)),)),),
        gaps=(
            ("comparisons", "One seed: no interval, no verdict."),
            ("importance", "Importance needs two finished trials."),
        ),
    )


HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=https://evil.example/x onerror=alert(2)>',
    "$\\frac{1}{0}$ _hidden",
    "名前の長いバリアント" * 6,
    "a\x00b\ud800c\u202e&amp;]]>-->",
    "{{ 7 * 7 }} {% raw %}",
)


def hostile() -> Report:
    """Names that would break a careless page."""
    rows = tuple(
        row(name, 0.9 + 0.005 * i, baseline=i == 0, settings=((name, name),)) for i, name in enumerate(HOSTILE)
    )
    groups = tuple(CurveGroup(name, (1, 2), (0.1 * i, 0.2)) for i, name in enumerate(HOSTILE))
    return Report(
        title=HOSTILE[0],
        question=HOSTILE[1],
        status=HOSTILE[0],
        created=HOSTILE[0],
        metric="test/<b>accuracy</b>",
        verdicts=(Verdict("better", HOSTILE[0]),),
        cautions=HOSTILE,
        rows=rows,
        comparisons=tuple(
            comparison(name, 0.01, "better", sentence=name, note=name, baseline=HOSTILE[0]) for name in HOSTILE[1:]
        ),
        curves=(
            ResponseCurve(
                HOSTILE[0],
                HOSTILE[1],
                (ResponseGroup(HOSTILE[0], tuple(ResponsePoint(name, 0.5) for name in HOSTILE)),),
                categories=HOSTILE,
            ),
        ),
        coordinates=Coordinates(HOSTILE[0], (Axis(HOSTILE[1], categories=HOSTILE),),
                                tuple(CoordinateLine((n,), 0.5, n) for n in HOSTILE)),
        importance=Importance((ImportanceGroup(HOSTILE[0], ((HOSTILE[1], 1.0),), 30),), warning=HOSTILE[0]),
        learning_curves=(LearningCurve(HOSTILE[0], groups, HOSTILE[0]),),
        weights=WeightFan((fan(HOSTILE[0], 5),)),
        failures=(Failure(HOSTILE[0], HOSTILE[1], HOSTILE[0], "</script></style></svg>\n" + HOSTILE[1]),),
        costs=(Named(HOSTILE[0], HOSTILE[1]),),
        command="</pre><script>alert(3)</script>",
        reproduction=(Named(HOSTILE[0], HOSTILE[1]),),
        notes=HOSTILE,
    )  # fmt: skip


def empty() -> Report:
    """A sweep in which nothing happened yet."""
    return Report(title="nothing")


@cache
def rendered(name: str) -> str:
    """The page of a report, made once."""
    return render_report(REPORTS[name]())


REPORTS = {"search": search, "ablation": ablation, "one_seed": one_seed, "hostile": hostile, "empty": empty}
