"""Parts of a page that say why: an answer, what it rests on, pictures."""

from __future__ import annotations

from dataclasses import dataclass

from wsl_sweep.analysis.report_pictures import Picture
from wsl_sweep.analysis.report_tables import Table


@dataclass(frozen=True)
class Captioned:
    """A table with its heading; ``folded`` it is shown when it is asked for."""

    title: str
    table: Table
    folded: bool = False


@dataclass(frozen=True)
class Section:
    """A part of a report, or of a diagnosis of its own.

    Attributes:
        key: its anchor in the page: letters and hyphens, of no other part.
        title: its heading.
        answer: what was found, in a sentence or two.
        warnings: what speaks against going on so, each a sentence or two.
        tables: what the answer rests on.
        pictures: where people would rather look.
        notes: what has to be known of it: how it was estimated, what is missing.
    """

    key: str
    title: str
    answer: str = ""
    warnings: tuple[str, ...] = ()
    tables: tuple[Captioned, ...] = ()
    pictures: tuple[Picture, ...] = ()
    notes: tuple[str, ...] = ()
