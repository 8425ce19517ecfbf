"""The sections of a whole sweep: from its ledger and what its trials left behind to its page."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.analysis.helpers import GRID, SEARCH, MadeUp, made_up, trained
from wsl_sweep.analysis import leftovers
from wsl_sweep.analysis.report import render_diagnosis
from wsl_sweep.analysis.report_data import EarlyStopping, Named, Report
from wsl_sweep.analysis.report_sections import Section
from wsl_sweep.analysis.report_why import Classes, why_sections
from wsl_sweep.analysis.report_why import sections as module
from wsl_sweep.analysis.summary import build_summary
from wsl_sweep.app import reporting
from wsl_sweep.app.reporting import final_comparison
from wsl_sweep.app.results import best_student
from wsl_sweep.errors import StorageError
from wsl_sweep.spec.plan import Trial
from wsl_sweep.storage import place
from wsl_sweep.training.files import REGULARIZATION_SAMPLES, TEACHER_LOGITS, packed, teacher_logits_name

EXAMPLES, CLASSES, EPOCHS = 24, 3, 5
LABELS = np.arange(EXAMPLES) % CLASSES
IDS = np.arange(EXAMPLES)
ALL = [
    "early-stopping-replay",
    "regularization-who",
    "regularization-claim",
    "teacher",
    "bias-variance-seeds",
    "resemblances",
    "sensitivity",
]
WITHOUT_FILES = ["early-stopping-replay", "regularization-claim", "sensitivity"]

LONG = SEARCH.replace("trials: 6", "trials: 10").replace("recipe: digits", "recipe: digits, schedule: {epochs: 5}")


def told(trial: Trial) -> dict[str, Any]:
    """As trained, with regularization samples where there is a teacher."""
    whole = trained(trial)
    share = {"regularization_samples/fraction": 1 - whole["metrics"]["validation/accuracy"]}
    return {**whole, "metrics": {**whole["metrics"], **(share if trial.teacher_id is not None else {})}}


def leave_behind(sweep: MadeUp) -> None:
    """Masks and logits of every trial, and logits of their teachers, as trainings leave them."""
    for one in sweep.state.trials.values():
        trial, folder = one.trial, sweep.folder / "trials" / one.trial.trial_id
        folder.mkdir(parents=True, exist_ok=True)
        generator = np.random.default_rng(int(trial.trial_id[:8], 16))
        save_file(kept("logits", _logits(generator)), folder / "validation_logits.safetensors")
        if trial.teacher_id is not None:
            masks = generator.random((EPOCHS, EXAMPLES)) < 0.4
            save_file(kept("masks", packed(masks)), folder / REGULARIZATION_SAMPLES)
            where = sweep.folder / TEACHER_LOGITS
            where.mkdir(exist_ok=True)
            of_teacher = _logits(np.random.default_rng(7))
            save_file(kept("logits", of_teacher), where / teacher_logits_name(trial.teacher_id, IDS, LABELS))


def _logits(generator: np.random.Generator) -> np.ndarray:
    return generator.normal(size=(EXAMPLES, CLASSES)).astype(np.float32)


def kept(name: str, array: np.ndarray) -> dict[str, np.ndarray]:
    return {name: array, "labels": LABELS, "ids": IDS}


def rows_of(sweep: MadeUp) -> Callable[[str], list[dict[str, float]]]:
    """Curves that rise to what the ledger says."""

    def rows(trial_id: str) -> list[dict[str, float]]:
        known = sweep.state.trials[trial_id]
        last = known.metrics["validation/accuracy"]
        share = known.metrics.get("regularization_samples/fraction")
        return [
            {
                "epoch": float(epoch),
                "validation/accuracy": last * epoch / known.trial.epochs,
                "validation/loss": 1 - last * epoch / known.trial.epochs,
                **({} if share is None else {"regularization_samples/fraction": share / epoch}),
            }
            for epoch in range(1, known.trial.epochs + 1)
        ]

    return rows


def sections_of(sweep: MadeUp, **more: Any) -> list[Section]:
    records = sweep.records()
    summary = build_summary(sweep.spec, sweep.state, uuid="u")
    known = {"best_of": lambda: best_student(summary, distilled=True), **more}
    return why_sections(
        sweep.spec,
        sweep.state,
        records,
        final_comparison(records),
        rows_of(sweep),
        place(sweep.folder),
        **known,
    )


@pytest.fixture(scope="module")
def searched_whole(tmp_path_factory: pytest.TempPathFactory) -> MadeUp:
    made = made_up(LONG, tmp_path_factory.mktemp("whole"), told)
    leave_behind(made)
    return made


def test_a_search_that_left_everything_behind_has_all_sections(searched_whole: MadeUp) -> None:
    found = sections_of(searched_whole, classes_of=lambda dataset: Classes(("cat", "<b>dog</b>", "car")))
    assert [one.key for one in found] == ALL
    for one in found:
        assert one.answer
        assert one.pictures
        assert one.tables
        assert one.notes
    (teacher,) = (one for one in found if one.key == "teacher")
    attained = {row[-1].text for row in teacher.tables[1].table.rows}
    assert all(re.fullmatch("(cat|<b>dog</b>|car), where (cat|<b>dog</b>|car) is true", text) for text in attained)
    page = render_diagnosis("why", found).html
    assert "<b>dog" not in page
    assert "&lt;b&gt;dog" in page


def test_the_numbers_are_those_of_the_files(searched_whole: MadeUp) -> None:
    sections = {one.key: one for one in sections_of(searched_whole)}
    row = sections["regularization-who"].tables[0].table.rows[0]
    (variant,) = (one for one in searched_whole.state.rows if one["variant"] == row[0].text)
    shares = []
    for trial_id in variant["trial_ids"]:
        generator = np.random.default_rng(int(trial_id[:8], 16))
        generator.normal(size=(EXAMPLES, CLASSES))
        shares.append((generator.random((EPOCHS, EXAMPLES)) < 0.4)[0].mean())
    assert row[1].text == f"{100 * np.mean(shares):.1f} %"
    (claim, mean) = sections["regularization-claim"].tables[0].table.rows
    assert [claim[0].text, claim[2].text, claim[5].text] == ["4", "−1.00", "supported"], "they were made so"
    finished = [one for one in searched_whole.state.trials.values() if one.trial.teacher_id is not None]
    assert claim[4].text == mean[4].text == str(len(finished))
    assert {cell.text for cell in sections["sensitivity"].tables[0].table.rows[0][:1]} == {"α"}
    assert "0% of orders" in sections["early-stopping-replay"].tables[0].table.rows[-1][-2].text, "no curve crosses"


def test_without_files_what_needs_none_is_there(tmp_path: Path) -> None:
    made = made_up(LONG, tmp_path, told)
    assert [one.key for one in sections_of(made)] == WITHOUT_FILES


def test_damaged_and_missing_files_are_passed_over(tmp_path: Path) -> None:
    made = made_up(LONG, tmp_path, told)
    leave_behind(made)
    (first, second, *_) = (row for row in made.state.rows if row["variant"] in ("wsl", "kd"))
    folder = made.folder / "trials"
    (folder / first["trial_ids"][0] / REGULARIZATION_SAMPLES).write_bytes(b"nothing")
    for trial_id in second["trial_ids"]:
        (folder / trial_id / REGULARIZATION_SAMPLES).unlink()
    for file in (made.folder / TEACHER_LOGITS).iterdir():
        file.write_bytes(file.read_bytes()[:-9])
    found = {one.key: one for one in sections_of(made)}
    assert "resemblances" not in found
    labels = [row[0].text for row in found["regularization-who"].tables[0].table.rows]
    assert first["variant"] in labels
    assert len(labels) == len({row["variant"] for row in made.state.rows} - {"ce", second["variant"]})
    assert any("2 of 3 seeds" in note for note in found["regularization-who"].notes)


def test_a_store_that_does_not_answer_costs_a_section_at_most(
    searched_whole: MadeUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(*_: object) -> None:
        raise StorageError("cannot read s3://bucket: timed out")

    monkeypatch.setattr(leftovers, "_arrays", silent)
    said: list[str] = []
    found = sections_of(searched_whole, say=said.append)
    assert [one.key for one in found] == WITHOUT_FILES
    assert said == [
        f"the report says nothing of {what}: StorageError: cannot read s3://bucket: timed out"
        for what in ("the teacher", "bias and variance", "resemblances")
    ]


MAKERS = dict(
    zip(
        (
            "replay_section",
            "who_section",
            "claim_section",
            "teacher_sections",
            "bias_variance_sections",
            "resemblances_section",
            "sensitivity_section",
        ),
        ALL,
        strict=True,
    )
)


def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sections of nothing but their keys, made at once."""
    for name, key in MAKERS.items():
        monkeypatch.setattr(module, name, lambda *_, key=key, **__: Section(key, key, "because"))


