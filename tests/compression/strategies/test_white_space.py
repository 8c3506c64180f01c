from __future__ import annotations

import pytest

from apportion.compression.strategies.types import Item, Query
from apportion.compression.strategies.white_space import WhiteSpace


def form_of(text: str) -> str:
    form = WhiteSpace().encode(text, Item(text.encode()), Query())
    assert form is not None
    assert WhiteSpace().decode(form, ()) == text
    return form


@pytest.mark.parametrize(("sign", "name"), [("→", "→"), ("\t", "tab")])
def test_line_numbers_lose_their_padding_and_what_stands_behind_them(sign: str, name: str) -> None:
    text = "\n".join(["<file>", *[f"{number:6}{sign}text {number}" for number in (1, 2, 9, 10, 100)], "</file>"])
    assert form_of(text) == (
        f"[white space: numbers right-aligned to 6, blank for {name}]\n"
        "<file>\n1 text 1\n2 text 2\n9 text 9\n10 text 10\n100 text 100\n</file>"
    )


def test_a_line_that_would_be_padded_wrongly_keeps_all_as_it_is() -> None:
    numbered = [f"{number:6}→x" for number in range(1, 9)]
    assert WhiteSpace().encode("\n".join([*numbered, "3→not aligned"]), Item(b""), Query()) is None
    form = form_of("\n".join([*numbered, "1234567 birds"]))
    assert form.startswith("[white space: numbers right-aligned to 6]\n1→x")


def test_carriage_returns_are_left_out_where_all_lines_have_them() -> None:
    assert form_of("a\r\nb\r\n") == "[white space: CRLF]\na\nb\n"
    assert WhiteSpace().encode("a\r\nb\n", Item(b""), Query()) is None
    assert WhiteSpace().encode("a\rb\n", Item(b""), Query()) is None


def test_tables_lose_the_padding_of_their_cells() -> None:
    table = "| name     | n   |\n| -------- | --- |\n| a        | 1   |\n| longer b | 222 |"
    assert form_of(f"Text\n{table}\nend") == (
        "[white space: padded tables]\nText\n| name | n |\n| -------- | --- |\n| a | 1 |\n| longer b | 222 |\nend"
    )
    ragged = table.replace("| a        |", "| a      |")
    assert WhiteSpace().encode(ragged, Item(b""), Query()) is None
