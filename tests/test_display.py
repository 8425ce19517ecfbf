"""What a user sees must never end a sweep."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
from rich.console import Console

from tests.sweep.fakes import conductor_of, play, spec_of
from wsl_sweep.display import SweepDisplay


@pytest.mark.parametrize("gone", ["a pipe that nobody reads", "a closed file", "a full disk"])
def test_a_sweep_goes_on_where_its_output_cannot_go_anywhere(tmp_path: Path, gone: str) -> None:
    if gone == "a full disk":
        file = Path("/dev/full").open("w", buffering=1)  # noqa: SIM115
    else:
        reading, writing = os.pipe()
        file = os.fdopen(writing, "w", buffering=1)
        os.close(reading)
    if gone == "a closed file":
        file.close()
    conductor = conductor_of(spec_of("run: {recipe: digits}\nvariants: [kd, ce]\nseeds: 2\n"), tmp_path)
    display = SweepDisplay(Console(file=file), conductor)
    conductor.listeners.append(display.on_event)
    display.say("beginning")
    play(conductor)
    assert [state.status for state in conductor.state.trials.values()] == ["finished"] * 4
    with contextlib.suppress(OSError):
        file.close()
