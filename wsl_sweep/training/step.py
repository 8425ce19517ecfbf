"""One step of a training: forward, loss, backward, update; on a GPU as a CUDA graph where that pays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from wsl_sweep.distill import Step, StepTerms
from wsl_sweep.models import with_features
from wsl_sweep.training.device import autocast
from wsl_sweep.training.group import ALONE, Group

StepLoss = Callable[[Step], StepTerms]

WARM_UP_STEPS = 3
"""Steps before a graph is captured, on a stream of their own, as CUDA graphs ask for."""

GRAPH_STEPS = 200
"""A training of fewer steps gains less by a graph than its capture costs."""

SUMS = 5
"""Over an epoch: loss, examples right, w, regularization samples, examples."""


@dataclass(frozen=True)
class StepInputs:
    """What a step computes with, on the model's device.

    Attributes:
        inputs: (B, …), what the model reads; with several processes this one's share of the batch, all else is of the
            whole batch.
        labels: (B,).
        teacher_logits: (B, C), or None without a teacher.
        teacher_cross_entropy: (B,), or None where the loss computes it.
        teacher_features: (B, E), or None.
        keeping: (B,) in [0, 1), the draws of the probabilistic dropping; None where nothing is dropped.
        permuting: (B,) a permutation; None where nothing is permuted.
        epoch: counted from 1.
        epochs: how many are planned.
    """

    inputs: Tensor
    labels: Tensor
    teacher_logits: Tensor | None = None
    teacher_cross_entropy: Tensor | None = None
    teacher_features: Tensor | None = None
    keeping: Tensor | None = None
    permuting: Tensor | None = None
    epoch: int = 1
    epochs: int = 1

    def tensors(self) -> list[Tensor]:
        """Those that are there, in a fixed order."""
        values = (getattr(self, field.name) for field in fields(self))
        return [value for value in values if isinstance(value, Tensor)]

    def copied(self) -> StepInputs:
        """The same in memory of its own."""
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        values |= {name: _clone(one) for name, one in values.items() if isinstance(one, Tensor)}
        return StepInputs(**values)


class Replay(Protocol):
    """A recorded step that runs again on what lies in its inputs' memory."""

    def replay(self) -> None:
        """Runs it."""


Record = Callable[[Callable[[], object]], Replay]
"""Records a step without running it."""


