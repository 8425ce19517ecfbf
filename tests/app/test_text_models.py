"""What is told of text models before a sweep starts: on which data, from which weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.conftest import Workplace
from tests.data.glue import write_glue
from wsl_sweep.app.preparing import prepare_text_models, surroundings
from wsl_sweep.app.world import LocalWorld
from wsl_sweep.errors import WslSweepError
from wsl_sweep.models import build
from wsl_sweep.spec.loading import CommandLine, parse_spec
from wsl_sweep.spec.spec import Spec
from wsl_sweep.training.checkpoints import fill

pytest.importorskip("transformers")

TEXT = "variants: {x: {}}\nrun: {recipe: mnli/tiny}"


@pytest.fixture
def glue(tmp_path: Path) -> Path:
    return write_glue(tmp_path / "glue", 45, 9, 9)


@pytest.fixture
def world() -> LocalWorld:
    return LocalWorld([])


def spec_of(glue: Path, *sets: str, world: LocalWorld | None = None) -> Spec:
    return parse_spec(TEXT, "x", CommandLine(sets=(f"dataset.root={glue}", *sets)), world=world)


def weights_of(name: str, folder: Path, words: int, heads: int = 2, **more: Tensor) -> Path:
    """A folder as pretrained models have one."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "num_attention_heads": heads}))
    save_file({**build(name, 3, words).state_dict(), **more}, folder / "model.safetensors")
    return folder


def words_of(glue: Path) -> int:
    from wsl_sweep.data import shape

    return shape(spec_of(glue).config({})["dataset"])[1]


def check(spec: Spec) -> bool:
    return prepare_text_models([spec.config({})])


def test_text_models_are_for_text_and_others_are_not(glue: Path, world: LocalWorld) -> None:
    digits, text = {"dataset.name": "digits"}, {"dataset.name": "mnli", "dataset.root": str(glue)}
    assert world.model_problem("bert_2x64", digits) == '"bert_2x64" reads text, and digits has pictures'
    assert world.model_problem("resnet8", text) == '"resnet8" reads pictures, and mnli has text'
    assert world.model_problem("bert_2x64", text) is None
    assert world.features_problem("bert_2x64", text) is None
    assert "no such folder" in str(world.model_problem("transformers:./gone", text))


def test_a_text_model_may_be_for_a_users_own_task(world: LocalWorld) -> None:
    assert world.model_problem("bert_2x64", {"dataset.name": "tests.text:TinyText"}) is None


def test_a_brought_in_teacher_of_text_is_looked_at(world: LocalWorld, tmp_path: Path) -> None:
    save_file(build("bert_2x32", 3, 77).state_dict(), tmp_path / "t.safetensors")
    data = {"dataset.name": "mnli"}
    assert world.checkpoint_problem(str(tmp_path / "t.safetensors"), "bert_2x32", data) is None
    told = world.checkpoint_problem(str(tmp_path / "t.safetensors"), "bert_3x32", data)
    assert told is not None
    assert "missing: bert.encoder.layer.2" in told


@pytest.mark.parametrize("leaf", ["student.init", "teacher.init"])
def test_a_folder_of_weights_that_is_not_there_is_told_at_its_place(leaf: str, glue: Path, world: LocalWorld) -> None:
    with pytest.raises(WslSweepError, match=rf"--set {leaf}: \./gone: no such folder"):
        spec_of(glue, f"{leaf}=./gone", world=world)


