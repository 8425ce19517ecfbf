"""Rows and columns of each of the paper's tables for the settings of a sweep.

The text of the paper that could be read has lost the numbers of its tables and with them their lines; what rows and
columns there are is told by the captions and by what is said of them.
"""

from __future__ import annotations

from collections.abc import Sequence

from wsl_sweep.analysis.paper.layout import (
    KD,
    WSL,
    Block,
    Holds,
    Plan,
    Slot,
    at,
    both,
    by_metric,
    distils,
    kept,
    on,
    pairs,
    published,
    published_row,
    side_by_side,
    smoothings,
    values,
    whole,
)
from wsl_sweep.analysis.paper.settings import IMAGENET_ALPHA, PAPER_ALPHA, Setting
from wsl_sweep.analysis.published import AUTHORS, MMRAZOR, OFFICIAL, TORCHDISTILL, USERS

SAMPLES = "regularization_samples/fraction"
"""The metric of Table 1: regularization samples, as a fraction of the last epoch's examples."""

READINGS = {
    "drop_term": "true class dropped from the sum",
    "detach": "true logit detached",
    "renormalised": "both softmaxes over the wrong classes",
}
"""Of the masked loss of §3.3; see ``wsl_sweep.distill.masked_distillation_loss``."""

PAIRS_OF_TABLE_8 = (("wrn_40_2", "wrn_16_2"), ("wrn_40_2", "wrn_40_1"), ("resnet56", "resnet20"))


def _alone(setting: Setting) -> bool:
    return setting.method == "none"


def table_1(settings: Sequence[Setting]) -> Plan:
    """Temperature and label smoothing → regularization samples and accuracy."""
    ours = [setting for setting in settings if whole("none")(setting)]
    rows = [
        Slot((f"{temperature:g}", label), both(whole("none"), smoothed, at("distillation.temperature", temperature)))
        for temperature in values(setting.temperature for setting in ours)
        for label, smoothed in smoothings(ours)
    ]
    samples = "regularization samples, % of the last epoch's examples"
    columns = [
        Slot((samples,), metric=SAMPLES),
        Slot(("regularization samples, published",), published=lambda setting: None),
        Slot(("",)),
        published(),
    ]
    return Plan(columns, [Block("", rows)])


def masked(reading: str) -> Holds:
    """Plain soft labels without the true class, in one reading."""
    return lambda one: one.is_kd("none") and one.text("distillation.mask") == reading and one.keep == (1.0, 1.0)


def table_2(settings: Sequence[Setting]) -> Plan:
    """Masks and subsets → accuracy."""
    rows = [
        Slot(("direct training", "L_ce"), _alone),
        Slot((KD, "L_ce + α L_kd"), whole("none")),
        *(
            Slot((f"KD, masked: {reading}", f"L_ce + α L_kd, {what}"), masked(reading))
            for reading, what in READINGS.items()
        ),
        Slot(
            ("KD, all but regularization samples", "L_ce, and α L_kd where it is none"),
            both(distils("none"), kept(0.0, 1.0)),
        ),
        Slot(
            ("KD, regularization samples only", "L_ce, and α L_kd where it is one"),
            both(distils("none"), kept(1.0, 0.0)),
        ),
    ]
    return Plan([Slot(("",)), published()], [Block("", rows)])


_TEACHER = "no trials of the sweep; wsl-sweep teacher list knows them"

VERIFIED = "verified for resnet56 → resnet20, resnet110 → resnet32 and resnet32x4 → resnet8x4 on CIFAR-100 only"


def table_3(settings: Sequence[Setting]) -> Plan:
    """Methods × pairs, ours and published."""
    rows = [
        Slot(("teacher",), lambda setting: False, note=_TEACHER),
        Slot(("student alone",), _alone),
        Slot((KD,), whole("none")),
        Slot(("RKD",), _relational("none", beside=False), optional=True),
        Slot((WSL,), whole("exp")),
        published_row("teacher, published", "T"),
        published_row("student alone, published", "S"),
        *(published_row(f"{method}, published", method) for method in ("KD", "AT", "SP", "VID", "RKD", "PKT", "CRD")),
        published_row("WSL, published", "WSL", AUTHORS, own=True, note=VERIFIED),
        published_row("WSL, run again by others", "WSL", USERS),
    ]
    return Plan(pairs(settings), [Block("", rows)])


