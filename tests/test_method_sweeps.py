"""Whole sweeps over methods, models and data that are not the defaults: users' own, imported teachers, real folders."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from tests.conftest import REPO, Workplace
from wsl_sweep.models import build

REAL_PICTURES = REPO.parent / "shared" / "data" / "cifar10_jpeg"

OWN_CODE = '''
import torch
import torch.nn.functional as F
from torch import nn

SEEN = []


def ramp(student_logits, teacher_logits, labels, epoch):
    """A loss an example that grows with the epoch: by epoch 3 it is three times what it was in the first."""
    return epoch * (1 - F.cosine_similarity(student_logits, teacher_logits, dim=1))


def hint(student_features, teacher_features):
    size = min(student_features.shape[1], teacher_features.shape[1])
    return F.mse_loss(student_features[:, :size], teacher_features[:, :size])


class Small(nn.Module):
    def __init__(self, num_classes, in_channels):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 6, 3, stride=2, padding=1)
        self.out = nn.Linear(6, num_classes)

    def features(self, images):
        return F.relu(self.conv(images)).mean(dim=(2, 3))

    def forward(self, images):
        return self.out(self.features(images))


class Plain(nn.Module):
    def __init__(self, num_classes, in_channels):
        super().__init__()
        self.out = nn.Linear(64 * in_channels, num_classes)

    def forward(self, images):
        return self.out(images.flatten(1))
'''


@pytest.mark.slow
def test_every_method_users_own_code_and_an_imported_teacher_in_one_sweep(workplace: Workplace) -> None:
    """Users' modules lie beside the file, and the command is typed elsewhere."""
    torch.manual_seed(1)
    published = build("convnet_6", 10, 1)
    torch.save({"epoch": 240, "model": published.state_dict()}, workplace.folder / "published.pth")
    arguments = ("teacher", "import", "published.pth", "--model", "convnet_6", "--recipe", "digits", "--json")
    card = json.loads(workplace.run(*arguments).split("validation part\n", 1)[-1])

    (workplace.folder / "mine").mkdir()
    (workplace.folder / "mine" / "own_code_of_a_test.py").write_text(OWN_CODE)
    own = "own_code_of_a_test"
    variants: dict[str, Any] = {
        "dkd": None,
        "dist": None,
        "rkd": None,
        "rkd_kd_wsl": None,
        "ramp": {"distillation": {"method": f"{own}:ramp", "weighting": {"kind": "exp"}, "keep": {"other": 0.5}}},
        "hint": {"distillation.method": f"{own}:hint", "student.model": f"{own}:Small"},
        "plain": {"student.model": f"{own}:Plain"},
        "vision": {"student.model": "torchvision:mobilenet_v3_small", "schedule.epochs": 1},
    }
    spec = {
        "run": {
            "recipe": "digits",
            "schedule": {"epochs": 3, "milestones": []},
            "teacher": {"model": "convnet_6", "checkpoint": card["teacher_id"]},
        },
        "variants": variants,
        "seeds": 1,
    }
    file = workplace.write("mine/every.yaml", yaml.safe_dump(spec, sort_keys=False))
    workplace.run("run", file)

    summary = workplace.summary("every")
    assert [trial["status"] for trial in summary["trials"]] == ["finished"] * len(variants)
    trials = {trial["variants"][0]: trial for trial in summary["trials"]}
    weighted = {name for name, trial in trials.items() if trial["metrics"].get("weight/mean", 1.0) != 1.0}
    assert weighted == {"rkd_kd_wsl", "ramp", "plain", "vision"}
    assert weighted == {name for name, trial in trials.items() if "weight/q50" in trial["metrics"]}
    counted = {name for name, trial in trials.items() if "regularization_samples/fraction" in trial["metrics"]}
    assert counted == set(variants) - {"rkd"}
    assert "weight/mean" not in trials["dist"]["metrics"]
    codes = {name: trial["fingerprint"]["own"] for name, trial in trials.items()}
    assert {name for name, code in codes.items() if code} == {"ramp", "hint", "plain"}
    assert any("has seen the validation part" in note and card["teacher_id"] in note for note in summary["notes"])
    assert {trial["fingerprint"]["teacher"] for trial in trials.values()} == {card["sha256"]}
    kept = load_file(card["weights"])
    assert all(torch.equal(kept[name], tensor) for name, tensor in published.state_dict().items())


