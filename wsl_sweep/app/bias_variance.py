"""Bias and variance of a sweep's students: running a protocol, or looking at what a sweep has left."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from wsl_sweep.analysis.records import records_of
from wsl_sweep.app.folders import find_sweep, open_sweep, read_plan, state_as_it_stands, sweep_status
from wsl_sweep.app.options import Finished, RunOptions, storage_folder
from wsl_sweep.app.preparing import has_to_be_read, prepare_one
from wsl_sweep.app.running import resume_sweep, run_sweep
from wsl_sweep.app.world import LocalWorld, import_folders
from wsl_sweep.errors import WslSweepError
from wsl_sweep.spec.loading import CommandLine, load_spec
from wsl_sweep.spec.plan import Trial
from wsl_sweep.storage import Place
from wsl_sweep.user_code import search_in

if TYPE_CHECKING:
    from wsl_sweep.analysis.diagnostics.arrays import Numbers
    from wsl_sweep.analysis.leftovers import Logits
    from wsl_sweep.analysis.tradeoffs import BiasAndVariance, Part
    from wsl_sweep.data.dataset import Part as DataPart

PAGE, NUMBERS = "bias_variance.html", "bias_variance.json"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Diagnosed:
    """What a diagnosis of a sweep came to.

    Attributes:
        sweep: its name.
        found: bias and variance.
        numbers: the same as plain data.
        page: where its page lies.
    """

    sweep: str
    found: BiasAndVariance
    numbers: Mapping[str, Any]
    page: str


def check_asked(part: str | None) -> Part | None:
    """A part as it was asked for. Raises WslSweepError: bias and variance cannot be looked at on it."""
    if part == "validation":
        return "validation"
    if part == "test":
        return "test"
    if part is None:
        return None
    raise WslSweepError(
        f"--part must be validation or test, not {part!r}: what students were trained on says nothing of "
        "their bias and variance"
    )


def run_protocol(
    file: Path, command_line: CommandLine, options: RunOptions, hear_name: Callable[[str], object]
) -> Finished | None:
    """Has the sweep of a file at its end: run, gone on with where it was stopped, or left as it is where it is done.

    Args:
        file: the protocol.
        command_line: what is asked for beside it.
        options: where it is, and where it runs.
        hear_name: told the sweep's name, once it is at its end.

    Returns:
        How it ended; None where it had been done before.

    Raises:
        WslSweepError: as ``run_sweep`` and ``resume_sweep``.
    """
    spec = load_spec(file, command_line, LocalWorld(import_folders(file)))
    storage = storage_folder(options.storage)
    same = [name for name in _of_name(storage, spec.name) if _is_of(storage / name, spec.text, command_line)]
    if same and sweep_status(storage / same[-1]) == "finished":
        hear_name(same[-1])
        return None
    finished = resume_sweep(same[-1], options) if same else run_sweep(file, command_line, options)
    hear_name(finished.folder.name)
    return finished


def _of_name(storage: Place, name: str) -> list[str]:
    """The sweeps ``name``, ``name-2``, … that are there, in this order."""
    found: list[str] = []
    number = 1
    while True:
        folder = storage / (name if number == 1 else f"{name}-{number}")
        if not (folder / "plan.json").exists():
            return found
        found.append(folder.name)
        number += 1


def _is_of(folder: Place, text: str, command_line: CommandLine) -> bool:
    """Whether a sweep is that of a file and a command line."""
    try:
        said = read_plan(folder).get("command_line") or {}
        begun = CommandLine(**{**said, "sets": tuple(said.get("sets") or ())})
        return (folder / "sweep.yaml").read_text() == text and begun == command_line
    except (OSError, ValueError, TypeError, WslSweepError):
        return False


def diagnose_bias_variance(
    name: str,
    *,
    storage: str | None = None,
    part: Part | None = None,
    to: Path | None = None,
    say: Say = lambda text: None,
) -> Diagnosed:
    """Bias and variance of the students that a sweep has left; writes them as a page and as JSON.

    Args:
        name: of the sweep, finished or not.
        storage: folder of sweeps.
        part: ``validation`` or ``test``; by default validation, or test where validation was trained on. Of the test
            part the logits are there once the sweep has been evaluated on it.
        to: file of the page; by default ``bias_variance.html`` in the sweep's folder, ``bias_variance.json`` beside it.
        say: hears what takes long.

    Raises:
        WslSweepError: there is no such sweep, or it has no two students of one row whose logits are kept.
    """
    from wsl_sweep.analysis.report import render_diagnosis
    from wsl_sweep.analysis.report_bias_variance import bias_variance_sections
    from wsl_sweep.analysis.tradeoffs import look

    folder = find_sweep(storage, name)
    spec, plan = open_sweep(folder)
    search_in([*plan.get("import_folders", ()), Path.cwd()])
    state = state_as_it_stands(folder)
    sweep = records_of(replace(spec, name=name), state, uuid=plan["uuid"])
    found = look(sweep, state, folder, part, functools.partial(_computed, say=say))
    if not found.regimes:
        why = " ".join(found.notes) or "Bias and variance take two finished students of one variant."
        raise WslSweepError(f"the sweep {name} has no students to compare. {why}")
    numbers = {"sweep": name, **as_plain_data(found)}
    page = render_diagnosis(f"{name}: bias and variance", bias_variance_sections(found), question=spec.description)
    target = folder / PAGE
    if to is not None:
        from wsl_sweep.storage import place

        if to.is_dir():
            raise WslSweepError(f"{to} is a folder; name a file, such as {to / PAGE}")
        target = place(to)
    target.write(page.html.encode())
    if to is None:
        (folder / NUMBERS).write_json(numbers)
    return Diagnosed(name, found, numbers, str(target))


def _computed(trial: Trial, logits: Logits, part: Part, *, say: Say) -> Numbers | None:
    """What the teacher of a trial says of a part, computed now; None where it or the data are not here."""
    import numpy as np

    from wsl_sweep.app.teacher_pass import teacher_says
    from wsl_sweep.data import available, load
    from wsl_sweep.data.dataset import load_test
    from wsl_sweep.training import Job, TeacherStore
    from wsl_sweep.training.device import pick_device
    from wsl_sweep.training.trial import teacher_weights

    config, trained_on = dict(trial.config), "train" if trial.part == "train" else "train+validation"
    job = Job(config, cast("DataPart", trained_on), trial.threads, processes=trial.processes)
    weights, dataset = teacher_weights(job, TeacherStore()), config["dataset"]
    if not weights.is_file() or not available(dataset):
        return None
    if has_to_be_read(dataset):
        prepare_one(dataset)
    device, workers = pick_device(), os.cpu_count() or 1
    data = load(dataset, job.part, device, workers)
    examples = data.validation if part == "validation" else load_test(dataset, device, workers)
    if not np.array_equal(examples.ids.cpu().numpy(), logits.ids):
        return None
    return teacher_says(str(trial.teacher_id), config["teacher"]["model"], weights, examples, data, say)


def as_plain_data(found: BiasAndVariance) -> dict[str, Any]:
    """Bias and variance as plain data for JSON; what cannot be told is null."""
    from wsl_sweep.analysis.diagnostics.regimes import answer
    from wsl_sweep.analysis.plain import plain

    return {
        "part": found.part,
        "notes": list(found.notes),
        "regimes": [{**plain(one), "answer": answer(one)} for one in found.regimes],
    }
