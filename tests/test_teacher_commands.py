"""``wsl-sweep teacher`` and ``recipes show``, and a training that uses an imported teacher."""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.conftest import Command
from tests.spec.helpers import run_command
from wsl_sweep.data import load
from wsl_sweep.models import build
from wsl_sweep.spec.identity import teacher_identity
from wsl_sweep.training import TeacherStore
from wsl_sweep.training.teachers import FrozenTeacher

CIFAR100_PAIRS = {
    "wrn_40_2-wrn_16_2": (0.05, 6),
    "wrn_40_2-wrn_40_1": (0.05, 6),
    "resnet56-resnet20": (0.05, 2),
    "resnet110-resnet20": (0.05, 8),
    "resnet110-resnet32": (0.05, 2),
    "resnet32x4-resnet8x4": (0.05, 8),
    "vgg13-vgg8": (0.05, 6),
    "vgg13-mobilenetv2": (0.01, 6),
    "resnet50-mobilenetv2": (0.01, 8),
    "resnet50-vgg8": (0.05, 8),
    "resnet32x4-shufflenetv1": (0.01, 8),
    "resnet32x4-shufflenetv2": (0.01, 8),
    "wrn_40_2-shufflenetv1": (0.01, 8),
}
"""Pair → the student's learning rate (RepDistiller), DKD's non-target weight."""

SHORT = ("--set", "schedule.epochs=1", "--set", "schedule.milestones=[]")
SHORT_TEACHER = ("--set", "teacher.model=convnet_3", "--set", "teacher.schedule.epochs=2",
                 "--set", "teacher.schedule.milestones=[]")  # fmt: skip
CIFAR = "cifar100/resnet56-resnet20"


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
    random.seed()
    np.random.seed()


DATASET = {
    "name": "digits",
    "validation_fraction": 0.3,
    "train_fraction": 0.4,
    "label_noise": 0.0,
    "padding": 1,
    "padding_mode": "zeros",
    "flip": False,
    "views": "all",
}
"""The recipe's."""


def digits(part: str = "validation", count: int = 100) -> Tensor:
    data = load(DATASET)
    return (data.validation if part == "validation" else data.train).views.plain(torch.arange(count))


def published(path: Path, name: str = "convnet_4", classes: int = 10, channels: int = 1, steps: int = 60) -> nn.Module:
    """A model trained for a blink, saved as published ones are."""
    torch.manual_seed(5)
    model = build(name, classes, channels)
    if steps:
        data = load(DATASET)
        images, labels = data.train.views.plain(torch.arange(len(data.train))), data.train.labels
        optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
        for _ in range(steps):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
    torch.save({"epoch": 240, "model": model.state_dict(), "accuracy": torch.tensor(71.2), "optimizer": {}}, path)
    return model.eval()


# --- teacher import ----------------------------------------------------------------------------------


def test_the_logits_of_an_imported_teacher_are_the_published_ones_bit_for_bit(own_place: Path, wsl: Command) -> None:
    model = published(own_place / "ckpt.pth")
    answer = wsl("teacher", "import", "ckpt.pth", "--model", "convnet_4", "--recipe", "digits", "--json")
    card = answer.json
    assert "measuring it on the 434 examples" in answer.err
    assert TeacherStore().card(card["teacher_id"]) is not None
    assert card["weights"] == str(TeacherStore().weights(card["teacher_id"]))
    data = load(DATASET)
    teacher = FrozenTeacher.load(build("convnet_4", 10, 1), Path(card["weights"]), "convnet_4", data.validation)
    expected = FrozenTeacher(model, data.validation)
    assert torch.equal(teacher.validation_logits(), expected.validation_logits())
    assert torch.equal(teacher.training_outputs(digits("train"))[0], expected.training_outputs(digits("train"))[0])

    accuracy = (model(digits(count=434)).argmax(dim=1) == data.validation.labels).double().mean()
    assert card["metrics"]["validation/accuracy"] == pytest.approx(float(accuracy), abs=1e-9)
    assert card["metrics"]["validation/accuracy"] > 0.5
    assert card["origin"] == "imported from ckpt.pth"
    assert card["seen_validation"] is True
    assert (card["model"], card["num_classes"], card["in_channels"]) == ("convnet_4", 10, 1)
    assert card["dataset"] == DATASET
    assert card["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert all(not path.name.startswith(f".{card['teacher_id']}.") or path.suffix == ".lock"
               for path in TeacherStore().root.iterdir())  # fmt: skip


