"""The page as a reader sees it: in Chromium, on a phone, a tablet and a desk, light and dark."""

from __future__ import annotations

import re
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.analysis.report_samples import HOSTILE, REPORTS, rendered, search

if TYPE_CHECKING:
    from tests.browser import OpenPage, Page

pytest_plugins = ["tests.browser"]

SIZES = {"phone": (360, 740), "tablet": (820, 1180), "desk": (1440, 900)}

MEASURES = """
const view = document.documentElement.clientWidth;
const out = [];
for (const one of document.querySelectorAll("h1, h2, h3, p, li, dt, dd, summary, button, .badge")) {
  if (!one.checkVisibility() || one.closest(".scroll, nav")) continue;
  const box = one.getBoundingClientRect();
  if (box.left < 0 || box.right > view + 0.5) out.push(one.textContent.slice(0, 60));
}
const tables = [...document.querySelectorAll("table")].map((table) => {
  const columns = table.tHead.rows[0].cells.length;
  const rows = [...table.tBodies[0].rows];
  const whole = (row) => row.cells.length === columns;
  const said = (row) => [...row.cells].filter((c) => c.textContent.trim()).length > 1;
  return [rows.length, columns, rows.filter((row) => !whole(row) || !said(row)).length];
});
const widths = [...document.querySelectorAll("figure svg")].map((svg) => svg.getBoundingClientRect().width);
return {width: document.documentElement.scrollWidth, view, out, tables, narrowest: Math.min(...widths, 9999)};
"""
OVERLAPS = """
const crossed = [];
for (const svg of document.querySelectorAll("figure svg")) {
  const frame = svg.getBoundingClientRect();
  const texts = [...svg.querySelectorAll("text")].map((t) => [t.textContent, t.getBoundingClientRect()]);
  texts.forEach(([name, a], i) => {
    if (a.left < frame.left - 1 || a.right > frame.right + 1) crossed.push([name, "outside"]);
    for (const [other, b] of texts.slice(i + 1)) {
      const x = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const y = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      if (x > 1 && y > 0.35 * Math.min(a.height, b.height)) crossed.push([name, other]);
    }
  });
}
return crossed;
"""
COLOURS = """
const seen = [];
const ground = (element) => {
  for (let e = element; e; e = e.parentElement) {
    const colour = getComputedStyle(e).backgroundColor;
    if (!/^rgba\\(.*, 0\\)$/.test(colour)) return colour;
  }
  return "rgb(255, 255, 255)";
};
const all = "h1, h2, h3, p, li, th, td, dt, dd, small, summary, button, .badge, .note, .mark, code, nav a";
for (const e of document.querySelectorAll(all)) {
  if (!e.checkVisibility() || !e.textContent.trim()) continue;
  seen.push([e.tagName + "." + e.className, getComputedStyle(e).color, ground(e)]);
}
for (const e of document.querySelectorAll("figure svg text")) {
  seen.push(["svg text", getComputedStyle(e).fill, ground(e)]);
}
return [...new Set(seen.map((s) => JSON.stringify(s)))].map((s) => JSON.parse(s));
"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each sample as a file."""
    folder = tmp_path_factory.mktemp("pages")
    paths = {name: folder / f"{name}.html" for name in REPORTS}
    for name, path in paths.items():
        path.write_text(rendered(name), encoding="utf-8")
    return paths


def quiet(page: Page, path: Path) -> None:
    """Nothing was said on the console, and nothing but the file was asked for."""
    page.refresh_logs()
    assert page.console_errors == []
    assert set(page.requests) - {address for address in page.requests if address.startswith(("data:", "blob:"))} == {
        path.resolve().as_uri()
    }


