"""A training between two steps, as tensors and plain data, and back: weights, optimizer, sums, random states."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from safetensors.torch import load
from torch import Tensor, nn

from wsl_sweep.training.attempts import Checkpoint
from wsl_sweep.training.files import check_packed
from wsl_sweep.training.samples import RegularizationSamples
from wsl_sweep.training.step import SUMS, StepRunner
from wsl_sweep.training.weights import entry_problems, shortened

_RANDOM = {"random.torch", "random.cuda", "random.numpy", "random.python"}
_OF_EXAMPLES = {"weights", "samples", "samples.epochs"}

_NOTHING: Mapping[str, Tensor] = MappingProxyType({})


@dataclass(frozen=True)
class TrainingState:
    """Where a training stands.

    Attributes:
        epoch: whole epochs done.
        step: steps done of the epoch after them.
        seconds: taken so far.
        tensors: ``model.<name>``, ``teacher.<name>``, ``optimizer.<parameter>.<name>``, ``sums``, ``random.<whose>``,
            ``samples.epochs`` (epoch, ceil(N / 8)), the packed masks of regularization samples, and, within an epoch,
            ``weights`` and ``samples`` of its examples so far, where there are such; those of ``of`` are the
            training's own memory, which the next step changes.
        facts: what is no tensor: plain data.
    """

    epoch: int
    step: int
    seconds: float
    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]

    @classmethod
    def of(
        cls, runner: StepRunner, epoch: int, step: int, seconds: float, teacher: Mapping[str, Tensor] = _NOTHING
    ) -> TrainingState:
        """The state of a training and of what changes of its teacher, to be written before its next step."""
        tensors = _named(runner.model, teacher)
        for number, parameter in enumerate(runner.model.parameters()):
            for name, value in runner.optimizer.state.get(parameter, {}).items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer.{number}.{name}"] = value
        tensors["sums"] = runner.sums
        if step and runner.weights:
            tensors["weights"] = torch.cat(runner.weights)
        if step and runner.samples.steps:
            tensors["samples"] = torch.cat(runner.samples.steps)
        if runner.samples.epochs:
            tensors["samples.epochs"] = torch.stack(runner.samples.epochs)
        random_tensors, facts = _random_states(runner.device)
        facts |= {"has_weights": runner.has_weights, "has_regularization": runner.has_regularization}
        return cls(epoch, step, seconds, tensors | random_tensors, facts)

    @classmethod
    def read(
        cls, checkpoint: Checkpoint, model: nn.Module, examples: int, teacher: Mapping[str, Tensor] = _NOTHING
    ) -> TrainingState:
        """The state that a checkpoint of a training of ``model`` on so many ``examples`` holds, all of it checked.

        Raises ValueError, TypeError, KeyError, RuntimeError or SafetensorError: it does not fit.
        """
        tensors = load(checkpoint.tensors)
        own = _named(model, teacher)
        own["sums"] = torch.zeros(SUMS, dtype=torch.float64)
        of_optimizer = {name for name in tensors if name.startswith("optimizer.")}
        rest = _RANDOM | _OF_EXAMPLES | of_optimizer
        shapes = {name: tuple(value.shape) for name, value in tensors.items() if name not in rest}
        problems = entry_problems(shapes, own, "the training")
        problems += [f"{name} is {tensors[name].dtype}" for name in shapes if tensors[name].dtype != own[name].dtype]
        if problems:
            raise ValueError(shortened(problems))
        parameters = list(model.parameters())
        for name in of_optimizer:
            _, number, _ = name.split(".")
            if tensors[name].shape not in ((), parameters[int(number)].shape):
                raise ValueError(f"{name} is not of its parameter's shape")
        facts = checkpoint.training
        if facts["python"] is not None and type(facts["python"]) is not float:
            raise ValueError("what it says of Python's random state is not that")
        if not all(type(facts[name]) is bool for name in ("has_weights", "has_regularization")):
            raise ValueError("what it says of the terms is not that")
        _check_so_far(tensors, "weights", torch.float32, there=facts["has_weights"] and checkpoint.step > 0)
        _check_so_far(tensors, "samples", torch.bool, there=facts["has_regularization"] and checkpoint.step > 0)
        _check_masks(tensors, checkpoint.epoch if facts["has_regularization"] else 0, examples)
        torch.Generator().set_state(tensors["random.torch"])
        np.random.RandomState().set_state(_numpys(tensors, facts))
        random.Random().setstate(_pythons(tensors, facts))
        return cls(checkpoint.epoch, checkpoint.step, checkpoint.seconds, tensors, facts)

    @torch.no_grad()
    def restore_model(self, model: nn.Module) -> None:
        """Puts the weights and buffers into a model, where they lie."""
        for name, value in _memory(model).items():
            value.copy_(self.tensors[f"model.{name}"])

    def restore_samples(self, samples: RegularizationSamples, device: torch.device | str) -> None:
        """Puts the masks of regularization samples where a training on ``device`` keeps them."""
        samples.steps = [self.tensors["samples"].to(device)] if "samples" in self.tensors else []
        samples.epochs = list(self.tensors.get("samples.epochs", ()))

    @torch.no_grad()
    def restore(self, runner: StepRunner, teacher: Mapping[str, Tensor] = _NOTHING) -> None:
        """Puts everything into a training that has not made a step, and the process's random states with it."""
        self.restore_model(runner.model)
        for name, value in teacher.items():
            value.copy_(self.tensors[f"teacher.{name}"])
        parameters = list(runner.model.parameters())
        for key, value in self.tensors.items():
            if key.startswith("optimizer."):
                _, number, name = key.split(".")
                parameter = parameters[int(number)]
                runner.optimizer.state[parameter][name] = _laid_out_as(parameter, value)
        runner.sums.copy_(self.tensors["sums"])
        runner.weights = [self.tensors["weights"].to(runner.device)] if "weights" in self.tensors else []
        self.restore_samples(runner.samples, runner.device)
        runner.has_weights = self.facts["has_weights"]
        runner.has_regularization = self.facts["has_regularization"]
        torch.set_rng_state(self.tensors["random.torch"])
        np.random.set_state(_numpys(self.tensors, self.facts))
        random.setstate(_pythons(self.tensors, self.facts))
        if runner.device.type == "cuda":
            torch.cuda.set_rng_state(self.tensors["random.cuda"])