def test_the_same_weights_are_one_teacher_whatever_file_they_come_in(own_place: Path, wsl: Command) -> None:
    from safetensors.torch import save_file

    model = published(own_place / "ckpt.pth", steps=0)
    torch.save({f"module.{key}": tensor for key, tensor in model.state_dict().items()}, "plain.pth")
    save_file(model.state_dict(), "a.safetensors")
    import_ = ("teacher", "import", "--model", "convnet_4", "--recipe", "digits", "--json")
    cards = [wsl(*import_, name).json for name in ("ckpt.pth", "ckpt.pth", "plain.pth", "a.safetensors")]
    assert {card["teacher_id"] for card in cards} == {cards[0]["teacher_id"]}
    assert cards[1] == cards[0]
    assert [card["teacher_id"] for card in wsl("teacher", "list", "--json").json] == [cards[0]["teacher_id"]]


def test_a_checkpoint_of_another_model_is_refused_and_nothing_is_kept(own_place: Path) -> None:
    """In a process of its own, as a user would see it."""
    published(own_place / "ckpt.pth", steps=0)
    done = run_command(own_place, "teacher", "import", "ckpt.pth", "--model", "convnet_8", "--recipe", "digits")
    assert done.returncode == 2
    assert not done.stdout
    assert done.stderr.startswith("wsl-sweep: ckpt.pth does not hold the weights of convnet_8: ")
    assert "body.0.weight is (4, 1, 3, 3), convnet_8 has (8, 1, 3, 3)" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((own_place / "cache" / "teachers").rglob("*.safetensors"))
    assert not list((own_place / "cache").rglob("card.json"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--recipe", "digits"), "does not hold the weights of convnet_32"),  # the recipe's teacher
        (("--recipe", "digits", "--model", "convnet_5"), 'did you mean "convnet_'),
        (("--recipe", "digit", "--model", "convnet_4"), 'did you mean "digits"'),
        (("--recipe", "digits", "--model", "convnet_4", "--set", "teacher.lr=1"), "teacher.lr"),
        (("--recipe", "digits", "--model", "convnet_4", "--set", "distillation.method=none"), "nothing"),
        (
            ("--recipe", "digits", "--model", "torchvision:mobilenet_v3_small"),
            "does not hold the weights of torchvision",
        ),
        (("--recipe", "digits", "--model", "no_module:Net"), 'no module is called "no_module"'),
        (("--model", "convnet_4"), "--recipe"),
    ],
)
def test_what_is_wrong_with_an_import_is_told(
    arguments: tuple[str, ...], message: str, own_place: Path, wsl: Command
) -> None:
    published(own_place / "ckpt.pth", steps=0)
    assert message in wsl("teacher", "import", "ckpt.pth", *arguments, expect=2).err
    assert not list((own_place / "cache").rglob("card.json"))


def test_a_file_that_is_not_there_or_would_run_code_is_refused(own_place: Path, wsl: Command) -> None:
    class Runs:
        def __reduce__(self) -> Any:
            return Path.mkdir, (own_place / "made",)

    torch.save({"model": Runs()}, "evil.pth")
    import_ = ("teacher", "import", "--model", "convnet_4", "--recipe", "digits")
    assert "absent.pth: no such file" in wsl(*import_, "absent.pth", expect=2).err
    assert "evil.pth: refused" in wsl(*import_, "evil.pth", expect=2).err
    assert not (own_place / "made").exists()


def test_without_its_data_a_teacher_is_kept_but_not_measured(own_place: Path, wsl: Command) -> None:
    published(own_place / "ckpt.pth", "resnet8", 100, 3, steps=0)
    answer = wsl(
        "teacher", "import", "ckpt.pth", "--model", "resnet8", "--recipe", CIFAR,
        "--set", f"dataset.root={own_place / 'no_data'}", "--json",
    )  # fmt: skip
    assert f"the data of {CIFAR} are not there: its accuracy is not measured" in answer.err
    assert (answer.json["metrics"], answer.json["data"]) == ({}, None)
    assert (answer.json["num_classes"], answer.json["seen_validation"]) == (100, True)
    assert TeacherStore().card(answer.json["teacher_id"]) is not None
    assert not (own_place / "no_data").exists()
    assert "resnet8 cifar100 not measured imported from ckpt.pth" in wsl("teacher", "list").flat
    assert "validation/accuracy" not in wsl("teacher", "show", answer.json["teacher_id"]).out


