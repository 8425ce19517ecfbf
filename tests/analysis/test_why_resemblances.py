"""Which classes distillation draws together: matrices worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from wsl_sweep.analysis.leftovers import Logits
from wsl_sweep.analysis.report import render_diagnosis
from wsl_sweep.analysis.report_sections import Section
from wsl_sweep.analysis.report_why import Classes, resemblances_section
from wsl_sweep.analysis.report_why import resemblances as module

PROBABILITIES = np.array([[0.7, 0.2, 0.1], [0.4, 0.5, 0.1], [0.06, 0.04, 0.9]])
"""What the teacher says of an example of each class: at τ = 1 M_ij is -p_t[i] for an example of j."""


NAMELESS = Classes()


def logits(probabilities: np.ndarray, labels: list[int]) -> Logits:
    lines = np.log(probabilities).astype(np.float32)
    return Logits(lines, np.array(labels), np.arange(len(labels)))


def section_of(classes: Classes = NAMELESS, temperature: float = 1.0, **more: bool) -> Section:
    labels = [0, 1, 2]
    student = logits(np.full((3, 3), 1 / 3), labels)
    found = resemblances_section(
        student, logits(PROBABILITIES, labels), temperature, classes, whose="the best student", **more
    )
    assert found is not None
    return found


def test_three_classes_by_hand() -> None:
    found = section_of(Classes(("cat", "dog", "car")))
    assert found.key == "resemblances"
    assert found.answer == (
        "Distillation draws together most strongly: cat and dog (0.3), cat and car (0.08) and dog and car (0.07)."
    )
    rows = [[cell.text for cell in row] for row in found.tables[0].table.rows]
    # cat → dog is M[dog, cat] = -0.2, dog → cat is M[cat, dog] = -0.4.
    assert rows[0] == ["cat · dog", "0.3000", "−0.2000", "−0.4000"]
    assert [row[0] for row in rows] == ["cat · dog", "cat · car", "dog · car"]
    (picture,) = found.pictures
    order = [row[0].text for row in picture.table.rows]
    assert order.index("car") in (0, 2), "those that resemble each other are neighbours"
    assert ">cat<" in picture.svg
    assert "1 validation examples" in found.warnings[0]
    assert len(found.warnings) == 1
    assert "trained on these examples" in section_of(seen=True).warnings[1]


def test_names_that_do_not_fit_are_numbers_and_markup_is_text() -> None:
    assert section_of(Classes(("cat", "dog"))).answer.startswith("Distillation draws together most strongly: 0 and 1")
    page = render_diagnosis("why", [section_of(Classes(("<b>cat</b>", "dog", "car")))]).html
    assert "<b>cat" not in page
    assert "&lt;b&gt;cat" in page


def test_superclasses_are_told_where_there_are_some() -> None:
    found = section_of(Classes(("cat", "dog", "car"), ("animal", "animal", "thing")))
    # Of three pairs one lies within a superclass, and with as many pairs as classes all are looked at.
    assert "1 of the 3 strongest pairs (33%) lie within a superclass, where chance gives 33.3%" in found.answer
    assert [row[-1].text for row in found.tables[0].table.rows] == ["both animal", "animal · thing", "animal · thing"]
    for useless in (("a", "b"), ("a", "b", "c"), ("a", "a", "a")):
        alone = section_of(Classes(("cat", "dog", "car"), useless))
        assert "superclass" not in alone.answer
        assert len(alone.tables[0].table.columns) == 4


def test_a_teacher_that_says_less_draws_nothing_together() -> None:
    labels = [0, 1]
    sure, unsure = np.array([[0.99, 0.01], [0.01, 0.99]]), np.array([[0.6, 0.4], [0.4, 0.6]])
    # τ (p_s - p_t) - p_s at τ = 4: the student, unsure, is pushed apart.
    found = resemblances_section(logits(unsure, labels), logits(sure, labels), 4.0, Classes(), whose="it")
    assert found is not None
    soft = [p**0.25 / (p**0.25 + (1 - p) ** 0.25) for p in (0.4, 0.01)]
    apart = 4 * (soft[0] - soft[1]) - 0.4
    assert apart > 0
    assert found.answer.startswith("The teacher teaches no two classes")
    assert [[cell.text for cell in row][1] for row in found.tables[0].table.rows] == [f"−{apart:.4f}"]


def test_classes_without_examples_are_grey_and_last() -> None:
    labels = [0, 1]
    found = resemblances_section(
        logits(np.full((2, 3), 1 / 3), labels), logits(PROBABILITIES[:2], labels), 1.0, Classes(), whose="it"
    )
    assert found is not None
    last = found.pictures[0].table.rows[-1]
    assert [cell.text for cell in last] == ["2", "–", "–", "–", "–"]
    assert last[0].below == "no example"
    one = resemblances_section(
        logits(np.full((1, 3), 1 / 3), [0]), logits(PROBABILITIES[:1], [0]), 1.0, Classes(), whose="it"
    )
    assert one is None, "with one class there is no pair"


def many(classes: int, each: int = 2) -> Section:
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes), each)
    lines = [generator.normal(size=(len(labels), classes)).astype(np.float32) for _ in range(2)]
    student, teacher = (Logits(one, labels, np.arange(len(labels))) for one in lines)
    found = resemblances_section(student, teacher, 4.0, Classes(), whose="it")
    assert found is not None
    return found


def test_names_stand_beside_few_classes_only() -> None:
    few, more = many(24), many(41)
    assert ">17<" in few.pictures[0].svg
    assert ">17<" not in more.pictures[0].svg
    assert len(more.pictures[0].table.rows) == 41
    assert "picture's order" in more.pictures[0].note


def test_of_very_many_classes_those_of_the_strongest_pairs_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DRAWN", 10)
    found = many(40)
    drawn = {row[0].text for row in found.pictures[0].table.rows}
    assert len(drawn) == 10
    strongest = found.tables[0].table.rows[0][0].text.split(" · ")
    assert {*strongest} <= drawn
    assert "10 of 40 classes are drawn" in found.pictures[0].note
