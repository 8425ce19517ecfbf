"""Trained students of a sweep on disk: which one is meant, whether it was kept, and the data it was trained on."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsl_sweep.analysis.summary import build_summary
from wsl_sweep.app.folders import find_sweep, open_sweep, state_of
from wsl_sweep.app.options import with_storage
from wsl_sweep.app.preparing import has_to_be_read, prepare_one
from wsl_sweep.app.results import best_student
from wsl_sweep.errors import DamagedStudentError, WslSweepError
from wsl_sweep.spec.spec import Spec
from wsl_sweep.storage import Place
from wsl_sweep.sweep.ledger import SweepState, TrialState
from wsl_sweep.training.files import STUDENT, VALIDATION_LOGITS
from wsl_sweep.user_code import search_in

if TYPE_CHECKING:
    from torch import Tensor, nn

    from wsl_sweep.data import TaskData

COMPARED = 8
"""Validation examples on which a student is compared with what it said before, and with what was made of it."""

DRIFT = 1e-2
"""How far its logits may lie from those at the end of its training, maybe on another device: a part of the largest."""

CANDIDATES = 10
"""Trials that are named where an id begins like several."""


@dataclass(frozen=True)
class SweepOnDisk:
    """A sweep as its folder has it.

    Attributes:
        folder: ``<storage>/<name>``.
        spec: what was asked for.
        plan: as in ``plan.json``.
        state: as the ledger has it.
        summary: made from the ledger, so that it is there for a sweep that is not finished, too.
        best: the summary's entry of the trial whose student is the best; None where none has finished.
    """

    folder: Place
    spec: Spec
    plan: Mapping[str, Any]
    state: SweepState
    summary: Mapping[str, Any]
    best: Mapping[str, Any] | None

    @property
    def name(self) -> str:
        """The sweep's."""
        return self.folder.name


def read_sweep(name: str, storage: str | None) -> SweepOnDisk:
    """A sweep, finished or not; users' models of it can be imported then. Raises WslSweepError: there is none."""
    folder = find_sweep(storage, name)
    spec, plan = open_sweep(folder)
    search_in([*plan.get("import_folders", ()), Path.cwd()])
    state = state_of(folder)
    spec = replace(spec, name=name)
    summary = build_summary(spec, state, uuid=plan["uuid"])
    return SweepOnDisk(folder, spec, plan, state, summary, best_student(summary))


def choose_trial(sweep: SweepOnDisk, trial: str | None) -> TrialState:
    """The trial that is meant, which has its student.

    Args:
        sweep: in which.
        trial: an id, or how one begins; None for the trial of the best student.

    Raises:
        WslSweepError: there is none, or several; or its student is not there, with why, and how to have it again.
    """
    if trial is not None:
        one = _named(sweep, trial)
    elif sweep.best is not None:
        one = sweep.state.trials[sweep.best["trial_id"]]
    else:
        raise WslSweepError(f"no trial of {sweep.name} has finished yet, so that there is no best student")
    _check_kept(sweep, one)
    return one


def _named(sweep: SweepOnDisk, trial: str) -> TrialState:
    found = [trial_id for trial_id in sweep.state.trials if trial and trial_id.startswith(trial)]
    if len(found) > 1:
        more = f" and {len(found) - CANDIDATES} more" if len(found) > CANDIDATES else ""
        named = ", ".join(found[:CANDIDATES]) + more
        raise WslSweepError(f"--trial: several trials of {sweep.name} have ids that begin with {trial!r}: {named}")
    if not found:
        raise WslSweepError(
            f"--trial: no trial of {sweep.name} has an id that begins with {trial!r}; they are listed by wsl-sweep "
            f"status {with_storage(sweep.name, sweep.folder)}"
        )
    return sweep.state.trials[found[0]]


def _check_kept(sweep: SweepOnDisk, one: TrialState) -> None:
    which = f"trial {one.trial.trial_id} of {sweep.name}"
    if one.status != "finished":
        why = f" ({one.error})" if one.error else ""
        raise WslSweepError(f"{which} is {one.status}{why}: only a finished trial has a student")
    where = sweep.folder / "trials" / one.trial.trial_id
    if (where / STUDENT).exists():
        return
    why, taken = f"{where / STUDENT} is not there any more", one.facts.get("taken_over")
    if taken is not None:
        why = f"the trial was taken over from the sweep {taken['sweep']}, and may have come without it"
    elif sweep.state.status == "finished" and sweep.spec.keep == "best":
        why = "keep: best leaves those of the final table and of the best trial; with keep: all in the file all stay"
    again = _again(one)
    how = f".\n  Trained again it is the same, bit for bit on a CPU with one thread:\n  {again}" if again else ""
    raise WslSweepError(f"the student of {which} was not kept: {why}{how}")