def test_a_teacher_that_was_not_measured_is_measured_once_its_data_are_there(
    own_place: Path, wsl: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(own_place / "ckpt.pth", steps=0)
    import_ = ("teacher", "import", "ckpt.pth", "--model", "convnet_4", "--recipe", "digits", "--json")
    with monkeypatch.context() as absent:
        absent.setattr("wsl_sweep.data.available", lambda _: False)
        first = wsl(*import_).json
    assert first["metrics"] == {}
    second = wsl(*import_).json
    assert second["teacher_id"] == first["teacher_id"]
    assert "validation/accuracy" in second["metrics"]
    assert "validation/accuracy" in wsl("teacher", "show", first["teacher_id"], "--json").json["metrics"]


def test_what_an_import_prints_can_be_typed(own_place: Path, wsl: Command) -> None:
    """The last line names the options that use the teacher; they do."""
    published(own_place / "ckpt.pth", steps=0)
    answer = wsl("teacher", "import", "ckpt.pth", "--model", "convnet_4", "--recipe", "digits")
    assert "1,702 parameters" in answer.out
    assert "has seen the validation part yes" in answer.flat
    (line,) = [line for line in answer.out.splitlines() if line.startswith("Use it: wsl-sweep run FILE ")]
    options = line.removeprefix("Use it: wsl-sweep run FILE ").split()
    assert options[:2] == ["--recipe", "digits"]
    assert wsl("train", *options, *SHORT, "--json").json["config"]["teacher"]["model"] == "convnet_4"


def test_the_recipes_own_teacher_needs_no_name(own_place: Path, wsl: Command) -> None:
    published(own_place / "ckpt.pth", "convnet_32", steps=0)
    answer = wsl("teacher", "import", "ckpt.pth", "--recipe", "digits")
    assert "convnet_32" in answer.out
    assert "teacher.model" not in answer.out


def test_a_files_name_is_shown_as_it_is(own_place: Path, wsl: Command) -> None:
    """Also where it looks like the markup of a console."""
    published(own_place / "ckpt[best].pth", steps=0)
    answer = wsl("teacher", "import", "ckpt[best].pth", "--model", "convnet_4", "--recipe", "digits")
    assert "imported from ckpt[best].pth" in answer.out
    assert "imported from ckpt[best].pth" in wsl("teacher", "list").out


# --- teacher train, list, show -----------------------------------------------------------------------


def test_a_teacher_is_trained_once_and_found_again(own_place: Path, wsl: Command) -> None:
    first = wsl("teacher", "train", "--recipe", "digits", *SHORT_TEACHER, "--json")
    assert "epoch 1/2: validation/accuracy" in first.err
    assert "epoch 2/2: validation/accuracy" in first.err
    assert "is there already" not in first.err
    card = first.json
    assert (card["model"], card["origin"], card["seen_validation"]) == ("convnet_3", "trained here", False)
    assert card["metrics"]["epoch"] == 2
    again = wsl("teacher", "train", "--recipe", "digits", *SHORT_TEACHER, "--json")
    assert again.err == f"teacher {card['teacher_id']} is there already\n"
    assert again.json == card
    other = wsl("teacher", "train", *SHORT_TEACHER, "--part", "train+validation", "--json").json
    assert other["teacher_id"] != card["teacher_id"]
    assert other["seen_validation"] is True


def test_a_trained_teacher_is_the_one_that_a_training_takes(own_place: Path, wsl: Command) -> None:
    card = wsl("teacher", "train", *SHORT_TEACHER, "--json").json
    written = Path(card["weights"]).stat().st_mtime_ns
    result = wsl("train", *SHORT_TEACHER, *SHORT, "--json").json
    found = teacher_identity(result["config"], "train", 1)
    assert found is not None
    assert found[0] == card["teacher_id"]
    assert [one["teacher_id"] for one in wsl("teacher", "list", "--json").json] == [card["teacher_id"]]
    assert Path(card["weights"]).stat().st_mtime_ns == written


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--part", "test"), "--part must be train or train+validation"),
        (("--recipe", "digitz"), 'did you mean "digits"'),
        (("--set", "distillation.method=none"), "distillation.method is none"),
        (("--set", "teacher.model=convnet_5"), 'did you mean "convnet_'),
        (("--set", "teacher.schedule.epochs=many"), "teacher.schedule.epochs"),
        (("--set", "teacher.checkpoint=123456789abc"), "no teacher has the id 123456789abc"),
    ],
)
def test_what_is_wrong_with_the_training_of_a_teacher_is_told(
    arguments: tuple[str, ...], message: str, own_place: Path, wsl: Command
) -> None:
    assert message in wsl("teacher", "train", *arguments, expect=2).err
    assert not list((own_place / "cache").rglob("card.json"))


