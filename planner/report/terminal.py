"""The replay report in the terminal: the result first, then what qualifies it."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from rich import box
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from apportion.planner.report import figures, tables, wording

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console

    from apportion.planner.report.schema import Ledger, ReplayReport, SourceRow, WorkflowRow

    Cells = Sequence[str | Text]

MESSAGES = 5
"""Messages about skipped input that are shown without `verbose`."""

ROWS = 15
"""Rows of the longer tables that `verbose` adds; all of them are in the JSON file."""

_TEXT_WIDTH = 12
"""Narrowest column of text; before it gets narrower, columns of figures are left out."""

_BETWEEN = 3
"""Blanks between two columns."""

_GOOD, _BAD, _DIM = "green", "bold red", "dim"


def render(report: ReplayReport, console: Console, *, verbose: bool = False) -> None:
    """Show a report as a compact result that fits 80 columns.

    Args:
        report: The report.
        console: Where it goes; without a terminal behind it no colour codes are written.
        verbose: Also show agents, kinds of content, single workflows, logged usage, forecasts and settings.
    """
    page = _Page(console)
    _result(page, report)
    _sources(page, report.per_source)
    _comparison(page, report)
    page.gap()
    page.facts(wording.qualifications(report))
    if verbose:
        _details(page, report)
    _skipped(page, report, report.skipped.messages if verbose else report.skipped.messages[:MESSAGES])
    page.note(wording.NOT_RERUN)


class _Page:
    """Writes tables and lines in one style; strings from logs are made harmless on the way."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def line(self, text: str, style: str = "") -> None:
        for line in _wrapped(figures.plain(text), self._console.width):
            self._console.print(self._text(line, style))

    def note(self, text: str) -> None:
        self._console.print()
        self.line(text, _DIM)

    def facts(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Write names and values in two columns."""
        listed = list(pairs)
        indent = max((len(name) for name, _ in listed), default=0) + 2
        above = self._console.width - indent < 2 * _TEXT_WIDTH  # too narrow for two columns
        indent = 2 if above else indent
        width = max(_TEXT_WIDTH, self._console.width - indent)
        for name, value in listed:
            lines = [line for part in value.split("\n") for line in _wrapped(figures.plain(part), width, fold=True)]
            if above:
                self.line(name, _DIM)
            for nth, line in enumerate(lines):
                start = self._text((name if nth == 0 and not above else "").ljust(indent), _DIM)
                self._console.print(start + self._text(line))

    def table(
        self, title: str, headers: Sequence[str], rows: Iterable[Cells], *, texts: int = 1, spare: Sequence[int] = ()
    ) -> set[int]:
        """Write a table whose first `texts` columns are text and whose others are figures.

        Where it does not fit, columns of `spare` are left out, the first one first.

        Returns:
            The numbers of the columns that are shown.
        """
        listed = list(rows)
        shown = _fitting(self._console.width, headers, listed, texts, spare)
        self._table(title, [headers[n] for n in shown], [[row[n] for n in shown] for row in listed], texts)
        return set(shown)

    def _table(self, title: str, headers: Sequence[str], rows: Iterable[Cells], texts: int) -> None:
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
        for index, header in enumerate(headers):
            if index < texts:
                table.add_column(header, overflow="fold", min_width=8)
            else:
                table.add_column(header, justify="right", no_wrap=True)
        for row in rows:
            table.add_row(*(self._text(cell) if isinstance(cell, str) else cell for cell in row))
        self._console.print()
        if title:
            self.line(title, "bold")
        self._console.print(table)

    def gap(self) -> None:
        self._console.print()

    def _text(self, text: str, style: str = "") -> Text:
        encoding = self._console.encoding
        shown = figures.breakable(figures.plain(text))
        return Text(shown.encode(encoding, "replace").decode(encoding), style=style)


def _wrapped(text: str, width: int, *, fold: bool = False) -> list[str]:
    """Break a text into lines at ordinary spaces, so that a number keeps its unit; `fold` also breaks long words."""
    return textwrap.wrap(text, width, break_long_words=fold, break_on_hyphens=False) or [""]


def _fitting(width: int, headers: Sequence[str], rows: Sequence[Cells], texts: int, spare: Sequence[int]) -> list[int]:
    """Return the columns that stay when those of `spare` go, in order, until the rest fits."""
    widths = [_TEXT_WIDTH if n < texts else _widest(header, rows, n) for n, header in enumerate(headers)]
    shown = list(range(len(headers)))
    for column in spare:
        if sum(widths[n] + _BETWEEN for n in shown) - _BETWEEN <= width:
            break
        shown.remove(column)
    return shown


def _widest(header: str, rows: Sequence[Cells], column: int) -> int:
    return max(map(cell_len, (*header.split("\n"), *(str(row[column]) for row in rows))))


def _result(page: _Page, report: ReplayReport) -> None:
    page.line(
        f"{figures.count(report.workflows, 'workflow')}, {figures.count(report.calls, 'call')}, "
        f"{figures.count(report.agents, 'agent run')}; replayed in {wording.took(report)}",
        _DIM,
    )
    page.line(wording.headline(report), "bold")
    for warning in wording.warnings(report):
        page.line(warning, _BAD)
    page.table(
        "",
        ["Ledger", "Baseline", "Planned", "Saved"],
        [[row.name, row.baseline, row.planned, _coloured(row.saved, row.share)] for row in wording.ledger_rows(report)],
        spare=[1],
    )
    estimates = wording.estimates(report)
    if estimates is not None:
        page.line(estimates, _DIM)


def _sources(page: _Page, rows: Sequence[SourceRow]) -> None:
    if not rows:
        return
    shown = page.table(
        "",
        ["Source", "Work-\nflows", "\nCalls", "Tokens\nsaved", "Bill\nsaved", "Next\naction", "\nDearer", "\nWorst"],
        [
            [
                row.source,
                f"{row.workflows:,}",
                f"{row.calls:,}",
                _saved(row.ledgers.visible_tokens),
                _saved(row.ledgers.bill_usd),
                figures.percent(row.facts.next_action_visible),
                figures.percent(row.dearer.share),
                _signed(None if row.worst_workflow is None else row.worst_workflow.bill_saved_share),
            ]
            for row in rows
        ],
        spare=[2, 1, *reversed(_EXPLAINED)],
    )
    explained = [text for column, text in _EXPLAINED.items() if column in shown]
    if explained:
        page.line(" ".join(explained), _DIM)


_EXPLAINED = {
    5: "Next action: facts it used that were still visible.",
    6: "Dearer: workflows above doing nothing.",
    7: "Worst: bill saved by the worst workflow.",
}
"""What columns of the table of sources mean."""


def _comparison(page: _Page, report: ReplayReport) -> None:
    """Set the baselines that were asked for beside the plan."""
    rows = wording.comparison(report)
    if not rows:
        return
    shown = page.table(
        "Against",
        ["Rule", *(header.replace(" ", "\n") if " " in header else "\n" + header for header in wording.COMPARED)],
        [[row.name, *_cells(row)] for row in rows],
        spare=[5, 3, 7, 6],
    )
    explained = [text for column, text in enumerate(wording.COMPARED.values(), 1) if column in shown and text]
    page.line(" ".join(explained), _DIM)
    page.facts(wording.comparison_notes(report))


def _cells(row: wording.ComparisonRow) -> list[str | Text]:
    tokens, bill, *others = row.cells
    return [tokens, _coloured(bill, row.bill_saved), *others]


def _details(page: _Page, report: ReplayReport) -> None:
    page.table(
        "Where visible tokens went",
        ["Kind", "Baseline", "Planned"],
        [
            [row.kind, figures.tokens(row.tokens_baseline), figures.tokens(row.tokens_planned)]
            for row in report.per_kind
        ],
        spare=[1],
    )
    agents = sorted(report.per_agent, key=lambda row: row.visible_tokens.baseline or 0, reverse=True)[:ROWS]
    page.table(
        f"Agents with the most visible tokens ({len(agents)} of {len(report.per_agent)})",
        ["Agent", "Source", "Calls", "Tokens", "saved", "Bill", "saved"],
        [
            [
                row.agent,
                row.source,
                f"{row.calls:,}",
                figures.tokens(row.visible_tokens.baseline),
                _saved(row.visible_tokens),
                figures.usd(row.bill_usd.baseline),
                _saved(row.bill_usd),
            ]
            for row in agents
        ],
        texts=2,
        spare=[6, 5, 2, 4],
    )
    _long(page, tables.stages(report), spare=[9, 8, 3, 5, 7, 1, 10])
    _long(page, tables.actions_in_short(report, ROWS), spare=[4, 2])
    _left_out(page, report)
    for source in report.per_source if report.against and len(report.per_source) > 1 else ():
        page.table(
            f"Against, on {source.source}",
            ["Rule", *wording.COMPARED],
            [[row.name, *_cells(row)] for row in wording.comparison(report, source.source)],
            spare=[5, 3, 7, 6],
        )
    _long(page, tables.forecasts(report), spare=[3, 2, 1, 6, 4])
    _planned(page, report)
    for table in tables.next_agents(report):
        _long(page, table, spare=[3, 2])
    for section in tables.sections(report):
        _section(page, section)
    _dearest(page, report.per_workflow)
    page.gap()
    page.facts(wording.background(report))


def _long(page: _Page, table: tables.Table, *, spare: Sequence[int]) -> None:
    """Write the first rows of a long table, and say how many there are."""
    rows = table.rows[:ROWS]
    if not rows:
        return
    of = len(table.rows) + table.more
    title = f"{table.caption} ({len(rows)} of {of:,})" if of > len(rows) else table.caption
    cells = [[cell.text if cell.share is None else _coloured(cell.text, cell.share) for cell in row] for row in rows]
    headers = [header if nth < table.texts else _narrow(header) for nth, header in enumerate(table.headers)]
    page.table(title, headers, cells, texts=table.texts, spare=spare)
    if table.note:
        page.line(table.note, _DIM)


def _narrow(header: str) -> str:
    """Break a long header into lines."""
    return header.replace(" / ", "/ ").replace(" ", "\n") if len(header) > _TEXT_WIDTH else header


_IN_SENTENCES = frozenset({"loading"})
"""Parts of the report that `wording.background` tells; their tables are wide."""


def _section(page: _Page, section: tables.Section) -> None:
    if section.id in _IN_SENTENCES:
        return
    if section.pairs:
        page.gap()
        page.line(section.title, "bold")
        page.line(section.summary, _DIM)
        page.facts(section.pairs)
    for table in section.tables:
        shown = table if section.pairs else table._replace(note=section.summary)
        _long(page, shown, spare=list(range(len(table.headers) - 1, table.texts, -1)))


def _left_out(page: _Page, report: ReplayReport) -> None:
    """Name the pieces that were left out which saved most, with their handles where these are kept."""
    if not report.left_out:
        return
    page.gap()
    page.line(f"Left out: {wording.left_out(report)}", "bold")
    for row in report.left_out[:MESSAGES]:
        back = ", fetched back" if row.fetched else ""
        way = f"; apportion expand {row.handle}" if row.handle else ""
        page.line(f"  {tables.piece_title(row)}: {tables.piece_sizes(row)}{back}{way}")
    more = report.left_out_pieces - len(report.left_out[:MESSAGES])
    if more > 0:
        page.line(f"  ... {more:,} more", _DIM)


def _planned(page: _Page, report: ReplayReport) -> None:
    rows = wording.planned_against_used(report)
    if rows:
        page.table(wording.planned_title(report), wording.PLANNED, rows, spare=[1, 4])
        page.line(wording.PLANNED_EXPLAINED, _DIM)


def _dearest(page: _Page, workflows: Sequence[WorkflowRow]) -> None:
    priced = [row for row in workflows if row.ledgers.bill_usd.saved_share is not None]
    lowest = sorted(priced, key=lambda row: row.ledgers.bill_usd.saved_share or 0.0)[:ROWS]
    page.table(
        f"Workflows with the smallest savings ({len(lowest)} of {len(workflows)})",
        ["Workflow", "Calls", "Baseline", "Planned", "Saved"],
        [
            [
                row.id,
                f"{row.calls:,}",
                figures.usd(row.ledgers.bill_usd.baseline),
                figures.usd(row.ledgers.bill_usd.planned),
                _saved(row.ledgers.bill_usd),
            ]
            for row in lowest
        ],
        spare=[1, 2, 3],
    )


def _skipped(page: _Page, report: ReplayReport, messages: Sequence[str]) -> None:
    if not (report.skipped.files or report.skipped.lines):
        return
    page.gap()
    page.line(wording.skipped(report), "bold")
    for message in messages:
        page.line(f"  {message}")
    if len(messages) < report.skipped.files + report.skipped.lines:
        page.line(f"  ... {report.skipped.files + report.skipped.lines - len(messages):,} more", _DIM)


def _saved(ledger: Ledger) -> Text:
    return _signed(ledger.saved_share)


def _signed(share: float | None) -> Text:
    return _coloured(figures.percent(share), share)


def _coloured(text: str, share: float | None) -> Text:
    text = figures.breakable(text)
    if share is None or abs(share) < figures.SAME:
        return Text(text)
    return Text(text, style=_GOOD if share > 0 else _BAD)
