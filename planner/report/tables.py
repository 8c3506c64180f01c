"""The longer tables of a report, for the HTML file and the terminal: who used what, what plans did, what was left out.

Cells hold their text for people and the exact figure behind it, by which a browser sorts. Strings from logs are left as
they are; whoever shows a table makes them harmless.
"""

from __future__ import annotations

import inspect
from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel

from apportion.planner.report import figures
from apportion.planner.report.wording import DONE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from apportion.planner.report.schema import ActionRow, Ledger, LeftOutRow, ReplayReport

ROWS = 1_000
"""Rows of a table that the HTML file shows; all of them are in the JSON file."""

START = "(start)"
"""Stands for the agent before the first one."""

LINES = 10
"""Lines of a value that has many."""

PIECES = 50
"""Pieces that were left out which the HTML file shows one by one."""

_SPENT = ("Tokens", "Tokens planned", "Tokens saved", "Bill", "Bill planned", "Bill saved")

SAVED_EXPLAINED = (
    "Saved: visible tokens over all calls in which the shorter form stood. What later calls fetched back is charged in "
    "the ledgers and not taken off here."
)
"""What the column of savings leaves out."""


class Cell(NamedTuple):
    """One cell: what it says, the exact figure behind it, and the signed saving by which it is coloured."""

    text: str
    value: float | None = None
    share: float | None = None


class Table(NamedTuple):
    """A table that may be long.

    Attributes:
        id: Name of the table, a word.
        caption: What it shows.
        noun: What a row is.
        headers: Names of the columns.
        rows: The cells of each row, in the order in which they are shown.
        texts: Leading columns that are text; all others are figures.
        more: Rows that are left out.
        note: What the columns mean, or nothing.
    """

    id: str
    caption: str
    noun: str
    headers: tuple[str, ...]
    rows: list[list[Cell]]
    texts: int = 1
    more: int = 0
    note: str = ""


class Section(NamedTuple):
    """A part of the report that is shown by the names of its fields.

    Attributes:
        id: Name of the field that it shows.
        title: What it is about.
        summary: The same in a sentence.
        pairs: Names and values.
        tables: Its lists.
    """

    id: str
    title: str
    summary: str
    pairs: list[tuple[str, str]]
    tables: list[Table]


def agents(report: ReplayReport) -> Table:
    """Return where tokens and money went, per agent type and source, the dearest first."""
    rows = [
        [
            Cell(row.agent),
            Cell(row.source),
            _whole(row.runs),
            _whole(row.calls),
            *_ledger(row.visible_tokens, figures.tokens),
            *_ledger(row.bill_usd, figures.usd),
        ]
        for row in sorted(report.per_agent, key=lambda row: _spent(row.bill_usd, row.visible_tokens), reverse=True)
    ]
    headers = ("Agent", "Source", "Runs", "Calls", *_SPENT)
    note = "Tokens: visible prompt tokens over all calls, as logged and as planned. Bill: the same in US dollars."
    return _limited("agents", "Where tokens and money went, per agent", "agent", headers, rows, texts=2, note=note)


def stages(report: ReplayReport) -> Table:
    """Return the same per agent type and stage, with what was forecast, allocated and used."""
    rows = [
        [
            Cell(row.agent),
            Cell(row.source),
            Cell(_range(row.first_stage, row.last_stage), row.first_stage),
            _whole(row.calls),
            Cell(figures.tokens(row.visible_tokens.baseline), row.visible_tokens.baseline),
            _saved(row.visible_tokens),
            Cell(figures.usd(row.bill_usd.baseline), row.bill_usd.baseline),
            _saved(row.bill_usd),
            *(Cell(figures.tokens(each), each) for each in (row.likely_tokens, row.allocated_tokens, row.used_tokens)),
        ]
        for row in report.per_stage
    ]
    spent = ("Tokens", "Tokens saved", "Bill", "Bill saved")
    headers = ("Agent", "Source", "Stage", "Calls", *spent, "Forecast", "Allocated", "Used")
    note = (
        "Stage: turn of the user; 0 is before the first one. Tokens: visible prompt tokens as logged. Forecast "
        f"(the 90{figures.NO_BREAK}% quantiles of the demand), allocated and used: total tokens, with the invisible "
        "part and the outputs, added up over agent runs."
    )
    return _limited("stages", "Where tokens and money went, per agent and stage", "row", headers, rows, 2, note=note)