def test_an_empty_store_says_how_to_fill_it(own_place: Path, wsl: Command) -> None:
    assert wsl("teacher", "list").out == (
        "no teachers yet; a sweep trains those it needs, or: wsl-sweep teacher train\n"
    )
    assert wsl("teacher", "list", "--json").json == []
    assert wsl("teacher", "show", "3f2a", expect=2).err == (
        'wsl-sweep: no teacher has the id "3f2a"; there is none yet: wsl-sweep teacher train\n'
    )
    assert not (own_place / "cache").exists()


def test_teachers_are_listed_and_shown(own_place: Path, wsl: Command) -> None:
    trained = wsl("teacher", "train", *SHORT_TEACHER, "--json").json
    published(own_place / "ckpt.pth", steps=0)
    imported = wsl("teacher", "import", "ckpt.pth", "--model", "convnet_4", "--recipe", "digits", "--json").json

    cards = wsl("teacher", "list", "--json").json
    assert cards == [trained, imported]
    listed = wsl("teacher", "list")
    rows = [line.split() for line in listed.out.splitlines()]
    accuracies = [f"{card['metrics']['validation/accuracy']:.4f}" for card in cards]
    assert rows[1] == [trained["teacher_id"], "convnet_3", "digits", accuracies[0], "trained", "here"]
    assert rows[2][:4] == [imported["teacher_id"], "convnet_4", "digits", f"{accuracies[1]}*"]
    assert listed.out.splitlines()[-1].strip() == "* has seen the validation part"

    for card in cards:
        prefix = next(card["teacher_id"][:end] for end in range(1, 13)
                      if sum(one["teacher_id"].startswith(card["teacher_id"][:end]) for one in cards) == 1)  # fmt: skip
        assert wsl("teacher", "show", prefix, "--json").json == card
        assert wsl("teacher", "show", card["teacher_id"], "--json").json == card
    for unknown in ("zzz", ""):
        message = wsl("teacher", "show", unknown, expect=2).err
        assert f'no teacher has the id "{unknown}"' in message
        assert trained["teacher_id"] in message


