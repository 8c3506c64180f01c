"""The fact check: what a result still shows of its original, what it hides behind handles, and what it makes up.

    found = check(original, outcome.content, gaps=outcome.gaps)
    if not found:
        print(found.reasons)

Two things are looked at. Facts, quantities, pairs and constraints are compared as sets, which gives the shares. And the
two texts are compared word for word (`wording.py`), which decides: whatever the result lacks must be behind a handle or
stand elsewhere in it, and it says nothing that the original does not. A rewrite in other words is refused; so is a
changed order. White space, line breaks, quotes, bullets, emphasis and thousands separators may change.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from apportion.compression.validation.associations import extract_pairs, extract_quantities
from apportion.compression.validation.constraints import constraint_sentences, is_negation
from apportion.compression.validation.facts import MAX_ERROR_LINE, extract_facts
from apportion.compression.validation.wording import MIN_REPEATED, Shown, compare, read_words, unescaped

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from apportion.compression.strategies.types import Gap
    from apportion.compression.validation.wording import Wording

MAX_PASSAGE = 200
"""Characters of a passage that are reported."""

MIN_LEFT_OUT = 3
"""Words of the shortest passage that may be left out where it can be had back; with a negation, `MIN_REPEATED`."""

_JOINTS = bytes.maketrans(b"\"'`()[]{}<>,;|*=:!?\\", b" " * 20)
_QUOTES = dict.fromkeys(map(ord, "“”„‟‘’‚«»‹›「」『』"), " ")


@dataclass(frozen=True, slots=True)
class Check:
    """What a comparison of a result with its original found; true where the result may be sent.

    Attributes:
        facts: Distinct facts of the original: those of `extract_facts`.
        visible_facts: How many of them the result shows.
        hidden_facts: How many more can be had back by handle.
        associations: Distinct quantities and pairs of the original; 0 unless asked for.
        visible_associations: How many of them the result shows.
        lost: Facts that are neither visible nor recoverable, sorted.
        hidden: Facts that are recoverable only, sorted.
        lost_associations: Quantities and pairs that are not visible, sorted.
        new: Facts of the result that the original does not show, sorted.
        constraints: Number of distinct constraint sentences of the original.
        lost_constraints: Those neither visible nor recoverable.
        hidden_constraints: Those that are recoverable only.
        lost_passages: What the result lacks, word for word.
        new_passages: What the result says and the original does not.
        moved_passages: What stands in another order.
        proved: The original can be restored from the visible result alone, so that the rest is for information.
        constraints_may_hide: A constraint behind a handle is no reason to refuse.
    """

    facts: int
    visible_facts: int
    hidden_facts: int
    associations: int
    visible_associations: int
    lost: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    lost_associations: tuple[str, ...] = ()
    new: tuple[str, ...] = ()
    constraints: int = 0
    lost_constraints: tuple[str, ...] = ()
    hidden_constraints: tuple[str, ...] = ()
    lost_passages: tuple[str, ...] = ()
    new_passages: tuple[str, ...] = ()
    moved_passages: tuple[str, ...] = ()
    proved: bool = False
    constraints_may_hide: bool = False

    def __bool__(self) -> bool:
        return self.accepted

    @property
    def accepted(self) -> bool:
        """Whether the result may be sent instead of the original."""
        return not self.reasons

    @property
    def visible_share(self) -> float:
        """Share of the facts that the result shows, in [0, 1]; 1 where there are none."""
        return self.visible_facts / self.facts if self.facts else 1.0

    @property
    def recoverable_share(self) -> float:
        """Share of the facts that the result shows or that can be had back by handle, in [0, 1]."""
        return (self.visible_facts + self.hidden_facts) / self.facts if self.facts else 1.0

    @property
    def negations(self) -> tuple[str, ...]:
        """Words that negate and were taken away or put in, in the order in which they were found."""
        passages = (*self.lost_passages, *self.new_passages)
        return tuple(word for passage in passages for word in passage.split() if is_negation(word))

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the result may not be sent, in words; empty where it may."""
        return () if self.proved else tuple(self._reasons())

    def _reasons(self) -> Iterator[str]:
        yield from _reason("constraint", "lost", self.lost_constraints)
        if not self.constraints_may_hide:
            yield from _reason("constraint", "hidden", self.hidden_constraints)
        yield from _reason("fact", "lost", self.lost)
        yield from _reason("fact", "new", self.new)
        yield from _reason("passage", "lost", self.lost_passages)
        yield from _reason("passage", "new", self.new_passages)
        yield from _reason("passage", "in another order", self.moved_passages)


