from __future__ import annotations

import json
from typing import Any

import pytest

from apportion.compression.strategies._json_reader import Reader, cut_blocks
from apportion.compression.strategies._json_shapes import find_shapes, is_number
from apportion.compression.strategies._json_text import (
    Number,
    Pairs,
    Style,
    embed,
    find_segments,
    guess_style,
    write,
)
from apportion.compression.strategies.json_columns import JsonColumns
from apportion.compression.strategies.types import Item, Query

ISSUES = [
    {
        "id": number,
        "title": f"Fix (the) thing, no. {number}",
        "state": "open for discussion" if number % 3 else "closed",
        "private": False,
        "user": {"login": "ada" if number % 2 else "bob", "id": 70 + number % 2},
        "labels": [{"id": 1, "name": "bug"}] * (number % 3),
    }
    for number in range(1, 7)
]


def form_of(text: str) -> str:
    form = JsonColumns().encode(text, Item(text.encode()), Query())
    assert form is not None
    assert JsonColumns().decode(form, ()) == text
    return form


def test_rows_stand_under_a_legend() -> None:
    shapes = (
        "A(id|title:s|state:s~open for discussion|private=false|user:B|labels:[C])",
        "B(login:s|id)",
        "C(id=1|name=bug)",
    )
    legend = " ".join(shapes)
    assert form_of(json.dumps(ISSUES, separators=(",", ":"))).split("\n") == [
        f"[json {legend}; @]",
        "@A[",
        "1|Fix (the) thing, no. 1|_|(ada|71)|[()]",
        "2|Fix (the) thing, no. 2|_|(bob|70)|[(),()]",
        "3|Fix (the) thing, no. 3|closed|(ada|71)|[]",
        "4|Fix (the) thing, no. 4|_|(bob|70)|[()]",
        "5|Fix (the) thing, no. 5|_|(ada|71)|[(),()]",
        "6|Fix (the) thing, no. 6|^|(bob|70)|[]",
        "]",
    ]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"separators": (",", ":")}, ""),
        ({}, " spaced"),
        ({"indent": 2}, " indent2 spaced"),
        ({"indent": 1}, " indent1 spaced"),
        ({"indent": "\t"}, " tab spaced"),
    ],
)
def test_the_white_space_is_named_and_restored(options: dict[str, Any], words: str) -> None:
    form = form_of(json.dumps(ISSUES, **options))
    assert form.startswith(f"[json{words} A(")
    assert form.partition("\n")[2].startswith("@A[\n1|Fix (the) thing, no. 1|")


def test_optional_keys_are_blank_and_the_order_of_keys_stays() -> None:
    text = '[{"a":1,"b":2,"c":3},{"a":4,"c":5},{"a":6,"b":7,"c":8},{"c":9,"a":1,"b":3}]'
    assert form_of(text) == "[json A(a|b|c); @]\n@[\nA:1|2|3\nA:4||5\nA:6|7|8\n{c:9,a:1,b:3}\n]"


def test_rows_with_many_keys_name_them_and_leave_out_what_is_usual() -> None:
    rows = [{f"key{column}": column if row else None for column in range(14)} | {"id": row} for row in range(5)]
    form = form_of(json.dumps(rows))
    assert "key13~13|id)" in form
    assert form.endswith("\nid:1\nid:2\nid:3\nid:4\n]")


def test_the_value_of_the_row_above_is_not_written_again() -> None:
    rows = [{"day": day, "n": number} for day in ("2026-01-02", "2026-01-03", "2026-01-04") for number in range(2)]
    assert form_of(json.dumps(rows)).endswith("[\n2026-01-02|0\n^|1\n2026-01-03|0\n^|1\n2026-01-04|0\n^|1\n]")


def test_a_value_that_stood_last_for_its_key_in_another_kind_of_object_is_not_written_again() -> None:
    rows = [
        each for n in range(3) for each in ({"run": f"run-{n}", "step": n}, {"run": f"run-{n}", "ok": n, "took": n})
    ]
    form = form_of("\n".join(map(json.dumps, rows)))
    assert form.endswith("@*[\nB:run-0|0\nA:^|0|0\nB:run-1|1\nA:^|1|1\nB:run-2|2\nA:^|2|2\n]")


