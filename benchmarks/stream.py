"""Examples a second of streamed pictures, beside a plain ImageFolder and DataLoader.

    python -m benchmarks.stream [--pictures 1024] [--rounds 6] [--workers CORES] [--batch 256] [--folder FOLDER]

JPEGs of ImageNet's usual size (most 500x375, about 110 kB; one in twelve 1280x960), made here unless a folder of
ImageNet's layout is given. A round is an epoch of both, with the same number of processes, which stay from epoch to
epoch: ours as a training gets it (normalised batches, in another order and other crops each epoch), and torchvision's
ImageFolder with RandomResizedCrop, RandomHorizontalFlip, ToTensor and Normalize. They take turns, so that a slow moment
of the machine meets both, and ratios are taken within a round. The files lie in the system's memory after the first
epoch, which is not counted. On a GPU also how long a step of ResNet-18 (bfloat16) takes with pictures that come, and
with pictures that are there.
"""

from __future__ import annotations

import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from torchvision import datasets, models
from torchvision import transforms as T

from benchmarks.common import parser_of, save, show, spread, table
from wsl_sweep.data import load
from wsl_sweep.data.imagenet import MEAN, STD
from wsl_sweep.data.streams import stream, stream_seed

SIZE, CLASSES = 224, 8
SHAPES = ((375, 500),) * 7 + ((500, 375),) * 2 + ((333, 500), (400, 400), (960, 1280))
"""Heights and widths, in turns."""

TURNS = 2
"""Warm-up epochs of the steps on a GPU, and measured ones."""


def make_folder(root: Path, count: int) -> Path:
    """``count`` training pictures and two of each class for the test part; each shape's are one picture."""
    files = [_jpeg(number, *shape) for number, shape in enumerate(SHAPES)]
    for part, pictures in (("train", count), ("val", 2 * CLASSES)):
        for number in range(pictures):
            path = root / part / f"n{number % CLASSES:08}" / f"{number}.JPEG"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(files[number % len(files)])
    return root


def _jpeg(seed: int, height: int, width: int) -> bytes:
    """Detail of every scale, as photographs have it."""
    generator, pixels = np.random.default_rng(seed), np.zeros((height, width, 3))
    for cells, strength in ((8, 1.0), (32, 0.7), (128, 0.4)):
        rough = generator.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
        smooth = Image.fromarray(rough).resize((width, height), Image.Resampling.BICUBIC)
        pixels += strength * (np.asarray(smooth, dtype=np.float64) - 128)
    pixels += generator.normal(0, 8, pixels.shape)
    with tempfile.TemporaryFile() as file:
        Image.fromarray((pixels + 128).clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=92)
        file.seek(0)
        return file.read()


def ours(root: Path, workers: int, batch: int, device: str) -> Callable[[int], Iterator[Tensor]]:
    """The batches of an epoch, on the device, by its number."""
    section = {"name": "imagenet", "root": str(root), "size": SIZE, "flip": True, "views": "epoch"}
    split = {"validation_fraction": 0.4, "train_fraction": 1.0, "label_noise": 0.0}
    views = load({**section, **split}, "train+validation", device, workers).train.views

    def epoch(number: int) -> Iterator[Tensor]:
        order = torch.randperm(count_of(root), generator=stream(0, "order", number))
        sizes = [len(some) for some in torch.split(order, batch)]
        yield from views.batches(order, torch.full_like(order, stream_seed(0, "views", number)), sizes)

    return epoch


def plain(root: Path, workers: int, batch: int, device: str) -> Callable[[int], Iterator[Tensor]]:
    """As ``ours``, as people write it today."""
    transform = T.Compose([T.RandomResizedCrop(SIZE), T.RandomHorizontalFlip(), T.ToTensor(), T.Normalize(MEAN, STD)])
    pictures = datasets.ImageFolder(str(root / "train"), transform)
    loader = DataLoader(
        Subset(pictures, range(len(pictures))),
        batch,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device == "cuda",
    )

    def epoch(_: int) -> Iterator[Tensor]:
        for images, _labels in loader:
            yield images.to(device, non_blocking=True)

    return epoch


def count_of(root: Path) -> int:
    """Training pictures."""
    return sum(1 for _ in root.glob("train/*/*"))


def measure(root: Path, workers: int, batch: int, rounds: int, device: str) -> dict[str, list[float]]:
    """Examples a second, a value a round."""
    count = count_of(root)
    loops = {"ours": ours(root, workers, batch, device), "plain": plain(root, workers, batch, device)}
    rates: dict[str, list[float]] = {name: [] for name in loops}
    for turn in range(rounds + 1):
        for name in list(loops)[:: 1 if turn % 2 else -1]:
            begun = time.perf_counter()
            seen = sum(len(images) for images in loops[name](turn))
            if device == "cuda":
                torch.cuda.synchronize()
            assert seen == count, (name, seen)
            if turn:
                rates[name].append(count / (time.perf_counter() - begun))
    return rates


def waiting(root: Path, workers: int, batch: int) -> dict[str, float]:
    """Milliseconds of a step of ResNet-18 on a GPU: with pictures as they come, and with the same ones again."""
    model = models.resnet18(num_classes=CLASSES).cuda().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    come = ours(root, workers, batch, "cuda")
    there = next(come(0))

    def seconds_a_step(batches: Iterable[Tensor]) -> float:
        torch.cuda.synchronize()
        begun, steps = time.perf_counter(), 0
        for images in batches:
            with torch.autocast("cuda", torch.bfloat16):
                loss = model(images).float().logsumexp(dim=1).mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            steps += 1
        torch.cuda.synchronize()
        return (time.perf_counter() - begun) / steps

    steps = count_of(root) // batch
    found: dict[str, float] = {}
    for turn in range(TURNS):
        streamed = itertools.islice(come(turn + 1), steps)
        found = {"come": 1000 * seconds_a_step(streamed), "there": 1000 * seconds_a_step([there] * steps)}
    return found


def main() -> None:
    """Prints the table and writes ``benchmarks/stream.json``."""
    parser = parser_of(__doc__)
    parser.add_argument("--pictures", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--folder", type=Path, help="of ImageNet's layout (default: pictures that are made)")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with tempfile.TemporaryDirectory() as folder:
        os.environ["WSL_SWEEP_CACHE"] = str(Path(folder) / "cache")
        root = asked.folder or make_folder(Path(folder) / "pictures", asked.pictures)
        rates = measure(root, asked.workers, asked.batch, asked.rounds, device)
        waits = waiting(root, asked.workers, asked.batch) if device == "cuda" else None
        result: dict[str, Any] = {"pictures": count_of(root)}
    ratios = [own / other for own, other in zip(rates["ours"], rates["plain"], strict=True)]
    rows = [
        ("ImageFolder + DataLoader", spread(rates["plain"], 0), ""),
        ("ours", spread(rates["ours"], 0), spread(ratios)),
    ]
    show(
        f"{result['pictures']} pictures, {asked.workers} processes, batches of {asked.batch} on {device}, "
        f"{asked.rounds} rounds: median (min … max)",
        table(("loop", "pictures a second", "÷ ImageFolder + DataLoader"), rows),
    )
    if waits is not None:
        lost = waits["come"] - waits["there"]
        show(f"a step of ResNet-18: {waits['come']:.1f} ms, {lost:.1f} of them waiting for pictures")
    result |= {"workers": asked.workers, "batch": asked.batch, "device": device, "pictures_a_second": rates}
    result |= {"ratio": {"median": statistics.median(ratios), "of_rounds": ratios}, "milliseconds_a_step": waits}
    save(__file__, result, asked.output)


if __name__ == "__main__":
    main()
