"""Softmaxes and sums by label, against scipy and loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import special

from wsl_sweep.analysis.diagnostics import arrays
from wsl_sweep.analysis.diagnostics.arrays import (
    add_by_label,
    as_labels,
    as_logits,
    as_masks,
    label_cross_entropy,
    log_softmax,
    pieces,
    softmax,
    wide,
)
from wsl_sweep.distill import label_cross_entropy as torch_cross_entropy


def test_softmaxes_are_scipys() -> None:
    logits = np.random.default_rng(0).normal(0, 30, (40, 7))
    np.testing.assert_allclose(log_softmax(logits), special.log_softmax(logits, axis=1), atol=1e-12)
    np.testing.assert_allclose(softmax(logits), special.softmax(logits, axis=1), atol=1e-14)


def test_the_cross_entropy_is_that_of_the_training_and_keeps_tiny_losses() -> None:
    logits = np.random.default_rng(1).normal(0, 20, (50, 5))
    labels = logits.argmax(axis=1)
    expected = torch_cross_entropy(torch.tensor(logits), torch.tensor(labels)).numpy()
    np.testing.assert_allclose(label_cross_entropy(logits, labels), expected, rtol=1e-9)
    certain = np.array([[50.0, 0.0, 0.0]])
    assert label_cross_entropy(certain, np.array([0]))[0] == pytest.approx(2 * np.exp(-50.0), rel=1e-12)


def test_sums_by_label_are_those_of_a_loop() -> None:
    generator = np.random.default_rng(2)
    values, labels = generator.normal(size=(30, 4)), generator.integers(0, 5, 30)
    labels[labels == 3] = 2
    found = np.ones((6, 4))
    add_by_label(found, values, labels)
    for label in range(6):
        np.testing.assert_allclose(found[label], 1.0 + values[labels == label].sum(axis=0), atol=1e-12)


def test_pieces_cover_all_examples_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "CELLS", 10)
    assert [(part.start, part.stop) for part in pieces(7, 4)] == [(0, 2), (2, 4), (4, 6), (6, 7)]
    assert [(part.start, part.stop) for part in pieces(2, 100)] == [(0, 1), (1, 2)]


def test_what_is_no_array_of_logits_is_said() -> None:
    with pytest.raises(ValueError, match=r"classes >= 2"):
        as_logits(np.zeros((3, 1)))
    with pytest.raises(ValueError, match="numbers, not"):
        as_logits(np.array([["a", "b"]]))
    with pytest.raises(ValueError, match="NaN or infinite"):
        wide(np.array([[0.0, np.nan]]))
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        as_labels([0, 1], 3, 2)
    with pytest.raises(ValueError, match="whole numbers"):
        as_labels([0.0, 1.0], 2, 2)
    with pytest.raises(ValueError, match="0 … 1"):
        as_labels([0, 2], 2, 2)
    with pytest.raises(ValueError, match="bool"):
        as_masks(np.zeros((2, 2)), 2)
    with pytest.raises(ValueError, match="2 dimensions"):
        as_masks(np.zeros(2, dtype=bool), 2)
