"""What a sweep rests on beside its file, and what becomes of it when that moves, changes or goes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import Workplace
from wsl_sweep.app.folders import list_sweeps, open_sweep
from wsl_sweep.app.preparing import notes_on_teacher, prepare_data, surroundings
from wsl_sweep.app.running import _check_surroundings
from wsl_sweep.app.world import LocalWorld, import_folders
from wsl_sweep.data import load, prepare
from wsl_sweep.errors import WslSweepError
from wsl_sweep.spec.distributions import Reading, reading
from wsl_sweep.spec.loading import CommandLine, SpecErrors, load_spec, parse_spec
from wsl_sweep.training import Job, TeacherStore, train_teacher

FOLDER = "run: {recipe: image_folder, dataset: {root: pics}}\nvariants: [kd]\nseeds: 1\n"


def put_pictures(root: Path, count: int = 6, *, shade: int = 0, mode: str = "RGB", suffix: str = "bmp") -> Path:
    """Two classes; the pictures' bytes differ with ``shade``, their sizes do not."""
    for label, name in enumerate("ab"):
        (root / name).mkdir(parents=True)
        for index in range(count):
            value = shade + 40 * label + index
            shape = (8, 8) if mode == "L" else (8, 8, 3)
            Image.fromarray(np.full(shape, value, np.uint8)).save(root / name / f"{index}.{suffix}")
    return root


def save_sweep(place: Path, text: str, **plan: Any) -> Path:
    place.mkdir(parents=True)
    (place / "sweep.yaml").write_text(text)
    line = {"sets": [], "recipe": None, "trials": None, "seeds": None, "name": None}
    (place / "plan.json").write_text(json.dumps({"command_line": line, "created": "", "stages": {"a": 3}, **plan}))
    return place


def test_a_sweep_is_opened_with_the_places_of_where_it_was_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, elsewhere = tmp_path / "begun", tmp_path / "elsewhere"
    put_pictures(begun / "pics")
    put_pictures(elsewhere / "pics")
    folder = save_sweep(tmp_path / "runs" / "s", FOLDER, folder=str(begun))
    monkeypatch.chdir(elsewhere)
    spec, _ = open_sweep(folder)
    assert spec.config(spec.variants["kd"])["dataset"]["root"] == str(begun / "pics")


def test_a_sweep_whose_pictures_or_code_have_changed_does_not_go_on(tmp_path: Path) -> None:
    put_pictures(tmp_path / "pics")
    (tmp_path / "own_code_that_changes.py").write_text("def loss(student_logits):\n    return student_logits.mean()\n")
    method = "distillation: {method: 'own_code_that_changes:loss'}"
    text = f"run: {{recipe: image_folder, {method}, dataset: {{root: pics}}}}\nvariants: [a, b]\nseeds: 1\n"
    text = text.replace("[a, b]", "{a: {optimizer.lr: 0.1}, b: }")
    with reading(Reading(str(tmp_path))):
        spec = parse_spec(text, "s")
    sys.path.append(str(tmp_path))
    plan = {"surroundings": surroundings(spec)}
    assert len(plan["surroundings"]) == 2
    assert all(plan["surroundings"].values())
    _check_surroundings(spec, plan)
    (tmp_path / "own_code_that_changes.py").write_text("def loss(student_logits):\n    return student_logits.sum()\n")
    with pytest.raises(WslSweepError, match="the code of own_code_that_changes:loss changed"):
        _check_surroundings(spec, plan)
    put_pictures(tmp_path / "new", shade=1)
    (tmp_path / "new" / "a" / "3.bmp").replace(tmp_path / "pics" / "a" / "3.bmp")
    with pytest.raises(WslSweepError, match=r"the pictures in .*pics, the code of"):
        _check_surroundings(spec, plan)


def test_pictures_of_the_same_names_and_sizes_are_other_data_for_teacher_and_trial(tmp_path: Path) -> None:
    jobs = []
    for name, shade in (("one", 0), ("two", 100), ("copy", 0)):
        root = put_pictures(tmp_path / name, shade=shade)
        spec = parse_spec(FOLDER.replace("root: pics", f"root: {root}"), "s")
        jobs.append(Job(spec.config(spec.variants["kd"])))
    teachers = [job.teacher() for job in jobs]
    assert all(named is not None for named in teachers)
    ids = [named[0] for named in teachers if named is not None]
    assert ids[0] == ids[2] != ids[1]


def test_a_sweep_that_is_over_can_be_opened_when_its_teacher_is_gone(tmp_path: Path) -> None:
    text = f"run: {{recipe: digits, teacher: {{checkpoint: {tmp_path / 'gone.safetensors'}}}}}\nvariants: [kd]\n"
    spec, _ = open_sweep(save_sweep(tmp_path / "runs" / "s", text))
    assert spec.flat_config({})["teacher.checkpoint"].endswith("gone.safetensors")
    with pytest.raises(SpecErrors, match="there is no file"):
        open_sweep(tmp_path / "runs" / "s", LocalWorld([]))


def test_listing_sweeps_runs_nothing_of_what_they_name(tmp_path: Path) -> None:
    (tmp_path / "handed_over_package").mkdir()
    (tmp_path / "handed_over_package" / "__init__.py").write_text("raise SystemExit('ran')\n")
    text = "run: {recipe: digits, teacher: {model: 'handed_over_package.net:Net'}}\nvariants: [kd]\n"
    save_sweep(tmp_path / "runs" / "s", text, import_folders=[str(tmp_path)], description="why?")
    (found,) = list_sweeps(str(tmp_path / "runs"))
    assert (found["planned"], found["description"]) == (3, "why?")
    assert "handed_over_package" not in sys.modules


