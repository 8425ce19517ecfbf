"""Which teacher is meant: by its id, or as the teacher of a sweep; with what is known of it and of its data."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from wsl_sweep.analysis.sweep_teachers import TEMPERATURE, SweepTeacher, set_apart, teachers_of, temperature_of
from wsl_sweep.app.driving import TEACHERS
from wsl_sweep.app.folders import find_sweep, sweep_names
from wsl_sweep.app.options import storage_folder, with_storage
from wsl_sweep.app.students import SweepOnDisk, read_sweep
from wsl_sweep.app.teachers import show_teacher
from wsl_sweep.errors import WslSweepError
from wsl_sweep.spec.catalogue import did_you_mean
from wsl_sweep.spec.datasets import data_set
from wsl_sweep.spec.identity import data_identity, teachers_dataset
from wsl_sweep.spec.recipes import DEFAULTS, RECIPES, Recipe
from wsl_sweep.spec.run import flatten
from wsl_sweep.spec.wording import short
from wsl_sweep.user_code import search_in

ONLY_IN_IDENTITIES = ("content", "code")
"""What an identity says of a data set beside its settings."""

OF_VIEWS = ("root", "padding", "padding_mode", "flip", "views")
"""Settings of a data set that change nothing of an example as it is."""


@dataclass(frozen=True)
class NamedTeacher:
    """A teacher, and what is known of it.

    Attributes:
        teacher_id: its id.
        model: its name.
        weights: its safetensors file.
        dataset: the ``dataset`` section of its data, with their root as far as it is known.
        temperature: τ of distillation, where nobody asks for another.
        temperature_from: where that comes from, in words.
        trained_on: ``train`` or ``train+validation``; None where it was brought in.
        settings: how it was trained, by dotted path below ``teacher``; empty where it was brought in.
        card: as in the store; empty for a file of unknown origin.
        notes: what has to be known of it.
    """

    teacher_id: str
    model: str
    weights: Path
    dataset: Mapping[str, Any]
    temperature: float
    temperature_from: str
    trained_on: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    card: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def classes(self) -> int | None:
        """How many it tells apart, as far as its card says."""
        found = self.card.get("num_classes")
        return None if found is None else int(found)

    @property
    def smoothing(self) -> float | None:
        """ε of its label smoothing; None where that is not known."""
        return None if self.trained_on is None else float(self.settings.get("label_smoothing", 0.0))

    @property
    def known_data(self) -> Mapping[str, Any]:
        """Its data as they stand in its identity, or on its card."""
        own = self.card.get("identity", {}).get("dataset") or self.card.get("dataset")
        return own if own is not None else data_identity(self.dataset)

    @property
    def data_digest(self) -> str | None:
        """Of the data that it was trained on, or measured on when it was brought in; None: not known."""
        found = self.card.get("data")
        return None if found is None else str(found)

    @property
    def seen_validation(self) -> bool | None:
        """Whether it has seen the validation part of its data; None: not known."""
        return bool(self.card["seen_validation"]) if "seen_validation" in self.card else None


def name_teacher(which: str, *, root: str | None = None, storage: str | None = None) -> NamedTeacher:
    """The teacher that is meant.

    Args:
        which: its id, or how it begins; or the name of a sweep that has one teacher. A sweep's name wins over the
            beginning of an id, and a whole id over a name.
        root: where its data lie.
        storage: folder of sweeps.

    Raises:
        WslSweepError: there is none, or several.
    """
    ids = _ids()
    begin = [one for one in ids if which and one.startswith(which)]
    is_sweep = _is_sweep(which, storage)
    if not is_sweep and not begin:
        raise WslSweepError(_neither(which, ids, storage))
    if not is_sweep:
        return teacher_by_id(which, root=root)
    where = storage_folder(storage)
    if which in ids:
        taken = f"{which} is a sweep in {where}, too; the teacher of this id was taken."
        return _noting(teacher_by_id(which, root=root), taken)
    teacher = _of_sweep(read_sweep(which, storage), root)
    if not begin:
        return teacher
    return _noting(
        teacher,
        f"{which} is how the id of a teacher begins, too ({', '.join(begin[:3])}); the sweep in {where} was taken.",
    )


def _noting(teacher: NamedTeacher, note: str) -> NamedTeacher:
    return replace(teacher, notes=(note, *teacher.notes))


def _ids() -> list[str]:
    from wsl_sweep.training import TeacherStore

    return sorted(path.parent.name for path in TeacherStore().root.glob("[!.]*/card.json"))


def _is_sweep(name: str, storage: str | None) -> bool:
    try:
        return (find_sweep(storage, name) / "plan.json").exists()
    except WslSweepError:
        if storage is not None:
            storage_folder(storage)  # one that nothing can open is told as such
        return False


def _neither(which: str, ids: Sequence[str], storage: str | None) -> str:
    where = storage_folder(storage)
    names = sweep_names(where)
    return (
        f'"{which}" is neither a sweep nor the id of a teacher\n'
        f"  sweeps in {where}: {did_you_mean(which, names) if names else 'there are none'}\n"
        f"  teachers of this machine: {did_you_mean(which, ids) if ids else 'there are none; wsl-sweep teacher train'}"
    )


# --- by its id -------------------------------------------------------------------------------------------------------


def teacher_by_id(teacher_id: str, *, root: str | None = None) -> NamedTeacher:
    """A teacher of the store, with the data of its card. Raises WslSweepError: there is none, or several."""
    search_in([Path.cwd()])
    card = show_teacher(teacher_id)
    recipe, dataset = _recipe_of(card), dict(card["dataset"])
    for key in ONLY_IN_IDENTITIES:
        dataset.pop(key, None)
    notes = []
    if "validation_fraction" not in dataset and recipe is not None:
        whole = {**DEFAULTS, **recipe.values}
        own = {path.removeprefix("dataset."): value for path, value in whole.items() if path.startswith("dataset.")}
        dataset = {**own, **dataset}
        notes.append(f"Its card does not say how its data are read: they are read as the recipe {recipe.name} does.")
    temperature, where = float(DEFAULTS[TEMPERATURE]), "the usual one; no sweep was named"
    if recipe is not None and TEMPERATURE in recipe.values:
        temperature, where = float(recipe.values[TEMPERATURE]), f"that of the recipe {recipe.name}"
    identity: Mapping[str, Any] = card["identity"]
    settings = flatten(identity["teacher"]) if "teacher" in identity else {}
    return NamedTeacher(
        teacher_id=str(card["teacher_id"]),
        model=str(card["model"]),
        weights=Path(card["weights"]),
        dataset=_at(dataset, root),
        temperature=temperature,
        temperature_from=where,
        trained_on=str(identity["part"]) if "part" in identity else None,
        settings={path: value for path, value in settings.items() if path not in ("model", "code")},
        card=card,
        notes=tuple(notes),
    )


def _recipe_of(card: Mapping[str, Any]) -> Recipe | None:
    """The recipe with which a teacher was brought in; of one of torchvision the first with its data and its model."""
    named = card.get("recipe")
    if named in RECIPES:
        return RECIPES[str(named)]
    if "validation_fraction" in card["dataset"]:
        return None
    same = [one for one in RECIPES.values() if one.values.get("dataset.name") == card["dataset"].get("name")]
    return next((one for one in same if one.values.get("teacher.model") == card["model"]), same[0] if same else None)


def _at(dataset: Mapping[str, Any], root: str | None) -> dict[str, Any]:
    """A ``dataset`` section whose data lie in ``root``, if that is given. Raises WslSweepError: they have no folder."""
    if root is None:
        return dict(dataset)
    if data_set(dataset["name"]).root == "none":
        raise WslSweepError(f"--root: the data set {dataset['name']} has no folder; leave it out")
    return {**dataset, "root": str(Path(root).expanduser().absolute())}


# --- of a sweep ------------------------------------------------------------------------------------------------------


def _of_sweep(sweep: SweepOnDisk, root: str | None) -> NamedTeacher:
    teachers = teachers_of(one.trial for one in sweep.state.trials.values())
    if not teachers:
        raise WslSweepError(
            f"no trial of {sweep.name} has a teacher, as far as it has come: see wsl-sweep status "
            f"{with_storage(sweep.name, sweep.folder)}"
        )
    teacher, notes = _one_of(teachers, sweep, root)
    card, weights = _kept(teacher, sweep)
    made = [sweep.state.trials[one.trial_id].facts.get("fingerprint") or {} for one in teacher.trials]
    hashes = {one["teacher"] for one in made if one.get("teacher")}
    if card and hashes and card["sha256"] not in hashes:
        notes.append(
            f"The teacher {teacher.teacher_id} of this machine is not the one that the trials had, but another "
            "training of the same settings."
        )
    temperature, where = temperature_of(teacher, sweep.spec)
    return NamedTeacher(
        teacher_id=teacher.teacher_id,
        model=teacher.model,
        weights=weights,
        dataset=_at(teacher.dataset, root),
        temperature=temperature,
        temperature_from=where,
        trained_on=None if teacher.brought_in else teacher.part,
        settings=teacher.settings,
        card=card,
        notes=(*notes, *_on_trials(teacher)),
    )


def _one_of(teachers: Sequence[SweepTeacher], sweep: SweepOnDisk, root: str | None) -> tuple[SweepTeacher, list[str]]:
    """The teacher of a sweep, and what is to be said of that choice. Raises WslSweepError: there are several.

    Where they differ only in the part that they were trained on, it is the one that has not seen the validation part:
    its students were those that settings were chosen by.
    """
    if len(teachers) == 1:
        return teachers[0], []
    apart = set_apart(teachers)
    if all(set(own) == {"trained on"} for own in apart):
        found = next((one for one in teachers if one.part == "train"), teachers[0])
        others = ", ".join(one.teacher_id for one in teachers if one is not found)
        return found, [f"{sweep.name} has a teacher trained on another part of the data, too: {others}."]
    lines = [f"{sweep.name} has {len(teachers)} teachers; name one by its id:"]
    for one, own in zip(teachers, apart, strict=True):
        told = ", ".join(f"{path} {_said(value)}" for path, value in own.items() if value is not None)
        lines.append(f"  {one.teacher_id}  {one.model}{': ' if told else ''}{told}")
    first, second = teachers[:2]
    options = _options(first, sweep, root)
    lines.append(f"for example: wsl-sweep diagnose teacher {second.teacher_id} --against {first.teacher_id}{options}")
    raise WslSweepError("\n".join(lines))


def _said(value: Any) -> str:
    return f"[{', '.join(map(short, value))}]" if isinstance(value, list) else short(value)


def _options(teacher: SweepTeacher, sweep: SweepOnDisk, root: str | None) -> str:
    """What a sweep says of a teacher, and a teacher's card does not, as options of the command."""
    where = root or teacher.dataset.get("root")
    temperature, _ = temperature_of(teacher, sweep.spec)
    options = f" --root {shlex.quote(str(where))}" if where else ""
    return options + (f" --temperature {temperature:g}" if temperature != DEFAULTS[TEMPERATURE] else "")


