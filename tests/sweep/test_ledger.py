"""The ledger: written once, read whole, torn segments passed over, zombies ignored."""

from __future__ import annotations

import json
import math
import tempfile
import uuid
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sweep.fakes import spec_of
from wsl_sweep.errors import TrialError
from wsl_sweep.spec.plan import Trial, ablation_cells
from wsl_sweep.storage import place
from wsl_sweep.sweep.lease import LeaseLostError
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


# --- whatever lies there ---------------------------------------------------------------------------------------------


def _lived(folder: Path, trial: Trial) -> None:
    ledger = Ledger(folder)
    ledger.append("sweep", status="running")
    ledger.append("proposed", trial=trial.to_json())
    ledger.append("started", trial_id=trial.trial_id, attempt=1)
    ledger.append("note", text="one")
    ledger.append("finished", trial_id=trial.trial_id, attempt=1, metrics={"validation/accuracy": 0.5}, epochs=40)


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_bytes_in_any_segments_cost_those_segments_alone(data: st.DataObject) -> None:
    trial = ablation_cells(spec_of("run: {recipe: digits}\nvariants: [kd]\nseeds: 1"))[0].trials[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _lived(folder, trial)
        whole = [path.read_bytes() for path in sorted(folder.iterdir())]
        hit = data.draw(st.sets(st.integers(0, len(whole) - 1), min_size=1))
        for number in hit:
            content = data.draw(st.one_of(st.binary(max_size=60), st.floats(0, 0.99)))
            torn = whole[number][: int(content * len(whole[number]))] if isinstance(content, float) else content
            (folder / f"{number + 1:08d}.json").write_bytes(torn)
        ledger = Ledger(folder)
        kept = [json.loads(content)[0] for number, content in enumerate(whole) if number not in hit]
        assert [event for event in ledger.events() if event in kept] == kept
        state = fold(ledger.events())
        if not hit & {1, 4}:
            assert state.trials[trial.trial_id].status == "finished"
        ledger.append("note", text="two")
        assert "two" in fold(Ledger(folder).events()).notes


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=6,
)
KINDS = ("proposed", "started", "lost", "finished", "pruned", "failed", "killed", "evaluated", "decided", "settled",
         "note", "sweep", "another")  # fmt: skip
NAMES = ("time", "trial_id", "attempt", "metrics", "epochs", "rows", "status", "text", "trial", "accelerator")


@given(
    events=st.lists(
        st.tuples(st.sampled_from(KINDS), st.dictionaries(st.sampled_from(NAMES), JSON), st.booleans()), max_size=5
    )
)
@settings(max_examples=150, deadline=None)
def test_events_that_make_no_sense_are_passed_over(events: list[tuple[str, dict[str, Any], bool]]) -> None:
    trial = ablation_cells(spec_of("run: {recipe: digits}\nvariants: [kd]\nseeds: 1"))[0].trials[0]
    before: list[dict[str, Any]] = [{"event": "proposed", "time": 1.0, "trial": trial.to_json()}]
    odd = [
        {**fields, "event": kind, **({"trial_id": trial.trial_id} if known else {})} for kind, fields, known in events
    ]
    state = fold([*before, *odd, {"event": "note", "time": 2.0, "text": "after it all"}])
    assert trial.trial_id in state.trials
    assert "after it all" in state.notes


@pytest.mark.parametrize("wrong", [{"attempt": math.inf}, {"time": 10**400}, {"epochs": math.inf}])
def test_numbers_without_end_are_passed_over(trial: Trial, wrong: dict[str, Any]) -> None:
    events = [{"event": "proposed", "time": 1.0, "trial": trial.to_json()}]
    odd = {"event": "finished", "time": 2.0, "trial_id": trial.trial_id, "attempt": 1, "metrics": {}, **wrong}
    assert trial.trial_id in fold([*events, odd]).trials