def test_objects_inside_others_of_their_kind_come_back() -> None:
    inner = [{"id": "aaaaaaaa", "at": f"2026-01-02T10:20:3{n}Z", "in": []} for n in range(4)]
    rows = [each | {"in": [each | {"in": inner[:n]}]} for n, each in enumerate(inner)]
    form_of(json.dumps([*rows, *inner, *rows]))


@pytest.mark.parametrize(
    "value",
    ["1.10", "1E5", "1e400", "-0", "NaN", "-Infinity", "12345678901234567890.12345", "9" * 5000, "1e-400"],
)
def test_numbers_keep_their_spelling(value: str) -> None:
    assert f"{value}|" in form_of(f'[{{"x":{value},"n":1}},{{"x":0,"n":2}},{{"x":{value},"n":3}}]')


@pytest.mark.parametrize(
    "value",
    ["true", "null", "12", "-1.5", "NaN", "_", "^", "$1", "%", "%%{}", "", " x", "x ", "a|b", "(x)", "[x]", '"x"',
     "A(1)", "B:1|2", "é", "\u2028", "\x1b[31m", "C:\\x", "a\nb", "@", "*"],
)  # fmt: skip
def test_strings_are_told_from_everything_that_looks_like_them(value: str) -> None:
    rows: list[dict[str, Any]] = [{"a": value, "b": 1}, {"a": 5, "b": value}, {"a": value, "b": [value, {"c": value}]}]
    for text in (json.dumps(rows), json.dumps(rows, ensure_ascii=False), json.dumps({"x": rows, value: value})):
        form_of(text)


def test_duplicate_keys_stay() -> None:
    assert "{a:1,a:2," in form_of('{"a":1,"a":2,"rows":[{"x":1},{"x":2}]}')


def test_a_key_that_occurs_again_in_each_object_is_a_column_with_a_number() -> None:
    lines = [f'{{"id":"s{n}","msg":"turn {n}","id":"s{n}","id":"t{n}"}}' for n in range(6)]
    form = form_of("\n".join(lines))
    assert form.split("\n")[:3] == ["[json A(id:s|msg:s|id#2:s|id#3:s); @]", "@*A[", "s0|turn 0|s0|t0"]
    form_of("\n".join('{"a":1,"a":2,"a#2":3,"b":4}' for _ in range(6)))  # a name that ours could be taken for
    form_of("\n".join('{"a":"one more","a#2":3,"b":4}' for _ in range(6)))
    form_of("\n".join('{"a#2":"one more","c#d":3,"b":4}' for _ in range(6)))
    wide = ",".join(f'"k{n}":%d' for n in range(15))
    form_of("\n".join(f'{{{wide % tuple(range(m, m + 15))},"k3":{m}}}' for m in range(4)))


def test_text_of_several_lines_stands_at_the_end_as_it_is() -> None:
    form = form_of(json.dumps({"output": "first line\n  second\n", "exit_code": 0, "again": "first line\n  second\n"}))
    assert form == ("[json spaced $3; @]\n@{output:$1,exit_code:0,again:$1}\n$1\nfirst line\n  second\n")


def test_json_inside_strings_is_written_like_the_rest() -> None:
    calls = [{"name": "read", "arguments": json.dumps({"path": f"src/{name}.py", "limit": 10})} for name in "abc"]
    form = form_of(json.dumps(calls, separators=(",", ":")))
    assert form == (
        "[json A(name=read|arguments) B(path:s|limit=10); @]\n@A[\n%%B(src/a.py)\n%%B(src/b.py)\n%%B(src/c.py)\n]"
    )


def test_one_value_per_line_makes_one_table() -> None:
    lines = "\n".join(json.dumps({"level": "INFO", "n": number}) for number in range(4))
    assert form_of(f"log:\n{lines}\nend").endswith("log:\n@*A[\n0\n1\n2\n3\n]\nend")


