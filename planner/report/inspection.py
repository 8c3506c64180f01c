"""What a compression did to one content: before and after line by line, what was left out and why, which facts show.

    inspection = inspect_outcome(outcome, name="build.log")
    inspection.facts.visible, inspection.left_out

Nothing here trusts the content: it is only split into lines and compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from apportion.compression.equal_pieces import equal_pieces
from apportion.compression.validation.facts import extract_facts, missing_facts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from apportion.compression.strategies.types import Gap, Outcome

SCHEMA = "apportion.inspection/1"
"""Name and version of the JSON form."""

MISSING = 200
"""Facts that are not visible, of which the JSON form and the page name so many."""


class Row(NamedTuple):
    """A line of the original beside a line of the result; both where they are the same, or stand at the same place.

    Attributes:
        before: Number and text of the line in the original, or `None`.
        after: Number and text of the line in the result, or `None`.
        same: Whether they are the same line.
    """

    before: tuple[int, str] | None
    after: tuple[int, str] | None
    same: bool


class LeftOut(NamedTuple):
    """A part of the original that is not visible.

    Attributes:
        first: Its first line, counted from 1.
        last: Its last line.
        bytes: Its size.
        reason: Why it was left out.
        handle: Under which it can be had back; `None` where it cannot.
    """

    first: int
    last: int
    bytes: int
    reason: str
    handle: str | None


class Facts(NamedTuple):
    """What became of the facts of an original.

    Attributes:
        total: Distinct facts of the original.
        visible: Those that stand in the result word for word.
        missing: The others, in order.
        back: How the others can be had back: `"restored"` from the visible text, `"expanded"` by handle; `None`: not.
    """

    total: int
    visible: int
    missing: tuple[str, ...]
    back: str | None


@dataclass(frozen=True, slots=True)
class Inspection:
    """A content before and after.

    Attributes:
        name: What the content is called.
        tokens: Tokens of the result.
        original_tokens: Tokens of the original.
        steps: Strategies that changed it, in their order.
        reasons: Why strategies left it as it was.
        facts: What became of its facts.
        left_out: What is not visible, in its order.
        rows: All lines, side by side.
    """

    name: str
    tokens: int
    original_tokens: int
    steps: tuple[str, ...]
    reasons: tuple[str, ...]
    facts: Facts
    left_out: tuple[LeftOut, ...]
    rows: tuple[Row, ...]

    @property
    def saved_share(self) -> float:
        """Share of the tokens that is saved, in [0, 1]."""
        return 1 - self.tokens / self.original_tokens if self.original_tokens else 0.0

    def to_json(self) -> dict[str, Any]:
        """Return what is known but the lines, as values that JSON has."""
        return {
            "schema": SCHEMA,
            "name": self.name,
            "tokens": self.tokens,
            "original_tokens": self.original_tokens,
            "saved_share": self.saved_share,
            "steps": list(self.steps),
            "reasons": list(self.reasons),
            "facts": {
                "total": self.facts.total,
                "visible": self.facts.visible,
                "missing": list(self.facts.missing[:MISSING]),
                "back": self.facts.back,
            },
            "left_out": [each._asdict() for each in self.left_out],
        }


def inspect_outcome(outcome: Outcome, *, name: str) -> Inspection:
    """Return what a compression did to a content."""
    before, after = (_text(content) for content in (outcome.original, outcome.content))
    return Inspection(
        name,
        outcome.tokens,
        outcome.original_tokens,
        outcome.steps,
        outcome.reasons,
        facts_of(outcome),
        tuple(_left_out(gap, outcome) for gap in outcome.gaps),
        tuple(side_by_side(before.split("\n"), after.split("\n"))),
    )


def grouped_reasons(reasons: Iterable[str], steps: Iterable[str] = ()) -> list[str]:
    """Return reasons, each once, with the names of all strategies that gave it.

    A strategy that is tried at several places and did something at one of them is left out.

    >>> grouped_reasons(["repeats: does not apply", "a: is full", "b: does not apply", "c: does not apply"], ["c"])
    ['does not apply: repeats, b', 'is full: a']

    Args:
        reasons: Why strategies did nothing, each with its name.
        steps: Those that did something.
    """
    done = set(steps)
    names: dict[str, dict[str, None]] = {}
    for reason in reasons:
        name, _, why = reason.partition(": ")
        if name in done:
            continue
        names.setdefault(why or name, {})[name if why else ""] = None
    return [f"{why}: {', '.join(given)}".removesuffix(": ") for why, given in names.items()]


def facts_of(outcome: Outcome) -> Facts:
    """Return what became of the facts of an original."""
    facts = extract_facts(_text(outcome.original))
    missing = tuple(sorted(missing_facts(facts, _text(outcome.content)))) if outcome.changed else ()
    back = "expanded" if outcome.handles else None if outcome.gaps else "restored"
    return Facts(len(facts), len(facts) - len(missing), missing, back)


def _left_out(gap: Gap, outcome: Outcome) -> LeftOut:
    start, end = gap.span
    first = outcome.original.count(b"\n", 0, start) + 1
    last = outcome.original.count(b"\n", 0, max(start, end - 1)) + 1
    handle = str(gap.handle) if gap.handle in outcome.handles else None
    return LeftOut(first, last, end - start, gap.reason, handle)


def side_by_side(before: Sequence[str], after: Sequence[str]) -> Iterator[Row]:
    """Yield all lines of two texts, equal ones beside each other; takes about as long as sorting them."""
    left = right = 0
    for one, other in [*equal_pieces(before, after), (len(before), len(after))]:
        for nth in range(max(one - left, other - right)):
            yield Row(
                (left + nth + 1, before[left + nth]) if left + nth < one else None,
                (right + nth + 1, after[right + nth]) if right + nth < other else None,
                same=False,
            )
        if one < len(before) and other < len(after):
            yield Row((one + 1, before[one]), (other + 1, after[other]), same=True)
        left, right = one + 1, other + 1


def _text(content: bytes) -> str:
    return content.decode("utf-8", "replace")
