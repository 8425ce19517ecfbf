"""What only importing, or the disk, can tell of a file: asked once, told where it stands, beside all other mistakes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from wsl_sweep.app.world import LocalWorld, import_folders
from wsl_sweep.models import build
from wsl_sweep.spec import CommandLine, SpecErrors, load_spec, parse_spec
from wsl_sweep.spec.yaml_lines import Problem

from .helpers import text_of

MARK = "# <-"


@dataclass
class FakeWorld:
    """Answers from lists, and keeps the questions.

    Attributes:
        models: name → what is wrong with it.
        without_features: name → why it has none.
        checkpoints: path → what is wrong with it.
        methods: name → what is wrong with it.
        with_features: methods that need features, beside rkd.
        scalar: methods that give one loss for a batch.
        roots: ``dataset.root`` → what is wrong with it.
        asked: (question, about what), in order.
    """

    models: dict[str, str] = field(default_factory=dict)
    without_features: dict[str, str] = field(default_factory=dict)
    checkpoints: dict[str, str] = field(default_factory=dict)
    methods: dict[str, str] = field(default_factory=dict)
    with_features: tuple[str, ...] = ()
    scalar: tuple[str, ...] = ()
    roots: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    datasets: list[dict[str, Any]] = field(default_factory=list)

    def model_problem(self, name: str, dataset: Mapping[str, Any]) -> str | None:
        self.asked.append(("model", name))
        self.datasets.append(dict(dataset))
        return self.models.get(name)

    def features_problem(self, name: str, dataset: Mapping[str, Any]) -> str | None:
        self.asked.append(("features", name))
        return self.without_features.get(name)

    def checkpoint_problem(self, path: str, model: str, dataset: Mapping[str, Any]) -> str | None:
        self.asked.append(("checkpoint", f"{Path(path).name} of {model}"))
        return self.checkpoints.get(Path(path).name)

    def method_problem(self, name: str, flat: Mapping[str, Any]) -> str | None:
        self.asked.append(("method", name))
        return self.methods.get(name)

    def needs_features(self, name: str) -> bool:
        return name == "rkd" or name in self.with_features

    def by_example(self, name: str) -> bool:
        return name not in self.scalar

    def data_problem(self, dataset: Mapping[str, Any]) -> str | None:
        self.asked.append(("data", str(dataset.get("dataset.root"))))
        return self.roots.get(Path(str(dataset.get("dataset.root"))).name)

    def own_metrics(self, dataset: Mapping[str, Any]) -> tuple[str, ...]:
        return ("validation/macro_f1", "test/macro_f1") if ":" in str(dataset["dataset.name"]) else ()


def problems_in(world: FakeWorld | LocalWorld, text: str, **command_line: Any) -> list[Problem]:
    """All that is wrong with a file in a world; nothing where it is right."""
    try:
        parse_spec(text_of(text), "file.yaml", CommandLine(**command_line), world=world)
    except SpecErrors as errors:
        return errors.problems
    return []


def places(problems: list[Problem]) -> list[tuple[int | None, str]]:
    return [(problem.line, problem.path) for problem in problems]


def marked(text: str) -> int:
    """The number of the line with the mark."""
    return next(number for number, line in enumerate(text_of(text).splitlines(), 1) if MARK in line)


# --- where a problem is told -----------------------------------------------------------------------------------------

MODEL_PLACES = [
    pytest.param(
        """
        run:
          recipe: digits
          student:
            model: my.nets:bad  # <-
        variants: [kd, ce]
        """,
        "run.student.model",
        id="run",
    ),
    pytest.param(
        """
        run: {recipe: digits}
        variants:
          kd:
          large:
            student.model: my.nets:bad  # <-
        """,
        "variants.large.student.model",
        id="a variant",
    ),
    pytest.param(
        """
        run: {recipe: digits}
        variants:
          - kd
          - large:
              student: {model: my.nets:bad}  # <-
        """,
        "variants.1.large.student.model",
        id="a variant of a list",
    ),
    pytest.param(
        """
        run: {recipe: digits}
        space: {optimizer.lr: {uniform: [0.1, 1]}}
        search:
          trials: 2
          arms:
            kd:
            large: {student.model: my.nets:bad}  # <-
        """,
        "search.arms.large.student.model",
        id="an arm",
    ),
    pytest.param(
        """
        run: {recipe: digits}
        space: {optimizer.lr: {uniform: [0.1, 1]}}
        search: {trials: 2}
        confirm:
          baselines:
            large:
              student.model: my.nets:bad  # <-
        """,
        "confirm.baselines.large.student.model",
        id="a baseline",
    ),
    pytest.param(
        """
        run: {recipe: digits}
        space:
          student.model: {choice: [convnet_4, "my.nets:bad"]}  # <-
        search: {trials: 2}
        """,
        "space.student.model",
        id="space",
    ),
    pytest.param(
        """
        run: {recipe: digits, student.model: my.nets:good}
        space:
          run.student.model: {grid: [convnet_4, "my.nets:bad"]}  # <-
        variants: [kd, ce]
        """,
        "space.run.student.model",
        id="space over run, with the word run",
    ),
]


@pytest.mark.parametrize(("text", "path"), MODEL_PLACES)
def test_a_model_that_is_wrong_is_told_where_it_is_named(text: str, path: str) -> None:
    problems = problems_in(FakeWorld(models={"my.nets:bad": "falls over"}), text)
    assert places(problems) == [(marked(text), path)]
    assert problems[0].what == "falls over"


def test_a_model_on_the_command_line_is_told_there() -> None:
    world = FakeWorld(models={"my.nets:bad": "falls over"})
    text = "run: {recipe: digits, student.model: my.nets:bad}\nvariants: [kd]\n"
    assert places(problems_in(world, text, sets=("student.model=convnet_4",))) == []
    right = "run: {recipe: digits}\nvariants: {mine: {student.model: convnet_6}}\n"
    problems = problems_in(world, right, sets=("student.model=my.nets:bad",))
    assert places(problems) == [(None, "--set student.model")]


def test_a_model_of_a_recipe_is_told_at_the_recipe() -> None:
    text = "run:\n  seed: 3\n  recipe: digits  # <-\nvariants: [kd]\n"
    problems = problems_in(FakeWorld(models={"convnet_32": "falls over"}), text)
    assert places(problems) == [(3, "run.recipe")]
    assert problems[0].what == "teacher.model: falls over"


def test_a_model_that_a_baseline_has_from_run_is_told_in_run_though_arms_sweep_it() -> None:
    text = """
        run:
          recipe: digits
          student.model: my.nets:bad  # <-
        space:
          student.model: {choice: [convnet_4, convnet_6]}
        search: {trials: 2}
        confirm: {baselines: [kd]}
        """
    problems = problems_in(FakeWorld(models={"my.nets:bad": "falls over"}), text)
    assert places(problems) == [(marked(text), "run.student.model")]


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("run: {recipe: digits}\nvariants:\n  - kd\n  - rkd  # <-\n", "variants.1"),
        ("run: {recipe: digits}\nvariants:\n  kd:\n  rkd:  # <-\n", "variants.rkd"),
        (
            "run: {recipe: digits}\nspace: {optimizer.lr: {uniform: [0.1, 1]}}\n"
            "search:\n  trials: 2\n  arms:\n  - kd\n  - rkd  # <-\n",
            "search.arms.1",
        ),
        (
            "run: {recipe: digits}\nspace: {optimizer.lr: {uniform: [0.1, 1]}}\n"
            "search: {trials: 2}\nconfirm:\n  baselines:\n    ce:\n    rkd:  # <-\n",
            "confirm.baselines.rkd",
        ),
    ],
    ids=["variants, a list", "variants, a section", "arms", "baselines"],
)
def test_what_is_wrong_with_what_a_name_stands_for_is_told_at_the_name(text: str, path: str) -> None:
    problems = problems_in(FakeWorld(without_features={"convnet_4": "it has no features(images)"}), text)
    assert [problem.line for problem in problems] == [marked(text)]
    assert problems[0].path.startswith(path)
    assert "rkd needs features, and student.model convnet_4 has none: it has no features(images)" in problems[0].what


def test_problems_of_the_world_stand_among_all_others_in_the_order_of_lines() -> None:
    world = FakeWorld(models={"my.nets:bad": "falls over"}, methods={"my.losses:bad": "no gradient"})
    problems = problems_in(
        world,
        """
        name: a b
        run:
          recipe: digits
          student.model: my.nets:bad
          distillation.alhpa: 2
        variants:
          mine: {distillation.method: my.losses:bad}
          hot: {distillation.temperature: 0}
        """,
        sets=("optimizer.lr=fast",),
    )
    assert places(problems) == [
        (1, "name"),
        (4, "run.student.model"),
        (5, "run.distillation.alhpa"),
        (7, "variants.mine.distillation.method"),
        (8, "variants.hot.distillation.temperature"),
        (None, "--set optimizer.lr"),
    ]


def test_each_problem_is_told_once_however_many_meet_it() -> None:
    text = """
        run:
          recipe: digits
          student.model: my.nets:bad  # <-
        space:
          optimizer.lr: {uniform: [0.1, 1]}
          teacher.model: {choice: [convnet_16, convnet_32]}
          distillation.weighting.kind: {choice: [exp, none]}
        search: {trials: 2, arms: {one: , two: {distillation.keep.other: 0.5}}}
        confirm: {baselines: [ce, kd]}
        """
    problems = problems_in(FakeWorld(models={"my.nets:bad": "falls over"}), text)
    assert places(problems) == [(marked(text), "run.student.model")]


def test_two_models_that_are_wrong_are_two_problems() -> None:
    world = FakeWorld(models={"my.nets:one": "one falls over", "my.nets:two": "two falls over"})
    problems = problems_in(
        world,
        """
        run: {recipe: digits}
        variants:
          one: {student.model: my.nets:one}
          two: {student.model: my.nets:two}
          both:
            student.model: my.nets:one
            teacher.model: my.nets:two
        """,
    )
    assert [(line, path.split(".", 2)[2]) for line, path in places(problems) if line] == [
        (3, "student.model"),
        (4, "student.model"),
        (7, "teacher.model"),
    ]


# --- what is asked ---------------------------------------------------------------------------------------------------


def test_a_right_file_is_asked_about_all_that_it_names_and_nothing_else() -> None:
    world = FakeWorld()
    text = """
        run: {recipe: digits, student.model: my.nets:small}
        variants:
          ce:
          mine: {distillation.method: my.losses:one, teacher.model: timm:resnet10t}
        """
    assert problems_in(world, text) == []
    assert set(world.asked) == {
        ("data", "None"),
        ("model", "my.nets:small"),
        ("model", "timm:resnet10t"),
        ("method", "my.losses:one"),
    }
    assert all(dataset["dataset.name"] == "digits" for dataset in world.datasets)
    assert all(path.startswith("dataset.") for dataset in world.datasets for path in dataset)


def test_nobody_asks_about_a_teacher_that_no_variant_has() -> None:
    world = FakeWorld(models={"convnet_32": "falls over"})
    assert problems_in(world, "run: {recipe: digits}\nvariants: [ce]\n") == []
    assert ("model", "convnet_32") not in world.asked


@pytest.mark.parametrize("name", ["convnet4", "my.nets", "my nets:bad"])
def test_a_name_that_is_wrong_by_itself_is_not_asked_about(name: str) -> None:
    world = FakeWorld()
    problems = problems_in(world, f"run: {{recipe: digits, student.model: '{name}'}}\nvariants: [kd]\n")
    assert [problem.path for problem in problems] == ["run.student.model"]
    assert ("model", name) not in world.asked


def test_a_model_is_asked_about_on_every_data_set_that_it_meets() -> None:
    world = FakeWorld()
    text = """
        run: {student.model: my.nets:small}
        space: {recipe: {grid: [digits, cifar100/wrn_40_2-wrn_16_2]}}
        variants: [kd]
        """
    assert problems_in(world, text) == []
    assert {dataset["dataset.name"] for dataset in world.datasets} == {"digits", "cifar100"}


def test_a_model_is_asked_about_at_every_size_that_is_swept(tmp_path: Path) -> None:
    world = FakeWorld()
    text = f"""
        run: {{recipe: image_folder, dataset.root: {tmp_path}, student.model: "my.nets:small"}}
        space: {{dataset.size: {{grid: [8, 64]}}}}
        variants: [kd]
        """
    assert problems_in(world, text) == []
    assert {dataset["dataset.size"] for dataset in world.datasets} == {8, 64}


def test_without_a_world_nothing_is_asked() -> None:
    text = "run: {recipe: digits, student.model: no.such.module:net}\nvariants: [kd]\n"
    assert parse_spec(text, "file.yaml").given["student.model"] == "no.such.module:net"


# --- data ------------------------------------------------------------------------------------------------------------


def test_a_folder_that_is_wrong_is_told_once_and_models_are_not_tried_on_it() -> None:
    world = FakeWorld(roots={"nowhere": "there is no such folder"}, models={"my.nets:bad": "falls over"})
    text = """
        run:
          recipe: image_folder
          student.model: my.nets:bad
          dataset: {root: nowhere}  # <-
        variants: [kd, ce, wsl]
        """
    problems = problems_in(world, text)
    assert places(problems) == [(marked(text), "run.dataset.root")]
    assert problems[0].what == "there is no such folder"
    assert not any(question == "model" for question, _ in world.asked)


def test_a_folder_on_the_command_line_is_told_there() -> None:
    world = FakeWorld(roots={"nowhere": "there is no such folder"})
    text = "run: {recipe: image_folder}\nvariants: [kd]\n"
    problems = problems_in(world, text, sets=("dataset.root=nowhere",))
    assert places(problems) == [(None, "--set dataset.root")]


def test_each_of_several_folders_is_asked_about() -> None:
    world = FakeWorld(roots={"bad": "there is no such folder"})
    text = """
        run: {recipe: image_folder}
        variants:
          one: {dataset.root: good}
          two: {dataset.root: bad}  # <-
        """
    assert places(problems_in(world, text)) == [(marked(text), "variants.two.dataset.root")]


# --- checkpoints -----------------------------------------------------------------------------------------------------


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "teacher.safetensors"
    save_file({"x": torch.zeros(2)}, path)
    return path


def test_weights_that_do_not_fit_are_told_where_they_are_named(weights: Path) -> None:
    world = FakeWorld(checkpoints={"teacher.safetensors": "does not hold the weights"})
    text = f"""
        run:
          recipe: digits
          teacher:
            checkpoint: {weights}  # <-
        variants: [kd, ce, dist]
        """
    problems = problems_in(world, text)
    assert places(problems) == [(marked(text), "run.teacher.checkpoint")]
    assert ("checkpoint", "teacher.safetensors of convnet_32") in world.asked


def test_weights_are_not_tried_on_a_model_that_is_wrong(weights: Path) -> None:
    world = FakeWorld(checkpoints={"teacher.safetensors": "does not hold"}, models={"my.nets:bad": "falls over"})
    text = f"run: {{recipe: digits, teacher: {{model: 'my.nets:bad', checkpoint: {weights}}}}}\nvariants: [kd]\n"
    assert [problem.path for problem in problems_in(world, text)] == ["run.teacher.model"]


def test_weights_are_tried_on_each_model_that_is_swept(weights: Path) -> None:
    world = FakeWorld()
    text = f"""
        run: {{recipe: digits, teacher.checkpoint: {weights}}}
        space: {{teacher.model: {{grid: [convnet_16, convnet_32]}}}}
        variants: [kd]
        """
    assert problems_in(world, text) == []
    asked = {what for question, what in world.asked if question == "checkpoint"}
    assert asked == {"teacher.safetensors of convnet_16", "teacher.safetensors of convnet_32"}


# --- methods ---------------------------------------------------------------------------------------------------------


def test_a_method_that_is_wrong_is_told_and_its_features_are_not_asked_for() -> None:
    world = FakeWorld(
        methods={"my.losses:bad": "no gradient"},
        with_features=("my.losses:bad",),
        without_features={"convnet_4": "none"},
        scalar=("my.losses:bad",),
    )
    text = "run:\n  recipe: digits\n  distillation: {method: 'my.losses:bad', keep.other: 0.5}  # <-\nvariants: {a: }\n"
    problems = problems_in(world, text)
    assert places(problems) == [(3, "run.distillation.method")]
    assert problems[0].what == "no gradient"


@pytest.mark.parametrize("method", ["rkd", "my.losses:relations"])
@pytest.mark.parametrize("role", ["student", "teacher"])
def test_a_method_on_features_needs_a_student_and_a_teacher_that_have_some(method: str, role: str) -> None:
    name = {"student": "convnet_4", "teacher": "convnet_32"}[role]
    world = FakeWorld(with_features=("my.losses:relations",), without_features={name: "no features(images)"})
    text = f"""
        run: {{recipe: digits}}
        variants:
          kd:
          mine:
            distillation.method: {method}  # <-
        """
    problems = problems_in(world, text)
    assert places(problems) == [(marked(text), "variants.mine.distillation.method")]
    assert f"{method} needs features, and {role}.model {name} has none: no features(images)" in problems[0].what


def test_a_method_without_features_asks_for_none() -> None:
    world = FakeWorld(without_features={"convnet_4": "none", "convnet_32": "none"})
    assert problems_in(world, "run: {recipe: digits}\nvariants: [kd, dkd, dist, ce, wsl]\n") == []


def test_a_swept_method_that_needs_features_is_told_in_the_space() -> None:
    text = """
        run: {recipe: digits}
        space:
          distillation.method: {choice: [kd, rkd]}  # <-
        search: {trials: 2}
        """
    problems = problems_in(FakeWorld(without_features={"convnet_4": "none"}), text)
    assert places(problems) == [(marked(text), "space.distillation.method")]


SCALAR = FakeWorld(scalar=("my.losses:whole",))


@pytest.mark.parametrize(
    ("leaf", "value", "what"),
    [
        ("weighting.kind", "exp", "weighted"),
        ("weighting.kind", "permuted", "weighted"),
        ("keep.regularization", "0.5", "left out"),
        ("keep.other", "0", "left out"),
    ],
)
@pytest.mark.parametrize("place", ["run", "variants"])
def test_no_part_of_a_loss_for_the_batch_is_weighted_or_left_out(place: str, leaf: str, value: str, what: str) -> None:
    setting = f"distillation.{leaf}: {value}"
    inside, outside = ("", setting) if place == "run" else (setting, "")
    text = f"""
        run:
          recipe: digits
          {outside}
        variants:
          mine:
            distillation.method: my.losses:whole
            {inside}
        """
    problems = problems_in(SCALAR, text)
    (line,) = [number for number, line in enumerate(text_of(text).splitlines(), 1) if setting in line]
    path = f"run.distillation.{leaf}" if place == "run" else f"variants.mine.distillation.{leaf}"
    assert places(problems) == [(line, path)]
    assert problems[0].what.startswith("my.losses:whole gives one loss for a batch")
    assert problems[0].what.endswith(what)


@pytest.mark.parametrize("setting", ["weighting.kind: none", "keep.other: 1", "keep.regularization: 1.0", "alpha: 3"])
def test_a_loss_for_the_batch_may_stand_beside_what_asks_for_nothing(setting: str) -> None:
    text = f"""
        run: {{recipe: digits, distillation.{setting}}}
        variants: {{a: {{distillation.method: "my.losses:whole"}}}}
        """
    assert problems_in(SCALAR, text) == []


@pytest.mark.parametrize("setting", ["weighting.kind: exp", "keep.other: 0.5"])
def test_a_loss_an_example_may_be_weighted_and_left_out(setting: str) -> None:
    text = f"""
        run: {{recipe: digits, distillation.{setting}}}
        variants: {{a: {{distillation.method: "my.losses:each"}}}}
        """
    assert problems_in(SCALAR, text) == []


@pytest.mark.parametrize(
    ("leaf", "values"),
    [("weighting.kind", "[none, exp]"), ("keep.regularization", "[0.5, 1]"), ("keep.other", "[1, 0.2]")],
)
def test_a_loss_for_the_batch_is_not_swept_over_weights_or_dropping(leaf: str, values: str) -> None:
    text = f"""
        run: {{recipe: digits, distillation.method: "my.losses:whole"}}
        space:
          distillation.{leaf}: {{choice: {values}}}  # <-
          optimizer.lr: {{uniform: [0.1, 1]}}
        search: {{trials: 2}}
        """
    assert places(problems_in(SCALAR, text)) == [(marked(text), f"space.distillation.{leaf}")]


def test_a_combination_that_when_rules_out_is_no_problem() -> None:
    """The weighting exists only under kd, and the user's method, which takes none, never meets it."""
    text = """
        run: {recipe: digits}
        space:
          distillation.method: {choice: [kd, "my.losses:whole"]}
          distillation.weighting.kind: {choice: [exp, constant], when: {distillation.method: kd}}
        search: {trials: 2}
        """
    assert problems_in(SCALAR, text) == []


