"""PostgreSQL: several sweeps write at once, directly and through a server, and the database is started again."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import mlflow
import pytest

from tests.tracking.conftest import Postgres, Server
from tests.tracking.helpers import SWEEP, is_whole, rows, snapshot, story, sweep_of, tell, trials
from wsl_sweep.tracking import MlflowWriter, Tracking

pytestmark = pytest.mark.slow


@pytest.fixture
def database(postgres: Postgres, request: pytest.FixtureRequest) -> str:
    """The address of a database with MLflow's schema."""
    uri = postgres.database(f"of-{abs(hash(request.node.name))}")
    mlflow.MlflowClient(tracking_uri=uri).search_experiments()
    return uri


def write(tracking: Tracking, pause: float = 0.0) -> MlflowWriter:
    """A sweep that is named like its experiment."""
    writer = MlflowWriter(tracking, {**SWEEP, "uuid": tracking.experiment})
    writer.start()
    for one in sweep_of(map(story, trials(4))):
        tell(writer, [one])
        time.sleep(pause)
    return writer


def at_once(places: list[Tracking], pause: float = 0.0) -> list[MlflowWriter]:
    """A sweep for each, side by side."""
    writers: list[MlflowWriter] = []
    threads = [threading.Thread(target=lambda one=one: writers.append(write(one, pause))) for one in places]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return writers


def test_four_sweeps_at_once_three_directly_and_one_through_a_server(tmp_path: Path, database: str) -> None:
    server = Server(tmp_path, database)
    server.start()
    try:
        places = [Tracking(database, f"sweep-{number}") for number in range(3)]
        places.append(Tracking(server.address, "sweep-3"))
        for writer in at_once(places):
            assert writer.close("finished", 120), (writer.missing(), writer.problem)
        for place in places:
            assert is_whole(snapshot(Tracking(database, place.experiment)), trials(4))
    finally:
        server.kill()


def test_four_sweeps_in_one_experiment(database: str) -> None:
    writers = []
    for number in range(4):
        writer = MlflowWriter(Tracking(database, "shared"), {**SWEEP, "uuid": f"u-{number}", "name": f"n-{number}"})
        writer.start()
        writers.append(writer)
    for one in sweep_of(map(story, trials())):
        for writer in writers:
            tell(writer, [one])
    for writer in writers:
        assert writer.close("finished", 120), (writer.missing(), writer.problem)
    client = mlflow.MlflowClient(tracking_uri=database)
    experiment = client.get_experiment_by_name("shared")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], max_results=1000)
    assert len(found) == 4 * 7
    assert {run.info.status for run in found} == {"FINISHED"}
    for run in found:
        if "trial_id" in run.data.tags:
            assert len(client.get_metric_history(run.info.run_id, "validation/accuracy")) == 3


def test_a_database_that_is_killed_and_started_again(
    postgres: Postgres, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    place = Tracking(database, "killed")
    stopper = threading.Timer(1.0, lambda: (postgres.stop(), time.sleep(3.0), postgres.start()))
    stopper.start()
    (writer,) = at_once([place], pause=0.03)
    late = MlflowWriter(Tracking(database, "late"), {**SWEEP, "uuid": "late"})  # the database is not there yet
    late.start()
    late.bring_in_line(sweep_of(map(story, trials())), lambda trial_id, attempt: rows(3))
    assert late.close("finished", 120), (late.missing(), late.problem)
    stopper.join()
    assert writer.close("finished", 120), (writer.missing(), writer.problem)
    assert is_whole(snapshot(place), trials(4))
    assert is_whole(snapshot(Tracking(database, "late")), trials())
    assert "s3cret" not in caplog.text


def test_a_wrong_password_is_said_and_not_shown(postgres: Postgres, caplog: pytest.LogCaptureFixture) -> None:
    writer = MlflowWriter(Tracking(postgres.uri().replace("s3cret%40%2Fx", "wr0ng%40"), "exp"), SWEEP)
    writer.start()
    assert not writer.close("finished", 5)
    assert "password authentication failed" in str(writer.problem)
    assert "wr0ng" not in str(writer.problem) + caplog.text
