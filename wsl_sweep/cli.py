"""The ``wsl-sweep`` command. Every command is a few lines over a function of ``wsl_sweep.app``."""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from wsl_sweep import __version__
from wsl_sweep.cli_diagnose import diagnose_app
from wsl_sweep.cli_options import (
    Address,
    AsJson,
    Bank,
    Insecure,
    Name,
    Recipe,
    Seeds,
    Sets,
    Storage,
    TrackingUri,
    command_line,
    end_of,
    only_json,
    say_on_stderr,
)
from wsl_sweep.errors import WslSweepError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Search and ablate knowledge distillation with weighted soft labels.\n\n"
    "Start with: wsl-sweep run search_spaces/alpha.yaml",
    rich_markup_mode=None,
)

File = Annotated[Path, typer.Argument(help="A search-space file.", show_default=False)]
Trials = Annotated[int | None, typer.Option(help="Search trials for each arm.")]
AsBegun = Annotated[bool, typer.Option("--as-begun", help="Go on as it began, although its file has changed.")]
Processes = Annotated[
    int,
    typer.Option(help="That share every batch, each with its own threads and, where there is one, GPU.", min=1),
]
FromMlflow = Annotated[
    str | None, typer.Option("--from-mlflow", metavar="URI", help="Read a tracking server in place of a storage.")
]
Shape = Annotated[str, typer.Option("--format", help="terminal, markdown, latex, csv or json.", show_default=False)]


@app.command()
def run(
    file: File,
    sets: Sets = None,
    recipe: Recipe = None,
    trials: Trials = None,
    seeds: Seeds = None,
    name: Name = None,
    storage: Storage = None,
    tracking_uri: TrackingUri = None,
    address: Address = None,
    insecure: Insecure = False,
    bank: Bank = True,
    rerun: Annotated[
        bool, typer.Option("--rerun", help="Run trials too that another sweep here has finished.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the file and show the plan only.")] = False,
) -> None:
    """Run a search or an ablation.

    Example: wsl-sweep run search_spaces/alpha.yaml --trials 20 --set distillation.temperature=2
    """
    from wsl_sweep.app import RunOptions, outlook, run_sweep
    from wsl_sweep.show import show_plan

    line = command_line(sets, recipe, trials, seeds, name)
    options = RunOptions(storage, tracking_uri, address, insecure, bank, rerun)
    if dry_run:
        show_plan(outlook(file, line, options))
        return
    end_of(lambda: run_sweep(file, line, options))


@app.command()
def resume(
    name: Annotated[str, typer.Argument(help="A sweep that was stopped.", show_default=False)],
    storage: Storage = None,
    tracking_uri: TrackingUri = None,
    address: Address = None,
    insecure: Insecure = False,
    bank: Bank = True,
    as_begun: AsBegun = False,
) -> None:
    """Go on with a sweep that was stopped, or whose driver died; what is finished stays.

    Example: wsl-sweep resume alpha
    """
    from wsl_sweep.app import RunOptions, resume_sweep

    options = RunOptions(storage, tracking_uri, address, insecure, bank, as_begun=as_begun)
    end_of(lambda: resume_sweep(name, options))


@app.command()
def extend(
    name: Annotated[str, typer.Argument(help="A sweep, finished or not.", show_default=False)],
    trials: Annotated[int | None, typer.Option(help="Search trials that each arm shall have in all.", min=1)] = None,
    seeds: Annotated[int | None, typer.Option(help="Seeds that it shall have in all.", min=1)] = None,
    storage: Storage = None,
    tracking_uri: TrackingUri = None,
    address: Address = None,
    insecure: Insecure = False,
    bank: Bank = True,
    as_begun: AsBegun = False,
) -> None:
    """Add trials or seeds to a sweep; what is finished stays.

    Example: wsl-sweep extend alpha --trials 50
    """
    from wsl_sweep.app import RunOptions, extend_sweep

    options = RunOptions(storage, tracking_uri, address, insecure, bank, as_begun=as_begun)
    end_of(lambda: extend_sweep(name, trials=trials, seeds=seeds, options=options))


