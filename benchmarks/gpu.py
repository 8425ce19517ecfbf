"""A 240-epoch trial on one GPU: steps a second of today's loop and of ours, the share of the card, filling the bank.

    python -m benchmarks.gpu [--pair wrn_40_2:wrn_16_2] [--train 45000] [--validation 5000] [--whole-bank]

Needs neither ray nor mlflow. Pictures of CIFAR-100's shape and number, batches of 64, weighted soft labels; every
figure is a median over --rounds in turns. What the card could do is measured beside: products of large square matrices
in the same precision. An epoch of ours is a whole one, with the look at the validation part; the loop that people write
today is timed over --naive-steps steps, its look at the validation part added once an epoch. Without --whole-bank the
bank's filling is timed on a part of the views and counted up.

--device cpu with small sizes shows that it runs; such figures say nothing of a GPU.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.common import parser_of, save, show, spread, table
from benchmarks.pairs import BATCH, Pair, fill, naive, operations, ours, pictures, supply
from wsl_sweep.data import TaskData
from wsl_sweep.training.device import prepare_process
from wsl_sweep.training.supply import WINDOW, TeacherSupply

EPOCHS = 240


def wait(device: str) -> None:
    """Until the card has done everything."""
    if device == "cuda":
        torch.cuda.synchronize()


def timed(run: Callable[[], Any], device: str) -> float:
    """Seconds of a call."""
    wait(device)
    begun = time.perf_counter()
    run()
    wait(device)
    return time.perf_counter() - begun


def matrix_speed(device: str, dtype: torch.dtype, size: int) -> float:
    """Operations a second of a product of square matrices, the best of ten."""
    one = torch.randn(size, size, device=device, dtype=dtype)
    return 2 * size**3 / min(timed(lambda: one @ one, device) for _ in range(10))


def filling(teacher: TeacherSupply, data: TaskData, cells: int, device: str) -> tuple[float, int]:
    """Seconds to compute and keep the outputs of ``cells`` views that were not asked for yet, and how many it were."""
    everything = torch.arange(len(data.train) * data.train.views.count)
    chosen = everything if cells >= len(everything) else everything[:: len(everything) // cells][:cells]
    rows, views = chosen // data.train.views.count, chosen % data.train.views.count
    before = teacher.computed

    def work() -> None:
        for part in torch.split(torch.arange(len(chosen)), WINDOW):
            teacher.outputs(rows[part], views[part])

    seconds = timed(work, device)
    return seconds, teacher.computed - before


def main() -> None:
    """Prints the tables and writes ``benchmarks/gpu.json``."""
    parser = parser_of(__doc__)
    parser.add_argument("--pair", default="wrn_40_2:wrn_16_2", help="teacher:student")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--train", type=int, default=45_000)
    parser.add_argument("--validation", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--naive-steps", type=int, default=100)
    parser.add_argument("--loader-workers", type=int, default=8)
    parser.add_argument("--fill", type=int, default=200_000, help="views to time the bank's filling by")
    parser.add_argument("--whole-bank", action="store_true", help="fill all of it")
    parser.add_argument("--matrix", type=int, default=8192, help="side of the matrices")
    options = parser.parse_args()
    device, pair = options.device, Pair(*options.pair.split(":"))
    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no CUDA device is visible; --device cpu with small sizes only shows that it runs")
    prepare_process(1)
    with tempfile.TemporaryDirectory(prefix="wsl-sweep-benchmark-") as folder:
        os.environ["WSL_SWEEP_CACHE"] = os.environ["WSL_SWEEP_BANK"] = folder
        result = measure(pair, device, options)
    name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    where = save(__file__, {"device": name, "pair": options.pair, **result}, options.output)
    show(f"median (min … max) of {options.rounds} rounds on {name}; written to {where}")


def measure(pair: Pair, device: str, options: Any) -> dict[str, Any]:
    """All figures, printed too."""
    data = pictures(device, options.train, options.validation)
    steps = -(-options.train // BATCH)
    bank = supply(pair, data, device, bank=True)
    cells = len(data.train) * data.train.views.count
    fill_seconds, filled = filling(bank, data, cells if options.whole_bank else options.fill, device)
    fill(bank, data, options.rounds + 1)
    by_hand = naive(pair, data, device, workers=options.loader_workers, most_steps=options.naive_steps)
    loops: dict[str, Callable[[], Any]] = {}
    notes: list[str] = []
    for precision in ("float32", "bfloat16"):
        arguments: dict[str, Any] = {"epochs": options.rounds + 1, "precision": precision, "say": notes.append}
        loops[f"bank, {precision}"] = ours(pair, data, device, teacher=bank, **arguments).__next__
        loops[f"alone, {precision}"] = ours(pair, data, device, teacher=None, **arguments).__next__
    seconds: dict[str, list[float]] = {name: [] for name in ("naive", *loops)}
    for turn in range(options.rounds + 1):
        trained = timed(by_hand.__next__, device) / min(options.naive_steps, steps)
        looked = timed(by_hand.__next__, device) / steps  # once an epoch, as ours
        found = {"naive": trained + looked} | {name: timed(run, device) / steps for name, run in loops.items()}
        if turn:
            for name, one in found.items():
                seconds[name].append(one)
    teacher_ops, student_ops = operations(pair)
    peaks = {
        "float32": matrix_speed(device, torch.float32, options.matrix),
        "bfloat16": matrix_speed(device, torch.bfloat16, options.matrix),
    }
    rows = []
    for name, found in seconds.items():
        precision = name.split(", ")[-1] if name != "naive" else "float32"
        ops = BATCH * (student_ops + (teacher_ops if name == "naive" else 0))
        share = [100 * ops / one / peaks[precision] for one in found]
        ratio = statistics.median(seconds["naive"]) / statistics.median(found)
        trial = EPOCHS * steps * statistics.median(found)
        rows.append((name, spread([1 / one for one in found], 0), spread(share, 1), f"{ratio:.1f}", f"{trial:,.0f}"))
    show(table(("loop", "steps a second", "% of the card", "naive ÷ this", "s for 240 epochs"), rows))
    whole = fill_seconds * cells / max(filled, 1)
    share = 100 * teacher_ops * filled / fill_seconds / peaks["float32"]
    how = "measured" if filled >= cells else f"counted up from {filled:,}"
    show(
        f"bank: {filled / fill_seconds:,.0f} views a second ({share:.1f} % of the card); "
        f"all {cells:,}: {whole:,.0f} s, {how}"
    )
    for note in dict.fromkeys(notes):
        show(f"note: {note}")
    bank.close()
    return {
        "notes": list(dict.fromkeys(notes)),
        "seconds a step": seconds,
        "matrix operations a second": peaks,
        "operations an example": {"teacher": teacher_ops, "student": student_ops},
        "bank": {"views a second": filled / fill_seconds, "views": filled, "of": cells, "seconds for all": whole},
    }


if __name__ == "__main__":
    main()
