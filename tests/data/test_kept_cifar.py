"""Decoded CIFAR pictures, kept as plain bytes in the cache: the same data, without torchvision's reader."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from wsl_sweep.data.cifar import load_cifar
from wsl_sweep.data.raw import RawData
from wsl_sweep.errors import WslSweepError

from .test_cifar import KINDS, Published, make, md5, network, own_cache, published

__all__ = ["network", "own_cache", "published"]


def load(of: Published) -> RawData:
    return load_cifar(of.name, str(of.root))


def kept_in(cache: Path) -> Path:
    (path,) = (cache / "data").iterdir()
    return path


def same(one: RawData, other: RawData) -> bool:
    assert one.test is not None
    assert other.test is not None
    alike = all(torch.equal(getattr(one, name), getattr(other, name)) for name in ("images", "labels", "test"))
    facts = [(raw.digest, raw.num_classes, raw.scale, raw.notes, raw.mean is None) for raw in (one, other)]
    return alike and facts[0] == facts[1]


@pytest.fixture
def read(published: Published, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that torchvision's reader was asked for, one an attempt."""
    kind, calls = KINDS[published.name], list[str]()
    inner: Callable[..., None] = kind.__init__

    def watched(self: Any, root: str, **options: Any) -> None:
        calls.append(root)
        inner(self, root, **options)

    monkeypatch.setattr(kind, "__init__", watched)
    return calls


def test_the_second_time_the_kept_pictures_are_read(published: Published, read: list[str], own_cache: Path) -> None:
    first = load(published)
    assert len(read) == 2
    second = load(published)
    assert len(read) == 2
    assert same(first, second)
    assert (second.images.numpy() == published.pictures).all()
    assert second.images.is_contiguous()
    assert kept_in(own_cache).stat().st_size > published.pictures.nbytes


@pytest.mark.parametrize("how", ["cut", "empty", "not one", "without facts", "gone"])
def test_damaged_kept_pictures_are_read_anew(how: str, published: Published, read: list[str], own_cache: Path) -> None:
    first = load(published)
    kept = kept_in(own_cache)
    content = kept.read_bytes()
    if how == "gone":
        kept.unlink()
    else:
        other = {"cut": content[: len(content) // 2], "empty": b"", "not one": b"\x00" * 1000}
        kept.write_bytes(other.get(how, content.replace(b'"digest"', b'"tsegid"')))
    assert same(first, load(published))
    assert len(read) == 4
    assert kept_in(own_cache).stat().st_size == len(content)
    load(published)
    assert len(read) == 4


def test_other_files_are_noticed(published: Published, own_cache: Path) -> None:
    """By their sizes: a damaged batch is not hidden by what was kept of a whole one."""
    load(published)
    batch = published.folder / published.batches[0]
    batch.write_bytes(batch.read_bytes()[:-1])
    with pytest.raises(WslSweepError):
        load(published)


def test_files_of_another_time_are_read_anew(published: Published, read: list[str]) -> None:
    load(published)
    os.utime(published.folder / published.batches[-1], (1, 1))
    load(published)
    assert len(read) == 4


def test_a_missing_batch_is_noticed(published: Published) -> None:
    load(published)
    (published.folder / published.batches[0]).unlink()
    with pytest.raises(WslSweepError):
        load(published)


def test_two_folders_are_not_taken_for_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = (make(name, tmp_path / name, monkeypatch) for name in ("cifar10", "cifar100"))
    for _ in range(2):
        assert (load(one).images.numpy() == one.pictures).all()
        assert (load(other).images.numpy() == other.pictures).all()
        assert (load(one).num_classes, load(other).num_classes) == (10, 100)


def test_a_cache_that_cannot_be_written_costs_time_and_no_more(
    published: Published, read: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("WSL_SWEEP_CACHE", str(tmp_path / "file"))
    assert same(load(published), load(published))
    assert len(read) == 4


def test_an_archive_that_is_unpacked_now_is_kept_too(
    published: Published, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    published.pack()
    monkeypatch.setattr(KINDS[published.name], "tgz_md5", md5(published.archive))
    first = load(published)
    count = len(read)
    assert same(first, load(published))
    assert len(read) == count


def test_what_is_done_to_pictures_is_not_done_to_the_file(published: Published) -> None:
    load(published)
    load(published).images.zero_()
    assert (load(published).images.numpy() == published.pictures).all()
