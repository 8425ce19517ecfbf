"""What a table of the paper is made of: rows and columns that say of a trial, by what it is, whether it is theirs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from wsl_sweep.analysis.paper.settings import Setting
from wsl_sweep.analysis.published import Figure, figure

Holds = Callable[[Setting], bool]


def always(setting: Setting) -> bool:
    """Of a row or a column that takes whatever the other takes."""
    return True


@dataclass(frozen=True)
class Slot:
    """A row or a column.

    Attributes:
        labels: what it is called; of a row a text for each of the layout's heads, of a column one, and where that is
            empty the metric's name.
        holds: whether a setting belongs in it.
        metric: of its cells, where it is not the table's.
        published: of a row or column of published figures, the one to stand beside a setting.
        optional: whether it is left out where all of it is empty.
        note: for a footnote, or empty.
    """

    labels: tuple[str, ...]
    holds: Holds = always
    metric: str | None = None
    published: Callable[[Setting], Figure | None] | None = None
    optional: bool = False
    note: str = ""


@dataclass(frozen=True)
class Block:
    """Rows under a title of their own, such as the halves of Table 7."""

    title: str
    rows: Sequence[Slot]
    holds: Holds = always


@dataclass(frozen=True)
class Plan:
    """A table's rows and columns for the settings of one sweep."""

    columns: Sequence[Slot]
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Layout:
    """One of the paper's tables.

    Attributes:
        number: of the table.
        title: what it is about.
        heads: of the columns that name the rows.
        plan: rows and columns for the settings that there are.
        marks: of which settings a sweep must have one to be a sweep for this table.
        needs: the same in words.
        file: of ``search_spaces/``, that makes such a sweep.
        notes: what to know of it.
        datasets: of the paper's experiment, by ``dataset.name``.
    """

    number: int
    title: str
    heads: tuple[str, ...]
    plan: Callable[[Sequence[Setting]], Plan]
    marks: Holds
    needs: str
    file: str
    notes: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ("cifar100",)

    @property
    def unverified(self) -> str:
        """What is said of the cells for published figures; of the paper's own some of Tables 3 and 4 are verified."""
        if self.number in (3, 4):
            return ""
        return (
            f"nothing is verified of the paper's own Table {self.number}: a cell is empty unless another source has a "
            "figure for the same setting"
        )


KD, WSL = "soft labels (KD)", "weighted soft labels (WSL)"


def both(*conditions: Holds) -> Holds:
    """Where every one of several conditions holds."""
    return lambda setting: all(condition(setting) for condition in conditions)


def distils(weighting: str) -> Holds:
    """Soft labels with such weights, on whichever examples."""
    return lambda setting: setting.is_kd(weighting) and setting.unmasked


def whole(weighting: str) -> Holds:
    """Soft labels with such weights, nothing left out."""
    return lambda setting: setting.is_kd(weighting) and setting.whole


def kept(regularization: float, other: float) -> Holds:
    """Both keep-probabilities."""
    return lambda setting: setting.keep == (regularization, other)


def on(dataset: str) -> Holds:
    """On the data set of a name."""
    return lambda setting: setting.dataset == dataset


def at(path: str, value: float) -> Holds:
    """A number of the configuration."""
    return lambda setting: setting.number(path) == value


def values(numbers: Iterable[float | None]) -> list[float]:
    """Each number once, ascending."""
    return sorted({number for number in numbers if number is not None})


def published(holds: Holds = always, label: str = "published") -> Slot:
    """A column of what was published of the very settings of the row."""
    return Slot((label,), holds, published=lambda setting: setting.figure)


def side_by_side() -> list[Slot]:
    """Columns of KD and WSL, and of what was published of them."""
    plain, weighted = distils("none"), distils("exp")
    return [
        Slot((KD,), plain),
        Slot((WSL,), weighted),
        published(plain, "KD, published"),
        published(weighted, "WSL, published"),
    ]


def smoothings(settings: Iterable[Setting]) -> list[tuple[str, Holds]]:
    """Rows for teachers by the ε of their labels: its text and condition; without and with it are always among them."""
    settings = list(settings)
    path = "teacher.label_smoothing"
    above = [value for value in values(setting.smoothing for setting in settings) if value > 0]
    found = [("no", at(path, 0.0)), *((f"yes, ε = {epsilon:g}", at(path, epsilon)) for epsilon in above)]
    if not above:
        found.append(("yes", lambda setting: False))
    if any(setting.teacher and setting.smoothing is None for setting in settings):
        found.append(("not known: brought in", lambda setting: setting.smoothing is None))
    return found


def pairs(settings: Iterable[Setting], wanted: Iterable[tuple[str, str]] = ()) -> list[Slot]:
    """A column for each pair of teacher and student; on CIFAR-100 those that the paper has are always among them."""
    found = dict.fromkeys((one.dataset, one.teacher, one.student) for one in settings if one.teacher)
    if any(dataset == "cifar100" for dataset, _, _ in found):
        found |= dict.fromkeys(("cifar100", *pair) for pair in wanted)
    several = len({dataset for dataset, _, _ in found}) > 1
    return [
        Slot((f"{teacher} → {student}" + (f", {dataset}" if several else ""),), _of_pair(dataset, teacher, student))
        for dataset, teacher, student in found
    ]


def by_metric(columns: Iterable[Slot], metrics: Mapping[str, str | None]) -> list[Slot]:
    """Each column several times, once for each metric (None: the table's) under what is added to its label."""
    return [
        replace(column, labels=(f"{column.labels[0]}{added}",), metric=metric)
        for column in columns
        for added, metric in metrics.items()
    ]


def _of_pair(dataset: str, teacher: str | None, student: str) -> Holds:
    """A student that learns without a teacher belongs to every pair that it is in."""

    def holds(setting: Setting) -> bool:
        return (setting.dataset, setting.student) == (dataset, student) and setting.teacher in (None, teacher)

    return holds


def published_row(
    label: str, method: str | None, source: str | None = None, *, own: bool = False, note: str = ""
) -> Slot:
    """A row of what was published of the columns' pairs.

    Args:
        label: what it is called.
        method: as in ``Figure``; None of what is not verified for any pair.
        source: where several are known.
        own: whether it is the paper's own result, whose cells stay where they are empty.
        note: for a footnote.
    """

    def of_pair(setting: Setting) -> Figure | None:
        if method is None or setting.teacher is None:
            return None
        return figure(setting.dataset, setting.teacher, setting.student, method, source)

    return Slot((label,), published=of_pair, optional=not own, note=note)
