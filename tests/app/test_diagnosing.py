"""``wsl-sweep diagnose teacher``: figures of teachers whose logits are known, and what it says of wrong words."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from scipy.stats import entropy, t
from sklearn.metrics import accuracy_score, log_loss
from torch import nn

from tests.app.exported_sweep import MadeSweep
from tests.conftest import Command
from wsl_sweep.app import diagnose_teacher
from wsl_sweep.data import load
from wsl_sweep.data.dataset import load_test
from wsl_sweep.models import build
from wsl_sweep.spec.loading import parse_spec
from wsl_sweep.training import TeacherStore
from wsl_sweep.training.weights import load_into

DATASET = {
    "name": "digits", "validation_fraction": 0.3, "train_fraction": 0.4, "label_noise": 0.0, "padding": 1,
    "padding_mode": "zeros", "flip": False, "views": "all",
}  # fmt: skip
"""The recipe's."""

KNOWN = """
import torch
from torch import nn


class Known(nn.Module):
    \"\"\"Says of each picture what its table says.\"\"\"

    def __init__(self, num_classes, in_channels):
        super().__init__()
        self.register_buffer("pictures", torch.zeros({count}, 64))
        self.register_buffer("table", torch.zeros({count}, num_classes))

    def forward(self, images):
        apart = (images.flatten(1)[:, None] - self.pictures[None]).abs().sum(dim=2)
        return self.table[apart.argmin(dim=1)]


class Broken(Known):
    def forward(self, images):
        raise ValueError("it does not want to")


class Short(Known):
    def forward(self, images):
        return super().forward(images)[:, :3]
"""

SHORT = ("--set", "teacher.model=convnet_3", "--set", "teacher.schedule.epochs=2",
         "--set", "teacher.schedule.milestones=[]")  # fmt: skip

SWEEP = """
name: made
run:
  recipe: digits
  distillation: {temperature: 2.0}
  schedule: {epochs: 1, milestones: []}
  teacher: {model: convnet_3, schedule: {epochs: 2, milestones: []}}
variants: [kd, ce]
seeds: 1
"""

Logits = NDArray[np.float32]
Labels = NDArray[np.int64]


@pytest.fixture(autouse=True)
def own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache and a working folder of the test's own, on the CPU; torch's settings are put back."""
    monkeypatch.setenv("WSL_SWEEP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tmp_path
    torch.set_num_threads(threads)
    torch.set_grad_enabled(True)


@pytest.fixture
def known(own_place: Path, wsl: Command, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Brings in a teacher that says the given logits of the validation part of digits; gives its id."""
    examples = load(DATASET).validation
    module = f"known_{abs(hash(own_place))}"
    (own_place / f"{module}.py").write_text(KNOWN.format(count=len(examples)))
    monkeypatch.syspath_prepend(str(own_place))

    def bring(logits: Logits, name: str = "Known") -> str:
        pictures = examples.views.plain(torch.arange(len(examples))).flatten(1)
        torch.save({"pictures": pictures, "table": torch.from_numpy(logits)}, "known.pth")
        measured = "Known"  # it is looked at when it is brought in
        card = wsl("teacher", "import", "known.pth", "--model", f"{module}:{measured}", "--recipe", "digits", "--json")
        teacher_id = str(card.json["teacher_id"])
        if name != measured:
            path = TeacherStore().root / teacher_id / "card.json"
            path.write_text(json.dumps({**json.loads(path.read_text()), "model": f"{module}:{name}"}))
        return teacher_id

    return bring


@pytest.fixture
def labels() -> Labels:
    """Of the validation part of digits."""
    return load(DATASET).validation.labels.numpy()


def noisy(labels: Labels, towards: float, seed: int = 0, classes: int = 10) -> Logits:
    """Logits without ties that favour the label by so much."""
    logits = np.random.default_rng(seed).normal(size=(len(labels), classes))
    logits[np.arange(len(labels)), labels] += towards
    return logits.astype(np.float32)


# --- figures worked out without the project's own functions -----------------------------------------------------------


