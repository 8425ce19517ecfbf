"""``dataset.splits`` in a file: which part a student sees follows from its seed; one teacher for all, or one each."""

from __future__ import annotations

import pytest

from tests.spec.helpers import problems_of, spec_of
from wsl_sweep.spec.plan import Trial, ablation_cells, make_plan

REGIMES = """
run: {recipe: digits}
variants:
  ce: {distillation: {method: none}}
  kd: {distillation: {weighting: {kind: none}}}
  ce_split: {distillation: {method: none}, dataset: {splits: 3}}
  kd_split: {distillation: {weighting: {kind: none}}, dataset: {splits: 3}}
  kd_each: {distillation: {weighting: {kind: none}}, dataset: {splits: 3}, teacher: {split: same}}
seeds: 3
"""


def trials(text: str = REGIMES) -> dict[str, list[Trial]]:
    return {cell.trials[0].variants[0]: list(cell.trials) for cell in ablation_cells(spec_of(text))}


def test_the_part_is_the_remainder_of_the_seed() -> None:
    found = trials()
    for name in ("ce_split", "kd_split", "kd_each"):
        assert [(one.seed, one.config["dataset"]["splits"], one.config["dataset"]["split"]) for one in found[name]] == [
            (0, 3, 0),
            (1, 3, 1),
            (2, 3, 2),
        ]
    assert all("splits" not in one.config["dataset"] and "split" not in one.config["dataset"] for one in found["kd"])
    assert trials(REGIMES.replace("seeds: 3", "seeds: [4]"))["ce_split"][0].config["dataset"]["split"] == 1


def test_one_teacher_for_all_parts_or_one_for_each() -> None:
    found = {name: [one.teacher_id for one in group] for name, group in trials().items()}
    assert found["ce"] == found["ce_split"] == [None] * 3
    assert len({*found["kd"], *found["kd_split"]}) == 1
    assert len({*found["kd_each"]}) == 3
    assert not {*found["kd_each"]} & {*found["kd"]}
    assert len(make_plan(spec_of(REGIMES)).teachers) == 4


def test_all_are_different_trials_and_no_split_is_the_trial_that_it_was() -> None:
    found = trials()
    assert len({one.trial_id for group in found.values() for one in group}) == 15
    one_split = trials(REGIMES.replace(", teacher: {split: same}", "").replace("splits: 3", "splits: 1"))
    for name, same in (("ce_split", "ce"), ("kd_split", "kd"), ("kd_each", "kd")):
        assert [one.trial_id for one in one_split[name]] == [one.trial_id for one in found[same]]


def test_a_part_may_be_named() -> None:
    named = trials(REGIMES.replace("dataset: {splits: 3}, teacher", "dataset: {splits: 3, split: 2}, teacher"))
    assert [one.config["dataset"]["split"] for one in named["kd_each"]] == [2, 2, 2]
    assert len({one.teacher_id for one in named["kd_each"]}) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("{splits: 3}, teacher", "{splits: 3, split: 3}, teacher"), "must be below dataset.splits, 3"),
        (("dataset: {splits: 3}, teacher: {split: same}", "teacher: {split: same}"), "dataset.splits is above 1"),
        (("dataset: {splits: 3}, teacher", "dataset: {splits: 0}, teacher"), "at least 1"),
    ],
)
def test_what_cannot_be_is_said_at_its_line(change: tuple[str, str], said: str) -> None:
    assert change[0] in REGIMES
    first, *_ = problems_of(REGIMES.replace(*change))
    assert said in first.what
    assert first.line is not None
    assert REGIMES.splitlines()[first.line].strip().startswith(first.path.split(".")[1])
