"""Whole sweeps on real Ray nodes: spread, robbed of nodes and of their driver, refused, submitted as a job."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlflow
import pytest
from PIL import Image

from tests.cluster.nodes import Node, RayCluster, ray_cluster, wait_for
from tests.conftest import Workplace, end_session

pytestmark = pytest.mark.cluster

TEACHER_EPOCHS = 6
FILE = f"""
run:
  recipe: digits
  schedule: {{epochs: 60}}
  teacher: {{model: convnet_8, schedule: {{epochs: {TEACHER_EPOCHS}}}}}
variants: [wsl, ce]
seeds: %d
resources: {{cpu: 1, gpu: 0, checkpoint_epochs: 4}}
tracking: {{best_student: false}}
"""
"""The trials that need the teacher come first: one for each of three nodes."""

SHORT = """
run: {recipe: digits, schedule: {epochs: 3}}
variants: [ce]
seeds: 2
resources: {cpu: 1}
tracking: {best_student: false}
"""

PICTURES = """
run: {recipe: image_folder, dataset: {root: "${PICS}"}, student: {model: wrn_16_1}, precision: float32}
variants: [ce]
resources: {cpu: 1, gpu: 1, accelerator: A100}
"""

MODEL = """
from torch import nn

def small(classes, channels):
    return nn.Sequential(nn.Flatten(), nn.Linear(64 * channels, classes))
"""

LIMIT = 500.0
"""Seconds for a sweep that takes half a minute on an idle machine."""

BEGUN = re.compile(r"attempt (\d+): .*, process (\d+) on ")


@dataclass
class Sight:
    """What can be seen of a sweep from outside while it runs.

    Attributes:
        cluster: that it runs on.
        folder: of the sweep.
        nodes: (trial id, attempt) → the node on which it ran.
        processes: the same → its process.
    """

    cluster: RayCluster
    folder: Path
    nodes: dict[tuple[str, int], str] = field(default_factory=dict)
    processes: dict[tuple[str, int], int] = field(default_factory=dict)

    def look(self) -> None:
        """Asks of every process that a trial's log names to which node it belongs, while it lives."""
        for log in self.folder.glob("trials/*/log.txt"):
            for attempt, pid in BEGUN.findall(log.read_text(errors="replace")):
                key = (log.parent.name, int(attempt))
                if key not in self.nodes and (node := self.cluster.node_of(int(pid))) is not None:
                    self.nodes[key], self.processes[key] = node, int(pid)

    def log_of(self, trial_id: str) -> str:
        """What a trial has said."""
        return (self.folder / "trials" / trial_id / "log.txt").read_text(errors="replace")

    def in_the_middle(self, *, besides: str | None = None) -> str | None:
        """A node with a trial that has a whole checkpoint and has not ended."""
        self.look()
        for (trial_id, attempt), node in self.nodes.items():
            folder = self.folder / "trials" / trial_id / f"attempt-{attempt}"
            begun = any(folder.glob("epoch-*/manifest.json"))
            if node != besides and begun and not (folder / "outcome.json").exists():
                return node
        return None

    def wait_for(self, holds: Callable[[], bool], what: str, process: subprocess.Popen[str] | None = None) -> None:
        """Looks until something holds; fails at once where the driver has ended before."""

        def done() -> bool:
            self.look()
            if holds():
                return True
            if process is not None and process.poll() is not None:
                raise AssertionError(f"the driver ended before {what}:\n{process.communicate()[0]}")
            return False

        wait_for(done, LIMIT, what, self.logs, pause=0.02)

    def logs(self) -> str:
        """The ends of all logs of the sweep."""
        found = [*self.folder.glob("*.log"), *self.folder.glob("trials/*/log.txt")]
        return "\n".join(f"--- {log}\n{log.read_text(errors='replace')[-1500:]}" for log in found)


@contextlib.contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """Whatever happens inside, the process and its children do not outlive it."""
    try:
        yield process
    finally:
        if process.poll() is None:
            end_session(process)


def options(workplace: Workplace, address: str) -> list[str]:
    storage = str(workplace.folder / "runs")
    return ["--address", address, "--storage", storage, "--tracking-uri", workplace.uri]


def statuses(workplace: Workplace, experiment: str) -> dict[str | None, list[str]]:
    """Trial id (parent: None) → the statuses of its runs in MLflow."""
    client = mlflow.MlflowClient(tracking_uri=workplace.uri)
    found = client.get_experiment_by_name(experiment)
    if found is None:
        return {}
    by_trial: dict[str | None, list[str]] = {}
    for run in client.search_runs([found.experiment_id], max_results=1000):
        by_trial.setdefault(run.data.tags.get("trial_id"), []).append(run.info.status)
    return by_trial


