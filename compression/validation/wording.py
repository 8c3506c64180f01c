r"""What a text says, word for word, whatever its layout: the words in their order, and where two texts differ in them.

    difference = compare(read_words(original), read_words(result))
    difference.dropped, difference.inserted, difference.moved

White space, line ends, quotes, bullets, numbers of list items, emphasis, brackets and the comma between digits are
layout. A word is a run of letters, digits and `_`, joined by `.` or `@`; every letter of a script without spaces is a
word. Digits are read in groups of three from the right, so that `1,234`, `1 234` and `1234` say the same, and
`[100,200]` the same as `[100, 200]`. A sign before a number, currencies, `%`,
comparisons, check marks and emoji are words as well.
Articles are none, nor is a lone `>`, which a quoted line begins with. The slash that makes a path absolute is one.

Reading is RE2, comparing is greedy: both take linear time on any input.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from functools import cache, lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import re2

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

NO_WORDS = frozenset((b"a", b"an", b"the", b"A", b"An", b"The", b">"))
"""What may come and go without a change of meaning."""

NEAR = 12
"""Words that may be skipped, in both texts together, before a match is sought in the whole original."""

GRAM = 3
"""Words that must agree for a match elsewhere in the original."""

LOOK_AHEAD = 24
"""Words of the result whose matches elsewhere are weighed against each other."""

LONGEST_WEIGHED = 64
"""Words of agreement beyond which two matches are equally good."""

MIN_MOVED = 6
"""Words of the shortest passage that counts as moved; a shorter one is new where it stands, and lost where it stood."""

MAX_REMEMBERED = 64
"""Bytes of the longest chunk whose words are remembered from one text to the next."""

MAX_PLACES = 8
"""Places at which a passage is looked for elsewhere."""

MIN_REPEATED = 5
"""Words of the shortest passage that may go because the same words still stand elsewhere."""

_MARKED, _ROOT = b"\x01", b"\x02"
_MINUS = "−".encode()
_LAYOUT = bytes.maketrans(b'"()[]{},:;#*?/', b" " * 14)
_WORD = r"[\p{L}\p{M}\p{N}_]+(?:['’][\p{L}]+)*(?:[.@][\p{L}\p{N}][\p{L}\p{M}\p{N}_]*)*"
_SIGNS = r"×÷≈∞√∑∏∫∂∈∉∀∃¬∧∨∅\x{2600}-\x{27BF}\x{2B00}-\x{2BFF}\x{1F000}-\x{1FAFF}"  # the ranges: check marks, emoji
_SYMBOL = rf"[-=]>|[<>=!]=|&&|\|\||[<>≤≥≠±−$€£¥₹%‰°]|!\w|[{_SIGNS}]"
_ARROWS = frozenset((b"->", b"=>"))
_NUMBER = r"(\d+)((?:\.\d+)*)([A-Za-zµ]{1,5})?"


@dataclass(frozen=True, slots=True)
class Wording:
    """The words of a text in their order.

    Attributes:
        words: Each as UTF-8.
        markers: Numbers and letters that mark items of lists, by the number of the word behind each; they are layout.
    """

    words: list[bytes]
    markers: dict[int, bytes] = field(default_factory=dict)


class Passage(NamedTuple):
    """Words from number `start` up to, not including, `end`."""

    start: int
    end: int

    def text(self, wording: Wording) -> str:
        """Return the words, with a space between them."""
        return b" ".join(wording.words[self.start : self.end]).decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class Difference:
    """Where a result says something else than its original.

    Attributes:
        dropped: Passages of the original that the result lacks.
        repeated: Passages of the original that are gone but stand elsewhere in the result, word for word.
        inserted: Passages of the result that the original lacks, or has elsewhere and fewer times.
        moved: Passages of the result that stood before what now precedes them.
    """

    dropped: tuple[Passage, ...] = ()
    repeated: tuple[Passage, ...] = ()
    inserted: tuple[Passage, ...] = ()
    moved: tuple[Passage, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.dropped or self.inserted or self.moved)


class Shown:
    """Tells whether a wording holds some words next to each other; each question takes time by its own length.

    Every two neighbours must be neighbours somewhere, which is nearly the same and needs no search.
    """

    def __init__(self, wording: Wording) -> None:
        self._words = frozenset(wording.words)
        self._pairs = frozenset(pairwise(wording.words))

    def holds(self, text: bytes) -> bool:
        """Say whether the words of a text stand there."""
        asked = read_words(text).words
        return self._words.issuperset(asked) and self._pairs.issuperset(pairwise(asked))


def read_words(text: bytes) -> Wording:
    """Return the words of a text; bytes that are not UTF-8 are read as their hexadecimal codes.

    >>> read_words(b"- **Wait** 1,500ms, then `retry`.").words
    [b'Wait', b'1', b'500', b'ms', b'then', b'retry']
    """
    words: list[bytes] = []
    markers: dict[int, bytes] = {}
    expected = {b"0", b"1", b"a", b"A", b"i"}
    for chunk in without_escapes(text).translate(_LAYOUT).split():
        if chunk[:1] == _MARKED and chunk[1:] in expected:
            expected.add(_after(chunk[1:]))
            markers[len(words)] = chunk[1:]
        elif chunk == _ROOT:
            words.append(b"/")
        elif len(chunk) <= MAX_REMEMBERED:
            words += _known_words_of(chunk)
        else:
            words += _words_of(chunk)
    return Wording(words, markers)


def _after(marker: bytes) -> bytes:
    """Return how the next item of a list is marked; a number at the start of a line may be the end of a sentence."""
    return b"%d" % (int(marker) + 1) if marker.isdigit() else bytes((marker[0] + 1,))


def compare(original: Wording, result: Wording) -> Difference:
    """Return where two wordings differ."""
    found = _Alignment(original, result)
    found.run()
    dropped = tuple(found.dropped())
    repeated: tuple[Passage, ...] = ()
    if any(end - start >= MIN_REPEATED for start, end in dropped):
        repeated = tuple(_repeated(original.words, dropped, result.words))
    lacking = tuple(passage for passage in dropped if passage not in repeated) if repeated else dropped
    return Difference(lacking, repeated, tuple(found.inserted), tuple(found.moved))


def _repeated(words: Sequence[bytes], passages: Iterable[Passage], result: Sequence[bytes]) -> Iterator[Passage]:
    """Yield the passages that stand in the result as a whole, looked for at the first places where each begins."""
    places: dict[tuple[bytes, ...], list[int]] = {}
    for place, gram in enumerate(_grams(result)):
        found = places.setdefault(gram, [])
        if len(found) < MAX_PLACES:
            found.append(place)
    for passage in passages:
        said = words[slice(*passage)]
        starts = places.get(tuple(said[:GRAM]), ()) if len(said) >= MIN_REPEATED else ()
        if any(result[start : start + len(said)] == said for start in starts):
            yield passage


def _grams(words: Sequence[bytes]) -> Iterator[tuple[bytes, ...]]:
    return zip(*(words[start:] for start in range(GRAM)), strict=False)


@dataclass(slots=True)
class _Alignment:
    """Follows the result through the original: on in both while they agree, else to the next place where they do."""

    first: Wording
    second: Wording
    inserted: list[Passage] = field(default_factory=list)
    moved: list[Passage] = field(default_factory=list)
    _covered: bytearray = field(default_factory=bytearray)
    _index: dict[tuple[bytes, ...], list[int]] | None = None

    @property
    def original(self) -> list[bytes]:
        """Words of the original."""
        return self.first.words

    @property
    def result(self) -> list[bytes]:
        """Words of the result."""
        return self.second.words

    def run(self) -> None:
        """Fill the attributes."""
        original, result = self.original, self.result
        self._covered = bytearray(len(original))
        at, here = 0, 0  # in the original and in the result
        while here < len(result):
            same = self._agreement(at, here)
            if same:
                self._cover(at, same)
                at, here = at + same, here + same
                continue
            if self.first.markers.get(at) == result[here]:  # a list that became running text, or the other way around
                here += 1
                continue
            if at < len(original) and self.second.markers.get(here) == original[at]:
                self._cover(at, 1)
                at += 1
                continue
            near = self._near(at, here)
            if near is not None:
                self._insert(here, near[1])
                at, here = near
                continue
            at, here = self._far(at, here)

    def dropped(self) -> Iterator[Passage]:
        """Yield the passages of the original that no part of the result was matched with."""
        start = self._covered.find(0)
        while start >= 0:
            end = self._covered.find(1, start)
            yield Passage(start, end if end >= 0 else len(self._covered))
            start = self._covered.find(0, end) if end >= 0 else -1

    def _agreement(self, at: int, here: int, most: int | None = None) -> int:
        """Return how many words agree from here on, compared in slices of growing length."""
        original, result = self.original, self.result
        end = min(len(original) - at, len(result) - here)
        if most is not None:
            end = min(end, most)
        done, step = 0, 1
        while done < end:
            size = min(step, end - done)
            if original[at + done : at + done + size] == result[here + done : here + done + size]:
                done += size
                step = 2 * size
            elif size == 1:
                break
            else:
                end = done + size - 1
                step = size // 2
        return done

    def _near(self, at: int, here: int) -> tuple[int, int] | None:
        """Return the nearest place where two words agree, or the ends of both."""
        original, result = self.original, self.result
        for total in range(1, NEAR + 1):
            for skipped in range(total + 1):
                one, other = at + total - skipped, here + skipped
                pair = original[one : one + 2]
                if one > len(original) or other > len(result) or pair != result[other : other + 2]:
                    continue
                if len(pair) == 2 or (one >= len(original) - 1 and other >= len(result) - 1):
                    return one, other
        return None

    def _far(self, at: int, here: int) -> tuple[int, int]:
        """Go to the best place elsewhere: further on, or else before, which is a passage moved or repeated."""
        best, best_place = 0, None
        last = min(here + LOOK_AHEAD, len(self.result) - GRAM + 1)
        for start in range(here, last):
            for place in self._places(at, start):
                same = self._agreement(place, start, LONGEST_WEIGHED)
                if same > best and (place >= at or same >= MIN_MOVED):
                    best, best_place = same, (place, start)
        if best_place is None:
            skip = min(LOOK_AHEAD, len(self.result) - here)
            self._insert(here, here + skip)
            return at, here + skip
        place, start = best_place
        self._insert(here, start)
        if place >= at:
            return place, start
        same = self._agreement(place, start)
        if any(not covered for covered in self._covered[place : place + same]):
            self.moved.append(Passage(start, start + same))
            self._cover(place, same)
        else:
            self._insert(start, start + same)
        return at, start + same

    def _places(self, at: int, start: int) -> Iterator[int]:
        """Yield the next place of the words from `start` on, and the last one before `at`."""
        places = self._gram_index().get(tuple(self.result[start : start + GRAM]))
        if places:
            number = bisect_left(places, at)
            if number < len(places):
                yield places[number]
            if number:
                yield places[number - 1]

    def _gram_index(self) -> dict[tuple[bytes, ...], list[int]]:
        if self._index is None:
            self._index = {}
            for place, gram in enumerate(_grams(self.original)):
                self._index.setdefault(gram, []).append(place)
        return self._index

    def _cover(self, start: int, size: int) -> None:
        self._covered[start : start + size] = b"\x01" * size

    def _insert(self, start: int, end: int) -> None:
        if start < end:
            if self.inserted and self.inserted[-1].end == start:
                start = self.inserted.pop().start
            self.inserted.append(Passage(start, end))


@lru_cache(maxsize=65_536)
def _known_words_of(chunk: bytes) -> tuple[bytes, ...]:
    return _words_of(chunk)


def _words_of(chunk: bytes) -> tuple[bytes, ...]:
    """Return the words of what stands between white space and brackets."""
    plain = chunk.strip(b"_.'`")
    if plain.isalnum() and plain.isascii() and not plain[:1].isdigit():
        return () if plain in NO_WORDS else (plain,)
    if b"-" in chunk:
        chunk = _pattern(r"(^|[=<>$€£¥'`])-(\d)").sub(rb"\1" + _MINUS + rb"\2", chunk)
    found = _words_pattern().findall(chunk)
    return tuple(word for each in found for word in _parts(each) if word not in NO_WORDS)


def _parts(found: bytes) -> Iterator[bytes]:
    """Yield the words of what was matched as one."""
    if found in _ARROWS:
        return
    if found[:1] == b"!" and found != b"!=":
        yield b"!"
        found = found[1:]
    found = found.replace("’".encode(), b"'").strip(b"_.@")
    number = _pattern(_NUMBER).fullmatch(found.replace(b"_", b"")) if found[:1].isdigit() else None
    if number:
        whole, decimals, unit = number.groups()
        first = len(whole) % 3 or 3
        groups = [whole[:first], *(whole[start : start + 3] for start in range(first, len(whole), 3))]
        groups[-1] += decimals
        yield from groups
        if unit:
            yield unit
    elif found.isascii():
        if found:
            yield found
    else:
        yield from _by_script(found)


def _by_script(word: bytes) -> Iterator[bytes]:
    """Split a word where it is of a script without spaces, letter by letter."""
    rest = ""
    for letter in word.decode("utf-8", "replace"):
        if _is_unspaced(ord(letter)):
            if rest:
                yield rest.encode()
            yield letter.encode()
            rest = ""
        else:
            rest += letter
    if rest:
        yield rest.encode()


def _is_unspaced(code: int) -> bool:
    """Say whether a letter is Thai, Lao, Burmese, Khmer, Kana, Han, or of an extension of these."""
    return (
        0xE00 <= code < 0xF00
        or 0x1000 <= code < 0x10A0
        or 0x1780 <= code < 0x1800
        or 0x2E80 <= code < 0xA4D0
        or (0xF900 <= code < 0xFB00 or 0xFF66 <= code < 0xFFDD or 0x20000 <= code < 0x40000)
    )


def without_escapes(text: bytes) -> bytes:
    r"""Return valid UTF-8 without terminal colours and marks of quoted lines, and with `\\u00e9` as what it stands for.

    Numbers and letters that may mark an item of a list have the byte 1 in front. Where a path begins with a slash, or
    with the folder `a` of a diff, which would be read as an article, the byte 2 stands.
    """
    text = unescaped(text).replace(_MARKED, b" ").replace(_ROOT, b" ")
    if b"\\" in text:
        text = _pattern(r"\\[nrt\"]").sub(b" ", text)
    if b"\x1b[" in text:
        text = _pattern(r"\x1b\[[0-9;?]*[A-Za-z]").sub(b"", text)
    if b">" in text:
        text = _pattern(r"(?m)^[ \t]*(?:>[ \t]+)+").sub(b"", text)
    if b"/" in text:
        text = _pattern(r"(^|[\s\"'`“”„«»‘’\x{FEFF}(\[{=:,|*])[aA]?/([\p{L}\p{N}_.])").sub(
            rb"\1 " + _ROOT + rb" \2", text
        )
    return bytes(
        _pattern(r"(?m)^([ \t*_#]*)\(?(\d{1,3}|[A-Za-z])[.)]([ \t*_])").sub(rb"\1 " + _MARKED + rb"\2 \3", text)
    )


def unescaped(text: bytes) -> bytes:
    r"""Return valid UTF-8 with `\\u00e9` as what it stands for; other bytes are written as their hexadecimal codes."""
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        text = text.decode("utf-8", "backslashreplace").encode()
    if b"\\u" in text:
        text = bytes(_pattern(r"\\u([0-9A-Fa-f]{4})(?:\\u([0-9A-Fa-f]{4}))?").sub(_unescaped, text))
    if b"\\/" in text:
        text = text.replace(b"\\/", b"/")
    return text.replace("…".encode(), b"...")


def _unescaped(match: Any) -> bytes:
    codes = [int(code, 16) for code in match.groups() if code]
    text = "".join(map(chr, codes)).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return bytes(text.encode())


@cache
def _words_pattern() -> Any:
    return _pattern(f"{_WORD}|{_SYMBOL}")


@cache
def _pattern(pattern: str) -> Any:
    options = re2.Options()
    options.log_errors = False
    return re2.compile(pattern.encode(), options)
