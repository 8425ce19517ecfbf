"""``bank.top_k``: an approximation of the teacher's logits, for methods and temperatures that it is good enough for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from wsl_sweep.spec.catalogue import METHODS
from wsl_sweep.spec.reads import keeps_outputs, reads
from wsl_sweep.spec.spec import Spec
from wsl_sweep.spec.world import Say, SayOption, assignments, teller

Place = Callable[..., tuple[str | int, ...]]

MOST_TEMPERATURES = 32
"""A row holds a sum for each: of more it would not be small."""

READ_ALL_LOGITS = {
    "dkd": "weighs how a teacher ranks the wrong classes apart from how sure it is, down to the smallest logit",
    "dist": "correlates all classes of an example, and all examples of a class",
}
"""Methods that the approximation is not good enough for, and why."""

TEMPERATURE = "distillation.temperature"


def kept_temperatures(spec: Spec) -> tuple[float, ...]:
    """Every τ that a file names, for which the bank keeps the sum of what ``top_k`` leaves out; ascending, 1 always."""
    swept = spec.space.get(TEMPERATURE)
    found = {1.0}
    for owner, flat in _approximated(spec):
        if TEMPERATURE in reads(flat):
            found.add(float(flat[TEMPERATURE]))
            if swept is not None and owner[:1] != ("baselines",):
                found |= {float(value) for value in swept.finite() or ()}
    return tuple(sorted(found))


def check_top_k(spec: Spec, say: Say, say_option: SayOption, place: Place) -> None:
    """Notes the methods and temperatures of a file that ``bank.top_k`` is no approximation for."""
    if spec.bank.top_k is None:
        return
    tell = teller(spec, say, say_option, place)
    swept = spec.space.get(TEMPERATURE)
    for owner, flat in _approximated(spec):
        method = str(flat["distillation.method"])
        if method not in METHODS or method in READ_ALL_LOGITS:
            why = READ_ALL_LOGITS.get(method, "is your own, and may read any logit")
            tell(owner, "distillation.method", f"{method} {why}, and bank.top_k keeps the largest: remove bank.top_k")
        if swept is None or owner[:1] == ("baselines",) or TEMPERATURE not in reads(flat):
            continue
        values = swept.finite()
        if values is None or len(values) > MOST_TEMPERATURES:
            count = "no end of them" if values is None else f"{len(values)} of them"
            tell(
                owner,
                TEMPERATURE,
                f"bank.top_k keeps a sum for each temperature, and {swept.kind} has {count}: use choice: [value, …], "
                "or remove bank.top_k",
            )


def _approximated(spec: Spec) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Section and name, and flat configuration, of whoever's teacher is approximated."""
    asked = (
        "recipe", "dataset.views", "distillation.method", "distillation.kd_weight", TEMPERATURE, "teacher.mode"
    )  # fmt: skip
    for owner, overrides, params in assignments(spec, asked):
        flat = spec.flat_config(overrides, params)
        if keeps_outputs(flat):
            yield owner, flat
