"""From a figure to SVG that can stand in a page: light and dark, readable aloud, the same bytes each time."""

from __future__ import annotations

import hashlib
import io
import re
import threading
import warnings
import xml.etree.ElementTree as ET
from typing import Any, Final

import matplotlib
from matplotlib.figure import Figure

from wsl_sweep.analysis.plots.style import COLOURS, clean

FONTS: Final = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_ROLE_OF: Final = {pair[0]: role for role, pair in COLOURS.items()}
_NAMESPACE = re.compile(r"\{[^}]*\}")
_REFERENCE = re.compile(r"#([\w.-]+)")
_DECIMALS = re.compile(r"-?\d+\.\d+")
_HEX = re.compile(r"#[0-9a-f]{6}\b")
_lock = threading.Lock()
"""How text is written is a global setting of matplotlib's: one picture at a time changes it, and puts it back."""


def to_svg(figure: Figure, title: str) -> str:
    """The figure as an ``<svg>`` element.

    Text stays text. Colours are CSS variables, ``var(--plot-ink, #1b1f24)``, so that a page can change them and a file
    of its own is readable. Ids are the figure's own. No date, no DTD, no address that anything is fetched from.

    Args:
        figure: drawn with the colours of ``style.COLOURS``.
        title: what a screen reader says.
    """
    title = clean(title)
    raw = _printed(figure)
    prefix = "p" + hashlib.sha256(f"{title}\n{raw}".encode()).hexdigest()[:10] + "-"
    root = ET.fromstring(raw)
    needed = set(_REFERENCE.findall(" ".join(_references(root))))
    _tidy(root, prefix, needed)
    width, height = root.get("viewBox", "0 0 1 1").split()[2:]
    caption = ET.Element("title", {"id": f"{prefix}title"})
    caption.text = title
    root.insert(0, caption)
    root.attrib = {
        "xmlns": "http://www.w3.org/2000/svg",
        "xmlns:xlink": "http://www.w3.org/1999/xlink",
        "viewBox": root.get("viewBox", ""),
        "width": width,
        "height": height,
        "role": "img",
        "aria-labelledby": f"{prefix}title",
        "style": f"font-family: {FONTS}; stroke-linejoin: round; stroke-linecap: butt",
    }
    return ET.tostring(root, encoding="unicode")


def _printed(figure: Figure) -> str:
    buffer = io.StringIO()
    settings: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": "wsl-sweep",
        "path.simplify": False,
        "savefig.bbox": "standard",
    }
    with _lock, matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")  # the reader's browser has it
        figure.savefig(buffer, format="svg", dpi=72, facecolor=figure.get_facecolor(), transparent=False,
                       metadata={"Date": None, "Creator": None, "Format": None, "Type": None})  # fmt: skip
    return buffer.getvalue()


def _references(root: ET.Element) -> list[str]:
    return [value for element in root.iter() for name, value in element.attrib.items() if not name.endswith("id")]


def _tidy(element: ET.Element, prefix: str, needed: set[str]) -> None:
    """Drops what nothing refers to, shortens numbers, and makes ids and colours the page's."""
    element.tag = _NAMESPACE.sub("", element.tag)
    attributes = {}
    for name, value in element.attrib.items():
        local = _NAMESPACE.sub("", name)
        if local == "id":
            if value in needed:
                attributes["id"] = prefix + value
        elif local == "href":
            attributes["xlink:href"] = value.replace("#", f"#{prefix}")
        elif local == "clip-path":
            attributes[local] = value.replace("#", f"#{prefix}")
        elif local == "style":
            attributes[local] = _HEX.sub(_variable, _font(value))
        elif local == "transform":
            if not value.startswith("rotate(-0") and not value.startswith("rotate(0"):
                attributes[local] = _DECIMALS.sub(_short, value)
        else:
            attributes[local] = " ".join(_DECIMALS.sub(_short, value).split())
    element.attrib = attributes
    for child in list(element):
        if _NAMESPACE.sub("", child.tag) in ("metadata", "style"):
            element.remove(child)
            continue
        _tidy(child, prefix, needed)
        if child.tag in ("defs", "g") and len(child) == 0:
            element.remove(child)
    element.tail = None
    if element.tag != "text":
        element.text = None
    if element.tag == "g":
        _thin(element)


def _thin(group: ET.Element) -> None:
    """What all markers share is said once; a group that says nothing, around one thing, is not there."""
    styles = {child.get("style") for child in group if child.tag == "use"}
    if len(styles) == 1 and all(child.tag == "use" for child in group) and "style" not in group.attrib:
        group.set("style", styles.pop() or "")
        for child in group:
            child.attrib.pop("style", None)
    for i, child in enumerate(list(group)):
        if child.tag == "g" and not child.attrib and len(child) == 1:
            group[i] = child[0]


def _short(match: re.Match[str]) -> str:
    """Hundredths of a pixel are enough."""
    text = f"{float(match.group()):.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _variable(match: re.Match[str]) -> str:
    role = _ROLE_OF.get(match.group())
    return match.group() if role is None else f"var(--plot-{role}, {match.group()})"


def _font(style: str) -> str:
    """Without the font's name: the page's own is inherited."""
    style = re.sub(r"font-family:[^;]*;?\s*", "", style)
    return re.sub(r"font: (?:(\d+) )?([\d.]+px)[^;]*", _spelled_out, style)


def _spelled_out(match: re.Match[str]) -> str:
    weight, size = match.groups()
    return f"font-size: {size}" + (f"; font-weight: {weight}" if weight else "")
