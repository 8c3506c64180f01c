"""Reading rows of JSON values back, with the legend above them; `json_columns` shows what they look like."""

from __future__ import annotations

import json.decoder
from typing import TYPE_CHECKING, Any

from apportion.compression.strategies._json_shapes import ABSENT, WIDE, Field, Shape, is_number, without_number
from apportion.compression.strategies._json_signs import (
    BLOCK,
    CELL_ENDS,
    DEFAULT,
    DITTO,
    EMBEDDED,
    LEGEND,
    ROW,
    STRUCTURE,
)
from apportion.compression.strategies._json_text import LITERALS, Embedded, Number, Pairs, Style

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_scan_string: Callable[[str, int, bool], tuple[str, int]] = json.decoder.scanstring  # type: ignore[attr-defined]  # it is there


def read_legend(legend: str) -> tuple[Style, dict[str, Shape], list[int]]:
    """Return the style, the shapes by name, and the number of lines of each block."""
    sizes: list[int] = []
    reader = Reader(legend, 0, {}, [])
    words: list[str] = []
    shapes: dict[str, Shape] = {}
    while reader.position < len(legend):
        word = reader.until(" (")
        if reader.take("("):
            _read_fields(shapes.setdefault(word, Shape(word)), shapes, reader)
            reader.take(" ")
            continue
        reader.take(" ")
        if word.startswith(BLOCK):
            sizes = [int(size) for size in word[1:].split("+")]
        elif word:
            words.append(word)
    return Style.parse(" ".join(words)), shapes, sizes


def _read_fields(shape: Shape, shapes: dict[str, Shape], reader: Reader) -> None:
    """Read the fields of a shape; others that they name are made, to be read later."""
    while True:
        each = Field(reader.word(LEGEND))
        if reader.take(":"):
            each.is_list = reader.take("[")
            kind = reader.until("|)~]")
            each.is_list = each.is_list and reader.take("]")
            each.is_text = kind == "s"
            each.shape = None if each.is_text else shapes.setdefault(kind, Shape(kind))
        if reader.take("="):
            each.constant = reader.constant()
        elif reader.take("~"):
            each.default = reader.constant()
        shape.fields.append(each)
        if reader.take(")"):
            return
        reader.expect("|")


def cut_blocks(body: str, sizes: Sequence[int]) -> tuple[str, list[str]]:
    """Return the body without its blocks, and the blocks."""
    blocks = []
    for number in range(len(sizes), 0, -1):
        start = len(body)
        for _ in range(sizes[number - 1]):
            start = body.rfind("\n", 0, start)
        title = f"\n${number}"
        if start < 0 or not body.endswith(title, 0, start):
            raise ValueError(f"block {number} is missing")
        blocks.append(body[start + 1 :])
        body = body[: start - len(title)]
    return body, blocks[::-1]


