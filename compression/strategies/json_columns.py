"""JSON with the keys written once: rows of values under a legend that says which keys they belong to.

    [json A(id|name|private=false)]
    @[
    1|alpha
    2|beta gamma
    ]

stands for `[{"id":1,"name":"alpha","private":false},{"id":2,"name":"beta gamma","private":false}]`. The legend names
each kind of object that occurs twice, wherever it stands: `key=value` is the same in all of them, `key~value` is what
`_` stands for, `^` is the value of the object of that kind before, `key:B` holds objects of kind B, `key:[B]` lists of them, `key:s` text without quotes. Nothing between
two bars is a key that this object lacks. Text of several lines stands literally in blocks at the end, as `$1`, `$2`.

`%` stands before a string that is minified JSON itself, `%%` where that has blanks, `*` before a list that was no list
but one value per line. Numbers keep their spelling and objects their order; white space is one style, named in the legend.
"""

from __future__ import annotations

import json
from json.decoder import scanstring
from typing import TYPE_CHECKING, Any

from apportion.compression.strategies._json_shapes import (
    ABSENT,
    WIDE,
    Field,
    Shape,
    find_shapes,
    is_number,
    shape_of,
)
from apportion.compression.strategies._json_text import (
    LITERALS,
    Embedded,
    Number,
    Pairs,
    Segment,
    Style,
    embed,
    find_segments,
    guess_style,
    write,
)
from apportion.compression.strategies.lossless import LosslessStrategy, split_form

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from apportion.compression.strategies.types import Held, Item, Query

MARKS = ("@", "~", "^", "§", "¤", "¦", "‖", "※", "†")
"""What can begin a rewritten part; one is chosen that the rest of the text does not hold at all."""

MIN_BLOCK_LINES = 2
"""Text of fewer lines stays in its row, with its line ends escaped."""

MIN_DITTO_CHARS = 5
"""A shorter value is written again."""

DITTO = "^"
"""Stands for the value of the object before."""

_STRUCTURE = frozenset('|,()[]{}"\n')
"""Characters that end a bare word anywhere but in a row of its own."""

_EMBEDDED, _SPACED = "%", "%%"
"""Before the value of a string that is JSON itself, minified or with blanks."""

_LINES = "*"
"""Before a list of values that stood on a line each."""

_CELL_ENDS = frozenset({"|", ")", "\n", ""})

_LEGEND = _STRUCTURE | frozenset("=~:; ")


class JsonColumns(LosslessStrategy):
    """Writes arrays of objects, flat or nested, as rows under a legend; also inside other text, and one per line."""

    name = "json_columns"

    def encode(self, text: str, item: Item, query: Query) -> str | None:  # noqa: ARG002  (the text says it all)
        """Return the text with its JSON as rows."""
        style, segments = _exact_segments(text)
        if not segments:
            return None
        rest = _between(text, segments)
        mark = next((mark for mark in MARKS if not any(mark in part for part in rest)), None)
        if mark is None:
            return None
        values = [embed(segment.value) for segment in segments]
        shapes = find_shapes(values)
        writer = _Writer(shapes)
        parts = [rest[0]]
        for first, last in _runs(rest, values):
            some = values[first:last]
            parts += (mark, writer.lines(some) if len(some) > 1 else writer.top(some[0]), rest[last])
        legend = _legend(style, shapes, writer.blocks)
        blocks = "".join(f"\n${number}\n{block}" for number, block in enumerate(writer.blocks, 1))
        return f"[json{legend}; {mark}]\n{''.join(parts)}{blocks}"

    def decode(self, form: str, held: Sequence[Held]) -> str:  # noqa: ARG002  (the form says it all)
        """Return the text, its JSON in the style that the legend names."""
        head, body = split_form(form, "json")
        legend, _, mark = head.rpartition("; ")
        style, shapes, sizes = _read_legend(legend)
        body, blocks = _cut_blocks(body, sizes)
        parts, position = [], 0
        above: dict[tuple[str, str], Any] = {}
        while (found := body.find(mark, position)) >= 0:
            reader = _Reader(body, found + len(mark), shapes, blocks, above)
            values = reader.lines() if reader.take(_LINES) else [reader.top()]
            parts += (body[position:found], "\n".join(write(value, style) for value in values))
            position = reader.position
        return "".join([*parts, body[position:]])