def test_json_amid_text_is_found_and_the_text_stays() -> None:
    form = form_of(f"Status 200 [OK]\nresult: {json.dumps(ISSUES)}\n@user said so {{}}\n")
    assert form.startswith("[json spaced A(")
    assert "Status 200 [OK]\nresult: ~A[\n" in form
    assert form.endswith("\n@user said so {}\n")


def test_every_mark_taken_leaves_the_text() -> None:
    text = "@~^§¤¦‖※†" + json.dumps(ISSUES)
    assert JsonColumns().encode(text, Item(text.encode()), Query()) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a":"<b>","x":"................"}', ""),
        ('{"a":"\\u003cb\\u003e","x":"........"}', "ascii html"),
        ('{"a":"x\\/y","x":"................"}', "slash"),
        ('{"a":"x\\\\/y","x":"a/b............."}', ""),
        ('{"a":"\\u00e9","x":".............."}', "ascii"),
    ],
)
def test_the_spelling_of_strings_is_part_of_the_style(text: str, words: str) -> None:
    segment = next(find_segments(text))
    style = guess_style(text, segment)
    assert write(segment.value, style) == text
    assert style.words() == words
    assert Style.parse(words) == style


@pytest.mark.parametrize("words", ["indent2 tab", "bold"])
def test_an_unknown_style_is_an_error(words: str) -> None:
    with pytest.raises(ValueError, match="unknown style"):
        Style.parse(words)


def test_segments_are_found_by_brackets_that_can_begin_json() -> None:
    rows = json.dumps([{"n": number} for number in range(500)])
    text = f"[INFO] x [2026-01-02 10:00] {{x}}\n[[1,2,3,4,5,6,7,8,9,10,11,12]] tail\n  {rows}"
    assert [text[start:end] for start, end, _ in find_segments(text)] == ["[[1,2,3,4,5,6,7,8,9,10,11,12]]", rows]


def test_embedded_json_is_read_where_it_is_spelled_in_one_of_two_ways() -> None:
    spaced, odd = '{"a": 1, "b": [1, 2, 3, 4]}', '{"a": 1,"b":[1, 2, 3, 4, 5]}'
    value = embed(Pairs([("x", spaced), ("y", odd), ("z", "{not JSON, but long enough}")]))
    assert value[0][1].spaced
    assert value[1:] == [("y", odd), ("z", "{not JSON, but long enough}")]
    assert write(value[0][1].value, value[0][1].style) == spaced


def test_shapes_need_two_objects_and_unite_those_that_differ_little() -> None:
    def pairs(keys: str) -> Pairs:
        return Pairs((key, Number("1")) for key in keys)

    shapes = find_shapes([[pairs("abcd"), pairs("abd"), pairs("abcde"), pairs("xy"), pairs("badc"), Pairs()]])
    assert {"".join(keys): shape.name for keys, shape in shapes.items()} == {"abcd": "A", "abd": "A", "abcde": "A"}
    assert "".join(field.key for field in shapes["a", "b", "d"].fields) == "abcde"


@pytest.mark.parametrize("spelling", ["", "1_000", "+1", "1.2.3", "0x1", "--1", "infinity", "١"])
def test_what_is_no_number(spelling: str) -> None:
    assert not is_number(spelling)


def test_damaged_forms_raise_errors_that_validation_understands() -> None:
    with pytest.raises(ValueError, match="block 1 is missing"):
        cut_blocks("x\n$2\ny", [1])
    with pytest.raises(ValueError, match="expected"):
        Reader("{a", 0, {}, []).top()


def test_a_row_that_begins_like_the_end_of_its_table_does_not_end_it() -> None:
    one = [{"status": value} for value in ["open", "]", "] closed"] * 4]
    assert form_of(json.dumps(one)).split("\n")[2:5] == ["open", '"]"', '"] closed"']
    two = [{"status": value, "number": number} for number, value in enumerate(["open", "]", "x]"] * 4)]
    assert form_of(json.dumps(two)).split("\n")[2:5] == ["open|0", '"]"|1', "x]|2"]
