"""What the tests on real Ray nodes share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.nodes import RayCluster

DOCTOR = """
import json, sys
from pathlib import Path
from wsl_sweep.app import RunOptions
from wsl_sweep.app.doctor import examine
asked = json.loads(sys.argv[1])
file = Path(asked["file"]) if asked["file"] else None
print("\\n" + examine(file, options=RunOptions(**asked["options"]), seconds=asked["seconds"]).to_json())
"""

Doctor = Callable[..., dict[str, Any]]


@pytest.fixture
def doctor(tmp_path: Path) -> Doctor:
    """Runs ``examine`` in a process of its own: a function of cluster, file, options, environment and seconds."""

    def ask(
        cluster: RayCluster | None,
        file: Path | None = None,
        *,
        environment: dict[str, str] | None = None,
        seconds: float = 60.0,
        **options: Any,
    ) -> dict[str, Any]:
        if cluster is not None:
            options["address"] = cluster.address
        asked = json.dumps({"file": str(file) if file else None, "options": options, "seconds": seconds})
        own = cluster.environment if cluster is not None else {}
        done = subprocess.run(
            [sys.executable, "-c", DOCTOR, asked],
            cwd=tmp_path,
            env={**os.environ, **own, **(environment or {})},
            capture_output=True,
            text=True,
            timeout=150,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        report: dict[str, Any]
        report, _ = json.JSONDecoder().raw_decode(done.stdout, done.stdout.index("\n{") + 1)
        return report

    return ask
