"""An inspection as one HTML file that needs no network, and runs no script at all.

The content is anyone's: the template escapes it, and a content security policy lets the browser load and run nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from apportion.planner.report import figures
from apportion.planner.report.html import asset, template, write_page
from apportion.planner.report.inspection import MISSING, grouped_reasons
from apportion.planner.report.inspection_terminal import BACK, folded, shown

if TYPE_CHECKING:
    from pathlib import Path

    from apportion.planner.report.inspection import Inspection

ROWS = 20_000
"""Rows that are shown; a browser takes long for more."""

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

_STYLE = """
.lines { table-layout: fixed; font: .8125rem/1.45 ui-monospace, monospace; border: 0; }
.lines td { border: 0; padding: 0 .5rem; white-space: pre-wrap; overflow-wrap: anywhere; }
.lines td:nth-child(odd) { width: 4.5rem; text-align: right; color: var(--muted); user-select: none; }
.lines td:nth-child(3) { border-left: 1px solid var(--grid); }
.lines thead th { font: .875rem/1.5 system-ui, sans-serif; padding: .3rem .5rem; text-align: left; }
.lines .out { background: color-mix(in srgb, var(--bad) 12%, transparent); }
.lines .new { background: color-mix(in srgb, var(--good) 12%, transparent); }
.lines .fold td { color: var(--muted); text-align: center; font-family: system-ui, sans-serif; }
"""


def write_inspection(inspection: Inspection, path: Path) -> None:
    """Write an inspection as one self-contained HTML file, which appears under its name only when it is complete.

    Raises:
        MissingExtraError: The extra `report` is not installed.
        InputError: The file cannot be written.
    """
    write_page(path, inspection_page(inspection))


def inspection_page(inspection: Inspection) -> str:
    """Return an inspection as HTML text.

    Raises:
        MissingExtraError: The extra `report` is not installed.
    """
    page = template("inspection.html")
    from markupsafe import Markup

    rows = list(folded(inspection.rows))
    return page.render(
        inspection=inspection,
        policy=POLICY,
        style=Markup(asset("report.css") + _STYLE),  # noqa: S704  (our own texts)
        percent=figures.percent,
        count=figures.count,
        back=BACK[inspection.facts.back],
        missing=inspection.facts.missing[:MISSING],
        reasons=grouped_reasons(inspection.reasons, inspection.steps),
        rows=rows[:ROWS],
        more_rows=max(0, len(rows) - ROWS),
        shown=shown,
    )