def test_weights_of_another_vocabulary_or_shape_are_told_before_anything_starts(glue: Path, tmp_path: Path) -> None:
    words = words_of(glue)
    good = weights_of("bert_2x64", tmp_path / "good", words)
    assert check(spec_of(glue, f"student.init={good}"))
    assert check(spec_of(glue))
    other = weights_of("bert_2x64", tmp_path / "other", words + 1)
    with pytest.raises(WslSweepError, match=rf"student\.init: bert_2x64 cannot begin from .*\({words + 1}, 64\)"):
        check(spec_of(glue, f"student.init={other}"))
    with pytest.raises(WslSweepError, match=r"teacher\.init: .* has 2 layers, and bert_4x64 begins from its first 4"):
        check(spec_of(glue, f"teacher.init={good}"))
    with pytest.raises(WslSweepError, match="has 8 heads of attention, not 2"):
        check(spec_of(glue, f"student.init={weights_of('bert_2x64', tmp_path / 'heads', words, heads=8)}"))


def test_a_model_that_reads_fewer_tokens_than_the_data_have_is_told(glue: Path, tmp_path: Path) -> None:
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = {"model_type": "bert", "vocab_size": 5000, "pad_token_id": 0, "max_position_embeddings": 48, **shape}
    (tmp_path / "config.json").write_text(json.dumps(config))
    name = f"student.model=transformers:{tmp_path}"
    assert check(spec_of(glue, name, "dataset.max_length=48"))
    with pytest.raises(WslSweepError, match=r"student\.model: .* reads 48 tokens at most"):
        check(spec_of(glue, name))
    (tmp_path / "config.json").write_text(json.dumps({**config, "vocab_size": 7}))
    with pytest.raises(WslSweepError, match=r"student\.model: .* it knows 7 words"):
        check(spec_of(glue, name, "dataset.max_length=48"))


def test_a_sweep_rests_on_the_weights_in_folders(glue: Path, tmp_path: Path) -> None:
    folder = weights_of("bert_2x64", tmp_path / "p", 20)
    found = surroundings(spec_of(glue, f"student.init={folder}"))
    assert str(found[f"the weights in {folder}"]).startswith("sha256:")
    assert not any("weights" in name for name in surroundings(spec_of(glue, "student.init=bert-base-cased")))


def published(model: nn.Module) -> Mapping[str, Tensor]:
    """As files of transformers' first years hold it."""
    tensors = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in model.state_dict().items()
    }
    return {**tensors, "bert.embeddings.position_ids": torch.arange(512).unsqueeze(0)}


def test_a_published_classifier_is_brought_in_by_its_own_names() -> None:
    theirs, ours = build("bert_2x32", 3, 50), build("bert_2x32", 3, 50)
    fill(ours, published(theirs), "a file", "bert_2x32")
    assert all(torch.equal(tensor, ours.state_dict()[name]) for name, tensor in theirs.state_dict().items())
    with pytest.raises(WslSweepError, match=r"classifier\.weight is \(3, 32\), bert_2x32 has \(2, 32\)"):
        fill(build("bert_2x32", 2, 50), published(theirs), "a file", "bert_2x32")


@pytest.mark.slow
def test_a_teacher_of_text_is_fine_tuned_or_brought_in_by_command(workplace: Workplace, glue: Path) -> None:
    begin = weights_of("bert_2x32", workplace.folder / "pretrained", words_of(glue))
    recipe = ("--recipe", "mnli/tiny", "--set", f"dataset.root={glue}", "--set", "teacher.model=bert_2x32")
    short = ("--set", "teacher.schedule.epochs=1", "--set", f"teacher.init={begin}")
    printed = workplace.run("teacher", "train", *recipe, *short, "--json")
    trained = json.loads(printed[printed.index("{") :])
    assert trained["model"] == "bert_2x32"
    assert trained["identity"]["teacher"]["init"].startswith("sha256:")
    brought = workplace.run("teacher", "import", trained["weights"], *recipe)
    assert "imported from weights.safetensors" in brought
    gone = ("--set", "teacher.init=some/model-that-nobody-has")
    workplace.environment |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(workplace.folder / "hub")}
    told = workplace.run("teacher", "train", *recipe, *gone, expect=2)
    assert "is not kept on this machine" in told
    assert "cannot be downloaded" in told
    assert "Traceback" not in told
