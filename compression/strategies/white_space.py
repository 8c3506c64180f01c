"""White space that follows a rule is written as the rule.

    [space: %6d→]
    1 import os
    2 def main():

stands for `     1→import os` and so on, as tools show files with line numbers: the rule is how `printf` wrote them. A
blank stands for what was behind the number, and nothing at all before a tab. `CRLF` says that each line end was a
carriage return and a line feed; `padded tables` that the cells of Markdown tables were padded to the width of their
column.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

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
SIGNS = {"→": "→", "\t": "\\t", ": ": ": %s"}
"""What tools write behind line numbers, and how the rule spells it."""


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
        numbering = _Numbering.of(lines)
        if numbering.changes:
            lines = [numbering.shorten(line) for line in lines]
            rules.append(numbering.spell())
        narrow = _with_tables(lines, _narrow) if "|" in text else lines
        if narrow != lines and _with_tables(narrow, _padded) == lines:
            lines = narrow
            rules.append(PADDED)
        return f"[space: {', '.join(rules)}]\n" + "\n".join(lines) if rules else None

    def decode(self, form: str, held: Sequence[Held]) -> str:  # noqa: ARG002  (the form says it all)
        """Return the text with its white space."""
        head, body = split_form(form, "space:")
        rules = head.split(", ")
        lines = body.split("\n")
        if PADDED in rules:
            lines = _with_tables(lines, _padded)
        for rule in rules:
            if rule.startswith("%"):
                lines = list(map(_Numbering.parse(rule).restore, lines))
        return ("\r\n" if CRLF in rules else "\n").join(lines)


def _leading_digits(line: str) -> int:
    begun = line[: MAX_DIGITS + 1]
    digits = len(begun) - len(begun.lstrip("0123456789"))
    return digits if digits <= MAX_DIGITS else 0


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


class _Numbering(NamedTuple):
    """How line numbers were written.

    Attributes:
        width: To how many characters they were padded; 0 where they were not.
        sign: What stood behind them and is left out; empty where nothing is.
    """

    width: int
    sign: str

    @classmethod
    def of(cls, lines: Sequence[str]) -> _Numbering:
        """Return the numbering of a text, as far as no line of it would be taken for another."""
        width = _number_width(lines)
        if any(0 < _leading_digits(line) < width for line in lines):
            width = 0
        behind = [rest for rest in (_behind_number(line, width) for line in lines) if rest]
        signs = [sign for sign in SIGNS if sum(rest.startswith(sign) for rest in behind) >= MIN_NUMBERED_LINES]
        sign = signs[0] if signs else ""
        taken = (" ",) if sign == "\t" else (" ", "\t")
        return cls(width, "" if any(rest.startswith(taken) for rest in behind) else sign)

    @property
    def changes(self) -> bool:
        """Whether anything is left out."""
        return bool(self.width or self.sign)

    def spell(self) -> str:
        """Return the numbering as `printf` has it."""
        return f"%{self.width or ''}d{SIGNS.get(self.sign, '')}"

    @classmethod
    def parse(cls, rule: str) -> _Numbering:
        """Return the numbering of a rule."""
        width, _, spelled = rule[1:].partition("d")
        return cls(int(width or 0), next((sign for sign, name in SIGNS.items() if name == spelled), ""))

    def shorten(self, line: str) -> str:
        """Return a line without the padding, and with a blank or nothing for the sign."""
        if self.width and _is_aligned(line, self.width):
            line = line.lstrip(" ")
        digits = _leading_digits(line)
        if not (digits and self.sign and line.startswith(self.sign, digits)):
            return line
        rest = line[digits + len(self.sign) :]
        return line[:digits] + ("" if rest.startswith("\t") else " ") + rest

    def restore(self, line: str) -> str:
        """Return a line as it was."""
        digits = _leading_digits(line)
        if digits and self.sign and line.startswith((" ", "\t"), digits):
            line = line[:digits] + self.sign + line[digits + (line[digits] == " ") :]
        return " " * (self.width - digits) + line if digits else line


def _is_aligned(line: str, width: int) -> bool:
    bare = line.lstrip(" ")
    digits = _leading_digits(bare)
    return 0 < digits < width and len(line) - len(bare) + digits == width


def _behind_number(line: str, width: int) -> str:
    """Return what follows the number of a line, padded to a width or not at all; empty where there is none."""
    bare = line.lstrip(" ") if width and _is_aligned(line, width) else line
    return bare[_leading_digits(bare) :] if _leading_digits(bare) else ""


def _with_tables(lines: Sequence[str], change: object) -> list[str]:
    """Return the lines with each Markdown table changed."""
    return [line for block, is_table in _blocks(lines) for line in (change(block) if is_table else block)]  # type: ignore[operator]


def _blocks(lines: Sequence[str]) -> Iterator[tuple[list[str], bool]]:
    block: list[str] = []
    last = 0
    for line in lines:
        cells = len(_cells(line))
        if block and cells != last:
            yield block, last > 0 and len(block) > 2
            block = []
        block.append(line)
        last = cells
    if block:
        yield block, last > 0 and len(block) > 2


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
