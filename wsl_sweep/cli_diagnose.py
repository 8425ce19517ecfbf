"""``wsl-sweep diagnose``: why distillation works, or does not. Each command is a few lines over ``wsl_sweep.app``."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from wsl_sweep.cli_options import AsJson, Storage, only_json, say_on_stderr

diagnose_app = typer.Typer(
    no_args_is_help=True, help="Why distillation works, or does not: look into teachers.", rich_markup_mode=None
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
