"""A changed file on resume: what adds to the sweep, and what changes the meaning of its trials."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tests.sweep.fakes import spec_of
from wsl_sweep.app.changes import changes, compare
from wsl_sweep.errors import WslSweepError
from wsl_sweep.spec import CommandLine

SEARCH = """\
name: s
run: {recipe: digits}
space: {distillation.alpha: {uniform: [1.0, 4.0]}}
search: {arms: [wsl, kd], trials: 5, sampler: random}
confirm: {top: 2, seeds: 3, baselines: [ce]}
compare: {baseline: ce, margin: 0.005}
"""
ABLATION = """\
name: a
run: {recipe: digits}
space: {distillation.temperature: {grid: [1.0, 4.0]}}
variants: [kd, wsl]
seeds: 2
"""


@pytest.mark.parametrize(
    ("text", "old", "new", "adds"),
    [
        (SEARCH, "trials: 5", "trials: 9", True),
        (SEARCH, "seeds: 3", "seeds: 5", True),
        (SEARCH, "top: 2", "top: 3", True),
        (SEARCH, "[wsl, kd]", "[wsl, kd, dkd]", True),
        (SEARCH, "baselines: [ce]", "baselines: [ce, kd]", True),
        (SEARCH, "name: s\n", "name: s\ndescription: Why?\n", True),
        (SEARCH, "name: s\n", "name: s\nbudget: {hours: 3}\n", True),
        (SEARCH, "name: s\n", "name: s\ntracking: {experiment: other}\n", True),
        (SEARCH, "name: s\n", "name: s\nkeep: all\n", True),
        (SEARCH, "name: s\n", "name: s\nresources: {max_failures: 9}\n", True),
        (ABLATION, "seeds: 2", "seeds: 4", True),
        (ABLATION, "[kd, wsl]", "[kd, wsl, ce]", True),
        (ABLATION, "[1.0, 4.0]", "[1.0, 2.0, 4.0]", True),
        (SEARCH, "trials: 5", "trials: 4", False),
        (SEARCH, "[1.0, 4.0]", "[1.0, 5.0]", False),
        (SEARCH, "uniform:", "loguniform:", False),
        (SEARCH, "sampler: random", "sampler: random, metric: validation/loss, mode: min", False),
        (SEARCH, "[wsl, kd]", "[wsl]", False),
        (SEARCH, "0.005", "0.01", False),
        (SEARCH, "digits}", "digits, schedule: {epochs: 7}}", False),
        (SEARCH, "name: s\n", "name: s\nscheduler: asha\n", False),
        (SEARCH, "name: s\n", "name: s\nresources: {cpu: 2}\n", False),
        (ABLATION, "[kd, wsl]", "[kd]", False),
        (ABLATION, "seeds: 2", "seeds: 1", False),
        (ABLATION, "seeds: 2", "seeds: [0, 7]", False),
        (ABLATION, "[1.0, 4.0]", "[1.0]", False),
    ],
)
def test_every_difference_adds_or_changes(text: str, old: str, new: str, adds: bool) -> None:
    assert old in text
    added, changed = compare(spec_of(text), spec_of(text.replace(old, new)))
    assert (bool(added), bool(changed)) == (adds, not adds) or (not adds and changed)
    assert all("→" in told for told in (*added, *changed))


def test_nothing_differs_from_itself() -> None:
    assert compare(spec_of(SEARCH), spec_of(SEARCH)) == ([], [])


def plan_of(folder: Path, text: str) -> dict[str, Any]:
    (folder / "file.yaml").write_text(text)
    return {"command_line": asdict(CommandLine()), "source": "file.yaml", "folder": str(folder)}


NO_WORLD: Any = None


def test_what_changed_is_refused_with_the_differences_unless_the_sweep_goes_on_as_begun(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, SEARCH.replace("0.005", "0.01").replace("trials: 5", "trials: 9"))
    with pytest.raises(WslSweepError, match=r"compare\.margin: 0\.005 → 0\.01") as refused:
        changes(spec_of(SEARCH), plan, NO_WORLD, {})
    assert "search.trials" not in str(refused.value)
    assert changes(spec_of(SEARCH), plan, NO_WORLD, {}, as_begun=True) is None


def test_a_file_as_it_was_or_gone_changes_nothing(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, SEARCH)
    assert changes(spec_of(SEARCH), plan, NO_WORLD, {}) is None
    (tmp_path / "file.yaml").unlink()
    assert changes(spec_of(SEARCH), plan, NO_WORLD, {}) is None


def test_a_file_that_adds_extends(tmp_path: Path) -> None:
    added = changes(spec_of(SEARCH), plan_of(tmp_path, SEARCH.replace("trials: 5", "trials: 9")), NO_WORLD, {})
    assert added is not None
    assert added.spec.search is not None
    assert added.spec.search.trials == 9
    assert len(added.what) == 1


def test_extending_says_how_many_in_all(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, ABLATION)
    added = changes(spec_of(ABLATION), plan, NO_WORLD, {"seeds": 6})
    assert added is not None
    assert (len(added.spec.seeds), added.command_line.seeds) == (6, 6)
    for fewer in (2, 1):
        with pytest.raises(WslSweepError, match="has 2 already"):
            changes(spec_of(ABLATION), plan, NO_WORLD, {"seeds": fewer})
