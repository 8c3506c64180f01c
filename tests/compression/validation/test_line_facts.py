from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apportion.compression.validation.facts import extract_facts
from apportion.compression.validation.line_facts import facts_of_content, facts_of_lines

PIECES = st.sampled_from(
    [
        "see src/app.py:120, it took 1,234.5ms on 2026-01-02T10:20:30Z",
        'he said "two words" and `three more`',
        "ERROR: it failed",
        "   12→def max_tokens(self):",
        "\x1b[31mTypeError: no\x1b[0m",
        '{"a": "x\\ny", "path": "C:\\\\temp\\\\file.txt"}',
        "mail me@example.com about port 8080",
        "版本v1.2.3在src/主.py",
        "",
        "a" * 1200 + "1",
        "x-12-y.py-13-z",
    ]
)


@given(st.lists(PIECES, max_size=8))
def test_each_line_has_the_facts_that_it_has_alone(lines: list[str]) -> None:
    assert facts_of_lines(lines) == tuple(map(extract_facts, lines))


@given(st.lists(st.text(st.characters(exclude_characters="\n"), max_size=30), max_size=5))
def test_any_text_has_as_many_lines_as_before(lines: list[str]) -> None:
    assert facts_of_lines(lines) == tuple(map(extract_facts, lines))


def test_line_feeds_behind_lines_change_nothing() -> None:
    assert facts_of_lines(["port 8080\n", "it is 8080\n"]) == (frozenset({"8080"}),) * 2


@pytest.mark.parametrize("content", [b"port 8080", b"\xff 8080"])
def test_a_content_has_the_facts_of_its_text(content: bytes) -> None:
    assert facts_of_content(content) == frozenset({"8080"})