@app.command()
def stop(
    name: Annotated[str, typer.Argument(help="A running sweep.", show_default=False)],
    trial: Annotated[
        str | None, typer.Option(help="End this trial alone: its id, or how it begins.", show_default=False)
    ] = None,
    storage: Storage = None,
) -> None:
    """Have a running sweep save and end, from another terminal; resume goes on with it.

    Example: wsl-sweep stop alpha
    """
    from wsl_sweep.app import stop_sweep

    print(stop_sweep(name, trial, storage))


@app.command()
def clean(
    name: Annotated[str, typer.Argument(help="A sweep that is not running.", show_default=False)],
    storage: Storage = None,
) -> None:
    """Delete old attempts, and checkpoints of trials that have ended.

    Example: wsl-sweep clean alpha
    """
    from wsl_sweep.app import clean_sweep

    cleaned = clean_sweep(name, storage)
    print(f"deleted {cleaned.attempts} old attempts and {cleaned.checkpoints} checkpoints of {name}")


@app.command()
def sync(
    name: Annotated[str, typer.Argument(help="A sweep whose runs MLflow lacks.", show_default=False)],
    storage: Storage = None,
    tracking_uri: TrackingUri = None,
) -> None:
    """Bring MLflow in line with a sweep on disk; also on another server.

    Example: wsl-sweep sync alpha --tracking-uri http://127.0.0.1:5000
    """
    from wsl_sweep.app import RunOptions, sync_sweep

    finished = sync_sweep(name, RunOptions(storage, tracking_uri))
    print(f"MLflow has the {len(finished.summary['trials'])} trials of {name}")


@app.command()
def export(
    name: Annotated[str, typer.Argument(help="A sweep, finished or not.", show_default=False)],
    best: Annotated[bool, typer.Option("--best", help="Its best student.")] = False,
    trial: Annotated[
        str | None, typer.Option(help="The student of this trial: its id, or how it begins.", show_default=False)
    ] = None,
    format: Annotated[str, typer.Option(help="safetensors, onnx or torch-export.")] = "safetensors",
    to: Annotated[
        str | None, typer.Option(help="A new folder.  [default: NAME-TRIAL-FORMAT]", show_default=False)
    ] = None,
    storage: Storage = None,
) -> None:
    """Take a trained student away, with a card that says what it is; it is loaded back and compared.

    Example: wsl-sweep export alpha --best --format onnx
    """
    from wsl_sweep.app import export_student
    from wsl_sweep.show import size

    if best == (trial is not None):
        raise WslSweepError(f"say which student: either --best, or --trial ID (wsl-sweep status {name} lists them)")
    exported = export_student(name, trial=trial, format=format, to=to, storage=storage)
    print(f"{exported.folder}:")
    for file in exported.files:
        print(f"  {file}  {size((exported.folder / file).stat().st_size)}")


@app.command()
def plan(
    file: File,
    sets: Sets = None,
    recipe: Recipe = None,
    trials: Trials = None,
    seeds: Seeds = None,
    name: Name = None,
    storage: Storage = None,
) -> None:
    """Show what would run: trials, teachers, what is there already, and how long it may take.

    Example: wsl-sweep plan search_spaces/joint.yaml --trials 100
    """
    from wsl_sweep.app import RunOptions, outlook
    from wsl_sweep.show import show_plan

    show_plan(outlook(file, command_line(sets, recipe, trials, seeds, name), RunOptions(storage)))


@app.command()
def train(
    recipe: Annotated[str, typer.Option(help="Named defaults: see wsl-sweep recipes.")] = "digits",
    sets: Sets = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, max=2**63 - 1, help="The student's seed.  [default: the recipe's]", show_default=False),
    ] = None,
    threads: Annotated[int, typer.Option(help="Torch's threads, of each process.", min=1)] = 1,
    processes: Processes = 1,
    bank: Bank = True,
    as_json: AsJson = False,
) -> None:
    """Train one student, without Ray and MLflow.

    Example: wsl-sweep train --recipe digits --set distillation.alpha=2 --seed 3
    """
    from wsl_sweep.app import train_once

    with only_json(as_json):
        result = train_once(recipe, tuple(sets or ()), seed, threads, None if as_json else Console(), bank, processes)
    if as_json:
        print(json.dumps(result, indent=2))
        return
    table = Table("metric", "value", box=None, header_style="dim")
    for metric, value in result["metrics"].items():
        table.add_row(metric, f"{value:.4f}")
    Console().print(table)


