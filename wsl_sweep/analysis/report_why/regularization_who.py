"""Who the regularization samples are (WSL §3.2, Tab. 1, Fig. 2): how many, of which classes, and whether the same."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from wsl_sweep.analysis import plots
from wsl_sweep.analysis import report_picture_tables as behind
from wsl_sweep.analysis.curves import curve_group
from wsl_sweep.analysis.diagnostics.arrays import Floats
from wsl_sweep.analysis.diagnostics.regularization import Overlap, SeedOverlap, between_seeds, counts, overlap
from wsl_sweep.analysis.plots.shares import Bar, Bin
from wsl_sweep.analysis.plots.sheet import thinned
from wsl_sweep.analysis.plots.style import Look, Looks
from wsl_sweep.analysis.report_data import CurveGroup, LearningCurve
from wsl_sweep.analysis.report_pictures import Picture, picture
from wsl_sweep.analysis.report_sections import Captioned, Section
from wsl_sweep.analysis.report_tables import Cell, Table
from wsl_sweep.analysis.report_why.material import Classes, percent, spread

if TYPE_CHECKING:
    from wsl_sweep.analysis.leftovers import SampleMasks

MOST_ROWS = 8
"""Rows of the final table that are looked at."""

MOST_EPOCHS, FEWEST_EPOCHS, EXAMPLES = 40, 8, 8_000_000
"""Epochs at which sets are held against each other: fewer of a large data set, about so many examples in all."""

MOST_DETAILS = 4
"""Rows of which classes and histograms are drawn."""

BARS = 20
"""Classes that are drawn: of more the highest and the lowest."""

BINS = 16

COUNT = "regularization samples"


@dataclass(frozen=True)
class SetStability:
    """How far sets are the same at an epoch, a mean over seeds or pairs of seeds that have one.

    Attributes:
        epoch: from 1.
        stability: 0 at chance, 1 at the most that their sizes allow.
        jaccard, chance: Jaccard's index, and what chance gives.
    """

    epoch: int
    stability: float
    jaccard: float
    chance: float


@dataclass(frozen=True, eq=False)
class Who:
    """The regularization samples of a row of the final table: E epochs, C classes, S seeds.

    Attributes:
        label: of the row.
        seeds: S, of those that were told apart.
        examples: N, of each seed.
        by_epoch: (S, E), how many there were.
        classes: (C,), the share of each class's examples and epochs, in [0, 1], a mean over seeds; NaN where it has
            no example.
        times: (E + 1,), the share of examples that were one at so many epochs, a mean over seeds.
        expected: (E + 1,), what it were if each epoch drew its number afresh.
        epochs_apart: against the epoch before.
        seeds_apart: between seeds; none where they were trained on different examples.
        note: what has to be known of it.
    """

    label: str
    seeds: int
    examples: int
    by_epoch: Floats
    classes: Floats
    times: Floats
    expected: Floats
    epochs_apart: tuple[SetStability, ...]
    seeds_apart: tuple[SetStability, ...]
    note: str = ""

    @property
    def share(self) -> float:
        """Of all examples and epochs."""
        return float(self.by_epoch.mean() / self.examples)


def who_of(label: str, by_seed: Mapping[int, SampleMasks], seeds: int | None = None) -> Who | None:
    """What the masks of a row's seeds say.

    Args:
        label: of the row.
        by_seed: of each seed its masks.
        seeds: how many have finished; as many as have masks by default.

    Returns:
        None where no seed has masks that fit together.
    """
    sound = {seed: one for seed, one in by_seed.items() if _sound(one)}
    if not sound:
        return None
    shapes = [one.masks.shape for one in sound.values()]
    usual = max(shapes, key=shapes.count)
    used = [one for one in sound.values() if one.masks.shape == usual]
    epochs, examples = usual
    count = 1 + max(int(one.labels.max()) for one in used)
    told = [counts(one.masks, one.labels, count) for one in used]
    chosen = thinned(epochs, max(FEWEST_EPOCHS, min(MOST_EPOCHS, EXAMPLES // examples)))
    same = all(np.array_equal(one.ids, used[0].ids) for one in used)
    notes = []
    finished = len(by_seed) if seeds is None else seeds
    if len(used) < finished:
        why = "kept no masks" if len(sound) == len(used) else "kept none, or were trained on another number of examples"
        notes.append(f"Of {label} {len(used)} of {finished} seeds are told of: the others {why}.")
    if not same:
        notes.append(f"The seeds of {label} were trained on different examples, so they are not held together.")
    with np.errstate(invalid="ignore"):
        shares = np.stack([one.share_of_class for one in told])
        seen = np.isfinite(shares).any(axis=0)
        by_class = np.full(count, np.nan)
        by_class[seen] = np.nanmean(shares[:, seen], axis=0)
    return Who(
        label=label,
        seeds=len(used),
        examples=examples,
        by_epoch=np.stack([one.by_epoch for one in told]).astype(np.float64),
        classes=by_class,
        times=np.mean([one.times for one in told], axis=0) / examples,
        expected=np.mean([one.expected_times for one in told], axis=0) / examples,
        epochs_apart=tuple(_between_epochs(used, chosen)),
        seeds_apart=tuple(_between_seeds(used, chosen)) if same and len(used) > 1 else (),
        note=" ".join(notes),
    )


def _sound(one: SampleMasks) -> bool:
    """Whether the arrays fit each other, as those of a file that was written whole do."""
    fits = one.masks.dtype == np.bool_ and one.masks.ndim == 2 and 0 not in one.masks.shape
    return bool(fits and one.labels.shape == one.ids.shape == one.masks.shape[1:] and one.labels.min() >= 0)


def _between_epochs(used: Sequence[SampleMasks], chosen: Sequence[int]) -> list[SetStability]:
    found = []
    for epoch in chosen:
        if epoch > 0:
            pairs = [overlap(one.masks[epoch - 1], one.masks[epoch]) for one in used]
            found += _stability(epoch + 1, pairs)
    return found


def _between_seeds(used: Sequence[SampleMasks], chosen: Sequence[int]) -> list[SetStability]:
    told: tuple[SeedOverlap, ...] = between_seeds(np.stack([one.masks[list(chosen)] for one in used]))
    return [mean for epoch, one in zip(chosen, told, strict=True) for mean in _stability(epoch + 1, one.pairs)]


def _stability(epoch: int, pairs: Sequence[Overlap]) -> list[SetStability]:
    """The mean over pairs that have a stability; nothing where none has."""
    there = [one for one in pairs if one.stability is not None]
    if not there:
        return []
    means = [
        math.fsum(value for one in there if (value := getattr(one, name)) is not None) / len(there)
        for name in ("stability", "jaccard", "chance")
    ]
    return [SetStability(epoch, *means)]


def who_section(rows: Sequence[Who], classes: Classes, looks: Looks, left_out: int = 0) -> Section | None:
    """Who the regularization samples of some rows of the final table are.

    Args:
        rows: of ``who_of``.
        classes: names.
        looks: of the rows' labels.
        left_out: rows with masks beyond MOST_ROWS.

    Returns:
        None without a row.
    """
    if not rows:
        return None
    known, count = _looks(rows, looks), max(len(row.classes) for row in rows)
    names = classes.names if len(classes.names) >= count else tuple(map(str, range(count)))
    pictures = [_counted(rows, known)]
    for what, title in (("epochs_apart", "The same as an epoch before"), ("seeds_apart", "The same under other seeds")):
        lines = [(row, getattr(row, what)) for row in rows if getattr(row, what)]
        if lines:
            pictures.append(_stable(title, lines, known))
    detailed = [row for row in rows if row.share > 0][:MOST_DETAILS]
    for row in detailed:
        pictures += [_by_class(row, names, known[row.label]), _how_often(row, known[row.label])]
    notes = [
        "An example is a regularization sample at an epoch where |b| > |a| in the step in which it was shown (WSL "
        "§3.2). Shares, counts and histograms are means over seeds.",
        "Stability is Jaccard's index of two sets on a scale from chance (0: random sets of these sizes) to the most "
        "that their sizes allow (1: one holds the other). Chance in the histogram is each epoch drawing its number "
        "afresh.",
        *(row.note for row in rows if row.note),
    ]
    if left_out:
        notes.append(f"{len(rows)} of {len(rows) + left_out} rows are looked at, of each variant in its turn.")
    if len(detailed) < sum(row.share > 0 for row in rows):
        notes.append(f"Classes and histograms are drawn of {len(detailed)} rows; the tables have all.")
    return Section(
        key="regularization-who",
        title="Who the regularization samples are",
        answer=_answer(rows, names),
        tables=(Captioned("", _table(rows, names)), Captioned("by class", _class_table(rows, names), folded=True)),
        pictures=tuple(pictures),
        notes=tuple(notes),
    )


def _looks(rows: Sequence[Who], looks: Looks) -> Looks:
    """The page's own, where they tell the rows apart; else colours for these rows."""
    labels = [row.label for row in rows]
    found = {label: looks[label] for label in labels if label in looks and looks[label].role != "other"}
    baseline = next((label for label, look in found.items() if look.role == "baseline"), None)
    return found if len(found) == len(rows) else plots.looks_of(labels, baseline)


