from __future__ import annotations

from typing import Any

import pytest

from apportion.compression.strategies.types import (
    BaseStrategy,
    Estimate,
    Held,
    Item,
    Outcome,
    Query,
    Span,
    Verdict,
    count_bytes,
)
from apportion.errors import InputError


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Item("text"), "bytes"),  # type: ignore[arg-type]
        (lambda: Item(b"abc", pinned=(Span(2, 4),)), "span 2..4 is not within 0..3"),
        (lambda: Item(b"abc", pinned=(Span(2, 1),)), "span 2..1"),
        (lambda: Item(b"", held=(Held("#1", b"a"), Held("#1", b"b"))), "the same label"),
        (lambda: Held("", b""), "unusable label"),
        (lambda: Held("a b", b""), "unusable label"),
        (lambda: Held("#1:2", b""), "unusable label"),
        (lambda: Held("a\n", b""), "unusable label"),
    ],
)
def test_records_check_themselves(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_pins_are_parts_of_the_content() -> None:
    assert Item(b"abcdef", pinned=(Span(0, 2), Span(4, 4), Span(3, 6))).pins() == (b"ab", b"", b"def")


def test_tokens_are_counted_of_any_bytes() -> None:
    assert count_bytes(b"hello world") == 2
    assert count_bytes(b"\xff\xfe") >= 1
    assert Query().count(b"") == 0


def test_an_outcome_says_what_it_saved() -> None:
    outcome = Outcome(b"ab", b"abcd", 2, 4, steps=("short",))
    assert (outcome.changed, outcome.saved_share) == (True, 0.5)
    kept = Outcome.unchanged(b"", 0, "nothing to do")
    assert (kept.changed, kept.saved_share, kept.reasons) == (False, 0.0, ("nothing to do",))
    assert Estimate(3, 10, lossless=True).saved_tokens == 7


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (Outcome(b"ab", b"other", 1, 2, steps=("x",)), "another original"),
        (Outcome("ab", b"abcd", 1, 2, steps=("x",)), "str, not bytes"),  # type: ignore[arg-type]
        (Outcome(b"ab", b"abcd", 1, 2), "without a step"),
        (Outcome(b"ab", b"abcd", 3, 2, steps=("x",)), "grew from 2 to 3 tokens"),
        (Outcome(b"cd", b"abcd", 1, 2, steps=("x",)), "pinned span"),
        (Outcome(b"ab", b"abcd", 1, 2, steps=("x",)), None),
    ],
)
def test_the_rules_for_all_strategies(result: Outcome, reason: str | None) -> None:
    verdict = BaseStrategy().validate(Item(b"abcd", pinned=(Span(0, 2),)), result)
    assert bool(verdict) == (reason is None)
    assert (reason or "") in (verdict.reason or "")
    assert BaseStrategy().rollback(result) == result.original
    assert isinstance(verdict, Verdict)
