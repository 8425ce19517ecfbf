"""A paper's table as text, Markdown, LaTeX, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from wsl_sweep.analysis.formats import latex_text
from wsl_sweep.analysis.grouping import Row
from wsl_sweep.analysis.paper.model import Cell, PaperTable, is_percent
from wsl_sweep.analysis.verdicts import missing_text, number

Marked = tuple[str, tuple[str, ...]]
"""A cell's text and the letters of its footnotes."""


def title(table: PaperTable) -> str:
    """What stands above the table."""
    metrics = dict.fromkeys(cell.metric for line in table.lines for cell in line.cells)
    told = [table.metric] if table.metric in metrics or not metrics else list(metrics)
    unit = ", %" if is_percent(told[0]) else ""
    return f"WSL Table {table.number}. {table.title} ({table.sweep}, {', '.join(told)}{unit})"


def grid(table: PaperTable) -> tuple[list[Marked], list[tuple[str, list[list[Marked]]]]]:
    """The head, and part by part its title and its lines, as people read them."""
    told_apart = any(line.settings for line in table.lines)
    head: list[Marked] = [(text, ()) for text in [*table.heads, *(["settings"] if told_apart else [])]]
    parts = []
    for part in table.parts:
        lines = []
        for line in part.lines:
            labels = [*((text, ()) for text in line.labels[:-1]), (line.labels[-1], line.marks)]
            own: list[Marked] = [(line.settings, ())] if told_apart else []
            lines.append([*labels, *own, *((cell_text(cell), cell.marks) for cell in line.cells)])
        parts.append((part.title, lines))
    return [*head, *((column.text, column.marks) for column in table.columns)], parts


def cell_text(cell: Cell) -> str:
    """``93.13 ± 2.62``; without a half-width where there is one seed, and empty where there is nothing."""
    if cell.figure is not None:
        return f"{cell.figure.value:.2f}"
    return "" if cell.row is None else row_text(cell.row, cell.metric)


def row_text(row: Row, metric: str) -> str:
    """Mean ± half of its 95 % t interval, in percent where the metric is a fraction."""
    described = row.description
    if described is None:
        return ""
    mean = _figure(described.mean, metric)
    if described.interval is None:
        return mean
    return f"{mean} ± {_figure((described.interval[1] - described.interval[0]) / 2, metric)}"


def _figure(value: float, metric: str) -> str:
    return f"{100 * value:.2f}" if is_percent(metric) else number(value, metric)


def below(table: PaperTable) -> Iterator[tuple[str, str]]:
    """What stands below the table: a footnote's letter, or nothing, and a text."""
    yield from table.footnotes.items()
    yield from (("", note) for note in table.notes)
    for row in table.beyond:
        lost = f" ({missing_text(row)})" if row.missing else ""
        yield "", f"not in the paper's table: {row.label}: {row_text(row, table.metric) or 'no value'}{lost}"


# --- Markdown --------------------------------------------------------------------------------------------------------

_MARKDOWN = str.maketrans(
    {"\\": "\\\\", "|": "\\|", "*": "\\*", "`": "\\`", "[": "\\[", "]": "\\]", "<": "&lt;", "&": "&amp;", "\n": " "}
)


def markdown(table: PaperTable) -> str:
    """A Markdown table, footnotes and notes below it."""
    head, parts = grid(table)
    text = [f"**{_plain(title(table))}**", "", _line(map(_superscript, head)), _line(["---"] * len(head))]
    for part, lines in parts:
        if part:
            text.append(_line([f"**{_plain(part)}**", *[""] * (len(head) - 1)]))
        text += [_line(map(_superscript, line)) for line in lines]
    notes = [f"- {_sup((letter,)) + ' ' if letter else ''}{_plain(note)}" for letter, note in below(table)]
    return "\n".join([*text, "", *notes]) + "\n"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _plain(text: str) -> str:
    return text.translate(_MARKDOWN)


def _sup(marks: Sequence[str]) -> str:
    return f"<sup>{', '.join(marks)}</sup>" if marks else ""


def _superscript(cell: Marked) -> str:
    return f"{_plain(cell[0])}{_sup(cell[1])}"


# --- LaTeX -----------------------------------------------------------------------------------------------------------


def latex(table: PaperTable) -> str:
    """A LaTeX table with booktabs, footnotes and notes below it."""
    head, parts = grid(table)
    labels = len(head) - len(table.columns)
    text = [
        r"% \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{latex_text(title(table))}}}",
        rf"\begin{{tabular}}{{{'l' * labels}{'r' * len(table.columns)}}}",
        r"\toprule",
        _row(head),
        r"\midrule",
    ]
    for index, (part, lines) in enumerate(parts):
        if part:
            text += [*([r"\midrule"] if index else []), rf"\multicolumn{{{len(head)}}}{{l}}{{{latex_text(part)}}} \\"]
        text += map(_row, lines)
    text += [r"\bottomrule", r"\end{tabular}", r"\par\smallskip\footnotesize"]
    text += [f"{_raised((letter,))} {latex_text(note)}".strip() + r"\par" for letter, note in below(table)]
    return "\n".join([*text, r"\end{table}"]) + "\n"