@pytest.mark.parametrize("broken", MAKERS)
def test_a_section_that_fails_costs_nothing_else(
    searched_whole: MadeUp, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    quick(monkeypatch)

    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("\n no such thing at https://me:secret@host/x \nand more")

    monkeypatch.setattr(module, broken, fails)
    said: list[str] = []
    found = sections_of(searched_whole, say=said.append)
    assert [one.key for one in found] == [key for name, key in MAKERS.items() if name != broken]
    (text,) = said
    assert re.match("the report says nothing of [^:]+: RuntimeError: no such thing at", text)
    assert "secret" not in text


def test_rows_that_cannot_be_read_cost_the_sections_that_need_them(searched_whole: MadeUp) -> None:
    def unreadable(trial_id: str) -> list[dict[str, float]]:
        raise StorageError("gone")

    records = searched_whole.records()
    said: list[str] = []
    found = why_sections(
        searched_whole.spec, searched_whole.state, records, final_comparison(records), unreadable,
        place(searched_whole.folder), say=said.append,
    )  # fmt: skip
    assert [one.key for one in found] == ["regularization-who", "teacher", "bias-variance-seeds", "sensitivity"]
    assert len(said) == 2


def test_an_ablation_has_no_sensitivity_and_its_variants_take_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = made_up(GRID, tmp_path, told)
    leave_behind(made)
    monkeypatch.setattr(module, "MOST_ROWS", 3)
    found = {one.key: one for one in sections_of(made)}
    assert "sensitivity" not in found
    assert any("An ablation" in note for note in found["early-stopping-replay"].notes)
    labels = [row[0].text for row in found["regularization-who"].tables[0].table.rows]
    assert [label.split()[0] for label in labels] == ["kd", "wsl", "kd"], "ce has no teacher"
    assert any("3 of 4 rows" in note for note in found["regularization-who"].notes)
    assert {row[0].text for row in found["regularization-claim"].tables[0].table.rows} == {"2", "4"}


def test_of_a_sweep_that_has_hardly_begun_nothing_is_said(tmp_path: Path) -> None:
    for most in (0, 1):
        made = made_up(LONG, tmp_path / str(most), told, most=most, end="stopped")
        said: list[str] = []
        assert [one.key for one in sections_of(made, say=said.append)] in ([], ["regularization-claim"])
        assert said == []


def test_a_margin_of_another_unit_is_no_margin(tmp_path: Path) -> None:
    text = LONG.replace("trials: 10", "trials: 10, metric: validation/loss")
    found = {one.key: one for one in sections_of(made_up(text, tmp_path, told))}
    assert any("not in the unit of validation/loss" in note for note in found["early-stopping-replay"].notes)
    assert "lost of validation/accuracy" in found["sensitivity"].pictures[0].svg


def test_the_report_has_them_and_says_what_is_missing(searched_whole: MadeUp, monkeypatch: pytest.MonkeyPatch) -> None:
    quick(monkeypatch)
    stopping = EarlyStopping(kind="none", sentence="No scheduler.")
    monkeypatch.setattr(
        "wsl_sweep.analysis.reporting.build_report",
        lambda *_: Report("s", early_stopping=stopping, costs=(Named("by the clock", "1 s"),), notes=("a note",)),
    )
    plan = {"uuid": "u", "created": "now", "command_line": {}}
    sweep = searched_whole.records()

    def page() -> tuple[Any, list[str]]:
        said: list[str] = []
        made = reporting.report_page(
            searched_whole.spec, searched_whole.state, place(searched_whole.folder), plan, sweep,
            final_comparison(sweep), said.append,
        )  # fmt: skip
        return made, said

    whole, said = page()
    assert said == []
    places = [whole.html.index(f'<section id="{key}">') for key in ("stopping", *ALL, "costs")]
    assert places == sorted(places)

    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("<b>no</b>")

    monkeypatch.setattr(module, "sensitivity_section", fails)
    without, said = page()
    assert said == ["the report says nothing of sensitivity: RuntimeError: <b>no</b>"]
    assert "&lt;b&gt;no&lt;/b&gt;" in without.html
    assert "<li>a note</li>" in without.html
    assert '<section id="sensitivity">' not in without.html