def results(workplace: Workplace, sweep: str) -> dict[str, dict[str, float]]:
    """Trial id → its metrics, less what a clock says."""
    return {
        trial["trial_id"]: {name: value for name, value in trial["metrics"].items() if name != "train/seconds"}
        for trial in workplace.summary(sweep)["trials"]
    }


def check_whole(workplace: Workplace, sweep: str, reference: dict[str, dict[str, float]], count: int) -> None:
    """All trials finished, each once in MLflow, with the metrics of the undisturbed sweep, bit for bit."""
    summary = workplace.summary(sweep)
    assert summary["status"] == "finished"
    assert [trial["status"] for trial in summary["trials"]] == ["finished"] * count
    found = results(workplace, sweep)
    assert len(found) == count
    assert found == {trial_id: reference[trial_id] for trial_id in found}
    assert statuses(workplace, sweep) == {name: ["FINISHED"] for name in (None, *found)}


def shared_teacher(workplace: Workplace) -> dict[str, Any]:
    """The card of the one teacher in the storage, whose weights lie beside it."""
    (card,) = (workplace.folder / "runs" / ".teachers").glob("*/card.json")
    (weights,) = card.parent.glob("*.safetensors")
    found: dict[str, Any] = json.loads(card.read_text())
    assert weights.stem == found["sha256"]
    return found


def cards_of(cache: Path) -> list[dict[str, Any]]:
    return [json.loads(card.read_text()) for card in cache.glob("teachers/*/card.json")]


@pytest.fixture(scope="module")
def undisturbed(new_workplace: Callable[[str], Workplace]) -> dict[str, dict[str, float]]:
    """Trial id → metrics of the sweep on this machine alone, where nothing happened to it."""
    workplace = new_workplace("undisturbed")
    workplace.run("run", workplace.write("file.yaml", FILE % 3), "--name", "undisturbed", timeout=LIMIT)
    found = results(workplace, "undisturbed")
    assert len(found) == 6
    assert all("test/accuracy" in metrics for metrics in found.values())
    return found


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for label in ("cat", "dog"):
        (folder / label).mkdir()
        for number in range(8):
            Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / label / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Iterator[RayCluster]:
    """Nodes ``plain``, which has the pictures, and ``card``, which says that it has a T4; a dashboard."""
    folder = tmp_path_factory.mktemp("sweeps")

    def node(name: str, **more: Any) -> Node:
        return Node(name, environment={"WSL_SWEEP_CACHE": str(folder / name / "cache"), **more.pop("own", {})}, **more)

    nodes = [
        node("plain", own={"PICS": str(pictures)}),
        node("card", gpus=1, resources={"accelerator_type:T4": 1}),
    ]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with ray_cluster(folder, nodes, quick=False, environment={"PATH": path}, dashboard=True) as cluster:
        yield cluster


def on(cluster: RayCluster, workplace: Workplace, **more: str) -> Workplace:
    """The workplace with the cluster's token, and a cache of its own."""
    workplace.environment |= cluster.environment | {"WSL_SWEEP_CACHE": str(workplace.folder / "cache"), **more}
    return workplace


# --- nodes and drivers that die --------------------------------------------------------------------------------------