@pytest.mark.slow
def test_what_only_importing_tells_is_in_the_list_of_mistakes_and_nothing_is_left(workplace: Workplace) -> None:
    workplace.write("own_code_of_another_test.py", OWN_CODE)
    file = workplace.write(
        "wrong.yaml",
        """
run: {recipe: digits}
variants:
  misspelt: {distillation.method: "own_code_of_another_test:rampp"}
  featureless: {distillation.method: rkd, student.model: "own_code_of_another_test:Plain"}
  whole: {distillation: {method: "own_code_of_another_test:hint", weighting: {kind: exp}}}
  nowhere: {student.model: "no_such_module_at_all:Net"}
  alhpa: {distillation.alhpa: 2}
""",
    )
    output = workplace.run("run", file, expect=2)
    lines = [line for line in output.splitlines() if line.startswith("  wrong.yaml:")]
    assert [line.split(":")[1] for line in lines] == ["4", "5", "6", "7", "8"]
    assert 'did you mean "ramp"?' in lines[0]
    assert "rkd needs features, and student.model" in lines[1]
    assert "no example's part of it can be weighted" in lines[2]
    assert 'no module is called "no_such_module_at_all"' in lines[3]
    assert 'did you mean "distillation.alpha"?' in lines[4]
    assert not (workplace.folder / "runs").exists()


def picture_folder(root: Path, *, size: int = 12, per_class: int = 24) -> None:
    """Two classes of colour pictures told apart by their brightness; one broken picture, one empty class."""
    generator = np.random.default_rng(0)
    for part, count in (("train", per_class), ("test", per_class // 3)):
        for label, name in enumerate(("dark", "light")):
            folder = root / part / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = generator.integers(0, 128, (size + index % 3, size, 3)) + 100 * label
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{index}.png")
    (root / "train" / "light" / "torn.jpg").write_bytes(b"\xff\xd8\xff\xe0 this is no picture")
    (root / "train" / "nothing").mkdir()


@pytest.mark.slow
def test_a_folder_with_a_broken_picture_and_an_empty_class_is_swept(workplace: Workplace) -> None:
    picture_folder(workplace.folder / "pictures")
    quick = ["--set", "schedule.epochs=2", "--set", "schedule.milestones=[]", "--set", "dataset.size=8"]
    quick += ["--set", "teacher.schedule.epochs=2", "--set", "teacher.schedule.milestones=[]"]
    models = ["--set", "teacher.model=resnet8", "--set", "student.model=wrn_16_1"]
    file = str(REPO / "search_spaces" / "controls.yaml")
    arguments = [file, "--recipe", "image_folder", "--set", "dataset.root=pictures", *quick, *models, "--seeds", "1"]
    output = workplace.run("run", *arguments)

    summary = workplace.summary("controls")
    assert {trial["status"] for trial in summary["trials"]} == {"finished"}
    notes = "\n".join(summary["notes"])
    assert "torn.jpg" in notes
    assert "class folder nothing has no pictures" in notes
    assert "torn.jpg" in output
    logits = load_file(
        workplace.folder / "runs" / "controls" / "trials" / summary["trials"][0]["trial_id"] / "test_logits.safetensors"
    )
    assert logits["logits"].shape == (16, 2)
    assert logits["labels"].tolist().count(1) == 8
    teachers = next(line for line in workplace.run("plan", *arguments).splitlines() if "teachers" in line)
    assert teachers.split() == ["teachers", "1", "1"]


@pytest.mark.slow
def test_an_ablation_on_real_pictures_runs_from_the_command_line(new_workplace: Callable[[str], Workplace]) -> None:
    if not REAL_PICTURES.is_dir():
        pytest.skip(f"no pictures in {REAL_PICTURES}")
    workplace = new_workplace("real")
    for part in ("train", "test"):
        with tarfile.open(REAL_PICTURES / f"{part}.tar.gz") as archive:
            some = archive.getmembers()[::16]  # the classes lie one behind the other: a part of each
            archive.extractall(workplace.folder / "pictures" / part, members=some, filter="data")
    file = str(REPO / "search_spaces" / "tab2_masking.yaml")
    arguments = ["--recipe", "image_folder", "--set", "dataset.root=pictures", "--set", "dataset.train_fraction=0.8"]
    arguments += ["--set", "schedule.milestones=[]", "--seeds", "1"]
    arguments += ["--set", "schedule.epochs=2", "--set", "teacher.schedule.epochs=3"]
    arguments += ["--set", "teacher.schedule.milestones=[]"]
    workplace.run("run", file, *arguments, timeout=900)
    summary = workplace.summary("tab2_masking")
    assert len(summary["trials"]) == 7
    assert {trial["status"] for trial in summary["trials"]} == {"finished"}
    assert all(trial["metrics"]["test/accuracy"] > 0.15 for trial in summary["trials"])  # of ten classes
