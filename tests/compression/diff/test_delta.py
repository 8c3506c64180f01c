from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apportion.compression.diff import EMPTY, Context, Reason, Section, apply_delta, make_delta
from apportion.compression.diff.wire import rebuild
from apportion.errors import DeltaError
from apportion.testing import texts

LINES = [
    b"alpha line one\n",
    b"beta\r\n",
    b"\n",
    b"}\n",
    b"\0\0\n",
    "שלום עולם\n".encode(),
    "e\u0301👩‍👧\n".encode(),
    b"\xed\xa0\x80 lone surrogate\n",
    b"last without end",
    b"a, b, c, d, e, f, g, h, i, j, k, l, m, n\n",
    b'{"key": [1, 2.50, null], "other": "value"}\n',
    b"\xff\xfe\n",
    b"x" * 60,
]


def contents() -> st.SearchStrategy[bytes]:
    lines = st.sampled_from(LINES) | st.binary(max_size=30)
    return st.lists(lines, max_size=12).map(b"".join)


def names() -> st.SearchStrategy[str]:
    return st.just("") | st.sampled_from(["read", "a b", '"', 'q" 7:{', "é\n", "\ud800"]) | texts(max_size=8)


def contexts() -> st.SearchStrategy[Context]:
    kinds = st.sampled_from(["user", "tool_result", "state", "agent"])
    return st.lists(st.builds(Section, kinds, names(), contents()), max_size=8).map(lambda some: Context(tuple(some)))


@st.composite
def edited(draw: st.DrawFn) -> tuple[Context, Context]:
    """A context and another made of it: sections dropped, doubled, moved, new, and changed in places."""
    base = draw(contexts())
    target: list[Section] = []
    for section in base.sections:
        what = draw(st.sampled_from(["keep", "keep", "drop", "double", "edit", "rename", "new"]))
        if what == "edit":
            at = draw(st.integers(0, len(section.content)))
            end = draw(st.integers(at, len(section.content)))
            content = section.content[:at] + draw(st.binary(max_size=12)) + section.content[end:]
            target.append(Section(section.kind, section.name, content))
        elif what == "rename":
            target.append(Section("user", draw(names()), section.content))
        elif what == "new":
            target += [section, draw(st.builds(Section, st.just("user"), names(), contents()))]
        elif what != "drop":
            target += [section] * (2 if what == "double" else 1)
    return base, Context(tuple(draw(st.permutations(target)) if draw(st.booleans()) else target))