def _answer(rows: Sequence[Who], names: Sequence[str]) -> str:
    if all(row.share == 0 for row in rows):
        return "No training example was a regularization sample at any epoch."
    first, last = ([float(row.by_epoch[:, at].mean() / row.examples) for row in rows] for at in (0, -1))
    whose = f" of {rows[0].label}" if len(rows) == 1 else f", over {len(rows)} rows of the table,"
    told = f"{spread(first, percent)} of the training examples{whose} are regularization samples at the first epoch "
    told += f"and {spread(last, percent)} at the last."
    for what, against in (("epochs_apart", "From one epoch to the next"), ("seeds_apart", "From seed to seed")):
        means = [_mean(getattr(row, what)) for row in rows if getattr(row, what)]
        if means:
            more = (
                "more than chance" if min(means) > 0 else "no more than chance" if max(means) <= 0 else "here and there"
            )
            told += f" {against} they are the same {more} (stability {spread(means, '{:.2f}'.format)})."
    most = max((row for row in rows if row.share > 0), key=lambda row: float(np.nanmax(row.classes)))
    if np.isfinite(most.classes).sum() > 1:
        ends = int(np.nanargmax(most.classes)), int(np.nanargmin(most.classes))
        shares = [percent(most.classes[end]) for end in ends]
        told += " Class " if len(rows) == 1 else f" In {most.label} class "
        told += f"{names[ends[0]]} has the most ({shares[0]} of its examples and epochs), "
        told += f"{names[ends[1]]} the fewest ({shares[1]})."
    return told


