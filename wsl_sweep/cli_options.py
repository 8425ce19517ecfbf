"""Options and ways of speaking that commands share."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import typer

from wsl_sweep.errors import Terminated

Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Set a path of run, above all else; may be repeated."),
]
Recipe = Annotated[str | None, typer.Option(help="Use this recipe in place of the file's.")]
Seeds = Annotated[int | None, typer.Option(help="Seeds of confirm, or of an ablation.")]
Name = Annotated[str | None, typer.Option(help="Name of the sweep.")]
TrackingUri = Annotated[
    str | None,
    typer.Option(help="MLflow's address; else the file's, MLFLOW_TRACKING_URI, sqlite:///mlflow.db."),
]
Address = Annotated[
    str | None,
    typer.Option(help="Ray cluster to join (or RAY_ADDRESS); needs --storage and --tracking-uri.", show_default=False),
]
Insecure = Annotated[bool, typer.Option("--insecure", help="Join a cluster that has no token.")]
Bank = Annotated[bool, typer.Option("--bank/--no-bank", help="Keep what teachers say of each view, or compute it.")]
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


def command_line(
    sets: list[str] | None, recipe: str | None, trials: int | None, seeds: int | None, name: str | None
) -> Any:
    """What a command line says of a file."""
    from wsl_sweep.spec.loading import CommandLine

    return CommandLine(tuple(sets or ()), recipe, trials, seeds, name)


def end_of(drive: Callable[[], Any]) -> None:
    """Drives a sweep to its end, shows that, and exits as it says; of one that had ended before there is None."""
    from wsl_sweep.show import show_finished

    try:
        finished = drive()
    except Terminated as error:  # before there was anything to show
        print("wsl-sweep: terminated", file=sys.stderr)
        raise typer.Exit(128 + signal.SIGTERM) from error
    if finished is None:
        return
    show_finished(finished)
    if finished.interrupted is not None:
        raise typer.Exit(128 + finished.interrupted)
    if finished.stopped is not None:
        raise typer.Exit(1)
