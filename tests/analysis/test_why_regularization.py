"""Who the regularization samples are, and the claim about them: numbers worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from tests.analysis.helpers import record
from wsl_sweep.analysis.leftovers import SampleMasks
from wsl_sweep.analysis.plots.style import Look
from wsl_sweep.analysis.records import Record
from wsl_sweep.analysis.report import render_diagnosis
from wsl_sweep.analysis.report_sections import Section
from wsl_sweep.analysis.report_why import Classes, Who, claim_section, sampled_trials, who_of, who_section
from wsl_sweep.analysis.report_why.regularization_who import BARS, MOST_DETAILS

LABELS = np.array([0, 0, 1, 1])
FIRST = np.array([[1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 0, 0]], dtype=bool)
SECOND = np.array([[1, 1, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0]], dtype=bool)


def masks(given: np.ndarray, labels: np.ndarray = LABELS, ids: np.ndarray | None = None) -> SampleMasks:
    return SampleMasks(given, labels, np.arange(given.shape[1]) if ids is None else ids)


def who(label: str = "kd", **by_seed: SampleMasks) -> Who:
    """Of two seeds, unless others are given."""
    given = {int(name[1:]): one for name, one in by_seed.items()} or {0: masks(FIRST), 1: masks(SECOND)}
    found = who_of(label, given)
    assert found is not None
    return found


def cells(section: Section, table: int = 0) -> list[list[str]]:
    return [[cell.text for cell in row] for row in section.tables[table].table.rows]


# --- who --------------------------------------------------------------------------------------------------------------


def test_two_seeds_of_four_examples_by_hand() -> None:
    found = who()
    assert (found.seeds, found.examples) == (2, 4)
    assert found.by_epoch.tolist() == [[2, 2, 1], [2, 2, 0]]
    # Class 0: 4 of its 2 x 3 places, and 3; class 1: 1 and 1.
    assert found.classes.tolist() == pytest.approx([(4 / 6 + 3 / 6) / 2, 1 / 6])
    # The first seed: one example never, two once, one three times; the second: one never, two once, one twice.
    assert found.times.tolist() == pytest.approx([1 / 4, 2 / 4, 1 / 8, 1 / 8])
    first, second = ([3 / 16, 7 / 16, 5 / 16, 1 / 16], [1 / 4, 1 / 2, 1 / 4, 0])
    assert found.expected.tolist() == pytest.approx([(a + b) / 2 for a, b in zip(first, second, strict=True)])
    assert found.share == pytest.approx(9 / 24)


def test_stability_lies_between_chance_and_the_most_that_is_possible() -> None:
    alone = who(s0=masks(FIRST))
    # Two of four and two of four, one in common: Jaccard 1/3; by chance (4 · 1/3 + 1 · 1)/6 = 7/18; at most 1.
    # Then two and one, the one among them: as much as can be.
    assert [one.epoch for one in alone.epochs_apart] == [2, 3]
    assert [one.stability for one in alone.epochs_apart] == pytest.approx([-1 / 11, 1.0])
    assert [one.jaccard for one in alone.epochs_apart] == pytest.approx([1 / 3, 1 / 2])
    assert [one.chance for one in alone.epochs_apart] == pytest.approx([7 / 18, 1 / 4])
    assert alone.seeds_apart == ()
    # Of two seeds: the same sets, then two without one in common, then one set is empty and nothing follows.
    assert [(one.epoch, pytest.approx(one.stability)) for one in who().seeds_apart] == [(1, 1.0), (2, -7 / 11)]


def test_seeds_that_were_trained_on_other_examples_are_not_held_together() -> None:
    for ids in ([9, 8, 7, 6], [1, 0, 2, 3]):
        found = who(s0=masks(FIRST), s1=masks(SECOND, ids=np.array(ids)))
        assert found.seeds == 2
        assert found.seeds_apart == ()
        assert "different examples" in found.note


def test_masks_that_do_not_fit_are_left_out_and_told() -> None:
    whole = masks(FIRST)
    for broken in (
        masks(FIRST[:2]),
        masks(FIRST, labels=np.array([0, 1])),
        masks(FIRST, labels=np.array([0, 0, -1, 1])),
        masks(FIRST.astype(np.uint8)),
        masks(FIRST[:0]),
    ):
        found = who_of("kd", {0: whole, 1: whole, 2: broken})
        assert found is not None
        assert found.seeds == 2
        assert "2 of 3 seeds" in found.note
    assert who_of("kd", {0: masks(FIRST[:0])}) is None
    assert who_of("kd", {}) is None
    partly = who_of("kd", {0: whole}, seeds=3)
    assert partly is not None
    assert "1 of 3 seeds" in partly.note


def test_the_section_says_how_many_and_who() -> None:
    section = who_section([who()], Classes(("cat", "dog")), {"kd": Look("series-1")})
    assert section is not None
    assert section.key == "regularization-who"
    assert section.answer.startswith(
        "50.0 % of the training examples of kd are regularization samples at the first epoch and 12.5 % at the last."
    )
    assert "Class cat has the most (58.3 % of its examples and epochs), dog the fewest (16.7 %)." in section.answer
    assert cells(section)[0][:4] == ["kd", "50.0 %", "12.5 %", "25.0 %"]
    assert cells(section, 1) == [["cat", "58.3 %"], ["dog", "16.7 %"]]
    titles = [one.title for one in section.pictures]
    assert titles == [
        "Regularization samples, counted",
        "The same as an epoch before",
        "The same under other seeds",
        "Classes, kd",
        "How often an example is one, kd",
    ]
    assert "chance" in section.pictures[1].svg
    counted = section.pictures[0].table
    assert [row[1].text for row in counted.rows] == ["2", "2", "0.5"]


def test_one_seed_one_class_one_epoch() -> None:
    alone = masks(np.array([[True, False]]), labels=np.array([0, 0]))
    section = who_section([who(s0=alone)], Classes(), {})
    assert section is not None
    assert "Class" not in section.answer, "there is nothing to tell one class from"
    assert [one.title for one in section.pictures] == [
        "Regularization samples, counted",
        "Classes, kd",
        "How often an example is one, kd",
    ]


def test_no_regularization_sample_at_all() -> None:
    none = who(s0=masks(np.zeros((3, 4), dtype=bool)))
    section = who_section([none], Classes(), {})
    assert section is not None
    assert section.answer == "No training example was a regularization sample at any epoch."
    assert len(section.pictures) == 1
    everyone = who_section([who(s0=masks(np.ones((3, 4), dtype=bool)))], Classes(), {})
    assert everyone is not None
    assert everyone.answer.startswith("100.0 %")
    assert who_section([], Classes(), {}) is None


def test_a_class_without_examples_is_not_shown() -> None:
    section = who_section([who(s0=masks(FIRST, labels=np.array([0, 0, 2, 2])))], Classes(), {})
    assert section is not None
    assert [row[0] for row in cells(section, 1)] == ["0", "2"]


def test_of_many_classes_both_ends_are_drawn() -> None:
    labels = np.arange(60)
    given = np.arange(60)[None, :] < np.arange(1, 60)[:, None]  # example k is one from epoch k + 1 on
    section = who_section([who(s0=masks(given, labels=labels))], Classes(), {})
    assert section is not None
    picture = next(one for one in section.pictures if one.title.startswith("Classes"))
    assert f"The {BARS // 2} highest and the {BARS // 2} lowest of 60" in picture.note
    for shown, label in ((True, 0), (True, 9), (False, 30), (True, 50), (True, 59)):
        assert (f">{label}<" in picture.svg) == shown
    assert len(picture.table.rows) == 60


def test_of_many_rows_some_are_drawn_in_full_and_it_is_said_what_is_left_out() -> None:
    rows = [who(f"row {number}") for number in range(8)]
    looks = {"row 0": Look("baseline")} | {f"row {number}": Look("other") for number in range(1, 8)}
    section = who_section(rows, Classes(), looks, left_out=3)
    assert section is not None
    assert sum(one.title.startswith("Classes") for one in section.pictures) == MOST_DETAILS
    assert any("8 of 11 rows" in note for note in section.notes)
    assert len(cells(section)) == 8
    assert "others" not in section.pictures[0].svg, "eight rows have a colour each"


def test_names_are_text() -> None:
    section = who_section([who("<b>kd</b>")], Classes(("<i>cat</i>", "dog")), {})
    assert section is not None
    page = render_diagnosis("why", [section]).html
    assert "<b>kd" not in page
    assert "<i>cat" not in page
    assert "&lt;i&gt;cat" in page


# --- the claim --------------------------------------------------------------------------------------------------------


def trial(number: int, fraction: float, accuracy: float, temperature: float | None = 4.0, **more: object) -> Record:
    metrics = {"regularization_samples/fraction": fraction, "validation/accuracy": accuracy}
    params = {"part": "train"} if temperature is None else {"part": "train", "distillation.temperature": temperature}
    return replace(record("kd", number, 0.9, params=params), metrics=metrics, trial_id=f"t{number}", **more)  # type: ignore[arg-type]


def line(slope: float, temperature: float = 4.0, count: int = 5, first: int = 0) -> list[Record]:
    return [trial(first + i, 0.1 * i, 0.7 + slope * 0.1 * i, temperature) for i in range(count)]


def claimed(records: list[Record], means: dict[str, float] | None = None) -> Section:
    section = claim_section(sampled_trials(records), {}, means)
    assert section is not None
    return section


def test_trials_on_a_falling_line_support_the_claim_and_on_a_rising_one_contradict_it() -> None:
    falling = claimed(line(-1.0))
    assert falling.key == "regularization-claim"
    assert "r = -1.00" in falling.answer
    assert "as WSL says" in falling.answer
    assert cells(falling)[0] == ["4", "the last epoch", "−1.00", "−1.00", "5", "supported"]
    assert "against what WSL says" in claimed(line(1.0)).answer
    assert [one.title for one in falling.pictures] == ["Accuracy by regularization samples, τ = 4"]
    assert len(falling.pictures[0].table.rows) == 5


def test_temperatures_are_told_apart() -> None:
    # All in one the trials would rise; within each temperature they fall.
    low = [trial(i, 0.1 * i, 0.5 - 0.1 * i, 1.0) for i in range(5)]
    high = [trial(10 + i, 2 + 0.1 * i, 0.9 - 0.1 * i, 2.0) for i in range(5)]
    section = claimed([*low, *high])
    assert section.answer.endswith("is supported at τ = 1 and 2.")
    mixed = claimed([*line(-1.0, 1.0), *line(1.0, 2.0, first=10), *line(0.0, 8.0, first=20)])
    assert mixed.answer.endswith("is supported at τ = 1, contradicted at τ = 2 and not settled at τ = 8.")
    assert len(mixed.pictures) == 3


def test_a_continuous_temperature_says_nothing() -> None:
    section = claimed([trial(i, 0.1 * i, 0.7 - 0.1 * i, 1.0 + i / 7) for i in range(6)])
    assert section.answer.startswith("Nothing can be said")
    assert "no two of which share one" in section.answer
    assert section.pictures == ()
    assert len(section.tables[0].table.rows) == 6
    pairs = claimed([trial(i, 0.1 * i, 0.7 - 0.1 * i, 1.0 + i // 2) for i in range(6)])
    assert "fewer than 4 of which share any one" in pairs.answer


def test_what_is_left_out_is_told() -> None:
    few = claimed([*line(-1.0), trial(9, 0.3, 0.5, 2.0)])
    assert any("fewer than others: 1." in note for note in few.notes)
    assert few.warnings == ()
    many = claimed([*line(-1.0), *(trial(10 + i, 0.3, 0.5, 1.0 + i / 70) for i in range(30))])
    assert "30 of 35 trials are left out" in many.warnings[0]


def test_the_mean_over_epochs_is_told_beside_it() -> None:
    records = line(-1.0)
    means = {one.trial_id: 0.9 - 0.1 * i for i, one in enumerate(records)}
    section = claimed(records, means)
    assert cells(section)[1] == ["4", "all epochs, mean", "1.00", "1.00", "5", "contradicted"]
    assert section.answer.endswith("By their mean over all epochs it is contradicted.")
    assert len(cells(claimed(records, {one.trial_id: 0.5 for one in records[:3]}))) == 1, "three are too few"


def test_trials_on_other_data_are_not_held_together() -> None:
    """All in one the trials would fall; on the data that most of them have they rise."""
    whole = line(1.0, count=6)
    parts = [
        replace(one, params={**one.params, "dataset.splits": "5", "dataset.split": str(number % 5), **more})
        for number, one in enumerate([trial(50 + i, 0.9, 0.1) for i in range(8)])
        for more in [{"teacher.split": "all" if number % 2 else "same"}]
    ]
    section = claimed([*parts, *whole])
    assert "against what WSL says" in section.answer
    assert any(note.startswith("8 trials on other data are left out") for note in section.notes)
    split = [replace(one, params={**one.params, "dataset.split": str(i)}) for i, one in enumerate(line(1.0))]
    assert cells(claimed(split))[0][4] == "5", "of one data set dealt out"


def test_trials_that_do_not_tell_are_passed_over() -> None:
    good = line(-1.0)
    bad = [
        replace(trial(90, 0.5, 0.5), status="pruned"),
        trial(91, math.nan, 0.5),
        trial(92, 0.5, math.inf),
        trial(93, 0.5, 0.5, None),
        replace(trial(94, 0.5, 0.5), params={"part": "train+validation", "distillation.temperature": "4.0"}),
        replace(trial(95, 0.5, 0.5), params={"part": "train", "distillation.temperature": "warm"}),
    ]
    assert [one.trial_id for one in sampled_trials([*good, *bad])] == [one.trial_id for one in good]
    assert claim_section(sampled_trials(bad), {}) is None
    assert claim_section([], {}) is None


def test_few_or_equal_trials_settle_nothing() -> None:
    assert "takes 4" in claimed(line(-1.0, count=3)).answer
    equal = claimed([trial(i, 0.5, 0.9) for i in range(6)])
    assert "does not vary" in equal.answer
    assert cells(equal)[0][2:] == ["–", "–", "6", "not settled"]


def test_one_far_trial_that_makes_r_is_warned_of() -> None:
    cloud = [(0.50, 0.90), (0.51, 0.93), (0.52, 0.91), (0.53, 0.92), (0.54, 0.90), (0.55, 0.925), (0.0, 0.1)]
    section = claimed([trial(i, x, y) for i, (x, y) in enumerate(cloud)])
    assert any("r and ρ lie far apart" in note for note in section.notes)
    assert not any("far apart" in note for note in claimed(line(-1.0)).notes)
