"""Whole ranges of lines go behind handles where all that they say stands elsewhere in what is sent.

    outcome = Ranges().execute(Item(content, held=held), None, Query(task="fix the failing test", can_expand=True))

Every fact of a text is assigned to one line that carries it; facts that the receiver holds already need no line. A line
that carries nothing can go. `price` says what else can: a fact may leave the view where that saves so many tokens.
With the facts assigned, the cuts that save most are found exactly, by dynamic programming over the lines, in which each
cut costs its marker and the effort to read it; so cuts are few and long. Words that stand nowhere else cost what they
would cost to send, or else texts without numbers and names would vanish. A sentence says more than its words, and holds
few facts that a check could miss: of prose, pairs of neighbouring words count, and cost so much that only what is said
elsewhere in the same words can go.

What a task asks about and the skeleton of a text stay (`_protection`). Lines under a title go with the title or without
it, never the title alone. Code that somebody may edit is left whole, and so is JSON of several lines: without some of
its lines it would be neither.

All is decided once, when a message is sent for the first time, from it and earlier ones alone. What a cut relies on
(`relied_on`) must not leave the conversation later, or the facts leave with it.
"""

from __future__ import annotations

import heapq
from collections import Counter
from functools import lru_cache
from itertools import pairwise
from math import fsum
from typing import TYPE_CHECKING, NamedTuple

from apportion.compression.markers import Lines
from apportion.compression.strategies._protection import asked_for, skeleton, words_of
from apportion.compression.strategies.cutting import Cut, CutStrategy
from apportion.compression.validation.line_facts import facts_of_content, facts_of_lines
from apportion.content import ContentClass, classify
from apportion.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from apportion.compression.markers import Markers
    from apportion.compression.store import HandleStore
    from apportion.compression.strategies.types import Gap, Item, Outcome, Query

MIN_LINES = 4
"""A shorter text is left whole."""

MAX_BYTES = 4 * 2**20
"""A longer text is left whole."""

MARKER_TOKENS = 11
"""Tokens of a marker that is not the first one of its content."""

READING_TOKENS = 5
"""What it costs to read around a gap, besides the marker; makes cuts few and long."""

PRICES = (4.0, 128.0)
"""Between these prices, in tokens, is sought the one at which enough of the facts stay visible."""

TRIES = 4
"""Prices that are tried; the last one is within a quarter of the one that is sought."""

MAX_READ = 64
"""Contents whose reading is remembered."""

MIN_REPEATED_CHARS = 12
"""A line of the skeleton or that is asked for may go where the receiver has it word for word, unless it is shorter."""

MIN_WORD_CHARS = 3
"""Shorter words are nothing to miss."""

PROSE_WEIGHT = 4.0
"""What a pair of words of prose costs that stands nowhere else, as a multiple of what it costs to send: a sentence can
go when more than three quarters of its pairs stand elsewhere."""

MIN_PROSE_WORDS = 5
"""Words of the shortest line that is told to be prose from itself alone."""

MIN_PROSE_CHARS = 12
"""Letters beyond ASCII of such a line, in a script that may write without spaces."""

PROSE_SHARE = 0.8
"""Share of the words, or of the letters, of a line of prose that are nothing but letters."""

REASON = "nothing new"
"""What a marker says about lines whose facts stand elsewhere."""

_DEAR = 1e9


