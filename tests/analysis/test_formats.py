"""Tables as Markdown, LaTeX, CSV and JSON: read back, and with names that try to break them."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.analysis.helpers import MadeUp, ablation
from wsl_sweep.analysis import Compared, compare
from wsl_sweep.analysis.formats import (
    FORMATS,
    comparison_table,
    csv_text,
    footnotes,
    json_text,
    latex,
    latex_text,
    markdown,
    markdown_text,
    row_table,
    tables_of,
)
from wsl_sweep.spec.sections import CompareSection

NASTY = [
    "a|b", "a\\|b", "\\", "*bold*", "_x_", "a_b", "`code`", "<script>", "[x](http://y)", "a\nb", "a & b % $1 #2",
    "{x}^2~y", '"quoted", comma', "=1+1", "α → τ", "[0]", "  spaces  ", "\\begin{x}", "|", "--",
]  # fmt: skip
"""No file may name a variant so, but a ledger or a tracking server is only data."""


def nasty() -> Compared:
    """A comparison of variants of such names."""
    table = {
        name: {seed: 0.8 + 0.01 * seed + 0.001 * number * seed for seed in range(3)}
        for number, name in enumerate(NASTY)
    }
    return compare([ablation(table, name=NASTY[0], compare=CompareSection(baseline="a|b"))])


def of_both_kinds(searched: MadeUp, gridded: MadeUp) -> list[Compared]:
    lost = ablation({"kd": {0: 0.9, 1: "failed", 2: "pruned"}, "wsl": {0: 0.95, 1: 0.94, 2: 0.99}})
    return [
        compare([searched.records()]), compare([gridded.records()]), compare([gridded.records()], by=["variant"]),
        compare([lost]), compare([ablation({"kd": {0: 0.9}}, compare=CompareSection())]), nasty(),
    ]  # fmt: skip


# --- as people read them ----------------------------------------------------------------------------------------------


def test_tables_are_rectangles(searched: MadeUp, gridded: MadeUp) -> None:
    for compared in of_both_kinds(searched, gridded):
        for header, lines in tables_of(compared):
            assert all(len(line) == len(header) for line in lines)
        assert len(row_table(compared)[1]) == len(compared.rows)
        assert len(comparison_table(compared)[1]) == len(compared.comparisons)


def test_each_column_of_a_table_has_a_name_of_its_own(searched: MadeUp, gridded: MadeUp) -> None:
    for compared in of_both_kinds(searched, gridded):
        for header, _ in tables_of(compared):
            assert len(set(header)) == len(header)


def test_a_row_that_meets_several_baselines_has_a_line_for_each(gridded: MadeUp) -> None:
    _, (header, lines) = tables_of(compare([gridded.records()]))
    assert header[:2] == ["", "against"]
    assert [line[:2] for line in lines] == [
        ["ce", "kd temperature=2"], ["ce", "kd temperature=4"], ["wsl temperature=2", "kd temperature=2"],
        ["wsl temperature=4", "kd temperature=4"],
    ]  # fmt: skip


def test_nothing_to_compare_is_one_table() -> None:
    compared = compare([ablation({"wsl": {0: 0.9, 1: 0.8}})])
    assert [header[0] for header, _ in tables_of(compared)] == ["variant"]
    assert latex(compared).count("tabular}") == 2


def test_what_is_missing_is_a_column() -> None:
    header, lines = row_table(compare([ablation({"kd": {0: 0.9, 1: 0.8}, "wsl": {0: 0.9, 1: "failed"}})]))
    assert [line[header.index("missing")] for line in lines] == ["", "1 failed"]
    header, _ = row_table(compare([ablation({"kd": {0: 0.9, 1: 0.8}})]))
    assert "missing" not in header


def test_a_row_without_a_value_is_in_the_table() -> None:
    header, lines = row_table(compare([ablation({"kd": {0: 0.9, 1: 0.8}, "wsl": {0: "failed", 1: "pruned"}})]))
    assert dict(zip(header, lines[1], strict=True)) == {
        "variant": "wsl", "settings": "", "test/accuracy": "", "sd": "", "95 % interval": "", "n": "0",
        "missing": "1 failed, 1 pruned",
    }  # fmt: skip


@pytest.mark.parametrize("baseline", ["kd (untuned)", "kd"])
def test_a_smaller_tuning_budget_is_marked_in_every_table(searched: MadeUp, baseline: str) -> None:
    compared = compare([searched.records()], baseline=baseline)
    untuned = {"kd (untuned)", "ce"} if baseline == "kd" else {"kd (untuned)"}
    _, rows = row_table(compared)
    assert {line[0].removesuffix("†") for line in rows if line[0].endswith("†")} == untuned
    _, comparisons = comparison_table(compared)
    for line, one in zip(comparisons, compared.comparisons, strict=True):
        unlike = one.smaller_budget or one.row_smaller_budget
        assert line[-1].endswith("†") == unlike
        assert line[1].endswith("†") == one.smaller_budget
        assert line[0].endswith("†") == one.row_smaller_budget
    assert "† had a smaller tuning budget than what it is compared with" in footnotes(compared)
    for name, text in FORMATS.items():
        written = text(compared)
        assert {"csv": "True", "json": "true", "latex": r"$\dagger$", "markdown": "†"}[name] in written
        assert "part of the difference may be the tuning" in written


def test_equal_budgets_are_not_marked(gridded: MadeUp) -> None:
    assert "†" not in markdown(compare([gridded.records()]))


def test_notes_and_verdicts_stand_below() -> None:
    compared = compare([ablation({"kd": {0: 0.9, 1: 0.8}, "wsl": {0: 0.9, 1: "failed"}})])
    notes = footnotes(compared)
    assert notes[0].startswith("wsl against kd: no verdict (wsl has one seed (1 failed)")
    assert set(compared.notes) <= set(notes)


# --- Markdown ---------------------------------------------------------------------------------------------------------


def read_markdown(text: str) -> list[list[str]]:
    """The cells of a table, as GitHub reads them: a pipe behind a backslash is none, and escapes are taken away."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    found = []
    for line in lines:
        assert line.endswith("|")
        cells, rest = [""], line[1:-1]
        while rest:
            if rest[0] == "\\" and rest[1:2] and not rest[1].isalnum():
                cells[-1], rest = cells[-1] + rest[1], rest[2:]
            elif rest[0] == "|":
                cells, rest = [*cells, ""], rest[1:]
            else:
                cells[-1], rest = cells[-1] + rest[0], rest[1:]
        found.append([cell.strip() for cell in cells])
    return found