TOP_5 = "test/top5_accuracy"
"""Of ImageNet: how often the label is among the five most likely classes."""

PAPERS_OWN_ON_IMAGENET = "verified for the paper's two pairs, and of top-1 only"


def table_4(settings: Sequence[Setting]) -> Plan:
    """Methods × pairs on ImageNet, top-1 and top-5, ours and published."""
    rows = [
        Slot(("teacher",), lambda setting: False, note=_TEACHER),
        Slot(("student alone",), _alone),
        Slot((KD,), whole("none")),
        Slot((WSL,), whole("exp")),
        published_row("teacher, published", "T"),
        published_row("student alone, published", "S"),
        published_row("KD, run by others: mmrazor", "KD", MMRAZOR),
        published_row("KD, run by others: torchdistill", "KD", TORCHDISTILL),
        published_row("WSL, published", "WSL", OFFICIAL, own=True, note=PAPERS_OWN_ON_IMAGENET),
        published_row("WSL, run again by others: mmrazor", "WSL", MMRAZOR),
    ]
    columns = pairs(setting for setting in settings if on("imagenet")(setting))
    return Plan(by_metric(columns, {"": None, ", top-5": TOP_5}), [Block("", rows, on("imagenet"))])


def table_5(settings: Sequence[Setting]) -> Plan:
    """Subsets × KD and WSL."""
    rows = [
        Slot(("all examples",), kept(1.0, 1.0)),
        Slot(("regularization samples only",), kept(1.0, 0.0)),
        Slot(("all but regularization samples",), kept(0.0, 1.0)),
    ]
    return Plan(side_by_side(), [Block("", rows)])


def table_6(settings: Sequence[Setting]) -> Plan:
    """Label smoothing × KD and WSL."""
    ours = [setting for setting in settings if whole("none")(setting) or whole("exp")(setting)]
    unhindered = kept(1.0, 1.0)
    rows = [Slot((label,), both(unhindered, smoothed)) for label, smoothed in smoothings(ours)]
    return Plan(side_by_side(), [Block("", rows)])


QUARTERS = (0.0, 0.25, 0.5, 0.75, 1.0)


def table_7(settings: Sequence[Setting]) -> Plan:
    """Keep-probabilities in both directions, (a) of KD, (b) of WSL."""
    blocks = []
    for title, weighting in ((f"(a) {KD}", "none"), (f"(b) {WSL}", "exp")):
        ours = [setting for setting in settings if distils(weighting)(setting) and 1.0 in setting.keep]
        steps = values([*QUARTERS, *(min(setting.keep) for setting in ours)])
        blocks.append(Block(title, [Slot((f"{step:g}",), _reaches(step)) for step in steps], distils(weighting)))
    samples, others = (lambda one: one.keep[1] == 1.0), (lambda one: one.keep[0] == 1.0)
    columns = [
        Slot(("regularization samples kept with p, all others kept",), samples),
        published(samples, "regularization samples, published"),
        Slot(("others kept with p, all regularization samples kept",), others),
        published(others, "others, published"),
    ]
    return Plan(columns, blocks)


def _reaches(step: float) -> Holds:
    return lambda setting: setting.keep in ((step, 1.0), (1.0, step))


def _relational(weighting: str, *, beside: bool) -> Holds:
    """RKD with such weights, with distillation of soft labels beside it or without."""

    def holds(setting: Setting) -> bool:
        of_it = setting.method == "rkd" and setting.weighting == weighting
        return of_it and bool(setting.number("distillation.kd_weight")) == beside

    return holds


