"""Makes and applies deltas.

    delta = make_delta(base, target)
    apply_delta(delta.data, base, target.digest, size=target.size) == target

Sections that the base holds are named; the others are built of what stands anywhere in the base, and of what is new.
Whoever makes a delta applies it once before it is used, and whoever applies one compares the digest of the result.
"""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from apportion.compression.diff.json_edits import find_edits
from apportion.compression.diff.text_edits import Base, Finder, Place
from apportion.compression.diff.types import Reason
from apportion.compression.diff.wire import rebuild, write_built, write_json, write_kept, write_new
from apportion.errors import DeltaError

if TYPE_CHECKING:
    from apportion.compression.diff.types import Context, Section

MAX_BYTES = 64 * 2**20
"""Bytes of the largest context that is compared or rebuilt; beyond it, it is sent whole or refused."""

JSON_PREFERRED = 1.3
"""Edits of JSON by path are taken even if they are so many times as long in bytes: they can be read without the base,
and a token holds about four bytes of a path, and two of the numbers that say where a text changes."""

SMALL = 0.02
"""Edits of JSON that are so small a share of the text are taken without a look at its pieces."""


class Changes(NamedTuple):
    """Of how many sections a delta says what.

    Attributes:
        kept: As in the base, and in the same order.
        moved: As in the base, but elsewhere, or once more.
        edited: Built of parts of the base.
        added: Sent whole.
        removed: In the base only.
    """

    kept: int = 0
    moved: int = 0
    edited: int = 0
    added: int = 0
    removed: int = 0


@dataclass(frozen=True, slots=True)
class Delta:
    """How a target is made of a base.

    Attributes:
        base: Digest of the base.
        target: Digest of the target.
        size: Bytes of the target's contents.
        data: The text form.
        changes: What it changes.
    """

    base: str
    target: str
    size: int
    data: bytes
    changes: Changes


def make_delta(base: Context, target: Context) -> Delta:
    """Return the delta that makes one context of another; any two contexts have one.

    Raises:
        DeltaError: Trying the delta did not give the target; then the target is to be sent whole.
    """
    for with_json in (True, False):
        data, changes = _Comparison(base, target, with_json=with_json).write()
        try:
            if rebuild(data, base, max_bytes=target.size).sections == target.sections:
                return Delta(base.digest, target.digest, target.size, data, changes)
        except DeltaError:
            continue
    raise DeltaError("a delta does not give its target", reason=Reason.NOT_REPRODUCED)


def apply_delta(data: bytes, base: Context, target: str, *, size: int, max_bytes: int = MAX_BYTES) -> Context:
    """Return the context that a delta gives, compared with its digest.

    Args:
        data: The text form.
        base: What it is against.
        target: Digest of the context that it must give.
        size: Bytes of contents that it must give.
        max_bytes: Most that is rebuilt, whatever the delta says.

    Raises:
        DeltaError: The delta is damaged, too large, or gives another context.
    """
    if not 0 <= size <= max_bytes:
        raise DeltaError(f"a context of {size} bytes; {max_bytes} are rebuilt at most", reason=Reason.TOO_LARGE)
    context = rebuild(data, base, max_bytes=size)
    if context.size != size or context.digest != target:
        raise DeltaError("a delta gives another context than it says", reason=Reason.HASH_MISMATCH)
    return context


_Key = tuple[bytes, str, str]


