"""What a sweep asks of the logit bank, and what a user hears of it before it starts."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.spec.helpers import spec_of
from tests.spec.test_world import FakeWorld
from wsl_sweep.app.teaching import auto_precision, bank_notes, bank_settings, measure_here, precision_notes
from wsl_sweep.spec import CommandLine, Spec, parse_spec
from wsl_sweep.training import BankSettings

ARMS = {
    "kd": "distillation.method: kd",
    "rkd": "distillation.method: rkd",
    "hint": "distillation.method: my.losses:hint",
    "plain": "distillation.method: my.losses:plain",
    "batch": "teacher.mode: train",
    "batch_hint": "distillation.method: my.losses:hint, teacher.mode: train",
    "ce": "distillation.method: none",
}
WORLD = FakeWorld(with_features=("my.losses:hint",))


def spec_with(names: str, bank: str = "{}", **command_line: Any) -> Spec:
    """An ablation of some of ARMS."""
    variants = ", ".join(f"{name}: {{{ARMS[name]}}}" for name in names.split())
    text = f"run: {{recipe: digits}}\nvariants: {{{variants}}}\nbank: {bank}\n"
    return parse_spec(text, "file.yaml", CommandLine(**command_line), world=WORLD)


@pytest.mark.parametrize(
    ("names", "bank", "features"),
    [
        ("kd", "{}", False),
        ("kd plain ce", "{}", False),
        ("kd rkd", "{}", True),
        ("kd hint", "{}", True),
        ("batch_hint", "{}", False),
        ("batch_hint rkd", "{}", True),
        ("ce", "{}", False),
        ("kd", "{features: true}", True),
        ("kd rkd", "{features: false}", False),
        ("kd hint", "{features: null}", True),
    ],
)
def test_features_are_kept_where_somebody_reads_them_or_the_file_says_so(names: str, bank: str, features: bool) -> None:
    settings = bank_settings(spec_with(names, bank), WORLD)
    assert settings == {"use": True, "features": features, "limit_gb": 50.0}


@pytest.mark.parametrize(("said", "option"), [(True, True), (True, False), (False, True), (False, False)])
def test_the_bank_is_used_where_both_the_file_and_the_command_line_have_it(said: bool, option: bool) -> None:
    spec = spec_with("kd", f"{{use: {str(said).lower()}, limit_gb: 2.5}}")
    settings = BankSettings(**bank_settings(spec, WORLD, option))
    assert settings == BankSettings(use=said and option, features=False, limit_gb=2.5)
    assert bank_notes(spec, WORLD, option) == (
        [] if said and option else ["the logit bank is off: the teacher runs at every step"]
    )


@pytest.mark.parametrize(("names", "bank"), [("kd", "{}"), ("kd plain ce", "{}"), ("ce", "{use: false}")])
def test_nothing_is_said_where_everybody_has_what_they_need(names: str, bank: str) -> None:
    assert bank_notes(spec_with(names, bank), WORLD) == []


def test_who_trains_its_teacher_batch_by_batch_is_named() -> None:
    (note,) = bank_notes(spec_with("kd batch batch_hint ce"), WORLD)
    assert "teacher.mode train" in note
    assert note.endswith("the teacher runs at every step of batch, batch_hint")


def test_who_reads_features_is_named_and_why_they_are_kept() -> None:
    (note,) = bank_notes(spec_with("kd rkd hint plain"), WORLD)
    assert note == "the logit bank keeps the teacher's features too, which rkd, hint read"


def test_who_reads_features_that_are_not_to_be_kept_is_named() -> None:
    (note,) = bank_notes(spec_with("kd rkd hint", "{features: false}"), WORLD)
    assert note.startswith("bank.features is false, and rkd, hint read the teacher's features")
    assert "at every step" in note


def test_an_arm_that_does_so_only_at_some_values_of_the_space_is_named_too() -> None:
    text = """
        run: {recipe: digits}
        space:
          distillation.method: {choice: [kd, rkd]}
          teacher.mode: {choice: [eval, train]}
        search: {trials: 8}
        """
    mode, features = bank_notes(spec_of(text), WORLD)
    assert "teacher.mode train" in mode
    assert "features" in features
    assert bank_settings(spec_of(text), WORLD)["features"] is True


def test_baselines_count() -> None:
    text = "run: {recipe: digits}\nspace: {distillation.alpha: {uniform: [1, 2]}}\nsearch: {trials: 2}\n"
    assert bank_settings(spec_of(text), WORLD)["features"] is False
    confirmed = spec_of(text + "confirm: {baselines: {old: {distillation.method: rkd}}}\n")
    assert bank_settings(confirmed, WORLD)["features"] is True
    assert "old" in bank_notes(confirmed, WORLD)[0]


# --- the largest logits alone ---

OF_DIGITS = (
    "run: {recipe: digits}\nvariants: {kd: , hot: {distillation.temperature: 8}, rkd: {distillation.method: rkd}}\n"
)


def test_with_top_k_a_bank_hears_every_temperature_of_the_file() -> None:
    settings = bank_settings(spec_of(OF_DIGITS + "bank: {top_k: 3}\n"), WORLD)
    assert settings == {"use": True, "features": True, "limit_gb": 50.0, "temperatures": [1.0, 4.0, 8.0]}
    assert json.loads(json.dumps(settings)) == settings
    assert BankSettings(**settings).temperatures == [1.0, 4.0, 8.0]


@pytest.mark.parametrize(
    ("bank", "option"), [("{top_k: 3}", True), ("{top_k: 3, use: false}", True), ("{top_k: 3}", False)]
)
def test_that_top_k_is_an_approximation_is_said_with_what_it_saves(bank: str, option: bool) -> None:
    """Also without a bank, whose rounding and leaving out the teacher's own outputs get too."""
    notes = bank_notes(spec_of(OF_DIGITS + f"bank: {bank}\n"), WORLD, option)
    assert notes[0] == (
        "bank.top_k 3 is an approximation: of a teacher's logits a student reads the 3 largest and the label's, and "
        "the other classes share evenly what probability is left them at τ 1, 4, 8; a row takes 44 bytes in place of "
        "48 for 10 classes"
    )
    assert len(notes) == 2
    if not option or "false" in bank:
        assert notes[1] == "the logit bank is off: the teacher runs at every step"