recipes_app = typer.Typer(help="Named defaults for data set, models, optimizer and schedule.", rich_markup_mode=None)
app.add_typer(recipes_app, name="recipes")


@recipes_app.callback(invoke_without_command=True)
def recipes(context: typer.Context, as_json: AsJson = False) -> None:
    """List the recipes; `recipes show NAME` prints one whole.

    Example: wsl-sweep recipes
    """
    from wsl_sweep.show import show_recipes
    from wsl_sweep.spec.recipes import RECIPES

    if context.invoked_subcommand is not None:
        return
    if as_json:
        print(json.dumps({r.name: {"description": r.description, **r.values} for r in RECIPES.values()}, indent=2))
        return
    show_recipes(list(RECIPES.values()))


@recipes_app.command("show")
def show_recipe_(
    name: Annotated[str, typer.Argument(help="A recipe.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Print a recipe whole: every value, and where it comes from.

    Example: wsl-sweep recipes show cifar100/wrn_40_2-wrn_16_2
    """
    from wsl_sweep.app.recipes import whole_recipe
    from wsl_sweep.show import show_recipe

    recipe, rows = whole_recipe(name)
    if as_json:
        values = {row.path: {"value": row.value, "source": row.source} for row in rows}
        print(json.dumps({"name": recipe.name, "description": recipe.description, "values": values}, indent=2))
        return
    show_recipe(recipe, rows)


teacher_app = typer.Typer(
    no_args_is_help=True, help="Teachers: bring one in, train one, look at them.", rich_markup_mode=None
)
app.add_typer(teacher_app, name="teacher")


@teacher_app.command("import")
def teacher_import(
    file: Annotated[Path, typer.Argument(help="A checkpoint: torch.save or safetensors.", show_default=False)],
    recipe: Annotated[str, typer.Option(help="Whose data it classifies: see wsl-sweep recipes.", show_default=False)],
    model: Annotated[str | None, typer.Option(help="Its model.  [default: the recipe's teacher]")] = None,
    sets: Sets = None,
    as_json: AsJson = False,
) -> None:
    """Bring in a published teacher; nothing in the file is run.

    Example: wsl-sweep teacher import ckpt_epoch_240.pth --model wrn_40_2 --recipe cifar100/wrn_40_2-wrn_16_2
    """
    from wsl_sweep.app import import_teacher
    from wsl_sweep.show import show_teacher_card

    with only_json(as_json):
        card = import_teacher(file, model, recipe, tuple(sets or ()), say_on_stderr)
    if as_json:
        print(json.dumps(card, indent=2))
        return
    show_teacher_card(card)
    print(f"Use it: wsl-sweep run FILE --recipe {recipe} {_with_model(card, recipe, sets or [])}")


@teacher_app.command("train")
def teacher_train(
    recipe: Annotated[str, typer.Option(help="Named defaults: see wsl-sweep recipes.")] = "digits",
    sets: Sets = None,
    part: Annotated[str, typer.Option(help="train, or train+validation.")] = "train",
    threads: Annotated[int, typer.Option(help="Torch's threads; part of what the teacher is.", min=1)] = 1,
    processes: Processes = 1,
    as_json: AsJson = False,
) -> None:
    """Train the teacher of a recipe beforehand; sweeps find it by what it is.

    Example: wsl-sweep teacher train --recipe digits --set teacher.label_smoothing=0.1
    """
    from wsl_sweep.app import train_teacher_only
    from wsl_sweep.show import show_teacher_card

    with only_json(as_json):
        card = train_teacher_only(recipe, tuple(sets or ()), part, threads, say_on_stderr, processes)
    if as_json:
        print(json.dumps(card, indent=2))
        return
    show_teacher_card(card)


@teacher_app.command("list")
def teacher_list(as_json: AsJson = False) -> None:
    """List the teachers of this machine.

    Example: wsl-sweep teacher list
    """
    from wsl_sweep.app import list_teachers
    from wsl_sweep.show import show_teachers

    cards = list_teachers()
    if as_json:
        print(json.dumps(cards, indent=2))
        return
    if not cards:
        print("no teachers yet; a sweep trains those it needs, or: wsl-sweep teacher train")
        return
    show_teachers(cards)


@teacher_app.command("show")
def teacher_show(
    teacher_id: Annotated[str, typer.Argument(help="A teacher's id, or how it begins.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Show what is known of a teacher.

    Example: wsl-sweep teacher show 3f2a
    """
    from wsl_sweep.app import show_teacher
    from wsl_sweep.show import show_teacher_card

    card = show_teacher(teacher_id)
    if as_json:
        print(json.dumps(card, indent=2))
        return
    show_teacher_card(card)


bank_app = typer.Typer(help="The logit bank: what teachers said of each view.", rich_markup_mode=None)
app.add_typer(bank_app, name="bank")


@bank_app.callback(invoke_without_command=True)
def bank(context: typer.Context, as_json: AsJson = False) -> None:
    """List the logit banks of this machine: what they hold, their size, how often they were of use.

    Example: wsl-sweep bank
    """
    if context.invoked_subcommand is None:
        bank_list(as_json)


@bank_app.command("list")
def bank_list(as_json: AsJson = False) -> None:
    """As `wsl-sweep bank`.

    Example: wsl-sweep bank list --json
    """
    from wsl_sweep.app import banks
    from wsl_sweep.paths import bank_folder
    from wsl_sweep.show import show_banks

    found = banks()
    if as_json:
        print(json.dumps(found, indent=2))
        return
    show_banks(found, bank_folder())


@bank_app.command("prune")
def bank_prune(
    keys: Annotated[list[str] | None, typer.Argument(help="Keys, or how they begin.", show_default=False)] = None,
    everything: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    unused_days: Annotated[
        float | None, typer.Option(help="Those that nobody has opened for so many days.", min=0)
    ] = None,
) -> None:
    """Delete logit banks that no trial has open; what is needed again is computed again.

    Example: wsl-sweep bank prune --unused-days 30
    """
    from wsl_sweep.app import prune
    from wsl_sweep.show import size

    deleted, freed, left = prune(keys or (), everything, unused_days)
    print(f"deleted {deleted} bank{'s' if deleted != 1 else ''}: {size(freed)}")
    if left:
        print(f"in use, and left: {', '.join(left)}")


@app.command()
def schema() -> None:
    """Print the JSON Schema of a search-space file, for editors.

    Example: wsl-sweep schema > search_spaces/schema.json
    """
    from wsl_sweep.spec.sections import json_schema

    print(json.dumps(json_schema(), indent=2, ensure_ascii=False))


@app.command()
def status(
    name: Annotated[str | None, typer.Argument(help="One sweep, with its trials.", show_default=False)] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Look again every few seconds, until Ctrl-C.")] = False,
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """List the sweeps in a storage and how far each is, or the trials of one.

    Example: wsl-sweep status --watch
    """
    from wsl_sweep.app import list_sweeps, sweep_trials
    from wsl_sweep.show import one_sweep, sweeps_table, wide_console

    def look() -> Any:
        return list_sweeps(storage) if name is None else sweep_trials(name, storage)

    if as_json:
        print(json.dumps(look(), indent=2))
        return
    if watch:
        _watch(lambda: sweeps_table(look()) if name is None else one_sweep(look()))
        return
    found = look()
    if not found:
        print(f"no sweeps in {storage or 'runs'}; start one: wsl-sweep run search_spaces/alpha.yaml")
        return
    wide_console().print(sweeps_table(found) if name is None else one_sweep(found))


@app.command()
def compare(
    names: Annotated[list[str], typer.Argument(help="Sweeps.", show_default=False)],
    by: Annotated[
        list[str] | None,
        typer.Option(
            "--by", metavar="PATH", help="What makes the rows: variant, sweep or dotted paths; may be repeated."
        ),
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="Variant, or row, that the others are compared with.  [default: the file's]")
    ] = None,
    metric: Annotated[str | None, typer.Option(help="Whose values.  [default: the file's]")] = None,
    margin: Annotated[
        float | None, typer.Option(help="The smallest difference that matters.  [default: the file's]")
    ] = None,
    where: Annotated[
        list[str] | None, typer.Option("--where", metavar="PATH=VALUE", help="Only such trials; may be repeated.")
    ] = None,
    storage: Storage = None,
    from_mlflow: FromMlflow = None,
    shape: Shape = "terminal",
) -> None:
    """Compare variants over one or several sweeps: means, intervals, paired tests and a verdict.

    Example: wsl-sweep compare alpha --baseline kd --format markdown
    """
    from wsl_sweep.analysis.formats import FORMATS
    from wsl_sweep.app import compare_sweeps
    from wsl_sweep.show import show_compared

    _check_format(shape, FORMATS)
    paths = [path.strip() for one in by or () for path in one.split(",")]
    compared = compare_sweeps(
        names, by=paths, where=where or (), metric=metric, baseline=baseline, margin=margin, storage=storage,
        from_mlflow=from_mlflow,
    )  # fmt: skip
    if shape == "terminal":
        show_compared(compared)
    else:
        print(FORMATS[shape](compared), end="")


@app.command()
def report(
    name: Annotated[str, typer.Argument(help="A sweep, finished or not.", show_default=False)],
    to: Annotated[
        Path | None, typer.Option(help="File to write.  [default: report.html in its folder]", show_default=False)
    ] = None,
    storage: Storage = None,
) -> None:
    """Make the report of a sweep: one HTML file with verdict, tables, pictures and costs.

    Example: wsl-sweep report alpha
    """
    from wsl_sweep.app import report_sweep

    print(report_sweep(name, storage=storage, to=to, say=lambda text: print(text, file=sys.stderr)))


@app.command()
def paper(
    number: Annotated[int, typer.Argument(metavar="TABLE", help="1 to 11.", show_default=False)],
    name: Annotated[str, typer.Argument(help="A sweep.", show_default=False)],
    metric: Annotated[str, typer.Option(help="Whose values.")] = "test/accuracy",
    storage: Storage = None,
    from_mlflow: FromMlflow = None,
    shape: Shape = "terminal",
) -> None:
    """Set a sweep out as a table of the paper, with published figures beside ours where there are any.

    Example: wsl-sweep paper 7 tab7_rs_dropping --format latex
    """
    from wsl_sweep.analysis.paper import FORMATS
    from wsl_sweep.app import paper_table
    from wsl_sweep.show import show_paper

    _check_format(shape, FORMATS)
    table = paper_table(number, name, metric=metric, storage=storage, from_mlflow=from_mlflow)
    if shape == "terminal":
        show_paper(table)
    else:
        print(FORMATS[shape](table), end="")


def _check_format(shape: str, formats: Iterable[str]) -> None:
    from wsl_sweep.spec.catalogue import did_you_mean

    known = ["terminal", *formats]
    if shape not in known:
        raise WslSweepError(f'no format is called "{shape}"; {did_you_mean(shape, known)}')


app.add_typer(diagnose_app, name="diagnose")


@app.command()
def doctor(
    file: Annotated[Path | None, typer.Argument(help="A search-space file, to look for what it needs.")] = None,
    address: Annotated[str | None, typer.Option(help="Ray cluster to look at; else this machine alone.")] = None,
    sets: Sets = None,
    recipe: Recipe = None,
    storage: Storage = None,
    tracking_uri: TrackingUri = None,
    insecure: Insecure = False,
    as_json: AsJson = False,
) -> None:
    """Ask every node whether a sweep can run: versions, data, storage, GPU, token, tracking server.

    Example: wsl-sweep doctor search_spaces/alpha.yaml --address auto --storage /shared/runs
    """
    from wsl_sweep.app import RunOptions
    from wsl_sweep.app.doctor import doctor_table, examine

    options = RunOptions(storage, tracking_uri, address, insecure)
    with only_json(as_json):
        report = examine(file, command_line(sets, recipe, None, None, None), options)
    if as_json:
        print(report.to_json())
    else:
        from wsl_sweep.show import wide_console

        wide_console().print(doctor_table(report))
    if not report.ok:
        raise typer.Exit(2)


@app.command()
def logs(
    trial: Annotated[str, typer.Argument(help="A trial's id, or how it begins.", show_default=False)],
    storage: Storage = None,
) -> None:
    """Print a trial's own output.

    Example: wsl-sweep logs 3f2a
    """
    from wsl_sweep.app import find_logs

    for path in find_logs(trial, storage):
        print(f"== {path}")
        print(path.read_bytes().decode("utf-8", errors="replace"), end="")


@app.command()
def ui(
    tracking_uri: TrackingUri = None,
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1.", min=1, max=65535)] = 5000,
) -> None:
    """Open MLflow's own pages on 127.0.0.1, on the store that the sweeps here write to.

    Example: wsl-sweep ui --port 5001
    """
    from wsl_sweep.tracking.settings import redact, resolve_tracking

    uri = resolve_tracking(tracking_uri, None, "").uri
    if uri.startswith(("http://", "https://")):
        print(f"the runs are on a server already: open {redact(uri)}")
        return
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
        name = uri.removeprefix("sqlite:///")
        raise WslSweepError(f"there is no {name} here; run a sweep first, or give --tracking-uri")
    print(f"MLflow on http://127.0.0.1:{port} (Ctrl-C ends it)", flush=True)
    # The address goes by the environment: a command line is seen by every user of the machine.
    # MLflow's runners of background jobs are of no use here, and take processor time.
    environment = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **os.environ, "MLFLOW_BACKEND_STORE_URI": uri}
    command = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port)]
    os.execve(sys.executable, command, environment)  # so that a signal reaches MLflow itself