def test_markdown_is_read_back(searched: MadeUp, gridded: MadeUp) -> None:
    for compared in of_both_kinds(searched, gridded):
        expected = []
        for header, cells in (row_table(compared), comparison_table(compared)):
            lines = [[" ".join(cell.split()) for cell in line] for line in cells]
            expected += [header, ["---"] * len(header), *lines] if lines else []
        assert read_markdown(markdown(compared)) == expected


def test_markdown_notes_are_one_line_each() -> None:
    compared = nasty()
    below = markdown(compared).rsplit("\n\n", 1)[1].splitlines()
    assert len(below) == len(footnotes(compared))
    assert all(line.startswith("- ") for line in below)


def test_markdown_takes_nothing_for_markup() -> None:
    for name in NASTY:
        bare = re.sub(r"\\.", "", markdown_text(name))
        assert not re.search(r"[|`*\[\]\\]|<[A-Za-z]|(?<!\w)_|_(?!\w)", bare), name


def test_ordinary_names_stay_readable_in_markdown() -> None:
    for name in (
        "tab6_label_smoothing",
        "kd (untuned)",
        "alpha=2.31 weighting.kind=exp",
        "p < 0.0001",
        "95 % interval",
    ):
        assert markdown_text(name) == name


# --- LaTeX ------------------------------------------------------------------------------------------------------------


def balanced(text: str) -> bool:
    depth = 0
    for brace in re.findall(r"(?<!\\)[{}]", text.replace(r"\\", "")):
        depth += 1 if brace == "{" else -1
        if depth < 0:
            return False
    return depth == 0


def test_latex_has_as_many_cells_as_columns(searched: MadeUp, gridded: MadeUp) -> None:
    for compared in of_both_kinds(searched, gridded):
        text = latex(compared)
        written = text.split("\\begin{tabular}")[1:]
        for table, (header, lines) in zip(written, tables_of(compared), strict=True):
            columns = re.match(r"\{([lr]+)\}", table)
            assert columns is not None
            assert len(columns[1]) == len(header)
            body = table.split("\\toprule\n")[1].split("\\bottomrule")[0].replace("\\midrule\n", "")
            rows = [line for line in body.splitlines() if line]
            assert len(rows) == len(lines) + 1
            for row in rows:
                assert row.endswith(r" \\")
                assert len(re.findall(r"(?<!\\)&", row)) == len(header) - 1
        assert balanced(text)


def test_latex_has_no_bare_special() -> None:
    for name in NASTY:
        text = latex_text(name)
        assert balanced(text), name
        bare = re.sub(r"\\[&%$#_{}]|\\text[a-z]+\{\}|\\dots\{\}|\$\\?[a-z-]+\$|\{[\[\]*]\}", "", text)
        assert not re.search(r"[\\&%$#_{}~^|<>\[\]*\n]", bare), (name, text)