def ece(logits: Logits, labels: Labels, temperature: float = 1.0) -> float:
    soft = softmax(logits.astype(np.float64) / temperature, axis=1)
    sure, right = soft.max(axis=1), soft.argmax(axis=1) == labels
    total = 0.0
    for index in range(15):
        inside = (sure > index / 15) & (sure <= (index + 1) / 15)
        if inside.any():
            total += inside.mean() * abs(sure[inside].mean() - right[inside].mean())
    return total


def spread(logits: Logits, labels: Labels) -> list[float]:
    """1 - S class by class: the sum of the variances of the probabilities."""
    soft = softmax(logits.astype(np.float64), axis=1)
    return [float(soft[labels == one].var(axis=0).sum()) for one in range(logits.shape[1])]


def delta(logits: Logits, labels: Labels, k: int) -> float:
    highest = np.argsort(-logits, axis=1)[:, :k]
    return float(np.mean([label not in row for label, row in zip(labels, highest, strict=True)]))


def gamma(logits: Logits, labels: Labels, k: int) -> float:
    highest = np.argsort(-logits, axis=1)[:, :k]
    return max(
        float(np.mean([rival in row for row in highest[labels == one]]))
        for one in range(logits.shape[1]) for rival in range(logits.shape[1]) if rival != one
    )  # fmt: skip


def test_every_figure_is_that_of_the_teachers_logits(known: Callable[..., str], wsl: Command, labels: Labels) -> None:
    logits = noisy(labels, 2.0) * np.float32(1.7)
    found = wsl("diagnose", "teacher", known(logits), "--temperature", "3", "--json").json
    wide = logits.astype(np.float64)
    close = {"rel": 1e-6, "abs": 1e-9}

    assert (found["part"], found["examples"], found["classes"]) == ("validation", 434, 10)
    assert found["accuracy"] == pytest.approx(accuracy_score(labels, logits.argmax(axis=1)), **close)
    assert 0.5 < found["accuracy"] < 0.95
    assert found["calibration"]["error"] == pytest.approx(ece(logits, labels), **close)
    assert found["calibration"]["loss"] == pytest.approx(log_loss(labels, softmax(wide, axis=1)), **close)
    assert sum(one["count"] for one in found["calibration"]["bins"]) == 434

    best = minimize_scalar(lambda at: log_loss(labels, softmax(wide / math.exp(at), axis=1)), bounds=(-3, 3),
                           options={"xatol": 1e-9})  # fmt: skip
    assert found["best_temperature"]["temperature"] == pytest.approx(math.exp(best.x), rel=1e-5)
    assert found["best_temperature"]["loss"] == pytest.approx(best.fun, rel=1e-9)
    assert found["scaled"]["error"] == pytest.approx(ece(logits, labels, math.exp(best.x)), abs=1e-4)
    assert found["distilled"]["error"] == pytest.approx(ece(logits, labels, 3.0), **close)

    for name, temperature in (("at_one", 1.0), ("softened", 3.0)):
        soft = softmax(wide / temperature, axis=1)
        assert found[name]["temperature"] == temperature
        assert found[name]["entropy"] == pytest.approx(entropy(soft, axis=1).mean(), **close)
        assert found[name]["label"] == pytest.approx(soft[np.arange(434), labels].mean(), **close)
        assert found[name]["beside"] == pytest.approx(1 - soft.max(axis=1).mean(), **close)
        assert found[name]["by_rank"] == pytest.approx(np.sort(soft, axis=1)[:, ::-1].mean(axis=0), **close)
        means = [soft[labels == one].mean(axis=0) for one in range(10)]
        assert np.allclose(found[name]["by_class"], means, atol=1e-9)
    assert found["entropy"] == found["at_one"]["entropy"]

    assert [one["k"] for one in found["top"]] == [1, 2, 3, 4, 5]
    for one in found["top"]:
        unreliable, ambiguous = delta(logits, labels, one["k"]), gamma(logits, labels, one["k"])
        assert one["unreliability"] == pytest.approx(unreliable, **close)
        assert one["ambiguity"] == pytest.approx(ambiguous, **close)
        assert one["sum"] == pytest.approx(unreliable + ambiguous, **close)
        assert one["learnable"] == (unreliable + ambiguous < 1)
    by_class = spread(logits, labels)
    assert found["stability"]["by_class"] == pytest.approx(by_class, **close)
    assert found["stability"]["one_minus_s"] == pytest.approx(np.mean(by_class), **close)
    assert found["stability"]["s"] == pytest.approx(1 - np.mean(by_class), **close)
    assert found["erased"] is None
    assert found["page"] is None


