from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from apportion.compression.strategies.held_inputs import HeldInputs
from apportion.compression.strategies.held_lines import HeldLines, Numbered, Style, body_of
from apportion.compression.strategies.types import Held, Item, Query
from apportion.testing import check_strategy

CODE = [f"    value_{number} = compute(first={number * 7919}, second='{number}')" for number in range(30)]
STYLES = (Style(6, " ", "→"), Style(0, " ", "\t"), Style(5, "0", "| "), Style(0, " ", ": "), Style(0, " ", " "))


def numbered(lines: list[str], first: int, style: Style = STYLES[0]) -> str:
    return "\n".join(style.spell(first + n) + line for n, line in enumerate(lines))


def form_of(text: str, *held: str) -> list[str]:
    """Return the lines of the form of a text, whose receiver holds others as #1, #2 and so on."""
    strategy = HeldLines()
    given_held = tuple(Held(f"#{number}", each.encode()) for number, each in enumerate(held, 1))
    form = strategy.encode(text, Item(text.encode(), held=given_held), Query())
    assert form is not None
    assert strategy.decode(form, given_held) == text
    return form.split("\n")


@pytest.mark.parametrize("style", STYLES)
def test_a_file_that_is_read_again_after_an_edit_is_what_changed(style: Style) -> None:
    changed = [
        *CODE[:10],
        "    inserted = True",
        "    and_more = True",
        *CODE[10:20],
        "    last = replaced()",
        *CODE[21:],
    ]
    head, *body = form_of(numbered(changed, 1, style), numbered(CODE, 1, style))
    assert f"numbered from n on as '{style}'" in head
    new = [style.spell(11) + changed[10], style.spell(12) + changed[11], style.spell(23) + changed[22]]
    assert body == ["@=#1:1-10", *new[:2], "@13=#1:11-20", new[2], "@24=#1:22-30"]


def test_what_a_call_wrote_is_referred_to_when_a_tool_shows_it_with_numbers_and_the_other_way_round() -> None:
    assert form_of(numbered(CODE, 8), "\n".join(CODE))[1:] == ["@8=#1:1-30"]
    head, *body = form_of("\n".join(CODE[4:9]), numbered(CODE, 8))
    assert (head, body) == ("[held: @=message:lines, @- without numbers]", ["@-=#1:5-9"])


def test_lines_that_stand_just_so_are_referred_to_as_they_stand() -> None:
    assert form_of("\n".join(["new", *CODE]), "other\n" + "\n".join(CODE)) == [
        "[held: @=message:lines]", "new", "@=#1:2-31",
    ]  # fmt: skip


def test_numbers_that_do_not_rise_one_by_one_are_written_out() -> None:
    text = numbered(CODE[:3], 1) + "\n" + numbered(CODE[3:6], 9)
    assert form_of(text, "\n".join(CODE))[1:] == ["@1=#1:1-3", "@9=#1:4-6"]
    odd = "     1→" + CODE[0] + "\n007→" + CODE[1]
    assert form_of(odd, "\n".join(CODE))[1:] == ["@1=#1:1", "007→" + CODE[1]]


def test_nothing_that_is_held_helps() -> None:
    strategy = HeldLines()
    item = Item(b"a\nb", held=(Held("#1", b"a\nb"),))
    assert strategy.encode("a\nb", item, Query()) is None
    assert strategy.encode("\n".join(CODE), Item(b""), Query()) is None


lines = st.lists(
    st.sampled_from(
        [*CODE[:6], "", "}", "@=#1:1", "@-=#1:2", "12: 5", "[held: @=message:lines]", "x" * 50, "\0", "é\r"]
    ),
    max_size=12,
)
texts = st.builds(
    lambda some, first, style: "\n".join(some) if first is None else numbered(some, first, style),
    lines,
    st.none() | st.integers(1, 120),
    st.sampled_from(STYLES),
)


@given(texts, st.lists(texts, max_size=3))
@example(numbered(CODE, 98, Style(0, " ", ":")), [numbered(CODE, 5)])
def test_every_form_gives_its_text_back(text: str, held: list[str]) -> None:
    for strategy, content in ((HeldLines(), text), (HeldInputs(), json.dumps({"a": text, "b": 1}, ensure_ascii=False))):
        given_held = tuple(Held(f"#{number}", each.encode()) for number, each in enumerate(held))
        item = Item(content.encode(), held=given_held)
        outcome = strategy.execute(item, None, Query())
        assert outcome.tokens <= outcome.original_tokens
        if outcome.changed:
            assert strategy.restore(outcome.content, given_held) == content.encode()
            assert strategy.validate(item, outcome)


@given(st.text("0123 \t→|:ab", max_size=14))
def test_a_line_is_its_number_and_what_stands_behind_it(line: str) -> None:
    found = Numbered.read(line)
    if found is None:
        assert body_of(line) == line
    else:
        assert found.style.spell(found.number) + found.body == line
        assert Style.read(str(found.style)) == found.style


def test_the_rules_for_strategies_hold() -> None:
    check_strategy(HeldLines())
    check_strategy(HeldInputs())


def test_the_texts_of_an_input_are_referred_to_and_the_input_stays_json() -> None:
    held = (Held("#1", numbered(CODE, 1).encode()),)
    given_input = {"file_path": "a.py", "old_string": "\n".join(CODE[3:12]), "new_string": "pass", "replace_all": False}
    content = json.dumps(given_input, ensure_ascii=False)
    form = HeldInputs().encode(content, Item(content.encode(), held=held), Query())
    assert form is not None
    assert json.loads(form) == given_input | {"old_string": "[held: @=message:lines, @- without numbers]\n@-=#1:4-12"}
    assert HeldInputs().decode(form, held) == content


@pytest.mark.parametrize("content", ["", "[]", "{", '{"a": ', "no json", '{"a": "[held: @=message:lines]\\n@=#1:1"}'])
def test_inputs_that_are_none_or_imitate_a_reference_stay_as_they_are(content: str) -> None:
    item = Item(content.encode(), held=(Held("#1", "\n".join(CODE).encode()),))
    assert HeldInputs().execute(item, None, Query()).content == content.encode()
