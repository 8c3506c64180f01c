"""Keeps what the task needs and leaves out the rest in whole ranges: sentences of prose, lines of all else.

    Extractive().execute(Item(content), 500, Query(task="when was the bridge built?", can_expand=True))

Nothing is rewritten. Pieces are ranked by what they have to do with the task (`_relevance`), and the best are kept
until the target is reached, each with its heading or speaker; sentences that demand or forbid something come first. A
marker says what was left out where, and how to have it back. A receiver that cannot have it back gets a shorter
content only if the similarity gate passes it.
"""

from __future__ import annotations

from functools import cache
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import re2

from apportion.compression.markers import Lines, Markers
from apportion.compression.similarity.meaning import likeness
from apportion.compression.strategies._pieces import heads_of, pieces_of
from apportion.compression.strategies._relevance import ranking
from apportion.compression.strategies.cutting import Cut
from apportion.compression.strategies.gated import GatedStrategy
from apportion.compression.strategies.types import Gap, Span
from apportion.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from apportion.compression.similarity.gate import Gate
    from apportion.compression.similarity.vectors import Vectors
    from apportion.compression.store import HandleStore
    from apportion.compression.strategies._pieces import Piece
    from apportion.compression.strategies.types import Item, Query

MAX_BYTES = 4 * 2**20
"""Longest content that is looked at; beyond it the original is sent."""

DEFAULT_SHARE = 1 / 3
"""Share of the tokens that is kept where no target is given: where selections begin to lose answers."""

CONSTRAINT_SHARE = 0.5
"""Share of the target that sentences which demand something may take; the rest of them compete with all others."""

FIRST_MARKER_TOKENS, MARKER_TOKENS = 30, 13
"""What markers cost about, with ranges of up to seven digits."""

SHORT_FIRST_MARKER_TOKENS, SHORT_MARKER_TOKENS = 10, 7
"""The same where nothing can be had back, so that they name no range."""

ROUNDS = 4
"""Times that a selection is weighed: tokens of pieces do not add up exactly."""

_CONSTRAINT = (
    r"(?i:\b(?:must|shall|not allowed|not permitted|no longer allowed|forbidden|prohibited|mandatory"
    r"|under no circumstances|only (?:if|when|after)|except (?:if|when)|unless)\b)"
    r"|\b(?:NEVER|ALWAYS|DO NOT|DON'T|ONLY|REQUIRED|IMPORTANT|WARNING)\b"
    r"|^\W*(?:[\d.)]+\s+)?(?i:never|always|only|avoid|ensure|make sure|do not|don't)\s+[a-z][a-z]"
    r"|(?i:\b(?:you|agents?|users?|we|please) (?:can(?:not|'t)|do not|don't|may not|should (?:not|never|always|only)"
    r"|(?:can|may) only)\b)"
)


class Extractive(GatedStrategy):
    """Keeps the pieces that have most to do with the task, up to the target.

    Args:
        store: Keeps the originals; one of its own where none is given.
        gate: Judges what is cut for good; the default one where none is given.
        vectors: Vectors of chunks that were embedded before, by which likeness of meaning is told; `None`: words alone
            decide, and the result depends on nothing but what is given.
    """

    name = "extractive"

    def __init__(
        self, store: HandleStore | None = None, gate: Gate | None = None, vectors: Vectors | None = None
    ) -> None:
        super().__init__(store, gate)
        self.vectors = vectors

    def split(self, content: bytes) -> list[bytes]:
        """Return sentences and lines; joined, they are the content."""
        return [piece.text.encode() for piece in self._pieces(content)]

    def mark(self, markers: Markers, gap: Gap, lines: Lines, query: Query, *, first: bool) -> bytes:  # noqa: ARG002
        """Return the marker of a gap: within a line, bytes are what can be counted."""
        handle = gap.handle if query.can_expand else None
        return markers.part(handle, gap.span.start, gap.span.end, first=first)

    def space(self, left_out: bytes) -> bytes:
        """Return the white space that follows a marker: the kind in which the gap ends."""
        return _space(left_out[-1:])

    def choose(self, lines: Sequence[bytes], item: Item, target_tokens: int | None, query: Query) -> Sequence[Cut]:
        """Return the pieces that can go."""
        pieces = self._pieces(item.content)
        if len(pieces) < 2:
            return ()
        sizes = [query.count(line.rstrip(b" ")) for line in lines]  # a blank is counted with the word behind it
        target = round(DEFAULT_SHARE * sum(sizes)) if target_tokens is None else target_tokens
        order = ranking(pieces, query.task, self._meaning(pieces, item, query))
        demands = [number for number in order if is_constraint(pieces[number].text)]
        pinned = _pinned(pieces, item)
        best: list[Cut] = []
        limit, least = float(target), 0
        for _ in range(ROUNDS):
            selection = _Selection(pieces, sizes, can_expand=query.can_expand)
            selection.keep(pinned, limit=None)
            selection.keep(demands, limit=CONSTRAINT_SHARE * target)
            selection.keep(order, limit=limit)
            selection.keep(order[:1], limit=None if selection.empty else limit)  # a marker alone says nothing
            cuts = selection.cuts()
            tokens = self._weigh(cuts, lines, item, query)
            if not best or least < tokens <= target or (tokens < least and least > target):
                best, least = cuts, tokens
            if tokens == target or limit + target - tokens < 0:
                break
            limit += target - tokens - (0 if tokens < target else selection.marker)
        return best

    def _meaning(self, pieces: Sequence[Piece], item: Item, query: Query) -> list[float] | None:
        """Return for each piece how like the chunk around it is to the task, or `None` where that is not known."""
        found = likeness(self.vectors, item.content, query.task) if self.vectors is not None else None
        if found is None:
            return None
        shares: list[float] = []
        start, nth = 0, 0
        for piece in pieces:
            while nth + 1 < len(found) and found[nth].span.end <= start:
                nth += 1
            shares.append(found[nth].share)
            start += piece.size
        return shares

    def _weigh(self, cuts: Sequence[Cut], lines: Sequence[bytes], item: Item, query: Query) -> int:
        """Return the tokens of what is sent if these cuts are made."""
        markers = Markers.for_content(item.content, nonce=query.nonce)
        if markers is None:
            return 0
        handle = self.store.put(item.content)
        starts = list(accumulate(map(len, lines), initial=0))
        parts: list[bytes] = []
        position = 0
        for cut in cuts:
            span = Span(starts[cut.lines.first - 1], starts[cut.lines.last])
            mark = self.mark(markers, Gap(span, handle, cut.reason), cut.lines, query, first=not parts)
            parts += (item.content[position : span.start], mark, _space(item.content[span.end - 1 : span.end]))
            position = span.end
        return query.count(b"".join([*parts, item.content[position:]]))

    def _pieces(self, content: bytes) -> list[Piece]:
        if len(content) > MAX_BYTES:
            raise InputError(f"longer than {MAX_BYTES} bytes")
        try:
            return pieces_of(content.decode())
        except UnicodeDecodeError as error:
            raise InputError("not UTF-8") from error


