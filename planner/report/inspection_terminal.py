"""An inspection in the terminal: what was saved and lost first, then the lines side by side."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Final

from rich.cells import set_cell_size
from rich.text import Text

from apportion.planner.report import figures
from apportion.planner.report.inspection import grouped_reasons

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rich.console import Console

    from apportion.planner.report.inspection import Inspection, Row

BACK: Final = {
    "restored": "restored from what is visible",
    "expanded": "had back by expanding a handle",
    None: "lost",
}
"""How facts that do not show can be had back, in words."""

AROUND = 2
"""Equal lines that are shown before and after those that differ."""

MAX_LINE = 2_000
"""Characters of a line that are shown."""

LISTED = 10
"""Parts that were left out, facts and reasons, of which the terminal shows so many each."""

_NUMBER = 6
_GUTTER = 3


def render_inspection(inspection: Inspection, console: Console, *, lines: int | None = 60) -> None:
    """Show an inspection side by side.

    Args:
        inspection: What was done.
        console: Where it goes; without a terminal behind it no colour codes are written.
        lines: Rows that are shown at most; `None` for all.
    """

    def line(text: str, style: str = "") -> None:
        for part in textwrap.wrap(figures.plain(text), console.width, subsequent_indent="  ") or [""]:
            console.print(_encodable(part, console, style), soft_wrap=True)

    for each in summary(inspection):
        line(each)
    for title, items in (
        ("Left out", [_left_out(each) for each in inspection.left_out]),
        ("Facts that do not show", list(inspection.facts.missing)),
        ("What strategies did not do, and why", grouped_reasons(inspection.reasons, inspection.steps)),
    ):
        if items:
            line("")
            line(f"{title}:", "bold")
            for item in items[:LISTED]:
                line(f"- {item[:MAX_LINE]}")
            if len(items) > LISTED:
                line(f"  and {len(items) - LISTED:,} more", "dim")
    line("")
    rows = list(folded(inspection.rows))
    for row in rows[:lines]:
        for part, style in _row(row, (console.width - 2 * _NUMBER - _GUTTER) // 2):
            console.print(_encodable(part, console, style), end="", soft_wrap=True)
        console.print()
    if lines is not None and len(rows) > lines:
        line(f"and {figures.count(len(rows) - lines, 'more row')}; --lines shows them", "dim")


def summary(inspection: Inspection) -> Iterator[str]:
    """Yield in a few lines what was done."""
    facts = inspection.facts
    saved = figures.percent(inspection.saved_share)
    yield f"tokens: {inspection.original_tokens:,} before, {inspection.tokens:,} after, {saved} saved"
    yield f"steps:  {', '.join(inspection.steps) or 'none, the original is sent'}"
    hidden = f", {len(facts.missing):,} {BACK[facts.back]}" if facts.missing else ""
    yield f"facts:  {facts.visible:,} of {facts.total:,} visible word for word{hidden}"


def folded(rows: Sequence[Row]) -> Iterator[Row | int]:
    """Yield the rows that differ and what is around them; a number stands for that many equal ones."""
    near = bytearray(len(rows))
    for number, row in enumerate(rows):
        if not row.same:
            start = max(0, number - AROUND)
            near[start : number + AROUND + 1] = b"\1" * (min(len(rows), number + AROUND + 1) - start)
    skipped = 0
    for row, wanted in zip(rows, near, strict=True):
        if wanted:
            if skipped:
                yield skipped
            skipped = 0
            yield row
        else:
            skipped += 1
    if skipped:
        yield skipped


def shown(text: str) -> str:
    """Return a line as it is shown: harmless, with blanks for tabs, and not too long."""
    cut = figures.plain(text[:MAX_LINE].expandtabs(4))
    return cut + "..." if len(text) > MAX_LINE else cut


def _row(row: Row | int, width: int) -> Iterable[tuple[str, str]]:
    if isinstance(row, int):
        yield f"{'':{_NUMBER}} ({figures.count(row, 'equal line')})", "dim"
        return
    for place, cell in enumerate((row.before, row.after)):
        style = "" if row.same else "red" if place == 0 else "green"
        number, text = ("", "") if cell is None else (str(cell[0]), shown(cell[1]))
        yield f"{number:>{_NUMBER - 1}} ", "dim"
        yield set_cell_size(text, width), style
        if place == 0:
            yield " | ", "dim"


def _left_out(part: tuple[int, int, int, str, str | None]) -> str:
    first, last, size, reason, handle = part
    lines = f"line {first:,}" if first == last else f"lines {first:,}-{last:,}"
    way = "cannot be had back" if handle is None else f"apportion expand {handle}"
    return f"{lines}, {size:,} bytes: {reason or 'no reason given'} ({way})"


def _encodable(text: str, console: Console, style: str) -> Text:
    encoding = console.encoding
    return Text(text.encode(encoding, "replace").decode(encoding), style=style)
