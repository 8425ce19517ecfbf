"""What a diagnosis prints: the sections of its page, without their pictures."""

from __future__ import annotations

from collections.abc import Iterable

from rich.markup import escape
from rich.table import Table

from wsl_sweep.analysis.report_sections import Section
from wsl_sweep.analysis.report_tables import Table as Content
from wsl_sweep.show import wide_console


def show_sections(sections: Iterable[Section]) -> None:
    """The answer of each section, its tables, its warnings and notes."""
    console = wide_console()
    shown = list(sections)
    told: set[str] = set()
    for section in shown:
        if len(shown) > 1:
            console.print(f"\n{section.title}", markup=False, style="bold")
        console.print(section.answer, markup=False)
        for captioned in section.tables:
            if not captioned.folded:
                console.print(f"\n{captioned.title}".rstrip(), markup=False, style="bold")
                console.print(_table(captioned.table))
        console.print()
        for warning in section.warnings:
            console.print(f"warning: {warning}", markup=False, style="yellow")
        for note in section.notes:
            if note not in told:
                console.print(f"note: {note}", markup=False)
            told.add(note)


def _table(content: Content) -> Table:
    shown = Table(box=None, header_style="dim")
    for name, numeric in content.columns:
        shown.add_column(escape(name), justify="right" if numeric else "left")
    for row in content.rows:
        shown.add_row(*(escape(cell.text + (f" ({cell.below})" if cell.below else "")) for cell in row))
    return shown
