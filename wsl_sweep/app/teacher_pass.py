"""A teacher looks at the examples of a part, as students get it, with an estimate of what is left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from wsl_sweep.errors import WslSweepError
from wsl_sweep.spec.wording import duration

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from wsl_sweep.data import Examples, TaskData
    from wsl_sweep.training import FrozenTeacher

Say = Callable[[str], None]

SAID_EVERY = 10.0
"""Seconds from one line to the next on how far a teacher is, where no bar can be shown."""


def teacher_says(
    teacher_id: str, model: str, weights: Path, examples: Examples, data: TaskData, say: Say
) -> NDArray[np.float32]:
    """(N, C) logits of examples as they are, computed as students get them, where the examples are.

    Args:
        teacher_id: for people.
        model: its name.
        weights: its safetensors file.
        examples: N of them.
        data: theirs, which say how many classes and channels there are.
        say: hears what is done.

    Raises:
        WslSweepError: its weights are not its model's, or it says what is no number.
    """
    import numpy as np
    import torch

    from wsl_sweep.models import build
    from wsl_sweep.training import FrozenTeacher
    from wsl_sweep.training.device import prepare_process, undisturbed

    count, classes, device = len(examples), data.num_classes, examples.labels.device.type
    say(f"teacher {teacher_id} looks at {count:,} examples on {_device_name(device)}")
    found = np.empty((count, classes), dtype=np.float32)
    with undisturbed(), _watching(f"teacher {teacher_id}", count, say) as watch:
        prepare_process(torch.get_num_threads())
        network = build(model, classes, data.in_channels)
        frozen = FrozenTeacher.load(network, weights, model, examples)
        done = 0
        for rows, logits in _by_batches(frozen, examples):
            if logits.shape != (len(rows), classes):
                raise WslSweepError(
                    f"{model} gives {tuple(logits.shape)} for {len(rows)} examples of {classes} classes"
                )
            found[rows.numpy()] = logits.cpu().numpy()
            done += len(rows)
            watch(done)
    wrong = int((~np.isfinite(found).all(axis=1)).sum())
    if wrong:
        raise WslSweepError(f"teacher {teacher_id} says NaN or infinity of {wrong:,} of {count:,} examples")
    return found


def _by_batches(teacher: FrozenTeacher, examples: Examples) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows and their logits, batch by batch; in a batch only examples of one shape, as for students."""
    import numpy as np
    import torch

    from wsl_sweep.user_code import told

    views, rows = examples.views, torch.arange(len(examples))
    shapes, alike = views.shapes(rows), [rows]
    if shapes is not None:
        rows = shapes.argsort(stable=True)
        alike = list(torch.split(rows, np.unique(shapes.numpy(), return_counts=True)[1].tolist()))
    batches = [batch for some in alike for batch in torch.split(some, teacher.batch)]
    brought = views.batches(rows, torch.full_like(rows, views.identity), [len(batch) for batch in batches])
    for batch, inputs in zip(batches, brought, strict=True):
        try:
            logits, _ = teacher.outputs(inputs)
        except (WslSweepError, OSError):
            raise
        except Exception as error:  # of a user's own model, or a GPU that is too small
            raise WslSweepError(f"the teacher fails on {tuple(inputs.shape)} inputs: {told(error)}") from error
        yield batch, logits


def _device_name(device: str) -> str:
    import torch

    return torch.cuda.get_device_name() if device == "cuda" else "the CPU"


@contextmanager
def _watching(what: str, of: int, say: Say) -> Iterator[Callable[[int], None]]:
    """How far it is and how long it may take: a bar on a terminal, else a line now and then."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(what, of, say)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("left:"))
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as progress:
        task = progress.add_task(what, total=of, visible=False)
        yield lambda done: progress.update(task, completed=done, visible=True)


def _lines(what: str, of: int, say: Say) -> Callable[[int], None]:
    """Says how far it is; how long it may take is reckoned without the first batch, before which models are loaded."""
    begun: tuple[float, int] | None = None
    last = 0.0

    def watch(done: int) -> None:
        nonlocal begun, last
        now = time.monotonic()
        if begun is None:
            begun, last = (now, done), now
        elif now - last >= SAID_EVERY and done < of:
            left = (now - begun[0]) / (done - begun[1]) * (of - done)
            say(f"{what}: {done:,} of {of:,} examples, about {duration(left)} left")
            last = now

    return watch
