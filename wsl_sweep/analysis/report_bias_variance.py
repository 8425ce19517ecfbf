"""Bias and variance as parts of a page: what was found in each regime, its table, its pictures."""

from __future__ import annotations

from dataclasses import replace

from wsl_sweep.analysis.diagnostics.bias_variance import CORRECTION, Estimate
from wsl_sweep.analysis.diagnostics.regimes import Regime, answer
from wsl_sweep.analysis.plots.style import measured
from wsl_sweep.analysis.plots.tradeoff import bias_variance_bars, bias_variance_changes, parts_of
from wsl_sweep.analysis.report_pictures import picture
from wsl_sweep.analysis.report_sections import Captioned, Section
from wsl_sweep.analysis.report_tables import Cell, Table, chance
from wsl_sweep.analysis.statistics import Interval
from wsl_sweep.analysis.tradeoffs import BiasAndVariance

KEYS = {"seeds": "bias-variance-seeds", "data": "bias-variance-data", "data and teachers": "bias-variance-teachers"}

BELOW = " Below each number its 95 % intervals."

WORDS = {
    "holds": "holds here",
    "fails": "fails here",
    "not settled": "not settled",
    "positive": "rises",
    "negative": "falls",
}


def bias_variance_sections(found: BiasAndVariance) -> list[Section]:
    """A part of a page for each regime; none where there is none."""
    sections: list[Section] = []
    for regime in found.regimes:
        key, number = KEYS[regime.over], 1
        while any(one.key == key for one in sections):  # of another setting
            number += 1
            key = f"{KEYS[regime.over]}-{number}"
        sections.append(_section(key, regime, found))
    return sections


def _section(key: str, regime: Regime, found: BiasAndVariance) -> Section:
    tables = [Captioned("", _short(terms_table(regime))), Captioned("with intervals", terms_table(regime), folded=True)]
    pictures = [picture("Bias and variance of students", bias_variance_bars(regime), terms_table(regime))]
    if regime.against:
        tables.append(Captioned("Against students of labels alone", _short(tradeoff_table(regime))))
        tables.append(Captioned("against them, with intervals", tradeoff_table(regime), folded=True))
        note = "To the left of the line distilling lowers it, to the right it raises it."
        changed = picture("What distilling changes", bias_variance_changes(regime), tradeoff_table(regime), note)
        pictures.append(changed)
    what = f"{len(regime.seeds)} students of each row on the {regime.examples:,} examples of the {found.part} part"
    parts = f", of {regime.splits} disjoint parts of the training data" if regime.splits > 1 else ""
    gap = max(one.gap for one in regime.students)
    return Section(
        key=key,
        title=f"Bias and variance: {regime.title.lower()}",
        answer=answer(regime),
        tables=tuple(tables),
        pictures=tuple(pictures),
        notes=(
            f"{what}{parts}, in nats at τ = 1 (Heskes 1998; WSL §3.1). Bias + variance is the mean cross-entropy, here "
            f"to {gap:.0e}.",
            f"{CORRECTION} Intervals over examples are by bootstrap, those over models by jackknife; a sign is settled "
            "where both lie on one side of 0.",
            "An example is a regularization sample where it is one for more than half of a row's students.",
            *regime.notes,
            *found.notes,
        ),
    )


def _short(table: Table) -> Table:
    """The same without what stands below."""
    rows = tuple(tuple(replace(cell, below="") for cell in row) for row in table.rows)
    return replace(table, rows=rows, note=table.note.removesuffix(BELOW))


def terms_table(regime: Regime) -> Table:
    """Bias, variance, plain and corrected, and cross-entropy of each row, over all examples and split."""
    columns = ("bias", "variance", "bias, corrected", "variance, corrected", "cross-entropy", "examples")
    made = []
    for one in regime.students:
        for part, terms in parts_of(one.terms):
            name = Cell(f"{one.name}, {part}" if part else one.name, sort=f"{one.name} {part}")
            estimates = (
                terms.bias,
                terms.variance,
                terms.corrected_bias,
                terms.corrected_variance,
                terms.cross_entropy,
            )
            made.append((name, *map(_cell, estimates), Cell(f"{terms.examples:,}", sort=terms.examples)))
    return Table((("students", False), *((name, True) for name in columns)), tuple(made), f"In nats.{BELOW}")


def tradeoff_table(regime: Regime) -> Table:
    """The middle term of eq. 3 with its sign, and Assumption 1, of each distilled row."""
    columns = (
        ("distilled", False),
        ("middle term of eq. 3", True),
        ("the bias", False),
        ("change of the variance", True),
        ("Assumption 1", False),
        ("p", True),
        ("examples", True),
    )
    made = []
    for one in regime.against:
        trades = (
            ("", one.tradeoff.whole),
            ("regularization samples", one.tradeoff.regularization),
            ("others", one.tradeoff.others),
        )
        for part, trade in trades:
            if trade is not None:
                made.append(
                    (
                        Cell(f"{one.name}, {part}" if part else one.name, f"against {one.baseline}", one.name),
                        _cell(trade.middle, sign=True),
                        Cell(WORDS[trade.middle_sign]),
                        _cell(trade.change, sign=True),
                        Cell(WORDS[trade.assumption]),
                        Cell(chance(trade.p), sort=trade.p),
                        Cell(f"{trade.examples:,}", sort=trade.examples),
                    )
                )
    return Table(columns, tuple(made), 'p: one-sided, of "the variance is not smaller", over examples.' + BELOW)


def _cell(estimate: Estimate, sign: bool = False) -> Cell:
    below = f"{_span(estimate.over_examples, sign)} over examples"
    if estimate.over_models is not None:
        below += f", {_span(estimate.over_models, sign)} over models"
    return Cell(measured("nats", estimate.value, sign), below, estimate.value)


def _span(interval: Interval, sign: bool) -> str:
    return " to ".join(measured("nats", end, sign) for end in interval)
