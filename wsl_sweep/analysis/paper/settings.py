"""What the trials of a sweep are, by their configuration and not by the names that a file gave them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from wsl_sweep.analysis.grouping import ABSENT, Entry, Row, final_entries, row_of
from wsl_sweep.analysis.published import Figure, figure
from wsl_sweep.analysis.records import SEED, SweepRecords

PAPER_TEMPERATURE, PAPER_ALPHA = 4.0, 2.25
"""WSL §5.2, CIFAR-100; τ is RepDistiller's too."""

IMAGENET_TEMPERATURE, IMAGENET_ALPHA = 2.0, 2.5
"""WSL's on ImageNet."""

RKD_WEIGHTS = (25.0, 50.0)
"""Of distances and angles in RepDistiller."""


@dataclass(frozen=True, eq=False)
class Setting:
    """One configuration in the final table of a sweep, with its trials over seeds.

    Attributes:
        sweep: that it is of.
        entries: its trials with their places; at least one, all of one configuration.
    """

    sweep: SweepRecords
    entries: tuple[Entry, ...]

    def row(self, metric: str) -> Row:
        """Its values of a metric over seeds; the label is what the sweep calls it, by all its names."""
        first = self.entries[0][1].variant
        row = row_of([entry for entry in self.entries if entry[1].variant == first], [self.sweep], metric)
        others = dict.fromkeys(standing.variant for _, standing in self.entries if standing.variant != first)
        return replace(row, label=f"{row.label} (= {', '.join(others)})") if others else row

    def text(self, path: str) -> str | None:
        """The value at a dotted path, as text; None where it does not read the path."""
        return self.entries[0][0].params.get(path)

    def number(self, path: str) -> float | None:
        """The value at a dotted path, where it is a number."""
        try:
            return float(self.text(path) or "")
        except ValueError:
            return None

    def value(self, path: str) -> str:
        """The value at a dotted path as text, the same for the same number; of what only the file knows, the file's."""
        text = self.text(path)
        return _one_text(str(self.entries[0][1].overrides.get(path, ABSENT)) if text is None else text)

    @cached_property
    def dataset(self) -> str:
        """Name of the data set."""
        return self.text("dataset.name") or ""

    @cached_property
    def teacher(self) -> str | None:
        """The teacher's model; None where there is no teacher."""
        return self.text("teacher.model")

    @cached_property
    def student(self) -> str:
        """The student's model."""
        return self.text("student.model") or ""

    @cached_property
    def method(self) -> str:
        """``none``, ``kd``, ``rkd``, …"""
        return self.text("distillation.method") or ""

    @cached_property
    def weighting(self) -> str:
        """``none``, ``exp``, ``sigmoid``, …"""
        return self.text("distillation.weighting.kind") or "none"

    @cached_property
    def keep(self) -> tuple[float, float]:
        """Probabilities with which regularization samples, and others, are kept."""
        found = (self.number(f"distillation.keep.{which}") for which in ("regularization", "other"))
        one, other = (1.0 if probability is None else probability for probability in found)
        return one, other

    @property
    def unmasked(self) -> bool:
        """Whether the true class is in the distillation loss."""
        return self.text("distillation.mask") in (None, "none")

    @property
    def whole(self) -> bool:
        """Whether no class and no example is left out of the distillation loss."""
        return self.unmasked and self.keep == (1.0, 1.0)

    def is_kd(self, weighting: str) -> bool:
        """Whether it is distillation of soft labels with such weights: ``none`` is plain, ``exp`` is WSL."""
        return self.method == "kd" and self.weighting == weighting

    @property
    def temperature(self) -> float | None:
        """τ."""
        return self.number("distillation.temperature")

    @property
    def alpha(self) -> float | None:
        """α."""
        return self.number("distillation.alpha")

    @property
    def smoothing(self) -> float | None:
        """ε of the teacher's labels; None where the teacher was brought in, or there is none."""
        return self.number("teacher.label_smoothing")

    @cached_property
    def figure(self) -> Figure | None:
        """What was published of just this method, pair and data set; None where nothing is verified."""
        method = self._published_method()
        return None if method is None else figure(self.dataset, self.teacher, self.student, method)

    def _published_method(self) -> str | None:
        if self.method == "none":
            return "S"
        if not self.whole or self.smoothing not in (None, 0.0):
            return None
        if self.dataset == "imagenet":
            theirs = (self.temperature, self.alpha) == (IMAGENET_TEMPERATURE, IMAGENET_ALPHA)
            return "WSL" if self.is_kd("exp") and theirs else None
        if self.method == "kd" and self.temperature == PAPER_TEMPERATURE:
            if self.weighting == "none":
                return "KD"
            return "WSL" if self.weighting == "exp" and self.alpha == PAPER_ALPHA else None
        weights = (self.number("distillation.distance_weight"), self.number("distillation.angle_weight"))
        plain = self.method == "rkd" and self.weighting == "none" and not self.number("distillation.kd_weight")
        return "RKD" if plain and weights == RKD_WEIGHTS else None


def settings_of(sweep: SweepRecords) -> list[Setting]:
    """The configurations of a sweep's final table, in its order."""
    groups: dict[tuple[tuple[str, str], ...], list[Entry]] = {}
    for record, standing in final_entries(sweep):
        key = tuple(sorted((path, _one_text(text)) for path, text in record.params.items() if path != SEED))
        group = groups.setdefault(key, [])
        group.append((replace(record, params=group[0][0].params) if group else record, standing))
    return [Setting(sweep, tuple(group)) for group in groups.values()]


def _one_text(text: str) -> str:
    """A number as one text however it is written; any other text as it is."""
    try:
        return repr(float(text))
    except ValueError:
        return text


def apart(cells: Sequence[Sequence[Setting]]) -> list[str]:
    """The paths that tell the settings of each cell apart: those that the sweep names, and only if they do not do it,
    all of the configuration. Empty where no cell has several."""
    found: dict[str, None] = {}
    for settings in cells:
        named = {path for one in settings for path in one.entries[0][1].overrides}
        for paths in (named, {path for one in settings for path in one.entries[0][0].params if path != SEED}):
            varied = [path for path in sorted(paths) if len({one.value(path) for one in settings}) > 1]
            if len({tuple(one.value(path) for path in varied) for one in settings}) == len(settings):
                break
        found |= dict.fromkeys(varied)
    return list(found)
