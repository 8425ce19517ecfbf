"""The evidence of a sweep: its final comparison and its report."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsl_sweep.analysis.comparison import Compared, compare
from wsl_sweep.analysis.curves import Rows, RowsOf
from wsl_sweep.analysis.records import SweepRecords, kept_outcomes, records_of
from wsl_sweep.analysis.summary import build_summary
from wsl_sweep.app.folders import find_sweep, open_sweep, rows_of, state_as_it_stands
from wsl_sweep.errors import WslSweepError
from wsl_sweep.spec.datasets import data_set
from wsl_sweep.spec.spec import Spec
from wsl_sweep.storage import Place, place
from wsl_sweep.sweep.ledger import READERS, SweepState

if TYPE_CHECKING:
    from wsl_sweep.analysis.report import Page
    from wsl_sweep.analysis.report_why import Classes

REPORT = "report.html"


def final_comparison(sweep: SweepRecords) -> Compared | None:
    """The comparison that the file declares, over the sweep's final table; None where there is no table yet."""
    try:
        return compare([sweep])
    except WslSweepError:
        return None


def report_page(
    spec: Spec,
    state: SweepState,
    folder: Place,
    plan: Mapping[str, Any],
    sweep: SweepRecords,
    compared: Compared | None,
    say: Callable[[str], None] = lambda text: None,
) -> Page:
    """The report of a sweep as one HTML file, and its pictures.

    Args:
        spec: the sweep's.
        state: its ledger, folded.
        folder: where its trials' rows lie.
        plan: ``plan.json``.
        sweep: its trials, as they are compared.
        compared: of ``final_comparison``.
        say: hears which of its parts could not be made; the page's notes have it, too.
    """
    from wsl_sweep.analysis.report import render_page
    from wsl_sweep.analysis.report_pictures import looks_of_report
    from wsl_sweep.analysis.report_why import why_sections
    from wsl_sweep.analysis.reporting import build_report
    from wsl_sweep.app.results import best_student  # which needs this module

    rows = _rows_by_trial(folder, state)
    report = build_report(spec, state, plan, sweep.records, compared, rows)
    missing: list[str] = []
    why = why_sections(
        spec,
        state,
        sweep,
        compared,
        rows,
        folder,
        best_of=lambda: best_student(build_summary(spec, state, uuid=sweep.uuid), distilled=True),
        classes_of=_classes,
        looks=looks_of_report(report),
        say=missing.append,
    )
    for text in missing:
        say(text)
    return render_page(replace(report, notes=(*report.notes, *missing)), why)


def _classes(dataset: Mapping[str, Any]) -> Classes:
    """The names of a data set's classes, where they are had without reading its examples."""
    from wsl_sweep.analysis.report_why import Classes
    from wsl_sweep.data import class_names, superclasses
    from wsl_sweep.image_listing import list_pictures

    name = str(dataset.get("name"))
    names: tuple[str, ...] = ()
    above: tuple[str, ...] | None = None
    with contextlib.suppress(WslSweepError, OSError):  # of a sweep that was run elsewhere, they may not be here
        if data_set(name).small:
            names = class_names(dataset)
            above = superclasses(dataset)
        elif name == "image_folder":
            names = list_pictures(str(dataset["root"])).classes
    return Classes(names, above or ())


def _rows_by_trial(folder: Place, state: SweepState) -> RowsOf:
    """The rows of a trial's attempt that counts. Those of the final table, which are asked for again and again, are
    read once; of a search's, which may be thousands, none is kept.
    """
    rows = rows_of(folder)

    def by_trial(trial_id: str) -> Rows:
        known = state.trials.get(trial_id)
        return rows(trial_id, known.attempt) if known is not None and known.attempt else ()

    table = list(dict.fromkeys(trial_id for row in state.rows for trial_id in row["trial_ids"]))
    with ThreadPoolExecutor(1 if folder.local is not None else READERS) as readers:
        kept = dict(zip(table, readers.map(by_trial, table), strict=True))
    return lambda trial_id: kept[trial_id] if trial_id in kept else by_trial(trial_id)


def report_sweep(
    name: str,
    *,
    storage: str | None = None,
    to: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> str:
    """Makes the report of a sweep anew, finished or not, from its ledger; returns where it lies.

    Args:
        name: of the sweep.
        storage: folder of sweeps.
        to: where to write it; by default ``report.html`` in the sweep's folder.
        say: hears which of its parts could not be made.

    Raises:
        WslSweepError: there is no such sweep, or the file cannot be written.
    """
    folder = find_sweep(storage, name)
    spec, plan = open_sweep(folder)
    spec, state = replace(spec, name=name), state_as_it_stands(folder)
    sweep = records_of(spec, state, uuid=plan["uuid"], outcomes=kept_outcomes(folder))
    page = report_page(spec, state, folder, plan, sweep, final_comparison(sweep), say)
    target = place(to) if to is not None else folder / REPORT
    if to is not None and to.is_dir():
        raise WslSweepError(f"{to} is a folder; name a file, such as {to / REPORT}")
    target.write(page.html.encode())
    return str(target)
