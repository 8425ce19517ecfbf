"""Setting a sweep out as one of the paper's tables."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field

from wsl_sweep.analysis.comparison import check_metric
from wsl_sweep.analysis.grouping import Row, natural
from wsl_sweep.analysis.paper.layout import Block, Layout, Plan, Slot
from wsl_sweep.analysis.paper.layouts import LAYOUTS
from wsl_sweep.analysis.paper.model import PUBLISHED_METRIC, Cell, Head, Line, PaperTable, Part, is_percent
from wsl_sweep.analysis.paper.protocol import differences, differences_from
from wsl_sweep.analysis.paper.settings import Setting, apart, settings_of
from wsl_sweep.analysis.published import Figure
from wsl_sweep.analysis.records import SweepRecords
from wsl_sweep.analysis.verdicts import missing_text
from wsl_sweep.errors import WslSweepError
from wsl_sweep.spec.wording import short


def layout_of(number: int) -> Layout:
    """The layout of a table. Raises WslSweepError: there is none."""
    if number not in LAYOUTS:
        known = ", ".join(map(str, LAYOUTS))
        raise WslSweepError(f"table {number}: the tables are {known}")
    return LAYOUTS[number]


def set_out(number: int, sweep: SweepRecords, metric: str = PUBLISHED_METRIC) -> PaperTable:
    """Sets a sweep out as one of the paper's tables: each trial in the cell that it belongs to by its configuration.

    A row is set out in several lines, where the sweep has several settings for one of its cells.

    Args:
        number: of the table, 1 to 11.
        sweep: whose final table.
        metric: of the cells; published figures stand beside ``test/accuracy`` only.

    Raises:
        WslSweepError: there is no such table or metric, or the sweep has nothing of the table.
    """
    layout = layout_of(number)
    check_metric(metric, [sweep])
    settings = settings_of(sweep)
    if not settings:
        raise WslSweepError(f"{sweep.name}: no final table yet; let the sweep come to its end")
    filling = _Filling(layout, layout.plan(settings), settings, metric)
    parts = filling.parts()
    if not filling.used or not any(layout.marks(setting) for setting in settings):
        raise WslSweepError(
            f"{sweep.name} has nothing of Table {number}: it takes {layout.needs}; search_spaces/{layout.file} makes it"
        )
    beyond = tuple(setting.row(metric) for setting in settings if setting not in filling.used)
    return PaperTable(
        number=number,
        title=layout.title,
        sweep=sweep.name,
        metric=metric,
        heads=layout.heads,
        columns=filling.columns,
        parts=parts,
        beyond=beyond,
        footnotes=filling.footnotes.by_letter,
        notes=tuple(_notes(layout, sweep, filling, metric)),
    )


@dataclass
class _Footnotes:
    """Each text has one letter, in the order in which they come: a, …, z, aa, …"""

    by_letter: dict[str, str] = field(default_factory=dict)

    def mark(self, *texts: str) -> tuple[str, ...]:
        """The letters of texts; none of an empty one."""
        return tuple(dict.fromkeys(self._letter(text) for text in texts if text))

    def _letter(self, text: str) -> str:
        for letter, known in self.by_letter.items():
            if known == text:
                return letter
        number, letter = len(self.by_letter) + 1, ""
        while number:
            number, place = divmod(number - 1, 26)
            letter = "abcdefghijklmnopqrstuvwxyz"[place] + letter
        self.by_letter[letter] = text
        return letter


class _Filling:
    """The cells of a plan, filled one after another, which gives footnotes their order."""

    def __init__(self, layout: Layout, plan: Plan, settings: Sequence[Setting], metric: str) -> None:
        self._layout, self._plan, self._settings, self._metric = layout, plan, settings, metric
        self.footnotes = _Footnotes()
        self.used: dict[Setting, None] = {}
        self.figures: dict[Figure, None] = {}
        self.columns = tuple(Head(slot.labels[0] or metric, self._slot_marks(slot)) for slot in plan.columns)

    def parts(self) -> tuple[Part, ...]:
        """All lines."""
        return tuple(
            Part(block.title, tuple(line for slot in block.rows for line in self._lines(block, slot)))
            for block in self._plan.blocks
        )

    def _slot_marks(self, slot: Slot) -> tuple[str, ...]:
        return self.footnotes.mark(slot.note or (self._layout.unverified if slot.published is not None else ""))

    def _lines(self, block: Block, slot: Slot) -> list[Line]:
        """Those of one row: as many as the settings of a cell need, one at least."""
        rest = [one for one in self._settings if block.holds(one) and slot.holds(one)]
        there = [(column, [one for one in rest if column.holds(one)]) for column in self._plan.columns]
        if slot.optional and not any(self._has_some(slot, column, found) for column, found in there):
            return []
        paths = [] if slot.published else apart([found for column, found in there if not column.published])
        keys = {_key(one, paths) for _, found in there for one in found} or {()}
        said = _said(paths, keys)
        lines = []
        for key in sorted(keys, key=lambda key: [natural(text) for text in key]):
            marks = self._slot_marks(slot)
            cells = [
                self._cell(slot, column, [one for one in found if _key(one, paths) == key]) for column, found in there
            ]
            lines.append(Line(slot.labels, said[key], marks, tuple(cells)))
        return lines

    def _has_some(self, slot: Slot, column: Slot, found: Sequence[Setting]) -> bool:
        published = slot.published or column.published
        return bool(found) if published is None else self._figure(published, found, column.metric) is not None

    def _figure(
        self, published: Callable[[Setting], Figure | None], found: Sequence[Setting], metric: str | None
    ) -> Figure | None:
        if (metric or self._metric) != PUBLISHED_METRIC:
            return None
        return next((figure for figure in map(published, found) if figure is not None), None)

    def _cell(self, slot: Slot, column: Slot, found: Sequence[Setting]) -> Cell:
        metric = column.metric or self._metric
        published = slot.published or column.published
        if published is not None:
            figure = self._figure(published, found, column.metric)
            if figure is None:
                return Cell(metric, published=True)
            self.figures[figure] = None
            return Cell(metric, published=True, figure=figure, marks=self._marks_of_figure(figure))
        if not found:
            return Cell(metric, published=False)
        (setting,) = found  # what tells several apart has made lines of them
        self.used[setting] = None
        row = setting.row(metric)
        return Cell(metric, published=False, row=row, marks=self.footnotes.mark(_seeds_note(row), _tuning_note(row)))

    def _marks_of_figure(self, figure: Figure) -> tuple[str, ...]:
        beside = [one for one in self._settings if (one.dataset, one.student) == (figure.dataset, figure.student)]
        return self.footnotes.mark(figure.source, *differences_from(figure, beside))


def _key(setting: Setting, paths: Sequence[str]) -> tuple[str, ...]:
    return tuple(setting.value(path) for path in paths)


def _said(paths: Sequence[str], keys: Collection[tuple[str, ...]]) -> dict[tuple[str, ...], str]:
    """What tells each line of a row apart from the others; numbers are rounded where that still does."""

    def said(key: tuple[str, ...], word: Callable[[str], str]) -> str:
        words = zip(paths, key, strict=True)
        return " ".join(f"{path.removeprefix('distillation.')}={word(text)}" for path, text in words)

    rounded = {key: said(key, _rounded) for key in keys}
    return rounded if len(set(rounded.values())) == len(keys) else {key: said(key, str) for key in keys}


def _rounded(text: str) -> str:
    try:
        return short(float(text))
    except ValueError:
        return text


def _seeds_note(row: Row) -> str:
    """For a footnote: seeds that have no value, and whether there is only one."""
    lost = sum(row.missing.values())
    if not row.values:
        return f"no value: {missing_text(row)}"
    if len(row.values) == 1:
        return "one seed, so no interval" + (f"; {missing_text(row)}" if lost else "")
    return f"{len(row.values)} of {len(row.values) + lost} seeds: {missing_text(row)}" if lost else ""


def _tuning_note(row: Row) -> str:
    return f"its settings were found by a search of {row.tuning_trials} trials" if row.tuning_trials else ""


def _notes(layout: Layout, sweep: SweepRecords, filling: _Filling, metric: str) -> Iterator[str]:
    rows = [setting.row(metric) for setting in filling.used]
    counts = sorted({len(row.values) for row in rows if len(row.values) > 1})
    if counts:
        seeds = f"{counts[0]} seeds" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"
        yield f"ours: mean ± half of the 95 % t interval over {seeds}{', in percent' if is_percent(metric) else ''}"
    if sweep.status != "finished":
        yield f"{sweep.name} is not at its end ({sweep.status}): this is what it has so far"
    if metric != PUBLISHED_METRIC:
        yield f"published figures are {PUBLISHED_METRIC}, so that none is beside {metric}"
    covered = {(figure.dataset, figure.student) for figure in filling.figures}
    uncovered = [one for one in filling.used if (one.dataset, one.student) not in covered]
    differ = differences(uncovered, layout.datasets)
    if differ:
        yield f"not the published experiment: {'; '.join(differ)}"
    yield from layout.notes
