from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from apportion.compression.validation.wording import Shown, Wording, compare, read_words

WORDS = st.lists(st.sampled_from([b"alpha", b"beta", b"gamma", b"1", b"2", b"not"]), max_size=60)


@given(WORDS, WORDS)
def test_equal_wordings_and_no_others_have_no_difference(one: list[bytes], other: list[bytes]) -> None:
    assert not compare(Wording(one), Wording(one))
    found = compare(Wording(one), Wording(other))
    assert bool(found or found.repeated) == (one != other)


@given(WORDS, st.data())
def test_what_was_cut_out_is_dropped_or_repeated_and_every_word_is_accounted_for(
    words: list[bytes], data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, len(words)))
    end = data.draw(st.integers(start, len(words)))
    left = words[:start] + words[end:]
    found = compare(Wording(words), Wording(left))
    gone = sum(stop - begin for begin, stop in (*found.dropped, *found.repeated))
    new = sum(stop - begin for begin, stop in found.inserted)
    assert len(words) - gone + new == len(left)


def test_layout_makes_no_words() -> None:
    plain = read_words(b"First wait 1500 ms, then stop.").words
    for text in (b"1. **First** wait\n   1,500ms,\n   then `stop`.", "> “First” wait 1 500 ms – then… stop".encode()):
        assert read_words(text).words == plain


def test_a_number_at_the_start_of_a_line_is_a_marker_only_in_a_list() -> None:
    assert read_words(b"1. one\n2. two").words == [b"one", b"two"]
    assert read_words(b"it ended in step\n12. Then").words == [b"it", b"ended", b"in", b"step", b"12", b"Then"]
    assert read_words(b"1. one\n8. two").words == [b"one", b"8", b"two"]


def test_a_list_may_become_running_text_and_running_text_a_list_but_no_number_may_change() -> None:
    listed, running = b"Steps:\n1. wait\n2. read it\n3. stop here", b"Steps: 1. wait 2. read it 3. stop here"
    assert not compare(read_words(listed), read_words(running))
    assert not compare(read_words(running), read_words(listed))
    assert compare(read_words(listed), read_words(running.replace(b"2.", b"4.")))
    assert compare(read_words(running.replace(b"2.", b"4.")), read_words(listed))


def test_the_slash_and_the_folder_a_path_begins_with_are_words() -> None:
    assert read_words(b"see `/etc/issue`, http://x.io/y and/or a/b.c").words == (
        [b"see", b"/", b"etc", b"issue", b"http", b"x.io", b"y", b"and", b"or", b"/", b"b.c"]
    )
    assert compare(read_words(b"diff a/foo.c b/foo.c"), read_words(b"diff foo.c b/foo.c"))
    assert not compare(read_words(b'/a "/x.y" z'), read_words("\ufeff/a «/x.y» z".encode()))
    assert not compare(read_words(b'{"p":"\\/api\\/v1"}'), read_words(b'{"p": "/api/v1"}'))


def test_signs_comparisons_and_scripts_without_spaces_are_words() -> None:
    assert read_words(b"x != -5 && a<=3").words == [b"x", b"!=", "−".encode(), b"5", b"&&", b"<=", b"3"]
    assert read_words("done ✅, 3×4".encode()).words == [b"done", "✅".encode(), b"3", "×".encode(), b"4"]
    assert read_words("不得x3".encode()).words == ["不".encode(), "得".encode(), b"x3"]


def test_shown_asks_for_neighbours() -> None:
    shown = Shown(read_words(b"wait 30 seconds, retry 5 times"))
    assert shown.holds(b"30 seconds")
    assert not shown.holds(b"30 times")
