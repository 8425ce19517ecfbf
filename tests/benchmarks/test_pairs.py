"""The loops that are timed against each other train alike, and one trial's figures need neither ray nor mlflow."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.pairs import BATCH, CLASSES, Pair, fill, naive, operations, ours, pictures, raw_images, supply
from tests.conftest import REPO

WITHOUT_RAY = """
import runpy, sys
for name in ("ray", "mlflow", "optuna"):
    sys.modules[name] = None
runpy.run_module("benchmarks.gpu", run_name="__main__", alter_sys=True)
"""

SMALL = Pair("resnet14", "resnet8")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSL_SWEEP_CACHE", str(tmp_path / "cache"))


def test_the_pictures_are_of_cifars_shape() -> None:
    data = pictures("cpu", 70, 10)
    assert data.train.views.count == 162
    assert data.validation.views.count == 1
    assert (len(data.train), len(data.validation), data.num_classes) == (70, 10, CLASSES)
    images = data.train.views.plain(torch.arange(3))
    assert images.shape == (3, 3, 32, 32)
    restored = images * data.train.views._std + data.train.views._mean
    torch.testing.assert_close(restored, raw_images(data, data.train)[:3].float() / 255)


def test_a_bank_that_is_filled_beforehand_has_all_that_a_training_asks_for() -> None:
    data = pictures("cpu", BATCH + 6, 10)
    bank = supply(SMALL, data, "cpu", bank=True)
    fill(bank, data, 2)
    before = bank.computed
    filled = list(ours(SMALL, data, "cpu", epochs=2, teacher=bank))
    assert bank.computed == before > 0
    bank.close()
    computing = supply(SMALL, data, "cpu", bank=False)
    computed = list(ours(SMALL, data, "cpu", epochs=2, teacher=computing))
    assert computing.computed == 2 * (BATCH + 6) + 10
    timeless = [{name: value for name, value in row.items() if name[-4:] not in ("onds", "tamp")} for row in filled]
    assert timeless == [{name: row[name] for name in timeless[0]} for row in computed]


def test_the_naive_loop_learns_and_looks_at_the_validation_part() -> None:
    loop = naive(SMALL, pictures("cpu", 10, 5), "cpu", workers=0)
    losses, accuracies = zip(*((next(loop), next(loop)) for _ in range(4)), strict=True)
    assert losses[-1] < losses[0]
    assert all(0 <= accuracy <= 1 for accuracy in accuracies)


@pytest.mark.parametrize(
    ("pair", "bound"),
    [("wrn_40_2:wrn_16_2", 2.08), ("wrn_40_2:wrn_40_1", 2.31), ("resnet56:resnet20", 2.03), ("vgg13:vgg8", 1.99)],
)
def test_what_never_running_the_teacher_can_win_is_as_the_models_multiply(pair: str, bound: float) -> None:
    teacher, student = operations(Pair(*pair.split(":")))
    assert (teacher + student) / student == pytest.approx(bound, abs=0.01)


@pytest.mark.slow
def test_a_trials_figures_on_a_device_need_no_ray(tmp_path: Path) -> None:
    sizes = ["--train", "96", "--validation", "16", "--rounds", "1", "--naive-steps", "1", "--fill", "64"]
    command = [sys.executable, "-c", WITHOUT_RAY, "--device", "cpu", "--pair", "resnet14:resnet8", "--matrix", "64"]
    command += [*sizes, "--loader-workers", "0", "--output", str(tmp_path / "gpu.json")]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["device"] == "cpu"
    assert found["bank"]["views"] == 64
    assert found["bank"]["of"] == 96 * 162
    assert set(found["seconds a step"]) == {
        "naive", "bank, float32", "alone, float32", "bank, bfloat16", "alone, bfloat16",
    }  # fmt: skip