def check(
    original: bytes,
    result: bytes,
    *,
    gaps: Sequence[Gap] = (),
    markers: Sequence[bytes] = (),
    recoverable: bytes | None = None,
    proved: bool = False,
    constraints_may_hide: bool = False,
    associations: bool = False,
) -> Check:
    """Compare a result with its original, in time that is linear in both.

    Args:
        original: What was there.
        result: What the receiver gets.
        gaps: Parts of the original behind handles, in their order; their markers are ours and say nothing new.
        markers: Further lines of the result that are ours, in their order, exactly as they stand there.
        recoverable: What else can be had back by handle; the original itself where all of it can.
        proved: The caller restored the original from the visible result, byte for byte. What is compared then is for
            information: another notation of the same has other words.
        constraints_may_hide: Accept a constraint behind a handle, for contents that are masked as a whole.
        associations: Count quantities and pairs too, for a report; the wording decides without them.

    >>> found = check(b"Wait 30 seconds. Never retry.", b"Wait 80 seconds.")
    >>> found.accepted, found.visible_share, found.lost_constraints
    (False, 0.0, ('Never retry.',))
    >>> check(b"* max_size: 1,500", b"- max_size: 1500").accepted
    True
    """
    shown_text = _without(markers, _without((gap.marker for gap in gaps), result))
    whole, shown = _text(original), _text(shown_text)
    result_words = read_words(shown_text)
    view = _View(shown, result_words)
    behind = _behind(original, gaps, recoverable)
    facts = extract_facts(whole)
    new_facts = facts if shown == whole else extract_facts(shown)
    pairs = _associations(whole) if associations else frozenset()
    unseen_pairs = pairs - _associations(shown) if associations else pairs
    unseen = {fact for fact in facts - new_facts if not view.holds(fact)}
    unseen_pairs = frozenset(pair for pair in unseen_pairs if not view.words.holds(_bytes(pair)))
    back = {fact for fact in unseen if behind is not None and behind.holds(fact)}
    sentences = dict.fromkeys(constraint_sentences(whole))
    unseen_constraints = _unseen(sentences, shown, view)
    hidden_constraints = [each for each in unseen_constraints if behind is not None and behind.holds(each)]
    lost_passages, new_passages, moved_passages = _passages(original, result_words, gaps, recoverable, proved=proved)
    invented = new_facts - facts
    if invented:
        first = _View(whole, read_words(original))
        invented = frozenset(fact for fact in invented if not first.holds(fact))
    return Check(
        facts=len(facts),
        visible_facts=len(facts) - len(unseen),
        hidden_facts=len(back),
        associations=len(pairs),
        visible_associations=len(pairs) - len(unseen_pairs),
        lost=tuple(sorted(unseen - back)),
        hidden=tuple(sorted(back)),
        lost_associations=tuple(sorted(unseen_pairs)),
        new=tuple(sorted(invented)),
        constraints=len(sentences),
        lost_constraints=tuple(each for each in unseen_constraints if each not in hidden_constraints),
        hidden_constraints=tuple(hidden_constraints),
        lost_passages=lost_passages,
        new_passages=new_passages,
        moved_passages=moved_passages,
        proved=proved,
        constraints_may_hide=constraints_may_hide,
    )