def test_a_sweep_whose_nodes_are_killed_frozen_and_added_ends_whole(
    tmp_path: Path, workplace: Workplace, undisturbed: dict[str, dict[str, float]]
) -> None:
    """Promises 1, 2 and 3 on a cluster: three nodes, one killed and one frozen in the middle, a fourth joining late."""

    def node(name: str) -> Node:
        return Node(name, environment={"WSL_SWEEP_CACHE": str(tmp_path / name)})

    first = ["one", "two", "three"]
    file = workplace.write("file.yaml", FILE % 3)
    with ray_cluster(tmp_path, [node(name) for name in first]) as cluster:
        on(cluster, workplace)
        sight = Sight(cluster, workplace.folder / "runs" / "nodes")
        with ended(workplace.start("run", file, "--name", "nodes", *options(workplace, cluster.address))) as process:
            sight.wait_for(lambda: set(first) <= set(sight.nodes.values()), "a trial on every node", process)
            sight.wait_for(lambda: sight.in_the_middle() is not None, "a first checkpoint", process)
            killed = sight.in_the_middle()
            assert killed is not None
            cluster.kill(killed)
            joining = threading.Thread(target=cluster.add, args=(node("four"),))
            joining.start()
            sight.wait_for(lambda: sight.in_the_middle(besides=killed) is not None, "a checkpoint elsewhere", process)
            frozen = sight.in_the_middle(besides=killed)
            assert frozen is not None
            cluster.freeze(frozen)
            joining.join()
            lost = [key for key, name in sight.nodes.items() if name == frozen][-1]
            again = (lost[0], lost[1] + 1)
            sight.wait_for(lambda: again in sight.nodes, "the next attempt of the frozen trial", process)
            cluster.thaw(frozen)  # what its worker still does is a zombie's
            sight.wait_for(lambda: process.poll() is not None, "the end of the sweep")
            output, _ = process.communicate()
        assert process.returncode == 0, output
        assert sight.nodes[again] not in (killed, frozen)
        assert "four" in sight.nodes.values(), "the node that joined late got no work"
    check_whole(workplace, "nodes", undisturbed, 6)
    assert {attempt for _, attempt in sight.nodes} >= {1, 2}
    went_on = [
        log.read_text() for log in sight.folder.glob("trials/*/log.txt") if "goes on after epoch" in log.read_text()
    ]
    assert went_on, "no trial went on from its checkpoint"

    teacher = shared_teacher(workplace)
    log = (sight.folder / "teachers.log").read_text()
    assert len(re.findall(r"^epoch=", log, re.M)) == TEACHER_EPOCHS, "the teacher was trained once"
    # The node that trained the teacher may come to the trials too late for those that need it.
    distilled = {node for (trial_id, _), node in sight.nodes.items() if "ablation wsl" in sight.log_of(trial_id)}
    assert len(distilled) > 1
    for name in distilled:
        assert [(card["sha256"], card["trained_at"]) for card in cards_of(tmp_path / name)] == [
            (teacher["sha256"], teacher["trained_at"])
        ]
        (bank,) = (tmp_path / name / "bank").glob("*/rows")
        assert bank.stat().st_size > 0
    assert not (workplace.folder / "cache" / "bank").exists()  # the driver trains nothing