@pytest.mark.parametrize("name", ["pics #1", "a: b", "yes", "[x]", "1e3", "häuser und bäume"])
def test_a_folder_in_set_is_taken_as_it_is_typed(name: str, tmp_path: Path) -> None:
    root = put_pictures(tmp_path / name)
    for text in (f"dataset.root={root}", f"dataset.root='{root}'"):
        spec = parse_spec("variants: [ce]", "s", CommandLine(recipe="image_folder", sets=(text,)))
        assert spec.pins["dataset.root"] == str(root)


def test_a_folder_that_only_a_swept_recipe_needs_is_missed_in_the_file() -> None:
    text = "run: {recipe: digits}\nvariants: [ce]\nspace: {recipe: {grid: [digits, image_folder]}}\n"
    with pytest.raises(SpecErrors, match=r"dataset.root has no value; .*--set dataset.root=FOLDER"):
        parse_spec(text, "s")


def test_too_few_pictures_for_a_test_part_are_told_before_anything_starts(tmp_path: Path) -> None:
    put_pictures(tmp_path / "pics", count=2)
    text = FOLDER.replace("root: pics", f"root: {tmp_path / 'pics'}, validation_fraction: 0.5")
    with pytest.raises(WslSweepError, match="has no test part"):
        prepare_data(parse_spec(text, "s"))


def test_the_test_part_does_not_decide_how_many_channels_there_are(tmp_path: Path) -> None:
    put_pictures(tmp_path / "train", mode="L")
    put_pictures(tmp_path / "test", mode="RGB", shade=3)
    config = {"name": "image_folder", "root": str(tmp_path), "size": 8, "validation_fraction": 0.3}
    config |= {"train_fraction": 1.0, "label_noise": 0.0, "padding": 0, "flip": False, "views": "all"}
    assert load(config).in_channels == 1
    assert prepare(config, need_test=True) == ()


EXITS = """
import sys
import torch
from torch import nn


class Leaving(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        sys.exit(0)


def leaving(student_logits):
    sys.exit(0)


def per_class(student_logits):
    return (student_logits * torch.ones(10)).mean(dim=1)


def same_width(student_features, teacher_features):
    return (student_features - teacher_features).square().mean()


def anything(student_logits, **rest):
    return student_logits.mean(dim=1)
"""


def test_users_code_that_leaves_is_a_mistake_and_right_code_is_tried_in_true_widths(tmp_path: Path) -> None:
    (tmp_path / "own_code_that_leaves.py").write_text(EXITS)
    own = "own_code_that_leaves"
    (tmp_path / "s.yaml").write_text(
        f"""
run: {{recipe: digits}}
variants:
  model: {{student.model: "{own}:Leaving"}}
  loss: {{distillation.method: "{own}:leaving"}}
  classes: {{distillation.method: "{own}:per_class"}}
  widths: {{distillation.method: "{own}:same_width", student.model: convnet_8, teacher.model: convnet_8}}
  rest: {{distillation.method: "{own}:anything", student.model: "torchvision:squeezenet1_1", dataset.padding: 0}}
"""
    )
    with pytest.raises(SpecErrors) as caught:
        load_spec(tmp_path / "s.yaml", CommandLine(), LocalWorld(import_folders(tmp_path / "s.yaml")))
    wrong = {problem.path.split(".")[1]: problem.what for problem in caught.value.problems}
    assert "calls sys.exit" in wrong["model"]
    assert "calls sys.exit" in wrong["loss"]
    assert "classes" not in wrong
    assert "widths" not in wrong
    assert "needs features" not in wrong.get("rest", "")


def test_a_teacher_of_another_split_is_told(tmp_path: Path) -> None:
    quick = "teacher: {model: convnet_2, schedule: {epochs: 1, milestones: []}}"
    store = TeacherStore()
    notes = []
    for fraction in (0.3, 0.05):
        text = f"run: {{recipe: digits, dataset: {{validation_fraction: {fraction}}}, {quick}}}\nvariants: [kd]\n"
        job = Job(parse_spec(text, "s").config({"distillation.weighting.kind": "none"}))
        train_teacher(job, store)
        named = job.teacher()
        assert named is not None
        used = parse_spec("run: {recipe: digits}\nvariants: [kd]", "s").config({})
        used["teacher"] |= {"checkpoint": str(store.weights(named[0]))}
        notes.append(notes_on_teacher(used))
    assert notes[0] == []
    assert "was trained on another split" in notes[1][0]


@pytest.mark.slow
def test_users_prints_do_not_spoil_json(workplace: Workplace) -> None:
    (workplace.folder / "own_code_that_prints.py").write_text(
        "print('hello')\n\ndef loss(student_logits):\n    print('again')\n    return student_logits.mean(dim=1)\n"
    )
    arguments = ["train", "--json", "--set", "distillation.method=own_code_that_prints:loss"]
    arguments += ["--set", "schedule.epochs=1", "--set", "schedule.milestones=[]", "--set", "teacher.model=convnet_2"]
    arguments += ["--set", "teacher.schedule.epochs=1", "--set", "teacher.schedule.milestones=[]"]
    command = [sys.executable, "-m", "wsl_sweep", *arguments]
    done = subprocess.run(command, cwd=workplace.folder, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["epochs"] == 1
    assert "hello" in done.stderr


def test_the_random_state_is_left_alone_by_trying_a_users_model(tmp_path: Path) -> None:
    ask: Callable[..., Any] = LocalWorld([str(tmp_path)]).model_problem
    torch.manual_seed(5)
    before = torch.get_rng_state()
    assert ask("torchvision:squeezenet1_1", {"dataset.name": "cifar10"}) is None
    assert torch.equal(before, torch.get_rng_state())
