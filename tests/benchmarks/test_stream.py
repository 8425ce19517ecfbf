"""What streaming is measured with: pictures of ImageNet's size, and two loops that bring the same of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from benchmarks.stream import SHAPES, make_folder, measure, ours, plain

from .test_programs import run


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WSL_SWEEP_CACHE", str(tmp_path / "cache"))
    return make_folder(tmp_path / "pictures", 24)


def test_the_pictures_are_of_imagenets_size(root: Path) -> None:
    files = list(root.glob("train/*/*"))
    assert len(files) == 24
    sizes = sorted(Image.open(path).size for path in files)
    assert sizes == sorted(2 * [(width, height) for height, width in SHAPES])
    bytes_of = sorted(path.stat().st_size for path in files)
    assert 70_000 < bytes_of[len(files) // 2] < 150_000


def test_both_loops_bring_every_picture_once_an_epoch(root: Path) -> None:
    for loop in (ours(root, 0, 10, "cpu"), plain(root, 0, 10, "cpu")):
        batches = list(loop(0))
        assert [tuple(batch.shape) for batch in batches] == [(10, 3, 224, 224)] * 2 + [(4, 3, 224, 224)]
        assert not torch.equal(torch.cat(batches), torch.cat(list(loop(1))))
        assert abs(float(torch.cat(batches).mean())) < 1


def test_rates_are_one_a_round(root: Path) -> None:
    rates = measure(root, 0, 24, 1, "cpu")
    assert [len(rates[name]) for name in ("ours", "plain")] == [1, 1]
    assert all(rate > 0 for of_loop in rates.values() for rate in of_loop)


@pytest.mark.slow
def test_the_program_at_its_smallest_size(tmp_path: Path) -> None:
    found = run(
        "stream", tmp_path / "stream.json", "--pictures", "48", "--rounds", "2", "--workers", "2", "--batch", "16"
    )
    assert found["pictures"] == 48
    assert len(found["ratio"]["of_rounds"]) == 2
    assert found["device"] in ("cpu", "cuda")
    assert (found["milliseconds_a_step"] is None) == (found["device"] == "cpu")