def _mean(apart: Sequence[SetStability]) -> float:
    return math.fsum(one.stability for one in apart) / len(apart)


def _table(rows: Sequence[Who], names: Sequence[str]) -> Table:
    columns = ("first epoch", "last epoch", "never one", "stable, epochs", "stable, seeds")
    made = []
    for row in rows:
        at = [float(row.by_epoch[:, epoch].mean()) / row.examples for epoch in (0, -1)]
        by_chance = f"by chance {percent(row.expected[0])}"
        cells = [Cell(row.label, f"{row.examples:,} examples, seeds: {row.seeds}", row.label)]
        cells += [_share(value) for value in at]
        cells.append(Cell(percent(row.times[0]), by_chance, float(row.times[0])))
        cells += [_stability_cell(apart) for apart in (row.epochs_apart, row.seeds_apart)]
        ends = [int(pick(row.classes)) for pick in (np.nanargmax, np.nanargmin)]
        most, fewest = (f"{names[end]}, {percent(row.classes[end])}" for end in ends)
        made.append((*cells, Cell(most, fewest, names[ends[0]])))
    last = ("class: most, fewest", False)
    note = "Below stability: Jaccard's index as it was, and by chance."
    return Table((("arm or variant", False), *((name, True) for name in columns), last), tuple(made), note)


