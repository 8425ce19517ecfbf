"""``report.html``: one file that needs nothing but itself."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final, get_args

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from wsl_sweep.analysis import report_pictures as pictures
from wsl_sweep.analysis import report_tables as tables
from wsl_sweep.analysis.plots.style import COLOURS, printable
from wsl_sweep.analysis.report_data import Named, Part, Report
from wsl_sweep.analysis.report_sections import Section

BADGES: Final = {
    "better": "better",
    "worse": "worse",
    "equivalent": "equivalent",
    "inconclusive": "inconclusive",
    "none": "no verdict",
}


@dataclass(frozen=True)
class Page:
    """A report as it is kept.

    Attributes:
        html: the page.
        pictures: name of a file → its SVG, the same as in the page.
    """

    html: str
    pictures: Mapping[str, str]


def render_report(report: Report) -> str:
    """The page alone; see ``render_page``."""
    return render_page(report).html


def render_page(report: Report, why: Sequence[Section] = ()) -> Page:
    """The page and its pictures: the verdict first, then what it rests on, then ``why``, then how it was made.

    Whatever a user named is text, never markup. A content security policy in the page forbids every host and every
    script but its own. The same report gives the same page.
    """
    script = _asset("report.js")
    template = _environment().get_template("report.html.jinja")
    drawn = _pictures(report)
    html = template.render(
        report=report,
        gaps=dict.fromkeys(get_args(Part), "") | dict(report.gaps),
        badges=BADGES,
        policy=_policy(script),
        style=Markup(_colours() + _asset("report.css")),
        script=Markup(script),
        why_sections=why,
        why_links=[(one.key, one.title, True) for one in why],
        **drawn,
        **_tables(report),
    )
    shown = [picture for group in drawn.values() for picture in group]
    return Page(html.lstrip(), _files([*shown, *_pictures_of(why)]))


def render_diagnosis(
    title: str, sections: Sequence[Section], *, question: str = "", facts: Sequence[Named] = ()
) -> Page:
    """A page of such sections alone, and its pictures; as safe and as self-contained as a report.

    Args:
        title: its heading.
        sections: what it says.
        question: what was asked, in a sentence.
        facts: of what it is.
    """
    script = _asset("report.js")
    html = (
        _environment()
        .get_template("diagnosis.html.jinja")
        .render(
            title=title,
            question=question,
            facts=facts,
            why_sections=sections,
            badges=BADGES,
            policy=_policy(script),
            style=Markup(_colours() + _asset("report.css")),
            script=Markup(script),
        )
    )
    return Page(html.lstrip(), _files(_pictures_of(sections)))


def _pictures_of(sections: Sequence[Section]) -> list[pictures.Picture]:
    return [picture for section in sections for picture in section.pictures]


def _files(shown: Sequence[pictures.Picture]) -> dict[str, str]:
    return {f"{number:02d}-{one.file_name}.svg": one.svg for number, one in enumerate(shown, start=1)}


def _pictures(report: Report) -> dict[str, list[pictures.Picture]]:
    looks = pictures.looks_of_report(report)
    return {
        "row_pictures": pictures.row_pictures(report, looks),
        "curve_pictures": pictures.curve_pictures(report, looks),
        "search_pictures": pictures.search_pictures(report, looks),
        "importance_pictures": pictures.importance_pictures(report),
        "learning_pictures": pictures.learning_pictures(report, looks),
        "regularization_pictures": pictures.regularization_pictures(report, looks),
        "weight_pictures": pictures.weight_pictures(report),
        "stopping_pictures": pictures.stopping_pictures(report),
    }


def _tables(report: Report) -> dict[str, tables.Table]:
    return {
        "rows_table": tables.rows_table(report.rows, report.level),
        "seeds_table": tables.seeds_table(report.rows),
        "also_table": tables.also_table(report.rows),
        "comparisons_table": tables.comparisons_table(report.comparisons, report.metric, report.level),
        "failures_table": tables.failures_table(report.failures),
    }


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("wsl_sweep.analysis", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalized,
    )
    environment.filters["breakable"] = _breakable
    return environment


def _breakable(text: str) -> Markup:
    """Text with places where a long path may be broken."""
    return Markup("<wbr>").join(re.split(r"(?<=[./_,])(?=[^\W\d])|(?<==)(?=\w)", printable(text)))


def _finalized(value: Any) -> Any:
    """What UTF-8 cannot hold is in no page; markup of our own passes."""
    return value if isinstance(value, Markup) or not isinstance(value, str) else printable(value)


def _asset(name: str) -> str:
    return (files("wsl_sweep.analysis") / "templates" / name).read_text(encoding="utf-8")


def _policy(script: str) -> str:
    """No host at all; scripts by the hash of our own. Pictures are made of styles, and saved through data and blobs."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def _colours() -> str:
    """The pictures' colours, and the page's own, as CSS variables: light, dark, and light again on paper."""
    light, dark = (_variables({role: pair[i] for role, pair in COLOURS.items()}) for i in (0, 1))
    return (
        f":root{{color-scheme:light;{light}}}\n"
        f"@media (prefers-color-scheme: dark){{:root:not([data-theme=light]){{color-scheme:dark;{dark}}}}}\n"
        f":root[data-theme=dark]{{color-scheme:dark;{dark}}}\n"
        f"@media print{{:root:root{{color-scheme:light;{light}}}}}\n"
    )


def _variables(colours: Mapping[str, str]) -> str:
    return "".join(f"--plot-{role}:{colour};" for role, colour in colours.items())
