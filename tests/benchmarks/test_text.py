"""The trials on text that are timed against each other train alike, and the full bank is full."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.pairs import Pair, fill
from benchmarks.text import BATCH, LONGEST, NAMES, measure, pairs_of_sentences, supply, training

pytest.importorskip("transformers")

SMALL = Pair("bert_1x16", "bert_1x16")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSL_SWEEP_CACHE", str(tmp_path / "cache"))


def test_the_pairs_are_of_several_lengths() -> None:
    data = pairs_of_sentences(200, 10)
    shapes = data.train.views.shapes(torch.arange(200))
    assert shapes is not None
    assert len(set(shapes.tolist())) > 3
    tokens = data.train.views.plain(torch.arange(200))
    assert tokens.shape[:2] == (200, 2)
    lengths = (tokens[:, 0] > 0).sum(dim=1).float()
    assert 35 < lengths.mean() < 45
    assert lengths.max() <= LONGEST
    assert set(tokens[:, 1].unique().tolist()) == {0, 1}


def test_a_trial_with_a_full_bank_trains_as_one_whose_teacher_computes() -> None:
    data = pairs_of_sentences(BATCH + 6, 10)
    bank = supply(SMALL, data, bank=True)
    fill(bank, data, 1)
    before = bank.computed
    filled = list(training(SMALL, data, 2, bank))
    assert bank.computed == before == BATCH + 16
    bank.close()
    computed = list(training(SMALL, data, 2, supply(SMALL, data, bank=False)))
    timeless = [{name: value for name, value in row.items() if name[-4:] not in ("onds", "tamp")} for row in filled]
    assert timeless == [{name: row[name] for name in timeless[0]} for row in computed]


def test_each_kind_of_trial_is_timed_in_every_round() -> None:
    for seconds in measure(SMALL, rounds=2, steps=1):
        assert list(seconds) == list(NAMES)
        assert all(len(values) == 2 and min(values) > 0 for values in seconds.values())
