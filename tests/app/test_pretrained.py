"""torchvision's pretrained teachers: by name, from torch's own folder of downloads, and kept as every teacher is."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from torch import nn
from torchvision import models

from wsl_sweep.app.preparing import teacher_notes
from wsl_sweep.app.pretrained import fetch_teacher, prepare_teachers, pretrained_notes
from wsl_sweep.app.teachers import import_teacher
from wsl_sweep.app.world import LocalWorld
from wsl_sweep.cli import main
from wsl_sweep.errors import WslSweepError
from wsl_sweep.models import build
from wsl_sweep.spec.loading import CommandLine, SpecErrors, parse_spec
from wsl_sweep.spec.plan import ablation_cells
from wsl_sweep.spec.pretrained import kept_weights, note_of
from wsl_sweep.spec.spec import Spec
from wsl_sweep.training import TeacherStore
from wsl_sweep.training.weights import load_tensors

NAME = "shufflenet_v2_x0_5"
MODEL, WEIGHTS = f"torchvision:{NAME}", "torchvision:IMAGENET1K_V1"
OF_IT = f"teacher: {{model: 'torchvision:{NAME}', checkpoint: 'torchvision:IMAGENET1K_V1'}}"
TEXT = f"run: {{recipe: digits, {OF_IT}}}\nvariants: [ce, kd]\nseeds: 2\n"


@dataclass
class Hub:
    """What torch's downloads would be: a folder, and a file that lies somewhere else."""

    folder: Path
    source: Path
    net: nn.Module
    downloads: list[str]

    @property
    def file(self) -> Path:
        return self.folder / self.source.name

    def put(self) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.source, self.file)
        return self.file


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A published teacher of ten classes with a made-up file; nothing reaches a network."""
    monkeypatch.setenv("WSL_SWEEP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    net = models.get_model(NAME, weights=None, num_classes=10)
    torch.save(net.state_dict(), tmp_path / "made.pth")
    digest = hashlib.sha256((tmp_path / "made.pth").read_bytes()).hexdigest()
    source = (tmp_path / "made.pth").rename(tmp_path / f"shufflenetv2_x0.5-{digest[:8]}.pth")
    entry = models.get_model_weights(NAME)["IMAGENET1K_V1"]
    monkeypatch.setattr(entry.value, "url", f"https://example.invalid/models/{source.name}")
    monkeypatch.setitem(entry.value.meta, "categories", [f"class {index}" for index in range(10)])
    found = Hub(tmp_path / "torch" / "hub" / "checkpoints", source, net, [])

    def refuse(url: str, *_: Any, **__: Any) -> None:
        found.downloads.append(url)
        raise URLError("Temporary failure in name resolution")

    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    threads = torch.get_num_threads()
    yield found
    torch.set_num_threads(threads)


def spec_of(text: str = TEXT, *sets: str, world: bool = False) -> Spec:
    return parse_spec(text, "file.yaml", CommandLine(sets=sets), world=LocalWorld([]) if world else None)


def checkpoint_of(spec: Spec) -> Any:
    return spec.config(spec.variants["kd"])["teacher"].get("checkpoint")


# --- fetching --------------------------------------------------------------------------------------------------------


def test_weights_in_torchs_folder_become_a_teacher_of_the_store(hub: Hub) -> None:
    file = hub.put()
    card = fetch_teacher(MODEL, WEIGHTS)
    assert card["origin"] == f"torchvision {NAME} IMAGENET1K_V1"
    assert (card["model"], card["num_classes"], card["seen_validation"]) == (MODEL, 10, True)
    assert card["source_sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    kept = kept_weights(MODEL, WEIGHTS)
    assert kept is not None
    assert kept == TeacherStore().weights(card["teacher_id"])
    tensors = load_tensors(kept)
    assert all(torch.equal(tensors[f"net.{key}"], value) for key, value in hub.net.state_dict().items())
    assert TeacherStore().card_of_file(kept) == card
    assert hub.downloads == []


def test_the_second_time_it_is_taken_from_the_store(hub: Hub) -> None:
    file = hub.put()
    first = fetch_teacher(MODEL, WEIGHTS)
    file.unlink()
    assert fetch_teacher(MODEL, WEIGHTS) == first
    assert hub.downloads == []


def test_its_id_is_that_of_the_same_file_brought_in_by_hand(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsl_sweep.app.teachers._validation_metrics", lambda network, data: {})
    card = import_teacher(hub.put(), MODEL, "digits")
    assert fetch_teacher(MODEL, WEIGHTS)["teacher_id"] == card["teacher_id"]


@pytest.mark.parametrize("damage", ["weights", "card", "note", "folder"])
def test_a_teacher_that_was_damaged_in_the_store_is_made_anew(damage: str, hub: Hub) -> None:
    hub.put()
    card = fetch_teacher(MODEL, WEIGHTS)
    folder = TeacherStore().weights(card["teacher_id"]).parent
    if damage == "weights":
        (folder / "weights.safetensors").write_bytes(b"cut short")
    elif damage == "card":
        (folder / "card.json").write_text("{")
    elif damage == "note":
        note_of(MODEL, WEIGHTS).write_text("../../elsewhere")
    else:
        shutil.rmtree(folder)
    again = fetch_teacher(MODEL, WEIGHTS)
    assert (again["teacher_id"], again["sha256"]) == (card["teacher_id"], card["sha256"])
    assert TeacherStore().card(card["teacher_id"]) is not None


def test_what_is_not_there_is_downloaded_once_and_its_hash_is_asked_for(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = []

    def download(url: str, destination: str, hash_prefix: str | None, progress: bool) -> None:
        calls.append((url, hash_prefix))
        shutil.copy(hub.source, destination)

    monkeypatch.setattr("torch.hub.download_url_to_file", download)
    card = fetch_teacher(MODEL, WEIGHTS)
    assert fetch_teacher(MODEL, WEIGHTS) == card
    assert calls == [(f"https://example.invalid/models/{hub.source.name}", hub.source.stem.rpartition("-")[2])]
    assert hub.file.is_file()
    assert capsys.readouterr().out == ""


def test_without_a_network_one_message_says_what_is_missing_where_and_what_to_do(hub: Hub) -> None:
    with pytest.raises(WslSweepError) as caught:
        fetch_teacher(MODEL, WEIGHTS)
    said = str(caught.value)
    for part in (MODEL, "IMAGENET1K_V1", hub.source.name, str(hub.folder), "name resolution", ".safetensors"):
        assert part in said
    assert "\n" not in said
    assert caught.value.exit_code == 2
    assert len(hub.downloads) == 1
    assert kept_weights(MODEL, WEIGHTS) is None


def test_a_file_whose_hash_is_not_that_of_its_name_is_refused(hub: Hub) -> None:
    file = hub.put()
    with file.open("ab") as end:
        end.write(b"x")
    with pytest.raises(WslSweepError, match=f"{re.escape(file.name)} is damaged: its SHA-256 begins with"):
        fetch_teacher(MODEL, WEIGHTS)


class Bomb:
    """Would run a command when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch exploded",)


