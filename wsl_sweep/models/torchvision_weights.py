"""Weights that torchvision publishes: which there are, and how their files come here."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from wsl_sweep.errors import WslSweepError
from wsl_sweep.spec.catalogue import did_you_mean
from wsl_sweep.spec.pretrained import LIBRARY, is_pretrained

PATIENCE = 30.0
"""Seconds without a byte after which a download has failed."""


@dataclass(frozen=True)
class Published:
    """Weights of one model.

    Attributes:
        model, name: as torchvision calls them: ``resnet34``, ``IMAGENET1K_V1``.
        classes: that they tell apart.
        file: where torch keeps them once they are downloaded, or looks for what was put there by hand.
        megabytes: of the file.
        entry: torchvision's own.
    """

    model: str
    name: str
    classes: int
    file: Path
    megabytes: float
    entry: Any

    def fetch(self) -> Path:
        """The file, which is downloaded by torchvision's own means where it is not there; its hash is that in its name.

        Raises:
            WslSweepError: it cannot be downloaded, or is damaged; the message says what to do by hand.
        """
        if not self.file.is_file():
            try:
                with _patiently(), contextlib.redirect_stdout(sys.stderr):
                    self.entry.get_state_dict(progress=True, check_hash=True, weights_only=True)
            except Exception as error:  # of the network, of the disk, of the file: torch names no common class
                reason = str(error).strip().splitlines() or [type(error).__name__]
                raise WslSweepError(
                    f"the weights {self.name} of {LIBRARY}{self.model} ({self.file.name}, {self.megabytes:.0f} MB) are "
                    f"not in {self.file.parent} and cannot be downloaded ({reason[0]}): put the file there by hand, or "
                    "give teacher.checkpoint a .safetensors file or the id of a teacher (wsl-sweep teacher import)"
                ) from error
        self._check()
        return self.file

    def _check(self) -> None:
        wanted = re.search(r"-([0-9a-f]{8,})\.", self.file.name)
        if wanted is None:
            return
        try:
            with self.file.open("rb") as content:
                found = hashlib.file_digest(content, "sha256").hexdigest()
        except OSError as error:
            raise WslSweepError(f"{self.file}: cannot be read ({error.strerror or error})") from error
        if not found.startswith(wanted.group(1)):
            raise WslSweepError(
                f"{self.file} is damaged: its SHA-256 begins with {found[:8]}, not with {wanted.group(1)} as its name "
                "says; delete it, and it is downloaded again"
            )


@contextlib.contextmanager
def _patiently() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def published_weights(model: str, checkpoint: str) -> Published:
    """Weights by name; nothing is downloaded.

    Args:
        model: ``torchvision:`` and a model's name.
        checkpoint: ``torchvision:`` and the weights' name.

    Raises:
        WslSweepError: the model is not torchvision's, or has no weights of that name; the message has those it has.
    """
    from torch.hub import get_dir
    from torchvision import models

    name = checkpoint.removeprefix(LIBRARY)
    if not is_pretrained(model):
        raise WslSweepError(f"{checkpoint} are weights of a model of torchvision, and teacher.model is {model}")
    inner = model.removeprefix(LIBRARY)
    known = models.list_models(module=models)
    if inner not in known:
        raise WslSweepError(f'torchvision has no classifier called "{inner}"; {did_you_mean(inner, known)}')
    entries = models.get_model_weights(inner).__members__
    if name not in entries:
        there = ", ".join(LIBRARY + entry for entry in entries)
        raise WslSweepError(f'torchvision has no weights "{name}" of {inner}; it has {there or "none"}')
    entry = entries[name]
    return Published(
        model=inner,
        name=name,
        classes=len(entry.meta["categories"]),
        file=Path(get_dir(), "checkpoints", os.path.basename(urlparse(entry.url).path)),
        megabytes=float(entry.meta.get("_file_size", 0.0)),
        entry=entry,
    )
