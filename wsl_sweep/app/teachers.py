"""Teachers by hand: bringing in a published one, training one beforehand, looking at what is there."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsl_sweep.app.options import local_device_kind
from wsl_sweep.app.preparing import has_to_be_read, prepare_one, prepare_text_models
from wsl_sweep.app.world import LocalWorld
from wsl_sweep.errors import WslSweepError
from wsl_sweep.files import file_digest
from wsl_sweep.spec.catalogue import did_you_mean, model_problem
from wsl_sweep.spec.datasets import data_set
from wsl_sweep.spec.identity import canonical_json, data_identity, imported_identity
from wsl_sweep.spec.loading import CommandLine, parse_spec
from wsl_sweep.spec.spec import Spec

if TYPE_CHECKING:
    from wsl_sweep.data.dataset import Part

Say = Callable[[str], None]


def _nothing(_: str) -> None:
    pass


def _spec(recipe: str, sets: tuple[str, ...], threads: int = 1, processes: int = 1) -> Spec:
    text = f"variants: {{kd: }}\nresources: {{cpu: {threads}, processes: {processes}}}\n"
    return parse_spec(text, "teacher", CommandLine(sets=sets, recipe=recipe), world=LocalWorld([str(Path.cwd())]))


def import_teacher(
    file: Path, model: str | None, recipe: str, sets: tuple[str, ...] = (), say: Say = _nothing
) -> dict[str, Any]:
    """Brings a published checkpoint into the store of teachers, like a trained one; returns its card.

    Args:
        file: of ``torch.save`` (RepDistiller's format, or a state dict) or safetensors.
        model: its name; None for the recipe's teacher.
        recipe: whose data it classifies.
        sets: ``path=value`` on top of the recipe.
        say: hears what is done.

    Its accuracy on the validation part is measured where the data are there. It is taken to have been trained on
    training and validation part alike, as published ones are.

    Raises:
        WslSweepError: the file, the model or the recipe is wrong, or they do not belong together.
    """
    if model is not None:
        wrong = model_problem(model)
        if wrong is not None:
            raise WslSweepError(f"--model: {wrong}")
        sets = (*sets, f"teacher.model={model}")
    sets = ("teacher.checkpoint=none", *sets)  # what a recipe would bring in
    config = _spec(recipe, sets).config({"distillation.method": "kd"}, device_kind=local_device_kind())
    if "teacher" not in config:
        raise WslSweepError("no teacher is read here: distillation.method is none")
    name, dataset = str(config["teacher"]["model"]), config["dataset"]

    from wsl_sweep.data import available, load
    from wsl_sweep.models import build
    from wsl_sweep.training import TeacherStore
    from wsl_sweep.training.checkpoints import fill, read_state_dict

    tensors = read_state_dict(file)
    there = available(dataset)
    if there and has_to_be_read(dataset):
        for note in prepare_one(dataset):
            say(f"note: {note}")
    data = load(dataset, workers=os.cpu_count() or 1) if there else None
    if data is not None:
        classes, channels = data.num_classes, data.in_channels
    elif (known := data_set(dataset["name"]).shape) is not None:
        classes, channels, _ = known
    else:
        raise WslSweepError(f"the data of {recipe} are not there, so that the number of classes is not known")
    network = build(name, classes, channels)
    fill(network, tensors, str(file), name)
    network.eval()
    metrics: dict[str, float] = {}
    if data is not None:
        say(f"measuring it on the {len(data.validation):,} examples of the validation part")
        metrics = _validation_metrics(network, data)
    else:
        say(f"the data of {recipe} are not there: its accuracy is not measured")
    facts = {
        "origin": f"imported from {file.name}",
        "recipe": recipe,
        "dataset": data_identity(dataset),
        "num_classes": classes,
        "in_channels": channels,
        "metrics": metrics,
        "data": None if data is None else data.digest,
    }
    store, card = TeacherStore(), keep_teacher(network, name, file, facts)
    if (card["data"], card["dataset"]) != (facts["data"], facts["dataset"]) and (metrics or not card["metrics"]):
        card = {**card, **facts, **_of_file(file)}  # measured now, or for other data than the first time
        store.update(card)
    return _shown(card, store.weights(card["teacher_id"]))


def keep_teacher(network: Any, name: str, file: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Puts a teacher that was brought in into the store, if it is not there; returns its card.

    Args:
        network: the teacher, with its weights.
        name: its model's.
        file: where they were read.
        facts: what the card says beside its identity and where the weights are from.
    """
    from wsl_sweep.training import TeacherStore
    from wsl_sweep.training.weights import content_digest

    teacher_id, identity = imported_identity(name, f"sha256:{content_digest(network.state_dict())}")
    whole = {"identity": identity, "model": name, **facts, **_of_file(file)}
    return TeacherStore().ensure(teacher_id, lambda: (network, whole))


def _of_file(file: Path) -> dict[str, Any]:
    """What a card says of published weights: they are taken to have seen training and validation part alike."""
    return {"source_sha256": file_digest(file), "seen_validation": True, "trained_at": time.time()}


def _validation_metrics(network: Any, data: Any) -> dict[str, float]:
    from wsl_sweep.training.loop import predict
    from wsl_sweep.training.metrics import part_metrics

    return part_metrics(predict(network, data.validation), data.validation, "validation")


def train_teacher_only(
    recipe: str, sets: tuple[str, ...], part: str, threads: int, say: Say = _nothing, processes: int = 1
) -> dict[str, Any]:
    """Trains the teacher of a recipe, if it is not in the store yet; returns its card.

    Args:
        recipe: named defaults.
        sets: ``path=value`` on top of it.
        part: ``train``, or ``train+validation``.
        threads: torch's; part of what the teacher is.
        say: hears each tenth epoch, with an estimate of what is left.
        processes: that train it together on this machine; part of what it is, too.
    """
    if part not in ("train", "train+validation"):
        raise WslSweepError(f"--part must be train or train+validation, not {part!r}")
    spec = _spec(recipe, sets, threads, processes)
    config = spec.config({}, device_kind=local_device_kind())
    if "teacher" not in config:
        raise WslSweepError("no teacher is read here: distillation.method is none")
    if config["teacher"].get("checkpoint"):
        raise WslSweepError(
            "teacher.checkpoint names a teacher that is there already; --set teacher.checkpoint=none trains one"
        )
    from wsl_sweep.training import Job, TeacherStore, train_teacher

    if has_to_be_read(config["dataset"]):
        for note in prepare_one(config["dataset"]):
            say(f"note: {note}")
    prepare_text_models([{"dataset": config["dataset"], "teacher": config["teacher"]}])
    epochs = int(config["teacher"]["schedule"]["epochs"])

    def on_epoch(row: Mapping[str, float]) -> None:
        epoch = int(row["epoch"])
        if epoch % 10 == 0 or epoch in (1, epochs):
            left = row["train/seconds"] / epoch * (epochs - epoch)
            accuracy = row["validation/accuracy"]
            say(f"epoch {epoch}/{epochs}: validation/accuracy {accuracy:.4f}; {left:.0f} s left")

    trained_on: Part = "train" if part == "train" else "train+validation"
    job = Job(config, trained_on, threads, workers=spec.workers, processes=processes)
    named = job.teacher()
    store = TeacherStore()
    if named is not None and store.card(named[0]) is not None:
        say(f"teacher {named[0]} is there already")
    card = train_teacher(job, store, on_epoch=on_epoch)
    assert card is not None
    return _shown(card, store.weights(card["teacher_id"]))


def list_teachers() -> list[dict[str, Any]]:
    """The cards of all teachers in the store, with where their weights lie; the newest last."""
    from wsl_sweep.training import TeacherStore

    store = TeacherStore()
    return [_shown(card, store.weights(card["teacher_id"])) for card in store.cards()]


def show_teacher(teacher_id: str) -> dict[str, Any]:
    """The card of one teacher, by its id or how it begins. Raises WslSweepError: none, or several."""
    cards = list_teachers()
    found = [card for card in cards if teacher_id and card["teacher_id"].startswith(teacher_id)]
    if len(found) == 1:
        return found[0]
    known = [card["teacher_id"] for card in cards]
    if found:
        raise WslSweepError(f"several teachers begin with {teacher_id}: {', '.join(c['teacher_id'] for c in found)}")
    hint = did_you_mean(teacher_id, known) if known else "there is none yet: wsl-sweep teacher train"
    raise WslSweepError(f'no teacher has the id "{teacher_id}"; {hint}')


def _shown(card: Mapping[str, Any], weights: Path) -> dict[str, Any]:
    """A card with what older ones do not say outright."""
    own: Mapping[str, Any] = card["identity"].get("teacher", {})
    return {
        "model": own.get("model", card["identity"].get("model")),
        "origin": "trained here",
        "dataset": card["identity"].get("dataset", {}),
        **card,
        "weights": str(weights),
    }


def describe_teacher(card: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A card as pairs of name and text, for a table."""
    identity = card["identity"]
    teacher = identity.get("teacher", {})
    rows = [
        ("id", card["teacher_id"]),
        ("model", f"{card['model']}, {card['parameters']:,} parameters"),
        ("origin", card["origin"]),
        ("data", canonical_json({**card["dataset"]})),
        ("has seen the validation part", "yes" if card["seen_validation"] else "no"),
    ]
    rows += [(name, f"{value:.4f}") for name, value in card["metrics"].items() if name != "epoch"]
    rows += [(f"teacher.{key}", canonical_json(value)) for key, value in teacher.items() if key != "model"]
    rows += [("trained at" if teacher else "imported at", _when(card.get("trained_at")))]
    rows += [("weights", card["weights"]), ("sha256", card["sha256"])]
    return rows


def _when(seconds: Any) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(float(seconds))) if seconds else "unknown"
