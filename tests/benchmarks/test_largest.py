"""What the largest logits alone take, and what they cost in accuracy."""

from __future__ import annotations

from benchmarks.largest import KEPT, measure


def test_of_more_logits_a_row_is_longer_and_the_gradient_nearer() -> None:
    every, *lines = measure(1000, 64)
    assert (every.top_k, every.float32, every.float16) == (None, 4008, 2008)
    assert [line.top_k for line in lines] == list(KEPT)
    assert [line.float32 for line in lines] == [84, 324, 1224]
    assert [line.float16 for line in lines] == [64, 224, 824]
    for temperature in (0, 1):
        off = [line.errors[temperature][0] for line in lines]
        assert off == sorted(off, reverse=True)
        assert 0 < off[-1] < off[0] < 2
