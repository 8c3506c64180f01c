from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from apportion.compression.pipeline import Lossless
from apportion.compression.strategies.types import Held, Item, Query
from apportion.planner.held import (
    MAX_SOURCES,
    NOT_SHORTER,
    HeldTexts,
    References,
    Referred,
    refer,
    restores,
    shows_lines,
    written_by,
)

LINES = [f"    value_{number} = compute(first={number * 7919}, second='{number}')" for number in range(40)]
FILE = "\n".join(LINES)


def referred(text: str, held: HeldTexts) -> Referred:
    found = refer(text.encode(), held.sources(text), name=None, plain=None)
    assert isinstance(found, Referred)
    assert found.form.original == text.encode()
    return found


def test_what_is_held_is_found_and_the_form_owes_each_source_its_part() -> None:
    held = HeldTexts()
    held.hold(3, "\n".join(LINES[:20]))
    held.hold(5, "\n".join(LINES[20:]))
    held.hold(7, "something else")
    found = referred(FILE, held)
    assert [each.label for each in found.held] == ["#3", "#5"]
    assert sum(found.owed.values()) == found.saved_tokens == found.form.original_tokens - found.form.tokens
    assert restores(found.form, found.held)
    assert not restores(found.form, found.held[:1])
    assert not restores(found.form, (found.held[0], Held("#5", b"something else")))


def test_what_is_gone_is_not_found() -> None:
    held = HeldTexts()
    held.hold(3, FILE)
    held.hold(4, FILE)
    held.release(3)
    assert [each.label for each in held.sources(FILE)] == ["#4"]
    held.truncate(4)
    assert held.sources(FILE) == ()


def test_lines_of_notation_are_no_text_to_refer_to() -> None:
    held = HeldTexts()
    marked = ["@" + line for line in LINES]
    held.hold(1, "\n".join(marked), form=True)
    assert held.sources("\n".join(marked)) == ()
    held.hold(2, "\n".join(marked))
    assert [each.label for each in held.sources("\n".join(marked))] == ["#2"]
    assert held.sources("\n".join([*marked, "\0"])) == ()
    table = Lossless().execute(
        Item(b'[{"id": 1, "of": "a"}, {"id": 2, "of": "b"}, {"id": 3, "of": "c"}]'), None, Query()
    )
    assert table.steps
    assert not shows_lines(table)


def test_few_sources_are_offered_those_that_share_most() -> None:
    held = HeldTexts()
    for row in range(12):
        held.hold(row, "\n".join(LINES[: 4 + 2 * row]))
    assert [each.label for each in held.sources(FILE)] == [f"#{row}" for row in range(12 - MAX_SOURCES, 12)]


def test_a_form_that_is_not_shorter_is_none() -> None:
    held = (Held("#1", FILE.encode()),)
    plain = Lossless().execute(Item(FILE.encode()), None, Query())
    assert refer(b"nothing of it", held, name=None, plain=None) == NOT_SHORTER
    short = plain.__class__.unchanged(FILE.encode(), 5)
    assert refer(FILE.encode(), held, name=None, plain=short) == NOT_SHORTER


def test_what_a_call_writes_is_its_longest_text() -> None:
    assert written_by('{"old_string": "a", "new_string": "longer", "n": 3}') == "longer"
    assert written_by("*** Begin Patch") == "*** Begin Patch"
    assert written_by('{"n": 3}') == ""
    assert written_by('{"n": ') == '{"n": '


def test_what_leaves_a_prompt_leaves_its_references() -> None:
    references = References()
    references.literal.hold(2, FILE)
    found = referred(FILE, references.literal)
    references.forms.update({3: found, 6: found})
    references.whole.update({4: 1, 7: 1})
    references.held_rows = 8
    references.truncate(6)
    assert (list(references.forms), list(references.whole), references.held_rows) == ([3], [4], 6)
    references.forget(3)
    assert not references.forms


class Holding(RuleBasedStateMachine):
    """Texts come and go; what is found is compared with a search through all that is left."""

    def __init__(self) -> None:
        super().__init__()
        self.held = HeldTexts()
        self.texts: dict[int, str] = {}

    @rule(row=st.integers(0, 9), picked=st.lists(st.integers(0, 9), max_size=6))
    def hold(self, row: int, picked: list[int]) -> None:
        self.texts[row] = "\n".join(LINES[number] for number in picked)
        self.held.hold(row, self.texts[row])

    @rule(row=st.integers(0, 9))
    def release(self, row: int) -> None:
        self.texts.pop(row, None)
        self.held.release(row)

    @rule(rows=st.integers(0, 9))
    def truncate(self, rows: int) -> None:
        self.texts = {row: text for row, text in self.texts.items() if row < rows}
        self.held.truncate(rows)

    @invariant()
    def sources_are_texts_that_stand_there_and_share_enough(self) -> None:
        wanted = "\n".join(LINES[:10])
        found = self.held.sources(wanted)
        shared = {row: sum(len(line) + 1 for line in set(text.split("\n")) if line) for row, text in self.texts.items()}
        assert {int(each.label[1:]): each.content.decode() for each in found}.items() <= self.texts.items()
        assert all(shared[int(each.label[1:])] >= 160 for each in found)
        assert len(found) == min(MAX_SOURCES, sum(chars >= 160 for chars in shared.values())) or len(self.texts) > 8


TestHolding = Holding.TestCase
TestHolding.settings = settings(max_examples=40, stateful_step_count=12)
