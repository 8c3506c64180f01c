"""JSON with the keys written once: rows of values under a legend that says which keys they belong to.

    [json A(id|name|private=false); @]
    @A[
    1|alpha
    2|beta gamma
    ]

stands for `[{"id":1,"name":"alpha","private":false},{"id":2,"name":"beta gamma","private":false}]`. The legend names
each kind of object that occurs twice, wherever it stands: `key=value` is the same in all of them, `key~value` is what
`_` stands for, `key:B` holds objects of kind B, `key:[B]` lists of them, `key:s` text without quotes. Nothing between
two bars is a key that this object lacks, `^` the value that stood for this key last, in whatever object. A key that an
object has again is named with a number, `key#2`. Objects with many keys name the key of each value, and leave out those
that have the value behind `~`.

Text of several lines stands literally in blocks at the end, as `$1`, `$2`. `%` stands before a string that is minified
JSON itself, `%%` where that has blanks, `*` before a list that was no list but one value per line. Numbers keep their
spelling and objects their order; white space is one style, named in the legend.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from apportion.compression.strategies._json_reader import Reader, cut_blocks, read_legend
from apportion.compression.strategies._json_shapes import find_shapes
from apportion.compression.strategies._json_signs import LINES
from apportion.compression.strategies._json_text import Pairs, Segment, Style, embed, find_segments, guess_style, write
from apportion.compression.strategies._json_writer import Writer, spell_legend
from apportion.compression.strategies.lossless import LosslessStrategy, split_form

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from apportion.compression.strategies.types import Held, Item, Query

MARKS = ("@", "~", "^", "§", "¤", "¦", "‖", "※", "†")
"""What can begin a rewritten part; one is chosen that the rest of the text does not hold at all."""


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
        writer = Writer(shapes)
        parts = [rest[0]]
        for first, last in _runs(rest, values):
            some = values[first:last]
            parts += (mark, writer.lines(some) if len(some) > 1 else writer.top(some[0]), rest[last])
        legend = spell_legend(style, shapes, writer.blocks)
        blocks = "".join(f"\n${number}\n{block}" for number, block in enumerate(writer.blocks, 1))
        return f"[json{legend}; {mark}]\n{''.join(parts)}{blocks}"

    def decode(self, form: str, held: Sequence[Held]) -> str:  # noqa: ARG002  (the form says it all)
        """Return the text, its JSON in the style that the legend names."""
        head, body = split_form(form, "json")
        legend, _, mark = head.rpartition("; ")
        style, shapes, sizes = read_legend(legend)
        body, blocks = cut_blocks(body, sizes)
        parts: list[str] = []
        position = 0
        above: dict[str, Any] = {}
        while (found := body.find(mark, position)) >= 0:
            reader = Reader(body, found + len(mark), shapes, blocks, above)
            values = reader.lines() if reader.take(LINES) else [reader.top()]
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
        while (
            last < len(values)
            and rest[last] == "\n"
            and all(isinstance(each, Pairs) for each in values[first : last + 1 : last - first])
        ):
            last += 1
        yield first, last
        first = last