def _row(cells: Sequence[Marked]) -> str:
    return " & ".join(f"{latex_text(text)}{_raised(marks)}" for text, marks in cells) + r" \\"


def _raised(marks: Sequence[str]) -> str:
    return rf"\textsuperscript{{{','.join(marks)}}}" if any(marks) else ""


# --- for programs ----------------------------------------------------------------------------------------------------


def to_json(table: PaperTable) -> dict[str, Any]:
    """As plain data, every figure unrounded and, where its metric is a fraction, in percent; README.md says more."""
    return {
        "table": table.number,
        "title": table.title,
        "sweep": table.sweep,
        "metric": table.metric,
        "columns": [{"text": column.text, "footnotes": list(column.marks)} for column in table.columns],
        "parts": [
            {
                "title": part.title,
                "rows": [
                    {
                        "labels": dict(zip(table.heads, line.labels, strict=True)),
                        "settings": line.settings,
                        "footnotes": list(line.marks),
                        "cells": [
                            {"column": column.text, **_cell_json(cell)}
                            for column, cell in zip(table.columns, line.cells, strict=True)
                        ],
                    }
                    for line in part.lines
                ],
            }
            for part in table.parts
        ],
        "not_in_the_papers_table": [
            {"label": row.label, "metric": table.metric, **_row_json(row, table.metric)} for row in table.beyond
        ],
        "footnotes": dict(table.footnotes),
        "notes": list(table.notes),
    }


def _cell_json(cell: Cell) -> dict[str, Any]:
    data: dict[str, Any] = {"kind": "published" if cell.published else "ours", "metric": cell.metric}
    data["unit"] = "percent" if is_percent(cell.metric) else ""
    if cell.published:
        figure = cell.figure
        data |= {"value": figure.value if figure else None, "source": figure.source if figure else None}
    else:
        data |= _row_json(cell.row, cell.metric)
    return {**data, "footnotes": list(cell.marks)}


def _row_json(row: Row | None, metric: str) -> dict[str, Any]:
    by = 100.0 if is_percent(metric) else 1.0
    described = None if row is None else row.description
    return {
        "value": by * described.mean if described else None,
        "ci95": [by * end for end in described.interval] if described and described.interval else None,
        "n": len(row.values) if row else 0,
        "values": [by * value for value in row.values] if row else [],
        "seeds": list(row.seeds) if row else [],
        "missing": dict(row.missing) if row else {},
        "trials": sorted({one for ids in row.trial_ids.values() for one in ids}) if row else [],
    }


def json_text(table: PaperTable) -> str:
    """All of it."""
    return json.dumps(to_json(table), indent=2, ensure_ascii=False) + "\n"


def csv_text(table: PaperTable) -> str:
    """A line a cell, every figure unrounded; what is not in the paper's table is a part of its own."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    where = ["table", "part", "row", "settings", "column", "kind", "metric"]
    what = ["value", "ci95_low", "ci95_high", "n", "values", "seeds", "missing", "source", "footnotes"]
    writer.writerow([*where, *what])
    data = to_json(table)
    for part in data["parts"]:
        for row in part["rows"]:
            for cell in row["cells"]:
                texts = [part["title"], "; ".join(row["labels"].values()), row["settings"], cell["column"]]
                writer.writerow([table.number, *map(_no_formula, texts), *_csv_cells(cell)])
    for row in data["not_in_the_papers_table"]:
        writer.writerow([table.number, "not in the paper's table", _no_formula(row["label"]), "", "", *_csv_cells(row)])
    return buffer.getvalue()


def _no_formula(text: str) -> str:
    """A name that a spreadsheet would compute, with an apostrophe before it."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def _csv_cells(cell: dict[str, Any]) -> list[Any]:
    """Of one cell of the JSON."""
    lists = [" ".join(map(repr, cell.get("values", []))), " ".join(map(str, cell.get("seeds", [])))]
    missing = json.dumps(cell["missing"]) if cell.get("missing") else ""
    return [
        cell.get("kind", "ours"), cell["metric"], cell["value"], *(cell.get("ci95") or ["", ""]), cell.get("n"),
        *lists, missing, cell.get("source"), " ".join(cell.get("footnotes", [])),
    ]  # fmt: skip


FORMATS: dict[str, Callable[[PaperTable], str]] = {
    "markdown": markdown,
    "latex": latex,
    "csv": csv_text,
    "json": json_text,
}
