from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from apportion.planner.replay.evidence import WINDOW, Evidence
from apportion.planner.replay.visibility import Comparison, Support, Visibility

if TYPE_CHECKING:
    from collections.abc import Iterable

PIECES = [
    "ids 1001, 1002 and file_one.py; the quick brown fox jumps over the dog",
    "ids 1002, 1003; the quick brown fox jumps over the fence",
    "nothing",
    "1001 file_one.py; pack my box with five dozen liquor jugs today",
    "ids 1002, 1003; the quick brown fox jumps over the fence",
]
OUTPUTS = [
    "use 1001: the quick brown fox jumps over the dog",
    "1002 1003 9999 and five dozen liquor jugs today or tomorrow",
    "1001 1002 1003 file_one.py brown fox jumps over the fence; my box with five dozen liquor",
    "none",
]
EVIDENCE = Evidence.build(PIECES, OUTPUTS)


def _facts(prompt: Iterable[int]) -> set[int]:
    return {fact for piece in prompt for fact in EVIDENCE.piece_facts[piece].tolist()}


def _windows(texts: Iterable[str]) -> set[str]:
    return {text[start : start + WINDOW] for text in texts for start in range(len(text) - WINDOW + 1)}


class PromptPair(RuleBasedStateMachine):
    """Changes both prompts at random and counts again from the beginning each time."""

    def __init__(self) -> None:
        super().__init__()
        self.comparison = Comparison(EVIDENCE)
        self.baseline: Counter[int] = Counter()
        self.planned: Counter[int] = Counter()
        self.reach: Counter[int] = Counter()

    @rule(piece=st.integers(0, len(PIECES) - 1))
    def enter(self, piece: int) -> None:
        self.comparison.add(piece)
        self.baseline[piece] += 1
        self.planned[piece] += 1
        self.reach[piece] += 1

    @rule(piece=st.integers(0, len(PIECES) - 1))
    def enter_planned(self, piece: int) -> None:
        self.comparison.add_planned(piece)
        self.planned[piece] += 1
        self.reach[piece] += 1

    @precondition(lambda self: +(self.reach - self.planned))
    @rule(data=st.data(), back=st.booleans())
    def lose(self, data: st.DataObject, *, back: bool) -> None:
        piece = data.draw(st.sampled_from(sorted(+(self.reach - self.planned))))
        self.comparison.lose(piece)
        self.reach[piece] -= 1
        if back:
            self.comparison.regain(piece)
            self.reach[piece] += 1

    @precondition(lambda self: +self.planned)
    @rule(data=st.data())
    def leave_planned(self, data: st.DataObject) -> None:
        piece = data.draw(st.sampled_from(sorted(+self.planned)))
        self.comparison.remove_planned(piece)
        self.planned[piece] -= 1

    @precondition(lambda self: +self.baseline)
    @rule(data=st.data())
    def leave_baseline(self, data: st.DataObject) -> None:
        piece = data.draw(st.sampled_from(sorted(+self.baseline)))
        self.comparison.remove_baseline(piece)
        self.baseline[piece] -= 1

    @precondition(lambda self: +self.planned & +self.baseline)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        piece = data.draw(st.sampled_from(sorted(+self.planned & +self.baseline)))
        self.comparison.remove(piece)
        self.baseline[piece] -= 1
        self.planned[piece] -= 1
        self.reach[piece] -= 1

    @invariant()
    def facts_are_counted(self) -> None:
        shown, planned, reach = (_facts(+each) for each in (self.baseline, self.planned, self.reach))
        assert self.comparison.facts == Support(len(shown), len(shown & planned), len(shown & reach))
        for output, ids in enumerate(EVIDENCE.output_facts):
            used = set(ids.tolist()) & shown
            assert self.comparison.output_facts(output) == Support(len(used), len(used & planned), len(used & reach))

    @invariant()
    def needed_pieces_are_found(self) -> None:
        shown = _windows(PIECES[piece] for piece in +self.baseline)
        planned = _windows(PIECES[piece] for piece in +self.planned)
        masked = sorted(set(+self.baseline) - set(+self.planned))
        for output, text in enumerate(OUTPUTS):
            missing = (_windows([text]) & shown) - planned
            needed = [piece for piece in masked if _windows([PIECES[piece]]) & missing]
            assert sorted(self.comparison.quoted_masked(output, masked)) == sorted(needed)


TestPromptPair = PromptPair.TestCase
TestPromptPair.settings = settings(max_examples=settings().max_examples // 4)


def test_a_fact_stays_visible_until_its_last_copy_leaves() -> None:
    visibility = Visibility(EVIDENCE)
    fact = np.array([EVIDENCE.facts.index("1002")], dtype=np.int32)
    for piece in (0, 1, 1):
        visibility.add(piece)
    for piece in (1, 0):
        visibility.remove(piece)
        assert visibility.visible(fact).all()
    visibility.remove(1)
    assert not visibility.visible(fact).any()
    assert visibility.distinct_facts == 0


def test_entering_and_leaving_tell_what_changed() -> None:
    visibility = Visibility(EVIDENCE)
    names = EVIDENCE.facts
    assert {names[fact] for fact in visibility.add(0)} == {"1001", "1002", "file_one.py"}
    assert {names[fact] for fact in visibility.add(1)} == {"1003"}
    assert {names[fact] for fact in visibility.remove(0)} == {"1001", "file_one.py"}
    assert visibility.distinct_facts == 2


def test_a_piece_that_is_not_there_cannot_leave() -> None:
    visibility = Visibility(EVIDENCE)
    visibility.add(0)
    with pytest.raises(ValueError, match="piece 1 is not in the prompt"):
        visibility.remove(1)
    assert visibility.distinct_facts == 3


def test_a_quote_that_another_visible_piece_holds_needs_nothing() -> None:
    comparison = Comparison(EVIDENCE)
    for piece in (1, 4):
        comparison.add(piece)
    comparison.remove_planned(1)
    assert comparison.quoted_masked(2, [1]) == []
    comparison.remove_planned(4)
    assert comparison.quoted_masked(2, [1, 4]) == [1, 4]


def test_the_piece_that_holds_most_of_a_quote_comes_first() -> None:
    quote = "record 123 of alpha: the measured value is 974037"
    evidence = Evidence.build([quote[:40], quote, quote[5:45]], [quote])
    comparison = Comparison(evidence)
    for piece in range(3):
        comparison.add(piece)
        comparison.remove_planned(piece)
    assert comparison.quoted_masked(0, range(3)) == [1, 0, 2]


def test_the_share_of_no_facts_is_unknown() -> None:
    assert Support(0, 0, 0).share is None
    assert Support(4, 3, 4).share == 0.75
