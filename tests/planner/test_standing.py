"""Plans that are made ahead: they are used where they fit, and never where something telling has changed."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from apportion.planner.ahead import Ahead
from apportion.planner.live import ContextItem
from apportion.planner.planner import WorkflowPlanner
from apportion.planner.session import Planner
from apportion.records import Action, Budget, Kind, Usage

if TYPE_CHECKING:
    import pytest

MODEL = "claude-sonnet-4-5"


def log(seed: int | str) -> str:
    """Return a log whose lines stand in no other one, so that results cannot refer to each other."""
    return "\n".join(f"record {n}: {sha256(f'{seed} {n}'.encode()).hexdigest()[:20]}" for n in range(120))


class Calls:
    """Counts how often masks are planned by the thread that asks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.joint = self.masks = 0
        for name, counted in (("plan_jointly", "joint"), ("plan_masks", "masks")):
            monkeypatch.setattr(WorkflowPlanner, name, self._counting(getattr(WorkflowPlanner, name), counted))

    def _counting(self, function: Any, name: str) -> Any:
        def counted(*arguments: Any) -> Any:
            setattr(self, name, getattr(self, name) + (threading.current_thread() is threading.main_thread()))
            return function(*arguments)

        return counted


def play(planner: Planner, calls: int, *, budget: int, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Any], Calls]:
    """Play a run under a tight budget; what was sent for each call, and what was planned when it was asked."""
    asked = Calls(monkeypatch)
    history = [ContextItem("look")]
    sent = []
    with planner.session("w", budget=Budget(max_tokens=budget)) as session:
        for number in range(calls):
            history += [
                ContextItem("{}", Kind.TOOL_CALL, "lookup", str(number)),
                ContextItem(log(number), Kind.TOOL_RESULT, "lookup", str(number)),
            ]
            step = session.before("main", history, model=MODEL, expands=True)
            if not step.runs:
                break
            sent.append([item.action for item in step.items])
            prompt = sum(len(text) for text in step.contents) // 3
            session.after(step, Usage(input_uncached=1_000, cache_read=prompt, output=40), output="go on")
            history.append(ContextItem("go on", Kind.ASSISTANT))
            if planner.ahead is not None:
                planner.ahead.wait()
    planner.close()
    return sent, asked


def test_masks_are_planned_between_calls_and_about_as_many_as_when_they_are_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        ahead, asked = play(Planner(), 14, budget=500_000, monkeypatch=patch)
    with monkeypatch.context() as patch:
        when_asked, asked_then = play(Planner(ahead=False), 14, budget=500_000, monkeypatch=patch)
    assert asked_then.joint == asked_then.masks == 14
    assert (asked.joint, asked.masks) == (0, 0)
    masked, masked_then = (sum(row.count(Action.MASK) for row in sent) for sent in (ahead, when_asked))
    assert masked > 0  # the new result is not known when the plan is made, so they are not quite the same
    assert 0.5 * masked_then <= masked <= 2 * masked_then


def test_a_cold_cache_is_telling() -> None:
    now = [datetime(2026, 1, 1, tzinfo=UTC)]
    planner = Planner(clock=lambda: now[0])
    history = [ContextItem("look")]
    with planner.session("w") as session:
        for number in range(6):
            history += [ContextItem(log(number), Kind.TOOL_RESULT, "lookup", str(number))]
            step = session.before("main", history, model=MODEL, expands=True)
            session.after(step, Usage(input_uncached=1_000, output=40))
        assert planner.ahead is not None
        planner.ahead.close()  # nothing is planned ahead any more
        now[0] += timedelta(hours=2)
        step = session.before("main", history, model=MODEL, expands=True)
    assert any(item.action is Action.MASK for item in step.items)


def test_a_plan_for_another_history_is_not_used() -> None:
    planner = Planner()
    with planner.session("w", budget=Budget(max_tokens=300_000)) as session:
        history = [ContextItem(log(n), Kind.TOOL_RESULT, "lookup", str(n)) for n in range(8)]
        for _ in range(3):
            step = session.before("main", history, model=MODEL, expands=True)
            session.after(step, Usage(input_uncached=30_000, output=40))
            assert planner.ahead is not None
            planner.ahead.wait()
        other = [ContextItem(log(f"other {n}"), Kind.TOOL_RESULT, "lookup", str(n)) for n in range(8)]
        step = session.before("main", other, model=MODEL, expands=True)
        assert all(item.action is not Action.MASK for item in step.items)  # nobody has seen them yet


def test_work_ahead_that_fails_is_counted_and_ends_nothing() -> None:
    ahead = Ahead()
    done: list[int] = []
    ahead.do(lambda: 1 // 0)
    ahead.do(lambda: done.append(1))
    ahead.wait()
    assert (done, ahead.failures) == ([1], 1)
    ahead.close()
    ahead.close()