@given(st.text(alphabet=st.characters(codec="ascii", exclude_categories=["Cc"])))
def test_latex_of_any_text_is_balanced_and_in_a_line(text: str) -> None:
    written = latex_text(text)
    assert balanced(written)
    assert "\n" not in written


@pytest.mark.skipif(
    shutil.which("pdflatex") is None, reason="LaTeX is not installed: apt-get install texlive-latex-recommended"
)
def test_latex_compiles(tmp_path: Path, searched: MadeUp, gridded: MadeUp) -> None:
    tables = "\n".join(map(latex, of_both_kinds(searched, gridded)))
    document = f"\\documentclass{{article}}\n\\usepackage{{booktabs}}\n\\begin{{document}}\n{tables}\\end{{document}}\n"
    (tmp_path / "tables.tex").write_text(document, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "tables.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout[-3000:]


# --- CSV and JSON -----------------------------------------------------------------------------------------------------


def number_or_text(cell: str) -> Any:
    if cell in ("", "True", "False"):
        return {"": None, "True": True, "False": False}[cell]
    try:
        return float(cell)
    except ValueError:
        return cell


def test_the_csv_is_read_back_with_every_figure_unrounded(searched: MadeUp, gridded: MadeUp) -> None:
    for compared in of_both_kinds(searched, gridded):
        data = compared.to_json()
        lines = list(csv.DictReader(io.StringIO(csv_text(compared), newline="")))
        of_row: dict[str, list[dict[str, str]]] = {}
        for line in lines:
            assert None not in line
            of_row.setdefault(line["label"], []).append(line)
        assert list(of_row) == [row["label"] for row in data["rows"]]
        for row in data["rows"]:
            pairs = [one for one in data["comparisons"] if one["row"] == row["label"]]
            assert len(of_row[row["label"]]) == max(1, len(pairs))
            for line, one in zip(of_row[row["label"]], pairs or [{}], strict=True):
                check_line(line, row, one, data["metric"])


def check_line(line: dict[str, str], row: dict[str, Any], one: dict[str, Any], metric: str) -> None:
    assert line["metric"] == metric
    for name in ("mean", "sd", "n", "tuned", "tuning_trials", "averaged_over"):
        assert number_or_text(line[name]) == row[name], name
    assert [float(value) for value in line["values"].split()] == row["values"]
    assert [int(seed) for seed in line["seeds"].split()] == row["seeds"]
    assert json.loads(line["missing"]) == row["missing"]
    assert json.loads(line["settings"]) == row["settings"]
    ends = {"ci95": row["ci95"], "ci95_seeds_and_examples": row["ci95_seeds_and_examples"]}
    for name in ("ci95", "ci95_seeds_and_examples"):
        ends[f"difference_{name}"] = one.get(name)
    ends["probability_of_improvement_ci95"] = one.get("probability_of_improvement_ci95")
    for name, interval in ends.items():
        assert [number_or_text(line[f"{name}_{end}"]) for end in ("low", "high")] == (interval or [None, None]), name
    for name in (
        "difference", "df", "p", "p_holm", "p_equivalence", "probability_of_improvement", "seeds_needed",
        "baseline_smaller_budget", "row_smaller_budget", "common_seeds", "seeds_without_partner",
    ):  # fmt: skip
        assert number_or_text(line[name]) == one.get(name), name
    for name in ("baseline", "method", "verdict", "sentence"):
        assert line[name] == (one.get(name) or ""), name
    assert number_or_text(line["difference_sd"]) == one.get("sd")


def test_csv_keeps_any_name() -> None:
    lines = list(csv.DictReader(io.StringIO(csv_text(nasty()), newline="")))
    assert {line["variant"] for line in lines} == set(NASTY)


def test_the_json_is_the_comparison(searched: MadeUp, gridded: MadeUp) -> None:
    for compared in of_both_kinds(searched, gridded):
        assert json.loads(json_text(compared)) == json.loads(json.dumps(compared.to_json()))
    assert [row["variant"] for row in json.loads(json_text(nasty()))["rows"]] == NASTY


def test_figures_of_many_digits_are_kept() -> None:
    value = 0.12345678901234567
    compared = compare([ablation({"kd": {0: value, 1: 1 / 3}, ("wsl", 1.2345678901234567): {0: 2 / 3, 1: 1e-17}})])
    (kd, wsl) = json.loads(json_text(compared))["rows"]
    assert kd["values"] == [value, 1 / 3]
    assert wsl["settings"] == {"distillation.alpha": 1.2345678901234567}
    assert wsl["label"] == "wsl"
    (line, _) = csv.DictReader(io.StringIO(csv_text(compared)))
    assert line["values"] == f"{value!r} {1 / 3!r}"
