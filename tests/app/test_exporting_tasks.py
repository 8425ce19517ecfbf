"""Students of users' own tasks and of texts are taken away like those of pictures; the card says what they read."""

from __future__ import annotations

import itertools
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
import yaml
from torch import Tensor

from wsl_sweep.app import export_student, soft_labels
from wsl_sweep.app.export_formats import _read_onnx, write_student
from wsl_sweep.data import forget, load
from wsl_sweep.tracking.settings import Tracking
from wsl_sweep.tracking.students import log_student

from .exported_sweep import MadeSweep

CODE = """
import torch
from torch import nn
from wsl_sweep.data import Inputs, Task


class Vectors(Task):
    num_classes, in_channels, views = 3, 4, 2
    class_names = ("low", "middle", "high")

    def __init__(self):
        self.points = torch.randn(120, 4, generator=torch.Generator().manual_seed(0))
        self.labels = self.points.sum(dim=1).argsort().argsort() // 40

    def take(self, rows, views):
        return self.points[rows] * torch.where(views == 1, 1.1, 1.0)[:, None]


class Planes(Vectors):
    def take(self, rows, views):
        return self.points[rows].reshape(-1, 1, 2, 2) > 0


class Sentences(Inputs):
    def __init__(self, rows):
        self.rows = rows

    def shapes(self, examples):
        return self.rows[examples] % 2 * 4 + 4

    def take(self, examples, views):
        columns = torch.arange(int(self.shapes(examples).max()))
        there = columns < self.shapes(examples)[:, None]
        tokens = (self.rows[examples][:, None] + columns) % 10 + 1
        return torch.stack([tokens * there, there & (columns > 2)], dim=1).long()

    def facts(self):
        return {"kind": "tokens", "max_length": 12, "count": 1}


class Texts(Vectors):
    in_channels, views = 11, 1

    def take(self, rows, views):
        return Sentences(rows).plain(torch.arange(len(rows)))

    def inputs(self, config, rows, device, *, training, workers=0):
        return Sentences(rows)


def net(num_classes, in_channels):
    return nn.Sequential(nn.Linear(in_channels, 8), nn.ReLU(), nn.Linear(8, num_classes))


class Flat(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.last = nn.Linear(4, num_classes)

    def forward(self, planes):
        return self.last(planes.float().flatten(1))


class Reader(nn.Module):
    def __init__(self, num_classes, in_channels):
        super().__init__()
        self.words, self.last = nn.Embedding(in_channels, 6), nn.Linear(6, num_classes)

    def mean(self, tokens):
        there = (tokens[:, 0] > 0).unsqueeze(2).float()
        return (self.words(tokens[:, 0]) * there).sum(dim=1) / there.sum(dim=1).clamp(min=1)

    def forward(self, tokens):
        return self.last(self.mean(tokens))


class Fixed(Reader):
    def forward(self, tokens):
        tokens = torch.nn.functional.pad(tokens, (0, 12 - int(tokens.shape[2])))
        return self.last(self.mean(tokens[:, :, :12].reshape(-1, 2, 12)))
"""
FILE = """
name: own
run:
  recipe: digits
  dataset: {name: "MODULE:TASK", validation_fraction: 0.3, train_fraction: 1.0}
  student: {model: "MODULE:MODEL"}
  schedule: {epochs: 1, milestones: []}
variants: VARIANTS
seeds: 1
"""
WITH_TEACHER = '{wsl: {teacher.model: "MODULE:MODEL", teacher.schedule: {epochs: 1, milestones: []}}}'
FORMATS = ("safetensors", "onnx", "torch-export")

