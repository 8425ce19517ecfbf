"""Whether early stopping lies: curves of which it is known."""

from __future__ import annotations

import math

import pytest

from wsl_sweep.analysis import curves
from wsl_sweep.analysis.plots.style import Look
from wsl_sweep.analysis.report import render_diagnosis
from wsl_sweep.analysis.report_sections import Section
from wsl_sweep.analysis.report_why import early_stopping as module
from wsl_sweep.analysis.report_why import replay_section
from wsl_sweep.analysis.report_why.early_stopping import full_curves, replayed_trials
from wsl_sweep.spec.plan import Trial
from wsl_sweep.sweep.ledger import TrialState

METRIC = "validation/accuracy"
HONEST = [[0.1 * k + 0.01 * e for e in range(4)] for k in range(1, 9)]
"""Eight trials whose order is the same at every epoch."""

LIES = [[0.1 * k, 0.5, 0.9 - 0.1 * k] for k in range(1, 9)]
"""The best at the first epoch is the worst at the last."""


def section_of(given: dict[str, list[list[float]]], **more: object) -> Section:
    known: dict[str, object] = {"grace": 1, "reduction_factor": 2, "margin": 0.005}
    found = replay_section(given, METRIC, {"wsl": Look("series-1")}, **{**known, **more})  # type: ignore[arg-type]
    assert found is not None
    return found


def test_an_order_that_never_changes_does_not_lie() -> None:
    found = section_of({"": HONEST})
    assert found.key == "early-stopping-replay"
    assert found.answer.startswith("Early stopping does not lie beyond the margin of 0.005: ASHA saves")
    rows = [[cell.text for cell in row] for row in found.tables[0].table.rows]
    assert [row[0] for row in rows] == ["1", "2"]
    assert rows[0][1] == "8.0"
    assert {row[3] for row in rows} == {"0.0000"}
    assert {row[-1] for row in rows} == {"0% of orders"}
    correlations, rungs = found.pictures
    assert {row[1].text for row in correlations.table.rows} == {"1"}
    assert "margin, 0.0050" in rungs.svg
    assert found.warnings == ("Fewer than 20 full curves (8): take this as a guess.",)
    assert section_of({"": HONEST * 3}).warnings == ()


def test_an_order_that_turns_round_lies() -> None:
    found = section_of({"": LIES})
    assert found.answer.startswith("Early stopping lies beyond the margin of 0.005: ")
    assert {row[1].text for row in found.pictures[0].table.rows[:1]} == {"−1"}
    first = found.tables[0].table.rows[0]
    # The best trial at the end, 0.8, is the worst at the first epoch; it goes on only where it is the first to come.
    assert float(first[-1].text.removesuffix("% of orders")) == pytest.approx(100 * 7 / 8, abs=6)


def test_less_may_be_better() -> None:
    turned = [[1 - value for value in line] for line in HONEST]
    assert "does not lie" in section_of({"": turned}, more_is_better=False).answer


def test_stopped_trials_and_a_margin_of_another_unit_are_told() -> None:
    found = section_of({"": HONEST}, stopped=7, margin=0.0, searched=False)
    assert found.warnings[0].startswith("7 trials were stopped early")
    assert any("not in the unit of" in note for note in found.notes)
    assert any("An ablation stops nothing" in note for note in found.notes)
    assert "does not lie: ASHA" in found.answer


def test_arms_are_replayed_apart() -> None:
    found = section_of({"wsl": HONEST, "kd": LIES, "few": HONEST[:3]})
    assert "does not lie for wsl" in found.answer
    assert "lies for kd" in found.answer
    assert any("fewer than 4 full curves: few" in note for note in found.notes)
    assert {row[-1].text for row in found.tables[0].table.rows} == {"wsl", "kd"}
    assert [one.title for one in found.pictures[1:]] == [
        "What is lost at each rung, wsl",
        "What is lost at each rung, kd",
    ]
    three = section_of({"a": HONEST, "b": LIES, "c": HONEST})
    assert three.answer == "Early stopping lies for b, does not lie for a and c."
    assert len([note for note in three.notes if "ASHA saves" in note]) == 3


def test_it_does_not_contradict_the_part_on_early_stopping_without_a_word() -> None:
    # The order is foretold well but for the best, which is late: rank correlation 1 - 6 · (7² + 7)/(8 · 63) = 1/3.
    late = [[0.1 * k, 0.1 * k] for k in range(1, 9)]
    late[0] = [0.0, 0.95]
    assert not any("go by the loss" in note for note in section_of({"": late}).notes)
    many = [[0.01 * k, 0.01 * k] for k in range(1, 60)]
    many[0] = [0.0, 0.95]
    told = section_of({"": many})
    assert told.answer.startswith("Early stopping lies")
    assert "foretells the end well" in told.answer
    assert any("go by the loss" in note for note in told.notes)
    # Nothing is foretold, yet all are as good.
    even = [[0.1 * (k % 4), 0.9 + 0.0001 * ((k * 3) % 8)] for k in range(8)]
    assert any("it does not matter here" in note for note in section_of({"": even}).notes)
    assert not any("go by the loss" in n or "not matter" in n for n in section_of({"": HONEST}).notes)


def test_nothing_where_there_are_no_full_curves() -> None:
    for given in ({}, {"": HONEST[:3]}, {"": [[0.5]] * 8}):
        assert replay_section(given, METRIC, {}, grace=1, reduction_factor=3, margin=0.005) is None


def test_no_rung_and_equal_values() -> None:
    short = section_of({"": HONEST}, grace=9)
    assert "cannot be told" in short.answer
    assert len(short.pictures) == 1
    assert short.tables == ()
    equal = section_of({"": [[0.5] * 4] * 8})
    assert "does not lie" in equal.answer
    assert "does not vary" in equal.pictures[0].note
    render_diagnosis("why", [short, equal])


def trial(number: int, epochs: int = 3, arm: str | None = "wsl", status: str = "finished") -> TrialState:
    stage = "ablation" if arm is None else "search"
    made = Trial(f"t{number}", stage, arm, (arm or "kd",), number, {}, {"schedule": {"epochs": epochs}})
    return TrialState(made, status=status, attempt=1, epochs=epochs)


def test_the_trials_are_those_of_the_rank_correlation(monkeypatch: pytest.MonkeyPatch) -> None:
    most = module.MOST
    trials = [trial(0), trial(1, epochs=5), trial(2), trial(3, status="pruned"), trial(4, arm="kd"), trial(5)]
    assert [one.trial.trial_id for one in replayed_trials(trials)] == ["t0", "t2", "t4", "t5"]
    monkeypatch.setattr(module, "MOST", 2)
    assert [one.trial.trial_id for one in replayed_trials(trials)] == ["t0", "t4"]
    assert replayed_trials([]) == []
    assert most == curves.MOST


def test_curves_that_are_not_whole_are_left_out() -> None:
    trials = [trial(0), trial(1), trial(2), trial(3), trial(4, arm=None)]
    columns = {
        "t0": {METRIC: [0.1, 0.2, 0.3]},
        "t1": {METRIC: [0.1, math.nan, 0.3]},
        "t2": {METRIC: [0.1, 0.2]},
        "t4": {METRIC: [0.4, 0.5, 0.6]},
    }
    assert full_curves(trials, columns, METRIC) == {"wsl": [[0.1, 0.2, 0.3]], "": [[0.4, 0.5, 0.6]]}


def test_names_are_text() -> None:
    page = render_diagnosis("why", [section_of({"<b>wsl</b>": HONEST, "kd": HONEST})]).html
    assert "<b>wsl" not in page
    assert "&lt;b&gt;wsl" in page
