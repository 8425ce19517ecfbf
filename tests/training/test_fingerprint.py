"""The fingerprint: with what a trial was made."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

import wsl_sweep
from wsl_sweep.training import fingerprint as module
from wsl_sweep.training.fingerprint import fingerprint, library_versions, training_code_digest


def digest_of(package: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The digest that the code in ``package`` has of itself."""
    monkeypatch.setattr(module, "__file__", str(package / "training" / "fingerprint.py"))
    return str(training_code_digest.__wrapped__())


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package's source."""
    copy = tmp_path / "wsl_sweep"
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(wsl_sweep.__file__).parent, copy, ignore=ignore)
    return copy


def test_the_same_code_in_another_place_is_the_same_code(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert digest_of(package, monkeypatch) == training_code_digest()
    assert len(training_code_digest()) == 16


@pytest.mark.parametrize(
    "path", ["distill/losses.py", "models/convnet.py", "data/views.py", "training/loop.py", "training/__init__.py"]
)
def test_a_changed_line_of_what_makes_the_numbers_shows(
    path: str, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = digest_of(package, monkeypatch)
    with (package / path).open("a") as file:
        file.write("# changed\n")
    assert digest_of(package, monkeypatch) != before


@pytest.mark.parametrize("path", ["cli.py", "tracking/writer.py", "analysis/statistics.py"])
def test_a_changed_line_of_anything_else_does_not(path: str, package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = digest_of(package, monkeypatch)
    with (package / path).open("a") as file:
        file.write("# changed\n")
    assert digest_of(package, monkeypatch) == before


def test_a_fingerprint_says_code_library_device_data_and_teacher() -> None:
    found = fingerprint("cpu", "d" * 16, "t" * 64)
    assert found == {
        "code": training_code_digest(),
        "torch": torch.__version__,
        "device": "cpu",
        "data": "d" * 16,
        "teacher": "t" * 64,
        "own": None,
    }
    assert fingerprint("cpu", "d" * 16, None)["teacher"] is None


def test_the_versions_are_those_of_what_computes() -> None:
    assert library_versions()["torch"] == torch.__version__
    assert library_versions()["python"].startswith("3.")
