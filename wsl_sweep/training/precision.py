"""Whether a student trains faster in bfloat16 than in float32 on this device: measured, not assumed."""

from __future__ import annotations

import contextlib
import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from wsl_sweep.data import load
from wsl_sweep.distill import Objective
from wsl_sweep.errors import TrialError
from wsl_sweep.files import write_json
from wsl_sweep.models import build
from wsl_sweep.paths import cache_folder
from wsl_sweep.spec.catalogue import is_library_model
from wsl_sweep.spec.identity import data_identity, short_hash
from wsl_sweep.training.device import as_computed, device_facts, pick_device, prepare_process
from wsl_sweep.training.fingerprint import source_of, training_code_digest
from wsl_sweep.training.loop import build_optimizer
from wsl_sweep.training.step import WARM_UP_STEPS, StepInputs, StepRunner
from wsl_sweep.training.weights import build_with_seed
from wsl_sweep.user_code import is_import_name, search_in

WORTH_IT = 0.95
"""bfloat16 is taken where a step takes less than this part of float32's seconds."""

WARM_UP, MOST_STEPS, SECONDS = WARM_UP_STEPS + 2, 20, 4.0


def measured_precision(
    config: Mapping[str, Any], threads: int = 1, gpu: float = 0.0, folders: Sequence[str] = ()
) -> dict[str, Any]:
    """As ``measure_precision``, with ``chosen`` beside the seconds; measured once a machine, and kept in its cache.

    So the same command settles on the same precision tomorrow, and its trials are the same.

    Args:
        config: as for ``measure_precision``.
        threads: torch's.
        gpu: of a trial; 0 for the CPU, whether there is a GPU or not.
        folders: where users' modules are looked for.
    """
    search_in(folders)
    device = pick_device() if gpu > 0 else "cpu"
    what = {
        "device": device_facts(device),
        "torch": torch.__version__,
        "threads": threads,
        "code": training_code_digest(),
        "own": source_of(config["student"]["model"]),
        "student": config["student"]["model"],
        "data": data_identity(config["dataset"]),
        "batch": config["schedule"]["batch_size"],
        "optimizer": config["optimizer"]["name"],
    }
    path = cache_folder() / "precision" / f"{short_hash(what)}.json"
    try:
        known = json.loads(path.read_text())
        seconds = {name: float(known[name]) for name in ("float32", "bfloat16")}
        return {**seconds, "chosen": choose_precision(seconds)}
    except (OSError, ValueError, KeyError, TypeError):
        pass
    seconds = measure_precision(config, threads, device=device, gpu=gpu)
    found = {**seconds, "chosen": choose_precision(seconds)}
    with contextlib.suppress(TrialError):  # it is measured again next time
        write_json(path, {**found, "of": what})
    return found


def measure_precision(
    config: Mapping[str, Any], threads: int = 1, *, device: str | None = None, gpu: float = 1.0
) -> dict[str, float]:
    """Median seconds of a training step in ``float32`` and in ``bfloat16``.

    Steps of the student alone on a batch of its own data, the two precisions in turns, for a few seconds; on a GPU
    replayed as graphs, as a training would.

    Args:
        config: resolved, nested: ``dataset``, ``student``, ``optimizer``, ``schedule``.
        threads: torch's.
        device: ``cpu`` or ``cuda``; None for this process's.
        gpu: the part of a GPU's memory that may be taken.
    """
    prepare_process(threads, gpu)
    device = device if device is not None else pick_device()
    data = load(config["dataset"], "train", device)
    count = min(int(config["schedule"]["batch_size"]), len(data.train))
    rows = torch.arange(count, device=device)
    inputs = StepInputs(data.train.views.plain(rows), data.train.labels[rows])
    name = str(config["student"]["model"])
    own = is_import_name(name) and not is_library_model(name)  # whose steps are never replayed
    runners = {}
    for precision in ("float32", "bfloat16"):
        student = build_with_seed(lambda: build(config["student"]["model"], data.num_classes, data.in_channels), seed=0)
        student = as_computed(student.to(device)).train()
        optimizer = build_optimizer(student, config["optimizer"])
        runners[precision] = StepRunner(
            student, Objective({"method": "none"}).step, optimizer, precision=precision, graphs=lambda epoch: not own
        )
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


if __name__ == "__main__":  # so that a driver measures in a process of its own
    print(json.dumps(measured_precision(**json.loads(sys.stdin.read()))))
