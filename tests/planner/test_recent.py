"""What sessions remember, and that they forget."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from apportion.planner import forms, sizes
from apportion.planner.forms import Forms
from apportion.planner.live import ContextItem
from apportion.planner.recent import Recent
from apportion.planner.session import Planner
from apportion.planner.session_core import MOST_ENDED
from apportion.planner.sizes import Sizes
from apportion.records import Usage
from apportion.tokens import TokenCounter

if TYPE_CHECKING:
    import pytest


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 20), st.integers(1, 4))))
def test_what_is_remembered_is_right_and_never_more_than_two_halves(acts: list[tuple[bool, int, int]]) -> None:
    recent: Recent[int, str] = Recent(10)
    weights: dict[int, int] = {}
    for keeps, key, weight in acts:
        if recent.get(key) is None and keeps:
            recent.keep(key, str(key), weights.setdefault(key, weight))
            assert recent.get(key) == str(key)
        assert recent.get(key) in {None, str(key)}
        assert sum(weights[each] for each in weights if each in {*recent._newer, *recent._older}) <= 20


def test_what_is_asked_for_again_and_again_is_not_forgotten() -> None:
    recent: Recent[int, str] = Recent(10)
    recent.keep(-1, "kept", 1)
    for key in range(1000):
        recent.keep(key, str(key), 1)
        assert recent.get(-1) == "kept"
    assert len(recent) <= 20


def test_forms_and_sizes_forget_old_contents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forms, "MOST_BYTES", 20_000)
    monkeypatch.setattr(sizes, "MOST_CHARACTERS", 20_000)
    made, counted, counter = Forms(), Sizes(), TokenCounter(None)
    for number in range(30):
        text = f"{number} " * 1000
        assert made.of(text.encode()) == Forms().of(text.encode())
        assert counted.of(text, counter) == Sizes().of(text, counter)
    assert len(made._known) < 30
    assert len(counted._known) < 30


def test_a_session_forgets_runs_that_ended_but_for_the_last_which_can_go_on() -> None:
    with Planner(ahead=False).session("w") as session:
        for number in range(2 * MOST_ENDED):
            step = session.before("a", [ContextItem("go")], run_id=f"{number}")
            session.finished(f"{number}")
            session.after(step, Usage(input_uncached=10, output=1))  # it was under way
        assert len(session._runs) == MOST_ENDED
        last = f"{2 * MOST_ENDED - 1}"
        session.before("a", [ContextItem("go"), ContextItem("on")], run_id=last)
        assert session._runs[last].calls == 1
        for number in range(MOST_ENDED):
            session.finished(f"other {number}")
        assert set(session._runs) == {last}