def _kept(teacher: SweepTeacher, sweep: SweepOnDisk) -> tuple[Mapping[str, Any], Path]:
    """Card and weights. Raises WslSweepError: they are not here, nor with what the nodes of a cluster share."""
    from wsl_sweep.training import TeacherStore

    store, teacher_id = TeacherStore(), teacher.teacher_id
    if teacher.brought_in:
        file = Path(str(teacher.section["checkpoint"]))
        if file.is_file():
            return store.card_of_file(file) or {}, file
    card = store.card(teacher_id)
    shared = sweep.folder.parent / TEACHERS
    if card is None and (shared / teacher_id / "card.json").exists():
        card = TeacherStore(shared=shared).ensure(teacher_id, lambda: _gone(teacher_id, sweep))
    if card is None:
        _gone(teacher_id, sweep)
    assert card is not None
    return card, store.weights(teacher_id)


def _gone(teacher_id: str, sweep: SweepOnDisk) -> Any:
    raise WslSweepError(
        f"the teacher {teacher_id} of {sweep.name} is not on this machine any more: it lies in the cache of the one "
        "that trained it (WSL_SWEEP_CACHE), or is trained again by a sweep or wsl-sweep teacher train"
    )


def _on_trials(teacher: SweepTeacher) -> list[str]:
    """What has to be known of how the trials use their teacher and their data."""
    notes = []
    sections = [one.config["teacher"] for one in teacher.trials]
    if any(one.get("mode") == "train" for one in sections):
        notes.append("Its students see it in train mode, with each batch's own statistics; here it is in eval mode.")
    top_k = [one["stored_top_k"] for one in sections if one.get("stored_top_k") is not None]
    if top_k:
        notes.append(f"Its students read its {max(top_k)} largest logits alone (bank.top_k); here are all.")
    first = teacher.trials[0]
    own = _of_examples(teacher.dataset)
    differ = {path for one in teacher.trials for path, value in _of_examples(teachers_dataset(one.config)).items()
              if own.get(path) != value}  # fmt: skip
    if differ:
        told = ", ".join(f"dataset.{path}" for path in sorted(differ))
        notes.append(f"The trials differ in {told}: the data are those of trial {first.trial_id}.")
    return notes


def _of_examples(dataset: Mapping[str, Any]) -> dict[str, Any]:
    return {path: value for path, value in dataset.items() if path not in OF_VIEWS}
