"""The replay report as one HTML file that needs no network.

Names and paths come from logs, hence from anyone: the template escapes them, the chart data are escaped for a script
element, and a content security policy lets the browser run our own scripts only, and load nothing at all.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from importlib.resources import files
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from apportion.errors import InputError, MissingExtraError
from apportion.files import write_atomically
from apportion.planner.report import figures, tables, wording
from apportion.planner.report.charts import all_charts, forecast_chart
from apportion.planner.report.definitions import STATUS_DEFINITIONS

if TYPE_CHECKING:
    from pathlib import Path

    from jinja2 import Template

    from apportion.planner.report.schema import LeftOutRow, ReplayReport, SourceRow

MESSAGES = 50
"""Messages about skipped input that are shown."""

PRINTED = 40
"""Rows of a long table that are printed; the style sheet has the same number."""

_SOURCE_HEADERS = ["Source", "Workflows", "Priced", "Calls", "Tokens saved", "Bill saved", "Prefix before"]
_SOURCE_HEADERS += ["Prefix planned", "Next action", "Dearer", "Worst"]


_EXTRA_MODULES = ("altair", "jinja2", "vl_convert")


def available() -> bool:
    """Return whether the extra `report` is installed; loads nothing."""
    return all(find_spec(name) is not None for name in _EXTRA_MODULES)


def write_html(report: ReplayReport, path: Path) -> None:
    """Write a report as one self-contained HTML file.

    The file appears under its name only when it is complete.

    Args:
        report: The report.
        path: The file; one that exists is replaced.

    Raises:
        MissingExtraError: The extra `report` is not installed.
        InputError: The file cannot be written.
    """
    write_page(path, to_html(report))


def to_html(report: ReplayReport) -> str:
    """Return the report as HTML text.

    Raises:
        MissingExtraError: The extra `report` is not installed.
    """
    page = template("report.html")
    from markupsafe import Markup

    bundle = _bundle()
    boot = _script(asset("report.js"))
    sections = tables.sections(report)
    charts, forecast_charts = all_charts(report), [forecast_chart(report)]
    return page.render(
        report=report,
        policy=_policy(bundle, boot),
        style=Markup(asset("report.css")),  # noqa: S704  (our own file)
        bundle=Markup(bundle),  # noqa: S704  (a library, checked by _script)
        boot=Markup(boot),  # noqa: S704  (our own file, checked by _script)
        specs={f"chart-{each.id}": each.spec for each in [*charts, *forecast_charts] if each.spec is not None},
        charts=charts,
        forecast_charts=forecast_charts,
        count=figures.count,
        same=figures.SAME,
        headline=wording.headline(report),
        warnings=wording.warnings(report),
        not_rerun=wording.NOT_RERUN,
        cards=_cards(report),
        ledgers=wording.ledger_rows(report),
        estimates=wording.estimates(report),
        qualifications=wording.qualifications(report),
        statuses=STATUS_DEFINITIONS.items(),
        background=[pair for pair in wording.background(report) if pair[0] not in {"Next agent", "Loading"}],
        spent=[tables.agents(report), tables.stages(report)],
        actions=tables.actions(report),
        left_out=wording.left_out(report),
        pieces=[_piece(row) for row in report.left_out[: tables.PIECES]],
        more_pieces=report.left_out_pieces - len(report.left_out[: tables.PIECES]),
        forecasts=tables.forecasts(report),
        next_agent=wording.next_agent(report),
        next_tables=tables.next_agents(report),
        sections=sections,
        parts=_parts(report, sections),
        workflows=tables.workflows(report),
        printed=PRINTED,
        sources={
            "headers": _SOURCE_HEADERS,
            "rows": [(_other_name(row), _source_row(row)) for row in report.per_source],
        },
        comparisons=_comparisons(report),
        compared=wording.COMPARED,
        comparison_notes=wording.comparison_notes(report),
        planned={
            "title": wording.planned_title(report),
            "headers": wording.PLANNED,
            "rows": wording.planned_against_used(report),
            "explained": wording.PLANNED_EXPLAINED,
        },
        skipped=wording.skipped(report),
        messages=report.skipped.messages[:MESSAGES],
        more_messages=_unshown(report),
    )


def _parts(report: ReplayReport, sections: list[tables.Section]) -> list[tuple[str, str, bool]]:
    """Return the parts of the page in their order: place, title, and whether it is shown."""
    return [
        ("ledgers", "The five ledgers", True),
        ("qualifications", "What qualifies the result", True),
        ("charts", "Where it was spent", True),
        ("done", "What the plan did", bool(report.actions)),
        ("out", "What was left out", bool(report.left_out)),
        ("planned", "Forecast and actual", _has_forecasts(report)),
        ("next", "Which agent came next", bool(report.next_agent)),
        *((section.id, section.title, True) for section in sections),
        ("each", "All workflows", bool(report.per_workflow)),
        ("sources", "Per source", bool(report.per_source)),
        ("against", "Against simple rules", bool(report.against)),
        ("background", "What the figures rest on", True),
        ("skipped", "What was not read", True),
    ]


def _has_forecasts(report: ReplayReport) -> bool:
    return bool(report.variance.by_agent) or any(row.used_tokens for row in report.per_agent)


def _piece(row: LeftOutRow) -> dict[str, Any]:
    """Return what is shown of a piece that was left out; its content only where the report holds some."""
    return {
        "row": row,
        "title": tables.piece_title(row),
        "sizes": tables.piece_sizes(row),
        "done": wording.DONE.get(row.action, row.action),
        "head": None if row.head is None else row.head.expandtabs(4).splitlines(),
    }


def template(name: str) -> Template:
    """Return a template that escapes whatever is put into it, and makes strings from logs harmless.

    Raises:
        MissingExtraError: The extra `report` is not installed.
    """
    if not available():
        raise MissingExtraError("the HTML report", extra="report")
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("apportion.planner.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_harmless,
    )
    return environment.get_template(name)


def _cards(report: ReplayReport) -> list[tuple[str, str, float | None]]:
    bill, visible = report.ledgers.bill_usd, report.ledgers.visible_tokens
    dearer = report.dearer.share
    return [
        ("Bill saved", figures.percent(bill.saved_share), bill.saved_share),
        ("Visible tokens saved", figures.percent(visible.saved_share), visible.saved_share),
        ("Facts of the next action still visible", figures.percent(report.facts.next_action_visible), None),
        ("Workflows made dearer", figures.percent(dearer), -dearer if dearer else None),
    ]


def _source_row(row: SourceRow) -> list[str]:
    stability = row.ledgers.prefix_stability
    return [
        row.source,
        f"{row.workflows:,}",
        f"{row.priced_workflows:,}",
        f"{row.calls:,}",
        figures.percent(row.ledgers.visible_tokens.saved_share),
        figures.percent(row.ledgers.bill_usd.saved_share),
        figures.percent(stability.baseline),
        figures.percent(stability.planned),
        figures.percent(row.facts.next_action_visible),
        figures.percent(row.dearer.share),
        figures.percent(None if row.worst_workflow is None else row.worst_workflow.bill_saved_share),
    ]


def _comparisons(report: ReplayReport) -> list[tuple[str, list[wording.ComparisonRow]]]:
    """Return the tables of baselines: of everything, and of each source where there are several."""
    if not report.against:
        return []
    sources = [row.source for row in report.per_source] if len(report.per_source) > 1 else []
    tables = [(source, wording.comparison(report, source)) for source in sources]
    return [("all workflows", wording.comparison(report)), *tables]


def _other_name(row: SourceRow) -> str:
    """Return the tool that wrote the logs of a source, or nothing where the source has its name."""
    return "" if row.framework.replace("_", "-") == row.source.replace("_", "-") else row.framework


def _unshown(report: ReplayReport) -> int:
    return max(0, report.skipped.files + report.skipped.lines - len(report.skipped.messages[:MESSAGES]))


def _harmless(value: Any) -> Any:
    """Clean what the template is about to write; markup of our own passes as it is."""
    return figures.plain(value) if type(value) is str else value


@functools.cache
def _bundle() -> str:
    """Return the chart library as one script; putting it together takes about a second."""
    import vl_convert

    return _script(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))


def asset(name: str) -> str:
    """Return a text that stands beside the templates."""
    return files("apportion.planner.report").joinpath("templates", name).read_text(encoding="utf-8")


def _script(source: str) -> str:
    """Return a script that may stand inside a script element, with the line ends that a browser will hash."""
    source = source.replace("\r\n", "\n").replace("\r", "\n")
    return re.sub(r"<(?=/script|!--)", r"<\\", source, flags=re.IGNORECASE)


def _policy(*scripts: str) -> str:
    hashes = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    return f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")


def write_page(path: Path, text: str) -> None:
    """Write a page; it appears under its name only when it is complete.

    Raises:
        InputError: The file cannot be written.
    """
    try:
        if path.exists() and not path.is_file():  # renaming over a device would remove it
            raise InputError("not a regular file", path=path, hint="Give another name for the HTML report")
        write_atomically(path, text)
    except OSError as error:
        raise InputError(f"cannot write: {error.strerror or error}", path=path) from error