def _class_table(rows: Sequence[Who], names: Sequence[str]) -> Table:
    """The share of each class in each row."""
    made = []
    for place in range(max(len(row.classes) for row in rows)):
        shares = [float(row.classes[place]) if place < len(row.classes) else math.nan for row in rows]
        if any(map(math.isfinite, shares)):
            cells = [_share(share) if math.isfinite(share) else Cell("–") for share in shares]
            made.append((Cell(names[place], sort=names[place]), *cells))
    return Table((("class", False), *((row.label, True) for row in rows)), tuple(made))


def _share(value: float) -> Cell:
    return Cell(percent(value), sort=value)


def _stability_cell(apart: Sequence[SetStability]) -> Cell:
    if not apart:
        return Cell("–")
    jaccard, chance = (math.fsum(getattr(one, name) for one in apart) / len(apart) for name in ("jaccard", "chance"))
    return Cell(f"{_mean(apart):.2f}", f"{jaccard:.2f}, chance {chance:.2f}", _mean(apart))


def _counted(rows: Sequence[Who], looks: Looks) -> Picture:
    """How many there are by epoch."""
    groups = [curve_group(row.label, dict(enumerate(row.by_epoch.T.tolist(), start=1))) for row in rows]
    note = "Mean over seeds; the band is its 95 % t interval." if any(one.low for one in groups) else "One seed each."
    curve = LearningCurve(COUNT, tuple(groups), note)
    figure, table = plots.learning_curve(curve, looks), behind.learning_table(curve)
    return picture("Regularization samples, counted", figure, table, note)


def _stable(title: str, lines: Sequence[tuple[Who, Sequence[SetStability]]], looks: Looks) -> Picture:
    """Stability by epoch, against chance."""
    groups = [
        CurveGroup(row.label, tuple(one.epoch for one in apart), tuple(one.stability for one in apart), n=row.seeds)
        for row, apart in lines
    ]
    curve = LearningCurve("stability: 0 at chance, 1 the most possible", tuple(groups))
    columns = [("epoch", True), *((row.label, True) for row, _ in lines)]
    by_epoch = [{one.epoch: one for one in apart} for _, apart in lines]
    made = []
    for epoch in sorted({epoch for one in by_epoch for epoch in one}):
        there = [one.get(epoch) for one in by_epoch]
        made.append((Cell(str(epoch), sort=epoch), *(_stability_cell([one] if one else []) for one in there)))
    figure = plots.learning_curve(curve, looks, (0.0, "chance"))
    return picture(title, figure, Table(tuple(columns), tuple(made)))


def _by_class(row: Who, names: Sequence[str], look: Look) -> Picture:
    """The share of each class, the highest first; of many classes both ends."""
    there = np.flatnonzero(np.isfinite(row.classes))
    order = there[np.argsort(-row.classes[there], kind="stable")].tolist()
    half = BARS // 2
    shown = order if len(order) <= BARS else [*order[:half], *order[-half:]]
    bars = [
        Bar(names[place], float(row.classes[place]), after_gap=len(order) > BARS and index == half)
        for index, place in enumerate(shown)
    ]
    note = "Of each class's examples and epochs."
    if len(order) > BARS:
        note += f" The {half} highest and the {half} lowest of {len(order)} classes are drawn."
    made = tuple((Cell(names[place], sort=names[place]), _share(float(row.classes[place]))) for place in order)
    figure = plots.class_shares(bars, row.share, look)
    return picture(f"Classes, {row.label}", figure, Table((("class", False), ("share", True)), made), note)


def _how_often(row: Who, look: Look) -> Picture:
    """How many examples are one how often, against chance."""
    width = -(-len(row.times) // BINS)
    bins = [
        Bin(low, min(low + width, len(row.times)) - 1, *(float(line[low : low + width].sum()) for line in lines))
        for lines in [(row.times, row.expected)]
        for low in range(0, len(row.times), width)
    ]
    made = tuple(
        (
            Cell(str(one.low) if one.low == one.high else f"{one.low} to {one.high}", sort=one.low),
            _share(one.share),
            _share(one.expected),
        )
        for one in bins
    )
    columns = (("epochs at which it is one", True), ("examples", True), ("by chance", True))
    name = f"epochs at which an example is one, of {len(row.times) - 1}"
    return picture(f"How often an example is one, {row.label}", plots.how_often(bins, name, look), Table(columns, made))
