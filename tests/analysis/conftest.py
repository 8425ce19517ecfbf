"""Whole made-up sweeps, for tests that only read them."""

from __future__ import annotations

import pytest

from tests.analysis.helpers import ABLATION, GRID, SEARCH, MadeUp, made_up


@pytest.fixture(scope="session")
def ablated(tmp_path_factory: pytest.TempPathFactory) -> MadeUp:
    """ABLATION at its end."""
    return made_up(ABLATION, tmp_path_factory.mktemp("ablated"))


@pytest.fixture(scope="session")
def gridded(tmp_path_factory: pytest.TempPathFactory) -> MadeUp:
    """GRID at its end."""
    return made_up(GRID, tmp_path_factory.mktemp("gridded"))


@pytest.fixture(scope="session")
def searched(tmp_path_factory: pytest.TempPathFactory) -> MadeUp:
    """SEARCH at its end."""
    return made_up(SEARCH, tmp_path_factory.mktemp("searched"))
