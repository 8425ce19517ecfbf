"""Which trials of a sweep other sweeps of the storage have finished already, and which of them count here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wsl_sweep.errors import WslSweepError
from wsl_sweep.spec.identity import teacher_identity
from wsl_sweep.spec.plan import CONFIRM_SEED, Trial, ablation_cells, grid_points, make_trial, merge
from wsl_sweep.spec.spec import Spec
from wsl_sweep.storage import Place
from wsl_sweep.sweep.elsewhere import Elsewhere, Found

NAMES = {
    "code": "this package's training code",
    "torch": "torch's version",
    "device": "the kind of device",
    "data": "the data",
    "teacher": "the teacher's weights",
    "own": "your own code",
}


def reuse_notes(spec: Spec, storage: Place, device_kind: str) -> list[str]:
    """What ``plan`` says of trials that other sweeps have finished: taken over, or why not.

    Only trials that are known beforehand are looked for: those of an ablation, a grid, and untuned baselines.
    """
    elsewhere = Elsewhere(storage, spec.name)
    same: dict[str, int] = {}
    other: dict[tuple[str, str], int] = {}
    for trial in merge(list(_known_trials(spec, device_kind))):
        found = elsewhere.find(trial.trial_id)
        if not found:
            continue
        verdicts = [(one, _why_not(one, trial)) for one in found]
        taken = next((one for one, why in verdicts if why is None), None)
        if taken is not None:
            same[taken.sweep] = same.get(taken.sweep, 0) + 1
        else:
            key = (verdicts[0][0].sweep, str(verdicts[0][1]))
            other[key] = other.get(key, 0) + 1
    notes = [
        f"{count} trials are taken over from the sweep {sweep} (--rerun runs them)" for sweep, count in same.items()
    ]
    return notes + [
        f"{count} trials of the sweep {sweep} have the same settings and are not taken over: {why}"
        for (sweep, why), count in other.items()
    ]


def _known_trials(spec: Spec, device_kind: str) -> Iterator[Trial]:
    if spec.search is None:
        for cell in ablation_cells(spec, device_kind):
            yield from cell.trials
        return
    if spec.search.sampler == "grid":
        for arm, overrides in spec.arms.items():
            seed = int(spec.flat_config(overrides)["seed"])
            for params in grid_points(spec, overrides):
                yield make_trial(
                    spec, stage="search", variant=arm, overrides=overrides, params=params, seed=seed, arm=arm,
                    device_kind=device_kind,
                )  # fmt: skip
    if spec.confirm is not None:
        for name, overrides in spec.baselines.items():
            for index in range(spec.confirm.seeds):
                yield make_trial(
                    spec, stage="confirm", variant=name, overrides=overrides, params={}, seed=CONFIRM_SEED + index,
                    part=spec.confirm.train_on, device_kind=device_kind,
                )  # fmt: skip


def _why_not(found: Found, trial: Trial) -> str | None:
    """Why a finished trial of another sweep does not stand for this one; None where it does."""
    if not found.student and trial.stage != "search":
        return "its student was not kept (keep: best)"
    try:
        fingerprint = _fingerprint(trial)
    except WslSweepError as error:
        return str(error)
    differ = found.differences(fingerprint)
    if "teacher" in differ and fingerprint["teacher"] is None:
        return "the teacher is not trained here yet, and is compared when it is"
    return None if not differ else f"{', '.join(NAMES.get(name, name) for name in differ)} changed since"


def _fingerprint(trial: Trial) -> dict[str, Any]:
    """With what this machine would make a trial now."""
    from wsl_sweep.data import load
    from wsl_sweep.files import file_digest
    from wsl_sweep.training import TeacherStore
    from wsl_sweep.training.device import pick_device
    from wsl_sweep.training.fingerprint import fingerprint, own_code

    part: Any = trial.part
    named = teacher_identity(trial.config, trial.part, trial.threads, trial.processes)
    teacher = None
    if named is not None and trial.config["teacher"].get("checkpoint"):
        teacher = file_digest(Path(trial.config["teacher"]["checkpoint"]))
    elif named is not None:
        teacher = (TeacherStore().card(named[0]) or {}).get("sha256")
    data = load(trial.config["dataset"], part)
    return fingerprint(pick_device(), data.digest, teacher, own_code(trial.config))
