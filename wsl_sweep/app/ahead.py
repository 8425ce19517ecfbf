"""What the end of a sweep needs, imported while the driver has nothing else to do."""

from __future__ import annotations

import contextlib
import importlib
import threading
from collections.abc import Mapping
from typing import Any

OF_A_REPORT = (
    "scipy.stats",
    "sklearn.gaussian_process",
    "wsl_sweep.analysis.report",
    "wsl_sweep.analysis.report_why",
)
OF_A_MODEL = ("torch", "torch.export._trace")
"""For logging a student as an MLflow model."""


class Ahead:
    """Imports what the end will need once a worker is at work, best while it trains a teacher that all wait for.

    Args:
        best_student: whether a student will be logged as a model.
    """

    def __init__(self, best_student: bool) -> None:
        self._modules = (*OF_A_REPORT, *(OF_A_MODEL if best_student else ()))
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def on_event(self, event: Mapping[str, Any]) -> None:
        """Of the ledger's events the first start of a trial."""
        if event["event"] == "started":
            self._begin()

    def on_teacher(self, teacher_id: str, epoch: int, epochs: int) -> None:
        """The first word of a teacher's training."""
        self._begin()

    def close(self) -> None:
        """Imports no more, and waits for what is under way: an interpreter that ends in the midst of it may crash."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    def _begin(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._import, daemon=True)
            self._thread.start()

    def _import(self) -> None:
        for module in self._modules:
            if self._stopped.is_set():
                return
            with contextlib.suppress(Exception):  # told where it is missed
                importlib.import_module(module)
