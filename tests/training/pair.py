"""What two processes of one group compute together: each function runs in both, and the test looks at the leader's."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from wsl_sweep.data import load
from wsl_sweep.distill import Objective
from wsl_sweep.training import FrozenTeacher, TeacherStore, TrialTraining
from wsl_sweep.training.feed import epoch_inputs
from wsl_sweep.training.group import ALONE, Group, Invitation, joining
from wsl_sweep.training.loop import predict
from wsl_sweep.training.step import StepInputs, StepRunner
from wsl_sweep.training.supply import supply_for

from .conftest import make_job
from .group_models import Plain

CLASSES = 5


def batch(n: int, group: Group = ALONE) -> StepInputs:
    """A batch of ``n`` with all that a distillation reads; the inputs of this process's share."""
    generator = torch.Generator().manual_seed(n)
    pictures = torch.randn(n, 1, 8, 8, generator=generator)
    return StepInputs(
        pictures[group.share(n)],
        torch.randint(CLASSES, (n,), generator=generator),
        2 * torch.randn(n, CLASSES, generator=generator),
        teacher_features=torch.randn(n, 7, generator=generator),
        keeping=torch.rand(n, generator=generator),
        permuting=torch.randperm(n, generator=generator),
        epochs=3,
    )


def step(
    group: Group, distillation: Mapping[str, Any], n: int
) -> tuple[float, list[Tensor], Tensor | None, Tensor | None]:
    """The loss of one step, the gradients of a model without batch normalisation, the weights, and all the masks."""
    torch.manual_seed(3)
    model = Plain(CLASSES, 1).train()
    objective = Objective(distillation)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    runner = StepRunner(model, objective.step, optimizer, features=objective.needs_features, group=group)
    runner(batch(n, group), 0.0)
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    masks = [group.gather(mask, [n] * group.size) for mask in runner.samples.steps]
    weights = runner.weights[0] if runner.weights else None
    return float(runner.sums[0]) / n, gradients, weights, masks[0] if masks else None


class Lopsided(nn.Module):
    """A normalised branch that only pictures with a positive sum take, and a parameter that nobody needs."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(64)
        self.classifier = nn.Linear(64, CLASSES)
        self.branch = nn.Linear(64, CLASSES)
        self.unused = nn.Linear(2, 2)

    def forward(self, images: Tensor) -> Tensor:
        flat = images.flatten(1)
        logits: Tensor = self.classifier(self.norm(flat))
        return logits + self.branch(flat) if float(flat.sum()) > 0 else logits


def lopsided(group: Group) -> dict[str, Any]:
    """After a step of a model of which one process uses a part that the other does not."""
    torch.manual_seed(4)
    model = Lopsided().train()
    runner = StepRunner(
        model, Objective({"method": "none"}).step, torch.optim.SGD(model.parameters(), lr=0.1), group=group
    )
    inputs = batch(8, group)
    sign = 1.0 if group.leads else -1.0
    runner(replace(inputs, inputs=inputs.inputs.abs() * sign), 0.1)
    mean = model.norm.running_mean
    assert mean is not None
    return {
        "unused": model.unused.weight.grad,
        "branch": group.gather(model.branch.weight.detach().reshape(1, -1), [1, 1]),
        "means": group.gather(mean.reshape(1, -1), [1, 1]),
    }


def epoch(group: Group, by_batch: bool) -> list[StepInputs]:
    """The inputs of an epoch's steps, each process's shares of pictures put together again."""
    data = load(make_job().config["dataset"])

    def make_teacher() -> FrozenTeacher:
        torch.manual_seed(5)
        return FrozenTeacher(Plain(10, 1), data.validation, "train" if by_batch else "eval")

    teacher = {"model": "plain", "weights": "1" * 64, "own_code": None}
    supply = supply_for(data, make_teacher, teacher, features=True, by_batch=by_batch, group=group)
    supply.window = min(supply.window, 150)
    steps = []
    for one in epoch_inputs(
        data, supply, seed=1, epoch=0, epochs=1, batch_size=57, draws=("keeping",), first_step=1, group=group
    ):
        n = len(one.labels)
        whole = group.gather(one.inputs, group.sizes(n)) if group.splits(n) else one.inputs
        steps.append(replace(one, inputs=whole))
    supply.close()
    return steps


def predictions(group: Group) -> Tensor:
    """Of a training part in batches of 256, which are one too many for both to have as many."""
    torch.manual_seed(6)
    return predict(Plain(10, 1), load(make_job("dataset.train_fraction=1.0").config["dataset"]).train, group)


def trial(group: Group, *sets: str, **options: Any) -> tuple[list[dict[str, float]], Mapping[str, Any], Any]:
    """A whole training: its rows, its student and its teacher's facts."""
    job = replace(make_job(*sets), processes=group.size)
    with TrialTraining(job, TeacherStore(), group=group, **options) as training:
        if group.leads or group.hear() == "train":
            list(training)
    return training.rows, training.student.state_dict(), training.teacher_facts()


TOGETHER: dict[str, Callable[..., Any]] = {one.__name__: one for one in (step, lopsided, epoch, predictions, trial)}


def main() -> None:
    """The second process of the pair: does what the leader names, until that ends."""
    torch.set_num_threads(1)
    with joining(Invitation(**json.loads(sys.argv[1])), 1) as group:
        while (asked := group.hear()) != "end":
            name, arguments = asked
            TOGETHER[name](group, *arguments)


if __name__ == "__main__":
    main()
