from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apportion.compression.expand_tool import EXPAND_TOOL, expand, expand_schema
from apportion.compression.markers import Lines, Markers
from apportion.compression.store import HandleStore
from apportion.errors import InputError, StoreError
from apportion.tokens import count_tokens

LINED = st.lists(st.sampled_from([b"", b"a", b"\xff\r", b"long line", b"\x0b\x0c\x85"]), max_size=12).map(b"\n".join)


def lines_of(content: bytes) -> list[bytes]:
    parts = [part + b"\n" for part in content.split(b"\n")]
    parts[-1] = parts[-1][:-1]
    return parts if parts[-1] else parts[:-1]


@given(LINED, st.integers(1, 14), st.integers(0, 14))
def test_a_range_of_lines_gives_these_lines_as_markers_count_them(content: bytes, first: int, more: int) -> None:
    store = HandleStore()
    handle = store.put(content)
    lines = lines_of(content)
    if first <= len(lines):
        assert expand(store, handle, f"{first}-{first + more}") == b"".join(lines[first - 1 : first + more])
        assert expand(store, str(handle), str(first)) == lines[first - 1]
        assert expand(store, handle, f"{first}-") == b"".join(lines[first - 1 :])
    else:
        with pytest.raises(InputError, match=f"it has {len(lines)}"):
            expand(store, handle, f"{first}-{first + more}")


@given(st.binary(max_size=40), st.integers(0, 50), st.integers(0, 50))
def test_a_range_of_bytes_gives_a_slice(content: bytes, start: int, length: int) -> None:
    store = HandleStore()
    handle = store.put(content)
    assert expand(store, handle, f"b{start}-{start + length}") == content[start : start + length]
    if start < len(content):
        assert expand(store, handle, f" b{start} ") == content[start : start + 1]
        assert expand(store, handle, f"b{start}-") == content[start:]


@pytest.mark.parametrize("nothing", [None, "", "  "])
def test_without_a_range_all_comes_back(nothing: str | None) -> None:
    store = HandleStore()
    assert expand(store, store.put(b"a\nb"), nothing) == b"a\nb"


@pytest.mark.parametrize(
    "wrong",
    ["0", "0-1", "3-2", "2-1", "b3-2", "b9-", "-1", "1--2", "b", "b-4", "1-2-3", "1,2", "h:1", "١-٢", "1\n2", "9" * 30],
)
def test_a_range_that_is_none_is_refused_with_a_hint(wrong: str) -> None:
    store = HandleStore()
    handle = store.put(b"one\ntwo\n")
    with pytest.raises(InputError) as caught:
        expand(store, handle, wrong)
    assert caught.value.hint


def test_what_a_marker_says_is_a_call_of_the_tool() -> None:
    store = HandleStore()
    content = b"".join(b"line %d\n" % number for number in range(1, 100))
    handle = store.put(content)
    marker = Markers("7f3a").gap(handle, Lines(40, 97)).decode()
    named, _, text_range = marker.removesuffix("]").partition("; expand ")[2].partition(" ")
    assert expand(store, named, text_range) == b"".join(b"line %d\n" % number for number in range(40, 98))


def test_an_unknown_handle_is_refused_whatever_the_range() -> None:
    for text_range in (None, "1-2", "b0-4"):
        with pytest.raises(StoreError, match="unknown handle"):
            expand(HandleStore(), "h:00000000", text_range)


def test_the_schema_names_both_kinds_of_ranges_and_stays_short() -> None:
    said = EXPAND_TOOL["input_schema"]["properties"]["range"]["description"]
    store = HandleStore()
    handle = store.put(b"x\n" * 5000)
    kinds = [word.rstrip(";") for word in said.split() if word[-1].isdigit() or word.endswith(";")]
    assert [len(expand(store, handle, kind)) for kind in kinds] == [2 * 58, 4000]
    assert count_tokens(expand_schema()) <= 82
