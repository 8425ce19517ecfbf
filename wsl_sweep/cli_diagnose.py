"""``wsl-sweep diagnose``: why distillation works, or does not. Each command is a few lines over ``wsl_sweep.app``."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

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

diagnose_app = typer.Typer(
    no_args_is_help=True, help="Why distillation works, or does not: teachers, and students.", rich_markup_mode=None
)


@diagnose_app.command("teacher")
def diagnose_teacher_(
    which: Annotated[
        str, typer.Argument(metavar="ID|NAME", help="A teacher's id, or how it begins; or a sweep.", show_default=False)
    ],
    part: Annotated[str, typer.Option(help="Of the data: train, validation or test.")] = "validation",
    temperature: Annotated[
        float | None,
        typer.Option(help="Of distillation.  [default: the sweep's or the recipe's, else 4]", show_default=False),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(metavar="ID", help="A teacher with less label smoothing, to compare with.", show_default=False),
    ] = None,
    root: Annotated[
        str | None, typer.Option(help="Where the data lie, as dataset.root in a file.", show_default=False)
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(
            help="Page to write.  [default: teacher-ID-PART.html; with --json none]",
            metavar="FILE.html",
            show_default=False,
        ),
    ] = None,
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Say what a teacher's soft labels are worth: calibration, entropy, reliability, stability; and what to sweep.

    Example: wsl-sweep diagnose teacher 3f2a --part train
    """  # fmt: skip
    from wsl_sweep.analysis.found_teacher import teacher_json
    from wsl_sweep.analysis.report_teacher import TO_SWEEP, teacher_section
    from wsl_sweep.analysis.suggestions import space_text
    from wsl_sweep.app.diagnosing import check_page_file, diagnose_teacher, write_teacher_page
    from wsl_sweep.show_sections import show_sections

    check_page_file(to)
    with only_json(as_json):
        found = diagnose_teacher(
            which, part=part, temperature=temperature, against=against, root=root, storage=storage, say=say_on_stderr
        )
    if as_json:
        page = write_teacher_page(found, to) if to is not None else None
        print(json.dumps({**teacher_json(found), "page": page}, indent=2, allow_nan=False))
        return
    section = teacher_section(found)
    show_sections([replace(section, tables=tuple(one for one in section.tables if one.title != TO_SWEEP))])
    space = space_text(found.to_sweep)
    if space:
        print(f"\nIn a search-space file, beside run and search:\n\n{space}")
    print(f"Page: {write_teacher_page(found, to)}")


@diagnose_app.command("bias-variance")
def diagnose_bias_variance_(
    which: Annotated[
        str,
        typer.Argument(
            metavar="FILE|NAME",
            help="A search-space file, which is run where it has not been; or a sweep.",
            show_default=False,
        ),
    ],
    part: Annotated[
        str | None,
        typer.Option(help="Of the data: validation or test.  [default: what was not trained on]", show_default=False),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(
            help="Page to write.  [default: bias_variance.html in the sweep's folder]",
            metavar="FILE.html",
            show_default=False,
        ),
    ] = None,
    sets: Sets = None,
    recipe: Recipe = None,
    seeds: Seeds = None,
    name: Name = None,
    storage: Storage = None,
    tracking_uri: TrackingUri = None,
    address: Address = None,
    insecure: Insecure = False,
    bank: Bank = True,
    as_json: AsJson = False,
) -> None:
    """Measure bias and variance of students, the middle term of eq. 3, and Assumption 1 of the paper.

    Example: wsl-sweep diagnose bias-variance search_spaces/bias_variance.yaml
    """
    from wsl_sweep.analysis.report_bias_variance import bias_variance_sections
    from wsl_sweep.app import RunOptions
    from wsl_sweep.app.bias_variance import check_asked, diagnose_bias_variance, run_protocol
    from wsl_sweep.app.diagnosing import check_page_file
    from wsl_sweep.show_sections import show_sections

    check_page_file(to)
    asked = check_asked(part)
    with only_json(as_json):
        if Path(which).is_file():
            file, ran = Path(which), list[str]()
            options = RunOptions(storage, tracking_uri, address, insecure, bank)
            line = command_line(sets, recipe, None, seeds, name)
            end_of(lambda: run_protocol(file, line, options, ran.append))
            which = ran[0]
        elif which.endswith((".yaml", ".yml")) or "/" in which or sets or recipe or seeds or name:
            raise WslSweepError(f"there is no file {which} here")
        found = diagnose_bias_variance(which, storage=storage, part=asked, to=to, say=say_on_stderr)
    if as_json:
        print(json.dumps({**found.numbers, "page": found.page}, indent=2, allow_nan=False))
        return
    show_sections(bias_variance_sections(found.found))
    print(f"Page: {found.page}")