def _memory(model: nn.Module) -> dict[str, Tensor]:
    """What steps change of a model, each once: parameters and all buffers, those too that ``state_dict`` leaves out."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _named(model: nn.Module, teacher: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a student and its teacher as a state calls them."""
    own = {f"model.{name}": value for name, value in _memory(model).items()}
    return own | {f"teacher.{name}": value for name, value in teacher.items()}


def _check_so_far(tensors: Mapping[str, Tensor], name: str, dtype: torch.dtype, *, there: bool) -> None:
    """Raises ValueError where a checkpoint's weights or samples are not those of the epoch's examples so far."""
    found, examples = tensors.get(name), float(tensors["sums"][-1]) if there else 0.0
    if (found is not None) != there:
        raise ValueError(f"it lacks the epoch's {name}" if there else f"it has {name} that no epoch has")
    if found is not None and (found.dtype != dtype or found.ndim != 1 or len(found) != examples):
        raise ValueError(f"its {name} are not those of the epoch's examples so far")


def _check_masks(tensors: Mapping[str, Tensor], epochs: int, examples: int) -> None:
    """Raises ValueError where a checkpoint's packed masks are not those of so many epochs."""
    masks = tensors.get("samples.epochs")
    if (0 if masks is None else len(masks)) != epochs:
        raise ValueError("its masks of regularization samples are not those of the epochs so far")
    if masks is not None:
        check_packed(masks.numpy(), examples)


def _laid_out_as(parameter: Tensor, value: Tensor) -> Tensor:
    """An optimizer's tensor in the memory layout of its parameter: fused optimizers walk through both in order."""
    if value.shape != parameter.shape:
        return value.to(parameter.device)
    return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)


def _random_states(device: torch.device) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """torch's, the GPU's, numpy's and Python's: users' own models may draw from any of them."""
    _, words, place, has_gauss, gauss = np.random.get_state(legacy=True)
    _, pythons, next_gauss = random.getstate()
    tensors = {
        "random.torch": torch.get_rng_state(),
        "random.numpy": torch.from_numpy(np.asarray(words).astype(np.int64)),
        "random.python": torch.tensor(pythons, dtype=torch.int64),
    }
    if device.type == "cuda":
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    return tensors, {"numpy": [int(place), int(has_gauss), float(gauss)], "python": next_gauss}


def _numpys(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Any:
    place, has_gauss, gauss = facts["numpy"]
    return "MT19937", tensors["random.numpy"].numpy().astype(np.uint32), place, has_gauss, gauss


def _pythons(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Any:
    return random.Random.VERSION, tuple(tensors["random.python"].tolist()), facts["python"]
