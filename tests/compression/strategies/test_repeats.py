from __future__ import annotations

import pytest

from apportion.compression.strategies.repeats import Repeats
from apportion.compression.strategies.types import Held, Item, Query

BLOCK = ["def one():", "    return 'a value that is long enough'", "", "def two():", "    return one()"]


def form_of(text: str, held: tuple[Held, ...] = (), strategy: Repeats | None = None) -> list[str]:
    strategy = strategy or Repeats()
    form = strategy.encode(text, Item(text.encode(), held=held), Query())
    assert form is not None
    assert strategy.decode(form, held) == text
    return form.split("\n")[1:]


def test_a_block_is_written_once() -> None:
    assert form_of("\n".join([*BLOCK, "between", *BLOCK, "end"])) == [*BLOCK, "between", "@=1-5", "end"]


def test_what_the_receiver_holds_is_referred_to_and_the_longest_place_wins() -> None:
    held = (Held("#3", "\n".join(["x", *BLOCK[:2]]).encode()), Held("#7", "\n".join(["y", "y", *BLOCK]).encode()))
    assert form_of("\n".join(["new", *BLOCK, "end"]), held) == ["new", "@=#7:3-7", "end"]
    assert form_of("\n".join(["new", *BLOCK, "end"]), held, Repeats(within=False)) == ["new", "@=#7:3-7", "end"]


def test_references_point_to_literal_lines_only() -> None:
    text = "\n".join([*BLOCK, "a", *BLOCK, "b", "a", *BLOCK])
    assert form_of(text) == [*BLOCK, "a", "@=1-5", "b", "a", "@=1-5"]


def test_equal_lines_in_a_row_are_counted() -> None:
    assert form_of("\n".join(["start", *["."] * 30, "end"])) == ["start", ".", "@x29", "end"]


def test_lines_of_ours_in_a_text_have_another_mark() -> None:
    assert form_of("\n".join(["@=1-5", "@x9", *BLOCK, *BLOCK]))[-1] == "~=3-7"


def test_moved_lines_are_referred_to_where_that_is_asked_for() -> None:
    before = [f"{number}→the text of line {number % 7} is here" for number in range(10, 30)]
    after = [f"{number + 3}→the text of line {number % 7} is here" for number in range(10, 30)]
    held = (Held("#2", "\n".join(before).encode()),)
    assert form_of("\n".join(["top", *after]), held, Repeats(moved=True)) == ["top", "@=#2:1-20 +3"]
    assert Repeats(within=False).encode("\n".join(after[18:]), Item(b"", held=held), Query()) is None


@pytest.mark.parametrize("content", [b"\xff\n" * 30, b"", b"\n\n\n"])
def test_odd_contents_that_are_held_do_no_harm(content: bytes) -> None:
    held = (Held("#1", content),)
    assert form_of("\n".join([*BLOCK, *BLOCK]), held) == [*BLOCK, "@=1-5"]


def test_nothing_repeats() -> None:
    assert Repeats().encode("a\nb\nc\nd", Item(b""), Query()) is None
    assert Repeats(within=False).encode("a\na\na\na", Item(b""), Query()) is None
