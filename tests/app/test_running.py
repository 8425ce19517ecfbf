"""Going on with a sweep: on its own device, with its own code, and until its end was told to MLflow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.sweep.fakes import spec_of
from wsl_sweep.app import options, running
from wsl_sweep.app.running import _ended_whole, _moved, _on_its_device, _other_versions
from wsl_sweep.errors import WslSweepError
from wsl_sweep.storage import place

FILE = "name: s\nrun: {recipe: digits}\nvariants: [kd]\n"


@pytest.mark.parametrize(("begun", "here", "gpu"), [("cpu", "cuda", 0.0), ("cpu", "cpu", None), ("cuda", "cuda", None)])
def test_a_sweep_stays_on_its_device(monkeypatch: pytest.MonkeyPatch, begun: str, here: str, gpu: float | None) -> None:
    """One that began on a laptop and goes on beside a GPU would else run every trial again, under another id."""
    monkeypatch.setattr(options, "local_device_kind", lambda: here)
    assert _on_its_device(spec_of(FILE), {"device_kind": begun}, None).resources.gpu == gpu


def test_a_device_that_is_not_here_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "local_device_kind", lambda: "cpu")
    with pytest.raises(WslSweepError, match="began on cuda, and would go on on cpu"):
        _on_its_device(spec_of(FILE), {"device_kind": "cuda"}, None)
    with pytest.raises(WslSweepError, match="began on cpu, and would go on on cuda"):
        _on_its_device(spec_of(FILE + "resources: {gpu: 0.5}\n"), {"device_kind": "cpu"}, None)


def test_where_the_folders_of_users_code_are_gone_this_one_is_looked_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for a job that is submitted again, whose working folder is another one each time."""
    monkeypatch.chdir(tmp_path)
    assert _moved({"import_folders": [str(tmp_path / "gone")]})["import_folders"] == [str(tmp_path)]
    (tmp_path / "there").mkdir()
    assert _moved({"import_folders": [str(tmp_path / "there")]})["import_folders"] == [str(tmp_path / "there")]


def test_other_versions_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "versions", lambda: {"torch": "3.0", "wsl-sweep": "1", "ray": "9"})
    assert _other_versions({"versions": {"torch": "3.0", "wsl-sweep": "1", "ray": "2"}}) == []
    (note,) = _other_versions({"versions": {"torch": "2.0", "wsl-sweep": "1"}})
    assert note.startswith("torch 2.0 → 3.0 since the sweep began")


@pytest.mark.parametrize(
    ("content", "whole"),
    [
        ({"trials": [{"status": "finished", "mlflow_run_id": "a"}]}, True),
        ({"trials": [{"status": "finished", "mlflow_run_id": None}]}, False),
        ({"trials": [{"status": "killed", "mlflow_run_id": None}]}, True),
        ({}, False),
        ([], False),
    ],
)
def test_a_summary_without_its_runs_is_of_an_end_that_was_cut_short(tmp_path: Path, content: Any, whole: bool) -> None:
    assert _ended_whole(place(tmp_path)) is False
    (tmp_path / "summary.json").write_text(json.dumps(content))
    assert _ended_whole(place(tmp_path)) is whole