def table_8(settings: Sequence[Setting]) -> Plan:
    """RKD with and without weights, with and without KD, × pairs."""
    ours = [setting for setting in settings if setting.method == "rkd"]
    rows = [
        Slot(("RKD",), _relational("none", beside=False)),
        Slot(("RKD, weighted",), _relational("exp", beside=False)),
        Slot(("RKD + KD",), _relational("none", beside=True)),
        Slot(("RKD + KD, weighted",), _relational("exp", beside=True)),
        published_row("RKD, published", "RKD", own=True),
        published_row("RKD, weighted, published", None, own=True),
    ]
    return Plan(pairs(ours, PAIRS_OF_TABLE_8), [Block("", rows)])


WEIGHTINGS = {
    "none (KD)": ("none", None),
    "exp (WSL eq. 6)": ("exp", None),
    "sigmoid of log_ratio": ("sigmoid", "log_ratio"),
    "sigmoid of difference": ("sigmoid", "difference"),
    "sigmoid of ratio": ("sigmoid", "ratio"),
}
"""Rows of Table 9 → ``weighting.kind`` and ``weighting.of``."""


def _weighted(kind: str, of: str | None) -> Holds:
    return lambda one: whole(kind)(one) and (of is None or one.text("distillation.weighting.of") == of)


def table_9(settings: Sequence[Setting]) -> Plan:
    """Forms of the weight, each at its α."""
    rows = []
    for label, (kind, of) in WEIGHTINGS.items():
        form = _weighted(kind, of)
        alphas = values(setting.alpha for setting in settings if form(setting))
        rows += [Slot((label, f"{alpha:g}"), both(form, at("distillation.alpha", alpha))) for alpha in alphas]
        if not alphas:
            rows.append(Slot((label, ""), form))
    return Plan([Slot(("",)), published()], [Block("", rows)])


def table_10(settings: Sequence[Setting]) -> Plan:
    """α of WSL: (a) 1 to 4, (b) between 2 and 3, (c) on ImageNet; of ImageNet alone (c) alone."""
    weighted = [setting for setting in settings if whole("exp")(setting)]
    there = [setting.alpha for setting in weighted if on("imagenet")(setting)]
    alphas = [setting.alpha for setting in weighted if not on("imagenet")(setting)]
    between = values([PAPER_ALPHA, *(alpha for alpha in alphas if alpha is not None and 2 < alpha < 3)])
    elsewhere = both(whole("exp"), lambda setting: not on("imagenet")(setting))
    parts: list[tuple[str, Sequence[float], Holds]] = []
    if alphas or not there:
        parts += [("(a) 1, 2, 3, 4", (1.0, 2.0, 3.0, 4.0), elsewhere), ("(b) between 2 and 3", between, elsewhere)]
    if there:
        parts.append(("(c) on ImageNet", values([IMAGENET_ALPHA, *there]), both(whole("exp"), on("imagenet"))))
    blocks = [
        Block(title, [Slot((f"{alpha:g}",), at("distillation.alpha", alpha)) for alpha in steps], holds)
        for title, steps, holds in parts
    ]
    return Plan([Slot((WSL,)), published()], blocks)


DEV_SETS: dict[str, str | None] = {
    ", matched": "test/accuracy_matched",
    ", mismatched": "test/accuracy_mismatched",
}
"""Of MultiNLI: what is added to a pair's label → the metric."""


def table_11(settings: Sequence[Setting]) -> Plan:
    """Methods × pairs on MultiNLI, on the matched and on the mismatched dev set; nothing of it is verified."""
    rows = [
        Slot(("teacher",), lambda setting: False, note=_TEACHER),
        Slot(("student alone",), _alone),
        Slot((KD,), whole("none")),
        Slot((WSL,), whole("exp")),
        *(published_row(f"{label}, published", None, own=True) for label in ("teacher", "student alone", "KD", "WSL")),
    ]
    columns = pairs(setting for setting in settings if on("mnli")(setting))
    return Plan(by_metric(columns, DEV_SETS), [Block("", rows, on("mnli"))])