@settings(max_examples=settings().max_examples // 4, deadline=None)
@given(st.tuples(contexts(), contexts()) | edited())
def test_a_delta_gives_its_target_byte_for_byte(pair: tuple[Context, Context]) -> None:
    base, target = pair
    delta = make_delta(base, target)
    assert apply_delta(delta.data, base, target.digest, size=target.size).sections == target.sections
    assert sum(delta.changes[:4]) == len(target.sections)


@settings(max_examples=60, deadline=None)
@given(edited())
def test_a_delta_is_never_longer_than_the_whole_and_its_instructions(pair: tuple[Context, Context]) -> None:
    base, target = pair
    assert len(make_delta(base, target).data) <= len(make_delta(EMPTY, target).data)


@pytest.mark.parametrize(
    "content",
    [
        b"x" * 10_000_000,
        b"a,b " * 500_000,
        b"\r\n" * 300_000,
        b"\0" * 100_000 + "רtl\n".encode() * 50_000,
        b'{"a":' * 100_000,
        b"[" + b"1.10," * 200_000 + b"1]",
        b"\x80" * 500_000,
    ],
    ids=["one line", "commas", "line ends", "nul and rtl", "deep json", "number spelling", "no utf-8"],
)
def test_awkward_contents_of_a_size_come_back(content: bytes) -> None:
    middle = len(content) // 2
    base = Context.of_text(content)
    target = Context.of_text(content[:middle] + b"new \xff text" + content[middle + 3 :])
    delta = make_delta(base, target)
    assert apply_delta(delta.data, base, target.digest, size=target.size) == target


def test_sections_that_were_kept_moved_changed_added_and_removed_are_told_apart() -> None:
    base = Context.of(Section("user", content=text * 10) for text in (b"a\n", b"bb bb\n", b"c\n", b"d\n", b"e\n"))
    one, two, three, four, _ = base.sections
    changed = Section("user", content=two.content + b"one more line\n")
    target = Context((one, changed, four, three, Section("agent", "new", b"z\n")))
    delta = make_delta(base, target)
    assert delta.changes == (2, 1, 1, 1, 1)
    assert delta.data == b'=1\n~2 =10"one more line\n\n=4\n=3\n+agent:new 2\nz\n\n'


def test_a_change_within_a_line_is_sent_without_the_line() -> None:
    line = b"the quick brown fox jumps over the lazy dog, and over the fence, and far away over the hill\n"
    base = Context.of_text(b"first line\n" + line + b"last line\n")
    target = Context.of_text(b"first line\n" + line.replace(b"lazy", b"busy") + b"last line\n")
    assert make_delta(base, target).data == b"~1 =1.35'busy\n4=2\n"


def test_text_that_another_section_holds_is_copied_from_there() -> None:
    body = b"".join(b"line %d of a file that was read\n" % number for number in range(50))
    base = Context((Section("user", content=b"hello\n"), Section("tool_result", "read", body)))
    target = Context((*base.sections, Section("user", content=b"look at this:\n" + body[:600])))
    delta = make_delta(base, target)
    assert delta.data.startswith(b'=1-2\n~2 user "look at this:\n=19')
    assert len(delta.data) < 60


def test_json_on_one_line_is_changed_by_paths() -> None:
    base = b'{"orders":[' + b",".join(b'{"id":%d,"state":"open"}' % number for number in range(60)) + b'],"x/y z":1}'
    target = base.replace(b'"id":7,"state":"open"', b'"id":7,"state":null').replace(b'"x/y z":1', b'"x/y z":[true]')
    delta = make_delta(Context.of_text(base), Context.of_text(target))
    assert delta.data == b"{1 ; 2\n/orders/7/state null\n/x~1y\\u0020z [true]\n"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'{"a":1.10,"b":2}', b'{"a":1.10,"b":3}'),
        (b'{"a":1,"b":2}', b'{"b":2,"a":1}'),
        (b'{"a":1,"a":2}', b'{"a":1,"a":3}'),
        (b'{"a":[1,2]}', b'{"a":[true,2]}'),
        (b'{"a":1}', b'{"a":1.0}'),
        (b'{"a":-0}', b'{"a":0}'),
        (b'{"a":1e400}', b'{"a":1E400}'),
        (b'{"a":"\\ud800"}', b'{"a":"\\ud801"}'),
        (b'{"a":"\\/"}', b'{"a":"/"}'),
        (b'{"a":null}', b"{}"),
        (b'{"a":' + b"9" * 5_000 + b"}", b'{"a":' + b"9" * 5_001 + b"}"),
        (b"[" * 2_000 + b"]" * 2_000, b"[" * 1_999 + b"]" * 1_999),
        (b"[1,2,3,4]", b"[1,3,4]"),
        (b'{"a":1, "b": 2}', b'{"a": 1, "b": 3}'),
        (b'{"":{"~0/ ":"\\n"}}', b'{"":{"~0/ ":"\\n\\t"}}'),
    ],
)
def test_json_that_python_would_write_otherwise_comes_back_as_it_was(old: bytes, new: bytes) -> None:
    base, target = Context.of_text(old * 1), Context.of_text(new)
    delta = make_delta(base, target)
    assert apply_delta(delta.data, base, target.digest, size=target.size) == target


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_json_states_come_back_in_any_style(data: st.DataObject) -> None:
    scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts(max_size=6)
    values = st.recursive(
        scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts(max_size=4), inner, max_size=4)
    )
    styles: list[dict[str, Any]] = [{}, {"separators": (",", ":")}, {"indent": 1}, {"ensure_ascii": False}]
    style = data.draw(st.sampled_from(styles))
    filler = {"filler": "x" * 200}
    old, new = (
        json.dumps({"state": data.draw(values), **filler}, **style).encode("utf-8", "surrogatepass") for _ in range(2)
    )
    base, target = Context.of_text(old), Context.of_text(new)
    delta = make_delta(base, target)
    assert apply_delta(delta.data, base, target.digest, size=target.size) == target


BASE = Context((Section("user", content=b"one\ntwo\nthree\n" * 20), Section("state", content=b'{"a":[1,2,3],"b":{}}')))


DAMAGED = [
    b"=3\n", b"=0\n", b"=-1\n", b"=2-1\n", b"=1-3\n", b"=99999999999999999999\n", b"=1", b"x", b"\n", b"=1\n\xff",
    b"+user 5\nabc\n", b"+user -1\nabc\n", b"+ 1\na\n", b"+us er 1\na\n", b'+user:"a 1\na\n', b"+user:[1] 1\na\n",
    b"+user 1\naa\n", b"+1user 1\na\n", b"+user:1,2 1\na\n", b'+user:"' + b"a" * 2000 + b'" 1\na\n',
    b"~3 =1\n", b"~0 =1\n", b"~1 =61\n", b"~1 -61\n", b"~1 .281\n", b"~1 =60.1\n", b"~1 @1:0=1\n", b"~1 @1:62\n",
    b"~1 @3:1=1\n", b"~1 @0:1=1\n", b"~1 @1=1\n", b"~1 +9 ab\n", b"~1 + \n", b"~1 +1:a\n", b"~1 'a", b'~1 "a\n',
    b"~1 ?1\n", b"~1 =1", b"~1=1\n", b"~1 =\xd9\xa3\n", b"~1 281\n",
    b"{2 , 1\n/a/3 1\n", b"{2 , 1\n/a/-1 1\n", b"{2 , 1\n/a/x 1\n", b"{2 , 1\n/c/d 1\n", b"{2 , 1\n/a/0/1 1\n",
    b"{2 , 1\n/a\n", b"{2 , 1\n/a oops\n", b"{2 , 1\n -\n", b"{2 , 2\n/b 1\n", b"{2 ? 1\n/b 1\n", b"{1 , 0\n",
    b"{2 , 1\na 1\n", b"{2 , 99999999999\n/b 1\n", b"{2 , 0\n{2 , 0\n", b"{2 , 1\n/c -\n",
]  # fmt: skip
"""Operations that are cut off, out of bounds, or none."""


