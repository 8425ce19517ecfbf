"""Which classes distillation teaches to resemble each other (WSL Fig. 4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from wsl_sweep.analysis import plots
from wsl_sweep.analysis.diagnostics.arrays import Floats
from wsl_sweep.analysis.diagnostics.resemblance import (
    Pair,
    WithinSuperclasses,
    class_order,
    resemblances,
    strongest_pairs,
    within_superclasses,
)
from wsl_sweep.analysis.diagnostics.soft_labels import FEW
from wsl_sweep.analysis.plots.heat import NAMED
from wsl_sweep.analysis.plots.style import short
from wsl_sweep.analysis.report_pictures import Picture, picture
from wsl_sweep.analysis.report_sections import Captioned, Section
from wsl_sweep.analysis.report_tables import Cell, Table
from wsl_sweep.analysis.report_why.material import Classes, listed, rounded

if TYPE_CHECKING:
    from wsl_sweep.analysis.leftovers import Logits

PAIRS = 20
"""Of the strongest, in the table; no more than there are classes."""

FEWEST_PAIRS = 5
"""In the table where none is drawn together."""

DRAWN = 100
"""Classes of the heat map: of more those of the strongest pairs."""


def resemblances_section(
    student: Logits, teacher: Logits, temperature: float, classes: Classes, *, whose: str, seen: bool = False
) -> Section | None:
    """The matrix M of WSL's Fig. 4 of a student and its teacher.

    Args:
        student: what it says of the validation part.
        teacher: what its teacher says of the same examples.
        temperature: τ of its training.
        classes: names, superclasses.
        whose: which student it is, in words.
        seen: whether it was trained on these examples.

    Returns:
        None where fewer than two classes have examples.
    """
    matrix = resemblances(student.logits, teacher.logits, student.labels, temperature)
    count = len(matrix)
    names = classes.named(count)
    pairs = strongest_pairs(matrix, min(PAIRS, count), names)
    if not pairs:
        return None
    within = _within(matrix, classes)
    sizes = np.bincount(student.labels, minlength=count)
    fewest = int(sizes[sizes > 0].min())
    warnings = []
    if fewest < FEW:
        warnings.append(
            f"The smallest class has {fewest} validation examples, so that what is said of it is a hint and no more."
        )
    if seen:
        warnings.append("The student was trained on these examples, too: it knows them better than new ones.")
    told = [pair for pair in pairs if pair.strength > 0]
    shown = told or pairs[:FEWEST_PAIRS]
    answer = "The teacher teaches no two classes to resemble each other more than the student has them already."
    if told:
        strongest = [f"{pair.names[0]} and {pair.names[1]} ({rounded(pair.strength, 2)})" for pair in told[:3]]
        answer = f"Distillation draws together most strongly: {listed(strongest)}."
    return Section(
        key="resemblances",
        title="Which classes it teaches to resemble each other",
        answer=f"{answer} {within.sentence}" if within is not None else answer,
        warnings=tuple(warnings),
        tables=(Captioned("The strongest pairs", _table(shown, classes.superclasses if within else ())),),
        pictures=(_picture(matrix, names),),
        notes=(
            f"Of {whose} and its teacher, from {len(student.labels):,} validation examples at τ = "
            f"{short(temperature)}. M holds, for each logit i (rows) and class j (columns), the mean over class j's "
            "examples of the gradient "
            "∂(L_kd − L_ce)/∂z_i (WSL Fig. 4), without the diagonal: below 0 distillation raises the logit of i for "
            "examples of j. A pair's strength is −(M_ij + M_ji)/2. Classes are ordered by hierarchical clustering.",
        ),
    )


def _within(matrix: Floats, classes: Classes) -> WithinSuperclasses | None:
    """Nothing where there are no superclasses, or none that could tell."""
    if len(classes.superclasses) != len(matrix):
        return None
    try:
        return within_superclasses(matrix, classes.superclasses)
    except ValueError:
        return None


def _table(pairs: Sequence[Pair], superclasses: Sequence[str]) -> Table:
    columns = [("pair", False), ("strength", True), ("first → second", True), ("second → first", True)]
    columns += [("superclasses", False)] if superclasses else []
    made = []
    for pair in pairs:
        cells = [Cell(f"{pair.names[0]} · {pair.names[1]}", sort=pair.names[0]), _number(pair.strength)]
        cells += [_number(pair.there), _number(pair.back)]
        if superclasses:
            both = (superclasses[pair.one], superclasses[pair.other])
            cells.append(Cell(f"both {both[0]}" if both[0] == both[1] else " · ".join(both)))
        made.append(tuple(cells))
    return Table(tuple(columns), tuple(made), "first → second: M of the second's logit for examples of the first.")


def _number(value: float) -> Cell:
    return Cell(f"{value:.4f}".replace("-", "−"), sort=value)


def _picture(matrix: Floats, names: Sequence[str]) -> Picture:
    order = class_order(matrix)
    note = ""
    if len(order) > DRAWN:
        pairs = strongest_pairs(matrix, DRAWN * DRAWN)
        drawn = {*[*dict.fromkeys(one for pair in pairs for one in (pair.one, pair.other))][:DRAWN]}
        order = [one for one in order if one in drawn]
        note = f"{len(order)} of {len(matrix):,} classes are drawn, those of the strongest pairs. "
    square = matrix[np.ix_(order, order)]
    note += "Each step of colour is an eighth of the largest number."
    if len(order) > NAMED:
        note += " The table has the classes in the picture's order."
    figure = plots.heat_map(square, [names[one] for one in order], "logit i", "class j", ("alike", "apart"))
    return picture("Resemblances that soft labels teach", figure, _columns(square, [names[one] for one in order]), note)


def _columns(square: Floats, names: Sequence[str]) -> Table:
    """Of each class, in the picture's order, what is drawn towards it and pushed from it most."""
    columns = (("class j", False), ("most alike", False), ("M", True), ("most apart", False), ("M ", True))
    made = []
    for place, name in enumerate(names):
        line = square[:, place]
        if not np.isfinite(line).any():
            made.append((Cell(name, "no example"), *(Cell("–") for _ in columns[1:])))
            continue
        low, high = int(np.nanargmin(line)), int(np.nanargmax(line))
        made.append((Cell(name), Cell(names[low]), _number(line[low]), Cell(names[high]), _number(line[high])))
    return Table(columns, tuple(made))
