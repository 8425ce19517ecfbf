"""Pictures that are kept come back as they were, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from wsl_sweep.data import dataset
from wsl_sweep.data.digits import load_digits
from wsl_sweep.data.kept import find_pictures, keep_pictures, kept_pictures


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSL_SWEEP_CACHE", str(tmp_path / "cache"))
    dataset.forget()


def test_what_is_kept_is_found_as_it_was() -> None:
    images = torch.randint(256, (5, 3, 4, 4), dtype=torch.uint8)
    keep_pictures(kept_pictures("some"), images, torch.arange(5), {"classes": "5"})
    found = find_pictures(kept_pictures("some"))
    assert found is not None
    assert torch.equal(found[0], images)
    assert found[1].tolist() == [0, 1, 2, 3, 4]
    assert found[2] == {"classes": "5"}
    assert find_pictures(kept_pictures("others")) is None


@pytest.mark.parametrize("place", [-1, -41, 200])
def test_one_changed_byte_is_not_believed(place: int) -> None:
    path = kept_pictures("some")
    keep_pictures(path, torch.zeros(50, 1, 4, 4, dtype=torch.uint8), torch.arange(50), {})
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    assert find_pictures(path) is None


def test_a_cache_that_cannot_be_written_costs_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where a folder should be")
    keep_pictures(kept_pictures("some"), torch.zeros(1, 1, 2, 2, dtype=torch.uint8), torch.zeros(1).long(), {})
    assert len(load_digits().labels) == 1797


def test_digits_are_the_same_from_scikit_learn_and_as_they_were_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_digits()
    monkeypatch.setattr("sklearn.datasets.load_digits", None)  # not asked again
    again = load_digits()
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.labels, again.labels)
    assert first.digest == again.digest
