"""Does early stopping lie? ASHA replayed on the curves of trials that ran through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from wsl_sweep.analysis import plots
from wsl_sweep.analysis import report_picture_tables as behind
from wsl_sweep.analysis.curves import DOUBTFUL, FEWEST, MOST, SAFE
from wsl_sweep.analysis.diagnostics.early_stopping import EarlyStoppingReplay, replay_asha
from wsl_sweep.analysis.plots.losses import Step
from wsl_sweep.analysis.plots.style import Look, Looks, measured
from wsl_sweep.analysis.report_data import CurveGroup, LearningCurve
from wsl_sweep.analysis.report_pictures import Picture, picture
from wsl_sweep.analysis.report_sections import Captioned, Section
from wsl_sweep.analysis.report_tables import Cell, Table
from wsl_sweep.analysis.report_why.material import Columns, every, finite, listed
from wsl_sweep.sweep.ledger import TrialState

ENOUGH = 20
"""Full curves below which a replay is a guess: ASHA keeps but a few of so few."""

SAID = 2
"""Arms of which all that was found is the answer."""

MOST_PICTURES = 4
"""Arms whose rungs are drawn."""


def replayed_trials(trials: Sequence[TrialState]) -> list[TrialState]:
    """The finished trials of the most common length, in the order in which they came; of more than MOST every n-th.

    They are the ones of which ``analysis.curves`` tells the rank correlation.
    """
    finished = [one for one in trials if one.status == "finished"]
    lengths = [one.trial.epochs for one in finished]
    usual = max(set(lengths), key=lengths.count) if lengths else 0
    alike = [one for one in finished if one.trial.epochs == usual]
    return alike[:: every(len(alike), MOST)]


def full_curves(trials: Sequence[TrialState], columns: Columns, metric: str) -> dict[str, list[list[float]]]:
    """Arm → the curves of its trials that have a finite value at every epoch; trials of no arm are of ``""``.

    Args:
        trials: of ``replayed_trials``.
        columns: with the metric's.
        metric: by which ASHA judges.
    """
    found: dict[str, list[list[float]]] = {}
    for one in trials:
        values = list(columns.get(one.trial.trial_id, {}).get(metric, ()))
        if len(values) == one.trial.epochs and finite(values):
            arm = one.trial.arm if one.trial.stage == "search" else None
            found.setdefault(arm or "", []).append(values)
    return found


def replay_section(
    curves: Mapping[str, Sequence[Sequence[float]]],
    metric: str,
    looks: Looks,
    *,
    grace: int,
    reduction_factor: int,
    margin: float,
    more_is_better: bool = True,
    stopped: int = 0,
    searched: bool = True,
) -> Section | None:
    """What ASHA would have lost, arm by arm.

    Args:
        curves: of ``full_curves``.
        metric: by which ASHA judges.
        looks: of the arms.
        grace, reduction_factor: ASHA's.
        margin: the smallest difference that matters, in the metric's unit; 0 where none is known in it.
        more_is_better: whether more of the metric is.
        stopped: how many trials a scheduler stopped, of which nothing is replayed.
        searched: whether the trials are a search's.

    Returns:
        None where no arm has FEWEST full curves of two epochs or more.
    """
    whole = {arm: lines for arm, lines in curves.items() if len(lines) >= FEWEST and len(lines[0]) > 1}
    if not whole:
        return None
    told = {
        arm: replay_asha(
            lines,
            grace=grace,
            reduction_factor=reduction_factor,
            more_is_better=more_is_better,
            margin=margin,
            label=arm if len(curves) > 1 else "",
        )
        for arm, lines in whole.items()
    }
    warnings = []
    if stopped:
        warnings.append(
            f"{stopped} trials were stopped early, and what they would have come to nobody knows: the replay has only "
            "those that the scheduler spared, so that it says too little of what is lost."
        )
    few = [f"{arm} has {one.trials}" if arm else f"{one.trials}" for arm, one in told.items() if one.trials < ENOUGH]
    if few:
        warnings.append(f"Fewer than {ENOUGH} full curves ({', '.join(few)}): take this as a guess.")
    pictures = [_correlations(told, looks)]
    for arm, one in [*told.items()][:MOST_PICTURES]:
        if one.rungs:
            pictures.append(_rungs(arm, one, metric, margin, looks.get(arm, Look("series-1"))))
    notes = [
        f"ASHA in Ray Tune's form with {grace} {'epoch' if grace == 1 else 'epochs'} of grace and a reduction factor "
        f"of {reduction_factor}, replayed over random orders of arrival and in the order that was. Lost is the best "
        f"last {metric} less the best that is kept.",
    ]
    if len(told) > 1:
        notes.append(
            "A scheduler works within an arm, so each arm is replayed by itself; the part on early stopping tells the "
            "rank correlation over the trials of all arms together."
        )
    if not searched:
        notes.append("An ablation stops nothing. All its trials are replayed together, as if they had been searched.")
    if margin == 0:
        notes.append(f"compare.margin is not in the unit of {metric}, so that any loss counts.")
    short_of = [arm for arm in curves if arm not in whole]
    if short_of:
        notes.append(f"Left out for fewer than {FEWEST} full curves: {', '.join(short_of)}.")
    return Section(
        key="early-stopping-replay",
        title="Does early stopping lie?",
        answer=_answer(told),
        warnings=tuple(warnings),
        tables=(Captioned("", _table(told, metric)),) if any(one.rungs for one in told.values()) else (),
        pictures=tuple(pictures),
        notes=(*(_sentences(told) if len(told) > SAID else ()), *_beside(told), *notes),
    )


def _answer(told: Mapping[str, EarlyStoppingReplay]) -> str:
    """Of up to SAID arms what was found of each; of more who is lied about."""
    if len(told) <= SAID:
        return " ".join(_sentences(told))
    verdicts = {True: "lies for", False: "does not lie for", None: "cannot be judged for"}
    parts = []
    for lies, words in verdicts.items():
        arms = [arm for arm, one in told.items() if one.lies is lies]
        if arms:
            parts.append(f"{words} {listed(arms)}")
    return f"Early stopping {', '.join(parts)}."


def _sentences(told: Mapping[str, EarlyStoppingReplay]) -> list[str]:
    return [one.sentence for one in told.values()]


def _beside(told: Mapping[str, EarlyStoppingReplay]) -> list[str]:
    """Where the rank correlation, by which the part on early stopping judges, and the loss point different ways."""
    firsts = [(one, one.correlations[one.rungs[0].epoch - 1].rho) for one in told.values() if one.rungs]
    known = [(one.lies, rho) for one, rho in firsts if one.lies is not None and rho is not None]
    if any(lies and rho >= SAFE for lies, rho in known):
        return [
            "The rank correlation says that the order as a whole is foretold well; the loss says that the best few are "
            "not always kept. What a search is after is the best: go by the loss."
        ]
    if any(not lies and rho < DOUBTFUL for lies, rho in known):
        return [
            "The rank correlation says that the order is not foretold; the loss says that it does not matter here: "
            "among the trials that are kept there is one that is as good, within the margin, as the best."
        ]
    return []


def _correlations(told: Mapping[str, EarlyStoppingReplay], looks: Looks) -> Picture:
    groups = []
    for arm, one in told.items():
        there = [(c.epoch, c.rho, c.interval) for c in one.correlations if c.rho is not None]
        banded = all(interval is not None for _, _, interval in there)
        groups.append(
            CurveGroup(
                arm or "all trials",
                tuple(epoch for epoch, _, _ in there),
                tuple(rho for _, rho, _ in there),
                tuple(i[0] for _, _, i in there if i is not None) if banded else None,
                tuple(i[1] for _, _, i in there if i is not None) if banded else None,
                one.trials,
            )
        )
    groups = [group for group in groups if group.epochs]
    note = "95 % intervals (Bonett and Wright)." if groups else "The metric does not vary, so nothing correlates."
    curve = LearningCurve("rank correlation with the last epoch", tuple(groups), note)
    known = {**plots.looks_of(group.label for group in groups), **looks}
    figure = plots.learning_curve(curve, known, (1.0, "the order of the last epoch"))
    table = behind.learning_table(curve) if groups else Table((("epoch", True),), ())
    return picture("How early the order is known", figure, table, note)


def _rungs(arm: str, one: EarlyStoppingReplay, metric: str, margin: float, look: Look) -> Picture:
    steps = [Step(rung.epoch, rung.mean_regret, rung.high_regret, rung.regret) for rung in one.rungs]
    title = "What is lost at each rung" + (f", {arm}" if arm else "")
    return picture(title, plots.rungs(steps, metric, margin, look), _table({arm: one}, metric))


def _table(told: Mapping[str, EarlyStoppingReplay], metric: str) -> Table:
    columns = [("after epoch", True), ("reached", True), ("went on", True), ("lost on average", True)]
    columns += [("one order in twenty", True), ("as it was", True), ("best trial lost", True)]
    columns += [("arm", False)] if len(told) > 1 else []
    made = []
    for arm, one in told.items():
        for rung in one.rungs:
            cells = [Cell(str(rung.epoch), sort=rung.epoch)]
            cells += [Cell(f"{value:.1f}", sort=value) for value in (rung.mean_entered, rung.mean_kept)]
            cells += [
                Cell(measured(metric, value), sort=value) for value in (rung.mean_regret, rung.high_regret, rung.regret)
            ]
            cells.append(Cell(f"{rung.lost:.0%} of orders", sort=rung.lost))
            made.append((*cells, *([Cell(arm)] if len(told) > 1 else [])))
    return Table(tuple(columns), tuple(made), "Reached, went on: means over random orders.")
