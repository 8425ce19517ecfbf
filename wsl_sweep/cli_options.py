"""Options and ways of speaking that commands share."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Annotated

import typer

Storage = Annotated[
    str | None,
    typer.Option(help="Folder of sweeps, or s3://bucket/folder.  [default: runs]", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def say_on_stderr(text: str) -> None:
    """A line for people, beside what is printed."""
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def only_json(as_json: bool) -> Iterator[None]:
    """What users' code prints goes to standard error where standard output is for JSON."""
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        yield
