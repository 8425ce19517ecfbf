"""The training loop: what a step is, what a row says, and when it gives up."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from wsl_sweep.data import Examples, TaskData, Views
from wsl_sweep.data.streams import stream
from wsl_sweep.distill import Step, StepTerms, label_cross_entropy
from wsl_sweep.errors import DivergedError
from wsl_sweep.training import loop
from wsl_sweep.training.bank import TeacherOutputs
from wsl_sweep.training.feed import WHOLE_EPOCH, epoch_inputs, steps_an_epoch, windows
from wsl_sweep.training.loop import Row, build_optimizer, learning_rate, predict, train_epochs

SGD: dict[str, Any] = {"name": "sgd", "lr": 0.1, "momentum": 0.0, "weight_decay": 0.0}


def schedule(**changes: Any) -> dict[str, Any]:
    return {"epochs": 2, "batch_size": 4, "milestones": [], "warmup_epochs": 0} | changes


def data(train: int = 11, validation: int = 7, *, padding: int = 0) -> TaskData:
    """Three classes of random grey pictures, 2x2, told apart by their brightest corner."""

    def part(count: int, first: int) -> Examples:
        generator = torch.Generator().manual_seed(first)
        images = torch.rand(count, 1, 2, 2, generator=generator)
        views = Views(images, padding=padding, padding_mode="zeros", flip=False, mean=torch.zeros(1), std=torch.ones(1))
        labels = images.flatten(1)[:, :3].argmax(dim=1)
        return Examples(views, labels, torch.arange(first, first + count))

    parts = part(train, 0), part(validation, 100)
    return TaskData(*parts, 3, 1, "digest", "source", torch.cat([one.labels for one in parts]))


def linear(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 3))


def plain_loss(logits: Tensor, _t: Any, labels: Tensor, _k: Any, _p: Any) -> StepTerms:
    loss = label_cross_entropy(logits, labels)
    return StepTerms(loss.mean(), loss.detach())


def by_parts(step_loss: Any) -> Any:
    """A loss of (logits, teacher logits, labels, keeping, permuting) as the loop wants it."""
    return lambda step: step_loss(step.logits, step.teacher_logits, step.labels, step.keeping, step.permuting)


def train(model: nn.Module, on: TaskData, step_loss: Any = plain_loss, **changes: Any) -> list[Row]:
    arguments: dict[str, Any] = {"optimizer": SGD, "schedule": schedule(), "seed": 0} | changes
    return list(train_epochs(model, on, by_parts(step_loss), **arguments))


def sizes_of_steps(on: TaskData, batch_size: int) -> list[int]:
    """Of one epoch."""
    seen: list[int] = []

    def step_loss(logits: Tensor, teacher: Any, labels: Tensor, k: Any, p: Any) -> StepTerms:
        seen.append(len(labels))
        return plain_loss(logits, teacher, labels, k, p)

    train(linear(), on, step_loss, schedule=schedule(epochs=1, batch_size=batch_size))
    return seen


# --- learning rate ---------------------------------------------------------------------------------


def test_the_learning_rate_is_multiplied_after_each_milestone() -> None:
    """A milestone of 2 takes effect after two whole epochs."""
    plan = schedule(milestones=[2, 4], decay=0.1)
    rates = [learning_rate(0.5, plan, epoch, step, 3) for epoch in range(6) for step in (0, 2)]
    assert rates == pytest.approx([0.5] * 4 + [0.05] * 4 + [0.005] * 4)


def test_the_learning_rate_warms_up_step_by_step_to_its_base() -> None:
    plan = schedule(warmup_epochs=2)
    rates = [learning_rate(0.8, plan, epoch, step, 4) for epoch in range(3) for step in range(4)]
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.8, 0.8, 0.8, 0.8])


def test_milestones_hold_after_a_warm_up() -> None:
    plan = schedule(warmup_epochs=1, milestones=[2, 3], decay=0.5)
    rates = [learning_rate(1.0, plan, epoch, 0, 2) for epoch in range(4)]
    assert rates == pytest.approx([0.5, 1.0, 0.5, 0.25])


def test_without_milestones_no_decay_is_read() -> None:
    assert learning_rate(0.3, schedule(), 99, 0, 1) == 0.3


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_every_step_is_made_at_its_learning_rate(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[torch.optim.Optimizer] = []

    def remember(model: nn.Module, config: Any) -> torch.optim.Optimizer:
        made.append(build_optimizer(model, config))
        made[0].register_step_pre_hook(lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"]))
        return made[0]

    rates: list[float] = []
    monkeypatch.setattr(loop, "build_optimizer", remember)
    plan = schedule(epochs=3, warmup_epochs=1, milestones=[2], decay=0.1)
    train(linear(), data(train=8), optimizer={**SGD, "name": name, "lr": 1.0}, schedule=plan)
    assert rates == pytest.approx([0.5, 1.0, 1.0, 1.0, 0.1, 0.1])


# --- steps -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("batch_size", "sizes"),
    [(2, [2, 2, 2, 2, 2]), (5, [5, 5]), (10, [10]), (3, [3, 3, 3, 2]), (11, [11]), (64, [11]), (1, [1] * 11)],
)
def test_a_last_batch_of_one_example_is_left_out(batch_size: int, sizes: list[int]) -> None:
    assert sizes_of_steps(data(train=11), batch_size) == sizes


def test_an_epoch_has_as_many_steps_as_are_told_beforehand() -> None:
    for examples in range(1, 14):
        on = data(train=examples)
        for batch_size in range(1, 16):
            inputs = epoch_inputs(on, None, seed=0, epoch=0, epochs=1, batch_size=batch_size)
            found = [len(one.labels) for one in inputs]
            assert len(found) == steps_an_epoch(examples, batch_size), (examples, batch_size)
            assert examples - sum(found) in ((0, 1) if batch_size > 1 else (0,))


def reference(
    on: TaskData, model: nn.Module, optimizer: dict[str, Any], plan: dict[str, Any], seed: int
) -> tuple[list[tuple[float, float]], list[np.ndarray[Any, Any]]]:
    """Softmax regression by stochastic gradient descent, in numpy: (loss, accuracy) by epoch, weights."""
    weights = [p.detach().double().numpy().copy() for p in model.parameters()]
    velocity = [np.zeros_like(w) for w in weights]
    count, rows = len(on.train), []
    for epoch in range(plan["epochs"]):
        order = torch.randperm(count, generator=stream(seed, "order", epoch)).tolist()
        losses, right = [], []
        for start in range(0, count, plan["batch_size"]):
            batch = torch.tensor(order[start : start + plan["batch_size"]])
            x = on.train.views.plain(batch).flatten(1).double().numpy()
            y = on.train.labels[batch].numpy()
            z = x @ weights[0].T + weights[1]
            p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
            losses += (-np.log(p[np.arange(len(y)), y])).tolist()
            right += (z.argmax(axis=1) == y).tolist()
            error = (p - np.eye(3)[y]) / len(y)
            for i, gradient in enumerate([error.T @ x, error.sum(axis=0)]):
                gradient = gradient + optimizer["weight_decay"] * weights[i]
                velocity[i] = optimizer["momentum"] * velocity[i] + gradient
                nesterov = optimizer["momentum"] and optimizer["nesterov"]
                step = gradient + optimizer["momentum"] * velocity[i] if nesterov else velocity[i]
                weights[i] = weights[i] - optimizer["lr"] * step
        rows.append((float(np.mean(losses)), float(np.mean(right))))
    return rows, weights


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_training_is_stochastic_gradient_descent(momentum: float, nesterov: bool) -> None:
    """Order, momentum, weight decay on weights and biases, and the loss over the epoch, all by hand."""
    optimizer = {"name": "sgd", "lr": 0.3, "momentum": momentum, "nesterov": nesterov, "weight_decay": 0.05}
    plan, on = schedule(epochs=3, batch_size=4), data(train=11)
    wanted, weights = reference(on, linear(), optimizer, plan, seed=5)
    model = linear()
    rows = train(model, on, optimizer=optimizer, schedule=plan, seed=5)
    for row, (loss, accuracy) in zip(rows, wanted, strict=True):
        assert row["train/loss"] == pytest.approx(loss, rel=1e-5)
        assert row["train/accuracy"] == pytest.approx(accuracy)
    for parameter, weight in zip(model.parameters(), weights, strict=True):
        np.testing.assert_allclose(parameter.detach().numpy(), weight, rtol=1e-4, atol=1e-6)


def test_adamw_decays_every_parameter() -> None:
    optimizer = build_optimizer(linear(), {"name": "adamw", "lr": 0.01, "weight_decay": 0.2})
    assert isinstance(optimizer, torch.optim.AdamW)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.2]
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 2


def test_each_epoch_has_its_own_order_and_views() -> None:
    seen: list[Tensor] = []

    def remember(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if _module.training:
            seen.append(inputs[0])

    model = linear()
    model.register_forward_pre_hook(remember)
    on = data(train=8, padding=1)
    train(model, on, schedule=schedule(epochs=2, batch_size=8), seed=3)
    for epoch, images in enumerate(seen):
        order = torch.randperm(8, generator=stream(3, "order", epoch))
        views = on.train.draw_views(stream(3, "views", epoch))
        assert torch.equal(images, on.train.views.take(order, views[order]))
    assert not torch.equal(seen[0], seen[1])


def test_keeping_and_permuting_have_a_stream_for_each_step() -> None:
    draws: list[tuple[Tensor, Tensor]] = []

    def step_loss(logits: Tensor, _t: Any, labels: Tensor, keeping: Tensor, permuting: Tensor) -> StepTerms:
        draws.append((keeping, permuting))
        return plain_loss(logits, None, labels, None, None)

    train(linear(), data(train=11), step_loss, seed=2, draws=("keeping", "permuting"))
    places = [(epoch, step, count) for epoch in range(2) for step, count in enumerate((4, 4, 3))]
    assert len(draws) == len(places)
    for (keeping, permuting), (epoch, step, count) in zip(draws, places, strict=True):
        assert torch.equal(keeping, torch.rand(count, generator=stream(2, "keeping", epoch, step)))
        assert torch.equal(permuting, torch.randperm(count, generator=stream(2, "permuting", epoch, step)))
    assert len({keeping[0].item() for keeping, _ in draws}) == 6


def test_only_what_a_loss_draws_is_drawn() -> None:
    seen: list[tuple[bool, bool]] = []

    def step_loss(logits: Tensor, _t: Any, labels: Tensor, keeping: Any, permuting: Any) -> StepTerms:
        seen.append((keeping is None, permuting is None))
        return plain_loss(logits, None, labels, None, None)

    for draws in ((), ("keeping",), ("permuting",)):
        train(linear(), data(train=4), step_loss, schedule=schedule(epochs=1), draws=draws)
    assert seen == [(True, True), (False, True), (True, False)]


@pytest.mark.parametrize(
    ("sizes", "most", "grouped"),
    [
        ([4, 4, 4], 1, [[4], [4], [4]]),
        ([4, 4, 4], 8, [[4, 4], [4]]),
        ([4, 4, 3], 11, [[4, 4, 3]]),
        ([4, 4, 3], 10, [[4, 4], [3]]),
        ([4, 4, 3], WHOLE_EPOCH, [[4, 4, 3]]),
        ([], 8, []),
    ],
)
def test_a_window_is_whole_batches_and_at_least_one(sizes: list[int], most: int, grouped: list[list[int]]) -> None:
    batches = list(torch.split(torch.arange(sum(sizes)), sizes)) if sizes else []
    found = list(windows(batches, most))
    assert [[len(batch) for batch in window] for window in found] == grouped
    assert [row for window in found for batch in window for row in batch.tolist()] == list(range(sum(sizes)))


# --- rows ------------------------------------------------------------------------------------------


class Teacher:
    """Logits that name their example; remembers the pictures that it was asked about."""

    def __init__(self, on: TaskData, window: int = 1) -> None:
        self.window = window
        self.seen: list[Tensor] = []
        self._train = on.train
        self._validation = torch.eye(3)[on.validation.labels]

    def drifting(self) -> dict[str, Tensor]:
        return {}

    def outputs(self, rows: Tensor, views: Tensor, inputs: Tensor | None = None) -> TeacherOutputs:
        pictures = self._train.views.take(rows, views)
        self.seen.append(pictures)
        features = pictures.flatten(1)
        return TeacherOutputs(rows.float().unsqueeze(1).expand(-1, 3), views.float(), features)

    def validation_logits(self) -> Tensor:
        return self._validation


@pytest.mark.parametrize(("window", "asked"), [(1, 6), (8, 4), (4096, 2)])
def test_the_teacher_sees_the_pictures_that_the_student_sees(window: int, asked: int) -> None:
    on, seen = data(padding=1), list[Tensor]()
    model, teacher = linear(), Teacher(on, window)
    model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]) if module.training else None)
    train(model, on, teacher=teacher)
    assert len(seen) == 6
    assert len(teacher.seen) == asked
    assert torch.equal(torch.cat(seen), torch.cat(teacher.seen))


@pytest.mark.parametrize("window", [1, 8, 4096])
def test_a_batch_gets_its_own_part_of_what_the_teacher_said(window: int) -> None:
    on, steps = data(padding=1), list[Step]()

    def step_loss(step: Step) -> StepTerms:
        steps.append(step)
        return plain_loss(step.logits, None, step.labels, None, None)

    list(train_epochs(linear(), on, step_loss, optimizer=SGD, schedule=schedule(), seed=4, teacher=Teacher(on, window)))
    for epoch in range(2):
        order = torch.randperm(11, generator=stream(4, "order", epoch))
        views = on.train.draw_views(stream(4, "views", epoch))
        for step, rows in zip(steps[3 * epoch : 3 * epoch + 3], order.split(4), strict=True):
            assert step.teacher_logits is not None
            assert step.teacher_cross_entropy is not None
            assert step.teacher_features is not None
            assert step.teacher_logits[:, 0].tolist() == rows.tolist()
            assert step.teacher_cross_entropy.tolist() == views[rows].tolist()
            assert torch.equal(step.teacher_features, on.train.views.take(rows, views[rows]).flatten(1))
            assert torch.equal(step.labels, on.train.labels[rows])


def test_a_row_averages_over_the_examples_of_its_epoch() -> None:
    """Batches of 4, 4 and 3 weigh by their size."""
    on, made = data(train=11), list[tuple[float, Tensor, Tensor]]()

    def step_loss(logits: Tensor, teacher: Tensor, labels: Tensor, weights: Tensor, p: Any) -> StepTerms:
        loss = label_cross_entropy(logits, labels).mean()
        made.append((loss.item() * len(labels), weights, labels == 0))
        return StepTerms(loss, loss.detach().expand(len(labels)), weights, labels == 0)

    rows = train(linear(), on, step_loss, teacher=Teacher(on), draws=("keeping",))
    for row, steps in zip(rows, (made[:3], made[3:]), strict=True):
        assert row["train/loss"] == pytest.approx(sum(loss for loss, _, _ in steps) / 11, rel=1e-6)
        assert row["weight/mean"] == pytest.approx(torch.cat([w for _, w, _ in steps]).mean().item(), rel=1e-6)
        share = (on.train.labels == 0).double().mean().item()
        assert row["regularization_samples/fraction"] == pytest.approx(share)


def test_the_quantiles_of_a_row_are_those_of_the_weights_of_its_epoch() -> None:
    """Of all of them together, not the mean of each step's; where weights are ones, a row has none."""
    on, made = data(train=11), list[Tensor]()

    def step_loss(logits: Tensor, teacher: Tensor, labels: Tensor, weights: Tensor, p: Any) -> StepTerms:
        made.append(weights)
        loss = label_cross_entropy(logits, labels)
        return StepTerms(loss.mean(), loss.detach(), weights, labels == 0)

    names = ("weight/q05", "weight/q25", "weight/q50", "weight/q75", "weight/q95")
    rows = train(linear(), on, step_loss, teacher=Teacher(on), draws=("keeping",), weighs=True)
    for row, steps in zip(rows, (made[:3], made[3:]), strict=True):
        weights = np.sort(torch.cat(steps).double().numpy())
        places = np.array([0.5, 2.5, 5.0, 7.5, 9.5])  # 5, 25, 50, 75 and 95 % of the way from place 0 to place 10
        wanted = (weights[np.floor(places).astype(int)] + weights[np.ceil(places).astype(int)]) / 2
        assert [row[name] for name in names] == pytest.approx(wanted, rel=1e-12)
        assert [name for name in row if name.startswith("weight/")] == ["weight/mean", *names]
    plain = train(linear(), on, step_loss, teacher=Teacher(on), draws=("keeping",))
    assert [name for name in plain[0] if name.startswith("weight/")] == ["weight/mean"]


