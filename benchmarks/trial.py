"""What a trial costs with its teacher: at every step, from a full bank, and without any teacher.

    python -m benchmarks.trial [--rounds 5] [--steps 8] [--pairs wrn_40_2:wrn_16_2 …]

One thread, pictures of CIFAR-100's shape, batches of 64, weighted soft labels. Each round runs an epoch of --steps
steps and a look at 64 validation pictures of: the loop that people write today (torchvision's DataLoader without
processes, the teacher at every step, the loss read at every step); ours with the teacher computed; ours with a full
bank; ours with cross-entropy alone. They take turns, so that a slow moment of the machine meets all of them, and ratios
are taken within a round. The bound is what never running the teacher can win by operations alone: (teacher's forward +
student's forward and backward) / (student's forward and backward).
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time

from benchmarks.common import parser_of, save, show, spread, table
from benchmarks.pairs import BATCH, Pair, fill, naive, one_thread, operations, ours, pictures, supply
from wsl_sweep.training.device import prepare_process

PAIRS = ("wrn_40_2:wrn_16_2", "resnet56:resnet20", "vgg13:vgg8")
NAMES = {
    "naive": "naive loop",
    "computed": "ours, teacher computed",
    "bank": "ours, full bank",
    "alone": "ours, no teacher",
}


def measure(pair: Pair, rounds: int, steps: int) -> dict[str, list[float]]:
    """Seconds of an epoch by loop, a value a round."""
    data = pictures("cpu", steps * BATCH, BATCH)
    full = supply(pair, data, "cpu", bank=True)
    fill(full, data, rounds + 1)
    loops = {
        "naive": naive(pair, data, "cpu", workers=0),
        "computed": ours(pair, data, "cpu", epochs=rounds + 1, teacher=supply(pair, data, "cpu", bank=False)),
        "bank": ours(pair, data, "cpu", epochs=rounds + 1, teacher=full),
        "alone": ours(pair, data, "cpu", epochs=rounds + 1, teacher=None),
    }
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    before = full.computed
    for turn in range(rounds + 1):
        for name in list(loops)[:: 1 if turn % 2 else -1]:
            begun = time.perf_counter()
            next(loops[name])
            if name == "naive":
                next(loops[name])  # its look at the validation part, which ours has in an epoch
            if turn:  # the first epoch warms up
                seconds[name].append(time.perf_counter() - begun)
    assert full.computed == before, "the bank was not full"
    full.close()
    return seconds


def main() -> None:
    """Prints the table and writes ``benchmarks/trial.json``."""
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--pairs", nargs="+", default=list(PAIRS), help="teacher:student")
    options = parser.parse_args()
    one_thread()
    prepare_process(1)
    rows, results = [], {}
    with tempfile.TemporaryDirectory(prefix="wsl-sweep-benchmark-") as folder:
        os.environ["WSL_SWEEP_CACHE"] = os.environ["WSL_SWEEP_BANK"] = folder
        for text in options.pairs:
            pair = Pair(*text.split(":"))
            seconds = measure(pair, options.rounds, options.steps)
            examples = options.steps * BATCH
            ratios = {name: [a / b for a, b in zip(seconds[name], seconds["bank"], strict=True)] for name in NAMES}
            over_alone = [a / b for a, b in zip(seconds["bank"], seconds["alone"], strict=True)]
            teacher, student = operations(pair)
            bound = (teacher + student) / student
            for name, words in NAMES.items():
                apart = [a / b for a, b in zip(seconds[name], seconds["alone"], strict=True)]
                speed = spread([examples / one for one in seconds[name]], 0)
                rows.append((str(pair) if name == "naive" else "", words, speed, spread(apart, 3)))
            rows.append(("", f"bound {bound:.2f}; reached: computed ÷ bank", "", spread(ratios["computed"])))
            rows.append(("", "naive ÷ bank", "", spread(ratios["naive"])))
            results[text] = {
                "seconds": seconds,
                "bound": bound,
                "bank / alone": statistics.median(over_alone),
                "computed / bank": statistics.median(ratios["computed"]),
                "naive / bank": statistics.median(ratios["naive"]),
            }
    show(table(("pair", "loop", "examples a second", "time ÷ no teacher"), rows))
    where = save(__file__, {"rounds": options.rounds, "steps": options.steps, "pairs": results}, options.output)
    show(f"median (min … max) of {options.rounds} rounds; written to {where}")


if __name__ == "__main__":
    main()
