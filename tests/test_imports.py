"""Who may import whom: a file is read without torch, and one training needs neither Ray nor MLflow nor Optuna."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_imports_go_down_the_diagram_only() -> None:
    command = Path(sysconfig.get_path("scripts")) / "lint-imports"
    done = subprocess.run(
        [str(command), "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


@pytest.mark.parametrize(
    ("package", "absent"),
    [
        ("wsl_sweep", ("torch", "ray", "mlflow", "optuna", "pydantic")),
        ("wsl_sweep.spec", ("torch", "ray", "mlflow", "optuna")),
        ("wsl_sweep.training", ("ray", "mlflow", "optuna")),
        ("wsl_sweep.cli", ("torch", "ray", "mlflow", "optuna")),
    ],
)
def test_a_package_loads_none_of(package: str, absent: tuple[str, ...], tmp_path: Path) -> None:
    program = f"import sys, {package}; print(*sorted(set(sys.modules) & set({absent!r})))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == []
