"""The card of an exported student: what it is, what made it, how good it is, and what nobody has measured."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from wsl_sweep.app.card_facts import LENGTH, Card, Teacher
from wsl_sweep.app.export_formats import CONFIG, FORMATS
from wsl_sweep.spec.run import flatten

CARD = "README.md"

LIBRARY = {"safetensors": "wsl-sweep", "onnx": "onnx", "torch-export": "pytorch"}
"""Format → what loads it, in the words of model hubs."""

IMAGES, TEXTS = "image-classification", "text-classification"
"""Kinds of tasks, in the words of model hubs; a user's own is of none."""

OF_THIS_MACHINE = ("dataset.root", "teacher.checkpoint")
"""Settings that are places on a disk, and nobody else's business."""

NAMES_SHOWN = 100
"""More names of classes are left to ``config.json``."""


def render(card: Card) -> str:
    """The card as Markdown with YAML front matter, as model hubs read it."""
    sections = {
        "Input and output": _input(card),
        "How to load it": _loading(card),
        "How it was trained": _training(card),
        "What was measured": _measured(card),
        "Where it comes from": _origin(card),
        "Limits": (f"- {text}" for text in _limits(card)),
    }
    matter = yaml.safe_dump(_front_matter(card), sort_keys=False, allow_unicode=True, width=120)
    lines = ["---", matter.rstrip(), "---", "", f"# {card.title}", "", *_introduction(card)]
    for title, inner in sections.items():
        lines += ["", f"## {title}", "", *inner]
    return "\n".join(lines) + "\n"


def _front_matter(card: Card) -> dict[str, Any]:
    kind = TEXTS if card.seen.longest is not None else IMAGES if card.seen.normalised is not None else None
    about = ["wsl-sweep", *(["knowledge-distillation"] if card.teacher else [])]
    matter: dict[str, Any] = {
        "library_name": LIBRARY[card.format],
        **({"pipeline_tag": kind} if kind else {}),
        "tags": [*([kind] if kind else []), card.format, *about],
        "metrics": ["accuracy"],
    }
    results = []
    for split in ("test", "validation"):
        metrics = [
            {"type": name.partition("/")[2], "name": name, "value": value}
            for name, value in card.metrics.items()
            if name.startswith(f"{split}/")
        ]
        data = {"name": card.dataset["name"], "type": card.dataset["name"], "split": split}
        if metrics:
            results.append({"task": {"type": kind or "other"}, "dataset": data, "metrics": metrics})
    return {**matter, "model-index": [{"name": card.title, "results": results}]} if results else matter


def _introduction(card: Card) -> Iterator[str]:
    yield (
        f"{_code(card.model)}, {card.parameters:,} parameters: the student of trial {_code(card.trial['trial_id'])} of "
        f"the sweep {_code(card.sweep)}, made by wsl-sweep."
    )
    if card.description:
        yield ""
        yield f"The sweep asked: {' '.join(card.description.split())}"


def _input(card: Card) -> Iterator[str]:
    seen = card.seen
    if not seen.names:
        names = f"{seen.classes}, whose names the data set does not say"
    elif len(seen.names) > NAMES_SHOWN:
        names = f"{seen.classes}, named in `{CONFIG}`"
    else:
        names = ", ".join(f"{index}: {name}" for index, name in enumerate(seen.names))
    any_of = "any N" if LENGTH not in seen.shape else f"any N, any {LENGTH} up to {seen.longest}"
    yield from _table(
        ("what", ""),
        [
            ("input", f"`{seen.name}`: {seen.batch} {seen.dtype}, {any_of}"),
            *_values(card),
            ("output", f"`logits`: (N, {seen.classes}) float32; their softmax gives probabilities"),
            ("classes", names),
        ],
    )


def _values(card: Card) -> Iterator[tuple[str, str]]:
    """What an input's values are."""
    seen, data = card.seen, card.dataset
    if seen.normalised is not None:
        scale = f"{seen.normalised.scale:g}"
        values = f"pixels from 0 to {scale}, divided by {scale}, minus mean, divided by standard deviation"
        yield "its values", values
        yield "mean, by channel", ", ".join(map(str, seen.normalised.mean))
        yield "standard deviation, by channel", ", ".join(map(str, seen.normalised.std))
        yield "pictures", _as_they_come(card)
    elif seen.longest is not None:
        words = f"{_code(data.get('vocabulary'))}, {seen.channels:,} words"
        yield "its values", f"numbers of tokens in the vocabulary {words}; beside them 0 or 1, the sentence of each"
        yield "shorter texts", "padded with 0 at the end"
    else:
        yield "its values", f"as `take` of {_code(data['name'])} gives them of an example in view 0"


def _as_they_come(card: Card) -> str:
    seen, name = card.seen, card.dataset["name"]
    _, height, width = seen.shape
    what = f"{'grey' if seen.channels == 1 else 'colour (RGB)'}, {height}x{width} pixels"
    if name == "imagenet":
        short = round(int(height) * 256 / 224)
        return f"{what}: the shorter side resized to {short} (bilinear, antialiased), the middle cut out"
    if name != "image_folder":
        return f"{what}, as the data set has them"
    return f"{what}: turned as the camera was held, the largest square in the middle, resized (bilinear, antialiased)"


