"""The sections as a reader sees them: in Chromium, on a phone and a desk, light and dark; with hostile names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.analysis.test_report_in_browser import COLOURS, MEASURES, OVERLAPS, contrast, quiet
from wsl_sweep.analysis.leftovers import Logits, SampleMasks
from wsl_sweep.analysis.plots import looks_of
from wsl_sweep.analysis.report import render_diagnosis
from wsl_sweep.analysis.report_sections import Section
from wsl_sweep.analysis.report_why import (
    Classes,
    Searched,
    claim_section,
    replay_section,
    resemblances_section,
    sensitivity_section,
    who_of,
    who_section,
)
from wsl_sweep.analysis.report_why.regularization_claim import Sampled
from wsl_sweep.spec.distributions import Distribution

if TYPE_CHECKING:
    from tests.browser import OpenPage

pytest_plugins = ["tests.browser"]

SIZES = {"phone": (390, 844), "desk": (1280, 900)}
ARMS = ("wsl", "<img src=x onerror=alert(1)> with a name that is longer than any phone is wide", "kd")
LOOKS = looks_of(ARMS, "kd")
METRIC = "validation/accuracy"


def all_sections() -> list[Section]:
    """Each of them, full."""
    generator = np.random.default_rng(0)
    names = ("cat & dog", "<b>ship</b>", "a class with a name that nobody can read in one breath", *"defghij")
    labels = np.repeat(np.arange(10), 12)
    ids = np.arange(120)
    rows = []
    for arm in ARMS:
        seeds = {
            seed: SampleMasks(generator.random((30, 120)) < 0.3 + 0.05 * labels / 9, labels, ids) for seed in range(3)
        }
        rows.append(who_of(arm, seeds))
    student, teacher = (Logits(generator.normal(size=(120, 10)).astype(np.float32), labels, ids) for _ in range(2))
    space = {
        "distillation.alpha": Distribution("loguniform", low=0.1, high=10.0),
        "a.path.that.is.very.long.indeed.and.longer": Distribution("uniform", low=0.0, high=1.0),
    }
    searched = []
    for arm in ARMS:
        points = tuple(
            {path: float(one) for path, one in zip(space, generator.uniform(0.1, 1, 2), strict=True)} for _ in range(25)
        )
        values = tuple(0.9 - 0.1 * (point["distillation.alpha"] - 0.5) ** 2 for point in points)
        searched.append(Searched(arm, points, values, {}))
    curves = {arm: (generator.random((9, 12)) + np.arange(12)).tolist() for arm in ARMS}
    trials = [
        Sampled(f"t{i}", ARMS[i % 3], 4.0, *generator.random(2).tolist(), "search" if i % 2 else "confirm")
        for i in range(30)
    ]
    found = [
        replay_section(curves, METRIC, LOOKS, grace=1, reduction_factor=3, margin=0.05, stopped=3),
        who_section([row for row in rows if row is not None], Classes(names), LOOKS, left_out=2),
        claim_section(trials, LOOKS),
        resemblances_section(
            student, teacher, 4.0, Classes(names, ("<i>a</i>",) * 5 + ("b",) * 5), whose="it", seen=True
        ),
        sensitivity_section(space, searched, METRIC, 0.005, LOOKS),
    ]
    sections = [one for one in found if one is not None]
    assert len(sections) == len(found)
    return sections


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("why") / "why.html"
    path.write_text(render_diagnosis("why", all_sections()).html, encoding="utf-8")
    return path


@pytest.mark.parametrize("size", SIZES)
def test_the_sections_fit_their_window_and_no_text_lies_on_another(
    open_page: OpenPage, page_file: Path, size: str
) -> None:
    page = open_page(page_file, *SIZES[size])
    quiet(page, page_file)
    found = page.run(MEASURES)
    assert found["width"] <= found["view"] == SIZES[size][0]
    assert found["out"] == []
    for rows, columns, wrong in found["tables"]:
        assert rows > 0
        assert columns > 0
        assert wrong == 0
    assert page.run(OVERLAPS) == []


@pytest.mark.parametrize("dark", [False, True])
def test_all_text_can_be_read_in_light_and_dark(open_page: OpenPage, page_file: Path, dark: bool) -> None:
    page = open_page(page_file, 1280, 900, dark=dark)
    seen = page.run(COLOURS)
    assert {"svg text", "P.lead", "P.warning"} <= {what for what, _, _ in seen}
    assert [(what, text, ground) for what, text, ground in seen if contrast(text, ground) < 4.5] == []


def test_every_colour_of_a_picture_changes_with_the_page(page_file: Path) -> None:
    text = page_file.read_text(encoding="utf-8")
    pictures = [part.split("</svg>")[0] for part in text.split("<svg")[1:]]
    assert len(pictures) > 15
    for picture in pictures:
        for part in picture.split("fill: ")[1:] + picture.split("stroke: ")[1:]:
            assert part.startswith(("var(--plot-", "none")), part[:40]
