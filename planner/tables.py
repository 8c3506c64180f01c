"""Rows as text and as HTML; whatever stands in a cell may come from a log, so HTML is escaped."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from apportion.planner.problem import MILLION

if TYPE_CHECKING:
    from collections.abc import Sequence


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    r"""Return the lines of a table: the first column to the left, the others to the right.

    >>> print(*text_table(("agent", "tokens"), [("main", "1,200"), ("Explore", "80")]), sep="\n")
    agent    tokens
    main      1,200
    Explore      80
    """
    grid = [tuple(map(one_line, row)) for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if position else cell.ljust(width)
            for position, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in grid
    ]


def html_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table for a notebook."""
    lines = [_row("th", head), *[_row("td", row) for row in rows]]
    return f"<table>{''.join(lines)}</table>"


def _row(tag: str, cells: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"


def one_line(text: str) -> str:
    """Return a text that can stand in a terminal: control characters are spelt out."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def usd(nusd: int, *, sign: bool = False) -> str:
    """Return an amount in US dollars.

    >>> usd(1_234_567_890), usd(-2_500, sign=True)
    ('$1.2346', '-$0.0000025')
    """
    if not nusd:
        return "$0"
    shown = f"${abs(nusd) / 1e9:,.{4 if abs(nusd) >= MILLION else 7}f}"
    if nusd < 0:
        return f"-{shown}"
    return f"+{shown}" if sign else shown


def points(amount: float, *, sign: bool = False) -> str:
    """Return an amount of points, with a decimal where it is small."""
    decimals = 0 if abs(amount) >= 100 or amount == 0 else 1
    return f"{amount:+,.{decimals}f}" if sign and amount else f"{amount:,.{decimals}f}"
