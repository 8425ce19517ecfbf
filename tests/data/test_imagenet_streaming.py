"""Pictures that processes bring: the same bits however they come, no process that stays, no memory that grows."""

from __future__ import annotations

import fcntl
import gc
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.conftest import REPO
from wsl_sweep.data import Inputs, TaskData, dataset, load
from wsl_sweep.data.imagenet import ImageNet
from wsl_sweep.data.streams import stream, stream_seed
from wsl_sweep.errors import WslSweepError
from wsl_sweep.imagenet_listing import ImageNetListing, list_imagenet

from .imagenet_folders import CLASSES, config, fill

VIEW = 2**62 + 1


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More pictures than one process brings at once."""
    return fill(tmp_path_factory.mktemp("imagenet"), train=40)


@pytest.fixture(autouse=True)
def no_process_stays() -> Iterator[None]:
    """Processes end with the data set that they read."""
    yield
    dataset.forget()
    gc.collect()
    assert until(lambda: not processes())


def processes() -> set[int]:
    return {process.pid for process in multiprocessing.active_children() if process.pid is not None}


def until(there: object, seconds: float = 30.0) -> bool:
    """Whether something comes true in time."""
    assert callable(there)
    end = time.monotonic() + seconds
    while not there() and time.monotonic() < end:
        time.sleep(0.02)
    return bool(there())


def everything(inputs: Inputs, count: int, sizes: list[int], view: int = VIEW) -> Tensor:
    rows = torch.arange(count)
    return torch.cat([*inputs.batches(rows, torch.full_like(rows, view), sizes)])


def data_of(root: Path, workers: int = 0, **changes: object) -> TaskData:
    return load(config(root, **changes), workers=workers)


# --- views -----------------------------------------------------------------------------------------------------------


def test_a_number_of_views_is_that_many_crops_and_the_plain_one() -> None:
    task = ImageNet(listing_of(3), 32)
    inputs = task.inputs(config(Path(), views=4), torch.arange(3), "cpu", training=True)
    assert (inputs.count, inputs.identity, inputs.cells, inputs.streamed) == (4, 4, 5, True)
    assert inputs.facts()["count"] == 4


def test_an_epochs_view_is_new_and_has_no_place_in_a_bank() -> None:
    task = ImageNet(listing_of(3), 32)
    inputs = task.inputs(config(Path()), torch.arange(3), "cpu", training=True)
    assert (inputs.count, inputs.cells, inputs.streamed) == (None, 0, True)
    assert inputs.identity < 0
    with pytest.raises(WslSweepError, match="take epoch, or a number"):
        task.inputs(config(Path(), views="all"), torch.arange(3), "cpu", training=True)


def test_views_are_drawn_from_as_many_as_there_are_or_are_the_epochs_own(root: Path) -> None:
    fixed = data_of(root, views=3).train
    drawn = torch.stack([fixed.draw_views(stream(0, "views", epoch)) for epoch in range(6)])
    assert drawn.unique().tolist() == [0, 1, 2]
    endless = data_of(root).train
    for epoch in (0, 1):
        assert endless.draw_views(stream(0, "views", epoch)).unique().tolist() == [stream_seed(0, "views", epoch)]


def test_a_view_is_the_same_picture_under_k_and_under_epoch_and_another_for_another_example(root: Path) -> None:
    fixed, endless = data_of(root, views=3).train.views, data_of(root).train.views
    rows = torch.arange(10)
    assert torch.equal(fixed.take(rows, rows % 3), endless.take(rows, rows % 3))
    assert torch.equal(fixed.plain(rows), endless.plain(rows))
    crops = endless.take(torch.zeros(8, dtype=torch.int64), torch.arange(8))
    assert len({one.numpy().tobytes() for one in crops}) == 8


def test_a_crop_belongs_to_the_example_whatever_part_it_is_in(root: Path) -> None:
    some, more = data_of(root, train_fraction=0.5).train, data_of(root).train
    places = {int(number): place for place, number in enumerate(more.ids)}
    there = torch.tensor([places[int(number)] for number in some.ids[:10]])
    rows = torch.arange(10)
    views = torch.full_like(rows, VIEW)
    assert torch.equal(some.views.take(rows, views), more.views.take(there, views))


def test_half_of_the_views_are_mirrored_only_if_asked(root: Path) -> None:
    rows = torch.zeros(40, dtype=torch.int64)
    views = torch.arange(40)
    flipping = data_of(root).train.views.take(rows, views)
    straight = data_of(root, flip=False).train.views.take(rows, views)
    same = [torch.equal(one, other) for one, other in zip(flipping, straight, strict=True)]
    mirrored = [torch.equal(one.flip(-1), other) for one, other in zip(flipping, straight, strict=True)]
    assert all(one or other for one, other in zip(same, mirrored, strict=True))
    assert 8 <= sum(mirrored) <= 32


def test_pictures_are_float32_channels_last_normalised_and_fresh(root: Path) -> None:
    inputs = data_of(root).train.views
    rows = torch.arange(4)
    first = inputs.take(rows, rows)
    assert first.dtype == torch.float32
    assert first.is_contiguous(memory_format=torch.channels_last)
    facts = inputs.facts()
    assert facts["shape"] == [3, 32, 32]
    mean, std = (torch.tensor(facts[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    bytes_again = (first * std + mean) * facts["scale"]
    assert (bytes_again - bytes_again.round()).abs().max() < 1e-3
    assert bytes_again.min() > -0.5
    assert bytes_again.max() < 255.5
    before = first.clone()
    inputs.take(rows, rows).zero_()
    assert torch.equal(inputs.take(rows, rows), before)


# --- the same bits ---------------------------------------------------------------------------------------------------


def test_the_bits_are_the_same_with_any_number_of_processes_and_in_any_batch(root: Path) -> None:
    whole = data_of(root)
    count = len(whole.train)
    assert count == 90
    expected = everything(whole.train.views, count, [count])
    for workers, sizes in ((0, [7] * 12 + [6]), (1, [64, 26]), (2, [40, 40, 10]), (2, [1, 88, 1])):
        inputs = data_of(root, workers).train.views
        assert torch.equal(everything(inputs, count, sizes), expected)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(1))
    views = torch.full_like(order, VIEW)
    assert torch.equal(torch.cat([*inputs.batches(order, views, [45, 45])]), expected[order])
    assert torch.equal(inputs.take(order, views), expected[order])


def test_another_consumer_beside_does_not_mix_in(root: Path) -> None:
    data = data_of(root, 2)
    count, rest = len(data.train), len(data.validation)
    plain = data.validation.views.plain(torch.arange(rest))
    expected = everything(data.train.views, count, [count])
    rows = torch.arange(count)
    first = data.train.views.batches(rows, torch.full_like(rows, VIEW), [30, 30, 30])
    got = [next(first)]
    assert torch.equal(everything(data.validation.views, rest, [rest], data.validation.views.identity), plain)
    got += first
    assert torch.equal(torch.cat(got), expected)


def test_processes_stay_from_epoch_to_epoch_and_part_to_part(root: Path) -> None:
    data = data_of(root, 2)
    count, rest = len(data.train), len(data.validation)
    everything(data.train.views, count, [count])
    first = processes()
    assert len(first) == 2
    for _ in range(2):
        rows = torch.arange(count)
        feed = data.train.views.batches(rows, rows, [45, 45])
        assert len([next(feed), next(feed)]) == 2  # nobody asks for more, as in the training's loop
        everything(data.validation.views, rest, [rest])
        assert processes() == first


def test_who_closes_early_ends_the_processes_and_gets_the_same_bits_again(root: Path) -> None:
    data = data_of(root, 2)
    count = len(data.train)
    rows = torch.arange(count)
    expected = everything(data.train.views, count, [count])
    for batches in (1, 2):
        feed = data.train.views.batches(rows, torch.full_like(rows, VIEW), [30] * 3)
        assert isinstance(feed, Generator)
        for number in range(batches):
            assert torch.equal(next(feed), expected[30 * number : 30 * number + 30])
        assert len(processes()) == 2
        started = time.monotonic()
        feed.close()
        assert until(lambda: not processes())
        assert time.monotonic() - started < 10
        assert torch.equal(everything(data.train.views, count, [count]), expected)


def test_reading_draws_from_nobodys_random_numbers(root: Path) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    for workers in (0, 2):
        data = data_of(root, workers)
        everything(data.train.views, len(data.train), [len(data.train)])
    assert torch.equal(torch.get_rng_state(), before)


def test_a_process_that_is_killed_ends_the_training_with_a_word_on_memory(root: Path) -> None:
    data = data_of(root, 1, size=64)
    rows = torch.arange(90)
    feed = data.train.views.batches(rows.repeat(40), rows.repeat(40), [30] * 120)

    def kill_and_go_on() -> None:
        next(feed)
        (process,) = processes()
        os.kill(process, signal.SIGKILL)
        list(feed)

    with pytest.raises(Exception, match="DataLoader worker"):
        kill_and_go_on()


def test_a_lock_of_the_trainings_is_not_held_by_its_processes(root: Path, tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        data = data_of(root, 2)
        everything(data.train.views, 90, [90])
        assert len(processes()) == 2
    with (tmp_path / "lock").open("w") as again:
        fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)


# --- memory ----------------------------------------------------------------------------------------------------------


def listing_of(count: int, root: Path = Path(), name: str = "") -> ImageNetListing:
    """As many training pictures as are wanted, all of them the same few files, and two test pictures."""
    rows = count + 2
    ends = np.arange(1, rows + 1, dtype=np.int64) * len(name)
    labels = (np.arange(rows) % 2).astype(np.int32)
    numbers = np.ones(rows, dtype=np.int64)
    return ImageNetListing(root, CLASSES[:2], name.encode() * rows, ends, labels, numbers, numbers, count)


EPOCHS = """
import gc, json, multiprocessing, sys
from pathlib import Path
import torch
from tests.data.imagenet_folders import config
from tests.data.test_imagenet_streaming import listing_of
from wsl_sweep.data.imagenet import ImageNet

