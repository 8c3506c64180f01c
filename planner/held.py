"""What stands literally in one agent run's prompt, so that what enters later can refer to it.

    held = HeldTexts()
    held.hold(12, "the text of message 12 as it was sent")
    held.sources("a text that repeats lines of it")     # (Held("#12", ...),)

Only what a receiver sees word for word is held: an original, a shorter form as it was sent. A line that is a reference
itself is no text to refer to, so every reference is one hop from what it means.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from apportion.compression.pipeline import Best, Chain, restore
from apportion.compression.strategies.held_inputs import HeldInputs
from apportion.compression.strategies.held_lines import MAX_TEXTS, HeldLines, lines_of
from apportion.compression.strategies.lossless import MARKS
from apportion.compression.strategies.types import Held, Item, Query
from apportion.compression.strategies.white_space import WhiteSpace

if TYPE_CHECKING:
    from collections.abc import Mapping

    from apportion.compression.strategies.types import Outcome

MIN_LINE = 8
"""Characters of the shortest line by which held texts are found; a block that is referred to may hold any line."""

MIN_SHARED = 160
"""Characters of lines that a text has to share with what is held: some forty tokens, a few times its reference."""

MAX_SOURCES = 6
"""Held texts that one new text may refer to: those that share most with it."""

MAX_ROWS = 8
"""Held texts in which one line is remembered; a line of more of them tells nothing about any."""

REFERRING_STEPS = frozenset({HeldLines.name, HeldInputs.name})
"""Steps that refer to what is held."""

LITERAL_STEPS = frozenset({"white_space", "repeats", HeldLines.name})
"""Steps behind which the lines of a text still stand as such."""

_NO_LINE = "\0"
"""Stands in a held text for a line of notation; a text that holds this character refers to nothing."""


def label_of(row: int) -> str:
    """Return how a reference names a message of the prompt."""
    return f"#{row}"


class Referred(NamedTuple):
    """A form that refers to held texts.

    Attributes:
        form: What is sent.
        held: What was held, as it must be to read the form.
        owed: By row of a held text, the tokens by which this piece grows once that text is gone.
        saved_tokens: Tokens by which it is shorter than the shortest form without references.
    """

    form: Outcome
    held: tuple[Held, ...]
    owed: Mapping[int, float]
    saved_tokens: int


NOT_SHORTER = "not shorter than its form without references"
NOT_RESTORED = "not restored byte for byte"
"""Why a text is not sent as references although some of it is held."""


class HeldTexts:
    """The texts that stand literally in a prompt, by row; see the module."""

    def __init__(self) -> None:
        self._texts: dict[int, str] = {}
        self._held: dict[int, Held] = {}
        self._rows_of: defaultdict[str, list[int]] = defaultdict(list)

    def __contains__(self, row: object) -> bool:
        return row in self._texts

    def hold(self, row: int, text: str, *, form: bool = False) -> None:
        """Take note that a text stands at a row, as it is sent.

        Args:
            row: Row of the prompt.
            text: What is sent.
            form: Whether it is a shorter form: then lines that begin with a mark are notation, and not held.
        """
        self.release(row)
        if form:
            text = without_notation(text)
        self._texts[row] = text
        for line in telling(text):
            self._rows_of[line].append(row)

    def release(self, row: int) -> None:
        """Take note that what stood at a row stands there no more."""
        text = self._texts.pop(row, None)
        if text is None:
            return
        self._held.pop(row, None)
        for line in telling(text):
            self._rows_of[line].remove(row)
            if not self._rows_of[line]:
                del self._rows_of[line]

    def truncate(self, rows: int) -> None:
        """Take note that only the first rows of the prompt are left."""
        for row in [row for row in self._texts if row >= rows]:
            self.release(row)

    def sources(self, *texts: str) -> tuple[Held, ...]:
        """Return the held texts that share most lines with a text, in the order of the prompt; empty for none.

        Args:
            texts: The text, and other ways of writing it, each of which may share other lines.
        """
        best: Counter[int] = Counter()
        for text in texts:
            if _NO_LINE not in text:
                best |= self._shared(text)
        rows = sorted(row for row, chars in best.most_common(MAX_SOURCES) if chars >= MIN_SHARED)
        return tuple(map(self._at, rows))

    def _at(self, row: int) -> Held:
        """Return what is held at a row."""
        held = self._held.get(row)
        if held is None:
            held = self._held[row] = Held(label_of(row), self._texts[row].encode("utf-8", "surrogatepass"))
        return held

    def _shared(self, text: str) -> Counter[int]:
        """Return how many characters of whole lines, without their numbers, each held text shares with a text."""
        shared: Counter[int] = Counter()
        lines = telling(text)
        if self._rows_of.keys().isdisjoint(lines):  # most often: nothing was read before
            return shared
        for line in lines:
            rows = self._rows_of.get(line, ())
            for row in rows if len(rows) <= MAX_ROWS else rows[:1]:
                shared[row] += len(line) + 1
        return shared

    def holds(self, held: Held) -> bool:
        """Say whether a text still stands where it did, as it did."""
        row = int(held.label[1:])
        return row in self._texts and self._at(row).content == held.content


_inputs = HeldInputs()


@lru_cache(maxsize=MAX_TEXTS)
def telling(text: str) -> tuple[str, ...]:
    """Return the distinct lines of a text, without their numbers, that are long enough to tell it by.

    They are remembered: a text is looked at when it arrives, when it enters, when it is sent, and when it goes.
    """
    return tuple(dict.fromkeys(body for body in lines_of(text).bodies if len(body) >= MIN_LINE))


def without_notation(text: str) -> str:
    """Return a shorter form with nothing in place of lines that begin with a mark: they are notation."""
    if not any(text.startswith(mark) or f"\n{mark}" in text for mark in MARKS):
        return text
    return "\n".join([_NO_LINE if line.startswith(MARKS) else line for line in text.split("\n")])


_referring = Best([HeldLines(), Chain([WhiteSpace(), HeldLines()], name="narrow")], name="referring")


def refer(
    content: bytes, held: tuple[Held, ...], *, name: str | None, plain: Outcome | None, is_input: bool = False
) -> Referred | str:
    """Return the form of a content that refers to what is held, or why there is none.

    It is restored from itself and the texts that it is said to need, and from nothing else, and compared byte by byte.

    Args:
        content: The original.
        held: Texts that stand literally in the receiver's prompt.
        name: Tool that produced the content, or `None`.
        plain: The shortest form without references; `None`: the original.
        is_input: Whether it is the input of a tool: then its texts are referred to, and it stays JSON.
    """
    strategy = _inputs if is_input else _referring
    form = strategy.execute(Item(content, name, held=held), None, Query(can_expand=True))  # is proved below
    saved = (form.original_tokens if plain is None else plain.tokens) - form.tokens
    if not REFERRING_STEPS.intersection(form.steps) or saved <= 0:
        return NOT_SHORTER
    used = tuple(each for each in held if f"={each.label}:".encode() in form.content)
    if not restores(form, used):
        return NOT_RESTORED
    return Referred(form, used, {int(each.label[1:]): saved / len(used) for each in used}, saved)


def written_by(tool_input: str) -> str:
    r"""Return the text that a tool call writes: its longest string; the whole input where it is no JSON object.

        >>> written_by('{"file_path": "a.py", "content": "import os\nimport sys\n"}')
        'import os
    import sys
    '
    """
    try:
        fields = json.loads(tool_input) if tool_input.startswith("{") else None
    except (ValueError, RecursionError):
        fields = None
    strings = [value for value in fields.values() if isinstance(value, str)] if isinstance(fields, dict) else []
    return max(strings, key=len, default="") if fields is not None else tool_input


def shows_lines(form: Outcome) -> bool:
    """Say whether a reader finds the lines of the original in a form: tables and templates hold notation instead."""
    return LITERAL_STEPS.issuperset(form.steps)


def restores(form: Outcome, held: tuple[Held, ...]) -> bool:
    """Say whether a form gives its original back, byte for byte, from itself and what is held."""
    try:
        return restore(form, (_referring, _inputs), held) == form.original
    except (ValueError, KeyError, IndexError):
        return False


class References:
    """The references in one prompt, and what they refer to.

    Attributes:
        literal: What stands literally.
        offered: By new row, its form with references, as long as it is not decided how it enters.
        forms: By row, the form in which it is sent, and what that refers to.
        whole: By row that is sent as one reference, the earlier row that holds the same bytes.
        held_rows: Leading rows of which it is known whether they stand literally.
    """

    def __init__(self) -> None:
        self.literal = HeldTexts()
        self.offered: dict[int, Referred] = {}
        self.forms: dict[int, Referred] = {}
        self.whole: dict[int, int] = {}
        self.held_rows = 0

    def truncate(self, rows: int) -> None:
        """Take note that only the first rows of the prompt are left."""
        self.literal.truncate(rows)
        self.held_rows = min(self.held_rows, rows)
        for of_row in (self.offered, self.forms, self.whole):
            for row in [row for row in of_row if row >= rows]:
                del of_row[row]

    def forget(self, row: int) -> None:
        """Take note that an item stands nowhere literally any more, and refers to nothing."""
        self.literal.release(row)
        self.forms.pop(row, None)
        self.whole.pop(row, None)
