"""The page as text: what it says, in which order, and that nothing that a user named is markup."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from tests.analysis.report_samples import ARMS, HOSTILE, REPORTS, empty, one_seed, rendered, search
from wsl_sweep.analysis.plots.style import printable
from wsl_sweep.analysis.report import render_report
from wsl_sweep.analysis.report_data import Named, Report

VOID = {"meta", "link", "br", "wbr", "img", "input", "hr"}


class Reader(HTMLParser):
    """Text, elements with their attributes, and tables as rows of text."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.pieces: list[str] = []
        self.scripts: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.feed(page)
        self.close()
        assert self.open == [], "every element is closed"
        self.text = " ".join("".join(self.pieces).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in VOID:
            return
        self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "script" in self.open:
            self.scripts.append(data)
        elif "style" not in self.open:
            self.pieces.append(data if "small" not in self.open else f" {data} ")
            if self.open and ("td" in self.open or "th" in self.open):
                self.tables[-1][-1][-1] += self.pieces[-1]

    def table(self, heading: str) -> list[list[str]]:
        """The first table whose first column has that heading."""
        return next(table for table in self.tables if table[0][0].startswith(heading))

    @property
    def headings(self) -> list[str]:
        """Ids of the sections."""
        return [str(attributes["id"]) for tag, attributes in self.elements if tag == "section" and "id" in attributes]


def flat(text: str) -> str:
    return " ".join(printable(text).split())


@pytest.mark.parametrize("name", REPORTS)
def test_every_page_is_whole_and_of_a_size_to_send(name: str) -> None:
    page = rendered(name)
    assert page.startswith("<!doctype html>")
    Reader(page)
    assert len(page.encode()) < 1_000_000


def test_the_same_report_gives_the_same_page() -> None:
    assert render_report(one_seed()) == rendered("one_seed")


def test_the_verdict_comes_first_and_all_parts_follow() -> None:
    report = search()
    page = Reader(rendered("search"))
    assert page.headings == [
        "verdict", "table", "curves", "coordinates", "importance", "learning", "regularization", "weights", "stopping",
        "failures", "costs", "reproduce", "notes",
    ]  # fmt: skip
    links = [attributes["href"] for tag, attributes in page.elements if tag == "a"]
    assert links == [f"#{heading}" for heading in page.headings]
    assert report.importance is not None
    assert report.early_stopping is not None
    wanted = [report.question, report.verdicts[0].sentence, report.verdicts[1].sentence, *report.cautions]
    wanted += [
        report.importance.warning,
        report.early_stopping.sentence,
        "930 of 2,400 (39 %)",
        report.failures[0].error,
    ]
    wanted += [
        report.costs[2].value,
        "wsl-sweep run search_spaces/joint.yaml",
        report.reproduction[1].value,
        report.notes[0],
    ]
    places = [page.text.index(flat(text)) for text in wanted]
    assert places == sorted(places)


def test_the_comparison_table_has_every_number() -> None:
    report = search()
    page = Reader(rendered("search"))
    rows = page.table("arm or variant")
    assert len(rows) == 1 + len(report.rows)
    for one, cells in zip(report.rows, rows[1:], strict=True):
        assert one.mean is not None
        assert one.interval is not None
        assert one.wide_interval is not None
        assert one.sd is not None
        assert cells[0].startswith(one.label)
        assert f"{one.mean:.4f}" in cells[1]
        assert f"{one.interval[0]:.4f} to {one.interval[1]:.4f}" in cells[1]
        assert cells[2] == f"{one.wide_interval[0]:.4f} to {one.wide_interval[1]:.4f}"
        assert cells[3:5] == [f"{one.sd:.4f}", "3"]
    assert "baseline" in rows[3][0]
    assert "α = 2.312, τ = 4.2" in rows[1][0]
    assert rows[2][5] == "1 failed"
    assert [cells[6] for cells in rows[1:]] == ["20 trials", "20 trials", "not tuned", "not tuned"]
    seeds = next(table for table in page.tables if table[0][1] == "seed 1000")
    assert seeds[1][1:] == [f"{value:.4f}" for _, value in report.rows[0].values]


def test_a_comparison_has_all_its_numbers_and_says_what_weakens_it() -> None:
    rows = Reader(rendered("search")).table("against kd")
    first = [" ".join(cell.split()) for cell in rows[1]]
    assert first == [
        "wslbetter the baseline was tuned with fewer trials", "+0.0124 +0.0064 to +0.0184", "0.012", "0.025",
        "0.910 0.620 to 0.980", "0.310", "3 paired",
    ]  # fmt: skip
    assert "one seed failed" in rows[2][0]


def test_each_picture_has_its_numbers_and_its_buttons() -> None:
    page = rendered("search")
    figures = re.findall(r"<figure .*?</figure>", page, re.S)
    assert len(figures) == 15
    for figure in figures:
        assert figure.count("<svg") == figure.count("<table>") == figure.count('data-save="svg"') == 1
        assert figure.count('data-save="png"') == 1
        assert len(Reader(figure).tables[0]) > 1
    names = re.findall(r'<figure data-name="([^"]+)"', page)
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z0-9-]+", name) for name in names)
    assert "validation-accuracy-by-alpha" in names


