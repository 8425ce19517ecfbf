"""What a trial on pairs of sentences costs with its teacher: at every step, from a full bank, and without any.

    python -m benchmarks.text [--rounds 5] [--steps 8] [--pairs bert_4x64:bert_2x64 …]

One thread, random tokens of about MultiNLI's lengths, three classes, batches of 32 as in Sun et al. (2019), weighted
soft labels. Each round runs an epoch of --steps steps and a look at 64 validation pairs of: a trial with its teacher
computed; one with a full bank; one with cross-entropy alone. They take turns, so that a slow moment of the machine
meets all of them, and ratios are taken within a round: of seconds, and of the processor's seconds, which others that
run beside it hardly change.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import nn

from benchmarks.common import parser_of, save, show, spread, table
from benchmarks.pairs import ALONE, WSL, Pair, fill, one_thread
from wsl_sweep.data import Examples, TaskData
from wsl_sweep.data.text import Texts, Tokens
from wsl_sweep.distill import Objective
from wsl_sweep.models import build
from wsl_sweep.training.bank import BankSettings
from wsl_sweep.training.device import as_computed, prepare_process
from wsl_sweep.training.loop import train_epochs
from wsl_sweep.training.supply import TeacherSupply, supply_for
from wsl_sweep.training.teachers import FrozenTeacher

PAIRS = ("bert_4x64:bert_2x64", "bert_4x256:bert_2x128")
NAMES = {"computed": "teacher computed", "bank": "full bank", "alone": "no teacher"}
CLASSES, WORDS, BATCH, VALIDATION, LONGEST = 3, 28_996, 32, 64, 128
MEAN_LENGTH, LENGTHS_APART, SHORTEST = 40, 18, 8
OPTIMIZER = {"name": "adamw", "lr": 5e-5, "weight_decay": 0.01, "decay_on": "weights"}


def pairs_of_sentences(train: int, validation: int) -> TaskData:
    """Random tokens, two of three in the first sentence; lengths are normal, as far as they are allowed."""
    generator = torch.Generator().manual_seed(0)
    count = train + validation
    lengths = (MEAN_LENGTH + LENGTHS_APART * torch.randn(count, generator=generator)).long().clamp(SHORTEST, LONGEST)
    ids = torch.randint(1, WORDS, (int(lengths.sum()),), generator=generator, dtype=torch.int32)
    tokens = Tokens.of(ids, lengths, (lengths * 2 // 3).to(torch.int32))
    labels = torch.randint(CLASSES, (count,), generator=generator)
    task = Texts(tokens, labels, ("a", "b", "c"), words=WORDS, max_length=LONGEST)

    def part(start: int, stop: int, training: bool) -> Examples:
        rows = torch.arange(start, stop)
        return Examples(task.inputs({}, rows, "cpu", training=training), labels[rows], rows)

    parts = part(0, train, True), part(train, count, False)
    return TaskData(*parts, CLASSES, WORDS, "random", f"random {count}", labels)


def fresh(name: str) -> nn.Module:
    """A model with fixed weights."""
    torch.manual_seed(0)
    return build(name, CLASSES, WORDS)


def supply(pair: Pair, data: TaskData, *, bank: bool) -> TeacherSupply:
    """The teacher's outputs, from a bank in the cache or computed."""
    return supply_for(
        data,
        lambda: FrozenTeacher(fresh(pair.teacher), data.validation),
        {"model": pair.teacher, "weights": "fixed", "own_code": None},
        settings=BankSettings(use=bank),
        about={"model": pair.teacher, "dataset": "random tokens"},
    )


def training(pair: Pair, data: TaskData, epochs: int, teacher: TeacherSupply | None) -> Iterator[dict[str, float]]:
    """The package's loop, a row an epoch; without a teacher by cross-entropy alone."""
    objective = Objective(WSL if teacher is not None else ALONE)
    return train_epochs(
        as_computed(fresh(pair.student)),
        data,
        objective.step,
        optimizer=OPTIMIZER,
        schedule={"epochs": epochs, "batch_size": BATCH, "shape": "linear", "milestones": [], "warmup_epochs": 0.1},
        seed=0,
        teacher=teacher,
        draws=objective.draws,
        weighs=objective.weighs,
    )


def measure(pair: Pair, rounds: int, steps: int) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Seconds of an epoch by kind of trial, a value a round: of the clock, and of the processor."""
    data = pairs_of_sentences(steps * BATCH, VALIDATION)
    full = supply(pair, data, bank=True)
    fill(full, data, 1)  # an example has one view
    trials = {
        "computed": training(pair, data, rounds + 1, supply(pair, data, bank=False)),
        "bank": training(pair, data, rounds + 1, full),
        "alone": training(pair, data, rounds + 1, None),
    }
    seconds: dict[str, list[float]] = {name: [] for name in trials}
    processor: dict[str, list[float]] = {name: [] for name in trials}
    before = full.computed
    for turn in range(rounds + 1):
        for name in list(trials)[:: 1 if turn % 2 else -1]:
            begun, computed = time.perf_counter(), time.process_time()
            next(trials[name])
            if turn:  # the first epoch warms up
                seconds[name].append(time.perf_counter() - begun)
                processor[name].append(time.process_time() - computed)
    assert full.computed == before, "the bank was not full"
    full.close()
    return seconds, processor


def _apart(seconds: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """By kind of trial, its seconds as a multiple of those without a teacher, round by round."""
    return {name: [a / b for a, b in zip(seconds[name], seconds["alone"], strict=True)] for name in NAMES}


def main() -> None:
    """Prints the table and writes ``benchmarks/text.json``."""
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
            seconds, processor = measure(pair, options.rounds, options.steps)
            examples = options.steps * BATCH
            apart, computed = (_apart(one) for one in (seconds, processor))
            for name, words in NAMES.items():
                speed = spread([examples / one for one in seconds[name]], 1)
                shown = str(pair) if name == "computed" else ""
                rows.append((shown, words, speed, spread(apart[name], 3), spread(computed[name], 3)))
            results[text] = {
                "seconds": seconds,
                "processor": processor,
                "bank / alone": statistics.median(apart["bank"]),
                "bank / alone, processor": statistics.median(computed["bank"]),
            }
    show(table(("pair", "trial", "pairs a second", "time ÷ no teacher", "processor ÷"), rows))
    where = save(__file__, {"rounds": options.rounds, "steps": options.steps, "pairs": results}, options.output)
    show(f"median (min … max) of {options.rounds} rounds; written to {where}")


if __name__ == "__main__":
    main()