class _Comparison:
    """Compares a target with a base, section by section.

    Args:
        base: What the receiver holds.
        target: What it is to get.
        with_json: Whether JSON may be edited by paths; not where that did not give the target.
    """

    def __init__(self, base: Context, target: Context, *, with_json: bool) -> None:
        self._with_json = with_json
        self._old = base.sections
        self._new = target.sections
        self._same = _aligned(self._old, self._new)
        kept = set(self._same)
        self._pairs = self._paired({number for number in range(len(self._old)) if number not in kept})

    def write(self) -> tuple[bytes, Changes]:
        """Return the text form, and what it changes."""
        contents = [section.content for section in self._old]
        base = Base(contents)
        changed = [section.content for section, old in zip(self._new, self._same, strict=True) if old is None]
        finder = Finder(base, changed) if contents else None
        ops: list[bytes] = []
        used: set[int] = set()
        highest, kept, moved, edited = -1, 0, 0, 0
        number = 0
        while number < len(self._new):
            old = self._same[number]
            if old is None:
                op, source = self._changed(number, base, finder)
                edited += source is not None
                used |= set() if source is None else {source}
                ops.append(op)
                number += 1
                continue
            end = number + 1
            while end < len(self._new) and self._same[end] == old + end - number:
                end += 1
            ops.append(write_kept(old, old + end - number))
            used.update(range(old, old + end - number))
            kept, moved = (kept + end - number, moved) if old > highest else (kept, moved + end - number)
            highest, number = max(highest, old + end - number - 1), end
        added = len(self._new) - kept - moved - edited
        return b"".join(ops), Changes(kept, moved, edited, added, len(self._old) - len(used))

    def _changed(self, number: int, base: Base, finder: Finder | None) -> tuple[bytes, int | None]:
        """Return the shortest way to write a section that the base does not hold, and of which section it is built."""
        section, pair = self._new[number], self._pairs.get(number)
        whole = write_new(section)
        if finder is None:
            return whole, None
        edits = self._json_edits(section, pair)
        if edits is not None and len(edits) < SMALL * len(whole):
            return edits, pair
        best, source = whole, None
        parts = finder.parts(section.content, pair)
        places = [part for part in parts if isinstance(part, Place)]
        if places:
            built = write_built(section, parts, base, self._old)
            if len(built) < len(best):
                best, source = built, places[0].section if pair is None else pair
        if edits is not None and len(edits) < min(len(whole), JSON_PREFERRED * len(best)):
            best, source = edits, pair
        return best, source

    def _json_edits(self, section: Section, pair: int | None) -> bytes | None:
        if pair is None or not self._with_json:
            return None
        edits = find_edits(self._old[pair].content, section.content)
        return None if edits is None else write_json(section, edits, pair, self._old[pair])

    def _paired(self, free: set[int]) -> dict[int, int]:
        """Return of which section in the base each new one may be another version: of the same kind and name."""
        queues: dict[tuple[str, str], deque[int]] = defaultdict(deque)
        for old in sorted(free):
            queues[self._old[old].kind, self._old[old].name].append(old)
        pairs: dict[int, int] = {}
        following = 0
        for number, section in enumerate(self._new):
            same = self._same[number]
            if same is not None:
                following = same + 1
                continue
            key = (section.kind, section.name)
            if following in free and key == (self._old[following].kind, self._old[following].name):
                pairs[number] = following
                queues[key].remove(following)
            elif queues[key]:
                pairs[number] = queues[key].popleft()
            else:
                continue
            free.discard(pairs[number])
            following = pairs[number] + 1
        return pairs


def _aligned(old: tuple[Section, ...], new: tuple[Section, ...]) -> list[int | None]:
    """Return for each new section where the base holds it, or `None`; rather the one after that before it."""
    first = 0
    for one, other in zip(old, new, strict=False):
        if one is not other and _key(one) != _key(other):
            break
        first += 1
    found: list[int | None] = list(range(first))
    if first == len(new):
        return found
    keys = [_key(section) for section in old]
    wanted = [_key(section) for section in new[first:]]
    common = set(wanted).intersection(keys)
    places: dict[_Key, int] = {}
    for number, key in enumerate(keys if common else ()):
        if key in common:
            places.setdefault(key, number)
    expected = first
    for key in wanted:
        known = places.get(key)
        if known is None:
            found.append(None)
            continue
        at = expected if expected < len(old) and keys[expected] == key else known
        found.append(at)
        expected = at + 1
    return found


def _key(section: Section) -> _Key:
    """Return what makes a section the same as another; a tuple is compared faster than a record."""
    return section.content, section.kind, section.name