def actions(report: ReplayReport) -> Table:
    """Return what the plans did and why, per agent type, what saved most first."""
    several = len({row.source for row in report.actions}) > 1
    rows = [
        [
            Cell(f"{row.agent} ({row.source})" if several else row.agent),
            Cell(DONE.get(row.action, row.action)),
            Cell(row.reason),
            _whole(row.pieces),
            _tokens(row.tokens),
            _tokens(row.sent_tokens),
            _tokens(row.saved_tokens),
            _whole(row.fetched),
        ]
        for row in sorted(report.actions, key=lambda row: row.saved_tokens, reverse=True)
    ]
    headers = ("Agent", "What was done", "Why", "Pieces", "Tokens", "Sent", "Saved", "Fetched back")
    note = f"Pieces: results of tools and agents that were not sent whole. {SAVED_EXPLAINED}"
    return _limited("actions", "What the plan did, and why", "row", headers, rows, texts=3, note=note)


def actions_in_short(report: ReplayReport, limit: int) -> Table:
    """Return the same for all agents together, by action and reason."""
    sums: defaultdict[tuple[str, str], list[ActionRow]] = defaultdict(list)
    for row in report.actions:
        sums[row.action, row.reason].append(row)
    most_first = sorted(sums.items(), key=lambda item: -sum(row.saved_tokens for row in item[1]))
    rows = [
        [
            Cell(DONE.get(action, action)),
            Cell(reason),
            _whole(sum(row.pieces for row in part)),
            _tokens(sum(row.saved_tokens for row in part)),
            _whole(sum(row.fetched for row in part)),
        ]
        for (action, reason), part in most_first
    ]
    headers = ("What was done", "Why", "Pieces", "Saved", "Fetched")
    return Table("actions", "What the plan did, and why", "row", headers, rows[:limit], 2, max(0, len(rows) - limit))


def workflows(report: ReplayReport) -> Table:
    """Return all workflows, the dearest first."""
    rows = [
        [
            Cell(row.id),
            Cell(row.source),
            _whole(row.calls),
            *_ledger(row.ledgers.visible_tokens, figures.tokens),
            *_ledger(row.ledgers.bill_usd, figures.usd),
            Cell(figures.percent(row.facts.next_action_visible), row.facts.next_action_visible),
            _whole(row.facts.expansions),
        ]
        for row in sorted(
            report.per_workflow,
            key=lambda row: _spent(row.ledgers.bill_usd, row.ledgers.visible_tokens),
            reverse=True,
        )
    ]
    note = (
        "Next action: of the facts that the next logged action used, the share still visible. Fetched back: pieces "
        "that a later output needed, each charged with an extra call."
    )
    return _limited(
        "workflows",
        "All workflows",
        "workflow",
        ("Workflow", "Source", "Calls", *_SPENT, "Next action", "Fetched back"),
        rows,
        texts=2,
        note=note,
    )


def forecasts(report: ReplayReport) -> Table:
    """Return what was forecast, allocated and used, per agent type and source."""
    rows = [
        [
            Cell(row.agent),
            Cell(row.source),
            *(Cell(figures.tokens(each), each) for each in (row.likely_tokens, row.allocated_tokens, row.used_tokens)),
            _ratio(row.likely_tokens, row.used_tokens),
            _ratio(row.allocated_tokens, row.used_tokens),
        ]
        for row in sorted(report.per_agent, key=lambda row: row.used_tokens or 0, reverse=True)
        if row.used_tokens
    ]
    headers = ("Agent", "Source", "Forecast", "Allocated", "Used", "Forecast / used", "Allocated / used")
    note = f"Total tokens, added up over stages. Forecast: the 90{figures.NO_BREAK}% quantiles of the demand."
    return _limited("forecasts", "Forecast, allocated and used, per agent", "agent", headers, rows, 2, note=note)