class Ranges(CutStrategy):
    """Leaves out ranges of lines whose facts stand elsewhere, in the rest of the content or in what is held.

    Args:
        store: Keeps the originals; one of its own where none is given.
        price: A fact may leave the view where that saves at least so many tokens; 0: none may.
        visible: Share of the facts that are new with an item, in [0, 1], that must stay visible in it. Where given, the
            lowest price that keeps so many is sought for each item, not below `price`.
        keeps_code: Whether code is left whole, because the receiver may edit it.
    """

    name = "ranges"

    def __init__(
        self,
        store: HandleStore | None = None,
        *,
        price: float = 0,
        visible: float | None = None,
        keeps_code: bool = True,
    ) -> None:
        super().__init__(store)
        if price < 0 or (visible is not None and not 0 <= visible <= 1):
            raise InputError(f"price {price}, visible {visible}", hint="A price is 0 or more, a share from 0 to 1.")
        self.price = price
        self.visible = visible
        self.keeps_code = keeps_code

    def mark(self, markers: Markers, gap: Gap, lines: Lines, query: Query, *, first: bool) -> bytes:
        """Return the marker of a gap; the reason is the same for all, so that only the first one says it."""
        return super().mark(markers, gap if first else gap._replace(reason=""), lines, query, first=first)

    def choose(self, lines: Sequence[bytes], item: Item, target_tokens: int | None, query: Query) -> Sequence[Cut]:  # noqa: ARG002  (as much as is free)
        """Return the ranges that can go."""
        if len(lines) < MIN_LINES or len(item.content) > MAX_BYTES:
            return ()
        text = item.content.decode("utf-8", "replace")
        if _is_json(text) or (self.keeps_code and is_code(text)):
            return ()
        table = _Table.of(item, query)
        ranges = table.ranges(self.price or _DEAR) if self.visible is None else table.within(self.price, self.visible)
        return [Cut(Lines(first + 1, last), REASON) for first, last in ranges]


def relied_on(item: Item, outcome: Outcome) -> tuple[str, ...]:
    """Return the labels of held contents that must stay where they are, because facts were cut that stand there.

    Of several that state a fact the oldest counts, unless one that counts already states it too.

    Args:
        item: The original, with what was held then.
        outcome: What became of it.
    """
    shown = facts_of_content(outcome.content)
    gone = {fact for gap in outcome.gaps for fact in facts_of_content(item.content[gap.span.start : gap.span.end])}
    missing = gone - shown
    labels: list[str] = []
    for held in item.held:
        stated = missing & facts_of_content(held.content) if missing else missing
        if stated:
            labels.append(held.label)
            missing -= stated
    return tuple(labels)


class _Read(NamedTuple):
    """What lines say, whoever gets them: the same for every task and all that is held."""

    lines: list[str]
    facts: tuple[frozenset[str], ...]
    words: list[list[str]]
    said: list[frozenset[str]]
    prose: frozenset[int]
    skeleton: set[int]
    ends: list[int]


@lru_cache(maxsize=MAX_READ)
def _read(content: bytes) -> _Read:
    """Read a content; remembered, because it is asked for again at another level or for another receiver."""
    lines = [f"{line}\n" for line in content.decode("utf-8", "replace").split("\n")]
    last = lines.pop()[:-1]
    lines += [last] if last else []
    words = [words_of(line) for line in lines]
    prose = prose_lines(lines)
    said = [_pairs(line) if number in prose else _long(line) for number, line in enumerate(words)]
    return _Read(lines, facts_of_lines(lines), words, said, prose, skeleton(lines), _ends(lines))


