"""The ledger: written once, read whole, torn segments passed over, zombies ignored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.sweep.fakes import spec_of
from wsl_sweep.errors import TrialError
from wsl_sweep.spec.plan import Trial, ablation_cells
from wsl_sweep.sweep.ledger import Ledger, fold


@pytest.fixture
def trial() -> Trial:
    return ablation_cells(spec_of("run: {recipe: digits}\nvariants: [kd]\nseeds: 1"))[0].trials[0]


def test_events_come_back_in_their_order_after_a_restart(tmp_path: Path, trial: Trial) -> None:
    Ledger(tmp_path).append("proposed", trial=trial.to_json())
    Ledger(tmp_path).append("started", trial_id=trial.trial_id, attempt=1)
    events = Ledger(tmp_path).events()
    assert [event["event"] for event in events] == ["proposed", "started"]
    assert fold(events).trials[trial.trial_id].trial == trial


def test_a_segment_is_never_written_twice(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.append("note", text="one")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    ledger.append("note", text="two")
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert len(after) == 2
    assert all(after[name] == content for name, content in before.items())


def test_torn_and_foreign_files_are_passed_over(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.append("note", text="one")
    (tmp_path / "00000002.json").write_text('[{"event": "no')
    (tmp_path / "00000003.json").write_text('{"not": "a list"}')
    (tmp_path / ".00000004.json.tmp").write_text("half")
    again = Ledger(tmp_path)
    again.append("note", text="two")
    assert [event["text"] for event in again.events()] == ["one", "two"]


def test_only_the_newest_attempt_counts(tmp_path: Path, trial: Trial) -> None:
    ledger = Ledger(tmp_path)
    ledger.append("proposed", trial=trial.to_json())
    ledger.append("started", trial_id=trial.trial_id, attempt=1)
    ledger.append("started", trial_id=trial.trial_id, attempt=2)
    ledger.append("failed", trial_id=trial.trial_id, attempt=1, error="a zombie's")
    assert fold(ledger.events()).trials[trial.trial_id].status == "running"
    ledger.append("finished", trial_id=trial.trial_id, attempt=2, metrics={"validation/accuracy": 0.5}, epochs=3)
    state = fold(ledger.events()).trials[trial.trial_id]
    assert (state.status, state.epochs, state.metrics) == ("finished", 3, {"validation/accuracy": 0.5})


def test_a_folder_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TrialError, match="cannot write"):
        Ledger(tmp_path / "file").append("note", text="one")


def test_segments_are_plain_json(tmp_path: Path) -> None:
    Ledger(tmp_path).append("note", text="one")
    (segment,) = tmp_path.iterdir()
    assert json.loads(segment.read_text())[0]["event"] == "note"
