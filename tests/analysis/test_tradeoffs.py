"""From the trials of a sweep to its regimes: whose logits are asked for, what is left out, and why."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.spec.helpers import spec_of
from wsl_sweep.analysis.diagnostics.bias_variance import decompose
from wsl_sweep.analysis.diagnostics.regimes import Regime
from wsl_sweep.analysis.grouping import Row
from wsl_sweep.analysis.leftovers import Logits
from wsl_sweep.analysis.report_bias_variance import bias_variance_sections, terms_table, tradeoff_table
from wsl_sweep.analysis.statistics import describe
from wsl_sweep.analysis.tradeoffs import MOST, BiasAndVariance, bias_and_variance, unseen_part
from wsl_sweep.spec.plan import Trial, ablation_cells

N, C = 40, 10

PROTOCOL = """
run: {recipe: digits}
variants:
  ce: {distillation: {method: none}}
  kd: {distillation: {weighting: {kind: none}}}
  wsl:
  ce_parts: {distillation: {method: none}, dataset: {splits: 3}}
  kd_parts: {distillation: {weighting: {kind: none}}, dataset: {splits: 3}}
  kd_each: {distillation: {weighting: {kind: none}}, dataset: {splits: 3}, teacher: {split: same}}
seeds: 3
"""


def trials_of(text: str) -> dict[str, list[Trial]]:
    return {cell.trials[0].variants[0]: list(cell.trials) for cell in ablation_cells(spec_of(text))}


def row(name: str, trials: list[Trial]) -> Row:
    seeds = tuple(one.seed for one in trials)
    return Row(
        label=name, variant=name, settings={}, sweeps=("s",), description=describe([0.5] * len(seeds)), seeds=seeds,
        values=tuple(0.5 for _ in seeds), missing={}, tuned=None, tuning_trials=0, averaged=1,
        trial_ids={one.seed: (one.trial_id,) for one in trials},
    )  # fmt: skip


def kept(key: str, examples: int = 0) -> Logits:
    """Logits that only a key decides."""
    generator = np.random.default_rng(zlib.crc32(key.encode()))
    ids = np.arange(N, dtype=np.int64) + examples
    return Logits(generator.normal(0, 2, (N, C)).astype(np.float32), ids % C, ids)


class Left:
    """What trials and teachers have left, and what of it was asked for."""

    def __init__(self, missing: frozenset[str] = frozenset()) -> None:
        self.missing, self.teachers = missing, list[str]()

    def logits(self, trial_id: str) -> Logits | None:
        return None if trial_id in self.missing else kept(trial_id)

    def teacher(self, trial: Trial, like: Logits) -> np.ndarray | None:
        self.teachers.append(str(trial.teacher_id))
        return kept(str(trial.teacher_id)).logits


def look(
    groups: Mapping[str, list[Trial]], left: Left | None = None, logits: Callable[[str], Logits | None] | None = None
) -> BiasAndVariance:
    known = left or Left()
    rows = [row(name, group) for name, group in groups.items()]
    trials = {one.trial_id: one for group in groups.values() for one in group}
    return bias_and_variance(rows, trials, "validation", logits or known.logits, known.teacher)


def named(found: BiasAndVariance) -> dict[str, list[str]]:
    return {one.over: [each.name for each in one.students] for one in found.regimes}


def test_the_protocol_is_told_by_its_configurations_and_each_teacher_is_asked_once() -> None:
    groups, left = trials_of(PROTOCOL), Left()
    found = look(groups, left)
    assert named(found) == {
        "seeds": ["ce", "kd", "wsl"],
        "data": ["ce_parts", "kd_parts"],
        "data and teachers": ["ce_parts", "kd_each"],
    }
    assert found.notes == ()
    assert sorted(left.teachers) == sorted({*left.teachers})
    assert len(left.teachers) == 1 + 3  # one of all data, three of their own parts
    weighted = {one.name: one.weighted for one in found.regimes[0].students}
    assert weighted == {"ce": False, "kd": False, "wsl": True}
    logs = [kept(one.trial_id).logits for one in groups["kd"]]
    expected = decompose(logs, kept("").labels)
    kd = found.regimes[0].students[1]
    assert kd.terms.whole.variance.value == pytest.approx(expected.variance.mean())
    assert kd.share is not None


def test_what_is_not_kept_is_said_and_left_out() -> None:
    groups = trials_of(PROTOCOL)
    found = look(groups, Left(frozenset(one.trial_id for one in groups["kd"][1:])))
    assert named(found)["seeds"] == ["ce", "wsl"]
    assert found.notes == ("kd: the logits of fewer than two students are kept.",)


def test_other_examples_are_not_mixed() -> None:
    groups = trials_of(PROTOCOL)
    others = {one.trial_id for one in groups["wsl"]}
    found = look(groups, logits=lambda trial_id: kept(trial_id, 1 if trial_id in others else 0))
    assert named(found)["seeds"] == ["ce", "kd"]
    assert any(note.startswith("wsl: its examples are others") for note in found.notes)


def test_what_was_trained_on_is_not_looked_at() -> None:
    groups = trials_of(PROTOCOL)
    seen = {name: [replace(one, part="train+validation") for one in group] for name, group in groups.items()}
    assert unseen_part([one for group in groups.values() for one in group]) == "validation"
    assert unseen_part([one for group in seen.values() for one in group]) == "test"
    found = look({**groups, "wsl": seen["wsl"]})
    assert named(found)["seeds"] == ["ce", "kd"]
    assert any("trained on" in note for note in found.notes)


def test_two_names_of_the_same_students_are_one_row_and_only_those_of_one_setting_are_compared() -> None:
    text = PROTOCOL.replace("  wsl:\n", "  wsl:\n  slow: {distillation: {method: none}, optimizer: {lr: 0.001}}\n")
    groups = trials_of(text)
    found = look({"first": groups["ce"], **groups})
    assert [one.name for one in found.regimes[0].students] == ["first", "kd", "wsl"]
    assert [[one.name for one in regime.students] for regime in found.regimes if regime.over == "seeds"][1] == ["slow"]


def test_many_rows_are_not_all_looked_at() -> None:
    groups = trials_of(PROTOCOL.replace("seeds: 3", "space: {optimizer.lr: {grid: [LR]}}\nseeds: 2").replace(
        "LR", ", ".join(str(number / 1000) for number in range(1, 6))
    ))  # fmt: skip
    many = {f"{name} {number}": group for number in range(6) for name, group in groups.items()}
    assert len(many) > MOST
    assert any(f"{MOST} of {len(many)} rows" in note for note in look(many).notes)


def test_the_page_has_each_regime_with_its_tables_and_pictures() -> None:
    found = look(trials_of(PROTOCOL))
    sections = bias_variance_sections(found)
    assert [one.key for one in sections] == ["bias-variance-seeds", "bias-variance-data", "bias-variance-teachers"]
    for section, regime in zip(sections, found.regimes, strict=True):
        assert section.answer
        assert [one.title for one in section.pictures] == ["Bias and variance of students", "What distilling changes"]
        check_terms(regime)
        assert "3 students" in section.notes[0]
        assert ("3 disjoint parts" in section.notes[0]) == (regime.over != "seeds")


def check_terms(regime: Regime) -> None:
    table, trades = terms_table(regime), tradeoff_table(regime)
    assert len(table.rows) == 3 * len(regime.students)
    for cells, one in zip(table.rows[::3], regime.students, strict=True):
        values: list[Any] = [cell.sort for cell in cells[1:]]
        whole = one.terms.whole
        assert values == [
            whole.bias.value,
            whole.variance.value,
            whole.corrected_bias.value,
            whole.corrected_variance.value,
            whole.cross_entropy.value,
            N,
        ]
    assert [cells[0].sort for cells in trades.rows[::3]] == [one.name for one in regime.against]
    assert {cells[4].text for cells in trades.rows} <= {"holds here", "fails here", "not settled"}