def test_what_top_k_saves_is_told_for_the_classes_of_the_data_set(tmp_path: Path) -> None:
    def room(dataset: str, top_k: int = 50) -> str:
        (note,) = bank_notes(
            spec_of(f"run: {{recipe: digits, {dataset}}}\nvariants: [kd]\nbank: {{top_k: {top_k}}}\n"), WORLD
        )
        return note

    imagenet = "dataset.name: imagenet, dataset.root: here, dataset.size: 224"
    assert room(f"{imagenet}, dataset.views: 4").endswith("a row takes 324 bytes in place of 4,008 for 1,000 classes")
    assert room(f"{imagenet}, dataset.views: 2", 5).endswith("a row takes 52 bytes in place of 4,008 for 1,000 classes")
    for name in ("one", "two", "three", "four"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "picture.png").touch()
    folder = f"dataset.name: image_folder, dataset.root: {tmp_path}, dataset.size: 32"
    assert room(folder, 2).endswith("a row takes 36 bytes in place of 24 for 4 classes")
    assert room(folder, 3) == "bank.top_k 3 leaves nothing out of 4 classes: all their logits are kept"
    own = room("dataset.name: 'my.data:Sounds'")
    assert own.endswith("a row takes 324 bytes")


def test_nothing_is_said_of_top_k_where_nobody_reads_what_is_kept() -> None:
    assert bank_notes(spec_with("ce", "{top_k: 3}"), WORLD) == []
    (note,) = bank_notes(spec_with("batch ce", "{top_k: 3}"), WORLD)
    assert "teacher.mode train" in note


IMAGENET = "run: {recipe: digits, dataset: {name: imagenet, root: here, size: 32, views: epoch}}\nvariants: %s\n"


def test_who_has_new_views_in_every_epoch_is_named() -> None:
    variants = "{kd: , few: {dataset.views: 2}, rkd: {distillation.method: rkd}, ce: }"
    (note,) = bank_notes(spec_of(IMAGENET % variants), WORLD)
    assert note == (
        "dataset.views epoch shows new views in every epoch, which the logit bank has no use for: the teacher runs at "
        "every step of kd, rkd"
    )
    assert bank_settings(spec_of(IMAGENET % variants), WORLD)["features"] is False
    (small,) = bank_notes(spec_of(IMAGENET % "[kd]" + "bank: {top_k: 5}\n"), WORLD)
    assert small.endswith("of kd, which reads all its logits whatever bank.top_k is")
    assert bank_notes(spec_of(IMAGENET % "[ce]"), WORLD) == []


