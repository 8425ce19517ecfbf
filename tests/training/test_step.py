"""One step, run or replayed: the same losses and weights, and a record that fails leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from wsl_sweep.distill import Objective, Step, StepTerms, label_cross_entropy
from wsl_sweep.training.step import WARM_UP_STEPS, Kept, Record, StepInputs, StepRunner, _alike, _restore

OPTIMIZERS: dict[str, Callable[[nn.Module], torch.optim.Optimizer]] = {
    "sgd": lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
    "momentum": lambda model: torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, fused=True),
    "adamw": lambda model: torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1, fused=True),
}

WSL = {
    "method": "kd",
    "ce_weight": 1.0,
    "alpha": 2.0,
    "temperature": 4.0,
    "mask": "none",
    "weighting": {"kind": "exp"},
    "keep": {"regularization": 0.5, "other": 0.8},
}


def network(seed: int = 0, dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(seed)
    body = [nn.Flatten(), nn.Linear(8, 6), nn.BatchNorm1d(6), nn.ReLU()]
    return nn.Sequential(*body, *([nn.Dropout(dropout)] if dropout else []), nn.Linear(6, 3)).train()


def inputs(number: int, count: int = 8, epoch: int = 1) -> StepInputs:
    """A batch with all that a distillation reads."""
    generator = torch.Generator().manual_seed(number)
    teacher, labels = torch.randn(count, 3, generator=generator), torch.randint(3, (count,), generator=generator)
    return StepInputs(
        torch.randn(count, 2, 2, 2, generator=generator),
        labels,
        teacher,
        label_cross_entropy(teacher, labels),
        keeping=torch.rand(count, generator=generator),
        epoch=epoch,
        epochs=3,
    )


class Recorder:
    """In place of a CUDA graph: a replay computes the recorded step again on the same memory.

    As in a graph that was captured without gradients, each replay's gradients take the place of those before.
    """

    model: nn.Module

    def __init__(self, spoil: Callable[[], None] = lambda: None) -> None:
        self.recorded = self.replayed = 0
        self._spoil = spoil

    def __call__(self, run: Callable[[], object]) -> Recorder:
        self.recorded += 1
        self._run = run
        return self

    def replay(self) -> None:
        self.replayed += 1
        self.model.zero_grad(set_to_none=True)
        self._run()
        self._spoil()


class Course:
    """A training of some epochs: batches of 8, the last one of 5, and a learning rate that changes."""

    def __init__(
        self,
        record: Record | None,
        optimizer: str = "momentum",
        graphs: Callable[[int], bool] = lambda epoch: True,
        step_loss: Callable[[Step], StepTerms] | None = None,
        dropout: float = 0.0,
        **options: Any,
    ) -> None:
        self.model = network(dropout=dropout)
        if isinstance(record, Recorder):
            record.model = self.model
        self.losses: list[float] = []
        self.sums: list[list[float]] = []
        self.weights: list[Tensor] = []
        self.masks: list[Tensor] = []
        self.optimizer = OPTIMIZERS[optimizer](self.model)
        loss = step_loss or Objective(WSL).step
        self.runner = StepRunner(self.model, loss, self.optimizer, graphs=graphs, record=record, **options)

    def run(self, epochs: int = 2) -> Course:
        torch.manual_seed(1)
        for epoch in range(epochs):
            self.runner.begin_epoch()
            for step in range(6):
                before = float(self.runner.sums[0])
                batch = inputs(10 * epoch + step, 8 if step < 5 else 5, epoch + 1)
                self.runner(batch, 0.2 / (1 + epoch + step))
                self.losses.append(float(self.runner.sums[0]) - before)
            self.sums.append(self.runner.sums.tolist())
            self.weights += self.runner.weights
            self.masks += self.runner.samples.steps
        return self

    def state(self) -> list[Tensor]:
        states = [value for one in self.optimizer.state.values() for value in one.values()]
        return [*self.model.state_dict().values(), *(value for value in states if isinstance(value, Tensor))]


def same(one: Course, other: Course) -> bool:
    """Bit for bit."""
    alike = [torch.equal(a, b) for a, b in zip(one.state(), other.state(), strict=True)]
    alike += [torch.equal(a, b) for a, b in zip(one.weights, other.weights, strict=True)]
    alike += [torch.equal(a, b) for a, b in zip(one.masks, other.masks, strict=True)]
    return all(alike) and one.losses == other.losses and one.sums == other.sums


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_replayed_steps_are_the_steps_themselves(optimizer: str, precision: str) -> None:
    record = Recorder()
    plain = Course(None, optimizer, precision=precision).run()
    replayed = Course(record, optimizer, precision=precision).run()
    assert same(plain, replayed)
    assert replayed.runner.why_no_graph is None
    assert record.recorded == 1
    assert record.replayed == 12 - WARM_UP_STEPS - 2  # what is warm and two smaller batches are run; one is a trial
    assert plain.runner.has_weights
    assert replayed.runner.has_weights
    assert plain.runner.has_regularization
    assert replayed.runner.has_regularization


def refuse(_: Callable[[], object]) -> Any:
    raise RuntimeError("operation not permitted when stream is capturing\nand much more")


def run_then_refuse(run: Callable[[], object]) -> Any:
    run()
    raise ValueError


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(
    ("record", "why"),
    [
        (refuse, "RuntimeError: operation not permitted when stream is capturing"),
        (run_then_refuse, "ValueError: no message"),
    ],
)
def test_what_cannot_be_recorded_is_run_as_if_nothing_had_been_tried(optimizer: str, record: Any, why: str) -> None:
    said: list[str] = []
    course = Course(record, optimizer, say=said.append).run()
    assert same(Course(None, optimizer).run(), course)
    assert course.runner.why_no_graph == why
    assert said == [f"steps are not replayed as a graph: {why}"]


def whole(kept: Kept) -> tuple[Tensor, Tensor]:
    assert kept.weights is not None
    assert kept.samples is not None
    return kept.weights, kept.samples


class Static(Recorder):
    """As a CUDA graph has it: what a step returned while it was recorded is where every replay writes."""

    def __call__(self, run: Callable[[], object]) -> Recorder:
        runner = self.course.runner
        before = runner._state()
        run()
        _restore(runner._memory(), before)  # nothing runs while a graph is captured
        self.place = runner._recorded
        return super().__call__(run)

    def replay(self) -> None:
        super().replay()
        runner = self.course.runner
        for place, value in zip(whole(self.place), whole(runner._recorded), strict=True):
            place.copy_(value)
        runner._recorded = self.place

    course: Course


def test_each_replays_weights_and_masks_are_kept_though_they_lie_in_one_place() -> None:
    record = Static()
    course = Course(record)
    record.course = course
    course.run()
    assert record.replayed == 12 - WARM_UP_STEPS - 2
    assert same(Course(None).run(), course)
    assert [len(one) for one in course.weights] == [8, 8, 8, 8, 8, 5] * 2
    assert len({one[0].item() for one in course.weights}) == 12
    assert [(len(one), one.dtype) for one in course.masks] == [(len(one), torch.bool) for one in course.weights]
    assert len({tuple(one.tolist()) for one in course.masks}) > 6


def test_the_weights_of_a_step_are_those_of_its_loss() -> None:
    """Whole, also where ``keep`` drops most of them, and as many as the examples of the epoch so far."""
    made: list[Tensor] = []

    def step_loss(step: Step) -> StepTerms:
        terms = Objective(WSL | {"keep": {"regularization": 0.0, "other": 0.1}}).step(step)
        assert terms.weights is not None
        made.append(terms.weights.clone())
        return terms

    course = Course(None, step_loss=step_loss).run()
    assert all(torch.equal(one, other) for one, other in zip(course.weights, made, strict=True))
    assert course.runner.sums[2] == pytest.approx(float(torch.cat(course.runner.weights).sum()))
    assert len(torch.cat(course.runner.weights)) == course.runner.sums[-1]
    assert not any(one.requires_grad for one in course.weights)


@pytest.mark.parametrize(
    "what",
    ["a weight", "a statistic", "a sum", "a soft label weight", "a regularization sample", "a weight becomes nan"],
)
def test_a_record_that_does_something_else_is_not_taken(what: str) -> None:
    def spoil() -> None:
        if what == "a weight":
            next(course.model.parameters()).data[0, 0] += 0.01
        elif what == "a weight becomes nan":
            next(course.model.parameters()).data[0, 0] = float("nan")
        elif what == "a statistic":
            next(course.model.buffers())[0] += 0.01
        elif what == "a soft label weight":
            whole(course.runner._recorded)[0][0] += 0.01
        elif what == "a regularization sample":
            whole(course.runner._recorded)[1][:1].logical_not_()
        else:
            course.runner.sums[1] += 1

    record = Recorder(spoil)
    course = Course(record)
    course.run()
    assert course.runner.why_no_graph == "RuntimeError: a replayed step differs from the step"
    assert (record.recorded, record.replayed) == (1, 1)
    assert same(Course(None).run(), course)


@pytest.mark.parametrize("lacking", ["weights", "samples"])
def test_a_record_that_lacks_what_the_step_has_is_not_taken(lacking: str) -> None:
    class Forgetful(Recorder):
        def replay(self) -> None:
            super().replay()
            course.runner._recorded = replace(course.runner._recorded, **{lacking: None})

    course = Course(Forgetful())
    course.run()
    assert course.runner.why_no_graph == "RuntimeError: a replayed step differs from the step"
    assert same(Course(None).run(), course)


def test_a_mask_is_the_same_but_for_one_example_of_a_thousand() -> None:
    mask = torch.arange(2000) % 3 == 0
    other = mask.clone()
    other[[5, 1500]] ^= True
    assert _alike(mask, other)
    other[7] ^= True
    assert not _alike(mask, other)
    assert not _alike(mask[:8], torch.zeros(8, dtype=torch.bool))
    assert _alike(mask[:0], mask[:0])
    assert not _alike(None, mask)
    assert not _alike(mask, None)
    assert _alike(None, None)


def test_a_replay_that_does_nothing_is_not_taken() -> None:
    class Idle(Recorder):
        def replay(self) -> None:
            self.replayed += 1

    course = Course(Idle()).run()
    assert course.runner.why_no_graph is not None
    assert same(Course(None).run(), course)


def test_a_model_that_draws_is_replayed_with_the_draws_of_the_step() -> None:
    record = Recorder()
    course = Course(record, dropout=0.5).run()
    assert course.runner.why_no_graph is None
    assert record.replayed == 12 - WARM_UP_STEPS - 2
    assert same(Course(None, dropout=0.5).run(), course)


def test_a_replay_that_draws_other_numbers_is_not_taken_and_the_draws_go_on_where_the_step_left_them() -> None:
    class Drawing(Recorder):
        def replay(self) -> None:
            torch.rand(1)
            super().replay()

    course = Course(Drawing(), dropout=0.5).run()
    assert course.runner.why_no_graph is not None
    assert same(Course(None, dropout=0.5).run(), course)


def test_only_full_batches_are_recorded() -> None:
    sizes: list[int] = []

    class Sized(Recorder):
        def __call__(self, run: Callable[[], object]) -> Recorder:
            sizes.append(course.size)
            return super().__call__(run)

    class Small(Course):
        """Its batches of 5 come first."""

        size = 0

        def run(self, epochs: int = 2) -> Course:
            torch.manual_seed(1)
            for step in range(12):
                self.size = 5 if step < 5 else 8
                self.runner(inputs(step, self.size), 0.1)
                self.losses.append(float(self.runner.sums[0]))
            return self

    record = Sized()
    course = Small(record, batch_size=8)
    course.run()
    assert sizes == [8]
    assert record.replayed == 7 - WARM_UP_STEPS
    assert same(Small(None, batch_size=8).run(), course)


def test_steps_that_may_change_are_not_replayed() -> None:
    record = Recorder()
    course = Course(record, graphs=lambda epoch: epoch >= 2).run(epochs=1)
    assert (record.recorded, record.replayed) == (0, 0)
    course.run(epochs=3)
    assert record.recorded == 1


def test_a_loss_that_settles_later_is_replayed_as_it_is_then() -> None:
    def step_loss(step: Step) -> StepTerms:
        loss = label_cross_entropy(step.logits, step.labels) * min(step.epoch, 2)
        return StepTerms(loss.mean(), loss.detach())

    record = Recorder()
    replayed = Course(record, graphs=lambda epoch: epoch >= 2, step_loss=step_loss).run(epochs=3)
    assert record.replayed > 1
    assert same(Course(None, step_loss=step_loss).run(epochs=3), replayed)


def test_without_a_gpu_nothing_is_recorded() -> None:
    course = Course(None).run()
    assert course.runner._record is None
    assert course.runner.why_no_graph is None


def test_an_epoch_begins_with_sums_of_nothing() -> None:
    course = Course(None).run(epochs=1)
    assert course.sums[0][-1] == 45
    held = course.runner.sums
    course.runner.begin_epoch()
    assert course.runner.sums.tolist() == [0.0] * 5
    assert course.runner.sums is held  # a record writes into this memory
    assert course.runner.weights == course.runner.samples.steps == []


def test_a_loss_without_weights_and_masks_keeps_none() -> None:
    course = Course(Recorder(), step_loss=Objective({"method": "none"}).step).run()
    assert course.runner.why_no_graph is None
    assert course.weights == course.masks == []


def test_inputs_are_copied_with_their_places() -> None:
    one = inputs(0)
    copy = one.copied()
    assert [t.shape for t in copy.tensors()] == [t.shape for t in one.tensors()]
    assert all(
        torch.equal(a, b) and a.data_ptr() != b.data_ptr() for a, b in zip(copy.tensors(), one.tensors(), strict=True)
    )
    assert (copy.epoch, copy.epochs, copy.teacher_features) == (1, 3, None)
    assert len(one.tensors()) == 5
