"""White space that follows a rule is written as the rule.

    [white space: numbers right-aligned to 6, blank for →]
    1 import os
    2 def main():

stands for `     1→import os` and so on, as tools show files with line numbers. `CRLF` says that each line
end was a carriage return and a line feed; `padded tables` that the cells of Markdown tables were padded to the width of
their column.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from apportion.compression.strategies.lossless import LosslessStrategy, split_form

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from apportion.compression.strategies.types import Held, Item, Query

MIN_NUMBERED_LINES = 5
"""Fewer numbered lines do not pay for the rule."""

MAX_DIGITS = 9
"""A longer run of digits is no line number."""

CRLF = "CRLF"
PADDED = "padded tables"
ALIGNED = "numbers right-aligned to "
SHOWN = {"→": "blank for →", "\t": "blank for tab", ": ": "blank for colon"}
"""What stood behind line numbers and is shown as a blank, with the rule that says so."""


class WhiteSpace(LosslessStrategy):
    """Leaves out carriage returns, the padding of line numbers and that of table cells, where a rule restores them."""

    name = "white_space"

    def encode(self, text: str, item: Item, query: Query) -> str | None:  # noqa: ARG002  (the text says it all)
        """Return the text without such white space, or `None` where there is none."""
        rules = []
        if "\r" in text:
            bare = text.replace("\r\n", "\n")
            if bare.replace("\n", "\r\n") == text:
                text, rules = bare, [CRLF]
        lines = text.split("\n")
        width = _number_width(lines)
        if width and not any(_stripped_number(line, width) for line in lines):
            lines = [line.lstrip(" ") if _is_aligned(line, width) else line for line in lines]
            rules.append(f"{ALIGNED}{width}")
        sign = _behind_numbers(lines)
        if sign:
            lines = [_swapped(line, sign, " ") for line in lines]
            rules.append(SHOWN[sign])
        narrow = _with_tables(lines, _narrow)
        if narrow != lines and _with_tables(narrow, _padded) == lines:
            lines = narrow
            rules.append(PADDED)
        return f"[white space: {', '.join(rules)}]\n" + "\n".join(lines) if rules else None

    def decode(self, form: str, held: Sequence[Held]) -> str:  # noqa: ARG002  (the form says it all)
        """Return the text with its white space."""
        head, body = split_form(form, "white space:")
        rules = head.split(", ")
        lines = body.split("\n")
        if PADDED in rules:
            lines = _with_tables(lines, _padded)
        for sign, rule in SHOWN.items():
            if rule in rules:
                lines = [_swapped(line, " ", sign) for line in lines]
        for rule in rules:
            if rule.startswith(ALIGNED):
                width = int(rule.removeprefix(ALIGNED))
                lines = [" " * _stripped_number(line, width) + line for line in lines]
        return ("\r\n" if CRLF in rules else "\n").join(lines)


def _leading_digits(line: str) -> int:
    end = 0
    while end <= MAX_DIGITS and end < len(line) and line[end] in "0123456789":
        end += 1
    return end if 0 < end <= MAX_DIGITS else 0


def _number_width(lines: Sequence[str]) -> int:
    """Return to which width most numbers at the beginning of lines are aligned; 0 where there are too few."""
    widths: dict[int, int] = {}
    for line in lines:
        if line.startswith(" "):
            bare = line.lstrip(" ")
            digits = _leading_digits(bare)
            if digits:
                width = len(line) - len(bare) + digits
                widths[width] = widths.get(width, 0) + 1
    width = max(widths, key=lambda width: widths[width], default=0)
    return width if width and widths[width] >= MIN_NUMBERED_LINES else 0


def _is_aligned(line: str, width: int) -> bool:
    bare = line.lstrip(" ")
    digits = _leading_digits(bare)
    return 0 < digits < width and len(line) - len(bare) + digits == width


def _behind_numbers(lines: Sequence[str]) -> str:
    """Return what stands behind the numbers of a file's lines, if a blank could; empty otherwise."""
    behind = [line[digits : digits + 2] for line in lines if (digits := _leading_digits(line))]
    if any(each.startswith(" ") for each in behind):
        return ""
    return next((sign for sign in SHOWN if sum(each.startswith(sign) for each in behind) >= MIN_NUMBERED_LINES), "")


def _swapped(line: str, sign: str, other: str) -> str:
    """Return a line with another sign behind its number."""
    digits = _leading_digits(line)
    return line[:digits] + other + line[digits + len(sign) :] if digits and line.startswith(sign, digits) else line


def _stripped_number(line: str, width: int) -> int:
    """Return how many blanks were stripped from in front of a number; 0 where none were."""
    digits = _leading_digits(line)
    return width - digits if 0 < digits < width else 0


def _with_tables(lines: Sequence[str], change: object) -> list[str]:
    """Return the lines with each Markdown table changed."""
    return [line for block, is_table in _blocks(lines) for line in (change(block) if is_table else block)]  # type: ignore[operator]


def _blocks(lines: Sequence[str]) -> Iterator[tuple[list[str], bool]]:
    block: list[str] = []
    for line in lines:
        cells = _cells(line)
        last = _cells(block[-1]) if block else []
        if block and (len(cells) != len(last)):
            yield block, len(last) > 0 and len(block) > 2
            block = []
        block.append(line)
    if block:
        yield block, len(_cells(block[-1])) > 0 and len(block) > 2


def _cells(line: str) -> list[str]:
    return line[1:-1].split("|") if len(line) > 2 and line[0] == line[-1] == "|" else []


def _is_rule(cell: str) -> bool:
    return not cell.strip("-: ") and "-" in cell


def _narrow(table: list[str]) -> list[str]:
    return ["|" + "|".join(map(_narrow_cell, _cells(line))) + "|" for line in table]


def _narrow_cell(cell: str) -> str:
    if _is_rule(cell):
        return cell[:1] + "-" + cell[-1:] if not cell.strip("-") else cell
    return cell.rstrip(" ") + (" " if cell.endswith(" ") else "")


def _padded(table: list[str]) -> list[str]:
    rows = [_cells(line) for line in table]
    widths = [
        max(len(cell) for cell in column if not _is_rule(cell)) if any(not _is_rule(cell) for cell in column) else 0
        for column in zip(*rows, strict=True)
    ]
    return [
        "|"
        + "|".join(
            cell.ljust(width, "-" if cell == "---" else " ") if not _is_rule(cell) or cell == "---" else cell
            for cell, width in zip(row, widths, strict=True)
        )
        + "|"
        for row in rows
    ]