def next_agents(report: ReplayReport) -> list[Table]:
    """Return how sure forecasts of the next agent were, and whether they came true; none without trained models."""
    if not report.next_agent_bins:
        return []
    bins = [
        [
            Cell(f"{figures.percent(row.low)} to {figures.percent(row.high)}", row.low),
            _whole(row.forecasts),
            Cell(figures.percent(row.confidence), row.confidence),
            Cell(figures.percent(row.hit_rate), row.hit_rate),
        ]
        for row in report.next_agent_bins
    ]
    pairs = [
        [
            Cell(row.after or START),
            Cell(row.predicted),
            _whole(row.forecasts),
            _whole(row.sure),
            Cell(figures.percent(row.confidence), row.confidence),
            Cell(figures.percent(row.hits / row.forecasts), row.hits / row.forecasts),
        ]
        for row in report.next_agent_pairs
    ]
    return [
        Table(
            "next-bins",
            "By how sure they were",
            "row",
            ("Confidence", "Forecasts", "Mean confidence", "Came true"),
            bins,
            note="Where mean confidence and came true agree, the confidence can be believed.",
        ),
        _limited(
            "next-pairs",
            "By agent",
            "pair",
            ("After", "Predicted next", "Forecasts", "Sure", "Mean confidence", "Came true"),
            pairs,
            2,
            note=f"(end): no further agent. Sure: a confidence above 70{figures.NO_BREAK}%, on enough earlier cases.",
        ),
    ]


def piece_title(row: LeftOutRow) -> str:
    """Name a piece that was left out."""
    return f"{row.tool or row.kind.replace('_', ' ')}, {row.agent}, before call {row.call:,}"


def piece_sizes(row: LeftOutRow) -> str:
    """Say how large a piece was, and what leaving it out saved."""
    tokens, sent, saved = map(figures.tokens, (row.tokens, row.sent_tokens, row.saved_tokens))
    return f"{tokens} → {sent} tokens, {saved} saved over calls"


_SHOWN = frozenset(
    [
        "usage",
        "ledgers",
        "facts",
        "skipped",
        "plan",
        "variance",
        "budget",
        "dearer",
        "worst_workflow",
        "simulator",
        "per_source",
        "per_workflow",
        "per_agent",
        "per_call",
        "per_kind",
        "per_stage",
        "against",
        "actions",
        "left_out",
        "next_agent",
        "next_agent_pairs",
        "next_agent_bins",
    ]
)
"""Parts of a report that have words, tables or charts of their own; any other is shown by the names of its fields."""

_TITLES = {
    "diff": "What was sent as differences",
    "loading": "Tools loaded when they are needed",
    "preload": "Agents loaded ahead",
}


def sections(report: ReplayReport) -> list[Section]:
    """Return the parts of a report that have no words of their own here, by the names of their fields."""
    found = []
    for name, part in report:
        if name in _SHOWN:
            continue
        if isinstance(part, BaseModel):
            found.append(_section(name, part))
        elif isinstance(part, list) and part and isinstance(part[0], BaseModel):
            rows = [row.model_dump() for row in part]
            title = _TITLES.get(name) or _words(name)
            found.append(Section(name, title, _summary(part[0]), [], [_generic_table(f"{name}-table", title, rows)]))
    return found


def _summary(part: BaseModel) -> str:
    """Return the first paragraph of what a class of the schema says about itself."""
    return " ".join((inspect.getdoc(type(part)) or "").partition("\n\n")[0].split())


