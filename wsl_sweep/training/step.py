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
from wsl_sweep.training.samples import RegularizationSamples

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


@dataclass(frozen=True)
class Kept:
    """What is kept of a step, example by example.

    Attributes:
        weights: (B,), the soft label weights w; None where the loss has none.
        samples: (B,) bool, which are regularization samples; None where the loss tells none.
    """

    weights: Tensor | None = None
    samples: Tensor | None = None


class Replay(Protocol):
    """A recorded step that runs again on what lies in its inputs' memory."""

    def replay(self) -> None:
        """Runs it."""


Record = Callable[[Callable[[], object]], Replay]
"""Records a step without running it."""


class StepRunner:
    """Runs the steps of one training and keeps an epoch's sums, weights and masks; nothing is copied to the host.

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
        samples: where it keeps which examples are regularization samples; by default in one of its own.

    Attributes:
        sums: (SUMS,) float64, of the epoch so far.
        weights: the soft label weights w of the epoch so far, float32, a tensor (B,) for each step or one for several,
            in the order of the steps; none where the loss has none.
        samples: which examples of the epoch so far are regularization samples, and those of the epochs before.
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
        samples: RegularizationSamples | None = None,
    ) -> None:
        self.model, self.step_loss, self.optimizer = model, step_loss, optimizer
        self.device = next(model.parameters()).device
        self.sums = torch.zeros(SUMS, dtype=torch.float64, device=self.device)
        self.weights: list[Tensor] = []
        self.samples = samples if samples is not None else RegularizationSamples()
        self.has_weights = self.has_regularization = False
        self.why_no_graph: str | None = None
        self._precision, self._features, self._graphs = precision, features, graphs
        self._batch_size, self._say, self._group = batch_size, say, group
        self._record = record or (_cuda_graph if self.device.type == "cuda" and group.size == 1 else None)
        self._warm = 0
        self._replay: Replay | None = None
        self._fixed: StepInputs | None = None
        self._recorded = Kept()
        self._stream: Any = torch.cuda.Stream() if self.device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def begin_epoch(self) -> None:
        """Sets the sums to zero, and forgets the weights and masks."""
        self.sums.zero_()
        self.weights = []
        self.samples.begin_epoch()

    def __call__(self, inputs: StepInputs, lr: float) -> None:
        """One step with a learning rate."""
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(lr)
            else:
                group["lr"] = lr
        partial = self._batch_size is not None and len(inputs.labels) != self._batch_size
        if self._record is None or partial or not self._graphs(inputs.epoch):
            kept = self._run(inputs)
        elif self._replay is not None:
            kept = self._again(inputs)
        elif self._warm < WARM_UP_STEPS:
            self._warm += 1
            kept = self._aside(inputs)
        else:
            kept = self._first_recorded(inputs)
        # Copies: the next replay writes into the same memory.
        if kept.weights is not None:
            self.weights.append(kept.weights.detach().to(torch.float32, copy=True))
        if kept.samples is not None:
            self.samples.steps.append(kept.samples.detach().to(torch.bool, copy=True))

    def _run(self, inputs: StepInputs) -> Kept:
        self.optimizer.zero_grad(set_to_none=True)
        kept = self._compute(inputs)
        self.has_weights = kept.weights is not None
        self.has_regularization = kept.samples is not None
        return kept

    def _compute(self, inputs: StepInputs) -> Kept:
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
        return Kept(terms.weights, terms.regularization_samples)

    # --- recorded steps ------------------------------------------------------------------------------------------

    def _aside(self, inputs: StepInputs) -> Kept:
        if self._stream is None:
            return self._run(inputs)
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            kept = self._run(inputs)
        torch.cuda.current_stream().wait_stream(self._stream)
        return kept

    def _again(self, inputs: StepInputs) -> Kept:
        assert self._replay is not None
        assert self._fixed is not None
        fixed, new = self._fixed.tensors(), inputs.tensors()
        if [one.shape for one in fixed] != [one.shape for one in new]:
            return self._run(inputs)  # the last, smaller batch of an epoch
        for place, value in zip(fixed, new, strict=True):
            place.copy_(value)
        self._replay.replay()
        return self._recorded

    def _first_recorded(self, inputs: StepInputs) -> Kept:
        """Records this step, and takes the record only if it does what the step itself does."""
        assert self._record is not None
        before, random_before = self._state(), self._random_state()
        kept = self._aside(inputs)
        after, random_after = self._state(), self._random_state()
        try:
            _restore(self._memory(), before)
            self.optimizer.zero_grad(set_to_none=True)
            fixed = inputs.copied()
            replay = self._record(lambda: self._compute_recorded(fixed))
            self._set_random_state(random_before)
            replay.replay()
            self._check(after, kept)
        except Exception as error:  # what cannot be recorded says so in many ways
            _restore(self._memory(), after)
            self._set_random_state(random_after)
            self.optimizer.zero_grad(set_to_none=True)
            self._record, self._recorded = None, Kept()
            lines = str(error).strip().splitlines()
            self.why_no_graph = f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
            self._say(f"steps are not replayed as a graph: {self.why_no_graph}")
            return kept
        self._set_random_state(random_after)
        self._replay, self._fixed = replay, fixed
        return kept

    def _compute_recorded(self, inputs: StepInputs) -> None:
        """Runs while it is recorded; as long as what is kept of it is held, each replay writes into its memory."""
        self._recorded = self._compute(inputs)

    def _check(self, after: Sequence[Tensor], kept: Kept) -> None:
        """Raises RuntimeError where the replay did not come to the memory of the step, and to what is kept of it."""
        pairs: list[tuple[Tensor | None, Tensor | None]] = [*zip(self._memory(), after, strict=True)]
        pairs += [(self._recorded.weights, kept.weights), (self._recorded.samples, kept.samples)]
        if not all(_alike(one, other) for one, other in pairs):
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
def _alike(one: Tensor | None, other: Tensor | None) -> bool:
    """Whether both are the same but for rounding, by which one example of a thousand may fall out of a mask."""
    if one is None or other is None:
        return one is other
    if one.dtype == torch.bool:
        return bool((one != other).sum() <= 1e-3 * one.numel())
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
