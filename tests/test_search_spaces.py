"""Every file of ``search_spaces/`` runs, from the command line to its table."""

from __future__ import annotations

import pytest
import yaml

from tests.conftest import REPO, Workplace

SPACES = sorted(path.stem for path in (REPO / "search_spaces").glob("*.yaml"))


@pytest.mark.slow
@pytest.mark.parametrize("name", SPACES)
def test_each_search_space_runs_from_its_file_to_its_table(name: str, workplace: Workplace) -> None:
    """With fewer epochs, seeds and trials than a user would take, and otherwise as it stands."""
    text = (REPO / "search_spaces" / f"{name}.yaml").read_text()
    spec = yaml.safe_load(text)
    arguments = ["--set", "schedule.epochs=2", "--set", "schedule.milestones=[]", "--seeds", "2"]
    arguments += ["--set", "teacher.schedule.epochs=2", "--set", "teacher.schedule.milestones=[]"]
    if "search" in spec:
        arguments += ["--trials", "3"]
    workplace.run("run", str(REPO / "search_spaces" / f"{name}.yaml"), *arguments)
    summary = workplace.summary(name)
    assert {trial["status"] for trial in summary["trials"]} <= {"finished", "pruned"}
    assert summary["confirmed"]
    assert all(row["n"] == 2 and not row["missing"] for row in summary["confirmed"])
    assert summary["compare"]["baseline"] in {row["variant"].removesuffix(" (untuned)") for row in summary["confirmed"]}