class _Table(NamedTuple):
    """What is known about each line.

    Attributes:
        sizes: Tokens of each, in proportion to its bytes.
        facts: Facts of each that the receiver does not hold.
        words: Words of each that the receiver does not hold; pairs of them in prose.
        weights: What a word of each costs that no other line says, as a multiple of its tokens.
        kept: Lines that stay in any case.
        ends: Behind the last line that belongs below each.
        new_facts: Distinct facts of all of them.
        per_char: Tokens of a character.
    """

    sizes: list[float]
    facts: list[frozenset[str]]
    words: list[frozenset[str]]
    weights: list[float]
    kept: set[int]
    ends: list[int]
    new_facts: int
    per_char: float

    @classmethod
    def of(cls, item: Item, query: Query) -> _Table:
        read = _read(item.content)
        known: set[str] = set()
        known_words: set[str] = set()
        for held in item.held:
            known |= facts_of_content(held.content)
            known_words |= _words_of_content(held.content)
            if read.prose:
                known_words |= _pairs_of_content(held.content)
        kept = asked_for(read.words, query.task) | read.skeleton
        if kept and item.held:
            known_lines = frozenset().union(*(_lines_of_content(held.content) for held in item.held))
            long = (number for number in kept if len(read.lines[number]) >= MIN_REPEATED_CHARS)
            kept = kept - {number for number in long if read.lines[number] in known_lines}
        per_char = query.count(item.content) / max(1, sum(map(len, read.lines)))
        facts = [found - known if found else found for found in read.facts]
        return cls(
            sizes=[len(line) * per_char for line in read.lines],
            facts=facts,
            words=[words - known_words for words in read.said],
            weights=[PROSE_WEIGHT if number in read.prose else 1.0 for number in range(len(read.lines))],
            kept=kept,
            ends=read.ends,
            new_facts=len(frozenset().union(*facts)),
            per_char=per_char,
        )

    def ranges(self, price: float) -> list[tuple[int, int]]:
        """Return the ranges, from a line up to, not including, another, without which most tokens are saved."""
        losses = self._losses(price)
        return _best_ranges(self.sizes, losses, self.ends)

    def within(self, price: float, visible: float) -> list[tuple[int, int]]:
        """Return the ranges at the lowest price from the given one on at which a share of the facts stays visible."""
        allowed = (1 - visible) * self.new_facts
        low, high = max(price, PRICES[0]), PRICES[1]
        best, beyond = self.ranges(_DEAR), self.ranges(low)
        if allowed < 1:
            return best
        for _ in range(TRIES):
            if self.lost(beyond) <= allowed:
                return beyond
            middle = (low * high) ** 0.5
            found = self.ranges(middle)
            if self.lost(found) <= allowed:
                best, high = found, middle
            else:
                beyond, low = found, middle
        return max(best, self._trimmed(beyond, allowed), key=self._saved)

    def _trimmed(self, ranges: Sequence[tuple[int, int]], allowed: float) -> list[tuple[int, int]]:
        """Return as much of some ranges as may go, the longest ones first, and of the last one its beginning."""
        shown = Counter(fact for found in self.facts for fact in found)
        lost = 0
        trimmed: list[tuple[int, int]] = []
        for first, last in sorted(ranges, key=lambda each: each[0] - each[1]):
            end = reach = first
            for number in range(first, last):
                gone = [fact for fact in self.facts[number] if shown[fact] == 1]
                if lost + len(gone) > allowed:
                    break
                shown.subtract(self.facts[number])
                lost += len(gone)
                reach = max(reach, self.ends[number])
                if reach == number + 1:
                    end = reach
            if end > first:
                trimmed.append((first, end))
            if end < last:
                break
        return sorted(trimmed)

    def _saved(self, ranges: Sequence[tuple[int, int]]) -> float:
        return sum(sum(self.sizes[first:last]) - MARKER_TOKENS for first, last in ranges)

    def lost(self, ranges: Sequence[tuple[int, int]]) -> int:
        """Return how many facts no line shows that stays."""
        cut = {number for first, last in ranges for number in range(first, last)}
        shown = frozenset().union(*(found for number, found in enumerate(self.facts) if number not in cut))
        return self.new_facts - len(shown)

    def _losses(self, price: float) -> list[float]:
        """Return what it costs, in tokens, to leave out each line."""
        losses = [_DEAR if number in self.kept else 0.0 for number in range(len(self.sizes))]
        for number, carried in self._carried(price).items():
            losses[number] += price * carried
        staying = (words for number, words in enumerate(self.words) if losses[number] >= self.sizes[number])
        said: frozenset[str] = frozenset().union(*staying)
        per_char = self.per_char
        repeated = Counter(word for words in self.words for word in words)
        for number, words in enumerate(self.words):
            if losses[number] < _DEAR:
                unsaid = fsum((len(word) + 1) / repeated[word] for word in words if word not in said)
                losses[number] += per_char * self.weights[number] * unsaid
        return losses

    def _carried(self, price: float) -> dict[int, int]:
        """Assign each fact to a line that carries it, and return how many each of them carries.

        A fact that stands once is carried where it stands. Lines that stay because of such facts, or in any case, carry
        all they have. What is left goes to the lines that carry most of it per token.
        """
        often = Counter(fact for found in self.facts for fact in found)
        carried: dict[int, int] = {}
        open_facts = set(often)  # to intersect it, once sparse, takes time in proportion to what it once held
        for number, found in enumerate(self.facts):
            own = sum(often[fact] == 1 for fact in found) if found else 0
            if number in self.kept or own * price >= self.sizes[number] > 0 < own:
                carried[number] = sum(fact in open_facts for fact in found)
                open_facts -= found
            elif own:
                carried[number] = own
                open_facts -= {fact for fact in found if often[fact] == 1}
        heap = [
            (-len(left) / self.sizes[number], number)
            for number, found in enumerate(self.facts)
            if found and (left := [fact for fact in found if fact in open_facts])
        ]
        heapq.heapify(heap)
        while heap and open_facts:
            _, number = heapq.heappop(heap)
            left = [fact for fact in self.facts[number] if fact in open_facts]
            if not left:
                continue
            worth = -len(left) / self.sizes[number]
            if heap and worth > heap[0][0]:
                heapq.heappush(heap, (worth, number))
                continue
            carried[number] = carried.get(number, 0) + len(left)
            open_facts.difference_update(left)
        return carried