def _exact_segments(text: str) -> tuple[Style, list[Segment]]:
    """Return the JSON in a text that has one style, and that style: the one of the longest piece."""
    segments = list(find_segments(text))
    if not segments:
        return Style(), []
    style = guess_style(text, max(segments, key=lambda segment: segment.end - segment.start))
    return style, [each for each in segments if write(each.value, style) == text[each.start : each.end]]


def _between(text: str, segments: Sequence[Segment]) -> list[str]:
    """Return the text before, between and behind the segments."""
    starts = [0, *(segment.end for segment in segments)]
    ends = [*(segment.start for segment in segments), len(text)]
    return [text[start:end] for start, end in zip(starts, ends, strict=True)]


def _runs(rest: Sequence[str], values: Sequence[Any]) -> Iterator[tuple[int, int]]:
    """Yield the first and behind the last of values that are objects on a line each, and any other value alone."""
    first = 0
    while first < len(values):
        last = first + 1
        while last < len(values) and rest[last] == "\n" and all(isinstance(each, Pairs) for each in values[first : last + 1 : last - first]):
            last += 1
        yield first, last
        first = last


class _Writer:
    """Writes values; texts of several lines are collected as blocks.

    Args:
        shapes: Shapes of the objects, by their keys.
    """

    def __init__(self, shapes: dict[tuple[str, ...], Shape]) -> None:
        self.blocks: list[str] = []
        self._shapes = shapes
        self._numbers: dict[str, int] = {}
        self._above: dict[tuple[str, str], Any] = {}

    def top(self, value: Any, shape: Shape | None = None) -> str:
        """Return a value where rows may stand on lines of their own; its shape may be known from the legend."""
        if isinstance(value, Pairs):
            own = shape_of(value, self._shapes)
            if own is not None:
                return ("" if own is shape else own.name) + self._object(value, own, self.top)
            return "{" + ",".join(f"{_key(key)}:{self.top(inner)}" for key, inner in value) + "}"
        if isinstance(value, list) and len(value) > 1 and all(isinstance(inner, Pairs) for inner in value):
            return self._table(value)
        if isinstance(value, list):
            return "[" + ",".join(map(self.top, value)) + "]"
        return self.inline(value)

    def lines(self, values: Sequence[Any]) -> str:
        """Return values that stood on a line each."""
        return _LINES + self._table(values)

    def inline(self, value: Any, field: Field | None = None) -> str:
        """Return a value within a row."""
        known = field.shape if field else None
        if isinstance(value, Embedded):
            return (_SPACED if value.spaced else _EMBEDDED) + self.inline(value.value)
        if isinstance(value, Pairs):
            own = shape_of(value, self._shapes)
            if own is not None:
                return ("" if own is known and not (field and field.is_list) else own.name) + self._object(
                    value, own, self.inline
                )
            return "{" + ",".join(f"{_key(key)}:{self.inline(inner)}" for key, inner in value) + "}"
        if isinstance(value, list):
            item = Field("", shape=known) if field and field.is_list else None
            return "[" + ",".join(self.inline(inner, item) for inner in value) + "]"
        return self._scalar(value, _STRUCTURE, is_text=field is not None and field.is_text)

    def _table(self, values: list[Pairs]) -> str:
        shapes = {id(shape_of(value, self._shapes)) for value in values}
        shape = shape_of(values[0], self._shapes)
        if len(shapes) == 1 and shape is not None:
            return f"{shape.name}[\n" + "".join(self._row(value, shape) + "\n" for value in values) + "]"
        return "[\n" + "".join(self._mixed_row(value) + "\n" for value in values) + "]"

    def _mixed_row(self, value: Pairs) -> str:
        shape = shape_of(value, self._shapes)
        return self.inline(value) if shape is None else f"{shape.name}:{self._row(value, shape)}"

    def _row(self, value: Pairs, shape: Shape) -> str:
        return self._cells(value, shape, self._cell)

    def _object(self, value: Pairs, shape: Shape, write_value: Callable[..., str]) -> str:
        return "(" + self._cells(value, shape, lambda inner, each: self.inline(inner, each)) + ")"

    def _cells(self, value: Pairs, shape: Shape, write_cell: Callable[[Any, Field], str]) -> str:
        present = dict(value)
        wide = len(shape.shown) > WIDE
        cells = []
        for each in shape.shown:
            inner = present.get(each.key, ABSENT)
            is_default = each.default is not ABSENT and type(inner) is type(each.default) and inner == each.default
            if inner is ABSENT or is_default:
                if not wide:
                    cells.append("_" if is_default else "")
                elif inner is ABSENT and each.default is not ABSENT:
                    cells.append(f"-{_key(each.key)}")
                continue
            same = self._is_above(shape, each, inner)
            cells.append((f"{_key(each.key)}:" if wide else "") + (DITTO if same else write_cell(inner, each)))
        return "|".join(cells)

    def _is_above(self, shape: Shape, field: Field, value: Any) -> bool:
        """Say whether a value is the same as that of the object before, and long enough to say so; take note of it."""
        known = value if isinstance(value, str) else write(value, Style())
        same = self._above.get((shape.name, field.key)) == (type(value), known)
        self._above[shape.name, field.key] = (type(value), known)
        return same and len(known) >= MIN_DITTO_CHARS

    def _cell(self, value: Any, field: Field) -> str:
        if isinstance(value, (list, Embedded)):
            return self.inline(value, field)
        return self._scalar(value, frozenset("|\n"), is_text=field.is_text)

    def _scalar(self, value: Any, ends: frozenset[str], *, is_text: bool) -> str:
        if isinstance(value, Number):
            return value
        if not isinstance(value, str):
            return "null" if value is None else "true" if value else "false"
        if value.count("\n") >= MIN_BLOCK_LINES and _is_text(value):
            if value not in self._numbers:
                self.blocks.append(value)
                self._numbers[value] = len(self.blocks)
            return f"${self._numbers[value]}"
        return value if _is_bare(value, ends, is_text=is_text) else _quoted(value)


