"""What a bank of a teacher's largest logits takes, and how far its soft labels are from the teacher's own.

    python -m benchmarks.largest [--classes 1000] [--examples 1024]

The teacher's logits are random: normal with a standard deviation of 3, the label's raised by up to 9, so that it is
mostly right and sometimes far from sure; the student's are half of them and noise. Errors are relative means over
examples: of the loss, and of its gradient at the student's logits, which is off by τ times the soft labels' error.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from wsl_sweep.distill import distillation_loss, label_cross_entropy
from wsl_sweep.training.bank import Layout, TeacherOutputs

TEMPERATURES = (1.0, 4.0)
KEPT = (10, 50, 200)
SCALE = 3.0


@dataclass(frozen=True)
class Line:
    """One K.

    Attributes:
        top_k: K; None for all logits.
        float32, float16: bytes a row.
        errors: for each of TEMPERATURES of the gradient and of the loss.
    """

    top_k: int | None
    float32: int
    float16: int
    errors: tuple[tuple[float, float], ...]


def measure(classes: int, examples: int) -> list[Line]:
    """All logits, then each of KEPT."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(classes, (examples,), generator=generator)
    own = torch.nn.functional.one_hot(labels, classes) * 3 * SCALE * torch.rand(examples, 1, generator=generator)
    teacher = torch.randn(examples, classes, generator=generator) * SCALE + own
    student = 0.5 * teacher + torch.randn(examples, classes, generator=generator) * SCALE * 0.5
    lines = [Line(None, 4 * Layout(classes).words, 4 * Layout(classes, 0, "float16").words, ((0.0, 0.0),) * 2)]
    for top_k in KEPT:
        layout, half = (Layout(classes, 0, one, top_k, TEMPERATURES) for one in ("float32", "float16"))
        rows = layout.encode(TeacherOutputs(teacher, label_cross_entropy(teacher, labels)), labels)
        errors = [_errors(student, teacher, layout.decode(rows, one).logits, one) for one in TEMPERATURES]
        lines.append(Line(top_k, 4 * layout.words, 4 * half.words, tuple(errors)))
    return lines


def _errors(student: Tensor, teacher: Tensor, approximation: Tensor, temperature: float) -> tuple[float, float]:
    gradients, losses = [], []
    for logits in (teacher, approximation):
        of = student.clone().requires_grad_()
        loss = distillation_loss(of, logits, temperature)
        loss.sum().backward()  # type: ignore[no-untyped-call]
        assert of.grad is not None
        gradients.append(of.grad)
        losses.append(loss.detach())
    off = (gradients[1] - gradients[0]).norm(dim=1).mean() / gradients[0].norm(dim=1).mean()
    return float(off), float((losses[1] - losses[0]).abs().mean() / losses[0].mean())


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--examples", type=int, default=1024)
    options = parser.parse_args()
    errors = [f"{what}, τ = {one:g}" for one in TEMPERATURES for what in ("gradient", "loss")]
    table = Table("top_k", "bytes a row", "float16", *errors, box=None)
    for line in measure(options.classes, options.examples):
        off = [f"{100 * one:.2g} %" for pair in line.errors for one in pair]
        table.add_row(str(line.top_k or "all"), f"{line.float32:,}", f"{line.float16:,}", *off)
    Console().print(table)


if __name__ == "__main__":
    main()