def test_a_sweep_whose_driver_is_killed_is_resumed_on_the_kind_of_card_that_the_file_names(
    cluster: RayCluster, workplace: Workplace, undisturbed: dict[str, dict[str, float]]
) -> None:
    """Promise 2. The card is not there: the trials take none of it, and compute on its node's CPU."""
    on(cluster, workplace)
    file = workplace.write("file.yaml", (FILE % 2).replace("gpu: 0", "gpu: 0, accelerator: T4"))
    sight = Sight(cluster, workplace.folder / "runs" / "driver")
    to = options(workplace, cluster.address)
    with ended(workplace.start("run", file, "--name", "driver", *to)) as process:
        sight.wait_for(lambda: sight.in_the_middle() is not None, "a first checkpoint", process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert not (sight.folder / "summary.json").exists()
    with ended(workplace.start("resume", "driver", *to)) as process:
        sight.wait_for(lambda: process.poll() is not None, "the end of the sweep")
        output, _ = process.communicate()
    assert process.returncode == 0, output
    assert "is gone: its lease is taken over" in output
    check_whole(workplace, "driver", undisturbed, 4)
    logs = [log.read_text() for log in sight.folder.glob("trials/*/log.txt")]
    assert any("goes on after epoch" in log for log in logs), "no trial went on from its checkpoint"
    assert len(sight.nodes) > 4
    assert set(sight.nodes.values()) == {"card"}


def test_a_teacher_that_only_the_driver_has_is_not_trained_by_every_node(
    cluster: RayCluster, workplace: Workplace, cache: Path
) -> None:
    """Promise 3. The driver's cache knows the teacher; the nodes' do not."""
    space = "run: {recipe: digits, schedule: {epochs: 2}, teacher: {model: convnet_4, schedule: {epochs: 2}}}\n"
    file = workplace.write("file.yaml", space + "variants: [wsl]\nseeds: 2\n")
    on(cluster, workplace)
    to = options(workplace, cluster.address)
    sets = ("teacher.model=convnet_4", "teacher.schedule.epochs=2")
    workplace.run("teacher", "train", *(word for one in sets for word in ("--set", one)))
    (own,) = cards_of(workplace.folder / "cache")
    workplace.run("run", file, "--name", "elsewhere", *to, timeout=LIMIT)
    shared = shared_teacher(workplace)
    trained = {shared["trained_at"]}
    for name in ("plain", "card"):
        folder = cluster.folder.parent / name / "cache"
        trained |= {card["trained_at"] for card in cards_of(folder) if card["teacher_id"] == own["teacher_id"]}
    assert len(trained) == 1, "nodes have trained it, each for itself"
    assert shared["sha256"] == own["sha256"]


# --- what is refused -------------------------------------------------------------------------------------------------


def test_without_a_token_a_cluster_is_refused_unless_insecure(
    cluster: RayCluster, workplace: Workplace, tmp_path: Path
) -> None:
    """Promise 6. With --insecure this driver is let go as far as the cluster, which has a token and refuses it."""
    file = workplace.write("file.yaml", SHORT)
    workplace.environment |= {"RAY_AUTH_MODE": "disabled", "HOME": str(tmp_path)}
    to = options(workplace, cluster.address)
    output = workplace.run("run", file, "--name", "refused", *to, expect=2)
    assert "without a token" in output
    assert "--insecure" in output
    assert not (workplace.folder / "runs" / "refused").exists()


def test_a_cluster_without_a_token_is_joined_where_insecure_is_said(tmp_path: Path, workplace: Workplace) -> None:
    open_to_all = {"RAY_AUTH_MODE": "disabled"}
    with ray_cluster(tmp_path, [Node("one", environment=open_to_all)], environment=open_to_all) as cluster:
        on(cluster, workplace, RAY_AUTH_TOKEN_PATH="")
        file = workplace.write("file.yaml", SHORT)
        to = options(workplace, cluster.address)
        output = workplace.run("run", file, "--name", "open", *to, expect=2)
        assert "--insecure" in output
        workplace.run("run", file, "--name", "open", "--insecure", *to, timeout=LIMIT)
    assert workplace.summary("open")["status"] == "finished"


@pytest.mark.parametrize("missing", ["--storage", "--tracking-uri"])
def test_on_a_cluster_storage_and_tracking_must_be_given(workplace: Workplace, missing: str) -> None:
    file = workplace.write("file.yaml", SHORT)
    given = {"--storage": "runs", "--tracking-uri": workplace.uri}
    rest = [word for name, value in given.items() if name != missing for word in (name, value)]
    output = workplace.run("run", file, "--address", "127.0.0.1:1", *rest, expect=2)
    assert missing in output
    assert not (workplace.folder / "runs").exists()


def test_a_cluster_that_does_not_answer_is_said(workplace: Workplace) -> None:
    file = workplace.write("file.yaml", SHORT)
    workplace.environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
    output = workplace.run("run", file, "--name", "nobody", *options(workplace, "127.0.0.1:1"), expect=2, timeout=100)
    assert "127.0.0.1:1" in output
    assert "Traceback" not in output
    assert not (workplace.folder / "runs" / "nobody").exists()


def test_a_cluster_that_lacks_data_cards_and_room_is_refused_before_anything_starts(
    cluster: RayCluster, workplace: Workplace, pictures: Path
) -> None:
    on(cluster, workplace, PICS=str(pictures))
    file = workplace.write("file.yaml", PICTURES)
    output = workplace.run("run", file, "--name", "lacking", *options(workplace, cluster.address), expect=2)
    told = " ".join(output.split())
    assert "cannot run this sweep" in told
    assert "data image_folder" in told
    assert "${PICS} is not set" in told
    assert cluster.addresses["card"] in told
    assert cluster.addresses["plain"] not in told.partition("cannot run this sweep")[2]
    assert "Ray says 1 GPU, torch finds no cards" in told
    assert "resources.accelerator is A100, and no node has one; there are: T4" in told
    assert not [path for path in workplace.folder.glob("runs/*") if path.name != ".teachers"]
    assert not list(workplace.folder.glob("runs/.teachers/*"))
    assert statuses(workplace, "lacking") == {}


# --- jobs ------------------------------------------------------------------------------------------------------------


def test_a_job_brings_the_file_and_the_users_own_module(cluster: RayCluster, workplace: Workplace) -> None:
    """``ray job submit --working-dir .``, as docs/cluster.md has it; the folder is nowhere else."""
    assert cluster.dashboard is not None
    if not _answers(f"{cluster.dashboard}/api/version", cluster, 60):
        pytest.skip("Ray's dashboard does not start here, so there are no jobs")
    folder = workplace.folder / "brought"
    folder.mkdir()
    (folder / "my_models.py").write_text(MODEL)
    (folder / "file.yaml").write_text(
        'run: {recipe: digits, schedule: {epochs: 2}, student: {model: "my_models:small"}}\nvariants: [ce]\nseeds: 2\n'
    )
    storage = ["--storage", str(workplace.folder / "runs"), "--tracking-uri", workplace.uri]
    command = [sys.executable, "-m", "ray.scripts.scripts", "job", "submit", "--address", cluster.dashboard]
    command += ["--working-dir", ".", "--", "wsl-sweep", "run", "file.yaml", "--name", "job", *storage]
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **cluster.environment},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert workplace.summary("job")["status"] == "finished"
    assert len(results(workplace, "job")) == 2
    assert set(map(tuple, statuses(workplace, "job").values())) == {("FINISHED",)}


def _answers(url: str, cluster: RayCluster, seconds: float) -> bool:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {cluster.token.read_text()}"})
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with contextlib.suppress(OSError), urllib.request.urlopen(request, timeout=5) as answer:
            return bool(answer.status == 200)
        time.sleep(0.5)
    return False
