"""Logits and penultimate features in one pass, of any model that has features."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from wsl_sweep.errors import WslSweepError
from wsl_sweep.models.adapted import Adapted


def with_features(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """(B, num_classes) logits and (B, D) features of (B, C, H, W) pictures.

    A model has features if it has a ``features(images)`` that its ``forward`` calls: what that call returned is taken,
    so nothing is computed twice and batch normalisation sees a batch once.

    Raises:
        WslSweepError: the model has no ``features``, its forward does not call it, or what it returns is not (B, D).
    """
    if isinstance(model, Adapted):
        logits, features = model.with_features(images)
    else:
        logits, features = _recorded(model, images)
    if not isinstance(features, Tensor):
        raise WslSweepError(f"features of {type(model).__name__} must be a tensor, not {type(features).__name__}")
    if features.ndim != 2 or features.shape[0] != images.shape[0]:
        raise WslSweepError(
            f"features of {type(model).__name__} have the shape {tuple(features.shape)}, not (batch, features)"
        )
    return logits, features


def _recorded(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    own = getattr(model, "features", None)
    if not callable(own):
        raise WslSweepError(f"{type(model).__name__} has no features(images)")
    seen: list[Tensor] = []
    if isinstance(own, nn.Module):

        def hook(_: nn.Module, __: tuple[Any, ...], output: Tensor) -> None:
            seen.append(output)

        handle = own.register_forward_hook(hook)
        try:
            logits: Tensor = model(images)
        finally:
            handle.remove()
    else:

        def record(*args: Any, **kwargs: Any) -> Tensor:
            output: Tensor = own(*args, **kwargs)
            seen.append(output)
            return output

        shadowed = vars(model).get("features")
        model.__dict__["features"] = record
        try:
            logits = model(images)
        finally:
            if shadowed is None:
                del model.__dict__["features"]
            else:
                model.__dict__["features"] = shadowed
    if not seen:
        raise WslSweepError(f"forward of {type(model).__name__} does not call its features(images)")
    return logits, seen[-1]