def _again(one: TrialState) -> str | None:
    """What to type to have a trial's student again; None where no file can ask for it: it saw the validation part.

    A search of one point: unlike an ablation it leaves the test set alone. Other sweeps' trials had no student.
    """
    trial = one.trial
    if trial.part != "train":
        return None
    run, name = json.loads(json.dumps(dict(trial.config))), f"again-{trial.trial_id}"
    teacher = run.get("teacher", {})
    stored = {name: teacher.pop(f"stored_{name}", None) for name in ("precision", "top_k")}
    bank = {name: value for name, value in stored.items() if value is not None}
    point = {"optimizer.lr": {"grid": [run["optimizer"]["lr"]]}}
    file = {"name": name, "run": run, "space": point, "search": {"sampler": "grid"}}
    several = {"processes": trial.processes} if trial.processes > 1 else {}
    file |= {"resources": {"cpu": trial.threads, **several}} | ({"bank": bank} if bank else {})
    text = shlex.quote(json.dumps(file, ensure_ascii=False))
    return f"printf %s {text} > {name}.yaml && wsl-sweep run {name}.yaml --rerun && wsl-sweep export {name} --best"


def data_of(one: TrialState) -> TaskData:
    """What a student was trained on. Raises WslSweepError: it is not on this machine, or another by now."""
    from wsl_sweep.data import available, load

    dataset = one.trial.config["dataset"]
    where = dataset.get("root") or dataset["name"]
    if not available(dataset):
        raise WslSweepError(
            f"the data of {where} are not on this machine: an export is compared on their validation part, and its "
            "card says how they are read"
        )
    if has_to_be_read(dataset):
        prepare_one(dataset)
    data = load(dataset, "train" if one.trial.part == "train" else "train+validation")
    trained_on = (one.facts.get("fingerprint") or {}).get("data")
    if trained_on is not None and trained_on != data.digest:
        raise WslSweepError(
            f"the data of {where} changed since trial {one.trial.trial_id} was trained on them, so that what it reads "
            "and its classes cannot be told; put them back as they were"
        )
    return data


def student_of(sweep: SweepOnDisk, one: TrialState, data: TaskData) -> tuple[nn.Module, bool]:
    """The trained student, on the CPU, in eval mode; and whether it says what it said when its training ended.

    False where that is not kept.

    Raises DamagedStudentError: it cannot be read, or says something else now.
    """
    import torch

    from wsl_sweep.training.trial import Job, load_student
    from wsl_sweep.training.weights import load_tensors

    where = sweep.folder / "trials" / one.trial.trial_id
    student = load_student(Job(dict(one.trial.config)), where, data.num_classes, data.in_channels)
    try:
        kept = load_tensors(where / VALIDATION_LOGITS)
        then, ids = kept["logits"], kept["ids"]
    except (WslSweepError, KeyError):
        return student, False
    rows = some_rows(data)
    with torch.no_grad():
        now = student(data.validation.views.plain(rows))
    if not torch.equal(ids, data.validation.ids) or not near(now, then[rows], DRIFT):
        raise DamagedStudentError(
            f"{where / STUDENT} does not say of the validation examples what it said when its training ended: the file "
            "is damaged, or the code of its model is another by now"
        )
    return student, True


def some_rows(data: TaskData) -> Tensor:
    """Which examples of the validation part are compared: a few, from all over it."""
    import torch

    count = len(data.validation)
    return torch.linspace(0, count - 1, min(COMPARED, count)).long()


def near(logits: Tensor, own: Tensor, tolerance: float) -> bool:
    """Whether (N, C) logits are one's own but for rounding, and name the same classes; NaN never is.

    Args:
        logits: to be looked at.
        own: to compare with.
        tolerance: the largest difference, as a part of the largest logit.
    """
    import torch

    if logits.shape != own.shape:
        return False
    close = float((logits - own).abs().max()) <= tolerance * float(own.abs().max())
    return close and torch.equal(logits.argmax(dim=1), own.argmax(dim=1))
