"""Small files, and what the loader says of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

from wsl_sweep.spec import CommandLine, Spec, SpecErrors, parse_spec
from wsl_sweep.spec.yaml_lines import Problem

SEARCH = """
run: {recipe: digits}
space:
  distillation.alpha: {uniform: [1, 2]}
search: {trials: 4}
"""

ABLATION = """
run: {recipe: digits}
variants: [kd, ce]
"""


def text_of(text: str) -> str:
    """A file written as an indented block: without the indent and the empty first line."""
    return dedent(text).removeprefix("\n")


def spec_of(text: str, **command_line: Any) -> Spec:
    """The specification that a file and a command line make."""
    return parse_spec(text_of(text), "file.yaml", CommandLine(**command_line))


def problems_of(text: str, **command_line: Any) -> list[Problem]:
    """All that is wrong with a file and a command line; nothing where they are right."""
    try:
        spec_of(text, **command_line)
    except SpecErrors as errors:
        return errors.problems
    return []


def run_command(folder: Path, *arguments: str, python: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """``python -m wsl_sweep`` in a folder of its own, with a cache of its own."""
    foreign = ("RAY_ADDRESS", "MLFLOW_TRACKING_URI")
    environment = {name: value for name, value in os.environ.items() if name not in foreign}
    environment |= {"WSL_SWEEP_CACHE": str(folder / "cache"), "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, *python, "-m", "wsl_sweep", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
