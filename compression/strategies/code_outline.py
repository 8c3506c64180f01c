"""Leaves out the bodies of functions that the task does not need; heads, and all else, stay word for word.

    [7f3a: lines 40-97 left out: body of parse; expand h:3fa9c2d1 40-97]

Code is never rewritten. A body goes as a whole, its first line of documentation stays with the head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from apportion.compression.markers import Lines
from apportion.compression.strategies._code_units import units_of
from apportion.compression.strategies._relevance import bm25, terms_of
from apportion.compression.strategies.cutting import Cut
from apportion.compression.strategies.gated import GatedStrategy
from apportion.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apportion.compression.markers import Markers
    from apportion.compression.strategies._code_units import Unit
    from apportion.compression.strategies.types import Gap, Item, Query

MAX_BYTES = 4 * 2**20
"""Longest content that is looked at; beyond it the original is sent."""

KEPT_SHARE = 0.5
"""Without a target, bodies stay that have at least this share of the best one's relevance."""

MARKER_TOKENS = 30
"""What a marker costs about."""


class CodeOutline(GatedStrategy):
    """Keeps the heads of all functions, and the bodies that have most to do with the task.

    Args:
        store: Keeps the originals; one of its own where none is given.
        gate: Judges what is cut for good; the default one where none is given.
    """

    name = "code_outline"

    def mark(self, markers: Markers, gap: Gap, lines: Lines, query: Query, *, first: bool) -> bytes:
        """Return the marker of a body."""
        if query.can_expand:
            return markers.gap(gap.handle, lines, gap.reason, first=first)
        return markers.part(None, gap.span.start, gap.span.end, first=first)

    def choose(self, lines: Sequence[bytes], item: Item, target_tokens: int | None, query: Query) -> Sequence[Cut]:
        """Return the bodies that can go; none where the content is no code."""
        if len(item.content) > MAX_BYTES:
            raise InputError(f"longer than {MAX_BYTES} bytes")
        try:
            units = units_of(item.content.decode())
        except UnicodeDecodeError as error:
            raise InputError("not UTF-8") from error
        units = [unit for unit in units if unit.last <= len(lines)]
        bodies = [b"".join(lines[unit.first - 1 : unit.last]) for unit in _outermost(units)]
        sizes = dict(zip(_outermost(units), map(query.count, bodies), strict=True))
        gains = {unit: size - MARKER_TOKENS for unit, size in sizes.items() if size > MARKER_TOKENS}
        scores = _scores(list(gains), lines, query.task)
        if target_tokens is None:
            best = max(scores.values(), default=0.0)
            kept = {unit for unit, score in scores.items() if best > 0 and score >= KEPT_SHARE * best}
        else:
            room = target_tokens - (query.count(item.content) - sum(gains.values()))
            kept = set()
            for unit in sorted(gains, key=lambda unit: (-scores[unit], unit.head)):
                if gains[unit] <= room:
                    kept.add(unit)
                    room -= gains[unit]
        return [Cut(Lines(unit.first, unit.last), f"body of {unit.name}") for unit in gains if unit not in kept]


def _outermost(units: Sequence[Unit]) -> list[Unit]:
    """Return the functions that are in no other one."""
    found: list[Unit] = []
    for unit in units:
        if not found or unit.first > found[-1].last:
            found.append(unit)
    return found


def _scores(units: Sequence[Unit], lines: Sequence[bytes], task: str) -> dict[Unit, float]:
    """Return what each function has to do with a task, its head counted twice."""
    asked = dict.fromkeys(terms_of(task), 1.0)
    texts = []
    for unit in units:
        head = b"".join(lines[unit.head - 1 : unit.first - 1]).decode("utf-8", "replace")
        body = b"".join(lines[unit.first - 1 : unit.last]).decode("utf-8", "replace")
        texts.append(terms_of(f"{unit.name} {head}") * 2 + terms_of(body))
    return dict(zip(units, bm25(texts, asked), strict=True))