def test_an_over_certain_teacher_is_warned_of_with_what_to_sweep(
    known: Callable[..., str], wsl: Command, labels: Labels
) -> None:
    """It is right in 300 of 434 examples, and always all but certain."""
    said = labels.copy()
    said[300:] = (said[300:] + 1) % 10
    logits = noisy(said, 0.0) * np.float32(0.01)
    logits[np.arange(434), said] += 12
    teacher_id = known(logits)
    found = wsl("diagnose", "teacher", teacher_id, "--json").json
    assert found["accuracy"] == pytest.approx(300 / 434)
    assert found["calibration"]["error"] == pytest.approx(134 / 434, abs=1e-3)
    assert found["best_temperature"]["temperature"] > 3
    assert found["scaled"]["error"] < 0.01
    assert [one["kind"] for one in found["warnings"]] == ["over-certain"]
    assert "accuracy 69.1%" in found["warnings"][0]["sentence"]
    paths = [one["path"] for one in found["space"]]
    assert paths == ["distillation.temperature", "distillation.weighting.kind"]  # it was brought in, and is as it is

    shown = wsl("diagnose", "teacher", teacher_id, "--temperature", "4")
    assert "warning: The teacher is over-certain: its confidence is 100.0%" in " ".join(shown.out.split())
    lines = shown.out.splitlines()
    start = lines.index("space:")
    space = "\n".join(lines[start : lines.index("", start)])
    spec = parse_spec(f"run: {{recipe: digits}}\n{space}\nsearch: {{trials: 4}}\n", "next.yaml")
    assert list(spec.space) == paths
    assert (spec.space["distillation.temperature"].low, spec.space["distillation.temperature"].high) == (4, 16)


def test_an_ambiguous_teacher_is_warned_of_by_the_names_of_its_classes(
    known: Callable[..., str], wsl: Command, labels: Labels
) -> None:
    """Of every 3 it ranks 8 highest and 3 lowest: γ is 1 at every k, and Δ at least the share of threes."""
    logits = noisy(labels, 6.0)
    threes = labels == 3
    logits[threes, 8], logits[threes, 3] = 9.0, -9.0
    found = wsl("diagnose", "teacher", known(logits), "--json").json
    for one in found["top"]:
        assert (one["ambiguity"], one["label"], one["rival"], one["learnable"]) == (1.0, 3, 8, False)
        assert one["unreliability"] >= threes.mean()
    (warned,) = [one for one in found["warnings"] if one["kind"] == "unlearnable"]
    assert "8 among the highest" in warned["sentence"]
    assert warned["sweep"][0] == "teacher.model"


def test_an_unreliable_teacher_has_its_labels_elsewhere(
    known: Callable[..., str], wsl: Command, labels: Labels
) -> None:
    """In a quarter of the examples another class is highest and the label second."""
    logits, rows = noisy(labels, 0.0) * np.float32(0.1), np.arange(434)
    logits[rows, labels] = 5.0
    logits[rows[::4], (labels[::4] + 1 + rows[::4] % 9) % 10] = 6.0
    found = wsl("diagnose", "teacher", known(logits), "--json").json
    assert found["top"][0]["unreliability"] == pytest.approx(len(rows[::4]) / 434)
    assert found["top"][1]["unreliability"] == 0


