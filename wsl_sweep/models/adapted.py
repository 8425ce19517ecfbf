"""Classifiers of torchvision and timm, with the features that their last linear map sees."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from wsl_sweep.errors import WslSweepError
from wsl_sweep.spec.catalogue import did_you_mean

_WITH_SIDE_HEADS = ("googlenet", "inception_v3")


class Adapted(nn.Module):
    """Another library's classifier as it is.

    Args:
        net: from (B, C, H, W) to (B, num_classes).
        head: its last linear map, or None where it has none (and so no features).
        in_channels: what ``net`` takes; grey pictures are repeated over the channels.
    """

    def __init__(self, net: nn.Module, head: nn.Module | None, in_channels: int) -> None:
        super().__init__()
        self.net = net
        self._head = [head] if head is not None else []  # in a list, so that it is not a second submodule
        self.in_channels = in_channels

    def forward(self, images: Tensor) -> Tensor:
        """(B, num_classes) logits."""
        if images.shape[1] == 1 and self.in_channels != 1:
            images = images.expand(-1, self.in_channels, -1, -1)
        logits: Tensor = self.net(images)
        return logits

    def with_features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, num_classes) logits and the (B, D) features that the head saw, in one pass."""
        if not self._head:
            raise WslSweepError(f"{type(self.net).__name__} has no linear classifier, and so no features")
        seen: list[Tensor] = []

        def record(_: nn.Module, arguments: tuple[Any, ...]) -> None:
            seen.append(arguments[0])

        hook = self._head[0].register_forward_pre_hook(record)
        try:
            logits = self(images)
        finally:
            hook.remove()
        return logits, seen[-1]


def build_torchvision(name: str, num_classes: int) -> Adapted:
    """torchvision's classifier ``name``, freshly initialised. Raises WslSweepError: there is none of that name."""
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise WslSweepError(f'torchvision has no classifier called "{name}"; {did_you_mean(name, known)}')
    options: dict[str, Any] = {"aux_logits": False, "init_weights": False} if name in _WITH_SIDE_HEADS else {}
    net: nn.Module = models.get_model(name, weights=None, num_classes=num_classes, **options)
    linear = [module for module in net.modules() if isinstance(module, nn.Linear)]
    fits = linear and linear[-1].out_features == num_classes
    return Adapted(net, linear[-1] if fits else None, 3)


def build_timm(name: str, num_classes: int, in_channels: int) -> Adapted:
    """timm's classifier ``name``, freshly initialised.

    Raises WslSweepError: timm is not installed, or has none of that name.
    """
    try:
        import timm
    except ImportError as error:
        raise WslSweepError(f'"timm:{name}" needs timm: pip install "wsl-sweep[timm]"') from error
    known = timm.list_models()
    if name.split(".")[0] not in known:
        raise WslSweepError(f'timm has no model called "{name}"; {did_you_mean(name, known)}')
    net: nn.Module = timm.create_model(name, pretrained=False, num_classes=num_classes, in_chans=in_channels)
    classifier: Any = getattr(net, "get_classifier", None)
    head = classifier() if callable(classifier) else None
    return Adapted(net, head if isinstance(head, nn.Linear) else None, in_channels)