class _View:
    """A text that is asked whether it shows facts.

    A path, URL or name must stand there as it is, between marks that no such fact holds. A number, and what holds white
    space or such marks, must stand there word for word, whatever the layout.
    """

    def __init__(self, text: str, wording: Wording) -> None:
        self.words = Shown(wording)
        self._text = text
        self._pieces: frozenset[bytes] | None = None

    def holds(self, fact: str) -> bool:
        """Say whether a fact stands in the text."""
        if len(fact) >= MAX_ERROR_LINE:
            fact = fact.rpartition(" ")[0] or fact  # the last word of a cut line is none
        data = _apart(fact)
        is_number = data.lstrip(b"-+$")[:1].isdigit()
        is_marked = b"_" in (data[:1], data[-1:]) and data.strip(b"_").isalpha()  # a word that is emphasised
        if is_number or is_marked or data != _bytes(fact) or len(data.split()) > 1:
            return self.words.holds(_bytes(fact))
        return not {data, data.strip(b"_")}.isdisjoint(self._all_pieces())

    def _all_pieces(self) -> frozenset[bytes]:
        if self._pieces is None:
            found = set(_apart(self._text).split())
            found |= {piece.strip(b".") for piece in found}
            self._pieces = frozenset(found | {piece.strip(b"_") for piece in found})
        return self._pieces


def _apart(text: str) -> bytes:
    """Return a text with a space for every mark that no path, URL or name holds."""
    return _bytes(text if text.isascii() else text.translate(_QUOTES)).translate(_JOINTS)


def _passages(
    original: bytes, result: Wording, gaps: Sequence[Gap], recoverable: bytes | None, *, proved: bool
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Return what was lost, what is new, and what was moved; beside gaps nothing may be left out."""
    if proved:
        return (), (), ()
    words = read_words(_outside(original, gaps) if gaps else original)
    difference = compare(words, result)
    back = Shown(read_words(recoverable)) if recoverable is not None and difference.dropped else None
    dropped = (passage.text(words) for passage in difference.dropped)
    return (
        tuple(each[:MAX_PASSAGE] for each in dropped if back is None or not _may_go(each, back)),
        tuple(passage.text(result)[:MAX_PASSAGE] for passage in difference.inserted),
        tuple(passage.text(result)[:MAX_PASSAGE] for passage in difference.moved),
    )


def _may_go(passage: str, back: Shown) -> bool:
    """Say whether a passage can be had back, and what is left does not say something else without it."""
    words = passage.split()
    least = MIN_REPEATED if any(map(is_negation, words)) else MIN_LEFT_OUT
    return len(words) >= least and back.holds(_bytes(passage))


def _behind(original: bytes, gaps: Sequence[Gap], recoverable: bytes | None) -> _View | None:
    """Return what can be had back by handle, or `None` if nothing."""
    parts = [original[gap.span.start : gap.span.end] for gap in gaps]
    if recoverable is not None:
        parts.append(recoverable)
    if not parts:
        return None
    data = b"\n".join(parts)
    return _View(_text(data), read_words(data))


def _outside(original: bytes, gaps: Iterable[Gap]) -> bytes:
    parts: list[bytes] = []
    position = 0
    for gap in gaps:
        parts.append(original[position : gap.span.start])
        position = gap.span.end
    return b"".join([*parts, original[position:]])


def _without(markers: Iterable[bytes], result: bytes) -> bytes:
    parts: list[bytes] = []
    position = 0
    for marker in markers:
        found = result.find(marker, position)
        if found >= 0 and marker:
            parts.append(result[position:found])
            position = found + len(marker)
    return b"".join([*parts, result[position:]])


def _associations(text: str) -> frozenset[str]:
    return extract_quantities(text) | extract_pairs(text)


def _unseen(constraints: Iterable[str], text: str, view: _View) -> list[str]:
    missing = [each for each in constraints if not view.words.holds(_bytes(each))]
    shown = frozenset(constraint_sentences(text)) if missing else frozenset()
    return [each for each in missing if each not in shown]


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _text(content: bytes) -> str:
    return unescaped(content).decode("utf-8", "replace")


def _reason(noun: str, how: str, which: Sequence[str]) -> Iterator[str]:
    if which:
        yield f"{len(which)} {noun}{'' if len(which) == 1 else 's'} {how}, first: {which[0]!r}"
