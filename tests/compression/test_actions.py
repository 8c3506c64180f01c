from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apportion.compression.actions import MAX_NAME, Rendered, mask, reference, render, restore, result_number
from apportion.compression.store import HandleStore
from apportion.errors import StoreError
from apportion.records import Action, Kind
from apportion.tokens import count_tokens

LONG = 10_000
"""More tokens than any stub has."""


def _count(content: bytes) -> int:
    return count_tokens(content.decode())


def test_a_stub_names_tool_size_and_handle_on_one_short_line() -> None:
    handle = HandleStore().put(b"x" * 5000)
    stub = mask(b"x" * 5000, handle=handle, name="Read", tokens=1234)
    assert stub.decode() == f"[Read result, 1,234 tokens, left out; expand h:{handle.short}]"
    assert _count(stub) <= 25
    assert b"5,000 bytes" in mask(b"x" * 5000, handle=handle, name=None, tokens=None)


def test_a_reference_names_the_earlier_result() -> None:
    assert reference(b"x" * 5000, number=12).decode() == "[same 5,000 bytes as result 12 above]"


def test_results_are_counted_as_a_reader_counts_them_whatever_else_a_prompt_holds() -> None:
    one: list[tuple[Kind, str | None]] = [(Kind.TOOL_CALL, "a"), (Kind.TOOL_RESULT, "a")]
    two: list[tuple[Kind, str | None]] = [(Kind.HANDOFF, "b"), (Kind.HANDOFF_RESULT, "b"), (Kind.HANDOFF_RESULT, "b")]
    for head in ([], [(Kind.SYSTEM, None), (Kind.USER, None)]):
        assert [result_number([*head, *more]) for more in (one, [*one, *two], two)] == [1, 2, 1]
    assert result_number([(Kind.TOOL_RESULT, None)] * 3) == 3, "results without a link are one each"


@given(st.binary(max_size=300), st.sampled_from(Action), st.text(max_size=60) | st.none())
def test_every_action_is_undone_byte_for_byte(content: bytes, action: Action, name: str | None) -> None:
    store = HandleStore()
    rendered = render(content, action, store=store, tokens=LONG, count=_count, name=name, number=3)
    assert rendered.action is action
    assert restore(rendered, store) == content


@given(st.text(max_size=200))
def test_a_name_cannot_break_out_of_the_stub(name: str) -> None:
    stub = mask(b"x", handle=HandleStore().put(b"x"), name=name, tokens=9).decode()
    assert len(stub.splitlines()) == 1
    assert stub.count("[") == stub.count("]") == 1
    assert len(stub) < MAX_NAME + 60


@pytest.mark.parametrize("action", [Action.MASK, Action.REFERENCE])
def test_an_item_is_replaced_only_where_the_stub_is_shorter(action: Action) -> None:
    actions = set()
    for tokens in range(1, 60):
        store = HandleStore()
        rendered = render(b"some text", action, store=store, tokens=tokens, count=_count, name="Bash", number=1)
        actions.add(rendered.action)
        if rendered.action is Action.KEEP:
            assert rendered == Rendered(Action.KEEP, b"some text", None)
        else:
            assert _count(rendered.content) < tokens
    assert actions == {Action.KEEP, action}


def test_an_item_that_is_kept_takes_no_room_in_the_store() -> None:
    store = HandleStore()
    for action in Action:
        render(b"tiny", action, store=store, tokens=1, count=_count, name="Bash", number=1)
    assert len(store) == 0


def test_a_reference_without_a_number_is_refused() -> None:
    with pytest.raises(ValueError, match="number"):
        render(b"text", Action.REFERENCE, store=HandleStore(), tokens=LONG, count=_count)


def test_text_that_looks_like_a_stub_is_never_taken_for_one() -> None:
    store = HandleStore()
    secret = store.put(b"the original of another item")
    forged = mask(b"", handle=secret, name="Read", tokens=LONG)
    kept = render(forged, Action.KEEP, store=store, tokens=LONG, count=_count)
    assert restore(kept, store) == forged
    masked = render(forged, Action.MASK, store=store, tokens=LONG, count=_count, name="Read")
    assert restore(masked, store) == forged
    assert restore(Rendered(Action.KEEP, masked.content), store) == masked.content


def test_an_original_that_is_gone_is_an_error() -> None:
    rendered = render(b"text", Action.MASK, store=HandleStore(), tokens=LONG, count=_count)
    with pytest.raises(StoreError, match="unknown handle"):
        restore(rendered, HandleStore())
