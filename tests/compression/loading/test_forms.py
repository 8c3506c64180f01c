from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apportion.compression.loading import (
    Loader,
    brief_form,
    first_sentence,
    line_form,
    outline,
    parts_of,
    read_tools,
    restore,
)
from apportion.compression.loading.markdown import front_matter, split_sections
from apportion.compression.store import HandleStore
from apportion.errors import InputError, StoreError

TOOL = {
    "name": "push",
    "description": "Pushes a branch. It takes a while. You must never force it. Example: push main.",
    "input_schema": {
        "type": "object",
        "properties": {
            "description": {"type": "string", "description": "What for. Said in a few words."},
            "branch": {"type": "string", "description": "Which branch. By its short name.", "default": "a. b. c."},
        },
        "required": ["branch"],
    },
}


def test_a_brief_tool_can_be_called_and_keeps_what_binds() -> None:
    short = brief_form(json.dumps(TOOL).encode())
    assert short is not None
    tool = json.loads(short)
    assert tool["description"] == "Pushes a branch.\nYou must never force it."
    properties = tool["input_schema"].pop("properties")
    assert tool["input_schema"] == {"type": "object", "required": ["branch"]}
    assert properties["branch"] == {"type": "string", "description": "Which branch.", "default": "a. b. c."}
    assert properties["description"]["description"] == "What for."


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b'{"name": 3}', b"[" * 100_000])
def test_what_is_no_tool_has_no_brief_form(content: bytes) -> None:
    with pytest.raises(InputError):
        brief_form(content)


@given(st.binary(max_size=200) | st.text(alphabet='[]{}",:\\ toolsname1', max_size=60).map(str.encode))
def test_no_bytes_make_the_readers_fail_otherwise_than_by_saying_so(content: bytes) -> None:
    assert b"".join(section.content for section in split_sections(content)) == content
    front_matter(content)
    first_sentence(content.decode("utf-8", "replace"))
    try:
        tools = read_tools(content.decode("utf-8", "surrogateescape"))
    except InputError:
        return
    assert tools is None or all(0 <= tool.start < tool.end <= len(content) for tool in tools)


def test_a_line_says_name_and_first_sentence_in_one_line() -> None:
    assert line_form("push", "\n\nPushes v1.2 now. And more.") == "- push: Pushes v1.2 now."
    assert line_form("push", "") == "- push"
    assert len(first_sentence("word " * 100)) == 160


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=8), st.tuples(st.binary(max_size=50), st.booleans()), min_size=1, max_size=6
    )
)
def test_everything_left_out_comes_back_byte_for_byte_and_can_be_found(items: dict[str, tuple[bytes, bool]]) -> None:
    loader = Loader(HandleStore())
    for name, (content, listed) in items.items():
        loader.leave_out(name, content, listed=listed)
    assert {name: loader.answer(name) for name in items} == {name: content for name, (content, _) in items.items()}
    described = loader.schema()["description"]
    for name, (_, listed) in items.items():
        assert not listed or f"- {name}" in described
        assert f"- {name}".encode() in loader.answer()
    assert ("lists all" in described) == (not all(listed for _, listed in items.values()))


def test_an_original_that_is_damaged_or_unknown_is_not_given_out() -> None:
    class Damaged(HandleStore):
        def expand(self, *_args: object, **_options: object) -> bytes:
            return b"something else"

    loader = Loader(Damaged())
    loader.leave_out("push", b"{}")
    with pytest.raises(StoreError, match="damaged"):
        loader.answer("push")
    with pytest.raises(StoreError, match="nothing is called"):
        loader.answer("pull")


AGENT = b"""---
name: tester
---
You test.

# Rules
Never skip a test.

# History
%b
```
# no heading
```

# Style
%b
""" % (b"Once there was a test.\n" * 9, b"Short names, long stories.\n" * 9)


def test_an_outline_keeps_headings_and_what_binds_and_the_rest_comes_back() -> None:
    parts = parts_of("tester", AGENT)
    assert [part.title for part in parts] == ["(front matter)", "(introduction)", "Rules", "History", "Style"]
    loader = Loader(HandleStore())
    left_out = {part.name for part in parts}
    short = outline(parts, left_out, loader)
    assert b"Never skip a test." in short
    assert b"# History\n[15 lines left out: load_tool tester#4]\n" in short
    assert b"Once there was" not in short
    loaded = {name: loader.answer(name) for name in ("tester#4", "tester#5")}
    assert loaded["tester#4"].startswith(b"# History\n")
    assert restore(parts, loaded) == AGENT
