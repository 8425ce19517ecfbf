"""BERT and its like as classifiers of pairs of sentences (Devlin et al. 2019), on transformers' modules.

Their input is one integer tensor (B, 2, L): token ids, 0 for padding, and token types.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from wsl_sweep.errors import WslSweepError
from wsl_sweep.model_folders import CONFIG, read_config
from wsl_sweep.models.pretrained import INSTALL, model_folder
from wsl_sweep.spec.catalogue import attention_heads, text_shape
from wsl_sweep.user_code import told

PADDING = 0
"""The id of ``[PAD]``."""

MOST_POSITIONS = 512
TOKEN_TYPES = 2

OLD_NAMES = (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias"))
"""How BERT's first files call what transformers calls otherwise since."""

HIDDEN = -1e9
"""Added to the scores of padding: nothing of it is left after a softmax in any precision, and no infinity comes in, so
that a row of nothing but padding has a mean, not NaN."""


class TextClassifier(nn.Module):
    """A classifier of tokens whose parameters have transformers' own names: ``forward`` is ``classifier(features)``.

    Args:
        net: transformers' model for sequence classification; its parts become this module's.

    Attributes:
        config: transformers' name for its configuration.
        net: transformers' name for its class.
        backbone: name of the part that pretrained weights are for.
        attention: transformers' name for how attention is computed.
        heads: of its attention.
        positions: how many tokens it reads at most.
    """

    config: str
    net: str
    backbone: str
    attention: str
    heads: int
    positions: int

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        for name, part in net.named_children():
            self.add_module(name, part)
        own: Any = net.config
        self.heads, self.positions = int(own.num_attention_heads), int(own.max_position_embeddings)

    @abstractmethod
    def features(self, tokens: Tensor) -> Tensor:
        """(B, D) of (B, 2, L) tokens: what the classifier sees, but for dropout."""

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, num_classes) logits of (B, 2, L) tokens."""
        logits: Tensor = self.get_submodule("classifier")(self.get_submodule("dropout")(self.features(tokens)))
        return logits


class Bert(TextClassifier):
    """``BertForSequenceClassification``: the pooled first token and a linear map."""

    config, net, backbone, attention = "BertConfig", "BertForSequenceClassification", "bert", "sdpa"

    def features(self, tokens: Tensor) -> Tensor:
        """(B, width), the pooled output."""
        ids, types, bert = tokens[:, 0], tokens[:, 1], self.get_submodule("bert")
        states = bert.get_submodule("embeddings")(input_ids=ids, token_type_ids=types)
        # Of four dimensions, as every attention takes it: transformers would look at its values to leave it out.
        mask = (ids == PADDING)[:, None, None, :].to(states.dtype) * HIDDEN
        states = bert.get_submodule("encoder")(states, attention_mask=mask)[0]
        pooled: Tensor = bert.get_submodule("pooler")(states)
        return pooled


class DistilBert(TextClassifier):
    """``DistilBertForSequenceClassification``: it has no token types, and none are read."""

    config, net, backbone = "DistilBertConfig", "DistilBertForSequenceClassification", "distilbert"
    attention = "eager"  # whose mask transformers makes without looking at its values

    def features(self, tokens: Tensor) -> Tensor:
        """(B, width), the first token after a linear map and a ReLU."""
        ids = tokens[:, 0]
        states = self.get_submodule("distilbert")(input_ids=ids, attention_mask=(ids != PADDING).long())[0]
        return torch.relu(self.get_submodule("pre_classifier")(states[:, 0]))


def by_todays_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Some published tensors of a text model by the names that transformers has for them now."""
    found = {}
    for key, tensor in tensors.items():
        name = key
        for old, new in OLD_NAMES:
            name = name.removesuffix(old) + new if name.endswith(old) else name
        found[name] = tensor
    return found


def build_bert(name: str, num_classes: int, words: int) -> Bert:
    """A freshly initialised BERT of the shape that its name says, for a vocabulary of so many words.

    Raises WslSweepError: transformers is not installed.
    """
    shape = text_shape(name)
    if shape is None:
        raise ValueError(f"{name} is no name of a BERT")
    transformers = _transformers(name)
    layers, width = shape
    config = transformers.BertConfig(
        vocab_size=words,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=attention_heads(width),
        intermediate_size=4 * width,
        max_position_embeddings=MOST_POSITIONS,
        type_vocab_size=TOKEN_TYPES,
        pad_token_id=PADDING,
        num_labels=num_classes,
        attn_implementation=Bert.attention,
    )
    return Bert(transformers.BertForSequenceClassification(config))


def build_transformers(name: str, num_classes: int, words: int) -> TextClassifier:
    """A freshly initialised model of the shape that the ``config.json`` of a folder, or of a name on the hub, says.

    Raises WslSweepError: there is none, it is of a kind that does not fit, or the data's vocabulary has more words.
    """
    full = f"transformers:{name}"
    transformers = _transformers(full)
    said = read_config(model_folder(name, weights=False))
    kind = str(said.get("model_type"))
    if kind not in _KINDS:
        raise WslSweepError(
            f'"{full}" is of the kind {kind}; what is read here are {" and ".join(_KINDS)}, which share how they see '
            "pairs of sentences"
        )
    made = _KINDS[kind]
    try:
        config = getattr(transformers, made.config).from_dict({**said, "num_labels": num_classes})
        config.num_labels = num_classes
        config._attn_implementation = made.attention
        problem = _config_problem(config, kind, words)
        if problem is not None:
            raise WslSweepError(f'"{full}": {problem}')
        return made(getattr(transformers, made.net)(config))
    except WslSweepError:
        raise
    except Exception as error:  # a configuration may say anything
        raise WslSweepError(f'"{full}" cannot be made of its {CONFIG}: {told(error)}') from error


def _config_problem(config: Any, kind: str, words: int) -> str | None:
    if config.pad_token_id != PADDING:
        return f"its padding is token {config.pad_token_id}, and has to be {PADDING}"
    if kind == "bert" and config.type_vocab_size < TOKEN_TYPES:
        return "it knows one type of tokens, and a pair of sentences has two"
    if words > config.vocab_size:
        return f"it knows {config.vocab_size:,} words, and the data's vocabulary has {words:,}"
    return None


def _transformers(name: str) -> Any:
    try:
        import transformers
    except ImportError as error:
        raise WslSweepError(f'"{name}" needs transformers: {INSTALL}') from error
    return transformers


_KINDS: dict[str, type[TextClassifier]] = {"bert": Bert, "distilbert": DistilBert}
"""By transformers' ``model_type``."""