def _is_text(value: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in value)


def _is_bare(value: str, ends: frozenset[str], *, is_text: bool) -> bool:
    if not value or value[0] in '([{"$%_^- \t' or value[-1] in " \t" or not value.isprintable() or set(value) & ends:
        return is_text and value[:1] == "-" and is_number(value)
    return is_text or not (is_number(value) or value in LITERALS)


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=not _is_text(value))


def _key(key: str) -> str:
    return key if _is_bare(key, _LEGEND, is_text=True) else _quoted(key)


def _legend(style: Style, shapes: dict[tuple[str, ...], Shape], blocks: Sequence[str]) -> str:
    words = style.words()
    distinct = {shape.name: shape for shape in shapes.values()}
    parts = [f" {words}"] if words else []
    parts += [f" {name}({'|'.join(map(_field, shape.fields))})" for name, shape in distinct.items()]
    if blocks:
        parts.append(" $" + "+".join(str(block.count("\n") + 1) for block in blocks))
    return "".join(parts)


def _field(field: Field) -> str:
    key = _key(field.key)
    if field.constant is not ABSENT:
        return f"{key}={_constant(field.constant)}"
    if field.shape is not None:
        key += f":[{field.shape.name}]" if field.is_list else f":{field.shape.name}"
    elif field.is_text:
        key += ":s"
    return key if field.default is ABSENT else f"{key}~{_constant(field.default)}"


def _constant(value: Any) -> str:
    if isinstance(value, Number):
        return value
    if isinstance(value, list):
        return "{}" if isinstance(value, Pairs) else "[]"
    if isinstance(value, str):
        return value if _is_bare(value, _STRUCTURE | {";"}, is_text=False) else _quoted(value)
    return "null" if value is None else "true" if value else "false"


def _read_legend(legend: str) -> tuple[Style, dict[str, Shape], list[int]]:
    """Return the style, the shapes by name, and the number of lines of each block."""
    sizes: list[int] = []
    reader = _Reader(legend, 0, {}, [])
    words, shapes = [], {}
    while reader.position < len(legend):
        word = reader.until(" (")
        if reader.take("("):
            shapes[word] = _read_shape(word, reader)
            reader.take(" ")
            continue
        reader.take(" ")
        if word.startswith("$"):
            sizes = [int(size) for size in word[1:].split("+")]
        elif word:
            words.append(word)
    for shape in shapes.values():
        for each in shape.fields:
            if isinstance(each.shape, str):
                each.shape = shapes[each.shape]
    return Style.parse(" ".join(words)), shapes, sizes


