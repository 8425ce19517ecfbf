"""Taking a trained student of a sweep away: its weights in a form for others, and a card that says what it is."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsl_sweep.app.card_facts import LENGTH, Card, Compared, Seen, own_module, remarks_on, seen_by, teacher_of
from wsl_sweep.app.export_formats import FORMATS, PACKAGES, check_format, read_student, write_student
from wsl_sweep.app.model_card import CARD, render
from wsl_sweep.app.students import SweepOnDisk, choose_trial, data_of, near, read_sweep, some_rows, student_of
from wsl_sweep.errors import StorageError, WslSweepError
from wsl_sweep.files import write_whole
from wsl_sweep.sweep.ledger import TrialState

if TYPE_CHECKING:
    from torch import nn

    from wsl_sweep.data import TaskData

TOLERANCE = 1e-4
"""How far a logit may lie from the student's own, as a part of the largest logit."""


@dataclass(frozen=True)
class Exported:
    """A student that was taken away.

    Attributes:
        folder: where it lies.
        files: in it, by name.
        trial_id: whose student it is.
    """

    folder: Path
    files: tuple[str, ...]
    trial_id: str


def export_student(
    name: str,
    *,
    trial: str | None = None,
    format: str = "safetensors",
    to: str | Path | None = None,
    storage: str | None = None,
    say: Callable[[str], None] = print,
) -> Exported:
    """Writes a trained student of a sweep, finished or not, into a folder of its own, with a model card.

    What was written is loaded back and compared with the student on a few validation examples; where it says anything
    else, nothing stays.

    Args:
        name: of the sweep.
        trial: an id, or how one begins; None for the sweep's best student.
        format: ``safetensors`` (for ``load_exported``), ``onnx`` (the extra of that name) or ``torch-export``.
        to: the folder, which must be new or empty; by default ``<name>-<trial id>-<format>`` in the working folder.
        storage: where the sweep is.
        say: hears what is done.

    Raises:
        WslSweepError: there is no such sweep, trial, format or student (any more); its data are not here, or not
            those that it was trained on; the folder is taken; or the student cannot be written so.
        DamagedStudentError: what lies there is not what was trained.
    """
    check_format(format)
    sweep = read_sweep(name, storage)
    one = choose_trial(sweep, trial)
    trial_id = one.trial.trial_id
    target = _target(to if to is not None else f"{name}-{trial_id}-{format}")
    say(f"exporting the student of trial {trial_id} of {name} as {format}")
    data = data_of(one)
    student, confirmed = student_of(sweep, one, data)
    seen = seen_by(one, data)
    with _appearing(target) as new:
        shape = write_student(format, new, student, _config(one, seen))
        seen = replace(seen, shape=shape)
        compared = _compare(student, format, new, data, seen)
        parameters = sum(parameter.numel() for parameter in student.parameters())
        card = _card(sweep, one, seen, format, compared, parameters, confirmed)
        write_whole(new / CARD, _shareable(render(card)).encode())
        files = tuple(sorted(path.name for path in new.iterdir()))
    return Exported(target, files, trial_id)


def _target(to: str | Path) -> Path:
    """Where to write. Raises WslSweepError: something is there."""
    if "://" in str(to):
        raise WslSweepError(f"--to must be a folder on this machine, not {to}")
    target = Path(to).expanduser().absolute()
    empty = target.is_dir() and not any(target.iterdir())
    if os.path.lexists(target) and not empty:
        what = "is not empty" if target.is_dir() else "is there and is no folder"
        raise WslSweepError(f"{target} {what}, and is left as it is; choose another --to")
    return target


@contextlib.contextmanager
def _appearing(target: Path) -> Iterator[Path]:
    """A new folder beside ``target``, which takes its name at the end, whole; whatever goes wrong, nothing stays."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
        try:
            yield new
            os.chmod(new, 0o755)
            os.replace(new, target)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
    except OSError as error:
        raise StorageError(f"cannot write {target}: {error.strerror or error}") from error


def _config(one: TrialState, seen: Seen) -> dict[str, Any]:
    """``config.json``: how the model is built, and what goes in and comes out."""
    model = one.trial.config["student"]["model"]
    about: dict[str, Any] = {"task": one.trial.config["dataset"]["name"]}
    if seen.normalised is not None:
        normalised = seen.normalised
        about = {"scale": normalised.scale, "mean": list(normalised.mean), "std": list(normalised.std)}
    elif seen.longest is not None:
        about |= {"vocabulary": one.trial.config["dataset"].get("vocabulary"), "longest": seen.longest}
    return {
        "model": model,
        "num_classes": seen.classes,
        "in_channels": seen.channels,
        "import": own_module(model),
        "input": {"name": seen.name, "shape": ["batch", *seen.shape], "dtype": seen.dtype, **about},
        "output": {"name": "logits", "shape": ["batch", seen.classes]},
        "classes": list(seen.names) or None,
        "trial_id": one.trial.trial_id,
    }


def _compare(student: nn.Module, format: str, folder: Path, data: TaskData, seen: Seen) -> Compared:
    """How far what was written is from the student, for several examples at once and for one.

    Raises WslSweepError: further than it may be.
    """
    import torch

    read, rows = read_student(format, folder), some_rows(data)
    difference = scale = 0.0
    for those in (rows, rows[:1]):
        inputs = data.validation.views.plain(those)
        if seen.longest is not None and LENGTH not in seen.shape:
            inputs = torch.nn.functional.pad(inputs, (0, seen.longest - inputs.shape[-1]))
        with torch.no_grad():
            own, theirs = student(inputs), read(inputs)
        difference = max(difference, float((own - theirs).abs().max()))
        scale = max(scale, float(own.abs().max()))
        if not (torch.equal(theirs, own) if format == "safetensors" else near(theirs, own, TOLERANCE)):
            raise WslSweepError(
                f"the {FORMATS[format]} that was written does not say what the student says: for one of {len(inputs)} "
                f"{seen.examples} a logit differs by {difference:.3g} (of logits up to {scale:.3g}); nothing is kept"
            )
    return Compared(len(rows), difference, scale)


def _card(
    sweep: SweepOnDisk,
    one: TrialState,
    seen: Seen,
    format: str,
    compared: Compared,
    parameters: int,
    confirmed: bool,
) -> Card:
    trial_id, summary = one.trial.trial_id, sweep.summary
    metric = summary["metric"] if isinstance(summary["metric"], str) else summary["metric"][0]
    is_best = sweep.best is not None and sweep.best["trial_id"] == trial_id
    return Card(
        sweep=sweep.name,
        plan=sweep.plan,
        status="not finished" if sweep.state.status == "running" else sweep.state.status,
        description=sweep.spec.description,
        trial=next(entry for entry in summary["trials"] if entry["trial_id"] == trial_id),
        threads=one.trial.threads,
        rows=[row for row in summary["confirmed"] if trial_id in row["trial_ids"]],
        chosen_by=metric if is_best else None,
        seen=seen,
        teacher=teacher_of(one, sweep.folder),
        parameters=parameters,
        own_module=own_module(one.trial.config["student"]["model"]),
        format=format,
        compared=compared,
        versions={library: version(library) for library in ("wsl-sweep", "torch", *PACKAGES[format])},
        remarks=remarks_on(one, confirmed),
    )


def _shareable(text: str) -> str:
    """The text without passwords that an address in a setting or a description may hold."""
    from wsl_sweep.tracking import redact

    return redact(text)