def _best_ranges(sizes: Sequence[float], losses: Sequence[float], ends: Sequence[int]) -> list[tuple[int, int]]:
    """Return the cuts that save most, each line going with all that belongs below it.

    From the last line to the first: the cost of the rest if the line before stays, and if it goes; exact, and linear.
    """
    count = len(sizes)
    before = [0.0]
    for loss in losses:
        before.append(before[-1] + loss)
    opening = MARKER_TOKENS + READING_TOKENS
    after_kept, after_cut = [0.0] * (count + 1), [0.0] * (count + 1)
    cut_here = [False] * count
    cut_on = [False] * count
    for number in range(count - 1, -1, -1):
        keep = sizes[number] + after_kept[number + 1]
        end = ends[number]
        cut = before[end] - before[number] + after_cut[end]
        cut_here[number] = cut + opening < keep
        cut_on[number] = cut < keep
        after_kept[number] = min(keep, cut + opening)
        after_cut[number] = min(keep, cut)
    ranges: list[tuple[int, int]] = []
    number = 0
    while number < count:
        within = bool(ranges) and ranges[-1][1] == number
        if cut_on[number] if within else cut_here[number]:
            ranges.append((ranges.pop()[0] if within else number, ends[number]))
            number = ends[number]
        else:
            number += 1
    return ranges


def _ends(lines: Sequence[str]) -> list[int]:
    """Return for each line where what belongs below it ends: the lines behind it that are indented further.

    In a block of fields, `Title: x` and `Author: y` on lines of their own, all of it belongs below the first line.
    """
    depths = [_depth(line) for line in lines]
    ends = list(range(1, len(lines) + 1))
    above: list[int] = []
    last = -1
    for number, depth in enumerate([*depths, -1]):
        if depth is None:
            continue
        while above and (depths[above[-1]] or 0) >= depth:
            ends[above.pop()] = last + 1
        above.append(number)
        last = number
    for first, end in _records(lines):
        ends[first] = max(ends[first], end)
    return ends


def _depth(line: str) -> int | None:
    """Return by how much a line is indented, behind its number if it has one; `None` for a blank line."""
    bare = line.lstrip(" ")
    if bare[:1].isdecimal():
        behind = bare.lstrip("0123456789")
        if behind[:1] in {"→", "\t", ":", "|"}:
            bare = line = behind[1:]
    text = line.lstrip(" \t")
    return len(line) - len(text) if text.strip() else None