def test_a_row_measures_the_model_as_it_is_after_the_epoch() -> None:
    on, model = data(), linear()
    teacher = Teacher(on)
    for row in train_epochs(
        model, on, by_parts(plain_loss_with_weights), optimizer=SGD, schedule=schedule(), seed=0, teacher=teacher
    ):
        with torch.no_grad():
            logits = model(on.validation.views.plain(torch.arange(7)))
        right = (logits.argmax(dim=1) == on.validation.labels).double().mean().item()
        assert row["validation/accuracy"] == pytest.approx(right)
        assert row["teacher/agreement"] == pytest.approx(right)  # this teacher is always right
        assert row["validation/loss"] == pytest.approx(
            label_cross_entropy(logits, on.validation.labels).mean().item(), rel=1e-5
        )
    assert row["epoch"] == 2


def plain_loss_with_weights(logits: Tensor, _t: Any, labels: Tensor, _k: Any, _p: Any) -> StepTerms:
    loss = label_cross_entropy(logits, labels)
    return StepTerms(loss.mean(), loss.detach(), torch.ones(len(labels)), labels == 0)


def test_rows_are_numbered_from_one_and_timed() -> None:
    rows = train(linear(), data(), schedule=schedule(epochs=3))
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert 0 < rows[0]["train/seconds"] < rows[1]["train/seconds"] < rows[2]["train/seconds"]
    assert rows[0]["timestamp"] <= rows[1]["timestamp"] <= rows[2]["timestamp"]


