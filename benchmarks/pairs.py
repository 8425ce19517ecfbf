"""What ``benchmarks.trial`` and ``benchmarks.gpu`` share: pictures of CIFAR-100's shape, and the loops that they time.

Needs neither ray nor mlflow. The pictures are noise: nothing is learned, every step costs what it costs on real ones.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms

from wsl_sweep.data import Examples, TaskData
from wsl_sweep.data.streams import stream
from wsl_sweep.data.views import Views
from wsl_sweep.distill import Objective, distillation_loss, soft_label_weights
from wsl_sweep.models import build
from wsl_sweep.training.bank import BankSettings
from wsl_sweep.training.device import as_computed
from wsl_sweep.training.loop import train_epochs
from wsl_sweep.training.supply import TeacherSupply, supply_for
from wsl_sweep.training.teachers import FrozenTeacher

CLASSES, SIDE, BATCH = 100, 32, 64
MEAN, STD = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)
OPTIMIZER = {"name": "sgd", "lr": 0.05, "momentum": 0.9, "nesterov": False, "weight_decay": 5e-4}
WSL = {
    "method": "kd", "ce_weight": 1.0, "alpha": 2.25, "temperature": 4.0, "mask": "none",
    "weighting": {"kind": "exp"}, "keep": {"regularization": 1.0, "other": 1.0},
}  # fmt: skip
ALONE = {"method": "none"}


def pictures(device: str, train: int, validation: int) -> TaskData:
    """Noise of CIFAR-100's shape and augmentation (162 views), seven labels an example less known than the last."""
    count = train + validation
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8).to(device)
    labels = torch.randint(CLASSES, (count,), generator=generator).to(device)

    def part(start: int, stop: int, padding: int) -> Examples:
        rows = torch.arange(start, stop, device=device)
        views = Views(
            images,
            padding=padding,
            padding_mode="zeros",
            flip=padding > 0,
            mean=torch.tensor(MEAN, device=device),
            std=torch.tensor(STD, device=device),
            scale=255.0,
            rows=rows,
        )
        return Examples(views, labels[rows], rows)

    return TaskData(part(0, train, 4), part(train, count, 0), CLASSES, 3, "noise", f"noise {count}", labels)


@dataclass(frozen=True)
class Pair:
    """A teacher and a student by name."""

    teacher: str
    student: str

    def __str__(self) -> str:
        return f"{self.teacher} → {self.student}"


def fresh(name: str, device: str) -> nn.Module:
    """A model with fixed weights."""
    torch.manual_seed(0)
    return build(name, CLASSES, 3).to(device)


def supply(pair: Pair, data: TaskData, device: str, *, bank: bool) -> TeacherSupply:
    """The teacher's outputs, from a bank in the cache or computed."""
    return supply_for(
        data,
        lambda: FrozenTeacher(fresh(pair.teacher, device), data.validation),
        {"model": pair.teacher, "weights": "fixed", "own_code": None},
        threads=torch.get_num_threads(),
        settings=BankSettings(use=bank),
        about={"model": pair.teacher, "dataset": "noise"},
    )


def ours(
    pair: Pair,
    data: TaskData,
    device: str,
    *,
    epochs: int,
    teacher: TeacherSupply | None,
    precision: str = "float32",
    say: Callable[[str], None] = lambda text: None,
) -> Iterator[dict[str, float]]:
    """The package's loop, a row an epoch; without a teacher by cross-entropy alone."""
    objective = Objective(WSL if teacher is not None else ALONE)
    return train_epochs(
        as_computed(fresh(pair.student, device)),
        data,
        objective.step,
        optimizer=OPTIMIZER,
        schedule={"epochs": epochs, "batch_size": BATCH, "milestones": [], "decay": 0.1, "warmup_epochs": 0},
        seed=0,
        precision=precision,
        teacher=teacher,
        draws=objective.draws,
        weighs=objective.weighs,
        graphs=objective.settled,
        say=say,
    )


def fill(teacher: TeacherSupply, data: TaskData, epochs: int, seed: int = 0) -> None:
    """Brings everything into the bank that a training of this seed will look for."""
    teacher.validation_logits()
    for epoch in range(epochs):
        order = torch.randperm(len(data.train), generator=stream(seed, "order", epoch))
        views = data.train.draw_views(stream(seed, "views", epoch))
        for rows in torch.split(order, teacher.window):
            teacher.outputs(rows, views[rows])


class _Pictures(Dataset[tuple[Tensor, int]]):
    def __init__(self, images: Tensor, labels: Tensor, augmented: bool) -> None:
        self.images, self.labels = images.cpu(), labels.cpu().tolist()
        crop = [transforms.RandomCrop(SIDE, padding=4), transforms.RandomHorizontalFlip()] if augmented else []
        plain = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
        self.transform = transforms.Compose([transforms.ToPILImage(), *crop, *plain])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.images[index]), self.labels[index]


def raw_images(data: TaskData, part: Examples) -> Tensor:
    """The bytes of a part's pictures."""
    return data.train.views._images[part.ids]


def naive(pair: Pair, data: TaskData, device: str, *, workers: int, most_steps: int = 10**9) -> Iterator[float]:
    """The loop that people write today: DataLoader, teacher at every step, the loss read at every step.

    Yields twice an epoch: the mean loss after its steps (at most ``most_steps``), and then the accuracy on the
    validation part.
    """
    options: dict[str, Any] = {
        "num_workers": workers,
        "persistent_workers": workers > 0,
        "pin_memory": device == "cuda",
    }
    train = DataLoader(_Pictures(raw_images(data, data.train), data.train.labels, True), BATCH, shuffle=True, **options)
    validation = DataLoader(_Pictures(raw_images(data, data.validation), data.validation.labels, False), 256, **options)
    student, teacher = fresh(pair.student, device), fresh(pair.teacher, device).eval()
    settings = {name: value for name, value in OPTIMIZER.items() if name != "name"}
    optimizer = torch.optim.SGD(student.parameters(), **settings)  # type: ignore[arg-type]
    while True:
        student.train()
        losses: list[float] = []
        for images, labels in itertools.islice(train, most_steps):
            images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
            with torch.no_grad():
                teacher_logits = teacher(images)
            logits = student(images)
            weights = soft_label_weights(logits, teacher_logits, labels, "exp")
            soft = distillation_loss(logits, teacher_logits, WSL["temperature"])  # type: ignore[arg-type]
            loss = F.cross_entropy(logits, labels) + 2.25 * (weights * soft).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        yield sum(losses) / len(losses)
        student.eval()
        correct = 0
        with torch.no_grad():
            for images, labels in validation:
                correct += int((student(images.to(device)).argmax(dim=1) == labels.to(device)).sum())
        yield correct / len(data.validation)


def operations(pair: Pair) -> tuple[float, float]:
    """Floating-point operations an example: of the teacher's forward, of the student's forward and backward."""
    images = torch.randn(2, 3, SIDE, SIDE)
    counts = []
    for name, backward in ((pair.teacher, False), (pair.student, True)):
        model = fresh(name, "cpu")
        with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(backward):
            logits = model(images)
            if backward:
                logits.sum().backward()
        counts.append(counter.get_total_flops() / len(images))
    return counts[0], counts[1]


def one_thread() -> None:
    """A trial's CPU is one."""
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
