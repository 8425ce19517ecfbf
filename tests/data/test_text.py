"""Tokens as a model reads them: padded to buckets, the same whoever stands beside them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from wsl_sweep.data.text import BUCKET, Texts, TokenInputs, Tokens

LENGTHS = [5, 16, 17, 40, 3, 48]
ROWS = torch.tensor([4, 1, 3, 0, 5])


@pytest.fixture
def tokens() -> Tokens:
    """Sequences whose tokens are all different, each with two tokens in its first segment."""
    lengths = torch.tensor(LENGTHS)
    return Tokens.of(
        torch.arange(1, int(lengths.sum()) + 1, dtype=torch.int32), lengths, torch.full((6,), 2, dtype=torch.int32)
    )


@pytest.fixture
def inputs(tokens: Tokens) -> TokenInputs:
    return TokenInputs(tokens, ROWS, "cpu", max_length=48)


def expected(row: int, width: int) -> Tensor:
    """(2, width) of one sequence, put together by hand."""
    start = sum(LENGTHS[:row])
    ids = [start + 1 + place for place in range(LENGTHS[row])] + [0] * (width - LENGTHS[row])
    return torch.tensor([ids, [int(2 <= place < LENGTHS[row]) for place in range(width)]])


def test_a_batch_is_padded_to_the_bucket_of_its_longest(inputs: TokenInputs) -> None:
    for some, width in (([0, 1], 16), ([0], 16), ([0, 2], 48), ([4], 48), ([3, 1, 0], 16)):
        batch = inputs.plain(torch.tensor(some))
        assert batch.dtype == torch.int64
        assert torch.equal(batch, torch.stack([expected(int(ROWS[one]), width) for one in some]))


def test_a_bucket_is_never_above_the_longest_that_there_is(tokens: Tokens) -> None:
    inputs = TokenInputs(tokens, torch.arange(6), "cpu", max_length=50)
    assert inputs.shapes(torch.arange(6)).tolist() == [16, 16, 32, 48, 16, 48]
    short = TokenInputs(
        Tokens.of(tokens.ids, torch.tensor([45, 20]), tokens.firsts[:2]), torch.arange(2), "cpu", max_length=45
    )
    assert short.shapes(torch.arange(2)).tolist() == [45, 32]
    assert short.plain(torch.arange(2)).shape == (2, 2, 45)
    assert BUCKET == 16


def test_batches_are_what_taking_them_gives(inputs: TokenInputs) -> None:
    order = torch.tensor([2, 0, 4, 1, 3])
    batches = list(inputs.batches(order, torch.zeros(5, dtype=torch.int64), [2, 1, 2]))
    assert [batch.shape[2] for batch in batches] == [48, 48, 16]
    for batch, some in zip(batches, torch.split(order, [2, 1, 2]), strict=True):
        assert torch.equal(batch, inputs.plain(some))


def test_there_is_one_view_and_it_is_the_plain_one(inputs: TokenInputs) -> None:
    assert (inputs.count, inputs.cells, inputs.identity, inputs.streamed) == (1, 1, 0, False)
    assert inputs.facts() == {"kind": "tokens", "count": 1, "max_length": 48, "bucket": 16, "vocabulary": ""}


def test_an_example_is_the_same_beside_whomever_but_for_its_padding(inputs: TokenInputs) -> None:
    alone, beside = inputs.plain(torch.tensor([0])), inputs.plain(torch.tensor([0, 4]))
    assert torch.equal(alone[0], beside[0, :, :16])
    assert not beside[0, :, 16:].any()


def test_the_digest_is_of_tokens_segments_and_labels(tokens: Tokens) -> None:
    def digest(ids: Tensor = tokens.ids, firsts: Tensor = tokens.firsts, label: int = 0) -> str:
        labels = torch.tensor([0, 1, 2, 0, 1, label])
        task = Texts(Tokens(ids, tokens.offsets, firsts), labels, "abc", words=200, max_length=48)
        assert (task.num_classes, task.in_channels) == (3, 200)
        return task.digest

    assert digest() == digest(tokens.ids.clone())
    assert len({digest(), digest(tokens.ids + 1), digest(firsts=tokens.firsts + 1), digest(label=2)}) == 4


def test_a_task_of_texts_gives_what_its_inputs_give(tokens: Tokens) -> None:
    task = Texts(tokens, torch.tensor([0, 1, 2, 0, 1, 0]), ["a", "b", "c"], words=200, max_length=48, vocabulary="v")
    rows = torch.tensor([3, 0])
    assert torch.equal(task.take(rows, torch.zeros(2)), torch.stack([expected(3, 48), expected(0, 48)]))
    for training in (True, False):
        inputs = task.inputs({}, rows, "cpu", training=training)
        assert torch.equal(inputs.plain(torch.arange(2)), task.take(rows, torch.zeros(2)))
        assert inputs.facts()["vocabulary"] == "v"