def test_nothing_in_a_file_is_run(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.folder.mkdir(parents=True)
    entry = models.get_model_weights(NAME)["IMAGENET1K_V1"]
    monkeypatch.setattr(entry.value, "url", "https://example.invalid/bomb.pth")
    torch.save({"x": Bomb()}, hub.folder / "bomb.pth")
    with pytest.raises(WslSweepError, match=r"bomb\.pth: refused, it holds"):
        fetch_teacher(MODEL, WEIGHTS)
    assert not Path("exploded").exists()


def test_weights_of_another_model_are_refused_entry_by_entry(hub: Hub) -> None:
    torch.save(build("convnet_2", 10).state_dict(), hub.source)
    digest = hashlib.sha256(hub.source.read_bytes()).hexdigest()
    entry = models.get_model_weights(NAME)["IMAGENET1K_V1"]
    entry.value.url = f"https://example.invalid/models/other-{digest[:8]}.pth"  # put back by the fixture
    hub.folder.mkdir(parents=True)
    shutil.copy(hub.source, hub.folder / f"other-{digest[:8]}.pth")
    with pytest.raises(WslSweepError, match=f"does not hold the weights of {MODEL}: missing: net"):
        fetch_teacher(MODEL, WEIGHTS)


# --- in files --------------------------------------------------------------------------------------------------------


def test_a_trial_has_the_file_once_it_is_here_and_its_content_in_its_id(hub: Hub, tmp_path: Path) -> None:
    spec = spec_of()
    assert checkpoint_of(spec) == WEIGHTS
    hub.put()
    prepare_teachers(spec)
    kept = kept_weights(MODEL, WEIGHTS)
    assert checkpoint_of(spec) == str(kept)
    assert spec.flat_config(spec.variants["kd"])["teacher.checkpoint"] == WEIGHTS
    shutil.copy(str(kept), tmp_path / "copy.safetensors")
    ids = [
        [trial.trial_id for cell in ablation_cells(one) for trial in cell.trials]
        for one in (spec, spec_of(TEXT.replace(WEIGHTS, str(tmp_path / "copy.safetensors"))))
    ]
    assert len(set(ids[0])) == 4
    assert ids[0] == ids[1]
    (note,) = teacher_notes(spec)
    assert f"(torchvision {NAME} IMAGENET1K_V1) has seen the validation part" in note


def test_a_sweep_without_a_teacher_fetches_none(hub: Hub) -> None:
    prepare_teachers(spec_of("run: {recipe: digits}\nvariants: [kd]\n"))
    text = "run: {recipe: imagenet/resnet34-resnet18, dataset.root: pictures}\nvariants: [ce]\n"
    prepare_teachers(spec_of(text))
    assert hub.downloads == []


@pytest.mark.parametrize("place", ["run", "variant", "space", "--set"])
def test_weights_may_be_named_wherever_a_checkpoint_may(place: str, hub: Hub) -> None:
    hub.put()
    model = f"teacher.model: '{MODEL}'"
    texts = {
        "run": f"run: {{recipe: digits, {OF_IT}}}\nvariants: [kd]\n",
        "variant": f"run: {{recipe: digits, {model}}}\nvariants: {{kd: {{teacher.checkpoint: '{WEIGHTS}'}}}}\n",
        "space": f"run: {{recipe: digits, {model}}}\nspace: {{teacher.checkpoint: {{grid: ['{WEIGHTS}']}}}}\n"
        "variants: [kd]\n",
        "--set": f"run: {{recipe: digits, {model}}}\nvariants: [kd]\n",
    }
    spec = spec_of(texts[place], *([f"teacher.checkpoint={WEIGHTS}"] if place == "--set" else []))
    prepare_teachers(spec)
    (trial, *_) = ablation_cells(spec)[0].trials
    assert trial.config["teacher"]["checkpoint"] == str(kept_weights(MODEL, WEIGHTS))


def test_none_takes_a_checkpoint_away(hub: Hub) -> None:
    spec = spec_of(TEXT, "teacher.checkpoint=none", "teacher.model=convnet_4")
    assert spec.config(spec.variants["kd"])["teacher"]["schedule"]["epochs"] == 60
    assert checkpoint_of(spec) is None
    grid = f"run: {{recipe: digits, teacher.model: '{MODEL}'}}\nvariants: [kd]\nseeds: 1\n"
    grid += f"space: {{teacher.checkpoint: {{grid: [none, '{WEIGHTS}']}}}}\n"
    hub.put()
    cells = ablation_cells(spec_of(grid))
    assert [trial.config["teacher"].get("checkpoint") for cell in cells for trial in cell.trials] == [None, WEIGHTS]
    digits = "run: {recipe: digits}\nvariants: [ce, kd]\n"
    one, same = spec_of(digits), spec_of(digits, "teacher.checkpoint=none")
    assert one.config(one.variants["kd"]) == same.config(same.variants["kd"])


@pytest.mark.parametrize(
    ("model", "weights", "said"),
    [
        (MODEL, "torchvision:IMAGENET1K_V9", f'no weights "IMAGENET1K_V9" of {NAME}; it has torchvision:IMAGENET1K_V1'),
        ("torchvision:mobilenet_v2", "torchvision:DEFAULT1", "torchvision:IMAGENET1K_V1, torchvision:IMAGENET1K_V2"),
        ("convnet_4", WEIGHTS, "are weights of a model of torchvision, and teacher.model is convnet_4"),
        ("torchvision:mobilenet_v3_small", WEIGHTS, "it tells 1000 classes apart, and the data have 10"),
    ],
)
def test_what_torchvision_has_not_or_does_not_fit_is_told_at_its_line(
    model: str, weights: str, said: str, hub: Hub
) -> None:
    text = f"run:\n  recipe: digits\n  teacher:\n    model: '{model}'\n    checkpoint: '{weights}'\nvariants: [kd]\n"
    with pytest.raises(SpecErrors) as caught:
        spec_of(text, world=True)
    (problem,) = caught.value.problems
    assert (problem.line, problem.path) == (5, "run.teacher.checkpoint")
    assert said in problem.what
    assert hub.downloads == []


def test_whether_weights_fit_is_known_without_them(hub: Hub) -> None:
    assert checkpoint_of(spec_of(world=True)) == WEIGHTS
    assert hub.downloads == []
    assert not hub.folder.exists()


@pytest.mark.parametrize("value", ["torchvision:", "torchvision:a/../b", "torchvision:A B", "torch:IMAGENET1K_V1"])
def test_what_is_no_name_of_weights_is_a_mistake(value: str, hub: Hub) -> None:
    with pytest.raises(SpecErrors, match=r"must be a \.safetensors file.*torchvision:WEIGHTS, or none"):
        spec_of(f"run: {{recipe: digits, teacher.checkpoint: '{value}'}}\nvariants: [kd]\n")


def test_plan_says_where_it_will_come_from(hub: Hub) -> None:
    (note,) = pretrained_notes(spec_of())
    assert note.startswith(f"the teacher {MODEL}, {WEIGHTS} (5 MB), is not kept yet: a run downloads it to ")
    hub.put()
    (note,) = pretrained_notes(spec_of())
    assert note.endswith(f"a run takes it from {hub.file}")
    fetch_teacher(MODEL, WEIGHTS)
    assert pretrained_notes(spec_of()) == []
    assert hub.downloads == []


# --- from the command line -------------------------------------------------------------------------------------------


@pytest.fixture
def wsl(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """``wsl-sweep ARGUMENTS`` in this process: exit code, output, errors."""

    def command(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["wsl-sweep", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        output = capsys.readouterr()
        return int(ended.value.code or 0), output.out, output.err

    return command


def test_a_run_without_weights_ends_with_2_before_anything_is_started(
    hub: Hub, wsl: Callable[..., tuple[int, str, str]]
) -> None:
    Path("s.yaml").write_text(TEXT)
    code, _, errors = wsl("run", "s.yaml")
    assert code == 2
    (said,) = [line for line in errors.splitlines() if "cannot be downloaded" in line]
    assert hub.source.name in said
    assert str(hub.folder) in said
    assert "Traceback" not in errors
    assert not Path("runs").exists()
    code, shown, _ = wsl("plan", "s.yaml")
    assert code == 0
    assert "is not kept yet: a run downloads it to" in " ".join(shown.split())
    assert len(hub.downloads) == 1
    code, _, errors = wsl(
        "teacher", "train", "--set", f"teacher.model={MODEL}", "--set", f"teacher.checkpoint={WEIGHTS}"
    )
    assert code == 2
    assert "--set teacher.checkpoint=none trains one" in errors


def test_a_student_learns_from_a_pretrained_teacher(hub: Hub, wsl: Callable[..., tuple[int, str, str]]) -> None:
    hub.put()
    options = [f"teacher.model={MODEL}", f"teacher.checkpoint={WEIGHTS}", "schedule.epochs=1", "schedule.milestones=[]"]
    code, shown, errors = wsl("train", *(part for option in options for part in ("--set", option)), "--json")
    assert code == 0, errors
    result = json.loads(shown)
    assert result["teacher"]["computed"] > 0
    assert result["config"]["teacher"]["checkpoint"] == str(kept_weights(MODEL, WEIGHTS))
