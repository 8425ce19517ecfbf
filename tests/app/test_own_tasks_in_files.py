"""A file that names a user's own task: tried before anything starts, told at its line, part of what a trial is."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from wsl_sweep.app.preparing import prepare_data, surroundings
from wsl_sweep.app.world import LocalWorld
from wsl_sweep.data import forget
from wsl_sweep.data.dataset import task_of
from wsl_sweep.spec import CommandLine, Spec, SpecErrors, parse_spec
from wsl_sweep.spec.identity import data_identity
from wsl_sweep.spec.yaml_lines import Problem
from wsl_sweep.sweep.nodes import ask_node
from wsl_sweep.training.fingerprint import own_code

TASK = """
import torch
from torch import nn
from wsl_sweep.data import Task


class Vectors(Task):
    num_classes, in_channels = 3, 4

    def __init__(self, root):
        self.points = torch.randn(90, 4, generator=torch.Generator().manual_seed(0))
        self.labels = torch.arange(90) % 3

    def take(self, rows, views):
        return self.points[rows]

    def metrics(self, logits, labels):
        return {"top2": float((logits.topk(2).indices == labels[:, None]).any(dim=1).float().mean())}


class Tokens(Vectors):
    in_channels = 9

    def take(self, rows, views):
        return rows[:, None].expand(-1, 5) % 9


class Random(Vectors):
    def take(self, rows, views):
        return torch.randn(len(rows), 4)


def small(num_classes, in_channels):
    return nn.Linear(in_channels, num_classes)


def reader(num_classes, in_channels):
    return nn.Sequential(nn.EmbeddingBag(in_channels, 6), nn.Linear(6, num_classes))
"""
FILE = """run:
  recipe: digits
  dataset: {name: "MODULE:TASK"}
  student: {model: "MODULE:MODEL"}
  teacher: {model: "MODULE:MODEL"}
variants: [kd, ce]
compare: {metric: test/top2}
"""

_numbers = itertools.count()


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a module of a user's."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    name = f"users_vectors_{next(_numbers)}"
    (tmp_path / f"{name}.py").write_text(TASK)
    yield name
    forget()


def read(folder: Path, module: str, task: str = "Vectors", model: str = "small", *sets: str) -> Spec:
    text = FILE.replace("MODULE", module).replace("TASK", task).replace("MODEL", model)
    return parse_spec(text, "file.yaml", CommandLine(sets=sets), world=LocalWorld([str(folder)]))


def problems(folder: Path, module: str, *arguments: str) -> list[Problem]:
    with pytest.raises(SpecErrors) as caught:
        read(folder, module, *arguments)
    return caught.value.problems


@pytest.mark.parametrize(("task", "model"), [("Vectors", "small"), ("Tokens", "reader")])
def test_models_are_tried_on_the_tasks_own_inputs(tmp_path: Path, module: str, task: str, model: str) -> None:
    assert read(tmp_path, module, task, model).config({})["dataset"]["name"] == f"{module}:{task}"


def test_a_model_that_does_not_fit_is_told_with_what_it_was_given(tmp_path: Path, module: str) -> None:
    (student, teacher) = problems(tmp_path, module, "Tokens", "small")
    assert (student.line, student.path, teacher.line) == (4, "run.student.model", 5)
    what = f'"{module}:small" fails on {module}:Tokens\'s inputs of 5 (int64): RuntimeError'
    assert student.what.startswith(what)


def test_one_of_our_models_is_tried_too(tmp_path: Path, module: str) -> None:
    (problem,) = problems(tmp_path, module, "Vectors", "small", "student.model=convnet_2")
    assert (problem.line, problem.path) == (None, "--set student.model")
    assert "fails on" in problem.what


def test_a_task_that_is_wrong_is_told_once_and_at_its_line(tmp_path: Path, module: str) -> None:
    (problem,) = problems(tmp_path, module, "Random")
    assert (problem.line, problem.path) == (3, "run.dataset.name")
    assert problem.what.startswith(f'"{module}:Random": two calls of take give different inputs of the same rows')
    (problem,) = problems(tmp_path, module, "Vector")
    assert problem.what == f'"{module}:Vector": {module} has nothing called "Vector"; did you mean "Vectors"?'
    (problem,) = problems(tmp_path, module, "small")
    assert problem.what == f'"{module}:small" is no subclass of wsl_sweep.data.Task'


def test_its_data_are_looked_at_before_a_sweep(tmp_path: Path, module: str) -> None:
    assert prepare_data(read(tmp_path, module)) == []
    with pytest.raises(Exception, match=r"the validation part of .* has 0 examples"):
        prepare_data(read(tmp_path, module, "Vectors", "small", "dataset.validation_fraction=0.01"))


def test_its_code_is_part_of_what_a_trial_is(tmp_path: Path, module: str) -> None:
    spec = read(tmp_path, module)
    config = spec.config({})
    code = data_identity(config["dataset"])["code"]
    assert code is not None
    assert surroundings(spec)[f"the code of {module}:Vectors"] == code
    assert surroundings(spec)[f"the data of {module}:Vectors"] == task_of(config["dataset"]).digest
    alone = {**config, "student": {"model": "convnet_2"}, "distillation": {"method": "none"}}
    alone.pop("teacher")
    assert own_code(alone) is not None
    assert own_code({**alone, "dataset": {"name": "digits"}}) is None
    assert "code" not in data_identity({"name": "digits"})


def test_a_node_says_whether_it_can_import_it(tmp_path: Path, module: str) -> None:
    asked = {
        "data": [{"name": f"{module}:Vectors", "root": None}],
        "modules": {"names": [f"{module}:Vectors", "nowhere_at_all:Own"], "folders": [str(tmp_path)]},
    }
    answers = ask_node(asked)
    assert answers["data"]["sets"][0]["found"] == "is made by its code"
    assert answers["modules"]["names"][f"{module}:Vectors"]["code"] is not None
    assert "no module is called" in answers["modules"]["names"]["nowhere_at_all:Own"]["error"]
