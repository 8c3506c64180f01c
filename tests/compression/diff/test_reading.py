from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apportion.compression.diff import read_context
from apportion.compression.diff.reading import join_context
from apportion.testing import json_objects

REQUEST = {
    "model": "m",
    "system": "Be careful.",
    "tools": [{"name": "read", "input_schema": {}}, {"type": "function", "function": {"name": "a b"}}],
    "messages": [{"role": "user", "content": "h\u00e9"}, {"role": "assistant", "content": []}, "odd"],
    "stream": True,
}


@pytest.mark.parametrize("style", [{}, {"indent": 2}, {"separators": (",", ":")}, {"ensure_ascii": False}])
def test_a_request_is_cut_at_its_messages_and_tools(style: dict[str, object]) -> None:
    data = json.dumps(REQUEST, **style).encode()  # type: ignore[arg-type]
    context = read_context(data)
    assert join_context(context) == data
    kinds = [(section.kind, section.name) for section in context.sections]
    assert kinds == [
        ("request", ""), ("system", ""), ("tool_definition", "read"), ("tool_definition", "a b"), ("request", ""),
        ("user", ""), ("assistant", ""), ("message", ""), ("request", ""), ("request", ""), ("rest", ""),
    ]  # fmt: skip


def test_a_list_of_messages_and_json_lines_are_cut() -> None:
    messages = json.dumps(REQUEST["messages"]).encode()
    assert [section.kind for section in read_context(messages).sections] == ["user", "assistant", "message", "rest"]
    lines = b'{"role":"user","content":"\xe2\x80\xa8"}\n{"type":"event"}\nhalf a li'
    context = read_context(lines)
    assert [section.kind for section in context.sections] == ["user", "event", "rest"]
    assert join_context(context) == lines


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "text"), (b"plain\ntext", "text"), (b"\xff", "bytes"), (b'{"a"', "state"), (b"[1,2", "state"),
        (b"{", "state"),
        (b'{"messages":[1 2]}', "state"), (b"[" * 100_000, "state"), (b'{"messages":' + b"[" * 100_000, "state"),
    ],
)  # fmt: skip
def test_anything_else_is_one_piece(data: bytes, kind: str) -> None:
    context = read_context(data)
    assert [(section.kind, section.content) for section in context.sections] == [(kind, data)]


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60) | json_objects().map(lambda value: json.dumps(value).encode()))
def test_the_sections_of_a_file_are_the_file(data: bytes) -> None:
    assert join_context(read_context(data)) == data