def _space(last: bytes) -> bytes:
    return last if last in {b"\n", b" "} else b""


def is_constraint(text: str) -> bool:
    """Say whether a sentence demands or forbids something.

    >>> is_constraint("You must not share it."), is_constraint("He had never been there.")
    (True, False)
    """
    return _constraint_pattern().search(text.encode("utf-8", "replace")) is not None


@cache
def _constraint_pattern() -> Any:
    options = re2.Options()
    options.log_errors = False
    options.encoding = re2.Options.Encoding.LATIN1
    return re2.compile(_CONSTRAINT.encode(), options)


def _pinned(pieces: Sequence[Piece], item: Item) -> list[int]:
    """Return the pieces that hold a pinned byte."""
    pins = sorted(pin for pin in item.pinned if pin.start < pin.end)
    found: list[int] = []
    start, nth = 0, 0
    reach = -1
    for number, piece in enumerate(pieces):
        end = start + piece.size
        while nth < len(pins) and pins[nth].start < end:
            reach = max(reach, pins[nth].end)
            nth += 1
        if reach > start:
            found.append(number)
        start = end
    return found


class _Selection:
    """Pieces that are kept, and what the result will have in tokens, markers included."""

    def __init__(self, pieces: Sequence[Piece], sizes: Sequence[int], *, can_expand: bool) -> None:
        self._pieces = pieces
        self._sizes = sizes
        self._kept = [False] * len(pieces)
        self._first = FIRST_MARKER_TOKENS if can_expand else SHORT_FIRST_MARKER_TOKENS
        self.marker = MARKER_TOKENS if can_expand else SHORT_MARKER_TOKENS
        self._least = min(sizes, default=0)
        self._tokens = self._first  # all is left out: one gap

    @property
    def empty(self) -> bool:
        """Whether nothing is kept."""
        return not any(self._kept)

    def keep(self, order: Iterable[int], *, limit: float | None) -> None:
        """Keep pieces in the order given, each with its headings, as far as they fit."""
        for number in order:
            if limit is not None and self._tokens + self._least > limit:
                return
            if self._kept[number]:
                continue
            wanted = [number, *(head for head in heads_of(self._pieces, number) if not self._kept[head])]
            cost = sum(self._sizes[each] for each in wanted)
            for each in wanted:
                cost += self.marker * self._new_gaps(each)
                self._kept[each] = True
            if limit is not None and self._tokens + cost > limit:
                for each in wanted:
                    self._kept[each] = False
            else:
                self._tokens += cost

    def _new_gaps(self, number: int) -> int:
        """Return by how many there are more gaps once a piece is kept: -1, 0 or 1."""
        before = number > 0 and not self._kept[number - 1]
        after = number + 1 < len(self._kept) and not self._kept[number + 1]
        return before + after - 1

    def cuts(self) -> list[Cut]:
        """Return what is left out, in whole ranges; a range that costs less than its marker stays."""
        cuts: list[Cut] = []
        start = 0
        while start < len(self._kept):
            end = start
            while end < len(self._kept) and self._kept[end] == self._kept[start]:
                end += 1
            if not self._kept[start]:
                cuts.append(Cut(Lines(start + 1, end), "of less relevance"))
            start = end
        return cuts
