from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apportion.compression.cache import CacheKey
from apportion.errors import InputError

TEXTS = st.text(st.sampled_from("ab:\0\ud800"), max_size=3)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-2, 300), st.floats(), TEXTS, st.binary(max_size=3))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
KEYS = st.builds(
    CacheKey,
    tenant_salt=st.binary(max_size=3),
    strategy=TEXTS,
    content_hash=st.binary(max_size=3),
    parameters=st.dictionaries(TEXTS, VALUES, max_size=3),
    tokenizer=TEXTS,
    model_hash=TEXTS,
)


def written(value: Any) -> str:
    """Another way to tell values apart: by kind, and without the order of names."""
    if isinstance(value, dict):
        return f"dict{sorted((written(name), written(each)) for name, each in value.items())}"
    if isinstance(value, (list, tuple)):
        return f"list{[written(each) for each in value]}"
    return f"{type(value).__name__} {value!r}"


def identity(key: CacheKey) -> str:
    return written([getattr(key, name) for name in CacheKey.__slots__])


@settings(max_examples=settings().max_examples // 4)
@given(KEYS, KEYS)
def test_two_keys_have_one_form_only_if_they_are_equal(one: CacheKey, other: CacheKey) -> None:
    assert (one.canonical() == other.canonical()) == (identity(one) == identity(other))
    assert (one.digest() == other.digest()) == (identity(one) == identity(other))


@given(st.lists(TEXTS, min_size=4, max_size=4), st.lists(TEXTS, min_size=4, max_size=4))
def test_bytes_cannot_move_from_one_part_to_the_next(one: list[str], other: list[str]) -> None:
    first, second = (
        CacheKey(b"", texts[0], texts[1].encode("utf-8", "surrogatepass"), {}, texts[2], texts[3])
        for texts in (one, other)
    )
    assert (first.digest() == second.digest()) == (one == other)


@given(KEYS, st.data())
def test_every_part_changes_the_key(key: CacheKey, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(CacheKey.__slots__))
    changed = replace(key, **{name: data.draw(st.sampled_from([getattr(each, name) for each in [data.draw(KEYS)]]))})
    assert (changed.digest() != key.digest()) == (identity(changed) != identity(key))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b"a", b"a\0"),  # a short secret of an HMAC and its padding
        (b"x" * 100, hashlib.sha256(b"x" * 100).digest()),  # a long secret and its digest
        (b"", b"\0"),
    ],
)
def test_tenants_whose_salts_an_hmac_takes_for_one_share_no_key(one: bytes, other: bytes) -> None:
    assert CacheKey(one, "s", b"").digest() != CacheKey(other, "s", b"").digest()


@pytest.mark.parametrize(
    ("one", "other"),
    [(1, True), (0, False), (1, 1.0), ("1", 1), (b"a", "a"), (None, ""), ([], {}), ([1, [2]], [[1], 2]), (0.0, -0.0)],
)
def test_values_that_python_takes_for_equal_or_nearly_so_are_told_apart(one: object, other: object) -> None:
    first, second = (CacheKey(b"", "s", b"", {"p": value}) for value in (one, other))
    assert first.digest() != second.digest()


def test_the_order_of_parameters_does_not_matter() -> None:
    one, other = ({"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"d": 3, "c": 2}, "a": 1})
    assert CacheKey(b"", "s", b"", one).digest() == CacheKey(b"", "s", b"", other).digest()


def test_what_has_no_canonical_form_is_refused() -> None:
    with pytest.raises(InputError, match="object cannot be part of a cache key") as caught:
        CacheKey(b"", "s", b"", {"p": object()}).digest()
    assert caught.value.hint
