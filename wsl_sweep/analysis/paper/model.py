"""What a table of the paper holds once a sweep is set out as one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from wsl_sweep.analysis.grouping import Row
from wsl_sweep.analysis.published import Figure
from wsl_sweep.analysis.verdicts import FRACTIONS, unit

PUBLISHED_METRIC = "test/accuracy"
"""The metric that published figures are of."""


def is_percent(metric: str) -> bool:
    """Whether a metric is a fraction, which the tables have in percent."""
    return unit(metric) in FRACTIONS


@dataclass(frozen=True)
class Cell:
    """One cell: ours, published, or empty.

    Attributes:
        metric: whose values are in it.
        published: whether it is for a published figure.
        row: ours over seeds; None where the sweep has nothing for it.
        figure: the published one; None where nothing is verified.
        marks: letters of its footnotes.
    """

    metric: str
    published: bool
    row: Row | None = None
    figure: Figure | None = None
    marks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Head:
    """The text of a column's head, with the letters of its footnotes."""

    text: str
    marks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Line:
    """A line of the table.

    Attributes:
        labels: a text for each of the table's heads.
        settings: what tells it apart from other lines of the same labels, or empty.
        marks: letters of footnotes of its last label.
        cells: one for each column.
    """

    labels: tuple[str, ...]
    settings: str
    marks: tuple[str, ...]
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Part:
    """Lines under a title of their own; empty where the table has one part only."""

    title: str
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class PaperTable:
    """A sweep as one of the paper's tables.

    Attributes:
        number: of the table.
        title: what it is about.
        sweep: name.
        metric: of its cells, where they do not say otherwise.
        heads: of the columns that name the lines.
        columns: of the cells.
        parts: its lines.
        beyond: what the sweep has and the table has not.
        footnotes: letter → text.
        notes: what else to know of it.
    """

    number: int
    title: str
    sweep: str
    metric: str
    heads: tuple[str, ...]
    columns: tuple[Head, ...]
    parts: tuple[Part, ...]
    beyond: tuple[Row, ...]
    footnotes: Mapping[str, str]
    notes: tuple[str, ...]

    @property
    def lines(self) -> list[Line]:
        """Of all parts."""
        return [line for part in self.parts for line in part.lines]
