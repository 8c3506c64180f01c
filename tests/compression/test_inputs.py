from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apportion.compression.inputs import fold_input, is_folded
from apportion.compression.store import Handle

LONG = "It is told at length. " * 40
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=9)
    | st.just(LONG),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def folded(content: bytes) -> bytes | None:
    return fold_input(content, handle=Handle.of(content), count=lambda text: len(text) // 4)


@given(st.dictionaries(st.text(max_size=5), VALUES, max_size=4))
def test_what_is_folded_has_the_same_names_and_short_values(fields: dict[str, object]) -> None:
    content = json.dumps(fields).encode()
    found = folded(content)
    assert (found is not None) == (LONG in json.loads(json.dumps([*_texts(fields)])))
    assert found is None or (is_folded(content, found) and len(found) < len(content))


def _texts(value: object) -> list[str]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [text for each in value for text in _texts(each)]
    return [value] if isinstance(value, str) else []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"n":1', b'"n":2'),
        (b'"n":1', b'"n":1.0'),
        (b'"n":1', b'"m":1'),
        (b'"n":1,', b""),
        (b'"n":1', b'"n":1,"more":2'),
        (b'"n":1', b'"n":NaN'),
        (b'"n":1', b'"n":1,"n":1'),
        (b'"s":"short"', b'"s":"shore"'),
        (b"It is told", b"It was told"),
        (b"}", b""),
    ],
)
def test_anything_else_that_differs_is_no_folded_input(old: bytes, new: bytes) -> None:
    content = json.dumps({"n": 1, "s": "short", "long": LONG}, separators=(",", ":")).encode()
    found = folded(content)
    assert found is not None
    assert is_folded(content, found)
    assert old in found
    assert not is_folded(content, found.replace(old, new))
    twice = content.replace(b'"n":1', b'"n":0,"n":1')
    assert not is_folded(twice, folded(twice) or b"")