def test_erased_information_is_that_of_two_teachers_on_the_same_examples(
    known: Callable[..., str], wsl: Command, labels: Labels
) -> None:
    wide, narrow = noisy(labels, 1.0, seed=1), noisy(labels, 9.0, seed=2)
    first, second = known(narrow), known(wide)
    found = wsl("diagnose", "teacher", first, "--against", second[:8], "--json").json["erased"]
    differences = np.array(spread(wide, labels)) - np.array(spread(narrow, labels))
    assert found["against"] == second
    assert found["value"] == pytest.approx(differences.mean(), rel=1e-6)
    assert found["value"] > 0.05
    assert found["share"] == pytest.approx(differences.mean() / np.mean(spread(wide, labels)), rel=1e-6)
    half = t.ppf(0.975, 9) * differences.std(ddof=1) / math.sqrt(10)
    assert found["interval"] == pytest.approx([differences.mean() - half, differences.mean() + half], rel=1e-6)
    assert found["smoothing"] == [None, None]
    assert "is not known" in found["sentence"]
    kinds = [one["kind"] for one in wsl("diagnose", "teacher", first, "--against", second, "--json").json["warnings"]]
    assert "erased" in kinds
    kinds = [one["kind"] for one in wsl("diagnose", "teacher", second, "--against", first, "--json").json["warnings"]]
    assert "erased" not in kinds


def weights_say(card: dict[str, Any], examples: Any) -> Logits:
    """What a trained teacher says, from its file, without the project's way of asking it."""
    model = build(card["model"], 10, 1)
    load_into(model, Path(card["weights"]), card["model"])
    with torch.no_grad():
        said: nn.Module = model.eval()
        return said(examples.views.plain(torch.arange(len(examples)))).numpy()


def test_a_smoothed_teacher_beside_one_without_either_way_round(wsl: Command, labels: Labels) -> None:
    plain = wsl("teacher", "train", *SHORT, "--json").json
    smoothed = wsl("teacher", "train", *SHORT, "--set", "teacher.label_smoothing=0.2", "--json").json
    ids = smoothed["teacher_id"], plain["teacher_id"]
    found = wsl("diagnose", "teacher", ids[0], "--against", ids[1], "--json").json
    data = load(DATASET)
    theirs = [np.mean(spread(weights_say(card, data.validation), labels)) for card in (plain, smoothed)]
    assert found["erased"]["value"] == pytest.approx(theirs[0] - theirs[1], rel=1e-4, abs=1e-7)
    assert found["erased"]["smoothing"] == [0.2, 0.0]
    assert found["erased"]["reversed"] is False
    assert found["temperature"] == 4.0
    assert found["temperature_from"] == "the usual one; no sweep was named"

    other = wsl("diagnose", "teacher", ids[1], "--against", ids[0], "--json").json["erased"]
    assert other["reversed"] is True
    assert other["value"] == pytest.approx(-found["erased"]["value"])
    assert "the other way round" in other["sentence"]
    assert f"of {ids[0]}, {found['erased']['value']:.4f} is erased" in other["sentence"]


# --- parts of the data -----------------------------------------------------------------------------------------------


def test_the_part_is_the_one_asked_for_with_what_has_to_be_known_of_it(wsl: Command) -> None:
    card = wsl("teacher", "train", *SHORT, "--set", "dataset.label_noise=0.5", "--json").json
    noisy_data = load({**DATASET, "label_noise": 0.5})
    for part, examples, said in (
        ("train", noisy_data.train, "was trained on these examples"),
        ("validation", noisy_data.validation, None),
        ("test", load_test(DATASET), "nothing should be chosen by them"),
    ):
        found = wsl("diagnose", "teacher", card["teacher_id"], "--part", part, "--json").json
        assert found["examples"] == len(examples)
        right = weights_say(card, examples).argmax(axis=1) == examples.labels.numpy()
        assert found["accuracy"] == pytest.approx(right.mean(), abs=1e-9)
        assert any(said is None or said in note for note in found["notes"]) or (said is None and not found["notes"])
    clean = load(DATASET).train
    assert not torch.equal(noisy_data.train.labels, clean.labels)  # labels as trained on


def test_a_teacher_that_has_seen_the_part_is_said_to(known: Callable[..., str], wsl: Command, labels: Labels) -> None:
    brought = known(noisy(labels, 3.0))
    notes = wsl("diagnose", "teacher", brought, "--json").json["notes"]
    assert any("has seen the validation part (it was brought in" in note for note in notes)
    both = wsl("teacher", "train", *SHORT, "--part", "train+validation", "--json").json
    assert any("has seen the validation part:" in note for note in
               wsl("diagnose", "teacher", both["teacher_id"], "--json").json["notes"])  # fmt: skip
    train = wsl("diagnose", "teacher", both["teacher_id"], "--part", "train", "--json").json
    assert train["examples"] == len(load(DATASET, "train+validation").train)
    assert any("the training and the validation part" in note for note in train["notes"])


