"""The training loop, one for students and teachers, CPU and GPU."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from wsl_sweep.data import Examples, VisionData
from wsl_sweep.data.streams import stream, stream_seed
from wsl_sweep.distill import Step, StepTerms
from wsl_sweep.errors import DivergedError
from wsl_sweep.models import with_features
from wsl_sweep.training.device import autocast
from wsl_sweep.training.metrics import classification_metrics, teacher_metrics

EVALUATION_BATCH = 256

Row = dict[str, float]
"""The metrics of one epoch; ``epoch`` counts from 1, ``timestamp`` is in seconds since 1970."""


class TeacherLogits(Protocol):
    """Where a student's batches get their teacher's logits and features."""

    def training_outputs(self, images: Tensor, features: bool = False) -> tuple[Tensor, Tensor | None]:
        """(B, C) logits of a training batch and, where they are wanted, its (B, D) features."""

    def validation_logits(self) -> Tensor:
        """(N, C) logits of the whole validation part."""


StepLoss = Callable[[Step], StepTerms]


def build_optimizer(model: nn.Module, config: Mapping[str, Any]) -> torch.optim.Optimizer:
    """The optimizer of an ``optimizer`` section; weight decay on every parameter, as RepDistiller has it."""
    if config["name"] == "sgd":
        momentum = config["momentum"]
        return torch.optim.SGD(
            model.parameters(),
            lr=config["lr"],
            momentum=momentum,
            nesterov=bool(momentum and config["nesterov"]),
            weight_decay=config["weight_decay"],
        )
    return torch.optim.AdamW(model.parameters(), lr=config["lr"], weight_decay=config["weight_decay"])


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
    check: Callable[[], None] = lambda: None,
    section: str = "",
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
        check: called before each step; what it raises ends the training.
        section: where ``optimizer`` stands in ``run``, for messages: ``teacher.`` or nothing.

    Raises:
        DivergedError: a loss is NaN or infinite, with the epoch.
    """
    device = data.train.labels.device
    optim = build_optimizer(model, optimizer)
    batch_size = schedule["batch_size"]
    started = time.perf_counter()
    for epoch in range(schedule["epochs"]):
        torch.manual_seed(stream_seed(seed, "layers", epoch))
        order = torch.randperm(len(data.train), generator=stream(seed, "order", epoch)).to(device)
        views = data.train.draw_views(stream(seed, "views", epoch))
        # A last batch of a single example has no batch statistics.
        batches = [batch for batch in torch.split(order, batch_size) if len(batch) > 1 or batch_size == 1]
        sums, terms = torch.zeros(5, dtype=torch.float64, device=device), None
        model.train()
        for step, rows in enumerate(batches):
            check()
            for group in optim.param_groups:
                group["lr"] = learning_rate(optimizer["lr"], schedule, epoch, step, len(batches))
            images, labels = data.train.views.take(rows, views[rows]), data.train.labels[rows]
            of_teacher = teacher.training_outputs(images, features) if teacher else (None, None)
            with autocast(str(device), precision):
                logits, own = with_features(model, images) if features else (model(images), None)
            seen = Step(
                logits=logits.float(),
                labels=labels,
                teacher_logits=of_teacher[0],
                features=own,
                teacher_features=of_teacher[1],
                epoch=epoch + 1,
                epochs=schedule["epochs"],
                keeping=stream(seed, "keeping", epoch, step),
                permuting=stream(seed, "permuting", epoch, step),
            )
            terms = step_loss(seen)
            optim.zero_grad(set_to_none=True)
            terms.loss.backward()  # type: ignore[no-untyped-call]
            optim.step()
            sums += _sums(terms, logits, labels)
        row = _row(epoch + 1, model, data, sums, terms, teacher, time.perf_counter() - started)
        for name in ("train/loss", "validation/loss"):
            if not math.isfinite(row[name]):
                raise DivergedError(f"{name} became {row[name]} in epoch {epoch + 1}; lower {section}optimizer.lr")
        yield row


def _sums(terms: StepTerms, logits: Tensor, labels: Tensor) -> Tensor:
    """Over a batch: loss, examples right, w, regularization samples, examples."""
    with torch.no_grad():
        none = terms.loss.new_zeros(())
        return torch.stack(
            [
                terms.loss.detach() * len(labels),
                (logits.argmax(dim=1) == labels).sum(),
                none if terms.weights is None else terms.weights.sum(),
                none if terms.regularization_samples is None else terms.regularization_samples.sum(),
                none + len(labels),
            ]
        ).to(torch.float64)


def _row(
    epoch: int,
    model: nn.Module,
    data: VisionData,
    sums: Tensor,
    terms: StepTerms | None,
    teacher: TeacherLogits | None,
    seconds: float,
) -> Row:
    loss, correct, weights, regularization, count = sums.tolist()
    row: Row = {"epoch": epoch, "train/loss": loss / count, "train/accuracy": correct / count}
    if terms is not None and terms.weights is not None:
        row["weight/mean"] = weights / count
    if terms is not None and terms.regularization_samples is not None:
        row["regularization_samples/fraction"] = regularization / count
    logits = predict(model, data.validation)
    row |= classification_metrics(logits, data.validation.labels, "validation")
    if teacher is not None:
        row |= teacher_metrics(logits, teacher.validation_logits())
    row["train/seconds"] = seconds
    row["timestamp"] = time.time()
    return row
