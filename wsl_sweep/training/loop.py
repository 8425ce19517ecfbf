"""The training loop, one for students and teachers, CPU and GPU."""

from __future__ import annotations

import functools
import itertools
import math
import time
from collections.abc import Callable, Container, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from wsl_sweep.data import Examples, TaskData
from wsl_sweep.data.streams import stream_seed
from wsl_sweep.errors import DivergedError
from wsl_sweep.training.attempts import Row
from wsl_sweep.training.device import seed_everything
from wsl_sweep.training.feed import TeacherLogits, epoch_inputs, epoch_order, steps_an_epoch
from wsl_sweep.training.group import ALONE, Group
from wsl_sweep.training.keeper import Keeper
from wsl_sweep.training.metrics import part_metrics, teacher_metrics, weight_metrics
from wsl_sweep.training.samples import RegularizationSamples
from wsl_sweep.training.state import TrainingState
from wsl_sweep.training.step import GRAPH_STEPS, StepLoss, StepRunner

EVALUATION_BATCH = 256


def build_optimizer(model: nn.Module, config: Mapping[str, Any]) -> torch.optim.Optimizer:
    """The optimizer of an ``optimizer`` section; weight decay on every parameter, as RepDistiller has it.

    With ``decay_on: weights`` not on biases and the parameters of normalisation layers, as BERT is fine-tuned.

    Fused: one call for all parameters. On a GPU its learning rate is a tensor, so that a CUDA graph reads it anew.
    """
    on_gpu = next(model.parameters()).device.type == "cuda"
    lr = torch.tensor(config["lr"], device="cuda") if on_gpu else config["lr"]
    parameters = _decaying(model, config)
    if config["name"] == "sgd":
        momentum = config["momentum"]
        return torch.optim.SGD(
            parameters,
            lr=lr,
            momentum=momentum,
            nesterov=bool(momentum and config["nesterov"]),
            weight_decay=config["weight_decay"],
            fused=True,
        )
    return torch.optim.AdamW(parameters, lr=lr, weight_decay=config["weight_decay"], fused=True, capturable=on_gpu)


def _decaying(model: nn.Module, config: Mapping[str, Any]) -> Any:
    """The parameters, or two groups of them: those that decay and those that do not."""
    if config.get("decay_on", "all") == "all":
        return list(model.parameters())
    parameters = list(model.parameters())
    return [
        {"params": [one for one in parameters if one.ndim > 1]},
        {"params": [one for one in parameters if one.ndim <= 1], "weight_decay": 0.0},
    ]


def learning_rate(base: float, schedule: Mapping[str, Any], epoch: int, step: int, steps: int) -> float:
    """The learning rate of step ``step`` of ``steps`` in ``epoch``, both counted from 0.

    A linear warm-up over ``warmup_epochs``, by step; then, with ``shape: linear``, linearly down to 0 where the
    training ends (Devlin et al. 2019); else ``base`` times ``decay`` for every milestone passed: a milestone of 150
    takes effect after 150 whole epochs.
    """
    warmup, done = schedule["warmup_epochs"] * steps, epoch * steps + step
    if done < warmup:
        return float(base * min(1.0, (done + 1) / warmup))
    if schedule.get("shape") == "linear":
        whole = schedule["epochs"] * steps
        return float(base * (whole - done) / (whole - warmup))
    passed = sum(epoch >= milestone for milestone in schedule["milestones"])
    return float(base * schedule.get("decay", 1.0) ** passed)


@torch.no_grad()
def predict(model: nn.Module, examples: Examples, group: Group = ALONE) -> Tensor:
    """(N, C) float32 logits of the examples as they are, the model in eval mode; always in the same batches.

    In a ``group`` each process computes some of the batches.
    """
    was_training = model.training
    model.eval()
    rows = torch.arange(len(examples))
    shapes = examples.views.shapes(rows)
    if shapes is not None:  # so that a batch is of about one shape
        rows = shapes.argsort(stable=True)
    batches = torch.split(rows, EVALUATION_BATCH)
    shared = group.splits(len(batches))
    own = batches[group.share(len(batches))]
    plain = torch.full((sum(map(len, own)),), examples.views.identity)
    brought = examples.views.batches(torch.cat(own), plain, [len(batch) for batch in own])
    logits = torch.cat([model(batch).float() for batch in brought])
    if shared:
        ends = torch.tensor([0, *group.sizes(len(batches))]).cumsum(0).tolist()
        logits = group.gather(logits, [sum(map(len, batches[a:b])) for a, b in itertools.pairwise(ends)])
    model.train(was_training)
    return logits if shapes is None else logits[rows.argsort().to(logits.device)]