def _records(lines: Sequence[str]) -> Iterable[tuple[int, int]]:
    """Yield the first and behind the last line of blocks in which each line is a field."""
    first = 0
    for number in range(len(lines) + 1):
        if number == len(lines) or not _is_field(lines[number]):
            if number - first > 1 and (number == len(lines) or not lines[number].strip()):
                yield first, number
            first = number + 1


def _is_field(line: str) -> bool:
    key, sign, value = line.partition(": ")
    return bool(sign) and bool(value.strip()) and len(key) <= 30 and key.lstrip("*- ").replace(" ", "").isalpha()


def _is_json(text: str) -> bool:
    """Say whether a text is one JSON value of several lines."""
    bare = text.strip()
    return (bare[:1], bare[-1:]) in {("{", "}"), ("[", "]")} and bare[1:2] in {"\n", "\r"}


def is_code(text: str) -> bool:
    r"""Say whether a text is code as it stands in a file; a diff or the result of a search is not.

    >>> is_code("def f():\n    return 1\n\nx = f()\n"), is_code("src/a.py:3:def f():\nsrc/a.py:9:x = f()")
    (True, False)
    """
    if classify(text) is not ContentClass.CODE:
        return False
    if "\n@@ " in text or text.startswith("@@ "):
        return False
    lines = [line for line in text.split("\n", 200)[:200] if line.strip()]
    hits = sum(
        ":" in line[:200] and "." in line.partition(":")[0] and line.partition(":")[2][:1].isdecimal() for line in lines
    )
    return 2 * hits < len(lines)


def prose_lines(lines: Sequence[str]) -> frozenset[int]:
    r"""Return the numbers of the lines, counted from 0, that are prose; all of a text of which half is.

    >>> sorted(prose_lines(["He said that it was closed.\n", "-rw-r--r-- 1 root root 4096 May 3 12:00 a.py\n"]))
    [0]
    """
    found = frozenset(number for number, line in enumerate(lines) if is_prose(line))
    size = sum(len(lines[number]) for number in found)
    return frozenset(range(len(lines))) if 2 * size > sum(map(len, lines)) else found


def is_prose(line: str) -> bool:
    """Say whether a line is made of words, as sentences are: neither code, nor columns, nor what a program reports."""
    words = [word.strip(_STOPS) for word in line.split()]
    letters = sum(map(str.isalpha, words))
    if letters >= MIN_PROSE_WORDS and letters >= PROSE_SHARE * len(words):
        return True
    if line.isascii():
        return False
    beyond = sum(letter > "\x7f" and letter.isalpha() for letter in line)
    return beyond >= MIN_PROSE_CHARS and beyond >= PROSE_SHARE * sum(not letter.isspace() for letter in line)


_STOPS = ".,;:!?()\"'*-–—“”„«»‘’"


@lru_cache(maxsize=1024)
def _lines_of_content(content: bytes) -> frozenset[str]:
    return frozenset(content.decode("utf-8", "replace").splitlines(keepends=True))


@lru_cache(maxsize=1024)
def _words_of_content(content: bytes) -> frozenset[str]:
    return _long(words_of(content.decode("utf-8", "replace")))


@lru_cache(maxsize=1024)
def _pairs_of_content(content: bytes) -> frozenset[str]:
    lines = content.decode("utf-8", "replace").split("\n")
    return frozenset().union(*(_pairs(words_of(line)) for line in lines))


def _pairs(words: Sequence[str]) -> frozenset[str]:
    """Return neighbouring words, numbers apart, which are facts; a word alone where a line has no other."""
    if len(words) == 1:
        return _long(words)
    return frozenset(f"{one} {other}" for one, other in pairwise(words) if _NO_DIGIT(one) and _NO_DIGIT(other))


_NO_DIGIT = frozenset("0123456789").isdisjoint


def _long(words: Sequence[str]) -> frozenset[str]:
    return frozenset(word for word in words if len(word) >= MIN_WORD_CHARS)
