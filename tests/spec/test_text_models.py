"""What a file may say of text models and of where weights begin."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from wsl_sweep.errors import WslSweepError
from wsl_sweep.spec.catalogue import attention_heads, is_text_model, library_of_model, model_problem, text_shape
from wsl_sweep.spec.identity import teacher_identity, trial_id
from wsl_sweep.spec.loading import CommandLine, parse_spec
from wsl_sweep.spec.reads import reads
from wsl_sweep.spec.spec import Spec

TEXT = "variants: {x: {}}\nrun: {recipe: mnli/tiny, dataset: {root: somewhere}}"


def spec_of(*sets: str) -> Spec:
    return parse_spec(TEXT, "x", CommandLine(sets=sets))


def config_of(*sets: str) -> dict[str, Any]:
    return spec_of(*sets).config({}, seed=0)


def problem(*sets: str) -> str:
    with pytest.raises(WslSweepError) as caught:
        spec_of(*sets)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("bert_12x768", (12, 768)),
        ("bert_base", (12, 768)),
        ("bert_t3", (3, 768)),
        ("bert_2x16", (2, 16)),
        ("bert_24x1024", (24, 1024)),
        ("bert_25x64", None),
        ("bert_2x1088", None),
        ("bert_2x24", None),
        ("bert_2x144", None),
        ("bert_02x64", None),
        ("resnet20", None),
    ],
)
def test_a_bert_is_named_by_layers_and_width(name: str, shape: tuple[int, int] | None) -> None:
    assert text_shape(name) == shape
    assert is_text_model(name) == (shape is not None)
    assert library_of_model(name) == ("transformers" if shape else None)
    if name != "resnet20":
        assert (model_problem(name) is None) == (shape is not None)


def test_heads_are_those_of_the_published_berts() -> None:
    assert [attention_heads(width) for width in (128, 256, 512, 768, 1024)] == [2, 4, 8, 12, 16]
    assert [attention_heads(width) for width in (16, 64, 96)] == [2, 2, 2]


def test_a_shape_out_of_range_says_which_are_in_range() -> None:
    assert "at most 24 layers" in str(model_problem("bert_40x64"))
    assert '"bert_base"' in str(model_problem("bert_bse"))


@pytest.mark.parametrize("leaf", ["student.init", "teacher.init"])
def test_only_text_models_begin_from_anything_but_random_weights(leaf: str) -> None:
    pictures = ("dataset.name=digits", "student.model=convnet_2", "teacher.model=convnet_4")
    text = "variants: {x: {}}\nrun: {recipe: digits}"
    with pytest.raises(WslSweepError, match=r"convnet_\d is no text model"):
        parse_spec(text, "x", CommandLine(sets=(*pictures, f"{leaf}=bert-base-cased")))
    assert parse_spec(text, "x", CommandLine(sets=(*pictures, f"{leaf}=random")))


def test_a_teacher_cannot_begin_from_itself() -> None:
    assert "a teacher cannot begin from itself" in problem("teacher.init=teacher")


@pytest.mark.parametrize(
    ("student", "told"),
    [("bert_5x64", "more layers than its teacher bert_4x64"), ("bert_2x32", "another width than its teacher")],
)
def test_a_student_that_is_not_the_first_layers_of_its_teacher_is_told(student: str, told: str) -> None:
    sets = ("teacher.model=bert_4x64", f"student.model={student}")
    assert told in problem(*sets, "student.init=teacher")
    assert spec_of(*sets)


def test_a_swept_beginning_is_told_where_it_stands() -> None:
    text = (
        f"{TEXT}\nspace: {{student.model: {{grid: [bert_2x64, bert_2x32]}}, student.init: {{grid: [random, teacher]}}}}"
    )
    with pytest.raises(WslSweepError, match=r"space\.student\.init.*bert_2x32 has another width"):
        parse_spec(text, "x", CommandLine(sets=("teacher.model=bert_4x64",)))


def test_a_student_that_begins_from_its_teacher_needs_one_even_without_distillation() -> None:
    alone = config_of("distillation.method=none")
    begun = config_of("distillation.method=none", "student.init=teacher", "student.model=bert_2x64")
    distilled = config_of("student.init=teacher", "student.model=bert_2x64")
    assert "teacher" not in alone
    assert "mode" not in begun["teacher"]  # which says how its logits are made
    assert begun["teacher"] | {"mode": "eval"} == distilled["teacher"]
    one, other = (teacher_identity(config, "train", 1) for config in (begun, distilled))
    assert one is not None
    assert one == other
    assert trial_id(begun, "train", 1) != trial_id(alone, "train", 1)


def test_random_weights_leave_every_identity_as_it_was() -> None:
    assert not {"student.init", "teacher.init"} & reads(spec_of().flat_config({}))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return weights_in(tmp_path / "one", b"weights")


def weights_in(folder: Path, content: bytes, config: Mapping[str, Any] = {"model_type": "bert"}) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(content)
    return folder


def ids(*sets: str) -> tuple[str, str]:
    config = config_of(*sets)
    named = teacher_identity(config, "train", 1)
    assert named is not None
    return named[0], trial_id(config, "train", 1)


@pytest.mark.parametrize("leaf", ["student.init", "teacher.init"])
def test_weights_stand_in_an_identity_by_content_not_place(leaf: str, folder: Path, tmp_path: Path) -> None:
    copy, other = weights_in(tmp_path / "copy", b"weights"), weights_in(tmp_path / "other", b"other weights")
    here = ids(f"{leaf}={folder}")
    assert here == ids(f"{leaf}={copy}")
    there = ids(f"{leaf}={other}")
    assert here[1] != there[1]
    assert (here[0] != there[0]) == (leaf == "teacher.init")
    assert ids()[1] not in (here[1], there[1])


def test_names_on_the_hub_stand_there_by_name() -> None:
    assert len({ids(f"student.init={name}")[1] for name in ("bert-base-cased", "bert-base-uncased", "teacher")}) == 3


def test_a_models_folder_stands_there_by_its_shape(tmp_path: Path) -> None:
    shapes = ({"model_type": "bert"}, {"model_type": "bert"}, {"model_type": "bert", "hidden_size": 4})
    folders = [weights_in(tmp_path / str(at), b"", shape) for at, shape in enumerate(shapes)]
    one, same, other = (ids(f"teacher.model=transformers:{folder}") for folder in folders)
    assert one == same
    assert one[0] != other[0]
