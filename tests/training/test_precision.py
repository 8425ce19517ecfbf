"""The precision is measured, and the narrow one taken only where that pays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from wsl_sweep.training import precision
from wsl_sweep.training.precision import WORTH_IT, choose_precision, measure_precision, measured_precision

from .conftest import make_job


@pytest.mark.parametrize(
    ("narrow", "chosen"),
    [(0.5, "bfloat16"), (WORTH_IT - 0.01, "bfloat16"), (WORTH_IT, "float32"), (1.0, "float32"), (3.0, "float32")],
)
def test_the_narrow_precision_must_be_worth_it(narrow: float, chosen: str) -> None:
    assert choose_precision({"float32": 1.0, "bfloat16": narrow}) == chosen
    assert choose_precision({"float32": 0.002, "bfloat16": 0.002 * narrow}) == chosen


def test_a_step_is_measured_in_both_precisions(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, int]] = []
    real = precision.StepRunner.__call__

    def watched(self: precision.StepRunner, inputs: precision.StepInputs, lr: float) -> None:
        seen.append((self._precision, len(inputs.labels)))
        before = [parameter.clone() for parameter in self.model.parameters()]
        real(self, inputs, lr)
        assert all(torch.equal(a, b) for a, b in zip(before, self.model.parameters(), strict=True))

    monkeypatch.setattr(precision.StepRunner, "__call__", watched)
    monkeypatch.setattr(precision, "SECONDS", 60.0)
    monkeypatch.setattr(precision, "MOST_STEPS", 3)
    found = measure_precision(make_job().config)
    assert set(found) == {"float32", "bfloat16"}
    assert all(0 < seconds < 10 for seconds in found.values())
    assert seen[:4] == [("float32", 64), ("bfloat16", 64)] * 2
    assert len(seen) == 2 * (precision.WARM_UP + 3)


def test_measuring_ends_after_some_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "SECONDS", 0.0)
    monkeypatch.setattr(precision, "MOST_STEPS", 10**6)
    assert min(measure_precision(make_job().config).values()) > 0


# --- kept measurements -----------------------------------------------------------------------------

SECONDS = {"float32": 0.002, "bfloat16": 0.001}


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """How often something was measured, and with what; the narrow precision wins."""
    calls: list[dict[str, Any]] = []

    def measure(config: Any, threads: int = 1, **options: Any) -> dict[str, float]:
        calls.append({"threads": threads, **options})
        return dict(SECONDS)

    monkeypatch.setattr(precision, "measure_precision", measure)
    return calls


def kept(cache: Path) -> list[Path]:
    return sorted((cache / "precision").glob("*.json"))


def test_what_was_measured_once_is_not_measured_again(measured: list[dict[str, Any]], own_cache: Path) -> None:
    first = measured_precision(make_job().config)
    assert first == {**SECONDS, "chosen": "bfloat16"}
    for job in (make_job(), make_job(seed=7), make_job("optimizer.lr=0.3"), make_job("distillation.method=rkd")):
        assert measured_precision(job.config) == first
    assert len(measured) == len(kept(own_cache)) == 1


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"float32": 1.0}', '{"chosen": "float32"}', "\udcff"])
def test_a_damaged_measurement_is_made_anew(content: str, measured: list[dict[str, Any]], own_cache: Path) -> None:
    first = measured_precision(make_job().config)
    (path,) = kept(own_cache)
    path.write_bytes(content.encode(errors="surrogateescape"))
    assert measured_precision(make_job().config) == first
    assert len(measured) == 2
    assert measured_precision(make_job().config) == first
    assert len(measured) == 2


@pytest.mark.parametrize(
    "setting",
    ["schedule.batch_size=32", "student.model=convnet_4", "optimizer.name=adamw", "dataset.train_fraction=0.9"],
)
def test_another_training_is_another_measurement(setting: str, measured: list[dict[str, Any]], own_cache: Path) -> None:
    measured_precision(make_job().config)
    measured_precision(make_job(setting).config)
    assert len(measured) == len(kept(own_cache)) == 2


def test_other_threads_torch_or_processor_are_another_measurement(
    measured: list[dict[str, Any]], own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured_precision(make_job().config)
    measured_precision(make_job().config, 2)
    with monkeypatch.context() as patch:
        patch.setattr("wsl_sweep.training.device._processor", lambda: "Abacus 9000")
        measured_precision(make_job().config)
    monkeypatch.setattr(torch, "__version__", "99.0")
    measured_precision(make_job().config)
    assert [call["threads"] for call in measured] == [1, 2, 1, 1]
    assert len(kept(own_cache)) == 4


def test_without_a_share_of_a_gpu_the_cpu_is_measured(
    measured: list[dict[str, Any]], own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr(precision, "device_facts", lambda device: {"kind": device})
    for gpu in (0.0, 0.5, 0.0):
        measured_precision(make_job().config, gpu=gpu)
    assert [(call["device"], call["gpu"]) for call in measured] == [("cpu", 0.0), ("cuda", 0.5)]
    assert len(kept(own_cache)) == 2


def test_a_cache_that_cannot_be_written_costs_a_measurement_and_no_more(
    measured: list[dict[str, Any]], own_cache: Path
) -> None:
    own_cache.mkdir(parents=True, exist_ok=True)
    (own_cache / "precision").write_text("in the way")
    for _ in range(2):
        assert measured_precision(make_job().config) == {**SECONDS, "chosen": "bfloat16"}
    assert len(measured) == 2
