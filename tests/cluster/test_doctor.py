"""``wsl-sweep doctor`` on a real cluster whose nodes are not all as they should be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.cluster.conftest import Doctor
from tests.cluster.nodes import Node, RayCluster, ray_cluster

pytestmark = pytest.mark.cluster

FILE = """
run: {{recipe: image_folder, dataset: {{root: "{root}"}}, student: {{model: "{model}"}}}}
variants: [ce]
resources: {resources}
"""

MODEL = """
from torch import nn

def small(classes, channels):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(classes))
"""


def pictures(folder: Path, count: int) -> Path:
    for label in ("cat", "dog"):
        (folder / label).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / label / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def place_of_all(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("doctor")
    pictures(folder / "shared" / "pictures", 4)
    pictures(folder / "other" / "pictures", 3)
    (folder / "code").mkdir()
    (folder / "code" / "my_models.py").write_text(MODEL)
    return folder


@pytest.fixture(scope="module")
def cluster(place_of_all: Path) -> Iterator[RayCluster]:
    """Nodes ``one``, which is as the driver, ``two``, which lacks the data, and ``three``, which has others."""
    shared, code = place_of_all / "shared", place_of_all / "code"
    (place_of_all / "two").mkdir()
    (place_of_all / "two" / "in_the_way").write_text("a file")
    nodes = [
        Node("one", environment={"SCRATCH": str(shared), "PYTHONPATH": str(code)}),
        Node("two", gpus=1, environment={"SCRATCH": str(place_of_all / "absent")}, cwd=place_of_all / "two"),
    ]
    with ray_cluster(place_of_all, nodes, quick=False) as cluster:
        yield cluster


def write(folder: Path, root: Path | str, model: str = "wrn_16_1", resources: str = "{cpu: 1}") -> Path:
    file = folder / "file.yaml"
    file.write_text(FILE.format(root=root, model=model, resources=resources))
    return file


def found(report: dict[str, Any], cluster: RayCluster, what: str, node: str | None = None) -> list[dict[str, Any]]:
    address = cluster.addresses.get(node or "", node or "")
    return [one for one in report["checks"] if one["what"] == what and (node is None or address in one["node"])]


def problems(report: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for one in report["checks"] if one["status"] == "problem"]


def test_a_cluster_that_is_right_has_no_problem(
    cluster: RayCluster, doctor: Doctor, place_of_all: Path, tmp_path: Path
) -> None:
    file = write(tmp_path, place_of_all / "shared" / "pictures")
    tracking = f"sqlite:///{tmp_path / 'mlflow.db'}"
    report = doctor(cluster, file, storage=str(tmp_path / "runs"), tracking_uri=tracking)
    assert report["ok"], problems(report)
    assert {one["status"] for one in found(report, cluster, "storage")} == {"ok"}
    assert len(found(report, cluster, "storage")) == 4  # the driver, the head and two nodes
    assert len(found(report, cluster, "data image_folder")) == 3  # nothing runs on the head
    assert found(report, cluster, "token")[0]["status"] == "ok"
    assert found(report, cluster, "room")[0]["found"] == "2 trials at once"
    assert not (tmp_path / "runs").exists()
    assert not (tmp_path / "mlflow.db").exists()


def test_data_that_a_node_lacks_are_told_for_that_node_alone(
    cluster: RayCluster, doctor: Doctor, place_of_all: Path, tmp_path: Path
) -> None:
    file = write(tmp_path, "${SCRATCH}/pictures")
    environment = {"SCRATCH": str(place_of_all / "shared")}
    report = doctor(cluster, file, storage=str(tmp_path / "runs"), environment=environment)
    wrong = problems(report)
    assert [one["what"] for one in wrong] == ["data image_folder"]
    assert cluster.addresses["two"] in wrong[0]["node"]
    assert str(place_of_all / "absent") in wrong[0]["found"]
    assert "dataset.root" in wrong[0]["todo"]


def test_other_pictures_than_the_drivers_and_a_module_that_a_node_lacks_are_problems(
    cluster: RayCluster, doctor: Doctor, place_of_all: Path, tmp_path: Path
) -> None:
    file = write(tmp_path, "${SCRATCH}/pictures", model="my_models:small")
    environment = {"SCRATCH": str(place_of_all / "other"), "PYTHONPATH": str(place_of_all / "code")}
    report = doctor(cluster, file, environment=environment)
    (other,) = found(report, cluster, "data image_folder", "one")
    assert other["status"] == "problem"
    assert "not the driver's pictures" in other["found"]
    assert found(report, cluster, "my_models:small", "one")[0]["status"] == "ok"
    (absent,) = found(report, cluster, "my_models:small", "two")
    assert absent["status"] == "problem"
    assert 'no module is called "my_models"' in absent["found"]


def test_a_storage_that_is_not_shared_and_one_that_a_node_cannot_write_are_found_out_and_nothing_stays(
    cluster: RayCluster, doctor: Doctor
) -> None:
    # One path, and another folder for every process: what a disk of each node's own looks like.
    report = doctor(cluster, storage="/proc/self/cwd/in_the_way/runs")
    assert found(report, cluster, "storage", "driver")[0]["status"] == "ok"
    other = "not the driver's folder"
    for node, told in (("head", other), ("one", other), ("two", "cannot write")):
        (check,) = found(report, cluster, "storage", node)
        assert check["status"] == "problem"
        assert told in check["found"]
    assert list(cluster.folder.glob("*/in_the_way/runs")) == []


def test_cards_that_are_not_there_and_trials_for_which_there_is_no_room(
    cluster: RayCluster, doctor: Doctor, place_of_all: Path, tmp_path: Path
) -> None:
    root = place_of_all / "shared" / "pictures"
    report = doctor(cluster, write(tmp_path, root, resources="{cpu: 1, gpu: 1, accelerator: A100}"))
    (cards,) = found(report, cluster, "cards", "two")
    assert cards["status"] == "problem"
    assert cards["found"] == "Ray says 1 GPU, torch finds no cards"
    (room,) = found(report, cluster, "room")
    assert room["status"] == "problem"
    assert "A100" in room["found"]


def test_without_a_token_no_node_is_asked(cluster: RayCluster, doctor: Doctor) -> None:
    report = doctor(cluster, environment={"RAY_AUTH_MODE": "disabled"})
    assert not report["ok"]
    assert [one["what"] for one in problems(report)] == ["token"]
    assert found(report, cluster, "nodes") == []


def test_a_node_that_is_frozen_does_not_hold_up_the_others(cluster: RayCluster, doctor: Doctor) -> None:
    cluster.freeze("two")
    try:
        report = doctor(cluster, seconds=20.0)
    finally:
        cluster.thaw("two")
    (wrong,) = [one for one in problems(report) if cluster.addresses["two"] in one["node"]]
    assert wrong["what"] == "answer"
    assert found(report, cluster, "versions", "one")[0]["status"] == "ok"