def test_ids_are_unique_in_a_page() -> None:
    ids = [attributes["id"] for _, attributes in Reader(rendered("search")).elements if "id" in attributes]
    assert len(ids) == len(set(ids)) > 30


def test_what_is_empty_is_left_out_or_explained() -> None:
    page = Reader(rendered("empty"))
    assert page.headings == ["verdict"]
    assert "no verdict Nothing has been compared." in page.text
    page = Reader(rendered("one_seed"))
    assert page.headings == ["verdict", "table", "importance", "learning"]
    assert "Importance needs two finished trials." in page.text
    assert "One seed: no interval, no verdict." in page.text
    assert "interval" not in page.table("arm or variant")[0][1]


def test_a_gap_stands_for_a_verdict() -> None:
    page = Reader(render_report(Report("x", gaps=(("verdict", "Nothing has finished yet."),))))
    assert "Nothing has finished yet." in page.text


def test_what_a_user_named_is_text() -> None:
    source = rendered("hostile")
    page = Reader(source)
    tags = {tag for tag, _ in page.elements}
    assert "img" not in tags
    assert [tag for tag, _ in page.elements].count("script") == 1
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    for name in HOSTILE:
        assert flat(name) in page.text
    assert "{{ 7 * 7 }}" in page.text
    assert "\x00" not in source
    assert "\u202e" not in source
    source.encode()


def test_the_policy_forbids_every_host_and_every_other_script() -> None:
    page = Reader(rendered("hostile"))
    (policy,) = [a["content"] for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    digest = base64.b64encode(hashlib.sha256("".join(page.scripts).encode()).digest()).decode()
    assert rules == {
        "default-src": "'none'", "script-src": f"'sha256-{digest}'", "style-src": "'unsafe-inline'",
        "img-src": "data: blob:", "base-uri": "'none'", "form-action": "'none'",
    }  # fmt: skip


@pytest.mark.parametrize("name", REPORTS)
def test_nothing_is_fetched(name: str) -> None:
    source = rendered(name)
    page = Reader(source)
    for tag, attributes in page.elements:
        for attribute in ("src", "href", "xlink:href", "action", "srcset", "data", "poster"):
            value = attributes.get(attribute)
            assert value is None or value.startswith("#") or (tag, value) == ("link", "data:,")
    (style,) = re.findall(r"<style>(.*?)</style>", source, re.S)
    assert "@import" not in style
    assert "url(" not in style


def test_light_and_dark_are_both_there() -> None:
    source = rendered("empty")
    assert "@media (prefers-color-scheme: dark){:root:not([data-theme=light])" in source
    assert ":root[data-theme=dark]" in source
    assert "@media print" in source


def test_a_long_table_says_what_it_leaves_out() -> None:
    page = Reader(render_report(search(trials=900, epochs=240)))
    assert "The best 200 of 900." in page.text
    assert "of 240 epochs." in page.text
    assert "of 909 trials are drawn." in page.text


def test_a_path_can_be_broken_but_not_a_number() -> None:
    source = rendered("search")
    assert "validation/<wbr>accuracy" in source
    assert not re.search(r"\d[.]<wbr>\d", source)
    assert ARMS[1] in source


def test_costs_are_as_they_were_given() -> None:
    report = replace(empty(), costs=(Named("time", "2 h 05 min"),))
    assert "What it cost time2 h 05 min" in Reader(render_report(report)).text
