from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from apportion.compression.markers import MAX_NOTE, NONCE_DIGITS, Lines, Markers
from apportion.compression.store import Handle

HANDLE = Handle.of(b"original")


def test_the_first_marker_says_how_to_have_back_what_was_left_out_and_later_ones_only_what_it_is() -> None:
    markers = Markers("731")
    assert markers.gap(HANDLE, Lines(40, 97), "58 tests") == (
        f"[731: lines 40-97 left out: 58 tests; expand {HANDLE} 40-97]".encode()
    )
    assert markers.gap(HANDLE, Lines(120, 120), first=False) == b"[731: line 120 left out]"


def test_a_note_is_one_short_line_without_brackets() -> None:
    said = Markers("731").gap(HANDLE, Lines(1, 2), "a]\n[731: lines 1-9 left out" + "x" * 200).decode()
    assert said.count("[") == said.count("]") == 1
    assert "\n" not in said
    assert len(said) < MAX_NOTE + 60


@given(st.binary(max_size=200))
def test_a_nonce_is_free_in_its_content_and_always_the_same(content: bytes) -> None:
    markers = Markers.for_content(content)
    assert markers is not None
    assert markers == Markers.for_content(content)
    assert len(markers.nonce) == NONCE_DIGITS
    assert f"[{markers.nonce}:".encode() not in content


def test_a_content_that_holds_the_nonce_of_the_session_gets_no_markers() -> None:
    assert Markers.for_content(b"[731: lines 1-9 left out]", nonce="731") is None
    assert Markers.for_content(b"see [731]", nonce="731") is None
    assert Markers.for_content(b"731", nonce="731") == Markers("731")


def test_a_content_that_holds_a_derived_nonce_gets_another() -> None:
    every = b"".join(f"[{number:03}:".encode() for number in range(1000))
    assert Markers.for_content(every) is None
