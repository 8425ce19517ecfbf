"""Colours, names and numbers, as all pictures and the page write them."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from wsl_sweep.analysis.report_data import Kind, Value

COLOURS: Final[Mapping[str, tuple[str, str]]] = {
    "paper": ("#ffffff", "#14171b"),
    "ink": ("#1b1f24", "#e8eaed"),
    "muted": ("#59626d", "#a3acb7"),
    "grid": ("#e3e6ea", "#2b3037"),
    "frame": ("#aeb6c0", "#59626e"),
    "shade": ("#edf1f5", "#20262d"),
    "baseline": ("#57606b", "#a9b2bd"),
    "series-1": ("#0f62c9", "#6ea8ff"),
    "series-2": ("#d0570e", "#ff9452"),
    "series-3": ("#2b9a78", "#37a58c"),
    "series-4": ("#5a1e96", "#d9c7ff"),
    "series-5": ("#c45fae", "#e070c8"),
    "series-6": ("#4a4a00", "#e6e05a"),
    "series-7": ("#3b94d9", "#4169e0"),
    "other": ("#b4bac2", "#4f5761"),
    "better": ("#0b6e4f", "#5fd3a6"),
    "worse": ("#b3400a", "#ffa06a"),
    "equivalent": ("#1557b0", "#86b7ff"),
    "inconclusive": ("#5a626c", "#a8b1bb"),
}
"""What each colour is for → (on a light page, on a dark one). No two are the same, so that a picture's can be swapped.

The series can be told apart by eyes with deuteranopia and protanopia, and each has a marker and a dash of its own.
"""

PATTERNS: Final = (
    ("o", "-"),
    ("s", (0, (5, 1.6))),
    ("^", (0, (6, 1.5, 1.5, 1.5))),
    ("D", (0, (1.4, 1.4))),
    ("v", (0, (8, 2))),
    ("P", (0, (3, 1.2, 1.2, 1.2, 1.2, 1.2))),
    ("X", (0, (2.4, 1.2))),
)
SYMBOLS: Final = {"distillation.alpha": "α", "distillation.temperature": "τ"}
KIND_MARKERS: Final[Mapping[Kind, str]] = {
    "better": "^",
    "worse": "v",
    "equivalent": "s",
    "inconclusive": "o",
    "none": "o",
}
FRACTIONS: Final = ("accuracy", "agreement", "fraction", "ece", "weight", "rate")
"""A metric whose last part ends with one of these is a share: four decimals are a hundredth of a percent."""


def light(role: str) -> str:
    """The colour of a role on a light page, which is what figures are drawn with."""
    return COLOURS[role][0]


@dataclass(frozen=True)
class Look:
    """How a group is drawn: a role of ``COLOURS``, a marker, a dash."""

    role: str
    marker: str = "o"
    dash: Any = "-"

    @property
    def colour(self) -> str:
        return light(self.role)


BASELINE: Final = Look("baseline", "D", (0, (3.5, 1.8)))
OTHER: Final = Look("other")
Looks = Mapping[str, Look]
"""The look of each label."""


def looks_of(labels: Iterable[str], baseline: str | None = None) -> dict[str, Look]:
    """A look for each label: seven differ in colour, marker and dash, the baseline is slate, all others are grey."""
    found: dict[str, Look] = {}
    free = 0
    for label in dict.fromkeys(labels):
        if label == baseline:
            found[label] = BASELINE
        elif free < len(PATTERNS):
            found[label] = Look(f"series-{free + 1}", *PATTERNS[free])
            free += 1
        else:
            found[label] = OTHER
    return found


def named(path: str) -> str:
    """A parameter as the paper writes it (α, τ), or its path without ``distillation.``."""
    return SYMBOLS.get(path) or path.removeprefix("distillation.")


def shown(value: Value | None) -> str:
    """A parameter's value; ``–`` where there is none."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return str(value).lower()
    return short(value) if isinstance(value, float) else str(value)


def short(value: float) -> str:
    """Four significant digits, without what an exponent does not need: ``0.0005``, ``2.5e-6``, ``12000``."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else str(value)
    if 1e-4 <= abs(value) < 1e6:
        return f"{float(f'{value:.4g}'):.10f}".rstrip("0").rstrip(".").replace("-", "−")
    mantissa, exponent = f"{value:.3e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}".replace("-", "−")


def measured(metric: str, value: float | None, sign: bool = False) -> str:
    """A metric's value: four decimals for shares, else four significant digits. ``sign``: as a difference."""
    if value is None:
        return "–"
    words = metric.rsplit("/", 1)[-1].split("_")
    text = f"{abs(value):.4f}" if not set(FRACTIONS).isdisjoint(words) else short(abs(value))
    negative = value < 0 and text.strip("0.") != ""
    return ("−" if negative else "+" if sign and value > 0 else "") + text


_TURNING: Final = frozenset(map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A))))
"""Characters that turn the direction of what follows them, beyond the name that they are in."""


def printable(text: str) -> str:
    """Text without the characters that XML, HTML or UTF-8 cannot hold, or that turn what follows."""
    return "".join("\ufffd" if _unprintable(character) else character for character in text)


def _unprintable(character: str) -> bool:
    return character not in "\t\n\r" and (
        unicodedata.category(character) in ("Cc", "Cs") or character in "\ufffe\uffff" or character in _TURNING
    )


def clean(text: str) -> str:
    """Printable text on one line."""
    return " ".join(printable(text).split())


def width_of(text: str, size: float) -> float:
    """About how wide a text is, in pixels: rather more than less, whatever font a reader has."""
    return size * sum(map(_em, text))


def _em(character: str) -> float:
    if unicodedata.east_asian_width(character) in ("W", "F"):
        return 1.0
    if character in "ijltfrI.,:;|'!()[]/ ":
        return 0.38
    if character in "mwMW@%—…":
        return 0.95
    return 0.7 if character.isupper() else 0.61


def fitted(text: str, width: float, size: float) -> str:
    """A text that is no wider than ``width``: the middle of a longer one is left out."""
    text = clean(text)
    if width_of(text, size) <= width:
        return text
    head, tail = text[: (len(text) + 1) // 2], text[(len(text) + 1) // 2 :]
    while head and width_of(f"{head}…{tail}", size) > width:
        head, tail = (head[:-1], tail) if len(head) > len(tail) else (head, tail[1:])
    return f"{head}…{tail}"