@pytest.mark.parametrize("data", DAMAGED)
def test_a_damaged_delta_is_refused(data: bytes) -> None:
    with pytest.raises(DeltaError) as caught:
        rebuild(data, BASE, max_bytes=10**6)
    assert caught.value.reason == Reason.MALFORMED
    assert caught.value.hint


@pytest.mark.parametrize(
    "data",
    [
        b"=1\n" * 1_000_000,
        b"~1 " + b"@1:1=60" * 100_000 + b"\n",
        b"{2 ; 1\n/b " + b'"' + "é".encode() * 60_000 + b'"\n',
        b"+user 100001\n" + b"a" * 100_001 + b"\n",
    ],
)
def test_a_delta_that_grows_beyond_what_it_announced_is_refused(data: bytes) -> None:
    with pytest.raises(DeltaError) as caught:
        rebuild(data, BASE, max_bytes=100_000)
    assert caught.value.reason == Reason.TOO_LARGE


def test_a_delta_of_countless_empty_sections_is_refused() -> None:
    base = Context((Section("user"),) * 1000)
    with pytest.raises(DeltaError) as caught:
        rebuild(b"=1-1000\n" * 1001, base, max_bytes=10)
    assert caught.value.reason == Reason.TOO_LARGE


def test_what_gives_another_context_than_it_says_is_refused() -> None:
    delta = make_delta(EMPTY, BASE)
    for target, size in (("0" * 32, BASE.size), (BASE.digest, BASE.size + 1)):
        with pytest.raises(DeltaError) as caught:
            apply_delta(delta.data, EMPTY, target, size=size)
        assert caught.value.reason == Reason.HASH_MISMATCH


def test_a_size_that_is_negative_or_beyond_the_limit_is_refused() -> None:
    for size in (-1, 10**12):
        with pytest.raises(DeltaError) as caught:
            apply_delta(b"", EMPTY, EMPTY.digest, size=size)
        assert caught.value.reason == Reason.TOO_LARGE


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Return data with a few bytes changed, dropped, doubled, cut off or put elsewhere."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(changed) + 1)
        size = chance.choice((1, 1, 2, 8, 60))
        what = chance.randrange(6)
        if what == 0 and at < len(changed):
            changed[at] ^= 1 << chance.randrange(8)
        elif what == 1:
            del changed[at : at + size]
        elif what == 2:
            changed[at:at] = changed[at : at + size]
        elif what == 3:
            changed[at:at] = chance.choice((b"-1", b"999999999", b"=1-9\n", b"\0", b"+", b"@2:1", b'"', b"\xff"))
        elif what == 4:
            del changed[at:]
        else:
            changed[at:at] = chance.randbytes(size)
    return bytes(changed)


def test_mutated_deltas_never_crash_and_never_give_another_context() -> None:
    chance = random.Random(6)  # noqa: S311  (reproducible, no secret)
    state = b'{"a":[1,2,3],"b":{"c":null},"d":"' + b"text, " * 30 + b'"}'
    base = Context((*BASE.sections, Section("state", "s t", state)))
    target = Context(
        (
            Section("user", content=BASE.sections[0].content.replace(b"two\nthree", b"two, new and\nthree", 2)),
            Section("state", "s t", state.replace(b"null", b"[7]").replace(b"1,2", b"1,5,2")),
            Section("tool_result", "é", b"all of this is new\n" * 3),
            BASE.sections[1],
        )
    )
    delta = make_delta(base, target)
    same = 0
    for _ in range(5_000):
        data = mutated(delta.data, chance)
        try:
            given = apply_delta(data, base, target.digest, size=target.size)
        except DeltaError:
            continue
        assert given.sections == target.sections
        same += 1
    assert same < 500


def test_five_thousand_messages_are_compared() -> None:
    sections = [Section("user", content=b"message %d\n" % number * 20) for number in range(5_000)]
    base = Context(tuple(sections))
    changed = [*sections[:2_000], Section("user", content=b"put in\n"), *sections[2_001:4_990], sections[0]]
    target = Context(tuple(changed))
    delta = make_delta(base, target)
    assert delta.changes == (4_989, 1, 0, 1, 11)
    assert len(delta.data) < 100