def train_epochs(
    model: nn.Module,
    data: TaskData,
    step_loss: StepLoss,
    *,
    optimizer: Mapping[str, Any],
    schedule: Mapping[str, Any],
    seed: int,
    precision: str = "float32",
    teacher: TeacherLogits | None = None,
    features: bool = False,
    draws: Container[str] = (),
    weighs: bool = False,
    graphs: Callable[[int], bool] = lambda epoch: False,
    check: Callable[[], None] = lambda: None,
    section: str = "",
    say: Callable[[str], None] = lambda text: None,
    start: TrainingState | None = None,
    keeper: Keeper | None = None,
    group: Group = ALONE,
    samples: RegularizationSamples | None = None,
) -> Iterator[Row]:
    """Trains ``model`` in place and yields one row of metrics an epoch.

    Order, views and what layers draw are streams of (seed, epoch), keeping and permuting of (seed, epoch, step).
    Nothing is copied to the host inside an epoch.

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
        weighs: whether its weights are more than ones: a row then says how they are distributed.
        graphs: whether its steps compute the same from an epoch (counted from 1) on, so that a GPU may replay them.
        check: called before each step; what it raises ends the training.
        section: where ``optimizer`` stands in ``run``, for messages: ``teacher.`` or nothing.
        say: told why a GPU does not replay steps, if it does not.
        start: where it goes on, to the same bits as if it had never ended; None for the beginning.
        keeper: may take the training's state before each step and after each epoch, and counts both.
        group: the processes that train it together, all of them called alike but for ``check`` and ``keeper``; what
            layers draw is then a stream of (seed, process, epoch, step).
        samples: gets the masks of regularization samples by epoch, where ``step_loss`` tells them.

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
        group=group,
        samples=samples,
    )
    keeper = keeper if keeper is not None else Keeper()
    drifting = teacher.drifting() if teacher is not None else {}
    first_epoch, skipped, before = (start.epoch, start.step, start.seconds) if start is not None else (0, 0, 0.0)
    started = time.perf_counter() - before

    def take(epoch: int, step: int) -> TrainingState:
        return TrainingState.of(runner, epoch, step, time.perf_counter() - started, drifting)

    if start is not None:
        start.restore(runner, drifting)
    group.follow([*model.parameters(), *model.buffers()])
    for epoch in range(first_epoch, epochs):
        first_step = skipped if epoch == first_epoch else 0
        if first_step == 0:
            seed_everything(stream_seed(seed, "layers", epoch))
            runner.begin_epoch()
        feed = epoch_inputs(
            data,
            teacher,
            seed=seed,
            epoch=epoch,
            epochs=epochs,
            batch_size=batch_size,
            draws=draws,
            first_step=first_step,
            group=group,
        )
        model.train()
        for step in range(first_step, steps):
            here = functools.partial(take, epoch, step)
            with keeper.stopping(here):
                check()
                keeper.before_step(here)
                _seed_layers(group, "teacher", seed, epoch, step, batch_size, len(data.train))
                inputs = next(feed)
            _seed_layers(group, "layers", seed, epoch, step, batch_size, len(data.train))
            runner(inputs, learning_rate(optimizer["lr"], schedule, epoch, step, steps))
            keeper.after_step()
        with keeper.stopping(functools.partial(take, epoch, steps)):
            of_teacher = teacher.validation_logits() if teacher is not None else None
        row = _row(epoch + 1, model, data, runner, of_teacher, weighs, time.perf_counter() - started, group)
        for name in ("train/loss", "validation/loss"):
            if group.leads and not math.isfinite(row[name]):
                raise DivergedError(f"{name} became {row[name]} in epoch {epoch + 1}; lower {section}optimizer.lr")
        runner.samples.end_epoch(epoch_order(len(data.train), seed, epoch))
        keeper.after_epoch(row, functools.partial(take, epoch + 1, 0))
        yield row
    if first_epoch == epochs and teacher is not None:
        teacher.validation_logits()  # no epoch has asked for them, and of several processes one alone cannot


def _seed_layers(group: Group, purpose: str, seed: int, epoch: int, step: int, batch_size: int, examples: int) -> None:
    """Where several processes train, what layers draw in a step depends on nothing before it.

    So to go on from a checkpoint takes the leader's alone. A batch that every process computes whole is the same to
    each of them.
    """
    if group.size > 1:
        whose = group.rank if group.splits(min(batch_size, examples - step * batch_size)) else 0
        seed_everything(stream_seed(seed, f"{purpose}/{whose}", epoch, step))


def _row(
    epoch: int,
    model: nn.Module,
    data: TaskData,
    runner: StepRunner,
    of_teacher: Tensor | None,
    weighs: bool,
    seconds: float,
    group: Group,
) -> Row:
    loss, correct, weights, regularization, count = runner.sums.tolist()
    row: Row = {"epoch": epoch, "train/loss": loss / count, "train/accuracy": correct / count}
    if runner.has_weights:
        row["weight/mean"] = weights / count
        if weighs:
            row |= weight_metrics(runner.weights)
    if runner.has_regularization:
        row["regularization_samples/fraction"] = regularization / count
    logits = predict(model, data.validation, group)
    row |= part_metrics(logits, data.validation, "validation")
    if of_teacher is not None:
        row |= teacher_metrics(logits, of_teacher)
    row["train/seconds"] = seconds
    row["timestamp"] = time.time()
    return row
