"""How BERT is fine-tuned: the linear schedule and what decays, against transformers' own and PyTorch's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from wsl_sweep.models import build
from wsl_sweep.training.loop import build_optimizer, learning_rate

transformers = pytest.importorskip("transformers")

ADAMW = {"name": "adamw", "lr": 0.1, "weight_decay": 0.5, "decay_on": "weights"}


def theirs(base: float, warmup: int, steps: int) -> list[float]:
    """The learning rates that transformers' linear schedule gives, step by step."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=base)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, warmup, steps)
    rates = []
    for _ in range(steps):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        schedule.step()
    return rates


def ours(base: float, warmup_epochs: float, epochs: int, steps: int) -> list[float]:
    schedule = {"shape": "linear", "epochs": epochs, "warmup_epochs": warmup_epochs, "milestones": []}
    return [learning_rate(base, schedule, epoch, step, steps) for epoch in range(epochs) for step in range(steps)]


@pytest.mark.parametrize(
    ("warmup_epochs", "epochs", "steps"), [(0.0, 4, 10), (0.5, 4, 10), (0.4, 4, 25), (2.0, 3, 7), (1.0, 1, 9)]
)
def test_the_linear_schedule_is_transformers_own(warmup_epochs: float, epochs: int, steps: int) -> None:
    warmup = round(warmup_epochs * steps)
    found, expected = ours(2e-5, warmup_epochs, epochs, steps), theirs(2e-5, warmup, epochs * steps)
    # Theirs begins its warm-up with a step of no size; ours has that step's place taken by the next.
    assert found[:warmup] == pytest.approx([*expected[1:warmup], 2e-5][:warmup])
    assert found[warmup:] == pytest.approx(expected[warmup:])
    assert min(found) > 0


def test_a_warm_up_of_a_part_of_an_epoch_ends_within_it() -> None:
    rates = ours(1.0, 0.25, 2, 8)
    assert rates[:3] == pytest.approx([0.5, 1.0, 1.0])
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert rates[-1] == pytest.approx(1 / 14)


def test_a_warm_up_that_ends_between_two_steps_goes_over_no_rate() -> None:
    rates = ours(1.0, 0.3, 1, 5)  # 1.5 steps
    assert rates[0] == pytest.approx(1 / 1.5)
    assert rates[1] == 1.0
    assert rates[2] == pytest.approx(3 / 3.5)
    assert max(rates) <= 1.0


@pytest.mark.parametrize("name", ["bert_2x16", "resnet8"])
def test_what_decays_is_what_is_multiplied(name: str) -> None:
    model = build(name, 3, 20 if name.startswith("bert") else 3)
    multiplied = {
        id(module.weight) for module in model.modules() if isinstance(module, nn.Linear | nn.Conv2d | nn.Embedding)
    }
    groups = build_optimizer(model, ADAMW).param_groups if name.startswith("bert") else groups_of_sgd(model)
    decaying, others = groups
    assert (decaying["weight_decay"], others["weight_decay"]) == (0.5, 0.0)
    assert {id(parameter) for parameter in decaying["params"]} == multiplied
    assert len(decaying["params"]) + len(others["params"]) == len(list(model.parameters()))


def groups_of_sgd(model: nn.Module) -> Any:
    config = {"name": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.5, "decay_on": "weights"}
    return build_optimizer(model, config).param_groups


def test_a_step_decays_weights_and_leaves_biases_and_normalisation() -> None:
    torch.manual_seed(0)
    model = build("bert_2x16", 3, 20)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    with torch.no_grad():
        for name, value in before.items():
            if value.ndim == 1:
                model.get_parameter(name).fill_(0.25)
    optimizer = build_optimizer(model, ADAMW)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)  # so that decay is all that a step does
    optimizer.step()
    for name, value in before.items():
        expected = value * (1 - 0.1 * 0.5) if value.ndim > 1 else torch.full_like(value, 0.25)
        torch.testing.assert_close(model.get_parameter(name).detach(), expected)