# --- this machine ----------------------------------------------------------------------------------------------------


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], str]]:
    """Writes a module of a user, of a name of its own for each test; gives its name back."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    written: list[str] = []

    def write(code: str, stem: str = "own") -> str:
        name = f"{stem}_{tmp_path.name}_{len(written)}"
        (tmp_path / f"{name}.py").write_text(f"import torch\nfrom torch import nn\n{text_of(code)}")
        written.append(name)
        return name

    yield write
    for name in written:
        sys.modules.pop(name, None)


DIGITS = {"dataset.name": "digits"}

MODELS = """
    class Right(nn.Module):
        def __init__(self, num_classes, in_channels):
            super().__init__()
            self.fc = nn.Linear(in_channels * 64, num_classes)
        def features(self, images):
            return images.flatten(1)
        def forward(self, images):
            return self.fc(self.features(images))

    class Plain(Right):
        def forward(self, images):
            return self.fc(images.flatten(1))

    class Maps(Right):
        def features(self, images):
            return images
        def forward(self, images):
            return self.fc(self.features(images).flatten(1))

    class Transposed(Right):
        def forward(self, images):
            return super().forward(images).T

    class Several(Right):
        def forward(self, images):
            return super().forward(images), images

    class FewClasses(Right):
        def __init__(self, num_classes, in_channels):
            super().__init__(3, in_channels)

    class Colour(nn.Module):
        def __init__(self, num_classes):
            super().__init__()
            self.conv = nn.Conv2d(3, num_classes, 3)
        def forward(self, images):
            return self.conv(images).mean((2, 3))

    class Raises(Right):
        def forward(self, images):
            raise ArithmeticError("seven is too many")

    def fails(num_classes, in_channels):
        raise KeyError("no weights here")

    def number(num_classes):
        return num_classes

    def strange(num_classes, in_channels, depth, width):
        return Right(num_classes, in_channels)

    constant = 3
