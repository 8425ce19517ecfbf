"""Do more regularization samples go with lower accuracy, at a fixed temperature? (WSL §3.2)"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from wsl_sweep.analysis import plots
from wsl_sweep.analysis import report_picture_tables as behind
from wsl_sweep.analysis.curves import FEWEST
from wsl_sweep.analysis.diagnostics.correlation import Correlation
from wsl_sweep.analysis.diagnostics.regularization import Claim, correlation_with_accuracy
from wsl_sweep.analysis.plots.style import Looks, short
from wsl_sweep.analysis.records import SPLIT, Record
from wsl_sweep.analysis.report_data import ResponseCurve, ResponseGroup, ResponsePoint
from wsl_sweep.analysis.report_pictures import Picture, picture
from wsl_sweep.analysis.report_sections import Captioned, Section
from wsl_sweep.analysis.report_tables import Cell, Table
from wsl_sweep.analysis.report_why.material import FRACTION, finite, listed, spread

ACCURACY = "validation/accuracy"
TEMPERATURE = "distillation.temperature"

MOST_TEMPERATURES = 12
"""Of more the ones with the most trials are told."""

MOST_PICTURES = 4

APART = 0.3
"""r and ρ beyond which a few trials make the one."""

VERDICTS = ("supported", "contradicted", "not settled")


@dataclass(frozen=True)
class Sampled:
    """A finished trial: its arm or variant, its τ, its share of regularization samples, its accuracy, its stage, and
    what says which data it, and its teacher, were trained on.
    """

    trial_id: str
    label: str
    temperature: float
    fraction: float
    accuracy: float
    stage: str
    data: str = ""


def sampled_trials(records: Iterable[Record]) -> list[Sampled]:
    """The finished trials with a share of regularization samples and an accuracy at their last epoch.

    Without those that were trained on the validation examples, too.
    """
    found = []
    for one in records:
        if one.status != "finished" or one.params.get("part", "train") != "train":
            continue
        values = (one.metrics.get(FRACTION, math.nan), one.metrics.get(ACCURACY, math.nan), _temperature(one))
        if finite(values):
            label = one.arm or (one.variants[0] if one.variants else "")
            found.append(Sampled(one.trial_id, label, values[2], values[0], values[1], one.stage, _data(one)))
    return found


def _data(record: Record) -> str:
    """A data set's settings, whichever of its splits, and whether the teacher saw the same one."""
    own = {path: value for path, value in record.params.items() if path.startswith("dataset.")}
    own |= {"teacher.split": record.params.get("teacher.split", "")}
    return repr(sorted((path, value) for path, value in own.items() if path not in ("dataset.root", SPLIT)))


def of_the_same_data(trials: Sequence[Sampled]) -> list[Sampled]:
    """The trials on the data that most of them have; of equally many the first."""
    counts: dict[str, int] = {}
    for one in trials:
        counts[one.data] = counts.get(one.data, 0) + 1
    most = max(counts, key=lambda data: counts[data], default="")
    return [one for one in trials if one.data == most]


def _temperature(record: Record) -> float:
    try:
        return float(record.params.get(TEMPERATURE, "nan"))
    except ValueError:
        return math.nan


def claim_section(sampled: Sequence[Sampled], looks: Looks, means: Mapping[str, float] | None = None) -> Section | None:
    """The paper's claim, held against the trials of each temperature, on the data that most of them were trained on.

    Args:
        sampled: of ``sampled_trials``.
        looks: of arms and variants.
        means: trial id → its share of regularization samples, a mean over epochs, as far as it is known.

    Returns:
        None where no trial tells.
    """
    trials = of_the_same_data(sampled)
    if not trials:
        return None
    groups: dict[float, list[Sampled]] = {}
    for one in trials:
        groups.setdefault(one.temperature, []).append(one)
    enough = {t: group for t, group in sorted(groups.items()) if len(group) >= FEWEST}
    if not enough:
        return _untold(groups, len(trials))
    ranked = sorted(enough, key=lambda t: -len(enough[t]))
    told = [t for t in enough if t in ranked[:MOST_TEMPERATURES]]
    claims = {t: _claim([(one.fraction, one.accuracy) for one in enough[t]]) for t in told}
    by_mean = {}
    for t in told:
        pairs = [(means[one.trial_id], one.accuracy) for one in enough[t] if means and one.trial_id in means]
        if len(pairs) >= FEWEST:
            by_mean[t] = _claim(pairs)
    drawn = [t for t in told if t in ranked[:MOST_PICTURES]]
    notes = [
        "Pearson's r with Fisher's interval, Spearman's ρ with Bonett and Wright's. Supported: both intervals lie "
        "below 0; contradicted: both lie above. Whatever else differs between the trials is in it, so that this is "
        "the claim's own kind of evidence, and no proof of a cause.",
    ]
    if any(one.stage == "search" for one in trials):
        notes.append("The trials of a search are no random ones: its sampler sought high accuracies.")
    if any(_apart(one) for one in claims.values()):
        notes.append("Where r and ρ lie far apart, a few trials far from the others make r: look at ρ and the picture.")
    if len(trials) < len(sampled):
        notes.append(
            f"{len(sampled) - len(trials)} trials on other data are left out: accuracy depends on what was trained on."
        )
    left = len(trials) - sum(len(enough[t]) for t in told)
    warnings: tuple[str, ...] = ()
    if 2 * left > len(trials):
        warnings = (
            f"{left:,} of {len(trials):,} trials are left out: few others share their τ, and trials of different ones "
            "are not held together.",
        )
    elif left:
        notes.append(f"Trials left out, at temperatures that have fewer than {FEWEST}, or fewer than others: {left}.")
    return Section(
        key="regularization-claim",
        title="Do more regularization samples go with lower accuracy?",
        answer=_answer(claims, by_mean),
        warnings=warnings,
        tables=(Captioned("", _table(claims, by_mean)),),
        pictures=tuple(_picture(t, enough[t], looks) for t in drawn),
        notes=tuple(notes),
    )


