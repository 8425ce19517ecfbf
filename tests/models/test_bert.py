"""Models of text: their shapes, what padding does to them, and what of transformers' is read."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from wsl_sweep.errors import WslSweepError
from wsl_sweep.models import build, with_features
from wsl_sweep.models.bert import TextClassifier

transformers = pytest.importorskip("transformers")

WORDS = 40


def counted(layers: int, width: int, words: int, classes: int, positions: int = 512) -> int:
    """A BERT's parameters, from its description."""
    norm, inner = 2 * width, 4 * width

    def linear(inputs: int, outputs: int) -> int:
        return (inputs + 1) * outputs

    embeddings = (words + positions + 2) * width + norm
    layer = 4 * linear(width, width) + norm + linear(width, inner) + linear(inner, width) + norm
    return embeddings + layers * layer + linear(width, width) + linear(width, classes)


@pytest.mark.parametrize(
    ("name", "layers", "width", "words", "classes", "parameters"),
    [
        ("bert_12x768", 12, 768, 28_996, 3, 108_312_579),
        ("bert_base", 12, 768, 28_996, 3, 108_312_579),
        ("bert_3x768", 3, 768, 28_996, 3, 44_521_731),
        ("bert_t3", 3, 768, 28_996, 3, 44_521_731),
        ("bert_4x256", 4, 256, 30_522, 2, None),
        ("bert_2x16", 2, 16, WORDS, 3, None),
    ],
)
def test_a_bert_has_the_parameters_of_its_shape(
    name: str, layers: int, width: int, words: int, classes: int, parameters: int | None
) -> None:
    with torch.device("meta"):
        model = build(name, classes, words)
    found = sum(parameter.numel() for parameter in model.parameters())
    assert found == counted(layers, width, words, classes)
    assert parameters is None or found == parameters


def grown(name: str, words: int = WORDS) -> nn.Module:
    """A model in eval mode whose weights are as large as after training, so that its logits are far apart."""
    torch.manual_seed(0)
    model = build(name, 3, words).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(6)
    return model