LENGTHY = """
import torch
from torch import nn


class Lengthy(nn.Module):
    \"\"\"A mean over all places, so that what it says of a text depends on how far that is padded.\"\"\"

    def __init__(self, num_classes, in_channels):
        super().__init__()
        self.words, self.classifier = nn.Embedding(in_channels, 16), nn.Linear(16, num_classes)

    def forward(self, tokens):
        return self.classifier(self.words(tokens[:, 0]).mean(dim=1))
"""


def test_texts_of_several_lengths_are_computed_as_if_each_were_alone(
    own_place: Path, wsl: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, model = "tests.text:TinyText", "lengthy_model:Lengthy"
    (own_place / "lengthy_model.py").write_text(LENGTHY)
    monkeypatch.syspath_prepend(str(own_place))
    sets = (f"dataset.name={name}", f"teacher.model={model}", "teacher.schedule.epochs=3", f"student.model={model}",
            "teacher.schedule.milestones=[]")  # fmt: skip
    options = [part for one in sets for part in ("--set", one)]
    card = wsl("teacher", "train", *options, "--json").json
    found = wsl("diagnose", "teacher", card["teacher_id"], "--json").json
    examples = load({**DATASET, "name": name}).validation
    assert len(set(examples.views.shapes(torch.arange(len(examples))).tolist())) > 1
    network = build(model, 3, 24)
    load_into(network, Path(card["weights"]), model)
    with torch.no_grad():
        said = [network.eval()(examples.views.plain(torch.tensor([i]))).numpy() for i in range(len(examples))]
    logits, labels = np.concatenate(said), examples.labels.numpy()
    assert found["class_names"] == ["one", "two", "three"]
    assert found["calibration"]["loss"] == pytest.approx(log_loss(labels, softmax(logits.astype(np.float64), axis=1)),
                                                         rel=1e-6)  # fmt: skip
    means = [softmax(logits / 4, axis=1)[labels == one].mean(axis=0) for one in range(3)]
    assert np.allclose(found["softened"]["by_class"], means, atol=1e-6)


def test_how_long_it_may_take_is_said_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:

    from wsl_sweep.app import teacher_pass

    now, said = iter([0.0, 5.0, 20.0, 25.0, 40.0]), list[str]()
    monkeypatch.setattr(teacher_pass.time, "monotonic", lambda: next(now))
    watch = teacher_pass._lines("teacher x", 1000, said.append)
    for done in (100, 200, 500, 600, 1000):
        watch(done)
    assert said == ["teacher x: 500 of 1,000 examples, about 25 s left"]


# --- sweeps ----------------------------------------------------------------------------------------------------------


def made(own_place: Path, text: str = SWEEP, **facts: Any) -> MadeSweep:
    """A sweep whose trials have finished, without students."""
    sweep = MadeSweep(own_place / "runs", text)
    for trial in sweep.trials:
        sweep.begin(trial)
        sweep.finish(trial, {"validation/accuracy": 0.5}, fingerprint=facts)
    return sweep


def test_a_sweep_names_its_teacher_its_data_and_its_temperature(own_place: Path, wsl: Command) -> None:
    card = wsl("teacher", "train", *SHORT, "--json").json
    made(own_place, teacher=card["sha256"])
    found = wsl("diagnose", "teacher", "made", "--json").json
    assert found["teacher"] == card["teacher_id"]
    assert (found["temperature"], found["temperature_from"]) == (2.0, "that of the sweep's trials")
    assert found["softened"]["temperature"] == 2.0
    assert wsl("diagnose", "teacher", "made", "--temperature", "7", "--json").json["temperature"] == 7
    assert found["accuracy"] == pytest.approx(card["metrics"]["validation/accuracy"])
    assert not any("is not the one" in note for note in found["notes"])


def test_where_the_trials_differ_in_temperature_the_files_is_taken(own_place: Path, wsl: Command) -> None:
    wsl("teacher", "train", *SHORT)
    made(own_place, SWEEP + "space: {distillation.temperature: {grid: [1.0, 8.0]}}\n", teacher="another")
    found = wsl("diagnose", "teacher", "made", "--json").json
    assert found["temperature"] == 2.0
    assert found["temperature_from"].endswith("its trials take 1 to 8")
    assert any("is not the one that the trials had" in note for note in found["notes"])


def test_of_several_teachers_one_has_to_be_named(own_place: Path, wsl: Command) -> None:
    sweep = made(own_place, SWEEP + "space: {teacher.label_smoothing: {grid: [0.0, 0.1]}}\n")
    ids = list(dict.fromkeys(trial.teacher_id for trial in sweep.trials if trial.teacher_id))
    assert len(ids) == 2
    error = wsl("diagnose", "teacher", "made", expect=2).err
    assert "made has 2 teachers; name one by its id" in error
    assert f"{ids[0]}  convnet_3: teacher.label_smoothing 0" in error
    assert f"{ids[1]}  convnet_3: teacher.label_smoothing 0.1" in error
    assert f"wsl-sweep diagnose teacher {ids[1]} --against {ids[0]} --temperature 2" in error


def test_of_teachers_of_two_parts_the_one_that_has_not_seen_the_validation_part_is_taken(
    own_place: Path, wsl: Command
) -> None:
    from dataclasses import replace

    from wsl_sweep.spec.identity import teacher_identity, trial_id

    card = wsl("teacher", "train", *SHORT, "--json").json
    sweep = made(own_place)
    last = sweep.trials[0]
    part = "train+validation"
    named = teacher_identity(last.config, part, 1)
    assert named is not None
    again = replace(last, trial_id=trial_id(last.config, part, 1), part=part, teacher_id=named[0], stage="confirm")
    sweep.begin(again)
    sweep.finish(again, {"validation/accuracy": 0.5})
    found = wsl("diagnose", "teacher", "made", "--json").json
    assert found["teacher"] == card["teacher_id"]
    assert any(f"on another part of the data, too: {named[0]}" in note for note in found["notes"])


def test_what_is_both_a_sweep_and_the_beginning_of_an_id_is_the_sweep(own_place: Path, wsl: Command) -> None:
    card = wsl("teacher", "train", *SHORT, "--json").json
    begins = card["teacher_id"][:4]
    made(own_place, SWEEP.replace("name: made", f'name: "{begins}"'))
    found = wsl("diagnose", "teacher", begins, "--json").json
    assert found["temperature"] == 2.0
    assert any("the sweep in runs was taken" in note and card["teacher_id"] in note for note in found["notes"])
    assert wsl("diagnose", "teacher", card["teacher_id"][:6], "--json").json["temperature"] == 4.0


def test_a_teacher_that_the_nodes_share_is_fetched(own_place: Path, wsl: Command, monkeypatch: Any) -> None:
    from wsl_sweep.storage import place

    card = wsl("teacher", "train", *SHORT, "--json").json
    TeacherStore(shared=place(own_place / "runs" / ".teachers")).has(card["teacher_id"])
    made(own_place)
    monkeypatch.setenv("WSL_SWEEP_CACHE", str(own_place / "elsewhere"))
    assert wsl("diagnose", "teacher", "made", "--json").json["teacher"] == card["teacher_id"]


# --- the page --------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Text and attributes of a page whose elements are all closed."""

    VOID = frozenset({"meta", "link", "br", "wbr", "img", "input", "hr"})

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.said: list[str] = []
        self.feed(page)
        assert self.open == []
        self.text = " ".join("".join(self.said).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"}.intersection(self.open):
            self.said.append(data)


def test_the_page_says_it_all_and_asks_for_nothing(own_place: Path, known: Callable[..., str], wsl: Command,
                                                   labels: Labels) -> None:  # fmt: skip
    teacher_id = known(noisy(labels, 2.5))
    shown = wsl("diagnose", "teacher", teacher_id)
    assert shown.out.splitlines()[-1] == f"Page: teacher-{teacher_id}-validation.html"
    source = (own_place / f"teacher-{teacher_id}-validation.html").read_text()
    page = Page(source)
    found = wsl("diagnose", "teacher", teacher_id, "--json", "--to", "deep/other.html").json
    assert found["page"] == "deep/other.html"
    assert (own_place / "deep" / "other.html").read_text() == source
    for text in (f"{found['calibration']['error']:.4f}", f"{found['stability']['one_minus_s']:.4f}",
                 f"{found['top'][1]['ambiguity']:.4f}", "τ = 4 is the usual one",
                 "Reliability at τ = 1", "Mean soft label of each class", "1 - S by class"):  # fmt: skip
        assert text in page.text
    assert source.count("<svg") == 6
    for tag, name, value in page.attributes:
        if name in ("src", "href", "xlink:href", "action", "srcset", "data", "poster"):
            assert value.startswith("#") or (tag, value) == ("link", "data:,")
    assert "url(" not in source.partition("<style>")[2].partition("</style>")[0]
    assert len(source.encode()) < 500_000


# --- what is wrong ---------------------------------------------------------------------------------------------------


def test_what_is_neither_a_teacher_nor_a_sweep_is_told_with_near_ones(own_place: Path, wsl: Command) -> None:
    error = wsl("diagnose", "teacher", "mad", expect=2).err
    assert '"mad" is neither a sweep nor the id of a teacher' in error
    assert "sweeps in runs: there are none" in error
    assert "teachers of this machine: there are none" in error
    card = wsl("teacher", "train", *SHORT, "--json").json
    made(own_place)
    error = wsl("diagnose", "teacher", "mad", expect=2).err
    assert 'sweeps in runs: did you mean "made"?' in error
    assert f"teachers of this machine: there is: {card['teacher_id']}" in error
    wrong = card["teacher_id"][:-1] + ("0" if card["teacher_id"][-1] != "0" else "1")
    assert f'did you mean "{card["teacher_id"]}"?' in wsl("diagnose", "teacher", wrong, expect=2).err
    assert "sweeps in elsewhere: there are none" in wsl(
        "diagnose", "teacher", "made", "--storage", "elsewhere", expect=2
    ).err  # fmt: skip
    for nothing in ("", "../made", ".teachers"):
        assert "is neither" in wsl("diagnose", "teacher", nothing, expect=2).err


def test_wrong_options_are_told_before_anything_is_computed(
    own_place: Path, wsl: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = wsl("teacher", "train", *SHORT, "--json").json

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("a teacher was asked")

    monkeypatch.setattr("wsl_sweep.training.FrozenTeacher", never)
    (own_place / "pages").mkdir()
    for options, told in (
        (("--part", "tests"), "--part must be train, validation or test, not 'tests'"),
        (("--temperature", "0"), "--temperature must be a number above 0"),
        (("--temperature", "nan"), "--temperature must be a number above 0"),
        (("--temperature", "inf"), "--temperature must be a number above 0"),
        (("--to", "pages"), "pages is a folder; name a file"),
        (("--against", card["teacher_id"]), "is the same teacher"),
        (("--against", "zzz"), 'no teacher has the id "zzz"'),
        (("--root", "pages"), "the data set digits has no folder"),
    ):
        answer = wsl("diagnose", "teacher", card["teacher_id"], *options, expect=2)
        assert told in answer.err, options
        assert not answer.out
    assert not list(own_place.glob("*.html"))


def test_a_second_teacher_of_other_classes_or_data_is_refused(own_place: Path, wsl: Command) -> None:
    first = wsl("teacher", "train", *SHORT, "--json").json["teacher_id"]
    second = wsl("teacher", "train", *SHORT, "--set", "teacher.seed=1", "--json").json["teacher_id"]
    path = TeacherStore().root / second / "card.json"
    card = json.loads(path.read_text())
    for change, told in (
        ({"num_classes": 100}, "it knows 100 classes, the other 10"),
        ({"identity": {**card["identity"], "dataset": {**card["identity"]["dataset"], "name": "cifar10"}}},
         "it belongs to dataset.name cifar10, not digits"),
    ):  # fmt: skip
        path.write_text(json.dumps({**card, **change}))
        error = wsl("diagnose", "teacher", first, "--against", second, expect=2).err
        assert f"teacher {second} cannot be compared with {first}: {told}" in error


def folder_of_pictures(folder: Path, classes: int = 2, shift: int = 0) -> Path:
    """A folder of folders of small pictures."""
    random = np.random.default_rng(0)
    for one in range(classes):
        (folder / f"class{one}").mkdir(parents=True)
        for number in range(20):
            pixels = random.integers(0, 100, size=(8, 8, 3)) + 100 * one % 150 + shift
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"class{one}" / f"{number}.png")
    return folder


def test_data_that_are_elsewhere_absent_or_others_are_told(own_place: Path, wsl: Command) -> None:
    pictures = folder_of_pictures(own_place / "pictures")
    options = ("--recipe", "image_folder", "--set", f"dataset.root={pictures}", "--set", "dataset.size=8",
               "--set", "teacher.model=convnet_2", "--set", "teacher.schedule.epochs=1",
               "--set", "teacher.schedule.milestones=[]")  # fmt: skip
    teacher_id = wsl("teacher", "train", *options, "--json").json["teacher_id"]
    error = wsl("diagnose", "teacher", teacher_id, expect=2).err
    assert f"the data of teacher {teacher_id}, image_folder, are not on this machine, or in a folder" in error
    assert "--root PATH" in error
    assert (
        "image_folder, are not in"
        in wsl("diagnose", "teacher", teacher_id, "--root", str(own_place / "no"), expect=2).err
    )

    moved = own_place / "moved"
    pictures.rename(moved)
    found = wsl("diagnose", "teacher", teacher_id, "--root", "moved", "--json").json
    assert (found["classes"], found["class_names"]) == (2, ["class0", "class1"])
    assert len(found["top"]) == 2
    others = folder_of_pictures(own_place / "others", shift=7)
    error = wsl("diagnose", "teacher", teacher_id, "--root", str(others), expect=2).err
    assert "are not those that teacher" in error
    more = folder_of_pictures(own_place / "more", classes=3)
    assert "knows 2 classes" in wsl("diagnose", "teacher", teacher_id, "--root", str(more), expect=2).err


def test_a_teacher_that_fails_or_says_nonsense_is_told(known: Callable[..., str], wsl: Command, labels: Labels) -> None:
    logits = noisy(labels, 1.0)
    broken = known(logits, "Broken")
    assert "ValueError: it does not want to" in wsl("diagnose", "teacher", broken, expect=2).err
    short = known(logits + 1, "Short")
    assert "gives (64, 3) for 64 examples of 10 classes" in wsl("diagnose", "teacher", short, expect=2).err
    lost = TeacherStore().root / known(logits + 2) / "weights.safetensors"
    lost.write_bytes(b"")
    assert "is neither" not in wsl("diagnose", "teacher", lost.parent.name, expect=2).err


def test_a_sweep_whose_teacher_is_gone_or_that_has_none_is_told(own_place: Path, wsl: Command) -> None:
    made(own_place)
    error = wsl("diagnose", "teacher", "made", expect=2).err
    assert "is not on this machine any more" in error
    assert "WSL_SWEEP_CACHE" in error
    made(own_place, SWEEP.replace("made", "bare").replace("[kd, ce]", "[ce]").replace(
        "  distillation: {temperature: 2.0}\n", "").replace(
        "  teacher: {model: convnet_3, schedule: {epochs: 2, milestones: []}}\n", ""))  # fmt: skip
    assert "no trial of bare has a teacher" in wsl("diagnose", "teacher", "bare", expect=2).err


def test_a_notebook_gets_the_same_as_the_command(known: Callable[..., str], labels: Labels) -> None:
    logits = noisy(labels, 2.0)
    heard: list[str] = []
    state = torch.random.get_rng_state()
    found = diagnose_teacher(known(logits), say=heard.append)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert "looks at 434 examples on the CPU" in heard[0]
    loss = -log_softmax(logits.astype(np.float64), axis=1)[np.arange(434), labels].mean()
    assert found.soft.plain.loss == pytest.approx(loss, rel=1e-6)
