from __future__ import annotations

import doctest

import pytest

from apportion.planner import sweeps, tables, whatif
from apportion.planner.tables import html_table, points, text_table, usd


@pytest.mark.parametrize("module", [tables, sweeps, whatif])
def test_the_examples_in_the_docstrings_are_right(module: object) -> None:
    results = doctest.testmod(module)  # type: ignore[arg-type]
    assert results.attempted > 0
    assert results.failed == 0


def test_cells_cannot_break_out_of_their_table() -> None:
    evil = '<script>alert("x")</script>\x1b[2J\n'
    assert "<script" not in html_table((evil,), [(evil,)])
    assert len(text_table((evil,), [(evil,), (evil,)])) == len(
        "\n".join(text_table((evil,), [(evil,)] * 2)).split("\n")
    )


def test_amounts_are_short_and_signed_where_asked() -> None:
    assert (usd(0), usd(0, sign=True), usd(500, sign=True)) == ("$0", "$0", "+$0.0000005")
    assert (points(0), points(1.25), points(1234.5), points(-3, sign=True)) == ("0", "1.2", "1,234", "-3.0")