def _section(name: str, part: BaseModel) -> Section:
    pairs: list[tuple[str, str]] = []
    tables: list[Table] = []
    for field, value in part.model_dump().items():
        if isinstance(value, dict) and all(not isinstance(each, dict | list) for each in value.values()):
            listed = sorted(value.items(), key=_largest_first) if _is_tally(value) else list(value.items())
            said = [
                f"{_plain_words(key)}: {_written(key if key.endswith('share') else field, each)}"
                for key, each in listed
            ]
            more = [f"... {len(said) - LINES:,} more"] if len(said) > LINES else []
            pairs.append((_words(field), "\n".join(said[:LINES] + more) or figures.UNKNOWN))
        elif isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
            tables.append(_generic_table(f"{name}-{field}", _words(field), value))
        elif not isinstance(value, dict | list):
            pairs.append((_words(field), _written(field, value)))
    return Section(name, _TITLES.get(name) or _words(name), _summary(part), pairs, tables)


def _is_tally(value: dict[str, Any]) -> bool:
    return all(isinstance(each, int) for each in value.values())


def _plain_words(key: str) -> str:
    return " ".join(figures.plain(key).split("_"))


def _largest_first(pair: tuple[str, Any]) -> tuple[float, str]:
    return (-pair[1] if isinstance(pair[1], int | float) else 0.0, pair[0])


def _generic_table(name: str, caption: str, rows: Sequence[dict[str, Any]]) -> Table:
    columns = [key for key, value in rows[0].items() if not isinstance(value, dict | list)]
    columns.sort(key=lambda key: not isinstance(rows[0][key], str | bool))
    cells = [[Cell(_written(key, row.get(key)), _number(row.get(key))) for key in columns] for row in rows]
    texts = sum(isinstance(rows[0][key], str | bool) for key in columns)
    return _limited(name, caption, "row", tuple(_words(key) for key in columns), cells, texts)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _words(field: str) -> str:
    return field.replace("_usd", "").replace("_", " ").capitalize()


def _written(field: str, value: Any) -> str:
    """Write a figure as its name says: money, share, tokens, time, or a plain number."""
    if value is None:
        return figures.UNKNOWN
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if field.endswith("usd"):
        return figures.usd(value)
    if "share" in field or field.endswith(("rate", "precision", "recall", "coverage", "confidence")):
        return figures.percent(value)
    if field.endswith("ms"):
        return figures.milliseconds(value)
    if "tokens" in field:
        return figures.tokens(value)
    return f"{value:,}" if isinstance(value, int) else figures.number(value, 3)


def _limited(
    name: str,
    caption: str,
    noun: str,
    headers: tuple[str, ...],
    rows: list[list[Cell]],
    texts: int = 1,
    *,
    note: str = "",
) -> Table:
    return Table(name, caption, noun, headers, rows[:ROWS], texts, max(0, len(rows) - ROWS), note)


def _spent(bill: Ledger, visible: Ledger) -> tuple[float, float]:
    return (bill.baseline or 0.0, visible.baseline or 0.0)


def _range(first: int, last: int) -> str:
    return f"{first}" if first == last else f"{first} to {last}"


def _whole(value: int) -> Cell:
    return Cell(f"{value:,}", value)


def _tokens(value: int) -> Cell:
    return Cell(figures.tokens(value), value)


def _ledger(ledger: Ledger, write: Any) -> Iterable[Cell]:
    yield Cell(write(ledger.baseline), ledger.baseline)
    yield Cell(write(ledger.planned), ledger.planned)
    yield _saved(ledger)


def _saved(ledger: Ledger) -> Cell:
    return Cell(figures.percent(ledger.saved_share), ledger.saved_share, ledger.saved_share)


def _ratio(part: int | None, whole: int | None) -> Cell:
    factor = part / whole if part is not None and whole else None
    return Cell(figures.times(factor), factor)
