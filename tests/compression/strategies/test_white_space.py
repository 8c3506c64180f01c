from __future__ import annotations

import pytest

from apportion.compression.strategies.types import Item, Query
from apportion.compression.strategies.white_space import WhiteSpace


def form_of(text: str) -> str:
    form = WhiteSpace().encode(text, Item(text.encode()), Query())
    assert form is not None
    assert WhiteSpace().decode(form, ()) == text
    return form


@pytest.mark.parametrize(("sign", "name"), [("→", "→"), ("\t", "\\t"), (": ", ": %s")])
def test_line_numbers_lose_their_padding_and_what_stands_behind_them(sign: str, name: str) -> None:
    lines = [f"{number:6}{sign}text {number}" for number in (1, 2, 9, 10, 100)]
    text = "\n".join(["<file>", *lines, f"   101{sign}\ttabbed", f"   102{sign}", "</file>"])
    assert form_of(text) == (
        f"[space: %6d{name}]\n"
        "<file>\n1 text 1\n2 text 2\n9 text 9\n10 text 10\n100 text 100\n101\ttabbed\n102 \n</file>"
    )


def test_numbers_without_padding_lose_what_stands_behind_them() -> None:
    text = "\n".join(f"{number}→x" for number in range(7, 12))
    assert form_of(text) == "[space: %d→]\n7 x\n8 x\n9 x\n10 x\n11 x"


def test_a_line_that_would_be_taken_for_another_keeps_all_as_it_is() -> None:
    numbered = [f"{number:6}→x" for number in range(1, 9)]
    form = form_of("\n".join([*numbered, "1234567 birds"]))
    assert form.startswith("[space: %6d]\n1→x")
    assert WhiteSpace().encode("\n".join([*numbered, "3→not aligned"]), Item(b""), Query()) is None


def test_carriage_returns_are_left_out_where_all_lines_have_them() -> None:
    assert form_of("a\r\nb\r\n") == "[space: CRLF]\na\nb\n"
    assert WhiteSpace().encode("a\r\nb\n", Item(b""), Query()) is None
    assert WhiteSpace().encode("a\rb\n", Item(b""), Query()) is None


def test_tables_lose_the_padding_of_their_cells() -> None:
    table = "| name     | n   |\n| -------- | --- |\n| a        | 1   |\n| longer b | 222 |"
    assert form_of(f"Text\n{table}\nend") == (
        "[space: padded tables]\nText\n| name | n |\n| -------- | --- |\n| a | 1 |\n| longer b | 222 |\nend"
    )
    ragged = table.replace("| a        |", "| a      |")
    assert WhiteSpace().encode(ragged, Item(b""), Query()) is None