"""


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("Right", None),
        ("Plain", None),
        ("Transposed", "gives (10, 2) for two pictures of 10 classes; it must give logits (2, 10)"),
        ("Several", "gives tuple for two pictures of 10 classes"),
        ("FewClasses", "gives (2, 3) for two pictures of 10 classes"),
        ("Colour", "fails on pictures of 1x8x8: RuntimeError"),
        ("Raises", "ArithmeticError: seven is too many"),
        ("fails", "no weights here"),
        ("number", "must make a torch.nn.Module, not int"),
        ("strange", 'its parameter "depth" is none of those that are given: num_classes, in_channels'),
        ("constant", "is no function or class that makes a model"),
        ("right", 'has nothing called "right"; did you mean "Right"?'),
    ],
)
def test_a_users_model_is_built_and_tried(
    name: str, what: str | None, tmp_path: Path, module: Callable[..., str]
) -> None:
    full = f"{module(MODELS)}:{name}"
    found = LocalWorld([str(tmp_path)]).model_problem(full, DIGITS)
    if what is None:
        assert found is None
    else:
        assert found is not None
        assert what in found
        assert full in found
        assert "\n" not in found


def test_what_a_users_model_raises_is_told_with_its_line(tmp_path: Path, module: Callable[..., str]) -> None:
    name = module(MODELS)
    line = 2 + next(n for n, line in enumerate(text_of(MODELS).splitlines(), 1) if "raise ArithmeticError" in line)
    assert f"({name}.py, line {line})" in str(LocalWorld([str(tmp_path)]).model_problem(f"{name}:Raises", DIGITS))


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("Right", None),
        ("Plain", "forward of Plain does not call its features(images)"),
        ("Maps", "features of Maps have the shape (2, 1, 8, 8), not (batch, features)"),
    ],
)
def test_features_are_tried_too(name: str, what: str | None, tmp_path: Path, module: Callable[..., str]) -> None:
    assert LocalWorld([str(tmp_path)]).features_problem(f"{module(MODELS)}:{name}", DIGITS) == what


def test_our_own_models_are_right_and_not_even_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsl_sweep.app.world._built", None)
    world = LocalWorld([])
    assert world.model_problem("resnet8", DIGITS) is None
    assert world.features_problem("resnet8", DIGITS) is None


def test_a_module_that_is_not_there_is_told_with_where_to_put_it(tmp_path: Path) -> None:
    world = LocalWorld([str(tmp_path)])
    for found in (world.model_problem("nosuch.module:net", DIGITS), world.method_problem("nosuch.module:loss", {})):
        assert found is not None
        assert 'no module is called "nosuch"' in found
        assert "beside the search-space file" in found


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("import nosuch_library\n", "nosuch_library"),
        ("def f(:\n", "SyntaxError"),
        ("raise SystemExit(3)\n", "SystemExit: 3"),
        ("1 / 0\n", "ZeroDivisionError: division by zero"),
    ],
)
def test_a_module_that_cannot_be_imported_is_told_with_its_error(
    code: str, what: str, tmp_path: Path, module: Callable[..., str]
) -> None:
    name = module(code)
    found = LocalWorld([str(tmp_path)]).model_problem(f"{name}:net", DIGITS)
    assert found is not None
    assert f"importing {name} fails: " in found
    assert what in found


def test_a_module_beside_the_file_is_found(tmp_path: Path, module: Callable[..., str]) -> None:
    name = module(MODELS)
    path = tmp_path / "mine.yaml"
    path.write_text(f"run: {{recipe: digits, student.model: '{name}:Right'}}\nvariants: [rkd]\n")
    assert str(tmp_path) in import_folders(path)
    load_spec(path, world=LocalWorld(import_folders(path)))
    path.write_text(f"run: {{recipe: digits, student.model: '{name}:Plain'}}\nvariants: [rkd]\n")
    with pytest.raises(SpecErrors, match=r"mine\.yaml:\d+: .*rkd needs features, and student\.model .*:Plain has none"):
        load_spec(path, world=LocalWorld(import_folders(path)))


def test_each_question_is_tried_once(tmp_path: Path, module: Callable[..., str]) -> None:
    counting = """
        calls = []
        def loss(student_logits, teacher_logits):
            calls.append(1)
            return (student_logits - teacher_logits).square().mean(1)
        """
    name = module(counting)
    world = LocalWorld([str(tmp_path)])
    text = f"""
        run: {{recipe: digits, distillation.method: "{name}:loss"}}
        space: {{distillation.temperature: {{grid: [1, 2]}}, student.model: {{grid: [convnet_4, convnet_6]}}}}
        variants: {{a: , b: {{distillation.alpha: 2}}}}
        """
    assert problems_in(world, text) == []
    assert len(sys.modules[name].calls) == 1


def test_torchvisions_models_are_tried_by_name() -> None:
    world = LocalWorld([])
    assert world.model_problem("torchvision:squeezenet1_1", {"dataset.name": "cifar10"}) is None
    why = world.features_problem("torchvision:squeezenet1_1", {"dataset.name": "cifar10"})
    assert "no linear classifier" in str(why)
    assert 'did you mean "squeezenet1_1"?' in str(world.model_problem("torchvision:squeezenet11", DIGITS))


LOSSES = """
    def each(student_logits, teacher_logits, labels, temperature):
        return (student_logits - teacher_logits).square().mean(1) / temperature

    def whole(student, teacher):
        return (student - teacher).abs().mean()

    def on_features(student_logits, student_features, teacher_features):
        return student_features.mean() * teacher_features.mean() + student_logits.mean()

    class Made:
        def __call__(self, student_logits, teacher_logits, epoch, epochs):
            return (student_logits - teacher_logits).square().sum(1) * epoch / epochs

    def no_gradient(student_logits, teacher_logits):
        return (student_logits - teacher_logits).detach().square().mean(1)

    def of_the_teacher(student_logits, teacher_logits):
        return teacher_logits.square().mean(1)

    def not_a_number(student_logits, teacher_logits):
        return (student_logits - teacher_logits).sqrt().mean(1)

    def one_infinite(student_logits):
        return student_logits.square().mean(1) / torch.tensor([1.0, 1.0, 0.0, 1.0])

    def by_class(student_logits, teacher_logits):
        return (student_logits - teacher_logits).square()

    def one_number(student_logits):
        return 3.0

    def raises(student_logits):
        raise ValueError("no such thing")

    def unknown(student_logits, teacher_logits, *, foo):
        return student_logits.mean(1)

    class Needs:
        def __init__(self, weight):
            self.weight = weight

    nothing = None
