"""Processes that work ahead: what they must leave to the one that started them."""

from __future__ import annotations

import gc
import os
from typing import Any

import pytest

from wsl_sweep.data.loading import Loading


class OfTheParent:
    """Ends any other process in which it is collected, as what has a thread does."""

    def __init__(self) -> None:
        self.process, self.itself = os.getpid(), self

    def __del__(self) -> None:
        if os.getpid() != self.process:
            os._exit(3)


def collecting(piece: Any) -> Any:
    gc.collect()
    return piece, gc.isenabled()


@pytest.mark.parametrize("enabled", [True, False])
def test_garbage_of_the_parent_is_not_collected_by_its_processes(enabled: bool) -> None:
    loading = Loading(collecting, 1)
    gc.disable()
    try:
        OfTheParent()
        if enabled:
            gc.enable()
        assert list(loading.results([1, 2, 3])) == [(1, True), (2, True), (3, True)]
        assert gc.isenabled() == enabled
    finally:
        gc.enable()
