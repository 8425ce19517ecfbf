"""What the commands print: plans, the end of a sweep, the sweeps of a storage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table

from wsl_sweep.analysis.comparison import Compared
from wsl_sweep.analysis.formats import footnotes, tables_of
from wsl_sweep.analysis.paper import PaperTable
from wsl_sweep.analysis.paper.formats import below, grid, title
from wsl_sweep.app import Finished, Outlook
from wsl_sweep.app.options import with_storage
from wsl_sweep.app.recipes import RecipeRow
from wsl_sweep.app.reporting import REPORT
from wsl_sweep.app.teachers import describe_teacher
from wsl_sweep.spec.recipes import Recipe
from wsl_sweep.spec.wording import duration, settings


def wide_console() -> Console:
    """A console on standard output; where that is no terminal, wide enough not to break a table."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=160)


def sweeps_table(sweeps: Sequence[Mapping[str, Any]]) -> Table:
    """One line a sweep."""
    table = Table("sweep", "status", "trials", "question", box=None, header_style="dim")
    for sweep in sweeps:
        counts = ", ".join(f"{count} {name}" for name, count in sweep["trials"].items())
        planned = f" of {sweep['planned']}" if sweep["planned"] and sweep["status"] != "finished" else ""
        table.add_row(sweep["sweep"], _status(sweep), counts + planned, sweep.get("description", ""))
    return table


def _status(sweep: Mapping[str, Any]) -> str:
    """Of a sweep; one whose driver died without a word is interrupted: resume goes on with it."""
    if sweep["driver"] is None:
        return "interrupted" if sweep["status"] == "running" else str(sweep["status"])
    return f"running ({sweep['driver']['host']}, process {sweep['driver']['pid']})"


def one_sweep(sweep: Mapping[str, Any]) -> Group:
    """A sweep and its trials, a line each; those that are under way last."""
    table = Table("trial", "stage", "what", "seed", "state", "epochs", "", box=None, header_style="dim")
    ended = ("finished", "pruned", "failed", "killed")
    for trial in sorted(sweep["of_each"], key=lambda trial: trial["status"] not in ended):
        accuracy = trial["metrics"].get("validation/accuracy")
        shown = escape(trial["error"] or "") if accuracy is None else f"validation/accuracy {accuracy:.4f}"
        what = f"{'+'.join(trial['variants'])} {settings(trial['overrides'], trial['variants'][0])}"
        attempt = f", attempt {trial['attempt']}" if trial["attempt"] > 1 else ""
        state = trial["status"] + attempt
        epochs = f"{trial['epochs']}/{trial['of']}" if trial["status"] in ended else f"of {trial['of']}"
        table.add_row(trial["trial_id"], trial["stage"], escape(what), str(trial["seed"]), state, epochs, shown)
    return Group(sweeps_table([sweep]), "", table)


def show_recipes(recipes: Sequence[Recipe]) -> None:
    """One line a recipe."""
    table = Table("recipe", "teacher → student", "what it is", box=None, header_style="dim")
    for one in recipes:
        pair = f"{one.values['teacher.model']} → {one.values['student.model']}"
        table.add_row(one.name, pair, one.description)
    wide_console().print(table)


def show_recipe(recipe: Recipe, rows: Sequence[RecipeRow]) -> None:
    """One recipe whole."""
    console = wide_console()
    console.print(f"{recipe.name}: {recipe.description}", markup=False)
    table = Table("path", "value", "from", box=None, header_style="dim")
    for row in rows:
        table.add_row(row.path, "(yours to give)" if row.value is None else _plain(row.value), row.source)
    console.print(table)


def show_teachers(cards: Sequence[Mapping[str, Any]]) -> None:
    """One line a teacher."""
    table = Table("teacher", "model", "data", "validation", "origin", box=None, header_style="dim")
    for card in cards:
        accuracy = card["metrics"].get("validation/accuracy")
        seen = "*" if card["seen_validation"] else ""
        table.add_row(
            card["teacher_id"], card["model"], str(card["dataset"].get("name", "")),
            "not measured" if accuracy is None else f"{accuracy:.4f}{seen}", escape(card["origin"]),
        )  # fmt: skip
    console = wide_console()
    console.print(table)
    if any(card["seen_validation"] for card in cards):
        console.print("* has seen the validation part")