# --- attempts, losses, sessions --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["finished", "failed", "pruned", "killed", "lost", "started"])
def test_an_older_attempts_event_counts_for_nothing(trial: Trial, kind: str) -> None:
    own = {"trial_id": trial.trial_id}
    events: list[dict[str, Any]] = [
        {"event": "proposed", "trial": trial.to_json()},
        {"event": "started", "attempt": 1, **own},
        {"event": "lost", "attempt": 1, "error": "its worker process died", **own},
        {"event": "started", "attempt": 2, **own},
    ]
    before = fold(events)
    zombie = {"event": kind, "attempt": 1, "metrics": {"validation/accuracy": 1.0}, "epochs": 40, "error": "x", **own}
    assert fold([*events, zombie]).trials == before.trials
    assert before.trials[trial.trial_id].status == "running"


def test_losses_are_counted_and_a_gpu_that_was_too_small_is_none(trial: Trial) -> None:
    own = {"trial_id": trial.trial_id}
    state = fold(
        [
            {"event": "proposed", "trial": trial.to_json()},
            {"event": "started", "attempt": 1, **own},
            {"event": "lost", "attempt": 1, "error": "its node died", **own},
            {"event": "started", "attempt": 2, **own},
            {"event": "lost", "attempt": 2, "error": "CUDA out of memory", "out_of_memory": True, **own},
        ]
    ).trials[trial.trial_id]
    assert (state.status, state.losses, state.out_of_memory, state.attempt) == ("lost", 1, True, 2)
    assert state.error == "CUDA out of memory"
    assert not state.settled


@pytest.mark.parametrize(("unwanted", "settled"), [(True, True), (False, False)])
def test_a_killed_trial_is_settled_where_the_user_stopped_this_very_one(
    trial: Trial, unwanted: bool, settled: bool
) -> None:
    word = {"event": "killed", "trial_id": trial.trial_id, "attempt": 1, "unwanted": unwanted}
    events = [{"event": "proposed", "trial": trial.to_json()}, word]
    assert fold(events).trials[trial.trial_id].settled is settled


def test_the_time_of_earlier_drivers_is_that_between_their_first_and_last_words() -> None:
    events = [
        {"event": "sweep", "status": "running", "time": 100.0},
        {"event": "note", "text": "a", "time": 160.0},
        {"event": "sweep", "status": "running", "time": 5_000.0},  # the first died; nobody drove meanwhile
        {"event": "sweep", "status": "stopped", "time": 5_030.0},
        {"event": "sweep", "status": "running", "time": 9_000.0},
        {"event": "note", "text": "b", "time": 9_005.0},
    ]
    state = fold(events)
    assert state.seconds_before == 60.0 + 30.0
    assert state.last_session_seconds == 5.0


def test_a_number_that_is_taken_ends_the_driver_that_comes_second(tmp_path: Path) -> None:
    first, second = Ledger(tmp_path), Ledger(tmp_path)
    first.append("note", text="one")
    with pytest.raises(LeaseLostError, match="another driver"):
        second.append("note", text="two")
    assert [event["text"] for event in Ledger(tmp_path).events()] == ["one"]


def test_in_an_object_store_it_is_the_same_ledger(trial: Trial) -> None:
    folder = place(f"memory://{uuid.uuid4().hex}/runs/alpha/ledger")
    ledger = Ledger(folder)
    ledger.append("proposed", trial=trial.to_json())
    for number in range(40):
        ledger.append("note", text=f"note {number}")
    (folder / "00000003.json").write(b"[{")
    events = Ledger(folder).events()
    assert [event["text"] for event in events[1:]] == [f"note {number}" for number in range(40) if number != 1]
    again = Ledger(folder)
    again.append("note", text="after")
    assert Ledger(folder).events()[-1]["text"] == "after"


def test_nan_is_never_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        Ledger(tmp_path).append("note", text="one", value=math.nan)
    assert Ledger(tmp_path).events() == []