# --- code ------------------------------------------------------------------------------------------------------------


def _loading(card: Card) -> Iterator[str]:
    """Code that works as it stands where the card lies."""
    file, name = FORMATS[card.format], card.seen.name
    if card.format == "onnx":
        yield "In this folder, with ONNX Runtime (`pip install onnxruntime`):"
        load = ["import onnxruntime", "", f'session = onnxruntime.InferenceSession("{file}")']
        call = [f'(logits,) = session.run(["logits"], {{"{name}": {name}}})']
    else:
        yield "In this folder, with torch alone:" if card.format == "torch-export" else _with_wsl_sweep(card)
        load = _torch_lines(card, file)
        call = ["with torch.no_grad():", f"    logits = model({name})"]
    arrays = "numpy" if card.format == "onnx" else "torch"
    yield from ["", "```python", f"import {arrays}", *load, *_input_lines(card, arrays), *call, "```"]
    if card.format == "safetensors":
        yield ""
        yield "`wsl_sweep.app.load_exported(FOLDER)` gives the same model, from wherever it is called."


def _with_wsl_sweep(card: Card) -> str:
    own = card.own_module
    needed = f" `{card.model}` is no part of it: Python must find the module `{own}`." if own else ""
    return f"In this folder, with wsl-sweep installed.{needed}"


def _torch_lines(card: Card, file: str) -> list[str]:
    if card.format == "torch-export":
        return ["", f'model = torch.export.load("{file}").module()']
    seen = card.seen
    return [
        "from safetensors.torch import load_file",
        "",
        "from wsl_sweep.models import build",
        "",
        f'model = build("{card.model}", num_classes={seen.classes}, in_channels={seen.channels}).eval()',
        f'model.load_state_dict(load_file("{file}"))',
    ]


def _input_lines(card: Card, arrays: str) -> list[str]:
    seen, made = card.seen, "ones" if card.seen.longest else "zeros"  # of a text: token 1; 0 would be no token at all
    dtype = "bool_" if (arrays, seen.dtype) == ("numpy", "bool") else seen.dtype
    blank = f"{arrays}.{made}({seen.single}, dtype={arrays}.{dtype})  # yours: {seen.batch}"
    if seen.normalised is None:
        return [f"{seen.name} = {blank}"]
    make, scale = "tensor" if arrays == "torch" else "array", f"{seen.normalised.scale:g}"
    constants = [
        f"{name} = {arrays}.{make}({list(values)}, dtype={arrays}.float32).reshape(1, -1, 1, 1)"
        for name, values in (("mean", seen.normalised.mean), ("std", seen.normalised.std))
    ]
    return [f"pixels = {blank}, from 0 to {scale}", *constants, f"images = (pixels / {scale} - mean) / std"]


# --- what made it ----------------------------------------------------------------------------------------------------


def _training(card: Card) -> Iterator[str]:
    data, part = card.dataset, "its training part"
    if card.trial["part"] != "train":
        part = "its training and validation parts together"
    threads = f"{card.threads} thread{'s' if card.threads > 1 else ''}"
    if card.trial.get("processes", 1) > 1:
        threads = f"{card.trial['processes']} processes of {threads}"
    yield f"- Data: {_code(data['name'])}, {part}: {card.seen.train:,} {card.seen.examples}. {_augmentation(card)}"
    yield f"- Teacher: {_of_teacher(card.teacher, card.seen.examples)}"
    yield f"- {card.trial['epochs']} epochs, seed {card.trial['seed']}, {threads}."
    yield from ["", "Every setting that the training read:", ""]
    settings = {path: value for path, value in flatten(card.trial["config"]).items() if path not in OF_THIS_MACHINE}
    yield from _table(("path", "value"), [(_code(path), _code(json.dumps(v))) for path, v in settings.items()])


def _augmentation(card: Card) -> str:
    data, views = card.dataset, card.seen.views
    noise = f" {100 * data['label_noise']:g} % of their labels are wrong on purpose." if data["label_noise"] else ""
    if data["name"] == "imagenet":
        flips = ", half of them mirrored" if data.get("flip") else ""
        return f"Each was seen in {views or 'ever new'} random resized crops{flips}.{noise}"
    if views == 1:
        return f"Each was seen as it is.{noise}"
    if card.seen.normalised is None:
        forms = "ever new forms" if views is None else f"{views} forms at most"
        return f"Each was seen in {forms}.{noise}"
    mirrored = ", mirrored or not" if data["flip"] else ""
    padding = f"{data['padding']} pixel{'s' if data['padding'] != 1 else ''} ({data.get('padding_mode', 'zeros')})"
    return f"Each was seen in {views} forms at most: crops of it padded by {padding}{mirrored}.{noise}"