def pairs(count: int, length: int, padding: int = 0) -> Tensor:
    """(count, 2, length + padding) random pairs of sentences."""
    tokens = torch.zeros(count, 2, length + padding, dtype=torch.int64)
    tokens[:, 0, :length] = torch.randint(1, WORDS, (count, length), generator=torch.Generator().manual_seed(1))
    tokens[:, 1, length // 2 : length] = 1
    return tokens


@pytest.fixture(params=["bert", "distilbert"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder with the configuration of a model of two layers."""
    return config_in(tmp_path / request.param, str(request.param))


def config_in(folder: Path, kind: str, **changes: Any) -> Path:
    sizes: dict[str, Any] = {
        "bert": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64},
        "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64},
    }.get(kind, {})
    folder.mkdir()
    config = {"model_type": kind, "vocab_size": WORDS + 8, "pad_token_id": 0, "num_labels": 2, **sizes, **changes}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_padding_changes_logits_by_rounding_only(folder: Path) -> None:
    for model in (grown("bert_2x64"), grown(f"transformers:{folder}")):
        with torch.no_grad():
            short, long = model(pairs(5, 11)), model(pairs(5, 11, padding=53))
        assert short.abs().max() > 0.1
        assert (short - long).abs().max() < 1e-5


def test_a_row_of_nothing_but_padding_disturbs_no_other(folder: Path) -> None:
    for model in (grown("bert_2x64"), grown(f"transformers:{folder}")):
        tokens = pairs(4, 12)
        blank = tokens.clone()
        blank[3] = 0
        for precision in (False, True):
            with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision):
                logits, of_blank = model(tokens), model(blank)
            assert torch.equal(logits[:3], of_blank[:3])
            assert of_blank.isfinite().all()


def test_where_an_example_stands_in_a_batch_changes_no_bit() -> None:
    model, tokens = grown("bert_2x128"), pairs(64, 21)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        assert torch.equal(model(tokens)[order], model(tokens[order]))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_bert_computes_what_transformers_computes(attention: str) -> None:
    config = transformers.BertConfig(
        vocab_size=WORDS,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=256,
        num_labels=3,
        attn_implementation=attention,
    )
    theirs, ours = transformers.BertForSequenceClassification(config).eval(), grown("bert_2x64")
    theirs.load_state_dict(ours.state_dict())  # by the same names
    tokens = pairs(6, 15, padding=4)
    with torch.no_grad():
        expected = theirs(
            input_ids=tokens[:, 0], attention_mask=(tokens[:, 0] != 0).long(), token_type_ids=tokens[:, 1]
        ).logits
        torch.testing.assert_close(ours(tokens), expected, rtol=1e-5, atol=1e-5)


def test_a_distilbert_computes_what_transformers_computes(tmp_path: Path) -> None:
    folder = config_in(tmp_path / "d", "distilbert")
    ours = grown(f"transformers:{folder}")
    config = transformers.DistilBertConfig.from_pretrained(folder, num_labels=3)
    theirs = transformers.DistilBertForSequenceClassification(config).eval()
    theirs.load_state_dict(ours.state_dict())
    tokens = pairs(6, 15, padding=4)
    with torch.no_grad():
        expected = theirs(input_ids=tokens[:, 0], attention_mask=(tokens[:, 0] != 0).long()).logits
        torch.testing.assert_close(ours(tokens), expected, rtol=1e-5, atol=1e-5)


def test_features_are_what_the_classifier_sees(folder: Path) -> None:
    for name, width in (("bert_2x64", 64), (f"transformers:{folder}", 32)):
        model, tokens = grown(name), pairs(3, 9)
        assert isinstance(model, TextClassifier)
        logits, features = with_features(model, tokens)
        assert features.shape == (3, width)
        torch.testing.assert_close(model.get_submodule("classifier")(features), logits)


def test_a_seed_decides_the_weights_and_dropout_draws_from_the_usual_stream() -> None:
    def made() -> tuple[Tensor, Tensor]:
        torch.manual_seed(3)
        model = build("bert_2x16", 3, WORDS).train()
        return model(pairs(4, 8)), torch.cat([parameter.flatten() for parameter in model.parameters()])

    (one, weights), (other, same) = made(), made()
    assert torch.equal(one, other)
    assert torch.equal(weights, same)


def test_a_bert_survives_safetensors() -> None:
    model, fresh = grown("bert_2x16"), build("bert_2x16", 3, WORDS).eval()
    fresh.load_state_dict(load(save(model.state_dict())))
    assert torch.equal(fresh(pairs(4, 8)), model(pairs(4, 8)))


def test_a_configuration_in_a_folder_gives_the_shape(tmp_path: Path) -> None:
    model = build(f"transformers:{config_in(tmp_path / 'b', 'bert')}", 3, WORDS)
    assert isinstance(model, TextClassifier)
    assert model.heads == 4
    assert dict(model.named_parameters())["bert.embeddings.word_embeddings.weight"].shape == (WORDS + 8, 32)
    assert model(pairs(2, 6)).shape == (2, 3)


@pytest.mark.parametrize(
    ("kind", "changes", "told"),
    [
        ("roberta", {}, "is of the kind roberta; what is read here are bert and distilbert"),
        ("bert", {"vocab_size": WORDS - 1}, f"it knows {WORDS - 1} words, and the data's vocabulary has {WORDS}"),
        ("bert", {"type_vocab_size": 1}, "it knows one type of tokens"),
        ("bert", {"pad_token_id": 3}, "its padding is token 3, and has to be 0"),
        ("bert", {"hidden_size": 30}, "cannot be made of its config.json"),
        ("bert", {"hidden_size": "wide"}, "cannot be made of its config.json"),
    ],
)
def test_a_configuration_that_does_not_fit_is_told(
    kind: str, changes: dict[str, Any], told: str, tmp_path: Path
) -> None:
    folder = config_in(tmp_path / "one", kind, **changes)
    with pytest.raises(WslSweepError) as caught:
        build(f"transformers:{folder}", 3, WORDS)
    assert told in str(caught.value)


@pytest.mark.parametrize("content", [None, "{", "[1]"])
def test_a_folder_without_a_readable_configuration_is_told(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(WslSweepError, match=r"config\.json"):
        build(f"transformers:{tmp_path}", 3, WORDS)


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(WslSweepError, match="no such folder"):
        build(f"transformers:{tmp_path / 'gone'}", 3, WORDS)


def test_a_hub_that_may_not_be_asked_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WslSweepError, match=r'"some/model" is not kept on this machine: .*cannot be downloaded'):
        build("transformers:some/model", 3, WORDS)


@pytest.mark.parametrize("name", ["bert_2x16", "transformers:some/model"])
def test_without_transformers_the_extra_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(WslSweepError, match=r'pip install "wsl-sweep\[nlp\]"'):
        build(name, 3, WORDS)


def test_a_bert_is_exported_for_any_number_of_examples(tmp_path: Path) -> None:
    model, tokens = grown("bert_2x16"), pairs(3, 8)
    free = ({0: torch.export.Dim("batch")},)
    with torch.no_grad():
        program = torch.export.export(model, (pairs(2, 8),), dynamic_shapes=free)
        assert torch.allclose(program.module()(tokens), model(tokens), atol=1e-6)
