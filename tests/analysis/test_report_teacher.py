"""A teacher as a part of a page: what it says, of one teacher and of those of a sweep."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from tests.analysis.test_report_page import Reader
from tests.app.exported_sweep import MadeSweep
from wsl_sweep.analysis.diagnostics.soft_labels import soft_labels, stability
from wsl_sweep.analysis.found_teacher import FoundTeacher, compared, teacher_json
from wsl_sweep.analysis.report import render_diagnosis
from wsl_sweep.analysis.report_sections import Section
from wsl_sweep.analysis.report_teacher import TO_SWEEP, teacher_section, teacher_sections
from wsl_sweep.app.folders import state_of
from wsl_sweep.storage import place
from wsl_sweep.training.files import TEACHER_LOGITS, VALIDATION_LOGITS, teacher_logits_name

Logits = NDArray[np.float32]
Labels = NDArray[np.int64]


def teacher(classes: int = 10, towards: float = 3.0, seed: int = 0, examples: int = 400) -> tuple[Logits, Labels]:
    random = np.random.default_rng(seed)
    labels = np.arange(examples, dtype=np.int64) % classes
    logits = random.normal(size=(examples, classes)).astype(np.float32)
    logits[np.arange(examples), labels] += np.float32(towards)
    return logits, labels


def found(logits: Logits, labels: Labels, temperature: float = 4.0, **more: Any) -> FoundTeacher:
    soft = soft_labels(logits, labels, temperature)
    return FoundTeacher("3f2a00000000", "convnet_32", "validation", "digits", soft, **more)


def read(section: Section) -> Reader:
    return Reader(render_diagnosis("x", [section]).html)


def cells(section: Section, title: str) -> list[list[str]]:
    (one,) = [one.table for one in section.tables if one.title == title]
    return [[cell.text for cell in row] for row in one.rows]


def test_the_tables_have_the_figures_by_temperature_and_by_k() -> None:
    one = found(*teacher())
    section = teacher_section(one)
    soft = one.soft
    rows = {row[0]: row[1:] for row in cells(section, "Soft labels by temperature")}
    assert rows["accuracy"] == [f"{soft.plain.accuracy:.4f}"] * 3
    assert rows["calibration error (ECE)"] == [
        f"{part.error:.4f}" for part in (soft.plain, soft.scaled, soft.distilled)
    ]  # fmt: skip
    assert rows["entropy, nats"] == [f"{soft.at_one.entropy:.4f}", "–", f"{soft.softened.entropy:.4f}"]
    assert rows["mean probability of the label"][2] == f"{soft.softened.label:.4f}"
    by_k = cells(section, "Unreliability and ambiguity")
    assert [row[0] for row in by_k] == ["1", "2", "3", "4", "5"]
    for row, top in zip(by_k, soft.top, strict=True):
        assert row[1:4] == [f"{top.unreliability:.4f}", f"{top.ambiguity:.4f}", f"{top.total:.4f}"]
        assert row[4] == ("yes" if top.total < 1 else "no")
    page = read(section)
    assert page.headings == ["teacher"]
    assert f"{soft.plain.error:.4f}" in page.text
    assert f"1 - S is {soft.stability.spread:.4f}" in page.text


def test_at_a_temperature_of_one_nothing_is_said_twice() -> None:
    section = teacher_section(found(*teacher(), temperature=1.0))
    (table,) = [one.table for one in section.tables if one.title == "Soft labels by temperature"]
    assert len(table.columns) == 3
    assert all(len(row) == 3 for row in table.rows)
    (ranks,) = [one for one in section.pictures if one.title == "Mean probability by rank"]
    assert [name for name, _ in ranks.table.columns] == ["rank", "τ = 1"]


def test_a_teacher_that_is_always_right_has_no_best_temperature() -> None:
    section = teacher_section(found(*teacher(towards=30.0)))
    assert "there is no best temperature" in section.answer
    assert [one.title for one in section.pictures if "Reliability" in one.title] == ["Reliability at τ = 1"]
    read(section)


def test_two_classes_have_two_ks_and_two_ranks() -> None:
    section = teacher_section(found(*teacher(classes=2)))
    assert [row[0] for row in cells(section, "Unreliability and ambiguity")] == ["1", "2"]
    rows = {row[0]: row[1:] for row in cells(section, "Soft labels by temperature")}
    assert set(rows["… of the third highest"]) == {"–"}
    read(section)


@pytest.mark.parametrize(
    ("classes", "title"), [(40, "Mean soft label of each class"), (41, "What soft labels confuse")]
)
def test_of_many_classes_the_largest_confusions_are_drawn(classes: int, title: str) -> None:
    logits, labels = teacher(classes, examples=2050)
    logits[labels == 7, 31] = logits[labels == 7, 7] + 1
    section = teacher_section(found(logits, labels))
    (confused,) = [one for one in section.pictures if one.title == title]
    assert [cell.text for cell in confused.table.rows[0]][:2] == ["class 7", "class 31"]
    assert len(confused.table.rows) == 200
    (spread,) = [one for one in section.pictures if one.title == "1 - S by class"]
    assert f"The 15 least stable of {classes} classes" in spread.note
    assert len(spread.table.rows) == classes
    assert len(read(section).text) > 0


def test_a_class_without_examples_is_said_to_be_left_out_and_is_no_number_in_json() -> None:
    logits, labels = teacher()
    labels[labels == 4] = 5
    one = found(logits, labels)
    section = teacher_section(one)
    assert any("1 of 10 classes have no example here" in note for note in section.notes)
    whole = json.loads(json.dumps(teacher_json(one), allow_nan=False))
    assert whole["stability"]["by_class"][4] is None
    assert whole["softened"]["by_class"][4] == [None] * 10
    assert whole["class_names"] is None
    (spread,) = [one for one in section.pictures if one.title == "1 - S by class"]
    assert len(spread.table.rows) == 9
    read(section)


def test_one_example_is_enough_for_a_page() -> None:
    one = found(np.array([[1.0, 0.5, 0.0]]), np.array([0]))
    assert teacher_json(one)["calibration"]["gap_error"] is None
    section = teacher_section(one)
    assert any("The smallest class has 1 examples" in note for note in section.notes)
    read(section)


def test_warnings_come_with_what_to_sweep() -> None:
    logits, labels = teacher(towards=1.0)
    one = found(logits * np.float32(9), labels, settings={"schedule.epochs": 60, "label_smoothing": 0.0})
    section = teacher_section(one)
    assert section.warnings[0].startswith("The teacher is over-certain")
    paths = [row[0] for row in cells(section, "What to sweep")]
    assert paths[0] == "distillation.temperature"
    assert "teacher.schedule.epochs" in paths
    of_test = FoundTeacher("3f2a00000000", "convnet_32", "test", "digits", one.soft)
    assert of_test.to_sweep == ()  # nothing is chosen on the test part
    assert TO_SWEEP not in [captioned.title for captioned in teacher_section(of_test).tables]
    calm = teacher_section(found(*teacher()))
    assert calm.warnings == ()
    assert [one.title for one in calm.tables] == [
        "Soft labels by temperature", "Unreliability and ambiguity", "Stability within classes",
    ]  # fmt: skip


def test_what_classes_are_called_is_text() -> None:
    names = tuple(f"<img src=x{one}> $x^{one}$" for one in range(10))
    source = render_diagnosis("x", [teacher_section(found(*teacher(), class_names=names))]).html
    page = Reader(source)
    assert "img" not in {tag for tag, _ in page.elements}
    assert names[3] in page.text


@pytest.mark.parametrize(
    ("smoothing", "said"),
    [
        ((0.1, 0.0), "Below 0: the soft labels of this teacher vary more"),
        ((0.0, 0.1), "it is the other way round: of second"),
        ((0.1, 0.1), "Both have the same label smoothing (0.1)"),
        ((None, 0.1), "is not known"),
    ],
)
def test_the_second_teacher_is_told_of_in_words(smoothing: tuple[float | None, float | None], said: str) -> None:
    logits, labels = teacher(towards=1.0)
    own, theirs = stability(logits, labels), stability(logits / 2, labels)
    against = compared("second", own, theirs, smoothing)
    assert against.erased.value == pytest.approx(theirs.spread - own.spread)
    assert against.erased.value < 0
    section = teacher_section(found(logits, labels, against=against))
    assert said in section.answer
    rows = {row[0]: row[1] for row in cells(section, "Stability within classes")}
    assert rows["1 - S of second"] == f"{theirs.spread:.4f}"
    assert rows["erased information"] == f"−{abs(against.erased.value):.4f}"


# --- of a sweep ------------------------------------------------------------------------------------------------------

SWEEP = """
name: made
run: {recipe: digits, distillation: {temperature: 3.0}, schedule: {epochs: 1, milestones: []}}
variants: [kd, ce]
space: {teacher.label_smoothing: {grid: [0.0, 0.1]}}
seeds: 1
"""


def made(folder: Path, text: str = SWEEP, *, keep: int = 9, table: bool = True) -> MadeSweep:
    """A finished sweep that has kept what its first ``keep`` teachers and their students say."""
    sweep = MadeSweep(folder, text)
    teachers: dict[str, Logits] = {}
    for trial in sweep.trials:
        sweep.begin(trial)
        logits, labels = teacher(seed=99)
        arrays = {"logits": logits, "labels": labels, "ids": np.arange(len(labels))}
        save_file(arrays, sweep.trial_folder(trial) / VALIDATION_LOGITS)
        sweep.finish(trial, {"validation/accuracy": 0.5})
        if trial.teacher_id is None or trial.teacher_id in teachers:
            continue
        number = len(teachers)
        teachers[trial.teacher_id] = teacher(towards=3.0 + 2 * number, seed=number)[0]
        if number < keep:
            where = sweep.folder / TEACHER_LOGITS
            where.mkdir(exist_ok=True)
            name = teacher_logits_name(trial.teacher_id, arrays["ids"], labels)
            save_file({**arrays, "logits": teachers[trial.teacher_id]}, where / name)
    if table:
        rows = [{"variant": cell.variant, "overrides": dict(cell.overrides), "seeds": [0], "tuned": None,
                 "trial_ids": [trial.trial_id for trial in cell.trials]} for cell in sweep.cells]  # fmt: skip
        sweep.ledger.append("decided", rows=rows)
    sweep.ledger.append("sweep", status="finished")
    return sweep


def sections(sweep: MadeSweep) -> list[Section]:
    where = place(sweep.folder)
    return teacher_sections(sweep.spec, state_of(where), where)


@pytest.mark.parametrize("table", [True, False])
def test_a_sweep_tells_of_each_teacher_of_its_table_and_compares_the_smoothed_one(tmp_path: Path, table: bool) -> None:
    made_of = sections(made(tmp_path, table=table))
    assert [one.key for one in made_of] == ["teacher-a", "teacher-b"]
    assert made_of[0].title == "The teacher, label_smoothing = 0"
    assert made_of[1].title.startswith("The teacher, label_smoothing = 0.1")
    assert "erased information" not in made_of[0].answer
    plain, smoothed = (teacher(towards=3.0 + 2 * number, seed=number) for number in (0, 1))
    value = stability(*plain).spread - stability(*smoothed).spread
    assert f"is {value:.4f}" in made_of[1].answer
    assert "τ = 3 is that of the sweep's trials." in made_of[0].notes
    explained = [any("The calibration error is over" in note for note in one.notes) for one in made_of]
    assert explained == [True, False]  # once is enough
    page = Reader(render_diagnosis("x", made_of).html)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_one_teacher_is_the_teacher(tmp_path: Path) -> None:
    (one,) = sections(made(tmp_path, SWEEP.replace("space: {teacher.label_smoothing: {grid: [0.0, 0.1]}}\n", "")))
    assert (one.key, one.title) == ("teacher", "The teacher, convnet_32")
    assert math.isclose(float(cells(one, "Stability within classes")[0][1]), stability(*teacher()).spread, abs_tol=1e-4)


def test_of_more_than_three_teachers_three_are_told_of_and_that_is_said(tmp_path: Path) -> None:
    text = SWEEP.replace("teacher.label_smoothing: {grid: [0.0, 0.1]}", "teacher.seed: {grid: [0, 1, 2, 3, 4]}")
    made_of = sections(made(tmp_path, text))
    assert [one.key for one in made_of] == ["teacher-a", "teacher-b", "teacher-c"]
    assert any("The table has 5 teachers; 3 at most" in note for note in made_of[-1].notes)


def test_what_was_not_kept_is_left_out_and_said(tmp_path: Path) -> None:
    sweep = made(tmp_path, keep=1)
    (one,) = sections(sweep)
    absent = [trial.teacher_id for trial in sweep.trials if trial.teacher_id][1]
    assert any(f"What {absent} says of the validation part was not kept." in note for note in one.notes)
    assert one.title.startswith("The teacher, ")
    none = MadeSweep(tmp_path / "bare", "name: made\nrun: {recipe: digits}\nvariants: [ce]\n")
    assert sections(none) == []
    assert sections(made(tmp_path / "empty", keep=0)) == []