def test_without_a_teacher_nothing_is_said_of_one() -> None:
    rows = train(linear(), data())
    assert not [name for name in rows[0] if name.split("/")[0] in ("teacher", "weight", "regularization_samples")]


def test_predictions_are_made_in_eval_mode_and_leave_the_model_in_its_own() -> None:
    on = data(validation=9)
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4), nn.Linear(4, 3))
    for mode in (True, False):
        model.train(mode)
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        logits = predict(model, on.validation)
        assert model.training == mode
        assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
        assert logits.shape == (9, 3)
        assert not logits.requires_grad
        torch.testing.assert_close(logits, model.eval()(on.validation.views.plain(torch.arange(9))))


def test_predictions_of_many_batches_stand_in_the_order_of_the_examples() -> None:
    on, model = data(validation=600), linear()
    wanted = model(on.validation.views.plain(torch.arange(600)))
    torch.testing.assert_close(predict(model, on.validation), wanted.detach())


# --- precision -------------------------------------------------------------------------------------


def test_in_bfloat16_only_the_forward_pass_is_narrow() -> None:
    inner: list[torch.dtype] = []
    outer: list[torch.dtype] = []

    def step_loss(logits: Tensor, t: Any, labels: Tensor, k: Any, p: Any) -> StepTerms:
        outer.append(logits.dtype)
        return plain_loss(logits, t, labels, k, p)

    model = linear()
    model.register_forward_hook(lambda module, _, output: inner.append(output.dtype) if module.training else None)
    narrow = train(model, data(), step_loss, precision="bfloat16")
    assert set(inner) == {torch.bfloat16}
    assert set(outer) == {torch.float32}
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    wide = train(linear(), data())
    assert narrow[-1]["train/loss"] != wide[-1]["train/loss"]
    assert narrow[-1]["train/loss"] == pytest.approx(wide[-1]["train/loss"], rel=0.02)


