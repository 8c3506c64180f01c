"""Writing JSON values as rows, and the legend above them; `json_columns` shows what comes out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from apportion.compression.strategies._json_shapes import ABSENT, WIDE, Field, Shape, by_key, shape_of
from apportion.compression.strategies._json_signs import (
    BLOCK,
    DEFAULT,
    DITTO,
    EMBEDDED,
    LINES,
    ROW,
    SPACED,
    STRUCTURE,
    is_bare,
    is_encodable,
    quoted,
    spell_key,
)
from apportion.compression.strategies._json_text import Embedded, Number, Pairs, Style, write

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MIN_BLOCK_LINES = 2
"""Text of fewer line ends stays in its row, with its line ends escaped."""

MIN_DITTO_CHARS = 5
"""A shorter value is written again."""


class Writer:
    """Writes values; texts of several lines are collected as blocks.

    Args:
        shapes: Shapes of the objects, by their keys.
    """

    def __init__(self, shapes: dict[tuple[str, ...], Shape]) -> None:
        self.blocks: list[str] = []
        self._shapes = shapes
        self._numbers: dict[str, int] = {}
        self._above: dict[str, tuple[type, str]] = {}

    def top(self, value: Any, shape: Shape | None = None) -> str:
        """Return a value where rows may stand on lines of their own; its shape may be known from the legend."""
        if isinstance(value, Pairs):
            own = shape_of(value, self._shapes)
            if own is not None:
                return ("" if own is shape else own.name) + self._object(value, own)
            return "{" + ",".join(f"{spell_key(key)}:{self.top(inner)}" for key, inner in value) + "}"
        if isinstance(value, list) and len(value) > 1 and all(isinstance(inner, Pairs) for inner in value):
            return self._table(value)
        if isinstance(value, list):
            return "[" + ",".join(map(self.top, value)) + "]"
        return self.inline(value)

    def lines(self, values: Sequence[Pairs]) -> str:
        """Return values that stood on a line each."""
        return LINES + self._table(values)

    def inline(self, value: Any, field: Field | None = None) -> str:
        """Return a value within a row."""
        known = field.shape if field else None
        if isinstance(value, Embedded):
            return (SPACED if value.spaced else EMBEDDED) + self.inline(value.value)
        if isinstance(value, Pairs):
            own = shape_of(value, self._shapes)
            if own is not None:
                return ("" if own is known and not (field and field.is_list) else own.name) + self._object(value, own)
            return "{" + ",".join(f"{spell_key(key)}:{self.inline(inner)}" for key, inner in value) + "}"
        if isinstance(value, list):
            item = Field("", shape=known) if field and field.is_list else None
            return "[" + ",".join(self.inline(inner, item) for inner in value) + "]"
        return self._scalar(value, STRUCTURE, is_text=field is not None and field.is_text)

    def _table(self, values: Sequence[Pairs]) -> str:
        shapes = {id(shape_of(value, self._shapes)) for value in values}
        shape = shape_of(values[0], self._shapes)
        if len(shapes) == 1 and shape is not None:
            return f"{shape.name}[\n" + "".join(self._row(value, shape) + "\n" for value in values) + "]"
        return "[\n" + "".join(self._mixed_row(value) + "\n" for value in values) + "]"

    def _mixed_row(self, value: Pairs) -> str:
        shape = shape_of(value, self._shapes)
        return self.inline(value) if shape is None else f"{shape.name}:{self._row(value, shape)}"

    def _row(self, value: Pairs, shape: Shape) -> str:
        row = self._cells(value, shape, self._cell)
        if not row.startswith("]"):
            return row
        cell, bar, others = row.partition("|")
        return quoted(cell) + bar + others  # bare, it would end the table

    def _object(self, value: Pairs, shape: Shape) -> str:
        return "(" + self._cells(value, shape, self.inline) + ")"

    def _cells(self, value: Pairs, shape: Shape, write_cell: Callable[[Any, Field], str]) -> str:
        present = by_key(value)
        wide = len(shape.shown) > WIDE
        cells = []
        for each in shape.shown:
            inner = present.get(each.key, ABSENT)
            is_default = each.default is not ABSENT and type(inner) is type(each.default) and inner == each.default
            if inner is ABSENT or is_default:
                if not wide:
                    cells.append(DEFAULT if is_default else "")
                elif inner is ABSENT and each.default is not ABSENT:
                    cells.append(f"-{spell_key(each.key)}")
                continue
            known = inner if isinstance(inner, str) else write(inner, Style())
            same = len(known) >= MIN_DITTO_CHARS and self._above.get(each.key) == (type(inner), known)
            cell = DITTO if same else write_cell(inner, each)
            cells.append((f"{spell_key(each.key)}:" if wide else "") + cell)
            self._above[each.key] = type(inner), known  # behind what stands inside, as it is read
        return "|".join(cells)

    def _cell(self, value: Any, field: Field) -> str:
        if isinstance(value, (list, Embedded)):
            return self.inline(value, field)
        named = isinstance(value, str) and not field.is_text and "(" in value[1:4] and value[0].isupper()
        return self._scalar(value, STRUCTURE if named else ROW, is_text=field.is_text)

    def _scalar(self, value: Any, ends: frozenset[str], *, is_text: bool) -> str:
        if isinstance(value, Number):
            return value
        if not isinstance(value, str):
            return "null" if value is None else "true" if value else "false"
        if value.count("\n") >= MIN_BLOCK_LINES and is_encodable(value):
            if value not in self._numbers:
                self.blocks.append(value)
                self._numbers[value] = len(self.blocks)
            return f"{BLOCK}{self._numbers[value]}"
        return value if is_bare(value, ends, is_text=is_text) else quoted(value)


def spell_legend(style: Style, shapes: dict[tuple[str, ...], Shape], blocks: Sequence[str]) -> str:
    words = style.words()
    distinct = {shape.name: shape for shape in shapes.values()}
    parts = [f" {words}"] if words else []
    parts += [f" {name}({'|'.join(map(_field, shape.fields))})" for name, shape in distinct.items()]
    if blocks:
        parts.append(" $" + "+".join(str(block.count("\n") + 1) for block in blocks))
    return "".join(parts)


def _field(field: Field) -> str:
    key = spell_key(field.key)
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
        return value if is_bare(value, STRUCTURE | {";"}, is_text=False) else quoted(value)
    return "null" if value is None else "true" if value else "false"
