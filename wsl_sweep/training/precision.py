"""Whether a student trains faster in bfloat16 than in float32 on this device: measured, not assumed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from wsl_sweep.data import load
from wsl_sweep.distill import Objective
from wsl_sweep.models import build
from wsl_sweep.training.device import as_computed, pick_device, prepare_process
from wsl_sweep.training.loop import build_optimizer
from wsl_sweep.training.step import StepInputs, StepRunner
from wsl_sweep.training.weights import build_with_seed
from wsl_sweep.user_code import search_in

WORTH_IT = 0.95
"""bfloat16 is taken where a step takes less than this part of float32's seconds."""

WARM_UP, MOST_STEPS, SECONDS = 2, 20, 4.0


def measure_precision(config: Mapping[str, Any], threads: int = 1, folders: Sequence[str] = ()) -> dict[str, float]:
    """Median seconds of a training step in ``float32`` and in ``bfloat16``, on this process's device.

    Steps of the student alone on a batch of its own data, the two precisions in turns, for a few seconds.

    Args:
        config: resolved, nested: ``dataset``, ``student``, ``optimizer``, ``schedule``.
        threads: torch's.
        folders: where users' modules are looked for.
    """
    search_in(folders)
    prepare_process(threads)
    device = pick_device()
    data = load(config["dataset"], "train", device)
    count = min(int(config["schedule"]["batch_size"]), len(data.train))
    rows = torch.arange(count, device=device)
    inputs = StepInputs(data.train.views.plain(rows), data.train.labels[rows])
    runners = {}
    for precision in ("float32", "bfloat16"):
        student = build_with_seed(lambda: build(config["student"]["model"], data.num_classes, data.in_channels), seed=0)
        student = as_computed(student.to(device)).train()
        optimizer = build_optimizer(student, config["optimizer"])
        runners[precision] = StepRunner(student, Objective({"method": "none"}).step, optimizer, precision=precision)
    times: dict[str, list[float]] = {precision: [] for precision in runners}
    begun = time.perf_counter()
    for step in range(WARM_UP + MOST_STEPS):
        for precision, runner in runners.items():
            started = time.perf_counter()
            runner(inputs, 0.0)
            if device == "cuda":
                torch.cuda.synchronize()
            if step >= WARM_UP:
                times[precision].append(time.perf_counter() - started)
        if step > WARM_UP and time.perf_counter() - begun > SECONDS:
            break
    return {precision: statistics.median(found) for precision, found in times.items()}


def choose_precision(seconds: Mapping[str, float]) -> str:
    """The faster of the two measured precisions; float32 where the gain is in the noise."""
    return "bfloat16" if seconds["bfloat16"] < WORTH_IT * seconds["float32"] else "float32"