def _read_shape(name: str, reader: _Reader) -> Shape:
    shape = Shape(name)
    while True:
        each = Field(reader.word(_LEGEND))
        if reader.take(":["):
            each.shape, each.is_list = reader.until("]"), True  # type: ignore[assignment]  # replaced by the caller
            reader.expect("]")
        elif reader.take(":"):
            kind = reader.until("|)~")
            each.is_text = kind == "s"
            each.shape = None if each.is_text else kind  # type: ignore[assignment]  # replaced by the caller
        if reader.take("="):
            each.constant = reader.constant()
        elif reader.take("~"):
            each.default = reader.constant()
        shape.fields.append(each)
        if reader.take(")"):
            return shape
        reader.expect("|")


def _cut_blocks(body: str, sizes: Sequence[int]) -> tuple[str, list[str]]:
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


class _Reader:
    """Reads values from a position on; `position` is behind what was read."""

    def __init__(self, text: str, position: int, shapes: dict[str, Shape], blocks: Sequence[str],
        above: dict[tuple[str, str], Any] | None = None) -> None:
        self.position = position
        self._text = text
        self._shapes = shapes
        self._blocks = blocks
        self._above: dict[tuple[str, str], Any] = {} if above is None else above

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
        if self.take(_EMBEDDED):
            spaced = self.take(_EMBEDDED)
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
        return self.scalar(_STRUCTURE, is_text=field is not None and field.is_text)

    def scalar(self, ends: frozenset[str], *, is_text: bool) -> Any:
        """Read a string, number, truth value, null or block."""
        if self._text.startswith('"', self.position):
            return self._string()
        word = self.until(ends)
        if word.startswith("$"):
            return self._blocks[int(word[1:]) - 1]
        if is_text:
            return word
        return LITERALS[word] if word in LITERALS else Number(word) if is_number(word) else word

    def constant(self) -> Any:
        """Read a value of a legend."""
        if self.take("{}"):
            return Pairs()
        return [] if self.take("[]") else self.scalar(_STRUCTURE, is_text=False)

    def _string(self) -> str:
        string, self.position = scanstring(self._text, self.position + 1, True)
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
            key = self.word(_LEGEND)
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
        for each in shape.fields:
            value = found[each.key] if each.constant is ABSENT else each.constant
            if value is not ABSENT:
                pairs.append((each.key, value))
        return pairs

    def _by_place(self, shape: Shape, read_cell: Callable[[Field], Any]) -> dict[str, Any]:
        found = {}
        for number, each in enumerate(shape.shown):
            if number:
                self.expect("|")
            if self._text[self.position : self.position + 1] in _CELL_ENDS:
                found[each.key] = ABSENT
            elif each.default is not ABSENT and self._is("_"):
                found[each.key] = each.default
            else:
                found[each.key] = self._value(shape, each, read_cell)
        return found

    def _is(self, sign: str) -> bool:
        """Read a sign if it is all of a cell."""
        return self._text[self.position + 1 : self.position + 2] in _CELL_ENDS and self.take(sign)

    def _value(self, shape: Shape, field: Field, read_cell: Callable[[Field], Any]) -> Any:
        value = self._above[shape.name, field.key] if self._is(DITTO) else read_cell(field)
        self._above[shape.name, field.key] = value
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
            each = by_key[self.word(_LEGEND)]
            if lacking:
                found[each.key] = ABSENT
                continue
            self.expect(":")
            found[each.key] = self._value(shape, each, read_cell)
        return found

    def _cell(self, field: Field) -> Any:
        if self._text[self.position : self.position + 1] in {"[", "{", "(", "%"} or self._shape_ahead(field):
            return self.inline(field)
        return self.scalar(frozenset("|\n"), is_text=field.is_text)

    def _shape_ahead(self, field: Field) -> bool:
        """Say whether an object with its name in front comes next; bare text of a row may look the same."""
        if field.is_text:
            return False
        position = self.position
        shape = self._named("(")
        self.position = position
        return shape is not None
