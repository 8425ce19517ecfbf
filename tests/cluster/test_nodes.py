"""The nodes that other tests kill and freeze."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.nodes import Node, RayCluster, ray_cluster, wait_for

pytestmark = pytest.mark.cluster

ALIVE = """
import json, os, sys, ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
print(json.dumps([node["NodeName"] for node in ray.nodes() if node["Alive"]]))
"""


def alive(address: str, environment: dict[str, str]) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", ALIVE, address],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith('["')]  # Ray prints of its own accord, too
    return set(json.loads(lines[-1]))


def test_nodes_are_killed_frozen_and_joined_late_and_none_is_left(tmp_path: Path) -> None:
    with ray_cluster(tmp_path) as cluster:
        where = cluster.addresses
        assert alive(cluster.address, cluster.environment) == set(where.values())
        cluster.kill("one")
        assert cluster.processes("one") == []
        cluster.freeze("two")
        only_head = {where["head"]}
        wait_for(lambda: alive(cluster.address, cluster.environment) == only_head, 30, "the end of both nodes")
        cluster.thaw("two")
        cluster.add(Node("three", cpus=2))
        assert cluster.addresses["three"] in alive(cluster.address, cluster.environment)
        assert oct(cluster.token.stat().st_mode & 0o777) == "0o600"
    assert cluster.processes() == []


def test_none_is_left_of_a_cluster_whose_test_fails(tmp_path: Path) -> None:
    clusters: list[RayCluster] = []

    def fail() -> None:
        with ray_cluster(tmp_path, [Node("one")]) as cluster:
            clusters.append(cluster)
            cluster.freeze("one")
            assert cluster.processes("one")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert clusters[0].processes() == []
