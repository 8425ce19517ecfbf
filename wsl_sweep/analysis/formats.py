"""A comparison as Markdown, LaTeX, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from wsl_sweep.analysis.comparison import Compared
from wsl_sweep.analysis.grouping import Row
from wsl_sweep.analysis.statistics import Improvement, Interval
from wsl_sweep.analysis.verdicts import Comparison, missing_text, number, p_text
from wsl_sweep.spec.wording import settings

UNTUNED = "†"
"""Beside what had a smaller tuning budget than what it is compared with, and beside the verdict."""


def row_table(compared: Compared) -> tuple[list[str], list[list[str]]]:
    """Header and cells of the rows, as people read them."""
    wide = any(interval is not None for interval in compared.wide_intervals)
    header = ["variant", "settings", compared.metric, "sd", "95 % interval", "n"]
    header += ["over seeds and examples"] if wide else []
    header += ["missing"] if any(row.missing for row in compared.rows) else []
    header += ["tuning trials"] if any(row.tuning_trials for row in compared.rows) else []
    lines = []
    for row, interval in zip(compared.rows, compared.wide_intervals, strict=True):
        cells = _row_cells(compared, row)
        cells += [_interval(interval, compared.metric)] if wide else []
        cells += [missing_text(row)] if "missing" in header else []
        cells += [str(row.tuning_trials)] if "tuning trials" in header else []
        lines.append(cells)
    return header, lines


def comparison_table(compared: Compared) -> tuple[list[str], list[list[str]]]:
    """Header and cells of the comparisons, as people read them."""
    wide = ["difference over seeds and examples"] if _any_wide(compared) else []
    header = ["", "against", "difference", "95 % interval of it", *wide, "p (Holm)", "P(better)", "on", "verdict"]
    lines = [
        [f"{one.row}{_mark(one.row_smaller_budget)}", *_comparison_cells(compared, one)] for one in compared.comparisons
    ]
    return header, lines


def _any_wide(compared: Compared) -> bool:
    return any(one.wide_interval is not None for one in compared.comparisons)


def tables_of(compared: Compared) -> list[tuple[list[str], list[list[str]]]]:
    """Both, the second where there is anything in it: side by side they are too wide for a page."""
    return [row_table(compared), *([comparison_table(compared)] if compared.comparisons else [])]


def _row_cells(compared: Compared, row: Row) -> list[str]:
    described = row.description
    mark = _mark(
        any(
            (one.baseline == row.label and one.smaller_budget) or (one.row == row.label and one.row_smaller_budget)
            for one in compared.comparisons
        )
    )
    name = row.variant or ("" if row.settings else row.label)
    shown = settings(row.settings, row.variant)
    if row.label.endswith((")", "]")):  # told apart by its sweep, or by a number
        name, shown = row.label, "" if row.variant == "" else shown
    if described is None:
        return [f"{name}{mark}", shown, "", "", "", "0"]
    return [
        f"{name}{mark}",
        shown,
        number(described.mean, compared.metric),
        "" if described.sd is None else number(described.sd, compared.metric),
        _interval(described.interval, compared.metric),
        str(described.n),
    ]


def _comparison_cells(compared: Compared, one: Comparison) -> list[str]:
    difference, baseline = one.difference, f"{one.baseline}{_mark(one.smaller_budget)}"
    verdict = f"{one.verdict or 'no verdict'}{_mark(one.smaller_budget or one.row_smaller_budget)}"
    wide = [_interval(one.wide_interval, compared.metric, signed=True)] if _any_wide(compared) else []
    if difference is None:
        return [baseline, "", "", *wide, "", "", "", verdict]
    return [
        baseline,
        number(difference.difference, compared.metric, signed=True),
        _interval(difference.interval, compared.metric, signed=True),
        *wide,
        "" if one.p_holm is None else p_text(one.p_holm),
        "" if one.improvement is None else _probability(one.improvement),
        f"{difference.n} pairs" if difference.method == "paired" else "unpaired",
        verdict,
    ]


def _mark(smaller_budget: bool) -> str:
    return UNTUNED if smaller_budget else ""


def _probability(improvement: Improvement) -> str:
    low, high = improvement.interval
    return f"{improvement.probability:.2f} ({low:.2f} to {high:.2f})"


def _interval(interval: Interval | None, metric: str, *, signed: bool = False) -> str:
    if interval is None:
        return ""
    low, high = (number(end, metric, signed=signed) for end in interval)
    return f"{low} to {high}"


def footnotes(compared: Compared) -> list[str]:
    """What stands below the table: verdicts in words, marks, notes."""
    marked = any(one.smaller_budget or one.row_smaller_budget for one in compared.comparisons)
    return [
        *(one.sentence for one in compared.comparisons),
        *([f"{UNTUNED} had a smaller tuning budget than what it is compared with"] if marked else []),
        *compared.notes,
    ]


def markdown(compared: Compared) -> str:
    """Markdown tables of the rows and of the comparisons, verdicts and notes below them."""
    return "\n".join([markdown_tables(compared), *(f"- {markdown_text(note)}" for note in footnotes(compared))]) + "\n"


def markdown_tables(compared: Compared) -> str:
    """The tables alone."""
    return "\n".join(_markdown_table(header, lines) for header, lines in tables_of(compared))


def _markdown_table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    text = [_markdown_line(header), _markdown_line(["---"] * len(header)), *map(_markdown_line, lines)]
    return "\n".join(text) + "\n"


def _markdown_line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(markdown_text, cells))} |"


_MARKDOWN = re.compile(r"[\\|`*\[\]]|<(?=[A-Za-z/!?])|(?<!\w)_|_(?!\w)")
"""What would be read as markup; an underscore within a word is none, nor a < before a number."""


def markdown_text(text: str) -> str:
    """Text as Markdown takes it, in a line."""
    return _MARKDOWN.sub(lambda found: f"\\{found[0]}", " ".join(text.split()))


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "α": r"$\alpha$", "τ": r"$\tau$", "†": r"$\dagger$",
    "ε": r"$\varepsilon$", "−": r"$-$", "±": r"$\pm$", "→": r"$\rightarrow$", "<": r"\textless{}",
    ">": r"\textgreater{}", "…": r"\dots{}", "|": r"\textbar{}", "[": "{[}", "]": "{]}", "*": "{*}",
}  # fmt: skip
_SPECIAL = re.compile("|".join(map(re.escape, _LATEX)))


def latex_text(text: str) -> str:
    """Text as LaTeX takes it, in a line; brackets and stars behind the end of a row would be arguments of it."""
    return _SPECIAL.sub(lambda found: _LATEX[found[0]], " ".join(text.split()))


def latex(compared: Compared) -> str:
    """LaTeX tables of the rows and of the comparisons, with booktabs; verdicts and notes below them."""
    text = [
        r"% \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{latex_text(', '.join(compared.sweeps))}: {latex_text(compared.metric)}}}",
    ]
    for header, lines in tables_of(compared):
        text += _tabular(header, lines)
    text += [r"\par\smallskip\footnotesize", *(latex_text(note) + r"\par" for note in footnotes(compared))]
    return "\n".join([*text, r"\end{table}"]) + "\n"


def _tabular(header: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    """Two columns of words, then figures."""
    first, *rest = (" & ".join(map(latex_text, line)) + r" \\" for line in (header, *lines))
    columns = "ll" + "r" * (len(header) - 2)
    begin, end = rf"\begin{{tabular}}{{{columns}}}", r"\end{tabular}\par\medskip"
    return [begin, r"\toprule", first, r"\midrule", *rest, r"\bottomrule", end]


_OF_ROW = ("label", "variant", "mean", "sd", "n", "tuned", "tuning_trials", "averaged_over")
_OF_COMPARISON = (
    "baseline", "method", "common_seeds", "seeds_without_partner", "difference", "sd", "df", "p", "p_holm",
    "p_equivalence", "probability_of_improvement", "verdict", "seeds_needed", "baseline_smaller_budget",
    "row_smaller_budget", "sentence",
)  # fmt: skip
_ROW_ENDS = {"ci95": "ci95", "ci95_seeds_and_examples": "ci95_seeds_and_examples"}
_COMPARISON_ENDS = {
    "ci95": "difference_ci95",
    "ci95_seeds_and_examples": "difference_ci95_seeds_and_examples",
    "probability_of_improvement_ci95": "probability_of_improvement_ci95",
}


def csv_text(compared: Compared) -> str:
    """A line a row and baseline, every figure unrounded; lists by spaces, what has names as JSON."""
    data = compared.to_json()
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    header = ["metric", *_OF_ROW, *_ends(_ROW_ENDS), "values", "seeds", "sweeps", "missing", "settings"]
    compares = ["difference_sd" if name == "sd" else name for name in _OF_COMPARISON]
    writer.writerow([*header, *compares, *_ends(_COMPARISON_ENDS)])
    for row in data["rows"]:
        lists = [" ".join(map(repr, row["values"])), " ".join(map(str, row["seeds"])), " ".join(row["sweeps"])]
        cells = [data["metric"], *(row[name] for name in _OF_ROW), *_two(row, _ROW_ENDS), *lists]
        cells += [json.dumps(row["missing"]), json.dumps(row["settings"])]
        for one in [one for one in data["comparisons"] if one["row"] == row["label"]] or [{}]:
            writer.writerow([*cells, *(one.get(name) for name in _OF_COMPARISON), *_two(one, _COMPARISON_ENDS)])
    return buffer.getvalue()


def _ends(intervals: Mapping[str, str]) -> list[str]:
    return [f"{name}_{end}" for name in intervals.values() for end in ("low", "high")]


def _two(data: Mapping[str, Any], intervals: Mapping[str, str]) -> list[Any]:
    return [end for name in intervals for end in data.get(name) or ("", "")]


def json_text(compared: Compared) -> str:
    """All of it."""
    return json.dumps(compared.to_json(), indent=2, ensure_ascii=False) + "\n"


FORMATS: dict[str, Callable[[Compared], str]] = {
    "markdown": markdown,
    "latex": latex,
    "csv": csv_text,
    "json": json_text,
}
