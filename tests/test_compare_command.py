"""``wsl-sweep compare`` on made-up sweeps: every format, every mistake."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.analysis.helpers import GRID, SEARCH, MadeUp, but, made_up
from tests.analysis.test_from_mlflow import write
from tests.spec.helpers import run_command
from wsl_sweep.app import compare_sweeps
from wsl_sweep.cli import main


class Answer:
    """What a command ended with, and what it wrote."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def flat(self) -> str:
        """Standard output in one line."""
        return re.sub(r"\s+", " ", self.out)


Command = Callable[..., Answer]


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with sweeps under ``runs``; nothing is written to it but by fixtures."""
    folder = tmp_path_factory.mktemp("compared")
    for sweep in (
        made_up(GRID, folder / "runs", but((lambda trial: trial.seed == 3 and "wsl" in trial.variants, "failed"))),
        made_up(SEARCH, folder / "runs"),
        made_up(SEARCH.replace("name: search", "name: begun"), folder / "runs", most=6, end="stopped"),
        made_up(GRID.replace("name: grid", "name: dead"), folder / "runs", most=6, end=None),
    ):
        sweep.write_folder()
    return folder


@pytest.fixture
def wsl(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """``wsl-sweep compare ARGUMENTS`` in this process and that folder; checks its exit code."""
    monkeypatch.chdir(place)
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("TERM", "dumb")
    before = sorted(place.rglob("*"))

    def run(*arguments: str, expect: int = 0) -> Answer:
        monkeypatch.setattr(sys, "argv", ["wsl-sweep", "compare", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        code = ended.value.code
        assert code == expect, f"{out}\n{err}"
        assert "Traceback" not in out + err
        assert "a bug, please report it" not in err
        assert sorted(place.rglob("*")) == before, "compare writes nothing"
        return Answer(int(code or 0), out, err)

    return run


# --- what it prints ---------------------------------------------------------------------------------------------------


def test_the_terminal_has_rows_comparisons_verdicts_and_notes(wsl: Command) -> None:
    answer = wsl("search", "--baseline", "kd (untuned)")
    for expected in (
        "variant",
        "settings",
        "test/accuracy",
        "95 % interval",
        "over seeds and examples",
        "tuning trials",
    ):
        assert expected in answer.out
    assert re.search(r"kd \(untuned\)† +0\.\d{4}", answer.out)
    assert re.search(r"wsl +kd \(untuned\)† +[−+]0\.\d{4} .* 3 pairs +\w+†", answer.out)
    assert "kd (untuned) was not tuned, wsl by" in answer.flat
    assert "The intervals are over the student's seeds" in answer.flat
    assert answer.err == ""


def test_lost_seeds_are_in_the_table_and_in_the_notes(wsl: Command) -> None:
    answer = wsl("grid")
    assert re.search(r"wsl +temperature=2 +0\.\d{4} .* 2 .* 1 failed", answer.out)
    assert (
        "counted and left out of the means: wsl temperature=2 (1 failed); wsl temperature=4 (1 failed)" in answer.flat
    )


def test_json_is_what_a_notebook_gets(wsl: Command) -> None:
    data = json.loads(wsl("grid", "search", "--by", "variant", "--baseline", "kd", "--format", "json").out)
    assert data == compare_sweeps(["grid", "search"], by=["variant"], baseline="kd").to_json()
    assert data["sweeps"] == ["grid", "search"]


def test_csv_is_read_back(wsl: Command) -> None:
    lines = list(csv.DictReader(io.StringIO(wsl("grid", "--format", "csv").out)))
    assert [line["label"] for line in lines] == [
        "ce", "ce", "kd temperature=2", "kd temperature=4", "wsl temperature=2", "wsl temperature=4",
    ]  # fmt: skip
    assert {line["verdict"] for line in lines} <= {"", "better", "worse", "equivalent", "inconclusive"}


def test_markdown_and_latex_are_tables(wsl: Command) -> None:
    markdown = wsl("grid", "--format", "markdown").out
    assert markdown.startswith("| variant | settings | test/accuracy |")
    assert "\n\n- ce " in markdown
    latex = wsl("grid", "--format", "latex").out
    assert "\\begin{tabular}" in latex
    assert latex.rstrip().endswith("\\end{table}")


def test_several_paths_by_comma_or_one_by_one(wsl: Command) -> None:
    one = wsl("grid", "--by", "variant,distillation.temperature", "--format", "json").out
    two = wsl("grid", "--by", "variant", "--by", "distillation.temperature", "--format", "json").out
    assert json.loads(one) == json.loads(two)
    assert [row["settings"] for row in json.loads(one)["rows"]][:2] == [{"distillation.temperature": "2.0"}] * 2


@pytest.mark.parametrize("value", ["2", "2.0"])
def test_conditions_choose_trials(wsl: Command, value: str) -> None:
    data = json.loads(wsl("grid", "--where", f"distillation.temperature={value}", "--format", "json").out)
    assert [row["label"] for row in data["rows"]] == ["kd", "wsl"]
    both = wsl("grid", "--where", f"distillation.temperature={value}", "--where", "variant=wsl", "--format", "json").out
    assert [row["label"] for row in json.loads(both)["rows"]] == ["wsl"]


def test_metric_and_margin_are_asked_for(wsl: Command) -> None:
    data = json.loads(wsl("grid", "--metric", "test/loss", "--margin", "0.5", "--format", "json").out)
    assert (data["metric"], data["mode"], data["margin"]) == ("test/loss", "min", 0.5)
    assert {one["verdict"] for one in data["comparisons"]} <= {"equivalent", "inconclusive"}


def test_a_sweep_named_twice_is_one(wsl: Command) -> None:
    assert wsl("grid", "grid", "--format", "json").out == wsl("grid", "--format", "json").out


def test_another_storage(wsl: Command, place: Path) -> None:
    found = wsl("grid", "--storage", str(place / "runs"), "--format", "json").out
    assert json.loads(found) == json.loads(wsl("grid", "--format", "json").out)


def test_a_sweep_whose_driver_died_is_said_to_have_stopped(wsl: Command) -> None:
    data = json.loads(wsl("dead", "--metric", "validation/accuracy", "--format", "json").out)
    assert any("dead is not at its end (stopped)" in note for note in data["notes"])
    assert [row["label"] for row in data["rows"]] == ["ce", "kd"]


def test_a_search_on_its_way_is_looked_at_by_stage(wsl: Command) -> None:
    asked = ("begun", "--where", "stage=search", "--metric", "validation/accuracy", "--format", "json")
    data = json.loads(wsl(*asked).out)
    assert {row["n"] for row in data["rows"]} == {1}
    assert {one["verdict"] for one in data["comparisons"]} == {None}


# --- from a tracking server -------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def server(place: Path, tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Path:
    """A folder with an MLflow store of the search and of the grid whose driver died, and with nothing else."""
    folder = tmp_path_factory.mktemp("elsewhere")
    shutil.copy(empty_database, folder / "mlflow.db")
    here = Path.cwd()
    os.chdir(folder)
    try:
        for text, name in ((SEARCH, "search"), (GRID.replace("name: grid", "name: dead"), "dead")):
            again = made_up(text, place / "runs", most=0, end=None)  # reads the ledger that is there
            assert again.spec.name == name
            write(again, f"sqlite:///{folder / 'mlflow.db'}", status="stopped" if name == "dead" else None)
    finally:
        os.chdir(here)
    return folder


@pytest.mark.parametrize(
    "asked",
    [
        ("search",), ("search", "--by", "variant", "--baseline", "ce"), ("search", "--where", "stage=search"),
        ("dead", "--metric", "validation/loss"), ("search", "dead", "--metric", "validation/accuracy"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("shape", ["json", "terminal"])
def test_from_mlflow_is_from_the_ledger(wsl: Command, server: Path, asked: tuple[str, ...], shape: str) -> None:
    ledger = wsl(*asked, "--format", shape).out
    there = wsl(*asked, "--format", shape, "--from-mlflow", f"sqlite:///{server / 'mlflow.db'}")
    assert there.out == ledger
    assert there.err == ""


# --- mistakes ---------------------------------------------------------------------------------------------------------

MISTAKES: list[tuple[tuple[str, ...], str]] = [
    (("nowhere",), "no sweep in runs/nowhere; sweeps in runs: begun, dead, grid, search"),
    (("../grid",), "'../grid' is no name of a sweep"),
    (("",), "'' is no name of a sweep"),
    (("grid", "--format", "mrkdown"), 'no format is called "mrkdown"; did you mean "markdown"'),
    (("grid", "--metric", "test/acuracy"), 'no metric is called "test/acuracy"; did you mean "test/accuracy"'),
    (("grid", "--baseline", "dk"), 'no row is called "dk"'),
    (("grid", "--baseline", ""), 'no row is called ""'),
    (("grid", "--by", "temperature"), 'no trial has a "temperature"; did you mean "distillation.temperature"'),
    (("grid", "--by", ""), 'no trial has a ""'),
    (("grid", "--where", "variant"), "--where variant: a condition is path=value"),
    (("grid", "--where", "varient=kd"), 'no trial has a "varient"; did you mean "variant"'),
    (("grid", "--where", "variant=dk"), "grid: no trial with variant=dk; variant is one of ce, kd, wsl"),
    (("grid", "--margin", "0"), "--margin 0: the smallest difference that matters is above 0"),
    (("grid", "--margin", "nan"), "--margin nan: the smallest difference that matters is above 0"),
    (("begun",), "begun: no final table yet; look at the search by --where stage=search"),
    (("grid", "--from-mlflow", ""), "--from-mlflow: give the address of a tracking server"),
    (("grid", "--from-mlflow", "sqlite:///typo.db"), "there is no typo.db"),
    (
        ("grid", "--from-mlflow", "http://user:hunter2@127.0.0.1:9"),
        "MLflow at http://127.0.0.1:9: http://127.0.0.1:9: ",
    ),
]


@pytest.mark.parametrize(("arguments", "said"), MISTAKES, ids=[" ".join(one) for one, _ in MISTAKES])
def test_a_mistake_is_said_and_ends_with_2(wsl: Command, arguments: tuple[str, ...], said: str) -> None:
    answer = wsl(*arguments, expect=2)
    assert answer.out == ""
    assert answer.err.startswith(f"wsl-sweep: {said}")
    assert "hunter2" not in answer.err
    assert answer.err.count("\n") == 1


@pytest.mark.parametrize("arguments", [(), ("grid", "--margin", "much"), ("grid", "--nonsense")])
def test_a_wrong_command_line_ends_with_2(wsl: Command, arguments: tuple[str, ...]) -> None:
    assert "Usage:" in wsl(*arguments, expect=2).err


def test_a_name_that_mlflow_does_not_have(wsl: Command, server: Path) -> None:
    answer = wsl("grid", "--from-mlflow", f"sqlite:///{server / 'mlflow.db'}", expect=2)
    assert answer.err == "wsl-sweep: MLflow has no sweep grid; it has: dead, search\n"


@pytest.mark.parametrize("damage", ["plan.json", "sweep.yaml"])
def test_a_damaged_sweep_is_said(tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    sweep: MadeUp = made_up(GRID, tmp_path / "runs")
    sweep.write_folder()
    (sweep.folder / damage).write_text("{")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["wsl-sweep", "compare", "grid"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "grid" in capsys.readouterr().err


def test_a_damaged_ledger_is_read_as_far_as_it_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = made_up(GRID, tmp_path / "runs")
    sweep.write_folder()
    segments = sorted((sweep.folder / "ledger").iterdir())
    for number, segment in enumerate(segments):
        if number % 5 == 0:
            segment.write_text('[{"event": "finished", "trial_id": 3')
    monkeypatch.chdir(tmp_path)
    found = compare_sweeps(["grid"], metric="validation/accuracy")
    assert sum(len(row.values) for row in found.rows) < 15
    assert any("not run" in row.missing or "not finished" in row.missing for row in found.rows)


def test_it_starts_neither_torch_nor_ray_nor_mlflow(place: Path) -> None:
    """It is asked often, and answers in a second."""
    done = run_command(place, "compare", "grid", "--format", "csv", python=("-X", "importtime"))
    assert done.returncode == 0, done.stderr
    imported = {line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if "|" in line}
    assert "wsl_sweep.analysis.comparison" in imported
    assert not imported & {
        "torch",
        "ray",
        "mlflow",
        "sklearn",
        "scipy.stats",
        "statsmodels",
        "matplotlib",
        "optuna",
        "pandas",
    }


def test_a_reader_that_is_gone_is_no_traceback(place: Path) -> None:
    """``wsl-sweep compare grid | true``"""
    command = [sys.executable, "-m", "wsl_sweep", "compare", "grid", "--format", "json"]
    process = subprocess.Popen(command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()
    assert process.wait(60) == 1
