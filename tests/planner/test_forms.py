from __future__ import annotations

import json
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from apportion.compression.markers import Lines
from apportion.compression.pipeline import Lossless, restore
from apportion.compression.strategies.cutting import Cut, CutStrategy
from apportion.planner.forms import Forms, ShorterForms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apportion.compression.strategies.types import Item, Outcome, Query

ROWS = json.dumps([{"id": number, "state": "open", "owner": f"person {number % 3}"} for number in range(60)]).encode()


class Middle(CutStrategy):
    """Leaves out all but the first and last lines, and remembers how often it was asked, and for which task."""

    name = "middle"

    def __init__(self) -> None:
        super().__init__()
        self.tasks: list[str] = []

    def choose(self, lines: Sequence[bytes], item: Item, target_tokens: int | None, query: Query) -> Sequence[Cut]:  # noqa: ARG002
        self.tasks.append(query.task)
        return [Cut(Lines(6, len(lines) - 5), "the middle")] if len(lines) > 20 else []


LOG = b"".join(b"record %d: the measured value is %d\n" % (number, number * 7919) for number in range(100))


def test_a_table_is_written_shorter_and_comes_back() -> None:
    form = Forms().of(ROWS).structured
    assert form is not None
    assert form.tokens < 0.7 * form.original_tokens
    assert restore(form, [Lossless()]) == ROWS


def test_what_nothing_makes_shorter_has_no_forms() -> None:
    assert Forms(select=Middle()).of(b"short") == ShorterForms(None, None)


def test_parts_are_left_out_behind_a_handle_where_that_saves_more() -> None:
    forms = Forms(select=Middle()).of(LOG)
    assert forms.selected is not None
    assert forms.selected.tokens < (forms.structured.tokens if forms.structured else forms.selected.original_tokens)
    (gap,) = forms.selected.gaps
    assert LOG[slice(*gap.span)] not in forms.selected.content


def test_the_same_content_is_worked_out_once_per_task() -> None:
    middle = Middle()
    forms = Forms(select=middle)
    first = forms.of(LOG, task="a")
    assert forms.of(LOG, task="a") is first
    forms.of(LOG, task="b")
    assert middle.tasks == ["a", "b"]


def gone(forms: Forms, content: bytes) -> list[Outcome]:
    found = forms.of(content)
    return [form for form in (found.structured, found.selected) if form is not None]


@given(st.binary(max_size=400) | st.text(max_size=400).map(str.encode))
def test_any_bytes_have_forms_that_are_shorter_and_of_this_content(content: bytes) -> None:
    for form in gone(Forms(select=Middle()), content):
        assert form.original == content
        assert form.tokens < form.original_tokens
