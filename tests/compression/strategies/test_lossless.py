"""Laws of all lossless strategies; what each does by itself is tested beside it."""

# ruff: noqa: ARG002  (the arguments are those of the protocol)
from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apportion.compression.strategies.grep_groups import GrepGroups
from apportion.compression.strategies.json_columns import JsonColumns
from apportion.compression.strategies.log_templates import LogTemplates
from apportion.compression.strategies.lossless import LosslessStrategy, free_mark, split_form
from apportion.compression.strategies.repeats import Repeats
from apportion.compression.strategies.types import Held, Item, Query, Span
from apportion.compression.strategies.white_space import WhiteSpace
from apportion.testing import check_strategy, contents, hostile_texts, json_texts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

STRATEGIES: list[LosslessStrategy] = [WhiteSpace(), JsonColumns(), GrepGroups(), LogTemplates(), Repeats()]
CHEAP = Query(count=len)

each_strategy = pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda strategy: strategy.name)


@each_strategy
def test_ours_conform(strategy: LosslessStrategy) -> None:
    check_strategy(strategy)


@each_strategy
@settings(max_examples=settings().max_examples // 4)
@given(content=contents())
def test_what_was_encoded_decodes_to_the_same_text(strategy: LosslessStrategy, content: bytes) -> None:
    text = content.decode("utf-8", "replace")
    form = strategy.encode(text, Item(text.encode()), Query())
    assert form is None or strategy.decode(form, ()) == text


@each_strategy
@settings(max_examples=settings().max_examples // 4)
@given(content=contents())
def test_any_content_comes_back_and_none_grows(strategy: LosslessStrategy, content: bytes) -> None:
    item = Item(content)
    outcome = strategy.execute(item, None, CHEAP)
    assert strategy.execute(item, None, CHEAP) == outcome
    assert len(outcome.content) <= len(content)
    assert strategy.rollback(outcome) == content
    assert strategy.validate(item, outcome)
    assert (strategy.restore(outcome.content) if outcome.changed else outcome.content) == content


@each_strategy
@settings(max_examples=settings().max_examples // 4)
@given(content=contents(), data=st.data())
def test_pins_stay_visible(strategy: LosslessStrategy, content: bytes, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(content)))
    span = Span(start, data.draw(st.integers(start, len(content))))
    outcome = strategy.execute(Item(content, pinned=(span,)), None, CHEAP)
    assert content[span.start : span.end] in outcome.content


@settings(max_examples=settings().max_examples // 4)
@given(text=json_texts())
def test_json_of_any_spelling_comes_back(text: str) -> None:
    strategy = JsonColumns()
    text = text.encode("utf-8", "replace").decode()
    form = strategy.encode(text, Item(text.encode()), Query())
    assert form is None or strategy.decode(form, ()) == text


@settings(max_examples=settings().max_examples // 4)
@given(texts=st.lists(contents(), min_size=1, max_size=4), last=contents())
def test_references_to_what_is_held_come_back(texts: list[bytes], last: bytes) -> None:
    held = tuple(Held(f"#{number}", text) for number, text in enumerate(texts))
    joined = b"\n".join([last, *texts]).decode("utf-8", "replace")
    for strategy in (Repeats(), Repeats(within=False)):
        form = strategy.encode(joined, Item(joined.encode(), held=held), Query())
        assert form is None or strategy.decode(form, held) == joined


class Forgetful(LosslessStrategy):
    """Loses the last character of every text."""

    name = "forgetful"

    def encode(self, text: str, item: Item, query: Query) -> str | None:
        return text[: len(text) // 2]

    def decode(self, form: str, held: Sequence[Held]) -> str:
        return form


class Raising(Forgetful):
    name = "raising"

    def encode(self, text: str, item: Item, query: Query) -> str | None:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("strategy", "content", "reason"),
    [
        (Forgetful(), b"a text that is longer than the mark to beat", "forgetful: would not restore the original"),
        (Raising(), b"a text", "raising: RuntimeError: no"),
        (Raising(), b"\xff", "raising: not UTF-8"),
        (WhiteSpace(), b"a text", "white_space: does not apply"),
        (WhiteSpace(), b"a\r\nb", "white_space: saves no tokens"),
    ],
)
def test_whatever_goes_wrong_the_original_is_sent_with_the_reason(
    strategy: LosslessStrategy, content: bytes, reason: str
) -> None:
    outcome = strategy.execute(Item(content), None, Query())
    assert (outcome.content, outcome.changed, outcome.reasons) == (content, False, (reason,))


def test_a_form_that_hides_a_pin_is_not_used() -> None:
    content = "\n".join(f"src/app.py:{number}:x = {number}" for number in range(10, 40)).encode()
    assert GrepGroups().execute(Item(content), None, Query()).changed
    outcome = GrepGroups().execute(Item(content, pinned=(Span(0, 20),)), None, Query())
    assert outcome.reasons == ("grep_groups: would hide a pinned span",)


def test_damaged_forms_are_refused() -> None:
    rows = json.dumps([{"id": number, "name": f"name {number}"} for number in range(20)]).encode()
    item = Item(rows)
    outcome = JsonColumns().execute(item, None, Query())
    for damaged in (
        outcome.content[:-1],
        outcome.content.replace(b"name 7", b"name 8"),
        b"",
        b"\xff",
        b"[json; @]\n@[1",
    ):
        verdict = JsonColumns().validate(item, replace(outcome, content=damaged))
        assert not verdict
        assert str(verdict.reason).startswith(("does not restore the original", "cannot be restored: "))


def test_a_mark_is_one_with_which_no_line_begins() -> None:
    assert free_mark("@a\n~b\n") == "^"
    assert free_mark("".join(f"\n{mark}" for mark in "@~^%§¤¦‖※†")) is None
    with pytest.raises(ValueError, match="not a form of json"):
        split_form("[log 1]\n", "json")


@each_strategy
@pytest.mark.parametrize("kind", hostile_texts(100))
def test_time_grows_no_faster_than_hostile_text(
    strategy: LosslessStrategy, kind: str, growth: Callable[..., float]
) -> None:
    def prepare(size: int) -> Callable[[], object]:
        item = Item(hostile_texts(size)[kind].encode())
        return lambda: strategy.execute(item, None, CHEAP)

    assert growth(prepare, 20_000) < 25
