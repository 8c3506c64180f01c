from __future__ import annotations

import pytest

from apportion.errors import InputError
from apportion.planner.live import ContextItem
from apportion.planner.session import Planner
from apportion.planner.steps import Decision
from apportion.planner.watchdog import Watchdog, WatchdogLimits
from apportion.records import Kind, Usage

TASK = [ContextItem("go on")]


class Timer:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def turn(number: int, result: str, call: str = '{"path": "a"}') -> list[ContextItem]:
    return [
        ContextItem(call, Kind.TOOL_CALL, "Read", str(number)),
        ContextItem(result, Kind.TOOL_RESULT, "Read", str(number)),
    ]


def test_an_agent_that_starts_itself_again_and_again_is_refused() -> None:
    with Planner().session("w") as session:
        decisions = []
        for depth in range(5):
            parent = f"run {depth - 1}" if depth else None
            decisions.append(session.before("digger", TASK, run_id=f"run {depth}", parent=parent).decision)
    assert decisions == [Decision.RUN] * 3 + [Decision.REFUSE] * 2


def test_a_chain_of_agents_that_is_too_deep_is_refused_and_a_wide_one_is_not() -> None:
    with Planner().session("w") as session:
        for depth in range(8):
            parent = f"run {depth - 1}" if depth else None
            step = session.before(f"agent {depth}", TASK, run_id=f"run {depth}", parent=parent)
            assert step.runs == (depth < 6), depth
        assert "runs stand above one another (limit 6)" in step.reasons[0]
        assert all(session.before(f"child {n}", TASK, run_id=f"c{n}", parent="run 0").runs for n in range(30))


def test_a_run_that_is_its_own_ancestor_is_refused() -> None:
    dog = Watchdog(WatchdogLimits(), Timer())
    assert dog.refusal("a", "one", None, TASK) is None
    assert dog.refusal("b", "two", "one", TASK) is None
    assert "among those that started it" in (dog.refusal("a", "one", "two", TASK) or "")


def test_the_same_call_with_the_same_result_is_no_progress() -> None:
    history = list(TASK)
    with Planner().session("w") as session:
        decisions = []
        for number in range(7):
            step = session.before("main", history)
            decisions.append(step.decision)
            if step.runs:
                session.after(step, Usage(input_uncached=10, output=5))
                history += turn(number, "no such file")
        assert decisions == [Decision.RUN] * 5 + [Decision.REFUSE] * 2
        assert "same result 5 times" in step.reasons[0]
        session.forgive("main")
        assert session.before("main", history).runs


@pytest.mark.parametrize("what", ["results differ", "calls differ"])
def test_progress_is_let_alone(what: str) -> None:
    history = list(TASK)
    with Planner().session("w") as session:
        for number in range(20):
            step = session.before("main", history)
            assert step.runs
            session.after(step, Usage(input_uncached=10, output=5))
            if what == "results differ":
                history += turn(number, f"line {number}")
            else:
                history += turn(number, "ok", call=f'{{"path": "{number}"}}')


def test_empty_outputs_in_a_row_are_no_progress() -> None:
    with Planner().session("w") as session:
        outputs = [0, 0, 5, 0, 0, 0]
        for output in outputs:
            step = session.before("main", TASK)
            assert step.runs
            session.after(step, Usage(input_uncached=10, output=output))
        assert session.before("main", TASK).decision is Decision.REFUSE


def test_a_run_that_calls_too_often_waits_for_the_minute_to_pass() -> None:
    timer = Timer()
    with Planner(timer=timer, watchdog=WatchdogLimits(calls_per_minute=3)).session("w") as session:
        for _ in range(3):
            session.after(session.before("main", TASK), Usage(input_uncached=10, output=1))
        assert session.before("main", TASK).decision is Decision.REFUSE
        assert session.before("other", TASK).runs
        timer.now += 61
        assert session.before("main", TASK).runs


def test_switched_off_it_refuses_nothing() -> None:
    off = WatchdogLimits(depth=None, same_agent=None, same_results=None, empty_outputs=None, calls_per_minute=None)
    history = list(TASK)
    with Planner(watchdog=off).session("w") as session:
        for number in range(70):
            step = session.before("main", history, run_id=f"run {number}", parent=f"run {number - 1}")
            assert step.runs
            session.after(step, Usage(input_uncached=10, output=0))
            history += turn(number, "same")


def test_limits_below_one_are_refused() -> None:
    with pytest.raises(InputError, match="depth must be at least 1"):
        WatchdogLimits(depth=0)
