"""What a driver imports ahead: once, in time, and no more when it ends."""

from __future__ import annotations

import importlib
import threading

import pytest

from wsl_sweep.app.ahead import OF_A_MODEL, OF_A_REPORT, Ahead


class Imports:
    """Stands for importing; the first module can be held back until the test lets it go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: list[str] = []
        self.begun, self.go = threading.Event(), threading.Event()
        self.go.set()
        monkeypatch.setattr(importlib, "import_module", self)

    def __call__(self, name: str) -> None:
        self.names.append(name)
        self.begun.set()
        assert self.go.wait(30)
        raise ImportError(name)  # which ends nothing


@pytest.fixture
def imports(monkeypatch: pytest.MonkeyPatch) -> Imports:
    return Imports(monkeypatch)


def imported_all(ahead: Ahead) -> None:
    assert ahead._thread is not None
    ahead._thread.join(30)
    assert not ahead._thread.is_alive()


@pytest.mark.parametrize("logged", [True, False])
def test_what_the_end_needs_is_imported_once_while_the_first_worker_trains(imports: Imports, logged: bool) -> None:
    ahead = Ahead(best_student=logged)
    ahead.on_event({"event": "proposed"})
    assert ahead._thread is None
    ahead.on_teacher("t", 1, 60)
    imported_all(ahead)
    ahead.on_event({"event": "started"})
    imported_all(ahead)
    ahead.close()
    assert imports.names == [*OF_A_REPORT, *(OF_A_MODEL if logged else ())]


def test_a_sweep_that_ends_first_waits_for_one_module_and_no_more(imports: Imports) -> None:
    imports.go.clear()
    ahead = Ahead(best_student=True)
    ahead.on_event({"event": "started"})
    assert imports.begun.wait(30)
    closing = threading.Thread(target=ahead.close)
    closing.start()
    assert ahead._stopped.wait(30)
    assert closing.is_alive()
    imports.go.set()
    closing.join(30)
    assert not closing.is_alive()
    assert len(imports.names) == 1


def test_a_sweep_in_which_nobody_trained_has_nothing_to_wait_for(imports: Imports) -> None:
    Ahead(best_student=True).close()
    assert imports.names == []