class Reader:
    """Reads values from a position on; `position` is behind what was read."""

    def __init__(
        self,
        text: str,
        position: int,
        shapes: dict[str, Shape],
        blocks: Sequence[str],
        above: dict[str, Any] | None = None,
    ) -> None:
        self.position = position
        self._text = text
        self._shapes = shapes
        self._blocks = blocks
        self._above: dict[str, Any] = {} if above is None else above

    def take(self, sign: str) -> bool:
        """Read a sign if it comes next."""
        found = self._text.startswith(sign, self.position)
        self.position += len(sign) if found else 0
        return found

    def expect(self, sign: str) -> None:
        """Read a sign that must come next."""
        if not self.take(sign):
            raise ValueError(f"expected {sign!r} at {self.position}")

    def until(self, ends: str | frozenset[str]) -> str:
        """Read up to one of some characters, or the end."""
        text, start, position = self._text, self.position, self.position
        while position < len(text) and text[position] not in ends:
            position += 1
        self.position = position
        return text[start:position]

    def word(self, ends: frozenset[str]) -> str:
        """Read a key, quoted or bare."""
        return self._string() if self._text.startswith('"', self.position) else self.until(ends)

    def top(self) -> Any:
        """Read a value where rows may stand on lines of their own."""
        for name_end in ("[\n", "("):
            shape = self._named(name_end)
            if shape is not None:
                return self._table(shape) if name_end == "[\n" else self._object(shape)
        if self.take("[\n"):
            return self._mixed_table()
        return self.inline(value=self.top)

    def lines(self) -> list[Any]:
        """Read values that stood on a line each."""
        shape = self._named("[\n")
        if shape is not None:
            return self._table(shape)
        self.expect("[\n")
        return self._mixed_table()

    def inline(self, field: Field | None = None, value: Callable[[], Any] | None = None) -> Any:
        """Read a value within a row, with what the legend says about it; inner values by another function."""
        if self.take(EMBEDDED):
            spaced = self.take(EMBEDDED)
            return Embedded(self.inline(), spaced)
        if self.take("{"):
            return self._pairs(value or self.inline)
        if self.take("["):
            item = Field("", shape=field.shape) if field and field.is_list else None
            return self._list(value or (lambda: self.inline(item)))
        if field and field.shape and not field.is_list and self.take("("):
            return self._object(field.shape)
        shape = self._named("(")
        if shape is not None:
            return self._object(shape)
        return self.scalar(STRUCTURE, is_text=field is not None and field.is_text)

    def scalar(self, ends: frozenset[str], *, is_text: bool) -> Any:
        """Read a string, number, truth value, null or block."""
        if self._text.startswith('"', self.position):
            return self._string()
        word = self.until(ends)
        if word.startswith(BLOCK):
            return self._blocks[int(word[1:]) - 1]
        if is_text:
            return word
        return LITERALS[word] if word in LITERALS else Number(word) if is_number(word) else word

    def constant(self) -> Any:
        """Read a value of a legend."""
        if self.take("{}"):
            return Pairs()
        return [] if self.take("[]") else self.scalar(STRUCTURE, is_text=False)

    def _string(self) -> str:
        string, self.position = _scan_string(self._text, self.position + 1, True)
        return string

    def _named(self, opening: str) -> Shape | None:
        """Read the name of a shape and what follows it, if both come next."""
        for length in (1, 2, 3):
            end = self.position + length
            name = self._text[self.position : end]
            if self._text.startswith(opening, end) and name in self._shapes:
                self.position = end + len(opening)
                return self._shapes[name]
        return None

    def _pairs(self, value: Callable[[], Any]) -> Pairs:
        pairs = Pairs()
        while not self.take("}"):
            if pairs:
                self.expect(",")
            key = self.word(LEGEND)
            self.expect(":")
            pairs.append((key, value()))
        return pairs

    def _list(self, value: Callable[[], Any]) -> list[Any]:
        items: list[Any] = []
        while not self.take("]"):
            if items:
                self.expect(",")
            items.append(value())
        return items

    def _table(self, shape: Shape) -> list[Any]:
        rows: list[Any] = []
        while not self.take("]"):
            rows.append(self._row(shape))
            self.expect("\n")
        return rows

    def _mixed_table(self) -> list[Any]:
        rows: list[Any] = []
        while not self.take("]"):
            shape = self._named(":")
            rows.append(self.inline() if shape is None else self._row(shape))
            self.expect("\n")
        return rows

    def _row(self, shape: Shape) -> Pairs:
        return self._cells(shape, "\n", self._cell)

    def _object(self, shape: Shape) -> Pairs:
        pairs = self._cells(shape, ")", self.inline)
        self.expect(")")
        return pairs

    def _cells(self, shape: Shape, end: str, read_cell: Callable[[Field], Any]) -> Pairs:
        wide = len(shape.shown) > WIDE
        found = self._keyed(shape, end, read_cell) if wide else self._by_place(shape, read_cell)
        pairs = Pairs()
        keys: set[str] = set()
        for each in shape.fields:
            value = found[each.key] if each.constant is ABSENT else each.constant
            if value is not ABSENT:
                pairs.append((without_number(each.key, keys), value))
                keys.add(each.key)
        return pairs

    def _by_place(self, shape: Shape, read_cell: Callable[[Field], Any]) -> dict[str, Any]:
        found = {}
        for number, each in enumerate(shape.shown):
            if number:
                self.expect("|")
            if self._text[self.position : self.position + 1] in CELL_ENDS:
                found[each.key] = ABSENT
            elif each.default is not ABSENT and self._is(DEFAULT):
                found[each.key] = each.default
            else:
                found[each.key] = self._value(each, read_cell)
        return found

    def _is(self, sign: str) -> bool:
        """Read a sign if it is all of a cell."""
        return self._text[self.position + 1 : self.position + 2] in CELL_ENDS and self.take(sign)

    def _value(self, field: Field, read_cell: Callable[[Field], Any]) -> Any:
        value = self._above[field.key] if self._is(DITTO) else read_cell(field)
        self._above[field.key] = value
        return value

    def _keyed(self, shape: Shape, end: str, read_cell: Callable[[Field], Any]) -> dict[str, Any]:
        by_key = {each.key: each for each in shape.shown}
        found = {each.key: each.default for each in shape.shown}
        first = True
        while not self._text.startswith(end, self.position):
            if not first:
                self.expect("|")
            first = False
            lacking = self.take("-")
            each = by_key[self.word(LEGEND)]
            if lacking:
                found[each.key] = ABSENT
                continue
            self.expect(":")
            found[each.key] = self._value(each, read_cell)
        return found

    def _cell(self, field: Field) -> Any:
        if self._text[self.position : self.position + 1] in {"[", "{", "(", "%"} or self._shape_ahead(field):
            return self.inline(field)
        return self.scalar(ROW, is_text=field.is_text)

    def _shape_ahead(self, field: Field) -> bool:
        """Say whether an object with its name in front comes next; bare text of a row may look the same."""
        if field.is_text:
            return False
        position = self.position
        shape = self._named("(")
        self.position = position
        return shape is not None