def _apart(claim: Claim) -> bool:
    r, rho = claim.pearson.value, claim.spearman.value
    return r is not None and rho is not None and abs(r - rho) > APART


def _claim(pairs: Sequence[tuple[float, float]]) -> Claim:
    return correlation_with_accuracy([x for x, _ in pairs], [y for _, y in pairs])


def _untold(groups: Mapping[float, Sequence[Sampled]], count: int) -> Section:
    """Why nothing is said where no temperature has enough trials."""
    temperatures = spread(list(groups), short)
    if len(groups) == 1:
        answer = f"At τ = {temperatures} there are {count} trials; a correlation with an interval takes {FEWEST}."
    else:
        alone = "no two of which share one" if len(groups) == count else f"fewer than {FEWEST} of which share any one"
        answer = (
            f"Nothing can be said: the claim is about a fixed temperature, and τ varied over {temperatures} in {count} "
            f"trials, {alone}. What counts as a regularization sample depends on τ, so trials of different ones are "
            "not held together; fix τ, or sweep it over a few values."
        )
    columns = (("τ", True), ("share of regularization samples", True), (ACCURACY, True), ("arm or variant", False))
    ordered = sorted((one for group in groups.values() for one in group), key=lambda one: one.temperature)
    made = tuple(
        (
            Cell(short(one.temperature), sort=one.temperature),
            Cell(f"{one.fraction:.4f}", sort=one.fraction),
            Cell(f"{one.accuracy:.4f}", sort=one.accuracy),
            Cell(one.label, sort=one.label),
        )
        for one in ordered[: behind.MOST_ROWS]
    )
    note = f"{behind.MOST_ROWS} of {count} trials." if count > behind.MOST_ROWS else ""
    return Section(
        key="regularization-claim",
        title="Do more regularization samples go with lower accuracy?",
        answer=answer,
        tables=(Captioned("the trials", Table(columns, made, note), folded=True),),
    )


def _answer(claims: Mapping[float, Claim], by_mean: Mapping[float, Claim]) -> str:
    if len(claims) == 1:
        ((t, claim),) = claims.items()
        other = by_mean.get(t, claim).verdict
        return f"At τ = {short(t)}: {claim.sentence}" + (
            f" By their mean over all epochs it is {other}." if other != claim.verdict else ""
        )
    at = {verdict: [t for t, one in claims.items() if one.verdict == verdict] for verdict in VERDICTS}
    parts = [f"{verdict} at τ = {listed([short(t) for t in where])}" for verdict, where in at.items() if where]
    return f"WSL's claim that at a fixed temperature more of them go with lower accuracy is {listed(parts)}."


def _table(claims: Mapping[float, Claim], by_mean: Mapping[float, Claim]) -> Table:
    columns = (("τ", True), ("share of them at", False), ("r", True), ("ρ of ranks", True), ("trials", True))
    made = []
    for t, claim in claims.items():
        lines = [("the last epoch", claim)]
        lines += [("all epochs, mean", by_mean[t])] if t in by_mean else []
        for what, one in lines:
            cells = [Cell(short(t), sort=t), Cell(what), _correlation(one.pearson), _correlation(one.spearman)]
            made.append((*cells, Cell(str(one.pearson.n), sort=one.pearson.n), Cell(one.verdict)))
    return Table((*columns, ("the claim is", False)), tuple(made))


def _correlation(one: Correlation) -> Cell:
    if one.value is None:
        return Cell("–", one.note)
    below = f"{_signed(one.interval[0])} to {_signed(one.interval[1])}" if one.interval else one.note
    return Cell(_signed(one.value), below, one.value)


def _signed(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def _picture(temperature: float, trials: Sequence[Sampled], looks: Looks) -> Picture:
    points: dict[str, list[ResponsePoint]] = {}
    for one in trials:
        points.setdefault(one.label, []).append(ResponsePoint(one.fraction, one.accuracy, one.stage))
    groups = tuple(ResponseGroup(label, tuple(group)) for label, group in points.items())
    curve = ResponseCurve("share of regularization samples, last epoch", ACCURACY, groups)
    known = {**plots.looks_of(points), **{label: looks[label] for label in points if label in looks}}
    figure = plots.response(curve, known)
    title = f"Accuracy by regularization samples, τ = {short(temperature)}"
    return picture(title, figure, behind.response_table(curve))