def _of_teacher(teacher: Teacher | None, examples: str) -> str:
    if teacher is None:
        return "none; cross-entropy alone."
    accuracy = "its accuracy is not known here"
    if teacher.accuracy is not None:
        accuracy = f"validation/accuracy {teacher.accuracy:.4f}"
    seen = {
        True: f"it was trained on the validation {examples}, too",
        False: f"it has not seen the validation {examples}",
        None: f"whether it has seen the validation {examples} is not known",
    }[teacher.seen_validation]
    return f"{_code(teacher.model)}, id {_code(teacher.teacher_id)}, {teacher.origin}; {accuracy}; {seen}."


def _measured(card: Card) -> Iterator[str]:
    part = f"{card.seen.validation:,} {card.seen.examples}"
    yield f"This very student, at the end of its training (the validation part has {part}; losses in nats):"
    yield ""
    yield from _table(("metric", "value"), [(name, f"{value:.4f}") for name, value in card.metrics.items()])
    for row in card.rows:
        yield from ["", _of_row(row)]
    yield from ["", _of_comparison(card)]


def _of_row(row: Mapping[str, Any]) -> str:
    settings = ", ".join(f"{path} = {json.dumps(value)}" for path, value in row["overrides"].items())
    what = f"The settings {_code(row['variant'])}{f' ({settings})' if settings else ''}"
    missing = f"; {row['missing']} more did not finish" if row["missing"] else ""
    if row["mean"] is None:
        return f"{what} have no {row['metric']} in the sweep's table{missing}."
    interval = "no interval follows from one"
    if row["ci95"] is not None:
        interval = f"95 % t interval {row['ci95'][0]:.4f} to {row['ci95'][1]:.4f}"
    return (
        f"{what} reach {row['metric']} {row['mean']:.4f} in the mean over n = {row['n']} "
        f"seed{'s' if row['n'] != 1 else ''} ({interval}{missing}). That is said of the recipe, whatever the seed, and "
        "not of this file, which is one of these seeds."
    )


def _of_comparison(card: Card) -> str:
    seen, file = card.compared, FORMATS[card.format]
    by = {"onnx": "ONNX's reference implementation", "safetensors": "wsl-sweep", "torch-export": "torch"}[card.format]
    near = "its logits are the student's, bit for bit"
    if seen.difference > 0:
        near = (
            f"the largest difference from the student's logits is {seen.difference:.2g} (of logits up to "
            f"{seen.scale:.3g}), and each gets the same class"
        )
    return f"`{file}` was loaded back by {by} and tried on {seen.examples} validation {card.seen.examples}: {near}."


def _origin(card: Card) -> Iterator[str]:
    plan, trial = card.plan, card.trial
    made: Mapping[str, Any] = trial["fingerprint"] or {}
    rows = [
        ("sweep", f"{_code(card.sweep)} ({card.status}), begun {plan.get('created') or 'at an unknown time'}"),
        ("the sweep's UUID", _code(plan["uuid"])),
        ("trial", f"{_code(trial['trial_id'])}, {trial['stage']}, {', '.join(trial['variants'])}"),
        ("git commit of its working folder", _code(plan.get("git_commit") or "unknown")),
        ("versions when it began", _versions(plan.get("versions") or {}) or "unknown"),
        ("exported with", _versions(card.versions)),
        *((f"fingerprint: {name}", _code(value)) for name, value in made.items() if value is not None),
    ]
    yield from _table(("what", ""), rows)


def _limits(card: Card) -> Iterator[str]:
    known = card.seen.examples
    if not any(name.startswith("test/") for name in card.metrics):
        yield (
            "It was not evaluated on the test set: a sweep does that at its very end, for winners and baselines alone, "
            "so that nothing is chosen on it."
        )
    if card.trial["part"] != "train":
        yield f"It was trained on the validation {known}: its figures on them say nothing of {known} it has not seen."
    elif card.chosen_by is not None:
        yield f"It is the best of its sweep's students by {card.chosen_by}, which that choice flatters."
    elif card.trial["stage"] == "search":
        yield "It comes from a search, which follows the validation figures: they flatter what it finds."
    if card.teacher is not None and card.teacher.seen_validation is not False:
        maybe = "has" if card.teacher.seen_validation else "may have"
        yield f"Its teacher {maybe} seen the validation {known}, which flatters the student's figures on them."
    if not card.rows:
        yield "It is one seed of its settings; what another seed would give was not measured."
    yield from card.remarks
    yield (
        f"Not measured: {known} from elsewhere than the data set, disturbed or adversarial ones, differences between "
        "groups of people or things, speed and memory."
    )
    yield "wsl-sweep sets no license: whoever made the student does, and the terms of the data set hold."


# --- Markdown --------------------------------------------------------------------------------------------------------


def _versions(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _table(head: tuple[str, str], rows: Sequence[tuple[str, str]]) -> Iterator[str]:
    yield f"| {head[0]} | {head[1]} |"
    yield "| --- | --- |"
    for row in rows:
        left, right = (" ".join(cell.split()).replace("|", "\\|") for cell in row)
        yield f"| {left} | {right} |"


def _code(value: Any) -> str:
    return f"`{str(value).replace('`', chr(39))}`"
