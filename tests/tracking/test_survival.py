"""A tracking server that is killed, hangs, refuses or does not come back: training never waits, nothing is lost."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.tracking.conftest import Proxy, Server
from tests.tracking.helpers import SWEEP, event, is_whole, proposed, row, rows, snapshot, story, sweep_of, tell, trials
from wsl_sweep.tracking import MlflowWriter, Tracking, outbox
from wsl_sweep.tracking.outbox import Operation, Outbox, sentence
from wsl_sweep.tracking.runs import SweepRuns


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses between tries are short."""
    monkeypatch.setattr(outbox, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(outbox, "LONGEST_PAUSE", 0.03)


def begun(tracking: Tracking) -> MlflowWriter:
    writer = MlflowWriter(tracking, SWEEP)
    writer.start()
    return writer


@pytest.mark.slow
def test_a_server_killed_twice_and_started_again_has_everything_once(server: Server) -> None:
    server.start()
    wanted, tracking = trials(20), Tracking(server.address, "exp")
    writer, slowest, stopped = begun(tracking), 0.0, threading.Event()

    def kill_and_start() -> None:
        for _ in range(2):
            time.sleep(1.5)
            server.kill()
            time.sleep(1.0)
            server.start()
        stopped.set()

    killer = threading.Thread(target=kill_and_start)
    killer.start()
    for one in sweep_of(map(story, wanted)):
        before = time.perf_counter()
        tell(writer, [one])
        slowest = max(slowest, time.perf_counter() - before)
        time.sleep(0.02)
    killer.join()
    assert stopped.is_set()
    assert slowest < 0.25
    assert writer.close("finished", 300), (writer.missing(), writer.problem)
    assert writer.missing() is None
    assert is_whole(snapshot(tracking), wanted)


@pytest.mark.slow
def test_a_server_that_hangs_holds_the_end_no_longer_than_its_budget(server: Server) -> None:
    server.start()
    wanted, tracking = trials(), Tracking(server.address, "exp")
    ledger = sweep_of(map(story, wanted))
    writer = begun(tracking)
    assert writer.flush(60)
    server.signal(signal.SIGSTOP)
    try:
        tell(writer, ledger)
        before = time.perf_counter()
        writer.begin_end(6.0)
        assert not writer.flush()
        writer.describe("what was found", {})
        assert not writer.close("finished")
        assert time.perf_counter() - before < 7.5
        assert writer.missing() == (
            "6 runs, the metrics of 6 trials, the test metrics of 6 trials, the ends of 6 runs, "
            "the sweep's description and the sweep's own end"
        )
        assert writer.problem is not None
    finally:
        server.signal(signal.SIGCONT)
    sync = begun(tracking)
    sync.bring_in_line(ledger, lambda trial_id, attempt: rows(3))
    assert sync.close("finished", 120), sync.problem
    assert is_whole(snapshot(tracking), wanted)


def test_a_server_that_is_not_there_is_given_up_at_once_where_it_is_asked(hasty: None) -> None:
    writer = begun(Tracking("http://127.0.0.1:9", "exp"))
    tell(writer, sweep_of(map(story, trials()[:1])))
    before = time.perf_counter()
    writer.begin_end(3600.0, patience=1.0)
    assert not writer.flush(3600.0)
    assert not writer.close("finished", 3600.0)
    assert time.perf_counter() - before < 4.0
    assert "a run" in str(writer.missing())


@pytest.mark.slow
def test_what_a_proxy_refuses_for_a_while_is_sent_again_in_order(proxy: Proxy, hasty: None) -> None:
    """Every refusal in its turn, each while a trial of its own is told."""
    wanted, tracking = trials(3), Tracking(proxy.address, "proxy")
    first, *rest = sweep_of([])
    writer = begun(tracking)
    tell(writer, [first])
    for status, trial in zip((403, 401, 404, 413, 429, 500, 502, 503), wanted, strict=False):
        assert writer.flush(60)
        proxy.refused.clear()
        proxy.status = status
        tell(writer, story(trial))
        limit = time.monotonic() + 60
        while len(proxy.refused) < 2 * outbox.TRIES + 3:
            assert time.monotonic() < limit, (status, len(proxy.refused))
            time.sleep(0.02)
        assert str(status) in str(writer.problem)
        proxy.status = None
    tell(writer, [*story(wanted[-1]), *rest])
    assert writer.close("finished", 60), (writer.missing(), writer.problem)
    assert is_whole(snapshot(tracking), wanted)


def test_a_value_that_the_server_will_never_take_is_left_out_and_remembered(tracking: Tracking) -> None:
    one, two = trials()[:2]
    ledger = sweep_of([story(one), story(two)])
    writer = begun(tracking)
    for event_ in ledger:
        writer.on_event(event_)
        if event_["event"] == "started":
            bad = {"not?allowed": 1.0} if event_["trial_id"] == one.trial_id else {}
            writer.on_rows(event_["trial_id"], 1, [row(1) | bad, row(2), row(3)])
    assert not writer.close("finished", 60)
    assert writer.missing() == "the metrics of a trial"
    assert "not?allowed" in str(writer.problem)
    found = snapshot(tracking)
    assert found[one.trial_id]["status"] == "FINISHED"
    assert found[one.trial_id]["tags"]["incomplete"] == "true"
    assert "incomplete" not in found[two.trial_id]["tags"]
    sync = begun(tracking)
    sync.bring_in_line(ledger, lambda trial_id, attempt: rows(3))
    assert sync.close("finished", 60), sync.problem
    found = snapshot(tracking)
    assert is_whole(found, [one, two])
    assert "incomplete" not in found[one.trial_id]["tags"]


def test_a_run_that_somebody_deleted_is_missing_and_is_made_again_by_sync(tracking: Tracking) -> None:
    import mlflow

    one, two = trials()[:2]
    ledger = sweep_of([story(one), story(two)])
    writer = begun(tracking)
    tell(writer, ledger[:3])
    assert writer.flush(60)
    mlflow.MlflowClient(tracking_uri=tracking.uri).delete_run(writer.run_ids[one.trial_id])
    tell(writer, ledger[3:])
    assert not writer.close("finished", 60)
    assert "the end of a run" in str(writer.missing())
    sync = begun(tracking)
    sync.bring_in_line(ledger, lambda trial_id, attempt: rows(3))
    assert sync.close("finished", 60), sync.problem
    assert is_whole(snapshot(tracking), [one, two])


@pytest.mark.parametrize("brought_in_line", [False, True])
def test_a_run_that_another_driver_replaced_is_gone_on_with(tracking: Tracking, brought_in_line: bool) -> None:
    """Of two drivers that make a run of one trial at once, each may delete the other's for the one it keeps."""
    import mlflow

    one, two = trials()[:2]
    ledger = sweep_of([story(one), story(two)])
    writer = begun(tracking)
    tell(writer, ledger[:3])
    assert writer.flush(60)
    client = mlflow.MlflowClient(tracking_uri=tracking.uri)
    ours = client.get_run(writer.run_ids[one.trial_id])
    tags = {key: value for key, value in ours.data.tags.items() if key != "mlflow.runName"}
    other = client.create_run(ours.info.experiment_id, ours.info.start_time, tags, ours.info.run_name)
    client.delete_run(ours.info.run_id)
    if brought_in_line:
        writer.bring_in_line(ledger, lambda trial_id, attempt: rows(3))
    else:
        for epoch in range(1, 4):
            writer.on_rows(one.trial_id, 1, [row(epoch)])
        for parameter in ours.data.params.items():  # which the other driver writes
            client.log_param(other.info.run_id, *parameter)
        tell(writer, ledger[3:])
    assert writer.close("finished", 60), (writer.problem, writer.missing())
    assert writer.run_ids[one.trial_id] == other.info.run_id
    assert is_whole(snapshot(tracking), [one, two])


def test_what_always_fails_on_a_server_that_is_well_does_not_hold_up_the_rest(hasty: None) -> None:
    done: list[str] = []
    tried: list[int] = []

    def fail() -> None:
        tried.append(1)
        raise ConnectionError("reset by peer")

    one = Outbox(lambda: None, time.monotonic)
    one.put(Operation(fail, "metrics", "a", give_up=lambda: done.append("gave up")))
    one.put(Operation(lambda: done.append("next"), "end", "a"))
    one.start()
    assert one.flush(30)
    assert (len(tried), done) == (outbox.TRIES, ["gave up", "next"])
    assert sentence(one.left()) == "the metrics of a trial"
    one.stop(at_once=False)


def test_what_fails_while_the_server_is_away_is_never_given_up(hasty: None) -> None:
    well, done = threading.Event(), threading.Event()

    def do() -> None:
        if not well.is_set():
            raise ConnectionError("refused")
        done.set()

    one = Outbox(do, time.monotonic)
    one.put(Operation(do, "metrics", "a"))
    one.start()
    assert not one.flush(2)
    assert one.problem == "ConnectionError: refused"
    well.set()
    assert one.flush(10)
    assert done.is_set()
    assert one.problem is None
    one.stop(at_once=False)


def test_a_call_that_made_a_run_and_seemed_to_fail_leaves_one_run(
    tracking: Tracking, monkeypatch: pytest.MonkeyPatch, hasty: None
) -> None:
    import mlflow

    real: Callable[..., Any] = mlflow.MlflowClient.create_run
    lost: list[str] = []

    def create_run(self: Any, *arguments: Any, **named: Any) -> Any:
        run = real(self, *arguments, **named)
        if len(lost) < 3:  # the parent's, then a child's, then another's
            lost.append(run.info.run_id)
            raise TimeoutError("timed out")
        return run

    monkeypatch.setattr(mlflow.MlflowClient, "create_run", create_run)
    wanted = trials()[:2]
    writer = begun(tracking)
    tell(writer, sweep_of(map(story, wanted)))
    assert writer.close("finished", 60), writer.problem
    assert is_whole(snapshot(tracking), wanted)
    assert len(lost) == 3


def test_a_run_that_the_server_makes_late_goes_at_the_end(tracking: Tracking) -> None:
    import mlflow

    (one,) = wanted = trials()[:1]
    writer = begun(tracking)
    ledger = sweep_of(map(story, wanted))
    tell(writer, ledger)
    assert writer.flush(60)
    client = mlflow.MlflowClient(tracking_uri=tracking.uri)
    ours = client.get_run(writer.run_ids[one.trial_id])
    late = client.create_run(ours.info.experiment_id, start_time=ours.info.start_time, tags=ours.data.tags)
    assert writer.close("finished", 60)
    assert is_whole(snapshot(tracking), wanted)
    assert client.get_run(late.info.run_id).info.lifecycle_stage == "deleted"


def test_runs_without_a_last_word_are_killed_at_the_end_whoever_left_them(tracking: Tracking) -> None:
    one, two, three = trials()[:3]
    before = begun(tracking)
    tell(before, [{"event": "sweep", "time": 900.0, "status": "running"}, *story(one)[:2], *story(two)[:2]])
    assert before.flush(60)  # and its driver was killed
    after = begun(tracking)
    ledger = [*story(one)[:2], *story(two)[:2], event("lost", two, 1500.0), proposed(three)]
    after.bring_in_line(ledger, lambda trial_id, attempt: [])
    tell(after, [event("finished", one, 2500.0, attempt=2)])
    tell(after, [{"event": "sweep", "time": 5000.0, "status": "stopped"}])
    assert after.close("stopped", 60)
    found = snapshot(tracking)
    assert {name: (run["status"], run["times"][1]) for name, run in found.items()} == {
        "parent": ("KILLED", 5000_000),
        one.trial_id: ("FINISHED", 2500_000),
        two.trial_id: ("KILLED", 5000_000),
    }
    assert found[one.trial_id]["tags"]["attempts"] == "2"


def test_of_two_runs_of_a_trial_and_two_of_the_sweep_one_stays(tracking: Tracking) -> None:
    import mlflow

    wanted = trials()[:2]
    ledger = sweep_of(map(story, wanted))
    writer = begun(tracking)
    tell(writer, ledger)
    assert writer.close("finished", 60)
    first = snapshot(tracking)
    client = mlflow.MlflowClient(tracking_uri=tracking.uri)
    for run_id in (writer.run_ids[wanted[0].trial_id], writer.parent_id):
        run = client.get_run(str(run_id))
        tags = {key: value for key, value in run.data.tags.items() if key != "mlflow.runName"}
        client.create_run(run.info.experiment_id, start_time=1, tags=tags, run_name=run.info.run_name)
    sync = begun(tracking)
    sync.bring_in_line(ledger, lambda trial_id, attempt: rows(3))
    assert sync.close("finished", 60), sync.problem
    assert snapshot(tracking) == first
    assert sync.run_ids == writer.run_ids
    assert sync.parent_id == writer.parent_id


def test_two_writers_of_one_sweep_end_with_one_run_a_trial(tracking: Tracking) -> None:
    wanted = trials()
    ledger = sweep_of(map(story, wanted))
    writers = [begun(tracking), begun(tracking)]
    tellers = [threading.Thread(target=tell, args=(writer, ledger)) for writer in writers]
    for teller in tellers:
        teller.start()
    for teller in tellers:
        teller.join()
    for writer in writers:
        writer.close("finished", 120)
    assert is_whole(snapshot(tracking), wanted)


def test_a_later_attempt_that_went_another_way_leaves_no_point_of_the_earlier_one(tracking: Tracking) -> None:
    (one,) = trials()[:1]
    writer = begun(tracking)
    tell(writer, [*story(one)[:2]], epochs=0)
    writer.on_rows(one.trial_id, 1, rows(4))
    assert writer.flush(60)
    first = writer.run_ids[one.trial_id]
    again = [*rows(2), *rows(3, first=3, late=50.0)]  # its checkpoint was that of epoch 2
    tell(writer, [event("lost", one, 1100.0), event("started", one, 1200.0, attempt=2)], epochs=0)
    writer.on_rows(one.trial_id, 2, again)
    writer.on_rows(one.trial_id, 1, rows(5))  # a zombie's
    writer.on_rows(one.trial_id, 2, rows(5, first=4, late=50.0))
    tell(writer, [event("finished", one, 2000.0, attempt=1)], epochs=0)  # a zombie's
    tell(writer, [event("finished", one, 3000.0, attempt=2)], epochs=0)
    assert writer.close("finished", 60), writer.problem
    run = snapshot(tracking)[one.trial_id]
    steps = [(step, moment) for step, moment, _ in run["metrics"]["validation/accuracy"]]
    assert steps == [(1, 1001_250), (2, 1002_250), (3, 1053_250), (4, 1054_250), (5, 1055_250)]
    assert run["times"] == (1000_000, 3000_000)
    assert run["tags"]["attempts"] == "2"
    assert writer.run_ids[one.trial_id] != first


def test_an_attempt_that_went_on_where_the_last_stood_keeps_its_run(tracking: Tracking) -> None:
    (one,) = trials()[:1]
    writer = begun(tracking)
    tell(writer, story(one)[:2], epochs=3)
    assert writer.flush(60)
    first = writer.run_ids[one.trial_id]
    tell(writer, [event("lost", one, 1100.0), event("started", one, 1200.0, attempt=2)], epochs=0)
    writer.on_rows(one.trial_id, 2, rows(5))
    tell(writer, [event("finished", one, 3000.0, attempt=2)], epochs=0)
    assert writer.close("finished", 60), writer.problem
    assert writer.run_ids[one.trial_id] == first
    assert len(snapshot(tracking)[one.trial_id]["metrics"]["validation/accuracy"]) == 5


def test_a_password_is_in_no_problem(hasty: None, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("psycopg2")
    for uri in (
        "postgresql+psycopg2://sweeper:s3cret@127.0.0.1:9/mlflow",
        "postgresql+psycopg2://sweeper:s3cr%40t/x@127.0.0.1:9/mlflow?password=s3cret",
        "http://sweeper:s3cret@127.0.0.1:9",
    ):
        writer = begun(Tracking(uri, "exp"))
        assert not writer.close("finished", 1)
        assert writer.problem is not None
        assert "127.0.0.1" in writer.problem
        assert "s3cr" not in writer.problem + caplog.text


def test_nothing_is_written_for_a_sweep_of_which_nothing_was_told(tracking: Tracking) -> None:
    writer = begun(tracking)
    assert writer.close("stopped", 60)
    assert snapshot(tracking) == {}
    assert writer.parent_id is None


def test_a_writer_that_was_never_started_closes_at_once(tracking: Tracking) -> None:
    before = time.perf_counter()
    writer = MlflowWriter(tracking, SWEEP)
    writer.warm_up()
    writer.close("stopped", 60)
    assert time.perf_counter() - before < 30
    assert SweepRuns(tracking, SWEEP).connected is False
