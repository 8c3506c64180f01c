from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apportion.compression.actions import restore
from apportion.compression.store import HandleStore
from apportion.compression.strategies.types import count_bytes
from apportion.compression.temporal import Piece, Reason, Stale, find_stale, replace_stale
from apportion.errors import InputError
from apportion.records import Action, Kind

LONG = "".join(f"def step_{number}(): return {number}\n" for number in range(60))


def exchange(name: str, content: str, link: str | None = None, **fields: object) -> list[Piece]:
    return [
        Piece(Kind.TOOL_CALL, json.dumps(fields).encode(), name, link),
        Piece(Kind.TOOL_RESULT, content.encode(), name, link),
    ]


def found(pieces: list[Piece], **options: int) -> list[tuple[int, int | None, str, int | None]]:
    return [tuple(stale) for stale in find_stale(pieces, **options)]  # type: ignore[arg-type,misc]


def test_a_later_read_of_the_same_file_replaces_an_earlier_one() -> None:
    pieces = [*exchange("Read", "old", file_path="a.py"), *exchange("Read", "new", file_path="a.py")]
    assert found(pieces) == [(1, 0, Reason.SUPERSEDED, 3)]


def test_a_read_is_replaced_by_one_that_shows_all_of_it_and_no_less() -> None:
    part = exchange("Read", "part", file_path="a.py", offset=10, limit=5)
    assert found([*part, *exchange("Read", "whole", file_path="a.py")]) == [(1, 0, Reason.SUPERSEDED, 3)]
    assert found([*part, *exchange("Read", "more", file_path="a.py", offset=5, limit=50)])
    assert not found([*exchange("Read", "whole", file_path="a.py"), *part])
    assert not found([*part, *exchange("Read", "other", file_path="b.py")])


def test_a_later_listing_of_the_same_target_replaces_an_earlier_one_and_a_command_does_not() -> None:
    assert found([*exchange("LS", "a", path="."), *exchange("LS", "a b", path=".")])[0][2] == Reason.SUPERSEDED
    assert not found([*exchange("LS", "a", path="."), *exchange("LS", "b", path="src")])
    assert not found([*exchange("Bash", "a", command="date"), *exchange("Bash", "b", command="date")])


def test_the_later_of_two_equal_results_refers_to_the_first_which_then_stays() -> None:
    pieces = [*exchange("Bash", LONG, command="x") * 3]
    assert found(pieces, old_after=1) == [(3, 2, Reason.DUPLICATE, 1), (5, 4, Reason.DUPLICATE, 1)]
    (first, _) = replace_stale(pieces, find_stale(pieces), store=HandleStore(), count=count_bytes)
    assert first.rendered.content == f"[same {len(LONG):,} bytes as result 1 above]".encode()
    assert (first.stale.action, first.summary) == (Action.REFERENCE, "")


def test_of_plans_only_the_newest_stays() -> None:
    pieces = [piece for number in range(3) for piece in exchange("TodoWrite", f"plan {number}", todos=[number])]
    assert found(pieces) == [(1, 0, Reason.EXPIRED, 5), (3, 2, Reason.EXPIRED, 5)]


def test_results_are_old_after_as_many_completions_as_asked_for() -> None:
    pieces = [piece for number in range(4) for piece in exchange("Bash", f"r{number}", command=f"c{number}")]
    assert [position for position, *_ in found(pieces, old_after=2)] == [1, 3]
    assert not found(pieces)
    with pytest.raises(InputError):
        find_stale(pieces, old_after=0)


def test_pinned_pieces_and_those_relied_on_stay() -> None:
    pieces = [*exchange("Read", "old", file_path="a.py"), *exchange("Read", "new", file_path="a.py")]
    assert not find_stale(pieces, relied_on={1})
    pinned = [pieces[0], Piece(Kind.TOOL_RESULT, b"old", "Read", pinned=True), *pieces[2:]]
    assert not find_stale(pinned)


def test_links_tie_results_to_calls_out_of_order() -> None:
    (a, a_result), (b, b_result) = exchange("Read", "1", "x", path="a"), exchange("Read", "2", "y", path="b")
    (_, again) = exchange("Read", "3", "z", path="a")
    call = Piece(Kind.TOOL_CALL, a.content, "Read", "z")
    assert found([a, b, b_result, a_result, call, again]) == [(3, 0, Reason.SUPERSEDED, 5)]


def test_a_stub_says_what_the_result_held_and_gives_it_back() -> None:
    store = HandleStore()
    pieces = [*exchange("Read", LONG, file_path="src/app.py"), *exchange("Read", LONG + "#", file_path="src/app.py")]
    (made,) = replace_stale(pieces, find_stale(pieces), store=store, count=count_bytes)
    said = made.rendered.content.decode()
    assert (
        "left out: src/app.py 60 lines: def step_0, def step_1, def step_2, def step_3 and 56 more; expand h:" in said
    )
    assert restore(made.rendered, store) == LONG.encode()
    assert made.saved_tokens == count_bytes(LONG.encode()) - count_bytes(made.rendered.content) > 0
    assert made.suffix_tokens == sum(count_bytes(piece.content) for piece in pieces[2:])
    assert made.stale.breaks_at == 1
    (bare,) = replace_stale(pieces, find_stale(pieces), store=store, count=count_bytes, summaries=False)
    assert made.summary_tokens >= made.rendered.content.count(b" ") - bare.rendered.content.count(b" ") > 0


def test_a_result_shorter_than_its_stub_stays() -> None:
    pieces = [*exchange("Read", "old", file_path="a.py"), *exchange("Read", "new", file_path="a.py")]
    (made,) = replace_stale(pieces, find_stale(pieces), store=HandleStore(), count=count_bytes)
    assert (made.rendered.action, made.rendered.content, made.saved_tokens) == (Action.KEEP, b"old", 0)
    assert (made.summary, made.summary_tokens) == ("", 0)


PIECES = st.builds(
    Piece,
    st.sampled_from(list(Kind)),
    st.sampled_from([b"", b"{", b'{"path": "a"}', b'{"path": 1, "offset": "x"}', b"\xff", b"[1]", LONG.encode()]),
    st.none() | st.sampled_from(["Read", "LS", "Bash", "TodoWrite"]),
    st.none() | st.sampled_from("xyz"),
    st.booleans(),
)


@given(st.lists(PIECES, max_size=12))
def test_whatever_the_conversation_only_results_are_replaced_and_all_come_back(pieces: list[Piece]) -> None:
    store = HandleStore()
    stale = find_stale(pieces, old_after=1)
    assert [each.position for each in stale] == sorted({each.position for each in stale})
    for each, made in zip(stale, replace_stale(pieces, stale, store=store, count=len), strict=True):
        assert pieces[each.position].kind in {Kind.TOOL_RESULT, Kind.HANDOFF_RESULT}
        assert not pieces[each.position].pinned
        assert made.saved_tokens >= 0
        if made.rendered.action is not Action.REFERENCE:
            assert restore(made.rendered, store) == pieces[each.position].content


def test_a_decision_is_a_record() -> None:
    assert Stale(3, 2, Reason.OLD, None).action is Action.MASK
