"""ImageNet's folders where a sweep is prepared, where a node is asked, and where a student's card is written."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from tests.data.imagenet_folders import CLASSES, config, cut_off, fill
from wsl_sweep.app import examples
from wsl_sweep.app.card_facts import seen_by
from wsl_sweep.app.preparing import prepare_data, surroundings
from wsl_sweep.app.world import LocalWorld
from wsl_sweep.data import load
from wsl_sweep.errors import WslSweepError
from wsl_sweep.spec.loading import CommandLine, SpecErrors, parse_spec
from wsl_sweep.spec.spec import Spec
from wsl_sweep.sweep.conductor import Task
from wsl_sweep.sweep.nodes import ask_node
from wsl_sweep.sweep.trainable import _job


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSL_SWEEP_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return fill(tmp_path / "pics", train=8, val=2)


def spec_of(root: Path, *sets: str, student: str = "convnet_2") -> Spec:
    text = (
        "run:\n  recipe: digits\n"
        f"  dataset: {{name: imagenet, root: '{root}', size: 32, flip: true, views: 2, validation_fraction: 0.25}}\n"
        f"  student: {{model: '{student}'}}\nvariants: [wsl]\nseeds: 1\n"
    )
    return parse_spec(text, "s", CommandLine(sets=sets), world=LocalWorld([]))


def test_damaged_pictures_are_told_before_a_sweep_starts(root: Path) -> None:
    assert prepare_data(spec_of(root)) == []
    broken = cut_off(root / "train" / CLASSES[1] / f"{CLASSES[1]}_train_3.JPEG")
    os.utime(broken.parent)  # a process looks again where a folder has changed; another one does in any case
    with pytest.raises(WslSweepError, match=broken.name):
        prepare_data(spec_of(root))
    (note,) = prepare_data(spec_of(root, "dataset.damaged=skip"))
    assert broken.name in note


def test_a_sweep_notices_that_its_pictures_are_others(root: Path) -> None:
    spec = spec_of(root)
    before = surroundings(spec)
    assert list(before) == [f"the pictures in {root}"]
    assert surroundings(spec) == before
    (root / "train" / CLASSES[0] / f"{CLASSES[0]}_train_0.JPEG").unlink()
    assert surroundings(spec) != before


@pytest.mark.parametrize("part", ["train", "val"])
def test_another_layout_is_told_at_its_line(root: Path, part: str) -> None:
    (root / part).rename(root / "moved")
    with pytest.raises(SpecErrors) as caught:
        spec_of(root)
    (problem,) = caught.value.problems
    assert (problem.line, problem.path) == (3, "run.dataset.root")
    assert f"{part}: there is no such folder" in problem.what


def test_a_model_is_tried_on_colour_pictures_of_the_size_and_classes(root: Path) -> None:
    with pytest.raises(SpecErrors, match="torchvision"):
        spec_of(root, student="torchvision:no_such_model")
    spec_of(root, student="torchvision:squeezenet1_1")


def test_a_node_counts_pictures_and_tells_others_from_the_drivers(root: Path, tmp_path: Path) -> None:
    asked = {"data": [{"name": "imagenet", "root": str(root)}]}
    (own,) = ask_node(asked)["data"]["sets"]
    assert own["found"] == "24 training and 6 test pictures of 3 classes"
    other = fill(tmp_path / "other", train=8, val=2)
    (same,) = ask_node({"data": [{"name": "imagenet", "root": str(other)}]})["data"]["sets"]
    assert same["content"] == own["content"]
    cut_off(other / "val" / CLASSES[0] / f"{CLASSES[0]}_val_0.JPEG")
    (other / "val" / CLASSES[0] / "new.JPEG").touch()
    (another,) = ask_node({"data": [{"name": "imagenet", "root": str(other)}]})["data"]["sets"]
    assert another["content"] != own["content"]
    (gone,) = ask_node({"data": [{"name": "imagenet", "root": str(tmp_path / "gone")}]})["data"]["sets"]
    assert "there is no such folder" in gone["error"]


def test_a_workers_job_has_the_processes_of_the_file(root: Path) -> None:
    from wsl_sweep.spec.plan import ablation_cells

    trial = ablation_cells(spec_of(root))[0].trials[0]
    task = json.loads(json.dumps({**Task("train", "k", (trial,)).to_json(), "bank": {}, "gpu": 0.0, "workers": 3}))
    assert _job(task, trial).workers == 3


def test_a_card_says_what_the_pictures_are(root: Path) -> None:
    from wsl_sweep.spec.plan import ablation_cells
    from wsl_sweep.sweep.ledger import TrialState

    state = TrialState(ablation_cells(spec_of(root))[0].trials[0])
    data = load(config(root, views=2))
    told = seen_by(state, data)
    assert told.normalised is not None
    assert (told.channels, told.shape, told.normalised.scale) == (3, (3, 32, 32), 255.0)
    assert told.normalised.mean == (0.485, 0.456, 0.406)
    assert told.normalised.std == (0.229, 0.224, 0.225)
    assert told.names == CLASSES
    assert told.views == 2
    pixels = torch.full((1, 3, 32, 32), 255.0)
    mean, std = (torch.tensor(one).view(1, 3, 1, 1) for one in (told.normalised.mean, told.normalised.std))
    assert data.train.views.plain(torch.arange(18)).max() <= float(
        ((pixels / told.normalised.scale - mean) / std).max()
    )


def test_of_a_large_part_a_few_examples_are_shown_from_all_over_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = config(root)
    train = load(section).train
    assert examples._few(train, section) is train
    monkeypatch.setattr(examples, "SHOWN", 4)
    few = examples._few(train, section)
    assert len(few) == 4
    assert few.ids.tolist() == [train.ids.tolist()[row] for row in (0, 5, 11, 17)]
    assert torch.equal(few.labels, train.labels[[0, 5, 11, 17]])
    rows = torch.arange(4)
    assert torch.equal(few.views.plain(rows), train.views.plain(torch.tensor([0, 5, 11, 17])))
