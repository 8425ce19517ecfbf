"""Where the weights of text models begin: what is taken of which file, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from wsl_sweep.errors import WslSweepError
from wsl_sweep.models import build
from wsl_sweep.training.beginning import backbone_of, begin, check_beginning

transformers = pytest.importorskip("transformers")

WORDS, CLASSES = 20, 3
CONFIG = {"model_type": "bert", "num_attention_heads": 2}


def made(name: str, seed: int = 0, classes: int = CLASSES, words: int = WORDS) -> nn.Module:
    torch.manual_seed(seed)
    return build(name, classes, words)


def folder_of(
    tensors: Mapping[str, Tensor], folder: Path, config: Mapping[str, object] = CONFIG, name: str = "model.safetensors"
) -> str:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    tensors = {key: tensor.contiguous() for key, tensor in tensors.items()}
    if name.endswith(".bin"):
        torch.save(tensors, folder / name)
    else:
        save_file(tensors, folder / name)
    return str(folder)


def old_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As BERT's first files have them, with a language model's head in place of the classifier."""
    renamed = {
        key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for key, tensor in tensors.items()
        if not key.startswith("classifier.")
    }
    return {**renamed, "cls.predictions.bias": torch.zeros(WORDS)}


def alone(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As a backbone saved by itself."""
    return {key.removeprefix("bert."): tensor for key, tensor in tensors.items() if key.startswith("bert.")}


def check_begun(student: nn.Module, pretrained: Mapping[str, Tensor], fresh: Mapping[str, Tensor]) -> None:
    """The backbone is the pretrained one's as far as it goes, the classifier is as it was."""
    for key, tensor in student.state_dict().items():
        assert torch.equal(tensor, fresh[key] if key.startswith("classifier.") else pretrained[key]), key


@pytest.mark.parametrize("form", ["as it is", "old names", "alone", "pytorch_model.bin", "float16"])
def test_a_student_begins_with_the_first_layers_of_pretrained_weights(form: str, tmp_path: Path) -> None:
    pretrained = made("bert_4x32", 1).half().float().state_dict()
    kept: Mapping[str, Tensor] = pretrained
    if form == "old names":
        kept = old_names(pretrained)
    elif form == "alone":
        kept = alone(pretrained)
    elif form == "float16":
        kept = {key: tensor.half() for key, tensor in pretrained.items()}
    folder = folder_of(kept, tmp_path / "p", name=form if form.endswith(".bin") else "model.safetensors")
    student, fresh = made("bert_2x32"), made("bert_2x32").state_dict()
    begin(student, "bert_2x32", folder)
    check_begun(student, pretrained, fresh)


def test_weights_in_several_files_are_put_together(tmp_path: Path) -> None:
    pretrained = made("bert_2x32", 1).state_dict()
    keys = list(pretrained)
    parts = {"a.safetensors": keys[::2], "b.safetensors": keys[1::2]}
    for name, own in parts.items():
        save_file({key: pretrained[key] for key in own}, tmp_path / name)
    index = {"weight_map": {key: name for name, own in parts.items() for key in own}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    student, fresh = made("bert_2x32"), made("bert_2x32").state_dict()
    begin(student, "bert_2x32", str(tmp_path))
    check_begun(student, pretrained, fresh)
    outside = {"weight_map": dict.fromkeys(keys, "../a.safetensors")}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(outside))
    with pytest.raises(WslSweepError, match="names files that do not lie beside it"):
        begin(student, "bert_2x32", str(tmp_path))


def test_a_student_begins_from_its_teacher(tmp_path: Path) -> None:
    teacher = made("bert_4x32", 1).state_dict()
    save_file(teacher, tmp_path / "weights.safetensors")
    student, fresh = made("bert_2x32"), made("bert_2x32").state_dict()
    begin(student, "bert_2x32", "teacher", tmp_path / "weights.safetensors")
    check_begun(student, teacher, fresh)


def test_random_weights_are_left_alone() -> None:
    student, fresh = made("bert_2x32"), made("bert_2x32").state_dict()
    begin(student, "bert_2x32", "random")
    assert all(torch.equal(tensor, fresh[key]) for key, tensor in student.state_dict().items())
    begin(made("convnet_2", words=1), "convnet_2", "random")


def test_a_pooler_that_is_not_there_stays_as_it_began(tmp_path: Path) -> None:
    pretrained = {key: tensor for key, tensor in made("bert_2x32", 1).state_dict().items() if ".pooler." not in key}
    student, fresh = made("bert_2x32"), made("bert_2x32").state_dict()
    begin(student, "bert_2x32", folder_of(pretrained, tmp_path / "p"))
    kept = {key: fresh[key] for key in fresh if ".pooler." in key}
    check_begun(student, {**pretrained, **kept}, fresh)


def test_a_distilbert_begins_from_a_distilbert_only(tmp_path: Path) -> None:
    config = {"model_type": "distilbert", "vocab_size": WORDS, "dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 8}
    (tmp_path / "shape").mkdir()
    (tmp_path / "shape" / "config.json").write_text(json.dumps(config))
    name = f"transformers:{tmp_path / 'shape'}"
    pretrained = made(name, 1).state_dict()
    student, fresh = made(name), made(name).state_dict()
    begin(student, name, folder_of(pretrained, tmp_path / "p", {"model_type": "distilbert", "n_heads": 2}))
    for key, tensor in student.state_dict().items():
        assert torch.equal(tensor, pretrained[key] if key.startswith("distilbert.") else fresh[key]), key
    with pytest.raises(WslSweepError, match="does not hold the weights of a distilbert"):
        begin(student, name, folder_of(made("bert_2x32").state_dict(), tmp_path / "b"))


@pytest.mark.parametrize(
    ("pretrained", "told"),
    [
        ("bert_1x32", "has 1 layers, and bert_2x32 begins from its first 2"),
        ("bert_2x64", r"is \(20, 64\), bert_2x32 has \(20, 32\)"),
        ("words", r"word_embeddings\.weight is \(21, 32\), bert_2x32 has \(20, 32\)"),
        ("hole", r"missing: bert\.encoder\.layer\.1\.output\.dense\.bias"),
        ("infinite", r"word_embeddings\.weight has values that are not finite"),
        ("pictures", "does not hold the weights of a bert"),
        ("heads", "has 4 heads of attention, not 2"),
    ],
)
def test_weights_that_do_not_fit_are_told_and_nothing_is_changed(pretrained: str, told: str, tmp_path: Path) -> None:
    config, tensors = (
        dict(CONFIG),
        dict(made("bert_2x32", 1, words=21 if pretrained == "words" else WORDS).state_dict()),
    )
    if pretrained == "hole":
        del tensors["bert.encoder.layer.1.output.dense.bias"]
    elif pretrained == "infinite":
        tensors["bert.embeddings.word_embeddings.weight"][0, 0] = float("inf")
    elif pretrained == "pictures":
        tensors = dict(made("convnet_2", words=1).state_dict())
    elif pretrained == "heads":
        config["num_attention_heads"] = 4
    elif pretrained != "words":
        tensors = dict(made(pretrained, 1).state_dict())
    folder = folder_of(tensors, tmp_path / "p", config)
    student, fresh = made("bert_2x32"), made("bert_2x32").state_dict()
    with pytest.raises(WslSweepError, match=told):
        begin(student, "bert_2x32", folder)
    with pytest.raises(WslSweepError, match=told):
        check_beginning("bert_2x32", folder, CLASSES, WORDS)
    assert all(torch.equal(tensor, fresh[key]) for key, tensor in student.state_dict().items())


def test_a_folder_without_weights_or_a_picture_model_is_told(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    with pytest.raises(WslSweepError, match=r"holds no weights; wanted is model\.safetensors"):
        begin(made("bert_2x32"), "bert_2x32", str(tmp_path))
    with pytest.raises(WslSweepError, match="convnet_2 reads no text"):
        begin(made("convnet_2", words=1), "convnet_2", str(tmp_path))


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    torch.save({"model": made("bert_2x32")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(WslSweepError, match=r"refused|neither is read"):
        begin(made("bert_2x32"), "bert_2x32", str(tmp_path))


def test_what_fits_needs_no_memory_to_be_told(tmp_path: Path) -> None:
    check_beginning("bert_2x32", folder_of(made("bert_4x32", 1).state_dict(), tmp_path / "p"), CLASSES, WORDS)
    check_beginning("bert_24x1024", "random", CLASSES, 30_000)


def test_names_of_another_part_are_left_out() -> None:
    tensors = {"bert.a.LayerNorm.gamma": torch.ones(1), "cls.b": torch.ones(1)}
    assert list(backbone_of(tensors, "bert")) == ["bert.a.LayerNorm.weight"]