def _version(value: bool) -> None:
    if value:
        print(__version__)
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def _with_model(card: Any, recipe: str, sets: list[str]) -> str:
    """The options that make a sweep use an imported teacher."""
    from wsl_sweep.spec.recipes import RECIPES

    options = [f"teacher.checkpoint={card['teacher_id']}", *sets]
    if RECIPES[recipe].values["teacher.model"] != card["model"]:
        options.append(f"teacher.model={card['model']}")
    return " ".join(f"--set {shlex.quote(option)}" for option in options)


WATCH_SECONDS = 2.0


def _watch(table: Callable[[], Any]) -> None:
    """Shows a table anew every few seconds; ends with Ctrl-C."""
    from rich.live import Live

    with contextlib.suppress(KeyboardInterrupt), Live(table(), auto_refresh=False) as live:
        while True:
            time.sleep(WATCH_SECONDS)
            live.update(table(), refresh=True)


def main() -> NoReturn:
    """Entry point: errors that a user can mend are printed, never a traceback."""
    atexit.register(gc.freeze)  # else the interpreter looks through all of torch, Ray and MLflow before it ends: 3 s
    try:
        _run_app()
    except SystemExit as end:
        if "wsl_sweep.tracking.outbox" in sys.modules:
            _leave_at_once(end)
        raise


def _leave_at_once(end: SystemExit) -> None:
    """Ends the process where a call to MLflow holds it: the interpreter would wait minutes for an upload's threads."""
    from wsl_sweep.tracking.outbox import held

    if held():
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(end.code if isinstance(end.code, int) else int(end.code is not None))


def _run_app() -> NoReturn:
    try:
        app()
    except WslSweepError as error:
        print(f"wsl-sweep: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("wsl-sweep: interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except Exception as error:
        if os.environ.get("WSL_SWEEP_DEBUG"):
            raise
        first = next((line for line in str(error).splitlines() if line.strip()), "no message")
        print(f"wsl-sweep: unexpected {type(error).__name__}: {first}", file=sys.stderr)
        print("  a bug, please report it; WSL_SWEEP_DEBUG=1 shows the traceback", file=sys.stderr)
        sys.exit(1)
    sys.exit(0)
