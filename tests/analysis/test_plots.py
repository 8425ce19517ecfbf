"""The pictures: what is where, that no text lies on another, and that nothing outside them is changed."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import matplotlib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle

from tests.analysis.report_samples import ARMS, HOSTILE, METRIC, REPORTS, ablation, hostile, one_seed, row, search
from wsl_sweep.analysis import plots
from wsl_sweep.analysis.plots.sheet import WIDTH, fence, log_ticks, thinned, tick_labels, ticks_between
from wsl_sweep.analysis.plots.style import COLOURS, fitted, measured, named, short, width_of
from wsl_sweep.analysis.report_data import (
    Coordinates,
    EarlyStopping,
    FanGroup,
    ImportanceGroup,
    LearningCurve,
    Report,
    ResponseCurve,
    ResponseGroup,
    ResponsePoint,
    Row,
)


def figures(report: Report) -> Iterator[Figure]:
    """All pictures of a report."""
    if report.rows:
        yield plots.forest(report.rows)
    if report.comparisons:
        yield plots.differences(report.comparisons, report.metric, report.margin)
    yield from (plots.response(curve) for curve in report.curves)
    if report.coordinates:
        yield plots.parallel_coordinates(report.coordinates)
    if report.importance:
        yield from (plots.importance(group) for group in report.importance.groups)
    yield from (plots.learning_curve(curve) for curve in report.learning_curves)
    if report.weights:
        yield from (plots.weight_fan(group) for group in report.weights.groups[:2])
    if report.early_stopping:
        yield plots.rank_correlation(report.early_stopping)


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(svg).iter() if element.tag.endswith("}text")]


def boxes(svg: str) -> list[tuple[str, float, float, float, float]]:
    """Each text with its left, top, right and bottom, as wide as ``width_of`` takes it to be."""
    found = []
    for element in ET.fromstring(svg).iter():
        if not element.tag.endswith("}text"):
            continue
        style = dict(part.split(": ") for part in element.get("style", "").split("; "))
        size, width = float(style["font-size"][:-2]), width_of(element.text or "", float(style["font-size"][:-2]))
        left = float(element.get("x", "")) - {"start": 0, "middle": width / 2, "end": width}[style["text-anchor"]]
        bottom = float(element.get("y", ""))
        found.append((element.text or "", left, bottom - 0.75 * size, left + width, bottom))
    return found


@pytest.mark.parametrize("name", REPORTS)
def test_no_text_lies_on_another_or_outside_the_picture(name: str) -> None:
    for figure in figures(REPORTS[name]()):
        found = boxes(plots.to_svg(figure, name))
        for text, left, _, right, _ in found:
            assert left >= -1, text
            assert right <= WIDTH + 1, text
        for one, other in itertools.combinations(found, 2):
            apart = one[3] <= other[1] or other[3] <= one[1] or one[4] <= other[2] or other[4] <= one[2]
            assert apart, (one, other)


def test_thirty_rows_keep_their_values_and_their_order() -> None:
    rows = ablation().rows
    found = texts(plots.to_svg(plots.forest(rows), "rows"))
    wanted = [measured(METRIC, one.mean) for one in rows if one.mean is not None]
    assert [text for text in found if text in wanted] == wanted
    assert "4 failed, 1 pruned" in found


def test_a_forest_has_each_mean_and_interval_at_its_place() -> None:
    rows = search().rows
    (axes,) = [axes for axes in plots.forest(rows).axes if axes.get_xlim()[1] < 2]
    drawn = {tuple(round(float(x), 9) for x in line.get_xdata()) for line in axes.lines}
    for one in rows:
        assert one.mean is not None
        assert one.interval is not None
        assert one.wide_interval is not None
        assert {(round(one.mean, 9),), tuple(round(x, 9) for x in one.interval)} <= drawn
        assert tuple(round(x, 9) for x in one.wide_interval) in drawn
    baseline = next(one.mean for one in rows if one.is_baseline)
    assert baseline is not None
    assert (round(baseline, 9),) * 2 in drawn  # the line that all rows are held against


def test_the_margin_is_shaded() -> None:
    figure = plots.differences(search().comparisons, METRIC, 0.005)
    shaded = [p for axes in figure.axes for p in axes.patches if isinstance(p, Rectangle) and p.get_x() == -0.005]
    assert [patch.get_width() for patch in shaded] == [0.01]
    assert not [
        p for axes in plots.differences(search().comparisons, METRIC).axes for p in axes.patches if p.get_x() < 0
    ]


def test_a_huge_interval_of_two_seeds_does_not_flatten_the_others() -> None:
    rows = [row(f"arm {i}", 0.9 + 0.01 * i) for i in range(4)] + [replace(row("two seeds", 0.92), interval=(-3.0, 5.0))]
    low, high = plots.forest(rows).axes[-1].get_xlim()
    assert low < 0.9
    assert 0.93 < high < 1.2


def test_a_band_and_its_points_are_drawn_where_they_are() -> None:
    curve = search().curves[0]
    axes = plots.response(curve).axes[-1]
    assert axes.get_xscale() == "log"
    bands = [patch.get_xy() for patch in axes.patches if isinstance(patch, Polygon)]
    for group in curve.groups:
        assert group.band is not None
        corner = (group.band.xs[0], group.band.low[0])
        assert any(tuple(map(float, xy[0])) == corner for xy in bands)
    drawn = {
        (float(x), float(y)) for line in axes.lines for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)
    }
    low, high = axes.get_ylim()
    inside = {(p.x, p.y) for group in curve.groups for p in group.points if low <= p.y <= high}
    assert inside <= drawn
    outside = [p for group in curve.groups for p in group.points if not low <= p.y <= high]
    assert [p.y for p in outside] == [0.31]  # a trial that failed to learn: an arrow head, and said
    assert "1 outside the picture" in texts(plots.to_svg(plots.response(curve), "curve"))


def test_the_best_tenth_stands_out() -> None:
    coordinates = search().coordinates
    assert coordinates is not None
    best = plots.best_tenth(coordinates)
    metrics = sorted((line.metric for line in coordinates.lines), reverse=True)
    assert [line.metric for line in best] == metrics[:6]
    (faint,) = [
        c for c in plots.parallel_coordinates(coordinates).axes[-1].collections if isinstance(c, LineCollection)
    ]
    assert len(faint.get_paths()) == len(metrics) - 6
    worst = plots.best_tenth(replace(coordinates, higher_is_better=False))
    assert worst[0].metric == metrics[-1]


def test_of_thousands_of_trials_some_are_drawn() -> None:
    report = search(trials=5000)
    assert report.coordinates is not None
    assert len(plots.to_svg(plots.parallel_coordinates(report.coordinates), "5,000")) < 200_000
    assert all(len(plots.to_svg(plots.response(curve), curve.parameter)) < 100_000 for curve in report.curves)


def test_groups_without_a_colour_are_grey_and_counted() -> None:
    curve = ablation().learning_curves[0]
    assert "23 others" in texts(plots.to_svg(plots.learning_curve(curve), "curves"))


def test_a_label_looks_the_same_everywhere_and_the_baseline_is_slate() -> None:
    looks = plots.looks_of([*ARMS, ARMS[0], *map(str, range(9))], baseline="kd")
    assert looks["kd"].role == "baseline"
    coloured = [look for look in looks.values() if look.role.startswith("series")]
    assert len({look.role for look in coloured}) == len({look.marker for look in coloured}) == len(coloured) == 7
    assert looks["8"].role == "other"


def test_parameters_are_written_as_in_the_paper() -> None:
    assert named("distillation.alpha") == "α"
    assert named("distillation.temperature") == "τ"
    assert named("distillation.weighting.kind") == "weighting.kind"
    assert named("optimizer.lr") == "optimizer.lr"
    found = texts(plots.to_svg(plots.parallel_coordinates(search().coordinates or Coordinates("", (), ())), "all"))
    assert {"α", "τ", "weighting.kind", "optimizer.lr"} <= set(found)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (2.0, "2"), (0.05, "0.05"), (0.0005, "0.0005"), (2.5e-6, "2.5e−6"), (12000.0, "12000"),
     (-0.25, "−0.25"), (2.31251, "2.313"), (1e6, "1e6")],
)  # fmt: skip
def test_numbers_are_short(value: float, text: str) -> None:
    assert short(value) == text


def test_metrics_have_their_digits() -> None:
    assert measured("test/accuracy", 0.93) == "0.9300"
    assert measured("test/accuracy", -0.00001, sign=True) == "0.0000"
    assert measured("test/accuracy", 0.0124, sign=True) == "+0.0124"
    assert measured("test/loss", 1.23456) == "1.235"
    assert measured("test/loss", None) == "–"


def test_ticks_are_round() -> None:
    assert ticks_between(0.903, 0.947) == pytest.approx([0.91, 0.92, 0.93, 0.94])
    assert tick_labels([0.0, 0.25, 0.5]) == ["0.00", "0.25", "0.50"]
    assert tick_labels([-0.01, 0.0, 0.01]) == ["−0.01", "0.00", "0.01"]
    assert log_ticks(0.25, 8) == [0.25, 0.5, 1, 2, 4, 8]
    assert log_ticks(1e-5, 1e-1) == pytest.approx([1e-5, 1e-4, 1e-3, 1e-2, 1e-1])


@given(st.floats(1e-8, 1e6), st.floats(1.0001, 1e8))
def test_a_logarithmic_axis_has_a_few_ticks_within_it(low: float, ratio: float) -> None:
    ticks = log_ticks(low, low * ratio)
    assert len(ticks) <= 8
    assert all(low * 0.99 <= tick <= low * ratio * 1.01 for tick in ticks)


def test_few_values_are_never_left_out() -> None:
    assert fence([0.1, 0.9, 0.91]) == (0.1, 0.91)
    assert fence([0.1, *(0.9 + 0.001 * i for i in range(20))]) == pytest.approx((0.9, 0.919))
    assert fence([0.5] * 20 + [0.9]) == (0.5, 0.9)


@given(st.integers(0, 2000), st.integers(2, 300))
def test_thinning_keeps_the_ends(count: int, most: int) -> None:
    chosen = thinned(count, most)
    assert len(chosen) <= most
    assert len(chosen) == min(count, most)
    assert count == 0 or (chosen[0], chosen[-1]) == (0, count - 1)


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=80), st.floats(20, 300))
def test_a_fitted_text_fits(text: str, width: float) -> None:
    assert width_of(fitted(text, width, 12), 12) <= max(width, 12)


def test_a_long_name_keeps_its_two_ends() -> None:
    text = fitted("a_kd keep.regularization=0.25 keep.other=1 temperature=4", 200, 12)
    assert text.startswith("a_kd keep")
    assert text.endswith("temperature=4")
    assert "…" in text


def test_hostile_names_are_text() -> None:
    found = texts(plots.to_svg(plots.forest(hostile().rows), HOSTILE[0]))
    assert HOSTILE[0] in found
    assert HOSTILE[2] in found  # neither mathematics nor hidden


finite = st.floats(-1e6, 1e6).map(lambda x: round(x, 6))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(finite, st.none() | st.tuples(finite, finite).map(lambda e: (min(e), max(e)))), max_size=12))
def test_any_rows_can_be_drawn(values: list[tuple[float, tuple[float, float] | None]]) -> None:
    rows = [Row(str(i), "loss", mean=mean, interval=ends, is_baseline=i == 0) for i, (mean, ends) in enumerate(values)]
    low, high = plots.forest(rows).axes[-1].get_xlim()
    assert low < high


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.floats(1e-6, 1e6), finite), max_size=12), st.booleans())
def test_any_trials_can_be_drawn(values: list[tuple[float, float]], log: bool) -> None:
    group = ResponseGroup("a", tuple(ResponsePoint(x, y) for x, y in values))
    axes = plots.response(ResponseCurve("optimizer.lr", "loss", (group,), log=log)).axes[-1]
    assert axes.get_xlim()[0] < axes.get_xlim()[1]
    assert axes.get_ylim()[0] < axes.get_ylim()[1]


def test_nothing_can_be_drawn() -> None:
    empty = [
        plots.forest([]),
        plots.differences([], METRIC),
        plots.response(ResponseCurve("a", "b", ())),
        plots.response(ResponseCurve("a", "b", (ResponseGroup("g", ()),), categories=("x",))),
        plots.parallel_coordinates(Coordinates("a", (), ())),
        plots.importance(ImportanceGroup("a", (), 0)),
        plots.learning_curve(LearningCurve("a", ())),
        plots.weight_fan(FanGroup("a", (), (), (), (), (), (), ())),
        plots.rank_correlation(EarlyStopping("none")),
    ]
    for figure in empty:
        assert plots.to_svg(figure, "empty").startswith("<svg")


def test_an_svg_needs_nothing_but_itself() -> None:
    svg = plots.to_svg(plots.forest(search().rows), "a & b <c>")
    root = ET.fromstring(svg)
    assert root.get("role") == "img"
    assert root[0].tag.endswith("title")
    assert root[0].text == "a & b <c>"
    assert root.get("aria-labelledby") == root[0].get("id")
    assert re.findall(r"https?://[^\"]*", svg) == ["http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"]
    for mark in ("<!DOCTYPE", "<?xml", "<metadata", "<style", "date"):
        assert mark not in svg


def test_every_colour_is_a_variable_with_its_light_value() -> None:
    for figure in figures(search()):
        svg = plots.to_svg(figure, "colours")
        variables = re.findall(r"var\(--plot-([\w-]+), (#[0-9a-f]{6})\)", svg)
        assert len(variables) == len(re.findall(r"#[0-9a-f]{6}\b(?!\w*\")", svg.replace("url(#", "")))
        assert all(COLOURS[role][0] == colour for role, colour in variables)


def test_ids_are_a_picture_s_own_and_all_are_used() -> None:
    report = search()
    one, other = (plots.to_svg(plots.learning_curve(curve), curve.metric) for curve in report.learning_curves[:2])
    first, second = (set(re.findall(r' id="([^"]+)"', svg)) for svg in (one, other))
    assert first
    assert not first & second
    for svg, ids in ((one, first), (other, second)):
        used = {
            name
            for names in re.findall(r"url\(#([^)]+)\)|href=\"#([^\"]+)\"|labelledby=\"([^\"]+)\"", svg)
            for name in names
        }
        assert used - {""} == ids


def test_the_same_picture_has_the_same_bytes_in_any_thread() -> None:
    def drawn(_: int) -> list[str]:
        return [plots.to_svg(figure, "same") for figure in itertools.islice(figures(one_seed()), 2)]

    alone = drawn(0)
    before = dict(matplotlib.rcParams)
    with ThreadPoolExecutor(4) as pool:
        assert all(found == alone for found in pool.map(drawn, range(4)))
    assert dict(matplotlib.rcParams) == before


def test_a_users_style_does_not_show() -> None:
    plain = plots.to_svg(plots.learning_curve(search().learning_curves[0]), "style")
    changed = {"axes.grid": True, "lines.linewidth": 7, "font.size": 30, "text.usetex": True, "axes.facecolor": "black",
               "figure.facecolor": "red", "xtick.major.size": 12, "savefig.bbox": "tight", "axes.spines.top": True,
               "savefig.facecolor": "blue", "xtick.minor.visible": True, "figure.autolayout": True}  # fmt: skip
    with matplotlib.rc_context(changed):
        assert plots.to_svg(plots.learning_curve(search().learning_curves[0]), "style") == plain


def test_pyplot_is_never_imported() -> None:
    code = (
        "import sys; from wsl_sweep.analysis import plots; from tests.analysis.report_samples import search\n"
        "plots.to_svg(plots.forest(search().rows), 'a'); print('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_the_package_can_be_imported_without_matplotlib() -> None:
    code = "import sys, wsl_sweep.cli, wsl_sweep.analysis; print('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def luminance(colour: str) -> float:
    return sum(share * x for share, x in zip((0.2126, 0.7152, 0.0722), linear(colour), strict=True))


def linear(colour: str) -> list[float]:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]


def contrast(one: str, other: str) -> float:
    dark, bright = sorted((luminance(one), luminance(other)))
    return (bright + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", [0, 1])
def test_colours_stand_out_from_the_paper(theme: int) -> None:
    assert len({pair[0] for pair in COLOURS.values()}) == len(COLOURS)
    paper, shade = COLOURS["paper"][theme], COLOURS["shade"][theme]
    for role in ("ink", "muted", "better", "worse", "equivalent", "inconclusive"):
        assert min(contrast(COLOURS[role][theme], ground) for ground in (paper, shade)) >= 4.5, role
    for role in COLOURS:
        if role.startswith("series") or role == "baseline":
            assert contrast(COLOURS[role][theme], paper) >= 3, role


VISION = {
    "usual": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
}
"""Machado, Oliveira and Fernandes 2009: what linear RGB is seen as."""


def oklab(rgb: list[float]) -> list[float]:
    """Björn Ottosson's OKLab of linear RGB: distances in it are about those that are seen."""
    r, g, b = (min(1.0, max(0.0, x)) for x in rgb)
    long = (0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b) ** (1 / 3)
    middle = (0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b) ** (1 / 3)
    small = (0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b) ** (1 / 3)
    return [
        0.2104542553 * long + 0.7936177850 * middle - 0.0040720468 * small,
        1.9779984951 * long - 2.4285922050 * middle + 0.4505937099 * small,
        0.0259040371 * long + 0.7827717662 * middle - 0.8086757660 * small,
    ]


@pytest.mark.parametrize("theme", [0, 1])
@pytest.mark.parametrize("vision", VISION)
def test_series_are_told_apart_by_all_eyes(theme: int, vision: str) -> None:
    def seen(role: str) -> list[float]:
        rgb = linear(COLOURS[role][theme])
        return oklab([sum(m * x for m, x in zip(line, rgb, strict=True)) for line in VISION[vision]])

    roles = ["baseline", *(f"series-{i}" for i in range(1, 8))]
    for one, other in itertools.combinations(roles, 2):
        distance = sum((a - b) ** 2 for a, b in zip(seen(one), seen(other), strict=True)) ** 0.5
        assert distance > (0.12 if vision == "usual" else 0.065), (one, other)
