from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apportion.compression.similarity.alignment import chunks_with_rest
from apportion.compression.similarity.chunks import chunks_of
from apportion.testing import contents

LINES = [f"Line {n} tells what happened in the {n}th year of the old town of Ulm.\n" for n in range(60)]
TEXT = "".join(LINES).encode()


@settings(max_examples=settings().max_examples // 4)
@given(contents())
def test_a_text_stands_for_itself(content: bytes) -> None:
    assert all(chunk.original == chunk.rest for chunk in chunks_with_rest(content, content))


@settings(max_examples=settings().max_examples // 4)
@given(contents(), contents())
def test_no_chunk_is_forgotten_whatever_it_is_compared_with(one: bytes, other: bytes) -> None:
    text = one.decode("utf-8", "replace").encode()
    held = [text[span.start : span.end].decode().strip() for span in chunks_of(text)]
    assert [chunk.original for chunk in chunks_with_rest(one, other)] == [each for each in held if each]


@given(st.sets(st.integers(0, 59)))
def test_of_lines_that_were_left_out_nothing_stands_and_the_others_stay_where_they_were(gone: set[int]) -> None:
    compressed = "".join(line for number, line in enumerate(LINES) if number not in gone)
    chunks = chunks_with_rest(TEXT, compressed.encode())
    kept = ["".join(line for line in LINES if line in f"{chunk.original}\n" and line in compressed) for chunk in chunks]
    assert [chunk.rest for chunk in chunks] == [each.strip() for each in kept]


def test_what_was_put_in_other_words_is_compared_with_its_own_original() -> None:
    chunks = chunks_of(TEXT)
    middle = TEXT[chunks[1].start : chunks[1].end]
    found = chunks_with_rest(TEXT, TEXT.replace(middle, b"Years of little note.\n"))
    assert [chunk.rest for chunk in found][:3] == [found[0].original, "Years of little note.", found[2].original]


@pytest.mark.parametrize("line", ["the same\n", "- \n"])
def test_equal_lines_stand_for_each_other_from_the_beginning(line: str) -> None:
    found = chunks_with_rest((line * 400).encode(), (line * 100).encode())
    assert found[0].original == found[0].rest
    assert not found[len(found) // 2].rest