"""


@pytest.mark.parametrize(
    ("name", "features", "by_example"),
    [("each", False, True), ("whole", False, False), ("on_features", True, False), ("Made", False, True)],
)
def test_a_users_method_that_is_right_is_known_by_what_it_takes_and_gives(
    name: str, features: bool, by_example: bool, tmp_path: Path, module: Callable[..., str]
) -> None:
    full = f"{module(LOSSES)}:{name}"
    world = LocalWorld([str(tmp_path)])
    assert world.method_problem(full, {}) is None
    assert (world.needs_features(full), world.by_example(full)) == (features, by_example)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("no_gradient", "returns a loss without a gradient: it must be computed from the student's outputs"),
        ("of_the_teacher", "returns a loss without a gradient"),
        ("not_a_number", "a loss must be finite"),
        ("one_infinite", "a loss must be finite"),
        ("by_class", "must return a tensor of the shape (4,) (an example) or (), not (4, 10)"),
        ("one_number", "must return a tensor of the shape (4,) (an example) or (), not float"),
        ("raises", "ValueError: no such thing"),
        ("unknown", 'its parameter "foo" is none of those that are given'),
        ("Needs", "cannot be made without arguments"),
        ("nothing", "cannot be called"),
        ("eahc", 'did you mean "each"?'),
    ],
)
def test_a_users_method_that_is_wrong_is_told_before_anything_starts(
    name: str, what: str, tmp_path: Path, module: Callable[..., str]
) -> None:
    full = f"{module(LOSSES)}:{name}"
    text = f"""
        run: {{recipe: digits}}
        variants:
          kd:
          mine: {{distillation.method: "{full}"}}  # <-
        """
    problems = problems_in(LocalWorld([str(tmp_path)]), text)
    assert places(problems) == [(marked(text), "variants.mine.distillation.method")]
    assert what in problems[0].what
    assert full in problems[0].what


def test_rkd_needs_features_and_the_others_do_not() -> None:
    world = LocalWorld([])
    assert [method for method in ("none", "kd", "dkd", "dist", "rkd") if world.needs_features(method)] == ["rkd"]


def test_the_state_of_random_numbers_is_left_alone_by_a_method(tmp_path: Path, module: Callable[..., str]) -> None:
    torch.manual_seed(4)
    before = torch.get_rng_state()
    assert LocalWorld([str(tmp_path)]).method_problem(f"{module(LOSSES)}:each", {}) is None
    assert torch.equal(torch.get_rng_state(), before)


# --- folders and weights of this machine -----------------------------------------------------------------------------


def pictures(root: Path, classes: int) -> Path:
    for label in range(classes):
        (root / f"class {label}").mkdir(parents=True)
        (root / f"class {label}" / "1.png").write_bytes(b"never opened")
    return root


@pytest.mark.parametrize(
    ("classes", "what"), [(None, "there is no such folder"), (0, "has no folders"), (1, "two or more must"), (2, None)]
)
def test_a_folder_of_pictures_is_looked_at(classes: int | None, what: str | None, tmp_path: Path) -> None:
    root = tmp_path / "pictures"
    if classes is not None:
        root.mkdir()
        pictures(root, classes)
    text = f"""
        run:
          recipe: image_folder
          dataset.root: {root}  # <-
        variants: [kd, ce]
        """
    problems = problems_in(LocalWorld([]), text)
    assert places(problems) == ([] if what is None else [(marked(text), "run.dataset.root")])
    assert what is None or what in problems[0].what


def test_a_root_that_is_missing_is_one_mistake_that_says_how_to_give_it() -> None:
    (problem,) = problems_in(LocalWorld([]), "run: {recipe: image_folder}\nvariants: [kd, ce]\n")
    assert (problem.line, problem.path) == (1, "run")
    assert problem.what.startswith("dataset.root has no value")


def test_a_model_is_tried_with_the_classes_and_the_size_of_the_folder(
    tmp_path: Path, module: Callable[..., str]
) -> None:
    name = f"{module(MODELS)}:Right"
    text = f"""
        run: {{recipe: image_folder, dataset: {{root: {pictures(tmp_path / "p", 4)}, size: SIZE, padding: 0}}}}
        variants: {{mine: {{student.model: "{name}"}}}}
        """
    assert problems_in(LocalWorld([str(tmp_path)]), text.replace("SIZE", "8")) == []
    (problem,) = problems_in(LocalWorld([str(tmp_path)]), text.replace("SIZE", "16"))
    assert "fails on pictures of 3x16x16: RuntimeError" in problem.what


@pytest.mark.parametrize(
    ("model", "classes", "what"),
    [
        ("convnet_16", 10, None),
        ("convnet_12", 10, "does not hold the weights of convnet_16"),
        ("convnet_16", 9, "(9, 64)"),
    ],
)
def test_weights_are_compared_with_their_model_entry_by_entry(
    model: str, classes: int, what: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "t.safetensors"
    save_file(build(model, classes, 1).state_dict(), path)
    text = f"""
        run:
          recipe: digits
          teacher:
            model: convnet_16
            checkpoint: {path}  # <-
        variants: [kd]
        """
    problems = problems_in(LocalWorld([]), text)
    assert places(problems) == ([] if what is None else [(marked(text), "run.teacher.checkpoint")])
    assert what is None or what in problems[0].what


def test_a_file_of_weights_that_is_no_such_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    path.write_bytes(b"no tensors at all")
    text = f"run:\n  recipe: digits\n  teacher.checkpoint: {path}\nvariants: [kd]\n"
    problems = problems_in(LocalWorld([]), text)
    assert places(problems) == [(3, "run.teacher.checkpoint")]
    assert str(path) in problems[0].what