Make = Callable[..., MadeSweep]
_numbers = itertools.count()


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """A sweep of one trial of a user's task, with a student that nobody has trained."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])

    def made(task: str, model: str, variants: str = "[ce]") -> MadeSweep:
        module = f"users_exports_{next(_numbers)}"
        (tmp_path / f"{module}.py").write_text(CODE)
        text = (
            FILE.replace("VARIANTS", variants).replace("MODULE", module).replace("TASK", task).replace("MODEL", model)
        )
        return MadeSweep(tmp_path / "runs", text, (tmp_path,))

    yield made
    forget()


def taken(made: MadeSweep, to: Path, format: str) -> tuple[dict[str, Any], str, dict[str, Any]]:
    """Front matter, text and ``config.json`` of what was exported to ``to``."""
    export_student(made.name, storage=str(made.storage), to=to, format=format, say=lambda _: None)
    _, matter, text = (to / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(matter), text, json.loads((to / "config.json").read_text())


def by_the_card(text: str, folder: Path, name: str, inputs: Tensor, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """What the card's code says of some inputs in the place of its blank ones."""
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(folder)
    blank: dict[str, Any] = {}
    exec(code, blank)
    assert tuple(blank["logits"].shape) == (1, 3)
    seen = {"mine": inputs.numpy() if "onnxruntime" in code else inputs}
    exec(re.sub(rf"(?m)^{name} = .*$", f"{name} = mine", code), seen)
    return torch.as_tensor(seen["logits"])


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    ("task", "model", "shape"),
    [("Vectors", "net", "(N, 4) float32"), ("Planes", "Flat", "(N, 1, 2, 2) bool")],
)
def test_a_users_students_are_taken_away(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str, model: str, shape: str, format: str
) -> None:
    made = make(task, model)
    (trial,) = made.trials
    student, name = made.untrained(trial), trial.config["dataset"]["name"]
    matter, text, config = taken(made, tmp_path / "out", format)
    assert f"| input | `inputs`: {shape}, any N |" in text
    assert f"| its values | as `take` of `{name}` gives them of an example in view 0 |" in text
    assert "| classes | 0: low, 1: middle, 2: high |" in text
    assert "Each was seen in 2 forms at most." in text
    for of_pictures in ("picture", "mean", "pixel", "image-classification"):
        assert of_pictures not in text.replace("in the mean over", "")
    assert "pipeline_tag" not in matter
    assert config["input"]["name"] == "inputs"
    assert config["input"]["task"] == name
    inputs = load(trial.config["dataset"]).validation.views.plain(torch.arange(7))
    with torch.no_grad():
        own = student(inputs)
    theirs = by_the_card(text, tmp_path / "out", "inputs", inputs, monkeypatch)
    torch.testing.assert_close(theirs, own, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("format", FORMATS)
def test_a_student_of_text_takes_any_length(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str
) -> None:
    made = make("Texts", "Reader")
    (trial,) = made.trials
    student = made.untrained(trial)
    matter, text, config = taken(made, tmp_path / "out", format)
    assert "| input | `tokens`: (N, 2, length) int64, any N, any length up to 12 |" in text
    assert matter["pipeline_tag"] == "text-classification"
    assert config["input"]["shape"] == ["batch", 2, "length"]
    views = load(trial.config["dataset"]).validation.views
    for rows in (torch.arange(6), torch.tensor([0])):
        inputs = views.plain(rows)
        with torch.no_grad():
            own = student(inputs)
        theirs = by_the_card(text, tmp_path / "out", "tokens", inputs, monkeypatch)
        torch.testing.assert_close(theirs, own, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("format", [pytest.param("onnx", marks=pytest.mark.slow), "torch-export"])
def test_a_student_that_takes_one_length_only_says_which(make: Make, tmp_path: Path, format: str) -> None:
    made = make("Texts", "Fixed")
    made.untrained(made.trials[0])
    _, text, config = taken(made, tmp_path / "out", format)
    assert "| input | `tokens`: (N, 2, 12) int64, any N |" in text
    assert config["input"]["shape"] == ["batch", 2, 12]


def test_examples_without_pictures_have_weights_all_the_same(make: Make) -> None:
    made = make("Vectors", "net", WITH_TEACHER)
    made.train(made.trials[0])
    soft = soft_labels(made.name, made.trials[0].trial_id, storage=str(made.storage))
    assert soft.pictures is None
    assert len(soft.weights) == len(soft.labels) > 0


@pytest.mark.slow
def test_mlflow_takes_inputs_of_any_dtype_and_texts_of_any_length(make: Make, tmp_path: Path) -> None:
    import mlflow

    made = make("Texts", "Reader")
    (trial,) = made.trials
    student = made.untrained(trial)
    views = load(trial.config["dataset"]).validation.views
    tracking = Tracking(f"sqlite:///{tmp_path / 'mlflow.db'}", "own")
    client = mlflow.MlflowClient(tracking_uri=tracking.uri)
    experiment = client.create_experiment("own", artifact_location=(tmp_path / "artifacts").as_uri())
    run = client.create_run(experiment).info.run_id
    uri = log_student(tracking, run, student, views.plain(torch.arange(2)).numpy(), any_length=True)
    mlflow.set_tracking_uri(tracking.uri)
    try:
        model = mlflow.pyfunc.load_model(uri)
    finally:
        mlflow.set_tracking_uri("")
    (column,) = model.metadata.signature.inputs.inputs
    assert (str(column.type), column.shape) == ("int64", (-1, 2, -1))
    for length in (4, 8, 11):
        tokens = torch.nn.functional.pad(views.plain(torch.tensor([0, 2, 4])), (0, 12))[:, :, :length].contiguous()
        with torch.no_grad():
            own = student(tokens)
        torch.testing.assert_close(torch.as_tensor(model.predict(tokens.numpy())), own, atol=1e-5, rtol=1e-5)


def test_a_name_of_an_input_is_the_programs_own(tmp_path: Path) -> None:
    about = {"name": "inputs", "shape": ["batch", 5], "dtype": "float32"}
    student = torch.nn.Linear(5, 3).eval()
    assert write_student("onnx", tmp_path, student, {"model": "linear", "input": about}) == (5,)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    assert [one.name for one in session.get_inputs()] == ["inputs"]
    inputs = torch.ones(3, 5)
    with torch.no_grad():
        torch.testing.assert_close(_read_onnx(tmp_path / "model.onnx")(inputs), student(inputs))