def show_teacher_card(card: Mapping[str, Any]) -> None:
    """What is known of a teacher."""
    table = Table(box=None, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in describe_teacher(card):
        table.add_row(name, escape(text))
    wide_console().print(table)


def show_banks(banks: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """One line a bank, and what they take together."""
    console = wide_console()
    if not banks:
        console.print(f"no logit banks in {folder} yet; sweeps fill them as they go", markup=False)
        return
    table = Table("bank", "teacher", "data", "views kept", "size", "hit rate", "", box=None, header_style="dim")
    for bank in banks:
        top_k = bank["identity"].get("top_k")
        kept = f"{bank['rows']:,} of {bank['cells']:,}" + ("" if top_k is None else f", top {top_k}")
        rate = "" if bank["hit_rate"] is None else f"{100 * bank['hit_rate']:.1f} %"
        table.add_row(
            bank["key"], f"{bank.get('model', '')} {bank.get('teacher', '')}", str(bank.get("dataset", "")),
            kept, size(bank["bytes"]), rate, "in use" if bank["in_use"] else "",
        )  # fmt: skip
    console.print(table)
    asked = sum(bank["found"] + bank["computed"] for bank in banks)
    saved = sum(bank["found"] for bank in banks)
    console.print(
        f"together {size(sum(bank['bytes'] for bank in banks))} in {folder}; of {asked:,} outputs that trials asked "
        f"for {saved:,} were found",
        markup=False,
    )


def size(count: float) -> str:
    """Bytes in words."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError


def show_plan(seen: Outlook) -> None:
    """What would run."""
    console = wide_console()
    console.print(f"{seen.spec.name}: {seen.spec.description or 'no description'}", markup=False)
    table = Table("what", "how many", "there already", box=None, header_style="dim")
    for stage, count in seen.plan.stages.items():
        table.add_row(f"trials, {stage}", str(count), "")
    there = sum(seen.teachers_there.values())
    table.add_row("teachers", str(len(seen.teachers_there)), str(there))
    console.print(table)
    if seen.spec.processes > 1:
        console.print(f"each trial takes {seen.spec.processes} processes of {seen.spec.resources.cpu:g} CPUs")
    if seen.plan.open_teachers:
        console.print("a teacher's setting is swept over a range: trials will train further teachers")
    if seen.done is not None:
        console.print(
            f"an unfinished sweep of this name has {seen.done} trials done: wsl-sweep resume {seen.spec.name}"
        )
    if seen.shows:
        console.print(f"compare: {seen.shows}", markup=False)
    for note in (*seen.spec.notes, *seen.bank, *seen.reuse):
        console.print(f"note: {note}", markup=False)
    if seen.seconds is None:
        console.print("how long it takes is not known: no such trial has run on this machine yet")
    else:
        console.print(
            f"about {duration(seen.seconds)} with {seen.slots} trial{'s' if seen.slots != 1 else ''} at once, "
            "from what earlier trials took on this machine"
        )


def show_compared(compared: Compared) -> None:
    """The table of a comparison, its verdicts and notes."""
    console = wide_console()
    for header, lines in tables_of(compared):
        table = Table(*header, box=None, header_style="dim")
        for line in lines:
            table.add_row(*map(escape, line))
        console.print(table)
        console.print()
    for note in footnotes(compared):
        console.print(note, markup=False)


def show_paper(table: PaperTable) -> None:
    """A sweep as a table of the paper, its footnotes and notes."""
    console = wide_console()
    console.print(title(table), markup=False)
    head, parts = grid(table)
    shown = Table(*(escape(_marked(cell)) for cell in head), box=None, header_style="dim")
    for part, lines in parts:
        if part:
            shown.add_row(escape(part), style="bold")
        for line in lines:
            shown.add_row(*(escape(_marked(cell)) for cell in line))
    console.print(shown)
    console.print()
    for letter, note in below(table):
        console.print(_marked(("", (letter,))) + " " + note if letter else note, markup=False)


def _marked(cell: tuple[str, tuple[str, ...]]) -> str:
    text, marks = cell
    return f"{text} [{','.join(marks)}]".lstrip() if marks else text


def show_finished(finished: Finished) -> None:
    """The end of a sweep: the best, the table and its verdicts, what failed, where things are, what to type next."""
    summary: Mapping[str, Any] = finished.summary
    console = wide_console()
    console.print()
    _show_best(console, summary)
    if summary["confirmed"]:
        console.print(_confirmed_table(summary["confirmed"]))
    for one in (summary.get("comparison") or {}).get("comparisons", ()):
        console.print(one["sentence"], markup=False)
    _show_trials(console, summary)
    report = finished.folder / REPORT
    if report.exists():
        console.print(f"Report: {report}", markup=False)
    console.print(f"Everything is in {finished.folder} (summary.json, trials/)", markup=False)
    if finished.interrupted is not None or finished.stopped is not None:
        again = with_storage(finished.folder.name, finished.folder)
        why = f": {finished.stopped}" if finished.stopped else ""
        console.print(f"Stopped{why}. Go on with it: wsl-sweep resume {again}", markup=False)
    else:
        console.print("Look at the trials side by side: wsl-sweep ui")


def _show_best(console: Console, summary: Mapping[str, Any]) -> None:
    """The best trial of the search, or the trials of the Pareto front."""
    best = summary["best"]
    if "pareto_front" in summary:
        front = Table("trial", *summary["metric"], "settings", box=None, header_style="dim")
        for one in summary["pareto_front"]:
            front.add_row(one["trial_id"], *map(_value, one["value"]), settings(one["overrides"]))
        console.print("No other trial is better in every metric than these:")
        console.print(front)
    elif best is not None:
        trial = next(trial for trial in summary["trials"] if trial["trial_id"] == best["trial_id"])
        what = " ".join(filter(None, ["+".join(trial["variants"]), settings(best["overrides"], trial["variants"][0])]))
        console.print(
            f"Best by {summary['metric']}: {_value(best['value'])} by {what} "
            f"(trial {best['trial_id']}, seed {trial['seed']})",
            markup=False,
        )


def _confirmed_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """A line a row, with the value of each seed."""
    header = ("variant", "settings", rows[0]["metric"], "95 % t interval", "n", "by seed")
    table = Table(*header, box=None, header_style="dim")
    for row in rows:
        interval = "" if row["ci95"] is None else f"{row['ci95'][0]:.4f} … {row['ci95'][1]:.4f}"
        mean = "" if row["mean"] is None else f"{row['mean']:.4f}"
        table.add_row(
            row["variant"], settings(row["overrides"], row["variant"]), mean, interval, str(row["n"]),
            " ".join(f"{value:.4f}" for value in row["values"]),
        )  # fmt: skip
    return table


def _show_trials(console: Console, summary: Mapping[str, Any]) -> None:
    """How many ended how, those that failed, how often teachers ran, and what is to be known."""
    counts: dict[str, int] = {}
    for trial in summary["trials"]:
        counts[trial["status"]] = counts.get(trial["status"], 0) + 1
    console.print(f"Trials: {', '.join(f'{count} {name}' for name, count in counts.items()) or 'none'}")
    for trial in summary["trials"]:
        if trial["status"] == "failed":
            console.print(f"  {trial['trial_id']} failed: {trial['error']}", markup=False)
    teacher = summary["teacher"]
    if teacher["computed"] or teacher["found"]:
        console.print(
            f"Teachers looked at {teacher['computed']:,} examples; {teacher['found']:,} outputs came from the bank"
        )
    for note in summary["notes"]:
        console.print(f"note: {note}", markup=False)


def _value(value: Any) -> str:
    return ", ".join(map(_value, value)) if isinstance(value, list) else f"{value:.4f}"


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