torch.set_num_threads(1)
root, used = Path(sys.argv[1]), []
inputs = ImageNet(listing_of(300_000, root, "same.JPEG"), 32).inputs(
    config(root), torch.arange(300_000), "cpu", training=True, workers=2
)
for epoch in range(10):
    order = torch.randperm(300_000, generator=torch.Generator().manual_seed(epoch))[:360]
    for _ in inputs.batches(order, torch.full_like(order, epoch), [60] * 6):
        pass
    gc.collect()
    found = {}
    for process in ("self", *sorted(one.pid for one in multiprocessing.active_children())):
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        found[str(process)] = sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Private_"))
    used.append(found)
print(json.dumps(used))
"""
"""Bytes that each process shares with nobody, after every epoch; in a process that has done nothing else."""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="no /proc")
def test_memory_does_not_grow_over_epochs(tmp_path: Path) -> None:
    """Of 300,000 pictures: in lists of names, reading some would copy whole pages of them into each process."""
    own = fill(tmp_path / "own", train=2)
    for label, name in enumerate(CLASSES[:2]):
        (own / "train" / name / "same.JPEG").symlink_to(sorted((own / "train" / name).iterdir())[label])
    done = subprocess.run(
        [sys.executable, "-c", EPOCHS, str(own)],
        cwd=REPO,
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"},  # batches go back at once: the heap is what is kept
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    used: list[dict[str, int]] = json.loads(done.stdout)
    assert len(used[-1]) == 3
    assert used[3].keys() == used[-1].keys()
    for process, then in used[3].items():
        assert used[-1][process] - then < 3 * 2**20, used


def test_a_listing_takes_a_few_bytes_a_picture(root: Path) -> None:
    listing = list_imagenet(str(root))
    names = sum(len(os.path.basename(listing.path(row))) for row in range(len(listing)))
    assert len(listing.names) == names
    arrays = (listing.ends, listing.labels, listing.sizes, listing.modified)
    assert sum(array.nbytes for array in arrays) == 28 * len(listing)
