"""The training loop, one for students and teachers, CPU and GPU."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Container, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from wsl_sweep.data import Examples, VisionData
from wsl_sweep.data.streams import stream_seed
from wsl_sweep.errors import DivergedError
from wsl_sweep.training.feed import TeacherLogits, epoch_inputs, steps_an_epoch
from wsl_sweep.training.metrics import classification_metrics, teacher_metrics
from wsl_sweep.training.step import GRAPH_STEPS, StepLoss, StepRunner

EVALUATION_BATCH = 256

Row = dict[str, float]
"""The metrics of one epoch; ``epoch`` counts from 1, ``timestamp`` is in seconds since 1970."""


def build_optimizer(model: nn.Module, config: Mapping[str, Any]) -> torch.optim.Optimizer:
    """The optimizer of an ``optimizer`` section; weight decay on every parameter, as RepDistiller has it.

    Fused: one call for all parameters. On a GPU its learning rate is a tensor, so that a CUDA graph reads it anew.
    """
    on_gpu = next(model.parameters()).device.type == "cuda"
    lr = torch.tensor(config["lr"], device="cuda") if on_gpu else config["lr"]
    if config["name"] == "sgd":
        momentum = config["momentum"]
        return torch.optim.SGD(
            model.parameters(),
            lr=lr,
            momentum=momentum,
            nesterov=bool(momentum and config["nesterov"]),
            weight_decay=config["weight_decay"],
            fused=True,
        )
    return torch.optim.AdamW(
        model.parameters(), lr=lr, weight_decay=config["weight_decay"], fused=True, capturable=on_gpu
    )


def learning_rate(base: float, schedule: Mapping[str, Any], epoch: int, step: int, steps: int) -> float:
    """The learning rate of step ``step`` of ``steps`` in ``epoch``, both counted from 0.

    A linear warm-up over ``warmup_epochs``, by step; then ``base`` times ``decay`` for every milestone passed: a
    milestone of 150 takes effect after 150 whole epochs.
    """
    warmup = schedule["warmup_epochs"]
    if epoch < warmup:
        return float(base * (epoch * steps + step + 1) / (warmup * steps))
    passed = sum(epoch >= milestone for milestone in schedule["milestones"])
    return float(base * schedule.get("decay", 1.0) ** passed)


@torch.no_grad()
def predict(model: nn.Module, examples: Examples) -> Tensor:
    """(N, C) float32 logits of the plain pictures, the model in eval mode; always in the same batches."""
    was_training = model.training
    model.eval()
    rows = torch.arange(len(examples), device=examples.labels.device)
    logits = [model(examples.views.plain(batch)).float() for batch in torch.split(rows, EVALUATION_BATCH)]
    model.train(was_training)
    return torch.cat(logits)


def train_epochs(
    model: nn.Module,
    data: VisionData,
    step_loss: StepLoss,
    *,
    optimizer: Mapping[str, Any],
    schedule: Mapping[str, Any],
    seed: int,
    precision: str = "float32",
    teacher: TeacherLogits | None = None,
    features: bool = False,
    draws: Container[str] = (),
    graphs: Callable[[int], bool] = lambda epoch: False,
    check: Callable[[], None] = lambda: None,
    section: str = "",
    say: Callable[[str], None] = lambda text: None,
) -> Iterator[Row]:
    """Trains ``model`` in place and yields one row of metrics an epoch.

    Order and views are streams of (seed, epoch), keeping and permuting of (seed, epoch, step). Nothing is copied
    to the host inside an epoch.

    Args:
        model: on its device.
        data: on the same device.
        step_loss: what is minimised.
        optimizer: the resolved section.
        schedule: the resolved section.
        seed: of every stream.
        precision: of the model's forward pass: ``float32`` or ``bfloat16``.
        teacher: needed where ``step_loss`` reads its logits or features.
        features: whether ``step_loss`` reads features.
        draws: what it draws: ``keeping``, ``permuting``.
        graphs: whether its steps compute the same from an epoch (counted from 1) on, so that a GPU may replay them.
        check: called before each step; what it raises ends the training.
        section: where ``optimizer`` stands in ``run``, for messages: ``teacher.`` or nothing.
        say: told why a GPU does not replay steps, if it does not.

    Raises:
        DivergedError: a loss is NaN or infinite, with the epoch.
    """
    optim = build_optimizer(model, optimizer)
    batch_size, epochs = schedule["batch_size"], schedule["epochs"]
    steps = steps_an_epoch(len(data.train), batch_size)
    may_graph = graphs if steps * epochs >= GRAPH_STEPS else (lambda epoch: False)
    runner = StepRunner(
        model,
        step_loss,
        optim,
        precision=precision,
        features=features,
        graphs=may_graph,
        batch_size=batch_size,
        say=say,
    )
    started = time.perf_counter()
    for epoch in range(epochs):
        torch.manual_seed(stream_seed(seed, "layers", epoch))
        feed = epoch_inputs(data, teacher, seed=seed, epoch=epoch, epochs=epochs, batch_size=batch_size, draws=draws)
        runner.begin_epoch()
        model.train()
        for step in range(steps):
            check()
            runner(next(feed), learning_rate(optimizer["lr"], schedule, epoch, step, steps))
        row = _row(epoch + 1, model, data, runner, teacher, time.perf_counter() - started)
        for name in ("train/loss", "validation/loss"):
            if not math.isfinite(row[name]):
                raise DivergedError(f"{name} became {row[name]} in epoch {epoch + 1}; lower {section}optimizer.lr")
        yield row


def _row(
    epoch: int,
    model: nn.Module,
    data: VisionData,
    runner: StepRunner,
    teacher: TeacherLogits | None,
    seconds: float,
) -> Row:
    loss, correct, weights, regularization, count = runner.sums.tolist()
    row: Row = {"epoch": epoch, "train/loss": loss / count, "train/accuracy": correct / count}
    if runner.has_weights:
        row["weight/mean"] = weights / count
    if runner.has_regularization:
        row["regularization_samples/fraction"] = regularization / count
    logits = predict(model, data.validation)
    row |= classification_metrics(logits, data.validation.labels, "validation")
    if teacher is not None:
        row |= teacher_metrics(logits, teacher.validation_logits())
    row["train/seconds"] = seconds
    row["timestamp"] = time.time()
    return row
