"""The precision is measured, and the narrow one taken only where that pays."""

from __future__ import annotations

import pytest
import torch

from wsl_sweep.training import precision
from wsl_sweep.training.precision import WORTH_IT, choose_precision, measure_precision

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