# --- precision: auto -------------------------------------------------------------------------------------------------

MODELS = """
run: {recipe: digits, precision: auto}
variants: {small: , large: {student.model: convnet_8}, said: {student.model: convnet_16, precision: float32}}
seeds: 3
"""


def test_auto_is_measured_once_for_each_student_that_asks() -> None:
    asked = auto_precision(spec_of(MODELS), "cpu")
    assert list(asked) == ["convnet_4", "convnet_8"]
    for model, config in asked.items():
        assert config["student"]["model"] == model
        assert {"dataset", "optimizer", "schedule"} <= set(config)
    assert auto_precision(spec_of(MODELS.replace(", precision: auto", "")), "cpu") == {}
    assert list(auto_precision(spec_of(MODELS.replace(", precision: auto", "")), "cuda")) == ["convnet_4", "convnet_8"]


def test_nothing_to_measure_starts_nothing() -> None:
    assert measure_here({}, 1, 0.0, []) == {}


def test_what_auto_came_to_is_said_with_both_times() -> None:
    measured = {"convnet_4": {"float32": 0.002, "bfloat16": 0.0011, "chosen": "bfloat16"}}
    (note,) = precision_notes(measured)
    assert note == "precision auto: bfloat16 for convnet_4 (a step takes 2 ms in float32, 1.1 ms in bfloat16)"


def test_what_was_not_measured_is_said_with_the_reason() -> None:
    (note,) = precision_notes({"convnet_4": {"chosen": "float32", "error": "it died"}})
    assert note == "precision auto: float32 for convnet_4, unmeasured (it died)"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache in which nothing is known yet."""
    monkeypatch.setenv("WSL_SWEEP_CACHE", str(tmp_path))
    return tmp_path


@pytest.mark.slow
def test_a_measurement_is_two_times_and_the_choice_that_follows_from_them(cache: Path) -> None:
    asked = auto_precision(spec_of("run: {recipe: digits, precision: auto}\nvariants: [kd, wsl]\n"), "cpu")
    measured = measure_here(asked, 1, 0.0, [])
    ((model, found),) = measured.items()
    assert "error" not in found
    assert model == "convnet_4"
    assert min(found["float32"], found["bfloat16"]) > 0
    assert found["chosen"] == ("bfloat16" if found["bfloat16"] < 0.95 * found["float32"] else "float32")
    (kept,) = (cache / "precision").glob("*.json")
    assert {name: json.loads(kept.read_text())[name] for name in found} == found
    assert measure_here(asked, 1, 0.0, []) == measured  # to the last digit: it was kept


@pytest.mark.parametrize(("gpu", "chosen"), [(0.0, "float32"), (1.0, "bfloat16")])
@pytest.mark.parametrize(
    ("out", "err", "why"),
    [
        ("", "Traceback\nMemoryError: no room\n\n", "MemoryError: no room"),
        ("not json\n", "", "its process ended with -9"),
    ],
)
def test_what_cannot_be_measured_is_what_auto_means_unmeasured(
    gpu: float, chosen: str, out: str, err: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = auto_precision(spec_of(MODELS), "cpu")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(stdout=out, stderr=err, returncode=-9))
    measured = measure_here(asked, 1, gpu, [])
    assert measured == {model: {"chosen": chosen, "error": why} for model in asked}
    assert why in precision_notes(measured)[0]


@pytest.mark.slow
def test_a_process_that_fails_is_no_end_of_the_sweep(cache: Path) -> None:
    asked = auto_precision(spec_of("run: {recipe: digits, precision: auto}\nvariants: [kd, wsl]\n"), "cpu")
    broken = {"nobodys.module:net": {**asked["convnet_4"], "student": {"model": "nobodys.module:net"}}}
    found = measure_here(broken, 1, 0.0, [])["nobodys.module:net"]
    assert found["chosen"] == "float32"
    assert "nobodys" in found["error"]