def test_a_card_is_shown_whole_however_long_its_lines(
    own_place: Path, wsl: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is cut: a path or a hash that is cut is of no use."""
    monkeypatch.setenv("WSL_SWEEP_CACHE", str(own_place / ("a_folder_with_a_long_name_" * 6)))
    card = wsl("teacher", "train", *SHORT_TEACHER, "--json").json
    shown = re.sub(r"\s+", "", wsl("teacher", "show", card["teacher_id"]).out)
    for text in (card["teacher_id"], card["weights"], card["sha256"], '"validation_fraction":0.3', '"views":"all"'):
        assert text in shown
    assert "…" not in shown


def test_a_beginning_that_two_teachers_share_is_refused_with_both(
    own_place: Path, wsl: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = TeacherStore()
    for teacher_id in ("3f2a00000000", "3f2b00000000"):
        facts = {"identity": {"model": "convnet_2"}, "metrics": {}, "seen_validation": True}
        store.ensure(teacher_id, lambda facts=facts: (build("convnet_2", 10, 1), facts))  # type: ignore[misc]
    message = wsl("teacher", "show", "3f2", expect=2).err
    assert "several teachers begin with 3f2: 3f2a00000000, 3f2b00000000" in message
    assert wsl("teacher", "show", "3f2b", "--json").json["teacher_id"] == "3f2b00000000"


def test_a_damaged_teacher_is_neither_listed_nor_shown(own_place: Path, wsl: Command) -> None:
    card = wsl("teacher", "train", *SHORT_TEACHER, "--json").json
    path = Path(card["weights"])
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    assert wsl("teacher", "list", "--json").json == []
    wsl("teacher", "show", card["teacher_id"], expect=2)
    repaired = wsl("teacher", "train", *SHORT_TEACHER, "--json").json
    assert (repaired["teacher_id"], repaired["sha256"]) == (card["teacher_id"], card["sha256"])


# --- using an imported teacher -----------------------------------------------------------------------


def test_a_training_follows_an_imported_teacher(own_place: Path, wsl: Command) -> None:
    published(own_place / "ckpt.pth")
    card = wsl("teacher", "import", "ckpt.pth", "--model", "convnet_4", "--recipe", "digits", "--json").json
    use = ("train", "--recipe", "digits", "--set", f"teacher.checkpoint={card['teacher_id']}", *SHORT, "--json")
    result = wsl(*use, "--set", "teacher.model=convnet_4").json
    assert result["epochs"] == 1
    assert result["config"]["teacher"] == {"checkpoint": card["weights"], "mode": "eval", "model": "convnet_4"}
    assert 0 <= result["metrics"]["teacher/agreement"] <= 1
    found = teacher_identity(result["config"], "train", 1)
    assert found is not None
    assert found[0] == card["teacher_id"]  # one teacher, one id, however it came here
    by_path = wsl(*use[:3], "--set", f"teacher.checkpoint={card['weights']}", *SHORT, "--json",
                  "--set", "teacher.model=convnet_4").json  # fmt: skip
    assert by_path["trial_id"] == result["trial_id"]
    for name, value in result["metrics"].items():
        assert name == "train/seconds" or by_path["metrics"][name] == value, name


@pytest.mark.parametrize("model", ["convnet_8", None])
def test_a_teacher_of_another_model_is_reported_before_anything_starts(
    model: str | None, own_place: Path, wsl: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(own_place / "ckpt.pth", steps=0)
    card = wsl("teacher", "import", "ckpt.pth", "--model", "convnet_4", "--recipe", "digits", "--json").json

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("a training was started")

    monkeypatch.setattr("wsl_sweep.training.TrialTraining", never)
    named = ("--set", f"teacher.model={model}") if model else ()
    answer = wsl("train", "--set", f"teacher.checkpoint={card['teacher_id']}", *named, *SHORT, expect=2)
    assert "nothing was started" in answer.err
    assert f"does not hold the weights of {model or 'convnet_32'}" in answer.err
    assert "body.0.weight is (4, 1, 3, 3)" in answer.err
    assert not answer.out


# --- recipes -----------------------------------------------------------------------------------------


def test_the_cifar_pairs_are_listed_with_their_settings(wsl: Command) -> None:
    recipes = {name: values for name, values in wsl("recipes", "--json").json.items() if name.startswith("cifar100/")}
    assert set(recipes) == {f"cifar100/{pair}" for pair in CIFAR100_PAIRS}
    for pair, (rate, non_target_weight) in CIFAR100_PAIRS.items():
        own = recipes[f"cifar100/{pair}"]
        teacher, student = pair.split("-")
        assert (own["teacher.model"], own["student.model"]) == (teacher, student)
        assert (own["optimizer.lr"], own["teacher.optimizer.lr"]) == (rate, 0.05), pair
        assert own["distillation.non_target_weight"] == non_target_weight, pair
        for section in ("", "teacher."):
            assert own[f"{section}schedule.epochs"] == 240
            assert own[f"{section}schedule.batch_size"] == 64
            assert own[f"{section}schedule.milestones"] == [150, 180, 210]
            assert own[f"{section}schedule.decay"] == 0.1
            assert own[f"{section}optimizer.momentum"] == 0.9
            assert own[f"{section}optimizer.nesterov"] is False
            assert own[f"{section}optimizer.weight_decay"] == 5e-4
        assert (own["dataset.padding"], own["dataset.padding_mode"], own["dataset.flip"]) == (4, "zeros", True)
        assert own["distillation.temperature"] == 4
    listed = wsl("recipes").flat
    assert all(f"cifar100/{pair} {pair.replace('-', ' → ')} " in listed for pair in CIFAR100_PAIRS)


def test_a_recipe_is_shown_whole_with_where_each_value_comes_from(wsl: Command) -> None:
    name = "cifar100/vgg13-mobilenetv2"
    shown = wsl("recipes", "show", name, "--json").json
    assert shown["name"] == name
    values = shown["values"]
    assert values["optimizer.lr"] == {"value": 0.01, "source": "RepDistiller's CIFAR-100 recipe"}
    assert values["distillation.non_target_weight"] == {
        "value": 6.0, "source": "DKD's released code, for this pair",
    }  # fmt: skip
    assert values["distillation.temperature"]["source"] == "WSL §5.2, CIFAR-100"
    assert values["distillation.alpha"]["value"] == 2.25
    assert values["student.model"] == {"value": "mobilenetv2", "source": "pair of CRD (RepDistiller)"}
    whole = wsl("recipes", "--json").json[name]
    for path, value in whole.items():
        if path != "description":
            assert values[path]["value"] == value, path
    assert all(row["source"] for row in values.values())

    text = wsl("recipes", "show", name)
    assert text.out.startswith(f"{name}: {shown['description']}\n")
    assert "…" not in text.out
    for path, row in values.items():
        assert re.search(rf"^ *{re.escape(path)} +\S", text.out, re.MULTILINE), path
        assert row["source"].split()[0] in text.out


@pytest.mark.parametrize("name", ["digits", "image_folder", "digits/convnet_48-convnet_6"])
def test_other_recipes_are_shown_too(name: str, wsl: Command) -> None:
    values = wsl("recipes", "show", name, "--json").json["values"]
    assert {"dataset.name", "teacher.model", "student.model", "optimizer.lr", "schedule.epochs"} <= set(values)
    assert ("(yours to give)" in wsl("recipes", "show", name).out) == (name == "image_folder")


@pytest.mark.parametrize(
    ("name", "models", "non_target_weight"),
    [
        ("imagenet/resnet34-resnet18", ("torchvision:resnet34", "torchvision:resnet18"), 0.5),
        ("imagenet/resnet50-mobilenetv1", ("torchvision:resnet50", "mobilenetv1"), 2.0),
    ],
)
def test_the_imagenet_pairs_have_the_papers_settings(
    name: str, models: tuple[str, str], non_target_weight: float, wsl: Command
) -> None:
    shown = wsl("recipes", "show", name, "--json").json["values"]
    values = {path: row["value"] for path, row in shown.items()}
    assert (values["teacher.model"], values["student.model"]) == models
    assert (values["teacher.checkpoint"], values["teacher.mode"]) == ("torchvision:IMAGENET1K_V1", "eval")
    assert not any(path.startswith(("teacher.schedule", "teacher.optimizer")) for path in values)
    assert [values[f"optimizer.{leaf}"] for leaf in ("name", "lr", "momentum", "nesterov", "weight_decay")] == [
        "sgd", 0.1, 0.9, True, 1e-4,
    ]  # fmt: skip
    assert [values[f"schedule.{leaf}"] for leaf in ("epochs", "batch_size", "milestones", "decay")] == [
        100, 256, [30, 60, 90], 0.1,
    ]  # fmt: skip
    assert (values["distillation.temperature"], values["distillation.warmup_epochs"]) == (2.0, 1)
    assert values["distillation.non_target_weight"] == non_target_weight
    assert [values[f"dataset.{leaf}"] for leaf in ("name", "size", "flip", "views")] == ["imagenet", 224, True, "epoch"]
    assert (values["distillation.alpha"], values["dataset.root"]) == (2.25, None)
    assert shown["distillation.alpha"]["source"].startswith("WSL §5.2, CIFAR-100")
    assert "2.5" in shown["distillation.temperature"]["source"]


def test_a_teacher_of_ones_own_takes_the_place_of_an_imagenet_recipes() -> None:
    from wsl_sweep.spec.loading import CommandLine, parse_spec

    sets = ("teacher.checkpoint=none", "teacher.model=mobilenetv1", "dataset.root=pictures")
    spec = parse_spec("variants: [kd]", "s", CommandLine(recipe="imagenet/resnet34-resnet18", sets=sets))
    teacher = spec.config(spec.variants["kd"])["teacher"]
    assert (teacher["model"], teacher["schedule"]["epochs"], teacher["optimizer"]["lr"]) == ("mobilenetv1", 100, 0.1)


def test_the_stand_in_of_imagenet_is_small_and_trains_its_teacher_here(wsl: Command) -> None:
    shown = wsl("recipes", "show", "imagenet/tiny", "--json").json["values"]
    values = {path: row["value"] for path, row in shown.items()}
    assert (values["teacher.model"], values["student.model"]) == ("mobilenetv1_x050", "mobilenetv1_x025")
    assert "teacher.checkpoint" not in values
    assert (values["dataset.size"], values["dataset.views"]) == (64, 4)
    assert values["teacher.schedule.epochs"] <= 10
    assert all(row["source"] for row in shown.values())


@pytest.mark.parametrize(("wrong", "right"), [("digitz", "digits"), ("cifar100/vgg13-vgg9", "cifar100/vgg13-vgg8")])
def test_an_unknown_recipe_is_refused_with_the_nearest_one(wrong: str, right: str, wsl: Command) -> None:
    answer = wsl("recipes", "show", wrong, expect=2)
    assert answer.err == f'wsl-sweep: no recipe is called "{wrong}"; did you mean "{right}"?\n'
    assert not answer.out
