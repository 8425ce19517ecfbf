"""A comparison as Markdown, LaTeX, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Sequence

from wsl_sweep.analysis.comparison import Compared
from wsl_sweep.analysis.grouping import Row
from wsl_sweep.analysis.statistics import Interval
from wsl_sweep.analysis.verdicts import Comparison, missing_text, number, p_text
from wsl_sweep.spec.wording import settings

UNTUNED = "†"
"""Beside a baseline that had a smaller tuning budget than what it is compared with."""


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
    header = ["", "against", "difference", "95 % interval", "p (Holm)", "P(better)", "n", "verdict"]
    return header, [[one.row, *_comparison_cells(compared, one)] for one in compared.comparisons]


def table_of(compared: Compared) -> tuple[list[str], list[list[str]]]:
    """Header and cells of one table: a line a row, with its comparison beside it."""
    (header, rows), (columns, _) = row_table(compared), comparison_table(compared)
    if not compared.comparisons:
        return header, rows
    several = len({one.baseline for one in compared.comparisons}) > 1
    skip = 0 if several else 1
    lines = []
    for row, cells in zip(compared.rows, rows, strict=True):
        own = [_comparison_cells(compared, one)[skip:] for one in compared.comparisons if one.row == row.label]
        nothing = ["baseline" if compared.is_baseline(row) else "", *[""] * (len(columns) - 2 - skip)]
        for index, beside in enumerate(own or [nothing]):
            lines.append([*(cells if index == 0 else [""] * len(cells)), *beside])
    return [*header, *columns[1 + skip :]], lines


def _row_cells(compared: Compared, row: Row) -> list[str]:
    described = row.description
    mark = UNTUNED if any(one.baseline == row.label and one.smaller_budget for one in compared.comparisons) else ""
    name = row.variant or ("" if row.settings else row.label)
    shown = settings(row.settings, row.variant)
    if f"{name} {shown}".strip() != row.label:  # told apart by its sweep
        name, shown = row.label, ""
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
    difference = one.difference
    verdict = one.verdict or "no verdict"
    if difference is None:
        return [one.baseline, "", "", "", "", "", verdict]
    return [
        one.baseline,
        number(difference.difference, compared.metric, signed=True),
        _interval(difference.interval, compared.metric, signed=True),
        "" if one.p_holm is None else p_text(one.p_holm),
        "" if one.improvement is None else f"{one.improvement.probability:.2f}",
        f"{difference.n} pairs" if difference.method == "paired" else "unpaired",
        verdict,
    ]


def _interval(interval: Interval | None, metric: str, *, signed: bool = False) -> str:
    if interval is None:
        return ""
    low, high = (number(end, metric, signed=signed) for end in interval)
    return f"{low} to {high}"


def footnotes(compared: Compared) -> list[str]:
    """What stands below the table: verdicts in words, marks, notes."""
    marked = any(one.smaller_budget for one in compared.comparisons)
    return [
        *(one.sentence for one in compared.comparisons),
        *([f"{UNTUNED} had a smaller tuning budget than what it is compared with"] if marked else []),
        *compared.notes,
    ]


def markdown(compared: Compared) -> str:
    """A Markdown table, verdicts and notes below it."""
    header, lines = table_of(compared)
    text = [_markdown_line(header), _markdown_line(["---"] * len(header)), *map(_markdown_line, lines)]
    return "\n".join([*text, "", *(f"- {note}" for note in footnotes(compared))]) + "\n"


def _markdown_line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|').replace(chr(10), ' ') for cell in cells)} |"


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "α": r"$\alpha$", "τ": r"$\tau$", "†": r"$\dagger$",
    "−": r"$-$", "±": r"$\pm$", "→": r"$\rightarrow$", "<": r"\textless{}", ">": r"\textgreater{}", "…": r"\dots{}",
}  # fmt: skip
_SPECIAL = re.compile("|".join(map(re.escape, _LATEX)))


def latex_text(text: str) -> str:
    """Text as LaTeX takes it."""
    return _SPECIAL.sub(lambda found: _LATEX[found[0]], text)


def latex_table(header: Sequence[str], lines: Sequence[Sequence[str]], notes: Sequence[str], caption: str) -> str:
    """A table for a paper, with booktabs; notes below it."""
    columns = "l" * min(2, len(header)) + "r" * max(0, len(header) - 2)
    rows = [" & ".join(map(latex_text, line)) + r" \\" for line in (header, *lines)]
    text = [
        r"% \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{latex_text(caption)}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        rows[0],
        r"\midrule",
        *rows[1:],
        r"\bottomrule",
        r"\end{tabular}",
    ]
    if notes:
        text += [r"\par\smallskip\footnotesize", *(latex_text(note) + r"\par" for note in notes)]
    return "\n".join([*text, r"\end{table}"]) + "\n"


def latex(compared: Compared) -> str:
    """A LaTeX table, verdicts and notes below it."""
    header, lines = table_of(compared)
    return latex_table(header, lines, footnotes(compared), f"{', '.join(compared.sweeps)}: {compared.metric}")


def csv_text(compared: Compared) -> str:
    """A line a row and baseline, every figure unrounded."""
    data = compared.to_json()
    described = ["label", "variant", "mean", "sd", "n", "tuned", "tuning_trials", "averaged_over"]
    compares = ["baseline", "method", "difference", "p", "p_holm", "p_equivalence", "probability_of_improvement"]
    compares += ["verdict", "seeds_needed", "baseline_smaller_budget"]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    ends = ["ci95_low", "ci95_high"]
    header = ["metric", *described, *ends, "values", "seeds", "missing", "settings", *compares]
    writer.writerow([*header, "difference_ci95_low", "difference_ci95_high"])
    for row in data["rows"]:
        own = [one for one in data["comparisons"] if one["row"] == row["label"]]
        for one in own or [{}]:
            lists = [" ".join(map(repr, row["values"])), " ".join(map(str, row["seeds"]))]
            rest = [json.dumps(row["missing"]), json.dumps(row["settings"])]
            cells = [data["metric"], *(row[name] for name in described), *(row["ci95"] or ["", ""]), *lists, *rest]
            writer.writerow([*cells, *(one.get(name) for name in compares), *(one.get("ci95") or ["", ""])])
    return buffer.getvalue()


def json_text(compared: Compared) -> str:
    """All of it."""
    return json.dumps(compared.to_json(), indent=2, ensure_ascii=False) + "\n"


FORMATS: dict[str, Callable[[Compared], str]] = {
    "markdown": markdown,
    "latex": latex,
    "csv": csv_text,
    "json": json_text,
}