def contrast(one: str, other: str) -> float:
    def luminance(colour: str) -> float:
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, bright = sorted((luminance(one), luminance(other)))
    return (bright + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", REPORTS)
def test_the_page_fits_its_window_and_its_tables_are_filled(
    open_page: OpenPage, pages: dict[str, Path], name: str, size: str
) -> None:
    page = open_page(pages[name], *SIZES[size])
    quiet(page, pages[name])
    found = page.run(MEASURES)
    assert found["width"] <= found["view"] == SIZES[size][0]
    assert found["out"] == []
    assert len(found["tables"]) == rendered(name).count("<table>")
    for rows, columns, wrong in found["tables"]:
        assert rows > 0
        assert columns > 0
        assert wrong == 0
    assert found["narrowest"] >= 320, "a picture is never narrower than a phone"
    assert page.run(OVERLAPS) == []


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("name", ["search", "ablation"])
def test_all_text_can_be_read_in_light_and_dark(
    open_page: OpenPage, pages: dict[str, Path], name: str, dark: bool
) -> None:
    page = open_page(pages[name], 1440, 900, dark=dark)
    seen = page.run(COLOURS)
    assert len(seen) > 20
    kinds = {what for what, _, _ in seen}
    assert {"svg text", "H1.", "SMALL.", "SPAN.badge better"} <= kinds
    poor = [(what, text, ground) for what, text, ground in seen if contrast(text, ground) < 4.5]
    assert poor == []
    paper = page.run("return getComputedStyle(document.body).backgroundColor")
    assert (contrast(paper, "rgb(255, 255, 255)") > 10) == dark


def test_the_verdict_is_on_the_first_screen_of_a_phone(open_page: OpenPage, pages: dict[str, Path]) -> None:
    page = open_page(pages["search"], *SIZES["phone"])
    box = page.run(
        "const b = document.querySelector('.verdict.first').getBoundingClientRect(); return [b.top, b.bottom]"
    )
    assert box[0] > 0
    assert box[1] < 740


def test_the_button_turns_the_page_dark_and_back(open_page: OpenPage, pages: dict[str, Path]) -> None:
    page = open_page(pages["search"])
    paper = "return getComputedStyle(document.body).backgroundColor"
    drawn = "return getComputedStyle(document.querySelector('figure svg path')).fill"
    before, picture = page.run(paper), page.run(drawn)
    button = page.driver.find_element("id", "theme")
    assert button.text == "dark"
    button.click()
    assert page.run(paper) != before
    assert page.run(drawn) == page.run(paper) != picture
    assert button.text == "light"
    button.click()
    assert (page.run(paper), page.run(drawn)) == (before, picture)
    quiet(page, pages["search"])


def saved(folder: Path, ending: str) -> Path:
    """The file that a button saves."""
    for _ in range(100):
        found = [path for path in folder.glob(f"*{ending}") if path.stat().st_size]
        if found:
            return found[0]
        time.sleep(0.1)
    pytest.fail(f"nothing was saved that ends with {ending}")


def press(page: Page, picture: int, ending: str) -> None:
    button = page.driver.find_elements("css selector", f"[data-save={ending}]")[picture]
    page.run("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", button)
    button.click()


def test_a_saved_svg_needs_no_page(open_page: OpenPage, pages: dict[str, Path], tmp_path: Path) -> None:
    page = open_page(pages["search"], dark=True)
    press(page, 0, "svg")
    path = saved(tmp_path, ".svg")
    assert path.name == "test-accuracy-of-each-row.svg"
    text = path.read_text(encoding="utf-8")
    ET.fromstring(text)
    assert "var(" not in text
    assert "#14171b" in text, "it is saved as it is seen: dark"
    quiet(page, pages["search"])
    alone = open_page(path)
    assert alone.console_errors == []
    assert alone.run("return document.querySelectorAll('text').length") > 10


@pytest.mark.parametrize("dark", [False, True])
def test_a_saved_png_is_large_and_has_its_ground(
    open_page: OpenPage, pages: dict[str, Path], tmp_path: Path, dark: bool
) -> None:
    from PIL import Image

    page = open_page(pages["search"], dark=dark)
    press(page, 2, "png")
    path = saved(tmp_path, ".png")
    assert path.name == "validation-accuracy-by-alpha.png"
    with Image.open(path) as opened:
        picture: Any = opened.convert("RGBA")
    assert picture.width == 1080
    assert picture.getpixel((2, 2)) == ((0x14, 0x17, 0x1B, 255) if dark else (255, 255, 255, 255))
    assert len(picture.getcolors(1_000_000)) > 50
    quiet(page, pages["search"])


def test_a_table_is_sorted_by_a_click(open_page: OpenPage, pages: dict[str, Path]) -> None:
    page = open_page(pages["search"])
    labels = "const body = document.querySelector('#table table').tBodies[0];"
    labels += "return [...body.rows].map((row) => row.cells[0].firstChild.data.trim())"
    assert page.run(labels) == [row.label for row in search().rows]
    heading = page.driver.find_elements("css selector", "#table table th button")[1]
    heading.click()
    ordered = [row.label for row in sorted(search().rows, key=lambda row: row.mean or 0)]
    assert page.run(labels) == ordered
    heading.click()
    assert page.run(labels) == ordered[::-1]
    assert (
        page.run("return document.querySelector('#table table th[aria-sort]').getAttribute('aria-sort')")
        == "descending"
    )


def test_hostile_names_do_nothing(open_page: OpenPage, pages: dict[str, Path]) -> None:
    page = open_page(pages["hostile"])
    quiet(page, pages["hostile"])
    assert page.run("return document.querySelectorAll('script').length") == 1
    assert page.run("return document.images.length") == 0
    assert page.run("return document.querySelector('h1').textContent") == HOSTILE[0]
    shown = page.run("return [...document.querySelectorAll('#notes li')].map((e) => e.textContent)")
    assert shown[:4] == list(HOSTILE[:4])


def test_the_policy_stops_what_would_be_fetched(open_page: OpenPage, pages: dict[str, Path]) -> None:
    page = open_page(pages["search"])
    page.run("const i = document.createElement('img'); i.src = 'https://example.org/a.png'; document.body.append(i)")
    page.run("const s = document.createElement('script'); s.textContent = 'window.ran = 1'; document.body.append(s)")
    time.sleep(0.3)
    page.refresh_logs()
    assert len(page.console_errors) == 2
    assert all("Content Security Policy" in message for message in page.console_errors)
    assert not page.run("return window.ran")


def test_the_contents_stay_in_sight_on_a_desk_only(open_page: OpenPage, pages: dict[str, Path]) -> None:
    top = "window.scrollTo({top: 3000, behavior: 'instant'});"
    top += "return document.querySelector('nav').getBoundingClientRect().top"
    assert open_page(pages["search"], *SIZES["desk"]).run(top) >= 0
    assert open_page(pages["search"], *SIZES["phone"]).run(top) < 0