class StepRunner:
    """Runs the steps of one training and keeps an epoch's sums and weights; nothing is copied to the host.

    Args:
        model: in train mode.
        step_loss: what is minimised.
        optimizer: of the model's parameters.
        precision: of the forward pass: ``float32`` or ``bfloat16``.
        features: whether ``step_loss`` reads features.
        graphs: whether a step of an epoch (counted from 1) may be recorded: it must compute the same from then on.
        batch_size: of a full batch; only those are recorded. None for the first that comes.
        record: how it is recorded; by default as a CUDA graph on a GPU, and not at all elsewhere.
        say: told why steps are not replayed.
        group: the processes that share each batch; the loss is that of the whole batch on each of them. Several do
            not record.

    Attributes:
        sums: (SUMS,) float64, of the epoch so far.
        weights: the soft label weights w of the epoch so far, float32, a tensor (B,) for each step or one for several,
            in the order of the steps; none where the loss has none.
    """

    def __init__(
        self,
        model: nn.Module,
        step_loss: StepLoss,
        optimizer: torch.optim.Optimizer,
        *,
        precision: str = "float32",
        features: bool = False,
        graphs: Callable[[int], bool] = lambda epoch: False,
        batch_size: int | None = None,
        record: Record | None = None,
        say: Callable[[str], None] = lambda text: None,
        group: Group = ALONE,
    ) -> None:
        self.model, self.step_loss, self.optimizer = model, step_loss, optimizer
        self.device = next(model.parameters()).device
        self.sums = torch.zeros(SUMS, dtype=torch.float64, device=self.device)
        self.weights: list[Tensor] = []
        self.has_weights = self.has_regularization = False
        self.why_no_graph: str | None = None
        self._precision, self._features, self._graphs = precision, features, graphs
        self._batch_size, self._say, self._group = batch_size, say, group
        self._record = record or (_cuda_graph if self.device.type == "cuda" and group.size == 1 else None)
        self._warm = 0
        self._replay: Replay | None = None
        self._fixed: StepInputs | None = None
        self._recorded_weights: Tensor | None = None
        self._stream: Any = torch.cuda.Stream() if self.device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def begin_epoch(self) -> None:
        """Sets the sums to zero, and forgets the weights."""
        self.sums.zero_()
        self.weights = []

    def __call__(self, inputs: StepInputs, lr: float) -> None:
        """One step with a learning rate."""
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(lr)
            else:
                group["lr"] = lr
        partial = self._batch_size is not None and len(inputs.labels) != self._batch_size
        if self._record is None or partial or not self._graphs(inputs.epoch):
            weights = self._run(inputs)
        elif self._replay is not None:
            weights = self._again(inputs)
        elif self._warm < WARM_UP_STEPS:
            self._warm += 1
            weights = self._aside(inputs)
        else:
            weights = self._first_recorded(inputs)
        if weights is not None:  # a copy: the next replay writes into the same memory
            self.weights.append(weights.detach().to(torch.float32, copy=True))

    def _run(self, inputs: StepInputs) -> Tensor | None:
        """One step; returns its weights."""
        self.optimizer.zero_grad(set_to_none=True)
        terms = self._compute(inputs)
        self.has_weights = terms.weights is not None
        self.has_regularization = terms.regularization_samples is not None
        return terms.weights

    def _compute(self, inputs: StepInputs) -> StepTerms:
        with autocast(str(self.device), self._precision):
            if self._features:
                logits, own = with_features(self.model, inputs.inputs)
            else:
                logits, own = self.model(inputs.inputs), None
        if self._group.size > 1:
            logits = self._group.gather_with_gradient(logits.float(), len(inputs.labels))
            own = None if own is None else self._group.gather_with_gradient(own.float(), len(inputs.labels))
        terms = self.step_loss(
            Step(
                logits=logits.float(),
                labels=inputs.labels,
                teacher_logits=inputs.teacher_logits,
                features=own,
                teacher_features=inputs.teacher_features,
                epoch=inputs.epoch,
                epochs=inputs.epochs,
                keeping=inputs.keeping,
                permuting=inputs.permuting,
                teacher_cross_entropy=inputs.teacher_cross_entropy,
            )
        )
        terms.loss.backward()  # type: ignore[no-untyped-call]
        self._group.sum_gradients(self.model.parameters(), len(inputs.labels))
        self.optimizer.step()
        self._group.follow(self.model.buffers())
        self.sums += _sums(terms, logits, inputs.labels)
        return terms

    # --- recorded steps ------------------------------------------------------------------------------------------

    def _aside(self, inputs: StepInputs) -> Tensor | None:
        if self._stream is None:
            return self._run(inputs)
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            weights = self._run(inputs)
        torch.cuda.current_stream().wait_stream(self._stream)
        return weights

    def _again(self, inputs: StepInputs) -> Tensor | None:
        assert self._replay is not None
        assert self._fixed is not None
        fixed, new = self._fixed.tensors(), inputs.tensors()
        if [one.shape for one in fixed] != [one.shape for one in new]:
            return self._run(inputs)  # the last, smaller batch of an epoch
        for place, value in zip(fixed, new, strict=True):
            place.copy_(value)
        self._replay.replay()
        return self._recorded_weights

    def _first_recorded(self, inputs: StepInputs) -> Tensor | None:
        """Records this step, and takes the record only if it does what the step itself does."""
        assert self._record is not None
        before, random_before = self._state(), self._random_state()
        weights = self._aside(inputs)
        after, random_after = self._state(), self._random_state()
        try:
            _restore(self._memory(), before)
            self.optimizer.zero_grad(set_to_none=True)
            fixed = inputs.copied()
            replay = self._record(lambda: self._compute_recorded(fixed))
            self._set_random_state(random_before)
            replay.replay()
            self._check(after, weights)
        except Exception as error:  # what cannot be recorded says so in many ways
            _restore(self._memory(), after)
            self._set_random_state(random_after)
            self.optimizer.zero_grad(set_to_none=True)
            self._record = self._recorded_weights = None
            lines = str(error).strip().splitlines()
            self.why_no_graph = f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
            self._say(f"steps are not replayed as a graph: {self.why_no_graph}")
            return weights
        self._set_random_state(random_after)
        self._replay, self._fixed = replay, fixed
        return weights

    def _compute_recorded(self, inputs: StepInputs) -> None:
        """Runs while it is recorded; as long as its weights are held, each replay writes into their memory."""
        self._recorded_weights = self._compute(inputs).weights

    def _check(self, after: Sequence[Tensor], weights: Tensor | None) -> None:
        """Raises RuntimeError where the replay did not come to the memory and the weights of the step."""
        pairs = list(zip(self._memory(), after, strict=True))
        if weights is not None and self._recorded_weights is not None:
            pairs.append((self._recorded_weights, weights))
        as_many = (weights is None) == (self._recorded_weights is None)
        if not as_many or not all(_alike(one, other) for one, other in pairs):
            raise RuntimeError("a replayed step differs from the step")

    def _random_state(self) -> list[Tensor]:
        return [torch.get_rng_state(), *([torch.cuda.get_rng_state()] if self.device.type == "cuda" else [])]

    def _set_random_state(self, state: Sequence[Tensor]) -> None:
        torch.set_rng_state(state[0])
        if len(state) > 1:
            torch.cuda.set_rng_state(state[1])

    def _memory(self) -> list[Tensor]:
        """What a step changes."""
        states = [value for state in self.optimizer.state.values() for value in state.values()]
        tensors = [value for value in states if isinstance(value, Tensor)]
        return [*self.model.parameters(), *self.model.buffers(), *tensors, self.sums]

    @torch.no_grad()
    def _state(self) -> list[Tensor]:
        return [_clone(one) for one in self._memory()]


def _clone(tensor: Tensor) -> Tensor:
    return tensor.detach().clone(memory_format=torch.preserve_format)


@torch.no_grad()
def _restore(memory: Sequence[Tensor], state: Sequence[Tensor]) -> None:
    for place, value in zip(memory, state, strict=True):
        place.copy_(value)


@torch.no_grad()
def _alike(one: Tensor, other: Tensor) -> bool:
    one, other = one.double(), other.double()
    scale = other.abs().max() if other.numel() else other.new_zeros(())
    return bool(((one - other).abs() <= 1e-3 * scale + 1e-6).all())


def _cuda_graph(run: Callable[[], object]) -> Any:
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph


def _sums(terms: StepTerms, logits: Tensor, labels: Tensor) -> Tensor:
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