# --- giving up -------------------------------------------------------------------------------------


def test_a_loss_that_diverges_ends_the_training_and_names_the_epoch() -> None:
    """Harmless in the first epoch, not a number in the second."""
    steps = iter(range(99))

    def step_loss(logits: Tensor, t: Any, labels: Tensor, k: Any, p: Any) -> StepTerms:
        terms = plain_loss(logits, t, labels, k, p)
        return terms if next(steps) < 4 else StepTerms(terms.loss * float("nan"), terms.cross_entropy)

    rows: Iterator[Row] = train_epochs(
        linear(), data(), by_parts(step_loss), optimizer=SGD, schedule=schedule(epochs=5), seed=0
    )
    assert next(rows)["epoch"] == 1
    with pytest.raises(DivergedError, match=r"train/loss became nan in epoch 2.*lr"):
        next(rows)


def test_weights_that_only_the_validation_part_shows_to_be_lost_are_found() -> None:
    """The last step of an epoch may ruin the weights after a finite loss."""

    def step_loss(logits: Tensor, _t: Any, labels: Tensor, _k: Any, _p: Any) -> StepTerms:
        return StepTerms(logits.sum(), torch.zeros(len(labels)))

    one_step = schedule(epochs=1, batch_size=4)
    with pytest.raises(DivergedError, match=r"validation/loss became \w+ in epoch 1"):
        train(linear(), data(train=4), step_loss, optimizer={**SGD, "lr": 3e38}, schedule=one_step)


def test_check_is_called_before_each_step_and_what_it_raises_ends_the_training() -> None:
    class Enough(Exception):
        pass

    calls = iter(range(99))
    seen: list[int] = []

    def check() -> None:
        if next(calls) == 4:
            raise Enough

    def step_loss(logits: Tensor, t: Any, labels: Tensor, k: Any, p: Any) -> StepTerms:
        seen.append(len(labels))
        return plain_loss(logits, t, labels, k, p)

    with pytest.raises(Enough):
        train(linear(), data(train=12), step_loss, check=check)
    assert len(seen) == 4
