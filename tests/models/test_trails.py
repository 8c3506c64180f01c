from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st

from apportion.models.trails import END, WINDOW, agent_steps, tool_steps
from apportion.records import Kind
from apportion.telemetry.store import TelemetryStore
from apportion.testing import workflow_logs

if TYPE_CHECKING:
    from collections.abc import Callable

    from apportion.telemetry.events import WorkflowLog

MAIN = ("main", "main")
SAYS, ASKS, CALLS, RESULT = Kind.ASSISTANT, Kind.USER, Kind.TOOL_CALL, Kind.TOOL_RESULT


def names(steps: Any) -> list[str]:
    return [step.name for step in steps]


def test_a_sub_agent_takes_the_floor_and_its_return_is_no_step(workflow: Callable[..., WorkflowLog]) -> None:
    log = workflow([(*MAIN, SAYS, None), ("s1", "Explore", SAYS, None), (*MAIN, SAYS, None), ("s2", "dev", SAYS, None)])
    steps = list(agent_steps(log))
    assert names(steps) == ["Explore", "dev", END]
    assert [step.history for step in steps] == [("main",), ("main", "Explore"), ("main", "Explore", "dev")]


def test_sub_agents_that_run_side_by_side_take_the_floor_once_each(workflow: Callable[..., WorkflowLog]) -> None:
    runs = ["s1", "s2", "s1", "s2"]
    log = workflow([(*MAIN, SAYS, None), *((run, "Explore", SAYS, None) for run in runs)])
    assert names(agent_steps(log)) == ["Explore", "Explore", END]


def test_in_a_shared_context_each_other_speaker_takes_the_floor(workflow: Callable[..., WorkflowLog]) -> None:
    log = workflow([("main", agent, SAYS, None) for agent in ["a", "b", "b", "a"]])
    assert names(agent_steps(log)) == ["b", "a", END]


def test_what_no_model_wrote_is_no_step(workflow: Callable[..., WorkflowLog]) -> None:
    log = workflow([("x", "user", ASKS, None), (*MAIN, SAYS, None), ("x", "terminal", RESULT, None)])
    assert names(agent_steps(log)) == [END]
    assert list(agent_steps(workflow([("x", "user", ASKS, None)]))) == []


def test_before_an_agent_takes_the_floor_only_what_its_forerunner_was_asked_is_known(
    workflow: Callable[..., WorkflowLog],
) -> None:
    log = workflow([(*MAIN, ASKS, None), (*MAIN, SAYS, None), (*MAIN, ASKS, None), ("s", "dev", SAYS, None)])
    assert [step.text for step in agent_steps(log)] == ["text 0", "text 2"]


def test_a_question_beside_the_events_is_what_was_asked(workflow: Callable[..., WorkflowLog]) -> None:
    log = workflow([("main", "a", SAYS, None), ("main", "b", SAYS, None)], meta={"question": "How many?"})
    assert [step.text for step in agent_steps(log)] == ["How many?", "How many?"]


def test_tools_follow_each_other_within_a_run_and_each_turn_ends(workflow: Callable[..., WorkflowLog]) -> None:
    log = workflow(
        [
            (*MAIN, ASKS, None),
            (*MAIN, CALLS, "Read"),
            ("s", "dev", CALLS, "Edit"),
            (*MAIN, RESULT, "Read"),
            (*MAIN, CALLS, "Bash"),
            (*MAIN, ASKS, None),
            (*MAIN, SAYS, None),
        ]
    )
    steps = list(tool_steps(log))
    assert [(step.agent, step.name) for step in steps] == [
        *[("main", name) for name in ("Read", "Bash", END, END)],
        *[("dev", name) for name in ("Edit", END)],
    ]
    assert [step.text for step in steps[:4]] == ["text 0", "text 0", "text 0", "text 5"]


def test_messages_without_an_answer_end_no_turn(workflow: Callable[..., WorkflowLog]) -> None:
    log = workflow([(*MAIN, ASKS, None), (*MAIN, ASKS, None), (*MAIN, SAYS, None), (*MAIN, ASKS, None)])
    assert names(tool_steps(log)) == [END]


@settings(max_examples=25)
@given(log=workflow_logs(max_events=12))
def test_every_trail_ends_and_its_histories_grow_step_by_step(log: WorkflowLog) -> None:
    agents = list(agent_steps(log))
    assert names(agents)[-1:] in ([], [END])
    for before, after in pairwise(agents):
        assert after.history == (*before.history, before.name)[-WINDOW:]
    assert all(len(step.history) <= WINDOW for step in (*agents, *tool_steps(log)))
    written = {event.agent_run for event in log.events if event.call is not None and event.kind.written_by_model}
    assert (names(tool_steps(log))[-1:] == [END]) == bool(written)


@settings(max_examples=20)
@given(log=workflow_logs(max_events=10), cut=st.integers(1, 9))
def test_what_comes_later_does_not_change_the_steps_before(log: WorkflowLog, cut: int) -> None:
    events = tuple(event.model_copy(update={"prompt_steps": None}) for event in log.events)
    whole = log.model_copy(update={"events": events})
    part = log.model_copy(update={"events": events[:cut]})
    earlier = [step for step in agent_steps(part) if step.name != END]
    assert list(agent_steps(whole))[: len(earlier)] == earlier


@settings(max_examples=10)
@given(log=workflow_logs())
def test_a_stored_workflow_without_its_contents_has_the_same_steps_but_their_texts(
    log: WorkflowLog, tmp_path_factory: Any
) -> None:
    with TelemetryStore(tmp_path_factory.mktemp("store") / "t.db", count_tokens=len) as store:
        store.add(log)
        stored = store.load(log.id)
    assert stored is not None
    for steps_of in (agent_steps, tool_steps):
        mine, logged = list(steps_of(stored)), list(steps_of(log))
        assert len(mine) == len(logged)
        assert [(step.name == END, len(step.history)) for step in mine] == [
            (step.name == END, len(step.history)) for step in logged
        ]
        assert all(step.text is None for step in mine)
