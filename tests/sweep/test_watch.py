"""Signals: a first one is noted or ends what has not begun, a second one ends the process at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from wsl_sweep.errors import Terminated
from wsl_sweep.sweep.watch import Interrupt


@pytest.fixture
def interrupt() -> Iterator[Interrupt]:
    installed = Interrupt()
    installed.install()
    yield installed
    installed.restore()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_first_signal_within_the_end_is_noted_and_a_second_one_ends_it(
    interrupt: Interrupt, signum: signal.Signals
) -> None:
    with interrupt.noted():
        os.kill(os.getpid(), signum)
        assert interrupt.signum == signum
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signum)


def test_before_anything_has_begun_sigterm_can_be_told_from_ctrl_c(interrupt: Interrupt) -> None:
    with pytest.raises(Terminated):
        os.kill(os.getpid(), signal.SIGTERM)
